"""What waits for providers and is moved on: by one look and what it has seen to be due."""

from __future__ import annotations

from uuid import uuid4

import pytest

from enrichd.processing.provider_upkeep import ProviderUpkeep
from enrichd.store import callbacks, lanes, provider_state
from enrichd.store.database import Database
from tests.support.factories import a_job, a_lane, columns_of, pending_jobs

pytestmark = pytest.mark.queue


@pytest.fixture
async def tend(database_url):
    """Give `await tend()`: one look and one turn of fresh upkeep, as after a pause."""
    database = Database(database_url, name="test upkeep")

    async def look_and_tend(upkeep: ProviderUpkeep | None = None) -> int:
        async with database.connection() as conn:
            seen = await lanes.look(conn, room=10, worker_timeout_s=20)
        return await (upkeep or ProviderUpkeep(database)).tend(seen)

    look_and_tend.database = database
    yield look_and_tend
    await database.close()


async def test_where_nothing_waits_nothing_is_asked(tend, conn):
    await a_job(conn)
    seen = await lanes.look(conn, room=10, worker_timeout_s=20)

    assert not seen.has_provider_upkeep
    assert await tend() == 0


async def test_a_lane_whose_breaker_was_open_long_enough_is_claimed_from_again(tend, conn):
    await a_lane(conn, "hunter")
    await provider_state.open_breaker(conn, credential="hunter", reason="down", open_s=0)

    assert await tend() == 1

    assert [lane.spare for lane in await lanes.open_lanes(conn)] == [1]


async def test_jobs_of_a_broken_lane_fall_back_however_many_stay(tend, conn):
    await pending_jobs(conn, 6_000, provider_id="hunter")
    await a_lane(conn, "hunter")
    late = await a_job(
        conn,
        provider_id="hunter",
        fair_rank=7_000,
        payload={"providerId": "hunter", "fallbackProviders": ["pdl"]},
    )
    await provider_state.open_breaker(conn, credential="hunter", reason="down", open_s=600)
    upkeep = ProviderUpkeep(tend.database)

    assert await tend(upkeep) == 0, "one turn looks at 5,000"
    upkeep._tend_at = 0.0
    assert await tend(upkeep) == 1

    assert (await columns_of(conn, late.id))["provider_id"] == "pdl"


async def test_it_is_done_once_a_second_at_most(tend, conn):
    await a_lane(conn, "hunter")
    upkeep = ProviderUpkeep(tend.database)
    for done in (1, 0):
        await provider_state.set_by_hand(conn, credential="hunter", breaker="open", for_s=0)

        assert await tend(upkeep) == done


async def test_a_job_whose_answer_may_be_fetched_is_resumed(tend, conn):
    job = await a_job(conn, status="waiting", scheduled_in_s=600)
    await callbacks.expect(
        conn,
        token_hash=b"t",
        workspace_id="default",
        job_id=job.id,
        provider_id="clearbit",
        operation="enrichPerson",
        cache_key=b"k",
        deadline_s=600,
    )
    assert await tend() == 0, "nothing to fetch yet"
    await callbacks.poll_again(conn, job_id=job.id, cache_key=b"k", poll_after_s=0)

    assert await tend() == 1

    assert (await columns_of(conn, job.id))["status"] == "pending"


async def test_credits_of_calls_that_never_ended_are_booked(tend, conn):
    await conn.execute(
        "insert into enrichment_credit_counters (counter, reserved) values ('day:x', 3)"
    )
    await conn.execute(
        "insert into enrichment_credit_reservations values"
        " (%s, 'default', null, 'hunter', 'findEmail', 3, '{day:x}', now() - interval '1 s')",
        [uuid4()],
    )

    await tend()

    row = await (
        await conn.execute("select spent, reserved from enrichment_credit_counters")
    ).fetchone()
    assert row == (3, 0)
