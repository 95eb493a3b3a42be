"""Rate limits: permits to call a provider, given out to all processes by one clock.

A *bucket* is a credential; a *permit* is the right to make one call between two moments of
PostgreSQL's clock. How they are counted is said in the migration, where the functions are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from psycopg.rows import dict_row

from enrichd.store.database import RACE_TRIES, RACES, Connection
from enrichd.store.faults import around

PRIORITIES = 5
SHARED = "*"
"""The operation of a limit that all operations share."""


@dataclass(frozen=True, slots=True)
class WindowRow:
    """A limit of ours: at most `calls` in any `seconds`; for one operation, or SHARED."""

    operation: str
    seconds: int
    calls: int


@dataclass(frozen=True, slots=True)
class TakenWindow:
    """A window that counts for a question: the limit in force and what is left of it now."""

    operation: str
    seconds: int
    limit: int
    left: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Some permits, from `start_us` until just before `end_us`."""

    start_us: int
    end_us: int
    permits: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What was given; moments are microseconds of PostgreSQL's clock."""

    now_us: int
    grants: Sequence[Grant]
    next_us: int
    """When the next permit begins that nobody has."""
    soft_us: int | None
    """The first of successive moments to come back at, for those who cannot wait that long."""
    soft_step_us: int
    windows: Sequence[TakenWindow] = field(default=())


# One round trip and one commit, whatever the number of permits and windows. It locks the windows'
# rows in key order, and after them the provider's state if the lane is to be blocked.
TAKE: LiteralString = """
    select *
      from enrichment_take_permits(
               %(bucket)s, %(operation)s, %(wanted)s::int[], %(spare)s, %(operations)s::text[],
               %(windows)s::int[], %(calls)s::int[], %(unused)s::bigint[], %(slack_us)s::int,
               %(patience_s)s::float8,
               to_timestamp(%(at_us)s::float8 / 1000000))
"""


@around("permits")
async def take(
    conn: Connection,
    *,
    bucket: str,
    operation: str,
    windows: Sequence[WindowRow],
    wanted: Sequence[int],
    spare: int = 0,
    unused: Sequence[int] = (),
    slack_us: int = 20_000,
    patience_s: float = 5.0,
    at_us: int | None = None,
) -> Taken:
    """Take up to so many permits, `wanted` by priority from 1 to 5, and give back unused ones.

    `spare` more are taken if there is plenty. `unused` are the `end_us` of permits that no call was
    made with, one entry each. `at_us` is for tests.
    """
    assert len(wanted) == PRIORITIES
    values: dict[str, Any] = {
        "bucket": bucket,
        "operation": operation,
        "wanted": list(wanted),
        "spare": spare,
        "operations": [window.operation for window in windows],
        "windows": [window.seconds for window in windows],
        "calls": [window.calls for window in windows],
        "unused": list(unused),
        "slack_us": slack_us,
        "patience_s": patience_s,
        "at_us": at_us,
    }
    row = await _again_after_races(conn, TAKE, values)
    assert row is not None
    return Taken(
        now_us=row["now_us"],
        grants=[
            Grant(*grant) for grant in zip(row["starts"], row["ends"], row["counts"], strict=True)
        ],
        next_us=row["next_us"],
        soft_us=row["soft_us"],
        soft_step_us=row["soft_step_us"] or 0,
        windows=[
            TakenWindow(*window)
            for window in zip(
                row["window_operations"],
                row["window_seconds"],
                row["window_limits"],
                row["window_left"],
                strict=True,
            )
        ],
    )


@dataclass(frozen=True, slots=True)
class ToldWindow:
    """What a provider said of a window of its own; None is not said."""

    seconds: int
    calls: int | None = None
    left: int | None = None
    reset_s: float | None = None


# Locks as TAKE does.
TELL: LiteralString = """
    select enrichment_tell_limits(
               %(bucket)s, %(operation)s, %(windows)s::int[], %(calls)s::int[], %(lefts)s::int[],
               %(resets_s)s::float8[], %(retry_after_s)s::float8,
               to_timestamp(%(at_us)s::float8 / 1000000))
"""


async def tell(
    conn: Connection,
    *,
    bucket: str,
    operation: str,
    windows: Sequence[ToldWindow] = (),
    retry_after_s: float | None = None,
    at_us: int | None = None,
) -> None:
    """Tighten limits as the provider says; what is looser than ours changes nothing."""
    values: dict[str, Any] = {
        "bucket": bucket,
        "operation": operation,
        "windows": [window.seconds for window in windows],
        "calls": [window.calls for window in windows],
        "lefts": [window.left for window in windows],
        "resets_s": [window.reset_s for window in windows],
        "retry_after_s": retry_after_s,
        "at_us": at_us,
    }
    await _again_after_races(conn, TELL, values)


async def _again_after_races(
    conn: Connection, statement: LiteralString, values: dict[str, Any]
) -> dict[str, Any] | None:
    """Run a statement; two who make the same rows at first use may meet in the wrong order."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        for tries_left in reversed(range(RACE_TRIES)):
            try:
                await cursor.execute(statement, values)
                break
            except RACES:
                if not tries_left:
                    raise
        return await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit as it stands, for people to look at."""

    bucket: str
    operation: str
    seconds: int
    calls_max: int | None
    calls_seen: int | None
    used: int
    """Permits that count now, those for the next two seconds included."""
    paused_s: float | None
    """For how long the provider wants to be left alone."""


# The ring is counted from the first cell that reaches into the window until now, as permits are.
STATES: LiteralString = """
    select held.bucket, held.operation, held.window_s, held.calls_max,
           case when held.seen_at > now() - interval '1 day' then held.calls_seen end,
           coalesce((select sum(held.ring[1 + mod(cell, cardinality(held.ring))::int])
                       from generate_series(
                                ((extract(epoch from now()) - held.window_s) * 100
                                    / held.window_s)::bigint,
                                least(held.head,
                                      (extract(epoch from now()) * 100 / held.window_s)::bigint
                                          + cardinality(held.ring) - 104)) as cell
                      where cardinality(held.ring) > 0), 0)::int,
           case when held.not_before > now()
                then extract(epoch from held.not_before - now())::float8 end
      from enrichment_rate_limits as held
     order by held.bucket, held.operation, held.window_s
     limit 1000
"""


async def states(conn: Connection) -> list[LimitState]:
    """Return every limit that was ever used."""
    return [LimitState(*row) async for row in await conn.execute(STATES)]
