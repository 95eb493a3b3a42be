"""The permits that a process holds for one question, from when they are given to their end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from enrichd.providers.database_clock import DatabaseClock
from enrichd.store.rate_limits import Grant

UNUSED_MAX: Final = 2000


class PermitStock:
    """Permits by their begin; those that nobody used in their time are put away to be given back.

    More than `UNUSED_MAX` are not: they count as calls until their window is over.
    """

    def __init__(self, clock: DatabaseClock) -> None:
        self._clock = clock
        self._grants: list[Grant] = []
        self._unused: list[int] = []
        self.unused_ever = 0

    def __len__(self) -> int:
        return sum(grant.permits for grant in self._grants)

    @property
    def has_unused(self) -> bool:
        """Say whether there is anything to give back."""
        return bool(self._unused)

    @property
    def first_at(self) -> float:
        """Return when the first permit begins, on the monotonic clock."""
        return self._clock.monotonic(self._grants[0].start_us)

    @property
    def last_at(self) -> float:
        """Return when the last permit begins."""
        return self._clock.monotonic(self._grants[-1].start_us)

    def add(self, grants: Sequence[Grant]) -> None:
        """Hold these permits too."""
        self._grants = sorted([*self._grants, *grants], key=lambda grant: grant.start_us)

    def spend(self, now: float) -> Grant | None:
        """Take out one permit whose time is now; None if there is none."""
        self.drop_late(now)
        if not self._grants or not self._clock.has_come(self._grants[0].start_us, now):
            return None
        first = self._grants[0]
        if first.permits > 1:
            self._grants[0] = Grant(first.start_us, first.end_us, first.permits - 1)
        else:
            del self._grants[0]
        return Grant(first.start_us, first.end_us, 1)

    def is_late(self, grant: Grant, now: float) -> bool:
        """Say whether a permit's time may be over."""
        return self._clock.may_have_come(grant.end_us, now)

    def drop_late(self, now: float) -> None:
        """Put away what can no longer be used."""
        if self._grants and self.is_late(self._grants[0], now):
            self._drop(lambda grant: self.is_late(grant, now))

    def drop_before(self, until: float) -> None:
        """Put away what begins before a monotonic time."""
        self._drop(lambda grant: self._clock.monotonic(grant.start_us) < until)

    def put_away(self, grant: Grant) -> None:
        """Give a permit back that nobody will use."""
        self.unused_ever += grant.permits
        self._unused += [grant.end_us] * min(grant.permits, UNUSED_MAX - len(self._unused))

    def take_unused(self) -> list[int]:
        """Return the ends of what is to be given back, and forget them."""
        unused, self._unused = self._unused, []
        return unused

    def keep_unused(self, unused: Sequence[int]) -> None:
        """Remember what could not be given back."""
        self._unused = [*unused, *self._unused][:UNUSED_MAX]

    def _drop(self, is_over: Callable[[Grant], bool]) -> None:
        over = [grant for grant in self._grants if is_over(grant)]
        self._grants = [grant for grant in self._grants if not is_over(grant)]
        for grant in over:
            self.put_away(grant)
