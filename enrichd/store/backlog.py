"""How much work is left."""

from __future__ import annotations

from typing import LiteralString

from enrichd.store.database import Connection

# By the index `ready`, one descent for each lane and priority from its rank floor: what was run a
# moment ago lies below and is not walked over.
READY: LiteralString = """
    select count(*)
      from (select 1
              from enrichment_lanes as lane
             cross join lateral (
                   select 1
                     from enrichment_jobs as job
                    where job.status = 'pending'
                      and job.provider_id = lane.provider_id
                      and job.priority = lane.priority
                      and job.fair_rank >= lane.floor_rank
                    limit %(limit)s) as ready
             limit %(limit)s) as counted
"""


async def ready(conn: Connection, *, limit: int) -> int:
    """Return how many jobs of all workspaces could be claimed, were their providers willing."""
    cursor = await conn.execute(READY, {"limit": limit})
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
