"""What is refused at the door: each with its field and what is allowed."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from enrichd.domain.jobs import NewJob
from enrichd.errors import InvalidPayload
from enrichd.queue.intake import row_of
from tests.support import job_types


def new(type="email_validation", payload=None, **rest):
    given = {"emails": ["ada@northwind.test"]} if payload is None else payload
    return NewJob(type, given, **rest)


def nested(depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


WRONG_ARGUMENTS = [
    ("priority", {"priority": 0}),
    ("priority", {"priority": 6}),
    ("priority", {"priority": True}),
    ("priority", {"priority": "1"}),
    ("priority", {"priority": None}),
    ("maxRetries", {"max_retries": -1}),
    ("maxRetries", {"max_retries": 101}),
    ("maxRetries", {"max_retries": 1.5}),
    ("delay", {"delay_s": -1}),
    ("delay", {"delay_s": float("nan")}),
    ("delay", {"delay_s": float("inf")}),
    ("delay", {"delay_s": 366 * 24 * 3600 + 1}),
    ("delay", {"delay_s": "5"}),
    ("delay", {"delay_s": True}),
    ("delay", {"delay_s": timedelta(days=1)}),
    ("delay", {"delay_s": 1, "scheduled_at": datetime(2030, 1, 1, tzinfo=UTC)}),
    ("scheduledAt", {"scheduled_at": datetime(2030, 1, 1)}),  # noqa: DTZ001 - naive on purpose
    ("scheduledAt", {"scheduled_at": datetime(1999, 12, 31, tzinfo=UTC)}),
    ("scheduledAt", {"scheduled_at": date(2030, 1, 1)}),
    ("scheduledAt", {"scheduled_at": "2030-01-01"}),
    ("tags", {"tags": "abc"}),
    ("tags", {"tags": None}),
    ("tags", {"tags": 5}),
    ("tags", {"tags": ["t"] * 21}),
    ("tags.1", {"tags": ["fine", ""]}),
    ("tags.0", {"tags": ["a\0b"]}),
    ("tags.0", {"tags": [5]}),
    ("tags.0", {"tags": ["t" * 101]}),
    ("workspaceId", {"workspace_id": ""}),
    ("workspaceId", {"workspace_id": None}),
    ("workspaceId", {"workspace_id": "w" * 101}),
    ("workspaceId", {"workspace_id": "\ud800"}),
    ("providerId", {"provider_id": ""}),
    ("providerId", {"provider_id": "a\0"}),
    ("idempotencyKey", {"idempotency_key": ""}),
    ("idempotencyKey", {"idempotency_key": "k" * 256}),
    ("idempotencyKey", {"idempotency_key": 5}),
    ("webhookUrl", {"webhook_url": "ftp://northwind.test/"}),
    ("webhookUrl", {"webhook_url": "northwind.test/hook"}),
    ("webhookUrl", {"webhook_url": "http://"}),
    ("webhookUrl", {"webhook_url": "http://[::1"}),
    ("webhookUrl", {"webhook_url": "http://northwind.test:99999/"}),
    ("webhookUrl", {"webhook_url": "http://user:secret@northwind.test/"}),
    ("webhookUrl", {"webhook_url": "http://north wind.test/"}),
    ("webhookUrl", {"webhook_url": "http://northwind.test/\r\nX: y"}),
    ("webhookUrl", {"webhook_url": "http://northwind.test/" + "a" * 2048}),
    ("webhookUrl", {"webhook_url": 5}),
    ("id", {"id": "nonsense"}),
    ("id", {"id": 5}),
    ("type", {"type": None}),
    ("type", {"type": ["email_validation"]}),
    ("payload", {"payload": [1]}),
    ("payload", {"payload": "{}"}),
]


@pytest.mark.parametrize(("field", "arguments"), WRONG_ARGUMENTS)
def test_a_wrong_argument_is_refused_by_name(field, arguments):
    with pytest.raises(InvalidPayload) as refused:
        row_of(new(**arguments))

    assert field in {problem.path for problem in refused.value.fields}
    assert field in str(refused.value)


def test_every_wrong_argument_is_named_at_once():
    with pytest.raises(InvalidPayload) as refused:
        row_of(new(priority=9, max_retries=-1, tags=[""], webhook_url="x"))

    paths = {problem.path for problem in refused.value.fields}
    assert paths == {"priority", "maxRetries", "tags.0", "webhookUrl"}


@pytest.mark.parametrize(
    ("reason", "value"),
    [
        ("NUL", "a\0b"),
        ("surrogate", "a\ud800"),
        ("64-bit", int("9" * 4_000)),
        ("64-bit", 2**64),
        ("NaN", float("nan")),
        ("NaN", float("inf")),
        ("ecursion", nested(10_000)),
        ("serializable", {1, 2}),
        ("serializable", object()),
    ],
)
def test_what_json_or_postgresql_cannot_hold_is_refused(reason, value):
    job_types.reset()  # `echo` takes any object
    for payload in ({"x": value}, {"x": {"y": [value]}}):
        with pytest.raises(InvalidPayload, match=f"(?i){reason}") as refused:
            row_of(new("echo", payload))
        assert [problem.path for problem in refused.value.fields] == ["payload"]


def test_a_nul_in_a_key_is_refused_and_the_text_backslash_u0000_is_not():
    with pytest.raises(InvalidPayload):
        row_of(new("echo", {"a\0": 1}))

    assert row_of(new("echo", {"x": "\\u0000", "y": None})).payload == (r'{"x":"\\u0000","y":null}')


def test_a_payload_past_a_mebibyte_is_refused_with_what_to_do():
    with pytest.raises(InvalidPayload, match="1,048,576 is the limit") as refused:
        row_of(new("echo", {"x": "a" * 1_048_576}))
    assert "Split" in refused.value.hint

    assert row_of(new("echo", {"x": "a" * 1_048_000}))


@pytest.mark.parametrize(
    ("type", "payload", "path"),
    [
        ("email_validation", {}, "emails"),
        ("email_validation", {"emails": []}, "emails"),
        ("email_validation", {"emails": ["a@b.test", 5]}, "emails.1"),
        ("email_validation", {"emails": ["a@b.test"], "emial": 1}, "emial"),
        ("single_lead_enrichment", {"leadId": "1", "inputData": {"emial": "x"}}, "inputData.emial"),
        ("single_lead_enrichment", {"leadId": "1", "stopRule": {"minConfidence": 2}},
         "stopRule.minConfidence"),
        ("batch_lead_enrichment", {"leads": [{"id": "1"}, {"email": 5}]}, "leads.1.email"),
        ("nap", {"seconds": "soon"}, "seconds"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_by_its_dotted_path(type, payload, path):
    with pytest.raises(InvalidPayload) as refused:
        row_of(new(type, payload))

    assert path in [problem.path for problem in refused.value.fields]


def test_an_unknown_type_gets_the_nearest_name():
    with pytest.raises(InvalidPayload, match="unknown job type 'email_validaton'") as refused:
        row_of(new("email_validaton"))
    assert refused.value.hint == "Did you mean email_validation?"

    with pytest.raises(InvalidPayload) as refused:
        row_of(new("zzz"))
    assert "single_lead_enrichment" in refused.value.hint


def test_the_lane_is_the_providers_unless_one_is_given():
    assert row_of(new(provider_id="mine")).provider_id == "mine"
    assert row_of(new()).provider_id == "builtin"
    assert row_of(new("empty", {})).provider_id == "-"


def test_a_batch_is_charged_by_its_leads():
    leads = {"leads": [{"id": str(number)} for number in range(25)]}
    assert row_of(new("batch_lead_enrichment", leads)).cost == 25
