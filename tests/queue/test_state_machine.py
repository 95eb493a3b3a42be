"""The queue against a model of DESIGN §3 and §4: any calls, any order, any worker, fresh or stale.

Hypothesis makes up the sequences; the model says after each call how every job, attempt and lead
must stand. ENRICHD_STATE_EXAMPLES sets how many sequences are tried (100).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from enrichd.domain.jobs import CANCELLABLE, MOVES, RETRYABLE, TERMINAL, Claimed, JobStatus, NewJob
from enrichd.domain.outcomes import (
    Cancelled,
    Completed,
    Failed,
    JobError,
    Outcome,
    Park,
    Released,
    Retry,
    Snooze,
)
from enrichd.domain.retries import RetryRule
from enrichd.errors import IllegalMove, JobNotFound
from enrichd.queue.endings import ended_of
from enrichd.queue.manager import JobQueueManager
from enrichd.store import items, job_moves, lanes, prune, workers
from enrichd.store.database import Connection, Database
from enrichd.store.items import NewItem
from enrichd.store.jobs import Ended
from tests.support.factories import a_worker, open_plan

pytestmark = pytest.mark.queue

EXAMPLES = int(os.environ.get("ENRICHD_STATE_EXAMPLES", "100"))
SEQUENCE_STEPS = 40
LATER_S = 3600.0
TIMEOUT_S = 20.0
ERROR = JobError("provider_down", "timed out", "hunter", retryable=True)
LANES = ("free", "hunter")
WORKSPACES = ("a", "b")
Answer = TypeVar("Answer")
Known = TypeVar("Known")


@dataclass(frozen=True, slots=True)
class Run:
    """A claim that was handed out once: the fence's three parts, still valid or not."""

    job_id: UUID
    worker_id: UUID
    claimed: Claimed


@dataclass(slots=True)
class Expected:
    """How one job must stand."""

    workspace_id: str
    lane: str
    priority: int
    max_retries: int
    key: str | None
    status: JobStatus
    is_due: bool
    """Whether its time has come; read only while it is scheduled or waiting."""
    attempts: int = 0
    crashes: int = 0
    worker_id: UUID | None = None
    is_cancel_requested: bool = False
    result: Any = None
    log: list[tuple[int, str, UUID | None]] = field(default_factory=list)
    """(attempt, outcome, worker) of each run that ended while the job went on."""
    leads: dict[str, str] = field(default_factory=dict)

    def is_run_by(self, run: Run) -> bool:
        """Say whether a run holds the job: the fence."""
        return (self.status, self.worker_id, self.attempts) == (
            JobStatus.PROCESSING,
            run.worker_id,
            run.claimed.attempt,
        )

    def history(self) -> list[tuple[int, str | None, UUID | None]]:
        """Return the attempts as the view must show them."""
        shown: list[tuple[int, str | None, UUID | None]] = list(self.log)
        if self.worker_id is not None:
            outcome = {JobStatus.PROCESSING: None, JobStatus.DEAD_LETTER: "failed"}.get(
                self.status, str(self.status)
            )
            shown.append((self.attempts, outcome, self.worker_id))
        return sorted(shown, key=str)

    def end(self, outcome: Outcome | None) -> None:
        """Follow the end of the run that holds the job; None is a run that never began."""
        attempt, worker_id = self.attempts, self.worker_id
        match outcome:
            case Completed(result):
                self.status, self.result = JobStatus.COMPLETED, result
                return
            case Failed():
                self.status = JobStatus.FAILED
                return
            case Cancelled():
                self.status = JobStatus.CANCELLED
                return
            case Retry() if attempt > self.max_retries:
                self.status = JobStatus.DEAD_LETTER
                return
            case Retry(_, delay_s):
                self.put_aside(JobStatus.SCHEDULED, delay_s == 0)
                logged = "retry"
            case Snooze(delay_s):
                self.put_aside(JobStatus.SCHEDULED, delay_s == 0)
                self.attempts -= 1
                logged = "snoozed"
            case Park(deadline_s):
                self.put_aside(JobStatus.WAITING, deadline_s == 0)
                self.attempts -= 1
                logged = "parked"
            case Released():
                self.put_aside(JobStatus.PENDING, True)
                self.attempts -= 1
                logged = "released"
            case None:
                self.put_aside(JobStatus.PENDING, True)
                self.attempts -= 1
                return
            case _:
                raise AssertionError(outcome)
        self.log.append((attempt, logged, worker_id))

    def put_aside(self, status: JobStatus, is_due: bool) -> None:
        """Leave the worker; a cancel that was asked for wins."""
        self.status = JobStatus.CANCELLED if self.is_cancel_requested else status
        self.is_due = is_due
        self.worker_id = None

    def crash(self, *, is_worker_gone: bool) -> None:
        """Follow the rescue from a dead worker.

        These workers run nothing alone, so a suspect was only held by one and is not to blame,
        unless its worker's row, which could say so, is gone.
        """
        if self.crashes and not is_worker_gone:
            self.put_aside(JobStatus.PENDING, True)
            self.attempts -= 1
            return
        self.log.append((self.attempts, "crashed", self.worker_id))
        self.crashes += 1
        again = self.attempts <= self.max_retries and self.crashes < job_moves.CRASHES_MAX
        self.put_aside(JobStatus.PENDING if again else JobStatus.DEAD_LETTER, True)

    def expire(self) -> None:
        """Follow a callback that never came."""
        again = self.attempts < self.max_retries
        self.status = JobStatus.SCHEDULED if again else JobStatus.DEAD_LETTER
        self.attempts += 1

    def retry(self) -> None:
        """Follow a retry by hand: attempts anew, history kept, failed leads again."""
        if self.worker_id is not None:
            outcome = "cancelled" if self.status == JobStatus.CANCELLED else "failed"
            self.log.append((self.attempts, outcome, self.worker_id))
        self.status, self.attempts, self.worker_id = JobStatus.PENDING, 0, None
        self.crashes, self.is_cancel_requested = 0, False
        self.leads = {key: status for key, status in self.leads.items() if status == "completed"}


def outcomes() -> st.SearchStrategy[Outcome | None]:
    """Return every way a run may end; None is one that never began."""
    delays = st.sampled_from([0.0, LATER_S])
    return st.one_of(
        st.just(Completed({"email": "ada@example.com"})),
        st.just(Failed(ERROR)),
        delays.map(lambda delay_s: Retry(ERROR, delay_s)),
        delays.map(Snooze),
        delays.map(Park),
        st.just(Cancelled("asked")),
        st.just(Released()),
        st.none(),
    )


def ended(run: Run, outcome: Outcome | None) -> Ended:
    """Return the row that a worker would send for the end of a run."""
    if outcome is None:
        return Ended(
            run.claimed.id,
            run.claimed.attempt,
            "pending",
            "unstarted",
            delay_s=0.0,
            is_refunded=True,
        )
    return ended_of(run.claimed, outcome, RetryRule(), 0.5)


PICK = st.integers(0, 99)
"""Which of the known jobs, runs or workers; 0 is the newest."""

MOSTLY = st.sampled_from([True, True, True, False])

NEW_JOBS = st.fixed_dictionaries(
    {
        "workspace_id": st.sampled_from(WORKSPACES),
        "lane": st.sampled_from(LANES),
        "priority": st.sampled_from([3, 1]),
        "leads": st.integers(1, 3),
        "max_retries": st.sampled_from([1, 0, 2, 9]),
        "key": st.sampled_from([None, None, "x", "y"]),
        "delay_s": st.sampled_from([None, None, 0.0, LATER_S]),
        "count": st.integers(1, 3),
        "in_bulk": st.booleans(),
    }
)


ENDS = st.tuples(PICK, MOSTLY, outcomes())
STEPS: dict[str, tuple[int, dict[str, st.SearchStrategy[Any]]]] = {
    "enqueue": (2, {"new": NEW_JOBS}),
    "take_a_turn": (
        5,
        {
            "worker": PICK,
            "room": st.integers(0, 4),
            "ends": st.lists(ENDS, max_size=3),
            "pushes": st.booleans(),
        },
    ),
    "end_a_run": (5, {"pick": PICK, "is_fresh": MOSTLY, "outcome": outcomes()}),
    "keep_a_lead": (
        2,
        {
            "pick": PICK,
            "is_fresh": MOSTLY,
            "key": st.sampled_from("123"),
            "is_good": st.booleans(),
        },
    ),
    "lose_a_worker": (1, {"worker": PICK, "how": st.sampled_from(["dead", "gone", "silent"])}),
    "beat": (1, {"worker": PICK}),
    "decide": (
        3,
        {
            "what": st.sampled_from(["cancel", "retry", "call back"]),
            "pick": PICK,
            "as_workspace": st.sampled_from([None, None, *WORKSPACES]),
        },
    ),
    "tend": (
        4,
        {"what": st.sampled_from(["all", "promote", "expire", "rescue", "floors"]), "late": PICK},
    ),
    "block_or_free_a_lane": (1, {"lane": st.sampled_from(LANES)}),
    "prune": (
        1,
        {"statuses": st.lists(st.sampled_from(sorted(TERMINAL)), min_size=1, unique=True)},
    ),
}
"""By method: how often it comes, and its arguments."""

STEPS_WEIGHTED = st.sampled_from(
    [name for name, (weight, _) in STEPS.items() for _ in range(weight)]
).flatmap(lambda name: st.tuples(st.just(name), st.fixed_dictionaries(STEPS[name][1])))


def picked(known: Sequence[Known], pick: int) -> Known:
    """Return one of the known, counted from the newest."""
    return known[-1 - pick % len(known)]


class QueueMachine(RuleBasedStateMachine):
    """The manager and the store on PostgreSQL, and beside them what must be true.

    All steps are one rule: Hypothesis leaves whole rules out of a sequence, and then most sequences
    run no job at all.
    """

    def __init__(self, runner: asyncio.Runner, database: Database) -> None:
        super().__init__()
        self.runner = runner
        self.database = database
        self.queue = JobQueueManager(database)
        self.expected: dict[UUID, Expected] = {}
        self.job_ids: list[UUID] = []
        self.runs: list[Run] = []
        self.alive: dict[UUID, bool] = {}
        """By worker: False once it was declared dead or its row is gone."""
        self.silent: set[UUID] = set()
        self.gone: set[UUID] = set()
        self.blocked: set[str] = set()
        self.statuses_before: dict[UUID, JobStatus] = {}

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(work)

    def sql(self, statement: str, *values: object) -> None:
        async def execute() -> None:
            async with self.database.connection() as conn:
                await conn.execute(statement, values)

        self.run(execute())

    def store(self, work: Any, **values: object) -> Any:
        """Call a store function on the connection."""

        async def call() -> Any:
            async with self.database.connection() as conn:
                return await work(conn, **values)

        return self.run(call())

    @initialize(first=st.lists(NEW_JOBS, min_size=1, max_size=3), room=st.integers(0, 4))
    def start_with_some_jobs_and_runs(self, first: list[dict[str, Any]], room: int) -> None:
        self.sql(
            """
            truncate enrichment_jobs, enrichment_job_items, enrichment_attempt_log,
                     enrichment_workers, enrichment_lanes, enrichment_provider_state
            """
        )
        for _ in range(2):
            self.start_worker()
        for new in first:
            self.enqueue(new)
        self.stands_as_the_model_says()
        self.take_a_turn(worker=0, room=room, ends=[], pushes=True)

    @rule(step=STEPS_WEIGHTED)
    def do(self, step: tuple[str, dict[str, Any]]) -> None:
        name, arguments = step
        getattr(self, name)(**arguments)

    def start_worker(self) -> None:
        self.alive[self.store(a_worker).id] = True

    # Jobs come

    def enqueue(self, new: dict[str, Any]) -> None:
        job = NewJob(
            "batch_lead_enrichment",
            {
                "leadIds": [str(number) for number in range(new["leads"])],
                "providerId": new["lane"],
            },
            workspace_id=new["workspace_id"],
            priority=new["priority"],
            max_retries=new["max_retries"],
            idempotency_key=new["key"],
            delay_s=new["delay_s"],
        )
        if new["in_bulk"]:
            answers = self.run(self.queue.enqueue_many([job] * new["count"]))
        else:
            answers = [self.run(self.queue.enqueue(job)) for _ in range(new["count"])]
        for answer in answers:
            there = [
                job_id
                for job_id, earlier in self.expected.items()
                if new["key"] is not None
                and (earlier.workspace_id, earlier.key) == (job.workspace_id, new["key"])
            ]
            assert answer.is_new is not bool(there)
            if there:
                assert [answer.id] == there
                continue
            is_later = bool(new["delay_s"])
            self.job_ids.append(answer.id)
            self.expected[answer.id] = Expected(
                job.workspace_id,
                new["lane"],
                job.priority,
                job.max_retries,
                new["key"],
                JobStatus.SCHEDULED if is_later else JobStatus.PENDING,
                is_due=not is_later,
            )

    # Workers work

    def take_a_turn(
        self,
        worker: int,
        room: int,
        ends: Sequence[tuple[int, bool, Outcome | None]],
        pushes: bool,
    ) -> None:
        """Record ends, of own runs, others' and stale ones, and claim; both in one statement."""
        worker_id = picked(list(self.alive), worker)
        by_job = {}
        for pick, is_fresh, outcome in ends if self.runs else ():
            run = self.a_run(pick, is_fresh=is_fresh, worker_id=worker_id)
            by_job[run.job_id] = (run, outcome)
        held = {
            run.job_id: outcome
            for run, outcome in by_job.values()
            if self.holds(Run(run.job_id, worker_id, run.claimed))
        }
        ready = [job for job in self.expected.values() if self.is_claimable(job)]
        plan = self.store(open_plan, room=max(room, 1))

        turn = self.run(
            self.queue.turn(
                worker_id=worker_id,
                ended=[ended(run, outcome) for run, outcome in by_job.values()],
                plan=plan,
                room=room,
            )
        )

        assert set(turn.lost) == {str(job_id) for job_id in by_job.keys() - held.keys()}
        for job_id, outcome in held.items():
            self.expected[job_id].end(outcome)
        assert len(turn.claimed) == min(room, len(ready)), "a claim misses no pending job"
        claimed = [self.expected[UUID(run.id)] for run in turn.claimed]
        left = [job for job in ready if not any(job is one for one in claimed)]
        assert len(left) == len(ready) - len(claimed)
        if claimed and left:
            assert max(job.priority for job in claimed) <= min(job.priority for job in left)
        for run, job in zip(turn.claimed, claimed, strict=True):
            job.status, job.worker_id = JobStatus.PROCESSING, worker_id
            job.attempts += 1
            assert (run.attempt, run.max_retries) == (job.attempts, job.max_retries)
            assert (run.workspace_id, run.provider_id) == (job.workspace_id, job.lane)
            self.runs.append(Run(UUID(run.id), worker_id, run))
        if pushes and turn.claimed:
            self.store(
                lanes.push_vtime,
                vtimes=[(run.provider_id, run.priority, run.fair_rank) for run in turn.claimed],
            )

    def is_claimable(self, job: Expected) -> bool:
        return job.status == JobStatus.PENDING and job.lane not in self.blocked

    def holds(self, run: Run) -> bool:
        """Say whether a run still owns its job."""
        job = self.expected.get(run.job_id)
        return job is not None and job.is_run_by(run)

    def a_run(self, pick: int, *, is_fresh: bool, worker_id: UUID | None = None) -> Run:
        """Return any run there ever was, or if possible one that still owns its job."""
        fresh = [
            run
            for run in self.runs
            if is_fresh and self.holds(run) and worker_id in (None, run.worker_id)
        ]
        return picked(fresh or self.runs, pick)

    def end_a_run(self, pick: int, is_fresh: bool, outcome: Outcome | None) -> None:
        """Record an end under the worker that claimed it, however long ago that was."""
        if not self.runs:
            return
        run = self.a_run(pick, is_fresh=is_fresh)
        is_held = self.holds(run)

        turn = self.run(
            self.queue.turn(worker_id=run.worker_id, ended=[ended(run, outcome)], plan=(), room=0)
        )

        assert turn.lost == ([] if is_held else [str(run.job_id)])
        if is_held:
            self.expected[run.job_id].end(outcome)

    def keep_a_lead(self, pick: int, is_fresh: bool, key: str, is_good: bool) -> None:
        if not self.runs:
            return
        run = self.a_run(pick, is_fresh=is_fresh)
        is_held = self.holds(run)
        status = "completed" if is_good else "failed"
        lead = NewItem(run.claimed.id, run.claimed.attempt, key, status, None, None)

        owned = self.store(items.record, worker_id=run.worker_id, items=[lead])

        assert owned == ({run.claimed.id} if is_held else set())
        if is_held:
            self.expected[run.job_id].leads.setdefault(key, status)

    # Workers go and others come

    def lose_a_worker(self, worker: int, how: str) -> None:
        worker_id = picked(list(self.alive), worker)
        match how:
            case "gone":
                self.store(workers.delete, worker_id=worker_id)
                self.gone.add(worker_id)
            case "dead":
                self.store(workers.declare_dead, worker_id=str(worker_id))
            case "silent":
                self.sql(
                    """
                    update enrichment_workers set heartbeat_at = now() - interval '1 hour'
                     where id = %s
                    """,
                    worker_id,
                )
                self.silent.add(worker_id)
                return
        self.alive[worker_id] = False
        self.start_worker()

    def beat(self, worker: int) -> None:
        worker_id = picked(list(self.alive), worker)
        held = self.store(
            workers.beat, worker_id=worker_id, state="running", running=0, completed=0, failed=0
        )

        mine = [job for job in self.in_state(JobStatus.PROCESSING) if job.worker_id == worker_id]
        assert held == (len(mine) if self.alive[worker_id] else None)
        self.silent.discard(worker_id)

    # People decide

    def decide(self, what: str, pick: int, as_workspace: str | None) -> None:
        job_id = picked(self.job_ids, pick)
        match what:
            case "cancel":
                self.cancel(job_id, as_workspace)
            case "retry":
                self.retry(job_id, as_workspace)
            case "call back":
                self.call_back(job_id)

    def cancel(self, job_id: UUID, as_workspace: str | None) -> None:
        job = self.found(job_id, as_workspace)
        moved = self.moved(self.queue.cancel, job_id, job, as_workspace, CANCELLABLE)
        if job is None or job.status not in CANCELLABLE:
            return
        job.is_cancel_requested = True
        if job.status != JobStatus.PROCESSING:
            job.status = JobStatus.CANCELLED
        assert moved == job.status

    def retry(self, job_id: UUID, as_workspace: str | None) -> None:
        job = self.found(job_id, as_workspace)
        self.moved(self.queue.retry, job_id, job, as_workspace, RETRYABLE)
        if job is not None and job.status in RETRYABLE:
            job.retry()

    def found(self, job_id: UUID, as_workspace: str | None) -> Expected | None:
        """Return the job as a workspace sees it; None as workspace is the job's own."""
        job = self.expected.get(job_id)
        return job if job and as_workspace in (None, job.workspace_id) else None

    def moved(
        self,
        move: Any,
        job_id: UUID,
        job: Expected | None,
        as_workspace: str | None,
        sources: Iterable[JobStatus],
    ) -> Any:
        """Make a move; hold that it is refused exactly when it must be, and in the right words."""
        workspace_id = as_workspace or (job.workspace_id if job else WORKSPACES[0])
        if job is None:
            with pytest.raises(JobNotFound):
                self.run(move(workspace_id=workspace_id, job_id=job_id))
            return None
        if job.status not in sources:
            with pytest.raises(IllegalMove, match=f"is {job.status} and cannot become"):
                self.run(move(workspace_id=workspace_id, job_id=job_id))
            return None
        return self.run(move(workspace_id=workspace_id, job_id=job_id))

    def call_back(self, job_id: UUID) -> None:
        job = self.expected.get(job_id)
        is_parked = job is not None and job.status == JobStatus.WAITING

        assert self.run(self.queue.resume(job_id=job_id)) is is_parked
        if job is not None and is_parked:
            job.status = JobStatus.PENDING

    # Time passes and upkeep is done

    def tend(self, what: str, late: int) -> None:
        """Let the time of some jobs come and do one part of the upkeep, or all of it."""
        timed = self.in_state(JobStatus.SCHEDULED) + self.in_state(JobStatus.WAITING)
        for job in timed[: late % 4]:
            self.come_due(job)
        match what:
            case "promote":
                assert len(self.store(job_moves.promote_due)) == self.expect_promotion()
            case "expire":
                assert len(self.store(job_moves.expire_waiting)) == self.expect_expiry()
            case "rescue":
                assert len(self.store(job_moves.rescue)) == self.expect_rescue()
            case "floors":
                self.sql("update enrichment_lanes set floor_at = now() - interval '6 s'")
                self.store(lanes.raise_floors)
            case "all":
                upkeep = self.run(self.queue.tend(worker_timeout_s=TIMEOUT_S))
                assert upkeep.promoted == self.expect_promotion()
                assert upkeep.expired == self.expect_expiry()
                for worker_id in self.silent:
                    self.alive[worker_id] = False
                assert upkeep.rescued == self.expect_rescue()

    def come_due(self, job: Expected) -> None:
        [job_id] = [job_id for job_id, one in self.expected.items() if one is job]
        self.sql(
            "update enrichment_jobs set scheduled_at = now() - interval '1 s' where id = %s",
            job_id,
        )
        job.is_due = True

    def expect_promotion(self) -> int:
        due = [job for job in self.in_state(JobStatus.SCHEDULED) if job.is_due]
        for job in due:
            job.status = JobStatus.PENDING
        return len(due)

    def expect_expiry(self) -> int:
        late = [job for job in self.in_state(JobStatus.WAITING) if job.is_due]
        for job in late:
            job.expire()
        return len(late)

    def expect_rescue(self) -> int:
        orphans = [
            job
            for job in self.in_state(JobStatus.PROCESSING)
            if job.worker_id is not None and not self.alive[job.worker_id]
        ]
        for job in orphans:
            job.crash(is_worker_gone=job.worker_id in self.gone)
        return len(orphans)

    def in_state(self, status: JobStatus) -> list[Expected]:
        return [job for job in self.expected.values() if job.status == status]

    def block_or_free_a_lane(self, lane: str) -> None:
        self.blocked ^= {lane}
        self.sql(
            """
            insert into enrichment_provider_state (provider_id, breaker) values (%s, %s)
                on conflict (provider_id) do update set breaker = excluded.breaker
            """,
            lane,
            "open" if lane in self.blocked else "closed",
        )

    def prune(self, statuses: list[JobStatus]) -> None:
        ended_jobs = [job_id for job_id, job in self.expected.items() if job.status in statuses]

        pruned = self.store(prune.prune, statuses=[str(status) for status in statuses], age_s=0.0)

        assert pruned == len(ended_jobs)
        for job_id in ended_jobs:
            del self.expected[job_id]

    # What must hold after each step

    @invariant()
    def stands_as_the_model_says(self) -> None:
        self.run(self.check())

    async def check(self) -> None:
        async with self.database.connection() as conn:
            rows = await fetch(conn, JOBS)
            history = await fetch(conn, HISTORY)
            leads = await fetch(conn, LEADS)
            vtimes = await fetch(conn, FLOORS)
        statuses = {row[0]: JobStatus(row[1]) for row in rows}
        self.hold_moves(statuses)
        self.statuses_before = statuses
        assert {row[0]: (row[1], row[2], row[3], row[4], row[5]) for row in rows} == {
            job_id: (job.status, job.attempts, job.worker_id, job.is_cancel_requested, job.result)
            for job_id, job in self.expected.items()
        }
        for _, status, attempts, worker_id, _, _, max_retries, is_ended in rows:
            assert 0 <= attempts <= max_retries + 1
            assert is_ended is (status in TERMINAL)
            assert status != JobStatus.PROCESSING or worker_id in self.alive
        shown: dict[UUID, list[Any]] = {job_id: [] for job_id in self.expected}
        for job_id, attempt, outcome, worker_id, is_finished in history:
            shown[job_id].append((attempt, outcome, worker_id))
            assert is_finished is (outcome is not None)
        assert {job_id: sorted(runs, key=str) for job_id, runs in shown.items()} == {
            job_id: job.history() for job_id, job in self.expected.items()
        }
        kept: dict[UUID, dict[str, str]] = {job_id: {} for job_id in self.expected}
        for job_id, key, status in leads:
            kept[job_id][key] = status
        assert kept == {job_id: job.leads for job_id, job in self.expected.items()}
        for vtime, floor_rank, lowest in vtimes:
            assert floor_rank <= vtime
            assert lowest is None or floor_rank <= lowest

    def hold_moves(self, statuses: dict[UUID, JobStatus]) -> None:
        """Hold that each job went where DESIGN §3 lets it go, and that none was lost."""
        for job_id, before in self.statuses_before.items():
            after = statuses.get(job_id)
            if after is None:
                assert before in TERMINAL, f"a job that was {before} is gone"
            else:
                assert after == before or after in MOVES[before], f"{before} → {after}"
        for job_id in statuses.keys() - self.statuses_before.keys():
            assert statuses[job_id] in (JobStatus.PENDING, JobStatus.SCHEDULED)


JOBS = """
    select id, status, attempts, worker_id, cancel_requested_at is not null, result, max_retries,
           completed_at is not null
      from enrichment_jobs
"""
HISTORY = """
    select job_id, attempt, outcome, worker_id, finished_at is not null
      from enrichment_job_attempts
"""
LEADS = "select job_id, item_key, status from enrichment_job_items"
FLOORS = """
    select lane.vtime, lane.floor_rank,
           (select min(job.fair_rank)
              from enrichment_jobs as job
             where job.status = 'pending'
               and job.provider_id = lane.provider_id
               and job.priority = lane.priority)
      from enrichment_lanes as lane
"""


async def fetch(conn: Connection, statement: str) -> list[tuple[Any, ...]]:
    return await (await conn.execute(statement)).fetchall()


def test_the_queue_does_what_the_design_says_whatever_comes_in_whatever_order(database_url):
    with asyncio.Runner() as runner:
        database = Database(database_url, name="state machine")
        try:
            run_state_machine_as_test(
                lambda: QueueMachine(runner, database),
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=SEQUENCE_STEPS,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(database.close())
