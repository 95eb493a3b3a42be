"""New jobs: one at a time, or many that may repeat earlier ones; `bulk` takes many fresh ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from psycopg import Connection as SyncConnection
from psycopg.rows import TupleRow, tuple_row

from enrichd.domain.jobs import Enqueued
from enrichd.errors import Invalid
from enrichd.store.arrays import plain_array, text_array
from enrichd.store.database import Connection
from enrichd.store.faults import around
from enrichd.store.telling import TELL_CREATED


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
