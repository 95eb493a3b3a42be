"""A process whose jobs pass every fault point.

It is client, worker, housekeeper and supervisor at once, and insists as a careful client does: a
call whose answer was lost is made again with the same id. What it does is fixed and may be done
twice, so the life after a crash is the same program. Jobs that wait for something do so for ever in
a first life and not at all in a later one, where they may have to run alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from enrichd.domain.jobs import NewJob
from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import LeadInput
from enrichd.errors import IllegalMove, Refused, Unavailable
from enrichd.handlers.registry import load_handlers
from enrichd.logs import configure_logs
from enrichd.processing.floors import Floors
from enrichd.processing.processor import JobProcessor
from enrichd.providers.base import Found, Operation
from enrichd.providers.calls import Calls
from enrichd.queue.manager import JobQueueManager
from enrichd.store import faults, workers
from enrichd.store.database import Database
from tests.support.job_types import GATES
from tests.support.sharing import CountingProvider, sharing_providers

STEP_S = 15.0
TRIES = 5
SINGLE: Mapping[str, tuple[str, dict[str, Any]]] = {
    "single": ("empty", {}),
    "parked": ("answering", {"answer": "park"}),
    "expiring": ("answering", {"answer": "park"}),
    "retrying": ("answering", {"answer": "retry_now"}),
    "snoozing": ("answering", {"answer": "snooze"}),
    "later": ("empty", {}),
    "orphaned": ("empty", {}),
    "buried": ("empty", {}),
}
# These wait, and a job whose worker died runs alone: they come when the lost ones are done.
LONG: Mapping[str, tuple[str, dict[str, Any]]] = {
    "batch": ("batch", {"keys": ["a", "b", "c"], "wait_at": "b"}),
    "held": ("gate", {"gate": "held"}),
    "cancelled": ("gate", {"gate": "cancelled"}),
}
MAX_RETRIES = {"expiring": 0, "retrying": 1}
MANY = ("many 1", "many 2", "many 3")
NAMES = (*SINGLE, *LONG, *MANY)

LOSE = """
    with worker as (
        insert into enrichment_workers (id, host, pid, version, concurrency, heartbeat_at)
        select gen_random_uuid(), 'gone', 1, '0', 1, now() - make_interval(secs => %(silent_s)s)
          from enrichment_jobs
         where id = %(id)s
           and status = 'pending'
           and crashes = 0
        returning id
    )
    update enrichment_jobs as job
       set status = 'processing', attempts = 1, worker_id = worker.id, started_at = now()
      from worker
     where job.id = %(id)s
    returning job.id
"""

# The end of a life without a crash, whatever connection was lost on the way.
END = {
    **dict.fromkeys(("single", "batch", "later", "orphaned", "buried", *MANY), "completed"),
    "parked": "waiting",
    "expiring": "dead_letter",
    "retrying": "dead_letter",
    "snoozing": "cancelled",
    "held": "pending",
    "cancelled": "cancelled",
}
# After a crash these may have ended otherwise: their gates are open then.
END_AFTER_CRASH = {"held": {"completed", "pending"}, "cancelled": {"completed", "cancelled"}}

Answer = TypeVar("Answer")
Arguments: TypeAlias = Sequence[object] | Mapping[str, object]


def ids_from(first: UUID) -> dict[str, UUID]:
    """Return each job's id: the first one and those after it."""
    return {name: UUID(int=first.int + number) for number, name in enumerate(NAMES)}


class Life:
    """One life on one database."""

    def __init__(self, dsn: str, first: UUID) -> None:
        self._ids = ids_from(first)
        self._dsn = dsn
        self._databases = [Database(dsn, name=f"life {number}") for number in range(4)]
        hot, control, own, self._eyes = self._databases
        self._queue = JobQueueManager(own)
        self._own = own
        self._processor = JobProcessor(
            hot=hot,
            control=control,
            concurrency=8,
            poll_interval_s=0.1,
            heartbeat_interval_s=0.2,
            worker_timeout_s=6.0,
            grace_s=0.0,
        )

    async def live(self) -> None:
        """Do all there is to do in a life."""
        is_first = not await self._rows("select 1 from enrichment_workers")
        for (worker_id,) in await self._rows("select id::text from enrichment_workers"):
            await self._bury(worker_id)
        if not is_first:
            for gate in ("held", "cancelled", "b"):
                GATES[gate].set()
        await self._enqueue(SINGLE)
        await self._buy()
        await self._lose_two_jobs()
        async with asyncio.TaskGroup() as group:
            run = group.create_task(self._processor.run())
            await self._steer(is_first=is_first)
            self._processor.stop()
            await run
        for database in self._databases:
            await database.close()

    async def _steer(self, *, is_first: bool) -> None:
        """Lead each job to its end while the worker works."""
        for name in ("orphaned", "buried"):
            await self._until(name, {"completed"})
        await self._enqueue(LONG)
        await self._until("snoozing", {"scheduled", "cancelled"})
        await self._move(lambda: self._cancel("snoozing"))
        await self._until("parked", {"waiting"})
        await insist(lambda: self._queue.resume(job_id=self._ids["parked"]))
        await self._until("expiring", {"waiting", "dead_letter"})
        await self._rows(
            "update enrichment_jobs set scheduled_at = now() - interval '1 s'"
            " where status = 'waiting' and id = %s returning 1",
            (self._ids["expiring"],),
        )
        await self._until("retrying", {"dead_letter"})
        await self._move(
            lambda: self._queue.retry(workspace_id="default", job_id=self._ids["retrying"])
        )
        if is_first:
            await self._until("cancelled", {"processing"})
            await self._until("held", {"processing"})
        await self._move(lambda: self._cancel("cancelled"))
        if is_first:
            await self._until_true("select 1 from enrichment_jobs where progress_done > 0")
            GATES["b"].set()
        await insist(lambda: Floors(self._queue.database).tend(is_active=True))
        for name, status in END.items():
            if name != "held":
                await self._until(name, {status} | END_AFTER_CRASH.get(name, set()))

    async def _enqueue(self, jobs: Mapping[str, tuple[str, dict[str, Any]]]) -> None:
        for name, (job_type, payload) in jobs.items():
            await insist(
                lambda name=name, job_type=job_type, payload=payload: self._queue.enqueue(  # type: ignore[misc]
                    NewJob(
                        job_type,
                        payload,
                        id=self._ids[name],
                        delay_s=0.2 if name == "later" else None,
                        max_retries=MAX_RETRIES.get(name, 5),
                    )
                )
            )
        many = [NewJob("empty", {}, id=self._ids[name]) for name in MANY]
        await insist(lambda: self._queue.enqueue_many(many))

    async def _buy(self) -> None:
        """Put a job's question to a provider that bills it: at most once in each life."""
        source = CountingProvider()
        async with sharing_providers(self._dsn, source) as providers:
            run = Calls(providers, workspace_id="default", job_id=self._ids["single"])
            query = lead_from(LeadInput(domain="acme.test"))
            asked = await run.ask("counting", Operation.ENRICH_COMPANY, query)
        assert isinstance(asked, Found), asked
        assert len(source.asked) <= 1

    async def _lose_two_jobs(self) -> None:
        """Leave one job with a worker that fell silent, one with a worker that died."""
        for name in ("orphaned", "buried"):
            await self._rows(
                LOSE, {"id": self._ids[name], "silent_s": 0 if name == "buried" else 3600}
            )
        for (worker_id,) in await self._rows(
            "select worker_id::text from enrichment_jobs where id = %s and status = 'processing'",
            (self._ids["buried"],),
        ):
            await self._bury(worker_id)

    async def _bury(self, worker_id: str) -> None:
        async def declare() -> None:
            async with self._own.connection() as conn:
                await workers.declare_dead(conn, worker_id=worker_id)

        await insist(declare)

    async def _cancel(self, name: str) -> object:
        return await self._queue.cancel(workspace_id="default", job_id=self._ids[name])

    async def _move(self, work: Callable[[], Awaitable[object]]) -> None:
        """Move a job; one that is there already was moved by a call whose answer was lost."""
        try:
            await insist(work)
        except (IllegalMove, Refused) as error:
            print(f"moved before: {error}")

    async def _until(self, name: str, statuses: set[str]) -> None:
        await self._until_true(
            "select 1 from enrichment_jobs where id = %s and status = any(%s)",
            (self._ids[name], list(statuses)),
        )

    async def _until_true(self, condition: str, arguments: Arguments = ()) -> None:
        deadline = asyncio.get_running_loop().time() + STEP_S
        while not await self._rows(condition, arguments):
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"never true: {condition} {arguments}")
            await asyncio.sleep(0.02)

    async def _rows(self, statement: str, arguments: Arguments = ()) -> list[tuple[Any, ...]]:
        async with self._eyes.connection() as conn:
            return await (await conn.execute(statement, arguments)).fetchall()  # type: ignore[arg-type]


async def insist(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Call again while the connection gets lost, a bounded number of times."""
    for tries_left in reversed(range(TRIES)):
        try:
            return await work()
        except Unavailable:
            if not tries_left:
                raise
    raise AssertionError("the loop returns or raises")


def main(dsn: str, first: UUID, fault: str, log: Path) -> None:
    """Live a life in this process, which says all it has to say in a file."""
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    faults.arm(fault)
    configure_logs("INFO", "json")
    load_handlers(["tests.support.job_types"])
    asyncio.run(Life(dsn, first).live())
