"""Lanes: what a claim may look at, how far fair sharing has come, and the rank floor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from enrichd.store.arrays import plain_array, text_array
from enrichd.store.database import Connection
from enrichd.store.faults import around

NOBODY: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class OpenLane:
    """A lane and priority that may be claimed from now."""

    provider_id: str
    priority: int
    vtime: int
    floor_rank: int
    spare: int | None
    """How many more of its jobs this worker may begin, its share of what the fleet may; None: any
    number."""
    has_ready: bool
    heard: Sequence[str]
    """Workspaces whose changes somebody listens for now, `*` for all: the same in every lane."""


# Tens of rows. A throttled or broken provider is simply absent, so its backlog costs no claim
# anything. Who listens for changes is asked along with it, once for all rows. Only where a lane has
# a cap, what runs is counted, once for all lanes; what is left of the cap is shared among the
# living workers, and what does not go round falls to others each second. Whether a lane has ready
# jobs is one descent of `ready`, because of the order; `exists` has none, and walked over 120,000
# jobs of a throttled lane to the first of another: 31 ms instead of 0.3, ten times in a drain.
OPEN_LANES: LiteralString = """
    with running as materialized (
        select provider_id, count(*) as jobs
          from enrichment_jobs
         where status = 'processing'
         group by provider_id
    ),
    fleet as materialized (
        select greatest(count(*), 1) as workers,
               count(*) filter (where id < %(worker_id)s::uuid)
                   + extract(epoch from now())::bigint as place
          from enrichment_workers
         where state in ('running', 'idle')
    )
    select lane.provider_id, lane.priority, lane.vtime, lane.floor_rank,
           case when state.breaker = 'half_open' or state.inflight_cap is not null
                then (select (free / workers + (place %% workers < free %% workers)::int)::int
                        from fleet
                       cross join lateral (
                             select greatest(
                                        case when state.breaker = 'half_open' then 1
                                             else state.inflight_cap end
                                            - coalesce((select jobs
                                                          from running
                                                         where provider_id = lane.provider_id), 0),
                                        0) as free) as one)
           end,
           (select true
              from enrichment_jobs as job
             where job.status = 'pending'
               and job.provider_id = lane.provider_id
               and job.priority = lane.priority
               and job.fair_rank >= lane.floor_rank
             order by job.fair_rank, job.id
             limit 1) is not null,
           array(select distinct heard.workspace_id
                   from enrichment_listeners as listener
                  cross join unnest(listener.workspaces) as heard(workspace_id)
                  where listener.expires_at > now()
                  limit 100)
      from enrichment_lanes as lane
      left join enrichment_provider_state as state on state.provider_id = lane.provider_id
     where (state.blocked_until is null or state.blocked_until <= now())
       and coalesce(state.breaker, 'closed') <> 'open'
     order by lane.priority, lane.provider_id
"""


async def open_lanes(conn: Connection, *, worker_id: UUID = NOBODY) -> list[OpenLane]:
    """Return the lanes that a worker may claim from, highest priority first."""
    cursor = await conn.execute(OPEN_LANES, {"worker_id": worker_id})
    return [OpenLane(*row) async for row in cursor]


# Rows are locked in key order by the sub-select, so two workers that push at once queue up instead
# of deadlocking.
PUSH_VTIME: LiteralString = """
    with pushed as materialized (
        select lane.provider_id, lane.priority, new.vtime
          from unnest(%(lanes)s::text[], %(priorities)s::smallint[], %(vtimes)s::bigint[])
                 as new(provider_id, priority, vtime)
          join enrichment_lanes as lane
            on lane.provider_id = new.provider_id and lane.priority = new.priority
         where lane.vtime < new.vtime
         order by lane.provider_id, lane.priority
           for update of lane
    )
    update enrichment_lanes as lane
       set vtime = greatest(lane.vtime, pushed.vtime)
      from pushed
     where lane.provider_id = pushed.provider_id
       and lane.priority = pushed.priority
"""


@around("vtime")
async def push_vtime(conn: Connection, vtimes: Iterable[tuple[str, int, int]]) -> None:
    """Say which rank was claimed last: (provider id, priority, rank) for each lane."""
    rows = list(vtimes)
    await conn.execute(
        PUSH_VTIME,
        {
            "lanes": text_array([row[0] for row in rows]),
            "priorities": plain_array([row[1] for row in rows]),
            "vtimes": plain_array([row[2] for row in rows]),
        },
    )


# The floor is the lowest pending rank as it was at least 5 s ago, and never above what vtime was
# then: every new or returning job ranks at vtime or later, so none can land below the floor, even
# while a dear job alone in its lane waits at a rank far ahead. Only a transaction that read vtime
# and has not committed for that long may; the sweep ranks it anew.
RAISE_FLOORS: LiteralString = """
    with due as materialized (
        select provider_id, priority, vtime, floor_rank, floor_next
          from enrichment_lanes
         where floor_at <= now() - make_interval(secs => %(age_s)s)
         order by provider_id, priority
           for update skip locked
    ),
    seen as (
        select due.*,
               coalesce((select job.fair_rank
                           from enrichment_jobs as job
                          where job.status = 'pending'
                            and job.provider_id = due.provider_id
                            and job.priority = due.priority
                            and job.fair_rank >= due.floor_rank
                          order by job.fair_rank, job.id
                          limit 1), due.vtime) as lowest
          from due
    )
    update enrichment_lanes as lane
       set floor_rank = greatest(lane.floor_rank, least(seen.floor_next, seen.lowest)),
           floor_next = greatest(lane.floor_next, least(seen.lowest, seen.vtime)),
           floor_at = now()
      from seen
     where lane.provider_id = seen.provider_id
       and lane.priority = seen.priority
"""


@around("floors")
async def raise_floors(conn: Connection, *, age_s: float = 5.0) -> int:
    """Lift the rank floors of lanes whose floor is older than `age_s`; return how many lanes."""
    return (await conn.execute(RAISE_FLOORS, {"age_s": age_s})).rowcount


# Ranks are given as enqueue gives them: the group's base and a running sum.
RERANK_BELOW_FLOOR: LiteralString = """
    with low as materialized (
        select job.id, job.workspace_id, job.cost, job.fair_rank, lane.provider_id, lane.priority
          from enrichment_lanes as lane
         cross join lateral (
               select id, workspace_id, cost, fair_rank
                 from enrichment_jobs
                where status = 'pending'
                  and provider_id = lane.provider_id
                  and priority = lane.priority
                  and fair_rank < lane.floor_rank
                order by fair_rank, id
                limit 100
                  for update skip locked) as job
    ),
    base as materialized (
        select workspace_id, provider_id, priority,
               enrichment_rank_base(workspace_id, provider_id, priority) as rank
          from (select distinct workspace_id, provider_id, priority from low) as one
    ),
    ranked as (
        select low.id,
               base.rank + sum(low.cost) over (partition by workspace_id, provider_id, priority
                                                   order by low.fair_rank, low.id) as fair_rank
          from low
          join base using (workspace_id, provider_id, priority)
    )
    update enrichment_jobs as job
       set fair_rank = ranked.fair_rank
      from ranked
     where job.id = ranked.id
"""


async def rerank_below_floor(conn: Connection) -> int:
    """Rank anew what a slow transaction put below the floor; return how many jobs."""
    return (await conn.execute(RERANK_BELOW_FLOOR)).rowcount


# What there is to do, in one look: a housekeeper with nothing to do sends this once a second and
# nothing else. Every part is one probe of a partial index: the order, which a count does not need,
# is what makes the planner take `ready` and not walk through all of `fair`.
LOOK: LiteralString = """
    with running as materialized (
        select provider_id, count(*) as jobs
          from enrichment_jobs
         where status = 'processing'
         group by provider_id
    )
    select (select count(*)
              from enrichment_lanes as lane
              left join enrichment_provider_state as state
                on state.provider_id = lane.provider_id
             cross join lateral (
                   select 1
                     from enrichment_jobs as job
                    where job.status = 'pending'
                      and job.provider_id = lane.provider_id
                      and job.priority = lane.priority
                      and job.fair_rank >= lane.floor_rank
                    order by job.fair_rank, job.id
                    limit least(%(room)s,
                                case when state.inflight_cap is not null
                                     then greatest(state.inflight_cap
                                                       - coalesce((select jobs
                                                                     from running
                                                                    where provider_id
                                                                          = lane.provider_id), 0),
                                                   0)
                                end)) as ready
             where (state.blocked_until is null or state.blocked_until <= now())
               and coalesce(state.breaker, 'closed') <> 'open'),
           (select extract(epoch from min(scheduled_at) - now())::float8
              from enrichment_jobs
             where status = 'scheduled'),
           exists (select 1 from enrichment_jobs
                    where status = 'waiting' and scheduled_at <= now()),
           exists (select 1 from enrichment_workers
                    where state <> 'dead'
                      and heartbeat_at < now() - make_interval(secs => %(timeout_s)s)),
           exists (select 1
                     from enrichment_jobs as job
                    where job.status = 'processing'
                      and not exists (select 1
                                        from enrichment_workers as worker
                                       where worker.id = job.worker_id
                                         and worker.state <> 'dead')),
           exists (select 1 from enrichment_jobs where status = 'processing'),
           (select extract(epoch from min(next_attempt_at) - now())::float8
              from enrichment_webhook_deliveries
             where status = 'pending'),
           exists (select 1 from enrichment_provider_state where breaker = 'open'),
           exists (select 1 from enrichment_jobs where status = 'waiting')
               and (exists (select 1 from enrichment_callbacks where state = 'received')
                    or exists (select 1
                                 from enrichment_callbacks
                                where state = 'asked' and poll_at <= now())),
           exists (select 1 from enrichment_credit_reservations where expires_at <= now())
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What there is to do right now."""

    ready: int
    """Ready jobs in open lanes, counted up to the room asked for in each."""
    next_due_s: float | None
    """Seconds until a scheduled job is due, negative if one is; None without any."""
    has_late: bool
    has_silent: bool
    has_orphans: bool
    is_busy: bool
    """Whether any job is being run."""
    next_delivery_s: float | None
    """Seconds until a webhook is to be sent, negative if one is; None without any."""
    has_open_breaker: bool
    has_answers: bool
    """Whether an answer came, or may be fetched, that a parked job could be waiting for."""
    has_forgotten_calls: bool
    """Whether credits are set aside for calls that never ended."""

    @property
    def has_upkeep(self) -> bool:
        """Say whether a turn of upkeep would move anything."""
        is_due = self.next_due_s is not None and self.next_due_s <= 0
        return is_due or self.has_late or self.has_silent or self.has_orphans

    @property
    def has_provider_upkeep(self) -> bool:
        """Say whether something that waits for a provider may be moved on."""
        return self.has_open_breaker or self.has_answers or self.has_forgotten_calls


async def look(conn: Connection, *, room: int, worker_timeout_s: float) -> Look:
    """Return what there is to do."""
    cursor = await conn.execute(LOOK, {"room": room, "timeout_s": worker_timeout_s})
    row = await cursor.fetchone()
    assert row is not None
    return Look(*row)
