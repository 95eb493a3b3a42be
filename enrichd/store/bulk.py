"""Many new jobs by COPY: fresh ids and no keys, which cannot collide with earlier ones.

It was measured against `new_jobs.ENQUEUE_MANY` in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import LiteralString, TypeAlias
from uuid import UUID

from psycopg.rows import tuple_row

from enrichd.store.arrays import plain_array, text_array
from enrichd.store.database import Connection
from enrichd.store.new_jobs import Row, enqueue_many

RANK_BASES: LiteralString = """
    with new as materialized (
        select asked.workspace_id, asked.provider_id, asked.priority,
               asked.provider_id || coalesce('#' || brought.workspace_id, '') as lane
          from unnest(%(workspaces)s::text[], %(lanes)s::text[], %(priorities)s::smallint[])
                 as asked(workspace_id, provider_id, priority)
          left join enrichment_provider_keys as brought
            on brought.workspace_id = asked.workspace_id
           and brought.provider_id = asked.provider_id
    ),
    made as (
        insert into enrichment_lanes (provider_id, priority)
        select distinct lane, priority from new
            on conflict do nothing
    )
    select workspace_id, provider_id, priority, lane,
           enrichment_rank_base(workspace_id, lane, priority),
           exists (select 1
                     from enrichment_webhooks as hook
                    where hook.workspace_id = new.workspace_id
                      and hook.enabled),
           row_security_active('enrichment_jobs')
      from new
"""

COPY: LiteralString = """
    copy enrichment_jobs (workspace_id, provider_id, priority, fair_rank, id, type, payload, tags,
                          max_retries, cost, webhook_url)
    from stdin
"""

TELL_COPIED: LiteralString = "select enrichment_tell_created(%(ids)s::uuid[])"

BATCHES_AHEAD_MAX = 16
HEARD_MAX = 10_000
"""Jobs to tell of after which a COPY ends, so that their ids are never many in memory."""

Group: TypeAlias = tuple[str, str, int]
"""A workspace, a provider and a priority: what shares one lane and one row of ranks."""


@dataclass(slots=True)
class Standing:
    """How far a group has come while its jobs go in, and its columns in COPY's text format."""

    text: str
    rank: int
    is_heard: bool
    """Whether somebody may want to hear of the group's new jobs."""
    is_held: bool
    """Whether row level security holds us, which PostgreSQL has no COPY for."""


async def copy_in(conn: Connection, batches: Iterable[Sequence[Row]]) -> None:
    """Put many new jobs on the queue, ready at once; ids must be new and keys absent.

    Rows are made while PostgreSQL takes in those before, so the batches should be small: it works
    on what fits its socket. A COPY goes on until a job of a new group comes; then the search for
    ranks reads ahead, further each time, so that many groups cost few searches. Who is no superuser
    inserts by statements: there is no COPY under row level security, whatever it allows.
    """
    remaining = iter(batches)
    standings: dict[Group, Standing] = {}
    ahead = 1
    rows: Sequence[Row] = next(remaining, ())
    while rows:
        rows = [*rows, *chain.from_iterable(islice(remaining, ahead - 1))]
        ahead = min(2 * ahead, BATCHES_AHEAD_MAX)
        groups = {(row.workspace_id, row.provider_id, row.priority) for row in rows}
        standings |= await standings_of(conn, groups - standings.keys())
        if any(standing.is_held for standing in standings.values()):
            while rows:
                await enqueue_many(conn, rows)
                rows = [*chain.from_iterable(islice(remaining, BATCHES_AHEAD_MAX))]
            return
        heard: list[UUID] = []
        async with conn.cursor() as cursor, cursor.copy(COPY) as copy:
            while rows:
                lines = copy_lines(rows, standings, heard)
                await copy.write("".join(lines))
                if len(lines) < len(rows):
                    rows = rows[len(lines) :]
                    break
                rows = next(remaining, ())
                if len(heard) >= HEARD_MAX:
                    break
        if heard:
            await conn.execute(TELL_COPIED, {"ids": plain_array(heard)})


async def standings_of(conn: Connection, groups: Iterable[Group]) -> dict[Group, Standing]:
    """Return where the ranks of each group start."""
    wanted = list(groups)
    cursor = conn.cursor(row_factory=tuple_row)
    await cursor.execute(
        RANK_BASES,
        {
            "workspaces": text_array([group[0] for group in wanted]),
            "lanes": text_array([group[1] for group in wanted]),
            "priorities": plain_array([group[2] for group in wanted]),
        },
    )
    return {
        (ws, name, prio): Standing(
            f"{copy_text(ws)}\t{copy_text(lane)}\t{prio}", base, is_heard, is_held
        )
        async for ws, name, prio, lane, base, is_heard, is_held in cursor
    }


def copy_lines(
    rows: Sequence[Row], standings: Mapping[Group, Standing], heard: list[UUID]
) -> list[str]:
    """Return rows in COPY's text format up to the first of an unknown group; ranks run on.

    The ids of those that somebody may want to hear of are added to `heard`.
    """
    lines = []
    for row in rows:
        standing = standings.get((row.workspace_id, row.provider_id, row.priority))
        if standing is None:
            break
        standing.rank += row.cost
        if standing.is_heard or row.webhook_url is not None:
            heard.append(row.id)
        lines.append(
            f"{standing.text}\t{standing.rank}\t{row.id.hex}\t{copy_text(row.type)}\t"
            f"{copy_text(row.payload)}\t{copy_text(text_array(row.tags)) if row.tags else '{}'}\t"
            f"{row.max_retries}\t{row.cost}\t"
            f"{copy_text(row.webhook_url) if row.webhook_url is not None else NULL}\n"
        )
    return lines


NULL = "\\N"


def copy_text(text: str) -> str:
    """Escape one value for COPY's text format."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
