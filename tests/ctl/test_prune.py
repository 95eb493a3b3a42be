from datetime import timedelta

import pytest


def test_old_jobs_go_with_all_that_belongs_to_them(enrichctl, a_job, states, db):
    old = a_job("completed", completed_at=timedelta(days=31))
    young, running = a_job("completed"), a_job("processing")
    theirs = a_job("failed", completed_at=timedelta(days=31), workspace_id="theirs")
    db.execute(
        "insert into enrichment_job_items (job_id, item_key, workspace_id, status)"
        " values (%s, 'a', 'default', 'completed')",
        [old],
    )

    ended = enrichctl("prune", "--older-than", "30d", "--yes", "--json")

    assert ended.document == {"found": 1, "deleted": 1, "isDryRun": False}
    assert states().keys() == {young, running, theirs}
    assert db.execute("select count(*) from enrichment_job_items").fetchone() == (0,)


def test_more_than_a_batch_goes_in_batches(enrichctl, db):
    db.execute(
        "insert into enrichment_jobs (id, type, status, payload, completed_at)"
        " select gen_random_uuid(), 'x', 'failed', '{}', now() - interval '2 days'"
        " from generate_series(1, 2500)"
    )

    assert enrichctl("prune", "--older-than", "1d", "--yes").stdout == "deleted 2,500 jobs\n"


def test_a_dry_run_counts_and_deletes_nothing(enrichctl, a_job, states):
    a_job("failed", completed_at=timedelta(days=2))
    a_job("completed", completed_at=timedelta(days=2))

    ended = enrichctl("prune", "--older-than", "1d", "--status", "failed", "--dry-run")

    assert ended.stdout == "would delete 1 job (failed)\n"
    assert len(states()) == 2


def test_a_script_must_say_yes(enrichctl, a_job, states):
    a_job("failed", completed_at=timedelta(days=2))

    ended = enrichctl("prune", "--older-than", "1d")

    assert ended.exit_code == 2
    assert "This deletes 1 job of workspace default" in ended.stderr
    assert len(states()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--older-than"),
        (["--older-than", "30"], "write 30s, 30m, 30h or 30d"),
        (["--older-than", "10s"], "must be at least 1m"),
        (["--older-than", "1d", "--status", "pending"], "pending jobs cannot be pruned"),
    ],
)
def test_what_must_not_be_deleted_is_a_usage_error(offline, words, told):
    ended = offline("prune", *words)

    assert ended.exit_code == 2
    assert told in ended.stderr
