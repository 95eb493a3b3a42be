"""WorkerManager: the supervisor of one host's processes.

Small, synchronous, single-threaded: one `select` over the children's links and the signal socket. A
byte on a link means alive, end of file dead, silence hung. It never talks to PostgreSQL, so no
outage there can take it down.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable

from enrichd import metrics
from enrichd.logs import get_logger
from enrichd.supervisor.capacity import Capacity, IdleWorkers
from enrichd.supervisor.child import Child, ChildSpec, let_go, retire
from enrichd.supervisor.children import REAP_S, Children
from enrichd.supervisor.configuration import Configuration
from enrichd.supervisor.fleet import KILL_EXTRA_S, Fleet
from enrichd.supervisor.hangs import HangWatch
from enrichd.supervisor.notify import Notifier
from enrichd.supervisor.openings import Openings, after_death, after_failed_fork, after_growth
from enrichd.supervisor.orphans import Orphans
from enrichd.supervisor.readiness import Readiness
from enrichd.supervisor.signals import SignalInbox
from enrichd.supervisor.standing import replaced_because, write_down
from enrichd.supervisor.stop import Stop

__all__ = ["CONFIGURATION_ERROR", "KILL_EXTRA_S", "REAP_S", "Fleet", "WorkerManager"]

CONFIGURATION_ERROR = 78
TICK_S = 2.0

log = get_logger("supervisor")


class WorkerManager:
    """Keeps a fleet of children running until it is told to stop."""

    def __init__(self, fleet: Callable[[], Fleet], *, notifier: Notifier | None = None) -> None:
        self._notifier = notifier or Notifier()
        self._configuration = Configuration(fleet, self._notifier)
        self._orphans = Orphans()
        self._selector = selectors.DefaultSelector()
        self._children = Children(self._selector)
        self._openings = Openings()
        self._capacity = Capacity(self._configuration.fleet)
        self._idle = IdleWorkers(self._children)
        self._readiness = Readiness(self._notifier)
        self._hangs = HangWatch()
        self._stop: Stop | None = None
        self._has_warned_of_growth = False
        self._next_tick = 0.0

    # The loop.

    def run(self) -> int:
        """Run until stopped; return the exit code: 0, or 78 for a configuration error."""
        self._signals = SignalInbox()
        self._selector.register(self._signals.sock, selectors.EVENT_READ, None)
        try:
            return self._run()
        finally:
            self._selector.close()
            self._signals.close()

    def _run(self) -> int:
        log.info("supervisor_started", pid=os.getpid(), workers=self._fleet.worker_count)
        while True:
            self._keep_numbers()
            if self._stop is not None and self._children.are_gone:
                break
            for key, _ in self._selector.select(self._timeout_s()):
                if key.data is None:
                    for number in self._signals.read():
                        self._take_signal(number)
                elif key.data in self._children:
                    self._hear(key.data)
            for child, code in self._children.reap():
                self._bury(child, code)
            self._tick()
        log.info("supervisor_stopped", exit_code=self._stop.exit_code)
        return self._stop.exit_code

    @property
    def _fleet(self) -> Fleet:
        return self._configuration.fleet

    def _timeout_s(self) -> float:
        if self._children.are_dying:
            return 0.01
        now = time.monotonic()
        ends = [self._next_tick, now + 1.0, *self._openings.times()]
        if self._stop is not None:
            ends.append(self._stop.deadline)
        ends += [child.killed_at for child in self._children if child.killed_at is not None]
        return max(min((end - now for end in ends if end > now), default=0.0), 0.005)

    def _take_signal(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT:
                is_again = self._stop is not None
                stop = self._begin_stop(0)
                if is_again or number is signal.SIGQUIT:
                    stop.hurry()
            case signal.SIGHUP:
                if self._stop is None and self._configuration.reload():
                    self._begin_anew()
            case signal.SIGTTIN:
                self._capacity.add()
            case signal.SIGTTOU:
                self._capacity.take()
            case signal.SIGUSR1:
                self._dump()
            case _:
                pass  # SIGCHLD only wakes the loop: a death is seen by the link's end of file.

    # Keeping the numbers.

    def _keep_numbers(self) -> None:
        """Start what is missing and let go what is too much."""
        if self._stop is not None:
            return
        now = time.monotonic()
        for spec in self._fleet.others:
            there = len(self._children.of(spec.role)) + self._children.dying(spec.role)
            if not (there or self._openings.waiting(spec.role, now)):
                self._start(spec)
        workers = self._children.staying("worker")
        missing = self._capacity.wanted - len(workers) - self._children.dying("worker")
        if any(self._configuration.is_stale(child) for child in workers):
            missing += 1  # One more during a reload, so that the number never falls.
        self._openings.keep("worker", missing)
        for _ in range(missing - self._openings.waiting("worker", now)):
            if not self._start(self._fleet.worker):
                break
        if missing < 0 and not self._configuration.is_changing:
            for child in workers[missing:]:
                log.info("child_drains", role="worker", child_pid=child.pid, reason="too many")
                retire(child)

    def _start(self, spec: ChildSpec) -> bool:
        """Fork a child; say whether it was started."""
        opening = self._openings.take(spec.role, time.monotonic())
        try:
            child = self._children.start(
                spec,
                opening,
                generation=self._configuration.generation,
                inherited=self._signals.sockets,
                leave_within_s=self._fleet.leave_within_s,
            )
        except OSError as error:
            self._openings.add(after_failed_fork(opening, time.monotonic()))
            log.error("child_not_started", role=spec.role, reason=str(error))
            return False
        log.info("child_started", role=child.role, child_pid=child.pid)
        return True

    # What children say, and their deaths.

    def _hear(self, child: Child) -> None:
        lines = child.lines()
        if lines is None:
            self._children.part_with(child)
            return
        for line in lines:
            word, _, rest = line.partition(" ")
            self._take_word(child, word, rest)

    def _take_word(self, child: Child, word: str, rest: str) -> None:
        match word:
            case "id":
                child.worker_id = rest
            case "ready":
                self._readiness.hear(child)
                self._report_readiness()
            case "idle" | "busy":
                child.is_idle = word == "idle"
                self._idle.tell()
            case "wake":
                self._idle.wake(rest)
            case "load":
                self._capacity.hear_load(rest)
            case "recycle":
                self._recycle(child, rest)
            case _:
                pass

    def _recycle(self, child: Child, reason: str) -> None:
        """Let a worker retire that asks for it, unless too many do so or it grows too soon.

        It asks each second, so what is not granted now is granted later.
        """
        if child.is_leaving or child.role != "worker":
            return
        now = time.monotonic()
        child.full_at = child.full_at or now
        has_grown = reason.startswith("memory")
        if has_grown and now - child.started < child.keep_s:
            return
        # Those who retire live beside their successors: never more than twice as many as wanted.
        if sum(other.is_retiring for other in self._children) >= self._capacity.wanted:
            return
        if has_grown:
            opening = after_growth(child)
            self._openings.add(opening)
            if opening.keep_s and not self._has_warned_of_growth:
                self._has_warned_of_growth = True
                log.error(
                    "worker_memory_limit_is_low", reason=reason, age_s=round(now - child.started)
                )
        log.info("child_recycled", role=child.role, child_pid=child.pid, reason=reason)
        child.is_recycled = True
        retire(child)

    def _bury(self, child: Child, code: int) -> None:
        reason = signal.Signals(-code).name if code < 0 else f"exit {code}"
        if code == 0 or (child.is_leaving and not child.is_retiring):
            log.info("child_left", role=child.role, child_pid=child.pid, reason=reason)
        else:
            log.error("child_died", role=child.role, child_pid=child.pid, reason=reason)
        if child.worker_id is not None and code != 0:
            for housekeeper in self._children.of("housekeeper"):
                housekeeper.say(f"dead {child.worker_id}")
        self._idle.tell()
        self._configuration.forget(child)
        if self._stop is not None:
            return
        if child.is_recycled or not child.is_retiring:
            metrics.process_replaced(child.role, replaced_because(child, code))
        if child.is_leaving:
            return
        self._openings.add(after_death(child, code, time.monotonic()))
        if code == CONFIGURATION_ERROR:
            self._take_configuration_error(child)

    def _take_configuration_error(self, child: Child) -> None:
        """Stop if it never worked; go back if a reload brought it; else go on trying."""
        log.critical("configuration_error", role=child.role)
        if not self._readiness.has_worked(child.role):
            self._begin_stop(CONFIGURATION_ERROR)
        elif self._configuration.go_back(child):
            self._begin_anew()
        else:
            self._notifier.say(f"STATUS=configuration error in the {child.role}: see the log")

    # The clock.

    def _tick(self) -> None:
        now = time.monotonic()
        self._hangs.look(self._children, now, hang_s=self._fleet.hang_s)
        if self._stop is not None:
            self._stop.go_on(now)
        else:
            self._configuration.go_on(self._children, self._capacity.wanted)
        if now >= self._next_tick:
            self._next_tick = now + self._tick_s()
            for child in self._children:
                child.say("retire" if child.is_retiring else "tick")
            self._idle.tell(again=True)  # For a housekeeper that came since.
            self._report_readiness()
            self._feed_watchdog(now)
            self._orphans.reap(self._children.pids)

    def _tick_s(self) -> float:
        watchdog_s = self._notifier.watchdog_s
        return TICK_S if watchdog_s is None else min(TICK_S, watchdog_s / 2)

    def _report_readiness(self) -> None:
        if self._stop is None:
            self._readiness.report(self._children, self._fleet)

    def _feed_watchdog(self, now: float) -> None:
        """Tell systemd that we are alive, if the loop turns and a child does."""
        if self._notifier.watchdog_s is None:
            return
        if any(now - child.heard < self._fleet.hang_s for child in self._children):
            self._notifier.say("WATCHDOG=1")

    # Stop, a new configuration, dump.

    def _begin_stop(self, exit_code: int) -> Stop:
        if self._stop is None:
            log.info("supervisor_stops")
            self._notifier.say("STOPPING=1", "STATUS=draining")
            self._stop = Stop(
                self._children, leave_within_s=self._fleet.leave_within_s, exit_code=exit_code
            )
        return self._stop

    def _begin_anew(self) -> None:
        """Forget what was learned with another configuration."""
        self._capacity.renew(self._fleet)
        self._openings.clear()
        self._has_warned_of_growth = False
        for child in self._children.of("worker"):
            if child.is_retiring:
                let_go(child, "reload")  # No longer patient: its grace begins.

    def _dump(self) -> None:
        """Write what is known of every child to the log."""
        write_down(self._children)
        log.info(
            "supervisor_state",
            wanted=self._capacity.wanted,
            is_stopping=self._stop is not None,
            is_reloading=self._configuration.is_changing,
            last_reload=self._configuration.last_reload,
        )
