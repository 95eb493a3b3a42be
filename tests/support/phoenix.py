"""A small stand-in for Supabase Realtime: Phoenix channels over WebSocket, and broadcasts by REST.

As the real one does, it answers a REST broadcast 202 whether or not anybody may hear it, keeps
private and open topics apart, and takes a topic without the `realtime:` in front.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

PREFIX = "realtime:"


@dataclass(slots=True)
class Joined:
    """A channel of one client."""

    socket: web.WebSocketResponse
    is_list: bool
    """Version 2 of the protocol: arrays in place of objects."""
    ref: str | None
    is_private: bool


@dataclass(slots=True)
class Phoenix:
    """The server: who joined what, and what came by REST."""

    may_join: Callable[[str, str, bool], bool] = lambda topic, token, is_private: True
    joined: dict[str, list[Joined]] = field(default_factory=dict)
    requests: list[tuple[Mapping[str, str], list[dict[str, Any]]]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Statuses and headers of the next answers to broadcasts; none left: 202."""
    port: int = 0

    @property
    def url(self) -> str:
        """Return what SUPABASE_URL is to be."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return every message of every request, in order."""
        return [message for _, messages in self.requests for message in messages]

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Speak with one client."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        is_list = request.query.get("vsn", "1.0.0").startswith("2")
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                continue
            said = json.loads(frame.data)
            if isinstance(said, dict):
                said = [said.get(k) for k in ("join_ref", "ref", "topic", "event", "payload")]
            join_ref, ref, topic, event, payload = said
            if event == "phx_join":
                is_private = bool(payload.get("config", {}).get("private"))
                token = payload.get("access_token", request.query.get("apikey", ""))
                status = "ok" if self.may_join(topic, token, is_private) else "error"
                if status == "ok":
                    here = Joined(socket, is_list, join_ref or ref, is_private)
                    self.joined.setdefault(topic.removeprefix(PREFIX), []).append(here)
            else:
                status = "ok"
            answer = {"status": status, "response": {}}
            await say(socket, is_list, join_ref, ref, topic, "phx_reply", answer)
        for channels in self.joined.values():
            channels[:] = [one for one in channels if one.socket is not socket]
        return socket

    async def broadcast(self, request: web.Request) -> web.Response:
        """Take messages and pass them on."""
        document = await request.json()
        status, headers = self.answers.pop(0) if self.answers else (202, {})
        if status != 202:
            return web.json_response({"message": "no"}, status=status, headers=headers)
        self.requests.append((dict(request.headers), document["messages"]))
        for message in document["messages"]:
            for one in self.joined.get(message["topic"], []):
                if one.is_private == message["private"]:
                    payload = {
                        "type": "broadcast",
                        "event": message["event"],
                        "payload": message["payload"],
                    }
                    topic = PREFIX + message["topic"]
                    await say(one.socket, one.is_list, one.ref, None, topic, "broadcast", payload)
        return web.Response(status=202)


async def say(
    socket: web.WebSocketResponse,
    is_list: bool,
    join_ref: str | None,
    ref: str | None,
    topic: str,
    event: str,
    payload: object,
) -> None:
    """Send one message of the protocol."""
    names = ("join_ref", "ref", "topic", "event", "payload")
    parts = [join_ref, ref, topic, event, payload]
    await socket.send_str(json.dumps(parts if is_list else dict(zip(names, parts, strict=True))))


@asynccontextmanager
async def phoenix() -> AsyncIterator[Phoenix]:
    """Serve on a free port of loopback."""
    server = Phoenix()
    app = web.Application()
    app.add_routes(
        [
            web.get("/realtime/v1/websocket", server.socket),
            web.post("/realtime/v1/api/broadcast", server.broadcast),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()
