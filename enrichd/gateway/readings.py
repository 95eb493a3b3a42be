"""Readings: answers of PostgreSQL that are kept for a moment and never waited for long.

However many people ask, one read at a time is on its way. Who asks waits a second at most, also
when the server hangs in a way that takes the driver longer than that to give up on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from enrichd.errors import NotMigrated, Unavailable
from enrichd.logs import get_logger
from enrichd.store.database import Connection, Database

WAIT_S = 1.0

Value = TypeVar("Value")

log = get_logger("gateway")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no value, in words for everybody: no address, no name, no version."""

    reason: str


@dataclass(frozen=True, slots=True)
class Read(Generic[Value]):
    """An answer and when it was given."""

    value: Value | Failure
    began: float
    took_s: float


class Reading(Generic[Value]):
    """A value asked for again when it is older than `fresh_s`, over a connection of its own."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        database: Database,
        read: Callable[[Connection], Awaitable[Value]],
        *,
        fresh_s: float,
    ) -> None:
        self._group = group
        self._database = database
        self._read = read
        self._fresh_s = fresh_s
        self._clock = asyncio.get_running_loop().time
        self._last: Read[Value] | None = None
        self._task: asyncio.Task[None] | None = None
        self._began = 0.0
        self._last_problem: str | None = None

    async def get(self) -> Read[Value]:
        """Return an answer at most `fresh_s` old, within a second."""
        if self._last is not None and self._clock() - self._last.began < self._fresh_s:
            return self._last
        if self._task is None:
            self._began = self._clock()
            self._task = self._group.create_task(self._refresh())
        left_s = max(self._began + WAIT_S - self._clock(), 0.0)
        # Not `timeout`, which would cancel the read that others wait for too.
        done, _ = await asyncio.wait({self._task}, timeout=left_s)
        if done and self._last is not None:
            return self._last
        return Read(Failure("PostgreSQL did not answer within a second"), self._began, WAIT_S)

    def age_s(self, read: Read[Value]) -> float:
        """Return how old an answer is."""
        return self._clock() - read.began

    async def close(self) -> None:
        """Stop reading and close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._database.close()

    async def _refresh(self) -> None:
        try:
            value = await self._attempt()
            self._last = Read(value, self._began, self._clock() - self._began)
        finally:
            self._task = None

    async def _attempt(self) -> Value | Failure:
        try:
            async with asyncio.timeout(WAIT_S):
                try:
                    return await self._ask()
                except Unavailable:
                    # The connection may have died with a server that is long back.
                    return await self._ask()
        except NotMigrated as error:
            return self._failure("the database lacks enrichd's tables", error)
        except Unavailable as error:
            return self._failure("PostgreSQL cannot be reached", error)
        except TimeoutError as error:
            await self._database.reset()
            return self._failure("PostgreSQL did not answer within a second", error)
        except Exception as error:  # noqa: BLE001 - around one reading: health must have an answer
            await self._database.reset()
            return self._failure("PostgreSQL refuses the question", error)

    async def _ask(self) -> Value:
        async with self._database.connection() as conn:
            value = await self._read(conn)
        if self._last_problem is not None:
            log.info("database_back")
            self._last_problem = None
        return value

    def _failure(self, reason: str, error: Exception) -> Failure:
        """Tell the log the details, once for each kind of failure; everybody else gets `reason`."""
        if reason != self._last_problem:
            log.warning("database_away", reason=reason, error=str(error))
            self._last_problem = reason
        return Failure(reason)
