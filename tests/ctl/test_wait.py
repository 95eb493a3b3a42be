import time

from uuid_utils.compat import uuid7


def test_jobs_that_completed_are_0(enrichctl, a_job):
    jobs = [str(a_job("completed")), str(a_job("completed"))]

    ended = enrichctl("wait", *jobs, "--json")

    assert ended.exit_code == 0
    assert [line["id"] for line in ended.lines] == jobs


def test_one_job_that_did_not_is_1(enrichctl, a_job):
    good = a_job("completed")
    for status in ("failed", "dead_letter", "cancelled"):
        ended = enrichctl("wait", str(good), str(a_job(status, error={"message": "bang"})))

        assert ended.exit_code == 1
        assert status in ended.stdout
        assert "bang" in ended.stdout


def test_the_time_is_up_with_a_sentence(enrichctl, a_job):
    jobs = [a_job("completed"), a_job("pending"), a_job("processing")]

    ended = enrichctl("wait", *map(str, jobs), "--timeout", "60ms")

    assert ended.exit_code == 1
    assert (
        "timed out after 60ms: 2 of 3 jobs have not ended (1 pending, 1 processing)" in ended.stderr
    )


def test_it_ends_when_the_last_job_does(process, a_job, db):
    job_id = a_job("pending")
    with process("wait", str(job_id)) as child:
        # Its first look opens its connection: from then on it waits.
        deadline = time.monotonic() + 20
        while not db.execute(
            "select 1 from pg_stat_activity where application_name = 'enrichctl'"
        ).fetchone():
            assert time.monotonic() < deadline
        db.execute(
            "update enrichment_jobs set status = 'completed', completed_at = now(), worker_id = %s",
            [uuid7()],
        )
        stdout, stderr = child.communicate(timeout=20)

    assert (child.returncode, stderr) == (0, b"")
    assert b"completed" in stdout


def test_a_job_that_is_not_there_is_3_before_any_waiting(enrichctl, a_job):
    assert enrichctl("wait", str(a_job()), "ffffffff", "--timeout", "1h").exit_code == 3
