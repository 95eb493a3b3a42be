"""Faults of single processes below the supervisor: killed, paused, stuck, poisoned, recycled."""

from __future__ import annotations

import os
import signal

import psycopg
import pytest

from tests.e2e.daemon import Daemon, assert_sound, enqueue, kill, query, wait_for


def test_a_killed_worker_is_replaced_and_its_jobs_run_again(daemon):
    with daemon() as running:
        accepted = running.enqueue("nap", 4, seconds=0.7)
        running.wait_until_started(4)
        os.kill(running.child("worker"), signal.SIGKILL)

        again = "select 1 from enrichment_jobs where status = 'processing' and attempts = 2"
        wait_for(lambda: running.query(again), 2.0, what="a second attempt")
        assert running.wait_until_done() == {"completed": 4}
        for job_id in accepted:
            assert running.outcomes(job_id) == ["crashed", "completed"]
        running.assert_sound(accepted)


def test_every_kind_of_child_is_replaced_when_it_is_killed(daemon):
    with daemon() as running:
        accepted = running.enqueue("nap", 40, seconds=0.1)
        for role in ("housekeeper", "gateway", "worker", "housekeeper"):
            killed = running.child(role)
            os.kill(killed, signal.SIGKILL)
            wait_for(
                lambda role=role, killed=killed: (
                    role in running.children().values() and killed not in running.children()
                ),
                what=running.children,
            )
        assert running.wait_until_done() == {"completed": 40}
        running.assert_sound(accepted)


@pytest.mark.parametrize("way", ["exit", "kill", "abort"])
def test_a_job_that_kills_its_worker_ends_as_dead_letter_and_harms_no_other(daemon, way):
    with daemon(WORKER_COUNT="2") as running:
        neighbours = running.enqueue("nap", 30, seconds=0.05, max_retries=1)
        (poison,) = running.enqueue("deadly", way=way, max_retries=50)

        assert running.wait_until_done() == {"completed": 30, "dead_letter": 1}
        assert running.outcomes(poison) == ["crashed"] * 3
        assert running.query(
            "select crashes, error ->> 'type' from enrichment_jobs where id = %s", poison
        ) == [(3, "worker_crashed")]
        running.assert_sound([poison, *neighbours])


def test_a_blocked_event_loop_is_dumped_killed_and_its_job_given_up(daemon):
    with daemon() as running:
        (stuck,) = running.enqueue("spinning", max_retries=50)
        neighbours = running.enqueue("nap", 8, seconds=0.05)

        assert running.wait_until_done(25.0) == {"completed": 8, "dead_letter": 1}
        assert len(running.events("child_hangs")) == 3
        assert running.log_text().count(" in spinning") == 3, "the stacks before each kill"
        assert running.outcomes(stuck) == ["crashed"] * 3
        running.assert_sound([stuck, *neighbours])


def test_a_stopped_worker_is_killed_by_its_supervisor_before_its_jobs_are_given_away(daemon):
    with daemon() as running:
        accepted = running.enqueue("nap", 2, seconds=1.0)
        running.wait_until_started(2)
        first = running.child("worker")
        os.kill(first, signal.SIGSTOP)

        running.replaced(first, 6.0)
        assert running.wait_until_done() == {"completed": 2}
        assert running.outcomes(accepted[0]) == ["crashed", "completed"]
        running.assert_sound(accepted)


def test_what_a_stopped_host_does_after_its_jobs_were_given_away_counts_for_nothing(
    daemon, database_url
):
    quick = {"HEARTBEAT_INTERVAL": "300", "WORKER_TIMEOUT": "2000"}
    with daemon(**quick) as frozen, daemon(**quick) as other:
        # The other one has no room until the first is stopped, so the first has the jobs.
        os.kill(other.child("worker"), signal.SIGSTOP)
        accepted = enqueue(database_url, "nap", 3, seconds=1.2)
        frozen.wait_until_started(3)
        for pid in frozen.processes():
            os.kill(pid, signal.SIGSTOP)
        os.kill(other.child("worker"), signal.SIGCONT)

        wait_for(
            lambda: other.statuses() == {"completed": 3},
            12.0,
            what=lambda: (other.statuses(), other.log_text()[-3000:]),
        )
        for pid in frozen.processes():
            os.kill(pid, signal.SIGCONT)
        wait_for(
            lambda: frozen.events("worker_fenced") or frozen.events("claim_lost"),
            what=frozen.log_text,
        )
        for job_id in accepted:
            assert frozen.outcomes(job_id) == ["crashed", "completed"]
        # It goes on as a new worker.
        os.kill(other.child("worker"), signal.SIGSTOP)
        more = enqueue(database_url, "nap", 2, seconds=0.01)
        wait_for(lambda: frozen.statuses() == {"completed": 5}, what=frozen.statuses)
        os.kill(other.child("worker"), signal.SIGCONT)
        assert_sound(database_url, [*accepted, *more])


def test_a_daemon_that_was_frozen_and_thawed_kills_no_child(daemon):
    # docker pause, Ctrl-Z and fg: all are silent, for no fault of theirs.
    with daemon(WORKER_TIMEOUT="3000") as running:
        everyone = running.processes()
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        silent = "select 1 from enrichment_workers where now() - heartbeat_at > '4 s'"
        wait_for(lambda: running.query(silent), what="a long silence")
        for pid in sorted(everyone):  # the supervisor first
            os.kill(pid, signal.SIGCONT)

        accepted = running.enqueue("nap", 2, seconds=0.01)
        running.wait_until_done()
        assert running.events("child_hangs") == []
        assert sorted(running.processes()) == sorted(everyone)
        running.assert_sound(accepted)


def test_eight_workers_that_claim_at_once_run_every_job_once(daemon):
    with daemon(WORKER_COUNT="8") as running:
        accepted = running.enqueue("nap", 2_000, seconds=0.001)
        assert running.wait_until_done(20.0) == {"completed": 2_000}
        assert running.query("select max(attempts) from enrichment_jobs") == [(1,)]
        assert running.query("select count(*) from enrichment_job_attempts") == [(2_000,)]
        running.assert_sound(accepted)


def test_a_job_type_that_a_worker_does_not_know_waits_for_one_that_does(daemon, database_url):
    with daemon(ENRICHD_PLUGINS="tests.e2e.dangerous_jobs") as old:
        accepted = enqueue(database_url, "nap", 3, seconds=0.01)
        known = enqueue(database_url, "leaking_memory", 2, megabytes=0)
        there = {"completed": 2, "scheduled": 3}
        wait_for(lambda: old.statuses() == there, what=old.statuses)
        old.query("update enrichment_jobs set scheduled_at = now() where status = 'scheduled'")
        wait_for(lambda: len(old.outcomes(accepted[0])) == 2, what="given back again")
        assert old.query("select max(attempts) from enrichment_jobs where type = 'nap'") == [(0,)]
    with daemon() as new:
        new.query("update enrichment_jobs set scheduled_at = now() where status = 'scheduled'")
        assert new.wait_until_done() == {"completed": 5}
        assert new.outcomes(accepted[0]) == ["snoozed", "snoozed", "completed"]
        assert_sound(database_url, [*accepted, *known])


def test_workers_are_recycled_after_their_jobs_without_losing_one(daemon):
    with daemon(WORKER_MAX_JOBS="20", WORKER_COUNT="2") as running:
        accepted = running.enqueue("nap", 200, seconds=0.1)
        assert running.wait_until_done(20.0) == {"completed": 200}
        recycled = running.events("child_recycled")
        assert len(recycled) >= 2
        assert running.query("select max(attempts) from enrichment_jobs") == [(1,)]
        assert running.events("child_died") == []
        running.assert_sound(accepted)


def test_a_recycled_worker_finishes_what_takes_longer_than_the_grace(daemon):
    with daemon(WORKER_MAX_JOBS="3", GRACEFUL_SHUTDOWN_TIMEOUT="300") as running:
        old = running.child("worker")
        (long,) = running.enqueue("nap", 1, seconds=4.0)
        running.wait_until_started()
        short = running.enqueue("nap", 3, seconds=0.05)
        running.wait_for_event("child_recycled")
        wait_for(lambda: len(running.workers()) == 2, what=running.children)
        more = running.enqueue("nap", 2, seconds=0.05)
        done = "select count(*) from enrichment_jobs where status = 'completed'"
        wait_for(lambda: running.query(done) == [(5,)], 3.0, what=running.statuses)
        assert old in running.workers(), "the new one works while the old one still drains"

        assert running.wait_until_done() == {"completed": 6}
        assert running.outcomes(long) == ["completed"]
        running.replaced(old)
        running.assert_sound([long, *short, *more])


def test_a_worker_that_leaks_memory_is_recycled_without_losing_a_job(daemon):
    with daemon(WORKER_MAX_MEMORY="400MB", MAX_CONCURRENT_JOBS="1") as running:
        first = running.child("worker")
        accepted = running.enqueue("leaking_memory", 4, megabytes=130)
        assert running.wait_until_done() == {"completed": 4}
        running.replaced(first)
        assert "memory" in running.events("child_recycled")[0]["reason"]
        running.assert_sound(accepted)


def test_a_fresh_worker_above_the_memory_limit_stays_and_says_so(daemon):
    with daemon(WORKER_MAX_MEMORY="1MB") as running:
        first = running.child("worker")
        accepted = running.enqueue("nap", 4, seconds=0.5)
        assert running.wait_until_done() == {"completed": 4}
        running.wait_for_event("worker_starts_above_its_memory_limit")
        assert running.child("worker") == first
        assert running.events("child_recycled") == []
        running.assert_sound(accepted)


def test_a_statement_timeout_only_costs_time(daemon, database_url):
    ((name,),) = query(database_url, "select current_database()")
    with daemon() as running:
        running.query(f'alter database "{name}" set statement_timeout = 300')
        (old,) = running.workers()
        os.kill(old, signal.SIGTERM)  # The next one connects with the setting.
        running.replaced(old)
        blocker = Blocker(database_url)
        accepted = running.enqueue("nap", 20, seconds=0.01)
        blocker.block()
        wait_for(lambda: "statement timeout" in running.log_text(), what=lambda: running.log_text())
        blocker.release()
        assert running.wait_until_done() == {"completed": 20}
        running.assert_sound(accepted)


class Blocker:
    """Holds a lock that every claim needs."""

    def __init__(self, database_url: str) -> None:
        self._conn = psycopg.connect(database_url, options="-c statement_timeout=0")

    def block(self) -> None:
        """Take it."""
        self._conn.execute("lock table enrichment_jobs in access exclusive mode")

    def release(self) -> None:
        """Give it back."""
        self._conn.rollback()
        self._conn.close()


@pytest.mark.parametrize("streams", [">&- 2>&-", "<&- >&- 2>&-", "2>&1 | head -n 1", "2>/dev/full"])
def test_without_its_standard_streams_the_work_goes_on(daemon, streams, tmp_path):
    made: Daemon = daemon(
        command=("sh", "-c", f'"$@" {streams}', "sh"), is_ready_awaited=False, LOG_LEVEL="debug"
    )
    with made as running:
        accepted = running.enqueue("nap", 30, seconds=0.02)
        assert running.wait_until_done(15.0) == {"completed": 30}
        for pid in running.processes():
            kill(pid, signal.SIGTERM)
        running.ended()
        running.assert_sound(accepted)
