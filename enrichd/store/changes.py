"""Changes of jobs for whoever listens: who listens, hints that say which jobs, and the jobs.

A hint holds a workspace and ids, nothing else: what became of a job stands in its row, which the
listener reads. It is sent after the commit and only while somebody listens, so that it costs the
queue nothing otherwise. One lost costs time: listeners also ask what ended since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString, TypeAlias
from uuid import UUID

import orjson

from enrichd.domain.jobs import JobStatus
from enrichd.errors import Unavailable
from enrichd.logs import get_logger
from enrichd.store.database import Connection, connect, translated
from enrichd.store.json_text import loads

Moved: TypeAlias = list[tuple[str, str]]
"""The workspace and id of each job that a statement moved."""
EVERYBODY: Final = "*"
"""In place of workspaces: all of them."""
CHUNK_BYTES_MAX: Final = 7_900
"""PostgreSQL takes less than 8,000 in one notification."""
SELF_TEST_S = 15.0
RECONNECT_S = 0.25
RECONNECT_MAX_S = 2.0
TEST = "test"

log = get_logger("live")


# Who listens.

MARK: LiteralString = """
    insert into enrichment_listeners as listener (name, holder, workspaces, expires_at)
    values (%(name)s, %(holder)s, %(workspaces)s::text[],
            now() + make_interval(secs => %(lease_s)s))
        on conflict (name) do update
       set holder = excluded.holder, workspaces = excluded.workspaces,
           expires_at = excluded.expires_at
     where listener.holder = excluded.holder
        or listener.expires_at <= now()
    returning now()
"""


async def mark(
    conn: Connection, *, name: str, holder: UUID, workspaces: Collection[str], lease_s: float
) -> datetime | None:
    """Say under a name that somebody listens; return the time, None while another holder does."""
    cursor = await conn.execute(
        MARK,
        {"name": name, "holder": holder, "workspaces": list(workspaces), "lease_s": lease_s},
    )
    row = await cursor.fetchone()
    return row[0] if row else None


UNMARK: LiteralString = """
    delete from enrichment_listeners
     where (name = %(name)s and holder = %(holder)s)
        or expires_at < now() - interval '1 hour'
"""


async def unmark(conn: Connection, *, name: str, holder: UUID) -> None:
    """Say that nobody listens any more; what died without saying so goes as well."""
    await conn.execute(UNMARK, {"name": name, "holder": holder})


# Hints.

LISTEN: LiteralString = "listen enrichd_changes"

SELF_TEST: LiteralString = "select pg_notify('enrichd_changes', 'test')"

# Without a write in its transaction a NOTIFY costs no WAL flush.
TELL: LiteralString = """
    select pg_notify('enrichd_changes', told.chunk)
      from unnest(%(workspaces)s::text[], %(chunks)s::text[]) as told(workspace_id, chunk)
     where exists (select 1
                     from enrichment_listeners as listener
                    where listener.expires_at > now()
                      and (told.workspace_id = any(listener.workspaces)
                           or '*' = any(listener.workspaces)))
"""


async def tell(conn: Connection, changed: Mapping[str, Collection[str]]) -> None:
    """Hint that these jobs, ids by workspace, changed; call it after the commit."""
    pairs = [(workspace, chunk) for workspace in changed for chunk in chunks(workspace, changed)]
    if pairs:
        await conn.execute(
            TELL,
            {"workspaces": [pair[0] for pair in pairs], "chunks": [pair[1] for pair in pairs]},
        )


def chunks(workspace_id: str, changed: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield a workspace's ids as notifications that PostgreSQL takes."""
    ids = [job_id.replace("-", "") for job_id in changed[workspace_id]]
    # 35 bytes an id: 32 digits, two quotes, a comma.
    room = (CHUNK_BYTES_MAX - len(orjson.dumps(workspace_id)) - 20) // 35
    for start in range(0, len(ids), room):
        yield orjson.dumps({"w": workspace_id, "ids": ids[start : start + room]}).decode()


def read_hint(payload: str) -> tuple[str, list[UUID]]:
    """Return the workspace and ids of a hint; no ids for what is none: anybody may notify."""
    try:
        said = orjson.loads(payload)
        workspace, ids = said["w"], [UUID(hex=job_id) for job_id in said["ids"]]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return "", []
    return (workspace, ids) if isinstance(workspace, str) else ("", [])


async def listen(
    dsn: str, on_hint: Callable[[str, list[UUID]], None], on_start: Callable[[], None]
) -> None:
    """Call `on_hint` with what each hint says, until cancelled; reconnects by itself.

    `on_start` is called when listening begins: what was told before went unheard. Every 15 s of
    silence it notifies itself, and replaces a connection that stays silent.
    """
    pause_s = RECONNECT_S
    while True:
        try:
            conn = await connect(dsn, name="enrichd changes")
            try:
                with translated():
                    await conn.execute(LISTEN)
                    on_start()
                    pause_s = RECONNECT_S
                    await _hear(conn, on_hint)
            finally:
                await conn.close()
        except Unavailable as error:
            log.debug("changes_unheard", reason=error.message)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, RECONNECT_MAX_S)


async def _hear(conn: Connection, on_hint: Callable[[str, list[UUID]], None]) -> None:
    """Pass hints on until the connection stays silent through a self-test."""
    is_tested = False
    while True:
        has_heard = False
        async for notice in conn.notifies(timeout=5.0 if is_tested else SELF_TEST_S):
            has_heard = True
            if notice.payload != TEST:
                on_hint(*read_hint(notice.payload))
        if is_tested and not has_heard:
            log.warning("changes_are_unheard")
            return
        is_tested = not has_heard
        if is_tested:
            await conn.execute(SELF_TEST)


# The jobs.


@dataclass(frozen=True, slots=True)
class Change:
    """A job as listeners see it: no payload, no result."""

    id: UUID
    workspace_id: str
    type: str
    status: JobStatus
    priority: int
    provider_id: str
    attempts: int
    max_retries: int
    progress_done: int
    progress_total: int
    created_at: datetime
    updated_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    error: Any


COLUMNS: LiteralString = """
    select id, workspace_id, type, status, priority, provider_id, attempts, max_retries,
           progress_done, progress_total, created_at, updated_at, scheduled_at, started_at,
           completed_at, error::text
      from enrichment_jobs
"""

BY_ID: LiteralString = COLUMNS + "where id = any(%(ids)s)"


async def by_id(conn: Connection, ids: Collection[UUID]) -> list[Change]:
    """Return these jobs as they stand, those that ended first, in the order of their ends."""
    found = await _changes(conn, BY_ID, {"ids": list(ids)})
    return sorted(found, key=lambda change: change.completed_at or change.updated_at)


NOW: LiteralString = "select now()"


async def now(conn: Connection) -> datetime:
    """Return the database's time."""
    row = await (await conn.execute(NOW)).fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


# By the index `prune`; the order is what makes the planner take it. `completed_at` is when the
# transaction began, so rows appear a little behind the newest: the caller begins a little before
# where it stopped, and leaves out what it knows.
ENDED_SINCE: LiteralString = (
    COLUMNS
    + """
     where status in ('completed', 'failed', 'cancelled', 'dead_letter')
       and completed_at >= %(since)s
       and (completed_at, id) > (%(since)s, %(after)s)
       and (%(workspaces)s::text[] is null or workspace_id = any(%(workspaces)s))
     order by completed_at, id
     limit %(limit)s
"""
)


async def ended_since(
    conn: Connection,
    *,
    since: datetime,
    after: UUID,
    workspaces: Collection[str] | None,
    limit: int,
) -> list[Change]:
    """Return jobs that ended later than (`since`, `after`), oldest end first."""
    return await _changes(
        conn,
        ENDED_SINCE,
        {
            "since": since,
            "after": after,
            "workspaces": None if workspaces is None else list(workspaces),
            "limit": limit,
        },
    )


# One workspace's, for a listener that was away. Its own filters are applied here, so that a
# watcher of one job is not told to start over because of 10,000 others.
MISSED: LiteralString = (
    COLUMNS
    + """
     where status in ('completed', 'failed', 'cancelled', 'dead_letter')
       and completed_at >= %(since)s
       and workspace_id = %(workspace_id)s
       and (%(ids)s::uuid[] is null or id = any(%(ids)s))
       and (%(statuses)s::text[] is null or status = any(%(statuses)s))
     order by completed_at, id
     limit %(limit)s
"""
)


async def missed(
    conn: Connection,
    *,
    workspace_id: str,
    since: datetime,
    ids: Collection[UUID] | None,
    statuses: Collection[str] | None,
    limit: int,
) -> list[Change]:
    """Return a workspace's jobs that ended at `since` or later, oldest end first."""
    return await _changes(
        conn,
        MISSED,
        {
            "since": since,
            "workspace_id": workspace_id,
            "ids": None if ids is None else list(ids),
            "statuses": None if statuses is None else list(statuses),
            "limit": limit,
        },
    )


# By the index `running`, whose size is what the fleet runs at once.
RUNNING: LiteralString = (
    COLUMNS
    + """
     where status = 'processing'
       and updated_at >= %(since)s
       and (%(workspaces)s::text[] is null or workspace_id = any(%(workspaces)s))
     order by updated_at
     limit %(limit)s
"""
)


async def running(
    conn: Connection, *, since: datetime, workspaces: Collection[str] | None, limit: int
) -> list[Change]:
    """Return jobs that are run and began or got on since."""
    return await _changes(
        conn,
        RUNNING,
        {
            "since": since,
            "workspaces": None if workspaces is None else list(workspaces),
            "limit": limit,
        },
    )


async def _changes(
    conn: Connection, statement: LiteralString, values: Mapping[str, object]
) -> list[Change]:
    cursor = await conn.execute(statement, values)
    return [_change_of(row) for row in await cursor.fetchall()]


def _change_of(row: Sequence[Any]) -> Change:
    columns = [*row]
    columns[3], columns[-1] = JobStatus(columns[3]), loads(columns[-1])
    return Change(*columns)
