"""How long a place in the fleet stays empty, and which child is kept."""

from __future__ import annotations

import socket

import pytest

from enrichd.supervisor.child import Child
from enrichd.supervisor.openings import (
    FULL_SOON_S,
    KEEP_LAST_S,
    LAST_PAUSE_S,
    SERVED_S,
    Opening,
    Openings,
    after_death,
    after_failed_fork,
    after_growth,
)

NOW = 1_000.0


@pytest.fixture
def child():
    """Give a child that was started at NOW."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Child("worker", -1, ours, generation=0, slot=0, started=NOW)


def test_each_death_soon_after_the_start_doubles_the_pause_up_to_a_bound(child):
    pauses = []
    for _ in range(11):
        child.pause_s = after_death(child, 1, NOW + 1).pause_s
        pauses.append(child.pause_s)
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == LAST_PAUSE_S


def test_the_next_of_one_that_has_served_starts_at_once(child):
    child.pause_s = 30.0
    now = NOW + SERVED_S
    assert after_death(child, -9, now) == Opening("worker", not_before=now)


def test_one_that_left_in_order_unasked_is_never_replaced_at_once(child):
    # Its stop may be on its way to the supervisor too.
    assert after_death(child, 0, NOW + SERVED_S).pause_s == 0.25


def test_a_fork_that_fails_waits_longer_each_time():
    first = after_failed_fork(Opening("worker"), NOW)
    second = after_failed_fork(first, NOW)
    assert (first.pause_s, second.pause_s, second.not_before) == (0.1, 0.2, NOW + 0.2)


def test_a_worker_that_soon_reached_its_memory_limit_has_its_successor_kept_ever_longer(child):
    kept = []
    for _ in range(10):
        child.full_at = NOW + 1
        child.keep_s = after_growth(child).keep_s
        kept.append(child.keep_s)
    assert kept[:3] == [FULL_SOON_S, 2 * FULL_SOON_S, 4 * FULL_SOON_S]
    assert kept[-1] == KEEP_LAST_S


def test_one_that_grew_slowly_leaves_no_grudge(child):
    child.keep_s, child.full_at = 240.0, NOW + FULL_SOON_S
    assert after_growth(child) == Opening("worker")


def test_a_death_does_not_forget_how_soon_memory_ran_out(child):
    child.keep_s = 120.0
    assert after_death(child, -9, NOW + 1).keep_s == 120.0


def test_places_are_taken_when_their_time_has_come_and_new_ones_at_any_time():
    openings = Openings()
    later, due = Opening("worker", NOW + 1, 1.0), Opening("worker", NOW, 0.5)
    openings.add(later)
    openings.add(due)
    assert openings.waiting("worker", NOW) == 1
    assert openings.waiting("gateway", NOW) == 0
    assert openings.take("worker", NOW) == due
    assert openings.take("worker", NOW) == Opening("worker")
    assert openings.take("worker", NOW + 1) == later


def test_a_smaller_fleet_keeps_the_places_that_are_due_first():
    openings = Openings()
    for delay_s in (3, 1, 2):
        openings.add(Opening("worker", NOW + delay_s))
    openings.add(Opening("gateway", NOW + 9))
    openings.keep("worker", 2)
    assert sorted(openings.times()) == [NOW + 1, NOW + 2, NOW + 9]
    openings.keep("worker", -1)
    assert openings.times() == [NOW + 9]
