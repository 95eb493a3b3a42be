"""From the outcome of a run to the row that records it: the retry rule is applied here."""

from __future__ import annotations

from typing import assert_never

from enrichd.domain.jobs import RESULT_BYTES_MAX, Claimed
from enrichd.domain.outcomes import (
    Cancelled,
    Completed,
    Failed,
    JobError,
    Outcome,
    Park,
    Released,
    Retry,
    Snooze,
)
from enrichd.domain.retries import RetryRule, backoff_s, may_retry
from enrichd.store.jobs import Ended
from enrichd.store.json_text import dumps

RETRY_S_MAX = 31 * 24 * 3600.0
SNOOZE_S_MAX = 7 * 24 * 3600.0
PARK_S_MAX = 31 * 24 * 3600.0


def ended_of(job: Claimed, outcome: Outcome, rule: RetryRule, dice: float) -> Ended:
    """Return how a run's end is written; `dice` (0 to 1) is the retry's jitter."""
    match outcome:
        case Completed(result):
            return completed(job, result)
        case Failed(error):
            return Ended(job.id, job.attempt, "failed", "failed", error=dumps(error.to_json()))
        case Retry(error, delay_s):
            text = dumps(error.to_json())
            if not may_retry(job.attempt, job.max_retries):
                return Ended(job.id, job.attempt, "dead_letter", "failed", error=text)
            wait_s = backoff_s(rule, job.attempt, dice) if delay_s is None else delay_s
            return Ended(
                job.id,
                job.attempt,
                "scheduled",
                "retry",
                error=text,
                delay_s=bounded(wait_s, RETRY_S_MAX),
            )
        case Snooze(delay_s, reason):
            return Ended(
                job.id,
                job.attempt,
                "scheduled",
                "snoozed",
                error=note("snoozed", reason),
                delay_s=bounded(delay_s, SNOOZE_S_MAX),
                is_refunded=True,
            )
        case Park(deadline_s, reason):
            return Ended(
                job.id,
                job.attempt,
                "waiting",
                "parked",
                error=note("parked", reason),
                delay_s=bounded(deadline_s, PARK_S_MAX),
                is_refunded=True,
            )
        case Cancelled(reason):
            return Ended(
                job.id, job.attempt, "cancelled", "cancelled", error=note("cancelled", reason)
            )
        case Released():
            return Ended(job.id, job.attempt, "pending", "released", delay_s=0.0, is_refunded=True)
        case _:
            assert_never(outcome)


def completed(job: Claimed, result: object) -> Ended:
    """Return a completed run's row; a result that cannot be kept fails the job instead."""
    try:
        text = dumps(result)
    except (TypeError, ValueError, RecursionError) as error:
        return unstorable(job, f"the result is not JSON: {error}")
    size = len(text) if text.isascii() else len(text.encode())
    if size > RESULT_BYTES_MAX:
        return unstorable(job, f"the result has {size:,} bytes; {RESULT_BYTES_MAX:,} is the limit")
    return Ended(job.id, job.attempt, "completed", "completed", result=text)


def unstorable(job: Claimed, message: str) -> Ended:
    """Return the row of a run whose result cannot be kept."""
    error = JobError("unstorable_result", message)
    return Ended(job.id, job.attempt, "failed", "failed", error=dumps(error.to_json()))


def bounded(delay_s: float, longest_s: float) -> float:
    """Return a delay that a timestamp can take: 0 to `longest_s`, and 0 for what is no number."""
    return min(max(float(delay_s), 0.0), longest_s) if delay_s == delay_s else 0.0


def note(kind: str, reason: str) -> str | None:
    """Return why a run was put aside, as an error's JSON text; None without a reason."""
    return dumps(JobError(kind, reason, retryable=True).to_json()) if reason else None
