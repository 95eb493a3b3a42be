"""How ends are written: the retry rule, refunds, bounds, and results nobody can keep."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrichd.domain.jobs import RESULT_BYTES_MAX, Claimed
from enrichd.domain.outcomes import (
    Cancelled,
    Completed,
    Failed,
    JobError,
    Park,
    Released,
    Retry,
    Snooze,
)
from enrichd.domain.retries import RetryRule
from enrichd.queue.endings import PARK_S_MAX, SNOOZE_S_MAX, ended_of

RULE = RetryRule(base_delay_s=1.0, max_delay_s=300.0, multiplier=2.0)
ERROR = JobError("later", "try later", retryable=True)


JOB_ID = "01a20a3b-82ad-7594-bde0-0049ebb5f9b9"


def claimed(attempt=1, max_retries=3):
    return Claimed(JOB_ID, attempt, max_retries, "nap", "default", "-", 3, 1, "{}")


def end(outcome, **job):
    return ended_of(claimed(**job), outcome, RULE, 1.0)


@given(st.integers(0, 100), st.integers(1, 101))
def test_a_job_gets_exactly_its_retries(max_retries, attempt):
    ended = end(Retry(ERROR), attempt=attempt, max_retries=max_retries)

    if attempt <= max_retries:
        assert (ended.status, ended.outcome) == ("scheduled", "retry")
        assert ended.delay_s is not None
    else:
        assert (ended.status, ended.outcome, ended.delay_s) == ("dead_letter", "failed", None)
    assert not ended.is_refunded


@pytest.mark.parametrize(
    ("outcome", "status", "kind"),
    [
        (Snooze(5.0), "scheduled", "snoozed"),
        (Park(5.0), "waiting", "parked"),
        (Released(), "pending", "released"),
    ],
)
def test_what_is_put_aside_costs_no_attempt(outcome, status, kind):
    ended = end(outcome)
    assert (ended.status, ended.outcome, ended.is_refunded) == (status, kind, True)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Completed({"a": 1}), "completed"),
        (Failed(ERROR), "failed"),
        (Cancelled("not wanted"), "cancelled"),
    ],
)
def test_a_final_end_has_no_delay(outcome, status):
    ended = end(outcome)
    assert (ended.status, ended.delay_s, ended.is_refunded) == (status, None, False)


@given(st.floats())
def test_any_delay_becomes_one_that_a_timestamp_takes(seconds):
    for outcome, longest_s in (
        (Snooze(seconds), SNOOZE_S_MAX),
        (Park(seconds), PARK_S_MAX),
        (Retry(ERROR, seconds), PARK_S_MAX),
    ):
        delay_s = end(outcome).delay_s
        assert delay_s is not None
        assert 0 <= delay_s <= longest_s


def test_a_result_is_measured_in_bytes():
    fits = {"x": "é" * (RESULT_BYTES_MAX // 2 - 10)}
    too_large = {"x": "é" * (RESULT_BYTES_MAX // 2 + 10)}

    assert end(Completed(fits)).status == "completed"
    ended = end(Completed(too_large))
    assert ended.status == "failed"
    assert json.loads(ended.error)["type"] == "unstorable_result"


@pytest.mark.parametrize("result", [{"a": {1}}, {"a": object()}, object(), {1: {2: object()}}])
def test_a_result_that_is_no_json_fails_its_job(result):
    ended = end(Completed(result))
    assert (ended.status, json.loads(ended.error)["type"]) == ("failed", "unstorable_result")
