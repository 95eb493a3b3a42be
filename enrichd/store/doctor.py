"""What `enrichctl doctor` asks about the server and the tables: facts only.

A role without `pg_read_all_stats` sees no other role's sessions; then `sees_all` is false.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import LiteralString
from uuid import uuid4

from enrichd.store import listen, migrate
from enrichd.store.database import Connection, connect

SAMPLES = 5
LISTEN_WAIT_S = 2.0

SETTINGS = (
    "autovacuum",
    "fsync",
    "full_page_writes",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "max_connections",
    "reserved_connections",
    "shared_buffers",
    "statement_timeout",
    "superuser_reserved_connections",
    "synchronous_commit",
    "track_counts",
    "transaction_timeout",
)


@dataclass(frozen=True, slots=True)
class Server:
    """The server as this session sees it."""

    version: int
    """160004 for 16.4."""
    is_standby: bool
    is_read_only: bool
    settings: Mapping[str, str]
    """Times in milliseconds, sizes in bytes; those the server does not know are absent."""
    connections: int
    """Client connections to all its databases."""
    backend_pid: int
    client_pid: int
    """The process as the connection's own end was told: another one's if a pooler is in between."""
    xid_age: int
    """Transactions since the database was last frozen; it stops at about 2,000,000,000."""


SERVER: LiteralString = """
    select current_setting('server_version_num')::int, pg_is_in_recovery(),
           current_setting('transaction_read_only')::bool,
           (select coalesce(sum(numbackends), 0)::int from pg_stat_database),
           pg_backend_pid(),
           (select age(datfrozenxid) from pg_database where datname = current_database())
"""

SETTING: LiteralString = """
    select name,
           case when unit in ('ms', 's', 'min')
                then (extract(epoch from (setting || unit)::interval) * 1000)::bigint::text
                when unit in ('8kB', 'kB', 'MB', 'B')
                then pg_size_bytes(current_setting(name))::text
                else setting end
      from pg_settings
     where name = any(%(names)s)
"""


async def server(conn: Connection) -> Server:
    """Return the server's version, role, settings and load."""
    row = await (await conn.execute(SERVER)).fetchone()
    assert row is not None
    cursor = await conn.execute(SETTING, {"names": list(SETTINGS)})
    settings: dict[str, str] = {name: value async for name, value in cursor}
    version, is_standby, is_read_only, connections, backend_pid, xid_age = row
    return Server(
        version,
        is_standby,
        is_read_only,
        settings,
        connections,
        backend_pid,
        conn.info.backend_pid,
        xid_age,
    )


@dataclass(frozen=True, slots=True)
class Clock:
    """How far the database's clock is ahead of this host's, and how sure that is."""

    ahead_s: float
    round_trip_s: float
    """The fastest of a few; the skew is known to half of it."""


CLOCK: LiteralString = "select extract(epoch from clock_timestamp())::float8"


async def clock(conn: Connection) -> Clock:
    """Compare the clocks: the database's against the middle of the round trip."""
    found = []
    for _ in range(SAMPLES):
        wall, began = datetime.now(UTC), time.perf_counter()  # noqa: TID251 - this host's clock
        row = await (await conn.execute(CLOCK)).fetchone()
        took_s = time.perf_counter() - began
        assert row is not None
        found.append((took_s, row[0] - (wall.timestamp() + took_s / 2)))
    round_trip_s, ahead_s = min(found)
    return Clock(ahead_s, round_trip_s)


@dataclass(frozen=True, slots=True)
class Horizon:
    """Who keeps dead rows from being removed."""

    sees_all: bool
    transaction_s: float | None
    """Age of the oldest open transaction of another session; None without any."""
    transaction_pid: int | None
    transaction_state: str | None
    transaction_application: str | None
    idle_in_transaction: int
    snapshot_age: int
    """Transactions since the oldest snapshot a session holds."""
    slot: str | None
    slot_age: int
    """Transactions since what the most backward replication slot holds."""
    prepared: str | None
    """The oldest prepared transaction's name."""
    prepared_s: float | None


HORIZON: LiteralString = """
    with session as (
        select pid, state, application_name, xact_start, backend_xmin
          from pg_stat_activity
         where pid <> pg_backend_pid()
           and backend_type = 'client backend'
    ),
    oldest as (
        select pid, state, application_name,
               extract(epoch from now() - xact_start)::float8 as age_s
          from session
         where xact_start is not null
         order by xact_start
         limit 1
    ),
    slot as (
        select slot_name::text as name,
               greatest(coalesce(age(xmin), 0), coalesce(age(catalog_xmin), 0)) as age
          from pg_replication_slots
         order by 2 desc
         limit 1
    ),
    prepared as (
        select gid, extract(epoch from now() - prepared)::float8 as age_s
          from pg_prepared_xacts
         where database = current_database()
         order by prepared
         limit 1
    )
    select pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
           oldest.age_s, oldest.pid, oldest.state, left(oldest.application_name, 60),
           (select count(*) from session where state like 'idle in transaction%%'),
           (select coalesce(max(age(backend_xmin)), 0) from session),
           slot.name, coalesce(slot.age, 0), left(prepared.gid, 60), prepared.age_s
      from (select 1) as one
      left join oldest on true
      left join slot on true
      left join prepared on true
"""


async def horizon(conn: Connection) -> Horizon:
    """Return the oldest transaction, snapshot, slot and prepared transaction."""
    row = await (await conn.execute(HORIZON, {})).fetchone()
    assert row is not None
    return Horizon(*row)


@dataclass(frozen=True, slots=True)
class Table:
    """One of enrichd's tables as autovacuum knows it."""

    name: str
    live: int
    dead: int
    size_bytes: int
    vacuumed_s: float | None
    """Since the last vacuum of either kind; None if there was none."""
    has_autovacuum: bool


TABLES: LiteralString = r"""
    select stat.relname::text, stat.n_live_tup, stat.n_dead_tup,
           pg_total_relation_size(stat.relid),
           extract(epoch from now() - greatest(stat.last_autovacuum, stat.last_vacuum))::float8,
           not coalesce('autovacuum_enabled=false' = any(class.reloptions)
                        or 'autovacuum_enabled=off' = any(class.reloptions), false)
      from pg_stat_user_tables as stat
      join pg_class as class on class.oid = stat.relid
     where stat.relname like 'enrichment\_%%'
       and stat.schemaname = any(current_schemas(false))
     order by stat.n_dead_tup desc, stat.relname
"""


async def tables(conn: Connection) -> list[Table]:
    """Return enrichd's tables, those with the most dead rows first."""
    return [Table(*row) async for row in await conn.execute(TABLES, {})]


CREATED_INDEX = re.compile(
    r"^create\s+(?:unique\s+)?index\s+(?:if not exists\s+)?(\w+)", re.M | re.I
)
DROPPED_INDEX = re.compile(r"^drop\s+index\s+(?:if exists\s+)?(\w+)", re.M | re.I)

INDEXES: LiteralString = """
    select wanted.name, index.indisvalid and index.indisready
      from unnest(%(names)s::text[]) as wanted(name)
      left join pg_index as index on index.indexrelid = to_regclass(wanted.name)
     where index.indexrelid is null
        or not (index.indisvalid and index.indisready)
     order by wanted.name
"""


async def broken_indexes(conn: Connection, *, versions: Sequence[int]) -> dict[str, bool]:
    """Return enrichd's indexes that are of no use: True is there but not valid, False missing.

    `versions` are the migrations that stand in the database.
    """
    names: dict[str, None] = {}
    for migration in migrate.migrations():
        if migration.version in versions:
            names |= dict.fromkeys(CREATED_INDEX.findall(migration.sql))
            for name in DROPPED_INDEX.findall(migration.sql):
                names.pop(name, None)
    cursor = await conn.execute(INDEXES, {"names": list(names)})
    return {name: is_valid is not None async for name, is_valid in cursor}


PREPARED: LiteralString = "select %(number)s::int"


async def can_prepare(conn: Connection) -> None:
    """Run a prepared statement again and again; raises what the driver does if it gets lost."""
    for number in range(SAMPLES):
        await conn.execute(PREPARED, {"number": number}, prepare=True)


async def hears_itself(dsn: str, conn: Connection) -> float | None:
    """LISTEN on a new connection, NOTIFY from `conn`; return the seconds it took, None if unheard.

    So a direct address that leads to another database is found out too.
    """
    token = f"doctor {uuid4().hex}"
    listener = await connect(dsn, name="enrichctl doctor listen")
    try:
        await listener.execute(listen.LISTEN)
        began = time.perf_counter()
        await conn.execute(listen.NOTIFY, {"payload": token})
        async for hint in listener.notifies(timeout=LISTEN_WAIT_S):
            if hint.payload == token:
                return time.perf_counter() - began
    finally:
        await listener.close()
    return None
