"""What must hold after any run of the nemesis: the guarantees of DESIGN §4, over every row."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from enrichd.domain.jobs import NewJob
from tests.e2e.daemon import query

LEGAL = {
    "n_work": {"completed"},
    "n_failing": {"failed"},
    "n_flaky": {"completed", "dead_letter"},
    "n_snoozing": {"completed"},
    "n_deadly": {"dead_letter"},
    "n_batch": {"completed"},
}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job as its handler wrote it down, in nanoseconds of the monotonic clock."""

    job_id: UUID
    attempt: int
    pid: int
    began: int
    ended: int | None
    """None when the process died first."""
    was_paused: bool


def runs_of(log: Path, paused: Sequence[tuple[int, int, int]]) -> list[Run]:
    """Read the handlers' log."""
    pauses = defaultdict(list)
    for pid, since, until in paused:
        pauses[pid].append((since, until))
    begun: dict[tuple[UUID, int], int] = {}
    runs = []

    def add(job_id: UUID, attempt: int, pid: int, began: int, ended: int | None) -> None:
        was_paused = any(
            since <= (ended or since) and began <= until for since, until in pauses[pid]
        )
        runs.append(Run(job_id, attempt, pid, began, ended, was_paused))

    attempts: dict[tuple[UUID, int], int] = {}
    for line in log.read_text().splitlines():
        at, what, job, attempt, process = line.split()
        key = (UUID(job), int(process))
        if what == "begin":
            if key in begun:
                add(key[0], attempts[key], key[1], begun[key], None)
            begun[key], attempts[key] = int(at), int(attempt)
        else:
            add(key[0], int(attempt), key[1], begun.pop(key), int(at))
    for key, began in begun.items():
        add(key[0], attempts[key], key[1], began, None)
    return runs


def check(url: str, accepted: Mapping[UUID, NewJob], runs: Sequence[Run]) -> list[str]:
    """Return what is wrong, a line each."""
    return [
        *lost_or_made_up(url, accepted),
        *illegal_ends(url, accepted),
        *recorded_twice(url),
        *over_budget(url),
        *incomplete_batches(url, accepted),
        *left_behind(url),
        *overlapping(runs),
        *never_ran(url, runs),
    ]


def lost_or_made_up(url: str, accepted: Mapping[UUID, NewJob]) -> list[str]:
    """Every accepted job is there, and no other."""
    there = {job_id for (job_id,) in query(url, "select id from enrichment_jobs")}
    return [
        *(f"job {job_id} was accepted and is lost" for job_id in accepted.keys() - there),
        *(f"job {job_id} was never accepted" for job_id in there - accepted.keys()),
    ]


def illegal_ends(url: str, accepted: Mapping[UUID, NewJob]) -> list[str]:
    """Each ended as its type may, was cancelled by somebody, or took three workers with it."""
    wrong = []
    for job_id, status, crashes, asked, result in query(
        url,
        "select id, status, crashes, cancel_requested_at is not null, result from enrichment_jobs",
    ):
        if job_id not in accepted:
            continue
        legal = set(LEGAL[accepted[job_id].type])
        if asked:
            legal.add("cancelled")
        if crashes >= 3:
            legal.add("dead_letter")
        if status not in legal:
            wrong.append(f"{accepted[job_id].type} {job_id} is {status}, {crashes} crashes")
        if status == "completed" and result is None:
            wrong.append(f"job {job_id} is completed without a result")
    return wrong


def recorded_twice(url: str) -> list[str]:
    """No job has two completed attempts, and a completed one has one."""
    rows = query(
        url,
        "select job.id, job.status, count(attempt.job_id) from enrichment_jobs as job"
        "  left join enrichment_job_attempts as attempt"
        "    on attempt.job_id = job.id and attempt.outcome = 'completed'"
        " group by job.id, job.status"
        " having count(attempt.job_id) <> (job.status = 'completed')::int",
    )
    return [f"job {job_id} is {status} and completed {n} times" for job_id, status, n in rows]


def over_budget(url: str) -> list[str]:
    """No job ran more often than it may."""
    rows = query(
        url,
        "select id, attempts, max_retries from enrichment_jobs where attempts > max_retries + 1",
    )
    return [
        f"job {job_id} has {tried} attempts, {allowed} retries" for job_id, tried, allowed in rows
    ]


def incomplete_batches(url: str, accepted: Mapping[UUID, NewJob]) -> list[str]:
    """A completed batch has each of its leads once."""
    leads = defaultdict(list)
    for job_id, key in query(
        url,
        "select item.job_id, item.item_key from enrichment_job_items as item"
        "  join enrichment_jobs as job on job.id = item.job_id where job.status = 'completed'",
    ):
        leads[job_id].append(key)
    done = query(
        url, "select id from enrichment_jobs where type = 'n_batch' and status = 'completed'"
    )
    return [
        f"batch {job_id} has the leads {sorted(leads[job_id])}"
        for (job_id,) in done
        if job_id in accepted and sorted(leads[job_id]) != sorted(accepted[job_id].payload["leads"])
    ]


def left_behind(url: str) -> list[str]:
    """No worker is left that nobody declared dead."""
    rows = query(url, "select id, state, host, pid from enrichment_workers where state <> 'dead'")
    return [f"worker {worker} is {state}" for worker, state, _, _ in rows]


def overlapping(runs: Sequence[Run]) -> list[str]:
    """No two runs of a job overlap, unless the first one's process was stopped meanwhile."""
    by_job = defaultdict(list)
    for run in runs:
        by_job[run.job_id].append(run)
    wrong = []
    for job_id, mine in by_job.items():
        mine.sort(key=lambda run: run.began)
        for first, second in itertools.pairwise(mine):
            if first.ended is not None and second.began < first.ended and not first.was_paused:
                overlap_s = (first.ended - second.began) / 1e9
                wrong.append(
                    f"job {job_id} ran twice at once for {overlap_s:.3f} s: attempt"
                    f" {first.attempt} in {first.pid}, {second.attempt} in {second.pid}"
                )
    return wrong


def never_ran(url: str, runs: Sequence[Run]) -> list[str]:
    """A completed job has a run."""
    ran = {run.job_id for run in runs}
    rows = query(url, "select id from enrichment_jobs where status = 'completed'")
    return [f"job {job_id} is completed and never ran" for (job_id,) in rows if job_id not in ran]
