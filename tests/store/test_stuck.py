from __future__ import annotations

import pytest
from uuid_utils.compat import uuid7

from enrichd.store import stuck
from tests.support.factories import a_job, a_lane, a_worker, pending_jobs

pytestmark = pytest.mark.queue


async def test_what_is_stuck_is_counted(conn):
    alive = await a_worker(conn)
    for silent_s, state in ((60, "running"), (0, "dead")):
        worker = await a_worker(conn, silent_s=silent_s, state=state)
        await a_job(conn, status="processing", worker_id=worker.id)
    await a_job(conn, status="processing", worker_id=uuid7())
    await a_job(conn, status="processing", worker_id=alive.id)
    await a_job(conn, status="scheduled", scheduled_in_s=-90)
    await a_job(conn, status="scheduled", scheduled_in_s=-30)
    await a_job(conn, status="waiting", scheduled_in_s=-90)
    await a_job(conn, status="dead_letter")
    await a_job(conn, status="dead_letter", completed_ago_s=90_000)
    await a_job(conn, status="completed")

    queue = await stuck.queue(conn, worker_timeout_s=20)

    assert (queue.orphans, queue.overdue, queue.late_callbacks) == (3, 1, 1)
    assert (queue.dead_letters_24h, queue.ended_24h) == (1, 2)


async def test_jobs_of_a_throttled_lane_are_not_late(conn):
    await pending_jobs(conn, 2, provider_id="hunter")
    await conn.execute("update enrichment_jobs set updated_at = now() - interval '5 minutes'")
    assert (await stuck.queue(conn, worker_timeout_s=20)).oldest_ready_s > 290

    await conn.execute(
        "insert into enrichment_provider_state (provider_id, blocked_until, reason)"
        " values ('hunter', now() + interval '1 hour', '429')"
    )
    queue = await stuck.queue(conn, worker_timeout_s=20)
    (held,) = await stuck.held_lanes(conn)

    assert (queue.ready, queue.oldest_ready_s) == (2, None)
    assert (held.provider_id, held.breaker, held.reason) == ("hunter", "closed", "429")
    assert 3500 < held.blocked_s <= 3600


async def test_an_open_lane_is_not_held(conn):
    await a_lane(conn, "hunter")
    await conn.execute(
        "insert into enrichment_provider_state (provider_id, blocked_until)"
        " values ('hunter', now() - interval '1 second')"
    )

    assert await stuck.held_lanes(conn) == []


async def test_types_that_no_living_worker_knows_are_named(conn):
    await who_knows(conn, {"single_lead_enrichment"})
    await who_knows(conn, {"audit"}, silent_s=60)
    await who_knows(conn, {"audit"}, state="dead")
    for status, scheduled_in_s in (("pending", None), ("scheduled", 30), ("scheduled", 600)):
        await a_job(conn, type="audit", status=status, scheduled_in_s=scheduled_in_s)
    await a_job(conn, type="audit", status="completed")
    await a_job(conn, type="single_lead_enrichment")

    assert await stuck.unknown_types(conn, worker_timeout_s=20) == {"audit": 2}

    await who_knows(conn, {"audit"})
    assert await stuck.unknown_types(conn, worker_timeout_s=20) == {}


async def test_of_types_nothing_is_said_where_nobody_tells_what_he_knows(conn):
    await a_job(conn, type="audit")
    assert await stuck.unknown_types(conn, worker_timeout_s=20) == {}, "there is no worker"

    await who_knows(conn, {"single_lead_enrichment"})
    await who_knows(conn, None)

    assert await stuck.unknown_types(conn, worker_timeout_s=20) == {}, "an older one may know it"


async def who_knows(conn, job_types, **worker) -> None:
    """Have a worker that knows these types of jobs; None: it did not say."""
    made = await a_worker(conn, **worker)
    await conn.execute(
        "update enrichment_workers set job_types = %s where id = %s",
        [None if job_types is None else list(job_types), made.id],
    )
