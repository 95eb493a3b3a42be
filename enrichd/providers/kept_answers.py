"""Answers that are kept for a while, and each of them fetched only once at a time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class KeptAnswers(Generic[Answer]):
    """Answers by key: looked up by one caller while the others wait, then kept for a time.

    Holds `kept_max` of them; the longest unused one goes first.
    """

    def __init__(self, *, kept_max: int) -> None:
        self._kept_max = kept_max
        self._kept: OrderedDict[str, tuple[Answer, float]] = OrderedDict()
        self._under_way: dict[str, asyncio.Event] = {}

    async def get(self, key: str, look_up: Callable[[], Awaitable[tuple[Answer, float]]]) -> Answer:
        """Return the kept answer, or look it up; `look_up` gives it with its seconds to keep."""
        while True:
            kept = self._kept.get(key)
            if kept is not None and kept[1] > time.monotonic():
                self._kept.move_to_end(key)
                return kept[0]
            ended = self._under_way.get(key)
            if ended is None:
                return await self._fetch(key, look_up)
            # If the one who looks it up is cancelled, the first to wake does it in his place.
            await ended.wait()

    async def _fetch(
        self, key: str, look_up: Callable[[], Awaitable[tuple[Answer, float]]]
    ) -> Answer:
        ended = self._under_way[key] = asyncio.Event()
        try:
            answer, keep_s = await look_up()
        finally:
            del self._under_way[key]
            ended.set()
        self._kept[key] = (answer, time.monotonic() + keep_s)
        self._kept.move_to_end(key)
        if len(self._kept) > self._kept_max:
            self._kept.popitem(last=False)
        return answer
