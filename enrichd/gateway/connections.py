"""Limits on connections that aiohttp does not have: how many, and how slow.

A connection is *idle* until a request's line and headers are whole, and again after the answer. An
idle one is closed when it stays so for too long, which is also what ends a client that sends its
headers drop by drop. When all places are taken, the connection idle for longest makes room for the
new one: a crowd of silent connections cannot lock the health probe out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler

from enrichd import metrics

CONNECTIONS_MAX = 2_048
KEEPALIVE_S = 15.0
HEADERS_S = 10.0
TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 21\r\n"
    b"Retry-After: 1\r\n"
    b"Connection: close\r\n\r\n"
    b"too many connections\n"
)


class Guard:
    """Makes a server's connections, and knows which of them are open and which are idle."""

    def __init__(
        self,
        server: Callable[[], asyncio.Protocol],
        *,
        connections_max: int = CONNECTIONS_MAX,
        headers_s: float = HEADERS_S,
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        self.open: set[Connection] = set()
        self.idle: dict[Connection, None] = {}
        """In the order in which they became idle."""
        self.headers_s = headers_s
        self.keepalive_s = keepalive_s
        self._server = server
        self._connections_max = connections_max

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        return Connection(self, self._server())

    def make_room(self) -> bool:
        """Say whether one more connection may be served; close an idle one for it if need be."""
        if len(self.open) < self._connections_max:
            return True
        for oldest in self.idle:
            metrics.connection_closed("evicted")
            oldest.abort()
            return True
        metrics.connection_closed("too_many")
        return False


class Connection(asyncio.Protocol):
    """Stands between a transport and aiohttp's protocol, and watches the clock."""

    def __init__(self, guard: Guard, inner: asyncio.Protocol) -> None:
        self._guard = guard
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_begun = False
        """Whether the first byte of the request to come is there."""
        self.on_lost: Callable[[], object] | None = None
        """Called once when the client is gone, for whoever writes to it seldom."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or send it away with a word."""
        two_way = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        if not self._guard.make_room():
            two_way.write(TOO_MANY)
            two_way.close()
            return
        self._transport = two_way
        self._guard.open.add(self)
        self._inner.connection_made(transport)
        self._become_idle(self._guard.headers_s)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; the first ones of a request start its clock."""
        if self._transport is None:
            return
        if self in self._guard.idle and not self._has_begun:
            self._has_begun = True
            self._start_timer(self._guard.headers_s)
        self._inner.data_received(data)

    def request_began(self) -> None:
        """Stop the clock: the headers are whole."""
        self._guard.idle.pop(self, None)
        self._stop_timer()

    def request_ended(self) -> None:
        """Start the clock for the next request; it also bounds how slowly an answer is read."""
        if self._transport is not None:
            self._become_idle(self._guard.keepalive_s)

    def abort(self) -> None:
        """Close at once, unsent bytes and all."""
        self._guard.idle.pop(self, None)
        if self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool | None:
        """Pass the client's end of file on."""
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        """Pass on that the client reads slowly."""
        if self._transport is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the client has caught up."""
        if self._transport is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        self._guard.idle.pop(self, None)
        self._guard.open.discard(self)
        if self._transport is not None:
            self._transport = None
            self._inner.connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
            self.on_lost = None

    def _become_idle(self, for_s: float) -> None:
        self._has_begun = False
        self._guard.idle.pop(self, None)
        self._guard.idle[self] = None
        self._start_timer(for_s)

    def _start_timer(self, for_s: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(for_s, self._close_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_slow(self) -> None:
        if self._has_begun:
            metrics.connection_closed("slow_request")
        self.abort()


@web.middleware
async def watch_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection when a request is whole, and when it is over."""
    connection = connection_of(request)
    if connection is None:
        return await handler(request)
    connection.request_began()
    try:
        return await handler(request)
    finally:
        connection.request_ended()


def connection_of(request: web.Request) -> Connection | None:
    """Return the connection of a request, None if it is lost or not watched."""
    transport = request.transport
    connection = transport.get_protocol() if transport is not None else None
    return connection if isinstance(connection, Connection) else None
