"""What is refused now and then: PostgreSQL's deadlocks, lost races, full disk; memory.

Triggers raise PostgreSQL's errors, so each way of meeting one comes as often as a test needs it.
"""

from __future__ import annotations

import pytest

REFUSING = """
    create sequence refusals;
    create function refuse() returns trigger language plpgsql as $$
    begin
        -- Each try is a transaction with a number of its own, so the next one may pass.
        if pg_current_xact_id()::text::bigint %% 3 = 0 then
            perform nextval('refusals');  -- This stays when the transaction is taken back.
            raise exception 'refused by the test' using errcode = '{error}';
        end if;
        return null;
    end $$;
"""

ERRORS = [
    "deadlock_detected",
    "serialization_failure",
    "disk_full",
    "idle_in_transaction_session_timeout",
]
WHEN = {
    "at once": "create trigger refuse before update on enrichment_jobs"
    " for each statement execute function refuse()",
    "at the commit": "create constraint trigger refuse after update on enrichment_jobs"
    " deferrable initially deferred for each row execute function refuse()",
}


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("error", ERRORS)
def test_what_postgresql_refuses_now_and_then_costs_no_job(daemon, error, when):
    with daemon(WORKER_COUNT="2", RETRY_MAX_DELAY="10") as running:
        running.query(REFUSING.format(error=error) + WHEN[when])

        accepted = running.enqueue("nap", 20, seconds=0.01)
        accepted += running.enqueue("raising", 5, max_retries=2)

        done = running.wait_until_done(20.0)
        assert done == {"completed": 20, "dead_letter": 5}
        assert running.query("select last_value from refusals") > [(1,)], "some were refused"
        assert running.events("child_died") == []
        assert [event for event in running.events() if event["level"] == "error"] == []
        running.assert_sound(accepted)


def test_a_job_that_wants_more_memory_than_there_is_fails_alone(daemon):
    little = ("sh", "-c", 'ulimit -v 1500000; exec "$@"', "sh")
    with daemon(command=little) as running:
        (greedy,) = running.enqueue("leaking_memory", megabytes=4_000, max_retries=1)
        neighbours = running.enqueue("nap", 10, seconds=0.05)

        assert running.wait_until_done() == {"completed": 10, "dead_letter": 1}
        assert running.outcomes(greedy) == ["retry", "failed"]
        assert running.events("child_died") == []
        running.assert_sound([greedy, *neighbours])
