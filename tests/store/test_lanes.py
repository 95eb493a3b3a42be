"""Lanes: which may be claimed from, how far fair sharing has come, and the rank floor."""

from __future__ import annotations

import asyncio
import json

import pytest

from enrichd.domain.outcomes import Released
from enrichd.domain.retries import RetryRule
from enrichd.queue.endings import ended_of
from enrichd.store import job_moves, lanes
from enrichd.store.database import Connection, Database
from tests.support.factories import (
    a_job,
    a_lane,
    a_worker,
    an_email_job,
    claim,
    columns_of,
    pending_jobs,
)

pytestmark = pytest.mark.queue


async def a_provider_state(conn: Connection, provider_id: str, **columns: object) -> None:
    """Insert what is known of a provider; `blocked_in_s` is when its pause ends."""
    blocked_in_s = columns.pop("blocked_in_s", None)
    await conn.execute(
        """
        insert into enrichment_provider_state (provider_id, breaker, inflight_cap, blocked_until)
        values (%s, %s, %s, now() + make_interval(secs => %s::float8))
        """,
        [
            provider_id,
            columns.get("breaker", "closed"),
            columns.get("inflight_cap"),
            blocked_in_s,
        ],
    )


async def floors(conn: Connection) -> dict[str, int]:
    """Return the floor by lane."""
    return {lane.provider_id: lane.floor_rank for lane in await lanes.open_lanes(conn)}


async def raise_floors_twice(conn: Connection) -> None:
    """Let the time pass that a rank needs to become the floor."""
    for _ in range(2):
        await conn.execute("update enrichment_lanes set floor_at = now() - interval '6 s'")
        await lanes.raise_floors(conn)


# What may be claimed from


async def test_lanes_come_by_priority_and_then_by_name(conn):
    for lane, priority in [("b", 3), ("a", 3), ("z", 1)]:
        await a_lane(conn, lane, priority)

    found = [(lane.priority, lane.provider_id) for lane in await lanes.open_lanes(conn)]

    assert found == [(1, "z"), (3, "a"), (3, "b")]


@pytest.mark.parametrize(
    ("state", "is_open"),
    [
        ({"blocked_in_s": 60}, False),
        ({"blocked_in_s": -1}, True),
        ({"breaker": "open"}, False),
        ({"breaker": "half_open"}, True),
        ({"breaker": "open", "blocked_in_s": -1}, False),
        ({}, True),
    ],
)
async def test_a_blocked_or_broken_lane_is_left_out_of_the_plan(conn, state, is_open):
    await a_lane(conn, "hunter")
    await a_lane(conn, "free")
    await a_provider_state(conn, "hunter", **state)

    found = [lane.provider_id for lane in await lanes.open_lanes(conn)]

    assert found == (["free", "hunter"] if is_open else ["free"])


@pytest.mark.parametrize(("cap", "running", "left"), [(7, 0, 7), (7, 3, 4), (7, 9, 0)])
async def test_what_runs_of_a_lane_in_the_fleet_counts_against_its_cap(conn, cap, running, left):
    await a_lane(conn, "hunter")
    await a_lane(conn, "free")
    await a_provider_state(conn, "hunter", inflight_cap=cap)
    worker = await a_worker(conn)
    for lane in ["hunter"] * running + ["free"] * 2:
        await a_job(conn, provider_id=lane, status="processing", worker_id=worker.id)

    free, hunter = await lanes.open_lanes(conn, worker_id=worker.id)

    assert (free.spare, hunter.spare) == (None, left)


async def test_a_lane_whose_breaker_is_half_open_has_room_for_one(conn):
    await a_lane(conn, "hunter")
    await a_provider_state(conn, "hunter", breaker="half_open", inflight_cap=7)

    [lane] = await lanes.open_lanes(conn)

    assert lane.spare == 1


@pytest.mark.parametrize(("cap", "shares"), [(7, [2, 2, 3]), (3, [1, 1, 1]), (1, [0, 0, 1])])
async def test_a_cap_is_shared_among_the_workers_that_live(conn, cap, shares):
    await a_lane(conn, "hunter")
    await a_provider_state(conn, "hunter", inflight_cap=cap)
    workers = [await a_worker(conn) for _ in range(3)]
    for state in ("dead", "draining"):
        await a_worker(conn, state=state)

    # In one moment: what does not go round is another's turn each second.
    async with conn.transaction():
        seen = [await lanes.open_lanes(conn, worker_id=worker.id) for worker in workers]

    assert sorted(lane.spare for (lane,) in seen) == shares


async def test_a_look_counts_no_more_of_a_capped_lane_than_may_run(conn):
    worker = await a_worker(conn)
    for lane in ("hunter", "free"):
        await a_lane(conn, lane)
        await pending_jobs(conn, 8, provider_id=lane)
    await a_provider_state(conn, "hunter", inflight_cap=3)
    await a_job(conn, provider_id="hunter", status="processing", worker_id=worker.id)

    seen = await lanes.look(conn, room=5, worker_timeout_s=20)

    assert seen.ready == 5 + 2


async def test_a_blocked_lane_does_not_delay_another(conn):
    worker = await a_worker(conn)
    await pending_jobs(conn, 50, provider_id="hunter", priority=1)
    await a_provider_state(conn, "hunter", blocked_in_s=60)
    free = await a_job(conn, provider_id="free", priority=5)

    claimed = await claim(conn, worker.id, room=10)

    assert [run.id for run in claimed] == [str(free.id)]


# vtime


# Most pending jobs are of a blocked lane, which makes any row of another look easy to find.
@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (lanes.OPEN_LANES, {"worker_id": lanes.NOBODY}),
        (lanes.LOOK, {"room": 50, "timeout_s": 30.0}),
    ],
)
async def test_a_blocked_lane_costs_whoever_looks_nothing(conn, statement, values, mode):
    await pending_jobs(conn, 20_000, provider_id="slow")
    await pending_jobs(conn, 5_000, provider_id="free")
    await a_provider_state(conn, "slow", blocked_in_s=3600)
    await conn.execute("analyze enrichment_jobs")
    await conn.execute(f"set plan_cache_mode = force_{mode}_plan")

    cursor = await conn.execute(
        f"explain (analyze, buffers, format json) {statement}", values, prepare=True
    )

    (answer,) = await cursor.fetchone()
    plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100


async def test_vtime_only_grows(conn):
    await a_lane(conn, "a", vtime=10)
    await a_lane(conn, "b", vtime=10)

    await lanes.push_vtime(conn, [("a", 3, 25), ("b", 3, 5), ("unknown", 3, 99)])

    assert {lane.provider_id: lane.vtime for lane in await lanes.open_lanes(conn)} == {
        "a": 25,
        "b": 10,
    }


async def test_workers_that_push_at_once_in_different_orders_do_not_deadlock(conn, database_url):
    names = [f"lane{number}" for number in range(20)]
    for name in names:
        await a_lane(conn, name)

    async def push(order: list[str], start: int) -> None:
        own = Database(database_url)
        async with own.connection() as bare:
            for vtime in range(start, start + 20):
                await lanes.push_vtime(bare, [(name, 3, vtime) for name in order])
        await own.close()

    await asyncio.gather(push(names, 1), push(names[::-1], 5), push(names[7:] + names[:7], 9))

    assert {lane.vtime for lane in await lanes.open_lanes(conn)} == {28}


# The floor


async def test_the_floor_is_the_lowest_pending_rank_as_it_was_at_the_turn_before(conn):
    await a_lane(conn, vtime=100)
    lowest = await a_job(conn, fair_rank=40)
    await a_job(conn, fair_rank=70)

    await conn.execute("update enrichment_lanes set floor_at = now() - interval '6 s'")
    assert await lanes.raise_floors(conn) == 1
    assert await floors(conn) == {"-": 0}
    await conn.execute("delete from enrichment_jobs where id = %s", [lowest.id])
    await conn.execute("update enrichment_lanes set floor_at = now() - interval '6 s'")
    await lanes.raise_floors(conn)

    assert await floors(conn) == {"-": 40}


async def test_a_fresh_floor_is_left_alone(conn):
    await a_lane(conn)

    assert await lanes.raise_floors(conn) == 0


async def test_an_empty_lane_floor_is_its_vtime(conn):
    await a_lane(conn, vtime=77)

    await raise_floors_twice(conn)

    assert await floors(conn) == {"-": 77}


async def test_the_floor_never_sinks(conn):
    await a_lane(conn, vtime=77, floor_rank=50)
    await a_job(conn, fair_rank=60)
    await raise_floors_twice(conn)
    await a_job(conn, fair_rank=10)

    await raise_floors_twice(conn)

    assert await floors(conn) == {"-": 60}


async def test_a_newcomer_is_never_ranked_below_the_floor(conn, queue):
    """Nothing was claimed yet and all there is is one dear job: the floor may not hide others."""
    worker = await a_worker(conn)
    await a_job(conn, fair_rank=500, cost=500, workspace_id="big", provider_id="builtin")
    await raise_floors_twice(conn)

    small = await queue.enqueue(an_email_job(workspace_id="small"))

    assert str(small.id) in [run.id for run in await claim(conn, worker.id, room=5)]


@pytest.mark.parametrize("way", ["released", "retried", "promoted", "rescued", "resumed"])
async def test_a_job_that_comes_back_is_never_ranked_below_the_floor(conn, way):
    worker = await a_worker(conn)
    await a_job(conn, fair_rank=1)
    [run] = await claim(conn, worker.id)
    await a_job(conn, fair_rank=500, workspace_id="other")
    await raise_floors_twice(conn)

    await come_back(conn, way, worker.id, run)

    assert run.id in [found.id for found in await claim(conn, worker.id, room=5)]


async def come_back(conn: Connection, way: str, worker_id, run) -> None:
    match way:
        case "released":
            ended = ended_of(run, Released(), RetryRule(), 0)
            await claim(conn, worker_id, room=0, ended=[ended])
        case "retried":
            await set_status(conn, run.id, "failed")
            await job_moves.retry(conn, workspace_id="default", ids=[run.id])
        case "promoted":
            await set_status(conn, run.id, "scheduled")
            await job_moves.promote_due(conn)
        case "rescued":
            await conn.execute("update enrichment_workers set state = 'dead'")
            await job_moves.rescue(conn)
        case "resumed":
            await set_status(conn, run.id, "waiting")
            await job_moves.resume(conn, job_id=run.id)


async def set_status(conn: Connection, job_id: str, status: str) -> None:
    await conn.execute(
        """
        update enrichment_jobs
           set status = %s, worker_id = null, scheduled_at = now() - interval '1 s'
         where id = %s
        """,
        [status, job_id],
    )


async def test_what_a_slow_transaction_put_below_the_floor_is_ranked_anew_and_claimed(conn):
    worker = await a_worker(conn)
    await a_lane(conn, vtime=90, floor_rank=80)
    late = await a_job(conn, fair_rank=5, cost=3)
    fine = await a_job(conn, fair_rank=85)
    assert [run.id for run in await claim(conn, worker.id, room=5)] == [str(fine.id)]

    assert await lanes.rerank_below_floor(conn) == 1
    assert await lanes.rerank_below_floor(conn) == 0

    assert (await columns_of(conn, late.id))["fair_rank"] == 93
    assert [run.id for run in await claim(conn, worker.id, room=5)] == [str(late.id)]


async def test_the_sweep_ranks_many_of_a_workspace_one_after_another(conn):
    """A slow transaction with a whole batch of jobs does not make them all equal."""
    await a_lane(conn, vtime=90, floor_rank=80)
    low = [await a_job(conn, fair_rank=rank, cost=10) for rank in (1, 2, 3)]

    await lanes.rerank_below_floor(conn)

    ranks = [(await columns_of(conn, job.id))["fair_rank"] for job in low]
    assert ranks == [100, 110, 120]
