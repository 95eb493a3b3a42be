"""Rank floors: lifted while jobs come, and nothing stays below one."""

from __future__ import annotations

import psycopg
import pytest

from enrichd.processing.floors import Floors
from tests.processing.conftest import enqueue
from tests.support.job_types import SEEN

pytestmark = pytest.mark.queue

FLOOR = "select floor_rank from enrichment_lanes"


async def one(conn, question: str) -> int:
    row = await (await conn.execute(question)).fetchone()
    assert row is not None
    return row[0]


async def test_floors_are_lifted_while_jobs_are_claimed_and_left_alone_otherwise(queue, conn):
    await enqueue(queue, "empty")
    await conn.execute(
        "update enrichment_lanes"
        "   set vtime = 100, floor_next = 50, floor_at = floor_at - interval '1 minute'"
    )
    await conn.execute("update enrichment_jobs set fair_rank = 80")
    floors = Floors(queue.database)

    await floors.tend(is_active=False)
    assert await one(conn, FLOOR) == 0
    await floors.tend(is_active=True)
    assert await one(conn, FLOOR) == 50


async def test_a_job_that_a_slow_transaction_put_below_the_floor_is_run_soon(
    make, queue, conn, running, eventually, database_url
):
    """The transaction reads its rank, then many others are ranked, claimed and forgotten."""
    await enqueue(queue, "empty")  # The lane is there: its first row would be waited for.
    running(make(poll_interval_s=0.1))
    with psycopg.connect(database_url) as slow:
        slow.execute("select enrichment_enqueue('empty', '{}')")
        await enqueue(queue, "empty", 20)

        async def is_passed():
            await enqueue(queue, "empty")
            return await one(conn, FLOOR) > 1

        await eventually(is_passed, within_s=15.0)
        await eventually(lambda: none_is_ready(conn))
        count = len(SEEN.ended)

    async def is_run():
        return len(SEEN.ended) == count + 1

    await eventually(is_run, within_s=5.0)


async def none_is_ready(conn) -> bool:
    return (
        await one(
            conn,
            "select count(*) from enrichment_jobs where status in ('pending', 'processing')",
        )
        == 0
    )


async def test_without_any_job_what_lies_below_a_floor_is_still_found(queue, conn):
    await enqueue(queue, "empty", 3)
    await conn.execute("update enrichment_lanes set vtime = 100, floor_rank = 90")
    floors = Floors(queue.database)

    assert await floors.tend(is_active=False) == 3
    assert await floors.tend(is_active=False) == 0
    assert await one(conn, "select min(fair_rank) from enrichment_jobs") > 100
