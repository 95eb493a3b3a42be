"""Taking jobs out of lanes whose provider is broken, so that they fall back instead of waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from enrichd.store.database import Connection


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the order of lanes a look at them stopped."""

    provider_id: str
    priority: int
    fair_rank: int
    job_id: UUID


@dataclass(frozen=True, slots=True)
class Relaned:
    """How many jobs were moved, and where to go on; None when all were looked at."""

    moved: int
    next_place: Place | None


# Looks at `limit` jobs a time in the order of `ready`, from where the last look stopped: jobs
# without a fallback stay in front and are not to hide the others. Ranks are given as enqueue gives
# them. Locks jobs in index order and skips what a claim holds.
RELANE: LiteralString = """
    with stuck as materialized (
        select lane.provider_id, lane.priority, lane.floor_rank
          from enrichment_lanes as lane
          join enrichment_provider_state as state on state.provider_id = lane.provider_id
         where state.breaker = 'open'
           and (state.opened_for is null
                or state.opened_at + state.opened_for > now() + interval '5 s')
           and (lane.provider_id, lane.priority) >= (%(provider_id)s, %(priority)s)
    ),
    looked as materialized (
        select job.id, job.workspace_id, job.cost, job.fair_rank, job.provider_id, job.priority,
               job.payload -> 'fallbackProviders' as fallbacks
          from (select * from stuck order by provider_id, priority) as lane
         cross join lateral (
               select *
                 from enrichment_jobs as one
                where one.status = 'pending'
                  and one.provider_id = lane.provider_id
                  and one.priority = lane.priority
                  and one.fair_rank >= lane.floor_rank
                  and (one.fair_rank, one.id) >
                      (case when (lane.provider_id, lane.priority) = (%(provider_id)s, %(priority)s)
                            then %(fair_rank)s else -1 end,
                       case when (lane.provider_id, lane.priority) = (%(provider_id)s, %(priority)s)
                            then %(job_id)s::uuid else '00000000-0000-0000-0000-000000000000' end)
                order by one.fair_rank, one.id
                limit %(limit)s
                  for update skip locked) as job
         limit %(limit)s
    ),
    aimed as materialized (
        select looked.id, looked.workspace_id, looked.cost, looked.fair_rank, looked.priority,
               target.lane as provider_id
          from looked
         cross join lateral (
               select own.lane
                 from jsonb_array_elements(
                          case when jsonb_typeof(looked.fallbacks) = 'array'
                               then looked.fallbacks else '[]' end)
                          with ordinality as named(name, place)
                cross join lateral enrichment_lane_of(looked.workspace_id, named.name #>> '{}')
                             as own(lane)
                 left join enrichment_provider_state as state on state.provider_id = own.lane
                where coalesce(state.breaker, 'closed') <> 'open'
                  and (state.blocked_until is null or state.blocked_until <= now())
                  and jsonb_typeof(named.name) = 'string'
                  and own.lane <> looked.provider_id
                  and length(named.name #>> '{}') between 1 and 100
                order by place
                limit 1) as target
    ),
    made as (
        insert into enrichment_lanes (provider_id, priority)
        select distinct provider_id, priority from aimed order by provider_id, priority
            on conflict do nothing
    ),
    base as materialized (
        select workspace_id, provider_id, priority,
               enrichment_rank_base(workspace_id, provider_id, priority) as rank
          from (select distinct workspace_id, provider_id, priority from aimed) as one
    ),
    ranked as (
        select aimed.id, aimed.provider_id,
               base.rank
                   + sum(aimed.cost) over (partition by workspace_id, provider_id, priority
                                               order by aimed.fair_rank, aimed.id) as fair_rank
          from aimed
          join base using (workspace_id, provider_id, priority)
    ),
    moved as (
        update enrichment_jobs as job
           set provider_id = ranked.provider_id, fair_rank = ranked.fair_rank, updated_at = now()
          from ranked
         where job.id = ranked.id
        returning job.id
    ),
    seen as (
        select provider_id, priority, fair_rank, id,
               count(*) over () as jobs
          from looked
         order by provider_id desc, priority desc, fair_rank desc, id desc
         limit 1
    )
    select (select count(*) from moved), seen.provider_id, seen.priority, seen.fair_rank, seen.id,
           coalesce(seen.jobs, 0)
      from (select 1) as one
      left join seen on true
"""

NOWHERE = Place("", 0, -1, UUID(int=0))


async def relane(conn: Connection, *, limit: int = 500, place: Place | None = None) -> Relaned:
    """Move jobs of lanes that stay broken for a while to the lane of their first open fallback.

    Looks at `limit` jobs at most, from `place` on: hand in the `next_place` of the last answer.
    """
    after = place or NOWHERE
    cursor = await conn.execute(
        RELANE,
        {
            "limit": limit,
            "provider_id": after.provider_id,
            "priority": after.priority,
            "fair_rank": after.fair_rank,
            "job_id": after.job_id,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    moved, *last, looked = row
    return Relaned(moved, Place(*last) if looked >= limit else None)
