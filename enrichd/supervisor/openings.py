"""Places in the fleet that wait for their next child, and how long they wait.

Each place has a memory of its own, handed from child to child: a worker that dies again and again
waits ever longer, and its neighbours do not.
"""

from __future__ import annotations

from dataclasses import dataclass

from enrichd.supervisor.child import Child, Role

FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 30.0
# One that died after this long has served: the next starts at once.
SERVED_S = 10.0
# A worker that left in order without being told to: PM2 signals the children before us, so our own
# signal may be on its way. Starting another at once would fight the stop.
UNASKED_EXIT_S = 0.25
# A worker that reaches WORKER_MAX_MEMORY sooner than this will do so again and again: its successor
# is kept at least as long, and the next one twice as long.
FULL_SOON_S = 60.0
KEEP_LAST_S = 3600.0


@dataclass(frozen=True, slots=True)
class Opening:
    """A place for a child."""

    role: Role
    not_before: float = 0.0
    pause_s: float = 0.0
    """How long it waits; doubled if its next child dies soon."""
    keep_s: float = 0.0
    """The age before which its next child is not replaced for its memory."""


class Openings:
    """The places that are known to be open; a place nobody had before is not among them."""

    def __init__(self) -> None:
        self._openings: list[Opening] = []

    def add(self, opening: Opening) -> None:
        """Open a place."""
        self._openings.append(opening)

    def waiting(self, role: Role, now: float) -> int:
        """Return how many places of a role must still wait."""
        return sum(spot.role == role and spot.not_before > now for spot in self._openings)

    def take(self, role: Role, now: float) -> Opening:
        """Return a place whose time has come, and forget it; a new one if there is none."""
        for opening in self._openings:
            if opening.role == role and opening.not_before <= now:
                self._openings.remove(opening)
                return opening
        return Opening(role)

    def keep(self, role: Role, count: int) -> None:
        """Keep at most `count` places of a role: the fleet has become smaller."""
        mine = [opening for opening in self._openings if opening.role == role]
        mine.sort(key=lambda opening: opening.not_before)
        for opening in mine[max(count, 0) :]:
            self._openings.remove(opening)

    def clear(self) -> None:
        """Forget all: a new configuration starts without a grudge."""
        self._openings.clear()

    def times(self) -> list[float]:
        """Return when places may be filled."""
        return [opening.not_before for opening in self._openings]


def after_death(child: Child, code: int, now: float) -> Opening:
    """Return the place of a child that ended without being told to."""
    first_s = UNASKED_EXIT_S if code == 0 else FIRST_PAUSE_S
    if now - child.started < SERVED_S:
        pause_s = min(max(child.pause_s * 2, first_s), LAST_PAUSE_S)
    else:
        pause_s = first_s if code == 0 else 0.0
    return Opening(child.role, now + pause_s, pause_s, child.keep_s)


def after_failed_fork(opening: Opening, now: float) -> Opening:
    """Return the place of a child that the system had no room for."""
    pause_s = min(max(opening.pause_s * 2, FIRST_PAUSE_S), LAST_PAUSE_S)
    return Opening(opening.role, now + pause_s, pause_s, opening.keep_s)


def after_growth(child: Child) -> Opening:
    """Return the place of a worker that leaves because it has grown above WORKER_MAX_MEMORY."""
    assert child.full_at is not None
    if child.full_at - child.started >= FULL_SOON_S:
        return Opening(child.role)
    keep_s = min(max(child.keep_s * 2, FULL_SOON_S), KEEP_LAST_S)
    return Opening(child.role, keep_s=keep_s)
