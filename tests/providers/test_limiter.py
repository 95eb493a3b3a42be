"""RateLimiter: permits in one process, and in several that call one server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from enrichd.errors import ProviderThrottled, Unavailable
from enrichd.providers import limiter as module
from enrichd.providers.contracts import Standing, Window, WindowSeen
from enrichd.providers.database_clock import DatabaseClock
from enrichd.providers.limiter import RateLimiter, rows_of, usable
from enrichd.providers.operations import Operation
from enrichd.store import rate_limits
from enrichd.store.database import Connection, Database
from enrichd.store.rate_limits import LimitState, ToldWindow, WindowRow
from tests.support.arrivals import arrivals, most_within, run_callers

FIND = Operation.FIND_EMAIL
VERIFY = Operation.VERIFY_EMAIL


@pytest.fixture
async def limiter(database_url: str) -> AsyncIterator[RateLimiter]:
    """Give a limiter with a connection of its own."""
    opened = Database(database_url, name="test limiter")
    made = RateLimiter(opened)
    yield made
    await made.aclose()
    await opened.close()


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[RateLimiter]:
    """Give the limiter of another process, as good as."""
    opened = Database(database_url, name="test other limiter")
    made = RateLimiter(opened)
    yield made
    await made.aclose()
    await opened.close()


def per_minute(calls: int) -> dict[str, list[Window]]:
    return {"*": [Window(60, calls)]}


def per_second(calls: int) -> dict[str, list[Window]]:
    return {"*": [Window(1, calls)]}


async def state(conn: Connection) -> LimitState:
    [found] = await rate_limits.states(conn)
    return found


async def ends_of(*takes: Coroutine[Any, Any, float]) -> list[BaseException | float]:
    """Return how each one ended."""
    return list(await asyncio.gather(*takes, return_exceptions=True))


# Several processes


async def test_four_processes_never_exceed_a_window_by_the_servers_own_clock(database_url):
    """A provider counts when calls arrive; 50 ms are for the way there.

    Where this machine let a call wait for longer than that after its permit was used, the provider
    may have refused some. What we promise holds whatever the machine does, and to the microsecond.
    """
    windows = [Window(1, 200), Window(2, 300)]
    options = {
        "callers": 25,
        "seconds": 4,
        "wait_s_max": 5,
        "windows": [[window.seconds, window.calls] for window in windows],
    }
    async with arrivals(windows, slack_s=0.05) as server:
        reports = await run_callers(database_url, server.url, 4, options)

    for window in windows:
        assert most_within(server.permits, window.seconds) <= window.calls
    assert server.rejected == 0 or server.slowest_s > 0.05
    assert len(server.times) == sum(report["given"] for report in reports)
    assert sum(report["asks"] for report in reports) < 0.2 * len(server.times)


async def test_under_load_a_permit_costs_less_than_a_fifth_of_a_round_trip(limiter):
    windows = per_second(100_000)

    async def caller() -> None:
        for _ in range(20):
            await limiter.take("hunter", FIND, windows)
            await asyncio.sleep(0)

    await asyncio.gather(*(caller() for _ in range(50)))

    counts = limiter.counts("hunter", FIND)
    assert counts.given == 1000
    assert counts.asks < 200


# Taking


async def test_a_free_permit_is_given_at_once(limiter, conn):
    await limiter.take("hunter", FIND, per_minute(100))

    assert (await state(conn)).used == 1


async def test_a_wait_that_is_too_long_ends_in_a_moment_to_come_back_at(limiter):
    windows = per_minute(10)
    await asyncio.gather(*(limiter.take("hunter", FIND, windows) for _ in range(10)))

    ends = await ends_of(*(limiter.take("hunter", FIND, windows) for _ in range(5)))

    waits = [end.retry_after_s for end in ends if isinstance(end, ProviderThrottled)]
    assert len(waits) == 5
    assert all(50 < wait < 62 + 5 * 6 for wait in waits)
    assert min(later - sooner for sooner, later in pairwise(waits)) > 5


async def test_while_a_limit_is_known_to_be_reached_nobody_asks(limiter):
    windows = per_minute(10)
    await asyncio.gather(*(limiter.take("hunter", FIND, windows) for _ in range(10)))
    asks = []
    for _ in range(12):
        with pytest.raises(ProviderThrottled):
            await limiter.take("hunter", FIND, windows)
        asks.append(limiter.counts("hunter", FIND).asks)

    assert asks[-1] == asks[0]


async def test_a_short_wait_is_waited_for(limiter):
    windows = per_second(4)
    loop = asyncio.get_running_loop()
    began = loop.time()

    await asyncio.gather(*(limiter.take("hunter", FIND, windows) for _ in range(9)))

    assert loop.time() - began >= 2


async def test_high_priorities_get_the_earliest_moments_whoever_came_first(limiter):
    windows = per_second(5)
    served: list[int] = []

    async def one(priority: int) -> None:
        await limiter.take("hunter", FIND, windows, priority=priority, wait_s_max=10)
        served.append(priority)

    await asyncio.gather(*(limiter.take("hunter", FIND, windows) for _ in range(5)))
    await asyncio.gather(*(one(priority) for priority in (5, 3, 5, 1, 3, 1)))

    assert served == sorted(served)


async def test_a_high_priority_in_another_process_does_not_stand_in_a_low_ones_line(limiter, other):
    windows = per_second(10)
    low = [
        asyncio.create_task(limiter.take("hunter", FIND, windows, priority=5, wait_s_max=20))
        for _ in range(60)
    ]
    await asyncio.gather(*low[:3])

    async with asyncio.timeout(3.5):
        await asyncio.gather(
            *(other.take("hunter", FIND, windows, priority=1, wait_s_max=20) for _ in range(10))
        )

    assert sum(task.done() for task in low) < 40
    for task in low:
        task.cancel()
    await asyncio.gather(*low, return_exceptions=True)


async def test_who_is_cancelled_leaves_its_permit_to_the_next(limiter, conn):
    windows = per_second(2)
    await asyncio.gather(*(limiter.take("hunter", FIND, windows) for _ in range(2)))
    first, second = (
        asyncio.create_task(limiter.take("hunter", FIND, windows, wait_s_max=10)) for _ in range(2)
    )
    third = asyncio.create_task(limiter.take("hunter", FIND, windows, wait_s_max=10))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()

    async with asyncio.timeout(1.5):
        await third

    assert first.cancelled()
    assert second.cancelled()
    assert limiter.counts("hunter", FIND).given == 3


async def test_a_permit_given_in_the_moment_of_a_cancel_is_not_lost(limiter):
    """The permit is there and its owner is cancelled before it runs again."""
    windows = per_minute(100)
    pool = limiter._pool("hunter", FIND)
    served = pool._serve
    tasks: list[asyncio.Task[float]] = []

    def serve_and_cancel() -> None:
        served()
        if pool.counts.given and not tasks[0].cancelling():
            tasks[0].cancel()

    pool._serve = serve_and_cancel
    tasks.append(asyncio.create_task(limiter.take("hunter", FIND, windows)))
    await asyncio.gather(*tasks, return_exceptions=True)
    pool._serve = served

    assert tasks[0].cancelled()
    assert pool.counts.given == 0
    await limiter.take("hunter", FIND, windows)
    assert pool.counts.asks == 1


async def test_a_permit_is_not_used_when_the_loop_was_held_up_for_too_long(limiter, conn):
    windows = per_minute(100)
    pool = limiter._pool("hunter", FIND)
    served = pool._serve

    def serve_and_hold_up() -> None:
        served()
        if pool.counts.given and pool.counts.asks == 1:
            time.sleep(0.35)

    pool._serve = serve_and_hold_up
    await limiter.take("hunter", FIND, windows)

    assert (pool.counts.asks, pool.counts.given, pool.counts.unused) == (2, 1, 1)
    assert (await state(conn)).used == 1


async def test_memory_is_bounded_by_credentials_in_use(limiter, monkeypatch):
    monkeypatch.setattr(module, "POOLS_MAX", 5)
    for number in range(20):
        await limiter.take(f"hunter#{number}", FIND, per_minute(100))
        await limiter.observed(f"hunter#{number}", FIND, 0.1)

    assert len(limiter._pools) <= 6


async def test_what_was_held_and_not_used_is_given_back(database_url, conn, eventually):
    opened = Database(database_url)
    limiter = RateLimiter(opened)
    windows = per_minute(10_000)
    for _ in range(200):
        await limiter.take("hunter", FIND, windows)
    for _ in range(20):  # some of which are to spare
        await asyncio.gather(*(limiter.take("hunter", FIND, windows) for _ in range(10)))

    await limiter.aclose()
    await opened.close()

    assert (await state(conn)).used == 400


async def test_operations_have_limits_of_their_own(limiter):
    windows = {"*": [Window(60, 100)], FIND.value: [Window(60, 1)]}
    await limiter.take("apollo", FIND, windows)

    with pytest.raises(ProviderThrottled):
        await limiter.take("apollo", FIND, windows)
    await limiter.take("apollo", VERIFY, windows)


def test_the_strictest_of_equal_windows_holds():
    windows = {
        "*": [Window(60, 100), Window(60, 80)],
        FIND.value: [Window(1, 5)],
        VERIFY.value: [Window(1, 1)],
    }

    assert rows_of(windows, FIND) == [WindowRow("*", 60, 80), WindowRow("findEmail", 1, 5)]


# Without PostgreSQL


async def test_without_postgresql_there_are_no_permits():
    away = Database("postgresql://nobody@127.0.0.1:9/nothing")
    limiter = RateLimiter(away)

    with pytest.raises(Unavailable):
        await limiter.take("hunter", FIND, per_minute(100), wait_s_max=0.3)
    await limiter.tighten("hunter", FIND, None, retry_after_s=1)
    await limiter.observed("hunter", FIND, 0.1)

    await limiter.aclose()
    await away.close()


async def test_a_waiter_outlives_a_lost_connection(limiter, conn):
    windows = per_second(2)
    await asyncio.gather(*(limiter.take("hunter", FIND, windows) for _ in range(2)))
    await conn.execute(
        """
        select pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'test limiter' and datname = current_database()
        """
    )

    await asyncio.gather(*(limiter.take("hunter", FIND, windows) for _ in range(4)))

    assert limiter.counts("hunter", FIND).given == 6


async def test_a_fault_of_ours_reaches_whoever_waits(limiter, conn):
    await conn.execute("alter table enrichment_rate_limits add check (bucket <> 'hunter')")

    with pytest.raises(Exception, match="violates check constraint"):
        await limiter.take("hunter", FIND, per_minute(100))


# What providers say


async def test_retry_after_stops_every_process(limiter, other):
    windows = per_minute(1000)
    await limiter.take("hunter", FIND, windows)
    await limiter.tighten("hunter", FIND, None, retry_after_s=30)

    for one in (limiter, other):
        with pytest.raises(ProviderThrottled) as caught:
            await one.take("hunter", FIND, windows)
        assert 28 < caught.value.retry_after_s < 31


async def test_many_refusals_at_once_are_told_once(limiter, database):
    await limiter.take("hunter", FIND, per_minute(1000))
    async with database.connection() as conn:
        await conn.execute("create table told (at timestamptz)")
        await conn.execute(
            """
            create function note_told() returns trigger language plpgsql as
            $$ begin insert into told values (now()); return new; end $$
            """
        )
        await conn.execute(
            """
            create trigger note_told after insert or update of not_before on enrichment_rate_limits
                for each row when (new.not_before is not null) execute function note_told()
            """
        )

    for _ in range(20):
        await limiter.tighten("hunter", FIND, None, retry_after_s=30)

    async with database.connection() as conn:
        cursor = await conn.execute("select count(*) from told")
        assert await cursor.fetchone() == (1,)


async def test_a_lower_limit_in_an_answer_holds_from_then_on(limiter, other, conn):
    windows = per_minute(1000)
    await limiter.take("hunter", FIND, windows)

    await limiter.tighten("hunter", FIND, Standing([WindowSeen(60, calls=3, left=2)]))

    ends = await ends_of(*(other.take("hunter", FIND, windows) for _ in range(5)))
    assert sum(isinstance(end, float) for end in ends) == 2
    assert (await state(conn)).calls_seen == 3


async def test_good_news_is_not_passed_on(limiter, conn):
    windows = per_minute(1000)
    await limiter.take("hunter", FIND, windows)

    await limiter.tighten(
        "hunter", FIND, Standing([WindowSeen(60, calls=5000, left=4000)], Decimal(7))
    )

    assert (await state(conn)).calls_seen is None


@pytest.mark.parametrize(
    ("seen", "kept"),
    [
        (WindowSeen(60, 100, 40, 3.0), ToldWindow(60, 100, 40, 3.0)),
        (WindowSeen(60, left=-5, reset_after_s=1e12), ToldWindow(60, None, 0, 60.0)),
        (WindowSeen(60, calls=10**400, left=10**400), ToldWindow(60, None, 10**9, None)),
        (WindowSeen(60, calls=5, reset_after_s=float("nan")), ToldWindow(60, 5, None, None)),
        (WindowSeen(0, calls=5), None),
        (WindowSeen(10**12, calls=5), None),
        (WindowSeen(60), None),
        (WindowSeen(60, calls=0), None),
    ],
)
def test_nonsense_of_a_provider_is_bounded(seen, kept):
    assert usable(seen) == kept


async def test_hostile_numbers_cost_nobody_anything(limiter):
    hostile = [WindowSeen(60, calls=10**400, left=-(10**400), reset_after_s=float("nan"))]
    await limiter.take("hunter", FIND, per_minute(1000))

    await limiter.tighten("hunter", FIND, Standing(hostile), retry_after_s=float("nan"))
    await limiter.tighten("hunter", FIND, Standing(hostile), retry_after_s=float("inf"))
    await limiter.tighten("hunter", FIND, Standing(hostile), retry_after_s=-1e300)


async def test_runs_in_flight_are_capped_by_rate_and_latency(limiter, conn):
    windows = {"*": [Window(1, 10), Window(60, 100)]}
    await limiter.take("hunter", FIND, windows)

    await limiter.observed("hunter", FIND, 0.4)

    cursor = await conn.execute("select inflight_cap from enrichment_provider_state")
    assert await cursor.fetchone() == (11,)


# The clock


def test_the_clock_is_as_sure_as_its_fastest_answer():
    clock = DatabaseClock()
    clock.note(sent_at=10.0, received_at=10.5, now_us=1_000_000_000)
    clock.note(sent_at=11.0, received_at=11.002, now_us=1_000_901_000)

    assert clock.uncertainty_s == pytest.approx(0.002, abs=1e-3)
    assert clock.has_come(1_000_901_000, 11.002)
    assert not clock.has_come(1_000_901_000, 11.0)
    assert clock.may_have_come(1_000_901_000, 11.0005)


@pytest.mark.parametrize("step_s", [-3600, -2, 2, 3600])
def test_a_clock_that_was_set_is_believed_at_once(step_s):
    clock = DatabaseClock()
    clock.note(sent_at=10.0, received_at=10.001, now_us=5_000_000_000)
    now_us = 5_001_000_000 + step_s * 1_000_000

    clock.note(sent_at=11.0, received_at=11.001, now_us=now_us)

    assert clock.monotonic(now_us) == pytest.approx(11.001)
