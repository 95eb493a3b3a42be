"""The whole queue at a glance, cheap enough to look at every second: for `watch` and `top`.

Live jobs are counted through their partial indexes; of those that ended only the newest are read.
So the price grows with what is in the queue now, never with the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from enrichd.store import workers
from enrichd.store.database import Connection
from enrichd.store.workers import Worker

WINDOW_S = 60.0
ENDED_MAX = 5000
"""How many of the newest ends are read: at more than 83 a second the window is shorter."""
ERRORS_SEARCHED_MAX = 2000
ERRORS_MAX = 100


@dataclass(frozen=True, slots=True)
class Totals:
    """Jobs by live state, and what else is one number."""

    now: datetime
    database: str
    scheduled: int
    overdue: int
    """Of the scheduled ones, those that should have become ready seconds ago."""
    next_due_s: float | None
    waiting: int
    retried_1m: int
    """Attempts of the last minute that are tried again, up to ERRORS_SEARCHED_MAX."""
    crashed_1m: int


TOTALS: LiteralString = """
    with due as (
        select count(*) as jobs,
               count(*) filter (where scheduled_at < now() - interval '5 seconds') as overdue,
               extract(epoch from min(scheduled_at) - now())::float8 as next_s
          from enrichment_jobs
         where status = 'scheduled'
    ),
    attempt as (
        select count(*) filter (where outcome = 'retry') as retried,
               count(*) filter (where outcome = 'crashed') as crashed
          from (select outcome, finished_at
                  from enrichment_attempt_log
                 order by id desc
                 limit %(searched)s) as newest
         where finished_at > now() - interval '1 minute'
    )
    select now(), current_database(), due.jobs, due.overdue, due.next_s,
           (select count(*) from enrichment_jobs where status = 'waiting'),
           attempt.retried, attempt.crashed
      from due
     cross join attempt
"""


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """A lane: what is ready in it, and whether it is held back."""

    provider_id: str
    ready: int
    oldest_s: float | None
    """Age of the ready job at the lane's head; ranks grow with time, so near enough the oldest."""
    breaker: str
    blocked_s: float | None
    """Seconds until a throttled lane is open again."""
    reason: str | None
    inflight_cap: int | None


# The count is an index-only scan of `ready` or `fair`. Each head is one probe, from the floor on,
# so that entries of finished jobs are not walked over.
LANES: LiteralString = """
    with ready as (
        select provider_id, count(*) as jobs
          from enrichment_jobs
         where status = 'pending'
         group by provider_id
    ),
    head as (
        select lane.provider_id, max(extract(epoch from now() - first.updated_at))::float8 as age_s
          from enrichment_lanes as lane
         cross join lateral (
               select job.updated_at
                 from enrichment_jobs as job
                where job.status = 'pending'
                  and job.provider_id = lane.provider_id
                  and job.priority = lane.priority
                  and job.fair_rank >= lane.floor_rank
                order by job.fair_rank, job.id
                limit 1) as first
         group by lane.provider_id
    )
    select name.provider_id, coalesce(ready.jobs, 0), head.age_s,
           coalesce(state.breaker, 'closed'),
           case when state.blocked_until > now()
                then extract(epoch from state.blocked_until - now())::float8 end,
           state.reason, state.inflight_cap
      from (select provider_id from enrichment_lanes
             union
            select provider_id from ready) as name
      left join ready on ready.provider_id = name.provider_id
      left join head on head.provider_id = name.provider_id
      left join enrichment_provider_state as state on state.provider_id = name.provider_id
     order by name.provider_id
     limit 1000
"""


@dataclass(frozen=True, slots=True)
class Running:
    """The jobs of a lane and type that run now."""

    provider_id: str
    type: str
    jobs: int
    longest_s: float


# As many rows as the workers have places, by the index `running`.
RUNNING: LiteralString = """
    select provider_id, type, count(*),
           coalesce(max(extract(epoch from now() - started_at)), 0)::float8
      from enrichment_jobs
     where status = 'processing'
     group by provider_id, type
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """What ended lately in a lane, of a type, in both, or (both None) at all."""

    provider_id: str | None
    type: str | None
    window_s: float
    """The time it took: a minute, or less where that would have been too many rows."""
    completed: int
    failed: int
    """Failed for good: `failed` and `dead_letter`."""
    cancelled: int
    completed_10s: int
    failed_10s: int
    run_p50_s: float | None
    run_p95_s: float | None


# The index `prune` from its new end. Each row costs a look into the table, hence the limit: 5,000
# take about 5 ms.
ENDED: LiteralString = """
    with newest as materialized (
        select provider_id, type, status, completed_at,
               extract(epoch from completed_at - started_at)::float8 as run_s
          from enrichment_jobs
         where status in ('completed', 'failed', 'cancelled', 'dead_letter')
           and completed_at > now() - make_interval(secs => %(window_s)s)
         order by completed_at desc
         limit %(limit)s
    ),
    span as (
        select case when count(*) < %(limit)s then %(window_s)s::float8
                    else extract(epoch from now() - min(completed_at))::float8 end as window_s
          from newest
    )
    select provider_id, type, (select window_s from span),
           count(*) filter (where status = 'completed'),
           count(*) filter (where status in ('failed', 'dead_letter')),
           count(*) filter (where status = 'cancelled'),
           count(*) filter (where status = 'completed'
                              and completed_at > now() - interval '10 seconds'),
           count(*) filter (where status in ('failed', 'dead_letter')
                              and completed_at > now() - interval '10 seconds'),
           percentile_cont(0.5) within group (order by run_s) filter (where status = 'completed'),
           percentile_cont(0.95) within group (order by run_s) filter (where status = 'completed')
      from newest
     group by grouping sets ((provider_id, type), (provider_id), (type), ())
"""


@dataclass(frozen=True, slots=True)
class AttemptError:
    """An attempt that failed: for good, or to be tried again."""

    at: datetime
    job_id: UUID
    attempt: int
    workspace_id: str
    provider_id: str
    type: str
    outcome: str
    """`failed`, `dead_letter`, `retry` or `crashed`."""
    kind: str | None
    message: str | None
    """Its first 300 characters."""


# The newest rows of either kind, and among them the errors: with none of them failed it would
# otherwise read the whole history.
ERRORS: LiteralString = """
    with ended as materialized (
        select completed_at, id, attempts, workspace_id, provider_id, type, status, error
          from enrichment_jobs
         where status in ('completed', 'failed', 'cancelled', 'dead_letter')
           and completed_at <= now()
         order by completed_at desc
         limit %(searched)s
    ),
    logged as materialized (
        select finished_at, job_id, attempt, workspace_id, outcome, error
          from enrichment_attempt_log
         order by id desc
         limit %(searched)s
    ),
    failed as (
        (select completed_at as at, id, attempts as attempt, workspace_id, provider_id, type,
                status as outcome, error
           from ended
          where status in ('failed', 'dead_letter')
          order by completed_at desc
          limit %(limit)s)
        union all
        (select log.finished_at, log.job_id, log.attempt, log.workspace_id, job.provider_id,
                job.type, log.outcome, log.error
           from (select *
                   from logged
                  where outcome in ('retry', 'crashed')
                  order by finished_at desc
                  limit %(limit)s) as log
           join enrichment_jobs as job on job.id = log.job_id)
    )
    select at, id, attempt, workspace_id, provider_id, type, outcome,
           left(error ->> 'type', 100), left(coalesce(error ->> 'message', error::text), 300)
      from failed
     order by at desc
     limit %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything `watch` and `top` show."""

    totals: Totals
    lanes: Sequence[LaneLoad]
    running: Sequence[Running]
    ended: Sequence[Ended]
    errors: Sequence[AttemptError]
    """Newest first."""
    workers: Sequence[Worker]


async def snapshot(conn: Connection) -> Overview:
    """Read everything, in one round trip."""
    errors = {"searched": ERRORS_SEARCHED_MAX, "limit": ERRORS_MAX}
    async with conn.pipeline():
        cursors = (
            await conn.execute(TOTALS, {"searched": ERRORS_SEARCHED_MAX}),
            await conn.execute(LANES),
            await conn.execute(RUNNING),
            await conn.execute(ENDED, {"window_s": WINDOW_S, "limit": ENDED_MAX}),
            await conn.execute(ERRORS, errors),
            await conn.execute(workers.LIST),
        )
        totals, lanes, running, ended, failed, found = [
            await cursor.fetchall() for cursor in cursors
        ]
    return Overview(
        Totals(*totals[0]),
        [LaneLoad(*row) for row in lanes],
        [Running(*row) for row in running],
        [Ended(*row) for row in ended],
        [AttemptError(*row) for row in failed],
        [Worker(*row) for row in found],
    )
