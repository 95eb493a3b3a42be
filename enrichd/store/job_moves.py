"""Moves of a job that no run makes: cancel, retry, promotion of what is due, rescue.

Every statement that moves many rows locks them in id order (or takes only free ones), so that no
two of these can deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString
from uuid import UUID

from enrichd import metrics
from enrichd.domain.jobs import CRASHES_MAX
from enrichd.store.changes import Moved
from enrichd.store.database import Connection
from enrichd.store.faults import around
from enrichd.store.telling import TELL_MOVED

BATCH = 500

# A processing job is only marked: its worker stops the run and records the end, so that a job is
# never `cancelled` while its handler still works.
CANCEL: LiteralString = f"""
    with wanted as materialized (
        select id
          from enrichment_jobs
         where id = any(%(ids)s)
           and workspace_id = %(workspace_id)s
           and status in ('pending', 'scheduled', 'waiting', 'processing')
         order by id
           for update
    ),
    moved as (
        update enrichment_jobs as job
           set status = case job.status when 'processing' then job.status else 'cancelled' end,
               cancel_requested_at = coalesce(job.cancel_requested_at, now()),
               completed_at = case job.status when 'processing' then null else now() end,
               updated_at = now()
          from wanted
         where job.id = wanted.id
        returning job.*
    ),
    told as ({TELL_MOVED})
    select id, status from moved
"""  # noqa: S608 - made of constants


@around("cancel")
async def cancel(
    conn: Connection, *, workspace_id: str, ids: Sequence[UUID]
) -> list[tuple[UUID, str]]:
    """Cancel jobs that have not ended; return (id, status) of each one that could be.

    `processing` means that its worker was asked to stop it.
    """
    cursor = await conn.execute(CANCEL, {"ids": list(ids), "workspace_id": workspace_id})
    return [(job_id, status) async for job_id, status in cursor]


# Attempts start again, so the one that ended the job moves to the log first: history is kept. The
# failed leads of a batch go, so that they run again; the completed ones stay. Ranks run on inside a
# workspace, lane and priority as in PROMOTE_DUE: 10,000 retried at once are charged as 10,000.
RETRY: LiteralString = """
    with wanted as materialized (
        select id, workspace_id, provider_id, priority, cost, attempts, worker_id, started_at,
               completed_at, status, error
          from enrichment_jobs
         where id = any(%(ids)s)
           and workspace_id = %(workspace_id)s
           and status in ('failed', 'dead_letter', 'cancelled')
         order by id
           for update
    ),
    logged as (
        insert into enrichment_attempt_log
               (job_id, workspace_id, attempt, worker_id, started_at, finished_at, outcome, error)
        select id, workspace_id, attempts, worker_id, started_at, completed_at,
               case status when 'cancelled' then 'cancelled' else 'failed' end, error
          from wanted
         where worker_id is not null
    ),
    cleared as (
        delete from enrichment_job_items as item
         using wanted
         where item.job_id = wanted.id
           and item.status = 'failed'
    ),
    base as materialized (
        select workspace_id, provider_id, priority,
               enrichment_rank_base(workspace_id, provider_id, priority) as rank
          from (select distinct workspace_id, provider_id, priority from wanted) as one
    ),
    ranked as (
        select wanted.id,
               base.rank + sum(wanted.cost) over (partition by workspace_id, provider_id, priority
                                                      order by wanted.id) as fair_rank
          from wanted
          join base using (workspace_id, provider_id, priority)
    )
    update enrichment_jobs as job
       set status = 'pending', attempts = 0, crashes = 0, worker_id = null,
           cancel_requested_at = null,
           scheduled_at = null, started_at = null, completed_at = null, updated_at = now(),
           fair_rank = ranked.fair_rank
      from ranked
     where job.id = ranked.id
    returning job.id
"""


@around("retry")
async def retry(conn: Connection, *, workspace_id: str, ids: Sequence[UUID]) -> list[UUID]:
    """Put failed, dead and cancelled jobs back to `pending`; return the ids that could be."""
    cursor = await conn.execute(RETRY, {"ids": list(ids), "workspace_id": workspace_id})
    return [job_id async for (job_id,) in cursor]


# Reads only the head of the index `due`, never future jobs. Ranks are given as enqueue gives them:
# the group's base and a running sum, so a workspace whose 100,000 jobs come due at once still
# queues behind its own share.
PROMOTE_DUE: LiteralString = """
    with due as materialized (
        select id, workspace_id, provider_id, priority, cost
          from enrichment_jobs
         where status = 'scheduled'
           and scheduled_at <= now()
         order by scheduled_at, id
         limit %(limit)s
           for update skip locked
    ),
    base as materialized (
        select workspace_id, provider_id, priority,
               enrichment_rank_base(workspace_id, provider_id, priority) as rank
          from (select distinct workspace_id, provider_id, priority from due) as one
    ),
    ranked as (
        select due.id,
               base.rank + sum(due.cost) over (partition by workspace_id, provider_id, priority
                                                   order by due.id) as fair_rank
          from due
          join base using (workspace_id, provider_id, priority)
    )
    update enrichment_jobs as job
       set status = 'pending', fair_rank = ranked.fair_rank, updated_at = now()
      from ranked
     where job.id = ranked.id
    returning job.workspace_id, job.id::text
"""


@around("promote")
async def promote_due(conn: Connection, *, limit: int = BATCH) -> Moved:
    """Move due jobs from `scheduled` to `pending`; return them, at most `limit`."""
    return await (await conn.execute(PROMOTE_DUE, {"limit": limit})).fetchall()


NEXT_DUE: LiteralString = """
    select extract(epoch from scheduled_at - now())::float8
      from enrichment_jobs
     where status = 'scheduled'
     order by scheduled_at
     limit 1
"""


async def next_due_s(conn: Connection) -> float | None:
    """Return the seconds until the next scheduled job is due, negative if it is; None for none."""
    row = await (await conn.execute(NEXT_DUE)).fetchone()
    return row[0] if row else None


# A parked job whose callback never came: another attempt if there is one, else the dead letter.
EXPIRE_WAITING: LiteralString = f"""
    with late as materialized (
        select id
          from enrichment_jobs
         where status = 'waiting'
           and scheduled_at <= now()
         order by scheduled_at
         limit %(limit)s
           for update skip locked
    ),
    moved as (
        update enrichment_jobs as job
           set status = case when job.attempts < job.max_retries then 'scheduled'
                             else 'dead_letter' end,
               attempts = job.attempts + 1,
               error = jsonb_build_object(
                   'type', 'callback_missing',
                   'message', 'the provider did not call back before the deadline',
                   'provider', job.provider_id,
                   'retryable', job.attempts < job.max_retries),
               completed_at = case when job.attempts < job.max_retries then null else now() end,
               updated_at = now()
          from late
         where job.id = late.id
        returning job.*
    ),
    told as ({TELL_MOVED})
    select workspace_id, id::text from moved
"""  # noqa: S608 - made of constants


@around("expire")
async def expire_waiting(conn: Connection, *, limit: int = BATCH) -> Moved:
    """Take parked jobs past their deadline out of `waiting`; return them, at most `limit`."""
    return await (await conn.execute(EXPIRE_WAITING, {"limit": limit})).fetchall()


RESUME: LiteralString = """
    update enrichment_jobs as job
       set status = 'pending', scheduled_at = null, updated_at = now(),
           fair_rank = job.cost
                     + enrichment_rank_base(job.workspace_id, job.provider_id, job.priority)
     where job.id = %(id)s
       and job.status = 'waiting'
    returning job.id
"""


@around("resume")
async def resume(conn: Connection, *, job_id: UUID) -> bool:
    """Put a parked job back to `pending` because its callback came; False if it was not parked."""
    return (await conn.execute(RESUME, {"id": job_id})).rowcount == 1


# A worker row is inserted before its first claim, so a processing job without a live row has truly
# lost its worker, whether that row is dead or gone. A worker that ran a suspect alone has said so:
# then no other job that it held is to blame; and a suspect never runs before that was said, so one
# that its worker only held, or was giving back, is not to blame either.
# The join reads the index `running`, whose
# size is the fleet's concurrency. It only proposes: when a row changed before its lock was taken,
# PostgreSQL checks the conditions again on the new row but takes the join's other side as
# empty, so a job that was rescued and claimed anew meanwhile would be taken from its live worker.
# Asking the locked row for the same worker_id closes that. Re-entering at greatest(fair_rank,
# vtime) keeps old ranks from jumping the queue.
RESCUE: LiteralString = f"""
    with proposed as materialized (
        select job.id, job.worker_id,
               worker.id is null
                   or coalesce(worker.alone_job = job.id, job.crashes = 0) as is_blamed
          from enrichment_jobs as job
          left join enrichment_workers as worker on worker.id = job.worker_id
         where job.status = 'processing'
           and (worker.id is null or worker.state = 'dead')
         order by job.id
         limit %(limit)s
    ),
    lost as materialized (
        select job.id, job.workspace_id, job.attempts, job.worker_id, job.started_at,
               proposed.is_blamed,
               not proposed.is_blamed
                   or (job.attempts <= job.max_retries
                       and job.crashes + 1 < %(crashes_max)s) as may_run
          from proposed
          join enrichment_jobs as job
            on job.id = proposed.id and job.worker_id = proposed.worker_id
         where job.status = 'processing'
         order by job.id
           for update of job skip locked
    ),
    logged as (
        insert into enrichment_attempt_log
               (job_id, workspace_id, attempt, worker_id, started_at, outcome, error)
        select id, workspace_id, attempts, worker_id, started_at, 'crashed',
               jsonb_build_object('type', 'worker_crashed', 'message', 'the worker died',
                                  'provider', null, 'retryable', true)
          from lost
         where is_blamed
    ),
    moved as (
        update enrichment_jobs as job
           set status = case when job.cancel_requested_at is not null then 'cancelled'
                             when lost.may_run then 'pending'
                             else 'dead_letter' end,
               attempts = job.attempts - (not lost.is_blamed)::int,
               crashes = job.crashes + lost.is_blamed::int,
               worker_id = null,
               fair_rank = greatest(job.fair_rank,
                                    (select lane.vtime
                                       from enrichment_lanes as lane
                                      where lane.provider_id = job.provider_id
                                        and lane.priority = job.priority)),
               error = case when not lost.is_blamed then job.error
                            else jsonb_build_object(
                                'type', 'worker_crashed',
                                'message', 'the worker died while it ran attempt ' || job.attempts,
                                'provider', null,
                                'retryable', lost.may_run) end,
               completed_at = case when job.cancel_requested_at is null and lost.may_run
                                   then null else now() end,
               updated_at = now()
          from lost
         where job.id = lost.id
        returning job.*
    ),
    told as ({TELL_MOVED})
    select workspace_id, id::text, type from moved
"""  # noqa: S608 - made of constants


@around("rescue")
async def rescue(conn: Connection, *, limit: int = BATCH) -> Moved:
    """Take jobs away from workers that are dead or gone; return them, at most `limit`."""
    cursor = await conn.execute(RESCUE, {"limit": limit, "crashes_max": CRASHES_MAX})
    rows = await cursor.fetchall()
    metrics.rescued([job_type for _, _, job_type in rows])
    return [(workspace_id, job_id) for workspace_id, job_id, _ in rows]
