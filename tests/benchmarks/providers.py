"""Jobs that ask providers, through the whole path: limits, cache, credits, HTTP, merge, result.

The provider answers after 100 ms and costs next to nothing itself (provider_server.py). What holds
the rate is said by the CPU seconds that a job takes in the workers, PostgreSQL and the provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from enrichd.domain.jobs import NewJob
from enrichd.handlers.registry import load_handlers
from enrichd.queue.manager import JobQueueManager
from enrichd.store.database import Database
from tests.benchmarks.figures import Figures, percentile
from tests.benchmarks.peers import peer, run
from tests.benchmarks.processes import (
    ROOT,
    START_S,
    WORKERS,
    a_daemon,
    count_turning,
    database,
    one_number,
    until,
)
from tests.benchmarks.provider_worker import ASKED, app_of
from tests.support.whole_path import environment

LATENCY_S = 0.1
SLOTS = 50
DAEMONS = 2
BOTH = ((100, 1), (2000, 60))
QUICK_EVERY_S = 0.05
TICKS = os.sysconf("SC_CLK_TCK")


def providers(admin_dsn: str, jobs: int, figures: Figures) -> None:
    """Measure rate, warm caches, the limiter in daemons, and a throttled lane beside another."""
    rates(admin_dsn, jobs, figures)
    limiter(admin_dsn, jobs, figures)
    beside_a_throttled_one(admin_dsn, jobs, figures)


def rates(admin_dsn: str, jobs: int, figures: Figures) -> None:
    """Two workers of 50 slots: 1,000 a second at best; again with warm caches; procrastinate."""
    ideal = WORKERS * SLOTS / LATENCY_S
    with database(admin_dsn, peer("enrichd")) as dsn, a_provider(LATENCY_S) as url:
        for title, people in (
            ("100 ms provider", jobs),
            ("warm cache", jobs),
            ("warm memory", 100),
        ):
            run(enqueue(dsn, [a_job("hunter", number % people) for number in range(jobs)]))
            measure("enrichd", title, dsn, url, jobs, figures)
        assert one_number(dsn, "select count(*) from enrichment_jobs where result is null") == 0
        assert stats(url)["calls"] == jobs, "each person is asked about once"
    with database(admin_dsn, peer("procrastinate")) as dsn, a_provider(LATENCY_S) as url:
        few = max(jobs // 3, 100)
        run(defer(dsn, few))
        measure("procrastinate", "100 ms provider", dsn, url, few, figures)
    for whose in ("enrichd", "procrastinate"):
        rate = figures.values["100 ms provider", whose][-1]
        figures.add("100 ms provider: share", whose, 100 * rate / ideal, "% of ideal")


def measure(whose: str, title: str, dsn: str, url: str, jobs: int, figures: Figures) -> None:
    """Drain with two processes; add the rate and who used how much CPU for a job."""
    command = [sys.executable, "-m", "tests.benchmarks.provider_worker", whose, dsn, str(SLOTS)]
    env = {**os.environ, **asking(url), ASKED: f"{url}/hunter", "LOG_LEVEL": "warning"}
    workers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env
        )
        for _ in range(WORKERS)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    postgres, provider = postgres_cpu_s(dsn), stats(url)["cpu_s"]
    answers = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        out, _ = worker.communicate(timeout=600)
        answers.append([float(part) for part in out.split()[-3:]])
    seconds = max(ended for _, ended, _ in answers) - min(began for began, _, _ in answers)
    figures.add(title, whose, jobs / seconds, "jobs/s")
    for who, cpu_s in (
        ("workers", sum(cpu_s for _, _, cpu_s in answers)),
        ("PostgreSQL", postgres_cpu_s(dsn) - postgres),
        ("provider", stats(url)["cpu_s"] - provider),
    ):
        figures.add(f"{title}: CPU of {who}", whose, 1000 * cpu_s / jobs, "ms a job")


def limiter(admin_dsn: str, jobs: int, figures: Figures) -> None:
    """Two daemons of two workers with a backlog, and a provider of 100/s and 2,000/min."""
    seconds = 60 * min(jobs / 5_000, 1)
    title = f"2 daemons, 100/s + 2,000/min, {seconds:g} s"
    limits = {"HUNTER_RATE_LIMIT_PER_SECOND": "100", "HUNTER_RATE_LIMIT_PER_MINUTE": "2000"}
    with database(admin_dsn, peer("enrichd")) as dsn, a_provider(LATENCY_S, BOTH) as url:
        with psycopg.connect(dsn, autocommit=True) as conn:
            name = conn.info.dbname
            conn.execute(f"alter database {name} set track_functions = 'pl'")  # type: ignore[arg-type]
        run(enqueue(dsn, [a_job("hunter", number) for number in range(5_000)]))
        with daemons(dsn, {**asking(url), **limits}):
            until(lambda: stats(url)["calls"] > 0, START_S)
            time.sleep(seconds)
            seen = stats(url)
        asks = one_number(
            dsn,
            "select coalesce(sum(calls), 0) from pg_stat_user_functions"
            " where funcname = 'enrichment_take_permits'",
        )
        used_attempts = one_number(dsn, "select max(attempts) from enrichment_jobs")
    used = sum(at < seconds for at in seen["times"])
    possible = min(100 * seconds, 2000)
    figures.add(f"{title}: rejected", "enrichd", seen["refused"], "calls")
    for (calls, window), most in zip(BOTH, seen["fullest"], strict=True):
        figures.add(f"{title}: fullest {window} s", "enrichd", 100 * most / calls, "% of the limit")
    figures.add(f"{title}: used", "enrichd", 100 * used / possible, "%")
    figures.add(f"{title}: statements", "enrichd", asks / max(seen["calls"], 1), "a permit")
    figures.add(f"{title}: most attempts", "enrichd", used_attempts, "a job")


def beside_a_throttled_one(admin_dsn: str, jobs: int, figures: Figures) -> None:
    """100,000 jobs of a provider that allows 1/s: how long another provider's jobs wait."""
    backlog, quick = 20 * jobs, max(jobs // 10, 100)
    limits = {"HUNTER_RATE_LIMIT_PER_SECOND": "1"}
    waits = {}
    for title, before in (("alone", 0), (f"beside {backlog:,} throttled", backlog)):
        with database(admin_dsn, peer("enrichd")) as dsn, a_provider(LATENCY_S) as url:
            run(enqueue(dsn, (a_job("hunter", number) for number in range(before))))
            with psycopg.connect(dsn, autocommit=True) as conn:
                # What is measured is the backlog, not PostgreSQL's work after a large insert.
                conn.execute("vacuum analyze enrichment_jobs")
                conn.execute("checkpoint")
            with daemons(dsn, {**asking(url), **limits}, count=1):
                time.sleep(3)
                run(trickle(dsn, quick))
                until(lambda: not unfinished(dsn), 60.0)
                waits[title] = waited(dsn)
        for share in (50, 99):
            figures.add(
                f"wait p{share}, {title}",
                "enrichd",
                percentile(waits[title], share / 100),
                "ms",
            )


def unfinished(dsn: str) -> int:
    return one_number(
        dsn,
        "select count(*) from enrichment_jobs where provider_id = 'clearbit'"
        " and status <> 'completed'",
    )


def waited(dsn: str) -> list[float]:
    """Return the milliseconds from each quick job's creation to its start."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        rows = conn.execute(
            "select extract(epoch from started_at - created_at)::float8 * 1000"
            " from enrichment_jobs where provider_id = 'clearbit'"
        ).fetchall()
    return [wait for (wait,) in rows]


# Jobs


def a_job(provider: str, number: int) -> NewJob:
    lead = {"email": f"person{number}.quill@northwind.example"}
    return NewJob(
        "single_lead_enrichment",
        {"leadId": "1", "enrichmentTypes": ["person"], "inputData": lead, "providerId": provider},
    )


async def enqueue(dsn: str, jobs: Any) -> None:
    load_handlers(())
    own = Database(dsn)
    await JobQueueManager(own).enqueue_many(jobs)
    await own.close()


async def defer(dsn: str, count: int) -> None:
    async with app_of(dsn).open_async() as app:
        leads = [{"email": f"person{n}.quill@northwind.example"} for n in range(count)]
        await app.tasks["enrich"].batch_defer_async(*leads)


async def trickle(dsn: str, count: int) -> None:
    """Enqueue a job each 50 ms."""
    own = Database(dsn)
    queue = JobQueueManager(own)
    loop = asyncio.get_running_loop()
    next_at = loop.time()
    for number in range(count):
        next_at += QUICK_EVERY_S
        await asyncio.sleep(next_at - loop.time())
        await queue.enqueue(a_job("clearbit", number))
    await own.close()


# Processes


def asking(url: str) -> dict[str, str]:
    """Return the variables that lead to the provider, without limits of ours."""
    plenty = {
        f"{name}_RATE_LIMIT_PER_{length}": "1000000"
        for name in ("HUNTER", "CLEARBIT")
        for length in ("SECOND", "MINUTE", "HOUR")
    }
    return {
        **environment(),
        **plenty,
        "HUNTER_BASE_URL": f"{url}/hunter",
        "HUNTER_API_KEY": "key",
        "CLEARBIT_BASE_URL": f"{url}/clearbit",
        "CLEARBIT_API_KEY": "sk_key",
        "GRAVATAR_BASE_URL": f"{url}/nobody",
    }


@contextlib.contextmanager
def a_provider(latency_s: float, windows: Any = ()) -> Iterator[str]:
    """Give a provider's address."""
    command = [sys.executable, "-m", "tests.benchmarks.provider_server", str(latency_s)]
    process = subprocess.Popen(
        [*command, json.dumps(windows)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def daemons(dsn: str, env: dict[str, str], count: int = DAEMONS) -> Iterator[None]:
    """Run `enrichd` so many times, each with two workers."""
    with tempfile.TemporaryDirectory(prefix="enrichd-bench-") as parent:
        started = []
        for number in range(count):
            folder = Path(parent) / str(number)
            folder.mkdir()
            of_host = {"RUNTIME_DIRECTORY": str(folder), "MAX_CONCURRENT_JOBS": "25"}
            whole = {**os.environ, "PYTHONPATH": str(ROOT), **env, **of_host}
            with open(folder / "output", "wb") as output:
                started.append(a_daemon(dsn, whole, str(folder), output.fileno()))
        try:
            until(lambda: count_turning(dsn) >= WORKERS * count, START_S)
            yield
        finally:
            for process in started:
                process.terminate()
            for process in started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(40)
                process.kill()
                process.wait()


def stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/stats") as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def postgres_cpu_s(dsn: str) -> float:
    """Return the CPU seconds of a server on this machine, of its ended processes too."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        postmaster = int(fields_of(conn.info.backend_pid)[1])
    ticks = sum(map(int, fields_of(postmaster)[11:15]))
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                fields = fields_of(int(place.name))
                if int(fields[1]) == postmaster:
                    ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def fields_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
