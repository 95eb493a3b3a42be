"""One bounded run of the queue: what `enrichctl process` and `/api/enrichment/process` both do.

Any number of runs may go on at once, here and elsewhere, beside daemons or instead of them: a job
is claimed once, and a run that vanishes loses its claims to the others like any worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from enrichd.errors import Unavailable
from enrichd.handlers.registry import load_handlers
from enrichd.processing.bounds import Limits, Report
from enrichd.processing.processor import JobProcessor
from enrichd.processing.wiring import Runtime
from enrichd.settings import Settings
from enrichd.store import backlog
from enrichd.store.database import Database

RESERVE_SHARE = 0.1
RESERVE_S_MAX = 15.0
REMAINING_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Done:
    """What a run did, and what it left."""

    report: Report
    remaining: int | None
    """Jobs that were ready at the end, counted up to REMAINING_MAX; None if that could not be
    asked."""
    duration_s: float


def limits_of(max_jobs: int | None, timeout_s: float | None) -> Limits:
    """Return the limits of a run that ends when nothing is left, or at a bound.

    In the last tenth of its time it begins nothing more, so that what runs may still end.
    """
    reserve_s = 0.0 if timeout_s is None else min(timeout_s * RESERVE_SHARE, RESERVE_S_MAX)
    return Limits(max_jobs, timeout_s, is_until_empty=True, reserve_s=reserve_s)


async def process(
    settings: Settings,
    dsn: str,
    limits: Limits,
    *,
    name: str,
    concurrency: int | None = None,
    on_start: Callable[[JobProcessor], None] = lambda _: None,
) -> Done:
    """Run jobs that are ready, as far as `limits` go; hand back what could not be finished.

    `on_start` gets the processor before it runs, to be able to stop it. Raises Unavailable if
    PostgreSQL is away at the start, InvalidSetting for a plug-in that cannot be imported.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    load_handlers(settings.plugins)
    hot, control = (
        Database(dsn, name=f"{name} {purpose}", is_pooler=settings.is_pooler)
        for purpose in ("hot", "control")
    )
    options: dict[str, Any] = {"concurrency": concurrency} if concurrency else {}
    try:
        async with Runtime(settings) as runtime:
            processor = runtime.processor(hot=hot, control=control, **options)
            on_start(processor)
            report = await processor.run(limits)
        return Done(report, await remaining(control), clock() - began)
    finally:
        await hot.close()
        await control.close()


async def remaining(database: Database) -> int | None:
    """Return how many jobs are ready, up to REMAINING_MAX; None if PostgreSQL does not say."""
    try:
        async with database.connection() as conn:
            return await backlog.ready(conn, limit=REMAINING_MAX)
    except Unavailable:
        return None
