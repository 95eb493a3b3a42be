"""Signals as something to read: they wake the supervisor's `select` and interrupt nothing."""

from __future__ import annotations

import signal
import socket

from enrichd.supervisor.child import SIGNALS


class SignalInbox:
    """Catches signals from now on; `read` returns those that came."""

    def __init__(self) -> None:
        self.sock, self._written_to = socket.socketpair()
        self.sockets = (self.sock, self._written_to)
        """What a child has to close."""
        for sock in self.sockets:
            sock.setblocking(False)
        signal.set_wakeup_fd(self._written_to.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)

    def close(self) -> None:
        """Catch signals no more; they do nothing from then on, a late one must not cut the end."""
        signal.set_wakeup_fd(-1)
        for sock in self.sockets:
            sock.close()

    def read(self) -> list[signal.Signals]:
        """Return the signals since the last call."""
        try:
            return [signal.Signals(number) for number in self.sock.recv(4096)]
        except BlockingIOError:
            return []
