"""Jobs, workers and lanes put straight into the tables, in whatever state a test needs.

A call names only what matters to the test; the rest is plausible. Times are given as seconds from
now by the database's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from enrichd.domain.jobs import TERMINAL, Claimed, Job, NewJob
from enrichd.queue.manager import JobQueueManager
from enrichd.store import job_reads, jobs, lanes, workers
from enrichd.store.database import Connection
from enrichd.store.jobs import Ended, Lane
from enrichd.store.workers import Worker

EMAIL_PAYLOAD = {"emails": ["ada@example.com"]}
HOUR_S = 3600.0


async def a_job(
    conn: Connection,
    *,
    status: str = "pending",
    scheduled_in_s: float | None = None,
    started_ago_s: float | None = None,
    completed_ago_s: float | None = None,
    cancel_requested: bool = False,
    **columns: Any,
) -> Job:
    """Insert a job in any state and return it; `columns` are columns of the table."""
    values: dict[str, Any] = {
        "id": uuid7(),
        "workspace_id": "default",
        "type": "email_validation",
        "status": status,
        "priority": 3,
        "provider_id": "-",
        "payload": EMAIL_PAYLOAD,
        **columns,
    }
    if status == "processing":
        values.setdefault("attempts", 1)
        started_ago_s = started_ago_s or 0.0
        if "worker_id" not in values:
            values["worker_id"] = (await a_worker(conn)).id
    if status in ("scheduled", "waiting") and scheduled_in_s is None:
        scheduled_in_s = HOUR_S
    if status in TERMINAL and completed_ago_s is None:
        completed_ago_s = 0.0
    seconds = {
        "scheduled_at": scheduled_in_s,
        "started_at": None if started_ago_s is None else -started_ago_s,
        "completed_at": None if completed_ago_s is None else -completed_ago_s,
        "cancel_requested_at": 0.0 if cancel_requested else None,
    }
    times = {name: from_now_s for name, from_now_s in seconds.items() if from_now_s is not None}
    names = [*values, *times]
    expressions = [sql.Placeholder(name) for name in values] + [
        sql.SQL("now() + make_interval(secs => {})").format(sql.Placeholder(name)) for name in times
    ]
    await conn.execute(
        sql.SQL("insert into enrichment_jobs ({}) values ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, names)), sql.SQL(", ").join(expressions)
        ),
        {name: stored(value) for name, value in (values | times).items()},
    )
    await a_lane(conn, values["provider_id"], values["priority"])
    job = await job_reads.get(conn, workspace_id=values["workspace_id"], job_id=values["id"])
    assert job is not None
    return job


def stored(value: Any) -> Any:
    """Return a value as psycopg takes it: mappings are JSON."""
    return Jsonb(value) if isinstance(value, dict) else value


async def pending_jobs(
    conn: Connection,
    count: int,
    *,
    workspace_id: str = "default",
    provider_id: str = "-",
    priority: int = 3,
) -> None:
    """Insert many ready jobs of one workspace at once, ranked 1, 2, 3 … as enqueue would."""
    await conn.execute(
        """
        insert into enrichment_jobs
               (id, workspace_id, type, priority, provider_id, payload, fair_rank)
        select enrichment_uuid7(), %s, 'email_validation', %s, %s, '{"emails": ["a@b.co"]}', place
          from generate_series(1, %s) as place
        """,
        [workspace_id, priority, provider_id, count],
    )
    await a_lane(conn, provider_id, priority)


async def a_lane(
    conn: Connection,
    provider_id: str = "-",
    priority: int = 3,
    *,
    vtime: int = 0,
    floor_rank: int = 0,
) -> None:
    """Insert a lane unless it is there."""
    await conn.execute(
        """
        insert into enrichment_lanes (provider_id, priority, vtime, floor_rank, floor_next)
        values (%s, %s, %s, %s, %s)
            on conflict do nothing
        """,
        [provider_id, priority, vtime, floor_rank, floor_rank],
    )


async def a_worker(
    conn: Connection, *, state: str = "running", silent_s: float = 0.0, concurrency: int = 10
) -> Worker:
    """Insert a worker whose last heartbeat is `silent_s` old."""
    worker_id = uuid7()
    await workers.insert(
        conn, worker_id=worker_id, host="test", pid=1, version="0", concurrency=concurrency
    )
    await conn.execute(
        """
        update enrichment_workers
           set state = %s, heartbeat_at = now() - make_interval(secs => %s)
         where id = %s
        """,
        [state, silent_s, worker_id],
    )
    return next(worker for worker in await workers.list_all(conn) if worker.id == worker_id)


async def columns_of(conn: Connection, job_id: UUID | str) -> dict[str, Any]:
    """Return every column of a job, by name."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute("select * from enrichment_jobs where id = %s", [job_id])
        row = await cursor.fetchone()
    assert row is not None
    return row


async def state_of(conn: Connection, job_id: UUID | str) -> str:
    """Return where a job stands."""
    return str((await columns_of(conn, job_id))["status"])


async def history_of(conn: Connection, job_id: UUID | str) -> list[tuple[int, str | None]]:
    """Return a job's (attempt, outcome) pairs, oldest first."""
    found = await job_reads.attempts(conn, job_id=UUID(str(job_id)))
    return [(attempt.attempt, attempt.outcome) for attempt in found]


async def counted(conn: Connection, table: str) -> int:
    """Return how many rows a table has."""
    statement = sql.SQL("select count(*) from {}").format(sql.Identifier(table))
    row = await (await conn.execute(statement)).fetchone()
    assert row is not None
    return int(row[0])


async def claim(
    conn: Connection,
    worker_id: UUID,
    *,
    room: int = 1,
    ended: Sequence[Ended] = (),
) -> list[Claimed]:
    """Claim from every open lane, as a worker with free room does."""
    plan = await open_plan(conn, room)
    claimed, _ = await jobs.turn(conn, worker_id=worker_id, ended=ended, plan=plan, room=room)
    return claimed


async def open_plan(conn: Connection, room: int) -> list[Lane]:
    """Return the plan that takes up to `room` jobs from each open lane, by priority."""
    return [
        Lane(lane.priority, lane.provider_id, room, lane.floor_rank)
        for lane in await lanes.open_lanes(conn)
    ]


def an_email_job(**fields: Any) -> NewJob:
    """Return a new job of one lead that every check lets through."""
    return NewJob(**{"type": "email_validation", "payload": EMAIL_PAYLOAD, **fields})


async def enqueue_leads(
    queue: JobQueueManager, leads: int, *, workspace_id: str, provider_id: str = "builtin"
) -> UUID:
    """Enqueue one batch job of that many leads and return its id."""
    payload = {"leadIds": [str(place) for place in range(leads)], "providerId": provider_id}
    new = NewJob("batch_lead_enrichment", payload, workspace_id=workspace_id)
    return (await queue.enqueue(new)).id
