"""The children that live, and those whose end has been heard and not yet collected."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Iterable, Iterator

from enrichd.supervisor.child import Child, ChildSpec, Role, fork
from enrichd.supervisor.openings import Opening

REAP_S = 2.0


class Children:
    """Starts children, listens to them, collects them; iterates over the living."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._living: list[Child] = []
        self._dying: dict[Child, float] = {}
        """When to kill one that closed its link and does not leave."""

    def __iter__(self) -> Iterator[Child]:
        return iter(tuple(self._living))

    def __contains__(self, child: object) -> bool:
        return child in self._living

    @property
    def are_gone(self) -> bool:
        """True when none lives and all are collected."""
        return not (self._living or self._dying)

    @property
    def are_dying(self) -> bool:
        """True while one is to be collected."""
        return bool(self._dying)

    @property
    def pids(self) -> set[int]:
        """Their process ids, those that are to be collected included."""
        return {child.pid for child in (*self._living, *self._dying)}

    def of(self, role: Role) -> list[Child]:
        """Return the living children of a role, oldest first."""
        return [child for child in self._living if child.role == role]

    def staying(self, role: Role) -> list[Child]:
        """Return those of a role that have not been told to leave."""
        return [child for child in self.of(role) if not child.is_leaving]

    def dying(self, role: Role) -> int:
        """Return how many of a role ended unasked and are not collected yet.

        They hold their place until then: how they ended says how long it stays empty.
        """
        return sum(child.role == role and not child.is_leaving for child in self._dying)

    def start(
        self,
        spec: ChildSpec,
        opening: Opening,
        *,
        generation: int,
        inherited: Iterable[socket.socket],
        leave_within_s: float,
    ) -> Child:
        """Fork a child; raises OSError when the system has no room for it."""
        taken = {child.slot for child in (*self._living, *self._dying)}
        child = fork(
            spec,
            generation=generation,
            slot=next(number for number in range(len(taken) + 1) if number not in taken),
            inherited=[*inherited, *(sibling.link for sibling in self._living)],
            leave_within_s=leave_within_s,
        )
        child.pause_s, child.keep_s = opening.pause_s, opening.keep_s
        self._living.append(child)
        self._selector.register(child.link, selectors.EVENT_READ, child)
        return child

    def part_with(self, child: Child, *, kill_after_s: float = REAP_S) -> None:
        """Hear no more of a child; it is killed unless it ends by itself."""
        self._selector.unregister(child.link)
        child.link.close()
        self._living.remove(child)
        self._dying[child] = time.monotonic() + kill_after_s

    def reap(self) -> list[tuple[Child, int]]:
        """Collect those that have ended, with their exit codes (below 0: by that signal)."""
        now = time.monotonic()
        ended = []
        for child, kill_at in list(self._dying.items()):
            status = child.reap()
            if status is not None:
                del self._dying[child]
                ended.append((child, os.waitstatus_to_exitcode(status)))
            elif now >= kill_at:
                self._dying[child] = now + REAP_S
                child.signal(signal.SIGKILL)
        return ended
