"""Answers that break the contract, one function each; `FakeProvider.script` takes them.

`hostile` leaves the shape as it is and puts one bad value into every place; the others replace the
answer or the connection.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web

from tests.support.providers.server import FakeProvider, Fault, Reply

FLOOD_BYTES: Final = 50_000_000

HOSTILE: Final[Mapping[str, bytes]] = {
    "nul": b'"a\\u0000b"',
    "surrogate": b'"\\ud800 half"',
    "digits": b"9" * 5_000,
    "minus-digits": b"-" + b"9" * 5_000,
    "exponent": b"1e999",
    "nan": b"NaN",
    "infinity": b"-Infinity",
    "deep-list": b"[" * 10_000 + b"]" * 10_000,
    "deep-object": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "html": b'"<script>alert(1)</script><b>Ada</b>"',
    "escapes": b'"\\u001b[2J\\u001b]0;owned\\u0007Ada"',
    "bidi": b'"\\u202eadA\\u2066"',
    "long": b'"' + b"x" * 100_000 + b'"',
    "empty": b'""',
    "null": b"null",
    "true": b"true",
    "zero": b"0",
    "fraction": b"-0.5",
    "list": b"[]",
    "object": b"{}",
    "list-of-null": b"[null,[],{},1]",
    "object-of-null": b'{"name":null,"handle":{},"domain":[1]}',
    "sql": b'"\'; drop table enrichment_jobs; --"',
}
"""Raw JSON for one value each (some of it no JSON at all), by what is bad about it."""

_MARK: Final = "\x1fhostile\x1f"


def status(code: int, body: Any = b"", **headers: str) -> Fault:
    """Answer with a status; `_` in a header's name is a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _always(Reply(code, body, named))


def raw(body: bytes, *, code: int = 200, content_type: str = "application/json") -> Fault:
    """Answer with a body as it is."""
    return _always(Reply(code, body, content_type=content_type))


def garbage() -> Fault:
    """Answer with what is no JSON, and says it is."""
    return raw(b"\x00\x01\x02 <<not json>> \x1b[31m")


def html() -> Fault:
    """Answer as a proxy on the way does."""
    return raw(b"<html><body>502 Bad Gateway</body></html>", content_type="text/html")


def not_utf8() -> Fault:
    """Answer with JSON whose text is Latin-1."""
    return raw('{"data": {"first_name": "Zoë"}}'.encode("latin-1"))


def flood(size_bytes: int = FLOOD_BYTES) -> Fault:
    """Answer with a body that is far too large, until the caller hangs up."""

    async def answer(fake: FakeProvider, request: web.Request, _: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        chunk = b" " * 65_536
        try:
            for _ in range(size_bytes // len(chunk)):
                await response.write(chunk)
            await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            pass
        return response

    return answer


def never() -> Fault:
    """Take the question and never answer."""

    async def answer(fake: FakeProvider, request: web.Request, _: Any) -> web.StreamResponse:
        await fake.closing.wait()
        return web.Response(status=503)

    return answer


def drip(every_s: float = 0.05) -> Fault:
    """Answer with a byte at a time, without an end."""

    async def answer(fake: FakeProvider, request: web.Request, _: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while not fake.closing.is_set():
            try:
                await response.write(b" ")
                async with asyncio.timeout(every_s):
                    await fake.closing.wait()
            except TimeoutError:
                continue
            except ConnectionError:
                break
        return response

    return answer


def delayed(seconds: float) -> Fault:
    """Answer as always, later."""

    async def answer(
        fake: FakeProvider, request: web.Request, regular: Callable[[], Awaitable[Reply]]
    ) -> Reply:
        reply = await regular()
        await asyncio.sleep(seconds)
        return reply

    return answer


def held(until: asyncio.Event) -> Fault:
    """Answer as always, once a test says so."""

    async def answer(
        fake: FakeProvider, request: web.Request, regular: Callable[[], Awaitable[Reply]]
    ) -> Reply:
        reply = await regular()
        await until.wait()
        return reply

    return answer


def truncated() -> Fault:
    """Answer with the first half of a body, then hang up; it is billed."""

    async def answer(
        fake: FakeProvider, request: web.Request, regular: Callable[[], Awaitable[Reply]]
    ) -> web.StreamResponse:
        reply = await regular()
        body = reply.raw()
        headers = {"Content-Type": reply.content_type, "Content-Length": str(len(body))}
        response = web.StreamResponse(status=reply.status, headers=headers)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        _hang_up(request)
        return response

    return answer


def cut_json() -> Fault:
    """Answer with the first half of a body as if that were all; it is billed."""

    async def answer(
        fake: FakeProvider, request: web.Request, regular: Callable[[], Awaitable[Reply]]
    ) -> Reply:
        reply = await regular()
        body = reply.raw()
        return Reply(reply.status, body[: len(body) // 2], reply.headers)

    return answer


def reset(*, is_billed: bool = False) -> Fault:
    """Reset the connection in the place of an answer; if it is billed, the work was done."""

    async def answer(
        fake: FakeProvider, request: web.Request, regular: Callable[[], Awaitable[Reply]]
    ) -> web.StreamResponse:
        if is_billed:
            await regular()
        _hang_up(request)
        return web.Response()

    return answer


def hostile(kind: str) -> Fault:
    """Answer as always, with one value of HOSTILE in the place of every text, number and flag."""

    async def answer(
        fake: FakeProvider, request: web.Request, regular: Callable[[], Awaitable[Reply]]
    ) -> Reply:
        reply = await regular()
        shape = json.dumps(_marked(json.loads(reply.raw() or b"null")))
        body = shape.encode().replace(json.dumps(_MARK).encode(), HOSTILE[kind])
        return Reply(reply.status, body, reply.headers)

    return answer


def dumped(value: Any) -> bytes:
    """Return any value as a body, NaN and all."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _always(reply: Reply) -> Fault:
    async def answer(fake: FakeProvider, request: web.Request, _: Any) -> Reply:
        return reply

    return answer


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _marked(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_marked(part) for part in value]
    return _MARK


def _hang_up(request: web.Request) -> None:
    transport = request.transport
    if transport is None:
        return
    # Lingering for zero seconds makes it a reset, not an end.
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
