"""Webhooks that come in: proofs, mutations of them, duplicates, tokens, keys, and garbage."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrichd.handlers.context import OutsideEvent
from enrichd.processing.items import ItemWriter
from enrichd.providers import proofs
from enrichd.providers.callbacks import Callbacks, Received
from enrichd.providers.keyring import set_key
from enrichd.providers.operations import Operation
from enrichd.queue.changes import Changes
from enrichd.store import incoming
from enrichd.store.database import Connection, Database
from enrichd.store.sealing import sealer_of
from tests.api.conftest import Served, an_api
from tests.support.factories import a_job, counted, state_of

CLEARBIT_KEY = "sk_abc"
HUNTER_SECRETS = ("hunter-one", "hunter-two")
STANDARD = "whsec_" + b64encode(b"k" * 32).decode()
CACHE_KEY = b"c" * 32
SETTINGS = {
    "CLEARBIT_API_KEY": CLEARBIT_KEY,
    "HUNTER_WEBHOOK_SECRET": ",".join(HUNTER_SECRETS),
    "PDL_WEBHOOK_SECRET": STANDARD,
    "FULLENRICH_API_KEY": "full-key",
    "ENRICHD_SECRET_KEYS": "k1:" + b64encode(b"s" * 32).decode(),
}


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Served]:
    async with an_api(database_url, **SETTINGS) as served:
        yield served


@pytest.fixture
def http(api: Served) -> httpx.AsyncClient:
    """Give a client without a key."""
    return api.client(None)


async def a_parked_job(
    conn: Connection,
    dsn: str,
    *,
    provider: str = "clearbit",
    request_id: str = "req-1",
    workspace_id: str = "team-a",
) -> tuple[UUID, str]:
    """Park a job that waits for a provider's callback; return its id and the token."""
    job = await a_job(conn, workspace_id=workspace_id, status="waiting", attempts=1)
    database = Database(dsn, name="test callbacks")
    waiting = Callbacks(database, base_url="https://enrichd.test")
    expected = await waiting.expect(
        workspace_id=workspace_id,
        job_id=job.id,
        provider_id=provider,
        operation=Operation.ENRICH_PERSON,
        cache_key=CACHE_KEY,
        deadline_s=3600,
    )
    await waiting.asked(expected.token, request_id=request_id, poll_after_s=3600)
    await database.close()
    return job.id, expected.token


async def answer_of(dsn: str, job_id: UUID) -> str | None:
    """Return what a job was called back with."""
    database = Database(dsn, name="test callbacks")
    found = await Callbacks(database).answer_for(job_id, CACHE_KEY)
    await database.close()
    return found.body if isinstance(found, Received) else None


def body_for(request_id: str = "req-1") -> bytes:
    return json.dumps({"id": request_id, "type": "person", "status": 200, "body": {}}).encode()


def clearbit(body: bytes, key: str = CLEARBIT_KEY) -> dict[str, str]:
    signature = hmac.digest(key.removeprefix("sk_").encode(), body, hashlib.sha1).hex()
    return {"X-Request-Signature": f"sha1={signature}"}


def sha(body: bytes, secret: str, algorithm: str = "sha256") -> dict[str, str]:
    return {f"X-Signature-{algorithm}": hmac.digest(secret.encode(), body, algorithm).hex()}


def standard(body: bytes, *, at_s: float = 0.0, message_id: str = "msg_1") -> dict[str, str]:
    """Sign as Standard Webhooks has it, `at_s` seconds from now."""
    stamp = str(int(time.time() + at_s))  # noqa: TID251 - a sender's wall clock
    signed = f"{message_id}.{stamp}.".encode() + body
    signature = b64encode(hmac.digest(b"k" * 32, signed, "sha256")).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature}",
    }


# Who is let in


async def test_a_webhook_that_clearbit_signed_resumes_its_job(http, conn, database_url):
    job_id, _ = await a_parked_job(conn, database_url)
    body = body_for()

    answer = await http.post("/webhook?provider=clearbit", content=body, headers=clearbit(body))

    assert (answer.status_code, answer.json()) == (202, {"receipt": "resumed"})
    assert await state_of(conn, job_id) == "pending"
    assert await answer_of(database_url, job_id) == body.decode()


async def test_a_workspaces_own_key_signs_for_its_own_requests_alone(api, conn, database_url):
    sealer = sealer_of(api.api.settings, b"p" * 32)
    for workspace_id in ("team-a", "team-b"):
        await set_key(
            conn,
            sealer,
            workspace_id=workspace_id,
            provider_id="clearbit",
            key=f"sk_own_{workspace_id}",
        )
    ours, _ = await a_parked_job(conn, database_url, request_id="ours")
    theirs, _ = await a_parked_job(conn, database_url, request_id="theirs", workspace_id="team-b")
    # A provider gives an id out once; should two have the same, a key is good for one of them.
    same, _ = await a_parked_job(conn, database_url, request_id="same")
    same_of_b, _ = await a_parked_job(conn, database_url, request_id="same", workspace_id="team-b")
    http = api.client(None)

    async def post(request_id: str, key: str) -> tuple[int, dict[str, Any]]:
        body = body_for(request_id)
        answer = await http.post(
            "/webhook?provider=clearbit", content=body, headers=clearbit(body, key)
        )
        return answer.status_code, answer.json()

    assert (await post("theirs", "sk_own_team-a"))[0] == 401
    assert (await post("nobodys", "sk_own_team-a"))[0] == 401
    assert await post("ours", "sk_own_team-a") == (202, {"receipt": "resumed"})
    assert await post("ours", "sk_own_team-a") == (202, {"receipt": "duplicate"})
    assert await post("same", "sk_own_team-a") == (202, {"receipt": "resumed"})
    assert [await state_of(conn, job) for job in (ours, same)] == ["pending", "pending"]
    assert [await state_of(conn, job) for job in (theirs, same_of_b)] == ["waiting", "waiting"]
    assert await post("theirs", CLEARBIT_KEY) == (202, {"receipt": "resumed"}), "it is everybody's"


def test_clearbits_signature_is_that_of_its_own_library():
    signature = "sha1=2604d14547ec14a07bd4c15334c4574bc8e42bae"

    assert proofs.sha1_of_key(b"A-OK", {"x-request-signature": signature}, "sk_abc", 0.0)
    assert proofs.sha1_of_key(b"A-OK", {"x-request-signature": signature}, "pk_abc", 0.0)


def test_a_signature_is_that_of_standard_webhooks():
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'

    assert proofs.standard_webhooks(body, headers, secret, 1614265330.0)
    assert proofs.standard_webhooks(body, headers, secret, 1614265330.0 + 299)
    assert not proofs.standard_webhooks(body, headers, secret, 1614265330.0 + 301)
    assert not proofs.standard_webhooks(body, headers, secret, 1614265330.0 - 301)


@pytest.mark.parametrize("secret", HUNTER_SECRETS)
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_each_of_several_secrets_is_enough(http, conn, database_url, secret, algorithm):
    job_id, _ = await a_parked_job(conn, database_url, provider="hunter")
    body = body_for()
    headers = sha(body, secret, algorithm)

    answer = await http.post("/webhook?provider=hunter", content=body, headers=headers)

    assert answer.json() == {"receipt": "resumed"}
    assert await state_of(conn, job_id) == "pending"


async def test_fullenrich_signs_with_its_api_key_and_names_its_request(http, conn, database_url):
    job_id, _ = await a_parked_job(conn, database_url, provider="fullenrich")
    body = b'{"enrichment_id": "req-1", "status": "FINISHED"}'
    headers = sha(body, "full-key", "sha1")

    answer = await http.post("/webhook?provider=FullEnrich", content=body, headers=headers)

    assert answer.json() == {"receipt": "resumed"}
    assert await state_of(conn, job_id) == "pending"


async def test_a_time_stamp_far_off_is_refused(http, conn, database_url):
    await a_parked_job(conn, database_url, provider="pdl")
    body = body_for()
    for at_s in (-310, 310):
        headers = standard(body, at_s=at_s)
        answer = await http.post("/webhook?provider=pdl", content=body, headers=headers)
        assert answer.status_code == 401

    answer = await http.post("/webhook?provider=pdl", content=body, headers=standard(body))

    assert answer.json() == {"receipt": "resumed"}


async def test_whatever_is_wrong_the_answer_is_the_same(http, conn):
    body = body_for()
    asked = [
        ("clearbit", clearbit(body, "sk_other")),
        ("clearbit", {}),
        ("nobody", clearbit(body)),
        ("apollo", sha(body, "")),  # known, and without a secret
        ("apollo", clearbit(body, "")),
        ("hunter", sha(body, "hunter-one,hunter-two")),
        ("hunter", sha(body, "")),
        ("pdl", {"webhook-signature": "v1,", "webhook-id": "", "webhook-timestamp": "0"}),
        ("x" * 100, {}),
        ("\u00fc\u0000", {}),
    ]
    answers = [
        await http.post("/webhook", params={"provider": name}, content=body, headers=headers)
        for name, headers in asked
    ]
    answers.append(await http.post("/webhook/" + "t" * 43, content=body))
    answers.append(await http.post("/webhook", params={"token": "t"}, content=body))

    assert {answer.status_code for answer in answers} == {401}
    shown = [{**answer.json(), "requestId": ""} for answer in answers]
    assert all(one == shown[0] for one in shown)
    assert await counted(conn, "enrichment_incoming_events") == 0
    assert await counted(conn, "enrichment_callbacks") == 0


def test_an_unknown_provider_costs_the_same_work(monkeypatch):
    done: list[str] = []

    def digest(key: bytes, message: bytes, name: Any) -> bytes:
        done.append(getattr(name, "__name__", name))
        return b"x"

    monkeypatch.setattr(proofs.hmac, "digest", digest)
    way = proofs.way_of("nobody")
    proofs.is_proved(way, b"body", {}, (), now_s=0.0)
    unknown, done[:] = list(done), []
    proofs.is_proved(way, b"body", sha(b"body", "a"), ("a",), now_s=0.0)

    assert len(unknown) == 3
    # Our own call of sha() above is among them.
    assert len(done) == len(unknown) + 1


def every_change_of(text: str) -> list[str]:
    """Return a text with each character changed, one left out, one more."""
    changed = [
        text[:place] + chr(ord(char) ^ bit) + text[place + 1 :]
        for place, char in enumerate(text)
        for bit in (1, 32)
    ]
    return [*changed, text[:-1], text + "0", "", text * 2]


@pytest.mark.parametrize("name", ["clearbit", "hunter", "pdl"])
def test_no_change_of_a_byte_or_header_is_let_through(name):
    body = body_for()
    way = proofs.way_of(name)
    secret = {"clearbit": CLEARBIT_KEY, "hunter": "hunter-one", "pdl": STANDARD}[name]
    made = {"clearbit": clearbit(body), "hunter": sha(body, secret), "pdl": standard(body)}[name]
    headers = {key.lower(): value for key, value in made.items()}
    now_s = float(headers.get("webhook-timestamp", "0"))

    def is_proved(body: bytes, headers: dict[str, str]) -> bool:
        return proofs.is_proved(way, body, headers, (secret,), now_s=now_s)

    assert is_proved(body, headers)
    for place in range(len(body)):
        for bit in range(8):
            changed = bytes([*body[:place], body[place] ^ 1 << bit, *body[place + 1 :]])
            assert not is_proved(changed, headers)
    assert not is_proved(body + b" ", headers)
    assert not is_proved(body[:-1], headers)
    for key, value in headers.items():
        for changed_value in every_change_of(value):
            if changed_value.strip() != value:
                assert not is_proved(body, {**headers, key: changed_value}), (key, changed_value)
        assert not is_proved(body, {k: v for k, v in headers.items() if k != key})


# Once


async def test_a_webhook_that_comes_again_changes_nothing(http, conn, database_url):
    job_id, _ = await a_parked_job(conn, database_url)
    body = body_for()
    await http.post("/webhook?provider=clearbit", content=body, headers=clearbit(body))
    await conn.execute(
        "update enrichment_jobs set status = 'waiting', scheduled_at = now() + interval '1 h'"
    )

    answer = await http.post("/webhook?provider=clearbit", content=body, headers=clearbit(body))

    assert (answer.status_code, answer.json()) == (202, {"receipt": "duplicate"})
    assert await state_of(conn, job_id) == "waiting"


async def test_of_many_at_once_one_has_the_effect(http, conn, database_url):
    await a_parked_job(conn, database_url)
    body = body_for()

    answers = await asyncio.gather(
        *[
            http.post("/webhook?provider=clearbit", content=body, headers=clearbit(body))
            for _ in range(12)
        ]
    )

    receipts = [answer.json()["receipt"] for answer in answers]
    assert sorted(receipts) == ["duplicate"] * 11 + ["resumed"]


async def test_the_same_id_with_another_body_is_the_same_message(http, conn, database_url):
    await a_parked_job(conn, database_url, provider="pdl")
    await a_parked_job(conn, database_url, provider="pdl", request_id="req-2")
    first, second = body_for(), body_for("req-2")
    await http.post("/webhook?provider=pdl", content=first, headers=standard(first))

    answer = await http.post("/webhook?provider=pdl", content=second, headers=standard(second))

    assert answer.json() == {"receipt": "duplicate"}


async def test_one_that_comes_before_its_request_is_noted_is_kept(http, conn):
    body = body_for("early")

    answer = await http.post("/webhook?provider=clearbit", content=body, headers=clearbit(body))

    assert (answer.status_code, answer.json()) == (202, {"receipt": "kept"})


async def test_what_came_long_ago_is_forgotten(conn):
    for source, age in (("new", 1), ("old", 8)):
        await incoming.is_first(conn, source=source, event_id="x")
        await conn.execute(
            "update enrichment_incoming_events set received_at = now() - make_interval(days => %s)"
            " where source = %s",
            [age, source],
        )

    assert await incoming.forget(conn) == 1
    assert not await incoming.is_first(conn, source="new", event_id="x")


# By token


@pytest.mark.parametrize("address", ["/webhook/{token}", "/webhook?token={token}"])
async def test_the_token_of_an_address_is_enough(http, conn, database_url, address):
    job_id, token = await a_parked_job(conn, database_url)

    first, again = [
        await http.post(address.format(token=token), content=b"anything at all") for _ in range(2)
    ]

    assert (first.json(), again.json()) == ({"receipt": "resumed"}, {"receipt": "duplicate"})
    assert await state_of(conn, job_id) == "pending"
    assert await answer_of(database_url, job_id) == "anything at all"


# By key


async def test_an_event_with_a_key_resumes_a_parked_job_with_its_data(api, conn):
    job = await a_job(conn, workspace_id="team-a", status="waiting", attempts=1)
    body = {"jobId": str(job.id), "event": "approved", "data": {"by": "Ada", "n": [1, None]}}

    answer = await api.client("key-a").post("/webhook", json=body)

    assert (answer.status_code, answer.json()) == (202, {"receipt": "resumed"})
    assert await state_of(conn, job.id) == "pending"
    found = await incoming.events(conn, job_id=job.id)
    assert [(one.event, one.data) for one in found] == [("approved", body["data"])]


async def test_an_event_answers_what_the_job_asked_a_provider(api, conn, database_url):
    job_id, _ = await a_parked_job(conn, database_url)

    await api.client("key-a").post(
        "/webhook", json={"jobId": str(job_id), "event": "found", "data": {"id": "x"}}
    )

    assert await answer_of(database_url, job_id) == '{"id":"x"}'


async def test_the_next_run_reads_what_was_sent_for_its_job(api, conn, database_url):
    job = await a_job(conn, workspace_id="team-a", status="waiting", attempts=1)
    other = await a_job(conn, workspace_id="team-a", status="waiting", attempts=1)
    for one, said in ((job, "ours"), (other, "theirs")):
        body = {"jobId": str(one.id), "event": "approved", "data": said}
        await api.client("key-a").post("/webhook", json=body)
    database = Database(database_url, name="test items")

    found = await ItemWriter(database, uuid4()).outside_events(str(job.id))
    await database.close()

    assert found == [OutsideEvent("approved", "ours")]


async def test_the_key_must_be_of_the_jobs_workspace_and_may_write(api, conn):
    job = await a_job(conn, workspace_id="team-a", status="waiting", attempts=1)
    body = {"jobId": str(job.id), "event": "approved"}
    answers = {
        key: await api.client(key).post("/webhook", json=body)
        for key in (None, "key-wrong", "key-reads", "key-b")
    }
    missing = await api.client("key-b").post("/webhook", json={**body, "jobId": str(uuid4())})

    assert [answer.status_code for answer in answers.values()] == [401, 401, 403, 404]
    assert missing.json()["code"] == answers["key-b"].json()["code"] == "job_not_found"
    assert await state_of(conn, job.id) == "waiting"
    assert await counted(conn, "enrichment_incoming_events") == 0


async def test_a_job_that_waits_for_nothing_refuses_an_event(api, conn):
    job = await a_job(conn, workspace_id="team-a", status="completed")

    answer = await api.client("key-a").post("/webhook", json={"jobId": str(job.id), "event": "x"})

    assert (answer.status_code, answer.json()["code"]) == (409, "illegal_move")
    assert await counted(conn, "enrichment_incoming_events") == 0


async def test_an_event_with_an_idempotency_key_counts_once(api, conn):
    job = await a_job(conn, workspace_id="team-a", status="waiting", attempts=1)
    client = api.client("key-a", **{"Idempotency-Key": "event 1"})
    body = {"jobId": str(job.id), "event": "approved"}

    answers = [await client.post("/webhook", json=body) for _ in range(2)]

    assert [one.json()["receipt"] for one in answers] == ["resumed", "duplicate"]
    assert await counted(conn, "enrichment_incoming_events") == 1


@pytest.mark.parametrize("way", ["key", "token", "signature"])
async def test_who_listens_is_told_of_a_resumed_job(api, conn, database_url, way):
    job_id, token = await a_parked_job(conn, database_url)
    teller = Changes(Database(database_url, name="test teller"))
    api.api.parts["changes"] = teller
    http, body = api.client(None), body_for()

    match way:
        case "key":
            await api.client("key-a").post("/webhook", json={"jobId": str(job_id), "event": "x"})
        case "token":
            await http.post(f"/webhook/{token}", content=body)
        case "signature":
            path = "/webhook?provider=clearbit"
            await http.post(path, content=body, headers=clearbit(body))

    assert teller._untold == {"team-a": {str(job_id): None}}
    await teller.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 422),
        (b'{"jobId": 1, "event": "x"}', 422),
        (b'{"jobId": "00000000-0000-0000-0000-000000000000"}', 422),
        (b'{"jobId": "00000000-0000-0000-0000-000000000000", "event": "x", "more": 1}', 422),
        (b'{"jobId": "00000000-0000-0000-0000-000000000000", "event": ""}', 422),
        (b'{"a":' * 5_000, 400),
    ],
)
async def test_a_wrong_event_is_explained(api, body, status):
    answer = await api.client("key-a").post("/webhook", content=body)

    assert answer.status_code == status
    assert answer.json()["code"] == "invalid_body"


# Garbage


async def test_a_body_over_a_mebibyte_is_refused_before_it_is_looked_at(http):
    body = b"x" * ((1 << 20) + 1)
    for path in ("/webhook?provider=clearbit", "/webhook/token", "/webhook"):
        answer = await http.post(path, content=body)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b'{"id": {}}', b"{", b"\xff" * 9])
async def test_a_signed_body_that_names_nothing_is_explained(http, body):
    answer = await http.post("/webhook?provider=clearbit", content=body, headers=clearbit(body))

    assert (answer.status_code, answer.json()["code"]) == (422, "no_request_id")


TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.binary(max_size=200) | st.text(max_size=80).map(str.encode),
    signature=TEXT,
    stamp=TEXT,
    name=st.sampled_from(["clearbit", "hunter", "pdl", "nobody"]) | st.text(max_size=20),
    is_signed=st.booleans(),
)
def test_garbage_is_never_our_fault(body, signature, stamp, name, is_signed):
    """Everything in front of the database, where all parsing of what strangers send happens."""
    headers = {
        "x-request-signature": signature,
        "x-signature-sha256": signature,
        "webhook-signature": signature,
        "webhook-id": stamp,
        "webhook-timestamp": stamp,
    }
    way = proofs.way_of(name)
    assert not proofs.is_proved(way, body, headers, ("secret",) if is_signed else (), now_s=0.0)
    found = proofs.request_id_of(way, body)
    assert found is None or 1 <= len(found) <= proofs.REQUEST_ID_LENGTH_MAX
    assert 1 <= len(proofs.event_id_of(body, headers)) <= proofs.EVENT_ID_LENGTH_MAX


async def test_signed_garbage_is_answered_without_a_fault(http):
    strange = [
        b'{"id": "\\u0000"}',
        b'{"id": "\\ud800"}',
        b'{"id": "' + b"x" * 600 + b'"}',
        b'{"id": 123456789012345678901234567890}',
        b'{"id": -1}',
        b'{"id": true}',
        b'{"id": "\xe2\x80\xae"}',
        b'{"id": "x", "id": "y"}',
        b'{"a":' * 2_000,
        b'{"id": "x", "b": "\\u0000"}',
    ]
    for body in strange:
        answer = await http.post("/webhook?provider=clearbit", content=body, headers=clearbit(body))
        assert answer.status_code in (202, 422), (body[:40], answer.text)
