"""Figures about the queue as it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from enrichd.store.database import Connection


@dataclass(frozen=True, slots=True)
class TypeCount:
    """How many jobs of a type are in a state."""

    type: str
    status: str
    jobs: int


COUNTS: LiteralString = """
    select type, status, count(*)
      from enrichment_jobs
     where workspace_id = %(workspace_id)s
     group by type, status
     order by type, status
"""


async def counts(conn: Connection, *, workspace_id: str) -> list[TypeCount]:
    """Return the jobs of a workspace counted by type and state."""
    cursor = await conn.execute(COUNTS, {"workspace_id": workspace_id})
    return [TypeCount(*row) async for row in cursor]


@dataclass(frozen=True, slots=True)
class Pace:
    """How the last hour went, and how long the oldest ready job has waited."""

    completed_1m: int
    completed_1h: int
    failed_1h: int
    run_p50_s: float | None
    run_p95_s: float | None
    oldest_ready_s: float | None
    workers: int


# The index `prune` bounds it to the last hour's jobs.
PACE: LiteralString = """
    with ended as (
        select status, completed_at, extract(epoch from completed_at - started_at)::float8 as run_s
          from enrichment_jobs
         where status in ('completed', 'failed', 'cancelled', 'dead_letter')
           and completed_at > now() - interval '1 hour'
           and workspace_id = %(workspace_id)s
    )
    select count(*) filter (where status = 'completed'
                              and completed_at > now() - interval '1 minute'),
           count(*) filter (where status = 'completed'),
           count(*) filter (where status in ('failed', 'dead_letter')),
           percentile_cont(0.5) within group (order by run_s) filter (where status = 'completed'),
           percentile_cont(0.95) within group (order by run_s) filter (where status = 'completed'),
           (select extract(epoch from now() - min(updated_at))::float8
              from enrichment_jobs
             where status = 'pending' and workspace_id = %(workspace_id)s),
           (select count(*) from enrichment_workers where state <> 'dead')
      from ended
"""


async def pace(conn: Connection, *, workspace_id: str) -> Pace:
    """Return the last hour's figures of a workspace."""
    row = await (await conn.execute(PACE, {"workspace_id": workspace_id})).fetchone()
    assert row is not None
    return Pace(*row)
