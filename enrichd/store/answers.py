"""What providers answered, who is asking right now, and the credits that go with it.

A call is bracketed by two statements, each over as many questions as have gathered: `begin` looks
into the cache, takes the lease and sets credits aside; `end` keeps the answer and settles. What
they do stands in `migrations/0004_answers.sql`, because it needs several steps under one lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import LiteralString
from uuid import UUID

from enrichd.store.arrays import plain_array, text_array
from enrichd.store.database import Connection
from enrichd.store.faults import around


@dataclass(frozen=True, slots=True)
class Beginning:
    """A question that somebody wants to put."""

    call_id: UUID
    job_id: UUID
    buyer: UUID
    """The job's lead that it is for."""
    workspace_id: str
    key: bytes
    provider_id: str
    operation: str
    credits: Decimal
    """The most that it may cost."""
    job_cap: Decimal | None
    """The most that the whole job may cost; None: any amount."""
    may_ask: bool = True
    """Whether the lease is wanted, or only an answer that is there."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What PostgreSQL says to a question."""

    word: str
    """`found`, `noMatch`, `suppressed`, `go`, `wait`, `pending`, `resume` or `would_exceed_…`.

    `unknown` where only an answer was wanted and there is none.
    """
    call_id: UUID | None = None
    """The call under way, where there is one."""
    answer: str | None = None
    fetched_at: str | None = None
    left_s: float | None = None
    """How long it still holds; None: for ever."""
    cost: Decimal | None = None
    """What was paid for it so far, for the same lead of the same job; None: nothing."""


@dataclass(frozen=True, slots=True)
class End:
    """How a call ended."""

    call_id: UUID
    buyer: UUID
    """The job's lead that it was for."""
    workspace_id: str
    key: bytes
    provider_id: str
    operation: str
    outcome: str
    """`found`, `noMatch`, `suppressed`, `pending`, `error`, or `free`: no call was made."""
    answer: str | None = None
    """What is kept, JSON text; None: nothing is."""
    subjects: Sequence[bytes] = ()
    keep_s: float | None = None
    """How long; None: for ever. For `pending`, until its deadline."""
    cost: Decimal | None = Decimal(0)
    """None: unknown, so that what was set aside counts."""


BEGIN: LiteralString = """
    select place, verdict, call_id, answer,
           to_char(fetched_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), left_s, cost
      from enrichment_begin_calls(
               %(calls)s::uuid[], %(jobs)s::uuid[], %(buyers)s::uuid[], %(workspaces)s::text[],
               %(keys)s::bytea[], %(providers)s::text[], %(operations)s::text[],
               %(credits)s::numeric[], %(job_caps)s::numeric[], %(day_cap)s::numeric,
               %(workspace_day_cap)s::numeric, %(workspace_month_cap)s::numeric,
               %(lease_s)s::float8, %(may_ask)s::boolean[])
"""


@around("reserve")
async def begin(
    conn: Connection,
    beginnings: Sequence[Beginning],
    *,
    day_cap: Decimal | None,
    workspace_day_cap: Decimal | None,
    workspace_month_cap: Decimal | None,
    lease_s: float,
) -> list[Verdict]:
    """Return a verdict for each question; those of one workspace must have different keys.

    A lease and its credits are the call's for `lease_s`.
    """
    cursor = await conn.execute(
        BEGIN,
        {
            "calls": plain_array([one.call_id for one in beginnings]),
            "jobs": plain_array([one.job_id for one in beginnings]),
            "buyers": plain_array([one.buyer for one in beginnings]),
            "workspaces": text_array([one.workspace_id for one in beginnings]),
            "keys": bytes_array([one.key for one in beginnings]),
            "providers": text_array([one.provider_id for one in beginnings]),
            "operations": text_array([one.operation for one in beginnings]),
            "credits": plain_array([one.credits for one in beginnings]),
            "may_ask": [one.may_ask for one in beginnings],
            "job_caps": plain_array([one.job_cap for one in beginnings]),
            "day_cap": day_cap,
            "workspace_day_cap": workspace_day_cap,
            "workspace_month_cap": workspace_month_cap,
            "lease_s": lease_s,
        },
    )
    verdicts = {place: Verdict(*row) for place, *row in await cursor.fetchall()}
    return [verdicts[place] for place in range(1, len(beginnings) + 1)]


END: LiteralString = """
    select to_char(now() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
      from enrichment_end_calls(
               %(calls)s::uuid[], %(buyers)s::uuid[], %(workspaces)s::text[], %(keys)s::bytea[],
               %(providers)s::text[], %(operations)s::text[], %(outcomes)s::text[],
               %(answers)s::text[], %(subjects)s::text[], %(keeps_s)s::float8[],
               %(costs)s::numeric[])
"""


@around("settle")
async def end(conn: Connection, ends: Sequence[End]) -> str:
    """Write how calls ended; return when, ISO 8601.

    A second time it changes nothing that was counted.
    """
    cursor = await conn.execute(
        END,
        {
            "calls": plain_array([one.call_id for one in ends]),
            "buyers": plain_array([one.buyer for one in ends]),
            "workspaces": text_array([one.workspace_id for one in ends]),
            "keys": bytes_array([one.key for one in ends]),
            "providers": text_array([one.provider_id for one in ends]),
            "operations": text_array([one.operation for one in ends]),
            "outcomes": plain_array([one.outcome for one in ends]),
            "answers": text_array([one.answer for one in ends]),
            "subjects": text_array([bytes_array(one.subjects) for one in ends]),
            "keeps_s": plain_array([one.keep_s for one in ends]),
            "costs": plain_array([one.cost for one in ends]),
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])


def bytes_array(values: Iterable[bytes]) -> str:
    """Return an array literal of bytea."""
    return "{" + ",".join([f'"\\\\x{value.hex()}"' for value in values]) + "}"


COUNT_HITS: LiteralString = """
    insert into enrichment_provider_use as known
           (day, workspace_id, provider_id, operation, cache_hits)
    select (now() at time zone 'utc')::date, workspace_id, provider_id, operation, hits
      from unnest(%(workspaces)s::text[], %(providers)s::text[], %(operations)s::text[],
                  %(hits)s::bigint[]) as new(workspace_id, provider_id, operation, hits)
     order by workspace_id, provider_id, operation
        on conflict (day, workspace_id, provider_id, operation) do update
       set cache_hits = known.cache_hits + excluded.cache_hits
"""


async def count_hits(conn: Connection, hits: Sequence[tuple[str, str, str, int]]) -> None:
    """Add to what the cache answered: (workspace, provider, operation, times), each kind once."""
    workspaces, providers, operations, times = zip(*hits, strict=True)
    await conn.execute(
        COUNT_HITS,
        {
            "workspaces": text_array(workspaces),
            "providers": text_array(providers),
            "operations": text_array(operations),
            "hits": plain_array(times),
        },
    )


PEPPER: LiteralString = "select pepper from enrichment_installation"


async def pepper(conn: Connection) -> bytes:
    """Return the secret that the hashes of addresses are keyed with."""
    row = await (await conn.execute(PEPPER)).fetchone()
    assert row is not None
    return bytes(row[0])


# An answer that cannot be read any more would be in the way until it expires.
FORGET: LiteralString = """
    delete from enrichment_provider_cache
     where workspace_id = %(workspace_id)s
       and cache_key = %(key)s
       and outcome is not null
       and outcome <> 'pending'
"""


async def forget(conn: Connection, *, workspace_id: str, key: bytes) -> None:
    """Delete a kept answer."""
    await conn.execute(FORGET, {"workspace_id": workspace_id, "key": key})


# Two indexes, and so two halves: one has the answers by their end, the other the leases.
PRUNE: LiteralString = """
    with old as materialized (
        select workspace_id, cache_key
          from enrichment_provider_cache
         where expires_at < now() and (asked_until is null or asked_until < now())
         order by expires_at
         limit %(limit)s
           for update skip locked
    ),
    dead as materialized (
        select workspace_id, cache_key
          from enrichment_provider_cache
         where asked_until < now() - interval '1 day' and (outcome is null or outcome = 'pending')
         order by asked_until
         limit %(limit)s
           for update skip locked
    )
    delete from enrichment_provider_cache as kept
     using (select * from old union select * from dead) as gone
     where kept.workspace_id = gone.workspace_id and kept.cache_key = gone.cache_key
"""


async def prune(conn: Connection, *, limit: int = 1000) -> int:
    """Delete answers whose time is over and leases that ended a day ago; return how many.

    At most `limit` of each; skips what somebody is asking again right now.
    """
    return (await conn.execute(PRUNE, {"limit": limit})).rowcount
