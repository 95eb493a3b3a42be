"""What runs say on their way: finished leads of a batch, and progress.

Leads are written in groups: one flush is in flight, what gathers meanwhile goes next. Progress is
coalesced to a write a second, whatever a handler reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID

from enrichd.errors import ClaimLost, Invalid, Unavailable
from enrichd.handlers.context import Item, OutsideEvent
from enrichd.processing.pauses import backoff
from enrichd.store import incoming, items
from enrichd.store.database import RACES, Database, storing
from enrichd.store.items import NewItem
from enrichd.store.json_text import dumps, storable

FLUSH_ROWS_MAX = 200
PROGRESS_MAX = 2**31 - 1


class ItemWriter:
    """Writes finished leads and progress of one worker's runs."""

    def __init__(self, database: Database, worker_id: UUID) -> None:
        self.worker_id = worker_id
        self._database = database
        self._waiting: list[tuple[NewItem, asyncio.Future[None]]] = []
        self._progress: dict[str, tuple[int, int, int]] = {}
        self._wanted = asyncio.Event()

    async def record(
        self,
        job_id: str,
        attempt: int,
        key: str,
        *,
        status: Literal["completed", "failed"],
        result: Mapping[str, Any] | None,
        error: Mapping[str, Any] | None,
    ) -> None:
        """Keep one finished lead; returns when it is durable. Raises ClaimLost."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        item = NewItem(
            job_id=job_id,
            attempt=attempt,
            item_key=storable(key),
            status=status,
            result=None if result is None else dumps(result),
            error=None if error is None else dumps(error),
        )
        self._waiting.append((item, written))
        self._wanted.set()
        await written

    async def run(self) -> None:
        """Write what gathers, until cancelled. PostgreSQL away: try again, the runs wait."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._waiting:
                batch = self._waiting[:FLUSH_ROWS_MAX]
                del self._waiting[:FLUSH_ROWS_MAX]
                await self._flush([pair for pair in batch if not pair[1].done()])

    async def _flush(self, batch: list[tuple[NewItem, asyncio.Future[None]]]) -> None:
        """Write leads together; where PostgreSQL refuses a value, each alone."""
        try:
            owned = await self._write([item for item, _ in batch])
        except Invalid as error:
            if len(batch) == 1:
                settle(batch[0][1], error)
                return
            for pair in batch:
                await self._flush([pair])
            return
        for item, written in batch:
            is_owned = item.job_id in owned
            settle(written, None if is_owned else ClaimLost(f"job {item.job_id} was given away"))

    async def _write(self, batch: list[NewItem]) -> set[str]:
        pauses_s = backoff()
        while True:
            try:
                async with self._database.connection() as conn:
                    return await storing(
                        lambda: items.record(conn, worker_id=self.worker_id, items=batch)
                    )
            except (Unavailable, *RACES):
                await asyncio.sleep(next(pauses_s))

    async def finished(self, job_id: str) -> dict[str, Item]:
        """Return a batch's leads that are done, by key."""
        async with self._database.connection() as conn:
            done = await items.list_all(conn, job_id=UUID(job_id))
        return {
            item.item_key: Item(
                "completed" if item.status == "completed" else "failed", item.result, item.error
            )
            for item in done
        }

    async def outside_events(self, job_id: str) -> list[OutsideEvent]:
        """Return what was sent for a job from outside, oldest first."""
        async with self._database.connection() as conn:
            found = await incoming.events(conn, job_id=UUID(job_id))
        return [OutsideEvent(one.event, one.data) for one in found]

    def report(self, job_id: str, attempt: int, done: int, total: int) -> None:
        """Note how far a run is; the next `write_progress` writes the last one noted.

        A fraction is rounded down and a number past the column's range is cut to it: many runs'
        progress is written in one statement, and one value must not spoil it.
        """
        self._progress[job_id] = (attempt, in_range(done), in_range(total))

    async def write_progress(self) -> list[str]:
        """Write what was noted since the last call; return the jobs it was about."""
        if not self._progress:
            return []
        noted, self._progress = self._progress, {}
        rows = [(job_id, *progress) for job_id, progress in noted.items()]
        try:
            async with self._database.connection() as conn:
                await items.progress(conn, worker_id=self.worker_id, rows=rows)
        except Unavailable:
            self._progress = {**noted, **self._progress}  # What was reported since is newer.
            raise
        return list(noted)


def in_range(count: float) -> int:
    """Return a count as the table takes it. Raises TypeError or ValueError for what is none."""
    if not isinstance(count, (int, float)):
        raise TypeError(f"progress is {type(count).__name__}, not a number")
    if count != count:
        raise ValueError("progress is not a number")
    return int(min(max(count, 0), PROGRESS_MAX))


def settle(written: asyncio.Future[None], error: Exception | None) -> None:
    """Answer the run that waits, unless it was cancelled meanwhile."""
    if written.done():
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
