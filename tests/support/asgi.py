"""Real ASGI servers around an application, and a driver that speaks to it without one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import uvicorn

START_S = 10.0
HOST = "127.0.0.1"


@asynccontextmanager
async def served_by(server: str, app: Any) -> AsyncIterator[int]:
    """Serve an application on a free port, with the server's own idea of lifespan."""
    serving = {"uvicorn": by_uvicorn, "hypercorn": by_hypercorn}[server]
    with socket.create_server((HOST, 0), backlog=256) as sock:
        port: int = sock.getsockname()[1]
        async with serving(app, sock):
            yield port


@asynccontextmanager
async def by_uvicorn(app: Any, sock: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(app, lifespan="auto", log_config=None, ws="none")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve([sock]))
    async with asyncio.timeout(START_S):
        while not (server.started or task.done()):  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def by_hypercorn(app: Any, sock: socket.socket) -> AsyncIterator[None]:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{sock.detach()}"]
    config.graceful_timeout = 3.0
    stopping = asyncio.Event()
    task = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stopping.wait))
    try:
        yield
    finally:
        stopping.set()
        await task


@dataclass(slots=True)
class Exchange:
    """One request by hand: what the application is told, and what it said."""

    parts: list[dict[str, Any]]
    """What `receive` gives, in order; after that it waits until `leave`."""
    said: list[dict[str, Any]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    is_broken: bool = False
    """Whether `send` fails, as with a client that is gone."""

    async def receive(self) -> dict[str, Any]:
        if self.parts:
            return self.parts.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if self.is_broken:
            raise OSError("the client is gone")
        self.said.append(dict(message))

    @property
    def status(self) -> int:
        return int(self.said[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.said[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.said[1:])

    @property
    def is_complete(self) -> bool:
        return len(self.said) > 1 and not self.said[-1].get("more_body", False)


def a_scope(method: str, target: str, **headers: str) -> dict[str, Any]:
    """Return the scope of a request; `_` in a header's name stands for `-`."""
    path, _, query = target.partition("?")
    given = [(k.replace("_", "-").lower().encode(), v.encode()) for k, v in headers.items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": given,
        "client": ("192.0.2.1", 1234),
        "server": ("example.com", 443),
    }


def body_parts(*pieces: bytes) -> list[dict[str, Any]]:
    """Return a request's body as messages."""
    whole: Sequence[bytes] = pieces or (b"",)
    return [
        {"type": "http.request", "body": piece, "more_body": number < len(whole)}
        for number, piece in enumerate(whole, 1)
    ]
