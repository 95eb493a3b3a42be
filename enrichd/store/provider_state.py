"""How each provider stands, by credential: its breaker, its pauses, how many runs it can feed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, LiteralString, TypeAlias
from uuid import UUID

from enrichd.store.database import Connection

Breaker: TypeAlias = Literal["closed", "open", "half_open"]
Trouble: TypeAlias = Literal["denied", "exhausted", "failing"]
"""Why a breaker opens by itself: the key is refused, no credits are left, calls fail."""

FAILURES_MAX = 5
"""Failures in a row that open a breaker."""
RECENT_S = 30.0
RECENT_CALLS_MIN = 10
"""From so many calls of the last `RECENT_S` on, half of them failing opens it too."""
OPEN_S = 30.0
OPEN_S_MAX = 900.0
PROBE_S = 60.0
"""For how long a probe keeps others away; one that died is followed by another then."""


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A breaker that is not simply closed."""

    credential: str
    breaker: Breaker
    failures: int
    is_set_by_hand: bool
    open_for_s: float | None
    """Seconds until an open one may be probed, 0 if it may; None until somebody closes it."""
    reason: str | None
    is_probed: bool
    """Whether somebody is probing it now."""


# A table of credentials, and of these only the troubled ones.
TROUBLED: LiteralString = """
    select provider_id, breaker, failures,
           is_set_by_hand and coalesce(hand_until > now(), true),
           case when breaker = 'open' and opened_for is not null
                then greatest(extract(epoch from opened_at + opened_for - now()), 0)::float8 end,
           reason, coalesce(probe_until > now(), false)
      from enrichment_provider_state
     where breaker <> 'closed'
        or failures > 0
        or recent_failures > 0
        or is_set_by_hand
     order by provider_id
"""


async def troubled(conn: Connection) -> list[BreakerState]:
    """Return every breaker that is open, half open, set by hand, or counting failures."""
    return [BreakerState(*row) async for row in await conn.execute(TROUBLED)]


@dataclass(frozen=True, slots=True)
class CallCounts:
    """Calls of one process that nobody was told of yet."""

    succeeded: int = 0
    failed: int = 0
    streak: int = 0
    """Failures since the last success among them."""


# One row, so nothing to order. What was set by hand stays, and an open breaker is nobody's but the
# prober's: answers to calls that were under way when it opened change nothing.
COUNT: LiteralString = """
    with counted as (
        insert into enrichment_provider_state as state
               (provider_id, failures, recent_calls, recent_failures)
        values (%(credential)s, %(streak)s, %(succeeded)s::int + %(failed)s::int, %(failed)s)
            on conflict (provider_id) do update
           set failures = case when %(succeeded)s > 0 then %(streak)s
                               else state.failures + %(failed)s end,
               recent_calls = %(succeeded)s::int + %(failed)s::int
                              + case when state.recent_since > now() - %(recent)s::interval
                                     then state.recent_calls else 0 end,
               recent_failures = %(failed)s::int
                              + case when state.recent_since > now() - %(recent)s::interval
                                     then state.recent_failures else 0 end,
               recent_since = case when state.recent_since > now() - %(recent)s::interval
                                   then state.recent_since else now() end,
               updated_at = now()
         where state.breaker = 'closed'
        returning state.failures, state.recent_calls, state.recent_failures
    )
    select failures >= %(failures_max)s
           or (recent_calls >= %(recent_calls_min)s and 2 * recent_failures >= recent_calls)
      from counted
"""


async def count(conn: Connection, *, credential: str, counts: CallCounts) -> bool:
    """Add a process's calls; return whether the breaker should be opened now."""
    cursor = await conn.execute(
        COUNT,
        {
            "credential": credential,
            "succeeded": counts.succeeded,
            "failed": counts.failed,
            "streak": counts.streak,
            "recent": f"{RECENT_S} s",
            "failures_max": FAILURES_MAX,
            "recent_calls_min": RECENT_CALLS_MIN,
        },
    )
    row = await cursor.fetchone()
    return counts.failed > 0 and row is not None and bool(row[0])


# Whoever comes first opens it; the others' reports find it open and change nothing.
OPEN: LiteralString = """
    insert into enrichment_provider_state as state
           (provider_id, breaker, opened_at, opened_for, reason, trouble)
    values (%(credential)s, 'open', now(), make_interval(secs => %(open_s)s::float8), %(reason)s,
            %(trouble)s)
        on conflict (provider_id) do update
       set breaker = 'open', opened_at = now(), opened_for = excluded.opened_for,
           reason = excluded.reason, trouble = excluded.trouble,
           failures = 0, recent_calls = 0, recent_failures = 0,
           probe_owner = null, probe_until = null, updated_at = now(),
           is_set_by_hand = false, hand_until = null
     where state.breaker = 'closed'
       and not (state.is_set_by_hand and coalesce(state.hand_until > now(), true))
"""


async def open_breaker(
    conn: Connection,
    *,
    credential: str,
    reason: str,
    trouble: Trouble = "failing",
    open_s: float = OPEN_S,
) -> bool:
    """Open a closed breaker; return whether this call did."""
    values = {"credential": credential, "open_s": open_s, "reason": reason, "trouble": trouble}
    return (await conn.execute(OPEN, values)).rowcount > 0


# A lease: a prober that died keeps nobody away for longer than that. Open ones whose time is over
# are half open from their first probe on.
PROBE: LiteralString = """
    update enrichment_provider_state
       set breaker = 'half_open', probe_owner = %(owner)s, inflight_cap = 1,
           is_set_by_hand = false, hand_until = null,
           probe_until = now() + make_interval(secs => %(probe_s)s), updated_at = now()
     where provider_id = %(credential)s
       and (breaker = 'half_open' or (breaker = 'open' and opened_at + opened_for <= now()))
       and (probe_until is null or probe_until <= now())
"""


async def begin_probe(
    conn: Connection, *, credential: str, owner: UUID, probe_s: float = PROBE_S
) -> bool:
    """Become the one prober of all processes; return whether we did."""
    values = {"credential": credential, "owner": owner, "probe_s": probe_s}
    return (await conn.execute(PROBE, values)).rowcount > 0


# Fenced by the prober: one whose lease ran out and was given to another changes nothing.
END_PROBE: LiteralString = """
    update enrichment_provider_state
       set breaker = case %(end)s when 'success' then 'closed'
                                  when 'failure' then 'open' else 'half_open' end,
           opened_at = case %(end)s when 'failure' then now() else opened_at end,
           opened_for = case %(end)s
                             when 'failure'
                             then coalesce(make_interval(secs => %(open_s)s::float8),
                                           least(2 * greatest(coalesce(opened_for, '0'::interval),
                                                              make_interval(secs => %(first_s)s)),
                                                 make_interval(secs => %(open_s_max)s)))
                             when 'success' then null else opened_for end,
           reason = case %(end)s when 'success' then null
                                 when 'failure' then %(reason)s else reason end,
           trouble = case %(end)s when 'success' then null
                                  when 'failure' then %(trouble)s else trouble end,
           inflight_cap = case %(end)s when 'success' then null else inflight_cap end,
           failures = 0, recent_calls = 0, recent_failures = 0,
           probe_owner = null, probe_until = null, updated_at = now()
     where provider_id = %(credential)s
       and breaker = 'half_open'
       and probe_owner = %(owner)s
"""


async def end_probe(
    conn: Connection,
    *,
    credential: str,
    owner: UUID,
    end: Literal["success", "failure", "nothing"],
    reason: str | None = None,
    trouble: Trouble = "failing",
    open_s: float | None = None,
) -> bool:
    """Close the breaker, open it for twice as long (or `open_s`), or leave it to another probe.

    Return whether the probe was still ours.
    """
    values: dict[str, Any] = {
        "credential": credential,
        "owner": owner,
        "end": end,
        "reason": reason,
        "trouble": trouble,
        "open_s": open_s,
        "first_s": OPEN_S,
        "open_s_max": OPEN_S_MAX,
    }
    return (await conn.execute(END_PROBE, values)).rowcount > 0


SET_BY_HAND: LiteralString = """
    insert into enrichment_provider_state as state
           (provider_id, breaker, is_set_by_hand, opened_at, opened_for, hand_until, reason)
    values (%(credential)s, %(breaker)s, true,
            case %(breaker)s when 'open' then now() end,
            case %(breaker)s when 'open' then make_interval(secs => %(for_s)s::float8) end,
            now() + make_interval(secs => %(for_s)s::float8),
            case %(breaker)s when 'open' then 'opened by hand' end)
        on conflict (provider_id) do update
       set breaker = excluded.breaker, is_set_by_hand = true, opened_at = excluded.opened_at,
           opened_for = excluded.opened_for, hand_until = excluded.hand_until,
           reason = excluded.reason, trouble = null,
           failures = 0, recent_calls = 0, recent_failures = 0,
           probe_owner = null, probe_until = null, updated_at = now(),
           inflight_cap = case state.breaker when 'closed' then state.inflight_cap end
"""


async def set_by_hand(
    conn: Connection,
    *,
    credential: str,
    breaker: Literal["open", "closed"],
    for_s: float | None = None,
) -> None:
    """Open or close a breaker until somebody sets it again, or for `for_s` seconds.

    One that was opened for a time is probed after it; one that was closed opens by itself again.
    """
    values = {"credential": credential, "breaker": breaker, "for_s": for_s}
    await conn.execute(SET_BY_HAND, values)


# Not at once: processes that still have the old key would have it refused once more.
PROBE_SOON: LiteralString = """
    update enrichment_provider_state
       set opened_at = now(), opened_for = make_interval(secs => %(in_s)s), updated_at = now()
     where provider_id = %(credential)s
       and breaker = 'open'
       and trouble in ('denied', 'exhausted')
       and opened_at + opened_for > now() + make_interval(secs => %(in_s)s)
"""


async def probe_soon(conn: Connection, *, credential: str, in_s: float) -> None:
    """Have a breaker that a key's own trouble opened probed in so long, because the key changed."""
    await conn.execute(PROBE_SOON, {"credential": credential, "in_s": in_s})


# Without it nobody would claim a job of a lane that waits for its probe.
HALF_OPEN_DUE: LiteralString = """
    with due as materialized (
        select provider_id
          from enrichment_provider_state
         where breaker = 'open'
           and opened_at + opened_for <= now()
         order by provider_id
           for update skip locked
    )
    update enrichment_provider_state as state
       set breaker = 'half_open', inflight_cap = 1, is_set_by_hand = false, hand_until = null,
           updated_at = now()
      from due
     where state.provider_id = due.provider_id
    returning state.provider_id
"""


async def half_open_due(conn: Connection) -> list[str]:
    """Make lanes claimable whose breaker was open long enough; return their credentials."""
    return [name async for (name,) in await conn.execute(HALF_OPEN_DUE)]


# A half-open breaker lets one run in, whatever the rate.
SET_INFLIGHT_CAP: LiteralString = """
    insert into enrichment_provider_state as state (provider_id, inflight_cap)
    values (%(credential)s, %(cap)s)
        on conflict (provider_id) do update
       set inflight_cap = excluded.inflight_cap, updated_at = now()
     where state.breaker = 'closed'
       and state.inflight_cap is distinct from excluded.inflight_cap
"""


async def set_inflight_cap(conn: Connection, *, credential: str, cap: int) -> None:
    """Say how many runs a credential's rate can feed, all workers together."""
    await conn.execute(SET_INFLIGHT_CAP, {"credential": credential, "cap": cap})
