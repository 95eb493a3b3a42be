"""Runs: claimed jobs on their way through their handlers.

`Runners` holds a small buffer of claimed jobs and at most `concurrency` tasks that take from it. A
task runs one job after the other, which costs less than a task a job; it ends when the buffer is
empty or a handler left something behind in its context.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from enrichd.domain.jobs import Claimed
from enrichd.domain.outcomes import Cancelled, Failed, JobError, Outcome
from enrichd.domain.retries import RetryRule
from enrichd.errors import ClaimLost
from enrichd.handlers.context import Item, OutsideEvent
from enrichd.processing.items import ItemWriter
from enrichd.processing.run import message_of, run_job, timed_out
from enrichd.queue.endings import ended_of
from enrichd.store.jobs import Ended

if TYPE_CHECKING:
    from enrichd.providers.roster import Providers

# Jobs that take less than this are claimed ahead of free slots; slower ones never are.
SHORT_RUN_S = 0.1
# A handler that never waits would keep the loop from reading the database's answer.
RUNS_WITHOUT_A_PAUSE = 32
# A handler that is stopped may take its time to clean up; it is told again after this long.
STOP_AGAIN_S = 5.0
SUSPECTS_MAX = 50


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
    stop_again_at: float = 0.0

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
    def attempts_left(self) -> int:
        """Return how many attempts the job has after this one."""
        return max(self.job.max_retries + 1 - self.job.attempt, 0)

    @property
    def priority(self) -> int:
        """Return the job's priority."""
        return self.job.priority

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

    async def outside_events(self) -> Sequence[OutsideEvent]:
        """Return what was sent for the job while it was parked."""
        return await self.writer.outside_events(self.job.id)

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

    def stop(self, why: Outcome, now: float) -> None:
        """Cancel the handler; the run ends in `why` unless it still ends by itself."""
        if self.stopped_by is None:
            self.stopped_by = why
        if now >= self.stop_again_at:
            self.stop_again_at = now + STOP_AGAIN_S
            self.task.cancel()


class Runners:
    """The buffer and the tasks that empty it."""

    def __init__(
        self,
        *,
        concurrency: int,
        job_timeout_s: float,
        retry_rule: RetryRule,
        writer: ItemWriter,
        open_providers: Callable[[], Providers],
        on_end: Callable[[Ended | None], None],
    ) -> None:
        self.buffer: deque[Claimed] = deque()
        self.suspects: deque[Claimed] = deque()
        """Jobs whose worker died before: each runs alone, so that it can harm no other."""
        self.is_alone = False
        """Whether suspects are being run, one at a time."""
        self.runs: dict[str, Run] = {}
        self.average_s = SHORT_RUN_S
        """Moving average of how long a run takes; a new process starts without prefetch."""
        self.is_held = False
        """True keeps jobs in the buffer: whether they are still ours is being asked."""
        self._concurrency = concurrency
        self._job_timeout_s = job_timeout_s
        self._retry_rule = retry_rule
        self._writer = writer
        self._open_providers = open_providers
        self._on_end = on_end
        self._tasks: set[asyncio.Task[None]] = set()
        self._clean = copy_context()

    @property
    def held(self) -> int:
        """Return how many jobs are here, buffered or running."""
        return len(self.buffer) + len(self.runs) + len(self.suspects)

    def ids(self) -> set[str]:
        """Return the ids of the jobs that are here."""
        waiting = {job.id for jobs in (self.buffer, self.suspects) for job in jobs}
        return waiting | self.runs.keys()

    def lanes(self) -> list[str]:
        """Return the lane of each job that is here."""
        held = [run.job.provider_id for run in self.runs.values()]
        return held + [job.provider_id for jobs in (self.buffer, self.suspects) for job in jobs]

    def take_in(self, claimed: list[Claimed]) -> None:
        """Buffer claimed jobs and have tasks for them."""
        now = asyncio.get_running_loop().time()
        for job in claimed:
            job.taken_at = now
            (self.suspects if job.crashes else self.buffer).append(job)
        if not self.suspects:
            self.start()

    def run_suspect(self) -> None:
        """Run the first suspect; the caller has seen to it that nothing else runs."""
        self.buffer.append(self.suspects.popleft())
        self.start()

    def spare_suspects(self, keep: int = SUSPECTS_MAX) -> list[Claimed]:
        """Take the suspects beyond the first `keep`: other workers shall share them."""
        spare = list(self.suspects)[keep:]
        while len(self.suspects) > keep:
            self.suspects.pop()
        return spare

    def start(self) -> None:
        """Start tasks for what is buffered, up to the concurrency."""
        if self.is_held:
            return
        wanted = min(len(self.buffer), self._concurrency - len(self._tasks))
        for _ in range(wanted):
            task = asyncio.get_running_loop().create_task(self._work(), context=self._clean.copy())
            self._tasks.add(task)

    def empty_buffer(self) -> list[Claimed]:
        """Take every job that has not begun, suspects aside."""
        jobs = list(self.buffer)
        self.buffer.clear()
        return jobs

    def empty(self) -> list[Claimed]:
        """Take every job that has not begun."""
        jobs = [*self.buffer, *self.suspects]
        self.buffer.clear()
        self.suspects.clear()
        return jobs

    def take_stale(self, age_s: float) -> list[Claimed]:
        """Take every job that has not begun when the first has waited for `age_s`."""
        now = asyncio.get_running_loop().time()
        if not self.buffer or now - self.buffer[0].taken_at < age_s:
            return []
        # Runs turned slow: no prefetch until enough short ones have ended again.
        self.average_s = max(self.average_s, 2 * SHORT_RUN_S)
        return self.empty_buffer()

    def stop_overdue(self) -> None:
        """Stop the runs that took longer than JOB_TIMEOUT."""
        now = asyncio.get_running_loop().time()
        for run in self.runs.values():
            if now >= run.deadline:
                run.stop(timed_out(self._job_timeout_s), now)

    def cancel(self, job_ids: list[str]) -> list[Claimed]:
        """Stop the runs that somebody cancelled; return those of the jobs that had not begun."""
        now = asyncio.get_running_loop().time()
        wanted = set(job_ids)
        for job_id in wanted & self.runs.keys():
            self.runs[job_id].stop(Cancelled("somebody cancelled the job"), now)
        unstarted = [job for job in self.buffer if job.id in wanted]
        for job in unstarted:
            self.buffer.remove(job)
        return unstarted

    def stop_all(self, why: Outcome) -> None:
        """Stop every run."""
        now = asyncio.get_running_loop().time()
        for run in self.runs.values():
            run.stop(why, now)

    async def abandon(self) -> None:
        """Cancel what is left, at the very end, and start nothing more."""
        self.is_held = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await self._work_through_buffer(task)
        finally:
            self._tasks.discard(task)
            self.start()

    async def _work_through_buffer(self, task: asyncio.Task[None]) -> None:
        clock = asyncio.get_running_loop().time
        count = 0
        while self.buffer and not self.is_held:
            job = self.buffer.popleft()
            began = clock()
            run = Run(job, task, began + self._job_timeout_s, self._writer, self._open_providers)
            self.runs[job.id] = run
            try:
                ended = await self._end_of(job, run)
            finally:
                del self.runs[job.id]
            took_s = clock() - began
            self.average_s += (took_s - self.average_s) * 0.05
            if ended is not None:
                ended.type, ended.workspace_id, ended.ran_s = job.type, job.workspace_id, took_s
            self._on_end(ended)
            if copy_context() != self._clean:
                return  # The handler set a context variable: the next job gets a fresh task.
            count += 1
            if count % RUNS_WITHOUT_A_PAUSE == 0:
                await asyncio.sleep(0)

    async def _end_of(self, job: Claimed, run: Run) -> Ended | None:
        """Run a job and return how it ended; None for a run that lost its claim."""
        try:
            outcome = await run_job(job, run)
        except ClaimLost:
            return None
        except asyncio.CancelledError:
            if run.stopped_by is None:
                raise
            while run.task.cancelling():
                run.task.uncancel()
            outcome = run.stopped_by
        try:
            return ended_of(job, outcome, self._retry_rule, random.random())
        except Exception as error:  # noqa: BLE001 - an outcome made of nonsense ends its job only
            bad = Failed(JobError("bad_result", f"the outcome cannot be read: {message_of(error)}"))
            return ended_of(job, bad, self._retry_rule, 0.0)
