"""A batch's finished leads: one row each, so that a batch resumes where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from enrichd.store.arrays import plain_array, text_array
from enrichd.store.database import Connection
from enrichd.store.faults import around
from enrichd.store.json_text import loads
from enrichd.store.telling import TELL_ITEMS, TELL_PROGRESS


@dataclass(frozen=True, slots=True)
class NewItem:
    """A finished lead to write; `result` and `error` are JSON text."""

    job_id: str
    attempt: int
    item_key: str
    status: str
    result: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Item:
    """A finished lead as it was kept."""

    item_key: str
    status: str
    result: Any
    error: Any


# Fenced like every write about a run. The share lock makes rescue wait for this commit, so a lead
# is never written for a run that was given away in between. A lead that is there already stays:
# the attempt before wrote it and died before it could say so.
RECORD: LiteralString = f"""
    with new as materialized (
        select * from unnest(%(jobs)s::uuid[], %(attempts)s::int[], %(keys)s::text[],
                             %(statuses)s::text[], %(results)s::text[], %(errors)s::text[])
            as new(job_id, attempt, item_key, status, result, error)
    ),
    owned as materialized (
        select job.id, job.attempts, job.workspace_id, job.type, job.webhook_url
          from enrichment_jobs as job
         where job.id in (select job_id from new)
           and job.worker_id = %(worker_id)s
           and job.status = 'processing'
         order by job.id
           for share
    ),
    kept as (
        insert into enrichment_job_items
               (job_id, item_key, workspace_id, status, result, error)
        select new.job_id, new.item_key, owned.workspace_id, new.status, new.result::jsonb,
               new.error::jsonb
          from new
          join owned on owned.id = new.job_id and owned.attempts = new.attempt
            on conflict (job_id, item_key) do nothing
        returning job_id, item_key, status, error
    ),
    finished as (
        select owned.id, owned.workspace_id, owned.type, owned.webhook_url, kept.item_key,
               kept.status, kept.error, new.result
          from kept
          join owned on owned.id = kept.job_id
          join new on new.job_id = kept.job_id and new.item_key = kept.item_key
    ),
    told as ({TELL_ITEMS})
    select distinct owned.id::text
      from new
      join owned on owned.id = new.job_id and owned.attempts = new.attempt
"""  # noqa: S608 - made of constants


@around("item")
async def record(conn: Connection, *, worker_id: UUID, items: Sequence[NewItem]) -> set[str]:
    """Keep finished leads; return the ids of the jobs that the worker still owns."""
    cursor = await conn.execute(
        RECORD,
        {
            "worker_id": worker_id,
            "jobs": plain_array([item.job_id for item in items]),
            "attempts": plain_array([item.attempt for item in items]),
            "keys": text_array([item.item_key for item in items]),
            "statuses": plain_array([item.status for item in items]),
            "results": text_array([item.result for item in items]),
            "errors": text_array([item.error for item in items]),
        },
    )
    return {job_id for (job_id,) in await cursor.fetchall()}


LIST: LiteralString = """
    select item_key, status, result::text, error::text
      from enrichment_job_items
     where job_id = %(job_id)s
     order by item_key
"""


async def list_all(conn: Connection, *, job_id: UUID) -> list[Item]:
    """Return the finished leads of a batch, by key; at most as many as a batch may have."""
    cursor = await conn.execute(LIST, {"job_id": job_id})
    return [
        Item(key, status, loads(result), loads(error))
        async for key, status, result, error in cursor
    ]


# progress_done and updated_at stand in no index, so this update stays inside its page (HOT).
PROGRESS: LiteralString = f"""
    with moved as (
        update enrichment_jobs as job
           set progress_done = new.done, progress_total = new.total, updated_at = now()
          from unnest(%(jobs)s::uuid[], %(attempts)s::int[], %(dones)s::int[], %(totals)s::int[])
                 as new(job_id, attempt, done, total)
         where job.id = new.job_id
           and job.worker_id = %(worker_id)s
           and job.attempts = new.attempt
           and job.status = 'processing'
        returning job.id, job.workspace_id, job.type, job.attempts, job.webhook_url,
                  job.progress_done, job.progress_total
    )
    {TELL_PROGRESS}
"""  # noqa: S608 - made of constants


@around("progress")
async def progress(
    conn: Connection, *, worker_id: UUID, rows: Sequence[tuple[str, int, int, int]]
) -> None:
    """Write how far runs are: (job id, attempt, done, total) each."""
    await conn.execute(
        PROGRESS,
        {
            "worker_id": worker_id,
            "jobs": plain_array([row[0] for row in rows]),
            "attempts": plain_array([row[1] for row in rows]),
            "dones": plain_array([row[2] for row in rows]),
            "totals": plain_array([row[3] for row in rows]),
        },
    )
