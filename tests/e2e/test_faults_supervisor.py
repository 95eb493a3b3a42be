"""The supervisor killed, told to stop in every way, reloaded, resized and badly configured."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.request

import pytest

from tests.e2e.daemon import parent_of_each, wait_for


def a_free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def test_workers_of_a_killed_supervisor_drain_and_a_new_daemon_does_not_fight_them(daemon):
    with daemon(HEALTH_CHECK_PORT=a_free_port()) as running:
        accepted = running.enqueue("nap", 4, seconds=1.5)
        running.wait_until_started(4)
        orphans = [pid for pid in running.processes() if pid != running.process.pid]
        running.process.kill()
        running.process.wait()
        running.start()  # As systemd does, at once; on the same port.
        running.wait_for_event("supervisor_ready", count=2)

        assert running.wait_until_done() == {"completed": 4}
        wait_for(lambda: not set(orphans) & set(running.processes()), what=running.log_text)
        assert [running.outcomes(job_id) for job_id in accepted] == [["completed"]] * 4
        assert len(running.children()) == 3
        running.assert_sound(accepted)


def test_sigterm_lets_short_jobs_finish_and_gives_long_ones_back(daemon):
    with daemon(GRACEFUL_SHUTDOWN_TIMEOUT="1500") as running:
        short = running.enqueue("nap", 2, seconds=0.7)
        long = running.enqueue("nap", 2, seconds=60)
        running.wait_until_started(4)
        told_at = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - told_at < 1.5 + 1.5

        assert [running.outcomes(job_id) for job_id in short] == [["completed"]] * 2
        assert [running.outcomes(job_id) for job_id in long] == [["released"]] * 2
        refunded = running.query(
            "select distinct status, attempts, worker_id from enrichment_jobs where completed_at"
            " is null"
        )
        assert refunded == [("pending", 0, None)]
        assert running.query("select count(*) from enrichment_workers") == [(0,)]
        running.assert_sound([*short, *long])


@pytest.mark.parametrize(
    "orders",
    [[signal.SIGTERM, signal.SIGTERM], [signal.SIGINT, signal.SIGTERM], [signal.SIGQUIT]],
    ids=["TERM TERM", "INT TERM", "QUIT"],
)
def test_a_second_order_to_stop_gives_everything_back_at_once(daemon, orders):
    with daemon(GRACEFUL_SHUTDOWN_TIMEOUT="60000", WORKER_COUNT="2") as running:
        accepted = running.enqueue("nap", 6, seconds=60)
        running.wait_until_started(6)
        told_at = time.monotonic()
        for count, order in enumerate(orders, 1):
            running.process.send_signal(order)
            if count == 1 and len(orders) > 1:
                running.wait_for_event("supervisor_stops")
        assert running.ended() == 0
        assert time.monotonic() - told_at < 3.0
        assert running.statuses() == {"pending": 6}
        assert running.outcomes(accepted[0]) == ["released"]
        assert running.events("child_killed") == []
        running.assert_sound(accepted)


def test_five_sigterms_to_a_daemon_without_work_are_one_stop(daemon):
    with daemon(WORKER_COUNT="2") as running:
        for _ in range(5):
            running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 0
        assert len(running.events("supervisor_stops")) == 1
        assert running.events("child_died") == []


def test_sigterm_to_the_whole_group_lets_short_jobs_finish(daemon):
    # systemd with KillMode=control-group, `kill -- -GROUP`, a container's stop.
    with daemon() as running:
        accepted = running.enqueue("nap", 4, seconds=1.0)
        running.wait_until_started(4)
        os.killpg(running.process.pid, signal.SIGTERM)
        assert running.ended() == 0
        assert running.statuses() == {"completed": 4}
        running.assert_sound(accepted)


def test_a_hangup_of_the_whole_group_harms_no_job(daemon):
    with daemon() as running:
        accepted = running.enqueue("nap", 4, seconds=0.5)
        running.wait_until_started(4)
        os.killpg(running.process.pid, signal.SIGHUP)
        running.wait_for_event("reload_done")
        assert running.wait_until_done() == {"completed": 4}
        assert running.query("select max(attempts) from enrichment_jobs") == [(1,)]
        running.assert_sound(accepted)


def test_a_reload_replaces_workers_one_by_one_and_takes_the_new_configuration(daemon):
    made = daemon()
    del made.environ["MAX_CONCURRENT_JOBS"], made.environ["WORKER_COUNT"]
    (made.folder / ".env").write_text("MAX_CONCURRENT_JOBS=2\nWORKER_COUNT=3\n")
    with made as running:
        before = set(running.children())
        accepted = running.enqueue("nap", 150, seconds=0.1)
        (made.folder / ".env").write_text("MAX_CONCURRENT_JOBS=7\nWORKER_COUNT=2\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for_event("reload_done")

        assert running.wait_until_done() == {"completed": 150}
        wait_for(lambda: not set(before) & set(running.children()), what=running.children)
        wait_for(lambda: len(running.workers()) == 2, what=running.children)
        assert running.query("select distinct concurrency from enrichment_workers") == [(7,)]
        assert running.query("select max(attempts) from enrichment_jobs") == [(1,)]
        running.assert_sound(accepted)


def test_a_reload_never_leaves_fewer_workers_than_configured(daemon):
    with daemon(WORKER_COUNT="2") as running:
        running.process.send_signal(signal.SIGHUP)
        fewest = 2

        def is_done() -> bool:
            nonlocal fewest
            fewest = min(fewest, len(running.workers()))
            return bool(running.events("reload_done"))

        wait_for(is_done)
        assert fewest == 2


def test_a_reload_with_a_wrong_value_is_refused_and_says_which(daemon):
    with daemon() as running:
        before = set(running.children())
        (running.folder / ".env").write_text("JOB_TIMEOUT=soon\n")
        running.process.send_signal(signal.SIGHUP)
        refused = running.wait_for_event("reload_refused")
        assert "JOB_TIMEOUT" in refused["reason"]
        assert "soon" in refused["reason"]

        accepted = running.enqueue("nap", 3, seconds=0.01)
        assert running.wait_until_done() == {"completed": 3}
        assert set(running.children()) == before
        running.assert_sound(accepted)


def test_a_reload_during_a_stop_does_nothing(daemon):
    with daemon() as running:
        accepted = running.enqueue("nap", 2, seconds=0.8)
        running.wait_until_started(2)
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_event("supervisor_stops")
        running.process.send_signal(signal.SIGHUP)
        assert running.ended() == 0
        assert running.events("reload_started") == []
        assert running.statuses() == {"completed": 2}
        running.assert_sound(accepted)


def test_ttin_adds_a_worker_and_ttou_takes_one_but_not_the_last(daemon):
    with daemon() as running:
        running.process.send_signal(signal.SIGTTIN)
        wait_for(lambda: len(running.workers()) == 2, what=running.children)
        accepted = running.enqueue("nap", 8, seconds=0.4)
        running.wait_until_started(8)
        for _ in range(3):
            asked = len(running.events("worker_taken"))
            running.process.send_signal(signal.SIGTTOU)
            running.wait_for_event("worker_taken", count=asked + 1)
        wait_for(lambda: len(running.workers()) == 1, what=running.children)
        assert running.wait_until_done() == {"completed": 8}
        assert running.query("select max(attempts) from enrichment_jobs") == [(1,)]
        running.assert_sound(accepted)


def test_usr1_writes_the_state_of_every_child_to_the_log(daemon):
    with daemon(WORKER_COUNT="2") as running:
        running.process.send_signal(signal.SIGUSR1)
        running.wait_for_event("supervisor_state")
        states = running.events("child_state")
        assert {state["child_pid"] for state in states} == running.children().keys()
        ids = {str(row) for (row,) in running.query("select id from enrichment_workers")}
        assert {state["worker_id"] for state in states if state["role"] == "worker"} == ids


def test_workers_are_added_while_a_backlog_ages(daemon):
    with daemon(WORKER_MAX_COUNT="2", MAX_CONCURRENT_JOBS="1") as running:
        accepted = running.enqueue("nap", 20, seconds=0.6)
        running.wait_for_event("workers_scaled", 12.0)
        wait_for(lambda: len(running.workers()) == 2, what=running.children)
        wait_for(lambda: running.statuses().get("completed", 0) > 10, what=running.statuses)
        running.assert_sound(accepted)


@pytest.mark.parametrize(
    ("name", "value"),
    [("WORKER_COUNT", "many"), ("DATABASE_URL", "mysql://x"), ("ENRICHD_PLUGINS", "no.such")],
)
def test_a_wrong_setting_ends_the_start_with_78_and_its_name(daemon, name, value):
    with daemon(is_ready_awaited=False, **{name: value}) as running:
        assert running.ended() == 78
        assert name in running.log_text()
        assert "Traceback" not in running.log_text()


def test_a_port_that_stays_taken_ends_the_start_with_78_and_says_what_to_do(daemon):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        daemon(is_ready_awaited=False, HEALTH_CHECK_PORT=str(taken.getsockname()[1])) as running,
    ):
        assert running.ended() == 78
        (told,) = running.events("gateway_not_listening")
        assert (
            f"HEALTH_CHECK_PORT: cannot listen on 127.0.0.1 port {taken.getsockname()[1]}"
            in (told["reason"])
        )
        assert "set HEALTH_CHECK_PORT to a free one" in told["hint"]
        assert running.events("supervisor_ready") == []


def test_a_port_that_an_earlier_daemon_leaves_soon_is_waited_for(daemon):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        made = daemon(is_ready_awaited=False, HEALTH_CHECK_PORT=str(taken.getsockname()[1]))
        with made as running:
            running.wait_for_event("gateway_waits_for_port")
            taken.close()
            running.wait_for_event("gateway_listening")
            running.wait_for_event("supervisor_ready")
            assert running.events("child_died") == []


def test_a_stop_does_not_wait_for_the_port(daemon):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        made = daemon(is_ready_awaited=False, HEALTH_CHECK_PORT=str(taken.getsockname()[1]))
        with made as running:
            running.wait_for_event("gateway_waits_for_port")
            assert running.stop(3.0) == 0


def test_a_reload_to_a_port_that_is_taken_goes_back_to_what_worked(daemon):
    port = a_free_port()
    made = daemon(WORKER_COUNT="2")
    del made.environ["HEALTH_CHECK_PORT"]
    (made.folder / ".env").write_text(f"HEALTH_CHECK_PORT={port}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken, made as running:
        workers = running.workers()
        accepted = running.enqueue("nap", 30, seconds=0.5)
        (made.folder / ".env").write_text(f"HEALTH_CHECK_PORT={taken.getsockname()[1]}\n")
        running.process.send_signal(signal.SIGHUP)

        assert running.wait_for_event("reload_failed", 15.0)["role"] == "gateway"
        running.wait_for_event("reload_undone")
        assert running.workers() == workers
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5) as answer:
            assert answer.status == 200
        running.process.send_signal(signal.SIGUSR1)
        state = running.wait_for_event("supervisor_state")
        assert state["last_reload"] == "failed: configuration error in the gateway"
        assert running.wait_until_done() == {"completed": 30}
        running.assert_sound(accepted)


def test_a_blocked_worker_does_not_outlive_its_supervisor_for_long(daemon):
    with daemon(GRACEFUL_SHUTDOWN_TIMEOUT="500", WORKER_TIMEOUT="60000") as running:
        running.enqueue("spinning")
        running.wait_until_started()
        orphans = set(running.children())
        running.process.kill()
        wait_for(lambda: not orphans & parent_of_each().keys(), 20.0, what=running.log_text)
        assert " in spinning" in running.log_text(), "the stacks"


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_hears_of_readiness_reload_and_stop(daemon, kind, tmp_path):
    address = str(tmp_path / "notify") if kind == "path" else f"@enrichd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1))
        sock.settimeout(10.0)

        def hear(word: str) -> str:
            """Return the next datagram that holds the word; keep-alives come in between."""
            while word not in (text := sock.recv(4096).decode()):
                continue
            return text

        with daemon(NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000") as running:
            assert hear("READY=1") == "READY=1\nSTATUS=1 of 1 workers ready"
            for _ in range(3):
                began = time.monotonic()
                hear("WATCHDOG=1")
                assert time.monotonic() - began < 1.0, "within what systemd allows"
            running.process.send_signal(signal.SIGHUP)
            assert hear("RELOADING=1").startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert "READY=1" in hear("READY=1")
            running.process.send_signal(signal.SIGTERM)
            assert hear("STOPPING=1") == "STOPPING=1\nSTATUS=draining"
            assert running.ended() == 0


def test_pm2_hears_that_the_daemon_is_ready(daemon):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = daemon(NODE_CHANNEL_FD=str(theirs.fileno()), is_ready_awaited=False)
        start = made.start
        made.start = lambda: start(pass_fds=[theirs.fileno()])
        with made:
            ours.settimeout(15.0)
            assert ours.recv(100) == b'"ready"\n'
