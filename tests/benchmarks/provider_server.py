"""A provider that costs next to nothing: one made-up person's record for any question.

    python -m tests.benchmarks.provider_server LATENCY_S '[[100, 1], [2000, 60]]'

prints its port. It speaks just enough HTTP, answers as Hunter below `/hunter` and as Clearbit below
`/clearbit` after its latency, and nobody has a Gravatar. A call beyond a window, less 50 ms, is
refused. `GET /stats` says what came.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from bisect import bisect_right
from typing import Any

import uvloop

from tests.support.arrivals import most_within
from tests.support.providers import clearbit_words, world

SLACK_S = 0.05


class Server:
    """What came, and the answers."""

    def __init__(self, latency_s: float, windows: list[list[float]]) -> None:
        person = world.person_at("ada.quill@northwind.example")
        assert person is not None
        record = clearbit_words.person(person, {})
        self.answers = {
            b"/h": answer(200, json.dumps({"data": record, "meta": {}})),
            b"/c": answer(200, json.dumps(record)),
        }
        self.refusal = answer(403, '{"errors": [{"id": "too_many_requests"}]}')
        self.nobody = answer(404, "{}")
        self.latency_s = latency_s
        self.windows = windows
        self.times: list[float] = []
        self.refused = 0

    def is_full(self, now: float) -> bool:
        return any(
            len(self.times) - bisect_right(self.times, now - seconds + SLACK_S) > calls
            for calls, seconds in self.windows
        )

    def stats(self) -> bytes:
        cpu = os.times()
        said = {
            "calls": len(self.times),
            "refused": self.refused,
            "fullest": [most_within(self.times, seconds) for _, seconds in self.windows],
            "times": [round(at - self.times[0], 3) for at in self.times],
            "cpu_s": cpu.user + cpu.system,
        }
        return answer(200, json.dumps(said))


class Line(asyncio.Protocol):
    """One connection, one question after the other."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:  # uvloop's is no subclass of asyncio's
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            self.take(head.split(b" ", 2)[1])

    def take(self, path: bytes) -> None:
        server = self.server
        if path == b"/stats":
            return self.transport.write(server.stats())
        known = server.answers.get(path[:2])
        # What is left of the credits is asked beside the questions, and costs none.
        if known is None or b"/account" in path:
            return self.transport.write(server.nobody)
        now = time.monotonic()
        server.times.append(now)
        if server.windows and server.is_full(now):
            server.refused += 1
            known = server.refusal
        asyncio.get_running_loop().call_later(server.latency_s, self.write, known)
        return None

    def write(self, known: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(known)


def answer(status: int, body: str) -> bytes:
    """Return a whole answer."""
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


async def serve(latency_s: float, windows: list[list[float]]) -> None:
    """Serve until ended."""
    known = Server(latency_s, windows)
    server = await asyncio.get_running_loop().create_server(
        lambda: Line(known), "127.0.0.1", 0, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(float(sys.argv[1]), json.loads(sys.argv[2])))
