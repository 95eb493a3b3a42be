"""A worker's row in `enrichment_workers`: announced, kept fresh, removed.

The heartbeat has a connection of its own, so that no slow statement of the worker's can hold it up
until its jobs are given away.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from enrichd import __version__
from enrichd.errors import Unavailable
from enrichd.handlers.registry import HANDLERS
from enrichd.logs import get_logger
from enrichd.processing.pauses import backoff
from enrichd.store import workers
from enrichd.store.database import RACES, Database, first_line

# After a missed heartbeat the next try comes soon: what is left of the timeout is short.
MISSED_PAUSE_S = 0.5
FIRST_PAUSE_S = 0.5
LONG_AGO_S = 1e6

log = get_logger("worker")


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a heartbeat says about its worker."""

    worker_id: UUID
    state: str
    running: int
    completed: int
    failed: int
    turned_s: float
    """Seconds since the worker last asked for jobs and got an answer; infinite for never."""


class Pulse:
    """Announces a worker and keeps it alive; says when it was declared dead."""

    def __init__(
        self,
        database: Database,
        *,
        interval_s: float,
        timeout_s: float,
        concurrency: int,
        vitals: Callable[[], Vitals],
    ) -> None:
        self._database = database
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._vitals = vitals

    async def announce(self) -> None:
        """Insert the worker's row; must be committed before its first claim."""
        async with self._database.connection() as conn:
            await workers.insert(
                conn,
                worker_id=self._vitals().worker_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                version=__version__,
                concurrency=self._concurrency,
                job_types=HANDLERS.keys(),
            )

    async def leave(self) -> None:
        """Remove the row. Away with PostgreSQL, it goes stale and its jobs are rescued."""
        with suppress(Unavailable, TimeoutError, *RACES):
            async with asyncio.timeout(self._timeout_s / 3), self._database.connection() as conn:
                await workers.delete(conn, worker_id=self._vitals().worker_id)

    async def beat(self, within_s: float | None = None) -> int | None:
        """Send one heartbeat; return how many jobs the database thinks the worker has.

        None when the worker was declared dead. Raises Unavailable.
        """
        vitals = self._vitals()
        try:
            async with (
                asyncio.timeout(within_s or self._timeout_s / 3),
                self._database.connection() as conn,
            ):
                return await workers.beat(
                    conn,
                    worker_id=vitals.worker_id,
                    state=vitals.state,
                    running=vitals.running,
                    completed=vitals.completed,
                    failed=vitals.failed,
                    turned_s=vitals.turned_s if vitals.turned_s < LONG_AGO_S else None,
                )
        except TimeoutError:
            await self._database.reset()
            raise Unavailable("the heartbeat took too long") from None
        except RACES as error:  # A migration locks the tables in its own order.
            raise Unavailable(f"the heartbeat lost a race: {first_line(error)}") from error

    async def run(
        self,
        *,
        on_beat: Callable[[int], Awaitable[None]],
        on_silence: Callable[[str], Awaitable[None]],
    ) -> None:
        """Beat until cancelled.

        `on_silence` is awaited when the worker was declared dead, or when no heartbeat got through
        for two thirds of the timeout: from then on its jobs may be given to others.
        """
        clock = asyncio.get_running_loop().time
        last = clock()
        # The first one soon: it says that this worker has asked for jobs and got an answer.
        pause_s = min(self._interval_s, FIRST_PAUSE_S)
        while True:
            left_s = last + self._timeout_s * 2 / 3 - clock()
            await asyncio.sleep(min(pause_s * random.uniform(0.9, 1.1), max(left_s, 0.0)))
            left_s = last + self._timeout_s * 2 / 3 - clock()
            pause_s = self._interval_s
            try:
                held = await self.beat(within_s=max(left_s, 0.05))
            except Unavailable as error:
                log.warning("heartbeat_missed", reason=error.message)
                pause_s = min(self._interval_s, MISSED_PAUSE_S)
                if clock() - last < self._timeout_s * 2 / 3:
                    continue
                await on_silence("no heartbeat reached the database")
            else:
                if held is not None:
                    await on_beat(held)
                else:
                    await on_silence("this worker was declared dead")
            last = clock()

    async def is_still_alive(self) -> bool:
        """Wait for PostgreSQL and say whether the worker's row is still alive."""
        pauses_s = backoff()
        while True:
            try:
                return await self.beat() is not None
            except Unavailable:
                await asyncio.sleep(next(pauses_s))
