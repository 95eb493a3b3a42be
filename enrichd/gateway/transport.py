"""aiohttp around the API: one handler for everything below /api/enrichment.

It turns a request into the API's own, with a bound on its body in bytes (after decompression) and
in time, and carries the answer back: compressed if that helps, piece by piece if it is a stream.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Iterable
from typing import cast

from aiohttp import ClientError, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from enrichd.api.application import Api
from enrichd.api.bodies import (
    ASIDE_BYTES_MIN,
    BODY_BYTES_MAX,
    BODY_S,
    PIECE_S,
    broken_body,
    gzipped,
    is_packed,
    is_worth_packing,
    large_body,
    slow_body,
    takes_gzip,
    vary_by_encoding,
)
from enrichd.api.messages import Answer, Request, Response, Stream
from enrichd.api.process import close_runs
from enrichd.api.routing import PREFIX
from enrichd.errors import EnrichdError
from enrichd.gateway.access_log import AccessLog
from enrichd.gateway.clients import client_of
from enrichd.gateway.connections import connection_of
from enrichd.gateway.server import ROUTE, application
from enrichd.logs import get_logger

log = get_logger("gateway")


class Transport:
    """Serves an Api; its streams end when its application shuts down."""

    def __init__(self, api: Api, access_log: AccessLog) -> None:
        self._api = api
        self._access_log = access_log
        self._streams: set[asyncio.Task[object]] = set()
        self._is_closing = False

    def application(self, others: Iterable[web.RouteDef] = ()) -> web.Application:
        """Return the application of the API and of other routes beside it."""
        app = application([*others, web.route("*", PREFIX + r"{rest:(/[\s\S]*)?}", self.serve)])
        app.on_shutdown.append(self._close)
        return app

    async def serve(self, incoming: web.Request) -> web.StreamResponse:
        """Answer a request."""
        began = asyncio.get_running_loop().time()
        request = await request_of(incoming)
        answer = await self._api.answer(request) if isinstance(request, Request) else request
        incoming.match_info[ROUTE] = answer.route
        try:
            if isinstance(answer, Stream):
                return await self._send_stream(incoming, answer)
            return await whole(incoming, answer)
        finally:
            self._access_log.write(incoming, answer, asyncio.get_running_loop().time() - began)

    async def _close(self, _: web.Application) -> None:
        """End every stream and bounded run, and wait for that."""
        self._is_closing = True
        for task in self._streams:
            task.cancel()
        if self._streams:
            await asyncio.wait(self._streams)
        await close_runs(self._api)

    async def _send_stream(self, incoming: web.Request, answer: Stream) -> web.StreamResponse:
        packs = is_packed(incoming.headers.get("Accept-Encoding", ""), answer)
        outgoing = web.StreamResponse(status=answer.status, headers=CIMultiDict(answer.headers))
        if packs:
            outgoing.enable_compression(web.ContentCoding.gzip)
        task = asyncio.current_task()
        assert task is not None
        connection = connection_of(incoming)
        if connection is not None:
            connection.on_lost = task.cancel
        try:
            if incoming.method != "HEAD" and not self._is_closing:
                self._streams.add(task)
                await outgoing.prepare(incoming)
                async for piece in answer.pieces:
                    async with asyncio.timeout(PIECE_S):
                        await outgoing.write(piece)
        except (ConnectionError, TimeoutError):
            # Whoever reads so slowly, or no more, gets the rest by asking again.
            if incoming.transport is not None:
                incoming.transport.abort()
        except EnrichdError as error:
            # The status is out already: an answer that breaks off is all there is to tell by.
            log.warning("stream_broke", route=answer.route, reason=error.message)
            if incoming.transport is not None:
                incoming.transport.abort()
        except asyncio.CancelledError:
            if not self._is_closing and incoming.transport is not None:
                raise
            task.uncancel()
        finally:
            if connection is not None:
                connection.on_lost = None
            self._streams.discard(task)
            await cast(AsyncGenerator[bytes, None], answer.pieces).aclose()
        return outgoing


async def request_of(incoming: web.Request) -> Request | Answer:
    """Return the API's request, or the answer to one whose body cannot be taken."""
    body = b""
    if incoming.body_exists:
        taken = await body_of(incoming)
        if not isinstance(taken, bytes):
            return taken
        body = taken
    query: dict[str, list[str]] = {}
    if incoming.query_string:
        for name, value in incoming.query.items():
            query.setdefault(name, []).append(value)
    return Request(
        incoming.method,
        incoming.path,
        query,
        {name.lower(): value for name, value in incoming.headers.items()},
        body,
        client_of(incoming),
    )


async def body_of(incoming: web.Request) -> bytes | Response:
    """Read a body, decompressed; or return the answer to one that is too large, slow or broken."""
    content = incoming.content
    try:
        if content.is_eof():  # The common case: it came together with the headers.
            body = content.read_nowait()
        else:
            async with asyncio.timeout(BODY_S):
                body = await bounded(content)
    except TimeoutError:
        return slow_body()
    except (web.RequestPayloadError, ClientError, HttpProcessingError, zlib.error):
        return broken_body()
    if len(body) > BODY_BYTES_MAX:
        return large_body()
    return body


async def bounded(content: StreamReader) -> bytes:
    """Read until the end, or until it is too much."""
    body = bytearray()
    while len(body) <= BODY_BYTES_MAX and (piece := await content.readany()):
        body += piece
    return bytes(body)


async def whole(incoming: web.Request, answer: Response) -> web.Response:
    """Return aiohttp's form of an answer, compressed where that is wanted and worth it."""
    body, headers = answer.body, answer.headers
    if is_worth_packing(answer):
        vary_by_encoding(answer)
        if takes_gzip(incoming.headers.get("Accept-Encoding", "")):
            headers["Content-Encoding"] = "gzip"
            if len(body) < ASIDE_BYTES_MIN:
                body = gzipped(body)
            else:
                body = await asyncio.to_thread(gzipped, body)
    return web.Response(status=answer.status, body=body, headers=headers)
