"""The housekeeper of a host: what keeps the queue moving while workers work.

Any number of hosts run one and none leads: every statement takes only rows that are free. It looks
often while workers are idle and jobs came lately, and once a second otherwise.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from enrichd import metrics
from enrichd.errors import Unavailable
from enrichd.housekeeper.deliveries import deliverer_of
from enrichd.housekeeper.load import report_load
from enrichd.housekeeper.sweeping import sweep_forever
from enrichd.logs import get_logger
from enrichd.processing.children import on_stop_signals, run_child
from enrichd.processing.duty import Duty
from enrichd.processing.floors import Floors
from enrichd.processing.link import Link
from enrichd.processing.pauses import backoff
from enrichd.processing.provider_upkeep import ProviderUpkeep
from enrichd.queue.manager import JobQueueManager
from enrichd.settings import Settings
from enrichd.store import lanes, listen, workers
from enrichd.store.database import Database

# A job from a foreign transaction sends no hint, so while workers are idle the heads of the lanes
# are looked at this often; after a while without jobs only once a second.
EAGER_LOOK_S = 0.05
EAGER_FOR_S = 5.0
CALM_LOOK_S = 1.5
# Floors are lifted and swept below each second for so long after the last job.
ACTIVE_FOR_S = 10.0
LOAD_S = 2.0

log = get_logger("housekeeper")


def run_housekeeper(
    settings: Settings, link: socket.socket, slot: int, duty: Duty | None = None
) -> int:
    """Be the housekeeper child; return the exit code."""
    metrics.start(slot)
    return run_child("housekeeper", lambda: Housekeeper(settings, link, duty).run())


class Housekeeper:
    """Looks, wakes, promotes, rescues, sweeps, delivers."""

    def __init__(self, settings: Settings, sock: socket.socket, duty: Duty | None = None) -> None:
        dsn = settings.dsn
        self._settings = settings
        self._sock = sock
        self._duty = duty
        self._database = Database(dsn, name="enrichd housekeeper", is_pooler=settings.is_pooler)
        # Of its own, so that a long prune holds up nothing.
        self._sweeping = self._database.sibling("sweep")
        self._queue = JobQueueManager(self._database)
        self._floors = Floors(self._database)
        self._providers = ProviderUpkeep(self._database)
        self._deliverer = deliverer_of(settings, self._database.sibling("webhooks"))
        self._listen_dsn = direct_dsn(settings, dsn)
        self._idle_workers = 0
        self._dead: list[str] = []
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._last_job = 0.0

    async def run(self) -> int:
        """Work until told to stop."""
        self._link = Link(self._sock, on_line=self._hear, on_parent_death=self.stop)
        on_stop_signals(self.stop, self.stop)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(work)
                for work in (
                    self._link.beat(),
                    self._look_around(),
                    sweep_forever(self._sweeping, self._settings),
                    self._deliverer.run(),
                )
            ]
            if self._settings.worker_max_count > self._settings.worker_count:
                load = report_load(self._database, self._link, every_s=LOAD_S)
                tasks.append(group.create_task(load))
            if self._listen_dsn is not None:
                tasks.append(group.create_task(listen.listen(self._listen_dsn, self._hint)))
            self._link.say("ready")
            await self._stopping.wait()
            for task in tasks:
                task.cancel()
        await self._database.close()
        await self._sweeping.close()
        return 0

    def stop(self) -> None:
        """Leave soon."""
        self._stopping.set()

    def _hear(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "idle" and rest.isdigit():
            if self._idle_workers == 0 and int(rest) > 0:
                # Confirm at once: a job may have come while nobody was idle.
                self._last_job = asyncio.get_running_loop().time()
                self._woken.set()
            self._idle_workers = int(rest)
        elif word == "dead":
            self._dead.append(rest)
            self._woken.set()

    def _hint(self, jobs: int) -> None:
        """Pass a hint on at once; what it does not reach, the next look does."""
        self._last_job = asyncio.get_running_loop().time()
        if self._idle_workers and not self._is_heard(jobs):
            self._wake(jobs)

    def _is_heard(self, jobs: int) -> bool:
        """Say whether a worker hears such a hint itself and can do all that it speaks of."""
        is_for_one = jobs <= self._settings.max_concurrent_jobs
        return is_for_one and self._duty is not None and self._duty.is_taken()

    def _wake(self, jobs: int) -> None:
        per_worker = self._settings.max_concurrent_jobs
        self._link.say(f"wake {-(-jobs // per_worker)}")

    async def _look_around(self) -> None:
        clock = asyncio.get_running_loop().time
        pauses_s = backoff()
        while True:
            self._woken.clear()  # Before the look: what comes during it is looked at next.
            try:
                await self._floors.tend(is_active=clock() - self._last_job < ACTIVE_FOR_S)
                pause_s = await self._look()
                pauses_s = backoff()
            except Unavailable as error:
                log.warning("database_away", reason=error.message)
                pause_s = next(pauses_s)
            except Exception as error:
                log.error("housekeeping_broke", exc_info=error)
                pause_s = CALM_LOOK_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()

    async def _look(self) -> float:
        """Look once and do what there is; return the seconds until the next look."""
        await self._bury_dead()
        clock = asyncio.get_running_loop().time
        timeout_s = self._settings.worker_timeout_s
        async with self._database.connection() as conn:
            seen = await lanes.look(
                conn, room=self._settings.max_concurrent_jobs, worker_timeout_s=timeout_s
            )
        if seen.next_delivery_s is not None and seen.next_delivery_s <= 0:
            self._deliverer.wake()
        woken = await self._providers.tend(seen)
        if woken and self._idle_workers:
            self._wake(woken)
        if seen.has_upkeep:
            upkeep = await self._queue.tend(worker_timeout_s=timeout_s)
            if upkeep.moved and self._idle_workers:
                self._wake(upkeep.moved)
            if upkeep.moved:
                return 0.0
        if seen.ready or seen.is_busy:
            self._last_job = clock()
            if self._idle_workers:
                self._wake(seen.ready)
        is_eager = self._idle_workers and clock() - self._last_job < EAGER_FOR_S
        pause_s = EAGER_LOOK_S if is_eager else CALM_LOOK_S
        for next_s in (seen.next_due_s, seen.next_delivery_s):
            if next_s is not None and next_s > 0:
                pause_s = min(pause_s, next_s + 0.001)
        return pause_s

    async def _bury_dead(self) -> None:
        """Give away the jobs of workers whose death the supervisor saw."""
        dead, self._dead = self._dead, []
        try:
            for worker_id in dead:
                async with self._database.connection() as conn:
                    await workers.declare_dead(conn, worker_id=worker_id)
                log.warning("worker_buried", worker_id=worker_id)
        except Unavailable:
            self._dead = dead + self._dead
            raise


def direct_dsn(settings: Settings, dsn: str) -> str | None:
    """Return where LISTEN works: the direct address, or ours unless a pooler is in between."""
    if settings.database_direct_url is not None:
        return settings.database_direct_url.get_secret_value()
    return None if settings.is_pooler else dsn
