"""The body of an event: its shape, and what goes when it would be too long."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from enrichd.webhooks.messages import BODY_BYTES_MAX, body

AT = datetime(2026, 11, 24, 10, 0, 0, 123_456, tzinfo=UTC)


def said(data: dict[str, Any], **options: Any) -> dict[str, Any]:
    text = json.dumps(data)
    whole = body(event="job.completed", at=AT, data=text, sequence=7, **options)
    assert len(whole) <= BODY_BYTES_MAX
    document: dict[str, Any] = json.loads(whole)
    return document


@pytest.mark.parametrize("data", [{}, {"jobId": "j", "error": None}, {"name": 'Ada "A" Łovelace'}])
def test_an_event_has_a_type_its_time_and_its_data_with_a_sequence(data):
    assert said(data) == {
        "type": "job.completed",
        "timestamp": "2026-11-24T10:00:00.123Z",
        "data": {**data, "sequence": 7},
    }


def test_the_time_is_in_utc_wherever_the_database_is():
    east = AT.astimezone(timezone(timedelta(hours=9)))

    assert b'"2026-11-24T10:00:00.123Z"' in body(event="e", at=east, data="{}", sequence=1)


def test_a_result_that_is_too_long_is_left_to_be_fetched():
    found = said({"jobId": "j", "result": "x" * BODY_BYTES_MAX}, job_path="/jobs/j")

    assert found["data"] == {"jobId": "j", "sequence": 7, "resultPath": "/jobs/j"}


def test_then_everything_long_goes_and_the_rest_stays():
    error = {"type": "provider_down", "message": "y" * BODY_BYTES_MAX}
    found = said({"jobId": "j", "status": "failed", "error": error, "tags": ["a"]})

    assert found["data"] == {"jobId": "j", "status": "failed", "tags": ["a"], "sequence": 7}
