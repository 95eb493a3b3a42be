"""A person who was erased is nowhere in the database, whatever ran meanwhile; others stay."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from enrichd.domain.email_hashes import email_hmac
from enrichd.store import erasure as erasure_store
from tests.support.traces import ADA, BOB, dumped, traces

RESULT = {"person": {"fullName": "Ada Quillfeather", "emails": [{"address": "Ada@gmail.com"}]}}
VERDICTS = {"results": [{"email": BOB, "verdict": "valid"}, {"email": ADA, "verdict": "valid"}]}


@pytest.fixture
def seed(db, a_job):
    """Give `seed()`: the person in every table and every column, and Bob beside; their jobs."""

    def insert(table: str, **values: Any) -> None:
        names = ", ".join(values)
        places = ", ".join(["%s"] * len(values))
        kept = [Jsonb(one) if isinstance(one, dict) else one for one in values.values()]
        db.execute(f"insert into {table} ({names}) values ({places})", kept)  # noqa: S608

    def make(workspace: str = "default") -> dict[str, Any]:
        a = {"workspace_id": workspace}
        single = {"leadId": "1", "inputData": {"email": ADA, "lastName": "Quillfeather"}}
        error = {"type": "provider_down", "message": "about ADA@gmail.com: no", "provider": "x"}
        jobs: dict[str, Any] = {
            status: a_job(
                status,
                type="single_lead_enrichment",
                payload=single,
                result=RESULT if status == "completed" else None,
                error=error,
                tags=["import", ADA],
                idempotency_key=f"{workspace} {status} {ADA}",
                webhook_url="https://h.test/?who=ada%40gmail.com",
                **a,
            )
            for status in ("pending", "scheduled", "waiting", "completed", "dead_letter")
        }
        jobs["found"] = a_job(
            "completed",
            type="social_profile_discovery",
            payload={"leadId": "1", "inputData": {"fullName": "Ada Quillfeather"}},
            result=RESULT,
            **a,
        )
        jobs["validation"] = a_job(
            "completed", payload={"emails": [BOB, ADA]}, result=VERDICTS, **a
        )
        batch = {
            "leads": [
                {"id": "b", "email": BOB},
                {"id": "a", "email": ADA, "lastName": "Quillfeather"},
                {"id": "n", "fullName": "Ada Quillfeather"},
            ]
        }
        jobs["batch"] = a_job(
            "failed", type="batch_lead_enrichment", payload=batch, error=error, **a
        )
        for key, result in (("b", {"leadId": "b"}), ("a", RESULT), ("n", RESULT)):
            insert(
                "enrichment_job_items",
                job_id=jobs["batch"],
                item_key=key,
                status="completed",
                result=result,
                **a,
            )
        for name in ("dead_letter", "batch"):
            insert(
                "enrichment_attempt_log",
                job_id=jobs[name],
                attempt=1,
                outcome="retry",
                error=error,
                **a,
            )
        insert(
            "enrichment_callbacks",
            token_hash=uuid7().bytes,
            job_id=jobs["waiting"],
            provider_id="apollo",
            operation="findEmail",
            cache_key=b"k",
            state="received",
            answer='{"email": "ada\\u0040gmail.com", "name": "Quillfeather"}',
            deadline="2100-01-01",
            **a,
        )
        (pepper,) = db.execute("select pepper from enrichment_installation").fetchone()
        insert(
            "enrichment_provider_cache",
            cache_key=uuid7().bytes,
            provider_id="hunter",
            operation="findEmail",
            outcome="found",
            answer='{"facts": ["ada@gmail.com", "Quillfeather"]}',
            subjects=[email_hmac(bytes(pepper), ADA)],
            **a,
        )
        insert(
            "enrichment_provider_state",
            provider_id=f"hunter#{workspace}",
            reason="hunter answered 403: 'ada@gmail.com'",
        )
        for name in ("completed", "batch"):
            insert(
                "enrichment_webhook_deliveries",
                target="t",
                url="https://h.test/?who=ada%40gmail.com&x=1",
                event="job.completed",
                job_id=jobs[name],
                data=RESULT,
                answer="thanks, Ada@gmail.com Quillfeather",
                **a,
            )
        insert(
            "enrichment_incoming_events",
            source="job",
            event_id=uuid7().hex,
            job_id=jobs["batch"],
            data='{"email": "ADA@gmail.com", "name": "Quillfeather"}',
            **a,
        )
        insert(
            "enrichment_provider_use",
            day="2026-01-01",
            provider_id="hunter",
            operation="findEmail",
            calls=5,
            **a,
        )
        return jobs

    return make


def test_after_an_erasure_a_dump_has_no_trace_of_the_person(enrichctl, seed, db, database_url):
    jobs = seed()
    assert len(traces(database_url)) >= 12, "the person is not in the dump to begin with"

    ended = enrichctl("erase", "--email", "Ada@googlemail.com", "--yes", "--json")

    assert ended.document == {
        "jobs": 6,
        "cancelled": 3,
        "redactedJobs": 2,
        "leads": 2,
        "rows": 4,
        "cachedAnswers": 1,
        "stillRunning": 0,
        "isDryRun": False,
    }
    assert traces(database_url) == []
    kept = dict(db.execute("select id, status from enrichment_jobs").fetchall())
    assert {name: kept[job_id] for name, job_id in jobs.items()} == {
        **dict.fromkeys(("pending", "scheduled", "waiting"), "cancelled"),
        **dict.fromkeys(("completed", "found", "validation"), "completed"),
        "dead_letter": "dead_letter",
        "batch": "failed",
    }
    assert enrichctl("erase", "--email", ADA, "--yes").stdout.startswith("erased nothing;")


def test_others_in_the_same_jobs_stay_as_they_are(enrichctl, seed, db):
    jobs = seed()

    enrichctl("erase", "--email", ADA, "--yes")

    payload, error = db.execute(
        "select payload, error from enrichment_jobs where id = %s", [jobs["batch"]]
    ).fetchone()
    assert payload == {"leads": [{"id": "b", "email": BOB}, {"id": "a"}, {"id": "n"}]}
    assert error["message"] == "about (erased): no"
    items = db.execute(
        "select item_key, result ->> 'outcome' from enrichment_job_items order by 1"
    ).fetchall()
    assert items == [("a", "suppressed"), ("b", None), ("n", "suppressed")]
    (result,) = db.execute(
        "select result from enrichment_jobs where id = %s", [jobs["validation"]]
    ).fetchone()
    assert result["results"][0] == VERDICTS["results"][0]
    assert db.execute("select calls from enrichment_provider_use").fetchone() == (5,)


def test_another_workspace_keeps_the_person_unless_all_are_meant(enrichctl, seed, database_url, db):
    seed("default")
    seed("theirs")
    before = len(traces(database_url))

    enrichctl("erase", "--email", ADA, "--yes", "-w", "default")
    assert 0 < len(traces(database_url)) < before
    suppressed = "select distinct workspace_id from enrichment_suppressions"
    assert db.execute(suppressed).fetchall() == [("default",)]

    enrichctl("erase", "--email", ADA, "--yes", "--all-workspaces")
    assert traces(database_url) == []
    assert sorted(db.execute(suppressed).fetchall()) == [("*",), ("default",)]


def test_a_dry_run_counts_the_same_and_changes_nothing(enrichctl, seed, database_url):
    seed()
    before = dumped(database_url)

    dry = enrichctl("erase", "--email", ADA, "--dry-run", "--json").document

    assert sorted(dumped(database_url).splitlines()) == sorted(before.splitlines())
    done = enrichctl("erase", "--email", ADA, "--yes", "--json").document
    # What belongs to a job is erased with it, and not found a second time.
    assert {**dry, "isDryRun": False, "rows": 0} == {**done, "rows": 0}
    assert dry["rows"] == 7


def test_a_script_must_say_yes_and_is_told_what_it_would_do(enrichctl, seed, database_url):
    seed()

    ended = enrichctl("erase", "--email", ADA)

    assert ended.exit_code == 2
    assert "This erases a.da+news@gmail.com from workspace default" in ended.stderr
    assert "6 jobs (3 of them not ended), 2 jobs in part" in ended.stderr
    assert traces(database_url) != []


@pytest.mark.parametrize("words", [["--email", "nobody"], [], ["--email", ADA, "--wait", "soon"]])
def test_what_is_no_address_is_a_usage_error(offline, words):
    assert offline("erase", *words).exit_code == 2


def test_every_table_with_room_for_a_person_is_gone_through(db):
    """A table that comes later is named here, or in `erasure.BESIDE`."""
    rows = db.execute(
        "select distinct table_name from information_schema.columns"
        " where table_schema = 'public' and data_type in ('text', 'jsonb', 'json', 'bytea')"
        "   and table_name in (select tablename from pg_tables where schemaname = 'public')"
    ).fetchall()
    with_text = {name for (name,) in rows if not name.startswith("enrichment_rate_")}

    gone_through = {*erasure_store.KNOWN, *(one.table for one in erasure_store.BESIDE)}

    assert gone_through <= with_text
    assert with_text - erasure_store.WITHOUT_PEOPLE == gone_through
