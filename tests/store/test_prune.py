"""Pruning: what ended long ago goes with all that belongs to it, and nothing else does."""

from __future__ import annotations

import pytest

from enrichd.domain.jobs import CANCELLABLE, TERMINAL
from enrichd.store import job_moves, prune
from enrichd.store.database import Database
from tests.support.factories import a_job, counted, state_of

pytestmark = pytest.mark.queue

DAY_S = 86_400.0
ALL = sorted(TERMINAL)


async def test_jobs_older_than_the_age_go_and_younger_ones_stay(conn):
    for age_s in (2 * DAY_S, 3 * DAY_S):
        await a_job(conn, status="completed", completed_ago_s=age_s)
    young = await a_job(conn, status="completed", completed_ago_s=DAY_S / 2)

    assert await prune.count(conn, statuses=ALL, age_s=DAY_S) == 2
    assert await prune.prune(conn, statuses=ALL, age_s=DAY_S) == 2

    assert await counted(conn, "enrichment_jobs") == 1
    assert await state_of(conn, young.id) == "completed"


@pytest.mark.parametrize("status", ALL)
async def test_only_the_wanted_states_go(conn, status):
    for each in ALL:
        await a_job(conn, status=each, completed_ago_s=2 * DAY_S)

    assert await prune.prune(conn, statuses=[status], age_s=DAY_S) == 1

    cursor = await conn.execute("select status from enrichment_jobs order by status")
    assert [left for (left,) in await cursor.fetchall()] == [s for s in ALL if s != status]


@pytest.mark.parametrize("status", sorted(CANCELLABLE))
async def test_a_live_job_never_goes_whatever_is_asked(conn, status):
    await a_job(conn, status=status, completed_ago_s=9 * DAY_S, scheduled_in_s=-9 * DAY_S)

    statuses = [*ALL, status]
    assert await prune.count(conn, statuses=statuses, age_s=0) == 0
    assert await prune.prune(conn, statuses=statuses, age_s=0) == 0


async def test_items_and_attempts_go_with_their_job_and_others_stay(conn):
    old = await a_job(conn, status="completed", completed_ago_s=2 * DAY_S)
    kept = await a_job(conn, status="completed")
    for job in (old, kept):
        await conn.execute(
            "insert into enrichment_job_items (job_id, item_key, workspace_id, status)"
            " values (%s, '1', 'default', 'completed')",
            [job.id],
        )
        await conn.execute(
            "insert into enrichment_attempt_log (job_id, workspace_id, attempt, outcome)"
            " values (%s, 'default', 1, 'retry')",
            [job.id],
        )

    await prune.prune(conn, statuses=ALL, age_s=DAY_S)

    for table in ("enrichment_job_items", "enrichment_attempt_log"):
        cursor = await conn.execute(f"select job_id from {table}")  # noqa: S608 - two constants
        assert await cursor.fetchall() == [(kept.id,)]


async def test_one_workspace_is_pruned_alone(conn):
    for workspace in ("a", "a", "b"):
        await a_job(conn, status="failed", completed_ago_s=2 * DAY_S, workspace_id=workspace)

    assert await prune.count(conn, statuses=ALL, age_s=DAY_S, workspace_id="a") == 2
    assert await prune.prune(conn, statuses=ALL, age_s=DAY_S, workspace_id="a") == 2
    assert await counted(conn, "enrichment_jobs") == 1


async def test_a_call_is_bounded_and_takes_the_oldest_first(conn):
    for age in (2, 4, 3):
        await a_job(conn, status="completed", completed_ago_s=age * DAY_S, type=f"age{age}")

    assert await prune.prune(conn, statuses=ALL, age_s=DAY_S, limit=2) == 2

    cursor = await conn.execute("select type from enrichment_jobs")
    assert await cursor.fetchall() == [("age2",)]


async def test_a_job_that_is_being_retried_is_passed_by(conn, database_url):
    job = await a_job(conn, status="failed", completed_ago_s=2 * DAY_S)
    other = Database(database_url)

    async with other.transaction() as retrying:
        await job_moves.retry(retrying, workspace_id="default", ids=[job.id])
        assert await prune.prune(conn, statuses=ALL, age_s=DAY_S) == 0
    await other.close()

    assert await prune.prune(conn, statuses=ALL, age_s=DAY_S) == 0
    assert await state_of(conn, job.id) == "pending"
