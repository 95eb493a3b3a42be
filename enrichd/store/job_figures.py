"""How many jobs a workspace has, and how fast they move, at a price that stops growing.

Up to COUNTED_MAX jobs everything is counted. Beyond that the states that are few are still counted,
by their indexes, and the rest comes from a sample of the table's pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from enrichd.store.database import Connection
from enrichd.store.stats import Pace, TypeCount

COUNTED_MAX = 10_000
STATE_MAX = 20_000
SAMPLED = 20_000
"""Rows of all workspaces that the sample is to have: large counts are then right within some %."""
HEADS = 1_000


@dataclass(frozen=True, slots=True)
class Figures:
    """A workspace's jobs by type and state, and the pace of the last hour."""

    counts: Sequence[TypeCount]
    totals: Counter[str]
    pace: Pace
    is_exact: bool
    """False: counts above COUNTED_MAX are estimates, and the pace is that of the newest jobs."""


# The newest jobs are walked over once, by the index `list` for the reason that job_pages.OLDER has.
# The run times of the last hour stand on every row.
NEWEST: LiteralString = """
    with newest as materialized (
        select type, status, completed_at,
               extract(epoch from completed_at - started_at)::float8 as run_s
          from enrichment_jobs
         where workspace_id = any(array[%(workspace_id)s])
         order by workspace_id desc, id desc
         limit %(limit)s
    ),
    hour as (
        select percentile_cont(0.5) within group (order by run_s) as p50_s,
               percentile_cont(0.95) within group (order by run_s) as p95_s
          from newest
         where status = 'completed'
           and completed_at > now() - interval '1 hour'
    )
    select type, status, count(*),
           count(*) filter (where completed_at > now() - interval '1 minute'),
           count(*) filter (where completed_at > now() - interval '1 hour'),
           (select p50_s from hour), (select p95_s from hour)
      from newest
     group by type, status
     order by type, status
"""

# The jobs first in line in the index `fair`: ranks grow with time, so the longest wait is among
# them, near enough.
OLDEST_READY: LiteralString = """
    select extract(epoch from now() - min(updated_at))::float8
      from (select updated_at
              from enrichment_jobs
             where workspace_id = %(workspace_id)s
               and status = 'pending'
             limit %(heads)s) as head
"""

# Each by an index of its own that leads with the workspace, but `processing`, which is as long as
# the fleet has places.
FEW_STATES: LiteralString = """
    select 'pending', count(*)
      from (select 1
              from enrichment_jobs
             where workspace_id = %(workspace_id)s
               and status = 'pending'
             limit %(limit)s) as counted
    union all
    select 'processing', count(*)
      from (select 1
              from enrichment_jobs
             where workspace_id = %(workspace_id)s
               and status = 'processing'
             limit %(limit)s) as counted
    union all
    select wanted.state, counted.jobs
      from unnest(array['scheduled', 'waiting', 'failed', 'dead_letter', 'cancelled'])
             as wanted(state)
     cross join lateral (
           select count(*) as jobs
             from (select 1
                     from enrichment_jobs
                    where workspace_id = %(workspace_id)s
                      and status = wanted.state
                      and status in ('scheduled', 'waiting', 'failed', 'dead_letter', 'cancelled')
                    limit %(limit)s) as one) as counted
"""

# Whole pages by chance: reading a few hundred of them says how the rest looks.
SAMPLE_PERCENT: LiteralString = """
    select least(100.0 * %(limit)s
                 / greatest(reltuples, pg_relation_size(oid) / 2000, 1), 100.0)::float4
      from pg_class
     where oid = 'enrichment_jobs'::regclass
"""

SAMPLE: LiteralString = """
    select type, status, count(*)
      from enrichment_jobs tablesample system (%(percent)s)
     where workspace_id = %(workspace_id)s
     group by type, status
     order by type, status
"""


async def figures(conn: Connection, *, workspace_id: str, live_workers: int) -> Figures:
    """Return a workspace's figures; `live_workers` is for the pace."""
    values = {"workspace_id": workspace_id, "limit": COUNTED_MAX, "heads": HEADS}
    cursor = await conn.execute(NEWEST, values)
    newest = await cursor.fetchall()
    pace = await pace_of(conn, newest, values, live_workers)
    counts = [TypeCount(job_type, status, jobs) for job_type, status, jobs, *_ in newest]
    if sum(count.jobs for count in counts) < COUNTED_MAX:
        return Figures(counts, by_status(counts), pace, True)
    counts = await sampled(conn, values)
    totals = by_status(counts)
    cursor = await conn.execute(FEW_STATES, {**values, "limit": STATE_MAX})
    for status, jobs in await cursor.fetchall():
        if jobs < STATE_MAX:
            totals[status] = jobs
        else:
            totals[status] = max(totals[status], jobs)
    return Figures(counts, totals, pace, False)


async def pace_of(
    conn: Connection,
    newest: Sequence[tuple[Any, ...]],
    values: dict[str, object],
    live_workers: int,
) -> Pace:
    """Return the last hour's figures of the newest jobs."""
    completed = [row for row in newest if row[1] == "completed"]
    failed = [row for row in newest if row[1] in ("failed", "dead_letter")]
    oldest = await (await conn.execute(OLDEST_READY, values)).fetchone()
    assert oldest is not None
    return Pace(
        completed_1m=sum(row[3] for row in completed),
        completed_1h=sum(row[4] for row in completed),
        failed_1h=sum(row[4] for row in failed),
        run_p50_s=newest[0][5] if newest else None,
        run_p95_s=newest[0][6] if newest else None,
        oldest_ready_s=oldest[0],
        workers=live_workers,
    )


async def sampled(conn: Connection, values: dict[str, object]) -> list[TypeCount]:
    """Return the jobs by type and state, as a sample lets expect them."""
    row = await (await conn.execute(SAMPLE_PERCENT, {"limit": SAMPLED})).fetchone()
    assert row is not None
    cursor = await conn.execute(SAMPLE, {**values, "percent": row[0]})
    return [
        TypeCount(job_type, status, round(jobs * 100 / row[0]))
        for job_type, status, jobs in await cursor.fetchall()
    ]


def by_status(counts: Sequence[TypeCount]) -> Counter[str]:
    """Return the jobs by state alone."""
    totals: Counter[str] = Counter()
    for count in counts:
        totals[count.status] += count.jobs
    return totals


LIVE_WORKERS: LiteralString = """
    select count(*) from enrichment_workers where state <> 'dead'
"""


async def live_workers(conn: Connection) -> int:
    """Return how many workers there are, on all hosts; they serve all workspaces."""
    row = await (await conn.execute(LIVE_WORKERS)).fetchone()
    assert row is not None
    return int(row[0])
