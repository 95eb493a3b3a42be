"""A route's work in a transaction that sees the caller's workspace, run again if it lost a race."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from enrichd.api.routing import Call
from enrichd.errors import Unavailable
from enrichd.store.database import RACE_TRIES, RACES, Connection, storing
from enrichd.store.one_trip import Done, Question

Answer = TypeVar("Answer")

RACE_PAUSE_S = 0.02


async def in_workspace(call: Call, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
    """Return what `work` does in a transaction of the caller's workspace.

    It may run several times. Raises Unavailable when PostgreSQL is away, Invalid for a value that
    it refuses.
    """
    return await again_after_races(lambda: once_in_workspace(call, work))


async def once_in_workspace(call: Call, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
    """Run `work` in a transaction of the caller's workspace."""
    async with call.api.tenants.of(call.workspace_id) as conn:
        return await storing(lambda: work(conn))


async def ask(call: Call, *questions: Question) -> list[Done]:
    """Return what statements give in a transaction of the caller's workspace, in one trip."""

    async def work() -> list[Done]:
        return await call.api.tenants.ask(call.workspace_id, *questions)

    return await again_after_races(lambda: storing(work))


async def at_large(call: Call, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
    """Return what `work` reads with the daemon's own rights: facts that belong to nobody."""
    async with call.api.tenants.of_nobody() as conn:
        return await storing(lambda: work(conn))


async def again_after_races(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Run `work`, again if it lost a race for rows."""
    for tries_left in reversed(range(RACE_TRIES)):
        try:
            return await work()
        except RACES as error:
            if not tries_left:
                raise Unavailable("the same rows were wanted by others all the time") from error
            await asyncio.sleep(random.uniform(0.0, RACE_PAUSE_S * (RACE_TRIES - tries_left)))
    raise AssertionError("the loop returns or raises")
