"""A child's end of its link to the supervisor.

The link is a socket pair of text lines. A line from the event loop itself each second says that the
loop turns; silence means that it hangs. End of file means that the supervisor died, so the child
drains and leaves.

Child to supervisor: `.` alive · `ready` · `id UUID` (a worker's row) · `idle` / `busy` ·
`wake N` (the housekeeper: wake N idle workers) · `load AGE_S USE` (the housekeeper: age of the
oldest ready job, share of slots in use) · `recycle REASON` (a worker asks for a fresh one
in its place, each second). Supervisor to child: `tick` · `wake`, `retire` and `stop_now` (to a
worker) · `dead UUID` and `idle N` (to the housekeeper) · `draining` (to the gateway).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

BEAT_S = 1.0
LINE_BYTES_MAX = 4096


class Link:
    """Says and hears lines inside an event loop. Without a socket (`None`) it is silent."""

    def __init__(
        self,
        sock: socket.socket | None,
        *,
        on_line: Callable[[str], None],
        on_parent_death: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._on_line = on_line
        self._on_parent_death = on_parent_death
        self._unread = b""
        if sock is not None:
            sock.setblocking(False)
            asyncio.get_running_loop().add_reader(sock.fileno(), self._read)

    def say(self, line: str) -> None:
        """Send a line. A supervisor too busy to read loses it; one that died is noticed by EOF."""
        if self._sock is not None:
            try:
                self._sock.send(line.encode() + b"\n")
            except OSError:
                return

    async def beat(self) -> None:
        """Say that the loop turns, each second, until cancelled."""
        while True:
            self.say(".")
            await asyncio.sleep(BEAT_S)

    def close(self) -> None:
        """Listen no more; the socket stays open, because closing it says that we died."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())

    def _read(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            # Left in place, the reader of a socket at its end would be called without pause.
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._on_parent_death()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        self._unread = self._unread[-LINE_BYTES_MAX:]
        for line in lines:
            self._on_line(line.decode(errors="replace"))
