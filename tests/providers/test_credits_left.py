"""What is left of the credits by the providers' own word: heard on the way, written beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from enrichd.errors import ProviderDown
from enrichd.providers.base import Found, Operation
from enrichd.providers.contracts import Standing
from enrichd.providers.credits_left import CreditsLeft
from enrichd.store import provider_standing
from enrichd.store.database import Database
from tests.support.providers import faults
from tests.support.providers.asking import ADA, ADA_EMAIL, adapter_of
from tests.support.providers.asking import lead as lead_of
from tests.support.providers.hunter import fake_hunter
from tests.support.providers.pdl import fake_pdl
from tests.support.whole_path import fleet_of, lead

PAID = Found(cost_credits=Decimal(1))


def saying(left: Any) -> Found:
    return Found(standing=Standing(credits_left=left))


class Asked:
    """A provider that says what is left when it is asked, or raises."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def credits_left(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def listening(database: Database, pause_s: float = 0.01) -> AsyncIterator[CreditsLeft]:
    heard = CreditsLeft(database, pause_s=pause_s)
    try:
        yield heard
    finally:
        await heard.aclose()


async def left(database: Database, credential: str = "hunter") -> Decimal | None:
    async with database.connection() as conn:
        found = await provider_standing.standings(conn, [credential])
    return found[credential].credits_left if credential in found else None


@pytest.fixture
def known(database: Database, eventually: Any) -> Any:
    """Give `await known(number, credential)`: wait until everybody can see it."""

    async def wait(number: Decimal, credential: str = "hunter") -> None:
        async def is_known() -> bool:
            return await left(database, credential) == number

        await eventually(is_known)

    return wait


async def test_what_an_answer_says_of_the_credits_is_there_after_the_job(database_url, database):
    async with fake_pdl(balance=50) as pdl, fleet_of(database_url, pdl) as fleet:
        (job_id,) = await fleet.enqueue(lead(ADA_EMAIL, providerId="pdl"))
        await fleet.ended(job_id)

    assert pdl.credits_spent == 1
    assert await left(database, "pdl") == 49


async def test_hunter_is_asked_for_its_account_once_and_again_when_that_is_old(database, known):
    async with (
        fake_hunter(balance=50) as hunter,
        adapter_of(hunter) as adapter,
        listening(database) as heard,
    ):
        answer = await adapter.call(Operation.FIND_EMAIL, lead_of(**ADA))
        for _ in range(20):
            heard.hear("hunter", adapter, answer)

        await known(Decimal(49))
        assert hunter.side_calls == {"/account": 1}
        assert hunter.calls == {"/email-finder": 1}

        async with listening(database) as another_process:
            another_process.hear("hunter", adapter, answer)
            another_process.hear("news", Asked(Decimal(8)), answer)
            await known(Decimal(8), "news")
        assert hunter.side_calls == {"/account": 1}, "it is known well enough"

        async with database.connection() as conn:
            await conn.execute(
                "update enrichment_provider_state set credits_seen_at = now() - interval '61 s'"
            )
        async with listening(database) as later:
            later.hear("hunter", adapter, answer)
            later.hear("other", Asked(Decimal(8)), answer)
            await known(Decimal(8), "other")
        assert hunter.side_calls == {"/account": 2}


@pytest.mark.parametrize(
    "broken",
    [faults.status(500), faults.status(200, {"data": None}), faults.status(200, [1])],
)
async def test_an_account_that_cannot_be_read_says_nothing(database, known, broken):
    async with (
        fake_hunter() as hunter,
        adapter_of(hunter) as adapter,
        listening(database) as heard,
    ):
        hunter.script("/account", broken)
        heard.hear("hunter", adapter, PAID)
        heard.hear("other", Asked(Decimal(8)), PAID)
        await known(Decimal(8), "other")

    assert hunter.side_calls == {"/account": 1}
    assert await left(database) is None


async def test_the_newest_number_of_each_credential_is_written_and_nobody_waits_for_it(database):
    async with listening(database, pause_s=60.0) as heard:
        for number in range(1000, 0, -1):
            heard.hear("pdl", None, saying(Decimal(number)))
        heard.hear("pdl#acme", None, [ProviderDown("x", provider="pdl"), saying(Decimal("7.5"))])
        assert await left(database, "pdl") is None

    assert (await left(database, "pdl"), await left(database, "pdl#acme")) == (1, Decimal("7.5"))


async def test_a_number_that_is_known_is_not_written_again(database, known):
    async with listening(database) as heard:
        heard.hear("pdl", None, saying(Decimal(5)))
        await known(Decimal(5), "pdl")
        async with database.connection() as conn:
            await conn.execute("update enrichment_provider_state set credits_left = 99")
        heard.hear("pdl", None, saying(Decimal(5)))

    assert await left(database, "pdl") == 99


@pytest.mark.parametrize("nonsense", [Decimal("NaN"), Decimal("Infinity"), None, 5.0, "many"])
async def test_nonsense_and_defects_of_a_plugin_are_passed_over(database, known, nonsense):
    async with listening(database) as heard:
        heard.hear("plugin", Asked(nonsense), saying(nonsense))
        heard.hear("plugin", Asked(ZeroDivisionError("bug")), PAID)
        heard.hear("down", Asked(ProviderDown("x", provider="down")), PAID)
        heard.hear("low", Asked(Decimal(-3)), PAID)
        await known(Decimal(0), "low")

    assert await left(database, "plugin") is None
    assert await left(database, "down") is None


async def test_without_postgresql_nothing_is_raised_and_nobody_waits():
    async with asyncio.timeout(5), listening(Database("postgresql://127.0.0.1:9/none")) as heard:
        heard.hear("pdl", None, saying(Decimal(5)))
        heard.hear("hunter", Asked(), PAID)
