"""When the daemon calls itself ready, and which part of its configuration has worked."""

from __future__ import annotations

import time

from enrichd.logs import get_logger
from enrichd.supervisor.child import Child, Role
from enrichd.supervisor.children import Children
from enrichd.supervisor.fleet import Fleet
from enrichd.supervisor.notify import Notifier

STARTED_S = 10.0

log = get_logger("supervisor")


class Readiness:
    """Is reported once: when every child is ready, or after a while all the same."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._started = time.monotonic()
        self._is_reported = False
        self._proven: set[Role] = set()

    def hear(self, child: Child) -> None:
        """Take a child's word that it is ready."""
        child.is_ready = True
        self._proven.add(child.role)

    def has_worked(self, role: Role) -> bool:
        """Say whether a child of that role has ever been ready: its configuration was right."""
        return role in self._proven

    def report(self, children: Children, fleet: Fleet) -> None:
        """Tell the log and the process manager, if it is time."""
        if self._is_reported:
            return
        workers = children.of("worker")
        ready = sum(child.is_ready for child in workers)
        are_enough = ready >= fleet.worker_count
        are_complete = are_enough and all(self.has_worked(spec.role) for spec in fleet.others)
        if not are_complete and time.monotonic() - self._started <= STARTED_S:
            return
        self._is_reported = True
        status = f"{ready} of {len(workers)} workers ready"
        if not are_enough:
            status += "; PostgreSQL cannot be reached, retrying"
        log.info("supervisor_ready", status=status)
        self._notifier.ready(status)
