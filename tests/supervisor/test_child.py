"""Forked children: what they inherit, how they end, what the supervisor reads from them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from enrichd.supervisor.child import LINE_BYTES_MAX, Child
from tests.e2e.daemon import ROOT

# In a process of its own: a fork of the test runner would run the runner's exit handlers.
SCRIPT = """
import os, signal, socket, sys, time
from enrichd.supervisor.child import ChildSpec, fork

def start(run, inherited=()):
    options = {"generation": 0, "slot": 3, "inherited": inherited, "leave_within_s": 60.0}
    return fork(ChildSpec("worker", run), **options)

def end_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])

def fail(link, slot):
    raise RuntimeError("on purpose")

def leave(code):
    def run(link, slot):
        sys.exit(code)
    return run

"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script after the definitions above."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )


@pytest.mark.parametrize(
    ("run_of_child", "code"),
    [
        ("lambda link, slot: 5", 5),
        ("lambda link, slot: slot", 3),
        ("leave(7)", 7),
        ("leave(None)", 0),
        ("leave('a message')", 70),
        ("fail", 70),
    ],
)
def test_a_child_ends_with_the_code_of_its_run(run_of_child, code):
    assert run(f"print(end_of(start({run_of_child})))").stdout.strip() == str(code)


def test_a_child_that_raises_shows_its_traceback_and_runs_no_exit_handler_of_its_parent():
    done = run("import atexit; atexit.register(print, 'bye'); end_of(start(fail))")
    assert "RuntimeError: on purpose" in done.stderr
    assert done.stdout == "bye\n"


def test_a_child_starts_with_no_handler_of_its_parent_and_no_signal_blocked():
    script = """
signal.signal(signal.SIGTERM, lambda *_: None)
a, b = socket.socketpair()
b.setblocking(False)
signal.set_wakeup_fd(b.fileno())
def show(link, slot):
    states = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)]
    print(states == [signal.SIG_DFL, signal.SIG_IGN], signal.pthread_sigmask(signal.SIG_BLOCK, []))
    print(signal.set_wakeup_fd(-1), flush=True)
    return 0
end_of(start(show))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    assert run(script).stdout.splitlines() == ["True set()", "-1", "set()"]


def test_a_child_holds_no_end_of_its_siblings_links():
    script = """
def wait(link, slot):
    link.recv(1)
    return 0
first = start(wait)
second = start(wait, inherited=[first.link])
first.link.close()  # Were it open in the second, the first would wait for ever.
print(end_of(first))
second.link.close()
print(end_of(second))
"""
    assert run(script).stdout.split() == ["0", "0"]


@pytest.fixture
def linked():
    """Give a child (of no process) and the other end of its link."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield Child("worker", -1, ours, generation=0, slot=0), theirs


def test_lines_are_put_together_from_pieces(linked):
    child, theirs = linked
    assert child.lines() == []
    theirs.send(b"re")
    assert child.lines() == []
    theirs.send(b"ady\nid 7\nid")
    assert child.lines() == ["ready", "id 7"]
    theirs.close()
    assert child.lines() is None


def test_a_line_that_never_ends_is_not_kept(linked):
    child, theirs = linked
    for _ in range(20):
        theirs.send(b"x" * 10_000)
        child.lines()
    assert len(child.unread) <= LINE_BYTES_MAX


def test_saying_something_to_a_child_that_does_not_read_blocks_nobody(linked):
    child, _ = linked
    for _ in range(100_000):
        child.say("tick")


def test_a_signal_to_a_child_that_is_gone_is_no_error():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Child("worker", done.pid, ours, generation=0, slot=0).signal(signal.SIGTERM)
