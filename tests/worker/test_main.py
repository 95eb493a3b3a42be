"""A worker child alone: what it tells its supervisor, how it obeys, how it leaves."""

from __future__ import annotations

import os
import signal
import time

import pytest

from enrichd.worker.main import resident_bytes
from tests.e2e.daemon import assert_sound, connections, enqueue, outcomes, query, wait_for
from tests.e2e.linked import LinkedChild


@pytest.fixture
def worker(database_url, tmp_path):
    """Give `worker(**environ)`: a worker process to enter."""
    return lambda **environ: LinkedChild("worker", database_url, tmp_path, **environ)


def status_count(database_url: str, status: str) -> int:
    return query(database_url, "select count(*) from enrichment_jobs where status = %s", status)[0][
        0
    ]


def test_it_says_who_it_is_once_its_row_is_there_and_when_it_is_idle(worker, database_url):
    with worker() as child:
        child.wait_until_ready()
        (row,) = query(database_url, "select id, pid, concurrency from enrichment_workers")
        assert child.wait_for_line("id ") == f"id {row[0]}"
        assert row[1:] == (child.process.pid, 4)
        child.wait_for_line("idle")
        enqueue(database_url, "nap", 1, seconds=0.2)
        child.wait_for_line("busy")
        child.wait_for_line("idle", count=2)


def test_a_wake_has_it_look_at_once(worker, database_url):
    with worker(POLL_INTERVAL="60000") as child:
        child.wait_for_line("idle")
        enqueue(database_url, "nap", 1, seconds=0.01)
        child.say("wake")
        wait_for(lambda: status_count(database_url, "completed") == 1, 2.0)


def test_it_drains_when_its_supervisor_dies(worker, database_url):
    with worker() as child:
        child.wait_until_ready()
        accepted = enqueue(database_url, "nap", 4, seconds=0.6)
        wait_for(lambda: status_count(database_url, "processing") == 4)
        child.hang_up()
        assert child.ended() == 0
        assert status_count(database_url, "completed") == 4
        assert query(database_url, "select 1 from enrichment_workers") == []
        assert connections(database_url) == []
        assert_sound(database_url, accepted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_any_number_of_signals_is_one_stop_with_its_grace(worker, database_url, number):
    with worker() as child:
        child.wait_until_ready()
        enqueue(database_url, "nap", 2, seconds=0.6)
        wait_for(lambda: status_count(database_url, "processing") == 2)
        for _ in range(3):
            os.kill(child.process.pid, number)
        assert child.ended() == 0
        assert status_count(database_url, "completed") == 2


def test_stop_now_gives_what_runs_back_at_once(worker, database_url):
    with worker(GRACEFUL_SHUTDOWN_TIMEOUT="60000") as child:
        child.wait_until_ready()
        (job_id,) = enqueue(database_url, "nap", 1, seconds=60)
        wait_for(lambda: query(database_url, "select 1 from enrichment_workers where running = 1"))
        child.say("stop_now")
        assert child.ended(3.0) == 0
        assert outcomes(database_url, job_id) == ["released"]
        assert query(database_url, "select status, attempts from enrichment_jobs") == [
            ("pending", 0)
        ]


def test_stop_now_during_a_drain_ends_the_drain(worker, database_url):
    with worker(GRACEFUL_SHUTDOWN_TIMEOUT="60000") as child:
        child.wait_until_ready()
        enqueue(database_url, "nap", 1, seconds=60)
        wait_for(lambda: status_count(database_url, "processing") == 1)
        os.kill(child.process.pid, signal.SIGTERM)
        draining = "select 1 from enrichment_workers where state = 'draining'"
        wait_for(lambda: query(database_url, draining))
        child.say("stop_now")
        told_at = time.monotonic()
        assert child.ended() == 0
        assert time.monotonic() - told_at < 2.0


def test_it_works_on_until_it_may_be_recycled(worker, database_url):
    with worker(WORKER_MAX_JOBS="5") as child:
        accepted = enqueue(database_url, "nap", 12, seconds=0.1)
        assert child.wait_for_line("recycle ").startswith("recycle jobs: ")
        wait_for(lambda: status_count(database_url, "completed") == 12)
        child.wait_for_line("recycle jobs: 12")  # It asks again, in case nobody heard.
        child.say("retire")
        assert child.ended() == 0
        assert_sound(database_url, accepted)


def test_one_that_retires_claims_nothing_more_and_takes_as_long_as_its_jobs_do(
    worker, database_url
):
    with worker(GRACEFUL_SHUTDOWN_TIMEOUT="200") as child:
        child.wait_until_ready()
        accepted = enqueue(database_url, "nap", 6, seconds=1.0)
        wait_for(lambda: status_count(database_url, "processing") == 4)
        child.say("retire")
        assert child.ended() == 0
        assert status_count(database_url, "completed") == 4
        assert status_count(database_url, "pending") == 2
        assert_sound(database_url, accepted)


def test_a_retiring_one_ends_runs_at_their_timeout(worker, database_url):
    with worker(GRACEFUL_SHUTDOWN_TIMEOUT="200", JOB_TIMEOUT="1000") as child:
        child.wait_until_ready()
        (job_id,) = enqueue(database_url, "nap", 1, seconds=60)
        wait_for(lambda: status_count(database_url, "processing") == 1)
        child.say("retire")
        assert child.ended(5.0) == 0
        assert outcomes(database_url, job_id) == ["retry"]


@pytest.mark.parametrize("ending", ["signal", "orphaned"])
def test_a_stop_gives_one_that_retires_the_grace(worker, database_url, ending):
    with worker(GRACEFUL_SHUTDOWN_TIMEOUT="500") as child:
        child.wait_until_ready()
        (job_id,) = enqueue(database_url, "nap", 1, seconds=60)
        wait_for(lambda: query(database_url, "select 1 from enrichment_workers where running = 1"))
        child.say("retire")
        draining = "select 1 from enrichment_workers where state = 'draining'"
        wait_for(lambda: query(database_url, draining))
        if ending == "signal":
            os.kill(child.process.pid, signal.SIGTERM)
        else:
            child.hang_up()
        assert child.ended() == 0, "long before the job would"
        assert outcomes(database_url, job_id) == ["released"]


def test_words_it_does_not_know_are_no_orders(worker, database_url):
    with worker() as child:
        child.wait_until_ready()
        for line in ("tick", "", "stop", "dead x", "\x00", "x" * 5_000):
            child.say(line)
        enqueue(database_url, "nap", 1, seconds=0.01)
        wait_for(lambda: status_count(database_url, "completed") == 1)


def test_resident_memory_is_of_a_plausible_size():
    before = resident_bytes()
    kept = os.urandom(64 << 20)
    assert 10 << 20 < before < resident_bytes() - (32 << 20)
    assert len(kept) == 64 << 20
