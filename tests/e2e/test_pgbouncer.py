"""Everything by way of PgBouncer in transaction mode, with one connection for all of it.

The tests of the API, the queue, the processing and the store run again in a pytest of their own,
whose databases are reached through the pooler: a statement that leaves something in its session, or
needs two sessions at once where one should do, shows there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.e2e.daemon import ROOT, Daemon
from tests.support import postgres
from tests.support.pooler import pgbouncer, program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason="Debian's pgbouncer is not installed"),
]

SUITES = {
    "api": ["tests/api"],
    "queue": ["tests/queue", "tests/store/test_enqueue_sql.py", "tests/store/test_jobs.py"],
    "processing": ["tests/processing", "tests/store/test_items.py", "tests/store/test_lanes.py"],
    "store": [
        "tests/store/test_answers.py",
        "tests/store/test_credits.py",
        "tests/store/test_job_moves.py",
        "tests/store/test_rate_limits.py",
        "tests/store/test_rls.py",
        "tests/store/test_tenancy.py",
    ],
}
LEFT_OUT = {
    "LISTEN goes around a pooler": ["tests/api/test_events.py", "tests/processing/test_ear.py"],
    "It looks at the server's connections, which are the pooler's": [
        "tests/api/test_asgi.py::test_the_end_of_the_server_closes_every_connection",
        "tests/processing/test_processor.py::test_cut_connections_lose_nothing_and_record_nothing_twice",
        "tests/store/test_jobs.py::test_a_ready_job_is_one_statement_that_is_prepared_once",
        "tests/store/test_rls.py::test_nothing_of_the_workspace_is_left_on_the_connection[cancel]",
    ],
    "It holds a transaction open while another goes on: that takes two connections": [
        "tests/processing/test_floors.py::test_a_job_that_a_slow_transaction_put_below_the_floor_is_run_soon",
        "tests/processing/test_processor.py::test_a_heartbeat_that_hangs_stops_the_runs_before_others_may_have_them",
        "tests/processing/test_processor.py::test_a_locked_job_row_does_not_hold_up_the_heartbeat",
        "tests/processing/test_pulse.py::test_a_heartbeat_that_lost_to_a_migration_is_one_missed",
        "tests/store/test_enqueue_sql.py::test_a_key_waits_for_a_transaction_that_uses_it_too",
        "tests/store/test_items.py::test_rescue_passes_by_a_job_while_its_lead_is_being_written",
        "tests/store/test_job_moves.py::test_a_slow_rescuer_leaves_a_job_alone_that_a_live_worker_got_meanwhile",
        "tests/store/test_job_moves.py::test_two_promoters_at_once_share_the_due_jobs",
        "tests/store/test_jobs.py::test_a_job_that_changed_between_the_look_and_the_lock_is_claimed_as_it_is_now",
    ],
    "It makes up thousands of requests and asks the database nothing new": [
        "tests/api/test_fuzz.py"
    ],
    "Its pg_dump leaves the session without a search_path": ["tests/processing/test_erasure.py"],
}
SUITE_S_MAX = 400.0


@pytest.fixture
def pooled_dsn(admin_dsn: str, tmp_path: Path) -> Iterator[str]:
    """Give the test's server by way of PgBouncer."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    with pgbouncer(admin_dsn, tmp_path / "pooler") as dsn:
        yield dsn


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_passes_through_one_connection(admin_dsn, pooled_dsn, suite):
    left_out = [f"--deselect={name}" for names in LEFT_OUT.values() for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")
    }
    ended = subprocess.run(
        [*command, *left_out, *SUITES[suite]],
        env={**environ, postgres.URL_VARIABLE: admin_dsn, postgres.POOLER_VARIABLE: pooled_dsn},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SUITE_S_MAX,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]


def test_what_is_left_out_exists():
    for names in LEFT_OUT.values():
        for name in names:
            file, _, function = name.partition("::")
            assert (ROOT / file).exists(), name
            text = (ROOT / file).read_text()
            assert f"def {function.partition('[')[0]}" in text, name


@pytest.fixture
def pooled_url(admin_dsn: str, template: str, pooled_dsn: str) -> Iterator[str]:
    """Give a fresh database of this test alone, by way of PgBouncer."""
    direct = postgres.clone_database(admin_dsn, template)
    yield postgres.dsn_of(pooled_dsn, urlsplit(direct).path[1:])
    postgres.drop_database(admin_dsn, direct)


def test_statements_share_the_one_connection(pooled_url):
    with (
        psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as one,
        psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as other,
    ):
        pids = {conn.execute("select pg_backend_pid()").fetchone() for conn in (one, other)}
    assert len(pids) == 1


def test_a_daemon_that_cannot_listen_polls(pooled_url, tmp_path):
    folder = tmp_path / "daemon"
    folder.mkdir()
    with Daemon(pooled_url, folder=folder, WORKER_COUNT="2") as running:
        accepted = running.enqueue("nap", 20, seconds=0.01)
        assert running.wait_until_done() == {"completed": 20}
        assert running.stop() == 0
        running.assert_sound(accepted)
        assert running.events("child_died") == []


def test_doctor_says_that_there_is_a_pooler(pooled_url, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", "from enrichd.ctl.main import main; main()", "doctor", "--json"],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": pooled_url, "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    checks = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
    assert checks["pooler"]["status"] == "warn"
    assert "workers poll" in checks["pooler"]["message"]
    assert checks["prepared_statements"]["message"] == "not used behind a pooler"
    assert checks["listen"]["status"] == "skip"
    assert checks["api_role"]["status"] == "ok"
