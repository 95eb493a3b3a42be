"""Children that say nothing any more: their stacks are asked for, then they are killed."""

from __future__ import annotations

import signal
import time

from enrichd.logs import get_logger
from enrichd.supervisor.children import Children

# From the stack dump of a hung child to its kill.
DUMP_S = 0.5
# The loop turns at least each second. Away for longer, it was stopped (Ctrl-Z, a frozen container),
# its children most likely too: their silence says nothing.
AWAY_S = 2.0

log = get_logger("supervisor")


class HangWatch:
    """Looks at each turn of the supervisor's loop."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()

    def look(self, children: Children, now: float, *, hang_s: float) -> None:
        """Dump and kill children that have been silent for `hang_s`."""
        was_away = now - self._looked_at > AWAY_S
        self._looked_at = now
        for child in children:
            if was_away:
                child.heard = now
            if child.killed_at is not None:
                if now >= child.killed_at:
                    child.signal(signal.SIGKILL)
                    # Not waiting for the end of the link: a process it started may hold it open.
                    children.part_with(child)
            elif now - child.heard > hang_s:
                log.error("child_hangs", role=child.role, child_pid=child.pid, silent_s=hang_s)
                child.signal(signal.SIGUSR1)  # Its stacks go to stderr.
                child.killed_at = now + DUMP_S
