"""Between ASGI's messages and the API's: a request is read within bounds, an answer is sent."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, TypeAlias, cast
from urllib.parse import parse_qsl

from enrichd.api.bodies import (
    ASIDE_BYTES_MIN,
    BODY_BYTES_MAX,
    BODY_S,
    GZIP_LEVEL,
    HEADERS,
    PIECE_S,
    broken_body,
    gzipped,
    is_packed,
    is_worth_packing,
    large_body,
    refused,
    slow_body,
    takes_gzip,
    vary_by_encoding,
)
from enrichd.api.messages import Answer, Request, Response, Stream
from enrichd.errors import EnrichdError
from enrichd.logs import get_logger

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

QUERY_FIELDS_MAX = 200
EVENTS_S = 240.0
WINDOW_BITS = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}

log = get_logger("api")


class Gone(Exception):
    """The client went away before its request was whole."""


async def request_of(scope: Scope, receive: Receive, address_header: str) -> Request | Response:
    """Return the API's request, or the answer to one that cannot be taken. Raises Gone."""
    headers = {text(name).lower(): text(value) for name, value in scope["headers"]}
    body = await body_of(headers, receive)
    if isinstance(body, Response):
        return body
    query: dict[str, list[str]] = {}
    try:
        fields = parse_qsl(
            text(scope.get("query_string", b"")),
            keep_blank_values=True,
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError:
        return refused(400, "broken_query", f"A query has {QUERY_FIELDS_MAX} fields at most.")
    for name, value in fields:
        query.setdefault(name, []).append(value)
    path: str = scope["path"]
    client = scope.get("client")
    return Request(
        scope["method"],
        path.removeprefix(scope.get("root_path", "")),
        query,
        headers,
        body,
        headers.get(address_header) or (str(client[0]) if client else ""),
    )


def text(given: bytes) -> str:
    """Decode what may be any bytes, without loss."""
    return given.decode("utf-8", "surrogateescape")


async def body_of(headers: dict[str, str], receive: Receive) -> bytes | Response:
    """Read a body, unpacked; or return the answer to one that is too large, slow or broken."""
    length = headers.get("content-length", "")
    if length.isascii() and length.isdecimal() and int(length[:20]) > BODY_BYTES_MAX:
        return large_body()
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", *WINDOW_BITS):
        return refused(415, "unsupported_encoding", "A body may be packed with gzip or deflate.")
    try:
        async with asyncio.timeout(BODY_S):
            body = await bounded(receive)
    except TimeoutError:
        return slow_body()
    if body is not None and body and encoding in WINDOW_BITS:
        try:
            body = unpacked(body, WINDOW_BITS[encoding])
        except zlib.error:
            return broken_body()
    return large_body() if body is None else body


async def bounded(receive: Receive) -> bytes | None:
    """Read until the end; None for too much. Raises Gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def unpacked(body: bytes, window_bits: int) -> bytes | None:
    """Unpack a body, None for one that grows too large. Raises zlib.error."""
    unpacker = zlib.decompressobj(window_bits)
    found = unpacker.decompress(body, BODY_BYTES_MAX + 1)
    if len(found) > BODY_BYTES_MAX:
        return None
    if not unpacker.eof or unpacker.unused_data:
        raise zlib.error("the body is not one whole packed document")
    return found


async def send_whole(method: str, accepted: str, answer: Response, wire: Wire) -> None:
    """Send an answer, packed where that is wanted and worth it."""
    body = answer.body
    if is_worth_packing(answer):
        vary_by_encoding(answer)
        if takes_gzip(accepted):
            answer.headers["Content-Encoding"] = "gzip"
            aside = len(body) >= ASIDE_BYTES_MIN
            body = await asyncio.to_thread(gzipped, body) if aside else gzipped(body)
    if answer.status not in (204, 304):
        answer.headers["Content-Length"] = str(len(body))
    await wire.start(answer)
    await wire.piece(b"" if method == "HEAD" else body, is_last=True)


async def send_stream(method: str, accepted: str, answer: Stream, wire: Wire) -> None:
    """Send a stream until it ends; one that breaks is never completed.

    Events are ended after EVENTS_S: a platform would cut them off with an error not much later, and
    who listens comes back and says where he was.
    """
    pieces = cast(AsyncGenerator[bytes, None], answer.pieces)
    is_events = answer.headers.get("Content-Type", "").startswith("text/event-stream")
    packer = None
    if is_packed(accepted, answer):
        answer.headers["Content-Encoding"] = "gzip"
        packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    try:
        await wire.start(answer)
        if method != "HEAD":
            with suppress(TimeoutError):
                async with asyncio.timeout(EVENTS_S if is_events else None):
                    async for piece in pieces:
                        packed = piece if packer is None else packer.compress(piece)
                        if packed:
                            await wire.piece(packed)
            if packer is not None:
                await wire.piece(packer.flush())
        await wire.piece(b"", is_last=True)
    except EnrichdError as error:
        # The status is out already: an answer that breaks off is all there is to tell by.
        log.warning("stream_broke", route=answer.route, reason=error.message)
    finally:
        await pieces.aclose()


class Wire:
    """The way back to one client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_started = False

    async def start(self, answer: Answer) -> None:
        """Send the status and the headers."""
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        answer.headers.pop("Connection", None)  # The server's own matter.
        headers = [
            (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
            for name, value in answer.headers.items()
        ]
        self.has_started = True
        await self._give(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )

    async def piece(self, body: bytes, *, is_last: bool = False) -> None:
        """Send a part of the body."""
        await self._give({"type": "http.response.body", "body": body, "more_body": not is_last})

    async def _give(self, message: Message) -> None:
        try:
            async with asyncio.timeout(PIECE_S):
                await self._send(message)
        except (OSError, TimeoutError) as error:  # the server says so, or the client reads nothing
            raise Gone from error
