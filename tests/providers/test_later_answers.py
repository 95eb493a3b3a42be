"""Answers that come later: asked once, awaited by all, taken from a callback or fetched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import LeadInput
from enrichd.errors import ProviderDown, ProviderError, ProviderGarbled, ProviderRejected
from enrichd.providers.base import Found, Operation, Pending
from enrichd.providers.callbacks import Callbacks, Receipt, receive_callback
from enrichd.providers.calls import Calls
from enrichd.providers.roster import Providers
from enrichd.store.database import Database
from tests.support.factories import a_job
from tests.support.sharing import CountingProvider, sharing_providers, titled

PERSON = Operation.ENRICH_PERSON


@dataclass
class Row:
    """A callback that is listened for, or one that came."""

    token: str
    url: str | None
    deadline_s: float
    request_id: str | None = None
    poll_due: bool = False


@dataclass
class Body:
    """What was called back."""

    body: str


class MemoryCallbacks:
    """Callbacks without a table."""

    def __init__(self) -> None:
        self.rows: dict[tuple[UUID, bytes], Row | Body] = {}
        self.log: list[str] = []

    async def expect(self, *, job_id, cache_key, deadline_s, **_: Any) -> Row:
        self.log.append("expect")
        row = Row(str(len(self.log)), f"http://127.0.0.1:9/{len(self.log)}", deadline_s)
        self.rows[job_id, cache_key] = row
        return row

    async def asked(self, token, *, request_id, poll_after_s) -> None:
        self.log.append(f"asked {request_id}")
        for row in self.rows.values():
            if isinstance(row, Row) and row.token == token:
                row.request_id = request_id

    async def answer_for(self, job_id, cache_key) -> Row | Body | None:
        return self.rows.get((job_id, cache_key))

    async def poll_again(self, job_id, cache_key, *, poll_after_s) -> None:
        self.log.append(f"poll again {poll_after_s:g}")

    async def used(self, job_id, cache_key) -> None:
        self.log.append("used")
        self.rows.pop((job_id, cache_key), None)

    def change(self, job_id: UUID, change: Callable[[Row], object]) -> None:
        for (owner, _), row in self.rows.items():
            if owner == job_id and isinstance(row, Row):
                change(row)

    def call_back(self, job_id: UUID, body: str) -> None:
        for key in [key for key in self.rows if key[0] == job_id]:
            self.rows[key] = Body(body)


class SlowProvider(CountingProvider):
    """Answers `7` later; `polls` are the answers to its polls in turn."""

    def __init__(self, *polls: Found | Pending | ProviderError, request_id: str | None = "7"):
        super().__init__("slow")
        self.polls = list(polls)
        self.urls: list[str | None] = []
        self._request_id = request_id

    async def begin(self, operation, query, *, callback_url):
        self.asked.append(query)
        self.urls.append(callback_url)
        return Pending(self._request_id, 5.0, 600.0)

    async def poll(self, operation, query, request_id):
        assert request_id == "7"
        answer = self.polls.pop(0)
        if isinstance(answer, ProviderError):
            raise answer
        return answer

    def read_callback(self, operation, query, body):
        if "title" not in body:
            raise ProviderGarbled("x", provider="slow")
        return titled(body["title"], cost="1")


@dataclass
class Scene:
    """A question that was put by a parked job, and is still to come."""

    providers: Providers
    callbacks: MemoryCallbacks
    source: SlowProvider
    job_id: UUID
    database: Database

    async def ask(self, job_id: UUID | None = None, **options: Any) -> Any:
        calls = Calls(self.providers, workspace_id="default", job_id=job_id or self.job_id)
        lead = lead_from(LeadInput(email="ada@acme.com"))
        return await calls.ask("slow", PERSON, lead, **options)

    async def books(self) -> set[tuple[Decimal, Decimal]]:
        async with self.database.connection() as conn:
            cursor = await conn.execute("select spent, reserved from enrichment_credit_counters")
            return set(await cursor.fetchall())  # type: ignore[arg-type]


@pytest.fixture
async def scene(database_url, database):
    callbacks, source = MemoryCallbacks(), SlowProvider()
    async with database.connection() as conn:
        job = await a_job(conn, status="waiting")
    async with sharing_providers(database_url, source, callbacks=callbacks) as providers:
        scene = Scene(providers, callbacks, source, job.id, database)
        assert await scene.ask() == Pending("7", 5.0, 600.0)
        yield scene


async def test_the_callback_is_listened_for_before_the_request_is_sent(scene):
    assert scene.source.urls == ["http://127.0.0.1:9/1"]
    assert scene.callbacks.log == ["expect", "asked 7"]
    assert await scene.books() == {(0, 1)}, "set aside until the answer comes"


async def test_what_was_called_back_is_the_answer_and_is_kept_for_everybody(scene):
    scene.callbacks.call_back(scene.job_id, json.dumps({"title": "CTO"}))

    answer = await scene.ask()
    other = await scene.ask(uuid4())

    assert isinstance(answer, Found)
    assert (answer.facts[0].value, answer.cost_credits) == ("CTO", 1)
    assert other.cached
    assert len(scene.source.asked) == 1
    assert scene.callbacks.log[-1] == "used"
    assert await scene.books() == {(1, 0)}


async def test_before_its_time_nobody_polls(scene):
    again = await scene.ask()

    assert isinstance(again, Pending)
    assert (again.request_id, again.poll_after_s) == ("7", 5.0)
    assert again.deadline_s == pytest.approx(600.0, abs=30)
    assert len(scene.source.asked) == 1


async def test_a_poll_brings_the_answer_or_another_wait(scene):
    scene.source.polls += [Pending("7", 9.0, 600.0), titled("CTO")]
    scene.callbacks.change(scene.job_id, lambda row: setattr(row, "poll_due", True))

    waiting = await scene.ask()
    answer = await scene.ask()

    assert isinstance(waiting, Pending)
    assert isinstance(answer, Found)
    assert scene.callbacks.log[2:] == ["poll again 9", "used"]
    assert await scene.books() == {(1, 0)}


async def test_a_poll_that_fails_for_the_moment_leaves_the_question_where_it_is(scene):
    scene.source.polls += [ProviderDown("x", provider="slow"), titled("CTO")]
    scene.callbacks.change(scene.job_id, lambda row: setattr(row, "poll_due", True))

    assert isinstance(await scene.ask(), ProviderDown)
    assert isinstance(await scene.ask(), Found)
    assert len(scene.source.asked) == 1


async def test_a_poll_that_is_refused_ends_the_question(scene):
    scene.source.polls.append(ProviderRejected("unknown", provider="slow"))
    scene.callbacks.change(scene.job_id, lambda row: setattr(row, "poll_due", True))

    assert isinstance(await scene.ask(), ProviderRejected)
    assert isinstance(await scene.ask(), Pending)
    assert len(scene.source.asked) == 2


async def test_garbage_that_is_called_back_is_not_the_end_of_it(scene):
    scene.source.polls.append(titled("CTO"))
    scene.callbacks.call_back(scene.job_id, "<html>")

    answer = await scene.ask()

    assert isinstance(answer, Found)
    assert len(scene.source.asked) == 1


async def test_past_its_deadline_the_answer_is_given_up_and_counts_as_paid(scene):
    scene.callbacks.change(scene.job_id, lambda row: setattr(row, "deadline_s", 0.0))

    answer = await scene.ask()

    assert isinstance(answer, ProviderDown)
    assert await scene.books() == {(1, 0)}
    assert isinstance(await scene.ask(), Pending)
    assert len(scene.source.asked) == 2


async def test_other_jobs_wait_for_the_same_answer_and_come_again_for_it(scene):
    other = uuid4()

    waiting = await asyncio.gather(scene.ask(other), scene.ask(uuid4()))

    assert all(isinstance(one, Pending) for one in waiting)
    assert len(scene.source.asked) == 1
    assert scene.callbacks.log.count("asked None") == 2
    await scene.ask(other)
    assert scene.callbacks.log.count("expect") == 3, "one for each job"


async def test_the_answer_of_a_job_that_was_cancelled_goes_to_the_next(scene):
    async with scene.database.connection() as conn:
        await conn.execute("update enrichment_jobs set status = 'cancelled'")
    scene.source.polls.append(titled("CTO"))

    answer = await scene.ask(uuid4())

    assert isinstance(answer, Found)
    assert len(scene.source.asked) == 1


async def test_a_callback_over_the_real_table_brings_the_answer_to_all(database_url, database):
    source = SlowProvider()
    async with database.connection() as conn:
        job = await a_job(conn, status="waiting")
    callbacks = Callbacks(database, base_url="https://enrichd.test")
    async with sharing_providers(database_url, source, callbacks=callbacks) as providers:
        scene = Scene(providers, MemoryCallbacks(), source, job.id, database)
        assert [type(await scene.ask(owner)) for owner in (None, None, uuid4())] == [Pending] * 3
        (url,) = source.urls
        assert url is not None

        token = url.rpartition("/")[2]
        receipt = await receive_callback(database, token, b'{"title": "CTO"}')
        answer = await scene.ask()
        other = await scene.ask(uuid4())

    assert receipt is Receipt.RESUMED
    assert isinstance(answer, Found)
    assert (answer.facts[0].value, other.cached) == ("CTO", True)
    assert len(source.asked) == 1


async def test_whoever_wants_no_callback_gives_no_address(database_url):
    callbacks, source = MemoryCallbacks(), SlowProvider()
    async with sharing_providers(database_url, source, callbacks=callbacks) as providers:
        calls = Calls(providers, workspace_id="acme", job_id=uuid4())
        lead = lead_from(LeadInput(email="ada@acme.com"))
        await calls.ask("slow", PERSON, lead, want_callback=False)

    assert source.urls == [None]


async def test_an_adapter_that_is_never_called_back_costs_no_row_for_it(database_url):
    class Prompt(SlowProvider):
        calls_back = frozenset()

        async def begin(self, operation, query, *, callback_url):
            return titled("CTO")

    callbacks = MemoryCallbacks()
    async with sharing_providers(database_url, Prompt(), callbacks=callbacks) as providers:
        calls = Calls(providers, workspace_id="acme", job_id=uuid4())
        answer = await calls.ask("slow", PERSON, lead_from(LeadInput(email="ada@acme.com")))

    assert isinstance(answer, Found)
    assert callbacks.log == []
