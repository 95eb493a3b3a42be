"""PostgreSQL away, crashed, failed over, cut off; and hosts whose clocks are wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from enrichd.errors import Unavailable
from tests.conftest import apply_migrations
from tests.e2e.cluster import Cluster, a_folder, clusters
from tests.e2e.daemon import Daemon, assert_sound, enqueue, query, wait_for


@pytest.fixture(scope="module")
def cluster_folder() -> Iterator[Path]:
    """Give the place of this module's clusters."""
    with clusters() as folder:
        yield folder


@pytest.fixture(scope="module")
def shared_cluster(cluster_folder) -> Cluster:
    return Cluster(a_folder(cluster_folder, "shared")).create()


@pytest.fixture
def cluster(shared_cluster) -> Cluster:
    """Give a migrated server to be cruel to."""
    with psycopg.connect(shared_cluster.local_url, autocommit=True) as conn:
        conn.execute("drop schema public cascade")
        conn.execute("create schema public")
    asyncio.run(apply_migrations(shared_cluster.local_url))
    return shared_cluster


class Producer:
    """Enqueues jobs beside the test and keeps the ids of those that were accepted."""

    def __init__(self, database_url: str, *, seconds: float = 0.05, pause_s: float = 0.05) -> None:
        self.accepted: list[str] = []
        self.refused = 0
        self._url = database_url
        self._seconds = seconds
        self._pause_s = pause_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._produce)

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _produce(self) -> None:
        while not self._is_over.wait(self._pause_s):
            try:
                self.accepted += enqueue(self._url, "nap", 5, seconds=self._seconds, max_retries=20)
            except Unavailable:
                self.refused += 1


def test_a_crashed_postgresql_under_load_costs_no_job(daemon, cluster):
    with daemon(url=cluster.url, WORKER_COUNT="2") as running:
        before = set(running.children())
        with Producer(cluster.url) as producer:
            for count in (40, 120):
                wait_for(lambda count=count: completed(running) > count, 15.0)
                cluster.crash()
                running.wait_for_event("database_away")
                refused = producer.refused
                wait_for(lambda refused=refused: producer.refused > refused)
                cluster.start()
            count = completed(running)
            wait_for(lambda: completed(running) > count + 40, 15.0, what=running.statuses)
        assert running.wait_until_done() == {"completed": len(running.query(ALL))}
        assert set(running.children()) == before, "an outage of the database kills no process"
        running.assert_sound(producer.accepted)


ALL = "select id from enrichment_jobs"


def completed(running: Daemon) -> int:
    """Return how many jobs are completed."""
    return running.statuses().get("completed", 0)


def test_a_daemon_started_without_postgresql_stays_and_works_once_it_is_there(daemon, cluster):
    cluster.crash()
    with daemon(url=cluster.url, is_ready_awaited=False) as running:
        ready = running.wait_for_event("supervisor_ready", 20.0)
        assert "PostgreSQL cannot be reached" in ready["status"]
        assert len(running.children()) == 3
        assert running.events("child_died") == []
        cluster.start()
        accepted = running.enqueue("nap", 3, seconds=0.01)
        assert running.wait_until_done(15.0) == {"completed": 3}
        running.assert_sound(accepted)


def test_a_daemon_without_postgresql_stops_within_the_grace(daemon, cluster):
    with daemon(url=cluster.url, GRACEFUL_SHUTDOWN_TIMEOUT="500") as running:
        accepted = running.enqueue("nap", 30, seconds=0.3)
        running.wait_until_started(4)
        cluster.crash()
        running.wait_for_event("database_away")
        assert running.stop(16.0) == 0
        assert running.events("child_killed") == []
        cluster.start()
        running.assert_nothing_left()
        lost = query(cluster.url, ALL)
        assert {str(job_id) for (job_id,) in lost} == set(accepted)


def test_terminated_connections_under_load_cost_no_job(daemon, database_url):
    with daemon(WORKER_COUNT="2") as running:
        with Producer(database_url) as producer:
            for _ in range(25):
                count = completed(running)
                running.query(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
                wait_for(lambda count=count: completed(running) > count, what=running.statuses)
        running.wait_until_done()
        assert set(running.statuses()) == {"completed"}
        assert running.events("child_died") == []
        running.assert_sound(producer.accepted)


def test_a_failover_to_a_synchronous_standby_loses_nothing_that_was_accepted(
    daemon, cluster_folder
):
    primary = Cluster(a_folder(cluster_folder, "primary")).create()
    asyncio.run(apply_migrations(primary.local_url))
    standby = Cluster(a_folder(cluster_folder, "standby")).follow(primary)
    primary.configure(synchronous_standby_names="*", synchronous_commit="on")
    primary.reload()
    synchronous = "select 1 from pg_stat_replication where sync_state = 'sync'"
    wait_for(lambda: query(primary.local_url, synchronous))
    url = (
        f"postgresql://enrichd@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
        "?target_session_attrs=read-write"
    )

    with daemon(url=url, WORKER_COUNT="2") as running:
        with Producer(url) as producer:
            wait_for(lambda: completed(running) > 40, 15.0, what=running.statuses)
            primary.crash()
            accepted = list(producer.accepted)
            standby.promote()
            count = query(standby.url, "select count(*) from enrichment_jobs")[0][0]
            assert count >= len(accepted)
            wait_for(lambda: completed(running) > count + 20, 20.0, what=running.statuses)
        running.wait_until_done()
        assert set(running.statuses()) == {"completed"}
        running.assert_sound(producer.accepted)


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """Give a network namespace and our end of the cable to it: (name of both, our address)."""
    name = f"enrichd{os.getpid() % 10_000}"
    number = os.getpid() % 250
    ours, theirs = f"10.213.{number}.1", f"10.213.{number}.2"
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2 for a network namespace")
    if ip("netns", "add", name, is_checked=False):
        pytest.skip("network namespaces are not allowed here")
    try:
        if ip("link", "add", name, "type", "veth", "peer", "name", "far", "netns", name,
              is_checked=False):  # fmt: skip
            pytest.skip("virtual cables are not allowed here")
        ip("addr", "add", f"{ours}/30", "dev", name)
        ip("link", "set", name, "up")
        ip("-n", name, "addr", "add", f"{theirs}/30", "dev", "far")
        ip("-n", name, "link", "set", "far", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name, ours
    finally:
        ip("link", "del", name, is_checked=False)
        ip("netns", "del", name, is_checked=False)


def ip(*arguments: str, is_checked: bool = True) -> int:
    """Run iproute2 and return its exit code."""
    return subprocess.run(
        ["ip", *arguments], check=is_checked, capture_output=True, timeout=10
    ).returncode


@pytest.mark.slow
def test_a_partition_is_noticed_and_work_goes_on_after_it(daemon, cluster, cable):
    name, address = cable
    cluster.host, old = address, cluster.host
    with contextlib.ExitStack() as undo:
        undo.callback(setattr, cluster, "host", old)
        made = daemon(
            url=cluster.local_url, command=("ip", "netns", "exec", name), DATABASE_URL=cluster.url
        )
        running = undo.enter_context(made)
        accepted = running.enqueue("nap", 40, seconds=0.5, max_retries=10)
        running.wait_until_started(4)
        before = set(running.children())
        ip("link", "set", name, "down")
        wait_for(
            lambda: running.events("database_away") or running.events("heartbeat_missed"),
            15.0,
            what=running.log_text,
        )
        running.wait_for_event("worker_fenced", 15.0)
        stood = running.statuses().get("completed", 0)
        ip("link", "set", name, "up")
        wait_for(lambda: running.statuses().get("completed", 0) > stood, 30.0)
        assert running.wait_until_done(30.0) == {"completed": 40}
        assert set(running.children()) == before
        running.assert_sound(accepted)


LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
needs_faketime = pytest.mark.skipif(LIBFAKETIME is None, reason="needs Debian's package faketime")


def clock(offset: str) -> dict[str, str]:
    """Return the environment of a host whose wall clock is off."""
    monotonic = {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME": offset, **monotonic}


@needs_faketime
@pytest.mark.parametrize("offset", ["-1h", "+1h"])
def test_a_host_whose_clock_is_an_hour_off_works_with_the_others(daemon, database_url, offset):
    with daemon() as right, daemon(**clock(offset)) as wrong:
        stamps = [datetime.fromisoformat(one.events()[0]["timestamp"]) for one in (right, wrong)]
        assert abs((stamps[0] - stamps[1]).total_seconds()) > 3_500, "its clock is off"
        accepted = enqueue(database_url, "nap", 60, seconds=0.15)
        accepted += enqueue(database_url, "raising", 2, error="value", max_retries=1)

        done = {"completed": 60, "dead_letter": 2}
        wait_for(lambda: right.statuses() == done, 15.0, what=right.statuses)
        by_worker = "select 1 from enrichment_job_attempts where outcome = 'completed'"
        assert len(query(database_url, f"{by_worker} group by worker_id")) == 2, "both worked"
        assert not {"worker_fenced", "claim_lost"} & {log["event"] for log in wrong.events()}
        attempts = "select max(attempts) from enrichment_jobs where type = 'nap'"
        assert query(database_url, attempts) == [(1,)]
        odd = "select 1 from enrichment_job_attempts where finished_at not between {} and now()"
        assert query(database_url, odd.format("now() - interval '1 minute'")) == []
        assert_sound(database_url, accepted)


@needs_faketime
@pytest.mark.parametrize("offset", ["-1h", "+1h"])
def test_a_job_is_due_by_the_clock_of_the_database_alone(daemon, database_url, offset):
    with daemon(**clock(offset)) as running:
        soon = enqueue(database_url, "nap", delay_s=1.0)
        later = enqueue(database_url, "nap", delay_s=1_800.0)
        wait_for(lambda: running.statuses() == {"completed": 1, "scheduled": 1})
        early = "select 1 from enrichment_jobs where started_at < created_at + interval '1 s'"
        assert running.query(early) == []
        running.assert_sound([*soon, *later])


def test_a_daemon_on_a_database_without_tables_stays_and_works_once_they_are_there(
    daemon, database_url
):
    query(database_url, "drop schema public cascade")
    query(database_url, "create schema public")
    with daemon(is_ready_awaited=False) as running:
        away = running.wait_for_event("database_away")
        assert "lacks a part of enrichd" in away["reason"]
        asyncio.run(apply_migrations(database_url))
        accepted = running.enqueue("nap", 3, seconds=0.01)
        assert running.wait_until_done(20.0) == {"completed": 3}
        assert running.events("child_died") == []
        running.assert_sound(accepted)
