"""A provider that only notes when calls arrive, and processes that call it within a limit.

A call says when its permit was used, by the one monotonic clock of this machine: so a call that was
made too early can be told from one that was on its way for long, because a process was not running.

    python -m tests.support.arrivals DSN URL '{"callers": 25, "seconds": 60, "windows": [[1, 100]]}'

is one such process: callers that ask the limiter for a permit, call, and begin again; who is sent
away comes back at the moment it was told. It prints what it did as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from operator import sub
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

from enrichd.errors import ProviderThrottled, Unavailable
from enrichd.providers.contracts import Window
from enrichd.providers.limiter import RateLimiter
from enrichd.providers.operations import Operation
from enrichd.store.database import Database

OPERATION = Operation.FIND_EMAIL


class Arrivals:
    """When calls arrived, in seconds of this process's monotonic clock."""

    def __init__(self, windows: Sequence[Window] = (), *, slack_s: float = 0.0) -> None:
        self.times: list[float] = []
        self.permits: list[float] = []
        """When the permits of these calls were used."""
        self.rejected = 0
        """Calls refused because a window, less the slack, was full."""
        self.url = ""
        self._windows = windows
        self._slack_s = slack_s

    async def answer(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        self.times.append(now)
        self.permits.append(float(request.query["permit"]))
        for window in self._windows:
            before = bisect_right(self.times, now - window.seconds + self._slack_s)
            if len(self.times) - before > window.calls:
                self.rejected += 1
                return web.Response(status=429)
        return web.Response(text="ok")

    @property
    def slowest_s(self) -> float:
        """Return the longest that a call took from its permit until it was noted here."""
        return max(map(sub, self.times, self.permits), default=0.0)

    def worst(self, window: Window, *, slack_s: float = 0.0) -> int:
        """Return the most calls that arrived in any window of that length less the slack."""
        return most_within(self.times, window.seconds - slack_s)


def most_within(times: Sequence[float], length: float) -> int:
    """Return the most of the times that lie in one half-open interval of that length."""
    ordered = sorted(times)
    first, most = 0, 0
    for place, moment in enumerate(ordered):
        while moment - ordered[first] >= length:
            first += 1
        most = max(most, place - first + 1)
    return most


@asynccontextmanager
async def arrivals(
    windows: Sequence[Window] = (), *, slack_s: float = 0.0
) -> AsyncIterator[Arrivals]:
    """Serve on loopback; refuse what is above the windows, if any are given."""
    noted = Arrivals(windows, slack_s=slack_s)
    app = web.Application()
    app.router.add_get("/", noted.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    noted.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield noted
    finally:
        await runner.cleanup()


async def run_callers(
    dsn: str, url: str, count: int, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Run so many processes of callers to their end; return what each one printed."""
    command = [sys.executable, "-m", "tests.support.arrivals", dsn, url, json.dumps(options)]
    processes = [
        await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        for _ in range(count)
    ]
    printed = await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0] * count
    return [json.loads(out) for out, _ in printed]


async def call(dsn: str, url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Be one process of callers."""
    windows = {"*": [Window(*window) for window in options["windows"]]}
    database = Database(dsn)
    limiter = RateLimiter(database)
    ends_at = time.monotonic() + options["seconds"]
    throttled = 0

    async def caller(session: aiohttp.ClientSession) -> None:
        nonlocal throttled
        while (left_s := ends_at - time.monotonic()) > 0:
            try:
                moment = await limiter.take(
                    "provider", OPERATION, windows, wait_s_max=min(left_s, options["wait_s_max"])
                )
            except ProviderThrottled as error:
                throttled += 1
                await asyncio.sleep(min(error.retry_after_s, max(ends_at - time.monotonic(), 0)))
                continue
            except Unavailable:
                continue
            async with session.get(url, params={"permit": repr(moment)}) as answer:
                await answer.read()
            await asyncio.sleep(options.get("latency_s", 0.0))

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        for _ in range(options["callers"]):
            group.create_task(caller(session))
    counts = limiter.counts("provider", OPERATION)
    await limiter.aclose()
    await database.close()
    return {
        "asks": counts.asks,
        "given": counts.given,
        "unused": counts.unused,
        "throttled": throttled,
        "cpu_s": time.process_time(),
    }


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(call(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))))
