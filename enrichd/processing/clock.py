"""The clock beside the turns: timeouts, cancels, progress, and how far fair sharing has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from uuid import UUID

from enrichd.domain.jobs import Claimed
from enrichd.errors import Unavailable
from enrichd.logs import get_logger
from enrichd.processing.items import ItemWriter
from enrichd.processing.runs import Runners
from enrichd.queue.changes import Changes
from enrichd.store import lanes, workers
from enrichd.store.database import Database

TICK_S = 0.25
CONTROL_S = 1.0
# A job claimed ahead that has not begun after this long is given back.
PREFETCH_AGE_S = 1.0

log = get_logger("worker")


class Clock:
    """Looks after jobs while a worker has them."""

    def __init__(
        self,
        database: Database,
        runners: Runners,
        writer: ItemWriter,
        changes: Changes,
        *,
        worker_id: Callable[[], UUID],
        tick_s: float,
        give_back: Callable[[Iterable[Claimed]], None],
    ) -> None:
        self._database = database
        self._runners = runners
        self._writer = writer
        self._changes = changes
        self._worker_id = worker_id
        self._tick_s = tick_s
        self._give_back = give_back
        self._vtimes: dict[tuple[str, int], int] = {}

    def note_claimed(self, claimed: Iterable[Claimed]) -> None:
        """Note which ranks were claimed; the highest of each lane is written with the next turn."""
        for job in claimed:
            lane = (job.provider_id, job.priority)
            if job.fair_rank > self._vtimes.get(lane, 0):
                self._vtimes[lane] = job.fair_rank

    async def run(self) -> None:
        """Stop runs that are over their time or were cancelled; write progress; until cancelled."""
        loop = asyncio.get_running_loop()
        next_control = loop.time()
        while True:
            await asyncio.sleep(self._tick_s)
            self._runners.stop_overdue()
            if stale := self._runners.take_stale(PREFETCH_AGE_S):
                self._give_back(stale)
            if loop.time() < next_control or not (self._runners.held or self._vtimes):
                continue
            next_control = loop.time() + CONTROL_S
            try:
                await self._control_turn()
            except Unavailable as error:
                log.debug("control_turn_failed", reason=error.message)
            except Exception as error:
                log.error("control_turn_broke", exc_info=error)

    async def _control_turn(self) -> None:
        async with self._database.connection() as conn:
            if vtimes := self._vtimes.copy():
                await lanes.push_vtime(conn, [(*lane, rank) for lane, rank in vtimes.items()])
                # Only what was pushed goes: a failed push is made good by the next one.
                self._vtimes = {
                    lane: rank for lane, rank in self._vtimes.items() if rank > vtimes.get(lane, 0)
                }
            cancelled = (
                await workers.cancelled_runs(conn, worker_id=self._worker_id())
                if self._runners.held
                else []
            )
        if unstarted := self._runners.cancel(cancelled):
            self._give_back(unstarted)
        for job_id in await self._writer.write_progress():
            if run := self._runners.runs.get(job_id):
                self._changes.note(run.workspace_id, (job_id,))
