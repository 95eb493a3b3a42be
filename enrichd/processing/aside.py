"""Bounded runs beside a server: each on a thread of its own, with an event loop of its own.

A handler that blocks holds up its own run and no request; one that never comes back costs its place
here until the process ends, and its jobs go to others when its heartbeat stays away.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum

from enrichd.logs import get_logger
from enrichd.processing.bounded import Done, process
from enrichd.processing.bounds import Limits, Report
from enrichd.processing.processor import DRAIN_EXTRA_S, JobProcessor
from enrichd.settings import Settings

RUNS_MAX = 4
WAITING_MAX = 32
OVERRUN_S = DRAIN_EXTRA_S + 2.0
"""How long after its time a run may still take to hand back its jobs."""
STOP_S = 3.0

log = get_logger("process")


class NoRun(StrEnum):
    """Why there is nothing to report."""

    BUSY = "busy"
    """Too many runs wait for their turn."""
    OVERRAN = "overran"
    """A handler blocks its loop; the run goes on behind our back until it ends."""
    STOPPED = "stopped"


class Aside:
    """Bounded runs of one process: RUNS_MAX at once, the others wait for their turn."""

    def __init__(self, settings: Settings, *, name: str, runs_max: int = RUNS_MAX) -> None:
        self._settings = settings
        self._name = name
        self._places = asyncio.Semaphore(runs_max)
        self._waiting = 0
        self._runs: set[Thread] = set()
        self._stopping = asyncio.Event()

    async def run(self, limits: Limits) -> Done | NoRun:
        """Run jobs within the limits, whose time includes that until it is this run's turn.

        Raises what `process` does. Cancelled, it hands its jobs back first.
        """
        if self._stopping.is_set():
            return NoRun.STOPPED
        if self._waiting >= WAITING_MAX:
            return NoRun.BUSY
        assert limits.timeout_s is not None
        clock = asyncio.get_running_loop().time
        began = clock()
        self._waiting += 1
        try:
            async with asyncio.timeout(limits.timeout_s):
                await self._places.acquire()
        except TimeoutError:
            return Done(Report(), None, clock() - began)
        finally:
            self._waiting -= 1
        left_s = max(limits.timeout_s - (clock() - began), 0.0)
        thread = Thread(self._settings, replace(limits, timeout_s=left_s), self._name, self._leave)
        self._runs.add(thread)
        if self._stopping.is_set():
            thread.stop()
        return await answer_of(thread, left_s + OVERRUN_S)

    def stop(self) -> None:
        """Have every run hand back its jobs now; those to come do nothing."""
        self._stopping.set()
        for thread in self._runs:
            thread.stop()

    async def close(self) -> None:
        """Stop every run and wait for that, but not for long."""
        self.stop()
        if self._runs:
            await asyncio.wait([thread.ended for thread in self._runs], timeout=STOP_S)

    def _leave(self, thread: Thread) -> None:
        self._runs.discard(thread)
        self._places.release()


async def answer_of(thread: Thread, within_s: float) -> Done | NoRun:
    """Wait for a run's end, and no longer than it may take."""
    try:
        await asyncio.wait([thread.ended], timeout=within_s)
        if thread.ended.done():
            return thread.ended.result()
    except asyncio.CancelledError:
        thread.stop()
        await asyncio.wait([thread.ended], timeout=STOP_S)
        raise
    log.error("process_overran", seconds=round(within_s, 1))
    thread.stop()
    return NoRun.OVERRAN


class Thread:
    """One run on its thread."""

    def __init__(
        self, settings: Settings, limits: Limits, name: str, on_left: Callable[[Thread], None]
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._name = name
        self._on_left = on_left
        self._outside = asyncio.get_running_loop()
        self.ended: asyncio.Future[Done] = self._outside.create_future()
        self.ended.add_done_callback(lambda future: future.exception())
        self._lock = threading.Lock()
        self._inside: asyncio.AbstractEventLoop | None = None
        self._processor: JobProcessor | None = None
        self._is_stopped = False
        # Not one of an executor: the process must be able to end while a handler blocks.
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def stop(self) -> None:
        """Have the run hand back its jobs and end."""
        with self._lock:
            self._is_stopped = True
            if self._processor is not None and self._inside is not None:
                with suppress(RuntimeError):  # its loop has just ended
                    self._inside.call_soon_threadsafe(self._processor.stop_now)

    def _started(self, processor: JobProcessor) -> None:
        with self._lock:
            self._inside, self._processor = asyncio.get_running_loop(), processor
            if self._is_stopped:
                processor.stop_now()

    def _work(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._run())
        finally:
            self._tell(lambda: self._on_left(self))

    async def _run(self) -> None:
        try:
            done = await process(
                self._settings,
                self._settings.dsn,
                self._limits,
                name=self._name,
                on_start=self._started,
            )
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            reason = error
            self._tell(lambda: self.ended.set_exception(reason))
        else:
            # Told before the loop closes: that waits for what handlers left in other threads.
            self._tell(lambda: self.ended.set_result(done))

    def _tell(self, news: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the server's loop is gone, and nobody waits any more
            self._outside.call_soon_threadsafe(news)
