"""Breakers: when a credential is left alone, by whom it is tried again, and what that costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from enrichd.errors import (
    PersonSuppressed,
    ProviderDenied,
    ProviderDown,
    ProviderError,
    ProviderExhausted,
    ProviderGarbled,
    ProviderRejected,
    ProviderThrottled,
    Unavailable,
)
from enrichd.providers import breakers as module
from enrichd.providers.base import Found, Pending
from enrichd.providers.breakers import Breakers, outcome_of
from enrichd.store import provider_state
from enrichd.store.database import Connection, Database

Factory = Callable[[], Breakers]


@pytest.fixture
async def a_process(database_url: str) -> AsyncIterator[Factory]:
    """Give processes' breakers, each with a connection and a memory of its own."""
    opened: list[Database] = []

    def make() -> Breakers:
        opened.append(Database(database_url, name="test breakers"))
        return Breakers(opened[-1])

    yield make
    for database in opened:
        await database.close()


def down() -> ProviderDown:
    return ProviderDown("hunter answered 503", provider="hunter")


def garbled() -> ProviderGarbled:
    return ProviderGarbled("no JSON", provider="hunter")


def denied() -> ProviderDenied:
    return ProviderDenied("hunter answered 401: 'wrong\x1b[31m key'", provider="hunter")


def exhausted(reset_after_s: float | None = None) -> ProviderExhausted:
    return ProviderExhausted("no credits", provider="hunter", reset_after_s=reset_after_s)


def throttled() -> ProviderThrottled:
    return ProviderThrottled("slow down", provider="hunter", retry_after_s=1)


async def row(conn: Connection, credential: str = "hunter") -> tuple[str, float | None]:
    """Return a breaker's state and for how long it was opened."""
    cursor = await conn.execute(
        """
        select breaker, extract(epoch from opened_for)::float8
          from enrichment_provider_state where provider_id = %s
        """,
        [credential],
    )
    found = await cursor.fetchone()
    return (found[0], found[1]) if found else ("closed", None)


async def open_time_is_over(conn: Connection) -> None:
    await conn.execute(
        "update enrichment_provider_state set opened_at = opened_at - 2 * opened_for"
    )


async def an_open_one(process: Breakers) -> None:
    for _ in range(5):
        await process.report("hunter", down())


# Opening


async def test_a_credential_that_nobody_complained_of_may_be_called(a_process):
    assert await a_process().allows("hunter") is None


async def test_five_failures_in_a_row_open_it_for_everybody(a_process, conn):
    one, other = a_process(), a_process()
    for failure in (down(), garbled(), down(), garbled()):
        await one.report("hunter", failure)
    assert await one.allows("hunter") is None
    await other.report("hunter", down())

    assert await row(conn) == ("open", 30)
    assert await other.allows("hunter") == "breaker_open"
    assert await a_process().allows("hunter") == "breaker_open"
    assert await other.allows("hunter#acme") is None


async def test_a_success_among_failures_keeps_it_closed(a_process, conn):
    process = a_process()
    for turn in range(8):
        await process.report("hunter", Found() if turn % 4 == 3 else down())

    assert (await row(conn))[0] == "closed"


async def test_half_of_ten_calls_failing_opens_it(a_process, conn):
    process = a_process()
    for _ in range(5):
        await process.report("hunter", Found())
    for turn in range(8):
        assert (await row(conn))[0] == "closed"
        await process.report("hunter", Found() if turn in (2, 5) else down())
        if turn == 3:
            await process.report("hunter", Found())

    # 8 good and 6 bad is less than half.
    assert (await row(conn))[0] == "closed"
    await process.report("hunter", Found())
    for _ in range(4):
        await process.report("hunter", down())
    assert (await row(conn))[0] == "open"


async def test_another_processs_successes_count_while_failures_are_counted(a_process, conn):
    bad, good = a_process(), a_process()
    for _ in range(4):
        await bad.report("hunter", down())
    assert await good.allows("hunter") is None
    await good.report("hunter", Found())
    await bad.report("hunter", down())

    assert (await row(conn))[0] == "closed"


@pytest.mark.parametrize(
    "answer",
    [
        throttled(),
        ProviderRejected("400", provider="hunter"),
        PersonSuppressed("451", provider="hunter"),
        Found(),
        Pending("7"),
    ],
)
async def test_what_is_no_fault_of_the_provider_never_opens_it(a_process, conn, answer):
    process = a_process()
    for _ in range(20):
        await process.report("hunter", answer)

    assert (await row(conn))[0] == "closed"


@pytest.mark.parametrize(
    ("answer", "open_s"),
    [
        (denied(), 3600),
        (exhausted(), 3600),
        (exhausted(86_400), 86_400),
        (exhausted(float("nan")), 3600),
        (exhausted(-5), 3600),
        (exhausted(1e300), 3600),
    ],
)
async def test_a_refused_key_opens_it_at_once(a_process, conn, answer, open_s):
    process = a_process()

    await process.report("hunter", answer)

    assert await row(conn) == ("open", open_s)
    assert await process.allows("hunter") == "breaker_open"


@pytest.mark.parametrize(
    ("answer", "trouble"), [(denied(), "denied"), (exhausted(), "exhausted"), (down(), "failing")]
)
async def test_why_it_opened_is_kept_until_it_closes(a_process, conn, answer, trouble):
    async def kept() -> str | None:
        cursor = await conn.execute("select trouble from enrichment_provider_state")
        return (await cursor.fetchone())[0]

    process = a_process()
    for _ in range(provider_state.FAILURES_MAX):
        await process.report("hunter", answer)
    assert await kept() == trouble

    await open_time_is_over(conn)
    assert await a_process().allows("hunter") is None
    assert await kept() == trouble, "a probe is no answer yet"

    prober = a_process()
    await open_time_is_over(conn)
    await conn.execute("update enrichment_provider_state set probe_until = now()")
    assert await prober.allows("hunter") is None
    await prober.report("hunter", denied())
    assert await kept() == "denied", "the last trouble is the one that counts"

    await open_time_is_over(conn)
    prober = a_process()
    assert await prober.allows("hunter") is None
    await prober.report("hunter", Found())
    assert await kept() is None


async def test_a_changed_key_is_tried_in_a_minute_and_a_failing_provider_is_not(a_process, conn):
    async def changed() -> tuple[str, int]:
        await provider_state.probe_soon(conn, credential="hunter", in_s=60.0)
        return await row(conn)

    await a_process().report("hunter", denied())
    assert await changed() == ("open", 60)
    assert await changed() == ("open", 60), "and not later and later"

    await conn.execute("delete from enrichment_provider_state")
    await provider_state.open_breaker(conn, credential="hunter", reason="503", open_s=900)
    assert await changed() == ("open", 900)

    await provider_state.set_by_hand(conn, credential="hunter", breaker="open")
    assert (await changed())[0] == "open"


async def test_the_reason_is_kept_without_control_characters(a_process, conn):
    await a_process().report("hunter", denied())

    [state] = await provider_state.troubled(conn)
    assert state.reason == "hunter answered 401: 'wrong [31m key'"


# Probing


async def test_one_process_of_all_probes_a_breaker_whose_time_is_over(a_process, conn):
    processes = [a_process() for _ in range(4)]
    await an_open_one(processes[0])
    await open_time_is_over(conn)

    answers = await asyncio.gather(
        *(process.allows("hunter") for process in processes for _ in range(5))
    )

    assert answers.count(None) == 1
    assert (await row(conn))[0] == "half_open"


async def test_a_probe_is_a_lease_that_one_process_has_at_a_time(a_process, conn):
    await an_open_one(a_process())
    one, other = uuid7(), uuid7()

    async def begin(owner: UUID) -> bool:
        return await provider_state.begin_probe(conn, credential="hunter", owner=owner)

    assert not await begin(one)
    await open_time_is_over(conn)
    assert [await begin(one), await begin(other), await begin(one)] == [True, False, False]
    await conn.execute("update enrichment_provider_state set probe_until = now()")
    assert [await begin(other), await begin(one)] == [True, False]


async def test_a_good_probe_closes_it(a_process, conn):
    process = a_process()
    await an_open_one(process)
    await open_time_is_over(conn)
    assert await process.allows("hunter") is None

    await process.report("hunter", Found())

    assert await row(conn) == ("closed", None)
    assert [await process.allows("hunter") for _ in range(3)] == [None] * 3


async def test_bad_probes_open_it_for_twice_as_long_each_time_up_to_a_quarter_of_an_hour(
    a_process, conn
):
    process = a_process()
    await an_open_one(process)
    lengths = []
    for _ in range(6):
        await open_time_is_over(conn)
        process._forget_view()
        assert await process.allows("hunter") is None
        await process.report("hunter", down())
        lengths.append((await row(conn))[1])

    assert lengths == [60, 120, 240, 480, 900, 900]


async def test_a_probe_that_was_throttled_says_nothing_and_another_may_follow(a_process, conn):
    process = a_process()
    await an_open_one(process)
    await open_time_is_over(conn)
    assert await process.allows("hunter") is None

    await process.report("hunter", throttled())

    assert (await row(conn))[0] == "half_open"
    assert await process.allows("hunter") is None


async def test_a_prober_that_died_is_followed_by_another(a_process, conn):
    dead, alive = a_process(), a_process()
    await an_open_one(dead)
    await open_time_is_over(conn)
    assert await dead.allows("hunter") is None
    assert await alive.allows("hunter") == "breaker_open"
    await conn.execute("update enrichment_provider_state set probe_until = now()")

    alive._forget_view()
    assert await alive.allows("hunter") is None

    await dead.report("hunter", down())
    assert (await row(conn))[0] == "half_open"
    await alive.report("hunter", Found())
    assert (await row(conn))[0] == "closed"


async def test_late_answers_to_earlier_calls_change_nothing_once_it_is_open(a_process, conn):
    process, other = a_process(), a_process()
    await an_open_one(process)

    for _ in range(10):
        await other.report("hunter", down())
        await other.report("hunter", Found())

    assert await row(conn) == ("open", 30)


async def test_a_denied_probe_keeps_it_open_for_an_hour(a_process, conn):
    process = a_process()
    await an_open_one(process)
    await open_time_is_over(conn)
    await process.allows("hunter")

    await process.report("hunter", denied())

    assert await row(conn) == ("open", 3600)


# By hand


async def test_one_that_a_person_opened_stays_open_whatever_is_reported(a_process, conn):
    await provider_state.set_by_hand(conn, credential="hunter", breaker="open")
    process = a_process()
    for _ in range(3):
        await process.report("hunter", Found())

    assert await process.allows("hunter") == "paused"
    assert await row(conn) == ("open", None)


async def test_one_that_a_person_closed_stays_closed_until_its_time_is_over(a_process, conn):
    await provider_state.set_by_hand(conn, credential="hunter", breaker="closed", for_s=60)
    process = a_process()
    await an_open_one(process)
    await process.report("hunter", denied())
    assert await process.allows("hunter") is None
    await conn.execute("update enrichment_provider_state set hand_until = now()")

    await process.report("hunter", down())

    assert (await row(conn))[0] == "open"


async def test_one_that_a_person_opened_for_a_time_is_probed_after_it(a_process, conn):
    await provider_state.set_by_hand(conn, credential="hunter", breaker="open", for_s=3600)
    process = a_process()
    assert await process.allows("hunter") == "paused"
    await open_time_is_over(conn)
    process._forget_view()

    assert await process.allows("hunter") is None
    await process.report("hunter", Found())
    assert (await row(conn))[0] == "closed"


async def test_a_person_closes_what_failures_opened(a_process, conn):
    process = a_process()
    await an_open_one(process)

    await provider_state.set_by_hand(conn, credential="hunter", breaker="closed")

    assert await a_process().allows("hunter") is None


# What it costs


async def test_asking_and_good_answers_cost_no_round_trip(a_process, monkeypatch):
    process = a_process()
    await process.allows("hunter")
    lent = 0
    lend = process._database.connection

    def counting():
        nonlocal lent
        lent += 1
        return lend()

    monkeypatch.setattr(process._database, "connection", counting)
    monkeypatch.setattr(module, "VIEW_S", 60.0)
    for _ in range(1000):
        assert await process.allows("hunter") is None
        await process.report("hunter", Found())

    assert lent == 0


# Without PostgreSQL


async def test_without_postgresql_nothing_is_known_and_reports_are_kept():
    away = Database("postgresql://nobody@127.0.0.1:9/nothing")
    process = Breakers(away)

    for _ in range(2):
        with pytest.raises(Unavailable):
            await process.allows("hunter")
    for answer in (down(), Found(), denied(), down()):
        await process.report("hunter", answer)

    counts = process._untold["hunter"]
    assert (counts.succeeded, counts.failed, counts.streak) == (1, 2, 1)
    await away.close()


async def test_the_last_view_serves_while_postgresql_is_away(a_process, monkeypatch):
    process = a_process()
    await an_open_one(process)
    assert await process.allows("hunter") == "breaker_open"
    await process._database.close()
    monkeypatch.setattr(process._database, "dsn", "postgresql://nobody@127.0.0.1:9/nothing")
    process._forget_view()

    assert await process.allows("hunter") == "breaker_open"
    assert await process.allows("apollo") is None


# For people and metrics


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Found(), "nothing"),
        (Pending("1"), "pending"),
        (down(), "down"),
        (garbled(), "garbled"),
        (denied(), "denied"),
        (exhausted(), "denied"),
        (throttled(), "throttled"),
        (ProviderRejected("400", provider="hunter"), "rejected"),
        (PersonSuppressed("451", provider="hunter"), "suppressed"),
        (ProviderError("?", provider="hunter"), "down"),
    ],
)
def test_every_end_has_a_name_in_the_metrics(answer, outcome):
    assert outcome_of(answer) == outcome


async def test_one_that_was_opened_by_hand_without_end_is_not_due_for_a_probe(conn):
    await provider_state.set_by_hand(conn, credential="hunter", breaker="open")

    [state] = await provider_state.troubled(conn)

    assert state.open_for_s is None
