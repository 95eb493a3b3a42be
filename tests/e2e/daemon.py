"""`enrichd` as a real process, for tests that do it harm.

    with Daemon(database_url, WORKER_COUNT=1) as daemon:
        daemon.enqueue("nap", seconds=0.1)
        os.kill(daemon.child("worker"), signal.SIGKILL)
        ...

Nothing here knows how the daemon works: children are found in /proc by their parent, everything
else is read from the database and the log. Leaving the block stops the daemon and asserts that it
left no process and no connection behind, and that nobody holds its metrics.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg

from enrichd.domain.jobs import NewJob
from enrichd.handlers.registry import load_handlers
from enrichd.queue.manager import JobQueueManager
from enrichd.store.database import Database

ROOT = Path(__file__).parents[2]
MAIN = "from enrichd.daemon import main; main()"
PLUGINS = "tests.support.job_types,tests.e2e.dangerous_jobs"
# Short, so that a test does not wait for what takes half a minute in production.
QUICK = {
    "ENRICHD_PLUGINS": PLUGINS,
    "HEALTH_CHECK_PORT": "0",
    "LOG_FORMAT": "json",
    "WORKER_COUNT": "1",
    "MAX_CONCURRENT_JOBS": "4",
    "POLL_INTERVAL": "200",
    "HEARTBEAT_INTERVAL": "500",
    "WORKER_TIMEOUT": "6000",
    "GRACEFUL_SHUTDOWN_TIMEOUT": "3000",
    "RETRY_BASE_DELAY": "0",
    "RETRY_MAX_DELAY": "100",
}
START_S = 30.0
RUNNING: Counter[str | None] = Counter()
"""How many daemons run on each database: only the last one to leave leaves no connection."""
POLL_S = 0.02
TITLE = "enrichd: "

Answer = TypeVar("Answer")


def wait_for(
    condition: Callable[[], Answer], within_s: float = 10.0, *, what: object = ""
) -> Answer:
    """Poll until the condition holds and return its answer; fail the test after `within_s`."""
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        told = what() if callable(what) else what
        assert time.monotonic() < deadline, f"not within {within_s} s: {told}"
        time.sleep(POLL_S)
    return answer


class Daemon:
    """A running `enrichd`; a context manager."""

    def __init__(
        self,
        database_url: str | None,
        *,
        folder: Path,
        command: Sequence[str] = (),
        is_ready_awaited: bool = True,
        **environ: str,
    ) -> None:
        self.folder = folder
        self.database_url = database_url
        self.log_path = folder / f"enrichd-{uuid.uuid4().hex[:8]}.log"
        self._command = [*command, sys.executable, "-c", MAIN]
        self._is_ready_awaited = is_ready_awaited
        given = QUICK if database_url is None else {**QUICK, "DATABASE_URL": database_url}
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME", "LANG", "TMPDIR", "LD_PRELOAD")
        }
        # Metrics go into the test's folder: the shared one would be kept, for the next daemon.
        of_test = {"PYTHONPATH": str(ROOT), "RUNTIME_DIRECTORY": str(folder)}
        self.environ = {**inherited, **given, **of_test, **environ}
        self._seen: set[int] = set()

    # Life.

    def __enter__(self) -> Self:
        RUNNING[self.database_url] += 1
        self.start()
        return self

    def start(self, **popen: Any) -> None:
        """Start it (again) and wait until it says that it is ready."""
        with open(self.log_path, "ab") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.process = subprocess.Popen(
                self._command,
                env=self.environ,
                cwd=self.folder,
                start_new_session=True,
                **{**streams, **popen},
            )
        self._seen.add(self.process.pid)
        if self._is_ready_awaited:
            self.wait_for_event("supervisor_ready", START_S)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        RUNNING[self.database_url] -= 1
        try:
            if kind is None:
                self.stop()
                self.assert_nothing_left()
            else:
                sys.stderr.write(self.log_text()[-12_000:])
        finally:
            for pid in self.processes():
                kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()

    def stop(self, within_s: float = 20.0) -> int:
        """Send SIGTERM unless it has ended; return its exit code."""
        self.processes()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.ended(within_s)

    def ended(self, within_s: float = 20.0) -> int:
        """Wait until it has ended and return its exit code."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"runs after {within_s} s: {self.children()}\n{self.log_text()[-6000:]}"
            ) from None

    def assert_nothing_left(self) -> None:
        """Assert that no process, connection or shared memory of it is left."""
        wait_for(lambda: not self.processes(), 5.0, what=self.processes)
        if self.database_url is not None and not RUNNING[self.database_url]:
            url = self.database_url
            wait_for(lambda: not connections(url), 5.0, what=lambda: connections(url))
        assert not self.is_using_metrics_folder(), "somebody holds the metrics folder"

    def is_using_metrics_folder(self) -> bool:
        """Say whether a process still has the lock on this daemon's first metrics folder."""
        lock = self.folder / "metrics" / "in-use.lock"
        if RUNNING[self.database_url] or not lock.exists():
            return False
        with open(lock, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    # Processes.

    def processes(self) -> list[int]:
        """Return every living process that this daemon was or ever had."""
        parents = parent_of_each()
        for pid, parent in sorted(parents.items()):
            if parent in self._seen:
                self._seen.add(pid)
        return [pid for pid in self._seen if pid in parents]

    def children(self) -> dict[int, str]:
        """Return the living children of the present supervisor: title by process id."""
        self.processes()
        mine = [pid for pid, parent in parent_of_each().items() if parent == self.process.pid]
        titled = {pid: title_of(pid) for pid in mine}
        return {pid: t.removeprefix(TITLE) for pid, t in titled.items() if t.startswith(TITLE)}

    def workers(self) -> list[int]:
        """Return the process ids of the living workers, oldest first."""
        return sorted(pid for pid, title in self.children().items() if title == "worker")

    def child(self, role: str) -> int:
        """Wait for the one child of a role and return its process id."""

        def found() -> list[int]:
            return [pid for pid, title in self.children().items() if title == role]

        (pid,) = wait_for(found, 5.0, what=lambda: (role, self.children()))
        return pid

    def replaced(self, pid: int, within_s: float = 5.0) -> int:
        """Wait until that child is gone and another worker is there; return the newest."""
        return wait_for(
            lambda: pid not in parent_of_each() and [p for p in self.workers() if p != pid],
            within_s,
            what=lambda: self.children(),
        )[-1]

    # The log.

    def log_text(self) -> str:
        """Return all it wrote so far."""
        return self.log_path.read_text(errors="replace")

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the log's events, of one name if given."""
        found = []
        for line in self.log_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and name in (None, event.get("event")):
                found.append(event)
        return found

    def wait_for_event(
        self, name: str, within_s: float = 10.0, *, count: int = 1
    ) -> dict[str, Any]:
        """Wait until an event was logged (`count` times) and return the last one."""

        def found() -> list[dict[str, Any]]:
            events = self.events(name)
            return events if len(events) >= count else []

        return wait_for(found, within_s, what=lambda: f"{name}\n{self.log_text()[-6000:]}")[-1]

    # The queue.

    def enqueue(
        self, type: str, count: int = 1, *, max_retries: int = 3, **payload: Any
    ) -> list[str]:
        """Put jobs on the queue and return their ids."""
        assert self.database_url is not None
        return enqueue(self.database_url, type, count, max_retries=max_retries, **payload)

    def query(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Ask the database."""
        assert self.database_url is not None
        return query(self.database_url, statement, *arguments)

    def statuses(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        return dict(self.query("select status, count(*) from enrichment_jobs group by status"))

    def wait_until_started(self, count: int = 1, within_s: float = 10.0) -> None:
        """Wait until `count` jobs are being worked on."""
        wait_for(
            lambda: self.statuses().get("processing", 0) >= count, within_s, what=self.statuses
        )

    def wait_until_done(self, within_s: float = 12.0) -> dict[str, int]:
        """Wait until every job has ended and return how many are in each state."""

        def are_done() -> dict[str, int]:
            found = self.statuses()
            return found if set(found) <= ENDED else {}

        return wait_for(are_done, within_s, what=lambda: (self.statuses(), self.log_text()[-4000:]))

    def outcomes(self, job_id: str) -> list[str | None]:
        """Return how a job's attempts ended, oldest first."""
        return outcomes(self.database_url or "", job_id)

    def assert_sound(self, accepted: Sequence[str]) -> None:
        """Assert what holds after any fault; see `assert_sound` below."""
        assert_sound(self.database_url or "", accepted)


ENDED = {"completed", "failed", "cancelled", "dead_letter"}


def assert_sound(database_url: str, accepted: Sequence[str]) -> None:
    """Assert that no accepted job is lost, none completed twice, none ran beyond its budget, and
    that nothing is `processing` without a live worker."""
    jobs = {
        str(job_id): (status, attempts, allowed)
        for job_id, status, attempts, allowed in query(
            database_url, "select id, status, attempts, max_retries from enrichment_jobs"
        )
    }
    missing = set(accepted) - jobs.keys()
    assert not missing, f"lost: {missing}"
    over = {job_id: job for job_id, job in jobs.items() if job[1] > job[2] + 1}
    assert not over, f"more attempts than allowed: {over}"
    twice = query(
        database_url,
        "select job_id, count(*) from enrichment_job_attempts where outcome = 'completed'"
        " group by job_id having count(*) > 1",
    )
    assert not twice, f"completed twice: {twice}"
    unmarked = query(
        database_url,
        "select id from enrichment_jobs as job where status = 'completed' and not exists"
        " (select 1 from enrichment_job_attempts where job_id = job.id and outcome = 'completed')",
    )
    assert not unmarked, f"completed without a completed attempt: {unmarked}"
    ownerless = query(
        database_url,
        "select id from enrichment_jobs as job where status = 'processing' and not exists"
        " (select 1 from enrichment_workers where id = job.worker_id and state <> 'dead')",
    )
    assert not ownerless, f"processing without a live worker: {ownerless}"


def enqueue(
    database_url: str,
    type: str,
    count: int = 1,
    *,
    max_retries: int = 3,
    delay_s: float | None = None,
    **payload: Any,
) -> list[str]:
    """Put jobs on the queue and return their ids."""

    load_handlers(PLUGINS.split(","))

    async def put() -> list[str]:
        database = Database(database_url, name="test")
        try:
            options: Any = {"max_retries": max_retries, "delay_s": delay_s}
            jobs = [NewJob(type, payload, **options) for _ in range(count)]
            return [str(done.id) for done in await JobQueueManager(database).enqueue_many(jobs)]
        finally:
            await database.close()

    return asyncio.run(put())


def query(database_url: str, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Ask a database over a connection of its own; a statement without rows returns none."""
    with psycopg.connect(
        database_url, autocommit=True, application_name="test", connect_timeout=5
    ) as conn:
        cursor = conn.execute(statement, arguments)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def outcomes(database_url: str, job_id: str) -> list[str | None]:
    """Return how a job's attempts ended, oldest first."""
    rows = query(
        database_url,
        "select outcome from enrichment_job_attempts where job_id = %s"
        " order by started_at, finished_at",
        job_id,
    )
    return [outcome for (outcome,) in rows]


def connections(database_url: str) -> list[tuple[Any, ...]]:
    """Return enrichd's connections to a database."""
    return query(
        database_url,
        "select pid, application_name, state, query from pg_stat_activity"
        " where datname = current_database() and application_name like 'enrichd%%'"
        " and pid <> pg_backend_pid()",
    )


def parent_of_each() -> Mapping[int, int]:
    """Return the parent of every living process (a zombie is dead)."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state not in "ZX":
                found[int(place.name)] = int(parent)
    return found


def title_of(pid: int) -> str:
    """Return a process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal, unless the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
