"""Changes that people make to jobs which have not ended, and the deletion of those which have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from enrichd.domain.jobs import Job
from enrichd.store.database import Connection
from enrichd.store.job_reads import GET, job_of

GET_LOCKED: LiteralString = GET + " for update"


async def get_locked(conn: Connection, *, workspace_id: str, job_id: UUID) -> Job | None:
    """Return a job that nobody else can change before this transaction ends, or None."""
    cursor = await conn.execute(GET_LOCKED, {"id": job_id, "workspace_id": workspace_id})
    row = await cursor.fetchone()
    return job_of(row) if row else None


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of a job; None leaves a part as it is."""

    priority: int | None = None
    tags: Sequence[str] | None = None
    sets_webhook: bool = False
    webhook_url: str | None = None
    sets_time: bool = False
    scheduled_at: datetime | None = None
    """None is at once."""


# A lane has a row for each priority that was ever used in it.
ADD_LANES: LiteralString = """
    insert into enrichment_lanes (provider_id, priority)
    select distinct provider_id, %(priority)s::smallint
      from enrichment_jobs
     where id = any(%(ids)s)
       and workspace_id = %(workspace_id)s
        on conflict do nothing
"""

# A job that becomes ready, or goes to another priority's line, joins it at its end, as enqueue
# does. The clock moves on with every change, so that two changes never look like one.
CHANGE: LiteralString = """
    with wanted as materialized (
        select id, status, priority,
               case when status not in ('pending', 'scheduled') or not %(sets_time)s then status
                    when %(scheduled_at)s::timestamptz > now() then 'scheduled'
                    else 'pending' end as new_status,
               coalesce(%(priority)s::smallint, priority) as new_priority
          from enrichment_jobs
         where id = %(id)s
           and workspace_id = %(workspace_id)s
           and status in ('pending', 'scheduled', 'processing', 'waiting')
           for update
    )
    update enrichment_jobs as job
       set status = wanted.new_status,
           priority = wanted.new_priority,
           fair_rank = case when wanted.new_status = 'pending'
                             and (wanted.status <> 'pending'
                                  or wanted.new_priority <> wanted.priority)
                            then job.cost + enrichment_rank_base(job.workspace_id, job.provider_id,
                                                                 wanted.new_priority)
                            else job.fair_rank end,
           scheduled_at = case when %(sets_time)s then %(scheduled_at)s::timestamptz
                               else job.scheduled_at end,
           tags = coalesce(%(tags)s::text[], job.tags),
           webhook_url = case when %(sets_webhook)s then %(webhook_url)s else job.webhook_url end,
           updated_at = greatest(clock_timestamp(), job.updated_at + interval '1 microsecond')
      from wanted
     where job.id = wanted.id
    returning job.id
"""


async def change(conn: Connection, *, workspace_id: str, job_id: UUID, to: Change) -> bool:
    """Change a job that has not ended; False if there is none such."""
    owner = {"workspace_id": workspace_id, "priority": to.priority}
    if to.priority is not None:
        await conn.execute(ADD_LANES, {**owner, "ids": [job_id]})
    values = {
        **owner,
        "id": job_id,
        "tags": None if to.tags is None else list(to.tags),
        "sets_webhook": to.sets_webhook,
        "webhook_url": to.webhook_url,
        "sets_time": to.sets_time,
        "scheduled_at": to.scheduled_at,
    }
    return (await conn.execute(CHANGE, values)).rowcount == 1


# Ranks run on inside a workspace, lane and priority, as in RETRY.
REPRIORITISE: LiteralString = """
    with wanted as materialized (
        select id, workspace_id, provider_id, cost, status, priority
          from enrichment_jobs
         where id = any(%(ids)s)
           and workspace_id = %(workspace_id)s
           and status in ('pending', 'scheduled', 'processing', 'waiting')
         order by id
           for update
    ),
    base as materialized (
        select workspace_id, provider_id,
               enrichment_rank_base(workspace_id, provider_id, %(priority)s::smallint) as rank
          from (select distinct workspace_id, provider_id from wanted) as one
    ),
    ranked as (
        select wanted.id, wanted.status = 'pending' and wanted.priority <> %(priority)s as is_moved,
               base.rank + sum(wanted.cost) over (partition by workspace_id, provider_id
                                                      order by wanted.id) as fair_rank
          from wanted
          join base using (workspace_id, provider_id)
    )
    update enrichment_jobs as job
       set priority = %(priority)s,
           fair_rank = case when ranked.is_moved then ranked.fair_rank else job.fair_rank end,
           updated_at = greatest(clock_timestamp(), job.updated_at + interval '1 microsecond')
      from ranked
     where job.id = ranked.id
    returning job.id, job.status
"""


async def reprioritise(
    conn: Connection, *, workspace_id: str, ids: Sequence[UUID], priority: int
) -> list[tuple[UUID, str]]:
    """Give jobs that have not ended another priority; return (id, status) of each."""
    values = {"workspace_id": workspace_id, "ids": list(ids), "priority": priority}
    await conn.execute(ADD_LANES, values)
    cursor = await conn.execute(REPRIORITISE, values)
    return [(job_id, status) async for job_id, status in cursor]


# Items and attempts go with their jobs: no foreign key does it, as in PRUNE.
DELETE: LiteralString = """
    with ended as materialized (
        select id
          from enrichment_jobs
         where id = any(%(ids)s)
           and workspace_id = %(workspace_id)s
           and status in ('completed', 'failed', 'cancelled', 'dead_letter')
         order by id
           for update
    ),
    items as (
        delete from enrichment_job_items as item using ended where item.job_id = ended.id
    ),
    log as (
        delete from enrichment_attempt_log as entry using ended where entry.job_id = ended.id
    )
    delete from enrichment_jobs as job using ended where job.id = ended.id
    returning job.id
"""


async def delete(conn: Connection, *, workspace_id: str, ids: Sequence[UUID]) -> list[UUID]:
    """Delete jobs that have ended, with their leads and attempts; return the ids deleted."""
    cursor = await conn.execute(DELETE, {"ids": list(ids), "workspace_id": workspace_id})
    return [job_id async for (job_id,) in cursor]
