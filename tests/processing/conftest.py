"""Processors on the test's database, and what the tables say after them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from enrichd.domain.jobs import NewJob
from enrichd.domain.retries import RetryRule
from enrichd.processing.processor import JobProcessor
from enrichd.queue.manager import JobQueueManager
from enrichd.store.database import Connection, Database
from tests.support import job_types

AT_ONCE = RetryRule(base_delay_s=0.0, max_delay_s=0.0)


@pytest.fixture(autouse=True)
def fresh_job_types() -> Iterator[None]:
    """Forget what handlers of earlier tests did; let no gate stay closed."""
    job_types.reset()
    yield
    for gate in job_types.GATES.values():
        gate.set()


@pytest.fixture
async def make(database_url: str) -> AsyncIterator[Callable[..., JobProcessor]]:
    """Give `make(**options)`: a JobProcessor with quick timings on connections of its own."""
    opened: list[Database] = []

    def processor(*, dsn: str = database_url, **options: Any) -> JobProcessor:
        hot, control = (Database(dsn, name=name) for name in ("enrichd hot", "enrichd control"))
        opened.extend((hot, control))
        chosen: dict[str, Any] = {
            "concurrency": 4,
            "poll_interval_s": 0.1,
            "heartbeat_interval_s": 0.2,
            "worker_timeout_s": 5.0,
            "grace_s": 2.0,
            "retry_rule": AT_ONCE,
        }
        return JobProcessor(hot=hot, control=control, **{**chosen, **options})

    yield processor
    for database in opened:
        await database.close()


@dataclass(frozen=True, slots=True)
class Row:
    """A job as the table has it."""

    status: str
    attempts: int
    error_type: str | None
    result: Any


@pytest.fixture
def row(conn: Connection) -> Callable[[UUID], Any]:
    """Give `await row(job_id)`."""

    async def read(job_id: UUID) -> Row:
        cursor = await conn.execute(
            "select status, attempts, error ->> 'type', result from enrichment_jobs where id = %s",
            [job_id],
        )
        found = await cursor.fetchone()
        assert found is not None
        return Row(*found)

    return read


@pytest.fixture
def statuses(conn: Connection) -> Callable[[], Any]:
    """Give `await statuses()`: how many jobs are in each state."""

    async def read() -> dict[str, int]:
        cursor = await conn.execute("select status, count(*) from enrichment_jobs group by status")
        return dict(await cursor.fetchall())

    return read


@pytest.fixture
def outcomes(conn: Connection) -> Callable[[UUID], Any]:
    """Give `await outcomes(job_id)`: how its attempts ended, oldest first."""

    async def read(job_id: UUID) -> list[str | None]:
        cursor = await conn.execute(
            "select outcome from enrichment_job_attempts where job_id = %s"
            " order by started_at, finished_at",
            [job_id],
        )
        return [outcome for (outcome,) in await cursor.fetchall()]

    return read


@pytest.fixture
async def running() -> AsyncIterator[Callable[[JobProcessor], asyncio.Task[Any]]]:
    """Give `running(processor)`: run it beside the test; it is stopped at the end."""
    started: list[tuple[JobProcessor, asyncio.Task[Any]]] = []

    def start(processor: JobProcessor) -> asyncio.Task[Any]:
        task = asyncio.create_task(processor.run())
        started.append((processor, task))
        return task

    yield start
    for gate in job_types.GATES.values():
        gate.set()
    for processor, task in started:
        processor.stop()
        async with asyncio.timeout(20):
            await task


async def enqueue(queue: JobQueueManager, type: str, count: int = 1, **payload: Any) -> list[UUID]:
    """Put jobs without retries on the queue."""
    return [
        done.id
        for done in await queue.enqueue_many(
            [NewJob(type, payload, max_retries=0) for _ in range(count)]
        )
    ]
