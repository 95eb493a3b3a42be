"""The whole API as an ASGI application: for Vercel and the like, and for any ASGI server.

    uvicorn enrichd.api.asgi:app

Nothing happens at import: settings are read and the API is opened at the server's start, or at the
first request where a server has none, and PostgreSQL is reached for when a request needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

from uuid_utils.compat import uuid7

from enrichd.api.application import Api
from enrichd.api.asgi_health import PATHS, SmallHealth
from enrichd.api.asgi_messages import (
    Gone,
    Receive,
    Scope,
    Send,
    Wire,
    request_of,
    send_stream,
    send_whole,
)
from enrichd.api.messages import Answer, Response, Stream
from enrichd.api.opening import opened_api
from enrichd.api.problems import problem
from enrichd.errors import EnrichdError, InvalidSetting
from enrichd.logs import configure_logs, get_logger, register_secret
from enrichd.settings import Settings

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

CONNECTIONS = 4
"""A platform runs many such processes, and each counts against PostgreSQL's or the pooler's."""

log = get_logger("api")


def application(load: Callable[[], Settings] = Settings.load, *, address_header: str = "") -> App:
    """Return an ASGI application with an API of its own.

    `address_header` names the request header in which a proxy that nobody can go around tells the
    client's address; empty: the connection's.
    """
    site = Site(load, address_header)

    # ASGI servers and Vercel tell applications apart by their signature: exactly these three.
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection. Never raises but CancelledError."""
        await site.serve(scope, receive, send)

    return app


class Site:
    """One process's API, opened when it is first wanted."""

    def __init__(self, load: Callable[[], Settings], address_header: str) -> None:
        self._load = load
        self._address_header = address_header
        self._life: Life | None = None

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        match scope["type"]:
            case "http":
                await self._answer(scope, receive, Wire(send))
            case "lifespan":
                await self._live(receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": 1000})
            case _:
                log.warning("scope_unknown", type=str(scope["type"])[:40])

    async def _live(self, receive: Receive, send: Send) -> None:
        """Open at the server's start and close at its end."""
        while True:
            match (await receive())["type"]:
                case "lifespan.startup":
                    try:
                        await self._opened()
                    except EnrichdError as error:
                        message = f"{error.message} {error.hint or ''}".strip()
                        await send({"type": "lifespan.startup.failed", "message": message})
                        return
                    await send({"type": "lifespan.startup.complete"})
                case _:
                    if self._life is not None:
                        await self._life.close()
                        self._life = None
                    await send({"type": "lifespan.shutdown.complete"})
                    return

    async def _answer(self, scope: Scope, receive: Receive, wire: Wire) -> None:
        try:
            request = await request_of(scope, receive, self._address_header)
            if isinstance(request, Response):
                answer: Answer = request
            else:
                life = await self._opened()
                if request.path in PATHS:
                    answer = await life.health.answer(request.path, request.method, life.api)
                else:
                    answer = await life.api.answer(request)
            accepted = header(scope, b"accept-encoding")
            if isinstance(answer, Stream):
                sending = send_stream(scope["method"], accepted, answer, wire)
                await until_gone(sending, receive)
            else:
                await send_whole(scope["method"], accepted, answer, wire)
        except Gone:
            log.debug("client_left")
        except Exception as error:  # noqa: BLE001 - a server must never be given one
            await self._apologize(scope, error, wire)

    async def _apologize(self, scope: Scope, error: Exception, wire: Wire) -> None:
        """Log what went wrong and tell no more than that."""
        request_id = str(uuid7())
        if isinstance(error, InvalidSetting):
            log.critical("settings_wrong", reason=error.message, hint=error.hint)
            told = problem(
                503, "misconfigured", "The log says which setting is wrong.", request_id=request_id
            )
        else:
            log.error("request_broke", request_id=request_id, exc_info=error)
            told = problem(500, "internal_error", "enrichd has a bug.", request_id=request_id)
        if wire.has_started:
            return
        try:
            await send_whole(scope["method"], "", told, wire)
        except Exception as again:  # noqa: BLE001 - there is nobody left to tell
            log.debug("client_left", reason=str(again))

    async def _opened(self) -> Life:
        """Return the open API; opened anew in another event loop. Raises InvalidSetting."""
        loop = asyncio.get_running_loop()
        if self._life is None or self._life.loop is not loop:
            self._life = Life(loop)
            self._life.begin(self._load)
        life = self._life
        try:
            await asyncio.shield(life.is_open)
        except EnrichdError:
            self._life = None
            raise
        return life


class Life:
    """The API from its opening to its closing, in a task of its own."""

    api: Api
    health: SmallHealth

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_open: asyncio.Future[None] = loop.create_future()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self, load: Callable[[], Settings]) -> None:
        """Begin to open."""
        self._task = self.loop.create_task(self._run(load))

    async def close(self) -> None:
        """Hand back what is run, close the connections."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self, load: Callable[[], Settings]) -> None:
        try:
            settings = ready(load())
        except EnrichdError as error:
            self.is_open.set_exception(error)
            return
        async with (
            asyncio.TaskGroup() as group,
            opened_api(settings, group, name="enrichd asgi", connections=CONNECTIONS) as api,
        ):
            self.api, self.health = api, SmallHealth()
            self.is_open.set_result(None)
            await self._closing.wait()


def ready(settings: Settings) -> Settings:
    """Set the log up for these settings. Raises InvalidSetting if there is no database."""
    for secret in settings.secrets():
        register_secret(secret)
    configure_logs(settings.log_level, settings.log_format, settings.debug)
    for sentence in settings.warnings:
        log.warning("settings_odd", reason=sentence)
    if settings.database_url is None:
        raise InvalidSetting(
            "DATABASE_URL is not set.",
            hint="Where nothing may be installed there is no embedded server to start.",
        )
    return settings


async def until_gone(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do the work until it is done or the client has left."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(left(receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def header(scope: Scope, name: bytes) -> str:
    """Return a header of a scope, empty if it is not there."""
    return next((v.decode("latin-1") for n, v in scope["headers"] if n.lower() == name), "")


app = application()
