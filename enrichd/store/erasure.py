"""Finding and overwriting what the tables hold about one person.

Everything is read in bounded parts by a key, so no statement holds a table for long. A rough
regular expression picks rows here; which of them really hold the person is told by reading them.
A table that may hold a person and is not named below fails a test.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString
from uuid import UUID

from psycopg import sql

from enrichd.store.answers import bytes_array
from enrichd.store.arrays import plain_array
from enrichd.store.database import Connection, Database
from enrichd.store.json_text import loads
from enrichd.store.telling import TELL_MOVED

PART = 1000
FIRST_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Beside:
    """A table beside the jobs whose rows may hold a person."""

    table: str
    key: Sequence[str]
    """The columns that order its rows and name each."""
    first: Sequence[object]
    """A key below all others."""
    blanked: Sequence[str] = ()
    """What is emptied in a row that holds the person: whatever else it says is about him too."""
    mended: Sequence[str] = ()
    """What only the address is taken out of."""
    is_deleted: bool = False
    """Whether such a row goes as a whole."""
    job: str | None = "job_id"
    """The column that names its job, to find what belongs to one about that person alone."""
    goes_with_job: bool = False
    """Whether rows of such a job are deleted; else all their texts are emptied."""
    workspace: str | None = "workspace_id"

    @property
    def texts(self) -> Sequence[str]:
        """Return the columns that are looked at."""
        return (*self.blanked, *self.mended)


BESIDE = (
    Beside("enrichment_attempt_log", ["id"], [0], mended=["error"]),
    Beside(
        "enrichment_callbacks",
        ["token_hash"],
        [b""],
        blanked=["answer", "request_id"],
        is_deleted=True,
        goes_with_job=True,
    ),
    Beside(
        "enrichment_webhook_deliveries",
        ["sequence"],
        [0],
        blanked=["data", "answer", "error", "history", "item_key"],
        mended=["url"],
        goes_with_job=True,
    ),
    Beside("enrichment_incoming_events", ["source", "event_id"], ["", ""], blanked=["data"]),
    Beside(
        "enrichment_provider_state",
        ["provider_id"],
        [""],
        mended=["reason"],
        job=None,
        workspace=None,
    ),
)
"""A table that comes later is one entry more."""

KNOWN = frozenset({"enrichment_jobs", "enrichment_job_items", "enrichment_provider_cache"})
"""Gone through by what they are: jobs, a batch's leads, the hashes of an answer's subjects."""

WITHOUT_PEOPLE = frozenset(
    {
        "enrichment_migrations",
        "enrichment_installation",
        "enrichment_workers",
        "enrichment_listeners",
        "enrichment_lanes",
        "enrichment_provider_keys",
        "enrichment_suppressions",
        "enrichment_budgets",
        "enrichment_provider_use",
        "enrichment_credit_counters",
        "enrichment_credit_reservations",
        "enrichment_webhooks",
        "enrichment_api_keys",
        "enrichment_access",
    }
)
"""Tables with text that are about the installation, its hosts and its customers' settings."""


JOBS: LiteralString = """
    with part as materialized (
        select *
          from enrichment_jobs
         where id > %(after)s
           and (%(workspace_id)s::text is null or workspace_id = %(workspace_id)s)
         order by id
         limit %(limit)s
    )
    select id, coalesce(payload::text ~* %(rough)s or result::text ~* %(rough)s
                        or error::text ~* %(rough)s or array_to_string(tags, ' ') ~* %(rough)s
                        or idempotency_key ~* %(rough)s or webhook_url ~* %(rough)s, false)
      from part
     order by id
"""

ITEMS: LiteralString = """
    with part as materialized (
        select *
          from enrichment_job_items
         where (job_id, item_key) > (%(after)s, %(after_key)s)
           and (%(workspace_id)s::text is null or workspace_id = %(workspace_id)s)
         order by job_id, item_key
         limit %(limit)s
    )
    select job_id, item_key,
           coalesce(item_key ~* %(rough)s or result::text ~* %(rough)s
                    or error::text ~* %(rough)s, false)
      from part
     order by job_id, item_key
"""


async def jobs_that_may_hold(
    database: Database, *, rough: str, workspace_id: str | None
) -> AsyncGenerator[list[UUID], None]:
    """Yield the ids of jobs, part by part, in which the expression finds something."""
    values: dict[str, Any] = {"rough": rough, "workspace_id": workspace_id, "limit": PART}
    after: UUID | None = FIRST_ID
    while after is not None:
        async with database.connection() as conn:
            rows = await (await conn.execute(JOBS, {**values, "after": after})).fetchall()
        yield [job_id for job_id, is_found in rows if is_found]
        after = rows[-1][0] if len(rows) == PART else None
    place: tuple[UUID, str] | None = (FIRST_ID, "")
    while place is not None:
        async with database.connection() as conn:
            cursor = await conn.execute(ITEMS, {**values, "after": place[0], "after_key": place[1]})
            items = await cursor.fetchall()
        yield list(dict.fromkeys(job_id for job_id, _, is_found in items if is_found))
        place = (items[-1][0], items[-1][1]) if len(items) == PART else None


@dataclass(frozen=True, slots=True)
class HeldItem:
    """A batch's finished lead in which something was found."""

    key: str
    result: Any
    error: Any


@dataclass(frozen=True, slots=True)
class HeldJob:
    """A job in which something was found, locked."""

    id: UUID
    workspace_id: str
    type: str
    status: str
    payload: Any
    result: Any
    error: Any
    tags: Sequence[str]
    idempotency_key: str | None
    webhook_url: str | None
    items: Sequence[HeldItem] = field(default=())


# With the row locked no run can end and no lead can be kept before this transaction is over.
LOCK: LiteralString = """
    select id, workspace_id, type, status, payload::text, result::text, error::text, tags,
           idempotency_key, webhook_url
      from enrichment_jobs
     where id = %(id)s
       for update
"""

READ: LiteralString = """
    select id, workspace_id, type, status, payload::text, result::text, error::text, tags,
           idempotency_key, webhook_url
      from enrichment_jobs
     where id = %(id)s
"""

FOUND_ITEMS: LiteralString = """
    select item_key, result::text, error::text
      from enrichment_job_items
     where job_id = %(id)s
       and (item_key ~* %(rough)s or result::text ~* %(rough)s or error::text ~* %(rough)s)
     order by item_key
"""


async def job(
    conn: Connection, *, job_id: UUID, rough: str, is_locked: bool = True
) -> HeldJob | None:
    """Read a job and those of its leads in which the expression finds something; None if gone."""
    row = await (await conn.execute(LOCK if is_locked else READ, {"id": job_id})).fetchone()
    if row is None:
        return None
    cursor = await conn.execute(FOUND_ITEMS, {"id": job_id, "rough": rough})
    items = [HeldItem(key, loads(result), loads(error)) async for key, result, error in cursor]
    found_id, workspace_id, job_type, status, payload, result, error, tags, key, url = row
    return HeldJob(
        id=found_id,
        workspace_id=workspace_id,
        type=job_type,
        status=status,
        payload=loads(payload),
        result=loads(result),
        error=loads(error),
        tags=tags,
        idempotency_key=key,
        webhook_url=url,
        items=items,
    )


# A run is fenced by its attempt: one more, and whatever the run still wants to write is refused.
# The row stays the worker's meanwhile, so nobody starts the job beside a run that has not stopped;
# when it has, the worker finds a job that it does not know and gives it back, and a cancel that
# was asked for makes `cancelled` of that.
OVERWRITE: LiteralString = """
    update enrichment_jobs
       set payload = %(payload)s::jsonb, result = %(result)s::jsonb, error = %(error)s::jsonb,
           tags = %(tags)s, idempotency_key = %(idempotency_key)s, webhook_url = %(webhook_url)s,
           attempts = attempts + (%(is_fenced)s and status = 'processing')::int,
           cancel_requested_at = case when %(is_ended)s and completed_at is null
                                      then coalesce(cancel_requested_at, now())
                                      else cancel_requested_at end,
           completed_at = case when %(is_ended)s and status in ('pending', 'scheduled', 'waiting')
                               then now() else completed_at end,
           status = case when %(is_ended)s and status in ('pending', 'scheduled', 'waiting')
                         then 'cancelled' else status end,
           updated_at = now()
     where id = %(id)s
"""


async def overwrite(
    conn: Connection,
    *,
    job_id: UUID,
    payload: str,
    result: str | None,
    error: str | None,
    tags: Sequence[str],
    idempotency_key: str | None,
    webhook_url: str | None,
    is_fenced: bool,
    is_ended: bool,
) -> None:
    """Write what is left of a locked job.

    `is_fenced`: its run may write nothing more. `is_ended`: it is cancelled, unless it has ended.
    """
    await conn.execute(
        OVERWRITE,
        {
            "id": job_id,
            "payload": payload,
            "result": result,
            "error": error,
            "tags": list(tags),
            "idempotency_key": idempotency_key,
            "webhook_url": webhook_url,
            "is_fenced": is_fenced,
            "is_ended": is_ended,
        },
    )


# After everything else that was told of the job is gone.
TELL_CANCELLED: LiteralString = f"""
    with moved as (
        select * from enrichment_jobs where id = %(id)s and status = 'cancelled'
    )
    {TELL_MOVED}
"""  # noqa: S608 - made of constants


async def tell_cancelled(conn: Connection, *, job_id: UUID) -> None:
    """Tell webhooks that a job was cancelled for the erasure; of the person it has nothing left."""
    await conn.execute(TELL_CANCELLED, {"id": job_id})


DELETE_ITEMS: LiteralString = """
    delete from enrichment_job_items
     where job_id = %(job_id)s
       and (%(keys)s::text[] is null or item_key = any(%(keys)s))
"""

# Where a run of the batch is under way it still wants to write the lead: what stands there wins.
PUT_ITEM: LiteralString = """
    insert into enrichment_job_items (job_id, item_key, workspace_id, status, result)
    values (%(job_id)s, %(key)s, %(workspace_id)s, 'completed', %(result)s::jsonb)
        on conflict (job_id, item_key) do update
       set status = 'completed', result = excluded.result, error = null
"""


async def delete_items(conn: Connection, *, job_id: UUID, keys: Sequence[str] | None) -> None:
    """Delete finished leads of a batch; None: all of them."""
    await conn.execute(
        DELETE_ITEMS, {"job_id": job_id, "keys": None if keys is None else list(keys)}
    )


async def put_item(
    conn: Connection, *, job_id: UUID, key: str, workspace_id: str, result: str
) -> None:
    """Give a batch's lead a result of its own, in place of what it had or will get."""
    values = {"job_id": job_id, "key": key, "workspace_id": workspace_id, "result": result}
    await conn.execute(PUT_ITEM, values)


async def clear_beside(conn: Connection, *, job_id: UUID) -> None:
    """Clear what the tables beside have of a job that is about the person alone."""
    for beside in BESIDE:
        if beside.job is None:
            continue
        where = sql.SQL("{} = %s").format(sql.Identifier(beside.job))
        if beside.goes_with_job:
            await conn.execute(_deletion(beside, where), [job_id])
        else:
            await conn.execute(_writing(beside, where), [*([None] * len(beside.texts)), job_id])


def _writing(beside: Beside, where: sql.Composable) -> sql.Composed:
    columns = [sql.SQL("{} = %s").format(sql.Identifier(name)) for name in beside.texts]
    return sql.SQL("update {} set {} where {}").format(
        sql.Identifier(beside.table), sql.SQL(", ").join(columns), where
    )


def _deletion(beside: Beside, where: sql.Composable) -> sql.Composed:
    return sql.SQL("delete from {} where {}").format(sql.Identifier(beside.table), where)


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A row of a table beside in which something was found."""

    key: Sequence[object]
    texts: Sequence[str | None]


async def rows_that_may_hold(
    database: Database, beside: Beside, *, rough: str, workspace_id: str | None
) -> AsyncGenerator[list[HeldRow], None]:
    """Yield rows of a table beside, part by part, in which the expression finds something."""
    names = [sql.SQL("{}::text").format(sql.Identifier(name)) for name in beside.texts]
    mine: sql.Composable = sql.SQL("true")
    if beside.workspace is not None:
        mine = sql.SQL("(%(workspace_id)s::text is null or {} = %(workspace_id)s)").format(
            sql.Identifier(beside.workspace)
        )
    width = len(beside.key)
    statement = sql.SQL(
        "with part as materialized ("
        " select * from {table} where ({key}) > ({after}) and {mine} order by {key} limit {limit})"
        " select {key}, {names}, coalesce({found}, false) from part order by {key}"
    ).format(
        table=sql.Identifier(beside.table),
        key=sql.SQL(", ").join(map(sql.Identifier, beside.key)),
        after=sql.SQL(", ").join(sql.Placeholder(f"after_{place}") for place in range(width)),
        mine=mine,
        limit=sql.Literal(PART),
        names=sql.SQL(", ").join(names),
        found=sql.SQL(" or ").join(sql.SQL("{} ~* %(rough)s").format(name) for name in names),
    )
    after: Sequence[object] | None = beside.first
    while after is not None:
        values = {f"after_{place}": value for place, value in enumerate(after)}
        async with database.connection() as conn:
            cursor = await conn.execute(
                statement, {**values, "rough": rough, "workspace_id": workspace_id}
            )
            rows = await cursor.fetchall()
        yield [HeldRow(row[:width], row[width:-1]) for row in rows if row[-1]]
        after = rows[-1][:width] if len(rows) == PART else None


async def clear_row(
    conn: Connection, beside: Beside, *, key: Sequence[object], mended: Sequence[str | None]
) -> None:
    """Delete a row that holds the person, or empty it and write its mended texts."""
    where = sql.SQL("({}) = ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, beside.key)),
        sql.SQL(", ").join(sql.Placeholder() for _ in key),
    )
    if beside.is_deleted:
        await conn.execute(_deletion(beside, where), list(key))
        return
    blanks = [None] * len(beside.blanked)
    await conn.execute(_writing(beside, where), [*blanks, *mended, *key])


COUNT_ANSWERS: LiteralString = """
    select count(*)
      from enrichment_provider_cache
     where subjects && %(hashes)s::bytea[]
       and (%(workspace_id)s::text is null or workspace_id = %(workspace_id)s)
"""

# By the index of subjects. A row whose question is being asked right now stays as the lease that it
# is; its answer is refused when it comes, because the person is suppressed by then.
FORGET_ANSWERS: LiteralString = """
    with gone as materialized (
        select workspace_id, cache_key
          from enrichment_provider_cache
         where subjects && %(hashes)s::bytea[]
           and (%(workspace_id)s::text is null or workspace_id = %(workspace_id)s)
         order by workspace_id, cache_key
         limit %(limit)s
           for update
    )
    delete from enrichment_provider_cache as kept
     using gone
     where kept.workspace_id = gone.workspace_id
       and kept.cache_key = gone.cache_key
"""


async def forget_answers(
    conn: Connection, *, hashes: Sequence[bytes], workspace_id: str | None, limit: int = PART
) -> int:
    """Delete kept answers about a person; return how many, at most `limit`."""
    values = {"hashes": bytes_array(hashes), "workspace_id": workspace_id, "limit": limit}
    return (await conn.execute(FORGET_ANSWERS, values)).rowcount


async def count_answers(
    conn: Connection, *, hashes: Sequence[bytes], workspace_id: str | None
) -> int:
    """Return how many kept answers are about a person."""
    values = {"hashes": bytes_array(hashes), "workspace_id": workspace_id}
    row = await (await conn.execute(COUNT_ANSWERS, values)).fetchone()
    assert row is not None
    return int(row[0])


RUNNING: LiteralString = """
    select id, attempts
      from enrichment_jobs
     where status = 'processing'
       and (%(workspace_id)s::text is null or workspace_id = %(workspace_id)s)
     limit 100000
"""

STILL_RUNNING: LiteralString = """
    select job.id, job.attempts
      from enrichment_jobs as job
      join unnest(%(ids)s::uuid[], %(attempts)s::int[]) as run(id, attempt)
        on run.id = job.id and run.attempt = job.attempts
     where job.status = 'processing'
"""


async def running(conn: Connection, *, workspace_id: str | None) -> list[tuple[UUID, int]]:
    """Return (job id, attempt) of every run that is under way."""
    cursor = await conn.execute(RUNNING, {"workspace_id": workspace_id})
    return [(job_id, attempt) async for job_id, attempt in cursor]


async def still_running(
    conn: Connection, runs: Sequence[tuple[UUID, int]]
) -> list[tuple[UUID, int]]:
    """Return those of some runs that are under way still."""
    values = {
        "ids": plain_array([job_id for job_id, _ in runs]),
        "attempts": plain_array([attempt for _, attempt in runs]),
    }
    return [
        (job_id, attempt) async for job_id, attempt in await conn.execute(STILL_RUNNING, values)
    ]
