"""Jobs of a broken provider's lane move to the lane of a fallback that works."""

from __future__ import annotations

import pytest

from enrichd.store import lanes, provider_state
from enrichd.store.database import Connection
from enrichd.store.relaning import relane
from tests.support.factories import a_job, a_lane, a_worker, claim, columns_of, pending_jobs

pytestmark = pytest.mark.queue


async def open_one(conn: Connection, credential: str, open_s: float = 30.0) -> None:
    await provider_state.open_breaker(conn, credential=credential, reason="503", open_s=open_s)


def payload(*fallbacks: object) -> dict[str, object]:
    return {"leadId": "1", "providerId": "hunter", "fallbackProviders": list(fallbacks)}


async def lane_of(conn: Connection, job_id: object) -> str:
    return str((await columns_of(conn, str(job_id)))["provider_id"])


async def test_a_job_moves_to_its_first_fallback_that_is_not_blocked(conn):
    worker = await a_worker(conn)
    job = await a_job(conn, provider_id="hunter", payload=payload("apollo", "clearbit", "pdl"))
    await open_one(conn, "hunter")
    await open_one(conn, "apollo")
    await conn.execute(
        "insert into enrichment_provider_state (provider_id, blocked_until)"
        " values ('clearbit', now() + interval '1 minute')"
    )

    assert (await relane(conn)).moved == 1

    assert await lane_of(conn, job.id) == "pdl"
    assert [run.id for run in await claim(conn, worker.id)] == [str(job.id)]


@pytest.mark.parametrize(
    "fallbacks",
    [(), ("hunter",), ("apollo",), ("",), ("x" * 101,), (7, None, ["pdl"])],
)
async def test_a_job_without_an_open_fallback_stays(conn, fallbacks):
    job = await a_job(conn, provider_id="hunter", payload=payload(*fallbacks))
    await open_one(conn, "hunter")
    await open_one(conn, "apollo")

    assert (await relane(conn)).moved == 0
    assert await lane_of(conn, job.id) == "hunter"


@pytest.mark.parametrize("fallbacks", [None, "apollo", {"apollo": 1}, 7])
async def test_fallbacks_of_another_shape_are_left_alone(conn, fallbacks):
    await a_job(conn, provider_id="hunter", payload={"fallbackProviders": fallbacks})
    await a_job(conn, provider_id="hunter")
    await open_one(conn, "hunter")

    assert (await relane(conn)).moved == 0


async def test_a_breaker_that_is_soon_over_moves_nobody(conn):
    await a_job(conn, provider_id="hunter", payload=payload("pdl"))
    await open_one(conn, "hunter", open_s=4)

    assert (await relane(conn)).moved == 0


async def test_a_breaker_opened_by_hand_without_end_moves_jobs(conn):
    await a_job(conn, provider_id="hunter", payload=payload("pdl"))
    await provider_state.set_by_hand(conn, credential="hunter", breaker="open")

    assert (await relane(conn)).moved == 1


async def test_jobs_that_are_not_ready_stay(conn):
    for status in ("scheduled", "processing", "waiting", "completed"):
        await a_job(conn, provider_id="hunter", status=status, payload=payload("pdl"))
    await open_one(conn, "hunter")

    assert (await relane(conn)).moved == 0


async def test_moved_jobs_stand_behind_their_workspaces_own_in_the_new_lane(conn):
    await a_lane(conn, "pdl", vtime=50)
    await a_job(conn, provider_id="pdl", workspace_id="acme", fair_rank=70)
    moved = [
        await a_job(
            conn,
            provider_id="hunter",
            workspace_id=workspace,
            fair_rank=rank,
            cost=10,
            payload=payload("pdl"),
        )
        for workspace, rank in (("acme", 1), ("acme", 2), ("other", 3))
    ]
    await open_one(conn, "hunter")

    await relane(conn)

    ranks = [(await columns_of(conn, job.id))["fair_rank"] for job in moved]
    assert ranks == [80, 90, 60]


async def test_jobs_without_fallbacks_do_not_hide_those_behind_them(conn):
    await pending_jobs(conn, 25, provider_id="hunter")
    await pending_jobs(conn, 5, provider_id="broken", priority=1)
    last = await a_job(conn, provider_id="hunter", fair_rank=99, payload=payload("pdl"))
    first = await a_job(conn, provider_id="broken", priority=4, fair_rank=1, payload=payload("pdl"))
    await open_one(conn, "hunter")
    await open_one(conn, "broken")
    place, turns, moved = None, 0, 0
    while True:
        found = await relane(conn, limit=5, place=place)
        turns, moved, place = turns + 1, moved + found.moved, found.next_place
        if place is None:
            break

    assert (moved, turns) == (2, 7)
    assert [await lane_of(conn, job.id) for job in (first, last)] == ["pdl", "pdl"]


async def test_with_nothing_broken_nothing_is_looked_at(conn):
    await a_job(conn, provider_id="hunter", payload=payload("pdl"))

    found = await relane(conn)

    assert (found.moved, found.next_place) == (0, None)


# Half open


async def test_a_lane_whose_breaker_was_open_long_enough_can_be_claimed_for_a_probe(conn):
    await a_lane(conn, "hunter")
    await a_lane(conn, "apollo")
    await open_one(conn, "hunter")
    await open_one(conn, "apollo")
    await conn.execute(
        "update enrichment_provider_state set opened_at = now() - interval '31 s'"
        " where provider_id = 'hunter'"
    )

    assert await provider_state.half_open_due(conn) == ["hunter"]
    assert await provider_state.half_open_due(conn) == []

    [lane] = await lanes.open_lanes(conn)
    assert (lane.provider_id, lane.spare) == ("hunter", 1)


async def test_a_cap_does_not_replace_that_of_a_half_open_breaker(conn):
    await a_lane(conn, "hunter")
    await open_one(conn, "hunter", open_s=0)
    await provider_state.half_open_due(conn)

    await provider_state.set_inflight_cap(conn, credential="hunter", cap=50)

    [lane] = await lanes.open_lanes(conn)
    assert lane.spare == 1
