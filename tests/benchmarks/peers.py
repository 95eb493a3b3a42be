"""The queues that are compared, each behind the same few calls.

Every one runs a job that does nothing, keeps its own default durability, and is set up as its own
documentation says for speed: pgqueuer on asyncpg with `batch_size=100`, procrastinate with 100 jobs
at once. Rates are jobs a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import uvloop

from enrichd.domain.jobs import NewJob
from enrichd.handlers.registry import load_plugins
from enrichd.processing.processor import JobProcessor, Limits
from enrichd.queue.manager import JobQueueManager
from enrichd.store import migrate
from enrichd.store.database import Database


@dataclass(frozen=True, slots=True)
class Peer:
    """One queue: every function takes the DSN of a database of its own."""

    name: str
    set_up: Callable[[str], Awaitable[None]]
    bulk: Callable[[str, int], Awaitable[None]]
    single: Callable[[str, int], Awaitable[None]]
    drain: Callable[[str], Awaitable[None]]


async def enrichd_set_up(dsn: str) -> None:
    database = Database(dsn)
    async with database.connection() as conn:
        await migrate.apply(conn)
    await database.close()


async def enrichd_bulk(dsn: str, count: int) -> None:
    load_plugins(["tests.benchmarks.empty_job"])
    database = Database(dsn)
    await JobQueueManager(database).enqueue_many([NewJob("empty", {}) for _ in range(count)])
    await database.close()


async def enrichd_single(dsn: str, count: int) -> None:
    load_plugins(["tests.benchmarks.empty_job"])
    database = Database(dsn)
    queue = JobQueueManager(database)
    for _ in range(count):
        await queue.enqueue(NewJob("empty", {}))
    await database.close()


async def enrichd_drain(dsn: str) -> None:
    load_plugins(["tests.benchmarks.empty_job"])
    hot, control = Database(dsn), Database(dsn)
    await JobProcessor(hot=hot, control=control).run(Limits(is_until_empty=True))
    await hot.close()
    await control.close()


async def pgqueuer_set_up(dsn: str) -> None:
    async with pgqueuer_driver(dsn) as driver:
        from pgqueuer.queries import Queries

        await Queries(driver).install()


def pgqueuer_driver(dsn: str) -> Any:
    """Return an async context manager of pgqueuer's asyncpg driver."""
    import contextlib

    import asyncpg
    from pgqueuer.db import AsyncpgDriver

    @contextlib.asynccontextmanager
    async def opened() -> Any:
        conn = await asyncpg.connect(dsn)
        try:
            yield AsyncpgDriver(conn)
        finally:
            await conn.close()

    return opened()


async def pgqueuer_bulk(dsn: str, count: int) -> None:
    from pgqueuer.queries import Queries

    async with pgqueuer_driver(dsn) as driver:
        queries = Queries(driver)
        for start in range(0, count, 5_000):
            size = min(5_000, count - start)
            await queries.enqueue(["empty"] * size, [b"{}"] * size, [0] * size)


async def pgqueuer_single(dsn: str, count: int) -> None:
    from pgqueuer.queries import Queries

    async with pgqueuer_driver(dsn) as driver:
        queries = Queries(driver)
        for _ in range(count):
            await queries.enqueue("empty", b"{}", 0)


async def pgqueuer_drain(dsn: str) -> None:
    from pgqueuer import QueueManager
    from pgqueuer.queries import Queries
    from pgqueuer.types import QueueExecutionMode

    async with pgqueuer_driver(dsn) as driver:
        manager = QueueManager(Queries(driver))

        @manager.entrypoint("empty")
        async def empty(job: Any) -> None:
            return None

        await manager.run(batch_size=100, mode=QueueExecutionMode.drain)


def procrastinate_app(dsn: str) -> Any:
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=dsn))

    @app.task(name="empty")
    async def empty() -> None:
        return None

    return app


async def procrastinate_set_up(dsn: str) -> None:
    app = procrastinate_app(dsn)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def procrastinate_bulk(dsn: str, count: int) -> None:
    app = procrastinate_app(dsn)
    async with app.open_async():
        for start in range(0, count, 5_000):
            await app.tasks["empty"].batch_defer_async(*[{}] * min(5_000, count - start))


async def procrastinate_single(dsn: str, count: int) -> None:
    app = procrastinate_app(dsn)
    async with app.open_async():
        task = app.tasks["empty"]
        for _ in range(count):
            await task.defer_async()


async def procrastinate_drain(dsn: str) -> None:
    app = procrastinate_app(dsn)
    async with app.open_async():
        await app.run_worker_async(wait=False, concurrency=100, install_signal_handlers=False)


PEERS = (
    Peer("enrichd", enrichd_set_up, enrichd_bulk, enrichd_single, enrichd_drain),
    Peer("pgqueuer", pgqueuer_set_up, pgqueuer_bulk, pgqueuer_single, pgqueuer_drain),
    Peer(
        "procrastinate",
        procrastinate_set_up,
        procrastinate_bulk,
        procrastinate_single,
        procrastinate_drain,
    ),
)


def run(work: Any) -> Any:
    """Run a coroutine the way a production process would: on uvloop, for every peer alike."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
