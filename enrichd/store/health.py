"""What health checks and the metrics page ask about the whole queue, all workspaces together.

Nothing here reads a finished job: every count goes by a partial index of jobs that are not, and
stops at a limit. With a million finished jobs an answer takes as long as with none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from enrichd.store import migrate
from enrichd.store.database import Connection

PENDING_MAX = 100_000
OTHERS_MAX = 10_000
HEADS = 100

# `turned_at` is when a worker last heard PostgreSQL's answer to "what is there to do?". One whose
# slots are all taken has no reason to ask, and counts as turning for as long as its heart beats.
WORKERS: LiteralString = """
    select count(*),
           count(*) filter (where turned_at > now() - make_interval(secs => %(turn_timeout_s)s)
                               or running >= concurrency),
           extract(epoch from now() - max(turned_at))::float8
      from enrichment_workers
     where state not in ('dead', 'draining')
       and heartbeat_at > now() - make_interval(secs => %(worker_timeout_s)s)
"""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether jobs can be worked on at all."""

    missing_migrations: int
    """With any of them missing, the workers are not looked at."""
    live_workers: int = 0
    """Workers of all hosts whose heartbeat is fresh and who take jobs."""
    turning_workers: int = 0
    """Those of them that asked for jobs lately, or have no room for any."""
    last_turn_age_s: float | None = None
    """Seconds since any of them asked; None when none ever did."""


async def readiness(
    conn: Connection, *, worker_timeout_s: float, turn_timeout_s: float
) -> Readiness:
    """Return whether the schema is up to date and who is there to work."""
    missing = len(await migrate.pending(conn))
    if missing:
        return Readiness(missing)
    cursor = await conn.execute(
        WORKERS, {"worker_timeout_s": worker_timeout_s, "turn_timeout_s": turn_timeout_s}
    )
    row = await cursor.fetchone()
    assert row is not None
    return Readiness(0, *row)


# One descent of the index `ready` for each lane and priority, from its rank floor, so that neither
# finished jobs nor dead index entries are walked over. Only the 100 first in line are fetched from
# the table: ranks grow with time, so the longest wait is among them, near enough.
READY: LiteralString = """
    select lane.provider_id, sum(ready.jobs)::bigint,
           coalesce(max(extract(epoch from now() - head.oldest)), 0)::float8
      from enrichment_lanes as lane
     cross join lateral (
           select count(*) as jobs
             from (select 1
                     from enrichment_jobs as job
                    where job.status = 'pending'
                      and job.provider_id = lane.provider_id
                      and job.priority = lane.priority
                      and job.fair_rank >= lane.floor_rank
                    limit %(pending_max)s) as counted) as ready
     cross join lateral (
           select min(first.updated_at) as oldest
             from (select job.updated_at
                     from enrichment_jobs as job
                    where job.status = 'pending'
                      and job.provider_id = lane.provider_id
                      and job.priority = lane.priority
                      and job.fair_rank >= lane.floor_rank
                    order by job.fair_rank, job.id
                    limit %(heads)s) as first) as head
     group by lane.provider_id
"""

# By the indexes `due`, `waiting` and `running`; the order is theirs, so that they are used whatever
# the planner believes about how many there are.
OTHERS: LiteralString = """
    select provider_id, status, count(*)
      from ((select provider_id, status
               from enrichment_jobs
              where status = 'scheduled'
              order by scheduled_at, id
              limit %(others_max)s)
            union all
            (select provider_id, status
               from enrichment_jobs
              where status = 'waiting'
              order by scheduled_at
              limit %(others_max)s)
            union all
            (select provider_id, status
               from enrichment_jobs
              where status = 'processing'
              order by worker_id
              limit %(others_max)s)) as counted
     group by provider_id, status
"""

OLDEST_DUE: LiteralString = """
    select greatest(extract(epoch from now() - min(scheduled_at)), 0)::float8
      from enrichment_jobs
     where status = 'scheduled'
"""

BLOCKED: LiteralString = """
    select provider_id
      from enrichment_provider_state
     where blocked_until > now()
        or breaker = 'open'
     order by provider_id
     limit 1000
"""

BREAKERS: LiteralString = """
    select provider_id, breaker
      from enrichment_provider_state
     order by breaker = 'closed', provider_id
     limit 1000
"""

WORKER_STATES: LiteralString = """
    select case when state <> 'dead'
                 and heartbeat_at <= now() - make_interval(secs => %(worker_timeout_s)s)
                then 'silent' else state end,
           count(*), sum(concurrency), sum(running)
      from enrichment_workers
     group by 1
"""


@dataclass(frozen=True, slots=True)
class LaneDepth:
    """How many jobs of a lane have a status, counted up to a limit."""

    lane: str
    status: str
    jobs: int


@dataclass(frozen=True, slots=True)
class WorkerCount:
    """The workers in a state: how many, and their slots."""

    state: str
    workers: int
    slots: int
    running: int


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """The queue as it stands, all workspaces and hosts together."""

    depths: Sequence[LaneDepth]
    oldest_ready_s: Sequence[tuple[str, float]]
    """Longest wait by lane, among the first in line of each priority."""
    oldest_due_s: float
    """For how long the oldest due job has waited to be made ready; 0 when none is due."""
    blocked_lanes: Sequence[str]
    breakers: Sequence[tuple[str, str]]
    """(credential, breaker) of every credential that was ever used or troubled."""
    workers: Sequence[WorkerCount]


async def queue_figures(conn: Connection, *, worker_timeout_s: float) -> QueueFigures:
    """Return the figures of the whole queue."""
    cursor = await conn.execute(READY, {"pending_max": PENDING_MAX, "heads": HEADS})
    ready = await cursor.fetchall()
    cursor = await conn.execute(OTHERS, {"others_max": OTHERS_MAX})
    others = await cursor.fetchall()
    due = await (await conn.execute(OLDEST_DUE)).fetchone()
    assert due is not None
    blocked = await (await conn.execute(BLOCKED)).fetchall()
    breakers = await (await conn.execute(BREAKERS)).fetchall()
    cursor = await conn.execute(WORKER_STATES, {"worker_timeout_s": worker_timeout_s})
    return QueueFigures(
        depths=[
            *(LaneDepth(lane, "pending", jobs) for lane, jobs, _ in ready),
            *(LaneDepth(*row) for row in others),
        ],
        oldest_ready_s=[(lane, age_s) for lane, _, age_s in ready],
        oldest_due_s=due[0] or 0.0,
        blocked_lanes=[lane for (lane,) in blocked],
        breakers=[(credential, breaker) for credential, breaker in breakers],
        workers=[WorkerCount(*row) for row in await cursor.fetchall()],
    )
