"""The public Python API: put jobs on the queue from any program.

    from enrichd.client import enqueue_job

    job_id = enqueue_job("email_validation", {"emails": ["ada@northwind.test"]})

The same functions serve synchronous and asynchronous callers. Given a psycopg `conn` they work
inside the caller's transaction: synchronous for a `psycopg.Connection`, to be awaited for a
`psycopg.AsyncConnection`. Without one they open a connection to `database_url` (or `DATABASE_URL`)
and commit; to be awaited when an event loop is running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, Connection

from enrichd.domain.jobs import DEFAULT_MAX_RETRIES, DEFAULT_PRIORITY, NewJob
from enrichd.errors import InvalidSetting
from enrichd.handlers.registry import load_plugins
from enrichd.queue.intake import row_of
from enrichd.queue.manager import JobQueueManager
from enrichd.settings import Settings
from enrichd.store import new_jobs
from enrichd.store.database import Database

__all__ = ["NewJob", "enqueue_job", "enqueue_jobs"]


def enqueue_job(
    type: str,
    payload: Mapping[str, Any],
    *,
    conn: Connection[Any] | AsyncConnection[Any] | None = None,
    database_url: str | None = None,
    workspace_id: str = "default",
    id: UUID | str | None = None,
    priority: int = DEFAULT_PRIORITY,
    provider_id: str | None = None,
    max_retries: int = DEFAULT_MAX_RETRIES,
    tags: Sequence[str] = (),
    webhook_url: str | None = None,
    idempotency_key: str | None = None,
    scheduled_at: datetime | None = None,
    delay_s: float | None = None,
) -> Any:
    """Put one job on the queue and return its id (UUID), or an awaitable of it in a loop.

    An `id` or `idempotency_key` that was used before returns the earlier job's id and adds nothing.
    Raises InvalidPayload naming every wrong field, Unavailable when PostgreSQL is away.
    """
    new = NewJob(
        type=type,
        payload=payload,
        workspace_id=workspace_id,
        id=uuid_of(id) if isinstance(id, str) else id,
        priority=priority,
        provider_id=provider_id,
        max_retries=max_retries,
        tags=tags,
        webhook_url=webhook_url,
        idempotency_key=idempotency_key,
        scheduled_at=scheduled_at,
        delay_s=delay_s,
    )
    know_plugins()
    if isinstance(conn, Connection):
        return new_jobs.enqueue_sync(conn, row_of(new)).id
    if conn is not None:
        return enqueue_on(conn, new)

    async def alone(queue: JobQueueManager) -> UUID:
        return (await queue.enqueue(new)).id

    return run_or_await(with_queue(database_url, alone))


def uuid_of(text: str) -> Any:
    """Return a UUID, or what was given if it is none: intake refuses that beside all else."""
    try:
        return UUID(text)
    except ValueError:
        return text


async def enqueue_on(conn: AsyncConnection[Any], new: NewJob) -> UUID:
    """Enqueue on an asynchronous caller's own connection."""
    return (await new_jobs.enqueue(conn, row_of(new))).id


def enqueue_jobs(new: Iterable[NewJob], *, database_url: str | None = None) -> Any:
    """Put many jobs on the queue, all or none; return their ids in order (awaitable in a loop).

    Given a generator they are taken as they come and never all held in memory.
    """
    know_plugins()

    async def alone(queue: JobQueueManager) -> list[UUID]:
        return [done.id for done in await queue.enqueue_many(new)]

    return run_or_await(with_queue(database_url, alone))


async def with_queue(database_url: str | None, work: Any) -> Any:
    """Open a queue, do one thing with it, close it."""
    database = Database(database_url or configured_url(), name="enrichd client")
    try:
        return await work(JobQueueManager(database))
    finally:
        await database.close()


def configured_url() -> str:
    """Return DATABASE_URL as configured. Raises InvalidSetting when there is none."""
    url = Settings.load().database_url
    if url is None:
        raise InvalidSetting(
            "DATABASE_URL is not set", hint="Set it, or give database_url= or conn=."
        )
    return url.get_secret_value()


def run_or_await(work: Any) -> Any:
    """Run a coroutine to its end, or hand it to the caller when an event loop is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    return work


@cache
def know_plugins() -> None:
    """Import the modules of ENRICHD_PLUGINS once, so that their job types are known here."""
    load_plugins(Settings.load().plugins)
