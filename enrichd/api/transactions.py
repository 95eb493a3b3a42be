"""A route's work in a transaction that sees the caller's workspace, run again if it lost a race."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from enrichd.api.routing import Call
from enrichd.errors import Unavailable
from enrichd.store.database import RACE_TRIES, RACES, Connection, storing

Answer = TypeVar("Answer")

RACE_PAUSE_S = 0.02


async def in_workspace(call: Call, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
    """Return what `work` does in a transaction of the caller's workspace.

    It may run several times. Raises Unavailable when PostgreSQL is away, Invalid for a value that
    it refuses.
    """
    for tries_left in reversed(range(RACE_TRIES)):
        try:
            async with call.api.tenants.of(call.workspace_id) as conn:
                return await storing(lambda: work(conn))
        except RACES as error:
            if not tries_left:
                raise Unavailable("the same rows were wanted by others all the time") from error
            await asyncio.sleep(random.uniform(0.0, RACE_PAUSE_S * (RACE_TRIES - tries_left)))
    raise AssertionError("the loop returns or raises")
