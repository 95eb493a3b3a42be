"""`enrichctl process`: one bounded run, for cron and serverless."""

from __future__ import annotations

import json
import signal
import sys
import time
from datetime import timedelta
from uuid import UUID

import pytest

from tests.support import postgres
from tests.support.processes import NO_NETWORK, until

PLUGIN = """
import asyncio

from pydantic import BaseModel

from enrichd.plugin import Failed, JobContext, JobError, Retry, job_type


class Nap(BaseModel):
    seconds: float = 0.0
    ends: str = "well"


@job_type("process_nap", Nap)
async def nap(payload: Nap, context: JobContext) -> dict:
    await asyncio.sleep(payload.seconds)
    match payload.ends:
        case "badly":
            return Failed(JobError("tired", "no more naps"))
        case "again":
            return Retry(JobError("noise", "too loud", retryable=True))
    return {"slept": payload.seconds}
"""


@pytest.fixture(autouse=True)
def plugin(monkeypatch, clean_settings):
    """Let every `enrichctl` of the test know the job type `process_nap`."""
    (clean_settings / "process_naps.py").write_text(PLUGIN)
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENRICHD_PLUGINS", "process_naps")
    monkeypatch.setenv("GRACEFUL_SHUTDOWN_TIMEOUT", "500")
    monkeypatch.setenv("PYTHONPATH", str(clean_settings))
    monkeypatch.syspath_prepend(clean_settings)
    yield
    sys.modules.pop("process_naps", None)


@pytest.fixture
def a_nap(enrichctl):
    """Give `a_nap(seconds, ends)`: a ready job that sleeps, by its id."""

    def make(seconds=0.0, ends="well"):
        payload = json.dumps({"seconds": seconds, "ends": ends})
        ended = enrichctl("enqueue", "process_nap", "--payload", payload)
        assert ended.exit_code == 0, ended.stderr
        return UUID(ended.stdout.strip())

    return make


@pytest.fixture(autouse=True)
def one_registration(monkeypatch):
    """Forget the plug-in's registration at the end: the next test imports its own copy."""
    from enrichd.domain import payloads
    from enrichd.handlers.registry import HANDLERS

    yield
    HANDLERS.pop("process_nap", None)
    payloads.MODELS.pop("process_nap", None)


def test_it_runs_what_is_ready_and_ends(enrichctl, a_nap, a_job, states):
    ready = [a_nap() for _ in range(25)]
    later = a_job("scheduled")
    due = a_job("scheduled", scheduled_at=timedelta(seconds=5))

    ended = enrichctl("process")

    assert ended.exit_code == 0
    assert ended.stdout == "26 claimed, 26 completed\n"
    after = states()
    assert {after[job] for job in (*ready, due)} == {"completed"}
    assert after[later] == "scheduled"


def test_without_a_ready_job_it_says_so(enrichctl):
    ended = enrichctl("process")

    assert (ended.exit_code, ended.stdout) == (0, "nothing to do: no job is ready\n")


def test_max_jobs_is_the_most_it_claims(enrichctl, a_nap, states):
    jobs = [a_nap() for _ in range(10)]

    ended = enrichctl("process", "--max-jobs", "4", "--json")

    assert ended.document["claimed"] == ended.document["completed"] == 4
    assert [states()[job] for job in jobs].count("pending") == 6
    assert ended.document["remaining"] == 6


def test_every_end_is_counted(enrichctl, a_nap):
    for end in ("well", "badly", "again"):
        a_nap(ends=end)

    counts = enrichctl("process", "--json").document

    assert counts.pop("durationMs") >= 0
    assert counts == {
        "claimed": 3,
        "completed": 1,
        "failed": 1,
        "retried": 1,
        "snoozed": 0,
        "cancelled": 0,
        "released": 0,
        "lost": 0,
        "remaining": 0,
    }


def test_what_is_unfinished_in_time_goes_back_without_an_attempt(enrichctl, a_nap, db):
    job = a_nap(seconds=60)
    began = time.monotonic()

    ended = enrichctl("process", "--timeout", "300ms", "--json")

    assert time.monotonic() - began < 10
    assert ended.document["released"] == 1
    row = db.execute(
        "select status, attempts from enrichment_jobs where id = %s", (job,)
    ).fetchone()
    assert row == ("pending", 0)


def test_what_runs_may_end_in_the_last_tenth_and_nothing_begins_in_it(enrichctl, a_nap, states):
    jobs = [a_nap(seconds=1.15) for _ in range(3)]

    ended = enrichctl("process", "--timeout", "2500ms", "--concurrency", "1", "--json")

    # The second nap ends in the reserve; the third is not begun in what is left of it.
    counts = ended.document
    assert (counts["completed"], counts["remaining"]) == (2, 1)
    assert [states()[job] for job in jobs].count("pending") == 1
    assert counts["durationMs"] < 2500


def test_concurrency_bounds_the_jobs_at_once(enrichctl, a_nap):
    for _ in range(3):
        a_nap(seconds=0.2)
    began = time.monotonic()

    enrichctl("process", "--concurrency", "1")

    assert time.monotonic() - began > 0.6


def test_a_signal_ends_it_in_order(process, a_nap, states):
    quick, slow = a_nap(), a_nap(seconds=60)
    with process("process", "--json", "--concurrency", "2") as child:
        until(lambda: (states()[quick], states()[slow]) == ("completed", "processing"))
        child.send_signal(signal.SIGTERM)
        stdout, stderr = child.communicate(timeout=20)

    assert child.returncode == 0, stderr
    counts = json.loads(stdout)
    assert (counts["completed"], counts["released"]) == (1, 1)
    assert states()[slow] == "pending"


@pytest.mark.parametrize(
    "words",
    [
        ("--max-jobs", "0"),
        ("--timeout", "25"),
        ("--concurrency", "0"),
        ("--concurrency", "1001"),
        ("extra",),
    ],
)
def test_a_wrong_word_is_2_and_runs_nothing(enrichctl, a_nap, states, words):
    job = a_nap()

    assert enrichctl("process", *words).exit_code == 2
    assert states()[job] == "pending"


def test_a_plugin_that_cannot_be_imported_is_2(enrichctl, monkeypatch):
    monkeypatch.setenv("ENRICHD_PLUGINS", "no_such_module")

    ended = enrichctl("process")

    assert ended.exit_code == 2
    assert "ENRICHD_PLUGINS: cannot import 'no_such_module'" in ended.stderr


def test_without_a_database_it_is_5(offline):
    ended = offline("process")

    assert ended.exit_code == 5
    assert ended.stderr.startswith("error: PostgreSQL cannot be reached")


def test_without_tables_it_says_what_to_run(enrichctl, admin_dsn):
    empty = postgres.clone_database(admin_dsn, "template1")
    try:
        ended = enrichctl("process", "--database-url", empty)
    finally:
        postgres.drop_database(admin_dsn, empty)

    assert ended.exit_code == 5
    assert "Run: enrichctl db migrate" in ended.stderr
