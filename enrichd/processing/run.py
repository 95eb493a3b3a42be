"""One run of one job: parse, find the handler, run it, and say how it ended.

This is the only place that makes an outcome of an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from enrichd import __version__
from enrichd.domain import payloads
from enrichd.domain.jobs import Claimed
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
from enrichd.errors import (
    ClaimLost,
    EnrichdError,
    Invalid,
    ProviderError,
    ProviderThrottled,
    Unavailable,
)
from enrichd.handlers.context import JobContext
from enrichd.handlers.registry import HANDLERS
from enrichd.logs import get_logger

MESSAGE_LENGTH_MAX = 2_000
# A job of an unknown type waits for a tenth of its age, within these bounds: while old and new
# versions run side by side a new worker gets it soon, and one that nobody knows costs little.
UNKNOWN_TYPE_SNOOZE_S = (1.0, 60.0)
OUTCOMES = (Completed, Failed, Retry, Snooze, Park, Cancelled, Released)

log = get_logger("processing")


async def run_job(job: Claimed, context: JobContext) -> Outcome:
    """Run one claimed job and say how it ended. Never raises but CancelledError and ClaimLost."""
    handler = HANDLERS.get(job.type)
    if handler is None:
        return unknown_type(job)
    task = asyncio.current_task()
    assert task is not None
    cancels = task.cancelling()
    try:
        answer: object = await handler(payloads.parse(job.type, job.payload), context)
    except (ClaimLost, KeyboardInterrupt, GeneratorExit):
        raise
    except asyncio.CancelledError as error:
        if task.cancelling() > cancels:
            raise
        # Nobody stopped the run: the handler awaited something that was cancelled.
        return outcome_of_error(error, job)
    except BaseException as error:  # noqa: BLE001 - a job must not take its worker down
        return outcome_of_error(error, job)
    if isinstance(answer, OUTCOMES):
        return answer
    if isinstance(answer, Mapping):
        return Completed(answer)
    return Failed(
        JobError("bad_result", f"the handler returned {type(answer).__name__}, not a dict")
    )


def unknown_type(job: Claimed) -> Outcome:
    """Leave a job to a worker that knows its type: a newer version may have enqueued it."""
    shortest_s, longest_s = UNKNOWN_TYPE_SNOOZE_S
    return Snooze(
        min(max(job.age_s / 10, shortest_s), longest_s),
        f"a worker of enrichd {__version__} knows no job type {job.type!r}; it waits for one that"
        " does: a newer version, or one with its plug-in in ENRICHD_PLUGINS",
    )


def outcome_of_error(error: BaseException, job: Claimed) -> Outcome:
    """Classify an error: what no retry can mend fails, the rest is tried again."""
    try:
        return classified(error, job)
    except AttributeError:  # a subclass of ours that left out `super().__init__`
        return Failed(JobError(type(error).__name__, message_of(error)))


def classified(error: BaseException, job: Claimed) -> Outcome:
    """Return the outcome of an error by its class."""
    match error:
        case ProviderThrottled():
            return Snooze(error.retry_after_s, error.message)
        case ProviderError():
            kept = JobError(error.code, error.message, error.provider, error.retryable)
            return Retry(kept) if error.retryable else Failed(kept)
        case Invalid():
            fields = tuple((part.path, part.problem) for part in error.fields)
            return Failed(JobError(error.code, error.message, fields=fields))
        case Unavailable():
            return Retry(JobError(error.code, error.message, retryable=True))
        case EnrichdError():
            return Failed(JobError(error.code, error.message))
        case AssertionError():
            log.error("job_broke_an_invariant", job_id=job.id, type=job.type, exc_info=error)
            return Failed(JobError("invariant_broken", message_of(error)))
        case _:
            log.warning("job_raised", job_id=job.id, type=job.type, exc_info=error)
            kept = JobError(type(error).__name__, message_of(error), retryable=True)
            return Retry(kept)


def message_of(error: BaseException) -> str:
    """Return an error's text, cut; a broken `__str__` must not take the worker down."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the text comes from somebody else's class
        text = ""
    return (text or type(error).__name__)[:MESSAGE_LENGTH_MAX]


def timed_out(timeout_s: float) -> Outcome:
    """Return the outcome of a run that took longer than JOB_TIMEOUT."""
    return Retry(
        JobError("job_timeout", f"the run took longer than {timeout_s:g} s", retryable=True)
    )
