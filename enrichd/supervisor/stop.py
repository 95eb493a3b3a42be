"""A stop in progress: workers drain, then the others leave, then what is left is killed."""

from __future__ import annotations

import signal
import time

from enrichd.logs import get_logger
from enrichd.supervisor.child import let_go
from enrichd.supervisor.children import REAP_S, Children

QUICK_KILL_S = 5.0

log = get_logger("supervisor")


class Stop:
    """Begins when it is made."""

    def __init__(self, children: Children, *, leave_within_s: float, exit_code: int) -> None:
        self.exit_code = exit_code
        self._children = children
        self._deadline = time.monotonic() + leave_within_s
        self._is_quick = False
        for child in children.of("gateway"):
            child.say("draining")
        for child in children.of("worker"):
            child.is_leaving = True
            child.signal(signal.SIGTERM)  # Also one that is leaving: now its grace is counted.

    @property
    def deadline(self) -> float:
        """When the next thing happens even if nobody says anything."""
        return self._deadline

    def hurry(self) -> None:
        """Have the workers give back at once what they run."""
        if self._is_quick:
            return
        log.info("supervisor_stops_now")
        self._is_quick = True
        self._deadline = min(self._deadline, time.monotonic() + QUICK_KILL_S)
        for child in self._children.of("worker"):
            # Not by a second signal, which PM2 or a terminal may have sent for the first stop.
            child.say("stop_now")

    def go_on(self, now: float) -> None:
        """Let the others go after the workers; kill what did not leave in time."""
        if not self._children.of("worker"):
            for child in self._children:
                let_go(child, "stop")
        if now > self._deadline:
            self._deadline = now + REAP_S
            for child in self._children:
                log.error("child_killed", role=child.role, child_pid=child.pid)
                child.signal(signal.SIGKILL)
