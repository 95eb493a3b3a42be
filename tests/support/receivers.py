"""Webhook receivers on loopback, well and badly behaved, over real HTTP.

    async with Receivers() as receivers:
        await sender.send(receivers.url("/ok"), …)
    assert [one.path for one in receivers.got] == ["/ok"]

The path says what the receiver does: `/ok`, `/slow` (answers after `slow_s`), `/hang`, `/drip` (a
body without end, a byte at a time), `/huge` (10 GB), `/redirect`, `/gone` (410), `/busy` (429 with
Retry-After), `/broken` (500), `/cut` (closes without an answer), `/bomb` (gzip), `/odd` (control
characters), or `/flaky` (`failures` times 500, then 200). What comes after, as in `/ok/7`, is free.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from enrichd.domain.addresses import parse_networks

LOOPBACK = parse_networks(["127.0.0.0/8", "::1/128"])
HUGE_BYTES = 10 * 1024**3
BOMB = gzip.compress(bytes(10_000_000))


@dataclass(frozen=True, slots=True)
class Got:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    """The loop's time."""

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receivers:
    """A server of receivers; `got` is what came, in order, and `running` how many at once."""

    def __init__(self, *, port: int = 0, slow_s: float = 0.3, failures: int = 1) -> None:
        self.got: list[Got] = []
        self.most: Counter[str] = Counter()
        """The most requests at the same time, by path."""
        self.most_at_once = 0
        self.sent_bytes = 0
        self.retry_after = "3"
        self.slow_s = slow_s
        self.failures = failures
        self.port = port
        self._running: Counter[str] = Counter()
        self._closing = asyncio.Event()
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        server = web.Server(self._answer, access_log=None)
        runner = self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024).start()
        self.port = runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        self._closing.set()
        await self._runner.cleanup()

    def release(self) -> None:
        """Answer whoever hangs or drips, now and from now on."""
        self._closing.set()

    def url(self, path: str = "/ok", *, host: str = "127.0.0.1") -> str:
        """Return the address of a receiver."""
        return f"http://{host}:{self.port}{path}"

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        at = asyncio.get_running_loop().time()
        self.got.append(Got(request.path, request.headers.copy(), body, at))
        self._running[request.path] += 1
        self.most[request.path] = max(self.most[request.path], self._running[request.path])
        self.most_at_once = max(self.most_at_once, self._running.total())
        try:
            return await self._behave(request)
        finally:
            self._running[request.path] -= 1

    async def _behave(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.path.split("/")[1]:
            case "slow":
                await asyncio.sleep(self.slow_s)
                return web.Response(text="at last")
            case "hang":
                await self._closing.wait()
                return web.Response(text="too late")
            case "drip":
                return await self._stream(request, b".", pause_s=0.05)
            case "huge":
                return await self._stream(request, b"x" * 65_536)
            case "redirect":
                return web.Response(status=302, headers={"Location": self.url("/ok/redirected")})
            case "gone":
                return web.Response(status=410, text="gone")
            case "busy":
                return web.Response(status=429, headers={"Retry-After": self.retry_after})
            case "broken":
                return web.Response(status=500, text="broken " * 1_000)
            case "flaky":
                came = sum(one.path == request.path for one in self.got)
                if came <= self.failures:
                    return web.Response(status=500, text=f"broken {came}")
                return web.Response()
            case "cut":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case "bomb":
                return web.Response(body=BOMB, headers={"Content-Encoding": "gzip"})
            case "odd":
                return web.Response(body=b"a\x00b\x1b[31mc\xff\xc2\x9bd\r\ne")
            case _:
                return web.Response(text="thanks")

    async def _stream(
        self, request: web.BaseRequest, part: bytes, *, pause_s: float = 0.0
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while self.sent_bytes < HUGE_BYTES and not self._closing.is_set():
                await response.write(part)
                self.sent_bytes += len(part)
                await asyncio.sleep(pause_s)
        except ConnectionResetError:
            pass
        return response
