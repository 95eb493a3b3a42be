"""Finished leads of a batch, and progress: durable, resumable, fenced."""

from __future__ import annotations

import asyncio

import pytest
from uuid_utils.compat import uuid7

from enrichd.domain.jobs import NewJob
from enrichd.errors import ClaimLost, Invalid
from enrichd.processing.items import ItemWriter
from enrichd.processing.processor import Limits
from enrichd.store.database import Database
from tests.processing.conftest import enqueue
from tests.support.job_types import GATES, SEEN

pytestmark = pytest.mark.queue

UNTIL_EMPTY = Limits(is_until_empty=True)


@pytest.fixture
async def claimed(queue, conn):
    """Give (job id as text, worker id): a job that a worker runs as its first attempt."""
    worker_id = uuid7()
    [job] = await enqueue(queue, "empty")
    await conn.execute(
        "insert into enrichment_workers (id, host, pid, version, concurrency)"
        " values (%s, 'test', 1, '0', 1)",
        [worker_id],
    )
    await conn.execute(
        "update enrichment_jobs set status = 'processing', attempts = 1, worker_id = %s",
        [worker_id],
    )
    return str(job), worker_id


@pytest.fixture
async def writer(claimed, database_url):
    """Give the worker's ItemWriter, writing."""
    database = Database(database_url)
    writer = ItemWriter(database, claimed[1])
    task = asyncio.create_task(writer.run())
    yield writer
    assert not task.done(), "no value may end the writer"
    task.cancel()
    await asyncio.wait([task])
    await database.close()


async def items(conn):
    cursor = await conn.execute(
        "select item_key, status, result from enrichment_job_items order by item_key"
    )
    return await cursor.fetchall()


async def test_a_lead_is_durable_when_record_returns(writer, claimed, conn):
    await writer.record(claimed[0], 1, "a", status="completed", result={"x": 1}, error=None)

    assert await items(conn) == [("a", "completed", {"x": 1})]


async def test_leads_recorded_at_once_go_in_together(writer, claimed, conn):
    await asyncio.gather(
        *(
            writer.record(claimed[0], 1, str(n), status="completed", result={}, error=None)
            for n in range(500)
        )
    )

    assert len(await items(conn)) == 500


@pytest.mark.parametrize("key", ["a\0b", "a\ud800", "a\\\"{,}'", "", "ключ"])
async def test_any_text_is_a_key(writer, claimed, conn, key):
    await writer.record(claimed[0], 1, key, status="completed", result={}, error=None)

    assert len(await items(conn)) == 1


async def test_one_refused_lead_fails_alone(writer, claimed, conn):
    good, bad = await asyncio.gather(
        writer.record(claimed[0], 1, "good", status="completed", result={}, error=None),
        writer.record(claimed[0], 1, "bad", status="odd", result={}, error=None),
        return_exceptions=True,
    )

    assert good is None
    assert isinstance(bad, Invalid)
    assert [item[0] for item in await items(conn)] == ["good"]


@pytest.mark.parametrize(
    "change",
    [
        "update enrichment_jobs set worker_id = gen_random_uuid()",
        "update enrichment_jobs set attempts = 2",
        "update enrichment_jobs set status = 'pending', worker_id = null",
        "delete from enrichment_jobs",
    ],
)
async def test_a_run_that_lost_its_claim_is_told_and_writes_nothing(writer, claimed, conn, change):
    await conn.execute(change)

    with pytest.raises(ClaimLost):
        await writer.record(claimed[0], 1, "a", status="completed", result={}, error=None)

    assert await items(conn) == []


@pytest.mark.parametrize("done", [0.5, -3, 2**40, float("inf"), True])
async def test_any_number_is_progress(writer, claimed, conn, done):
    writer.report(claimed[0], 1, done, 10)
    await writer.write_progress()

    cursor = await conn.execute("select progress_done, progress_total from enrichment_jobs")
    kept, total = await cursor.fetchone()
    assert 0 <= kept <= 2**31 - 1
    assert total == 10


@pytest.mark.parametrize("done", [None, "1", float("nan")])
async def test_what_is_no_number_is_told_to_the_handler(writer, claimed, done):
    with pytest.raises((TypeError, ValueError)):
        writer.report(claimed[0], 1, done, 10)


async def test_progress_of_a_lost_claim_changes_nothing(writer, claimed, conn):
    writer.report(claimed[0], 7, 5, 10)
    await writer.write_progress()

    cursor = await conn.execute("select progress_done from enrichment_jobs")
    assert await cursor.fetchone() == (0,)


async def test_a_batch_resumes_after_a_crash_without_repeating_a_lead(
    make, queue, conn, row, eventually, running
):
    [job] = await queue.enqueue_many([NewJob("batch", {"keys": list("abcd"), "wait_at": "c"})])
    processor = make(is_tending=False)
    running(processor)

    async def is_at_c():
        return SEEN.cleaned_up == ["c"]

    await eventually(is_at_c)
    # The host is gone: its row is silent, and what the run does from here on reaches nobody.
    await conn.execute("update enrichment_workers set state = 'dead'")
    await queue.tend(worker_timeout_s=60)
    GATES["c"].set()

    async def is_done():
        return (await row(job.id)).status == "completed"

    await make().run(UNTIL_EMPTY)
    await eventually(is_done)
    assert (await row(job.id)).result == {"leads": 4, "resumed": 2}
    assert sorted(key for key in SEEN.ended if key in "ab") == ["a", "b"]
    assert len(await items(conn)) == 4


async def test_progress_is_seen_while_the_job_runs(make, queue, running, eventually, conn):
    await enqueue(queue, "reporting", done=3, total=9)
    running(make())

    async def is_seen():
        cursor = await conn.execute("select progress_done, progress_total from enrichment_jobs")
        return await cursor.fetchone() == (3, 9)

    await eventually(is_seen, within_s=3.0)
