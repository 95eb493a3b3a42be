"""Moves that no run makes: who may go where, what history keeps, and who wins a race."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest

from enrichd.domain.jobs import CANCELLABLE, RETRYABLE, TERMINAL, JobStatus
from enrichd.errors import IllegalMove, JobNotFound
from enrichd.store import items, job_moves, job_reads, workers
from enrichd.store.database import Database
from enrichd.store.items import NewItem
from tests.support.factories import (
    HOUR_S,
    a_job,
    a_lane,
    a_worker,
    claim,
    columns_of,
    history_of,
    state_of,
)

pytestmark = pytest.mark.queue


# Cancel


@pytest.mark.parametrize("status", ["pending", "scheduled", "waiting"])
async def test_a_job_that_no_worker_runs_is_cancelled_at_once(conn, status):
    job = await a_job(conn, status=status)

    moved = await job_moves.cancel(conn, workspace_id="default", ids=[job.id])

    assert moved == [(job.id, "cancelled")]
    after = await columns_of(conn, job.id)
    assert after["status"] == "cancelled"
    assert after["completed_at"] is not None


async def test_a_running_job_is_only_marked_so_that_its_worker_stops_it(conn):
    job = await a_job(conn, status="processing")

    moved = await job_moves.cancel(conn, workspace_id="default", ids=[job.id])

    assert moved == [(job.id, "processing")]
    after = await columns_of(conn, job.id)
    assert (after["status"], after["completed_at"]) == ("processing", None)
    assert await workers.cancelled_runs(conn, worker_id=job.worker_id) == [str(job.id)]


async def test_cancelling_twice_keeps_the_first_time(conn):
    job = await a_job(conn, status="processing")
    await job_moves.cancel(conn, workspace_id="default", ids=[job.id])
    first = await columns_of(conn, job.id)

    again = await job_moves.cancel(conn, workspace_id="default", ids=[job.id])

    assert again == [(job.id, "processing")]
    after = await columns_of(conn, job.id)
    assert after["cancel_requested_at"] == first["cancel_requested_at"]


@pytest.mark.parametrize("status", sorted(TERMINAL))
async def test_a_job_that_ended_cannot_be_cancelled_and_the_error_names_both_states(
    conn, queue, status
):
    job = await a_job(conn, status=status)

    with pytest.raises(IllegalMove) as caught:
        await queue.cancel(workspace_id="default", job_id=job.id)

    assert f"job {job.id} is {status} and cannot become cancelled" in caught.value.message
    assert (await columns_of(conn, job.id))["updated_at"] == job.updated_at


# Retry


@pytest.mark.parametrize("status", sorted(CANCELLABLE | {JobStatus.COMPLETED}))
async def test_a_job_that_cannot_be_retried_is_refused_and_the_error_names_both_states(
    conn, queue, status
):
    job = await a_job(conn, status=status)

    with pytest.raises(IllegalMove) as caught:
        await queue.retry(workspace_id="default", job_id=job.id)

    assert f"job {job.id} is {status} and cannot become pending" in caught.value.message
    assert await state_of(conn, job.id) == status


@pytest.mark.parametrize("status", sorted(RETRYABLE))
async def test_a_retry_gives_all_attempts_anew_and_keeps_the_history(conn, queue, status):
    worker = await a_worker(conn)
    job = await a_job(
        conn,
        status=status,
        attempts=4,
        worker_id=worker.id,
        started_ago_s=10.0,
        error={"type": "provider_down", "message": "timed out"},
        cancel_requested=status == "cancelled",
    )
    before = await history_of(conn, job.id)

    await queue.retry(workspace_id="default", job_id=job.id)

    after = await columns_of(conn, job.id)
    fresh = ("status", "attempts", "worker_id", "cancel_requested_at", "completed_at")
    assert [after[name] for name in fresh] == ["pending", 0, None, None, None]
    outcome = "cancelled" if status == "cancelled" else "failed"
    assert await history_of(conn, job.id) == before == [(4, outcome)]
    [attempt] = await job_reads.attempts(conn, job_id=job.id)
    assert attempt.worker_id == worker.id
    assert attempt.error["type"] == "provider_down"


async def test_a_job_that_never_ran_is_retried_without_inventing_an_attempt(conn, queue):
    job = await a_job(conn, status="cancelled")

    await queue.retry(workspace_id="default", job_id=job.id)

    assert await history_of(conn, job.id) == []


async def test_a_retry_runs_failed_leads_again_and_keeps_the_completed_ones(conn, queue):
    job = await a_job(conn, status="processing")
    await items.record(
        conn,
        worker_id=job.worker_id,
        items=[
            NewItem(str(job.id), 1, "1", "completed", '{"email": "a@b.co"}', None),
            NewItem(str(job.id), 1, "2", "failed", None, '{"type": "provider_down"}'),
        ],
    )
    await conn.execute("update enrichment_jobs set status = 'failed', completed_at = now()")

    await queue.retry(workspace_id="default", job_id=job.id)

    assert [item.item_key for item in await items.list_all(conn, job_id=job.id)] == ["1"]


async def test_retried_jobs_queue_behind_their_workspace_own_share(conn):
    """A thousand retried leads are charged as a thousand, so another tenant's wait is short."""
    failed = [await a_job(conn, status="failed", cost=100) for _ in range(10)]

    await job_moves.retry(conn, workspace_id="default", ids=[job.id for job in failed])

    ranks = [(await columns_of(conn, job.id))["fair_rank"] for job in failed]
    assert ranks == [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]


# Strangers and what does not exist


@pytest.mark.parametrize("move", ["cancel", "retry"])
async def test_another_workspace_job_is_not_found_and_not_touched(conn, queue, move):
    job = await a_job(conn, status="failed" if move == "retry" else "pending")

    with pytest.raises(JobNotFound):
        await getattr(queue, move)(workspace_id="other", job_id=job.id)

    assert await state_of(conn, job.id) == job.status


@pytest.mark.parametrize("move", ["cancel", "retry"])
async def test_a_job_that_does_not_exist_is_not_found(queue, move):
    with pytest.raises(JobNotFound, match="no job"):
        await getattr(queue, move)(workspace_id="default", job_id=uuid4())


async def test_many_are_cancelled_but_for_those_that_cannot_be(conn, queue):
    jobs_by_status = {status: await a_job(conn, status=status) for status in JobStatus}

    moved = await queue.cancel_many(
        workspace_id="default", ids=[job.id for job in jobs_by_status.values()]
    )

    expected = {
        jobs_by_status[status].id: (
            JobStatus.PROCESSING if status == JobStatus.PROCESSING else JobStatus.CANCELLED
        )
        for status in CANCELLABLE
    }
    assert moved == expected


# Due jobs


async def test_a_due_job_becomes_pending_and_a_later_one_stays(conn):
    due = await a_job(conn, status="scheduled", scheduled_in_s=-1)
    later = await a_job(conn, status="scheduled", scheduled_in_s=HOUR_S)

    assert len(await job_moves.promote_due(conn)) == 1

    assert await state_of(conn, due.id) == "pending"
    assert await state_of(conn, later.id) == "scheduled"


async def test_due_jobs_are_promoted_in_bounded_batches_oldest_first(conn):
    late = [await a_job(conn, status="scheduled", scheduled_in_s=-n) for n in (1, 2, 3)]

    assert len(await job_moves.promote_due(conn, limit=2)) == 2

    assert [await state_of(conn, job.id) for job in late] == ["scheduled", "pending", "pending"]


async def test_promoted_jobs_are_ranked_anew_with_a_running_sum_of_their_costs(conn):
    await a_lane(conn, vtime=1000)
    due = [
        await a_job(conn, status="scheduled", scheduled_in_s=-1, cost=cost, workspace_id=workspace)
        for workspace, cost in [("a", 10), ("a", 5), ("b", 1), ("a", 1)]
    ]

    await job_moves.promote_due(conn)

    ranks = [(await columns_of(conn, job.id))["fair_rank"] for job in due]
    assert ranks == [1010, 1015, 1001, 1016]


async def test_two_promoters_at_once_share_the_due_jobs(conn, database_url):
    for _ in range(20):
        await a_job(conn, status="scheduled", scheduled_in_s=-1)
    other = Database(database_url)

    async with conn.transaction(), other.transaction() as second:
        first_half = await job_moves.promote_due(conn, limit=10)
        second_half = await job_moves.promote_due(second, limit=100)
    await other.close()

    assert (len(first_half), len(second_half)) == (10, 10)


async def test_the_next_due_time_is_told_in_seconds(conn):
    assert await job_moves.next_due_s(conn) is None

    await a_job(conn, status="scheduled", scheduled_in_s=60)

    wait_s = await job_moves.next_due_s(conn)
    assert wait_s == pytest.approx(60, abs=5)


# Parked jobs


async def test_a_callback_puts_a_parked_job_back_once(conn, queue):
    job = await a_job(conn, status="waiting", cost=7)

    assert await queue.resume(job_id=job.id) is True
    assert await queue.resume(job_id=job.id) is False

    after = await columns_of(conn, job.id)
    assert (after["status"], after["scheduled_at"], after["fair_rank"]) == ("pending", None, 7)


@pytest.mark.parametrize("status", sorted(set(JobStatus) - {JobStatus.WAITING}))
async def test_a_callback_for_a_job_that_is_not_parked_changes_nothing(conn, queue, status):
    job = await a_job(conn, status=status)

    assert await queue.resume(job_id=job.id) is False

    assert await state_of(conn, job.id) == status


async def test_a_callback_that_never_comes_costs_an_attempt(conn):
    job = await a_job(conn, status="waiting", scheduled_in_s=-1, attempts=0, max_retries=1)
    in_time = await a_job(conn, status="waiting", scheduled_in_s=HOUR_S)

    assert len(await job_moves.expire_waiting(conn)) == 1

    after = await columns_of(conn, job.id)
    assert (after["status"], after["attempts"]) == ("scheduled", 1)
    assert (after["error"]["type"], after["error"]["retryable"]) == ("callback_missing", True)
    assert len(await job_moves.promote_due(conn)) == 1
    assert await state_of(conn, in_time.id) == "waiting"


async def test_a_callback_that_never_comes_on_the_last_attempt_ends_in_the_dead_letter(conn):
    job = await a_job(conn, status="waiting", scheduled_in_s=-1, attempts=1, max_retries=1)

    await job_moves.expire_waiting(conn)

    after = await columns_of(conn, job.id)
    assert (after["status"], after["attempts"]) == ("dead_letter", 2)
    assert after["completed_at"] is not None
    assert after["error"]["retryable"] is False


# Rescue


@pytest.mark.parametrize("fate", ["dead", "gone"])
async def test_a_lost_worker_jobs_are_given_away_and_cost_an_attempt(conn, fate):
    worker = await a_worker(conn)
    job = await a_job(conn, status="processing", worker_id=worker.id, attempts=1)
    if fate == "gone":
        await workers.delete(conn, worker_id=worker.id)
    else:
        await conn.execute("update enrichment_workers set state = 'dead'")

    assert len(await job_moves.rescue(conn)) == 1

    after = await columns_of(conn, job.id)
    assert (after["status"], after["attempts"], after["worker_id"]) == ("pending", 1, None)
    assert after["error"]["type"] == "worker_crashed"
    assert await history_of(conn, job.id) == [(1, "crashed")]


async def test_a_live_worker_keeps_its_jobs(conn):
    job = await a_job(conn, status="processing")

    assert len(await job_moves.rescue(conn)) == 0

    assert await state_of(conn, job.id) == "processing"


async def test_a_job_that_keeps_killing_its_worker_ends_in_the_dead_letter(conn):
    job = await a_job(conn, status="pending", max_retries=2)
    for _ in range(3):
        worker = await a_worker(conn)
        assert len(await claim(conn, worker.id)) == 1
        await workers.delete(conn, worker_id=worker.id)
        await job_moves.rescue(conn)

    after = await columns_of(conn, job.id)
    assert (after["status"], after["attempts"]) == ("dead_letter", 3)
    assert after["completed_at"] is not None
    assert await history_of(conn, job.id) == [(1, "crashed"), (2, "crashed"), (3, "crashed")]


async def test_a_job_cancelled_while_its_worker_died_is_cancelled(conn):
    worker = await a_worker(conn, state="dead")
    job = await a_job(conn, status="processing", worker_id=worker.id, cancel_requested=True)

    await job_moves.rescue(conn)

    after = await columns_of(conn, job.id)
    assert (after["status"], after["completed_at"] is None) == ("cancelled", False)
    assert await history_of(conn, job.id) == [(1, "crashed")]


async def test_a_rescued_job_does_not_jump_the_queue(conn):
    await a_lane(conn, vtime=500)
    worker = await a_worker(conn, state="dead")
    old = await a_job(conn, status="processing", worker_id=worker.id, fair_rank=3)
    high = await a_job(conn, status="processing", worker_id=worker.id, fair_rank=900)

    await job_moves.rescue(conn)

    assert (await columns_of(conn, old.id))["fair_rank"] == 500
    assert (await columns_of(conn, high.id))["fair_rank"] == 900


async def test_a_silent_worker_is_declared_dead_and_learns_it_at_its_next_beat(conn, queue):
    worker = await a_worker(conn, silent_s=30)
    fresh = await a_worker(conn)
    job = await a_job(conn, status="processing", worker_id=worker.id)

    upkeep = await queue.tend(worker_timeout_s=20)

    assert upkeep.rescued == 1
    assert await state_of(conn, job.id) == "pending"
    beat = {"state": "running", "running": 0, "completed": 0, "failed": 0}
    assert await workers.beat(conn, worker_id=worker.id, **beat) is None
    assert await workers.beat(conn, worker_id=fresh.id, **beat) == 0


async def test_a_slow_rescuer_leaves_a_job_alone_that_a_live_worker_got_meanwhile(
    conn, database_url, eventually
):
    """Two rescuers see the same dead worker; by the time of the second one's lock, all changed.

    The second rescuer is held between its snapshot and its locks by an advisory lock that stands in
    for a slow machine.
    """
    dead = await a_worker(conn, state="dead")
    live = await a_worker(conn)
    job = await a_job(conn, status="processing", worker_id=dead.id)
    await conn.execute(
        """
        create function held_up() returns boolean language plpgsql volatile cost 1 as $$
        begin perform pg_advisory_xact_lock(7); return true; end $$
        """
    )
    slow = job_moves.RESCUE.replace(
        "where job.status = 'processing'", "where held_up() and job.status = 'processing'", 1
    )
    assert slow != job_moves.RESCUE
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:

        async def rescue_slowly() -> int:
            return (await other.execute(slow, {"limit": 10, "crashes_max": 3})).rowcount

        async def is_held_up() -> object:
            return await (
                await conn.execute(
                    "select 1 from pg_locks where locktype = 'advisory' and not granted"
                )
            ).fetchone()

        async with asyncio.TaskGroup() as group, conn.transaction():
            await conn.execute("select pg_advisory_xact_lock(7)")
            second = group.create_task(rescue_slowly())
            await eventually(is_held_up)
            async with await psycopg.AsyncConnection.connect(
                database_url, autocommit=True
            ) as third:
                assert len(await job_moves.rescue(third)) == 1
                assert len(await claim(third, live.id)) == 1

    assert second.result() == 0
    after = await columns_of(conn, job.id)
    assert (after["status"], after["worker_id"], after["attempts"]) == ("processing", live.id, 2)
    assert await history_of(conn, job.id) == [(1, "crashed"), (2, None)]
