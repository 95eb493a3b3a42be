"""pgqueuer behind the benchmark's calls."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pgqueuer import QueueManager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from tests.benchmarks import work
from tests.benchmarks.peers import Enqueue

BULK = 5_000


@asynccontextmanager
async def driver(dsn: str) -> AsyncIterator[AsyncpgDriver]:
    conn = await asyncpg.connect(dsn)
    try:
        yield AsyncpgDriver(conn)
    finally:
        await conn.close()


async def set_up(dsn: str) -> None:
    async with driver(dsn) as opened:
        await Queries(opened).install()


async def bulk(dsn: str, kind: str, arguments: Mapping[str, Any], count: int) -> None:
    payload = json.dumps(arguments).encode()
    async with driver(dsn) as opened:
        queries = Queries(opened)
        for start in range(0, count, BULK):
            size = min(BULK, count - start)
            await queries.enqueue([kind] * size, [payload] * size, [0] * size)


@asynccontextmanager
async def client(dsn: str) -> AsyncIterator[Enqueue]:
    async with driver(dsn) as opened:
        queries = Queries(opened)

        async def enqueue(kind: str, arguments: Mapping[str, Any]) -> int:
            await queries.enqueue(kind, json.dumps(arguments).encode(), 0)
            return time.monotonic_ns()

        yield enqueue


def manager(opened: AsyncpgDriver) -> QueueManager:
    made = QueueManager(Queries(opened))

    @made.entrypoint("empty")
    async def empty(job: Any) -> None:
        return None

    @made.entrypoint("nap")
    async def nap(job: Any) -> None:
        await work.nap(json.loads(job.payload)["seconds"])

    @made.entrypoint("mark")
    async def mark(job: Any) -> None:
        work.mark(json.loads(job.payload)["number"])

    return made


async def drain(dsn: str, slots: int) -> None:
    async with driver(dsn) as opened:
        await manager(opened).run(
            # It asks for twice as much room as a batch.
            batch_size=slots // 2 or 100,
            mode=QueueExecutionMode.drain,
            max_concurrent_tasks=slots or None,
        )


async def serve(dsn: str) -> None:
    async with driver(dsn) as opened:
        await manager(opened).run()
