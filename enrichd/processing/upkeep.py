"""The queue's upkeep where no housekeeper does it: in bounded runs and in `enrich`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from enrichd.errors import Unavailable
from enrichd.logs import get_logger
from enrichd.processing.floors import Floors
from enrichd.processing.provider_upkeep import ProviderUpkeep
from enrichd.queue.manager import JobQueueManager
from enrichd.store import lanes

TEND_S = 0.5

log = get_logger("worker")


class Upkeep:
    """Promotes due jobs, rescues, lifts floors, tends providers, beside a JobProcessor."""

    def __init__(self, queue: JobQueueManager, *, worker_timeout_s: float) -> None:
        self._queue = queue
        self._floors = Floors(queue.database)
        self._providers = ProviderUpkeep(queue.database)
        self._worker_timeout_s = worker_timeout_s

    async def first(self, *, within_s: Callable[[], float]) -> None:
        """Promote and rescue all there is before a bounded run may find the queue empty."""
        with suppress(Unavailable):
            while (await self._queue.tend(worker_timeout_s=self._worker_timeout_s)).moved:
                if within_s() <= 0:
                    return

    async def run(self, *, on_moved: Callable[[], None]) -> None:
        """Keep the queue moving until cancelled; `on_moved` is called when jobs became ready."""
        while True:
            try:
                reranked = await self._floors.tend(is_active=True)
                async with self._queue.database.connection() as conn:
                    seen = await lanes.look(conn, room=1, worker_timeout_s=self._worker_timeout_s)
                woken = await self._providers.tend(seen)
                moved = 0
                if seen.has_upkeep:
                    upkeep = await self._queue.tend(worker_timeout_s=self._worker_timeout_s)
                    moved = upkeep.moved
            except Unavailable as error:
                log.debug("upkeep_failed", reason=error.message)
            except Exception as error:
                log.error("upkeep_broke", exc_info=error)
            else:
                if woken:
                    on_moved()
                if moved or reranked:
                    on_moved()
                    continue
            await asyncio.sleep(TEND_S)
