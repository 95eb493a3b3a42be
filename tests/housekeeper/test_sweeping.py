"""The slow chores, on a real database."""

from __future__ import annotations

import pytest

from enrichd.housekeeper.sweeping import sweep, sweep_orphans
from enrichd.settings import Settings
from enrichd.store import orphans, vacuum
from enrichd.store.database import Database
from tests.support.factories import a_job, a_worker

pytestmark = pytest.mark.queue

DAY_MS = 86_400_000


@pytest.fixture
async def own(database_url):
    database = Database(database_url, name="test sweep")
    yield database
    await database.close()


async def statuses(conn):
    rows = await (await conn.execute("select status from enrichment_jobs order by 1")).fetchall()
    return [status for (status,) in rows]


async def aged_jobs(conn):
    for status in ("completed", "failed", "dead_letter", "cancelled", "pending"):
        await a_job(conn, status=status)
    await conn.execute(
        "update enrichment_jobs set completed_at = now() - interval '3 days'"
        " where completed_at is not null or status in"
        " ('completed', 'failed', 'dead_letter', 'cancelled')"
    )


async def test_nothing_is_pruned_unless_it_is_asked_for(conn, own):
    await aged_jobs(conn)

    await sweep(own, Settings.load({}))

    assert len(await statuses(conn)) == 5


async def test_completed_and_failed_jobs_have_ages_of_their_own(conn, own):
    await aged_jobs(conn)

    await sweep(own, Settings.load({"PRUNE_COMPLETED_AFTER": str(2 * DAY_MS)}))
    assert "completed" not in await statuses(conn)
    assert len(await statuses(conn)) == 4

    await sweep(own, Settings.load({"PRUNE_FAILED_AFTER": str(4 * DAY_MS)}))
    assert len(await statuses(conn)) == 4

    await sweep(own, Settings.load({"PRUNE_FAILED_AFTER": str(2 * DAY_MS)}))
    assert await statuses(conn) == ["pending"]


async def test_a_worker_dead_for_an_hour_is_forgotten(conn, own):
    await a_worker(conn, state="dead", silent_s=4000)
    await a_worker(conn, state="dead", silent_s=60)

    await sweep(own, Settings.load({}))

    count = await (await conn.execute("select count(*) from enrichment_workers")).fetchone()
    assert count == (1,)


async def test_a_table_with_more_dead_rows_than_live_ones_is_named(conn, own, eventually):
    await conn.execute("alter table enrichment_jobs set (autovacuum_enabled = off)")
    for _ in range(20):
        await a_job(conn, status="completed")
    await conn.execute("delete from enrichment_jobs")

    async def lagging():
        # PostgreSQL writes a session's statistics down when that session is next used.
        await conn.execute("select 1")
        async with own.connection() as other:
            return await vacuum.behind(other, dead_min=10, age_s=0)

    [table] = await eventually(lagging)
    assert table.table == "enrichment_jobs"
    assert table.dead_rows >= 20


async def test_what_a_delete_by_hand_left_behind_goes_step_by_step(conn, own):
    kept, gone = await a_job(conn), await a_job(conn)
    for job in (kept, gone):
        await conn.execute(
            "insert into enrichment_job_items (job_id, item_key, workspace_id, status)"
            " select %s, n::text, 'default', 'completed' from generate_series(1, 3) as n",
            [job.id],
        )
        await conn.execute(
            "insert into enrichment_attempt_log (job_id, workspace_id, attempt, outcome)"
            " values (%s, 'default', 1, 'retry')",
            [job.id],
        )
    await conn.execute("delete from enrichment_jobs where id = %s", [gone.id])
    place = orphans.Place()

    steps = [await orphans.sweep(conn, place, limit=2) for _ in range(3)]

    assert sum(steps) == 4
    assert max(steps) < 4
    assert await owners(conn) == {kept.id}
    await orphans.sweep(conn, place, limit=2)
    assert place == orphans.Place()
    await sweep_orphans(own, place)
    assert await owners(conn) == {kept.id}


async def owners(conn):
    cursor = await conn.execute(
        "select job_id from enrichment_job_items union select job_id from enrichment_attempt_log"
    )
    return {job_id for (job_id,) in await cursor.fetchall()}
