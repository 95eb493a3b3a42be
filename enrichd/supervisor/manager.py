"""WorkerManager: the supervisor of one host's processes.

Small, synchronous, single-threaded: one `select` over the children's links and the signal socket. A
byte on a link means alive, end of file dead, silence hung. It never talks to PostgreSQL, so no
outage there can take it down.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from enrichd import metrics
from enrichd.domain.scaling import Scaling, step
from enrichd.errors import EnrichdError
from enrichd.logs import get_logger
from enrichd.supervisor.child import SIGNALS, Child, ChildSpec, Role, fork
from enrichd.supervisor.notify import Notifier

CONFIGURATION_ERROR = 78
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 30.0
HEALTHY_S = 60.0
# A worker that left in order without being told to: PM2 signals the children before us, so our own
# signal may be on its way. Starting another at once would fight the stop.
UNASKED_EXIT_S = 0.25
TICK_S = 2.0
# From the stack dump of a hung child to its kill.
DUMP_S = 0.5
STARTED_S = 10.0
KILL_EXTRA_S = 15.0
QUICK_KILL_S = 5.0
# The loop turns at least each second. Away for longer, it was stopped (Ctrl-Z, a frozen container),
# its children most likely too: their silence says nothing.
AWAY_S = 2.0
REAP_S = 2.0

log = get_logger("supervisor")


@dataclass(frozen=True, slots=True)
class Fleet:
    """What to run: made anew at each reload."""

    worker: ChildSpec
    others: Sequence[ChildSpec]
    worker_count: int
    worker_max_count: int
    grace_s: float
    """How long a drain may take before what is left is killed."""
    hang_s: float
    """How long a child may be silent."""


@dataclass(slots=True)
class Backoff:
    """When a role may be started again."""

    pause_s: float = 0.0
    not_before: float = 0.0


@dataclass(slots=True)
class Stop:
    """A stop in progress."""

    deadline: float
    exit_code: int
    is_quick: bool = False


@dataclass(slots=True)
class Reload:
    """A reload in progress: old children are replaced one by one."""

    generation: int
    leaving: Child | None = None


class WorkerManager:
    """Keeps a fleet of children running until it is told to stop."""

    def __init__(self, fleet: Callable[[], Fleet], *, notifier: Notifier | None = None) -> None:
        self._make_fleet = fleet
        self._fleet = fleet()
        self._notifier = notifier or Notifier()
        self._selector = selectors.DefaultSelector()
        self._children: list[Child] = []
        self._dying: list[tuple[Child, float]] = []
        self._backoff: dict[Role, Backoff] = {}
        self._scaling = Scaling(self._fleet.worker_count)
        self._extra = 0
        """Workers added (or taken) by TTIN and TTOU."""
        self._generation = 0
        self._stop: Stop | None = None
        self._reload: Reload | None = None
        self._is_ready = False
        self._started = time.monotonic()
        self._next_tick = 0.0
        self._idle_told = -1
        self._looked_at = time.monotonic()

    # The loop.

    def run(self) -> int:
        """Run until stopped; return the exit code: 0, or 78 for a configuration error."""
        self._catch_signals()
        log.info("supervisor_started", pid=os.getpid(), workers=self._fleet.worker_count)
        while True:
            self._keep_numbers()
            if self._stop is not None and not self._children and not self._dying:
                break
            for key, _ in self._selector.select(self._timeout_s()):
                if key.data is None:
                    self._take_signals()
                elif key.data in self._children:
                    self._hear(key.data)
            self._reap_dying()
            self._tick()
        log.info("supervisor_stopped", exit_code=self._stop.exit_code)
        return self._stop.exit_code

    def _timeout_s(self) -> float:
        if self._dying:
            return 0.01
        now = time.monotonic()
        ends = [self._next_tick, now + 1.0, *(role.not_before for role in self._backoff.values())]
        if self._stop is not None:
            ends.append(self._stop.deadline)
        ends += [child.killed_at for child in self._children if child.killed_at is not None]
        return max(min((end - now for end in ends if end > now), default=0.0), 0.005)

    def _catch_signals(self) -> None:
        self._signal_in, signal_out = socket.socketpair()
        self._signal_out = signal_out
        for sock in (self._signal_in, signal_out):
            sock.setblocking(False)
        signal.set_wakeup_fd(signal_out.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self._selector.register(self._signal_in, selectors.EVENT_READ, None)

    def _take_signals(self) -> None:
        try:
            numbers = self._signal_in.recv(4096)
        except BlockingIOError:
            return
        for number in numbers:
            self._take_signal(signal.Signals(number))

    def _take_signal(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT:
                is_quick = number is signal.SIGQUIT or self._stop is not None
                self._begin_stop(0, is_quick=is_quick)
            case signal.SIGHUP:
                self._begin_reload()
            case signal.SIGTTIN:
                self._extra += 1
                log.info("worker_added", wanted=self._wanted())
            case signal.SIGTTOU:
                if self._wanted() > 1:
                    self._extra -= 1
                log.info("worker_taken", wanted=self._wanted())
            case signal.SIGUSR1:
                self._dump()
            case _:
                pass  # SIGCHLD only wakes the loop: a death is seen by the link's end of file.

    # Keeping the numbers.

    def _keep_numbers(self) -> None:
        """Start what is missing and let go what is too much."""
        if self._stop is not None:
            return
        # A child whose link has ended counts until it is buried: how it died sets the backoff.
        dying = [child for child, _ in self._dying if not child.is_leaving]
        for spec in self._fleet.others:
            if not self._of(spec.role) and not any(child.role == spec.role for child in dying):
                self._start(spec)
        workers = [child for child in self._of("worker") if not child.is_leaving]
        missing = self._wanted() - len(workers)
        missing -= sum(child.role == "worker" for child in dying)
        if self._reload is not None and any(
            child.generation < self._generation for child in workers
        ):
            missing += 1  # One more during a reload, so that the number never falls.
        for _ in range(missing):
            if not self._start(self._fleet.worker):
                break
        if missing < 0 and self._reload is None:
            for child in workers[missing:]:
                self._let_go(child, "too many")

    def _wanted(self) -> int:
        return max(1, self._scaling.wanted + self._extra)

    def _of(self, role: Role) -> list[Child]:
        return [child for child in self._children if child.role == role]

    def _start(self, spec: ChildSpec) -> bool:
        """Fork a child unless its role still has to wait; say whether it was started."""
        backoff = self._backoff.setdefault(spec.role, Backoff())
        if time.monotonic() < backoff.not_before:
            return False
        inherited = [self._signal_in, self._signal_out, *(c.link for c in self._children)]
        taken = {child.slot for child in self._children}
        taken |= {child.slot for child, _ in self._dying}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        try:
            child = fork(spec, generation=self._generation, slot=slot, inherited=inherited)
        except OSError as error:
            self._wait_longer(backoff, FIRST_BACKOFF_S)
            log.error("child_not_started", role=spec.role, reason=str(error))
            return False
        self._children.append(child)
        self._selector.register(child.link, selectors.EVENT_READ, child)
        log.info("child_started", role=child.role, child_pid=child.pid)
        return True

    def _let_go(self, child: Child, why: str) -> None:
        """Tell a child to drain and leave."""
        if not child.is_leaving:
            child.is_leaving = True
            log.info("child_drains", role=child.role, child_pid=child.pid, reason=why)
            child.signal(signal.SIGTERM)

    # What children say, and their deaths.

    def _hear(self, child: Child) -> None:
        lines = child.lines()
        if lines is None:
            self._selector.unregister(child.link)
            child.link.close()
            self._children.remove(child)
            self._dying.append((child, time.monotonic() + REAP_S))
            self._reap_dying()
            return
        for line in lines:
            word, _, rest = line.partition(" ")
            self._take_word(child, word, rest)

    def _take_word(self, child: Child, word: str, rest: str) -> None:
        match word:
            case "id":
                child.worker_id = rest
            case "ready":
                child.is_ready = True
                self._report_readiness()
            case "idle" | "busy":
                child.is_idle = word == "idle"
                self._tell_idle()
            case "wake":
                self._wake(int(rest) if rest.isdecimal() and len(rest) < 9 else 1)
            case "load":
                self._scale(rest)
            case "recycle":
                child.is_leaving = child.is_recycled = True
                log.info("child_recycled", role=child.role, child_pid=child.pid, reason=rest)
            case _:
                pass

    def _reap_dying(self) -> None:
        """Collect children whose link has ended; kill one that closed it and does not leave."""
        now = time.monotonic()
        for child, deadline in list(self._dying):
            status = child.reap()
            if status is not None:
                self._dying.remove((child, deadline))
                self._bury(child, os.waitstatus_to_exitcode(status))
            elif now > deadline:
                child.signal(signal.SIGKILL)

    def _bury(self, child: Child, code: int) -> None:
        lived_s = time.monotonic() - child.started
        reason = signal.Signals(-code).name if code < 0 else f"exit {code}"
        if code == 0 or child.is_leaving:
            log.info("child_left", role=child.role, child_pid=child.pid, reason=reason)
        else:
            log.error("child_died", role=child.role, child_pid=child.pid, reason=reason)
        if child.worker_id is not None and code != 0:
            for housekeeper in self._of("housekeeper"):
                housekeeper.say(f"dead {child.worker_id}")
        if self._stop is None:
            metrics.process_replaced(child.role, replaced_because(child, code))
        self._tell_idle()
        if self._reload is not None and self._reload.leaving is child:
            self._reload.leaving = None
        if self._stop is None and code == CONFIGURATION_ERROR:
            log.critical("configuration_error", role=child.role)
            self._begin_stop(CONFIGURATION_ERROR, is_quick=False)
        self._set_backoff(child, code, lived_s)

    def _set_backoff(self, child: Child, code: int, lived_s: float) -> None:
        backoff = self._backoff.setdefault(child.role, Backoff())
        if child.is_leaving and code == 0:
            backoff.pause_s = 0.0
            return
        if lived_s > HEALTHY_S:
            backoff.pause_s = 0.0
        self._wait_longer(backoff, UNASKED_EXIT_S if code == 0 else FIRST_BACKOFF_S)

    def _wait_longer(self, backoff: Backoff, first_s: float) -> None:
        backoff.pause_s = min(max(backoff.pause_s * 2, first_s), LAST_BACKOFF_S)
        backoff.not_before = time.monotonic() + backoff.pause_s

    # Wake-ups and scaling.

    def _wake(self, count: int) -> None:
        """Pass the housekeeper's hint on to idle workers."""
        for child in self._of("worker"):
            if count <= 0:
                return
            if child.is_idle and not child.is_leaving:
                child.is_idle = False
                child.say("wake")
                count -= 1
        self._tell_idle()

    def _tell_idle(self) -> None:
        """Tell the housekeeper how many workers are idle: it looks for jobs only for them."""
        idle = sum(child.is_idle for child in self._of("worker"))
        if idle != self._idle_told:
            self._idle_told = idle
            for child in self._of("housekeeper"):
                child.say(f"idle {idle}")

    def _scale(self, report: str) -> None:
        age, _, use = report.partition(" ")
        try:
            oldest_ready_s, share = float(age), float(use)
        except ValueError:
            return
        before = self._scaling.wanted
        self._scaling = step(
            self._scaling,
            low=self._fleet.worker_count,
            high=self._fleet.worker_max_count,
            oldest_ready_s=oldest_ready_s,
            use=share,
            now=time.monotonic(),
        )
        if self._scaling.wanted != before:
            log.info("workers_scaled", before=before, now=self._scaling.wanted)

    # The clock.

    def _tick(self) -> None:
        now = time.monotonic()
        self._kill_hung(now)
        self._go_on_with_reload()
        if self._stop is not None:
            self._go_on_with_stop(self._stop, now)
        if now >= self._next_tick:
            self._next_tick = now + self._tick_s()
            for child in self._children:
                child.say("tick")
            self._idle_told = -1  # Said again each tick, for a housekeeper that came since.
            self._tell_idle()
            self._report_readiness()
            self._watchdog(now)

    def _tick_s(self) -> float:
        watchdog_s = self._notifier.watchdog_s
        return TICK_S if watchdog_s is None else min(TICK_S, watchdog_s / 2)

    def _kill_hung(self, now: float) -> None:
        was_away = now - self._looked_at > AWAY_S
        self._looked_at = now
        for child in self._children:
            if was_away:
                child.heard = now
            if child.killed_at is not None:
                if now >= child.killed_at:
                    child.killed_at = now + REAP_S
                    child.signal(signal.SIGKILL)
            elif now - child.heard > self._fleet.hang_s:
                log.error(
                    "child_hangs", role=child.role, child_pid=child.pid, silent_s=self._fleet.hang_s
                )
                child.signal(signal.SIGUSR1)  # Its stacks go to stderr.
                child.killed_at = now + DUMP_S

    def _watchdog(self, now: float) -> None:
        """Tell systemd that we are alive, if the loop turns and a child does."""
        if self._notifier.watchdog_s is None:
            return
        if any(now - child.heard < self._fleet.hang_s for child in self._children):
            self._notifier.say("WATCHDOG=1")

    def _report_readiness(self) -> None:
        workers = self._of("worker")
        ready = sum(child.is_ready for child in workers)
        if self._is_ready or self._stop is not None:
            return
        has_waited = time.monotonic() - self._started > STARTED_S
        if ready >= self._fleet.worker_count or has_waited:
            self._is_ready = True
            status = f"{ready} of {len(workers)} workers ready"
            if ready < self._fleet.worker_count:
                status += "; PostgreSQL cannot be reached, retrying"
            log.info("supervisor_ready", status=status)
            self._notifier.ready(status)

    # Stop, reload, dump.

    def _begin_stop(self, exit_code: int, *, is_quick: bool) -> None:
        now = time.monotonic()
        if self._stop is None:
            log.info("supervisor_stops")
            self._notifier.say("STOPPING=1", "STATUS=draining")
            self._stop = Stop(now + self._fleet.grace_s + KILL_EXTRA_S, exit_code)
            for child in self._of("gateway"):
                child.say("draining")
            for child in self._of("worker"):
                child.is_leaving = True
                child.signal(signal.SIGTERM)
        if is_quick and not self._stop.is_quick:
            log.info("supervisor_stops_now")
            self._stop.is_quick = True
            self._stop.deadline = min(self._stop.deadline, now + QUICK_KILL_S)
            for child in self._of("worker"):
                # Not by a second signal, which PM2 or a terminal may have sent for the first stop.
                child.say("stop_now")

    def _go_on_with_stop(self, stop: Stop, now: float) -> None:
        if not self._of("worker"):
            for child in self._children:
                self._let_go(child, "stop")
        if now > stop.deadline:
            stop.deadline = now + REAP_S
            for child in self._children:
                log.error("child_killed", role=child.role, child_pid=child.pid)
                child.signal(signal.SIGKILL)

    def _begin_reload(self) -> None:
        if self._stop is not None:
            return
        self._notifier.say(
            "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )
        try:
            self._fleet = self._make_fleet()
        except (EnrichdError, OSError, ValueError) as error:  # a folder gone, a file not in UTF-8
            log.error("reload_refused", reason=str(error))
            self._notifier.say("READY=1", "STATUS=reload refused: see the log")
            return
        self._scaling = Scaling(self._fleet.worker_count)
        self._generation += 1
        self._reload = Reload(self._generation)
        log.info("reload_started", generation=self._generation)

    def _go_on_with_reload(self) -> None:
        """Let one old child go whenever a new one is ready in its place."""
        if self._reload is None or self._reload.leaving is not None or self._stop is not None:
            return
        workers = [child for child in self._of("worker") if not child.is_leaving]
        old = [child for child in workers if child.generation < self._generation]
        if old:
            fresh = [child for child in workers if child.generation == self._generation]
            if all(child.is_ready for child in fresh) and len(workers) > self._wanted():
                self._reload.leaving = old[0]
                self._let_go(old[0], "reload")
            return
        for child in self._children:
            if child.role != "worker" and child.generation < self._generation:
                self._reload.leaving = child
                self._let_go(child, "reload")
                return
        self._reload = None
        log.info("reload_done", generation=self._generation)
        self._notifier.say("READY=1", f"STATUS={len(workers)} workers, reloaded")

    def _dump(self) -> None:
        """Write what is known of every child to the log."""
        now = time.monotonic()
        for child in self._children:
            log.info(
                "child_state",
                role=child.role,
                child_pid=child.pid,
                worker_id=child.worker_id,
                is_ready=child.is_ready,
                is_idle=child.is_idle,
                is_leaving=child.is_leaving,
                age_s=round(now - child.started, 1),
                silent_s=round(now - child.heard, 1),
                generation=child.generation,
            )
        log.info(
            "supervisor_state",
            wanted=self._wanted(),
            is_stopping=self._stop is not None,
            is_reloading=self._reload is not None,
        )


def replaced_because(child: Child, code: int) -> str:
    """Return why a child had to be replaced, in the words of the metric."""
    if child.killed_at is not None:
        return "hung"
    if child.is_recycled:
        return "recycled"
    if child.is_leaving:
        return "reloaded"
    return "signal" if code < 0 else "exit"
