"""Connections that see one workspace and nothing else.

Who works for a workspace does so inside a transaction, as the role `enrichd_api`, which row level
security holds to the workspace that the transaction names. Both end with the transaction, so no
pooler and no next caller inherits them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import LiteralString

from enrichd.store.database import Connection, Database

ENTER: LiteralString = """
    select set_config('role', 'enrichd_api', true),
           set_config('enrichd.workspace_id', %(workspace_id)s, true)
"""


class Tenants:
    """A few connections, each lent to one workspace for the length of a transaction."""

    def __init__(self, database: Database, *, size: int = 8) -> None:
        self._free: asyncio.LifoQueue[Database] = asyncio.LifoQueue()
        self._all = [database.sibling(f"api {number}") for number in range(1, size + 1)]
        for one in self._all:
            self._free.put_nowait(one)

    @asynccontextmanager
    async def of(self, workspace_id: str) -> AsyncIterator[Connection]:
        """Lend a connection that sees this workspace alone, inside a transaction."""
        database = await self._free.get()
        try:
            async with database.transaction() as conn:
                await conn.execute(ENTER, {"workspace_id": workspace_id})
                yield conn
        finally:
            self._free.put_nowait(database)

    @asynccontextmanager
    async def of_nobody(self) -> AsyncIterator[Connection]:
        """Lend a connection with the daemon's own rights, to find out who is calling."""
        database = await self._free.get()
        try:
            async with database.connection() as conn:
                yield conn
        finally:
            self._free.put_nowait(database)

    async def close(self) -> None:
        """Close every connection."""
        for one in self._all:
            await one.close()
