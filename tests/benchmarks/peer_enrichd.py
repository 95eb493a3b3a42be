"""enrichd behind the benchmark's calls. `serve` is the daemon itself, see processes.py."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from enrichd.domain.jobs import NewJob
from enrichd.handlers.registry import load_plugins
from enrichd.processing.bounds import Limits
from enrichd.processing.processor import JobProcessor
from enrichd.queue.manager import JobQueueManager
from enrichd.store import migrate
from enrichd.store.database import Connection, Database
from tests.benchmarks import jobs  # noqa: F401 - imported before any clock starts
from tests.benchmarks.peers import Enqueue

PLUGIN = "tests.benchmarks.jobs"


async def set_up(dsn: str) -> None:
    await migrate.apply_at(dsn)


async def bulk(dsn: str, kind: str, arguments: Mapping[str, Any], count: int) -> None:
    load_plugins([PLUGIN])
    database = Database(dsn)
    await JobQueueManager(database).enqueue_many(NewJob(kind, arguments) for _ in range(count))
    await database.close()


class Timed(JobQueueManager):
    """Notes when a commit was acknowledged: the hint that follows is not the queue's to count."""

    committed_ns = 0

    async def _hint(self, conn: Connection, jobs_ready: int) -> None:
        self.committed_ns = time.monotonic_ns()
        await super()._hint(conn, jobs_ready)


@asynccontextmanager
async def client(dsn: str) -> AsyncIterator[Enqueue]:
    load_plugins([PLUGIN])
    database = Database(dsn)
    queue = Timed(database)

    async def enqueue(kind: str, arguments: Mapping[str, Any]) -> int:
        await queue.enqueue(NewJob(kind, arguments))
        return queue.committed_ns

    yield enqueue
    await database.close()


async def drain(dsn: str, slots: int) -> None:
    load_plugins([PLUGIN])
    hot, control = Database(dsn), Database(dsn)
    processor = JobProcessor(hot=hot, control=control, concurrency=slots or 10)
    await processor.run(Limits(is_until_empty=True))
    await hot.close()
    await control.close()
