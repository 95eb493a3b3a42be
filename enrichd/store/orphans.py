"""Rows of jobs that are gone: leads and attempts that a `delete` by hand left behind.

Pruning takes them with the job; no foreign key does, since it would cost the hot path a look-up a
row. A sweep walks both tables in steps, each from where the last one stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from enrichd.store.database import Connection

BATCH = 2_000
FIRST_ID = UUID(int=0)

# Each walks its primary key. A row is written only while its job is there, so one without a job
# stays without one.
ITEMS: LiteralString = """
    with step as materialized (
        select job_id, item_key
          from enrichment_job_items
         where (job_id, item_key) > (%(job_id)s::uuid, %(item_key)s::text)
         order by job_id, item_key
         limit %(limit)s
    ),
    gone as (
        delete from enrichment_job_items as item
         using step
         where item.job_id = step.job_id
           and item.item_key = step.item_key
           and not exists (select 1 from enrichment_jobs as job where job.id = step.job_id)
        returning 1
    )
    select job_id, item_key, (select count(*) from gone)
      from step
     order by job_id desc, item_key desc
     limit 1
"""

ATTEMPTS: LiteralString = """
    with step as materialized (
        select id, job_id
          from enrichment_attempt_log
         where id > %(id)s
         order by id
         limit %(limit)s
    ),
    gone as (
        delete from enrichment_attempt_log as entry
         using step
         where entry.id = step.id
           and not exists (select 1 from enrichment_jobs as job where job.id = step.job_id)
        returning 1
    )
    select id, (select count(*) from gone)
      from step
     order by id desc
     limit 1
"""


@dataclass(slots=True)
class Place:
    """How far the walk has come in each table."""

    job_id: UUID = FIRST_ID
    item_key: str = ""
    attempt_id: int = 0


async def sweep(conn: Connection, place: Place, *, limit: int = BATCH) -> int:
    """Take one step in each table, and begin anew at the end; return how many rows went."""
    values = {"job_id": place.job_id, "item_key": place.item_key, "limit": limit}
    row = await (await conn.execute(ITEMS, values)).fetchone()
    items: int
    attempts: int
    place.job_id, place.item_key, items = row or (FIRST_ID, "", 0)
    row = await (await conn.execute(ATTEMPTS, {"id": place.attempt_id, "limit": limit})).fetchone()
    place.attempt_id, attempts = row or (0, 0)
    return items + attempts
