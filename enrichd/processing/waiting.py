"""Waiting: what a worker does between turns, and what wakes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from enrichd.errors import Unavailable
from enrichd.logs import get_logger
from enrichd.processing.ear import Ear

# Who hears hints polls so many times less often.
POLLS_SPARED = 3
LONG_S = 1e6

log = get_logger("worker")


class Waiting:
    """Sleeps until there may be something to do, and says when the worker is idle."""

    def __init__(
        self,
        ear: Ear | None,
        *,
        poll_interval_s: float,
        on_hint: Callable[[], None],
        on_idle: Callable[[bool], None],
    ) -> None:
        self._ear = ear
        self._poll_interval_s = poll_interval_s
        self._on_hint = on_hint
        self._on_idle = on_idle
        self._is_idle = False
        self._woken = asyncio.Event()

    @property
    def next_look_s(self) -> float:
        """Return how long to let lanes be that were seen empty."""
        is_hearing = self._ear is not None and self._ear.is_hearing
        return self._poll_interval_s * (POLLS_SPARED if is_hearing else 1)

    def wake(self) -> None:
        """End the wait that goes on, or else the next one."""
        self._woken.set()

    def begin(self) -> None:
        """Forget earlier calls to wake; look for what they were about after this, then wait."""
        self._woken.clear()

    def say_idle(self, is_idle: bool) -> None:
        """Say whether the worker has nothing to do, if that is news."""
        if is_idle != self._is_idle:
            self._is_idle = is_idle
            self._on_idle(is_idle)

    def be_taken_for_busy(self) -> None:
        """Say it anew when idle next: somebody woke the worker and counts on it."""
        self._is_idle = False

    def rest(self) -> None:
        """Leave the hints to another worker."""
        if self._ear is not None:
            self._ear.rest()

    async def for_work(self, longest_s: float) -> None:
        """Wait at most so long to be woken, by a hint that this worker hears itself too."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(longest_s, 0.0) if longest_s < LONG_S else None):
                await self._hear()

    async def for_end(self, longest_s: float) -> None:
        """Wait at most so long to be woken, with no room for more work."""
        self.rest()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(longest_s, 0.0) if longest_s < LONG_S else None):
                await self._woken.wait()

    async def _hear(self) -> None:
        if self._ear is None:
            await self._woken.wait()
            return
        try:
            if await self._ear.open():
                self._on_hint()
            await self._woken.wait()
        except Unavailable as error:
            log.debug("listen_failed", reason=error.message)
            await self._woken.wait()
        finally:
            self._ear.shut()
