"""A batch's finished leads: kept once, fenced, and there when the batch runs again."""

from __future__ import annotations

import pytest

from enrichd.store import items, job_moves
from enrichd.store.database import Database
from enrichd.store.items import Item, NewItem
from enrichd.store.jobs import Ended
from tests.support.factories import a_job, a_worker, claim, columns_of, counted

pytestmark = pytest.mark.queue


def a_lead(job, key: str = "1", *, attempt: int = 1, status: str = "completed") -> NewItem:
    is_good = status == "completed"
    return NewItem(
        str(job.id),
        attempt,
        key,
        status,
        '{"email": "a@b.co"}' if is_good else None,
        None if is_good else '{"type": "provider_down"}',
    )


async def test_finished_leads_are_kept_with_their_job_workspace(conn):
    job = await a_job(conn, status="processing", workspace_id="acme")

    owned = await items.record(
        conn,
        worker_id=job.worker_id,
        items=[a_lead(job, "2", status="failed"), a_lead(job, 'odd "key"\\')],
    )

    assert owned == {str(job.id)}
    assert await items.list_all(conn, job_id=job.id) == [
        Item("2", "failed", None, {"type": "provider_down"}),
        Item('odd "key"\\', "completed", {"email": "a@b.co"}, None),
    ]
    cursor = await conn.execute("select distinct workspace_id from enrichment_job_items")
    assert await cursor.fetchall() == [("acme",)]


async def test_a_lead_written_before_a_crash_stays_as_it_was(conn):
    job = await a_job(conn, status="processing")
    await items.record(conn, worker_id=job.worker_id, items=[a_lead(job)])

    owned = await items.record(
        conn, worker_id=job.worker_id, items=[a_lead(job, status="failed"), a_lead(job, "2")]
    )

    assert owned == {str(job.id)}
    found = await items.list_all(conn, job_id=job.id)
    assert [(item.item_key, item.status) for item in found] == [
        ("1", "completed"),
        ("2", "completed"),
    ]


async def test_many_jobs_of_a_worker_go_in_one_statement_and_only_the_owned_are_answered(conn):
    worker = await a_worker(conn)
    mine = [await a_job(conn, status="processing", worker_id=worker.id) for _ in range(3)]
    other = await a_job(conn, status="processing")

    owned = await items.record(
        conn, worker_id=worker.id, items=[a_lead(job) for job in [*mine, other]]
    )

    assert owned == {str(job.id) for job in mine}
    assert await counted(conn, "enrichment_job_items") == 3


@pytest.mark.parametrize("wrong", ["worker", "attempt", "state"])
async def test_a_run_that_lost_its_claim_writes_no_lead_and_is_told_so(conn, wrong):
    worker = await a_worker(conn)
    other = await a_worker(conn)
    job = await a_job(
        conn,
        status="scheduled" if wrong == "state" else "processing",
        worker_id=worker.id,
        attempts=2,
    )

    owned = await items.record(
        conn,
        worker_id=other.id if wrong == "worker" else worker.id,
        items=[a_lead(job, attempt=1 if wrong == "attempt" else 2)],
    )

    assert owned == set()
    assert await counted(conn, "enrichment_job_items") == 0


async def test_rescue_passes_by_a_job_while_its_lead_is_being_written(conn, database_url):
    worker = await a_worker(conn)
    job = await a_job(conn, status="processing", worker_id=worker.id)
    other = Database(database_url)
    async with conn.transaction():
        await items.record(conn, worker_id=worker.id, items=[a_lead(job)])
        async with other.connection() as rescuer:
            await rescuer.execute("update enrichment_workers set state = 'dead'")
            assert len(await job_moves.rescue(rescuer)) == 0

    async with other.connection() as rescuer:
        assert len(await job_moves.rescue(rescuer)) == 1
    await other.close()

    assert await items.record(conn, worker_id=worker.id, items=[a_lead(job, "2")]) == set()
    assert len(await items.list_all(conn, job_id=job.id)) == 1


async def test_progress_is_written_for_runs_that_own_their_job(conn):
    worker = await a_worker(conn)
    mine = await a_job(conn, status="processing", worker_id=worker.id, attempts=2)
    stale = await a_job(conn, status="processing", worker_id=worker.id, attempts=2)
    other = await a_job(conn, status="processing", attempts=2)

    await items.progress(
        conn,
        worker_id=worker.id,
        rows=[(str(mine.id), 2, 3, 10), (str(stale.id), 1, 3, 10), (str(other.id), 2, 3, 10)],
    )

    done = [
        (row["progress_done"], row["progress_total"])
        for row in [await columns_of(conn, job.id) for job in (mine, stale, other)]
    ]
    assert done == [(3, 10), (0, 0), (0, 0)]


@pytest.mark.parametrize(("status", "done"), [("completed", 10), ("failed", 7)])
async def test_a_job_that_completes_has_done_all_of_it(conn, status, done):
    worker = await a_worker(conn)
    job = await a_job(conn, status="processing", worker_id=worker.id)
    await items.progress(conn, worker_id=worker.id, rows=[(str(job.id), 1, 7, 10)])

    await claim(conn, worker.id, ended=[Ended(str(job.id), 1, status, status)])

    row = await columns_of(conn, job.id)
    assert (row["status"], row["progress_done"], row["progress_total"]) == (status, done, 10)
