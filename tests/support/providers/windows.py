"""How a server counts calls: windows by its own clock, and when each call arrived."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """When a window begins."""

    FIXED = "fixed"
    """At whole multiples of its length on the server's clock."""
    FIRST_REQUEST = "first-request"
    """At the first call after the last window ended."""
    SLIDING = "sliding"
    """Always: the last `seconds` count."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `calls` in each window of `seconds`; a refused call counts too."""

    calls: int
    seconds: float
    kind: Kind = Kind.FIXED


@dataclass(frozen=True, slots=True)
class Usage:
    """How one key stands in one window."""

    limit: Limit
    used: int
    reset_after_s: float

    @property
    def left(self) -> int:
        """The calls that would still be answered."""
        return max(0, self.limit.calls - self.used)


@dataclass(slots=True)
class _Window:
    opened_at: float = 0.0
    used: int = 0
    arrivals: deque[float] = field(default_factory=deque)


class Meter:
    """The windows of all keys; `limits` are by path, `*` is what all paths share."""

    def __init__(
        self,
        limits: Mapping[str, Sequence[Limit]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = dict(limits)
        self._clock = clock
        self._windows: dict[tuple[str, str, Limit], _Window] = {}

    def count(self, key: str, path: str) -> Usage | None:
        """Count one call; return the window that it does not fit into, the slowest if several."""
        now = self._clock()
        over = [
            usage
            for scope, limit in self._in_force(path)
            if (usage := self._use(key, scope, limit, now, 1)).used > limit.calls
        ]
        return max(over, key=lambda usage: usage.reset_after_s, default=None)

    def usages(self, key: str, path: str) -> list[Usage]:
        """Return how a key stands in each window of a path, those of all paths last."""
        now = self._clock()
        return [self._use(key, scope, limit, now, 0) for scope, limit in self._in_force(path)]

    def _in_force(self, path: str) -> Iterable[tuple[str, Limit]]:
        for scope in (path, "*"):
            for limit in self.limits.get(scope, ()):
                yield scope, limit

    def _use(self, key: str, scope: str, limit: Limit, now: float, calls: int) -> Usage:
        window = self._windows.setdefault((key, scope, limit), _Window())
        if limit.kind is Kind.SLIDING:
            while window.arrivals and window.arrivals[0] <= now - limit.seconds:
                window.arrivals.popleft()
            window.arrivals.extend([now] * calls)
            oldest = window.arrivals[0] if window.arrivals else now
            return Usage(limit, len(window.arrivals), oldest + limit.seconds - now)
        begins = now // limit.seconds * limit.seconds if limit.kind is Kind.FIXED else now
        if window.used == 0 or now >= window.opened_at + limit.seconds:
            window.opened_at, window.used = begins, 0
        window.used += calls
        return Usage(limit, window.used, window.opened_at + limit.seconds - now)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One call as it came in."""

    at: float
    """Monotonic seconds."""
    path: str
    key: str | None
    subject: str


class Arrivals(list[Arrival]):
    """Every call in the order it came, refused ones too."""

    def max_in_window(
        self, seconds: float, slack: float = 0.0, *, path: str | None = None, key: str | None = None
    ) -> int:
        """Return the most calls that came within any `seconds - slack`, wherever it begins.

        `slack` is what the way from a caller to the server may differ from call to call.
        """
        length = seconds - slack
        most, recent = 0, deque[float]()
        for arrival in self:
            if path not in (None, arrival.path) or key not in (None, arrival.key):
                continue
            recent.append(arrival.at)
            while recent[0] <= arrival.at - length:
                recent.popleft()
            most = max(most, len(recent))
        return most
