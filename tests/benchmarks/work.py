"""What the jobs do, the same for every queue: nothing, sleep, or write down the time."""

from __future__ import annotations

import asyncio
import os
import time

LOG_VARIABLE = "BENCH_LOG"


class Span:
    """When the first job of this process began and the last one ended, on the monotonic clock."""

    began: float | None = None
    ended = 0.0


async def nap(seconds: float) -> None:
    """Sleep, as a job does that waits for a provider."""
    if Span.began is None:
        Span.began = time.monotonic()
    await asyncio.sleep(seconds)
    Span.ended = time.monotonic()


def mark(number: int) -> None:
    """Write down when job `number` began: `NUMBER MONOTONIC_NS`, in one append."""
    now = time.monotonic_ns()
    log = os.open(os.environ[LOG_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(log, f"{number} {now}\n".encode())
    finally:
        os.close(log)
