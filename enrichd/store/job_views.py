"""Reads that only people need: the clock, what tells ids apart, how far a batch is, mix-ups."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from enrichd.store.database import Connection

NOW: LiteralString = "select now()"


async def now(conn: Connection) -> datetime:
    """Return the database's time, by which ages are told."""
    row = await (await conn.execute(NOW)).fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


# Two probes of the index `list` for each id; `any` for the reason that job_pages.OLDER has. An
# id that starts with as many digits as its closest neighbour shares, and one more, is found by that
# start and no other job is.
NEIGHBOURS: LiteralString = """
    select wanted.id, older.id, newer.id
      from unnest(%(ids)s::uuid[]) as wanted(id)
      left join lateral (
           select id
             from enrichment_jobs
            where workspace_id = any(array[%(workspace_id)s])
              and id < wanted.id
            order by workspace_id desc, id desc
            limit 1) as older on true
      left join lateral (
           select id
             from enrichment_jobs
            where workspace_id = any(array[%(workspace_id)s])
              and id > wanted.id
            order by workspace_id, id
            limit 1) as newer on true
"""


async def distinct_digits(conn: Connection, *, workspace_id: str, ids: Sequence[UUID]) -> int:
    """Return with how many first digits (of 32) each of the ids is found alone; 0 for no ids."""
    cursor = await conn.execute(NEIGHBOURS, {"ids": list(ids), "workspace_id": workspace_id})
    needed = 0
    async for wanted, *neighbours in cursor:
        for neighbour in neighbours:
            if neighbour is not None:
                needed = max(needed, shared_digits(wanted, neighbour) + 1)
    return min(needed, 32)


def shared_digits(one: UUID, other: UUID) -> int:
    """Return how many hexadecimal digits two ids have in common from the left."""
    return 32 - ((one.int ^ other.int).bit_length() + 3) // 4


ITEM_COUNTS: LiteralString = """
    select status, count(*)
      from enrichment_job_items
     where job_id = %(job_id)s
     group by status
     order by status
"""


async def item_counts(conn: Connection, *, job_id: UUID) -> dict[str, int]:
    """Return how many of a batch's leads have ended, by how they ended."""
    return {
        status: count async for status, count in await conn.execute(ITEM_COUNTS, {"job_id": job_id})
    }


# Compared by PostgreSQL, for which 1e2 and 100 are one number, as in what it stored.
UNLIKE: LiteralString = """
    select wanted.place - 1, job.id
      from unnest(%(ids)s::uuid[], %(types)s::text[], %(payloads)s::text[])
             with ordinality as wanted(id, type, payload, place)
      join enrichment_jobs as job
        on job.id = wanted.id
       and job.workspace_id = %(workspace_id)s
     where job.type <> wanted.type
        or job.payload <> wanted.payload::jsonb
     order by wanted.place
     limit 1
"""


async def first_unlike(
    conn: Connection, *, workspace_id: str, wanted: Sequence[tuple[UUID, str, str]]
) -> tuple[int, UUID] | None:
    """Return the place and id of the first job that is not of the wanted type and payload.

    `wanted` has the id, type and payload (JSON text) of each.
    """
    ids, types, payloads = zip(*wanted, strict=True) if wanted else ((), (), ())
    cursor = await conn.execute(
        UNLIKE,
        {
            "ids": list(ids),
            "types": list(types),
            "payloads": list(payloads),
            "workspace_id": workspace_id,
        },
    )
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1])
