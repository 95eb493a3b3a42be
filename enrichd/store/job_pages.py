"""Pages of a workspace's jobs, newest first, at a price that neither depth nor filters raise.

A page goes on where the one before ended, by id; ids never change, so a job is not shown twice and
none is skipped, whatever happens to the jobs meanwhile. How many rows a page looks at is bounded: a
filter that nothing fits gives a short or empty page, with the place to go on from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from enrichd.domain.jobs import Job
from enrichd.store.database import Connection
from enrichd.store.job_reads import COLUMNS, NO_BODIES, job_of

PAGE_MAX = 200
SEEN_MAX = 10_000
SEEN_MAX_TEXT = 1_000
"""Searching for text reads payloads, which lie outside the row."""
FEW = 2_000

SIDE = frozenset({"scheduled", "waiting", "failed", "dead_letter", "cancelled"})
"""The states of the index `side`."""
LIVE = frozenset({"pending", "processing"})

NEWEST = UUID("ffffffff-ffff-ffff-ffff-ffffffffffff")

FITS: LiteralString = """
       (%(statuses)s::text[] is null or job.status = any(%(statuses)s))
   and (%(type)s::text is null or job.type = %(type)s)
   and (%(provider_id)s::text is null
        or job.provider_id in (%(provider_id)s, %(provider_id)s::text || '#' || job.workspace_id))
   and (%(tag)s::text is null or %(tag)s = any(job.tags))
   and (%(created_after)s::timestamptz is null or job.created_at > %(created_after)s)
   and (%(created_before)s::timestamptz is null or job.created_at < %(created_before)s)
   and (%(text)s::text is null
        or job.id::text ilike %(text)s or job.type ilike %(text)s
        or job.provider_id ilike %(text)s or job.idempotency_key ilike %(text)s
        or array_to_string(job.tags, ' ') ilike %(text)s or job.error::text ilike %(text)s
        or job.payload::text ilike %(text)s)
"""

# A workspace's jobs older than one, to be walked by the index `list` from there on. With a plain
# `workspace_id =`, here or in the policy, the primary key has the order too, and the planner walks
# that one for whoever has some percent of the table: over a million jobs of others, if theirs are
# the newest. A range of rows, (workspace_id, id) < …, is no place to start from beside the policy:
# at the depth of a million a page took 65 ms instead of 4.
OLDER: LiteralString = """
                   workspace_id = any(array[%(workspace_id)s]) and id < %(before)s
"""

# The inner limit keeps the filter from walking on through the whole history; the outer one stops
# the walk as soon as the page is full.
PAGE: LiteralString = f"""
{COLUMNS}{NO_BODIES}
      from (select *
              from enrichment_jobs
             where {OLDER}
             order by workspace_id desc, id desc
             limit %(seen_max)s) as job
     where {FITS}
     order by workspace_id desc, id desc
     limit %(limit)s
"""  # noqa: S608 - made of constants

PAGE_END: LiteralString = f"""
    select id
      from enrichment_jobs
     where {OLDER}
     order by workspace_id desc, id desc
    offset %(seen_max)s - 1
     limit 1
"""  # noqa: S608 - made of constants

# One walk of the index `side` for each state. The list of states stands here a second time because
# the planner must see that the index's condition holds.
SIDE_PAGE: LiteralString = f"""
{COLUMNS}{NO_BODIES}
      from unnest(%(states)s::text[]) as wanted(state)
     cross join lateral (
           select *
             from (select *
                     from enrichment_jobs
                    where workspace_id = %(workspace_id)s
                      and status = wanted.state
                      and status in ('scheduled', 'waiting', 'failed', 'dead_letter', 'cancelled')
                      and id < %(before)s
                    order by id desc
                    limit %(seen_max)s) as job
            where {FITS}
            order by id desc
            limit %(limit)s) as job
     order by id desc
     limit %(limit)s
"""  # noqa: S608 - made of constants

SIDE_END: LiteralString = """
    select last.id
      from unnest(%(states)s::text[]) as wanted(state)
     cross join lateral (
           select id
             from enrichment_jobs
            where workspace_id = %(workspace_id)s
              and status = wanted.state
              and status in ('scheduled', 'waiting', 'failed', 'dead_letter', 'cancelled')
              and id < %(before)s
            order by id desc
           offset %(seen_max)s - 1
            limit 1) as last
     order by last.id desc
     limit 1
"""

# By the indexes `fair` and `running`: neither has the ids in order, so it is for few jobs.
LIVE_IDS: LiteralString = """
    (select id
       from enrichment_jobs
      where workspace_id = %(workspace_id)s
        and status = 'pending'
        and 'pending' = any(%(statuses)s)
      limit %(few)s)
    union all
    (select id
       from enrichment_jobs
      where workspace_id = %(workspace_id)s
        and status = 'processing'
        and 'processing' = any(%(statuses)s)
      limit %(few)s)
"""

LIVE_PAGE: LiteralString = f"""
{COLUMNS}{NO_BODIES}
      from (select *
              from enrichment_jobs
             where workspace_id = %(workspace_id)s
               and id = any(%(ids)s)
               and id < %(before)s) as job
     where {FITS}
     order by id desc
     limit %(limit)s
"""  # noqa: S608 - made of constants


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs; None lets everything through."""

    workspace_id: str
    statuses: Sequence[str] | None = None
    type: str | None = None
    provider_id: str | None = None
    """A provider's lane, with the common key or the workspace's own."""
    tag: str | None = None
    text: str | None = None
    """What an id, type, lane, key, tag, error or payload holds, in any case."""
    created_after: datetime | None = None
    created_before: datetime | None = None

    @property
    def is_narrow(self) -> bool:
        """Say whether more than the state decides."""
        parts = (self.type, self.provider_id, self.tag, self.text)
        return any(part is not None for part in (*parts, self.created_after, self.created_before))


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs without payload and result, and the id before which the next page starts."""

    jobs: Sequence[Job]
    next_before: UUID | None
    """None at the end."""


async def page(
    conn: Connection, wanted: Wanted, *, before: UUID | None = None, limit: int = 50
) -> Page:
    """Return the newest jobs that are older than `before`, at most `limit` and PAGE_MAX."""
    limit = min(limit, PAGE_MAX)
    values = {
        "workspace_id": wanted.workspace_id,
        "statuses": None if wanted.statuses is None else list(wanted.statuses),
        "type": wanted.type,
        "provider_id": wanted.provider_id,
        "tag": wanted.tag,
        "text": None if wanted.text is None else containing(wanted.text),
        "created_after": wanted.created_after,
        "created_before": wanted.created_before,
        "before": before or NEWEST,
        "limit": limit + 1,
        "seen_max": SEEN_MAX if wanted.text is None else SEEN_MAX_TEXT,
    }
    statuses = set(wanted.statuses or ())
    if statuses and statuses <= SIDE | LIVE:
        ids = await live_ids(conn, values, statuses & LIVE)
        if ids is not None:
            chosen = {**values, "ids": ids, "states": sorted(statuses & SIDE)}
            return await page_of_some(conn, chosen, limit, is_narrow=wanted.is_narrow)
    found = await jobs_by(conn, PAGE, values)
    if len(found) > limit:
        return Page(found[:limit], found[limit - 1].id)
    return Page(found, await last_seen(conn, PAGE_END, values))


async def page_of_some(
    conn: Connection, values: dict[str, Any], limit: int, *, is_narrow: bool
) -> Page:
    """Return a page of jobs in states that are few: by state, and by id those that are live."""
    found: list[Job] = []
    end = None
    if values["states"]:
        found += await jobs_by(conn, SIDE_PAGE, values)
        # What one state has below the place where another's walk ended is for the next page.
        end = await last_seen(conn, SIDE_END, values) if is_narrow else None
    if values["ids"]:
        found += await jobs_by(conn, LIVE_PAGE, values)
    found.sort(key=lambda job: job.id, reverse=True)
    if end is not None:
        found = [job for job in found if job.id >= end]
    if len(found) > limit:
        return Page(found[:limit], found[limit - 1].id)
    return Page(found, end)


async def live_ids(
    conn: Connection, values: dict[str, Any], statuses: set[str]
) -> list[UUID] | None:
    """Return the ids of pending and processing jobs, None if they are too many to sort."""
    if not statuses:
        return []
    cursor = await conn.execute(LIVE_IDS, {**values, "statuses": list(statuses), "few": FEW + 1})
    ids = [job_id for (job_id,) in await cursor.fetchall()]
    return ids if len(ids) <= FEW else None


async def jobs_by(conn: Connection, statement: LiteralString, values: dict[str, Any]) -> list[Job]:
    """Return a statement's jobs."""
    return [job_of(row) for row in await (await conn.execute(statement, values)).fetchall()]


async def last_seen(
    conn: Connection, statement: LiteralString, values: dict[str, Any]
) -> UUID | None:
    """Return the last job a walk looked at, None if it came to the end."""
    row = await (await conn.execute(statement, values)).fetchone()
    return row[0] if row else None


def containing(text: str) -> str:
    """Return the pattern of what holds a text."""
    escaped = text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"
