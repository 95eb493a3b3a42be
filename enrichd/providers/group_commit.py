"""Statements over whatever has gathered while the one before was under way.

A process asks PostgreSQL for many small things at the same time. Sent one by one they would cost a
round trip and a commit each; so one statement is in flight, and what comes meanwhile goes next as
one statement. Nobody waits for a timer: alone, an item goes out at once.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from enrichd.errors import Unavailable
from enrichd.store.database import RACE_TRIES, RACES

Item = TypeVar("Item")
Answer = TypeVar("Answer")

BACKOFF_S_MIN: Final = 0.05
BACKOFF_S_MAX: Final = 5.0


class GroupCommit(Generic[Item, Answer]):
    """One kind of statement of one process; close it before its database.

    `run` does many items and answers in their order; it must bear being run again with the same
    items. `unclaimed` is told of an item whose caller was cancelled while it was done.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        size_max: int,
        waiting_max: int,
        tries: int | None,
        unclaimed: Callable[[Item, Answer], None] | None = None,
        failed: Callable[[Item], None] | None = None,
    ) -> None:
        self._run = run
        self._size_max = size_max
        self._waiting_max = waiting_max
        self._tries = tries
        """How often when PostgreSQL is away; None: until it is back or this is closed."""
        self._unclaimed = unclaimed
        self._failed = failed
        """Told of an item whose statement may or may not have been done."""
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self.statements = 0
        """How many were sent."""
        self.items = 0
        """How many items they carried."""

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Have an item done; the future has its answer, and need not be waited for.

        Its exception is Unavailable when PostgreSQL is away, or too much waits for it already.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        # Whoever does not wait is not told twice: what cannot be done is logged by `failed`.
        future.add_done_callback(_seen)
        if self._is_closed or len(self._waiting) >= self._waiting_max:
            future.set_exception(Unavailable("too many statements wait for PostgreSQL"))
            if self._failed is not None:
                self._failed(item)
            return future
        self._waiting.append((item, future))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return future

    def put_soon(self, item: Item) -> None:
        """Have an item done for nobody who waits."""
        self.put(item).add_done_callback(_seen)

    async def aclose(self, within_s: float = 5.0) -> None:
        """Wait for what is under way, at most so long, and drop the rest."""
        self._is_closed = True
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=within_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail(self._waiting, Unavailable("the process stopped before PostgreSQL was back"))
        self._waiting.clear()

    async def _work(self) -> None:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        try:
            while self._waiting:
                batch = self._next_batch()
                await self._do(batch)
                batch = []
        finally:
            self._task = None
            self._fail(batch, Unavailable("the process stopped before PostgreSQL was back"))

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        while self._waiting and len(batch) < self._size_max:
            item, future = self._waiting.popleft()
            # What can be taken back need not be done for somebody who has left already.
            if self._unclaimed is None or not future.cancelled():
                batch.append((item, future))
        return batch

    async def _do(self, batch: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._patiently([item for item, _ in batch])
        except Unavailable as error:
            self._fail(batch, error)
        except Exception as error:  # noqa: BLE001 - a value that PostgreSQL refuses fails alone
            if len(batch) == 1:
                self._fail(batch, error)
                return
            for one in batch:
                await self._do([one])
        else:
            for (item, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
                elif self._unclaimed is not None:
                    self._unclaimed(item, answer)

    async def _patiently(self, items: Sequence[Item]) -> Sequence[Answer]:
        races = misses = 0
        while items:
            self.statements += 1
            try:
                answers = await self._run(items)
            except RACES:
                races += 1
                if races >= RACE_TRIES:
                    raise
            except Unavailable:
                misses += 1
                if self._tries is not None and misses >= self._tries:
                    raise
                pause_s = min(BACKOFF_S_MIN * 2 ** min(misses, 10), BACKOFF_S_MAX)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            else:
                self.items += len(items)
                return answers
        return ()

    def _fail(self, batch: Iterable[tuple[Item, asyncio.Future[Answer]]], error: Exception) -> None:
        for item, future in batch:
            if not future.done():
                future.set_exception(error)
            if self._failed is not None:
                self._failed(item)


def _seen(future: asyncio.Future[Answer]) -> None:
    if not future.cancelled():
        future.exception()
