"""The configuration in force, and the way from one to another without a gap.

A reload replaces children one by one. First those of which there is one: what is taken from
outside, the HTTP port, is tried before any worker is touched. Then the workers, each after the one
in its place is ready. If a child cannot use the new configuration, the way leads back to the one
that worked, in the same manner; children that still have it are not touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from enrichd.errors import EnrichdError
from enrichd.logs import get_logger
from enrichd.supervisor.child import Child, ChildSpec, let_go
from enrichd.supervisor.children import Children
from enrichd.supervisor.fleet import Fleet
from enrichd.supervisor.notify import Notifier

log = get_logger("supervisor")


@dataclass(slots=True)
class Change:
    """A change under way."""

    before: tuple[Fleet, int] | None
    """What worked, and its generation; None while going back to it."""
    refused_by: str = ""
    """The role that could not use the new configuration, while going back from it."""
    leaving: Child | None = None
    """The one that is waited for."""


class Configuration:
    """Holds the fleet in force; its number, the generation, is given to each child."""

    def __init__(self, read: Callable[[], Fleet], notifier: Notifier) -> None:
        self._read = read
        self._notifier = notifier
        self.fleet = read()
        self.fleet.enter()
        self.generation = 0
        self._generations = 0
        self._change: Change | None = None
        self.last_reload = "none"
        """How the last reload went, for whoever asks."""

    @property
    def is_changing(self) -> bool:
        """True while children are being replaced."""
        return self._change is not None

    def is_stale(self, child: Child) -> bool:
        """Say whether a child is to be replaced."""
        return child.generation != self.generation and not child.is_leaving

    def reload(self) -> bool:
        """Begin to change to the configuration as it is now; False when that cannot be used."""
        self._notifier.say(
            "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )
        try:
            fleet = self._read()
        except (EnrichdError, OSError, ValueError) as error:  # a folder gone, a file not in UTF-8
            log.error("reload_refused", reason=str(error))
            self.last_reload = f"refused: {error}"
            self._notifier.say("READY=1", "STATUS=reload refused: see the log")
            return False
        before = (self.fleet, self.generation)
        if self._change is not None and self._change.before is not None:
            before = self._change.before  # The one under way has not shown yet that it works.
        self._generations += 1
        self._enter(fleet, self._generations, Change(before))
        self.last_reload = "under way"
        log.info("reload_started", generation=self.generation)
        return True

    def go_back(self, child: Child) -> bool:
        """Begin to change back if the reload under way brought what this child cannot use."""
        change = self._change
        if change is None or change.before is None or child.generation != self.generation:
            return False
        log.critical("reload_failed", role=child.role, generation=self.generation)
        self.last_reload = f"failed: configuration error in the {child.role}"
        self._notifier.say(f"STATUS=reload {self.last_reload}")
        self._enter(*change.before, Change(None, refused_by=child.role))
        return True

    def _enter(self, fleet: Fleet, generation: int, change: Change) -> None:
        self.fleet, self.generation, self._change = fleet, generation, change
        fleet.enter()

    def forget(self, child: Child) -> None:
        """Wait no longer for a child that is gone."""
        if self._change is not None and self._change.leaving is child:
            self._change.leaving = None

    def go_on(self, children: Children, wanted: int) -> None:
        """Let the next child go if its time has come, or say that all are replaced."""
        change = self._change
        if change is None or change.leaving is not None:
            return
        child = self._next_to_leave(children, wanted)
        if child is not None:
            change.leaving = child
            let_go(child, "reload")
        elif all(self._is_served(spec, children) for spec in self.fleet.others) and not any(
            self.is_stale(worker) for worker in children.of("worker")
        ):
            self._change = None
            self._report(change, len(children.staying("worker")))

    def _next_to_leave(self, children: Children, wanted: int) -> Child | None:
        """Return who may go now; None while a new child has to be waited for, and at the end."""
        for spec in self.fleet.others:
            for child in children.staying(spec.role):
                if self.is_stale(child):
                    return child
            if not self._is_served(spec, children):
                return None
        workers = children.staying("worker")
        stale = [child for child in workers if self.is_stale(child)]
        are_ready = all(child.is_ready for child in workers if child not in stale)
        return stale[0] if stale and are_ready and len(workers) > wanted else None

    def _is_served(self, spec: ChildSpec, children: Children) -> bool:
        """Say whether the new configuration's child of that role is ready."""
        return any(
            child.is_ready and not self.is_stale(child) for child in children.staying(spec.role)
        )

    def _report(self, change: Change, workers: int) -> None:
        if change.refused_by:
            log.warning("reload_undone", generation=self.generation)
            self._notifier.say("READY=1", f"STATUS={workers} workers, reload {self.last_reload}")
        else:
            log.info("reload_done", generation=self.generation)
            self.last_reload = "done"
            self._notifier.say("READY=1", f"STATUS={workers} workers, reloaded")
