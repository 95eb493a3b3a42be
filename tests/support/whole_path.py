"""Real jobs from the queue to their results, over real HTTP to fake providers.

async with fleet_of(dsn, hunter, pdl) as fleet:
    [job_id] = await fleet.enqueue(...)
    job = await fleet.ended(job_id)

A fleet is processors as worker processes have them, each with connections, caches and limits of its
own, and one turn of upkeep after the other, all in this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from enrichd.domain.jobs import Job, NewJob
from enrichd.domain.retries import RetryRule
from enrichd.handlers.registry import load_handlers
from enrichd.processing.wiring import Runtime
from enrichd.queue.manager import JobQueueManager
from enrichd.settings import Settings
from enrichd.store import job_reads
from enrichd.store.database import Database
from tests.support.processes import NO_NETWORK
from tests.support.providers.server import FakeProvider

PLENTY = {f"RATE_LIMIT_PER_{length}": "1000000" for length in ("SECOND", "MINUTE", "HOUR")}
OVER = frozenset({"completed", "failed", "dead_letter", "cancelled"})
AT_ONCE = RetryRule(base_delay_s=0.0, max_delay_s=0.0)


def environment(*fakes: FakeProvider, **variables: str) -> dict[str, str]:
    """Return the variables that lead to the fakes, without limits of ours; nothing else answers."""
    found = {**NO_NETWORK, **PLENTY}
    for fake in fakes:
        name = fake.name.upper()
        found |= {f"{name}_BASE_URL": fake.url, f"{name}_API_KEY": fake.key}
        found |= {f"{name}_{limit}": calls for limit, calls in PLENTY.items()}
    return found | variables


@dataclass(slots=True)
class Fleet:
    """The queue of a running fleet."""

    queue: JobQueueManager

    async def enqueue(self, *payloads: dict[str, Any], **options: Any) -> list[UUID]:
        """Put jobs on the queue, by their payload; a batch has `leads`."""
        jobs = [NewJob(type_of(payload), payload, **options) for payload in payloads]
        return [done.id for done in await self.queue.enqueue_many(jobs)]

    async def job(self, job_id: UUID, workspace_id: str = "default") -> Job:
        """Return a job as it stands."""
        async with self.queue.database.connection() as conn:
            job = await job_reads.get(conn, workspace_id=workspace_id, job_id=job_id)
        assert job is not None
        return job

    async def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database."""
        async with self.queue.database.connection() as conn:
            return list(await (await conn.execute(statement, values)).fetchall())  # type: ignore[arg-type]

    async def items(self, job_id: UUID) -> dict[str, tuple[str, Any, Any]]:
        """Return a batch's leads that are done: (status, result, error) by key."""
        found = await self.rows(
            "select item_key, status, result, error from enrichment_job_items where job_id = %s",
            job_id,
        )
        return {key: tuple(rest) for key, *rest in found}  # type: ignore[misc]

    async def until(
        self, job_ids: Sequence[UUID], statuses: frozenset[str], within_s: float = 20.0
    ) -> None:
        """Wait until jobs are in one of the states."""
        left: list[Any] = []
        try:
            async with asyncio.timeout(within_s):
                while left := await self.rows(  # noqa: ASYNC110 - it is the database's
                    "select status, attempts, error from enrichment_jobs"
                    " where id = any(%s) and status <> all(%s)",
                    list(job_ids),
                    list(statuses),
                ):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{len(left)} jobs are not there: {left[:5]}") from None

    async def ended(self, *job_ids: UUID, within_s: float = 20.0) -> Job:
        """Wait for the end of jobs and return the last one."""
        await self.until(job_ids, OVER, within_s)
        return await self.job(job_ids[-1])


def type_of(payload: dict[str, Any]) -> str:
    """Return the type that a payload is of."""
    kinds = {
        "leads": "batch_lead_enrichment",
        "emails": "email_validation",
        "companyId": "company_data_update",
        "domain": "company_data_update",
    }
    return next((kind for name, kind in kinds.items() if name in payload), "single_lead_enrichment")


def lead(email: str = "", **options: Any) -> dict[str, Any]:
    """Return the payload of a search for a person by address."""
    data = {"email": email} if email else {}
    types = options.pop("types", ["person"])
    return {
        "leadId": "lead-1",
        "enrichmentTypes": types,
        "inputData": data | options.pop("data", {}),
        **options,
    }


def said(result: dict[str, Any]) -> dict[str, list[str]]:
    """Return what became of the questions to each paid provider that had to be put."""
    found: dict[str, list[str]] = {}
    for call in result["providers"]:
        if call["provider"] != "builtin" and call["skipReason"] != "nothing_missing":
            found.setdefault(call["provider"], []).append(call["skipReason"] or call["outcome"])
    return found


@asynccontextmanager
async def fleet_of(
    dsn: str,
    *fakes: FakeProvider,
    processes: int = 1,
    concurrency: int = 10,
    **variables: str,
) -> AsyncIterator[Fleet]:
    """Give a fleet whose providers are the fakes."""
    load_handlers(())
    settings = Settings.load({"DATABASE_URL": dsn, **environment(*fakes, **variables)})
    async with AsyncExitStack() as stack:
        own = Database(dsn, name="test fleet")
        stack.push_async_callback(own.close)
        started = []
        for _ in range(processes):
            runtime = await stack.enter_async_context(Runtime(settings))
            hot, control = Database(dsn, name="enrichd hot"), Database(dsn, name="enrichd control")
            stack.push_async_callback(hot.close)
            stack.push_async_callback(control.close)
            processor = runtime.processor(
                hot=hot,
                control=control,
                concurrency=concurrency,
                poll_interval_s=0.1,
                heartbeat_interval_s=0.2,
                worker_timeout_s=5.0,
                grace_s=2.0,
                retry_rule=AT_ONCE,
            )
            started.append((processor, asyncio.create_task(processor.run())))
        try:
            yield Fleet(JobQueueManager(own))
        finally:
            for processor, _ in started:
                processor.stop_now()
            await asyncio.gather(*(task for _, task in started))
