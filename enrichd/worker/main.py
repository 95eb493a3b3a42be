"""A worker child: a JobProcessor, its link to the supervisor, and its recycling."""

from __future__ import annotations

import asyncio
import resource
import socket
from pathlib import Path

from enrichd import metrics
from enrichd.logs import get_logger
from enrichd.processing.children import on_stop_signals, run_child
from enrichd.processing.link import Link
from enrichd.processing.processor import JobProcessor
from enrichd.processing.wiring import Runtime
from enrichd.settings import Settings
from enrichd.store.database import Database

CHECK_S = 1.0

log = get_logger("worker")


def run_worker(settings: Settings, link: socket.socket, slot: int) -> int:
    """Be a worker child; return the exit code."""
    metrics.start(slot)
    return run_child("worker", lambda: work(settings, link))


async def work(settings: Settings, sock: socket.socket) -> int:
    """Run jobs until told to stop, or until it is time for a fresh process."""
    hot, control = (
        Database(settings.dsn, name=f"enrichd worker {purpose}", is_pooler=settings.is_pooler)
        for purpose in ("hot", "control")
    )
    async with Runtime(settings) as runtime:
        link = Link(
            sock,
            on_line=lambda line: obey(processor, line),
            on_parent_death=lambda: processor.stop(),
        )
        processor = runtime.processor(
            hot=hot,
            control=control,
            is_tending=False,
            on_identity=lambda worker_id: link.say(f"id {worker_id}\nready"),
            on_idle=lambda is_idle: link.say("idle" if is_idle else "busy"),
        )
        # All the same: PM2, a terminal and the supervisor may each send one for a single stop.
        on_stop_signals(processor.stop, processor.stop)
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(link.beat()),
                group.create_task(recycle(settings, processor, link)),
            ]
            await processor.run()
            for task in helpers:
                task.cancel()
    await hot.close()
    await control.close()
    return 0


def obey(processor: JobProcessor, line: str) -> None:
    """Do what the supervisor says."""
    match line:
        case "wake":
            processor.wake()
        case "stop_now":
            processor.stop_now()
        case _:
            pass


async def recycle(settings: Settings, processor: JobProcessor, link: Link) -> None:
    """Ask for a fresh process after WORKER_MAX_JOBS jobs or above WORKER_MAX_MEMORY."""
    max_jobs, max_bytes = settings.worker_max_jobs, settings.worker_max_memory_bytes
    if max_bytes and resident_bytes() > max_bytes:
        # Recycling would only make another one like it, again and again.
        log.error("worker_starts_above_its_memory_limit", resident_bytes=resident_bytes())
        max_bytes = 0
    while max_jobs or max_bytes:
        await asyncio.sleep(CHECK_S)
        if max_jobs and processor.report.ended >= max_jobs:
            reason = f"{processor.report.ended} jobs"
        elif max_bytes and resident_bytes() > max_bytes:
            reason = f"{resident_bytes()} bytes of memory"
        else:
            continue
        link.say(f"recycle {reason}")
        processor.stop()
        return


def resident_bytes() -> int:
    """Return this process's resident memory; its peak where the present is not to be had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
