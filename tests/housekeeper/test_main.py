"""The housekeeper child alone: whom it wakes, whom it buries, and what cannot take it down."""

from __future__ import annotations

import time

import psycopg
import pytest

from enrichd.housekeeper.main import direct_dsn
from enrichd.settings import Settings
from tests.e2e.daemon import connections, enqueue, query, wait_for
from tests.e2e.linked import LinkedChild

A_WORKER = """
    insert into enrichment_workers (id, host, pid, version, concurrency)
    values (gen_random_uuid(), 'test', 1, '0', 4) returning id
"""
CLAIM = """
    update enrichment_jobs set status = 'processing', attempts = 1, started_at = now(),
           worker_id = %s
"""


@pytest.fixture
def housekeeper(database_url, tmp_path):
    """Give `housekeeper(**environ)`: a housekeeper process to enter."""
    return lambda **environ: LinkedChild("housekeeper", database_url, tmp_path, **environ)


def status(database_url: str) -> str:
    return query(database_url, "select status from enrichment_jobs")[0][0]


def test_jobs_wake_as_many_workers_as_they_fill(housekeeper, database_url):
    with housekeeper(MAX_CONCURRENT_JOBS="4") as child:
        child.wait_until_ready()
        child.say("idle 9")
        wait_for(lambda: ("enrichd listen",) in names(database_url), what="LISTEN")
        enqueue(database_url, "nap", 9)
        child.wait_for_line("wake 3", 2.0)


def names(database_url: str) -> list[tuple[str]]:
    return [row[1:2] for row in connections(database_url)]


def test_a_job_of_a_foreign_transaction_that_sends_no_hint_is_seen_soon(housekeeper, database_url):
    enqueue(database_url, "nap", 1)
    with psycopg.connect(database_url) as conn:
        conn.execute("delete from enrichment_jobs")
        conn.commit()
        with housekeeper() as child:
            child.wait_until_ready()
            child.say("idle 1")
            conn.execute("select enrichment_enqueue('nap', '{}')")
            before = len([line for line in child.heard() if line.startswith("wake")])
            conn.commit()
            committed_at = time.monotonic()
            child.wait_for_line("wake 1", 3.0, count=before + 1)
            assert time.monotonic() - committed_at < 1.5


def test_nobody_is_woken_while_nobody_is_idle(housekeeper, database_url):
    with housekeeper() as child:
        child.wait_until_ready()
        enqueue(database_url, "nap", 3)
        # A due job shows that it has looked since.
        enqueue(database_url, "nap", 1, delay_s=0.5)
        due = "select 1 from enrichment_jobs where status = 'scheduled'"
        wait_for(lambda: not query(database_url, due))
        assert [line for line in child.heard() if line.startswith("wake")] == []
        child.say("idle 1")
        child.wait_for_line("wake 1")


def test_the_jobs_of_a_worker_that_died_are_given_away_at_once(housekeeper, database_url):
    enqueue(database_url, "nap", 1)
    ((worker_id,),) = query(database_url, A_WORKER)
    query(database_url, CLAIM, worker_id)
    with housekeeper(WORKER_TIMEOUT="60000") as child:
        child.wait_until_ready()
        child.say(f"dead {worker_id}")
        wait_for(lambda: status(database_url) == "pending", 2.0, what=child.log)


def test_the_jobs_of_a_silent_worker_are_given_away_after_the_timeout(housekeeper, database_url):
    enqueue(database_url, "nap", 1)
    ((worker_id,),) = query(database_url, A_WORKER)
    query(database_url, CLAIM, worker_id)
    with housekeeper(WORKER_TIMEOUT="2000", HEARTBEAT_INTERVAL="500") as child:
        child.wait_until_ready()
        wait_for(lambda: status(database_url) == "pending", 6.0, what=child.log)
        ((waited_s,),) = query(
            database_url, "select extract(epoch from now() - heartbeat_at)::float8"
            " from enrichment_workers"
        )  # fmt: skip
        assert waited_s >= 2.0


@pytest.mark.parametrize("payload", ["\u00b2", "9" * 5_000, "-1", "", "drop table", "3.5"])
def test_a_hint_of_nonsense_is_a_hint_of_one_job(housekeeper, database_url, payload):
    with housekeeper() as child:
        child.wait_until_ready()
        wait_for(lambda: ("enrichd listen",) in names(database_url), what="LISTEN")
        query(database_url, "select pg_notify('enrichd', %s)", payload)
        child.say("idle 1")
        enqueue(database_url, "nap", 1)
        child.wait_for_line("wake 1")
        assert child.process.poll() is None
        assert "Traceback" not in child.log()


def test_a_report_of_a_death_that_cannot_be_is_forgotten(housekeeper, database_url):
    with housekeeper() as child:
        child.wait_until_ready()
        child.say("dead nobody")
        wait_for(lambda: "housekeeping_broke" in child.log(), what=child.log)
        child.say("idle 1")
        enqueue(database_url, "nap", 1)
        child.wait_for_line("wake 1")


def test_it_leaves_when_its_supervisor_dies(housekeeper, database_url):
    with housekeeper() as child:
        child.wait_until_ready()
        child.hang_up()
        assert child.ended() == 0
        assert connections(database_url) == []


def test_without_tables_it_stays_and_works_once_they_are_there(housekeeper, database_url):
    query(database_url, "alter table enrichment_jobs rename to elsewhere")
    with housekeeper() as child:
        child.wait_until_ready()
        child.say("idle 1")
        wait_for(lambda: "database_away" in child.log(), what=child.log)
        query(database_url, "alter table elsewhere rename to enrichment_jobs")
        enqueue(database_url, "nap", 1)
        child.wait_for_line("wake 1")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"DATABASE_URL": "postgresql://a/b"}, "postgresql://a/b"),
        ({"DATABASE_URL": "postgresql://a:6543/b"}, None),
        (
            {"DATABASE_URL": "postgresql://a:6543/b", "DATABASE_DIRECT_URL": "postgresql://a/b"},
            "postgresql://a/b",
        ),
    ],
)
def test_it_listens_only_where_that_works(environ, expected, tmp_path):
    settings = Settings.load(environ, directory=tmp_path)
    assert direct_dsn(settings, settings.dsn) == expected
