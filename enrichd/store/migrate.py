"""Apply `migrations/NNNN_name.sql`, each once, in order, in a transaction of its own.

The advisory lock belongs to the transaction, not the session, so it also holds behind a pooler in
transaction mode and cannot be stranded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import LiteralString

from enrichd.store.database import Connection, connect

LOCK_KEY = 0x656E7269636864  # "enrichd"

LOCK: LiteralString = "select pg_advisory_xact_lock(%(key)s)"

CREATE_TABLE: LiteralString = """
    create table if not exists enrichment_migrations (
        version    integer     not null primary key,
        name       text        not null,
        applied_at timestamptz not null default now()
    )
"""

EXISTS: LiteralString = "select to_regclass('enrichment_migrations') is not null"

APPLIED: LiteralString = "select version from enrichment_migrations order by version"

INSERT: LiteralString = """
    insert into enrichment_migrations (version, name) values (%(version)s, %(name)s)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    sql: str


@cache
def migrations() -> tuple[Migration, ...]:
    """Return the migrations this version of enrichd ships, in order."""
    folder = files("enrichd.store").joinpath("migrations")
    found = []
    for file in folder.iterdir():
        stem, dot, ending = file.name.rpartition(".")
        if dot and ending == "sql":
            number, _, name = stem.partition("_")
            found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


async def applied(conn: Connection) -> list[int]:
    """Return the versions that stand in the database, ascending; none for an empty database."""
    row = await (await conn.execute(EXISTS)).fetchone()
    if row is None or not row[0]:
        return []
    return [version async for (version,) in await conn.execute(APPLIED)]


async def pending(conn: Connection) -> list[Migration]:
    """Return what `apply` would run."""
    done = set(await applied(conn))
    return [migration for migration in migrations() if migration.version not in done]


async def apply(conn: Connection) -> list[Migration]:
    """Run every migration that is missing; return them. Many processes may call it at once."""
    ran: list[Migration] = []
    while True:
        async with conn.transaction():
            await conn.execute(LOCK, {"key": LOCK_KEY})
            await conn.execute(CREATE_TABLE)
            missing = await pending(conn)
            if not missing:
                return ran
            migration = missing[0]
            # Many statements in one text cannot be prepared.
            await conn.execute(migration.sql, prepare=False)
            await conn.execute(INSERT, {"version": migration.version, "name": migration.name})
        ran.append(migration)


async def apply_at(dsn: str) -> None:
    """Do the same on a connection of its own."""
    conn = await connect(dsn, name="enrichd migrate")
    try:
        await apply(conn)
    finally:
        await conn.close()
