"""A client that asks as fast as it is answered.

`python -m tests.benchmarks.http_client PORT COUNT`: the requests come on standard input as JSON, a
list of base64 texts that are sent in turn over CONNECTIONS connections; standard output gets the
seconds each took, and how long all took.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time

import uvloop

CONNECTIONS = 32
ANSWER_S = 30.0


class Asker(asyncio.Protocol):
    """One connection; asks again when it is answered."""

    def __init__(self, todo: list[bytes], took: list[float], done: asyncio.Future[None]) -> None:
        self._todo = todo
        self._took = took
        self._done = done
        self._data = b""
        self._began = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = transport  # type: ignore[assignment]
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Take an answer, whole or in parts."""
        self._data += data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        low = head.lower()
        length = int(low.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
            self._done.set_exception(RuntimeError(f"{head!r} {rest!r}"))
            return
        self._took.append(time.perf_counter() - self._began)
        self._data = b""
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail, unless all is done."""
        if not self._done.done():
            self._done.set_exception(RuntimeError(f"the connection broke: {exc}"))

    def _ask(self) -> None:
        assert self._transport is not None
        if not self._todo:
            if not self._done.done():
                self._done.set_result(None)
            return
        self._began = time.perf_counter()
        self._transport.write(self._todo.pop())


async def main(port: int, count: int) -> None:
    """Ask so many times."""
    kinds = [base64.b64decode(text) for text in json.load(sys.stdin)]
    todo = [kinds[number % len(kinds)] for number in range(count)]
    took: list[float] = []
    loop = asyncio.get_running_loop()
    waits: list[asyncio.Future[None]] = [loop.create_future() for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    for done in waits:
        await loop.create_connection(lambda done=done: Asker(todo, took, done), "127.0.0.1", port)
    async with asyncio.timeout(max(ANSWER_S, count / 50)):
        await asyncio.gather(*waits)
    json.dump({"took": took, "seconds": time.perf_counter() - began}, sys.stdout)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
