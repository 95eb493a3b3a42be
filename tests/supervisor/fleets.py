"""Fleets whose children are a few lines each: `python -m tests.supervisor.fleets NAME`.

What children do and hear is in the log on standard error, as events `said` with their process id.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from enrichd.errors import InvalidSetting
from enrichd.logs import configure_logs, get_logger
from enrichd.supervisor.child import ChildSpec
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
    """Close the link and live on."""
    link.close()
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
    return living()(link, slot)


def crowded() -> None:
    """Allow hardly more open files than there are."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))


def a_fleet(
    worker: Run, *, housekeeper: Run | None = None, count: int = 1, **options: float
) -> Fleet:
    """Return a fleet of these workers."""
    others = () if housekeeper is None else (ChildSpec("housekeeper", housekeeper),)
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


def recycling() -> Fleet:
    """Return a fleet whose first worker wants to be replaced."""
    marker = Path(os.environ["MARKER"])

    def run(link: socket.socket, slot: int) -> int:
        if marker.exists():
            return living("ready")(link, slot)
        marker.touch()
        link.send(b"ready\nrecycle 5 jobs\n")
        time.sleep(0.5)  # It drains; its successor does not wait for that.
        said("drained")
        return 0

    return a_fleet(run)


FLEETS: dict[str, Callable[[], Fleet]] = {
    "living": lambda: a_fleet(living("ready", "id w-1"), housekeeper=living(), count=2),
    "dying": lambda: a_fleet(leaving(1)),
    "leaving": lambda: a_fleet(leaving(0)),
    "misconfigured": lambda: a_fleet(leaving(78), housekeeper=living()),
    "silent": lambda: a_fleet(silent, hang_s=0.5),
    "deaf": lambda: a_fleet(deaf),
    "stubborn": lambda: a_fleet(stubborn),
    "gibberish": lambda: a_fleet(gibberish),
    "idle": lambda: a_fleet(living("ready", "idle"), housekeeper=waking, count=2),
    "pressed": lambda: a_fleet(
        living("ready"), housekeeper=living("load 9 1", "load 9 1"), worker_max_count=2
    ),
    "recycling": recycling,
    "refused": once_then(a_fleet(living("ready")), InvalidSetting("WORKER_COUNT: no")),
    "unreadable": once_then(a_fleet(living("ready")), FileNotFoundError("no such folder")),
}


def main(name: str) -> int:
    """Run one fleet; return the supervisor's exit code."""
    configure_logs("info", "json")
    if name == "crowded":
        crowded()
        return WorkerManager(lambda: a_fleet(living("ready"))).run()
    return WorkerManager(FLEETS[name]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
