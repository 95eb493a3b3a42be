"""The whole trip of a lead list: read, enqueue, run, wait, write, in the order of the rows.

Rows stream through a window of bounded size, so a list of any length needs the same memory. A row's
job carries an idempotency key made of what is known of the lead and what is wanted, so equal rows
share one job, and the same list run again finds its jobs done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from enrichd.ctl.enrich_report import Tally
from enrichd.ctl.lead_jobs import Wish, job_of
from enrichd.ctl.row_feed import RowFeed, size_of
from enrichd.ctl.sheet_reading import BadRow, Row, SheetRow
from enrichd.ctl.sheet_writing import SheetWriter
from enrichd.domain.jobs import RETRYABLE, JobStatus, NewJob
from enrichd.errors import Invalid, NotMigrated, Refused, Unavailable
from enrichd.processing.pauses import backoff
from enrichd.processing.processor import JobProcessor
from enrichd.queue.manager import JobQueueManager
from enrichd.store import job_reads, provider_standing
from enrichd.store.job_reads import End
from enrichd.store.json_text import loads

WINDOW_ROWS = 4_000
WINDOW_CHARS = 32_000_000
"""Of the rows' own cells; jobs and results come on top."""
CHUNK_ROWS = 500
CHUNK_CHARS = 4_000_000
WRITE_ROWS = 500
LOOK_AGAIN_S = 0.05
LOOK_AGAIN_S_MAX = 0.5
STUCK_LOOK_S = 2.0
"""How long nothing has ended before it is looked whether the providers are to be asked at all."""
STUCK_S_MAX = 60.0
"""The longest wait for a provider's breaker that somebody who looks on is kept for."""
AWAY_S_MAX = 60.0
"""How long PostgreSQL may be away before the trip ends."""

ENDED = frozenset({JobStatus.COMPLETED, *RETRYABLE})


@dataclass(slots=True)
class Entry:
    """A row on its way; `job_id` is None for a row that cannot be used."""

    row: Row
    job_id: UUID | None
    error: str | None = None
    is_first: bool = False
    """Whether its job was made for this row, which alone tells what the job did cost."""


class Trip:
    """One run over one list."""

    def __init__(
        self,
        *,
        feed: RowFeed,
        writer: SheetWriter,
        wish: Wish,
        queue: JobQueueManager,
        processor: JobProcessor,
        on_progress: Callable[[Tally], None],
    ) -> None:
        self.tally = Tally()
        self._feed = feed
        self._writer = writer
        self._wish = wish
        self._queue = queue
        self._processor = processor
        self._on_progress = on_progress
        self._unsent: list[Row] = []
        self._window: deque[Entry] = deque()
        self._window_chars = 0
        self._ends: dict[UUID, End] = {}
        # Ids grow with time: whatever is below this one is of an earlier run.
        self._first_id = UUID(int=uuid7().int >> 80 << 80)
        self._made: set[UUID] = set()
        """Jobs that were just made and have no row yet."""
        self._is_stopping = False

    @property
    def is_whole(self) -> bool:
        """Whether every row of the list was written."""
        return self._feed.is_over and not self._unsent and not self._window

    def stop(self) -> None:
        """Stop soon: what is finished stays finished, what runs is given back."""
        self._is_stopping = True
        self._processor.stop()

    async def run(self) -> None:
        """Make the trip; afterwards `is_whole` says whether it got to its end.

        Raises InvalidFile when reading or writing breaks off, Unavailable when PostgreSQL stays
        away, Refused when no provider is to be asked for long.
        """
        # Not in a TaskGroup, which would wrap what one of the two raises.
        running = asyncio.create_task(self._processor.run())
        try:
            await self._carry(running)
        finally:
            self._feed.stop()
            self._processor.stop()
            await running

    async def _carry(self, running: asyncio.Task[Any]) -> None:
        loop = asyncio.get_running_loop()
        idle_s, away_s, away_since = LOOK_AGAIN_S, backoff(), float("inf")
        ended, ended_at = 0, loop.time()
        while not (self._is_stopping or self.is_whole or running.done()):
            try:
                is_moving = await self._step()
            except NotMigrated:
                raise
            except Unavailable as error:
                away_since = min(away_since, loop.time())
                if loop.time() - away_since > AWAY_S_MAX:
                    raise Unavailable(error.message, hint=GO_ON) from error
                await asyncio.wait([running], timeout=min(next(away_s), AWAY_S_MAX / 10))
                continue
            if away_since < float("inf"):
                away_s, away_since = backoff(), float("inf")
            if ended != (ended := self.tally.ended):
                ended_at = loop.time()
            elif loop.time() - ended_at >= STUCK_LOOK_S:
                await self._look_for_trouble()
                ended_at = loop.time()
            if is_moving:
                idle_s = LOOK_AGAIN_S
                continue
            await asyncio.wait([running], timeout=idle_s)
            idle_s = min(idle_s * 1.5, LOOK_AGAIN_S_MAX)

    async def _look_for_trouble(self) -> None:
        """Say whom the trip waits for. Raises Refused if that is to take long."""
        order = self._wish.order
        async with self._queue.database.connection() as conn:
            closed = await provider_standing.broken(
                conn, workspace_id=self._wish.workspace_id, provider_ids=order
            )
        # One that is up takes over the jobs of all that are not.
        if len(closed) < len(set(order)):
            self.tally.waiting_for = None
            return
        soonest = min(closed, key=lambda one: float("inf") if one.left_s is None else one.left_s)
        name = soonest.credential.partition("#")[0]
        if soonest.left_s is None or soonest.left_s > STUCK_S_MAX:
            raise Refused(
                f"{name} is not asked for now: {soonest.reason or 'its breaker is open'}",
                hint=f"Put that right, `enrichctl providers close {soonest.credential}`, and run"
                " the same command again; what is finished is not done twice without --fresh.",
            )
        self.tally.waiting_for = name

    async def _step(self) -> bool:
        """Read and write what can be; say whether there was any."""
        has_read = await self._fill()
        has_written = await self._write()
        if self._writer.is_closed_by_reader:
            self.stop()
        is_moving = has_read or has_written
        if not is_moving:
            await self._look_ahead()
        self._on_progress(self.tally)
        return is_moving

    async def _fill(self) -> bool:
        """Read rows and enqueue their jobs while the window has room; say whether any came."""
        if not self._unsent:
            room = min(WINDOW_ROWS - len(self._window), CHUNK_ROWS)
            if self._feed.is_over or room <= 0 or self._window_chars >= WINDOW_CHARS:
                return False
            self._unsent = self._feed.take(room, CHUNK_CHARS)
            self.tally.read += len(self._unsent)
        # Kept until they are enqueued: after an outage of PostgreSQL they are enqueued again.
        rows = self._unsent
        if rows:
            entries = await self._send(rows)
            self._window.extend(entries)
            self._window_chars += sum(map(size_of, rows))
            self._unsent = []
            self._processor.wake()
        return bool(rows)

    async def _send(self, rows: Sequence[Row]) -> list[Entry]:
        """Enqueue a job for each row that can be used, equal rows sharing one."""
        jobs: dict[str, NewJob] = {}
        keys: list[str | None] = []
        for row in rows:
            job = job_of(row, self._wish) if isinstance(row, SheetRow) else None
            keys.append(job.idempotency_key if job else None)
            if job is not None and job.idempotency_key is not None:
                jobs.setdefault(job.idempotency_key, job)
        sent = await self._enqueue(jobs)
        entries = []
        for row, key in zip(rows, keys, strict=True):
            match sent[key] if key is not None else None:
                case str(error):
                    entries.append(Entry(row, None, error))
                case job_id:
                    is_first = job_id in self._made
                    self._made.discard(job_id)
                    entries.append(Entry(row, job_id, is_first=is_first))
        return entries

    async def _enqueue(self, jobs: dict[str, NewJob]) -> dict[str, UUID | str]:
        """Enqueue jobs by key: each one's id, or why it cannot be enqueued."""
        try:
            done = await self._queue.enqueue_many(list(jobs.values()))
        except Invalid as error:
            if len(jobs) == 1:
                return dict.fromkeys(jobs, error.message)
            sent: dict[str, UUID | str] = {}
            for key, job in jobs.items():
                sent |= await self._enqueue({key: job})
            return sent
        earlier = [one.id for one in done if not one.is_new and one.id < self._first_id]
        if earlier:
            await self._take_up(earlier)
        self._made.update(one.id for one in done if one.is_new)
        return {key: one.id for key, one in zip(jobs, done, strict=True)}

    async def _take_up(self, ids: list[UUID]) -> None:
        """Count what an earlier run has finished, and give its failed jobs another chance."""
        found = await self._statuses(ids)
        again = [job_id for job_id, status in found.items() if status in RETRYABLE]
        if again:
            await self._queue.retry_many(workspace_id=self._wish.workspace_id, ids=again)
        self.tally.known += sum(status is JobStatus.COMPLETED for status in found.values())

    async def _write(self) -> bool:
        """Write the rows at the head of the window whose jobs have ended."""
        head = list(islice(self._window, WRITE_ROWS))
        wanted = {entry.job_id for entry in head if entry.job_id is not None} - self._ends.keys()
        if wanted:
            async with self._queue.database.connection() as conn:
                self._ends |= await job_reads.ends(conn, ids=list(wanted))
        count = 0
        for entry in head:
            if entry.job_id is not None and entry.job_id not in self._ends:
                break
            self._write_row(entry)
            self._window.popleft()
            self._window_chars -= size_of(entry.row)
            count += 1
        if count:
            kept = {entry.job_id for entry in islice(self._window, WRITE_ROWS)}
            self._ends = {key: end for key, end in self._ends.items() if key in kept}
        self.tally.written += count
        self.tally.done_ahead = max(self.tally.done_ahead - count, 0)
        return count > 0

    def _write_row(self, entry: Entry) -> None:
        row = entry.row
        if entry.job_id is None:
            reason = row.reason if isinstance(row, BadRow) else entry.error or "cannot be used"
            self.tally.count_unusable(row.line, reason)
            self._writer.write(row, None, entry.error)
            return
        end = self._ends[entry.job_id]
        if end.status is JobStatus.COMPLETED:
            result = loads(end.result) or {}
            self.tally.count_result(result, is_first=entry.is_first)
            self._writer.write(row, result)
            return
        error = loads(end.error) or {}
        message = str(error.get("message") or f"the job is {end.status}")
        self.tally.count_failure(str(end.status), message)
        self._writer.write(row, None, message)

    async def _look_ahead(self) -> None:
        """Count the rows in the window whose jobs have ended; enqueue again what was deleted."""
        ids = {entry.job_id for entry in self._window if entry.job_id is not None}
        if not ids:
            return
        found = await self._statuses(list(ids))
        ended = {job_id for job_id, status in found.items() if status in ENDED}
        self.tally.done_ahead = sum(entry.job_id in ended for entry in self._window)
        gone = [e for e in self._window if e.job_id is not None and e.job_id not in found]
        if gone:  # somebody pruned them meanwhile
            for entry, again in zip(gone, await self._send([e.row for e in gone]), strict=True):
                entry.job_id, entry.error = again.job_id, again.error
                entry.is_first = again.is_first
            self._processor.wake()

    async def _statuses(self, ids: list[UUID]) -> dict[UUID, JobStatus]:
        async with self._queue.database.connection() as conn:
            return await job_reads.statuses(conn, workspace_id=self._wish.workspace_id, ids=ids)


GO_ON = "Run the same command again to go on: what is finished is not done twice."
