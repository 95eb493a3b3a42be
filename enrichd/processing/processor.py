"""JobProcessor: runs claimed jobs in one process.

One loop (`_cycle`) does all writing about runs: each turn records what has ended and claims what is
next. Beside it stand the runners, the heartbeat, the clock (timeouts, cancels, progress) and the
queue's upkeep.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
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
from enrichd.processing.ear import Ear
from enrichd.processing.items import ItemWriter
from enrichd.processing.pauses import backoff
from enrichd.processing.plan import Plan
from enrichd.processing.pulse import Pulse, Vitals
from enrichd.processing.runs import SHORT_RUN_S, Runners
from enrichd.processing.upkeep import Upkeep
from enrichd.queue.changes import Changes
from enrichd.queue.manager import JobQueueManager
from enrichd.store import lanes, workers
from enrichd.store.database import Database
from enrichd.store.jobs import TURN_BYTES_MAX, TURN_ROWS_MAX, Ended

if TYPE_CHECKING:
    from enrichd.processing.duty import Duty
    from enrichd.providers.roster import Providers

PREFETCH_MAX = 500
# A job claimed ahead that has not begun after this long is given back.
PREFETCH_AGE_S = 1.0
CLOCK_S = 0.25
CONTROL_S = 1.0
# Room to record and release after the grace, also while PostgreSQL comes back.
DRAIN_EXTRA_S = 10.0
# Who hears hints polls so many times less often.
POLLS_SPARED = 3
# Suspects are left for so long to workers with nothing to do; one that has them waits so long for
# its other runs, and lets suspects be for so long after it waited in vain.
SUSPECTS_AFTER_S = 0.5
SUSPECTS_WAIT_S = 10.0
SUSPECTS_SPARED_S = 60.0
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
        self._concurrency = concurrency
        self._tick_s = min(CLOCK_S, job_timeout_s / 4)
        self._poll_interval_s = poll_interval_s
        self._grace_s = grace_s
        self._upkeep = Upkeep(self._control, worker_timeout_s=worker_timeout_s)
        self._is_tending = is_tending
        self._on_identity = on_identity
        self._on_idle = on_idle
        self._on_blocked = on_blocked
        self._suspects_since: float | None = None
        self._spares_suspects_until = float("-inf")
        self._is_idle = False
        self._ear = Ear(hot, duty, self._hear) if duty is not None else None
        self._limits = Limits()
        self._started = 0.0

        self._plan = Plan(only_lanes, holding=self._runners.lanes)
        self._ended: deque[Ended] = deque()
        self._vtimes: dict[tuple[str, int], int] = {}
        self._is_stopping = False
        self._is_fenced = False
        self._woken = asyncio.Event()
        self._prefetch = 0
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
        self._woken.set()

    def stop_now(self) -> None:
        """Stop without a grace: what runs is given back at once."""
        self._grace_s = 0.0
        self.stop()

    def wake(self) -> None:
        """Look for jobs now: somebody says there are some."""
        self._is_idle = False  # Whoever wakes us takes us for busy until we say idle again.
        self._hear()

    def _hear(self) -> None:
        self._plan.forget_empty()
        self._has_looked_idle = False
        self._woken.set()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as beside:
            loops = [
                self._pulse.run(on_beat=self._reconcile, on_silence=self._fence),
                self._clock(),
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
                await asyncio.sleep(CLOCK_S)
                continue
            if self._runners.suspects or self._runners.is_alone:
                await self._isolate()
                continue
            if self._is_last_look():
                self._plan.expire()  # A job that just ended may have opened a new lane.
            await self._plan.refresh(
                self._control.database, next_look_s=self._next_look_s, worker_id=self.worker_id
            )
            self._changes.hear(self._plan.heard)
            room = self._room()
            has_more = bool(self._ended or room) and await self._turn(room)
            if not (has_more or self._is_last_look() or self._is_over()):
                await self._wait(self._plan.pause_s() if self._has_room() else None)

    async def _isolate(self) -> None:
        """Run jobs whose worker died before, one at a time, with nothing beside them.

        One step at each call. The worker's row names the one that is run: if it takes this worker
        down as well, no other job is blamed.
        """
        runners = self._runners
        if not runners.is_alone:
            self._give_back(runners.empty_buffer())
            self._give_back(runners.spare_suspects())
        if self._ended:
            await self._turn(room=0)
        elif runners.runs or runners.buffer:
            await self._wait_with_suspects()
        else:
            suspect = runners.suspects[0].id if runners.suspects else None
            try:
                async with self._control.database.connection() as conn:
                    await workers.set_alone(conn, worker_id=self.worker_id, job_id=suspect)
            except Unavailable as error:
                await self._outage(error)
                return
            self._suspects_since = None
            runners.is_alone = suspect is not None
            if runners.is_alone:
                runners.run_suspect()

    async def _wait_with_suspects(self) -> None:
        """Wait for what runs to end; suspects that would wait for long are left to others.

        Those that runs of this worker hold up call for a fresh one, which has nothing beside them.
        """
        now = asyncio.get_running_loop().time()
        if not self._runners.suspects:
            await self._wait(None)
            return
        if self._suspects_since is None:
            self._suspects_since = now
        until = self._suspects_since + SUSPECTS_WAIT_S
        if now < until:
            self._rest()
            await self._wait_for_end(min(until, now + self._time_left_s()))
            return
        self._suspects_since = None
        self._spares_suspects_until = now + SUSPECTS_SPARED_S
        self._give_back(self._runners.spare_suspects(keep=0))
        if not self._runners.is_alone:
            self._on_blocked()

    def _suspects_after_s(self, *, is_idle: bool) -> float:
        """Return how long suspects are left to others: not at all with nothing to do."""
        if is_idle:
            return 0.0
        is_spared = asyncio.get_running_loop().time() < self._spares_suspects_until
        return SUSPECTS_SPARED_S if is_spared else SUSPECTS_AFTER_S

    def _is_over(self) -> bool:
        if self._is_stopping or self._time_left_s() <= 0:
            return True
        if self._runners.held or self._ended:
            return False
        limits = self._limits
        if limits.max_jobs is not None and self.report.claimed >= limits.max_jobs:
            return True
        return limits.is_until_empty and self._has_looked_idle

    def _is_last_look(self) -> bool:
        """Say whether a run until empty still has to see that nothing came meanwhile."""
        is_idle = not (self._runners.held or self._ended)
        return self._limits.is_until_empty and is_idle and not self._has_looked_idle

    def _has_room(self) -> bool:
        return (
            not self._runners.is_alone and self._runners.held < self._concurrency + self._prefetch
        )

    @property
    def _next_look_s(self) -> float:
        """How long to let lanes be that were seen empty."""
        is_hearing = self._ear is not None and self._ear.is_hearing
        return self._poll_interval_s * (POLLS_SPARED if is_hearing else 1)

    def _room(self) -> int:
        """Return how many jobs to claim now."""
        if self._runners.is_alone or (self._plan.is_known_empty and not self._is_last_look()):
            return 0
        wanted = self._concurrency + self._prefetch - self._runners.held
        if self._prefetch > self._concurrency:
            # By halves: one half is run while the turn for the other is on its way.
            wanted = min(wanted, (self._concurrency + self._prefetch + 1) // 2)
        if self._limits.max_jobs is not None:
            wanted = min(wanted, self._limits.max_jobs - self.report.claimed)
        return max(wanted, 0)

    async def _turn(self, room: int) -> bool:
        """Do one turn; False when it brought nothing to do at once."""
        is_idle = not (self._runners.held or self._ended)
        batch = self._take_ended()
        if self._ended:
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
                suspects_after_s=self._suspects_after_s(is_idle=is_idle),
            )
        except Unavailable as error:
            self._ended.extendleft(reversed(batch))
            await self._outage(error)
            return True
        except Invalid as error:
            # Nothing of ours was refused, so it is a row somebody wrote by hand.
            log.error("claim_refused", reason=error.message)
            self._plan.note_empty(next_look_s=self._next_look_s, hints=hints)
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
                room, turn.claimed, next_look_s=self._next_look_s, hints=hints
            )
            self._has_looked_idle = is_idle and is_empty
            self._adapt_prefetch(ended_at - began)
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

    def _say_idle(self, is_idle: bool) -> None:
        if is_idle != self._is_idle:
            self._is_idle = is_idle
            self._on_idle(is_idle)

    def _take_in(self, claimed: list[Claimed]) -> None:
        if claimed:
            self._say_idle(False)
        self.report.claimed += len(claimed)
        for job in claimed:
            lane = (job.provider_id, job.priority)
            if job.fair_rank > self._vtimes.get(lane, 0):
                self._vtimes[lane] = job.fair_rank
        self._runners.take_in(claimed)

    def _take_end(self, ended: Ended | None) -> None:
        """Take the end of a run; None for one that lost its claim."""
        if ended is None:
            self.report.lost += 1
        else:
            self._ended.append(ended)
        self._plan.note_freed()
        self._has_looked_idle = False
        self._woken.set()

    def _give_back(self, jobs: Iterable[Claimed]) -> None:
        """Release jobs that have not begun."""
        self._ended.extend(unstarted(job.id, job.attempt) for job in jobs)
        self._woken.set()

    def _adapt_prefetch(self, turn_s: float) -> None:
        """Claim ahead what short jobs will use up during one turn, and nothing for long ones.

        At least one for each slot: runs that began together end together, and each would wait for
        a turn (50 jobs of 50 ms at once: 95 % of the ideal without, 99 % with).
        """
        if self._runners.average_s >= SHORT_RUN_S or self._limits.max_jobs is not None:
            self._prefetch = 0
            return
        rate = self._concurrency / max(self._runners.average_s, 1e-5)
        wanted = max(int(rate * turn_s) + 1, self._concurrency)
        self._prefetch = min(PREFETCH_MAX, wanted, 2 * self._prefetch + 50)

    async def _wait(self, pause_s: float | None) -> None:
        """Wait until a run ends, somebody wakes us, or `pause_s` is over (None: no such bound)."""
        self._woken.clear()
        if self._ended or self._is_stopping:
            return
        self._say_idle(not self._runners.held)
        longest_s = self._time_left_s()
        if pause_s is not None:
            longest_s = min(longest_s, pause_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(longest_s, 0.0) if longest_s < 1e6 else None):
                await self._hear_or_wait(has_room=pause_s is not None)

    async def _hear_or_wait(self, *, has_room: bool) -> None:
        """Wait to be woken; with room, by a hint that this worker hears itself too."""
        if self._ear is None or not has_room:
            self._rest()
            await self._woken.wait()
            return
        try:
            if await self._ear.open():
                self._hear()
            await self._woken.wait()
        except Unavailable as error:
            log.debug("listen_failed", reason=error.message)
            await self._woken.wait()
        finally:
            self._ear.shut()

    def _rest(self) -> None:
        """Leave the hints to another worker."""
        if self._ear is not None:
            self._ear.rest()

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
        self._rest()
        self._give_back(self._runners.empty())
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(max(self._grace_left_s(began), 0.0) + DRAIN_EXTRA_S):
                while self._runners.held or self._ended:
                    if self._ended:
                        await self._turn(room=0)
                        continue
                    left_s = self._grace_left_s(began)
                    if left_s <= 0:
                        self._runners.stop_all(Released())
                    await self._wait_for_end(loop.time() + min(max(left_s, CLOCK_S), CONTROL_S))
        except TimeoutError:
            log.error("jobs_left_behind", running=self._runners.held, unrecorded=len(self._ended))

    def _grace_left_s(self, began: float) -> float:
        """Return how long runs may still take: until the timeout, stopped or not."""
        until = began + self._grace_s if self._is_stopping else float("inf")
        if self._limits.timeout_s is not None:
            until = min(until, self._started + self._limits.timeout_s)
        elif not self._is_stopping:
            until = began
        return until - asyncio.get_running_loop().time()

    async def _wait_for_end(self, until: float) -> None:
        self._woken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._woken.wait()

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
        log.warning("database_away", reason=error.message)
        for pause_s in backoff():
            await asyncio.sleep(min(pause_s, max(self._time_left_s(), 0.0)))
            try:
                async with self._hot.database.connection() as conn:
                    held = await workers.held(conn, worker_id=self.worker_id)
            except Unavailable as still:
                log.debug("database_still_away", reason=still.message)
                if self._time_left_s() <= 0 or self._is_stopping:
                    return  # What is left is the drain's, which has an end of its own.
                continue
            self._give_back_unknown(held)
            log.info("database_back")
            return

    async def _reconcile(self, held_count: int) -> None:
        """Give back what the database thinks we run and we never heard of.

        A connection that broke at the commit may have claimed jobs whose ids were lost with it, and
        the server may commit only after we asked; our heartbeat would keep them ours for ever.
        """
        if self._is_turning or held_count == self._runners.held + len(self._ended):
            return
        turns = self._turns
        try:
            async with self._beats.connection() as conn:
                held = await workers.held(conn, worker_id=self.worker_id)
        except Unavailable:
            return
        if not self._is_turning and turns == self._turns:
            self._give_back_unknown(held)

    def _give_back_unknown(self, held: list[tuple[str, int]]) -> None:
        known = {*self._runners.runs, *(job.id for job in self._runners.buffer)}
        known.update(job.id for job in self._runners.suspects)
        known.update(ended.id for ended in self._ended)
        unknown = [pair for pair in held if pair[0] not in known]
        if unknown:
            log.warning("claims_given_back", jobs=len(unknown))
            self._ended.extend(unstarted(job_id, attempt) for job_id, attempt in unknown)
            self._woken.set()

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
            self._ended.clear()
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

    async def _clock(self) -> None:
        """Stop runs that are over their time or were cancelled; write progress and virtual time."""
        loop = asyncio.get_running_loop()
        next_control = loop.time()
        while True:
            await asyncio.sleep(self._tick_s)
            self._runners.stop_overdue()
            self._give_back(self._runners.take_stale(PREFETCH_AGE_S))
            if loop.time() < next_control or not (self._runners.held or self._vtimes):
                continue
            next_control = loop.time() + CONTROL_S
            try:
                await self._control_turn()
            except Unavailable as error:
                log.debug("control_turn_failed", reason=error.message)
            except Exception as error:
                log.error("control_turn_broke", exc_info=error)

    async def _control_turn(self) -> None:
        async with self._control.database.connection() as conn:
            if vtimes := self._vtimes.copy():
                await lanes.push_vtime(conn, [(*lane, rank) for lane, rank in vtimes.items()])
                # Only what was pushed goes: a failed push is made good by the next one.
                self._vtimes = {
                    lane: rank for lane, rank in self._vtimes.items() if rank > vtimes.get(lane, 0)
                }
            cancelled = (
                await workers.cancelled_runs(conn, worker_id=self.worker_id)
                if self._runners.held
                else []
            )
        self._give_back(self._runners.cancel(cancelled))
        for job_id in await self._writer.write_progress():
            if run := self._runners.runs.get(job_id):
                self._changes.note(run.workspace_id, (job_id,))


def unstarted(job_id: str, attempt: int) -> Ended:
    """Return the row that gives back a job that never began: no attempt used, none logged."""
    return Ended(job_id, attempt, "pending", "unstarted", delay_s=0.0, is_refunded=True)
