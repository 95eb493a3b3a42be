"""Mixed load under random faults, then DESIGN §4 checked over the whole database.

    python -m tests.e2e.nemesis --seconds 600 --seed 7 [--daemons 2] [--folder DIR]

Prints the seed first; what was enqueued and done to whom goes to DIR/history.jsonl, what ran when
to DIR/runs.log. The same seed draws the same load and faults, though not the same interleaving. A
folder that was named is kept, and so is one of a run that failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from uuid_utils.compat import uuid7

from enrichd.domain.jobs import NewJob
from enrichd.errors import IllegalMove, JobNotFound, Refused, Unavailable
from enrichd.handlers.registry import load_handlers
from enrichd.queue.manager import JobQueueManager
from enrichd.store import migrate
from enrichd.store.database import Database
from tests.e2e.cluster import Cluster, a_folder, clusters
from tests.e2e.daemon import Daemon, kill, query, wait_for
from tests.e2e.nemesis_check import Run, check, runs_of
from tests.e2e.nemesis_jobs import LOG_VARIABLE

PLUGIN = "tests.e2e.nemesis_jobs"
WORKSPACES = ("anna", "ben", "carla", "dora")
KEEP_ROOM = 400
"""No more is enqueued while so many jobs wait, so that the end comes soon after the last fault."""
DRAIN_S = 120.0
WORKER_TIMEOUT_S = 6.0
SETTINGS = {
    "ENRICHD_PLUGINS": PLUGIN,
    "WORKER_COUNT": "2",
    "MAX_CONCURRENT_JOBS": "6",
    "WORKER_TIMEOUT": f"{WORKER_TIMEOUT_S * 1000:.0f}",
    "HEARTBEAT_INTERVAL": "700",
    "GRACEFUL_SHUTDOWN_TIMEOUT": "2000",
    "RETRY_BASE_DELAY": "100",
    "RETRY_MAX_DELAY": "1000",
}


@dataclass(slots=True)
class History:
    """What was done: to the queue and to the processes."""

    path: Path
    began: float = field(default_factory=time.monotonic)
    accepted: dict[UUID, NewJob] = field(default_factory=dict)
    paused: list[tuple[int, int, int]] = field(default_factory=list)
    """(process id, from, to) of each SIGSTOP, in nanoseconds of the monotonic clock."""
    faults: Counter[str] = field(default_factory=Counter)

    def note(self, what: str, **fields: Any) -> None:
        """Append a line to the history."""
        line = {"at_s": round(time.monotonic() - self.began, 3), "what": what, **fields}
        with open(self.path, "a") as file:
            file.write(json.dumps(line, default=str) + "\n")


class Load:
    """A client that enqueues, cancels and retries, and repeats itself when unanswered."""

    def __init__(self, dsn: str, history: History, dice: random.Random) -> None:
        self._dsn = dsn
        self._database = Database(dsn, name="nemesis")
        self._queue = JobQueueManager(self._database)
        self._history = history
        self._dice = dice

    async def run(self, seconds: float) -> None:
        """Put load on the queue for so long."""
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        while clock() < until:
            await asyncio.sleep(self._dice.uniform(0.0, 0.1))
            await self._step()
        await self._database.close()

    async def _step(self) -> None:
        draw = self._dice.random()
        if draw < 0.12:
            await self._cancel_one()
        elif draw < 0.2:
            await self._retry_one()
        elif await self._has_room():
            await self._enqueue([self._draw() for _ in range(self._dice.choice((1, 1, 1, 5, 20)))])

    def _draw(self) -> NewJob:
        dice = self._dice
        kind, payload = dice.choices(
            (
                ("n_work", {}),
                ("n_work", {"seconds": dice.uniform(0.01, 0.3)}),
                ("n_work", {"seconds": dice.uniform(1.0, 4.0)}),
                ("n_failing", {"seconds": 0.01}),
                ("n_flaky", {"seconds": 0.02, "percent": 40}),
                ("n_snoozing", {"percent": 50}),
                ("n_deadly", {"seconds": 0.05}),
                ("n_batch", {"leads": [f"lead {n}" for n in range(8)], "seconds": 0.05}),
            ),
            weights=(30, 25, 8, 8, 12, 8, 0.3, 8),
        )[0]
        return NewJob(
            kind,
            payload,
            id=uuid7(),
            workspace_id=dice.choice(WORKSPACES),
            priority=dice.randint(1, 5),
            provider_id=dice.choice((None, "hunter", "apollo")),
            max_retries=20,
            idempotency_key=str(dice.randrange(10**9)) if dice.random() < 0.2 else None,
            delay_s=dice.uniform(0.2, 3.0) if dice.random() < 0.15 else None,
        )

    async def _enqueue(self, jobs: list[NewJob]) -> None:
        if len(jobs) == 1:
            done = [await self._insist(lambda: self._queue.enqueue(jobs[0]))]
        else:
            done = await self._insist(lambda: self._queue.enqueue_many(jobs))
        for job, enqueued in zip(jobs, done, strict=True):
            assert enqueued.id == job.id, f"{job.id} was answered with {enqueued.id}"
            self._history.accepted[enqueued.id] = job
            self._history.note("accepted", id=job.id, type=job.type)
        keyed = [job for job in jobs if job.idempotency_key is not None]
        if keyed and self._dice.random() < 0.5:
            first = keyed[0]
            again = NewJob(
                first.type,
                first.payload,
                workspace_id=first.workspace_id,
                idempotency_key=first.idempotency_key,
            )
            twin = await self._insist(lambda: self._queue.enqueue(again))
            assert (twin.id, twin.is_new) == (first.id, False), f"{first.id} has a twin {twin}"

    async def _cancel_one(self) -> None:
        if job := self._one_of_the_last(200):
            await self._move("cancelled", self._queue.cancel, job)

    async def _retry_one(self) -> None:
        if job := self._one_of_the_last(1000):
            await self._move("retried", self._queue.retry, job)

    async def _move(self, what: str, move: Callable[..., Any], job: NewJob) -> None:
        with contextlib.suppress(IllegalMove, Refused, JobNotFound):
            await self._insist(lambda: move(workspace_id=job.workspace_id, job_id=job.id))
            self._history.note(what, id=job.id)

    def _one_of_the_last(self, count: int) -> NewJob | None:
        jobs = list(self._history.accepted.values())[-count:]
        return self._dice.choice(jobs) if jobs else None

    async def _has_room(self) -> bool:
        async def waiting() -> int:
            async with self._database.connection() as conn:
                cursor = await conn.execute(
                    "select count(*) from enrichment_jobs"
                    " where status in ('pending', 'processing', 'scheduled')"
                )
                row = await cursor.fetchone()
                assert row is not None
                return int(row[0])

        return await self._insist(waiting) < KEEP_ROOM

    async def _insist(self, work: Callable[[], Any]) -> Any:
        while True:
            try:
                return await work()
            except Unavailable:
                await asyncio.sleep(0.1)


class Nemesis:
    """Harms daemons and their server, and mends what it broke."""

    def __init__(
        self, cluster: Cluster, daemons: list[Daemon], history: History, dice: random.Random
    ) -> None:
        self._cluster = cluster
        self._daemons = daemons
        self._history = history
        self._dice = dice
        self._faults: dict[Callable[[], None], float] = {
            self.kill_worker: 6,
            self.kill_other_child: 2,
            self.kill_supervisor: 1,
            self.pause_worker: 2,
            self.pause_daemon: 1,
            self.cut_connections: 4,
            self.crash_server: 1,
            self.replace_daemon: 1.5,
            self.reload_daemon: 1,
        }

    def strike(self) -> None:
        """Do one harm."""
        fault = self._dice.choices(list(self._faults), list(self._faults.values()))[0]
        self._history.faults[fault.__name__] += 1
        fault()

    def kill_worker(self) -> None:
        """Kill a worker at once."""
        self._signal(self._child("worker"), signal.SIGKILL)

    def kill_other_child(self) -> None:
        """Kill the housekeeper or the gateway of a daemon."""
        self._signal(self._child(self._dice.choice(("housekeeper", "gateway"))), signal.SIGKILL)

    def kill_supervisor(self) -> None:
        """Kill a supervisor and start another daemon beside its orphans."""
        daemon = self._dice.choice(self._daemons)
        daemon.processes()
        self._signal(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait()
        daemon.start()

    def pause_worker(self) -> None:
        """Stop a worker for a while that may be longer than its timeout."""
        self._pause([self._child("worker")])

    def pause_daemon(self) -> None:
        """Stop a whole daemon, as a host that is suspended."""
        self._pause(self._dice.choice(self._daemons).processes())

    def cut_connections(self) -> None:
        """Cut some or all of enrichd's connections, and the client's."""
        share = self._dice.choice((0.2, 1.0))
        self._history.note("cut_connections", share=share)
        with contextlib.suppress(psycopg.OperationalError):
            query(
                self._cluster.url,
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where pid <> pg_backend_pid() and backend_type = 'client backend'"
                " and random() <= %s",
                share,
            )

    def crash_server(self) -> None:
        """Crash PostgreSQL and start it again after a moment."""
        self._history.note("crash_server")
        self._cluster.crash()
        time.sleep(self._dice.uniform(0.0, 3.0))
        self._cluster.start()

    def replace_daemon(self) -> None:
        """End a daemon in order while another one starts."""
        daemon = self._dice.choice(self._daemons)
        daemon.processes()
        old = daemon.process
        self._signal(old.pid, signal.SIGTERM)
        daemon.start()
        old.wait(30)

    def reload_daemon(self) -> None:
        """Replace a daemon's workers one by one."""
        self._signal(self._dice.choice(self._daemons).process.pid, signal.SIGHUP)

    def _child(self, role: str) -> int:
        children = self._dice.choice(self._daemons).children()
        found = [pid for pid, title in children.items() if title == role]
        return self._dice.choice(found) if found else 0

    def _signal(self, pid: int, number: signal.Signals) -> None:
        self._history.note("signal", pid=pid, signal=number.name)
        if pid:
            kill(pid, number)

    def _pause(self, pids: list[int]) -> None:
        began = time.monotonic_ns()
        for pid in pids:
            self._signal(pid, signal.SIGSTOP)
        time.sleep(self._dice.uniform(0.5, 1.5 * WORKER_TIMEOUT_S))
        for pid in pids:
            self._signal(pid, signal.SIGCONT)
            self._history.paused.append((pid, began, time.monotonic_ns()))


@contextlib.contextmanager
def running(folder: Path, url: str, count: int) -> Any:
    """Give daemons; kills what is left of them at the end."""
    daemons = [
        Daemon(
            url,
            folder=folder,
            is_ready_awaited=False,
            **{**SETTINGS, LOG_VARIABLE: str(folder / "runs.log")},
        )
        for _ in range(count)
    ]
    try:
        for daemon in daemons:
            daemon.start()
        yield daemons
    finally:
        for daemon in daemons:
            for pid in daemon.processes():
                kill(pid, signal.SIGKILL)
            daemon.process.kill()
            daemon.process.wait()


async def trouble(
    seconds: float, load: Load, nemesis: Nemesis, daemons: list[Daemon], dice: random.Random
) -> None:
    """Put load and faults on the daemons for so long."""
    async with asyncio.TaskGroup() as group:
        loading = group.create_task(load.run(seconds))
        while not loading.done():
            await asyncio.sleep(dice.uniform(0.2, 2.0))
            if not loading.done():
                await asyncio.to_thread(nemesis.strike)
    for daemon in daemons:
        assert daemon.process.poll() is None, f"a daemon ended by itself: {daemon.process.poll()}"


def drain(url: str, daemons: list[Daemon]) -> None:
    """Wait until nothing is left to do, and stop the daemons in order."""
    left = (
        "select status, count(*) from enrichment_jobs"
        " where status in ('pending', 'processing', 'scheduled', 'waiting') group by status"
    )
    wait_for(lambda: not query(url, left), DRAIN_S, what=lambda: query(url, left))
    for daemon in daemons:
        assert daemon.stop() == 0
        wait_for(lambda daemon=daemon: not daemon.processes(), 20.0, what=daemon.processes)


def nemesis(seconds: float, seed: int, *, daemons: int, folder: Path) -> list[str]:
    """Run and return what was found wrong."""
    load_handlers([PLUGIN])
    history = History(folder / "history.jsonl")
    with clusters() as place:
        cluster = Cluster(a_folder(place, "primary")).create()
        cluster.configure(max_connections="100")
        asyncio.run(migrate.apply_at(cluster.url))
        with running(folder, cluster.url, daemons) as fleet:
            load = Load(cluster.url, history, random.Random(f"load {seed}"))
            dice = random.Random(f"faults {seed}")
            asyncio.run(trouble(seconds, load, Nemesis(cluster, fleet, history, dice), fleet, dice))
            drain(cluster.url, fleet)
        runs = runs_of(folder / "runs.log", history.paused)
        wrong = check(cluster.url, history.accepted, runs)
        show(cluster.url, history, runs)
    return wrong


def show(url: str, history: History, runs: list[Run]) -> None:
    """Print what a run did."""
    ends = dict(query(url, "select status, count(*) from enrichment_jobs group by status"))
    tried = dict(query(url, "select outcome, count(*) from enrichment_job_attempts group by 1"))
    print(f"jobs: {len(history.accepted)} accepted, {ends}")
    print(f"attempts: {tried}; runs that began: {len(runs)}")
    print(f"faults: {dict(history.faults)}")


def main() -> int:
    """Run `python -m tests.e2e.nemesis`."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.nemesis")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--daemons", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="enrichd-nemesis-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}, history in {folder}", flush=True)
    wrong = nemesis(options.seconds, options.seed, daemons=options.daemons, folder=folder)
    for line in wrong:
        print(f"WRONG: {line}")
    if not wrong and options.folder is None:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
