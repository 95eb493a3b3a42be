"""Deleting jobs that ended long ago, with all that belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from enrichd.store.database import Connection

BATCH = 1000

# Reads the index `prune` from its old end. Items, attempts and webhook deliveries go in the
# same statement, since no foreign key does it (one would cost the hot path a look-up a row).
PRUNE: LiteralString = """
    with old as materialized (
        select id
          from enrichment_jobs
         where status in ('completed', 'failed', 'cancelled', 'dead_letter')
           and status = any(%(statuses)s)
           and completed_at < now() - make_interval(secs => %(age_s)s)
           and (%(workspace_id)s::text is null or workspace_id = %(workspace_id)s)
         order by completed_at
         limit %(limit)s
           for update skip locked
    ),
    items as (
        delete from enrichment_job_items as item using old where item.job_id = old.id
    ),
    log as (
        delete from enrichment_attempt_log as entry using old where entry.job_id = old.id
    ),
    deliveries as (
        delete from enrichment_webhook_deliveries as delivery using old
         where delivery.job_id = old.id
    )
    delete from enrichment_jobs as job using old where job.id = old.id
"""


async def prune(
    conn: Connection,
    *,
    statuses: Sequence[str],
    age_s: float,
    workspace_id: str | None = None,
    limit: int = BATCH,
) -> int:
    """Delete jobs that ended more than `age_s` ago; return how many, at most `limit`."""
    cursor = await conn.execute(
        PRUNE,
        {
            "statuses": list(statuses),
            "age_s": age_s,
            "workspace_id": workspace_id,
            "limit": limit,
        },
    )
    return cursor.rowcount


COUNT: LiteralString = """
    select count(*)
      from enrichment_jobs
     where status in ('completed', 'failed', 'cancelled', 'dead_letter')
       and status = any(%(statuses)s)
       and completed_at < now() - make_interval(secs => %(age_s)s)
       and (%(workspace_id)s::text is null or workspace_id = %(workspace_id)s)
"""


async def count(
    conn: Connection, *, statuses: Sequence[str], age_s: float, workspace_id: str | None = None
) -> int:
    """Return how many jobs `prune` would delete in all."""
    cursor = await conn.execute(
        COUNT, {"statuses": list(statuses), "age_s": age_s, "workspace_id": workspace_id}
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
