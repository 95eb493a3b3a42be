"""Hints that jobs became ready, for those who enqueue on connections of their own.

A hint follows the commit, on another connection, so that nobody waits in line for it inside a
transaction; one is enough for all jobs of 20 ms.
"""

from __future__ import annotations

import asyncio

from enrichd.errors import Unavailable
from enrichd.logs import get_logger
from enrichd.store.database import RACES, Database
from enrichd.store.listen import notify

EVERY_S = 0.02

log = get_logger("queue")


class Hints:
    """Tells listeners of new jobs. With `run` going, `tell` costs its caller nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._untold = 0
        self._wake = asyncio.Event()
        self._is_running = False

    async def tell(self, jobs: int) -> None:
        """Hint that so many jobs became ready. Never fails: workers also poll."""
        self._untold += jobs
        if self._is_running:
            self._wake.set()
        else:
            await self._send()

    async def run(self) -> None:
        """Send hints until cancelled, at most one in 20 ms and the last one always."""
        self._is_running = True
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._send()
                await asyncio.sleep(EVERY_S)
        finally:
            self._is_running = False

    async def close(self) -> None:
        """Close the connection."""
        await self._database.close()

    async def _send(self) -> None:
        jobs, self._untold = self._untold, 0
        if not jobs:
            return
        try:
            async with self._database.connection() as conn:
                await notify(conn, jobs=jobs)
        except (Unavailable, *RACES) as error:
            log.debug("hint_lost", jobs=jobs, reason=str(error))
