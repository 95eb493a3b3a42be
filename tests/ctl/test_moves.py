import pytest


def test_a_dead_job_is_put_back(enrichctl, a_job, states):
    job_id = a_job("dead_letter")

    ended = enrichctl("retry", str(job_id)[:20])

    assert (ended.exit_code, ended.stdout) == (0, f"{job_id}  pending\n")
    assert states() == {job_id: "pending"}


def test_a_job_that_has_not_started_is_cancelled_at_once(enrichctl, a_job, states):
    job_id = a_job("scheduled")

    assert enrichctl("cancel", str(job_id)).stdout == f"{job_id}  cancelled\n"
    assert states() == {job_id: "cancelled"}


def test_a_running_job_is_asked_to_stop(enrichctl, a_job, db):
    job_id = a_job("processing")

    assert "processing (its worker was asked" in enrichctl("cancel", str(job_id)).stdout
    assert db.execute("select cancel_requested_at from enrichment_jobs").fetchone() != (None,)


@pytest.mark.parametrize(
    ("verb", "status", "wanted"),
    [
        *[
            ("retry", status, "pending")
            for status in ("pending", "scheduled", "processing", "waiting", "completed")
        ],
        *[
            ("cancel", status, "cancelled")
            for status in ("completed", "failed", "dead_letter", "cancelled")
        ],
    ],
)
def test_a_move_the_state_forbids_is_4_and_names_both(
    enrichctl, a_job, states, verb, status, wanted
):
    job_id = a_job(status)

    ended = enrichctl(verb, str(job_id))

    assert ended.exit_code == 4
    assert f"is {status} and cannot become {wanted}" in ended.stderr
    assert states() == {job_id: status}


def test_of_several_jobs_each_is_told_and_the_worst_counts(enrichctl, a_job, states):
    dead, done = a_job("dead_letter"), a_job("completed")

    ended = enrichctl("retry", "ffffffff", str(done), str(dead))
    again = enrichctl("retry", "ffffffff", "eeeeeeee", "--json")

    assert ended.exit_code == 4
    assert ended.stdout == f"{dead}  pending\n"
    assert "ffffffff" in ended.stderr
    assert "is completed" in ended.stderr
    assert states() == {dead: "pending", done: "completed"}
    assert again.exit_code == 3
    assert [part["code"] for part in again.document["refused"]] == ["job_not_found"] * 2


def test_all_that_fit_are_moved_and_no_other(enrichctl, a_job, states):
    fits = [a_job("dead_letter", tags=["x"]) for _ in range(3)]
    others = [a_job("dead_letter"), a_job("failed", tags=["x"])]
    a_job("dead_letter", tags=["x"], workspace_id="theirs")

    ended = enrichctl("retry", "--all", "--status", "dead_letter", "--tag", "x", "--yes", "--json")

    assert ended.document == {"found": 3, "moved": 3, "statuses": {"pending": 3}}
    after = states()
    assert [after[job] for job in fits] == ["pending"] * 3
    assert [after[job] for job in others] == ["dead_letter", "failed"]
    assert list(after.values()).count("pending") == 3


def test_retrying_all_leaves_what_somebody_cancelled(enrichctl, a_job, states):
    failed, cancelled = a_job("failed"), a_job("cancelled")

    enrichctl("retry", "--all", "--yes")

    assert states() == {failed: "pending", cancelled: "cancelled"}


def test_a_script_must_say_yes_and_is_told_how_many(enrichctl, a_job, states):
    job_id = a_job("dead_letter")

    ended = enrichctl("retry", "--all")

    assert ended.exit_code == 2
    assert "This puts back 1 job of workspace default" in ended.stderr
    assert "--yes" in ended.stderr
    assert states() == {job_id: "dead_letter"}


def test_nothing_to_move_is_no_error(enrichctl):
    ended = enrichctl("cancel", "--all")

    assert (ended.exit_code, ended.stdout) == (0, "nothing to do: no job fits\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["retry"], "give ids, or --all"),
        (["retry", "--tag", "x"], "add --all"),
        (["cancel", "01234567", "--all"], "not both"),
        (["retry", "--all", "--status", "completed"], "completed jobs cannot be retried"),
        (["cancel", "--all", "--status", "failed"], "failed jobs cannot be cancelled"),
        (["cancel", "dead_letter"], "Did you mean --all --status dead_letter?"),
    ],
)
def test_half_a_selection_is_a_usage_error(enrichctl, words, told):
    ended = enrichctl(*words)

    assert ended.exit_code == 2
    assert told in ended.stderr


def test_all_of_a_provider_are_retried_whoever_s_key_they_went_with(enrichctl, a_job, states):
    moved = [a_job("dead_letter", provider_id=lane) for lane in ("hunter", "hunter#default")]
    other = a_job("dead_letter", provider_id="pdl")

    enrichctl("retry", "--all", "--provider", "hunter", "--yes")

    assert [states()[job] for job in moved] == ["pending", "pending"]
    assert states()[other] == "dead_letter"
