"""Connections that see one workspace and nothing else.

Who works for a workspace does so inside a transaction, as the role `enrichd_api`, which row level
security holds to the workspace that the transaction names. Both end with the transaction, so no
pooler and no next caller inherits them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from enrichd.errors import Unavailable
from enrichd.store import one_trip
from enrichd.store.database import Connection, Database, first_line
from enrichd.store.one_trip import Done, Question
from enrichd.store.shared_trips import SharedTrips

WAIT_S = 5.0
"""How long a caller waits for a connection, and then for all that it does in its transaction."""

# Begun and entered in one message: it saves a trip, 50 of a small read's 400 µs.
ENTER: LiteralString = """
    begin;
    select set_config('role', 'enrichd_api', true),
           set_config('enrichd.workspace_id', {workspace_id}, true)
"""


class Tenants:
    """A few connections, each lent to one workspace for the length of a transaction."""

    def __init__(self, database: Database, *, size: int = 8) -> None:
        # A queue lets a newcomer overtake whoever was woken and has not run yet; under load some
        # then waited for seconds (p99 of 32 callers on 8 connections: 300 ms instead of 60).
        self._places = asyncio.Semaphore(size)
        self._all = [database.sibling(f"api {number}") for number in range(1, size + 1)]
        self._free = self._all.copy()
        """The last one used is the next: the others may be closed by who thinks them idle."""
        self._trips = SharedTrips(lend=self._lent, ask=ask)

    @asynccontextmanager
    async def of(self, workspace_id: str) -> AsyncIterator[Connection]:
        """Lend a connection that sees this workspace alone, inside a transaction.

        Raises Unavailable when PostgreSQL is away, silent for WAIT_S, or does not let its login
        become `enrichd_api`.
        """
        async with self._lent() as conn:
            try:
                with needing_role():
                    await conn.execute(entering(workspace_id), prepare=False)
                yield conn
            except BaseException:
                await roll_back(conn)
                raise
            # To a broken transaction `commit` answers that it was rolled back, and no error.
            assert conn.info.transaction_status == TransactionStatus.INTRANS
            await conn.execute("commit", prepare=False)

    async def ask(self, workspace_id: str, *questions: Question) -> list[Done]:
        """Return what a few quick statements give in a transaction of a workspace, in one trip.

        Others of the workspace may share the transaction. Raises Unavailable as `of` does.
        """
        return await self._trips.ask(workspace_id, questions)

    @asynccontextmanager
    async def of_nobody(self) -> AsyncIterator[Connection]:
        """Lend a connection with the daemon's own rights, to find out who is calling."""
        async with self._lent() as conn:
            yield conn

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Connection]:
        """Lend a connection for at most WAIT_S."""
        database = await self._next()
        try:
            async with database.connection() as conn:
                try:
                    with cut_off(conn, WAIT_S):
                        yield conn
                finally:
                    # A rollback can be cancelled too: the next caller must not find its role.
                    if conn.info.transaction_status != TransactionStatus.IDLE:
                        await database.reset()
        finally:
            self._free.append(database)
            self._places.release()

    async def _next(self) -> Database:
        """Take a connection in the order of asking. Raises Unavailable."""
        if self._places.locked():
            try:
                async with asyncio.timeout(WAIT_S):
                    await self._places.acquire()
            except TimeoutError:
                raise Unavailable("all connections to PostgreSQL are in use") from None
        else:
            await self._places.acquire()
        return self._free.pop()

    async def close(self) -> None:
        """Close every connection."""
        await self._trips.close()
        for one in self._all:
            await one.close()


async def ask(conn: Connection, workspace_id: str, questions: Sequence[Question]) -> list[Done]:
    """Run statements in a transaction of a workspace, rolled back after an error."""
    try:
        with needing_role():
            return await one_trip.ask(conn, entering(workspace_id), questions)
    except BaseException:
        await roll_back(conn)
        raise


@contextmanager
def needing_role() -> Iterator[None]:
    """Turn PostgreSQL's refusal to become `enrichd_api` into Unavailable."""
    try:
        yield
    except (psycopg.errors.InvalidParameterValue, psycopg.errors.InsufficientPrivilege) as error:
        # Without the role nothing would hold us: better no answer than everybody's.
        raise Unavailable(
            f"the API's database role cannot be used: {first_line(error)}",
            hint="Run: enrichctl doctor",
        ) from error


async def roll_back(conn: Connection) -> None:
    """End a broken transaction, on a connection that may be gone with it."""
    if not conn.closed:
        await conn.execute("rollback", prepare=False)


@lru_cache(maxsize=1000)
def entering(workspace_id: str) -> sql.Composed:
    """Return the statements that begin a workspace's transaction."""
    return sql.SQL(ENTER).format(workspace_id=sql.Literal(workspace_id))


@contextmanager
def cut_off(conn: Connection, after_s: float) -> Iterator[None]:
    """Break a connection that has not done its work in time.

    A server that hangs does not answer a cancel either; a socket that was shut down ends every
    wait at once, and Database opens another.
    """
    timer = asyncio.get_running_loop().call_later(after_s, shut_down, conn)
    try:
        yield
    finally:
        timer.cancel()


def shut_down(conn: Connection) -> None:
    """End a connection's socket under whoever waits on it."""
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(conn.fileno())) as ours,
    ):
        ours.shutdown(socket.SHUT_RDWR)
