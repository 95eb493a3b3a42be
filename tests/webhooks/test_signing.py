"""Signatures are those of Standard Webhooks, by its own vector and its own library."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from enrichd.errors import Invalid
from enrichd.webhooks.signing import key_of, new_secret, secret_of, signatures

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = key_of(SECRET)
NOW = 0


@pytest.fixture(scope="module", autouse=True)
def _time_of_the_run() -> None:
    # Not when the module was imported: a long run may be past the library's five minutes by then.
    global NOW
    NOW = int(datetime.now(UTC).timestamp())  # noqa: TID251 - the library has no other clock


def test_the_vector_of_the_specification():
    assert (
        signatures(
            [KEY],
            message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
            timestamp=1614265330,
            body=b'{"test": 2432232314}',
        )
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@given(st.binary(min_size=24, max_size=64), st.dictionaries(st.text(), st.text()))
def test_the_standard_library_takes_what_is_signed(key, data):
    body = json.dumps(data, ensure_ascii=False).encode("utf-8", "replace")
    header = signatures([key], message_id="one", timestamp=NOW, body=body)

    assert Webhook(secret_of(key)).verify(body.decode(), headers(header)) == json.loads(body)


def test_while_a_secret_is_changed_both_take_it():
    new = new_secret()
    header = signatures([key_of(new), KEY], message_id="one", timestamp=NOW, body=b"{}")

    for secret in (new, SECRET):
        assert Webhook(secret).verify("{}", headers(header)) == {}


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({"webhook-id": "two"}, "{}"),
        ({"webhook-timestamp": "a second less"}, "{}"),
        ({}, "{ }"),
    ],
)
def test_another_id_time_or_body_is_not_what_was_signed(change, body):
    if "webhook-timestamp" in change:
        change = {"webhook-timestamp": str(NOW - 1)}
    header = signatures([KEY], message_id="one", timestamp=NOW, body=b"{}")

    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRET).verify(body, {**headers(header), **change})


def test_secrets_are_new_each_time_and_long():
    assert len({new_secret() for _ in range(100)}) == 100
    assert len(key_of(new_secret())) == 32


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        "whsec_%%%",
        "whsec_" + b64encode(bytes(23)).decode(),
        "whsec_" + b64encode(bytes(65)).decode(),
        "whsec_é",
    ],
)
def test_what_is_no_secret_is_refused(secret):
    with pytest.raises(Invalid):
        key_of(secret)


def headers(signature: str) -> dict[str, str]:
    return {
        "webhook-id": "one",
        "webhook-timestamp": str(NOW),
        "webhook-signature": signature,
    }
