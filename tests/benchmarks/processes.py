"""The processes of a measurement: a server, databases, runners that drain, fleets that serve."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from enrichd.store import embedded
from tests.benchmarks.peer_enrichd import PLUGIN
from tests.benchmarks.peers import Peer, run
from tests.benchmarks.work import LOG_VARIABLE
from tests.support.postgres import dsn_of

ROOT = Path(__file__).parents[2]
SERVERS_SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "max_connections": "100",
}
"""PostgreSQL's own durability: fsync on, every commit waits for its flush."""
WORKERS = 2
DRAIN_S = 1200
START_S = 30.0


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Give the admin DSN of the server to measure on."""
    if url := os.environ.get("ENRICHD_BENCH_DATABASE_URL"):
        yield url
        return
    with (
        tempfile.TemporaryDirectory(prefix="enrichd-bench-") as folder,
        embedded.start(Path(folder) / "data", settings=SERVERS_SETTINGS) as started,
    ):
        yield started.dsn


@contextlib.contextmanager
def database(admin_dsn: str, peer: Peer) -> Iterator[str]:
    """Give the DSN of a new database with a peer's tables."""
    name = f"bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(admin_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    dsn = dsn_of(admin_dsn, name)
    run(peer.set_up(dsn))  # type: ignore[arg-type]
    with psycopg.connect(admin_dsn, autocommit=True) as conn:
        conn.execute("checkpoint")
    yield dsn
    with psycopg.connect(admin_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@dataclass(frozen=True, slots=True)
class Drained:
    """How long a drain took."""

    seconds: float
    """From the first runner's start to the last one's end."""
    working_s: float
    """From the first nap's begin to the last one's end."""


def drain(peer: Peer, dsn: str, slots: int = 0) -> Drained:
    """Drain with two runners."""
    command = [sys.executable, "-m", "tests.benchmarks.runner", peer.name, dsn, "drain", str(slots)]
    runners = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(WORKERS)
    ]
    for runner in runners:
        assert runner.stdout is not None
        assert runner.stdout.readline() == "ready\n"
    for runner in runners:
        assert runner.stdin is not None
        runner.stdin.write("\n")
        runner.stdin.flush()
    answers = []
    for runner in runners:
        answer, _ = runner.communicate(timeout=DRAIN_S)
        assert runner.returncode == 0, f"a runner of {peer.name} failed"
        answers.append([float(part) for part in answer.split()])
    return Drained(
        max(answer[1] for answer in answers) - min(answer[0] for answer in answers),
        max(answer[3] for answer in answers) - min(answer[2] for answer in answers),
    )


@dataclass(frozen=True, slots=True)
class Fleet:
    """Processes that run jobs as they come."""

    workers: list[int]
    """Their process ids."""
    size: int
    """How many processes talk to PostgreSQL."""
    log: Path
    """Where jobs write down their begin."""


@contextlib.contextmanager
def fleet(peer: Peer, dsn: str, **environ: str) -> Iterator[Fleet]:
    """Give two workers that serve: enrichd's daemon, or two runners of a peer."""
    with tempfile.TemporaryDirectory(prefix="enrichd-bench-") as folder:
        log = Path(folder) / "marks"
        log.touch()
        env = {**os.environ, LOG_VARIABLE: str(log), "PYTHONPATH": str(ROOT), **environ}
        with open(Path(folder) / "output", "wb") as output:
            if peer.name == "enrichd":
                started = [a_daemon(dsn, env, folder, output.fileno())]
            else:
                command = [sys.executable, "-m", "tests.benchmarks.runner", peer.name, dsn, "serve"]
                started = [
                    subprocess.Popen(command, env=env, cwd=ROOT, stdout=output, stderr=output)
                    for _ in range(WORKERS)
                ]
        try:
            if peer.name == "enrichd":
                until(lambda: count_turning(dsn) == WORKERS, START_S)
                children = titled_children(started[0].pid)
                workers = [pid for pid, title in children.items() if title == "enrichd: worker"]
                yield Fleet(workers, len(children) - 1, log)  # The gateway only looks on demand.
            else:
                until(lambda: count_connections(dsn) >= WORKERS, START_S)
                yield Fleet([process.pid for process in started], WORKERS, log)
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()
                process.wait()


def a_daemon(dsn: str, env: dict[str, str], folder: str, output: int) -> subprocess.Popen[bytes]:
    """Start `enrichd` with two workers."""
    return subprocess.Popen(
        [sys.executable, "-c", "from enrichd.daemon import main; main()"],
        cwd=folder,
        env={
            "WORKER_COUNT": str(WORKERS),
            "HEALTH_CHECK_PORT": "0",
            "LOG_LEVEL": "warning",
            **env,
            "DATABASE_URL": dsn,
            "ENRICHD_PLUGINS": PLUGIN,
        },
        stdout=output,
        stderr=output,
    )


def count_turning(dsn: str) -> int:
    """Return how many workers have asked for jobs."""
    return one_number(dsn, "select count(*) from enrichment_workers where turned_at is not null")


def count_connections(dsn: str) -> int:
    """Return how many others are connected and idle."""
    return one_number(
        dsn,
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and pid <> pg_backend_pid() and state = 'idle'",
    )


def one_number(dsn: str, question: str) -> int:
    """Ask for one number."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(question).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return int(row[0])


def until(condition: Callable[[], object], within_s: float) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s:g} s")
        time.sleep(0.02)


def titled_children(parent: int) -> dict[int, str]:
    """Return the living children of a process: title by process id."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                state, ppid = (place / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(ppid) == parent and state not in "ZX":
                    title = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(place.name)] = title.strip()
    return found


def pss_bytes(pid: int) -> int:
    """Return a process's proportional share of the memory."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise LookupError(pid)
