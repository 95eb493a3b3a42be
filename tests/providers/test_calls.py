"""Questions to providers: each paid once, none beyond a cap, whatever else happens."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest

from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import LeadInput
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
from enrichd.providers.base import Found, Operation, Skipped
from enrichd.providers.calls import Calls
from enrichd.providers.credits import Caps
from enrichd.providers.roster import Providers
from enrichd.store import credits
from enrichd.store.database import Database
from tests.support.credit_server import CreditServer
from tests.support.sharing import CountingProvider, sharing_providers, titled

PERSON, COMPANY = Operation.ENRICH_PERSON, Operation.ENRICH_COMPANY


def lead(**data: Any):
    return lead_from(LeadInput(**(data or {"email": "ada@acme.com"})))


def calls_of(providers: Providers, **options: Any) -> Calls:
    return Calls(providers, **{"workspace_id": "acme", "job_id": uuid4(), **options})


def raising(error: BaseException):
    async def answer(operation, query):
        raise error

    return answer


def unanswered() -> tuple[asyncio.Event, Any]:
    """Return an event that is set once somebody asks, and an answer that never comes."""
    is_asked = asyncio.Event()

    async def answer(operation, query):
        is_asked.set()
        await asyncio.Event().wait()

    return is_asked, answer


async def rows(database: Database, statement: str) -> list[Any]:
    async with database.connection() as conn:
        return await (await conn.execute(statement)).fetchall()  # type: ignore[arg-type]


async def books(database: Database) -> dict[str, tuple[Decimal, Decimal]]:
    """Return (spent, reserved) of today's counter of everybody, and nothing promised twice."""
    found = await rows(
        database,
        """
        select case when counter like 'day:%:%' then 'workspace' when counter like 'day:%'
                    then 'day' when counter like 'job:%' then 'job' else 'month' end,
               sum(spent), sum(reserved)
          from enrichment_credit_counters group by 1
        """,
    )
    return {name: (spent, reserved) for name, spent, reserved in found}


# Once


async def test_two_hundred_jobs_for_one_company_in_several_processes_make_one_call(database_url):
    async def slowly(operation, query):
        await asyncio.sleep(0.1)
        return titled("CTO")

    source = CountingProvider(answer=slowly)
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(sharing_providers(database_url, source))
            for _ in range(4)
        ]
        runs = [calls_of(processes[number % 4]) for number in range(200)]

        answers = await asyncio.gather(
            *(run.ask("counting", COMPANY, lead(domain="acme.test")) for run in runs)
        )

    assert len(source.asked) == 1
    assert {answer.facts[0].value for answer in answers} == {"CTO"}
    assert sum(answer.cost_credits for answer in answers) == 1
    assert sum(answer.cached for answer in answers) == 199
    assert all(answer.fetched_at for answer in answers if answer.cached)


async def test_an_answer_that_nobody_remembers_comes_from_the_database(database_url, database):
    source = CountingProvider()
    async with sharing_providers(database_url, source) as providers:
        first = await calls_of(providers).ask("counting", PERSON, lead())
    async with sharing_providers(database_url, source) as providers:
        second = await calls_of(providers).ask("counting", PERSON, lead())

    assert len(source.asked) == 1
    assert second == replace(
        first, cost_credits=Decimal(0), fetched_at=second.fetched_at, cached=True
    )
    async with database.connection() as conn:
        (use,) = await credits.use(conn)
    assert (use.calls, use.answered, use.cache_hits, use.credits) == (1, 1, 1, 1)


async def test_tenants_pay_for_themselves_in_memory_and_in_the_database(database_url):
    source = CountingProvider()
    async with sharing_providers(database_url, source) as providers:
        mine = await calls_of(providers).ask("counting", PERSON, lead())
        theirs = await calls_of(providers, workspace_id="other").ask("counting", PERSON, lead())

    assert (mine.cached, theirs.cached) == (False, False)
    assert mine.facts[0].value != theirs.facts[0].value


@pytest.mark.parametrize(
    "error",
    [
        ProviderDown("x", provider="counting"),
        ProviderThrottled("x", provider="counting", retry_after_s=60.0),
        ProviderRejected("x", provider="counting"),
        ProviderGarbled("x", provider="counting"),
        ProviderDenied("x", provider="counting"),
        ProviderExhausted("x", provider="counting"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_trouble_is_a_value_and_never_kept(database_url, database, error):
    source = CountingProvider(answer=raising(error))
    async with sharing_providers(database_url, source) as providers:
        assert await calls_of(providers).ask("counting", PERSON, lead()) is error

    kept = "select * from enrichment_provider_cache where answer is not null or outcome is not null"
    assert await rows(database, kept) == []
    assert await rows(database, "select * from enrichment_credit_reservations") == []
    # What cannot be read was answered, and billed.
    spent = 1 if isinstance(error, ProviderGarbled) else 0
    assert (await books(database))["day"] == (spent, 0)


async def test_who_wants_to_be_left_alone_is_never_asked_about_again(database_url, database):
    source = CountingProvider(answer=raising(PersonSuppressed("x", provider="counting")))
    for _ in range(2):
        async with sharing_providers(database_url, source) as providers:
            asked = await calls_of(providers).ask("counting", PERSON, lead())
            assert isinstance(asked, PersonSuppressed)

    assert len(source.asked) == 1
    assert await rows(database, "select expires_at from enrichment_provider_cache") == [(None,)]


async def test_who_waited_for_a_failed_call_asks_himself_one_at_a_time(database_url):
    at_once = most = 0

    async def failing_twice(operation, query):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        if len(source.asked) < 3:
            raise ProviderDown("x", provider="counting")
        return titled("CTO")

    source = CountingProvider(answer=failing_twice)
    async with (
        sharing_providers(database_url, source) as one,
        sharing_providers(database_url, source) as two,
    ):
        answers = await asyncio.gather(
            *(calls_of(process).ask("counting", PERSON, lead()) for process in [one, two] * 10)
        )

    kinds = Counter(type(answer).__name__ for answer in answers)
    assert (kinds, len(source.asked), most) == ({"ProviderDown": 2, "Found": 18}, 3, 1)


async def test_an_answer_too_large_to_keep_is_handed_on(database_url, database):
    async def huge(operation, query):
        return titled("x" * 300_000)

    source = CountingProvider(answer=huge)
    async with sharing_providers(database_url, source) as providers:
        answers = [await calls_of(providers).ask("counting", PERSON, lead()) for _ in range(2)]

    assert [len(answer.facts[0].value) for answer in answers] == [300_000, 300_000]
    assert await rows(database, "select * from enrichment_provider_cache") == []


async def test_the_wait_for_another_has_an_end(database_url):
    is_asked, never = unanswered()
    source = CountingProvider(answer=never)
    async with sharing_providers(database_url, source, wait_s_max=0.2) as one:
        first = asyncio.create_task(calls_of(one).ask("counting", PERSON, lead()))
        await is_asked.wait()
        async with sharing_providers(database_url, CountingProvider(), wait_s_max=0.2) as two:
            here = await calls_of(one).ask("counting", PERSON, lead())
            there = await calls_of(two).ask("counting", PERSON, lead())
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    assert isinstance(here, ProviderThrottled)
    assert isinstance(there, ProviderThrottled)


# Not asked


async def test_every_question_that_is_not_put_says_why(database_url):
    class Picky(CountingProvider):
        operations = frozenset({PERSON, COMPANY})

        def can_answer(self, operation, query):
            return None if query.address else "no_email"

    async with sharing_providers(database_url, Picky()) as providers:
        calls = calls_of(providers)

        assert await calls.ask("nobody", PERSON, lead()) == Skipped("no_such_provider")
        assert await calls.ask("counting", PERSON, lead(domain="a.test")) == Skipped("no_email")
        assert await calls.ask("counting", Operation.FIND_EMAIL, lead()) == Skipped(
            "cannot_answer_that"
        )


async def test_after_a_denied_key_nobody_asks_and_nothing_is_held(database_url, database):
    source = CountingProvider(answer=raising(ProviderDenied("no", provider="counting")))
    async with sharing_providers(database_url, source) as providers:
        calls = calls_of(providers)
        await calls.ask("counting", PERSON, lead())

        assert await calls.ask("counting", PERSON, lead()) == Skipped("breaker_open")

    assert len(source.asked) == 1
    assert await rows(database, "select * from enrichment_provider_cache") == []
    assert (await books(database))["day"] == (0, 0)


async def test_while_a_breaker_is_open_kept_answers_are_had_and_nothing_is_set_aside(
    database_url, bulky
):
    source = CountingProvider()
    async with sharing_providers(database_url, source, bulky) as providers:
        assert providers.shared is not None
        answers = providers.shared.answers
        for name, operation in (("counting", PERSON), ("bulky", COMPANY)):
            run = calls_of(providers)
            await run.ask(name, operation, lead(email="ada@acme.com", domain="acme.com"))
            denied = ProviderDenied("no", provider=name)
            await providers.shared.breakers.report(name, denied)
        before = answers.ends.items

        kept = await calls_of(providers).ask("counting", PERSON, lead())
        unknown = await calls_of(providers).ask("counting", PERSON, lead(email="eve@acme.com"))
        many = await calls_of(providers).ask_many(
            "bulky", COMPANY, [lead(domain="acme.com"), lead(domain="other.com")]
        )

    assert isinstance(kept, Found)
    assert unknown == Skipped("breaker_open")
    assert [isinstance(answer, Found) for answer in many] == [True, False]
    assert many[1] == Skipped("breaker_open")
    assert answers.ends.items == before
    assert len(source.asked) == 1


async def test_a_quota_that_ends_in_the_middle_of_a_batch_leaves_the_rest_unasked(
    database_url, database
):
    async def until_it_ends(operation, query):
        if len(source.asked) > 3:
            raise ProviderExhausted("none left", provider="counting", reset_after_s=3600.0)
        return titled("CTO")

    source = CountingProvider(answer=until_it_ends)
    async with sharing_providers(database_url, source) as providers:
        questions = [lead(domain=f"acme{number}.test") for number in range(30)]
        answers = await calls_of(providers).ask_many("counting", COMPANY, questions)

    kinds = Counter(type(answer).__name__ for answer in answers)
    assert kinds["Found"] == 3
    assert 4 <= len(source.asked) <= 13, "no more than were under way together"
    assert kinds["Skipped"] == 30 - len(source.asked)
    assert (await books(database))["day"] == (3, 0)


# Caps


@pytest.mark.parametrize(
    ("caps", "max_credits", "reason"),
    [
        ({}, "2", "would_exceed_max_credits"),
        ({"per_day": Decimal(2)}, None, "would_exceed_daily_credits"),
        ({"workspace_per_day": Decimal(2)}, None, "would_exceed_workspace_credits"),
        ({"workspace_per_month": Decimal(2)}, None, "would_exceed_workspace_credits"),
    ],
    ids=["job", "day", "workspace's day", "workspace's month"],
)
async def test_a_cap_is_used_up_and_never_passed(database_url, database, caps, max_credits, reason):
    source = CountingProvider()
    most = Decimal(max_credits) if max_credits else None
    async with sharing_providers(database_url, source, caps=Caps(**caps)) as providers:
        calls = calls_of(providers, max_credits=most)
        questions = [lead(domain=f"acme{number}.test") for number in range(5)]

        answers = await asyncio.gather(
            *(calls.ask("counting", COMPANY, question) for question in questions)
        )
        again = await calls.ask("counting", COMPANY, questions[0])

    assert len(source.asked) == 2
    assert [type(answer) for answer in answers] == [Found, Found, Skipped, Skipped, Skipped]
    assert {answer.reason for answer in answers[2:]} == {reason}
    assert again.cached, "what is known costs nothing"
    assert all(reserved == 0 for _, reserved in (await books(database)).values())


async def test_what_a_call_did_not_cost_can_be_spent(database_url, database):
    async def nobody(operation, query):
        return Found()

    source = CountingProvider(answer=nobody, cost="3")
    async with sharing_providers(database_url, source) as providers:
        calls = calls_of(providers, max_credits=Decimal(3))
        for number in range(3):
            answer = await calls.ask("counting", COMPANY, lead(domain=f"acme{number}.test"))
            assert isinstance(answer, Found)

    assert (await books(database))["job"] == (0, 0)


async def test_a_workspace_has_its_own_cap_in_place_of_the_common_one(database_url, database):
    async with database.connection() as conn:
        for workspace, most in (("rich", 3), ("poor", 0)):
            budget = credits.Budget(per_day_max=Decimal(most))
            await credits.set_budget(conn, workspace_id=workspace, budget=budget)
    paid = {}
    async with sharing_providers(
        database_url, CountingProvider(), caps=Caps(workspace_per_day=Decimal(1))
    ) as providers:
        for workspace in ("rich", "poor", "other"):
            calls = calls_of(providers, workspace_id=workspace)
            answers = [
                await calls.ask("counting", COMPANY, lead(domain=f"acme{number}.test"))
                for number in range(4)
            ]
            paid[workspace] = sum(isinstance(answer, Found) for answer in answers)

    assert paid == {"rich": 3, "poor": 0, "other": 1}


async def test_a_library_without_a_database_still_keeps_its_cap():
    from tests.support.contexts import providers_of

    source = CountingProvider()
    async with providers_of(source) as providers:  # type: ignore[arg-type]
        calls = Calls(providers, workspace_id="acme", max_credits=Decimal(2))
        answers = [await calls.ask("counting", PERSON, lead()) for _ in range(3)]

    assert answers[2] == Skipped("would_exceed_max_credits")
    assert len(source.asked) == 2


# Processes that race and die


async def asking(*runs: dict[str, Any]) -> list[tuple[int, Counter[str]]]:
    """Fork an asking process for each; return exit codes and what became of the questions."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.asking_process", json.dumps(runs)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return [(code, Counter(kinds)) for code, kinds in map(json.loads, output.splitlines())]


async def test_eight_racing_processes_spend_a_cap_exactly(database_url, database):
    with CreditServer() as server:
        ends = await asking(
            *(
                {
                    "dsn": database_url,
                    "url": server.url,
                    # Half of the questions are everybody's, half a process's own.
                    "questions": [
                        f"acme{number if number % 2 else f'{process}x{number}'}.test"
                        for number in range(60)
                    ],
                    "caps": {"per_day": "100"},
                }
                for process in range(8)
            )
        )

    assert [code for code, _ in ends] == [0] * 8
    kinds: Counter[str] = sum((kinds for _, kinds in ends), Counter())
    assert server.billed == kinds["paid"] == 100
    assert max(server.asked.values()) == 1
    assert kinds["paid"] + kinds["cached"] + kinds["would_exceed_daily_credits"] == 480
    assert (await books(database))["day"] == (100, 0)


async def test_a_run_that_is_killed_after_a_paid_call_pays_at_most_that_one_again(
    database_url, database
):
    run = {
        "dsn": database_url,
        "questions": [f"acme{number}.test" for number in range(5)],
        "job_id": str(uuid4()),
        "at_once": 1,
    }
    with CreditServer() as server:
        run["url"] = server.url
        assert await asking({**run, "die_after": "acme3.test"}) == [(-9, {})]
        replay = await asking(run)

    assert replay == [(0, {"cached": 3, "paid": 2})]
    assert server.asked == {**{f"acme{number}.test": 1 for number in range(5)}, "acme3.test": 2}
    # The dead call's credit stays set aside until its time is over, and counts as spent then.
    assert (await books(database))["day"] == (5, 1)
    async with database.connection() as conn:
        await conn.execute("update enrichment_credit_reservations set expires_at = now()")
        assert await credits.sweep(conn) == 1
    assert (await books(database))["day"] == (6, 0)


# Cancelled, and the database away


async def test_a_run_that_is_stopped_in_a_call_frees_its_question_at_once(database_url, database):
    is_asked, never = unanswered()
    async with sharing_providers(database_url, CountingProvider(answer=never)) as providers:
        run = asyncio.create_task(calls_of(providers).ask("counting", PERSON, lead()))
        await is_asked.wait()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    source = CountingProvider()
    async with sharing_providers(database_url, source) as providers:
        async with asyncio.timeout(5):
            answer = await calls_of(providers).ask("counting", PERSON, lead())
    assert isinstance(answer, Found)
    # The request was sent: it may have been paid.
    assert (await books(database))["day"] == (2, 0)


@pytest.mark.parametrize("yields", range(12))
async def test_a_run_that_is_stopped_anywhere_gives_everything_back(database_url, database, yields):
    async with sharing_providers(database_url, CountingProvider()) as providers:
        run = asyncio.create_task(calls_of(providers).ask("counting", PERSON, lead()))
        for _ in range(yields * 3):
            await asyncio.sleep(0)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    assert await rows(database, "select * from enrichment_credit_reservations") == []
    assert (
        await rows(database, "select * from enrichment_provider_cache where asked_by is not null")
        == []
    )
    assert all(reserved == 0 for _, reserved in (await books(database)).values())


async def test_a_run_that_is_stopped_just_when_it_may_ask_gives_everything_back(
    database_url, database
):
    source = CountingProvider()
    async with sharing_providers(database_url, source) as providers:
        assert providers.shared is not None
        run = asyncio.create_task(calls_of(providers).ask("counting", PERSON, lead()))
        # The step between the answer's coming and the run's seeing it.
        while not providers.shared.answers.begins.items:  # noqa: ASYNC110 - the next step counts
            await asyncio.sleep(0)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    assert source.asked == []
    assert await rows(database, "select * from enrichment_credit_reservations") == []
    assert await rows(database, "select * from enrichment_provider_cache") == []


async def test_without_the_database_nothing_is_asked_and_nothing_paid():
    source = CountingProvider()
    async with sharing_providers("postgresql://127.0.0.1:1/nobody", source) as providers:
        with pytest.raises(Unavailable):
            await calls_of(providers).ask("counting", PERSON, lead())

    assert source.asked == []


async def test_a_paid_answer_is_kept_however_long_the_database_is_away(database_url, database):
    is_back = asyncio.Event()

    async def cutting(operation, query):
        # The connection dies while the provider answers, and every new one does at first.
        shared = providers.shared
        assert shared is not None
        dsn, shared.database.dsn = shared.database.dsn, "postgresql://127.0.0.1:1/nobody"
        await shared.database.reset()
        asyncio.get_running_loop().call_later(0.5, come_back, shared.database, dsn)
        return titled("CTO")

    def come_back(cut: Database, dsn: str) -> None:
        cut.dsn = dsn
        is_back.set()

    async with sharing_providers(database_url, CountingProvider(answer=cutting)) as providers:
        answer = await calls_of(providers).ask("counting", PERSON, lead())
        assert is_back.is_set()

    assert isinstance(answer, Found)
    assert await rows(database, "select outcome from enrichment_provider_cache") == [("found",)]
    assert (await books(database))["day"] == (1, 0)


async def test_a_defect_of_an_adapter_is_an_answer_that_nobody_can_read(database_url, database):
    source = CountingProvider(answer=raising(KeyError("https://acme.test/?api_key=secret")))
    async with sharing_providers(database_url, source) as providers:
        answer = await calls_of(providers).ask("counting", PERSON, lead())

    assert isinstance(answer, ProviderGarbled)
    assert "KeyError" in answer.message
    assert "secret" not in answer.message
    kept = "select * from enrichment_provider_cache where answer is not null or outcome is not null"
    assert await rows(database, kept) == []
    assert (await books(database))["day"] == (1, 0)


async def test_an_adapter_that_lets_its_http_library_raise_is_taken_for_down(database_url):
    source = CountingProvider(answer=raising(httpx.ConnectError("refused")))
    async with sharing_providers(database_url, source) as providers:
        answer = await calls_of(providers).ask("counting", PERSON, lead())

    assert isinstance(answer, ProviderDown)


# Many at once


class BulkProvider(CountingProvider):
    """Takes three questions a call; knows nobody at `nobody.test`."""

    def __init__(self, **options: Any) -> None:
        super().__init__("bulky", **options)
        self.calls: list[int] = []

    async def call_many(self, operation, queries) -> list[Found | ProviderError]:
        self.calls.append(len(queries))
        self.asked += queries
        return [
            Found() if query.domain == "nobody.test" else titled(query.domain) for query in queries
        ]


async def test_operations_of_one_endpoint_take_from_one_limit(database_url, database, monkeypatch):
    from enrichd.providers.base import REGISTERED, Registration
    from enrichd.providers.contracts import Contract, Window

    contract = Contract(
        "http://127.0.0.1:9",
        statuses={},
        limits={PERSON: (Window(3600, 2),), COMPANY: (Window(3600, 2),)},
        counted_as={Operation.FIND_EMAIL: PERSON},
    )
    source = CountingProvider()
    monkeypatch.setitem(REGISTERED, "counting", Registration(lambda *_: source, {}, contract))
    async with sharing_providers(database_url, source) as providers:
        run = calls_of(providers, wait_s_max=2.0)
        asked = [
            await run.ask("counting", operation, lead())
            for operation in (Operation.FIND_EMAIL, PERSON, Operation.FIND_EMAIL)
        ]
        asked.append(await run.ask("counting", PERSON, lead(email="eve@acme.com")))
        asked.append(await run.ask("counting", COMPANY, lead(domain="acme.com")))

    assert [type(answer) for answer in asked] == [Found, Found, Found, ProviderThrottled, Found]
    assert len(source.asked) == 3
    limits = await rows(
        database, "select operation from enrichment_rate_limits where window_s = 3600 order by 1"
    )
    assert limits == [("*",), ("enrichCompany",), ("enrichPerson",)]


@pytest.fixture
def bulky(monkeypatch):
    from enrichd.providers.base import REGISTERED, Registration
    from enrichd.providers.contracts import Contract

    contract = Contract("http://127.0.0.1:9", statuses={}, bulk={COMPANY: 3})
    source = BulkProvider()
    monkeypatch.setitem(REGISTERED, "bulky", Registration(lambda *_: source, {}, contract))
    return source


async def test_many_questions_go_in_as_few_calls_as_may_be_each_company_once(database_url, bulky):
    domains = ["a.test", "b.test", "a.test", "nobody.test", "c.test", "d.test"]
    async with sharing_providers(database_url, bulky) as providers:
        calls = calls_of(providers)
        await calls.ask("bulky", COMPANY, lead(domain="b.test"))
        bulky.asked.clear()

        answers = await calls.ask_many("bulky", COMPANY, [lead(domain=name) for name in domains])

    assert bulky.calls == [3, 1]
    assert [query.domain for query in bulky.asked] == ["a.test", "nobody.test", "c.test", "d.test"]
    assert [answer.cached for answer in answers] == [False, True, True, False, False, False]
    assert [answer.is_match for answer in answers] == [True, True, True, False, True, True]


async def test_two_processes_with_each_others_questions_in_bulk_never_wait_in_a_circle(
    database_url, bulky
):
    domains = [f"acme{number}.test" for number in range(30)]
    async with (
        sharing_providers(database_url, bulky) as one,
        sharing_providers(database_url, bulky) as two,
        asyncio.timeout(20),
    ):
        both = await asyncio.gather(
            calls_of(one).ask_many("bulky", COMPANY, [lead(domain=name) for name in domains]),
            calls_of(two).ask_many(
                "bulky", COMPANY, [lead(domain=name) for name in reversed(domains)]
            ),
        )

    assert all(isinstance(answer, Found) for answers in both for answer in answers)
    assert len(bulky.asked) == 30


async def test_a_bulk_call_does_not_wait_for_a_question_that_another_asks(
    database_url, bulky, eventually
):
    is_asked, never = unanswered()
    bulky.calls = []
    async with (
        sharing_providers(database_url, CountingProvider("bulky", answer=never)) as one,
        sharing_providers(database_url, bulky) as two,
        asyncio.timeout(10),
    ):
        first = asyncio.create_task(calls_of(one).ask("bulky", COMPANY, lead(domain="a.test")))
        await is_asked.wait()
        many = asyncio.create_task(
            calls_of(two).ask_many("bulky", COMPANY, [lead(domain="a.test"), lead(domain="b.test")])
        )

        async def is_put() -> bool:
            return bool(bulky.asked)

        await eventually(is_put)
        assert [query.domain for query in bulky.asked] == ["b.test"]
        first.cancel()
        answers = await many

    assert [answer.facts[0].value for answer in answers] == ["CTO 2", "b.test"]


async def test_credits_that_end_in_the_middle_of_a_batch_leave_the_rest_unasked(
    database_url, database, bulky
):
    async with sharing_providers(database_url, bulky) as providers:
        calls = calls_of(providers, max_credits=Decimal(4))
        questions = [lead(domain=f"acme{number}.test") for number in range(7)]

        answers = await calls.ask_many("bulky", COMPANY, questions)

    assert [isinstance(answer, Found) for answer in answers] == [True] * 4 + [False] * 3
    assert set(answers[4:]) == {Skipped("would_exceed_max_credits")}
    assert (await books(database))["job"] == (4, 0)
