"""A worker child: a JobProcessor, its link to the supervisor, and its two ways to leave.

It retires when the supervisor says `retire`: nothing more is claimed, and what runs may take its
time. It stops at a signal, or when the supervisor is gone: then what runs has the grace.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from pathlib import Path

from enrichd import metrics
from enrichd.logs import get_logger
from enrichd.processing.children import on_stop_signals, run_child
from enrichd.processing.duty import Duty
from enrichd.processing.link import Link
from enrichd.processing.processor import JobProcessor
from enrichd.processing.wiring import Runtime
from enrichd.settings import Settings
from enrichd.store.database import Database

CHECK_S = 1.0
# So that a run that takes too long ends by its timeout, not by the end of the patience.
TIMEOUT_EXTRA_S = 5.0
# From the end of the grace: time to record and release, also while PostgreSQL comes back.
RECORD_S = 10.0

log = get_logger("worker")


def run_worker(settings: Settings, link: socket.socket, slot: int, duty: Duty | None = None) -> int:
    """Be a worker child; return the exit code."""
    metrics.start(slot)
    return run_child("worker", lambda: work(settings, link, duty))


async def work(settings: Settings, sock: socket.socket, duty: Duty | None) -> int:
    """Run jobs until told to leave."""
    hot, control = (
        Database(settings.dsn, name=f"enrichd worker {purpose}", is_pooler=settings.is_pooler)
        for purpose in ("hot", "control")
    )
    async with Runtime(settings) as runtime:
        link = Link(
            sock,
            on_line=lambda line: obey(processor, line),
            on_parent_death=lambda: stop(),
        )
        processor = runtime.processor(
            hot=hot,
            control=control,
            is_tending=False,
            # Of one that retires; a stop cuts it short. JOB_TIMEOUT ends every run before.
            grace_s=settings.job_timeout_s + TIMEOUT_EXTRA_S,
            on_identity=lambda worker_id: link.say(f"id {worker_id}\nready"),
            on_idle=lambda is_idle: link.say("idle" if is_idle else "busy"),
            on_blocked=lambda: link.say("recycle runs hold up a suspect"),
            duty=None if settings.is_pooler else duty,
        )
        try:
            async with asyncio.timeout(None) as bound, asyncio.TaskGroup() as group:
                stop = stopper(processor, bound, settings.graceful_shutdown_timeout_s)
                # All the same: PM2, a terminal and the supervisor may each send one for one stop.
                on_stop_signals(stop, stop)
                helpers = [
                    group.create_task(link.beat()),
                    group.create_task(ask_for_successor(settings, processor, link)),
                ]
                await processor.run()
                for task in helpers:
                    task.cancel()
        except TimeoutError:
            log.error("jobs_left_behind", reason="PostgreSQL was away for longer than the grace")
    await hot.close()
    await control.close()
    return 0


def stopper(processor: JobProcessor, bound: asyncio.Timeout, grace_s: float) -> Callable[[], None]:
    """Return what begins a stop, and does nothing when called again.

    After the grace the processor gives back what runs. Should PostgreSQL be away, `bound` ends the
    attempt to write it down.
    """
    loop = asyncio.get_running_loop()
    is_stopping = False

    def stop() -> None:
        nonlocal is_stopping
        if not is_stopping:
            is_stopping = True
            processor.stop()
            loop.call_later(grace_s, processor.stop_now)
            bound.reschedule(loop.time() + grace_s + RECORD_S)

    return stop


def obey(processor: JobProcessor, line: str) -> None:
    """Do what the supervisor says."""
    match line:
        case "wake":
            processor.wake()
        case "retire":
            processor.stop()
        case "stop_now":
            processor.stop_now()
        case _:
            pass


async def ask_for_successor(settings: Settings, processor: JobProcessor, link: Link) -> None:
    """Ask to be recycled after WORKER_MAX_JOBS jobs or above WORKER_MAX_MEMORY.

    Work goes on until the supervisor grants it, so the question is asked again and again.
    """
    max_jobs, max_bytes = settings.worker_max_jobs, settings.worker_max_memory_bytes
    if max_bytes and resident_bytes() > max_bytes:
        # Recycling would only make another one like it, again and again.
        log.error("worker_starts_above_its_memory_limit", resident_bytes=resident_bytes())
        max_bytes = 0
    while max_jobs or max_bytes:
        await asyncio.sleep(CHECK_S)
        if max_jobs and processor.report.ended >= max_jobs:
            link.say(f"recycle jobs: {processor.report.ended}")
        elif max_bytes and resident_bytes() > max_bytes:
            link.say(f"recycle memory: {resident_bytes()} bytes")


def resident_bytes() -> int:
    """Return this process's resident memory; its peak where the present is not to be had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
