"""procrastinate behind the benchmark's calls."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from procrastinate import App, PsycopgConnector

from tests.benchmarks import work
from tests.benchmarks.peers import Enqueue

BULK = 5_000


def app_of(dsn: str) -> App:
    app = App(connector=PsycopgConnector(conninfo=dsn))

    @app.task(name="empty")
    async def empty() -> None:
        return None

    @app.task(name="nap")
    async def nap(seconds: float) -> None:
        await work.nap(seconds)

    @app.task(name="mark")
    async def mark(number: int) -> None:
        work.mark(number)

    return app


async def set_up(dsn: str) -> None:
    app = app_of(dsn)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def bulk(dsn: str, kind: str, arguments: Mapping[str, Any], count: int) -> None:
    app = app_of(dsn)
    async with app.open_async():
        for start in range(0, count, BULK):
            same = [dict(arguments)] * min(BULK, count - start)
            await app.tasks[kind].batch_defer_async(*same)


@asynccontextmanager
async def client(dsn: str) -> AsyncIterator[Enqueue]:
    app = app_of(dsn)

    async def enqueue(kind: str, arguments: Mapping[str, Any]) -> int:
        await app.tasks[kind].defer_async(**arguments)
        return time.monotonic_ns()

    async with app.open_async():
        yield enqueue


async def drain(dsn: str, slots: int) -> None:
    app = app_of(dsn)
    async with app.open_async():
        await app.run_worker_async(
            wait=False, concurrency=slots or 100, install_signal_handlers=False
        )


async def serve(dsn: str) -> None:
    app = app_of(dsn)
    async with app.open_async():
        await app.run_worker_async(concurrency=10, install_signal_handlers=False)
