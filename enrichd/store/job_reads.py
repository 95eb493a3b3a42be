"""Reading jobs: one, by prefix, lists by keyset, results in bulk, attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from enrichd.domain.jobs import Job, JobStatus
from enrichd.store.database import Connection
from enrichd.store.json_text import loads

LIST_MAX = 1000

COLUMNS: LiteralString = """
    select id, workspace_id, type, status, priority, provider_id, tags, attempts, max_retries,
           progress_done, progress_total, created_at, updated_at, scheduled_at, started_at,
           completed_at, cancel_requested_at, worker_id, webhook_url, idempotency_key
"""

BODIES: LiteralString = ", payload::text, result::text, error::text"
NO_BODIES: LiteralString = ", null, null, error::text"

GET: LiteralString = (
    COLUMNS + BODIES + " from enrichment_jobs where id = %(id)s and workspace_id = %(workspace_id)s"
)


async def get(conn: Connection, *, workspace_id: str, job_id: UUID) -> Job | None:
    """Return one job with its payload and result, or None."""
    cursor = await conn.execute(GET, {"id": job_id, "workspace_id": workspace_id})
    row = await cursor.fetchone()
    return job_of(row) if row else None


def job_of(row: tuple[Any, ...]) -> Job:
    """Make a job of a row of COLUMNS and three JSON texts."""
    *columns, payload, result, error = row
    columns[3] = JobStatus(columns[3])
    columns += [loads(payload), loads(result), loads(error)]
    return Job(*columns)


FIND_BY_PREFIX: LiteralString = """
    select id
      from enrichment_jobs
     where id between %(low)s and %(high)s
       and workspace_id = %(workspace_id)s
     order by id
     limit %(limit)s
"""


async def find_by_prefix(
    conn: Connection, *, workspace_id: str, prefix: str, limit: int = 5
) -> list[UUID]:
    """Return the ids that start with `prefix` (hexadecimal, hyphens ignored), at most `limit`."""
    digits = prefix.replace("-", "")
    cursor = await conn.execute(
        FIND_BY_PREFIX,
        {
            "low": UUID(digits.ljust(32, "0")),
            "high": UUID(digits.ljust(32, "f")),
            "workspace_id": workspace_id,
            "limit": limit,
        },
    )
    return [job_id async for (job_id,) in cursor]


# Newest first by the index `list` and a keyset (ids grow with time), so a page costs the same at
# any depth; `is null or id <` would be no bound of the index in a generic plan, and with
# `workspace_id =` the planner may walk the primary key, and other workspaces' jobs with it. Another
# filter that is null lets everything through.
LIST: LiteralString = (
    COLUMNS
    + NO_BODIES
    + """
      from enrichment_jobs
     where workspace_id between %(workspace_id)s and %(workspace_id)s
       and id < coalesce(%(before)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
       and (%(statuses)s::text[] is null or status = any(%(statuses)s))
       and (%(type)s::text is null or type = %(type)s)
       and (%(provider_id)s::text is null
            or provider_id in (%(provider_id)s, %(provider_id)s::text || '#' || workspace_id))
       and (%(tag)s::text is null or %(tag)s = any(tags))
     order by workspace_id desc, id desc
     limit %(limit)s
"""
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs a list shows; None lets everything through."""

    workspace_id: str
    statuses: Sequence[str] | None = None
    type: str | None = None
    provider_id: str | None = None
    """A provider's lane, with the common key or the workspace's own."""
    tag: str | None = None
    before: UUID | None = None


async def list_jobs(conn: Connection, wanted: Filter, *, limit: int = 20) -> list[Job]:
    """Return jobs, newest first, without payload and result; at most LIST_MAX."""
    cursor = await conn.execute(
        LIST,
        {
            "workspace_id": wanted.workspace_id,
            "statuses": list(wanted.statuses) if wanted.statuses else None,
            "type": wanted.type,
            "provider_id": wanted.provider_id,
            "tag": wanted.tag,
            "before": wanted.before,
            "limit": min(limit, LIST_MAX),
        },
    )
    return [job_of(row) async for row in cursor]


@dataclass(frozen=True, slots=True)
class End:
    """Where a job stands and what it gave; `result` is JSON text."""

    status: JobStatus
    result: str | None
    error: str | None


ENDS: LiteralString = """
    select id, status, result::text, error::text
      from enrichment_jobs
     where id = any(%(ids)s)
       and status in ('completed', 'failed', 'cancelled', 'dead_letter')
"""


async def ends(conn: Connection, *, ids: Sequence[UUID]) -> dict[UUID, End]:
    """Return those of the jobs that have ended, with their results."""
    cursor = await conn.execute(ENDS, {"ids": list(ids)})
    return {
        job_id: End(JobStatus(status), result, error)
        async for job_id, status, result, error in cursor
    }


STATUSES: LiteralString = """
    select id, status from enrichment_jobs
     where id = any(%(ids)s) and workspace_id = %(workspace_id)s
"""


async def statuses(
    conn: Connection, *, workspace_id: str, ids: Sequence[UUID]
) -> dict[UUID, JobStatus]:
    """Return where jobs stand; a job that does not exist is absent."""
    cursor = await conn.execute(STATUSES, {"ids": list(ids), "workspace_id": workspace_id})
    return {job_id: JobStatus(status) async for job_id, status in cursor}


IDS: LiteralString = """
    select id
      from enrichment_jobs
     where workspace_id = %(workspace_id)s
       and status = any(%(statuses)s)
       and (%(type)s::text is null or type = %(type)s)
       and (%(provider_id)s::text is null
            or provider_id in (%(provider_id)s, %(provider_id)s::text || '#' || workspace_id))
       and (%(tag)s::text is null or %(tag)s = any(tags))
     order by id
     limit %(limit)s
"""


async def ids(conn: Connection, wanted: Filter, *, limit: int) -> list[UUID]:
    """Return the ids of jobs in the wanted states, oldest first."""
    assert wanted.statuses is not None
    cursor = await conn.execute(
        IDS,
        {
            "workspace_id": wanted.workspace_id,
            "statuses": list(wanted.statuses),
            "type": wanted.type,
            "provider_id": wanted.provider_id,
            "tag": wanted.tag,
            "limit": limit,
        },
    )
    return [job_id async for (job_id,) in cursor]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job; `outcome` is None while it runs."""

    attempt: int
    worker_id: UUID | None
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str | None
    error: Any


ATTEMPTS: LiteralString = """
    select attempt, worker_id, started_at, finished_at, outcome, error::text
      from enrichment_job_attempts
     where job_id = %(job_id)s
     order by started_at, finished_at
     limit 1000
"""


async def attempts(conn: Connection, *, job_id: UUID) -> list[Attempt]:
    """Return a job's attempts, oldest first, at most 1,000."""
    cursor = await conn.execute(ATTEMPTS, {"job_id": job_id})
    return [Attempt(*[*row[:5], loads(row[5])]) async for row in cursor]
