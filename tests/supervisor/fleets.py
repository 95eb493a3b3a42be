"""Fleets whose children are a few lines each: `python -m tests.supervisor.fleets NAME`.

What children do and hear is in the log on standard error, as events `said` with their process id.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from enrichd.errors import InvalidSetting
from enrichd.logs import configure_logs, get_logger
from enrichd.supervisor.child import ChildSpec, Role
from enrichd.supervisor.manager import Fleet, WorkerManager

Run = Callable[[socket.socket, int], int]

log = get_logger("supervisor")


def said(text: str) -> None:
    """Write to the log what the test wants to see."""
    log.info("said", text=text, child_pid=os.getpid())


def living(*lines: str, code: int = 0) -> Run:
    """Return a child that says lines, repeats what it hears, and lives until its parent ends."""

    def run(link: socket.socket, slot: int) -> int:
        link.settimeout(0.1)
        for line in lines:
            link.send(line.encode() + b"\n")
        while True:
            try:
                link.send(b".\n")
                heard = link.recv(65536)
            except TimeoutError:
                continue
            if not heard:
                said("the parent died")
                return code
            for line in heard.decode().split():
                if line != "tick":
                    said(heard.decode().strip().replace("tick\n", ""))
                    break

    return run


def leaving(code: int) -> Run:
    """Return a child that leaves at once."""
    return lambda link, slot: code


def silent(link: socket.socket, slot: int) -> int:
    """Never say anything."""
    time.sleep(60)
    return 0


def deaf(link: socket.socket, slot: int) -> int:
    """Hang up and live on."""
    link.shutdown(socket.SHUT_RDWR)
    time.sleep(60)
    return 0


def stubborn(link: socket.socket, slot: int) -> int:
    """Ignore SIGTERM."""
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return living("ready")(link, slot)


def gibberish(link: socket.socket, slot: int) -> int:
    """Say what means nothing, then go on living."""
    link.sendall(
        b"\xff\xfe\n\n \nwake \xc2\xb2\nwake " + b"9" * 5_000 + b"\nload nan inf\nload x\n"
    )
    link.sendall(b"x" * 100_000 + b"\nready\n")
    return living("ready")(link, slot)


def waking(link: socket.socket, slot: int) -> int:
    """Ask for one worker once two are idle."""
    heard = b""
    while b"idle 2" not in heard:
        heard += link.recv(65536)
    link.send(b"wake 1\n")
    return living("ready")(link, slot)


def blocked_by(block: Callable[[], None]) -> Run:
    """Return a child that is ready and then never looks at its link again."""

    def run(link: socket.socket, slot: int) -> int:
        link.send(b"ready\n")
        block()
        return 0

    return run


def spinning() -> None:
    """Compute for ever."""
    while True:
        pass


def sleeping() -> None:
    """Wait for ever."""
    time.sleep(600)


def asking(reason: str, *, leaves: bool) -> Run:
    """Return a child that asks to be recycled, again and again, and leaves when it may."""

    def run(link: socket.socket, slot: int) -> int:
        link.settimeout(0.05)
        link.send(b"ready\n")
        asked = 0
        while True:
            link.send(f"recycle {reason}\n".encode())
            asked += 1
            if asked == 10:
                said("asked ten times")
            try:
                heard = link.recv(65536)
            except TimeoutError:
                continue
            if not heard or (leaves and b"retire" in heard):
                return 0

    return run


def clinging(link: socket.socket, slot: int) -> int:
    """Die and leave the link open in a process of its own."""
    link.send(b"ready\n")
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
    return 1


def orphaning(link: socket.socket, slot: int) -> int:
    """Leave three processes behind whose parent is dead, and live on."""
    if (between := os.fork()) == 0:
        for _ in range(3):
            if os.fork() == 0:
                os._exit(0)
        os._exit(0)
    os.waitpid(between, 0)
    said("three orphans")
    return living("ready")(link, slot)


def adopting() -> None:
    """Be given orphans as process 1 of a container is."""
    set_child_subreaper = 36
    assert ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0) == 0


def crowded() -> None:
    """Allow hardly more open files than there are."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))


def a_fleet(
    worker: Run,
    *,
    housekeeper: Run | None = None,
    gateway: Run | None = None,
    count: int = 1,
    **options: float,
) -> Fleet:
    """Return a fleet of these workers."""
    runs: dict[Role, Run | None] = {"gateway": gateway, "housekeeper": housekeeper}
    others = [ChildSpec(role, run) for role, run in runs.items() if run is not None]
    chosen = {"worker_count": count, "worker_max_count": count, "grace_s": 1.0, "hang_s": 5.0}
    return Fleet(ChildSpec("worker", worker), others, **{**chosen, **options})  # type: ignore[arg-type]


def once_then(first: Fleet, error: Exception) -> Callable[[], Fleet]:
    """Return a configuration that can be read once."""
    fleets = iter([first])

    def read() -> Fleet:
        for fleet in fleets:
            return fleet
        raise error

    return read


def one_after_another(*fleets: Fleet) -> Callable[[], Fleet]:
    """Return a configuration that is another one each time it is read; the last one stays."""
    left = list(fleets)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def spoiled() -> Fleet:
    """Return a fleet whose worker works once and never again."""
    marker = Path(os.environ["MARKER"])

    def run(link: socket.socket, slot: int) -> int:
        if marker.exists():
            return 78
        marker.touch()
        link.send(b"ready\n")
        return 1

    return a_fleet(run)


def recycling() -> Fleet:
    """Return a fleet whose first worker wants to be replaced."""
    marker = Path(os.environ["MARKER"])

    def run(link: socket.socket, slot: int) -> int:
        if marker.exists():
            return living("ready")(link, slot)
        marker.touch()
        link.send(b"ready\nrecycle jobs: 5\n")
        time.sleep(0.5)  # It drains; its successor does not wait for that.
        said("drained")
        return 0

    return a_fleet(run)


FLEETS: dict[str, Callable[[], Fleet]] = {
    "living": lambda: a_fleet(living("ready", "id w-1"), housekeeper=living("ready"), count=2),
    "dying": lambda: a_fleet(leaving(1)),
    "leaving": lambda: a_fleet(leaving(0)),
    "misconfigured": lambda: a_fleet(leaving(78), housekeeper=living()),
    "silent": lambda: a_fleet(silent, hang_s=0.5),
    "deaf": lambda: a_fleet(deaf),
    "stubborn": lambda: a_fleet(stubborn),
    "gibberish": lambda: a_fleet(gibberish),
    "idle": lambda: a_fleet(living("ready", "idle"), housekeeper=waking, count=2),
    "pressed": lambda: a_fleet(
        living("ready"), housekeeper=living("ready", "load 9 1", "load 9 1"), worker_max_count=2
    ),
    "recycling": recycling,
    "spinning": lambda: a_fleet(blocked_by(spinning), grace_s=0.1, kill_extra_s=0.3),
    "sleeping": lambda: a_fleet(blocked_by(sleeping), grace_s=0.1, kill_extra_s=0.3),
    "growing": lambda: a_fleet(asking("memory: 9 bytes", leaves=True)),
    "retiring": lambda: a_fleet(asking("jobs: 9", leaves=False), count=2),
    "clinging": lambda: a_fleet(clinging, hang_s=0.5),
    "orphaning": lambda: a_fleet(orphaning, housekeeper=living("ready")),
    "container": lambda: a_fleet(orphaning, housekeeper=living("ready")),
    "spoiled": spoiled,
    "bad gateway": one_after_another(
        a_fleet(living("ready"), gateway=living("ready"), housekeeper=living("ready"), count=2),
        a_fleet(living("ready"), gateway=leaving(78), housekeeper=living("ready"), count=2),
    ),
    "bad worker": one_after_another(
        a_fleet(living("ready"), gateway=living("ready"), count=2),
        a_fleet(leaving(78), gateway=living("ready"), count=2),
    ),
    "refused": once_then(a_fleet(living("ready")), InvalidSetting("WORKER_COUNT: no")),
    "unreadable": once_then(a_fleet(living("ready")), FileNotFoundError("no such folder")),
}


def main(name: str) -> int:
    """Run one fleet; return the supervisor's exit code."""
    configure_logs("info", "json")
    if name == "crowded":
        crowded()
        return WorkerManager(lambda: a_fleet(living("ready"))).run()
    if name == "orphaning":
        adopting()
    return WorkerManager(FLEETS[name]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
