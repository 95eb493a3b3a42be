"""Suspects, jobs whose worker died: they run alone, soon, and only the one that ran is blamed."""

from __future__ import annotations

import pytest

from enrichd.processing import suspects as module
from enrichd.store import job_moves
from tests.processing.conftest import enqueue
from tests.support.job_types import GATES, SEEN

pytestmark = pytest.mark.queue


async def suspect(conn, job_id) -> None:
    """Make a suspect of a pending job."""
    await conn.execute("update enrichment_jobs set crashes = 1 where id = %s", [job_id])


async def begun(count: int) -> bool:
    return len(SEEN.started) >= count


async def test_a_suspect_goes_to_a_worker_with_nothing_to_do(
    make, queue, conn, running, eventually, row, monkeypatch
):
    monkeypatch.setattr(module, "AFTER_S", 600.0)
    busy = make(poll_interval_s=0.05)
    running(busy)
    await enqueue(queue, "gate")
    await eventually(lambda: begun(1))
    [job] = await enqueue_suspect(queue, conn)
    await enqueue(queue, "empty")

    async def has_run_the_other():
        return busy.report.completed == 1

    await eventually(has_run_the_other)
    assert (await row(job)).status == "pending"
    running(make(poll_interval_s=0.05))

    async def is_done():
        return (await row(job)).status == "completed"

    await eventually(is_done)
    assert busy.report.completed == 1


async def enqueue_suspect(queue, conn):
    """Put a suspect on the queue that nobody sees before it is one."""
    async with conn.transaction():
        cursor = await conn.execute("select enrichment_enqueue('empty', '{}')")
        (job_id,) = await cursor.fetchone()
        await suspect(conn, job_id)
    return [job_id]


async def test_a_suspect_waits_for_a_long_run_for_a_moment_and_asks_for_a_fresh_worker(
    make, queue, conn, running, eventually, row, monkeypatch
):
    monkeypatch.setattr(module, "AFTER_S", 0.0)
    monkeypatch.setattr(module, "WAIT_S", 0.3)
    asked: list[bool] = []
    busy = make(poll_interval_s=0.05, on_blocked=lambda: asked.append(True))
    running(busy)
    await enqueue(queue, "gate")
    await eventually(lambda: begun(1))
    [job] = await enqueue_suspect(queue, conn)

    async def is_given_back():
        return bool(asked)

    await eventually(is_given_back)
    await enqueue(queue, "empty")

    async def has_run_another():
        return busy.report.completed == 1

    await eventually(has_run_another)
    after = await row(job)
    assert (after.status, after.attempts) == ("pending", 0)
    GATES["go"].set()

    async def is_done():
        return (await row(job)).status == "completed"

    await eventually(is_done)


async def test_only_a_suspect_that_ran_alone_is_blamed_for_its_worker(conn, queue):
    ran, held, first_timer = await enqueue(queue, "empty", 3)
    await conn.execute(
        "insert into enrichment_workers (id, host, pid, version, concurrency, state)"
        " values ('019a0000-0000-7000-8000-00000000000a', 'h', 1, '1', 4, 'dead')"
    )
    await conn.execute(
        "update enrichment_jobs set status = 'processing', attempts = 2, crashes = 1,"
        " worker_id = '019a0000-0000-7000-8000-00000000000a'"
    )
    await conn.execute("update enrichment_jobs set crashes = 0 where id = %s", [first_timer])

    assert len(await job_moves.rescue(conn)) == 3

    # Before any suspect was said to run alone, only the others can have done it.
    assert await standing(conn) == {ran: (1, 1), held: (1, 1), first_timer: (2, 1)}
    await conn.execute(
        "update enrichment_jobs set status = 'processing', attempts = 2, crashes = 1,"
        " worker_id = '019a0000-0000-7000-8000-00000000000a'"
    )
    await conn.execute("update enrichment_workers set alone_job = %s", [ran])
    assert len(await job_moves.rescue(conn)) == 3
    assert await standing(conn) == {ran: (2, 2), held: (1, 1), first_timer: (1, 1)}


async def standing(conn) -> dict:
    cursor = await conn.execute("select id, attempts, crashes from enrichment_jobs")
    return {job_id: (attempts, crashes) async for job_id, attempts, crashes in cursor}
