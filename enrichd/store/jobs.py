"""The hot path: the turn, which records what ended and claims what is next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from enrichd.domain.jobs import Claimed
from enrichd.store.arrays import plain_array, text_array
from enrichd.store.database import Connection
from enrichd.store.faults import point
from enrichd.store.telling import TELL_ENDED, TELL_STARTED

TURN_ROWS_MAX = 500
TURN_BYTES_MAX = 1_048_576


@dataclass(slots=True)
class Ended:
    """How one run ended, as the table takes it. Not frozen: made 20,000 times a second."""

    id: str
    attempt: int
    status: str
    outcome: str
    result: str | None = None
    error: str | None = None
    delay_s: float | None = None
    is_refunded: bool = False
    """True gives the attempt back: snooze, park, release."""
    type: str = ""
    """The job's type, for the metrics alone."""
    workspace_id: str = ""
    """Whose job it is, for those who listen; empty for one that never began."""
    ran_s: float | None = None


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of a claim's plan: at most `quota` jobs of a lane and priority, from `floor` up."""

    priority: int
    provider_id: str
    quota: int
    floor: int


# Record and claim in one statement, so one round trip and one commit carry both: what ended goes
# out with the question for what is next. With nothing to record the claim goes alone: starting and
# ending the record's half took 0.3 ms of an idle worker's pick-up.
#
# Record. Every row is fenced by (id, worker_id, attempts); a run that lost its claim comes back as
# a row without an attempt and changes nothing. `was` is 'processing' out of the planner's sight: if
# it could prove that, it would scan the index `running` once for each row (24 ms for 320 rows, by
# the primary key 4). A cancel that was asked for wins over every end that is not final. worker_id
# stays after a final end (the attempts view reads it) and goes otherwise, and then the attempt gets
# its row in the log, unless it never began.
RECORDING: LiteralString = f"""
    ended as materialized (
        select *, 'processing' as was from unnest(
            %(ids)s::uuid[], %(attempts)s::int[], %(statuses)s::text[], %(outcomes)s::text[],
            %(results)s::text[], %(errors)s::text[], %(delays)s::float8[], %(refunds)s::bool[])
            as ended(id, attempt, status, outcome, result, error, delay_s, is_refunded)
    ),
    recorded as (
        update enrichment_jobs as job
           set status = case when job.cancel_requested_at is not null and ended.delay_s is not null
                             then 'cancelled' else ended.status end,
               attempts = job.attempts - ended.is_refunded::int,
               result = coalesce(ended.result::jsonb, job.result),
               error = case when ended.status = 'completed' then null
                            else coalesce(ended.error::jsonb, job.error) end,
               progress_done = case when ended.status = 'completed' then job.progress_total
                                    else job.progress_done end,
               worker_id = case when ended.delay_s is null then job.worker_id end,
               scheduled_at = case when ended.status in ('scheduled', 'waiting')
                                   then now() + make_interval(secs => ended.delay_s)
                                   else job.scheduled_at end,
               fair_rank = case when ended.status <> 'pending' then job.fair_rank
                                else greatest(job.fair_rank,
                                              (select lane.vtime
                                                 from enrichment_lanes as lane
                                                where lane.provider_id = job.provider_id
                                                  and lane.priority = job.priority)) end,
               completed_at = case when ended.delay_s is null or job.cancel_requested_at is not null
                                   then now() end,
               updated_at = now()
          from ended
         where job.id = ended.id
           and job.worker_id = %(worker_id)s
           and job.attempts = ended.attempt
           and job.status = ended.was
        returning job.id, job.workspace_id, ended.attempt, job.started_at, ended.outcome,
                  ended.error, ended.delay_s, {TELL_ENDED} as told
    ),
    logged as (
        insert into enrichment_attempt_log
               (job_id, workspace_id, attempt, worker_id, started_at, outcome, error)
        select id, workspace_id, attempt, %(worker_id)s, started_at, outcome, error::jsonb
          from recorded
         where delay_s is not null
           and outcome <> 'unstarted'
    ),
"""  # noqa: S608 - made of constants

# Claim. One descent of the index `ready` for each (priority, lane), in the plan's order, which is
# the policy; the lazy outer LIMIT stops locking at `room`, which is why no ORDER BY may stand
# there. The cost does not grow with the backlog, a left-out lane's backlog, history, or (by the
# floor) dead entries under an old snapshot. MATERIALIZED keeps the planner from updating more rows
# than were picked, and the array from joining them with the whole table: it cannot know `room`.
# Suspects, jobs whose worker died, are left for a while to workers that have nothing else to do:
# as many rows are stepped over as dead workers held.
CLAIMING: LiteralString = f"""
    picked as materialized (
        select job.id
          from unnest(%(priorities)s::smallint[], %(lanes)s::text[], %(quotas)s::int[],
                      %(floors)s::bigint[]) as lane(priority, provider_id, quota, floor_rank)
         cross join lateral (
               select id
                 from enrichment_jobs
                where status = 'pending'
                  and provider_id = lane.provider_id
                  and priority = lane.priority
                  and fair_rank >= lane.floor_rank
                  and (crashes = 0
                       or updated_at <= now() - make_interval(secs => %(suspects_after_s)s))
                order by fair_rank, id
                limit lane.quota
                  for update skip locked) as job
         limit %(room)s
    ),
    claimed as (
        update enrichment_jobs as job
           set status = 'processing', attempts = job.attempts + 1, worker_id = %(worker_id)s,
               started_at = now(), updated_at = now()
         where job.id = any(array(select id from picked))
        returning job.id, job.attempts, job.max_retries, job.type, job.workspace_id,
                  job.provider_id, job.priority, job.fair_rank, job.payload::text as payload,
                  job.crashes,
                  extract(epoch from now() - greatest(job.created_at, job.scheduled_at))::float8
                      as waited_s,
                  extract(epoch from now() - job.created_at)::float8 as age_s,
                  {TELL_STARTED} as told
    )
    select id::text, attempts, max_retries, type, workspace_id, provider_id, priority, fair_rank,
           payload, crashes, waited_s, age_s
      from claimed
"""  # noqa: S608 - made of constants

LOST: LiteralString = """
    union all
    select ended.id::text, null, null, null, null, null, null, null, null, null, null, null
      from ended
     where not exists (select 1 from recorded where recorded.id = ended.id)
"""

TURN: LiteralString = f"with {RECORDING}{CLAIMING}{LOST}"
CLAIM: LiteralString = f"with {CLAIMING}"


async def turn(
    conn: Connection,
    *,
    worker_id: UUID,
    ended: Sequence[Ended],
    plan: Sequence[Lane],
    room: int,
    suspects_after_s: float = 0.0,
) -> tuple[list[Claimed], list[str]]:
    """Record what ended and claim up to `room` jobs; return the jobs and the ids of lost claims.

    Suspects are claimed when they have been ready for `suspects_after_s`.

    Bound `ended` by TURN_ROWS_MAX. One value that PostgreSQL refuses fails the whole turn and
    changes nothing.
    """
    if plan:
        point("before_claim", conn)
    if ended:
        point("before_release" if ended[0].is_refunded else "before_record", conn)
    values = {
        "worker_id": worker_id,
        "priorities": plain_array([lane.priority for lane in plan]),
        "lanes": text_array([lane.provider_id for lane in plan]),
        "quotas": plain_array([lane.quota for lane in plan]),
        "floors": plain_array([lane.floor for lane in plan]),
        "room": room,
        "suspects_after_s": suspects_after_s,
    }
    if ended:
        values |= {
            "ids": plain_array([run.id for run in ended]),
            "attempts": plain_array([run.attempt for run in ended]),
            "statuses": plain_array([run.status for run in ended]),
            "outcomes": plain_array([run.outcome for run in ended]),
            "results": text_array([run.result for run in ended]),
            "errors": text_array([run.error for run in ended]),
            "delays": plain_array([run.delay_s for run in ended]),
            "refunds": plain_array([run.is_refunded for run in ended]),
        }
    cursor = await conn.execute(TURN if ended else CLAIM, values)
    claimed, lost = [], []
    for row in await cursor.fetchall():
        if row[1] is None:
            lost.append(row[0])
        else:
            claimed.append(Claimed(*row))
    if claimed:
        point("after_claim", conn)
    if ended:
        point("after_release" if ended[0].is_refunded else "after_record", conn)
    return claimed, lost
