"""The hot path: put jobs in, and the turn that records what ended and claims what is next.

Arrays travel as PostgreSQL array literals made here by joining strings: psycopg's own list dumper
took 8 µs a job for the eight arrays of a turn, joining takes under 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import LiteralString, TypeAlias
from uuid import UUID

from psycopg import Connection as SyncConnection
from psycopg.rows import TupleRow, tuple_row

from enrichd.domain.jobs import Claimed, Enqueued
from enrichd.errors import Invalid
from enrichd.store.database import Connection
from enrichd.store.faults import around, point
from enrichd.store.telling import TELL_CREATED, TELL_ENDED, TELL_STARTED

TURN_ROWS_MAX = 500
TURN_BYTES_MAX = 1_048_576


@dataclass(slots=True)
class Row:
    """A checked new job as the table takes it; `payload` is JSON text. Not frozen: made in bulk."""

    id: UUID
    workspace_id: str
    type: str
    priority: int
    provider_id: str
    payload: str
    tags: Sequence[str]
    max_retries: int
    cost: int
    webhook_url: str | None
    idempotency_key: str | None
    scheduled_at: str | None
    """ISO 8601 with an offset."""
    delay_s: float | None
    is_fresh: bool = False
    """True when the id was made here and there is no key: no earlier job can be this one."""

    @property
    def is_ready(self) -> bool:
        """Say whether the job is to run at once, whatever the database's clock shows."""
        return self.scheduled_at is None and not self.delay_s

    @property
    def is_plain(self) -> bool:
        """Say whether the job is ready and tells nobody by itself."""
        return self.webhook_url is None and self.is_ready


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


# One job that is ready at once, in a lane that is there: what the SQL function below does, without
# its checks, which Python has made. No row comes of it when the lane is not there, the id or key
# is, or the workspace has a webhook or a key of its own for the provider; then the function is
# asked. Everything travels as text, so that it is one prepared statement whatever the size of a
# number.
ENQUEUE_FRESH: LiteralString = """
    insert into enrichment_jobs
           (id, workspace_id, type, priority, provider_id, payload, tags, max_retries, cost,
            webhook_url, idempotency_key, fair_rank)
    select %(id)s::uuid, %(workspace_id)s, %(type)s, lane.priority, lane.provider_id,
           %(payload)s::jsonb, %(tags)s::text[], %(max_retries)s::int, %(cost)s::int,
           %(webhook_url)s, %(idempotency_key)s,
           greatest(lane.vtime, (select job.fair_rank
                                   from enrichment_jobs as job
                                  where job.status = 'pending'
                                    and job.workspace_id = %(workspace_id)s
                                    and job.provider_id = %(provider_id)s
                                    and job.priority = %(priority)s::smallint
                                    and job.fair_rank >= lane.floor_rank
                                  order by job.fair_rank desc
                                  limit 1)) + %(cost)s::int
      from enrichment_lanes as lane
     where lane.provider_id = %(provider_id)s
       and lane.priority = %(priority)s::smallint
       and not exists (select 1
                         from enrichment_webhooks as hook
                        where hook.workspace_id = %(workspace_id)s
                          and hook.enabled)
       and not exists (select 1
                         from enrichment_provider_keys as brought
                        where brought.workspace_id = %(workspace_id)s
                          and brought.provider_id = %(provider_id)s)
"""

# A conflict that cannot be is not looked for: that writes the row in two steps.
ENQUEUE_READY: LiteralString = ENQUEUE_FRESH + "on conflict do nothing"

# One job of any kind. The rules stand in the SQL function, because callers in other languages use
# it too.
ENQUEUE: LiteralString = """
    select job_id, is_new
      from enrichment_enqueue_job(
               type => %(type)s, payload => %(payload)s::jsonb, workspace_id => %(workspace_id)s,
               priority => %(priority)s::int, provider_id => %(provider_id)s,
               max_retries => %(max_retries)s::int, tags => %(tags)s::text[],
               webhook_url => %(webhook_url)s, idempotency_key => %(idempotency_key)s,
               scheduled_at => %(scheduled_at)s::timestamptz,
               delay => make_interval(secs => %(delay_s)s::float8), id => %(id)s::uuid,
               cost => %(cost)s::int)
"""


@around("enqueue")
async def enqueue(conn: Connection, row: Row) -> Enqueued:
    """Put one job on the queue, or find the one that has its id or idempotency key."""
    # The connection may be the caller's, with a row factory of his own.
    cursor = conn.cursor(row_factory=tuple_row)
    values = enqueue_values(row)
    if row.is_plain and (await cursor.execute(ready_statement(row), values)).rowcount:
        return Enqueued(row.id, True)
    await cursor.execute(ENQUEUE, values)
    return enqueued(await cursor.fetchone())


def enqueue_sync(conn: SyncConnection[TupleRow], row: Row) -> Enqueued:
    """Do the same on a synchronous connection: the caller's own, in the caller's transaction."""
    cursor = conn.cursor(row_factory=tuple_row)
    values = enqueue_values(row)
    if row.is_plain and cursor.execute(ready_statement(row), values).rowcount:
        return Enqueued(row.id, True)
    return enqueued(cursor.execute(ENQUEUE, values).fetchone())


def ready_statement(row: Row) -> LiteralString:
    """Return the statement for a job that is ready at once."""
    return ENQUEUE_FRESH if row.is_fresh else ENQUEUE_READY


def enqueue_values(row: Row) -> dict[str, str | None]:
    """Return the parameters of each statement for one job."""
    return {
        "id": row.id.hex,
        "workspace_id": row.workspace_id,
        "type": row.type,
        "priority": str(row.priority),
        "provider_id": row.provider_id,
        "payload": row.payload,
        "tags": text_array(row.tags) if row.tags else "{}",
        "max_retries": str(row.max_retries),
        "cost": str(row.cost),
        "webhook_url": row.webhook_url,
        "idempotency_key": row.idempotency_key,
        "scheduled_at": row.scheduled_at,
        "delay_s": None if row.delay_s is None else str(row.delay_s),
    }


def enqueued(answer: TupleRow | None) -> Enqueued:
    """Read the one row of ENQUEUE."""
    assert answer is not None
    job_id, is_new = answer
    return Enqueued(job_id, is_new)


# Many jobs that may repeat earlier ones. Ranks run on inside a workspace, lane and priority: one
# look-up of the base for each of those groups, then a running sum of the costs.
# Rows go in by key, so that two bulk calls with the same keys in other orders wait for each other
# in one order and do not deadlock; past one statement's rows they may, and that race is run again.
ENQUEUE_MANY: LiteralString = f"""
    with new as materialized (
        select given.id, given.workspace_id, given.type, given.priority,
               given.provider_id || coalesce('#' || brought.workspace_id, '') as provider_id,
               given.payload, given.tags, given.max_retries, given.cost, given.webhook_url,
               given.idempotency_key, given.scheduled_at, given.delay_s, given.place
          from unnest(
            %(ids)s::uuid[], %(workspaces)s::text[], %(types)s::text[], %(priorities)s::smallint[],
            %(lanes)s::text[], %(payloads)s::text[], %(tags)s::text[], %(max_retries)s::int[],
            %(costs)s::int[], %(webhooks)s::text[], %(keys)s::text[], %(dues)s::timestamptz[],
            %(delays)s::float8[])
          with ordinality
            as given(id, workspace_id, type, priority, provider_id, payload, tags, max_retries,
                   cost, webhook_url, idempotency_key, scheduled_at, delay_s, place)
          left join enrichment_provider_keys as brought
            on brought.workspace_id = given.workspace_id and brought.provider_id = given.provider_id
    ),
    lane as (
        insert into enrichment_lanes (provider_id, priority)
        select distinct provider_id, priority from new
            on conflict do nothing
    ),
    base as materialized (
        select workspace_id, provider_id, priority,
               enrichment_rank_base(workspace_id, provider_id, priority) as rank
          from (select distinct workspace_id, provider_id, priority from new) as one
    ),
    timed as (
        select new.*, coalesce(new.scheduled_at, now() + make_interval(secs => new.delay_s)) as due
          from new
    ),
    ranked as (
        select timed.*,
               case when due > now() then 'scheduled' else 'pending' end as status,
               case when due > now() then 0
                    else base.rank + sum(cost) filter (where due is null or due <= now())
                                     over (partition by workspace_id, provider_id, priority
                                               order by place) end as fair_rank
          from timed
          join base using (workspace_id, provider_id, priority)
    ),
    created as (
        insert into enrichment_jobs
               (id, workspace_id, type, status, priority, provider_id, payload, tags, max_retries,
                cost, fair_rank, webhook_url, idempotency_key, scheduled_at)
        select id, workspace_id, type, status, priority, provider_id, payload::jsonb,
               tags::text[], max_retries, cost, fair_rank, webhook_url, idempotency_key, due
          from ranked
         order by idempotency_key, place
            on conflict do nothing
        returning id, workspace_id, type, status, priority, provider_id, tags, webhook_url,
                  created_at, scheduled_at
    ),
    told as ({TELL_CREATED})
    select id from created
"""  # noqa: S608 - made of constants

EARLIER: LiteralString = """
    select new.id, job.id
      from unnest(%(ids)s::uuid[], %(workspaces)s::text[], %(keys)s::text[])
             as new(id, workspace_id, idempotency_key)
      join enrichment_jobs as job
        on job.workspace_id = new.workspace_id and job.idempotency_key = new.idempotency_key
    union all
    select new.id, job.id
      from unnest(%(ids)s::uuid[], %(workspaces)s::text[]) as new(id, workspace_id)
      join enrichment_jobs as job on job.id = new.id and job.workspace_id = new.workspace_id
"""


async def enqueue_many(conn: Connection, rows: Sequence[Row]) -> list[Enqueued]:
    """Put many jobs on the queue in one statement; answer in the order given.

    Call it in a transaction when some of the ids or keys may be there before.
    """
    keys = text_array([row.idempotency_key for row in rows])
    ids = plain_array([row.id for row in rows])
    workspaces = text_array([row.workspace_id for row in rows])
    cursor = conn.cursor(row_factory=tuple_row)
    await cursor.execute(
        ENQUEUE_MANY,
        {
            "ids": ids,
            "workspaces": workspaces,
            "types": text_array([row.type for row in rows]),
            "priorities": plain_array([row.priority for row in rows]),
            "lanes": text_array([row.provider_id for row in rows]),
            "payloads": text_array([row.payload for row in rows]),
            "tags": text_array([text_array(row.tags) for row in rows]),
            "max_retries": plain_array([row.max_retries for row in rows]),
            "costs": plain_array([row.cost for row in rows]),
            "webhooks": text_array([row.webhook_url for row in rows]),
            "keys": keys,
            "dues": text_array([row.scheduled_at for row in rows]),
            "delays": plain_array([row.delay_s for row in rows]),
        },
    )
    new = {job_id for (job_id,) in await cursor.fetchall()}
    if len(new) == len(rows):
        return [Enqueued(row.id, True) for row in rows]
    await cursor.execute(EARLIER, {"ids": ids, "workspaces": workspaces, "keys": keys})
    earlier: dict[UUID, UUID] = dict(await cursor.fetchall())
    answers = []
    for row in rows:
        if row.id not in new and row.id not in earlier:
            raise Invalid(f"job id {row.id} is taken")
        answers.append(Enqueued(earlier.get(row.id, row.id), row.id in new))
        new.discard(row.id)
    return answers


# The plain bulk path: fresh ids and no keys cannot collide, so the rows go in by COPY, which was
# measured against the statement above in docs/performance.md.
RANK_BASES: LiteralString = """
    with new as materialized (
        select asked.workspace_id, asked.provider_id, asked.priority,
               asked.provider_id || coalesce('#' || brought.workspace_id, '') as lane
          from unnest(%(workspaces)s::text[], %(lanes)s::text[], %(priorities)s::smallint[])
                 as asked(workspace_id, provider_id, priority)
          left join enrichment_provider_keys as brought
            on brought.workspace_id = asked.workspace_id
           and brought.provider_id = asked.provider_id
    ),
    made as (
        insert into enrichment_lanes (provider_id, priority)
        select distinct lane, priority from new
            on conflict do nothing
    )
    select workspace_id, provider_id, priority, lane,
           enrichment_rank_base(workspace_id, lane, priority),
           exists (select 1
                     from enrichment_webhooks as hook
                    where hook.workspace_id = new.workspace_id
                      and hook.enabled),
           row_security_active('enrichment_jobs')
      from new
"""

COPY: LiteralString = """
    copy enrichment_jobs (workspace_id, provider_id, priority, fair_rank, id, type, payload, tags,
                          max_retries, cost, webhook_url)
    from stdin
"""

TELL_COPIED: LiteralString = "select enrichment_tell_created(%(ids)s::uuid[])"

BATCHES_AHEAD_MAX = 16
HEARD_MAX = 10_000
"""Jobs to tell of after which a COPY ends, so that their ids are never many in memory."""

Group: TypeAlias = tuple[str, str, int]
"""A workspace, a provider and a priority: what shares one lane and one row of ranks."""


@dataclass(slots=True)
class Standing:
    """How far a group has come while its jobs go in, and its columns in COPY's text format."""

    text: str
    rank: int
    is_heard: bool
    """Whether somebody may want to hear of the group's new jobs."""
    is_held: bool
    """Whether row level security holds us, which PostgreSQL has no COPY for."""


async def copy_in(conn: Connection, batches: Iterable[Sequence[Row]]) -> None:
    """Put many new jobs on the queue, ready at once; ids must be new and keys absent.

    Rows are made while PostgreSQL takes in those before, so the batches should be small: it works
    on what fits its socket. A COPY goes on until a job of a new group comes; then the search for
    ranks reads ahead, further each time, so that many groups cost few searches. Who is no superuser
    inserts by statements: there is no COPY under row level security, whatever it allows.
    """
    remaining = iter(batches)
    standings: dict[Group, Standing] = {}
    ahead = 1
    rows: Sequence[Row] = next(remaining, ())
    while rows:
        rows = [*rows, *chain.from_iterable(islice(remaining, ahead - 1))]
        ahead = min(2 * ahead, BATCHES_AHEAD_MAX)
        groups = {(row.workspace_id, row.provider_id, row.priority) for row in rows}
        standings |= await standings_of(conn, groups - standings.keys())
        if any(standing.is_held for standing in standings.values()):
            while rows:
                await enqueue_many(conn, rows)
                rows = [*chain.from_iterable(islice(remaining, BATCHES_AHEAD_MAX))]
            return
        heard: list[UUID] = []
        async with conn.cursor() as cursor, cursor.copy(COPY) as copy:
            while rows:
                lines = copy_lines(rows, standings, heard)
                await copy.write("".join(lines))
                if len(lines) < len(rows):
                    rows = rows[len(lines) :]
                    break
                rows = next(remaining, ())
                if len(heard) >= HEARD_MAX:
                    break
        if heard:
            await conn.execute(TELL_COPIED, {"ids": plain_array(heard)})


async def standings_of(conn: Connection, groups: Iterable[Group]) -> dict[Group, Standing]:
    """Return where the ranks of each group start."""
    wanted = list(groups)
    cursor = conn.cursor(row_factory=tuple_row)
    await cursor.execute(
        RANK_BASES,
        {
            "workspaces": text_array([group[0] for group in wanted]),
            "lanes": text_array([group[1] for group in wanted]),
            "priorities": plain_array([group[2] for group in wanted]),
        },
    )
    return {
        (ws, name, prio): Standing(
            f"{copy_text(ws)}\t{copy_text(lane)}\t{prio}", base, is_heard, is_held
        )
        async for ws, name, prio, lane, base, is_heard, is_held in cursor
    }


def copy_lines(
    rows: Sequence[Row], standings: Mapping[Group, Standing], heard: list[UUID]
) -> list[str]:
    """Return rows in COPY's text format up to the first of an unknown group; ranks run on.

    The ids of those that somebody may want to hear of are added to `heard`.
    """
    lines = []
    for row in rows:
        standing = standings.get((row.workspace_id, row.provider_id, row.priority))
        if standing is None:
            break
        standing.rank += row.cost
        if standing.is_heard or row.webhook_url is not None:
            heard.append(row.id)
        lines.append(
            f"{standing.text}\t{standing.rank}\t{row.id.hex}\t{copy_text(row.type)}\t"
            f"{copy_text(row.payload)}\t{copy_text(text_array(row.tags)) if row.tags else '{}'}\t"
            f"{row.max_retries}\t{row.cost}\t"
            f"{copy_text(row.webhook_url) if row.webhook_url is not None else NULL}\n"
        )
    return lines


NULL = "\\N"


def copy_text(text: str) -> str:
    """Escape one value for COPY's text format."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


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


def plain_array(values: Iterable[object]) -> str:
    """Return an array literal of values that need no quoting: ids, numbers, booleans, our words."""
    return "{" + ",".join(["null" if value is None else str(value) for value in values]) + "}"


def text_array(values: Iterable[str | None]) -> str:
    """Return an array literal of any text."""
    return (
        "{"
        + ",".join(
            [
                "null"
                if value is None
                else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
                for value in values
            ]
        )
        + "}"
    )
