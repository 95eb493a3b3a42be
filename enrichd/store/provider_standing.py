"""How the credentials stand: the part of it that people and prices look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import LiteralString

from enrichd.store.arrays import text_array
from enrichd.store.database import Connection


@dataclass(frozen=True, slots=True)
class Standing:
    """One credential's breaker and credits."""

    credential: str
    breaker: str
    """`closed`, `open` or `half_open`."""
    is_set_by_hand: bool
    open_until: datetime | None
    """When an open one is probed; None: until somebody closes it."""
    reason: str | None
    trouble: str | None
    """`denied`, `exhausted` or `failing` for one that opened by itself."""
    credits_left: Decimal | None
    """By the provider's own word; None if it never said."""
    credits_seen_at: datetime | None
    open_left_s: float | None
    """Until `open_until`, by the database's clock."""
    credits_age_s: float | None


STANDINGS: LiteralString = """
    select provider_id, breaker, is_set_by_hand and coalesce(hand_until > now(), true),
           case when breaker = 'open' then opened_at + opened_for end, reason, trouble,
           credits_left, credits_seen_at,
           case when breaker = 'open' and opened_for is not null
                then greatest(extract(epoch from opened_at + opened_for - now()), 0)::float8 end,
           extract(epoch from now() - credits_seen_at)::float8
      from enrichment_provider_state
     where provider_id = any(%(credentials)s::text[])
"""


async def standings(conn: Connection, credentials: Sequence[str]) -> dict[str, Standing]:
    """Return how credentials stand; those of which nothing is known are left out."""
    cursor = await conn.execute(STANDINGS, {"credentials": text_array(credentials)})
    return {row[0]: Standing(*row) async for row in cursor}


# `left_s` by the database's clock: whoever waits has perhaps another one.
BROKEN: LiteralString = """
    select own.lane, extract(epoch from state.opened_at + state.opened_for - now())::float8,
           state.reason
      from unnest(%(providers)s::text[]) with ordinality as named(provider, place)
     cross join lateral enrichment_lane_of(%(workspace_id)s, named.provider) as own(lane)
      join enrichment_provider_state as state on state.provider_id = own.lane
     where state.breaker = 'open'
     order by named.place
"""


@dataclass(frozen=True, slots=True)
class Broken:
    """A lane that is closed because its provider's breaker is open."""

    credential: str
    left_s: float | None
    """Until it is probed; None: until somebody closes the breaker."""
    reason: str | None


async def broken(
    conn: Connection, *, workspace_id: str, provider_ids: Sequence[str]
) -> list[Broken]:
    """Return which of the lanes that a workspace's jobs for these providers wait in are closed."""
    values = {"workspace_id": workspace_id, "providers": text_array(provider_ids)}
    return [Broken(*row) async for row in await conn.execute(BROKEN, values)]


# Worth a write only when it is news. Rows are locked in order of their credentials.
NOTE_CREDITS: LiteralString = """
    insert into enrichment_provider_state as state (provider_id, credits_left, credits_seen_at)
    select said.credential, said.credits_left, now()
      from unnest(%(credentials)s::text[], %(credits_left)s::numeric[])
           as said(credential, credits_left)
     order by said.credential
        on conflict (provider_id) do update
       set credits_left = excluded.credits_left, credits_seen_at = excluded.credits_seen_at
     where state.credits_left is distinct from excluded.credits_left
        or state.credits_seen_at < now() - interval '1 minute'
"""


async def note_credits_left(conn: Connection, *, credits_left: Mapping[str, Decimal]) -> None:
    """Keep what providers said that is left of their credits, by credential."""
    values = {
        "credentials": text_array(list(credits_left)),
        "credits_left": list(credits_left.values()),
    }
    await conn.execute(NOTE_CREDITS, values)


DUE_FOR_CREDITS: LiteralString = """
    select named.credential
      from unnest(%(credentials)s::text[]) as named(credential)
      left join enrichment_provider_state as state on state.provider_id = named.credential
     where state.credits_seen_at is null
        or state.credits_seen_at <= now() - make_interval(secs => %(older_than_s)s)
     order by named.credential
"""


async def due_for_credits(
    conn: Connection, *, credentials: Sequence[str], older_than_s: float
) -> list[str]:
    """Return the credentials of which nobody has heard for so long what is left."""
    values = {"credentials": text_array(credentials), "older_than_s": older_than_s}
    return [name async for (name,) in await conn.execute(DUE_FOR_CREDITS, values)]
