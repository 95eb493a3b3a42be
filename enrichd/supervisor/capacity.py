"""How many workers are wanted, and which of them are told that there is work."""

from __future__ import annotations

import time

from enrichd.domain.scaling import Scaling, step
from enrichd.logs import get_logger
from enrichd.supervisor.children import Children
from enrichd.supervisor.fleet import Fleet

log = get_logger("supervisor")


class Capacity:
    """Counts workers: by configuration, by load, by TTIN and TTOU."""

    def __init__(self, fleet: Fleet) -> None:
        self._extra = 0
        """Workers added (or taken) by hand; kept over a reload."""
        self.renew(fleet)

    def renew(self, fleet: Fleet) -> None:
        """Begin anew with the numbers of this fleet."""
        self._low, self._high = fleet.worker_count, fleet.worker_max_count
        self._scaling = Scaling(fleet.worker_count)

    @property
    def wanted(self) -> int:
        """How many workers there should be, at least 1."""
        return max(1, self._scaling.wanted + self._extra)

    def add(self) -> None:
        """Want one more."""
        self._extra += 1
        log.info("worker_added", wanted=self.wanted)

    def take(self) -> None:
        """Want one fewer, but not none."""
        if self.wanted > 1:
            self._extra -= 1
        log.info("worker_taken", wanted=self.wanted)

    def hear_load(self, report: str) -> None:
        """Scale by the housekeeper's report: the oldest ready job's age and the slots' use."""
        age, _, use = report.partition(" ")
        try:
            oldest_ready_s, share = float(age), float(use)
        except ValueError:
            return
        before = self._scaling.wanted
        self._scaling = step(
            self._scaling,
            low=self._low,
            high=self._high,
            oldest_ready_s=oldest_ready_s,
            use=share,
            now=time.monotonic(),
        )
        if self._scaling.wanted != before:
            log.info("workers_scaled", before=before, now=self._scaling.wanted)


class IdleWorkers:
    """Passes hints of new jobs to idle workers, and their number to the housekeeper."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._told = -1

    def tell(self, *, again: bool = False) -> None:
        """Tell the housekeeper how many workers are idle: it looks for jobs only for them."""
        idle = sum(child.is_idle for child in self._children.of("worker"))
        if again or idle != self._told:
            self._told = idle
            for child in self._children.of("housekeeper"):
                child.say(f"idle {idle}")

    def wake(self, hint: str) -> None:
        """Wake as many as the housekeeper asks for."""
        count = int(hint) if hint.isdecimal() and len(hint) < 9 else 1
        for child in self._children.staying("worker"):
            if count <= 0:
                return
            if child.is_idle:
                child.is_idle = False
                child.say("wake")
                count -= 1
        self.tell()
