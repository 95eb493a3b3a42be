"""What is known here of webhook receivers: the line of each, and the host that lines lead to.

A line is what is slow or fast together. A host has places for the requests of all its lines; half
of them are for a line's first request alone, so that neither a busy line nor those that fail can
keep another from having one under way.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from enrichd.store.deliveries import Due

FIRST_PACE = 8
PACE_MAX = 500
"""What one receiver may be handed ahead: what a fast one takes during one turn."""
TROUBLED_AT = 3
"""Failures in a row after which a receiver gets one request at a time."""


@dataclass(frozen=True, slots=True)
class Held:
    """A claimed delivery and what it needs to go out."""

    due: Due
    now: datetime
    at: float
    """The loop's time of the claim."""

    @property
    def host(self) -> str:
        """Return the host and port it goes to, "" for none."""
        parts = (self.due.url or "").split("/", 3)
        return parts[2].lower() if len(parts) > 2 else ""


@dataclass(slots=True, eq=False)
class Line:
    """A receiver's deliveries here."""

    waiting: deque[Held] = field(default_factory=deque)
    running: int = 0
    pace: int = FIRST_PACE
    failures: int = 0
    blocked_until: float = 0.0
    is_queued: bool = False
    """Whether it waits for a place at its host."""

    @property
    def held(self) -> int:
        """Return how many are in memory."""
        return len(self.waiting) + self.running

    @property
    def is_troubled(self) -> bool:
        """Say whether the receiver has been failing."""
        return self.failures >= TROUBLED_AT

    @property
    def is_plain(self) -> bool:
        """Say whether there is nothing to remember of it."""
        return (
            not self.held
            and not self.failures
            and not self.blocked_until
            and self.pace == FIRST_PACE
        )


@dataclass(slots=True, eq=False)
class Host:
    """The places for requests to one host, and the lines that wait for one."""

    name: str
    places: int
    running: int = 0
    extra: int = 0
    """Those under way that are not the first of a line in good standing."""
    queue: deque[Line] = field(default_factory=deque)
    extra_queue: deque[Line] = field(default_factory=deque)

    @property
    def is_idle(self) -> bool:
        """Say whether nobody is there or wants to be."""
        return not (self.running or self.queue or self.extra_queue)

    def enter(self, line: Line) -> Place | None:
        """Take a place for a line's next request; queue the line and return None for none."""
        is_extra = line.running > 0 or line.is_troubled
        if not self._has_room(is_extra=is_extra):
            if not line.is_queued:
                line.is_queued = True
                (self.extra_queue if is_extra else self.queue).append(line)
            return None
        self.running += 1
        self.extra += is_extra
        return Place(self, is_extra)

    def next_line(self) -> Line | None:
        """Return the line that has waited longest for a place that is free now."""
        for queue, is_extra in ((self.queue, False), (self.extra_queue, True)):
            if queue and self._has_room(is_extra=is_extra):
                line = queue.popleft()
                line.is_queued = False
                return line
        return None

    def _has_room(self, *, is_extra: bool) -> bool:
        if is_extra and self.extra >= self.places // 2:
            return False
        return self.running < self.places


@dataclass(frozen=True, slots=True)
class Place:
    """A place at a host, until it is left."""

    host: Host
    is_extra: bool

    def leave(self) -> None:
        """Give it back."""
        self.host.running -= 1
        self.host.extra -= self.is_extra
