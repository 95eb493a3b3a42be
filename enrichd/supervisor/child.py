"""Forking a child and what the supervisor knows of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from enrichd.logs import get_logger
from enrichd.supervisor.abandoned import end_when_abandoned

Role: TypeAlias = Literal["worker", "gateway", "housekeeper"]

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGCHLD,
)
# These are orders to the supervisor. A terminal or `kill -HUP -- -GROUP` sends them to everybody,
# and by default they would kill (or stop) a child in the middle of its jobs.
NOT_FOR_CHILDREN = frozenset({signal.SIGHUP, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU})
SOFTWARE_ERROR = 70
LINE_BYTES_MAX = 4096

log = get_logger("supervisor")


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A child to have: `run` is called in the new process and returns its exit code."""

    role: Role
    run: Callable[[socket.socket, int], int]
    """Called with the link and the slot."""


@dataclass(slots=True, eq=False)
class Child:
    """A running child."""

    role: Role
    pid: int
    link: socket.socket
    generation: int
    """Which configuration it was started with; a reload counts on."""
    slot: int
    """A small number that no other living child has: its metrics are kept under it."""
    started: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    worker_id: str | None = None
    is_ready: bool = False
    is_idle: bool = False
    is_leaving: bool = False
    """True once it was told to drain."""
    is_retiring: bool = False
    """True while it may take as long as its jobs do, with another already in its place."""
    is_recycled: bool = False
    full_at: float | None = None
    """When it first asked to be recycled."""
    pause_s: float = 0.0
    """How long its place was empty before it."""
    keep_s: float = 0.0
    """The age before which it is not recycled for its memory."""
    killed_at: float | None = None
    unread: bytes = b""

    def lines(self) -> list[str] | None:
        """Return what it said since the last call; None when its end of the link is closed."""
        try:
            data = self.link.recv(65536)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        if not data:
            return None
        self.heard = time.monotonic()
        *whole, rest = (self.unread + data).split(b"\n")
        self.unread = rest[-LINE_BYTES_MAX:]
        return [line.decode(errors="replace") for line in whole]

    def say(self, line: str) -> None:
        """Send it a line; one that does not read loses it."""
        with contextlib.suppress(OSError):
            self.link.send(line.encode() + b"\n")

    def signal(self, number: int) -> None:
        """Send a signal, unless it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def reap(self) -> int | None:
        """Return its wait status once it is gone, else None."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return 0
        return status if pid else None


def let_go(child: Child, why: str) -> None:
    """Tell a child to drain within the grace, and leave."""
    if not child.is_leaving or child.is_retiring:
        child.is_leaving = True
        child.is_retiring = False
        log.info("child_drains", role=child.role, child_pid=child.pid, reason=why)
        child.signal(signal.SIGTERM)


def retire(child: Child) -> None:
    """Tell a worker to claim nothing more, and to leave when its jobs have ended."""
    child.is_leaving = child.is_retiring = True
    child.say("retire")


def fork(
    spec: ChildSpec,
    *,
    generation: int,
    slot: int,
    inherited: Iterable[socket.socket],
    leave_within_s: float,
) -> Child:
    """Start a child. `inherited` are the supervisor's own sockets, which the child closes.

    It lives on for at most `leave_within_s` after this process.

    The parent has no event loop, thread or connection, so forking it is safe. Signals are blocked
    across the fork, so that none meets the parent's handlers in the child. Raises OSError when the
    system has no room for another process or socket.
    """
    ours, theirs = socket.socketpair()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            become_child(spec, theirs, slot, [ours, *inherited], leave_within_s)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    ours.setblocking(False)
    return Child(spec.role, pid, ours, generation, slot)


def become_child(
    spec: ChildSpec,
    link: socket.socket,
    slot: int,
    inherited: Iterable[socket.socket],
    leave_within_s: float,
) -> None:
    """Forget what the parent set up, run, and leave without its exit handlers."""
    code = SOFTWARE_ERROR
    try:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            is_ours = number not in NOT_FOR_CHILDREN
            signal.signal(number, signal.SIG_DFL if is_ours else signal.SIG_IGN)
        # A sibling's link that stayed open here would hide that sibling's end of file.
        for sock in inherited:
            sock.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        end_when_abandoned(link, within_s=leave_within_s)
        code = spec.run(link, slot)
    except SystemExit as leaving:
        code = leaving.code or 0 if isinstance(leaving.code, int | None) else SOFTWARE_ERROR
    except BaseException:  # noqa: BLE001 - printed, and the supervisor sees the exit code
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)
