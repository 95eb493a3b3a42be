"""What a worker's claims look at: from the floor, or from where the last full claim began."""

from __future__ import annotations

import asyncio

import pytest

from enrichd.domain.jobs import Claimed, NewJob
from enrichd.processing import plan as plan_module
from enrichd.processing.plan import Plan
from enrichd.store import provider_state
from tests.processing.conftest import enqueue

pytestmark = pytest.mark.queue


@pytest.fixture
async def plan(queue) -> Plan:
    """Give a plan that has read its one lane, with a floor of 0."""
    await enqueue(queue, "empty")
    made = Plan()
    await made.refresh(queue.database, next_look_s=60.0)
    return made


def claimed(*ranks: int) -> list[Claimed]:
    return [Claimed(str(rank), 1, 0, "empty", "default", "-", 3, rank, "{}") for rank in ranks]


def floors(plan: Plan) -> list[int]:
    return [lane.floor for lane in plan.lines(2)]


async def test_while_claims_come_back_full_each_starts_where_the_last_one_did(plan):
    assert floors(plan) == [0]

    plan.note(2, claimed(9, 7), next_look_s=60.0, hints=plan.hints)

    assert floors(plan) == [7]


async def test_what_came_in_below_is_looked_for_before_the_lanes_count_as_empty(plan):
    floors(plan)
    plan.note(2, claimed(7, 9), next_look_s=60.0, hints=plan.hints)
    floors(plan)

    assert not plan.note(2, [], next_look_s=60.0, hints=plan.hints)
    assert not plan.is_known_empty
    assert floors(plan) == [0]
    assert plan.note(2, [], next_look_s=60.0, hints=plan.hints)
    assert plan.is_known_empty


async def test_what_came_in_below_waits_for_a_moment_only(plan, monkeypatch):
    floors(plan)
    plan.note(2, claimed(7, 9), next_look_s=60.0, hints=plan.hints)

    monkeypatch.setattr(plan, "_deep_at", 0.0)

    assert floors(plan) == [0]
    assert plan_module.DEEP_S < 1.0


async def test_a_hint_that_came_during_a_claim_is_not_lost(plan):
    floors(plan)
    hints = plan.hints
    plan.forget_empty()

    plan.note(2, [], next_look_s=60.0, hints=hints)

    assert not plan.is_known_empty


async def test_after_a_hint_there_is_one_more_look_for_jobs_without_one(plan, eventually):
    plan.forget_empty()
    floors(plan)
    plan.note_empty(next_look_s=60.0, hints=plan.hints)
    assert plan.pause_s() <= plan_module.SETTLED_AFTER_S

    await eventually(lambda: has_settled(plan))
    floors(plan)
    plan.note_empty(next_look_s=60.0, hints=plan.hints)

    assert plan.pause_s() > 59.0


async def test_a_claim_sent_before_a_hint_settled_is_not_the_one_after(plan, eventually):
    plan.forget_empty()
    floors(plan)

    await eventually(lambda: has_settled(plan))
    plan.note_empty(next_look_s=60.0, hints=plan.hints)

    assert not plan.is_known_empty


async def test_a_hint_that_comes_while_the_lanes_are_read_has_them_read_again(queue):
    plan = Plan()
    reading = asyncio.create_task(plan.refresh(queue.database, next_look_s=60.0))
    await asyncio.sleep(0)
    plan.forget_empty()
    await reading
    await enqueue(queue, "empty")

    await plan.refresh(queue.database, next_look_s=60.0)

    assert floors(plan) == [0]


async def has_settled(plan: Plan) -> bool:
    return asyncio.get_running_loop().time() >= plan._settled_at


# A lane with a cap


class Worker:
    """Whoever holds jobs of the lane `hunter`."""

    def __init__(self) -> None:
        self.held = 0

    def lanes(self) -> list[str]:
        return ["hunter"] * self.held


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def capped(queue, conn, worker) -> Plan:
    """Give a plan that has read lanes with jobs of priorities 1, 3 and 5, of which hunter may run
    four at once.
    """
    for lane in ("hunter", "free"):
        for priority in (1, 3, 5):
            job = NewJob("empty", {}, provider_id=lane, priority=priority)
            await queue.enqueue_many([job] * 9)
    await provider_state.set_inflight_cap(conn, credential="hunter", cap=4)
    made = Plan(holding=worker.lanes)
    await made.refresh(queue.database, next_look_s=60.0)
    return made


def quotas(plan: Plan, room: int = 10) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for lane in plan.lines(room):
        found.setdefault(lane.provider_id, []).append((lane.priority, lane.quota))
    return found


def of_hunter(count: int) -> list[Claimed]:
    return [
        Claimed(str(rank), 1, 0, "empty", "default", "hunter", 1, rank, "{}")
        for rank in range(count)
    ]


async def test_the_priorities_of_a_capped_lane_share_its_cap(capped):
    assert quotas(capped) == {
        "free": [(1, 10), (3, 10), (5, 10)],
        "hunter": [(1, 2), (3, 1), (5, 1)],
    }
    assert quotas(capped, room=1)["hunter"] == [(1, 1)]


async def test_what_the_worker_began_since_counts_at_once(capped, worker):
    worker.held = 3
    assert quotas(capped)["hunter"] == [(1, 1)]

    worker.held = 4
    assert "hunter" not in quotas(capped)

    worker.held = 2
    assert sum(quota for _, quota in quotas(capped)["hunter"]) == 2


async def test_a_lane_at_its_cap_is_not_taken_for_empty(capped, worker):
    quotas(capped)
    worker.held = 4

    assert not capped.note(10, of_hunter(4), next_look_s=60.0, hints=capped.hints)

    assert capped.is_known_empty
    assert capped.pause_s() < 2.0


async def test_its_next_job_is_claimed_as_soon_as_one_has_ended(capped, worker):
    quotas(capped)
    worker.held = 4
    capped.note(10, of_hunter(4), next_look_s=60.0, hints=capped.hints)

    worker.held = 3
    capped.note_freed()

    assert not capped.is_known_empty
    assert quotas(capped)["hunter"] == [(1, 1)]


async def test_where_nothing_is_held_back_the_end_of_a_job_is_no_reason_to_look(plan):
    floors(plan)
    plan.note(2, [], next_look_s=60.0, hints=plan.hints)

    plan.note_freed()

    assert plan.is_known_empty
