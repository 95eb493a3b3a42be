"""The whole API as the gateway serves it, from a thread: for tests whose clients block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from enrichd.gateway.api import serving_api
from enrichd.gateway.server import serving
from enrichd.settings import Settings

START_S = 30.0


@contextmanager
def served_aside(settings: Settings) -> Iterator[int]:
    """Serve the API on a free port of loopback; give the port."""
    ready = threading.Event()
    found: list[int] = []
    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with (
            asyncio.TaskGroup() as group,
            serving_api(settings, group) as transport,
            serving(transport.application(), "127.0.0.1", 0) as (port,),
        ):
            stops.append((asyncio.get_running_loop(), stop))
            found.append(port)
            ready.set()
            await stop.wait()

    def work() -> None:
        try:
            asyncio.run(serve())
        finally:
            ready.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(START_S)
    assert found, "the API did not start"
    try:
        yield found[0]
    finally:
        loop, stop = stops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(START_S)
        assert not thread.is_alive()
