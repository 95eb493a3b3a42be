from datetime import timedelta

import pytest
from uuid_utils.compat import uuid7

from tests.ctl.conftest import ESCAPES


def test_a_job_is_shown_with_payload_result_and_attempts(enrichctl, a_job, db):
    job_id = a_job(
        "completed",
        worker_id=uuid7(),
        attempts=2,
        started_at=timedelta(seconds=1),
        result={"outcome": "complete"},
        tags=["a", "b"],
    )
    db.execute(
        "insert into enrichment_attempt_log"
        " (job_id, workspace_id, attempt, outcome, started_at, error)"
        " values (%s, 'default', 1, 'retry', now() - interval '1 minute',"
        """ '{"type": "provider_down", "message": "503"}')""",
        [job_id],
    )

    shown = enrichctl("show", str(job_id), "--attempts").stdout

    for part in (str(job_id), "completed", "a, b", "2 of 4", '"ada@example.com"', '"complete"'):
        assert part in shown
    assert "provider_down: 503" in shown

    document = enrichctl("show", str(job_id), "--json").document
    assert document["result"] == {"outcome": "complete"}
    assert [(part["attempt"], part["outcome"]) for part in document["attemptLog"]] == [
        (1, "retry"),
        (2, "completed"),
    ]
    assert "items" not in document


def test_a_batch_shows_how_its_leads_ended(enrichctl, a_job, db):
    job_id = a_job("processing", progress_done=3, progress_total=9)
    for key, status, error in [
        ("a", "completed", None),
        ("b", "completed", None),
        ("c", "failed", '{"type": "no_data", "message": "nothing found"}'),
    ]:
        db.execute(
            "insert into enrichment_job_items (job_id, item_key, workspace_id, status, error)"
            " values (%s, %s, 'default', %s, %s)",
            [job_id, key, status, error],
        )

    shown = enrichctl("show", str(job_id), "--items").stdout
    document = enrichctl("show", str(job_id), "--items", "--json").document

    assert "3 of 9" in shown
    assert "2 completed, 1 failed" in shown
    assert "no_data: nothing found" in shown
    assert document["itemCounts"] == {"completed": 2, "failed": 1}
    assert [item["key"] for item in document["items"]] == ["a", "b", "c"]


def test_a_cancel_that_is_under_way_is_told(enrichctl, a_job):
    job_id = a_job("processing", cancel_requested_at="now")

    assert "processing (being cancelled" in enrichctl("show", str(job_id)).stdout


@pytest.mark.parametrize("options", [[], ["--json"], ["--attempts"], ["--items"]])
def test_hostile_text_never_reaches_the_terminal(enrichctl, a_job, db, options):
    evil = {"type": ESCAPES, "message": ESCAPES}
    job_id = a_job(
        "failed",
        worker_id=uuid7(),
        payload={ESCAPES: [ESCAPES]},
        result=evil,
        error=evil,
        tags=[ESCAPES],
        provider_id=ESCAPES,
        idempotency_key=ESCAPES,
        webhook_url=ESCAPES,
    )
    db.execute(
        "insert into enrichment_job_items (job_id, item_key, workspace_id, status, error)"
        " values (%s, %s, 'default', 'failed', to_jsonb(%s::text))",
        [job_id, ESCAPES, ESCAPES],
    )

    shown = enrichctl("show", str(job_id), *options).stdout

    assert "gpj" in shown
    assert shown.replace("\n", "").isprintable()


def test_an_error_that_is_no_object_is_shown_all_the_same(enrichctl, a_job, db):
    job_id = a_job("failed")
    db.execute("update enrichment_jobs set error = '[1, \"x\"]'")

    assert "[1, 'x']" in enrichctl("show", str(job_id)).stdout


def test_a_job_that_is_not_there_is_3(enrichctl):
    ended = enrichctl("show", "01234567", "--json")

    assert ended.exit_code == 3
    assert ended.error["code"] == "job_not_found"
    assert ended.stdout == ""
