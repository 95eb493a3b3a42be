"""JobQueueManager: enqueue, claim and record, cancel, retry, and the queue's upkeep.

It checks, opens the transaction and calls the store; reads go to the store directly.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress, islice
from typing import TypeVar
from uuid import UUID

from enrichd import metrics
from enrichd.domain.jobs import CANCELLABLE, RETRYABLE, Claimed, Enqueued, JobStatus, NewJob
from enrichd.domain.outcomes import JobError
from enrichd.errors import IllegalMove, Invalid, JobNotFound, Refused, Unavailable
from enrichd.logs import get_logger
from enrichd.queue.changes import tell_moved
from enrichd.queue.intake import row_of
from enrichd.store import bulk, changes, job_moves, job_reads, jobs, lanes, new_jobs, workers
from enrichd.store.database import RACE_TRIES, RACES, Connection, Database, storing
from enrichd.store.faults import point
from enrichd.store.jobs import Ended, Lane
from enrichd.store.json_text import dumps
from enrichd.store.listen import notify
from enrichd.store.new_jobs import Row

Answer = TypeVar("Answer")

ENQUEUE_BATCH = 5_000
COPY_BATCH = 250
HINT_EVERY_S = 0.02
RACE_PAUSE_S = 0.05
TOLD_MAX = 1_000
"""New jobs of one bulk call, or between two hints, that listeners are told of one by one."""

log = get_logger("queue")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn brought: jobs to run, and runs that turned out to have lost their claim."""

    claimed: list[Claimed]
    lost: list[str]
    has_claimed: bool = True
    """False when only the record was done, so that nothing is known about the lanes."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How many jobs one turn of upkeep moved."""

    promoted: int = 0
    expired: int = 0
    rescued: int = 0

    @property
    def moved(self) -> int:
        """Return the jobs that became claimable or ended."""
        return self.promoted + self.expired + self.rescued


class JobQueueManager:
    """The queue, over one database connection. One task at a time gets the connection."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._hinted = float("-inf")
        self._untold: dict[str, list[str]] = {}
        """New jobs by workspace, for those who listen."""

    async def enqueue(self, new: NewJob, *, conn: Connection | None = None) -> Enqueued:
        """Put one job on the queue; inside the caller's transaction when given a connection.

        Raises InvalidPayload, naming every wrong field, before the database is asked. Metrics count
        what is committed here: on the caller's connection nobody knows whether it will be.
        """
        row = row_of(new)
        if conn is not None:
            return await storing(lambda: new_jobs.enqueue(conn, row))

        async def and_hint(own: Connection) -> Enqueued:
            done = await new_jobs.enqueue(own, row)
            if done.is_new:
                metrics.enqueued([row.type])
                self._note(row.workspace_id, done.id)
            await self._hint(own, 1)
            return done

        return await self._alone(and_hint)

    async def enqueue_many(
        self, new: Iterable[NewJob], *, conn: Connection | None = None
    ) -> list[Enqueued]:
        """Put many jobs on the queue, all or none, and answer in their order.

        Fresh jobs go in by COPY; from the first one on that has an id, a key or a due time, they go
        by statements that find those that are there already. Jobs may come from an iterator and are
        then never all in memory; it is read once, so a lost race raises Unavailable at once.
        """
        if conn is not None:
            # Checked whole before anything goes in: taking back is the caller's to decide.
            rows = [row_of(job) for job in new]
            return await storing(lambda: insert_all(conn, rows))

        async def in_transaction(own: Connection) -> list[Enqueued]:
            types: list[str] = []
            workspaces: list[str] = []

            def rows() -> Iterator[Row]:
                for job in new:
                    row = row_of(job)
                    types.append(row.type)
                    if len(workspaces) < TOLD_MAX:
                        workspaces.append(row.workspace_id)
                    yield row

            async with own.transaction():
                done = await insert_all(own, rows())
                point("before_enqueue_many", own)
            point("after_enqueue_many", own)
            metrics.enqueued(compress(types, (job.is_new for job in done)))
            for workspace_id, job in zip(workspaces, done, strict=False):
                if job.is_new:
                    self._note(workspace_id, job.id)
            await self._hint(own, len(done))
            return done

        return await self._alone(
            in_transaction, tries=RACE_TRIES if isinstance(new, Collection) else 1
        )

    async def turn(
        self,
        *,
        worker_id: UUID,
        ended: Sequence[Ended],
        plan: Sequence[Lane],
        room: int,
        suspects_after_s: float = 0.0,
    ) -> Turn:
        """Record what ended and claim up to `room` jobs, in one statement.

        Suspects, jobs whose worker died, are claimed when they are ready for `suspects_after_s`.
        A value that PostgreSQL refuses fails its own job only. Raises Unavailable when the
        database is away: nothing is lost, the same outcomes may be given again.
        """
        try:
            claimed, lost = await self._alone(
                lambda conn: jobs.turn(
                    conn,
                    worker_id=worker_id,
                    ended=ended,
                    plan=plan,
                    room=room,
                    suspects_after_s=suspects_after_s,
                )
            )
        except Invalid as error:
            if not ended:
                raise
            return Turn([], await self._record_apart(worker_id, ended, error), has_claimed=False)
        return Turn(claimed, lost)

    async def _record_apart(
        self, worker_id: UUID, ended: Sequence[Ended], error: Invalid
    ) -> list[str]:
        """Record by halves until the refused row stands alone, and fail that job."""
        if len(ended) == 1:
            bad = ended[0]
            log.warning("result_refused", job_id=bad.id, reason=error.message)
            text = dumps(JobError("unstorable_result", error.message).to_json())
            ended = [Ended(bad.id, bad.attempt, "failed", "failed", error=text)]
            return (await self.turn(worker_id=worker_id, ended=ended, plan=(), room=0)).lost
        middle = len(ended) // 2
        lost = []
        for half in (ended[:middle], ended[middle:]):
            lost += (await self.turn(worker_id=worker_id, ended=half, plan=(), room=0)).lost
        return lost

    async def cancel(self, *, workspace_id: str, job_id: UUID) -> JobStatus:
        """Cancel a job; return its state: `cancelled`, or `processing` while its run is stopped.

        Raises JobNotFound, or IllegalMove naming both states.
        """
        moved = await self.cancel_many(workspace_id=workspace_id, ids=[job_id])
        if moved:
            return moved[job_id]
        raise await self._refusal(workspace_id, job_id, JobStatus.CANCELLED, CANCELLABLE)

    async def cancel_many(self, *, workspace_id: str, ids: Sequence[UUID]) -> dict[UUID, JobStatus]:
        """Cancel those of the jobs that can be; return their states."""
        pairs = await self._alone(
            lambda conn: job_moves.cancel(conn, workspace_id=workspace_id, ids=ids)
        )
        await tell_moved(self.database, ((workspace_id, str(job_id)) for job_id, _ in pairs))
        return {job_id: JobStatus(status) for job_id, status in pairs}

    async def retry(self, *, workspace_id: str, job_id: UUID) -> None:
        """Put a failed, dead or cancelled job back to `pending`, its attempts starting again.

        Raises JobNotFound, or IllegalMove naming both states.
        """
        if not await self.retry_many(workspace_id=workspace_id, ids=[job_id]):
            raise await self._refusal(workspace_id, job_id, JobStatus.PENDING, RETRYABLE)

    async def retry_many(self, *, workspace_id: str, ids: Sequence[UUID]) -> list[UUID]:
        """Retry those of the jobs that can be; return their ids."""
        retried = await self._alone(
            lambda conn: job_moves.retry(conn, workspace_id=workspace_id, ids=ids)
        )
        await tell_moved(self.database, ((workspace_id, str(job_id)) for job_id in retried))
        return retried

    async def resume(self, *, job_id: UUID) -> bool:
        """Put a parked job back to `pending`; False if it is not parked (any more)."""
        return await self._alone(lambda conn: job_moves.resume(conn, job_id=job_id))

    async def tend(self, *, worker_timeout_s: float) -> Upkeep:
        """Do one bounded turn of what keeps the queue moving; any process may, any number at once.

        Promotes due jobs, expires parked ones, declares silent workers dead and takes their jobs
        away. When there is nothing of that to do it is a single look.
        """
        seen = await self._alone(
            lambda conn: lanes.look(conn, room=1, worker_timeout_s=worker_timeout_s)
        )
        if not seen.has_upkeep:
            return Upkeep()
        promoted = await self._alone(job_moves.promote_due)
        expired = await self._alone(job_moves.expire_waiting)
        await self._alone(lambda conn: workers.mark_dead(conn, timeout_s=worker_timeout_s))
        rescued = await self._alone(job_moves.rescue)
        await tell_moved(self.database, chain(promoted, expired, rescued))
        return Upkeep(len(promoted), len(expired), len(rescued))

    async def _hint(self, conn: Connection, jobs_ready: int) -> None:
        """Tell listeners that there are jobs: after the commit, at most once in 20 ms."""
        now = asyncio.get_running_loop().time()
        if now - self._hinted >= HINT_EVERY_S:
            self._hinted = now
            await notify(conn, jobs=jobs_ready)
            untold, self._untold = self._untold, {}
            await changes.tell(conn, untold)

    def _note(self, workspace_id: str, job_id: UUID) -> None:
        """Have a new job told of along with the next hint; a few of very many are enough."""
        ids = self._untold.setdefault(workspace_id, [])
        if len(ids) < TOLD_MAX:
            ids.append(str(job_id))

    async def _alone(
        self, work: Callable[[Connection], Awaitable[Answer]], *, tries: int = RACE_TRIES
    ) -> Answer:
        """Run a statement or transaction on the own connection, again if it lost a race."""
        for tries_left in reversed(range(tries)):
            try:
                async with self.database.connection() as conn:
                    return await storing(lambda: work(conn))
            except RACES as error:
                if not tries_left:
                    raise Unavailable("the same rows were wanted by others all the time") from error
                # Those who lost together must not come back together.
                await asyncio.sleep(random.uniform(0.0, RACE_PAUSE_S * (RACE_TRIES - tries_left)))
        raise AssertionError("the loop returns or raises")

    async def _refusal(
        self, workspace_id: str, job_id: UUID, wanted: JobStatus, sources: Collection[JobStatus]
    ) -> Exception:
        """Return the error that says why a job could not be moved from any of `sources`."""
        async with self.database.connection() as conn:
            found = await job_reads.statuses(conn, workspace_id=workspace_id, ids=[job_id])
        status = found.get(job_id)
        if status is None:
            return JobNotFound(f"no job {job_id} in workspace {workspace_id}")
        if status in sources:
            return Refused(f"job {job_id} changed its state just now; try again")
        shown = ", ".join(source for source in JobStatus if source in sources)
        return IllegalMove(
            f"job {job_id} is {status} and cannot become {wanted}; only {shown} jobs can"
        )


async def insert_all(conn: Connection, rows: Iterable[Row]) -> list[Enqueued]:
    """Insert rows in bounded statements, as they come.

    A row that cannot be made raises in the middle; the transaction around takes back what went in.
    """
    done: list[Enqueued] = []
    remaining = iter(rows)
    rest: Iterator[Row] = remaining

    def fresh_batches() -> Iterator[list[Row]]:
        nonlocal rest
        while batch := list(islice(remaining, COPY_BATCH)):
            if not all(row.is_fresh and row.is_ready for row in batch):
                rest = chain(batch, remaining)
                return
            done.extend([Enqueued(row.id, True) for row in batch])
            yield batch

    await bulk.copy_in(conn, fresh_batches())
    while others := list(islice(rest, ENQUEUE_BATCH)):
        done += await new_jobs.enqueue_many(conn, others)
    return done
