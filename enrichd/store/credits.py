"""What was spent, what may be, and what calls have promised to spend.

Reserving and settling go with the calls themselves, see `answers.py`. Days and months are those of
the database's clock in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import LiteralString

from enrichd.store.database import Connection


@dataclass(frozen=True, slots=True)
class Budget:
    """What a workspace may spend where the common caps are not the right ones; None: they are."""

    per_day_max: Decimal | None = None
    per_month_max: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Spending:
    """A workspace's credits: spent and set aside."""

    today: Decimal
    this_month: Decimal


@dataclass(frozen=True, slots=True)
class Use:
    """What was asked of a provider."""

    provider_id: str
    operation: str
    calls: int
    answered: int
    no_match: int
    errors: int
    cache_hits: int
    credits: Decimal


SWEEP: LiteralString = "select enrichment_end_forgotten_calls(%(limit)s::int)"


async def sweep(conn: Connection, *, limit: int = 1000) -> int:
    """Count as spent what was set aside for calls that never ended; return how many, at most limit.

    Their process died or lost the database: they may have been paid.
    """
    row = await (await conn.execute(SWEEP, {"limit": limit})).fetchone()
    assert row is not None
    return int(row[0])


# A month's counter must outlive the month, and a job's its longest snooze.
PRUNE_COUNTERS: LiteralString = """
    with old as materialized (
        select counter
          from enrichment_credit_counters
         where updated_at < now() - interval '40 days' and reserved <= 0
         order by updated_at
         limit %(limit)s
           for update skip locked
    )
    delete from enrichment_credit_counters as counters
     using old
     where counters.counter = old.counter
"""

PRUNE_USE: LiteralString = """
    with old as materialized (
        select day, workspace_id, provider_id, operation
          from enrichment_provider_use
         where day < (now() at time zone 'utc')::date - 400
         order by day
         limit %(limit)s
           for update skip locked
    )
    delete from enrichment_provider_use as known
     using old
     where known.day = old.day
       and known.workspace_id = old.workspace_id
       and known.provider_id = old.provider_id
       and known.operation = old.operation
"""


async def prune(conn: Connection, *, limit: int = 1000) -> int:
    """Delete counters nobody counts in any more and use of long ago; return how many rows.

    At most `limit` of each.
    """
    counters = await conn.execute(PRUNE_COUNTERS, {"limit": limit})
    use = await conn.execute(PRUNE_USE, {"limit": limit})
    return counters.rowcount + use.rowcount


BUDGET: LiteralString = """
    select credits_per_day_max, credits_per_month_max
      from enrichment_budgets
     where workspace_id = %(workspace_id)s
"""


async def budget_of(conn: Connection, *, workspace_id: str) -> Budget:
    """Return a workspace's own caps."""
    row = await (await conn.execute(BUDGET, {"workspace_id": workspace_id})).fetchone()
    return Budget(*row) if row else Budget()


BUDGETS: LiteralString = """
    select workspace_id, credits_per_day_max, credits_per_month_max
      from enrichment_budgets
     order by workspace_id
     limit %(limit)s
"""


async def budgets(conn: Connection, *, limit: int = 1000) -> dict[str, Budget]:
    """Return the workspaces that have caps of their own, by id."""
    cursor = await conn.execute(BUDGETS, {"limit": limit})
    return {workspace_id: Budget(day, month) async for workspace_id, day, month in cursor}


SET_BUDGET: LiteralString = """
    insert into enrichment_budgets (workspace_id, credits_per_day_max, credits_per_month_max)
    values (%(workspace_id)s, %(per_day_max)s, %(per_month_max)s)
        on conflict (workspace_id) do update
       set credits_per_day_max = excluded.credits_per_day_max,
           credits_per_month_max = excluded.credits_per_month_max,
           updated_at = now()
"""

CLEAR_BUDGET: LiteralString = """
    delete from enrichment_budgets where workspace_id = %(workspace_id)s
"""


async def set_budget(conn: Connection, *, workspace_id: str, budget: Budget) -> None:
    """Give a workspace caps of its own, in place of those it had; they hold from the next call."""
    if budget == Budget():
        await conn.execute(CLEAR_BUDGET, {"workspace_id": workspace_id})
        return
    await conn.execute(
        SET_BUDGET,
        {
            "workspace_id": workspace_id,
            "per_day_max": budget.per_day_max,
            "per_month_max": budget.per_month_max,
        },
    )


SPENDING: LiteralString = """
    select coalesce(sum(spent + reserved) filter (where counter like 'day:%%'), 0),
           coalesce(sum(spent + reserved) filter (where counter like 'month:%%'), 0)
      from enrichment_credit_counters
     where counter in (
               'day:' || to_char(now() at time zone 'utc', 'YYYY-MM-DD') || ':' || %(workspace_id)s,
               'month:' || to_char(now() at time zone 'utc', 'YYYY-MM') || ':' || %(workspace_id)s)
"""


async def spending(conn: Connection, *, workspace_id: str) -> Spending:
    """Return what a workspace has spent or promised, as its caps see it."""
    row = await (await conn.execute(SPENDING, {"workspace_id": workspace_id})).fetchone()
    assert row is not None
    return Spending(*row)


SPENT_TODAY: LiteralString = """
    select coalesce(sum(spent + reserved), 0)
      from enrichment_credit_counters
     where counter = 'day:' || to_char(now() at time zone 'utc', 'YYYY-MM-DD')
"""


async def spent_today(conn: Connection) -> Decimal:
    """Return what the whole installation has spent or promised today."""
    row = await (await conn.execute(SPENT_TODAY)).fetchone()
    assert row is not None
    return Decimal(row[0])


USE: LiteralString = """
    select provider_id, operation, sum(calls)::bigint, sum(answered)::bigint,
           sum(no_match)::bigint, sum(errors)::bigint, sum(cache_hits)::bigint, sum(credits)
      from enrichment_provider_use
     where day > (now() at time zone 'utc')::date - %(days)s::int
       and (%(workspace_id)s::text is null or workspace_id = %(workspace_id)s)
     group by provider_id, operation
     order by provider_id, operation
"""


async def use(conn: Connection, *, workspace_id: str | None = None, days: int = 1) -> Sequence[Use]:
    """Return what was asked of each provider in the last days, today included."""
    cursor = await conn.execute(USE, {"workspace_id": workspace_id, "days": days})
    return [Use(*row) async for row in cursor]
