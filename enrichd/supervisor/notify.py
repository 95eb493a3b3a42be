"""Readiness and state, told to the process manager that started us: systemd or PM2."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping


class Notifier:
    """Speaks to `NOTIFY_SOCKET` (systemd) and `NODE_CHANNEL_FD` (PM2), or to nobody.

    The variables are taken out of the environment, so that no child speaks for us.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        path = environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        channel = environ.pop("NODE_CHANNEL_FD", "")
        self._channel = int(channel) if channel.isdigit() else None
        watchdog_pid = environ.pop("WATCHDOG_PID", "")
        watchdog_usec = environ.pop("WATCHDOG_USEC", "")
        is_ours = watchdog_pid in ("", str(os.getpid()))
        self.watchdog_s = (
            int(watchdog_usec) / 1_000_000 if is_ours and watchdog_usec.isdigit() else None
        )
        """Seconds within which systemd wants to hear `WATCHDOG=1`; None when it does not."""

    def say(self, *lines: str) -> None:
        """Send state lines to systemd: `READY=1`, `STATUS=…`. Nobody listening is fine."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return

    def ready(self, status: str) -> None:
        """Say that the service is up, to whoever waits for it."""
        self.say("READY=1", f"STATUS={status}")
        if self._channel is not None:
            # PM2 waits for this JSON text on the channel that Node opens to its children.
            with contextlib.suppress(OSError):
                os.write(self._channel, b'"ready"\n')
            self._channel = None
