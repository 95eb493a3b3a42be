"""Worker processes: one row each, kept fresh by heartbeats."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from enrichd.store.database import Connection
from enrichd.store.faults import around

# Repeated when the answer to the first one was lost.
INSERT: LiteralString = """
    insert into enrichment_workers (id, host, pid, version, concurrency, job_types)
    values (%(id)s, %(host)s, %(pid)s, %(version)s, %(concurrency)s, %(job_types)s::text[])
        on conflict (id) do nothing
"""


@around("announce")
async def insert(
    conn: Connection,
    *,
    worker_id: UUID,
    host: str,
    pid: int,
    version: str,
    concurrency: int,
    job_types: Collection[str] | None = None,
) -> None:
    """Announce a worker; must be committed before its first claim."""
    await conn.execute(
        INSERT,
        {
            "id": worker_id,
            "host": host,
            "pid": pid,
            "version": version,
            "concurrency": concurrency,
            "job_types": None if job_types is None else sorted(job_types),
        },
    )


# No index stands on what changes here, so the update stays inside its page (HOT).
BEAT: LiteralString = """
    update enrichment_workers
       set heartbeat_at = now(), state = %(state)s, running = %(running)s,
           completed = %(completed)s, failed = %(failed)s,
           turned_at = coalesce(now() - make_interval(secs => %(turned_s)s), turned_at)
     where id = %(id)s
       and state <> 'dead'
    returning (select count(*)
                 from enrichment_jobs as job
                where job.status = 'processing'
                  and job.worker_id = %(id)s)
"""


@around("heartbeat")
async def beat(
    conn: Connection,
    *,
    worker_id: UUID,
    state: str,
    running: int,
    completed: int,
    failed: int,
    turned_s: float | None = None,
) -> int | None:
    """Keep a worker alive; return how many jobs it has, as the database sees it.

    None means that it was declared dead and its jobs were given away.
    """
    cursor = await conn.execute(
        BEAT,
        {
            "id": worker_id,
            "state": state,
            "running": running,
            "completed": completed,
            "failed": failed,
            "turned_s": turned_s,
        },
    )
    row = await cursor.fetchone()
    return row[0] if row else None


CANCELLED_RUNS: LiteralString = """
    select id::text
      from enrichment_jobs
     where status = 'processing'
       and worker_id = %(id)s
       and cancel_requested_at is not null
"""


async def cancelled_runs(conn: Connection, *, worker_id: UUID) -> list[str]:
    """Return the ids of a worker's running jobs that somebody cancelled."""
    cursor = await conn.execute(CANCELLED_RUNS, {"id": worker_id})
    return [job_id async for (job_id,) in cursor]


SET_ALONE: LiteralString = """
    update enrichment_workers set alone_job = %(job_id)s::uuid where id = %(id)s
"""


async def set_alone(conn: Connection, *, worker_id: UUID, job_id: str | None) -> None:
    """Say which suspect a worker is about to run alone; None when it is done with them."""
    await conn.execute(SET_ALONE, {"id": worker_id, "job_id": job_id})


MARK_DEAD: LiteralString = """
    with silent as materialized (
        select id
          from enrichment_workers
         where state <> 'dead'
           and heartbeat_at < now() - make_interval(secs => %(timeout_s)s)
         order by id
           for update skip locked
    )
    update enrichment_workers as worker
       set state = 'dead'
      from silent
     where worker.id = silent.id
"""


@around("mark_dead")
async def mark_dead(conn: Connection, *, timeout_s: float) -> int:
    """Declare workers dead that missed their heartbeats for `timeout_s`; return how many."""
    return (await conn.execute(MARK_DEAD, {"timeout_s": timeout_s})).rowcount


# A worker that leaves in order deletes its row; jobs it might still hold are then found by rescue.
DELETE: LiteralString = "delete from enrichment_workers where id = %(id)s"


@around("leave")
async def delete(conn: Connection, *, worker_id: UUID) -> None:
    """Remove a worker that left in order."""
    await conn.execute(DELETE, {"id": worker_id})


DELETE_DEAD: LiteralString = """
    delete from enrichment_workers as worker
     where worker.state = 'dead'
       and worker.heartbeat_at < now() - interval '1 hour'
       and not exists (select 1
                         from enrichment_jobs as job
                        where job.status = 'processing'
                          and job.worker_id = worker.id)
"""


async def delete_dead(conn: Connection) -> int:
    """Remove workers dead for an hour that hold no job; return how many."""
    return (await conn.execute(DELETE_DEAD)).rowcount


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process as people read it."""

    id: UUID
    host: str
    pid: int
    version: str
    state: str
    concurrency: int
    running: int
    completed: int
    failed: int
    started_at: datetime
    heartbeat_at: datetime
    silent_s: float


LIST: LiteralString = """
    select id, host, pid, version, state, concurrency, running, completed, failed, started_at,
           heartbeat_at, extract(epoch from now() - heartbeat_at)::float8
      from enrichment_workers
     order by host, pid, id
     limit 1000
"""


async def list_all(conn: Connection) -> list[Worker]:
    """Return every worker row, by host and pid."""
    return [Worker(*row) async for row in await conn.execute(LIST)]


HELD: LiteralString = """
    select id::text, attempts
      from enrichment_jobs
     where status = 'processing'
       and worker_id = %(id)s
"""


async def held(conn: Connection, *, worker_id: UUID) -> list[tuple[str, int]]:
    """Return (job id, attempt) of every job the database thinks a worker is running.

    After a connection broke at the commit of a claim, the worker asks what it was given.
    """
    cursor = await conn.execute(HELD, {"id": worker_id})
    return [(job_id, attempt) for job_id, attempt in await cursor.fetchall()]


DECLARE_DEAD: LiteralString = """
    update enrichment_workers set state = 'dead' where id = %(id)s::uuid
"""


@around("declare_dead")
async def declare_dead(conn: Connection, *, worker_id: str) -> None:
    """Declare one worker dead whose process is known to be gone."""
    await conn.execute(DECLARE_DEAD, {"id": worker_id})


# The oldest ready job of each lane is the one at its head, near enough: ranks grow with time.
LOAD: LiteralString = """
    select coalesce((select max(extract(epoch from now() - head.updated_at))::float8
                       from enrichment_lanes as lane
                      cross join lateral (
                            select job.updated_at
                              from enrichment_jobs as job
                             where job.status = 'pending'
                               and job.provider_id = lane.provider_id
                               and job.priority = lane.priority
                               and job.fair_rank >= lane.floor_rank
                             order by job.fair_rank, job.id
                             limit 1) as head), 0.0),
           coalesce((select sum(running)::float8 / nullif(sum(concurrency), 0)
                       from enrichment_workers
                      where state <> 'dead'), 0.0)
"""


async def load(conn: Connection) -> tuple[float, float]:
    """Return the age in seconds of the oldest ready job, and the share of slots in use, 0 to 1."""
    row = await (await conn.execute(LOAD)).fetchone()
    assert row is not None
    return row[0], row[1]
