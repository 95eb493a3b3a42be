"""What systemd and PM2 hear, over real sockets."""

from __future__ import annotations

import os
import socket

import pytest

from enrichd.supervisor.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    """Give systemd's socket and its address as NOTIFY_SOCKET has it."""
    path = str(tmp_path / "notify") if request.param == "path" else f"@enrichd-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path.replace("@", "\0", 1))
        sock.settimeout(2.0)
        yield sock, path


def test_state_lines_arrive_in_one_datagram(systemd):
    sock, path = systemd
    Notifier({"NOTIFY_SOCKET": path}).say("STOPPING=1", "STATUS=draining")
    assert sock.recv(1000) == b"STOPPING=1\nSTATUS=draining"


def test_readiness_goes_to_systemd_and_to_pm2(systemd):
    sock, path = systemd
    ours, theirs = socket.socketpair()
    with ours, theirs:
        notifier = Notifier({"NOTIFY_SOCKET": path, "NODE_CHANNEL_FD": str(theirs.fileno())})
        notifier.ready("2 of 2 workers ready")
        notifier.ready("again, after a reload")
        assert sock.recv(1000) == b"READY=1\nSTATUS=2 of 2 workers ready"
        assert ours.recv(1000) == b'"ready"\n', "once: PM2 waits for one message"


def test_the_variables_are_taken_out_so_that_no_child_speaks_for_the_daemon():
    environ = {
        "NOTIFY_SOCKET": "/nowhere",
        "NODE_CHANNEL_FD": "999",
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/root",
    }
    assert Notifier(environ).watchdog_s == 30.0
    assert environ == {"HOME": "/root"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "often"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_watchdog_of_ours_none_is_fed(environ):
    assert Notifier(dict(environ)).watchdog_s is None


@pytest.mark.parametrize(
    "environ",
    [
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "x" * 500},
        {"NOTIFY_SOCKET": "@gone"},
        {"NODE_CHANNEL_FD": "987"},
        {"NODE_CHANNEL_FD": "many"},
        {},
    ],
)
def test_nobody_who_listens_is_fine(environ):
    notifier = Notifier(dict(environ))
    notifier.say("WATCHDOG=1")
    notifier.ready("up")
