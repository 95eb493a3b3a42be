"""A delivery is in the outbox exactly when the move that it tells of committed."""

from __future__ import annotations

import json
import re
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from uuid_utils.compat import uuid7

from enrichd.domain.jobs import NewJob
from enrichd.queue.manager import JobQueueManager
from enrichd.store import items, job_moves, jobs, webhooks
from enrichd.store.items import NewItem
from enrichd.store.jobs import Ended
from enrichd.store.sealing import Sealed
from tests.support.factories import a_job, a_worker, an_email_job, claim

URL = "https://hooks.example.com/jobs?token=1"


async def a_webhook(conn, *, workspace_id="default", events=("*",), url="https://x.example/"):
    return await webhooks.insert(
        conn,
        webhook_id=uuid7(),
        workspace_id=workspace_id,
        url=url,
        events=list(events),
        description=None,
        secret=Sealed(b"sealed", "test"),
    )


async def outbox(conn):
    """Return the deliveries in order."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("select * from enrichment_webhook_deliveries order by sequence")
        return await cursor.fetchall()


async def told(conn):
    """Return (event, job id, data) of each delivery."""
    return [(one["event"], one["job_id"], one["data"]) for one in await outbox(conn)]


async def events(conn):
    return [one["event"] for one in await outbox(conn)]


# Who hears.


async def test_nobody_listens_and_nothing_is_written(conn, database_url):
    worker = await a_worker(conn)
    await a_job(conn)
    [job] = await claim(conn, worker.id)
    await claim(conn, worker.id, ended=[Ended(job.id, 1, "completed", "completed", "{}")])

    assert await outbox(conn) == []


async def test_the_jobs_own_url_and_each_endpoint_that_asked_hear_of_it(conn):
    every = await a_webhook(conn)
    named = await a_webhook(conn, events=["job.cancelled", "job.failed"])
    await a_webhook(conn, events=["job.completed"])
    await a_webhook(conn, workspace_id="other")
    off = await a_webhook(conn)
    await webhooks.update(conn, workspace_id="default", webhook_id=off.id, enabled=False)
    job = await a_job(conn, webhook_url=URL)

    await job_moves.cancel(conn, workspace_id="default", ids=[job.id])

    found = {
        (one["webhook_id"], re.sub(r" \d+$", "", one["target"]), one["url"])
        for one in await outbox(conn)
    }
    assert found == {
        (every.id, str(every.id), None),
        (named.id, str(named.id), None),
        (None, "default https://hooks.example.com", URL),
    }


async def test_each_delivery_has_an_id_and_a_sequence_of_its_own(conn):
    for _ in range(3):
        await a_webhook(conn)
    job = await a_job(conn)
    await job_moves.cancel(conn, workspace_id="default", ids=[job.id])

    found = await outbox(conn)
    assert len({one["id"] for one in found}) == len({one["sequence"] for one in found}) == 3


# Each cause.


@pytest.fixture
def enqueue(database_url, queue, conn):
    """Give the ways to enqueue, each a coroutine function that takes NewJobs."""

    async def one_by_one(*new):
        return [(await queue.enqueue(job)).id for job in new]

    async def many(*new):
        return [done.id for done in await queue.enqueue_many(new)]

    async def statement(*new):
        return [
            done.id
            for done in await queue.enqueue_many(
                [
                    NewJob(job.type, job.payload, webhook_url=job.webhook_url, id=uuid4())
                    for job in new
                ]
            )
        ]

    async def in_sql(*new):
        ids = []
        for job in new:
            cursor = await conn.execute(
                "select enrichment_enqueue(%s, %s, webhook_url => %s)",
                (job.type, json.dumps(job.payload), job.webhook_url),
            )
            ids.append((await cursor.fetchone())[0])
        return ids

    return {"single": one_by_one, "copy": many, "statement": statement, "sql": in_sql}


@pytest.mark.parametrize("way", ["single", "copy", "statement", "sql"])
async def test_a_new_job_is_told_of_however_it_came(conn, enqueue, way):
    hook = await a_webhook(conn)
    ids = await enqueue[way](an_email_job(), an_email_job(webhook_url=URL))

    found = [(one["event"], one["job_id"], one["webhook_id"]) for one in await outbox(conn)]
    assert sorted(found, key=str) == sorted(
        [
            ("job.created", ids[0], hook.id),
            ("job.created", ids[1], hook.id),
            ("job.created", ids[1], None),
        ],
        key=str,
    )
    [data] = {json.dumps(one["data"]["status"]) for one in await outbox(conn)}
    assert data == '"pending"'


@pytest.mark.parametrize("way", ["single", "copy", "statement", "sql"])
async def test_a_job_with_an_url_tells_it_without_any_endpoint(conn, enqueue, way):
    [job_id] = await enqueue[way](an_email_job(webhook_url=URL))

    assert [(one["event"], one["job_id"], one["url"]) for one in await outbox(conn)] == [
        ("job.created", job_id, URL)
    ]


async def test_a_job_that_was_there_is_not_told_of_again(conn, queue):
    await a_webhook(conn)
    new = an_email_job(idempotency_key="once")
    for _ in range(2):
        await queue.enqueue(new)
        await queue.enqueue_many([new])

    assert await events(conn) == ["job.created"]


async def test_an_enqueue_that_is_taken_back_tells_nothing(conn, database_url):
    await a_webhook(conn)
    async with await psycopg.AsyncConnection.connect(database_url) as own:
        await JobQueueManager.enqueue_many(
            JobQueueManager.__new__(JobQueueManager), [an_email_job(webhook_url=URL)], conn=own
        )
        await own.rollback()

    assert await outbox(conn) == []


async def test_a_run_tells_of_its_start_and_its_end(conn):
    await a_webhook(conn)
    worker = await a_worker(conn)
    new = await a_job(conn)
    [job] = await claim(conn, worker.id)
    result = json.dumps({"lead": {"name": "Ada"}, "missing": None})
    await claim(conn, worker.id, ended=[Ended(job.id, 1, "completed", "completed", result)])

    started, completed = await told(conn)
    assert started == (
        "job.started",
        new.id,
        {"jobId": str(new.id), "type": new.type, "status": "processing", "attempt": 1},
    )
    assert completed[:2] == ("job.completed", new.id)
    assert completed[2]["result"] == {"lead": {"name": "Ada"}, "missing": None}
    assert (completed[2]["status"], completed[2]["attempt"]) == ("completed", 1)


async def test_a_large_result_is_left_to_be_fetched(conn):
    await a_webhook(conn, events=["job.completed"])
    worker = await a_worker(conn)
    await a_job(conn)
    [job] = await claim(conn, worker.id)
    result = json.dumps({"text": "x" * 9_000})
    await claim(conn, worker.id, ended=[Ended(job.id, 1, "completed", "completed", result)])

    [(_, _, data)] = await told(conn)
    assert "result" not in data
    assert data["resultPath"] == f"/api/enrichment/jobs/{job.id}"


@pytest.mark.parametrize(
    ("ended", "event"),
    [
        (Ended("", 1, "failed", "failed", error='{"type": "bad"}'), "job.failed"),
        (Ended("", 1, "dead_letter", "failed", error='{"type": "bad"}'), "job.dead_letter"),
        (Ended("", 1, "cancelled", "cancelled"), "job.cancelled"),
        (Ended("", 1, "scheduled", "retry", error='{"type": "bad"}', delay_s=9.0), None),
        (Ended("", 1, "pending", "released", delay_s=0.0, is_refunded=True), None),
        (Ended("", 1, "waiting", "parked", delay_s=9.0, is_refunded=True), None),
    ],
)
async def test_only_final_ends_are_told_of(conn, ended, event):
    await a_webhook(conn)
    worker = await a_worker(conn)
    await a_job(conn)
    [job] = await claim(conn, worker.id)
    ended.id = job.id
    await jobs.turn(conn, worker_id=worker.id, ended=[ended], plan=[], room=0)

    assert await events(conn) == ["job.started", *([event] if event else [])]


async def test_a_cancel_that_wins_over_a_retry_is_told_as_cancelled(conn):
    await a_webhook(conn)
    worker = await a_worker(conn)
    await a_job(conn)
    [job] = await claim(conn, worker.id)
    await job_moves.cancel(conn, workspace_id="default", ids=[job.id])
    assert await events(conn) == ["job.started"]

    ended = Ended(job.id, 1, "scheduled", "retry", delay_s=5.0)
    await jobs.turn(conn, worker_id=worker.id, ended=[ended], plan=[], room=0)
    assert await events(conn) == ["job.started", "job.cancelled"]


async def test_a_run_that_lost_its_claim_tells_nothing(conn):
    await a_webhook(conn)
    zombie, rescuer = await a_worker(conn), await a_worker(conn)
    await a_job(conn, status="processing", worker_id=rescuer.id, attempts=2)
    [(job_id,)] = await (await conn.execute("select id from enrichment_jobs")).fetchall()

    ended = Ended(str(job_id), 1, "completed", "completed", "{}")
    _, lost = await jobs.turn(conn, worker_id=zombie.id, ended=[ended], plan=[], room=0)
    await items.progress(conn, worker_id=zombie.id, rows=[(str(job_id), 1, 1, 2)])
    item = NewItem(str(job_id), 1, "lead", "completed", "{}", None)
    await items.record(conn, worker_id=zombie.id, items=[item])

    assert lost == [str(job_id)]
    assert await outbox(conn) == []


async def test_jobs_that_are_rescued_for_good_are_told_of(conn):
    await a_webhook(conn)
    worker = await a_worker(conn, state="dead")
    common = {"status": "processing", "worker_id": worker.id, "attempts": 1}
    last = await a_job(conn, **common, max_retries=0)
    asked = await a_job(conn, **common, cancel_requested=True)
    await a_job(conn, **common)

    await job_moves.rescue(conn)

    found = {(event, job_id) for event, job_id, _ in await told(conn)}
    assert found == {("job.dead_letter", last.id), ("job.cancelled", asked.id)}
    assert all(data["status"] for _, _, data in await told(conn))


async def test_a_callback_that_never_came_is_told_of_when_no_attempt_is_left(conn):
    await a_webhook(conn)
    late = {"status": "waiting", "scheduled_in_s": -1.0}
    last = await a_job(conn, **late, attempts=0, max_retries=0)
    await a_job(conn, **late, attempts=0, max_retries=3)

    await job_moves.expire_waiting(conn)

    [(event, job_id, data)] = await told(conn)
    assert (event, job_id, data["error"]["type"]) == (
        "job.dead_letter",
        last.id,
        "callback_missing",
    )


async def test_each_lead_of_a_batch_is_told_of_once(conn):
    await a_webhook(conn)
    worker = await a_worker(conn)
    job = await a_job(conn, status="processing", worker_id=worker.id, attempts=1)
    found = NewItem(str(job.id), 1, "a", "completed", '{"name": "Ada"}', None)
    missing = NewItem(str(job.id), 1, "b", "failed", None, '{"type": "nothing"}')
    for _ in range(2):
        await items.record(conn, worker_id=worker.id, items=[found, missing])

    assert [(one["event"], one["item_key"]) for one in await outbox(conn)] == [
        ("batch.item_completed", "a"),
        ("batch.item_completed", "b"),
    ]
    data = [one["data"] for one in await outbox(conn)]
    assert (data[0]["result"], data[0]["status"]) == ({"name": "Ada"}, "completed")
    assert (data[1]["error"], data[1]["status"]) == ({"type": "nothing"}, "failed")


async def test_progress_is_told_of_once_a_second(conn):
    await a_webhook(conn)
    worker = await a_worker(conn)
    job = await a_job(conn, status="processing", worker_id=worker.id, attempts=1)
    for done in range(3):
        await items.progress(conn, worker_id=worker.id, rows=[(str(job.id), 1, done, 9)])
    assert [data["progressDone"] for _, _, data in await told(conn)] == [0]

    await conn.execute(
        "update enrichment_webhook_deliveries set created_at = now() - interval '1.1 seconds'"
    )
    await items.progress(conn, worker_id=worker.id, rows=[(str(job.id), 1, 7, 9)])

    assert [(event, data["progressDone"]) for event, _, data in await told(conn)] == [
        ("job.progress", 0),
        ("job.progress", 7),
    ]
