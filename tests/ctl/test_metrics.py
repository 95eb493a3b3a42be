from datetime import timedelta

from uuid_utils.compat import uuid7


def test_jobs_are_counted_by_type_and_state(enrichctl, a_job):
    a_job("completed")
    a_job("completed", type="company_data_update")
    a_job("dead_letter")
    a_job("pending", workspace_id="theirs")

    document = enrichctl("metrics", "--json").document

    assert document["workspaceId"] == "default"
    assert {name: count for name, count in document["totals"].items() if count} == {
        "completed": 2,
        "dead_letter": 1,
    }
    assert document["counts"] == [
        {"type": "company_data_update", "status": "completed", "jobs": 1},
        {"type": "email_validation", "status": "completed", "jobs": 1},
        {"type": "email_validation", "status": "dead_letter", "jobs": 1},
    ]


def test_the_pace_is_that_of_the_last_hour(enrichctl, a_job, db):
    for seconds in (1, 2, 3):
        a_job("completed", started_at=timedelta(seconds=seconds))
    a_job("completed", started_at=timedelta(hours=3), completed_at=timedelta(hours=2))
    a_job("failed")
    a_job("pending")

    pace = enrichctl("metrics", "--json").document["pace"]

    assert (pace["completedLastMinute"], pace["completedLastHour"], pace["failedLastHour"]) == (
        3,
        3,
        1,
    )
    assert 1.9 < pace["runP50Seconds"] < 2.5
    assert 0 <= pace["oldestReadySeconds"] < 30


def test_an_empty_queue_is_shown_without_figures(enrichctl):
    ended = enrichctl("metrics")

    assert "There are no jobs in workspace default." in ended.stdout
    assert "p50 -, p95 -" in ended.stdout
    assert ended.stderr == ""


def test_ready_jobs_without_a_worker_are_pointed_at(enrichctl, a_job, db):
    a_job("pending")
    assert "no worker runs" in enrichctl("metrics").stderr

    db.execute(
        "insert into enrichment_workers (id, host, pid, version, concurrency, running)"
        " values (%s, 'host-1', 77, '0.1.0', 20, 3)",
        [uuid7()],
    )
    ended = enrichctl("metrics")

    assert ended.stderr == ""
    assert "1 alive, 3 of 20 places taken" in ended.stdout
    assert "host-1  77   running     3/20" in ended.stdout
