"""WorkerManager with children of a few lines: deaths, silence, backoff, orders, messages."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.daemon import parent_of_each, wait_for

CONTAINER = ("--pid", "--fork", "--mount-proc")


def starts_of(supervised) -> list[float]:
    """Return when workers were started, in seconds."""
    events = supervised.events("child_started", role="worker")
    return [datetime.fromisoformat(event["timestamp"]).timestamp() for event in events]


# One that left in order may have heard a stop that the supervisor is about to hear.
@pytest.mark.parametrize(("fleet", "first_s"), [("dying", 0.1), ("leaving", 0.25)])
def test_children_that_end_at_once_are_started_again_ever_more_slowly(supervise, fleet, first_s):
    supervised = supervise(fleet)
    supervised.wait_for("child_started", count=5, role="worker")
    gaps = [after - before for before, after in pairwise(starts_of(supervised))]
    assert all(after > 1.5 * before for before, after in pairwise(gaps)), gaps
    assert gaps[0] >= first_s
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


def test_a_worker_that_dies_again_and_again_does_not_slow_the_others(supervise):
    supervised = supervise("living")
    supervised.wait_for("supervisor_ready")
    steady, unlucky = supervised.workers()
    for death in range(1, 6):
        os.kill(unlucky, signal.SIGKILL)
        if death < 5:
            supervised.wait_for("child_started", count=2 + death, role="worker")
            unlucky = supervised.workers()[-1]
    supervised.wait_for("child_died", count=5)  # Its place stays empty for 1.6 s now.
    os.kill(steady, signal.SIGKILL)
    supervised.wait_for("child_started", count=7, role="worker", within_s=1.0)
    assert len(supervised.workers()) == 1
    supervised.wait_for("child_started", count=8, role="worker", within_s=3.0)


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


def test_a_child_whose_link_another_process_holds_open_is_replaced(supervise):
    supervised = supervise("clinging")
    supervised.wait_for("child_died", reason="exit 1", within_s=4.0)
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


def test_a_worker_that_soon_grows_too_big_again_is_kept(supervise):
    supervised = supervise("growing")
    supervised.wait_for("said", text="asked ten times")
    assert len(supervised.events("child_started", role="worker")) == 2
    assert len(supervised.events("worker_memory_limit_is_low", level="error")) == 1
    assert supervised.stop() == 0


def test_no_more_workers_retire_at_once_than_there_are_to_be(supervise):
    supervised = supervise("retiring")
    supervised.wait_for("said", count=4, text="asked ten times")
    assert len(supervised.events("child_recycled")) == 2
    assert len(supervised.workers()) == 4
    assert supervised.stop() == 0


def test_a_reload_ends_the_patience_with_those_who_retire(supervise):
    supervised = supervise("retiring")
    supervised.wait_for("child_recycled", count=2)
    retiring = {event["child_pid"] for event in supervised.events("child_recycled")}
    supervised.signal(signal.SIGHUP)
    wait_for(lambda: not retiring & set(supervised.children()), what=supervised.log)


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


@pytest.fixture
def systemd(tmp_path):
    """Give systemd's socket; its address is its name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10.0)
        yield sock


@pytest.mark.parametrize("role", ["gateway", "worker"])
def test_a_reload_that_a_child_cannot_use_is_undone(supervise, systemd, role):
    supervised = supervise(f"bad {role}", NOTIFY_SOCKET=systemd.getsockname())
    supervised.wait_for("supervisor_ready")
    workers = supervised.workers()
    supervised.signal(signal.SIGHUP)

    supervised.wait_for("reload_failed", role=role, level="critical")
    supervised.wait_for("reload_undone")
    assert supervised.workers() == workers, "a working fleet is left alone"
    generations = {state["generation"] for state in states_of(supervised)}
    assert generations == {0}
    state = supervised.state()
    assert state["last_reload"] == f"failed: configuration error in the {role}"
    assert not state["is_reloading"]
    while not (told := systemd.recv(1000).decode()).startswith("READY=1\nSTATUS=2 workers,"):
        continue
    assert told.endswith(f"reload failed: configuration error in the {role}")
    assert supervised.stop() == 0


def states_of(supervised) -> list[dict]:
    """Return the state of each child, as the supervisor writes it down."""
    supervised.state()
    return supervised.events("child_state")


def test_a_configuration_error_that_comes_later_ends_nothing(supervise):
    supervised = supervise("spoiled")
    supervised.wait_for("configuration_error", count=3)
    assert supervised.process.poll() is None
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


@pytest.mark.parametrize("fleet", ["spinning", "sleeping"])
def test_a_blocked_child_ends_with_its_stacks_after_its_supervisor(supervise, fleet):
    supervised = supervise(fleet)
    supervised.wait_for("supervisor_ready")
    (child,) = supervised.children()
    supervised.process.kill()
    wait_for(lambda: child not in parent_of_each(), 3.0, what="still alive")
    assert f" in {fleet}" in supervised.log()


def test_orphans_that_the_supervisor_is_given_are_collected(supervise):
    supervised = supervise("orphaning")
    supervised.wait_for("said", text="three orphans")
    supervised.wait_for("supervisor_ready")
    wait_for(lambda: not zombies_of(supervised.process.pid), 5.0)
    # Its own children's ends are still its own to read.
    os.kill(supervised.workers()[0], signal.SIGKILL)
    supervised.wait_for("child_died", reason="SIGKILL")
    assert supervised.stop() == 0


@pytest.mark.skipif(
    subprocess.run(["unshare", *CONTAINER, "true"], capture_output=True).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="no right to make a process namespace",
)
def test_as_process_1_of_a_container_it_collects_orphans(supervise):
    supervised = supervise("container", command=["unshare", *CONTAINER])
    supervised.wait_for("said", text="three orphans")
    supervised.wait_for("supervisor_ready")
    (supervisor,) = supervised.children()
    wait_for(lambda: not zombies_of(supervisor), 5.0)
    os.kill(supervisor, signal.SIGTERM)
    assert supervised.ended() == 0


def zombies_of(pid: int) -> list[str]:
    """Return the dead and not yet collected children of a process."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = place.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and parent == str(pid):
            found.append(place.parent.name)
    return found


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
