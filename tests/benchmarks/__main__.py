"""Measure enrichd beside its peers and print a table.

    python -m tests.benchmarks [--jobs 50000] [--rounds 3] [--peers enrichd,pgqueuer]

The server is a throw-away one with PostgreSQL's own durable settings, or the one that
ENRICHD_BENCH_DATABASE_URL names.
Peers take turns within a round, and the table shows each one's median and its ratio to pgqueuer's:
on a shared machine only ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from enrichd.store import embedded
from tests.benchmarks.peers import PEERS, Peer, run
from tests.support.postgres import dsn_of

RUNNERS = 2
SINGLES = 1_000
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "100"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(peer.name for peer in PEERS))
    parser.add_argument("--slow-jobs", type=int, default=5_000, help="procrastinate's share")
    options = parser.parse_args()
    peers = [peer for peer in PEERS if peer.name in options.peers.split(",")]
    figures: dict[tuple[str, str], list[float]] = {}
    with server() as admin_dsn:
        for number in range(options.rounds):
            for peer in peers:
                jobs = options.slow_jobs if peer.name == "procrastinate" else options.jobs
                for what, rate in measure(admin_dsn, peer, jobs):
                    figures.setdefault((peer.name, what), []).append(rate)
                    print(f"round {number + 1}: {peer.name} {what} {rate:,.0f}/s", file=sys.stderr)
    show(peers, figures)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Give the admin DSN of the server to measure on."""
    if url := os.environ.get("ENRICHD_BENCH_DATABASE_URL"):
        yield url
        return
    with (
        tempfile.TemporaryDirectory(prefix="enrichd-bench-") as folder,
        embedded.start(Path(folder) / "data", settings=SETTINGS) as started,
    ):
        yield started.dsn


def measure(admin_dsn: str, peer: Peer, jobs: int) -> Iterator[tuple[str, float]]:
    """Yield (what, jobs a second) for one peer on a database of its own."""
    with database(admin_dsn) as dsn:
        run(peer.set_up(dsn))
        yield "single enqueue", SINGLES / timed(lambda: run(peer.single(dsn, SINGLES)))
        yield "bulk enqueue", jobs / timed(lambda: run(peer.bulk(dsn, jobs)))
        yield "drain", (jobs + SINGLES) / drain(peer, dsn)


@contextlib.contextmanager
def database(admin_dsn: str) -> Iterator[str]:
    """Give the DSN of a new, empty database."""
    name = f"bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(admin_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        conn.execute("checkpoint")
    yield dsn_of(admin_dsn, name)
    with psycopg.connect(admin_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def timed(work: object) -> float:
    """Return the seconds a call takes."""
    assert callable(work)
    began = time.monotonic()
    work()
    return time.monotonic() - began


def drain(peer: Peer, dsn: str) -> float:
    """Return the seconds from the first runner's start to the last one's end."""
    command = [sys.executable, "-m", "tests.benchmarks.runner", peer.name, dsn]
    runners = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(RUNNERS)
    ]
    for runner in runners:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "ready\n"
    answers = []
    for runner in runners:
        assert runner.stdin is not None
        runner.stdin.write("\n")
        runner.stdin.flush()
    for runner in runners:
        answer, _ = runner.communicate(timeout=900)
        assert runner.returncode == 0, f"a runner of {peer.name} failed"
        answers.append([float(part) for part in answer.split()])
    return max(end for _, end in answers) - min(began for began, _ in answers)


def show(peers: list[Peer], figures: dict[tuple[str, str], list[float]]) -> None:
    """Print the table."""
    kinds = list(dict.fromkeys(what for _, what in figures))
    table = Table(title="Jobs a second: median (lowest to highest), and times pgqueuer's median")
    table.add_column("")
    for peer in peers:
        table.add_column(peer.name, justify="right")
    for what in kinds:
        base = statistics.median(figures.get(("pgqueuer", what), [float("nan")]))
        cells = []
        for peer in peers:
            rates = figures[(peer.name, what)]
            middle = statistics.median(rates)
            cells.append(
                f"{middle:,.0f} ({min(rates):,.0f}-{max(rates):,.0f})  x{middle / base:.2f}"
            )
        table.add_row(what, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
