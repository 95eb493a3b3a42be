"""What is measured of every queue: rates, waiting times, what idling costs, memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.figures import Figures, percentile
from tests.benchmarks.peers import Peer, run
from tests.benchmarks.processes import database, drain, fleet, one_number, pss_bytes, until

SINGLES = 1_000
NAP_S = 0.05
NAP_SLOTS = 50
MARK_EVERY_S = 0.05
# An idle backend counts what it did up to 10 s later.
CALM_S = 15.0
IDLE_S = 40.0


def rates(admin_dsn: str, peer: Peer, jobs: int, figures: Figures) -> None:
    """Single enqueue, bulk enqueue, drain of empty jobs by two workers."""
    with database(admin_dsn, peer) as dsn:
        seconds = run(singles(peer, dsn))
        figures.add("single enqueue", peer.name, SINGLES / seconds, "jobs/s")
        seconds = timed(lambda: run(peer.bulk(dsn, "empty", {}, jobs)))  # type: ignore[arg-type]
        figures.add("bulk enqueue", peer.name, jobs / seconds, "jobs/s")
        done = drain(peer, dsn)
        figures.add("drain, 2 workers", peer.name, (jobs + SINGLES) / done.seconds, "jobs/s")


async def singles(peer: Peer, dsn: str) -> float:
    """Return the seconds that so many single enqueues take, one after the other."""
    async with peer.client(dsn) as enqueue:
        await enqueue("empty", {})
        began = time.monotonic()
        for _ in range(SINGLES - 1):
            await enqueue("empty", {})
        return time.monotonic() - began


def naps(admin_dsn: str, peer: Peer, jobs: int, figures: Figures) -> None:
    """Jobs of 50 ms in two workers of 50 slots: the share of what is possible at best."""
    with database(admin_dsn, peer) as dsn:
        run(peer.bulk(dsn, "nap", {"seconds": NAP_S}, jobs))  # type: ignore[arg-type]
        ideal_s = jobs * NAP_S / (2 * NAP_SLOTS)
        share = ideal_s / drain(peer, dsn, NAP_SLOTS).working_s
        figures.add("50 ms jobs at 2 x 50", peer.name, 100 * share, "% of ideal")


def pick_up(admin_dsn: str, peer: Peer, jobs: int, figures: Figures) -> None:
    """From the commit of a job to its handler's start, on idle workers, a job each 50 ms."""
    with database(admin_dsn, peer) as dsn, fleet(peer, dsn) as serving:
        committed = run(marks(peer, dsn, jobs))
        until(lambda: serving.log.read_text().count("\n") >= jobs, 30.0)
        waits = []
        for line in serving.log.read_text().splitlines():
            number, began_ns = line.split()
            waits.append((int(began_ns) - committed[int(number)]) / 1e6)
        for share in (50, 95, 99):
            figures.add(f"pick-up p{share}", peer.name, percentile(waits, share / 100), "ms")


async def marks(peer: Peer, dsn: str, jobs: int) -> dict[int, int]:
    """Enqueue a job each 50 ms; return when each one's commit was acknowledged."""
    committed = {}
    async with peer.client(dsn) as enqueue:
        next_at = asyncio.get_running_loop().time()
        for number in range(jobs):
            next_at += MARK_EVERY_S
            await asyncio.sleep(next_at - asyncio.get_running_loop().time())
            committed[number] = await enqueue("mark", {"number": number})
    return committed


def idle(admin_dsn: str, peer: Peer, jobs: int, figures: Figures) -> None:
    """Transactions a second of each process when nothing is to do, and memory after work."""
    with database(admin_dsn, peer) as dsn, fleet(peer, dsn) as serving:
        run(peer.bulk(dsn, "mark", {"number": 0}, jobs))  # type: ignore[arg-type]
        until(lambda: serving.log.read_text().count("\n") >= jobs, 60.0)
        time.sleep(CALM_S)
        counter = (
            "select xact_commit + xact_rollback from pg_stat_database"
            " where datname = current_database()"
        )
        # The first look's own commit is not in its answer but in the second's.
        before = one_number(dsn, counter)
        time.sleep(IDLE_S)
        queries = (one_number(dsn, counter) - before - 1) / IDLE_S
        figures.add("idle", peer.name, queries / serving.size, "queries/s a process")
        megabytes = [pss_bytes(pid) / 2**20 for pid in serving.workers]
        figures.add("memory (PSS)", peer.name, sum(megabytes) / len(megabytes), "MiB a worker")


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds a call takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began
