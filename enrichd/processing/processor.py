"""JobProcessor: runs claimed jobs in one process.

One loop (`_cycle`) does all writing about runs: each turn records what has ended and claims what is
next. Runners take jobs from a small buffer; beside them stand the heartbeat, the clock (timeouts,
cancels, progress) and the queue's upkeep.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from uuid_utils.compat import uuid7

from enrichd import __version__
from enrichd.domain.jobs import Claimed
from enrichd.domain.outcomes import Cancelled, Outcome, Released
from enrichd.domain.retries import RetryRule
from enrichd.errors import ClaimLost, Unavailable
from enrichd.handlers.context import Item
from enrichd.logs import get_logger
from enrichd.processing.items import ItemWriter
from enrichd.processing.pauses import backoff
from enrichd.processing.plan import Plan
from enrichd.processing.run import run_job, timed_out
from enrichd.queue.endings import ended_of, released
from enrichd.queue.manager import JobQueueManager
from enrichd.store import lanes, workers
from enrichd.store.database import Database
from enrichd.store.jobs import TURN_BYTES_MAX, TURN_ROWS_MAX, Ended

if TYPE_CHECKING:
    from enrichd.providers.waterfall import Providers

# Jobs that take less than this are claimed ahead of free slots; slower ones never are.
PREFETCH_RUN_S = 0.05
PREFETCH_MAX = 500
# A handler that never waits would keep the loop from reading the database's answer.
RUNS_WITHOUT_A_PAUSE = 32
CLOCK_S = 0.25
CONTROL_S = 1.0
TEND_S = 0.5
# Room to record and release after the grace, also while PostgreSQL comes back.
DRAIN_EXTRA_S = 10.0

log = get_logger("worker")


@dataclass(slots=True)
class Limits:
    """How far a bounded run goes. None means without end."""

    max_jobs: int | None = None
    timeout_s: float | None = None
    is_until_empty: bool = False
    """End when nothing is ready to claim and nothing runs."""


@dataclass(slots=True)
class Report:
    """What a JobProcessor did."""

    claimed: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    snoozed: int = 0
    cancelled: int = 0
    released: int = 0
    lost: int = 0

    def count(self, ended: Ended) -> None:
        """Count one recorded run by its end."""
        match ended.outcome:
            case "completed":
                self.completed += 1
            case "failed":
                self.failed += 1
            case "retry":
                self.retried += 1
            case "snoozed" | "parked":
                self.snoozed += 1
            case "cancelled":
                self.cancelled += 1
            case _:
                self.released += 1


@dataclass(slots=True, eq=False)
class Run:
    """A job that a runner works on, and the context its handler sees."""

    job: Claimed
    task: asyncio.Task[None]
    deadline: float
    writer: ItemWriter
    open_providers: Callable[[], Providers]
    stopped_by: Outcome | None = None
    """Why the run was stopped from outside; None while it may go on."""
    started: float = field(default=0.0)

    @property
    def job_id(self) -> UUID:
        """Return the job's id."""
        return UUID(self.job.id)

    @property
    def workspace_id(self) -> str:
        """Return the job's workspace."""
        return self.job.workspace_id

    @property
    def provider_id(self) -> str:
        """Return the job's lane."""
        return self.job.provider_id

    @property
    def attempt(self) -> int:
        """Return the number of this attempt, from 1."""
        return self.job.attempt

    @property
    def providers(self) -> Providers:
        """Return the process's data providers, opened at first use."""
        return self.open_providers()

    async def progress(self, done: int, total: int) -> None:
        """Say how far the job is; written at most once a second."""
        self.writer.report(self.job.id, self.job.attempt, done, total)

    async def finished_items(self) -> Mapping[str, Item]:
        """Return a batch's leads that earlier attempts finished."""
        return await self.writer.finished(self.job.id)

    async def record_item(
        self,
        key: str,
        *,
        status: Literal["completed", "failed"],
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep one finished lead durably. Raises ClaimLost when the run lost its job."""
        await self.writer.record(
            self.job.id, self.job.attempt, key, status=status, result=result, error=error
        )

    def stop(self, why: Outcome) -> None:
        """Cancel the handler; the run ends in `why` unless it still ends by itself."""
        if self.stopped_by is None:
            self.stopped_by = why
        self.task.cancel()


def no_providers() -> Providers:
    """Stand for the providers where a process was given none."""
    raise RuntimeError("this process was started without data providers")


class JobProcessor:
    """Claims jobs and runs them, at most `concurrency` at once, until stopped or out of bounds."""

    def __init__(
        self,
        *,
        hot: Database,
        control: Database,
        concurrency: int = 10,
        job_timeout_s: float = 300.0,
        poll_interval_s: float = 1.0,
        heartbeat_interval_s: float = 5.0,
        worker_timeout_s: float = 20.0,
        grace_s: float = 30.0,
        retry_rule: RetryRule | None = None,
        open_providers: Callable[[], Providers] = no_providers,
        is_tending: bool = True,
        only_lanes: frozenset[str] | None = None,
    ) -> None:
        self.worker_id: UUID = uuid7()
        self.report = Report()
        self._hot = JobQueueManager(hot)
        self._control = JobQueueManager(control)
        self._writer = ItemWriter(control, self.worker_id)
        self._concurrency = concurrency
        self._job_timeout_s = job_timeout_s
        self._poll_interval_s = poll_interval_s
        self._heartbeat_interval_s = heartbeat_interval_s
        self._worker_timeout_s = worker_timeout_s
        self._grace_s = grace_s
        self._retry_rule = retry_rule or RetryRule()
        self._open_providers = open_providers
        self._is_tending = is_tending
        self._limits = Limits()

        self._plan = Plan(only_lanes)
        self._buffer: deque[Claimed] = deque()
        self._runs: dict[str, Run] = {}
        self._runners: set[asyncio.Task[None]] = set()
        self._ended: deque[Ended] = deque()
        self._vtimes: dict[tuple[str, int], int] = {}
        self._is_stopping = False
        self._is_fenced = False
        self._woken = asyncio.Event()
        self._run_s = PREFETCH_RUN_S
        """Moving average of how long a run takes; new processes start without prefetch."""
        self._prefetch = 0

    # -- What callers do -------------------------------------------------------------------------

    async def run(self, limits: Limits | None = None) -> Report:
        """Run jobs until `stop`, or as far as `limits` go; what is unfinished then is released."""
        self._limits = limits or Limits()
        self._started = asyncio.get_running_loop().time()
        await self._announce()
        async with asyncio.TaskGroup() as beside:
            helpers = [beside.create_task(self._beat()), beside.create_task(self._clock())]
            helpers.append(beside.create_task(self._writer.run()))
            if self._is_tending:
                helpers.append(beside.create_task(self._tend()))
            try:
                if self._limits.is_until_empty:
                    await self._first_upkeep()
                await self._cycle()
                await self._drain()
            finally:
                for task in (*helpers, *self._runners):
                    task.cancel()
        await self._leave()
        return self.report

    def stop(self) -> None:
        """Claim no more, give back what has not begun, let the rest end within the grace."""
        self._is_stopping = True
        self._woken.set()

    def wake(self) -> None:
        """Look for jobs now: somebody says there are some."""
        self._plan.forget_empty()
        self._woken.set()

    # -- Turns -----------------------------------------------------------------------------------

    async def _cycle(self) -> None:
        """Record and claim, turn after turn, until it is time to stop."""
        while not self._is_over():
            await self._plan.refresh(self._control.database)
            room = self._room()
            if not self._ended and not room:
                await self._wait()
                continue
            if not await self._turn(room) and not self._is_over():
                await self._wait()

    def _is_over(self) -> bool:
        if self._is_stopping or self._time_left_s() <= 0:
            return True
        is_idle = not (self._runs or self._buffer or self._ended)
        limits = self._limits
        if limits.max_jobs is not None and self.report.claimed >= limits.max_jobs and is_idle:
            return True
        return limits.is_until_empty and is_idle and self._plan.is_known_empty

    def _room(self) -> int:
        """Return how many jobs to claim now."""
        if self._plan.is_known_empty or self._is_fenced:
            return 0
        held = len(self._buffer) + len(self._runs)
        wanted = self._concurrency + self._prefetch - held
        if self._prefetch:
            # By halves: one half is run while the turn for the other is on its way.
            wanted = min(wanted, (self._concurrency + self._prefetch + 1) // 2)
        if self._limits.max_jobs is not None:
            wanted = min(wanted, self._limits.max_jobs - self.report.claimed)
        return max(wanted, 0)

    async def _turn(self, room: int) -> bool:
        """Do one turn; False when it brought nothing to do at once."""
        batch = self._take_ended()
        plan = self._plan.lines(room)
        worker_id = self.worker_id
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            turn = await self._hot.turn(worker_id=self.worker_id, ended=batch, plan=plan, room=room)
        except Unavailable as error:
            self._ended.extendleft(reversed(batch))
            await self._outage(error)
            return True
        for ended in batch:
            self.report.count(ended)
        for job_id in turn.lost:
            self.report.lost += 1
            log.warning("claim_lost", job_id=job_id, worker_id=str(self.worker_id))
        if worker_id != self.worker_id:
            return True  # Fenced meanwhile: what was claimed belongs to a dead worker's row.
        self._take_in(turn.claimed)
        if room:
            self._plan.note(room, len(turn.claimed), next_look_s=self._poll_interval_s)
            self._adapt_prefetch(len(turn.claimed), clock() - began)
        return bool(turn.claimed or self._ended)

    def _take_ended(self) -> list[Ended]:
        """Take what has ended for one turn: bounded rows and bytes."""
        batch: list[Ended] = []
        size = 0
        while self._ended and len(batch) < TURN_ROWS_MAX and size < TURN_BYTES_MAX:
            ended = self._ended.popleft()
            size += len(ended.result or "") + len(ended.error or "")
            batch.append(ended)
        return batch

    def _take_in(self, claimed: list[Claimed]) -> None:
        """Put claimed jobs in the buffer and have runners for them."""
        self.report.claimed += len(claimed)
        for job in claimed:
            lane = (job.provider_id, job.priority)
            if job.fair_rank > self._vtimes.get(lane, 0):
                self._vtimes[lane] = job.fair_rank
        self._buffer.extend(claimed)
        self._start_runners()

    def _start_runners(self) -> None:
        if self._is_fenced:
            return
        wanted = min(len(self._buffer), self._concurrency - len(self._runners))
        for _ in range(wanted):
            task = asyncio.create_task(self._runner())
            self._runners.add(task)
            task.add_done_callback(self._runner_done)

    def _runner_done(self, task: asyncio.Task[None]) -> None:
        self._runners.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A runner cannot raise by design; if it did, its job is still ours: say so and stop.
            log.error("runner_broke", exc_info=error)
            self.stop()

    def _adapt_prefetch(self, claimed: int, turn_s: float) -> None:
        """Claim ahead what short jobs will use up during one turn, and nothing for long ones."""
        if self._run_s >= PREFETCH_RUN_S or self._limits.max_jobs is not None:
            self._prefetch = 0
            return
        rate = self._concurrency / max(self._run_s, 1e-5)
        self._prefetch = min(PREFETCH_MAX, int(rate * turn_s) + 1, 2 * self._prefetch + 50)

    async def _wait(self) -> None:
        """Wait until something ends, somebody wakes us, or it is time to look again."""
        pause_s = min(self._plan.pause_s(), self._time_left_s(), 60.0)
        self._woken.clear()
        if self._ended or (self._is_stopping and not self._runs):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(pause_s, 0.0)):
                await self._woken.wait()

    def _time_left_s(self) -> float:
        if self._limits.timeout_s is None:
            return float("inf")
        return self._started + self._limits.timeout_s - asyncio.get_running_loop().time()

    # -- Runs ------------------------------------------------------------------------------------

    async def _runner(self) -> None:
        """Run jobs from the buffer one after the other until it is empty."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        count = 0
        while self._buffer and not self._is_fenced:
            job = self._buffer.popleft()
            began = loop.time()
            run = Run(job, task, began + self._job_timeout_s, self._writer, self._open_providers)
            self._runs[job.id] = run
            try:
                outcome = await run_job(job, run)
            except ClaimLost:
                self.report.lost += 1
                outcome = None
            except asyncio.CancelledError:
                if run.stopped_by is None:
                    raise
                task.uncancel()
                outcome = run.stopped_by
            finally:
                del self._runs[job.id]
            took_s = loop.time() - began
            self._run_s += (took_s - self._run_s) * 0.05
            if outcome is not None:
                self._ended.append(ended_of(job, outcome, self._retry_rule, random.random()))
            self._woken.set()
            count += 1
            if count % RUNS_WITHOUT_A_PAUSE == 0:
                await asyncio.sleep(0)

    # -- Ends ------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Give back what has not begun, let what runs end within the grace, record it all.

        With PostgreSQL away longer than the grace, the jobs are left to be rescued.
        """
        self._ended.extend(released(job) for job in self._buffer)
        self._buffer.clear()
        loop = asyncio.get_running_loop()
        grace_s = self._grace_s if self._is_stopping else 0.0
        deadline = loop.time() + grace_s
        try:
            async with asyncio.timeout(grace_s + DRAIN_EXTRA_S):
                while self._runs or self._ended:
                    if self._ended:
                        await self._turn(room=0)
                    elif loop.time() >= deadline:
                        for run in list(self._runs.values()):
                            run.stop(Released())
                        await asyncio.sleep(0.01)
                    else:
                        await self._wait_for_end(deadline)
        except TimeoutError:
            log.error("jobs_left_behind", running=len(self._runs), unrecorded=len(self._ended))

    async def _wait_for_end(self, deadline: float) -> None:
        self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._woken.wait()

    async def _announce(self) -> None:
        pauses_s = backoff()
        while True:
            try:
                async with self._control.database.connection() as conn:
                    await workers.insert(
                        conn,
                        worker_id=self.worker_id,
                        host=socket.gethostname(),
                        pid=os.getpid(),
                        version=__version__,
                        concurrency=self._concurrency,
                    )
                    return
            except Unavailable as error:
                log.warning("database_away", reason=error.message)
                await asyncio.sleep(next(pauses_s))

    async def _leave(self) -> None:
        """Remove the worker's row. Away with PostgreSQL: the row goes stale and is rescued."""
        with suppress(Unavailable):
            async with self._control.database.connection() as conn:
                await workers.delete(conn, worker_id=self.worker_id)

    async def _outage(self, error: Unavailable) -> None:
        """Wait for PostgreSQL, then give back what was claimed but never reached us.

        A connection that broke at the commit may have claimed jobs whose ids were lost with it;
        our heartbeat would keep them ours for ever.
        """
        log.warning("database_away", reason=error.message)
        for pause_s in backoff():
            await asyncio.sleep(pause_s)
            try:
                async with self._hot.database.connection() as conn:
                    held = await workers.held(conn, worker_id=self.worker_id)
            except Unavailable as still:
                log.debug("database_still_away", reason=still.message)
                if self._time_left_s() <= 0:
                    return
                continue
            known = {*self._runs, *(job.id for job in self._buffer)}
            known.update(ended.id for ended in self._ended)
            unknown = [pair for pair in held if pair[0] not in known]
            self._ended.extend(
                Ended(job_id, attempt, "pending", "released", delay_s=0.0, is_refunded=True)
                for job_id, attempt in unknown
            )
            log.info("database_back", given_back=len(unknown))
            return

    # -- Beside the turns ------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Keep the worker's row fresh; stop everything when its jobs may have been given away."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(self._heartbeat_interval_s * random.uniform(0.9, 1.1))
            try:
                is_alive = await self._send_beat()
            except Unavailable:
                # Two thirds of the timeout without a heartbeat: stop before others start.
                if loop.time() - last > self._worker_timeout_s * 2 / 3:
                    await self._fence("no heartbeat reached the database")
                    last = loop.time()
                continue
            if not is_alive:
                await self._fence("this worker was declared dead")
            last = loop.time()

    async def _fence(self, why: str) -> None:
        """Stop every run, then ask whether the jobs are still ours; if not, go on as a new worker.

        What ended before stays in memory: if the row is still alive nobody took the jobs, and the
        outcomes are recorded as usual.
        """
        log.error("worker_fenced", worker_id=str(self.worker_id), reason=why)
        self._is_fenced = True
        while self._runs:
            for run in list(self._runs.values()):
                run.stop(Released())
            await asyncio.sleep(0.01)
        if not await self._is_still_ours():
            self._buffer.clear()
            self._ended.clear()
            self.worker_id = self._writer.worker_id = uuid7()
            await self._announce()
        self._is_fenced = False
        self._start_runners()
        self.wake()

    async def _is_still_ours(self) -> bool:
        """Wait for PostgreSQL and say whether this worker's row is still alive."""
        pauses_s = backoff()
        while True:
            try:
                return await self._send_beat()
            except Unavailable:
                await asyncio.sleep(next(pauses_s))

    async def _send_beat(self) -> bool:
        async with self._control.database.connection() as conn:
            return await workers.beat(
                conn,
                worker_id=self.worker_id,
                state="draining" if self._is_stopping else "running",
                running=len(self._runs),
                completed=self.report.completed,
                failed=self.report.failed,
            )

    async def _clock(self) -> None:
        """Stop runs that are over their time or were cancelled; write progress and virtual time."""
        loop = asyncio.get_running_loop()
        next_control = loop.time()
        tick_s = min(CLOCK_S, self._job_timeout_s / 4)
        while True:
            await asyncio.sleep(tick_s)
            now = loop.time()
            for run in list(self._runs.values()):
                if now >= run.deadline:
                    run.stop(timed_out(self._job_timeout_s))
            if now < next_control or not (self._runs or self._vtimes):
                continue
            next_control = now + CONTROL_S
            try:
                await self._control_turn()
            except Unavailable as error:
                log.debug("control_turn_failed", reason=error.message)

    async def _control_turn(self) -> None:
        vtimes, self._vtimes = self._vtimes, {}
        async with self._control.database.connection() as conn:
            if vtimes:
                await lanes.push_vtime(conn, [(*lane, rank) for lane, rank in vtimes.items()])
            cancelled = (
                await workers.cancelled_runs(conn, worker_id=self.worker_id) if self._runs else []
            )
        for job_id in cancelled:
            if run := self._runs.get(job_id):
                run.stop(Cancelled("somebody cancelled the job"))
        await self._writer.write_progress()

    async def _first_upkeep(self) -> None:
        """Promote and rescue once before a bounded run may find the queue empty."""
        with suppress(Unavailable):
            while (await self._control.tend(worker_timeout_s=self._worker_timeout_s)).moved:
                pass

    async def _tend(self) -> None:
        """Keep the queue moving; wake the claim when jobs became ready."""
        while True:
            try:
                upkeep = await self._control.tend(worker_timeout_s=self._worker_timeout_s)
            except Unavailable as error:
                log.debug("upkeep_failed", reason=error.message)
            else:
                if upkeep.moved:
                    self.wake()
                    continue
            await asyncio.sleep(TEND_S)
