"""JobProcessor against a real PostgreSQL: bounds, shutdown, cancelling, fencing, outages."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest

from enrichd.domain.jobs import NewJob
from enrichd.errors import Unavailable
from enrichd.handlers.registry import HANDLERS
from enrichd.processing.processor import Limits
from tests.processing.conftest import enqueue
from tests.support.job_types import ANSWERS, ERRORS, GATES, HOOKS, SEEN

pytestmark = pytest.mark.queue

UNTIL_EMPTY = Limits(is_until_empty=True)


async def started(count: int = 1):
    return len(SEEN.started) >= count


async def test_runs_everything_that_is_ready_and_ends(make, queue, statuses):
    await enqueue(queue, "empty", 1_200)

    async with asyncio.timeout(20):
        report = await make(concurrency=10).run(UNTIL_EMPTY)

    assert await statuses() == {"completed": 1_200}
    assert (report.claimed, report.completed, report.lost) == (1_200, 1_200, 0)
    assert len(SEEN.ended) == len(set(SEEN.ended)) == 1_200


async def test_an_empty_queue_ends_a_run_at_once(make, conn):
    async with asyncio.timeout(3):
        report = await make().run(UNTIL_EMPTY)

    assert report.claimed == 0
    cursor = await conn.execute("select count(*) from enrichment_workers")
    assert await cursor.fetchone() == (0,)


async def test_concurrency_is_used_and_never_exceeded_also_with_jobs_claimed_ahead(make, queue):
    await enqueue(queue, "empty", 300)  # short ones first, so that jobs are claimed ahead
    await enqueue(queue, "nap", 60, seconds=0.01)

    await make(concurrency=3).run(UNTIL_EMPTY)

    assert SEEN.running_max == 3


async def test_max_jobs_is_exact(make, queue, statuses):
    await enqueue(queue, "empty", 50)

    report = await make(concurrency=10).run(Limits(max_jobs=17))

    assert report.claimed == report.completed == 17
    assert await statuses() == {"completed": 17, "pending": 33}


async def test_max_jobs_of_none_claims_none(make, queue, statuses):
    await enqueue(queue, "empty", 2)

    await make().run(Limits(max_jobs=0))

    assert await statuses() == {"pending": 2}


async def test_at_the_time_limit_unfinished_jobs_go_back_without_an_attempt(
    make, queue, row, outcomes
):
    [job] = await enqueue(queue, "gate")

    async with asyncio.timeout(5):
        report = await make().run(Limits(timeout_s=0.3))

    after = await row(job)
    assert (after.status, after.attempts) == ("pending", 0)
    assert await outcomes(job) == ["released"]
    assert report.released == 1


async def test_a_full_worker_with_a_backlog_does_not_spin(make, queue, running, eventually):
    await enqueue(queue, "gate", 20)
    running(make(concurrency=2))
    await eventually(lambda: started(2))

    before = time.process_time()
    await asyncio.sleep(1.0)  # what is measured, not waited for

    assert time.process_time() - before < 0.3


async def test_a_worker_that_has_begun_all_its_jobs_does_not_spin(make, queue, eventually):
    await enqueue(queue, "gate", 20)
    processor = make()
    running = asyncio.create_task(processor.run(Limits(max_jobs=1)))
    await eventually(lambda: started(1))

    before = time.process_time()
    await asyncio.sleep(1.0)  # what is measured, not waited for
    spent_s = time.process_time() - before
    processor.stop_now()
    await running

    assert spent_s < 0.3


async def test_stop_lets_runs_end_and_gives_the_rest_back_without_a_trace(
    make, queue, running, eventually, statuses, conn
):
    await enqueue(queue, "empty", 300)  # makes the worker claim ahead
    await enqueue(queue, "gate", 40)
    processor = make(concurrency=2)
    task = running(processor)
    await eventually(lambda: started(302))

    processor.stop()

    async def is_given_back():
        return (await statuses()).get("pending") == 38

    await eventually(is_given_back)
    GATES["go"].set()
    async with asyncio.timeout(5):
        await task

    assert await statuses() == {"completed": 302, "pending": 38}
    cursor = await conn.execute(
        "select count(*) from enrichment_jobs where status = 'pending' and attempts <> 0"
    )
    assert await cursor.fetchone() == (0,)
    cursor = await conn.execute("select count(*) from enrichment_attempt_log")
    assert await cursor.fetchone() == (0,), "a job that never began has no attempt row"


async def test_after_the_grace_a_run_is_stopped_and_another_worker_takes_it(
    make, queue, running, eventually, row, outcomes
):
    [job] = await enqueue(queue, "gate")
    first = make(grace_s=0.2)
    task = running(first)
    await eventually(started)

    first.stop()
    async with asyncio.timeout(5):
        await task
    assert (await row(job)).status == "pending"

    GATES["go"].set()
    await make().run(UNTIL_EMPTY)
    after = await row(job)
    assert (after.status, after.attempts) == ("completed", 1)
    assert await outcomes(job) == ["released", "completed"]


async def test_stop_is_noticed_at_once_however_long_the_poll(make, queue, running, eventually):
    await enqueue(queue, "gate")
    processor = make(poll_interval_s=30.0, grace_s=0.1)
    task = running(processor)
    await eventually(started)

    processor.stop()

    async with asyncio.timeout(3):
        await task


async def test_a_cancelled_run_stops_within_two_seconds(make, queue, running, eventually, row):
    [job] = await enqueue(queue, "gate")
    running(make())
    await eventually(started)

    assert await queue.cancel(workspace_id="default", job_id=job) == "processing"

    async def is_cancelled():
        return (await row(job)).status == "cancelled"

    await eventually(is_cancelled, within_s=2.0)
    assert SEEN.running == 0


async def test_a_job_is_not_cancelled_while_its_handler_cleans_up(
    make, queue, running, eventually, row
):
    [job] = await enqueue(queue, "cleaning")
    running(make())
    await eventually(started)
    await queue.cancel(workspace_id="default", job_id=job)

    async def is_cancelled():
        return (await row(job)).status == "cancelled"

    await eventually(is_cancelled)
    assert SEEN.cleaned_up == [str(job)], "cleaned up whole, before the end was recorded"


async def test_a_handler_that_ends_well_when_cancelled_keeps_its_result(
    make, queue, running, eventually, row
):
    [job] = await enqueue(queue, "completing_when_cancelled")
    running(make())
    await eventually(started)
    await queue.cancel(workspace_id="default", job_id=job)

    async def is_over():
        return (await row(job)).status == "completed"

    await eventually(is_over)
    assert (await row(job)).result == {"partial": True}


async def test_a_cancelled_job_that_waits_in_the_buffer_never_starts(
    make, queue, running, eventually, row
):
    await enqueue(queue, "empty", 300)
    jobs = await enqueue(queue, "gate", 30)
    running(make(concurrency=1))
    await eventually(lambda: started(301))
    waiting = [job for job in jobs if str(job) not in SEEN.started]

    await queue.cancel_many(workspace_id="default", ids=waiting)

    async def are_cancelled():
        return all([(await row(job)).status == "cancelled" for job in waiting])

    await eventually(are_cancelled, within_s=3.0)
    assert not {str(job) for job in waiting} & set(SEEN.started)


async def test_a_run_over_its_time_is_tried_again(make, queue, row, outcomes):
    [done] = await queue.enqueue_many([NewJob("gate", {}, max_retries=1)])

    async with asyncio.timeout(10):
        await make(job_timeout_s=0.2).run(Limits(max_jobs=2))

    after = await row(done.id)
    assert (after.status, after.attempts, after.error_type) == ("dead_letter", 2, "job_timeout")
    assert await outcomes(done.id) == ["retry", "failed"]


async def test_a_slow_clean_up_is_not_cut_short(make, queue, row):
    [job] = await enqueue(queue, "cleaning")

    await make(job_timeout_s=0.1).run(UNTIL_EMPTY)

    assert SEEN.cleaned_up == [str(job)]
    assert (await row(job)).error_type == "job_timeout"


@pytest.mark.parametrize("retries", [0, 1, 4])
async def test_a_failing_job_runs_once_and_max_retries_times(make, queue, row, outcomes, retries):
    [done] = await queue.enqueue_many([NewJob("raising", {"error": "value"}, max_retries=retries)])

    async with asyncio.timeout(20):
        await make().run(Limits(max_jobs=retries + 1))

    after = await row(done.id)
    assert (after.status, after.attempts) == ("dead_letter", retries + 1)
    assert len(SEEN.started) == retries + 1
    assert await outcomes(done.id) == ["retry"] * retries + ["failed"]


HARMLESS = sorted(set(ERRORS) - {"throttled"})


@pytest.mark.parametrize("kind", HARMLESS)
async def test_no_error_takes_the_worker_or_another_job_down(make, queue, row, kind):
    [bad] = await enqueue(queue, "raising", error=kind)
    [good] = await enqueue(queue, "empty")

    async with asyncio.timeout(10):
        await make(concurrency=1).run(UNTIL_EMPTY)

    assert (await row(good)).status == "completed"
    assert (await row(bad)).status in ("failed", "dead_letter", "scheduled")


@pytest.mark.parametrize("kind", sorted({*ANSWERS, "cyclic"} - {"released"}))
async def test_no_answer_takes_the_worker_or_another_job_down(make, queue, row, kind):
    [odd] = await enqueue(queue, "answering", answer=kind)
    [good] = await enqueue(queue, "empty")

    async with asyncio.timeout(10):
        await make(concurrency=1).run(UNTIL_EMPTY)

    assert (await row(good)).status == "completed"
    assert (await row(odd)).status not in ("pending", "processing")


async def test_a_too_large_result_fails_its_own_job_only(make, queue, row):
    [large] = await enqueue(queue, "size", characters=5_000_000)
    [good] = await enqueue(queue, "size", characters=1_000_000)

    await make().run(UNTIL_EMPTY)

    assert (await row(large)).error_type == "unstorable_result"
    assert (await row(good)).status == "completed"


async def test_results_that_wait_to_be_recorded_are_bounded(make, queue, monkeypatch):
    await enqueue(queue, "size", 60, characters=1_100_000)
    processor = make(concurrency=10)
    waiting: list[int] = []
    take_in = processor._take_in

    def watch(claimed):
        waiting.append(len(processor._ends))
        take_in(claimed)

    monkeypatch.setattr(processor, "_take_in", watch)
    async with asyncio.timeout(30):
        await processor.run(UNTIL_EMPTY)

    # Claims stop while results wait; what is in hand by then (slots and as many ahead) still ends.
    assert max(waiting) <= 4 * 10


async def test_a_handler_that_ignores_cancelling_does_not_hold_up_the_others(
    make, queue, running, eventually, row
):
    [stubborn] = await enqueue(queue, "swallowing")
    processor = make(concurrency=2, job_timeout_s=0.2)
    running(processor)
    await eventually(started)
    good = await enqueue(queue, "empty", 5)

    async def are_done():
        return all([(await row(job)).status == "completed" for job in good])

    await eventually(are_done)
    assert (await row(stubborn)).status == "processing"


async def test_a_run_that_cannot_be_stopped_keeps_its_job_from_others(
    make, queue, running, eventually, row, monkeypatch
):
    monkeypatch.setattr("enrichd.processing.processor.DRAIN_EXTRA_S", 0.3)
    [job] = await enqueue(queue, "swallowing")
    processor = make(grace_s=0.1)
    task = running(processor)
    await eventually(started)

    processor.stop()
    async with asyncio.timeout(5):
        await task
    await make().run(UNTIL_EMPTY)

    assert SEEN.started == [str(job)], "not started again while the first run still works"
    assert (await row(job)).status == "processing"


async def test_what_a_handler_sets_in_its_context_is_gone_for_the_next(make, queue):
    await enqueue(queue, "leaking", 5)

    await make(concurrency=1).run(UNTIL_EMPTY)

    assert SEEN.variable == [None] * 5


async def test_a_handler_that_blocks_the_loop_is_still_recorded(make, queue, row):
    [job] = await enqueue(queue, "blocking", seconds=0.4)

    await make().run(UNTIL_EMPTY)

    assert (await row(job)).status == "completed"


async def test_jobs_that_a_handler_enqueues_belong_to_an_until_empty_run(make, queue, statuses):
    async def enqueue_another():
        await queue.enqueue(NewJob("empty", {}, provider_id="another-lane"))

    HOOKS["another"] = enqueue_another
    await enqueue(queue, "hooked", hook="another")

    await make(poll_interval_s=5.0).run(UNTIL_EMPTY)

    assert await statuses() == {"completed": 2}


async def test_a_row_that_python_cannot_read_takes_no_other_with_it(make, queue, conn, statuses):
    good = await enqueue(queue, "empty", 10)
    deep = "[" * 3_000 + "]" * 3_000
    payloads = {
        "digits": f'{{"seconds": {"9" * 5_000}}}',
        "deep": f'{{"seconds": {deep}}}',
        "field": '{"secconds": 1}',
        "kind": '{"seconds": "soon"}',
    }
    for payload in payloads.values():
        await conn.execute("select enrichment_enqueue('nap', %s::jsonb)", [payload])
    await conn.execute("select enrichment_enqueue('no_such_type', '{}')")
    await conn.execute("select enrichment_enqueue('echo', %s::jsonb)", [payloads["digits"]])
    await conn.execute("update enrichment_jobs set max_retries = 0")

    async with asyncio.timeout(10):
        await make(concurrency=20).run(UNTIL_EMPTY)

    after = await statuses()
    assert after.pop("scheduled") == 1  # the unknown type waits for a worker that knows it
    assert after.pop("completed") >= len(good)
    assert after.keys() <= {"failed", "dead_letter"}


async def test_an_unknown_type_waits_without_using_attempts(make, conn, row):
    cursor = await conn.execute("select enrichment_enqueue('no_such_type', '{}')")
    [job] = await cursor.fetchone()

    await make().run(UNTIL_EMPTY)

    after = await row(job)
    assert (after.status, after.attempts, after.error_type) == ("scheduled", 0, "snoozed")


async def test_a_worker_says_which_types_it_knows(make, conn, running, eventually):
    running(make())

    async def known():
        cursor = await conn.execute("select job_types from enrichment_workers")
        return await cursor.fetchone()

    (types,) = await eventually(known)
    assert types == sorted(HANDLERS)


async def test_an_unknown_type_waits_by_the_time_since_it_was_enqueued(make, conn):
    await conn.execute("select enrichment_enqueue('no_such_type', '{}')")
    await conn.execute("update enrichment_jobs set created_at = now() - interval '200 seconds'")

    await make().run(UNTIL_EMPTY)

    cursor = await conn.execute(
        "select extract(epoch from scheduled_at - updated_at)::int from enrichment_jobs"
    )
    assert await cursor.fetchone() == (20,)


async def test_a_worker_declared_dead_stops_its_runs_and_goes_on_under_a_new_name(
    make, queue, running, eventually, conn, row
):
    job = (await queue.enqueue(NewJob("gate", {}))).id
    processor = make(is_tending=False)
    running(processor)
    await eventually(started)
    old = processor.worker_id

    await conn.execute("update enrichment_workers set state = 'dead'")

    async def is_new():
        cursor = await conn.execute("select id from enrichment_workers where state <> 'dead'")
        return await cursor.fetchone() == (processor.worker_id,)

    await eventually(is_new)
    assert processor.worker_id != old
    assert SEEN.running == 0
    assert (await row(job)).status == "processing", "the old name records nothing"

    GATES["go"].set()
    await queue.tend(worker_timeout_s=60)  # gives the dead one's job away
    processor.wake()

    async def is_done():
        return (await row(job)).status == "completed"

    await eventually(is_done)
    cursor = await conn.execute("select worker_id from enrichment_jobs")
    assert await cursor.fetchone() == (processor.worker_id,)


async def test_a_heartbeat_that_hangs_stops_the_runs_before_others_may_have_them(
    make, queue, running, eventually, conn
):
    await enqueue(queue, "gate")
    processor = make(heartbeat_interval_s=0.5, worker_timeout_s=2.0, is_tending=False)
    running(processor)
    await eventually(started)

    async with conn.transaction():
        await conn.execute("select from enrichment_workers for update")
        cursor = await conn.execute("select heartbeat_at from enrichment_workers")
        [beat_at] = await cursor.fetchone()

        async def has_stopped():
            return SEEN.running == 0

        await eventually(has_stopped)
        cursor = await conn.execute("select clock_timestamp() - %s", [beat_at])
        [silent] = await cursor.fetchone()
    assert silent.total_seconds() < 2.0


async def test_a_locked_job_row_does_not_hold_up_the_heartbeat(
    make, queue, running, eventually, conn
):
    [job] = await enqueue(queue, "batch", keys=["a", "b"], wait_at="b")
    processor = make(heartbeat_interval_s=0.1, worker_timeout_s=60.0)
    running(processor)

    async def is_at_b():
        return SEEN.cleaned_up == ["b"]

    await eventually(is_at_b)
    async with conn.transaction():
        await conn.execute("select from enrichment_jobs where id = %s for update", [job])
        GATES["b"].set()  # record_item now waits for the lock
        await conn.execute("select pg_sleep(0.3)")
        cursor = await conn.execute(
            "select clock_timestamp() - heartbeat_at < interval '0.3 s' from enrichment_workers"
        )
        assert await cursor.fetchone() == (True,)


async def cut(conn: psycopg.AsyncConnection, name: str) -> int:
    """End the connections of a name; return how many."""
    cursor = await conn.execute(
        "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity"
        " where datname = current_database() and application_name like %s"
        " and pid <> pg_backend_pid()",
        [name],
    )
    [count] = await cursor.fetchone()
    return count


async def test_cut_connections_lose_nothing_and_record_nothing_twice(
    make, queue, running, eventually, statuses, conn
):
    jobs = await enqueue(queue, "nap", 400, seconds=0.005)
    running(make(concurrency=8))
    cuts = 0

    async def is_done():
        nonlocal cuts
        cuts += await cut(conn, "enrichd %")
        return await statuses() == {"completed": 400}

    await eventually(is_done, within_s=25.0)
    assert cuts > 5
    cursor = await conn.execute("select count(*), max(attempts) from enrichment_jobs")
    assert await cursor.fetchone() == (400, 1)
    assert len(SEEN.ended) == len(set(SEEN.ended)) == len(jobs)


async def test_a_claim_that_commits_after_its_connection_broke_is_given_back(
    make, queue, running, eventually, row, conn, database_url
):
    running_processor = make(heartbeat_interval_s=0.1, is_tending=False)
    running(running_processor)
    [job] = await enqueue(queue, "gate")
    await eventually(started)
    # The claim below is done under the worker's id, but nobody tells the worker.
    [unknown] = await enqueue(queue, "nap")
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute(
            "update enrichment_jobs set status = 'processing', attempts = 1, worker_id = %s,"
            " started_at = now() where id = %s and status = 'pending'",
            [running_processor.worker_id, unknown],
        )

    async def is_done():
        return (await row(unknown)).status == "completed"

    await eventually(is_done)
    assert (await row(job)).status == "processing", "what really runs is not given back"
    assert (await row(unknown)).attempts == 1


async def test_a_bounded_run_without_a_database_says_so(make):
    with pytest.raises(Unavailable):
        async with asyncio.timeout(10):
            await make(dsn="postgresql://x@127.0.0.1:1/x").run(Limits(timeout_s=1.0))


async def test_an_endless_run_without_a_database_can_be_stopped(make, running):
    processor = make(dsn="postgresql://x@127.0.0.1:1/x")
    task = running(processor)
    await asyncio.sleep(0)
    processor.stop()

    async with asyncio.timeout(5):
        await task


async def test_two_workers_share_the_work_and_no_job_runs_twice(make, queue, statuses):
    await enqueue(queue, "nap", 200, seconds=0.005)

    async with asyncio.timeout(20):
        one, two = await asyncio.gather(
            make(concurrency=4).run(UNTIL_EMPTY), make(concurrency=4).run(UNTIL_EMPTY)
        )

    assert await statuses() == {"completed": 200}
    assert one.completed + two.completed == 200
    assert min(one.completed, two.completed) > 20
    assert len(SEEN.ended) == len(set(SEEN.ended))


async def test_jobs_claimed_ahead_are_given_to_idle_workers_when_runs_turn_slow(
    make, queue, running, eventually, statuses
):
    await enqueue(queue, "empty", 500)
    await enqueue(queue, "gate", 30)
    running(make(concurrency=2))
    await eventually(lambda: started(502))

    running(make(concurrency=30))

    await eventually(lambda: started(530))  # 2 here, 28 there


async def test_a_run_leaves_no_connection_no_worker_and_no_task_behind(make, queue, conn):
    before = asyncio.all_tasks()
    await enqueue(queue, "nap", 20, seconds=0.01)
    processor = make()

    await processor.run(UNTIL_EMPTY)
    await processor._hot.database.close()
    await processor._control.database.close()

    assert asyncio.all_tasks() == before

    cursor = await conn.execute(
        "select (select count(*) from enrichment_workers),"
        " (select count(*) from pg_stat_activity where datname = current_database()"
        " and application_name like 'enrichd %%' and state <> 'idle')",
    )
    assert await cursor.fetchone() == (0, 0)


async def test_an_outer_cancel_ends_the_runs_too(make, queue, eventually):
    await enqueue(queue, "empty", 300)
    await enqueue(queue, "gate", 20)
    before = asyncio.all_tasks()
    task = asyncio.create_task(make(concurrency=2).run())
    await eventually(lambda: started(302))

    task.cancel()
    await asyncio.wait([task], timeout=5)

    assert SEEN.running == 0
    assert asyncio.all_tasks() - {task} == before


async def test_idle_costs_few_statements(make, running, conn, eventually):
    processor = make(poll_interval_s=1.0, heartbeat_interval_s=5.0)
    running(processor)

    async def commits():
        await conn.execute("select pg_stat_clear_snapshot()")
        cursor = await conn.execute(
            "select xact_commit from pg_stat_database where datname = current_database()"
        )
        return (await cursor.fetchone())[0]

    before = await commits()
    await asyncio.sleep(2.0)  # what is measured, not waited for

    assert await commits() - before < 50
