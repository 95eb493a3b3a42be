"""Permits as PostgreSQL gives them out, with time moved by hand."""

from __future__ import annotations

import asyncio
import itertools
import random
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from enrichd.store import lanes, rate_limits
from enrichd.store.database import Connection, Database
from enrichd.store.rate_limits import Taken, ToldWindow, WindowRow
from tests.support.arrivals import most_within
from tests.support.factories import a_lane

pytestmark = pytest.mark.queue

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
START = 1_800_000_000 * SECOND
buckets = (f"bucket{number}" for number in itertools.count())


def by_priority(priority: int, permits: int) -> list[int]:
    """Return how many are wanted, all of one priority."""
    return [permits if place == priority else 0 for place in range(1, 6)]


async def take(
    conn: Connection,
    permits: int = 1,
    *windows: tuple[int, int],
    at: int = START,
    priority: int = 3,
    bucket: str = "hunter",
    operation: str = "findEmail",
    **options: Any,
) -> Taken:
    """Take permits within windows, (seconds, calls), that all operations share."""
    return await rate_limits.take(
        conn,
        bucket=bucket,
        operation=operation,
        windows=[WindowRow("*", *window) for window in windows],
        wanted=by_priority(priority, permits),
        at_us=at,
        **options,
    )


def permits(taken: Taken) -> list[int]:
    """Return the begin of every permit."""
    return [grant.start_us for grant in taken.grants for _ in range(grant.permits)]


def ends(taken: Taken) -> list[int]:
    """Return the end of every permit."""
    return [grant.end_us for grant in taken.grants for _ in range(grant.permits)]


def left(taken: Taken) -> dict[tuple[str, int], int]:
    """Return what is left by operation and window."""
    return {(window.operation, window.seconds): window.left for window in taken.windows}


# Strict, and not wasteful

WINDOWS = st.lists(
    st.builds(
        WindowRow,
        st.sampled_from(["*", "*", "find", "verify"]),
        st.sampled_from([1, 1, 2, 7, 60, 3600]),
        st.integers(1, 150),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda window: (window.operation, window.seconds),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["find", "verify"]),
        st.lists(st.integers(0, 40), min_size=5, max_size=5),
        st.integers(0, 60),  # to spare
        st.sampled_from([0, 1, 3_000, 10_000, 250_000, 990_000, 1_000_000, 7_300_000, 61_000_000]),
    ),
    min_size=2,
    max_size=40,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    windows=WINDOWS,
    steps=STEPS,
    slack_us=st.integers(1_000, 200_000),
    may_return=st.sampled_from([0, 0.1, 0.9]),
    dice=st.randoms(),
)
@example(
    windows=[WindowRow("*", 1, 10)],
    steps=[("find", [0, 0, 40, 0, 0], 0, 250_000)] * 20,
    slack_us=20_000,
    may_return=0,
    dice=random.Random(1),
)
async def test_no_window_ever_holds_more_calls_than_its_limit(
    conn, windows, steps, slack_us, may_return, dice
):
    """Whoever asks, whenever, and however late in its time a permit is used or given back."""
    bucket, now = next(buckets), START
    held: dict[str, list[tuple[int, int]]] = {"find": [], "verify": []}
    unused: dict[str, list[int]] = {"find": [], "verify": []}
    for operation, wanted, spare, pause in steps:
        now += pause
        taken = await rate_limits.take(
            conn,
            bucket=bucket,
            operation=operation,
            windows=[window for window in windows if window.operation in ("*", operation)],
            wanted=wanted,
            spare=spare,
            unused=unused[operation],
            slack_us=slack_us,
            at_us=now,
        )
        given = list(zip(permits(taken), ends(taken), strict=True))
        assert len(given) <= sum(wanted) + spare
        assert all(now <= start < end for start, end in given)
        returned = {place for place in range(len(given)) if dice.random() < may_return}
        unused[operation] = [given[place][1] for place in returned]
        held[operation] += [one for place, one in enumerate(given) if place not in returned]

    for window in windows:
        counting = [one for name in held if window.operation in ("*", name) for one in held[name]]
        assert most_possible(counting, window.seconds * SECOND) <= window.calls


def most_possible(times: Sequence[tuple[int, int]], length: int) -> int:
    """Return the most calls in any window, each made at its permit's most unlucky moment."""
    starts, lasts = sorted(start for start, _ in times), sorted(end - 1 for _, end in times)
    return max(
        (bisect_left(starts, begin + length) - bisect_left(lasts, begin) for begin in lasts),
        default=0,
    )


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seconds=st.sampled_from([1, 2, 4]),
    calls=st.integers(1, 400),
    pause_ms=st.integers(100, 350),
    priority=st.integers(1, 5),
)
@example(seconds=1, calls=1, pause_ms=350, priority=5)
@example(seconds=1, calls=1000, pause_ms=350, priority=5)
async def test_a_backlog_uses_at_least_95_percent_of_a_limit(
    conn, seconds, calls, pause_ms, priority
):
    bucket, span = next(buckets), 10 * seconds * SECOND
    used = 0
    for at in range(START, START + span, pause_ms * 1000):
        taken = await take(
            conn, 2 * calls, (seconds, calls), at=at, bucket=bucket, priority=priority
        )
        used += sum(begin < START + span for begin in permits(taken))

    assert used >= 0.95 * 10 * calls


async def test_several_windows_together_are_used_as_far_as_the_strictest_allows(conn):
    calls: list[int] = []
    for at in range(START, START + 180 * SECOND, 300_000):
        calls += permits(await take(conn, 60, (1, 100), (60, 2000), at=at))

    in_time = [at for at in calls if at < START + 180 * SECOND]
    assert 0.95 * 3 * 2000 <= len(in_time) <= 3 * 2000
    assert most_within(calls, SECOND) <= 100


async def test_operations_share_the_common_limit_and_have_their_own(conn):
    windows = [WindowRow("*", 60, 10), WindowRow("find", 60, 4), WindowRow("verify", 60, 9)]

    async def take_of(operation: str) -> Taken:
        own = [window for window in windows if window.operation in ("*", operation)]
        return await rate_limits.take(
            conn,
            bucket="hunter",
            operation=operation,
            windows=own,
            wanted=by_priority(1, 8),
            at_us=START,
        )

    assert len(permits(await take_of("find"))) == 4
    assert len(permits(await take_of("verify"))) == 6


async def test_a_process_of_another_credential_is_not_held_back(conn):
    await take(conn, 10, (60, 10), bucket="hunter")

    assert len(permits(await take(conn, 10, (60, 10), bucket="hunter#acme"))) == 10


async def test_without_limits_all_go_at_once(conn):
    assert permits(await take(conn, 1000)) == [START] * 1000


# Leases, moments, priorities


async def test_where_there_is_plenty_permits_last_and_some_are_spare(conn):
    taken = await take(conn, 5, (1, 100), spare=20)

    assert len(permits(taken)) == 25
    assert {end - START for end in ends(taken)} == {250_000}


async def test_near_the_limit_permits_are_moments_spread_over_the_window(conn):
    await take(conn, 75, (1, 100), slack_us=20_000)

    taken = await take(conn, 25, (1, 100), slack_us=20_000, spare=50)

    assert len(permits(taken)) == 25
    assert most_within(permits(taken), 10_000) == 2
    assert {grant.end_us - grant.start_us for grant in taken.grants} == {20_000}


async def test_what_nobody_used_can_be_had_again(conn):
    taken = await take(conn, 75, (60, 100))
    assert left(taken) == {("*", 60): 25}

    again = await take(conn, 0, (60, 100), unused=ends(taken)[:70])

    assert left(again) == {("*", 60): 95}


async def test_giving_back_twice_or_from_long_ago_gives_nothing(conn):
    taken = await take(conn, 3, (60, 100))
    await take(conn, 0, (60, 100), unused=ends(taken))

    again = await take(conn, 0, (60, 100), unused=[*ends(taken), 5, START - HOUR, START + HOUR])

    assert left(again) == {("*", 60): 100}


async def test_a_low_priority_that_came_first_leaves_the_near_future_to_a_high_one(conn):
    low = await take(conn, 1000, (1, 100), priority=5)
    high = await take(conn, 20, (1, 100), priority=1)

    assert max(permits(low)) <= START + 400_000
    assert len(permits(high)) == 20
    assert max(permits(high)) < START + 2 * SECOND


async def test_a_high_priority_backlog_keeps_a_low_one_out(conn):
    given = {1: 0, 4: 0}
    for turn in range(60):
        for priority in (4, 1):
            taken = await take(
                conn, 60, (1, 50), priority=priority, at=START + turn * 300_000 + priority
            )
            given[priority] += len(permits(taken))

    assert given[4] <= 50
    assert given[1] >= 0.9 * 50 * 18


async def test_whoever_gets_nothing_learns_when_and_has_a_moment_of_its_own(conn):
    await take(conn, 2000, (1, 500), (60, 1000), at=START)
    await take(conn, 2000, (1, 500), (60, 1000), at=START + 2 * SECOND)

    first = await take(conn, 20, (1, 500), (60, 1000), at=START + 5 * SECOND)
    second = await take(conn, 20, (1, 500), (60, 1000), at=START + 5 * SECOND)

    assert not permits(first)
    assert START + 60 * SECOND < first.next_us < START + 61 * SECOND
    assert first.soft_us == first.next_us
    assert first.soft_step_us == 60_000
    assert second.soft_us == first.soft_us + 20 * 60_000


async def test_moments_to_come_back_at_stay_within_a_window(conn):
    await take(conn, 10, (3600, 10))
    late = [await take(conn, 1, (3600, 10), at=START + SECOND) for _ in range(30)]

    assert all(taken.next_us <= taken.soft_us <= taken.next_us + HOUR for taken in late)


# What a provider says


async def told(conn: Connection, *windows: ToldWindow, at: int = START, **options: Any) -> None:
    await rate_limits.tell(
        conn, bucket="hunter", operation="findEmail", windows=windows, at_us=at, **options
    )


async def test_a_lower_limit_that_the_provider_tells_counts_for_a_day(conn):
    await take(conn, 1, (60, 100))
    now = await moment(conn)

    await told(conn, ToldWindow(60, calls=10), at=now)
    lower = await take(conn, 0, (60, 100), at=now)
    await told(conn, ToldWindow(60, calls=10), at=now - DAY - SECOND)
    relaxed = await take(conn, 0, (60, 100), at=now)

    assert (lower.windows[0].limit, relaxed.windows[0].limit) == (10, 100)


async def moment(conn: Connection) -> int:
    cursor = await conn.execute("select (extract(epoch from now()) * 1000000)::bigint")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def test_a_higher_limit_that_the_provider_tells_changes_nothing(conn):
    now = await moment(conn)
    await take(conn, 1, (60, 100), at=now)
    await told(conn, ToldWindow(60, calls=500), at=now)

    assert (await take(conn, 0, (60, 100), at=now)).windows[0].limit == 100


async def test_a_window_that_only_the_provider_knows_is_kept_for_its_operation(conn):
    now = await moment(conn)
    await told(conn, ToldWindow(86400, calls=5), at=now)

    mine = await take(conn, 50, (60, 100), at=now)
    other = await take(conn, 50, (60, 100), at=now, operation="verifyEmail")

    assert len(permits(mine)) == 5
    assert len(permits(other)) == 50


async def test_calls_that_others_made_with_the_key_are_counted_in_until_its_window_ends(conn):
    await take(conn, 10, (60, 100))
    await told(conn, ToldWindow(60, left=30, reset_s=20))

    soon = await take(conn, 0, (60, 100), at=START + SECOND)
    later = await take(conn, 0, (60, 100), at=START + 21 * SECOND)

    assert left(soon) == {("*", 60): 30}
    assert left(later) == {("*", 60): 90}


async def test_more_left_than_we_think_changes_nothing(conn):
    await take(conn, 10, (60, 100))
    await told(conn, ToldWindow(60, left=95))

    assert left(await take(conn, 0, (60, 100))) == {("*", 60): 90}


async def test_nothing_left_pauses_until_the_provider_begins_anew(conn):
    await take(conn, 1, (60, 100))
    await told(conn, ToldWindow(60, left=0, reset_s=30))

    taken = await take(conn, 1, (60, 100), at=START + SECOND)

    assert not permits(taken)
    assert taken.next_us >= START + 30 * SECOND


async def test_retry_after_holds_with_and_without_limits_of_ours(conn):
    await take(conn, 1, (60, 100))
    await told(conn, retry_after_s=7)
    await rate_limits.tell(conn, bucket="free", operation="findEmail", retry_after_s=7, at_us=START)

    for bucket, windows in (("hunter", [(60, 100)]), ("free", [])):
        taken = await take(conn, 1, *windows, bucket=bucket)
        assert (permits(taken), taken.next_us) == ([], START + 7 * SECOND)
        after = await take(conn, 1, *windows, bucket=bucket, at=START + 7 * SECOND)
        assert permits(after) == [START + 7 * SECOND]


async def test_a_shorter_retry_after_does_not_end_a_longer_one(conn):
    await told(conn, retry_after_s=60)
    await told(conn, retry_after_s=1)

    assert (await take(conn)).next_us == START + 60 * SECOND


# Changes and accidents


async def test_a_changed_limit_holds_at_once_and_what_was_given_still_counts(conn):
    await take(conn, 40, (60, 100))

    lowered = await take(conn, 40, (60, 50))
    raised = await take(conn, 0, (60, 1000))

    assert len(permits(lowered)) == 10
    assert left(raised) == {("*", 60): 950}


async def test_a_limit_that_was_taken_away_holds_nobody_back(conn):
    await take(conn, 10, (60, 10), (1, 5))

    assert len(permits(await take(conn, 100, (1, 1000)))) == 100


@pytest.mark.parametrize("back_s", [0.5, 3, 90, 3600, 10 * 86400])
async def test_a_clock_set_back_neither_stops_calls_nor_forgets_them(conn, back_s):
    taken = await take(conn, 100, (1, 500), (60, 20))
    at = START - int(back_s * SECOND)

    after = await take(conn, 100, (1, 500), (60, 20), at=at)
    later = await take(conn, 100, (1, 500), (60, 20), at=at + 63 * SECOND)

    assert [len(permits(one)) for one in (taken, after, later)] == [20, 0, 20]


async def test_after_a_long_silence_all_is_free(conn):
    await take(conn, 100, (1, 20), (3600, 60))

    taken = await take(conn, 0, (1, 20), (3600, 60), at=START + 400 * DAY)

    assert left(taken) == {("*", 1): 20, ("*", 3600): 60}


async def test_processes_that_use_a_credential_for_the_first_time_at_once_agree(database_url):
    windows = [(60, 50), (1, 1000), (3600, 1000)]

    async def one(order: Sequence[tuple[int, int]]) -> int:
        own = Database(database_url)
        async with own.connection() as conn:
            taken = await take(conn, 20, *order)
        await own.close()
        return len(permits(taken))

    given = await asyncio.gather(
        *(one(windows[turn % 3 :] + windows[: turn % 3]) for turn in range(6))
    )

    assert sum(given) == 50


# Lanes


async def blocked_until(conn: Connection) -> int:
    cursor = await conn.execute(
        """
        select (extract(epoch from blocked_until) * 1000000)::bigint
          from enrichment_provider_state
        """
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def open_lanes(conn: Connection) -> list[str]:
    return [lane.provider_id for lane in await lanes.open_lanes(conn)]


async def test_a_lane_whose_next_permit_is_far_is_left_out_of_claims_until_shortly_before(conn):
    await a_lane(conn, "hunter")
    now = await moment(conn)
    await take(conn, 10, (60, 10), at=now)
    assert await open_lanes(conn) == ["hunter"]

    taken = await take(conn, 1, (60, 10), at=now)

    assert await open_lanes(conn) == []
    assert await blocked_until(conn) == taken.next_us - SECOND


async def test_a_lane_that_has_permits_soon_stays_open(conn):
    await a_lane(conn, "hunter")
    now = await moment(conn)

    await take(conn, 500, (1, 100), at=now)

    assert await open_lanes(conn) == ["hunter"]


async def test_an_operations_own_limit_stops_the_lane_for_five_seconds_at_a_time(conn):
    await a_lane(conn, "apollo")
    now = await moment(conn)
    await rate_limits.take(
        conn,
        bucket="apollo",
        operation="findEmail",
        windows=[WindowRow("*", 1, 1000), WindowRow("findEmail", 86400, 5)],
        wanted=by_priority(3, 6),
        at_us=now,
    )

    assert await blocked_until(conn) == now + 5 * SECOND


async def test_limits_can_be_looked_at(conn):
    now = await moment(conn)
    await take(conn, 30, (60, 100), at=now)
    await told(conn, ToldWindow(60, calls=80), at=now, retry_after_s=30)

    found = {
        (state.operation, state.seconds): (state.calls_max, state.calls_seen, state.used)
        for state in await rate_limits.states(conn)
    }

    assert found == {("*", 60): (100, 80, 30), ("*", 1): (None, None, 0)}
