"""Signals around the supervisor's loop."""

from __future__ import annotations

import subprocess
import sys

# The embedded server is stopped after the supervisor: its end is a signal, and a person who waits
# for it may press Ctrl-C again.
LATE = """
import os, signal
from enrichd.supervisor.signals import SignalInbox
inbox = SignalInbox()
os.kill(os.getpid(), signal.SIGTERM)
assert inbox.read() == [signal.SIGTERM]
inbox.close()
os.kill(os.getpid(), signal.SIGCHLD)
os.kill(os.getpid(), signal.SIGTERM)
print("ended well")
"""


def test_a_signal_after_the_end_does_nothing_and_says_nothing():
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("ended well\n", "", 0)
