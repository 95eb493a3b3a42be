"""The HTTP server around the routes: limits, headers, counting, and listening."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web, web_response
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler

from enrichd import metrics
from enrichd.api.bodies import HEADERS, refused
from enrichd.errors import InvalidSetting
from enrichd.gateway.connections import KEEPALIVE_S, Guard, watch_requests
from enrichd.logs import get_logger

BODY_BYTES_MAX = 1 << 20
LINE_BYTES_MAX = 8190
HEADERS_MAX = 128
# How long answers that are under way may take once the gateway stops.
STOP_S = 5.0
BACKLOG = 128
PORT_RETRY_S = 0.2
HANDSHAKE_S = 10.0
HSTS = "max-age=31536000"

ROUTE = "enrichd_route"
"""Where a handler of many routes leaves the template of the one that it was."""

log = get_logger("gateway")


def application(routes: Iterable[web.RouteDef]) -> web.Application:
    """Return the application of these routes."""
    app = web.Application(
        middlewares=[watch_requests, count_requests], client_max_size=BODY_BYTES_MAX
    )
    app.add_routes(list(routes))
    app.on_response_prepare.append(add_headers)
    return app


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Have every answer say how it may be used; a route's own word counts more."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


async def add_hsts(_: web.Request, response: web.StreamResponse) -> None:
    """Have browsers that came by HTTPS come by it again."""
    response.headers.setdefault("Strict-Transport-Security", HSTS)


@web.middleware
async def count_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count each answer by its route; an error nobody expected is logged here, with its route."""
    clock = asyncio.get_running_loop().time
    began = clock()
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    status = 500
    try:
        response = await handler(request)
        status = response.status
    except web.HTTPException as error:
        status = error.status
        raise
    except Exception as error:
        log.error("request_broke", route=route, exc_info=error)
        return web.json_response({"status": "error", "output": "enrichd has a bug"}, status=500)
    finally:
        route = request.match_info.get(ROUTE, route)
        metrics.request_served(route, status, clock() - began)
    return response


@asynccontextmanager
async def serving(
    app: web.Application,
    host: str,
    port: int,
    *,
    patience_s: float = 0.0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[list[int]]:
    """Serve inside the block and give the ports; raises InvalidSetting if that cannot be.

    A port that another program uses is tried again for `patience_s`. At the end of the block no new
    connection is taken, and answers under way get a few seconds.
    """
    hide_versions()
    if tls is not None:
        app.on_response_prepare.append(add_hsts)
    # What aiohttp logs itself is about malformed requests: anybody could fill the disk with it.
    quiet = logging.getLogger("enrichd.gateway.requests")
    quiet.setLevel(logging.CRITICAL)
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=quiet,
        shutdown_timeout=STOP_S,
        keepalive_timeout=KEEPALIVE_S,
        max_line_size=LINE_BYTES_MAX,
        max_field_size=LINE_BYTES_MAX,
        max_headers=HEADERS_MAX,
        lingering_time=2.0,
    )
    await runner.setup()
    try:
        assert runner.server is not None
        server = await listen(Guard(runner.server), host, port, patience_s=patience_s, tls=tls)
        try:
            names = [sock.getsockname() for sock in server.sockets]
            log.info("gateway_listening", addresses=[f"{name[0]} port {name[1]}" for name in names])
            yield [name[1] for name in names]
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def listen(
    guard: Guard, host: str, port: int, *, patience_s: float, tls: ssl.SSLContext | None
) -> asyncio.Server:
    """Take the port. Raises InvalidSetting that says why it is not to be had."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    has_warned = False
    while True:
        try:
            return await loop.create_server(
                guard,
                host,
                port,
                backlog=BACKLOG,
                reuse_address=True,
                ssl=tls,
                ssl_handshake_timeout=HANDSHAKE_S if tls is not None else None,
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE or loop.time() >= deadline:
                raise InvalidSetting(
                    f"HEALTH_CHECK_HOST and HEALTH_CHECK_PORT: cannot listen on {host}"
                    f" port {port}: {why_not(error)}",
                    hint="Stop what uses the port, or set HEALTH_CHECK_PORT to a free one.",
                ) from error
        if not has_warned:
            has_warned = True
            log.warning("gateway_waits_for_port", port=port, wait_s=patience_s)
        await asyncio.sleep(PORT_RETRY_S)


def why_not(error: OSError) -> str:
    """Return in words why listening failed."""
    if isinstance(error, socket.gaierror):
        return "the host has no such name"
    match error.errno:
        case errno.EADDRINUSE:
            return "another program uses the port"
        case errno.EACCES:
            return "this user may not use the port"
        case errno.EADDRNOTAVAIL:
            return "this host does not have the address"
        case _:
            return error.strerror or str(error)


def broken_request(
    handler: RequestHandler,
    request: web.BaseRequest,
    status: int = 500,
    exc: BaseException | None = None,
    message: str | None = None,
) -> web.StreamResponse:
    """Answer what is no request, in place of aiohttp's own words: those show its internals."""
    if request.writer.output_size > 0:
        raise ConnectionError("the answer had begun")
    if status >= 500:
        log.error("request_broke", route="none", exc_info=exc)
        refusal = refused(500, "internal_error", "enrichd has a bug.")
    else:
        refusal = refused(status, "broken_request", "This is no request that can be read.")
    answer = web.Response(status=status, body=refusal.body, headers={**HEADERS, **refusal.headers})
    answer.force_close()
    return answer


def hide_versions() -> None:
    """Let no answer tell Python's and aiohttp's versions, and none its innards.

    The name is set for the whole library, because answers to malformed requests pass no hook.
    """
    vars(web_response)["SERVER_SOFTWARE"] = "enrichd"
    RequestHandler.handle_error = broken_request  # type: ignore[method-assign,assignment]
