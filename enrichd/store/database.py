"""One connection to PostgreSQL that is opened at first use and again after it was lost.

A process owns a few of these by purpose (one for claim and record, one for control), and no pool in
the hot loop. psycopg's errors become ours here and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from enrichd import metrics
from enrichd.errors import Invalid, NotMigrated, Unavailable
from enrichd.settings import values

Connection: TypeAlias = AsyncConnection[TupleRow]
Answer = TypeVar("Answer")

# libpq's own defaults hung for more than 40 s on a dead link; with these it ends in under 15 s.
CONNECTION_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

# Losing the race for a row or a lock is nobody's fault: the statement is simply run again.
RACES = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
RACE_TRIES = 5

# The server is there but cannot serve: starting, stopping, full, read-only after a failover.
AWAY = (
    psycopg.errors.AdminShutdown,
    psycopg.errors.CannotConnectNow,
    psycopg.errors.CrashShutdown,
    psycopg.errors.DiskFull,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.QueryCanceled,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.TooManyConnections,
)


class Database:
    """A connection in autocommit mode, used by one task at a time and reopened when it broke."""

    def __init__(self, dsn: str, *, name: str = "enrichd", is_pooler: bool = False) -> None:
        self.dsn = dsn
        self._name = name
        self._is_pooler = is_pooler
        self._conn: Connection | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend the connection in autocommit mode. Raises Unavailable when PostgreSQL is away."""
        async with self._lock:
            with translated():
                if self._conn is None or self._conn.closed:
                    self._conn = await connect(self.dsn, name=self._name, is_pooler=self._is_pooler)
                try:
                    yield self._conn
                except psycopg.errors.ReadOnlySqlTransaction:
                    # A failover left us on the old primary: a new connection finds the new one.
                    await self.reset()
                    raise

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend the connection inside a transaction that commits at the end of the block."""
        async with self.connection() as conn, conn.transaction():
            yield conn

    def sibling(self, purpose: str) -> Database:
        """Return another connection to the same database, named after its purpose."""
        return Database(self.dsn, name=f"{self._name} {purpose}", is_pooler=self._is_pooler)

    async def reset(self) -> None:
        """Drop the connection; the next use opens another."""
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()

    close = reset


async def connect(dsn: str, *, name: str = "enrichd", is_pooler: bool = False) -> Connection:
    """Open a connection in autocommit mode with enrichd's timeouts.

    Behind a pooler in transaction mode, which is known by its port if nobody says so, nothing is
    prepared; on a direct one everything is at its first use, because the hot statements are few and
    long. Nothing is compiled there either: with many jobs pending PostgreSQL expects far more rows
    than it will read, and compiled 60 to 100 ms for statements that run for 0.4.
    """
    with translated():
        given = conninfo(dsn, name)
        is_pooler = is_pooler or values.is_pooler(given)
        conn = await AsyncConnection.connect(
            given, autocommit=True, prepare_threshold=None if is_pooler else 0
        )
        if not is_pooler:
            try:
                await conn.execute("set jit = off", prepare=False)
            except BaseException:
                await conn.close()
                raise
        return conn


def conninfo(dsn: str, name: str) -> str:
    """Return the connection string with enrichd's defaults where the user gave none."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise Invalid(f"DATABASE_URL is not a connection string: {error}") from None
    defaults: dict[str, Any] = {**CONNECTION_DEFAULTS, "application_name": name}
    return make_conninfo("", **{**defaults, **given})


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's "not there" errors into Unavailable; others pass as they are."""
    try:
        with counted():
            yield
    except RACES:
        raise
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction) as error:
        raise NotMigrated(
            f"the database lacks a part of enrichd: {first_line(error)}",
            hint="Run: enrichctl db migrate",
        ) from error
    except AWAY as error:
        raise Unavailable(f"PostgreSQL cannot serve now: {first_line(error)}") from error
    except psycopg.InterfaceError as error:
        raise Unavailable(f"the connection to PostgreSQL is gone: {first_line(error)}") from error
    except psycopg.OperationalError as error:
        if error.sqlstate is not None and not error.sqlstate.startswith(("08", "57", "53")):
            raise
        raise Unavailable(f"PostgreSQL cannot be reached: {first_line(error)}") from error


@contextmanager
def counted() -> Iterator[None]:
    """Count the driver's errors by class."""
    try:
        yield
    except psycopg.Error as error:
        metrics.db_error(error.sqlstate)
        raise


def first_line(error: psycopg.Error) -> str:
    """Return an error's first line: the DETAIL below it may hold data."""
    text = error.diag.message_primary or str(error)
    return text.strip().partition("\n")[0]


async def storing(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Run a statement; turn PostgreSQL's refusal of a value into Invalid."""
    try:
        return await work()
    except (
        psycopg.DataError,
        psycopg.IntegrityError,
        psycopg.errors.ProgramLimitExceeded,
        psycopg.errors.StatementTooComplex,
    ) as error:
        raise Invalid(f"PostgreSQL refused a value: {first_line(error)}") from error
