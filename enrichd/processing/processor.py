"""JobProcessor: runs claimed jobs in one process.

One loop (`_cycle`) does all writing about runs: each turn records what has ended (`ends`) and
claims what is next, as the plan of the lanes has it (`plan`). Beside it stand the runners (`runs`),
the heartbeat (`pulse`), the clock and the queue's upkeep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from uuid_utils.compat import uuid7

from enrichd import metrics
from enrichd.domain.jobs import Claimed
from enrichd.domain.outcomes import Released
from enrichd.domain.retries import RetryRule
from enrichd.errors import Invalid, NotMigrated, Unavailable
from enrichd.logs import get_logger
from enrichd.processing.bounds import Limits, Report
from enrichd.processing.clock import TICK_S, Clock
from enrichd.processing.ear import Ear
from enrichd.processing.ends import Ends
from enrichd.processing.items import ItemWriter
from enrichd.processing.pauses import backoff
from enrichd.processing.plan import Plan
from enrichd.processing.pulse import Pulse, Vitals
from enrichd.processing.recovery import Recovery
from enrichd.processing.room import Room
from enrichd.processing.runs import Runners
from enrichd.processing.suspects import Suspects
from enrichd.processing.upkeep import Upkeep
from enrichd.processing.waiting import Waiting
from enrichd.queue.changes import Changes
from enrichd.queue.manager import JobQueueManager
from enrichd.store.database import Database
from enrichd.store.jobs import Ended

if TYPE_CHECKING:
    from enrichd.processing.duty import Duty
    from enrichd.providers.roster import Providers

# Room to record and release after the grace, also while PostgreSQL comes back.
DRAIN_EXTRA_S = 10.0
DRAIN_LOOK_S = 1.0
# How long a fence waits for handlers to stop before the worker goes on without them.
FENCE_S = 5.0

log = get_logger("worker")


def ignore(_: object) -> None:
    """Do nothing with what is said."""


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
        on_identity: Callable[[UUID], None] = ignore,
        on_idle: Callable[[bool], None] = ignore,
        on_blocked: Callable[[], None] = lambda: None,
        duty: Duty | None = None,
    ) -> None:
        self.worker_id: UUID = uuid7()
        self.report = Report()
        self._hot = JobQueueManager(hot)
        self._control = JobQueueManager(control)
        self._beats = control.sibling("heartbeat")
        self._pulse = Pulse(
            self._beats,
            interval_s=heartbeat_interval_s,
            timeout_s=worker_timeout_s,
            concurrency=concurrency,
            vitals=self._vitals,
        )
        self._writer = ItemWriter(control, self.worker_id)
        self._changes = Changes(control.sibling("changes"), heard=())
        self._runners = Runners(
            concurrency=concurrency,
            job_timeout_s=job_timeout_s,
            retry_rule=retry_rule or RetryRule(),
            writer=self._writer,
            open_providers=open_providers,
            on_end=self._take_end,
        )
        self._plan = Plan(only_lanes, holding=self._runners.lanes)
        self._waiting = Waiting(
            Ear(hot, duty, self._hear) if duty is not None else None,
            poll_interval_s=poll_interval_s,
            on_hint=self._hear,
            on_idle=on_idle,
        )
        self._clock = Clock(
            control,
            self._runners,
            self._writer,
            self._changes,
            worker_id=lambda: self.worker_id,
            tick_s=min(TICK_S, job_timeout_s / 4),
            give_back=self._give_back,
        )
        self._suspects = Suspects(self._runners, control, on_blocked=on_blocked)
        self._ends = Ends()
        self._recovery = Recovery(hot, self._beats, self._runners, self._ends)
        self._room = Room(concurrency, self._runners)
        self._grace_s = grace_s
        self._upkeep = Upkeep(self._control, worker_timeout_s=worker_timeout_s)
        self._is_tending = is_tending
        self._on_identity = on_identity
        self._limits = Limits()
        self._started = 0.0

        self._is_stopping = False
        self._is_fenced = False
        self._turns = 0
        self._turned_at = float("-inf")
        self._is_turning = False
        self._has_looked_idle = False
        """Whether a claim made with nothing in hand came back empty, and nothing came since."""

    async def run(self, limits: Limits | None = None) -> Report:
        """Run jobs until `stop`, or as far as `limits` go; what is unfinished then is released.

        Raises Unavailable if PostgreSQL is away at the start of a bounded run; an endless one
        waits for it.
        """
        self._limits = limits or Limits()
        self._started = asyncio.get_running_loop().time()
        try:
            if await self._announce():
                await self._run()
        finally:
            await self._beats.close()
            await self._changes.close()
        return self.report

    def stop(self) -> None:
        """Claim no more, give back what has not begun, let the rest end within the grace."""
        self._is_stopping = True
        self._runners.is_held = True
        self._waiting.wake()

    def stop_now(self) -> None:
        """Stop without a grace: what runs is given back at once."""
        self._grace_s = 0.0
        self.stop()

    def wake(self) -> None:
        """Look for jobs now: somebody says there are some."""
        self._waiting.be_taken_for_busy()
        self._hear()

    def _hear(self) -> None:
        self._plan.forget_empty()
        self._has_looked_idle = False
        self._waiting.wake()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as beside:
            loops = [
                self._pulse.run(on_beat=self._reconcile, on_silence=self._fence),
                self._clock.run(),
                self._writer.run(),
                self._changes.run(),
            ]
            if self._is_tending:
                loops.append(self._upkeep.run(on_moved=self.wake))
            helpers = [beside.create_task(loop) for loop in loops]
            try:
                if self._limits.is_until_empty:
                    await self._upkeep.first(within_s=self._time_left_s)
                await self._cycle()
                await self._drain()
            finally:
                await self._runners.abandon()
                for task in helpers:
                    task.cancel()
        if self._runners.runs:
            # Its handlers did not stop: with the row gone, others would start their jobs now.
            log.error("worker_left_with_runs", running=len(self._runners.runs))
        else:
            await self._pulse.leave()

    # Turns.

    async def _cycle(self) -> None:
        """Record and claim, turn after turn, until it is time to stop."""
        while not self._is_over():
            if self._is_fenced:
                await asyncio.sleep(TICK_S)
                continue
            if self._suspects.are_here:
                await self._isolate()
                continue
            if self._is_last_look():
                self._plan.expire()  # A job that just ended may have opened a new lane.
            await self._plan.refresh(
                self._control.database,
                next_look_s=self._waiting.next_look_s,
                worker_id=self.worker_id,
            )
            self._changes.hear(self._plan.heard)
            is_empty = self._plan.is_known_empty and not self._is_last_look()
            room = 0 if is_empty else self._room.left(self._jobs_left())
            has_more = bool(self._ends or room) and await self._turn(room)
            if not (has_more or self._is_last_look() or self._is_over()):
                has_room = self._room.left(self._jobs_left()) > 0
                await self._wait(self._plan.pause_s() if has_room else None)

    async def _isolate(self) -> None:
        """Do one step towards running suspects one at a time, with nothing beside them."""
        self._give_back(self._suspects.make_room())
        if self._ends:
            await self._turn(room=0)
        elif self._runners.runs or self._runners.buffer:
            await self._wait_with_suspects()
        else:
            try:
                await self._suspects.run_next(self.worker_id)
            except Unavailable as error:
                await self._outage(error)

    async def _wait_with_suspects(self) -> None:
        """Wait for what runs to end; suspects that would wait for long are left to others."""
        until = self._suspects.wait_until()
        now = asyncio.get_running_loop().time()
        if until is None:
            await self._wait(None)
        elif now < until:
            self._waiting.begin()
            await self._waiting.for_end(min(until - now, self._time_left_s()))
        else:
            self._give_back(self._suspects.leave_to_others())

    def _is_over(self) -> bool:
        if self._is_stopping or self._time_left_s() <= 0:
            return True
        if self._runners.held or self._ends:
            return False
        limits = self._limits
        if limits.max_jobs is not None and self.report.claimed >= limits.max_jobs:
            return True
        return limits.is_until_empty and self._has_looked_idle

    def _is_last_look(self) -> bool:
        """Say whether a run until empty still has to see that nothing came meanwhile."""
        is_idle = not (self._runners.held or self._ends)
        return self._limits.is_until_empty and is_idle and not self._has_looked_idle

    def _jobs_left(self) -> int | None:
        """Return how many jobs may still be begun; None: any number."""
        max_jobs = self._limits.max_jobs
        return None if max_jobs is None else max_jobs - self.report.claimed

    async def _turn(self, room: int) -> bool:
        """Do one turn; False when it brought nothing to do at once."""
        is_idle = not (self._runners.held or self._ends)
        batch = self._ends.take()
        if self._ends:
            room = 0  # More results wait than one turn carries: first they, then new jobs.
        plan = self._plan.lines(room)
        worker_id = self.worker_id
        hints = self._plan.hints
        clock = asyncio.get_running_loop().time
        began = clock()
        self._is_turning = True
        try:
            turn = await self._hot.turn(
                worker_id=worker_id,
                ended=batch,
                plan=plan,
                room=room,
                suspects_after_s=self._suspects.after_s(is_idle=is_idle),
            )
        except Unavailable as error:
            self._ends.put_back(batch)
            await self._outage(error)
            return True
        except Invalid as error:
            # Nothing of ours was refused, so it is a row somebody wrote by hand.
            log.error("claim_refused", reason=error.message)
            self._plan.note_empty(next_look_s=self._waiting.next_look_s, hints=hints)
            self._has_looked_idle = is_idle
            return False
        finally:
            self._is_turning = False
            self._turns += 1
        self._turned_at = ended_at = clock()
        if worker_id == self.worker_id:
            self._take_in(turn.claimed)
            if is_idle and turn.claimed:
                await asyncio.sleep(0)  # The jobs begin now, and the books are kept after that.
        self._count(batch, turn.lost)
        if self._changes.is_heard:
            self._tell(batch, turn.claimed)
        metrics.turn(ended_at - began, turn.claimed, batch, turn.lost)
        if worker_id != self.worker_id:
            return True  # Fenced meanwhile: what was claimed belongs to a dead worker's row.
        if turn.has_claimed and room:
            is_empty = self._plan.note(
                room, turn.claimed, next_look_s=self._waiting.next_look_s, hints=hints
            )
            self._has_looked_idle = is_idle and is_empty
            self._room.adapt(ended_at - began, is_counted=self._limits.max_jobs is not None)
        return bool(turn.claimed or self._ends)

    def _count(self, batch: list[Ended], lost: list[str]) -> None:
        missing = set(lost)
        for ended in batch:
            if ended.id in missing:
                self.report.lost += 1
                log.warning("claim_lost", job_id=ended.id, worker_id=str(self.worker_id))
            else:
                self.report.count(ended)

    def _tell(self, batch: list[Ended], claimed: list[Claimed]) -> None:
        """Tell who listens which jobs a turn moved."""
        for ended in batch:
            if ended.workspace_id:
                self._changes.note(ended.workspace_id, (ended.id,))
        for job in claimed:
            self._changes.note(job.workspace_id, (job.id,))

    def _take_in(self, claimed: list[Claimed]) -> None:
        if claimed:
            self._waiting.say_idle(False)
        self.report.claimed += len(claimed)
        self._clock.note_claimed(claimed)
        self._runners.take_in(claimed)

    def _take_end(self, ended: Ended | None) -> None:
        """Take the end of a run; None for one that lost its claim."""
        if ended is None:
            self.report.lost += 1
        else:
            self._ends.add(ended)
        self._plan.note_freed()
        self._has_looked_idle = False
        self._waiting.wake()

    def _give_back(self, jobs: Iterable[Claimed]) -> None:
        """Release jobs that have not begun."""
        self._ends.give_back(jobs)
        self._waiting.wake()

    async def _wait(self, pause_s: float | None) -> None:
        """Wait until a run ends, somebody wakes us, or `pause_s` is over (None: no such bound).

        Without a pause there is no room for more jobs, and the hints are left to another worker.
        """
        self._waiting.begin()
        if self._ends or self._is_stopping or pause_s == 0.0:
            return
        self._waiting.say_idle(not self._runners.held)
        if pause_s is None:
            await self._waiting.for_end(self._time_left_s())
        else:
            await self._waiting.for_work(min(pause_s, self._time_left_s()))

    def _time_left_s(self) -> float:
        """Return for how long jobs may still be begun."""
        if self._limits.timeout_s is None:
            return float("inf")
        until = self._started + self._limits.timeout_s - self._limits.reserve_s
        return until - asyncio.get_running_loop().time()

    # Ends and outages.

    async def _drain(self) -> None:
        """Give back what has not begun, let what runs end within the grace, record it all.

        With PostgreSQL away longer than the grace, the jobs are left to be rescued.
        """
        self._waiting.rest()
        self._give_back(self._runners.empty())
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(max(self._grace_left_s(began), 0.0) + DRAIN_EXTRA_S):
                while self._runners.held or self._ends:
                    if self._ends:
                        await self._turn(room=0)
                        continue
                    left_s = self._grace_left_s(began)
                    if left_s <= 0:
                        self._runners.stop_all(Released())
                    self._waiting.begin()
                    await self._waiting.for_end(min(max(left_s, TICK_S), DRAIN_LOOK_S))
        except TimeoutError:
            log.error("jobs_left_behind", running=self._runners.held, unrecorded=len(self._ends))

    def _grace_left_s(self, began: float) -> float:
        """Return how long runs may still take: until the timeout, stopped or not."""
        until = began + self._grace_s if self._is_stopping else float("inf")
        if self._limits.timeout_s is not None:
            until = min(until, self._started + self._limits.timeout_s)
        elif not self._is_stopping:
            until = began
        return until - asyncio.get_running_loop().time()

    async def _announce(self) -> bool:
        """Insert the worker's row; False when stopped before PostgreSQL was there."""
        pauses_s = backoff()
        while not self._is_stopping:
            try:
                await self._pulse.announce()
            except Unavailable as error:
                if self._limits.is_bounded:
                    raise
                log.warning("database_away", reason=error.message)
                await self._wait(next(pauses_s))
            else:
                self._on_identity(self.worker_id)
                return True
        return False

    async def _outage(self, error: Unavailable) -> None:
        """Wait until PostgreSQL is back, or it is time to stop."""
        if isinstance(error, NotMigrated) and self._limits.is_bounded:
            raise error
        if await self._recovery.wait_for_database(
            error,
            worker_id=self.worker_id,
            time_left_s=self._time_left_s,
            is_stopping=lambda: self._is_stopping,
        ):
            self._waiting.wake()

    async def _reconcile(self, held_count: int) -> None:
        """Give back what the database thinks we run and we never heard of."""
        if await self._recovery.compare(
            held_count,
            worker_id=self.worker_id,
            turns=lambda: None if self._is_turning else self._turns,
        ):
            self._waiting.wake()

    async def _fence(self, why: str) -> None:
        """Stop every run, then ask whether the jobs are still ours; if not, go on as a new worker.

        What ended before stays in memory: if the row is still alive nobody took the jobs, and the
        outcomes are recorded as usual. A handler that does not stop is left behind, fenced.
        """
        log.error("worker_fenced", worker_id=str(self.worker_id), reason=why)
        self._is_fenced = self._runners.is_held = True
        deadline = asyncio.get_running_loop().time() + FENCE_S
        while self._runners.runs and asyncio.get_running_loop().time() < deadline:
            self._runners.stop_all(Released())
            await asyncio.sleep(0.02)
        if not await self._pulse.is_still_alive():
            self._runners.empty()
            self._ends.clear()
            self.worker_id = self._writer.worker_id = uuid7()
            await self._announce()
        self._is_fenced = False
        self._runners.is_held = self._is_stopping
        self._runners.start()
        self.wake()

    # Beside the turns.

    def _vitals(self) -> Vitals:
        return Vitals(
            worker_id=self.worker_id,
            state="draining" if self._is_stopping else "running",
            running=len(self._runners.runs),
            completed=self.report.completed,
            failed=self.report.failed,
            turned_s=asyncio.get_running_loop().time() - max(self._turned_at, self._plan.read_at),
        )
