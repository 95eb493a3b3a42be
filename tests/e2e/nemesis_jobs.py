"""The nemesis's job types: each run leaves a begin and an end in a log that survives its process.

A line is `MONOTONIC_NS WHAT JOB_ID ATTEMPT PID`, appended in one write; all processes of a host
share that clock. What a run does is drawn anew each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from enrichd.plugin import Failed, JobContext, JobError, Retry, Snooze, job_type

LOG_VARIABLE = "NEMESIS_LOG"


class Work(BaseModel, extra="forbid"):
    """How long to work, and how often out of a hundred not to succeed."""

    seconds: float = 0.0
    percent: int = 0


class Leads(BaseModel, extra="forbid"):
    """The leads of a batch."""

    leads: list[str]
    seconds: float = 0.0


def write(what: str, context: JobContext) -> None:
    """Append a line to the log."""
    line = f"{time.monotonic_ns()} {what} {context.job_id} {context.attempt} {os.getpid()}\n"
    log = os.open(os.environ[LOG_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(log, line.encode())
    finally:
        os.close(log)


@contextlib.contextmanager
def logged(context: JobContext) -> Iterator[None]:
    """Log a run's begin and end."""
    write("begin", context)
    try:
        yield
    finally:
        write("end", context)


@job_type("n_work", Work)
async def n_work(payload: Work, context: JobContext) -> dict[str, Any]:
    """Work and succeed."""
    with logged(context):
        await asyncio.sleep(payload.seconds)
    return {"attempt": context.attempt}


@job_type("n_failing", Work)
async def n_failing(payload: Work, context: JobContext) -> Failed:
    """Fail for good."""
    with logged(context):
        await asyncio.sleep(payload.seconds)
    return Failed(JobError("hopeless", "nothing helps"))


@job_type("n_flaky", Work)
async def n_flaky(payload: Work, context: JobContext) -> Any:
    """Fail now and then."""
    with logged(context):
        await asyncio.sleep(payload.seconds)
        if random.randrange(100) < payload.percent:
            return Retry(JobError("flaky", "try again", retryable=True))
    return {"attempt": context.attempt}


@job_type("n_snoozing", Work)
async def n_snoozing(payload: Work, context: JobContext) -> Any:
    """Come back later, now and then."""
    with logged(context):
        if random.randrange(100) < payload.percent:
            return Snooze(random.uniform(0.1, 1.0), "not now")
    return {"attempt": context.attempt}


@job_type("n_deadly", Work)
async def n_deadly(payload: Work, context: JobContext) -> dict[str, Any]:
    """Take the worker down."""
    write("begin", context)
    await asyncio.sleep(payload.seconds)
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@job_type("n_batch", Leads)
async def n_batch(payload: Leads, context: JobContext) -> dict[str, Any]:
    """Do those leads that are not done."""
    with logged(context):
        done = await context.finished_items()
        for number, lead in enumerate(payload.leads, 1):
            if lead not in done:
                await asyncio.sleep(payload.seconds)
                await context.record_item(lead, status="completed", result={"lead": lead})
            await context.progress(number, len(payload.leads))
    return {"leads": len(payload.leads)}
