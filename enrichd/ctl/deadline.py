"""Database work that must not outlast somebody's patience."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from enrichd.errors import Unavailable
from enrichd.store.database import Connection, Database

Answer = TypeVar("Answer")


async def within(
    timeout_s: float, database: Database, read: Callable[[Connection], Awaitable[Answer]]
) -> Answer:
    """Return what a read gives, or raise Unavailable when it takes longer than `timeout_s`.

    Out of time, or cancelled, the connection is closed first: the driver would otherwise ask the
    server to cancel, and wait up to ten seconds for one that does not answer anybody.
    """

    async def work() -> Answer:
        async with database.connection() as conn:
            return await read(conn)

    task = asyncio.ensure_future(work())
    try:
        await asyncio.wait({task}, timeout=timeout_s)
        if task.done():
            return task.result()
        raise Unavailable(f"PostgreSQL gave no answer within {timeout_s:g} s")
    finally:
        if not task.done():
            await database.close()
            task.cancel()
            await asyncio.wait({task})
