"""What may be stuck in the queue, for `enrichctl doctor`: facts, the judgement is the command's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from enrichd.store.database import Connection

SEARCHED_MAX = 200_000


@dataclass(frozen=True, slots=True)
class Queue:
    """What may be stuck in the queue."""

    ready: int
    oldest_ready_s: float | None
    """In lanes that are open: jobs of throttled ones wait on purpose."""
    orphans: int
    """Processing, and their worker is dead, silent for too long, or has no row."""
    overdue: int
    """Scheduled, and due for longer than a minute."""
    late_callbacks: int
    """Waiting, and their deadline passed more than a minute ago."""
    dead_letters_24h: int
    ended_24h: int
    """Both up to SEARCHED_MAX of the newest."""


QUEUE: LiteralString = """
    with head as (
        select job.updated_at
          from enrichment_lanes as lane
          left join enrichment_provider_state as state on state.provider_id = lane.provider_id
         cross join lateral (
               select updated_at
                 from enrichment_jobs
                where status = 'pending'
                  and provider_id = lane.provider_id
                  and priority = lane.priority
                  and fair_rank >= lane.floor_rank
                order by fair_rank, id
                limit 1) as job
         where (state.blocked_until is null or state.blocked_until <= now())
           and coalesce(state.breaker, 'closed') <> 'open'
    ),
    ended as materialized (
        select status
          from enrichment_jobs
         where status in ('completed', 'failed', 'cancelled', 'dead_letter')
           and completed_at > now() - interval '24 hours'
         order by completed_at desc
         limit %(searched)s
    )
    select (select count(*) from enrichment_jobs where status = 'pending'),
           (select extract(epoch from now() - min(updated_at))::float8 from head),
           (select count(*)
              from enrichment_jobs as job
             where job.status = 'processing'
               and not exists (select 1
                                 from enrichment_workers as worker
                                where worker.id = job.worker_id
                                  and worker.state <> 'dead'
                                  and worker.heartbeat_at
                                      > now() - make_interval(secs => %(timeout_s)s))),
           (select count(*)
              from enrichment_jobs
             where status = 'scheduled'
               and scheduled_at < now() - interval '1 minute'),
           (select count(*)
              from enrichment_jobs
             where status = 'waiting'
               and scheduled_at < now() - interval '1 minute'),
           (select count(*) from ended where status = 'dead_letter'),
           (select count(*) from ended)
"""


async def queue(conn: Connection, *, worker_timeout_s: float) -> Queue:
    """Return the counts of what may be stuck."""
    values = {"searched": SEARCHED_MAX, "timeout_s": worker_timeout_s}
    row = await (await conn.execute(QUEUE, values)).fetchone()
    assert row is not None
    return Queue(*row)


@dataclass(frozen=True, slots=True)
class HeldLane:
    """A provider whose jobs are not claimed now."""

    provider_id: str
    breaker: str
    blocked_s: float | None
    reason: str | None


HELD_LANES: LiteralString = """
    select provider_id, breaker,
           case when blocked_until > now()
                then extract(epoch from blocked_until - now())::float8 end,
           left(reason, 200)
      from enrichment_provider_state
     where breaker <> 'closed'
        or blocked_until > now()
     order by provider_id
     limit 100
"""


async def held_lanes(conn: Connection) -> list[HeldLane]:
    """Return the providers that are throttled or broken."""
    return [HeldLane(*row) async for row in await conn.execute(HELD_LANES)]


# A job of a type that the worker does not know is put off for up to a minute, so those that are due
# by then count as well. A worker that did not say what it knows may know anything.
UNKNOWN_TYPES: LiteralString = """
    with living as materialized (
        select job_types
          from enrichment_workers
         where state <> 'dead'
           and heartbeat_at > now() - make_interval(secs => %(timeout_s)s)
    ),
    waiting as materialized (
        (select type
           from enrichment_jobs
          where status = 'pending'
          limit %(searched)s)
        union all
        (select type
           from enrichment_jobs
          where status = 'scheduled'
            and scheduled_at < now() + interval '1 minute'
          order by scheduled_at
          limit %(searched)s)
    )
    select waiting.type, count(*)
      from waiting
     where exists (select 1 from living)
       and not exists (select 1
                         from living
                        where job_types is null
                           or waiting.type = any(job_types))
     group by waiting.type
     order by count(*) desc, waiting.type
     limit 100
"""


async def unknown_types(conn: Connection, *, worker_timeout_s: float) -> dict[str, int]:
    """Return the types that wait and no living worker has a handler for, with their jobs.

    Up to SEARCHED_MAX ready and as many scheduled jobs are looked at; nothing without a worker.
    """
    values = {"searched": SEARCHED_MAX, "timeout_s": worker_timeout_s}
    return {job_type: jobs async for job_type, jobs in await conn.execute(UNKNOWN_TYPES, values)}
