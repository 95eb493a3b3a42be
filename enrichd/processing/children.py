"""What every child of the supervisor does around its own work."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from setproctitle import setproctitle

from enrichd.logs import get_logger

if sys.platform == "win32":
    from asyncio import new_event_loop
else:
    import resource

    from uvloop import new_event_loop

DESCRIPTORS = 65_536

log = get_logger("child")


def run_child(name: str, work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a child's work in an event loop under its process title; return the exit code.

    SIGUSR1 writes the stacks of all threads to stderr: the supervisor sends it to a child that
    hangs, before the kill.
    """
    setproctitle(f"enrichd: {name}")
    raise_descriptors()
    if sys.platform != "win32":
        faulthandler.register(signal.SIGUSR1, all_threads=True)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work())


def raise_descriptors() -> None:
    """Have as many files and sockets as the limit of the host lets this process have.

    Many systems begin with 1,024 and let a process ask for more; one gateway holds 2,048
    connections. No more than 65,536, because some programs it may start close every one there is.
    """
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def on_stop_signals(first: Callable[[], None], again: Callable[[], None]) -> None:
    """Call `first` at the first SIGTERM or SIGINT and `again` at every one after it.

    SIGINT is the same as SIGTERM, because PM2 and a terminal send it to children directly.
    """
    count = 0

    def stop() -> None:
        nonlocal count
        count += 1
        if count == 1:
            first()
        else:
            again()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
