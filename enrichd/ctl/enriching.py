"""The whole trip of a lead list: read, enqueue, run, wait, write, in the order of the rows.

Rows stream through a window of bounded size, so a list of any length needs the same memory. A row's
job carries an idempotency key made of what is known of the lead and what is wanted, so equal rows
share one job, and the same list run again finds its jobs done.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from uuid import UUID

import orjson

from enrichd.ctl.sheet_reading import BadRow, Row, Sheet, SheetRow
from enrichd.ctl.sheet_writing import SheetWriter
from enrichd.domain.jobs import RETRYABLE, JobStatus, NewJob
from enrichd.errors import InvalidPayload
from enrichd.processing.processor import JobProcessor
from enrichd.queue.manager import JobQueueManager
from enrichd.store import job_reads
from enrichd.store.job_reads import End
from enrichd.store.json_text import loads

WINDOW_ROWS = 4_000
CHUNK_ROWS = 500
WRITE_ROWS = 500
LOOK_AGAIN_S = 0.05
LOOK_AGAIN_S_MAX = 0.5
BAD_ROWS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Wish:
    """What to find out for every row."""

    types: tuple[str, ...]
    provider_id: str
    fallback_providers: tuple[str, ...]
    workspace_id: str
    tag: str
    salt: str = ""
    """Makes the keys of this run its own, so that nothing done before is used."""


@dataclass(slots=True)
class Tally:
    """How far the trip is, for the progress bar and the last word."""

    read: int = 0
    written: int = 0
    done_ahead: int = 0
    """Rows whose jobs have ended but that wait for a row before them."""
    known: int = 0
    """Rows whose jobs were there from an earlier run."""
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bad_rows: list[str] = field(default_factory=list)
    bad_count: int = 0


@dataclass(slots=True)
class Entry:
    """A row on its way; `job_id` is None for a row that cannot be used."""

    row: Row
    job_id: UUID | None
    error: str | None = None


class Trip:
    """One run over one list."""

    def __init__(
        self,
        *,
        sheet: Sheet,
        writer: SheetWriter,
        wish: Wish,
        queue: JobQueueManager,
        processor: JobProcessor,
        on_progress: Callable[[Tally], None],
    ) -> None:
        self.tally = Tally()
        self._rows: Iterator[Row] = iter(sheet)
        self._writer = writer
        self._wish = wish
        self._queue = queue
        self._processor = processor
        self._on_progress = on_progress
        self._window: deque[Entry] = deque()
        self._ends: dict[UUID, End] = {}
        self._is_read = False
        self._is_stopping = False

    def stop(self) -> None:
        """Stop soon: what is finished stays finished, what runs is given back."""
        self._is_stopping = True
        self._processor.stop()

    async def run(self) -> bool:
        """Make the trip; False if it was stopped before its end."""
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self._processor.run())
            try:
                await self._carry(running)
            finally:
                self._processor.stop()
        return self._is_read and not self._window

    async def _carry(self, running: asyncio.Task[Any]) -> None:
        pause_s = LOOK_AGAIN_S
        while not self._is_stopping and not (self._is_read and not self._window):
            has_read = await self._fill()
            has_written = await self._write()
            self._on_progress(self.tally)
            if self._writer.is_closed_by_reader:
                self.stop()
            if has_read or has_written:
                pause_s = LOOK_AGAIN_S
                continue
            await self._count_ahead()
            self._on_progress(self.tally)
            await asyncio.wait([running], timeout=pause_s)
            if running.done():
                return
            pause_s = min(pause_s * 1.5, LOOK_AGAIN_S_MAX)

    async def _fill(self) -> bool:
        """Read rows and enqueue their jobs while the window has room; say whether any came."""
        if self._is_read or len(self._window) > WINDOW_ROWS - CHUNK_ROWS:
            return False
        rows = list(islice(self._rows, CHUNK_ROWS))
        self._is_read = len(rows) < CHUNK_ROWS
        self.tally.read += len(rows)
        await self._enqueue(rows)
        self._processor.wake()
        return bool(rows)

    async def _enqueue(self, rows: Sequence[Row]) -> None:
        jobs: dict[str, NewJob] = {}
        keys: list[tuple[Row, str | None]] = []
        for row in rows:
            job = job_of(row, self._wish) if isinstance(row, SheetRow) else None
            keys.append((row, job.idempotency_key if job else None))
            if job is not None and job.idempotency_key is not None:
                jobs.setdefault(job.idempotency_key, job)
        errors: dict[str, str] = {}
        id_by_key = await self._enqueue_all(jobs, errors)
        for row, key in keys:
            if key is None or key in errors:
                self._window.append(Entry(row, None, errors.get(key or "")))
            else:
                self._window.append(Entry(row, id_by_key[key]))

    async def _enqueue_all(
        self, jobs: Mapping[str, NewJob], errors: dict[str, str]
    ) -> dict[str, UUID]:
        """Enqueue jobs by key; a row that no job can be made of is an error of its own."""
        try:
            done = await self._queue.enqueue_many(list(jobs.values()))
        except InvalidPayload:
            id_by_key = {}
            for key, job in jobs.items():
                try:
                    id_by_key[key] = (await self._queue.enqueue_many([job]))[0].id
                except InvalidPayload as error:
                    errors[key] = error.message
            return id_by_key
        earlier = [one.id for one in done if not one.is_new]
        self.tally.known += len(earlier)
        if earlier:
            await self._retry_failed(earlier)
        return {key: one.id for key, one in zip(jobs, done, strict=True)}

    async def _retry_failed(self, ids: list[UUID]) -> None:
        """Give jobs that failed in an earlier run another chance."""
        async with self._queue.database.connection() as conn:
            found = await job_reads.statuses(conn, workspace_id=self._wish.workspace_id, ids=ids)
        again = [job_id for job_id, status in found.items() if status in RETRYABLE]
        if again:
            await self._queue.retry_many(workspace_id=self._wish.workspace_id, ids=again)

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
            self.tally.bad_count += 1
            self.tally.outcomes["unusable"] += 1
            if len(self.tally.bad_rows) < BAD_ROWS_SHOWN:
                self.tally.bad_rows.append(f"line {row.line}: {reason}")
            self._writer.write(row, None, entry.error)
            return
        end = self._ends[entry.job_id]
        if end.status is JobStatus.COMPLETED:
            result = loads(end.result) or {}
            self.tally.outcomes[str(result.get("outcome", "complete"))] += 1
            self.tally.reasons.update(
                {part.get("reason", "") for part in result.get("missing", ())}
            )
            self._writer.write(row, result)
            return
        self.tally.outcomes[str(end.status)] += 1
        error = loads(end.error) or {}
        self._writer.write(row, None, str(error.get("message") or f"the job is {end.status}"))

    async def _count_ahead(self) -> None:
        """Count the rows in the window whose jobs have ended, for the progress bar."""
        ids = {entry.job_id for entry in self._window if entry.job_id is not None}
        if not ids:
            return
        async with self._queue.database.connection() as conn:
            found = await job_reads.statuses(
                conn, workspace_id=self._wish.workspace_id, ids=list(ids)
            )
        ended = {job_id for job_id, status in found.items() if status in ENDED}
        self.tally.done_ahead = sum(entry.job_id in ended for entry in self._window)


ENDED = frozenset({JobStatus.COMPLETED, *RETRYABLE})


def job_of(row: SheetRow, wish: Wish) -> NewJob:
    """Return the job that enriches a row."""
    key = key_of(row.lead, wish)
    payload: dict[str, Any] = {
        "leadId": row.lead.get("id") or key[:16],
        "providerId": wish.provider_id,
        "enrichmentTypes": list(wish.types),
        "inputData": row.lead,
    }
    if wish.fallback_providers:
        payload["fallbackProviders"] = list(wish.fallback_providers)
    return NewJob(
        type="single_lead_enrichment",
        payload=payload,
        workspace_id=wish.workspace_id,
        tags=[wish.tag],
        idempotency_key=f"enrich:{key}",
    )


def key_of(lead: Mapping[str, str], wish: Wish) -> str:
    """Return what makes two rows the same work: the lead's fields and what is wanted of it."""
    same = [
        sorted((name, value.strip().casefold()) for name, value in lead.items() if value.strip()),
        sorted(wish.types),
        wish.provider_id,
        list(wish.fallback_providers),
        wish.salt,
    ]
    return hashlib.sha256(orjson.dumps(same)).hexdigest()[:40]
