"""enrichd's drain where queues get slow, each against a plain drain of the same minute."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import psycopg

from enrichd.domain.jobs import NewJob
from enrichd.handlers.registry import load_plugins
from enrichd.queue.manager import JobQueueManager
from enrichd.store.database import Database
from tests.benchmarks.figures import Figures
from tests.benchmarks.peer_enrichd import PLUGIN
from tests.benchmarks.peers import peer, run
from tests.benchmarks.processes import database, drain, fleet, one_number, until

ENRICHD = peer("enrichd")
NAP_S = 0.05

ROWS = """
    insert into enrichment_jobs (id, type, status, payload, attempts, fair_rank, worker_id, result,
                                 provider_id, scheduled_at, created_at, started_at, completed_at)
    select enrichment_uuid7(), 'empty', %(status)s, '{}', %(attempts)s, n, null, null, %(lane)s,
           case %(status)s when 'scheduled' then now() + interval '7 days' end,
           now() - interval '1 day', null,
           case %(status)s when 'completed' then now() - interval '1 day' end
      from generate_series(1, %(count)s) as n
"""


def fill(dsn: str, *, status: str, count: int, lane: str = "-") -> None:
    """Put rows into the jobs table, as if they had come long ago."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            ROWS,
            {
                "status": status,
                "count": count,
                "lane": lane,
                "attempts": int(status == "completed"),
            },
        )
        conn.execute("insert into enrichment_lanes (provider_id, priority) values (%s, 3)"
                     " on conflict do nothing", (lane,))  # fmt: skip
        conn.execute("vacuum analyze enrichment_jobs")


def plain(dsn: str, jobs: int) -> Iterator[None]:
    """Change nothing."""
    yield


def history(dsn: str, jobs: int) -> Iterator[None]:
    """Twenty times as many finished rows: a million beside 50,000."""
    fill(dsn, status="completed", count=20 * jobs)
    yield


def future(dsn: str, jobs: int) -> Iterator[None]:
    """Twenty times as many due next week."""
    fill(dsn, status="scheduled", count=20 * jobs)
    yield


def throttled(dsn: str, jobs: int) -> Iterator[None]:
    """Six times as many pending in a lane that must not be claimed from."""
    fill(dsn, status="pending", count=6 * jobs, lane="throttled")
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into enrichment_provider_state (provider_id, blocked_until)"
            " values ('throttled', now() + interval '1 hour')"
        )
    yield


def snapshot(dsn: str, jobs: int) -> Iterator[None]:
    """Hold a snapshot open, so that no dead row can be cleaned away."""
    with psycopg.connect(dsn) as conn:
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select count(*) from enrichment_jobs")
        yield


CASES: dict[str, tuple[Callable[[str, int], Iterator[None]], int, int]] = {
    "over 1,000,000 finished": (history, 1, 1),
    "1,000,000 due next week": (future, 1, 1),
    "snapshot held, 300,000 drained": (snapshot, 6, 1),
    "behind 300,000 throttled": (throttled, 1, 1),
    "500 workspaces": (plain, 1, 500),
}
"""By name: what is set up, how many times the jobs are drained, over how many workspaces."""


def hard(admin_dsn: str, jobs: int, figures: Figures) -> None:
    """Measure each case beside a plain drain of as many jobs."""
    for name, (prepare, times, workspaces) in CASES.items():
        base = one_drain(admin_dsn, times * jobs, plain, 1)
        rate = one_drain(admin_dsn, times * jobs, prepare, workspaces)
        figures.add(f"drain: {name}", "enrichd", rate, "jobs/s")
        figures.add(f"drain: {name}, of the plain one", "enrichd", rate / base, "x")


def one_drain(
    admin_dsn: str, jobs: int, prepare: Callable[[str, int], Iterator[None]], workspaces: int
) -> float:
    """Return the jobs a second of a drain."""
    prepared = contextlib.contextmanager(prepare)
    with database(admin_dsn, ENRICHD) as dsn, prepared(dsn, jobs):
        run(enqueue(dsn, jobs, workspaces))
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("checkpoint")
        return jobs / drain(ENRICHD, dsn).seconds


async def enqueue(dsn: str, jobs: int, workspaces: int) -> None:
    """Put empty jobs on the queue, workspace after workspace in turn."""
    load_plugins([PLUGIN])
    database = Database(dsn)
    new = [NewJob("empty", {}, workspace_id=f"ws {n % workspaces}") for n in range(jobs)]
    await JobQueueManager(database).enqueue_many(new)
    await database.close()


def crash(admin_dsn: str, jobs: int, figures: Figures) -> None:
    """Kill one of two workers in the middle of a drain of 50 ms jobs."""
    with database(admin_dsn, ENRICHD) as dsn, fleet(ENRICHD, dsn) as serving:
        run(numbered_naps(dsn, jobs))
        until(lambda: serving.log.read_text().count("\n") >= jobs // 4, 60.0)
        victim = serving.workers[0]
        os.kill(victim, signal.SIGKILL)
        killed_ns = time.monotonic_ns()
        with psycopg.connect(dsn, autocommit=True) as conn:
            rows = conn.execute(
                "select (payload ->> 'number')::int from enrichment_jobs as job"
                "  join enrichment_workers as worker on worker.id = job.worker_id"
                " where job.status = 'processing' and worker.pid = %s", (victim,)
            ).fetchall()  # fmt: skip
        left = "select count(*) from enrichment_jobs where status in ('pending', 'processing')"
        until(lambda: not one_number(dsn, left), 120.0)
        held = {number for (number,) in rows}
        again = [
            (int(began_ns) - killed_ns) / 1e9
            for number, began_ns in map(str.split, serving.log.read_text().splitlines())
            if int(number) in held and int(began_ns) > killed_ns
        ]
        lost = jobs - one_number(
            dsn, "select count(*) from enrichment_jobs where status = 'completed'"
        )
        twice = one_number(
            dsn,
            "select count(*) from (select job_id from enrichment_job_attempts"
            " where outcome = 'completed' group by job_id having count(*) > 1) as twice",
        )
        figures.add("crash: jobs held by the dead worker", "enrichd", len(held), "jobs")
        if again:
            figures.add("crash: first of them runs again", "enrichd", min(again), "s")
            figures.add("crash: all of them run again", "enrichd", max(again), "s")
        figures.add("crash: lost", "enrichd", lost, "jobs")
        figures.add("crash: recorded twice", "enrichd", twice, "jobs")


async def numbered_naps(dsn: str, jobs: int) -> None:
    """Put naps on the queue that write down which one begins."""
    load_plugins([PLUGIN])
    database = Database(dsn)
    new = [NewJob("nap", {"seconds": NAP_S, "number": number}) for number in range(jobs)]
    await JobQueueManager(database).enqueue_many(new)
    await database.close()
