"""The end of a child that its supervisor has left behind.

A child drains and leaves by itself when its supervisor is gone, if its event loop turns. One that
is blocked for ever has nobody left who would kill it, so a thread waits beside the loop for the end
of the link and then sets faulthandler's timer, which needs neither the loop nor the interpreter's
lock: it writes all stacks to stderr and ends the process.

The thread needs that lock once, for a moment: a loop in Python and any call that waits (a sleep, a
socket, a lock) leave it that. Code in C that computes for ever without letting go of the lock (a
regular expression that runs away) keeps the timer from being set; such a process has to be killed
by hand, or by systemd.
"""

from __future__ import annotations

import faulthandler
import select
import signal
import socket
import threading


def end_when_abandoned(link: socket.socket, *, within_s: float) -> None:
    """Have this process end within `within_s` of its supervisor's death, whatever it does then."""
    threading.Thread(
        # A copy: the link's reader takes its own descriptor away when it sees the end of file.
        target=wait_for_parents_end,
        args=(link.dup(), within_s),
        name="abandoned",
        daemon=True,
    ).start()


def wait_for_parents_end(link: socket.socket, within_s: float) -> None:
    """Wait until the other end of the link is closed, then set the timer."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    poll = select.poll()
    poll.register(link, 0)  # Only the hang-up: what is said on the link is the event loop's.
    poll.poll()
    faulthandler.dump_traceback_later(within_s, exit=True)
