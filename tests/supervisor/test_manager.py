"""WorkerManager with children of a few lines: deaths, silence, backoff, orders, messages."""

from __future__ import annotations

import os
import signal
from datetime import datetime
from itertools import pairwise

import pytest

from tests.e2e.daemon import parent_of_each, wait_for


def starts_of(supervised) -> list[float]:
    """Return when workers were started, in seconds."""
    events = supervised.events("child_started", role="worker")
    return [datetime.fromisoformat(event["timestamp"]).timestamp() for event in events]


@pytest.mark.parametrize("fleet", ["dying", "leaving"])
def test_children_that_end_at_once_are_started_again_ever_more_slowly(supervise, fleet):
    supervised = supervise(fleet)
    supervised.wait_for("child_started", count=5, role="worker")
    gaps = [after - before for before, after in pairwise(starts_of(supervised))]
    assert all(after > 1.5 * before for before, after in pairwise(gaps)), gaps
    assert gaps[0] >= 0.1
    assert supervised.stop() == 0


def test_a_killed_child_is_replaced_while_its_siblings_live(supervise):
    supervised = supervise("living")
    supervised.wait_for("supervisor_ready")
    killed = supervised.events("child_started", role="worker")[0]["child_pid"]
    others = set(supervised.children()) - {killed}
    os.kill(killed, signal.SIGKILL)

    supervised.wait_for("child_died", child_pid=killed, reason="SIGKILL", within_s=1.0)
    wait_for(lambda: len(supervised.children()) == 3, 2.0)
    assert others < set(supervised.children())
    assert supervised.stop() == 0


def test_the_housekeeper_hears_which_worker_died(supervise):
    supervised = supervise("living")
    supervised.wait_for("supervisor_ready")
    (housekeeper,) = (
        e["child_pid"] for e in supervised.events("child_started", role="housekeeper")
    )
    os.kill(supervised.events("child_started", role="worker")[0]["child_pid"], signal.SIGKILL)

    def heard() -> bool:
        told = supervised.events("said", child_pid=housekeeper)
        return any("dead w-1" in event["text"] for event in told)

    wait_for(heard, what=supervised.log)


def test_a_wake_goes_to_as_many_idle_workers_as_it_asks_for(supervise):
    supervised = supervise("idle")
    supervised.wait_for("said", text="wake")
    supervised.wait_for("said", text="idle 1")  # Said to the housekeeper after the wake.
    assert len(supervised.events("said", text="wake")) == 1


def test_a_child_that_asks_for_what_cannot_be_does_no_harm(supervise):
    supervised = supervise("gibberish")
    supervised.wait_for("supervisor_ready")
    assert supervised.events("child_died") == []
    assert supervised.stop() == 0


def test_a_silent_child_is_killed_and_replaced(supervise):
    supervised = supervise("silent")
    supervised.wait_for("child_hangs")
    supervised.wait_for("child_died", reason="SIGUSR1")  # It had not asked for its stacks yet.
    supervised.wait_for("child_started", count=2, role="worker")


def test_a_child_that_closes_its_link_and_stays_is_killed(supervise):
    supervised = supervise("deaf")
    supervised.wait_for("child_died", reason="SIGKILL", within_s=5.0)
    supervised.wait_for("child_started", count=2, role="worker")


def test_a_child_that_ignores_the_stop_is_killed_in_the_end(supervise):
    supervised = supervise("stubborn")
    supervised.wait_for("supervisor_ready")
    supervised.signal(signal.SIGQUIT)
    assert supervised.ended(8.0) == 0
    assert len(supervised.events("child_killed")) == 1


def test_a_configuration_error_of_a_child_stops_everything_with_78(supervise):
    supervised = supervise("misconfigured")
    assert supervised.ended() == 78
    assert len(supervised.events("child_started", role="worker")) == 1
    assert supervised.children() == []


def test_a_recycled_worker_is_replaced_before_it_has_left(supervise):
    supervised = supervise("recycling")
    supervised.wait_for("child_started", count=2, role="worker")
    assert supervised.events("said", text="drained") == []
    supervised.wait_for("child_left")
    assert supervised.stop() == 0


def test_workers_are_added_when_the_housekeeper_reports_a_backlog(supervise):
    supervised = supervise("pressed")
    supervised.wait_for("workers_scaled", before=1, now=2)
    wait_for(lambda: len(supervised.children()) == 3, what=supervised.log)


@pytest.mark.parametrize("fleet", ["refused", "unreadable"])
def test_a_reload_that_cannot_read_the_configuration_changes_nothing(supervise, fleet):
    supervised = supervise(fleet)
    supervised.wait_for("supervisor_ready")
    before = supervised.children()
    supervised.signal(signal.SIGHUP)
    supervised.wait_for("reload_refused")
    assert supervised.children() == before
    assert supervised.stop() == 0


def test_a_system_without_room_for_another_process_costs_no_running_one(supervise):
    supervised = supervise("crowded")
    supervised.wait_for("supervisor_ready")
    first = supervised.children()
    for _ in range(20):
        asked = len(supervised.events("worker_added"))
        supervised.signal(signal.SIGTTIN)
        supervised.wait_for("worker_added", count=asked + 1)
    supervised.wait_for("child_not_started", count=2)
    assert set(first) <= set(supervised.children())
    assert supervised.stop() == 0


def test_children_notice_the_death_of_their_supervisor(supervise):
    supervised = supervise("living")
    supervised.wait_for("supervisor_ready")
    children = supervised.children()
    assert len(children) == 3
    supervised.process.kill()
    supervised.wait_for("said", count=3, text="the parent died", within_s=2.0)
    wait_for(lambda: not set(children) & parent_of_each().keys(), 2.0)


def test_orders_to_the_supervisor_do_not_kill_a_child_that_gets_them_too(supervise):
    supervised = supervise("living")
    supervised.wait_for("supervisor_ready")
    before = supervised.children()
    for pid in before:
        for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGQUIT):
            os.kill(pid, number)
    supervised.signal(signal.SIGUSR1)
    supervised.wait_for("supervisor_state")
    assert supervised.children() == before
    assert supervised.stop() == 0
