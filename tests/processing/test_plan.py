"""What a worker's claims look at: from the floor, or from where the last full claim began."""

from __future__ import annotations

import pytest

from enrichd.domain.jobs import Claimed
from enrichd.processing import plan as plan_module
from enrichd.processing.plan import Plan
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
