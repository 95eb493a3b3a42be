"""`batch_lead_enrichment`: resuming, one lead's trouble, sharing answers and credits."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from enrichd.domain.facts import Fact
from enrichd.domain.outcomes import Completed, Failed, Retry
from enrichd.domain.payloads import BatchLeadEnrichment, parse
from enrichd.errors import ClaimLost, ProviderDown, ProviderThrottled
from enrichd.handlers.batch_leads import AT_ONCE, TRIES_MAX, enrich_batch, leads_of
from enrichd.handlers.context import Item
from enrichd.providers.base import Found, Operation, Query
from tests.support.contexts import MemoryContext, ScriptedProvider, found, providers_of
from tests.support.sharing import sharing_providers

TITLE = found(Fact("person", "title", "CTO", 0.9, "api"))


def batch(leads: list[dict[str, Any]], **fields: Any) -> BatchLeadEnrichment:
    model = parse(
        "batch_lead_enrichment",
        {"leads": leads, "enrichmentTypes": ["person"], "providerId": "acme", **fields},
    )
    assert isinstance(model, BatchLeadEnrichment)
    return model


def people(count: int) -> list[dict[str, Any]]:
    return [{"id": str(number), "fullName": f"Ada Quill{number}"} for number in range(count)]


class Fussy(ScriptedProvider):
    """Answers about everybody but those whose full name has an error in `errors`."""

    def __init__(self, errors: dict[str, Exception]) -> None:
        super().__init__("acme", {Operation.ENRICH_PERSON: TITLE})
        self.errors = errors
        self.running = 0
        self.running_most = 0

    async def call(self, operation: Operation, query: Query) -> Found:
        self.running += 1
        self.running_most = max(self.running, self.running_most)
        await asyncio.sleep(0)
        self.running -= 1
        if error := self.errors.get(query.full_name or ""):
            raise error
        return await super().call(operation, query)


async def run(
    payload: BatchLeadEnrichment, provider: ScriptedProvider, **options: Any
) -> tuple[Any, MemoryContext]:
    async with providers_of(provider) as providers:
        context = MemoryContext(providers, **options)
        return await enrich_batch(payload, context), context


async def test_every_lead_is_kept_by_its_id_and_counted():
    outcome, context = await run(batch(people(25)), Fussy({}))

    assert outcome == Completed(
        {
            "total": 25,
            "completed": 25,
            "failed": 0,
            "outcomes": {"complete": 25, "partial": 0, "notFound": 0, "suppressed": 0},
            "costCredits": 25,
        }
    )
    assert sorted(context.items) == sorted(str(number) for number in range(25))
    item = context.items["7"]
    assert (item.status, item.result and item.result["leadId"]) == ("completed", "7")
    assert context.steps[0] == (0, 25)
    assert context.steps[-1] == (25, 25)


async def test_leads_run_side_by_side_within_a_bound():
    provider = Fussy({})

    await run(batch(people(40)), provider)

    assert 1 < provider.running_most <= AT_ONCE


async def test_a_resumed_batch_repeats_nothing_and_counts_everything():
    done = {
        "0": Item("completed", {"outcome": "partial", "costCredits": 2.5}, None),
        "1": Item("failed", None, {"type": "x"}),
    }
    provider = Fussy({})

    outcome, context = await run(batch(people(3)), provider, items=done, attempt=2)

    assert context.recorded == ["2"]
    assert len(provider.asked) == 1
    assert outcome.result == {
        "total": 3,
        "completed": 2,
        "failed": 1,
        "outcomes": {"complete": 1, "partial": 1, "notFound": 0, "suppressed": 0},
        "costCredits": 3.5,
    }


async def test_a_batch_that_is_all_done_asks_nobody():
    done = {str(number): Item("completed", {"outcome": "complete"}, None) for number in range(3)}
    provider = Fussy({})

    outcome, context = await run(batch(people(3)), provider, items=done)

    assert (outcome.result["completed"], context.recorded, provider.asked) == (3, [], [])


async def test_the_same_row_twice_is_asked_about_once_and_paid_once():
    rows = [{"id": "a", "fullName": "Ada Quill"}, {"id": "b", "fullName": "ada  quill"}]
    provider = Fussy({})

    outcome, context = await run(batch(rows), provider)

    assert len(provider.asked) == 1
    assert {key: item.result and item.result["leadId"] for key, item in context.items.items()} == {
        "a": "a",
        "b": "b",
    }
    assert outcome.result["costCredits"] == 1


async def test_a_lead_that_breaks_is_left_for_later_and_in_the_end_failed():
    provider = Fussy({"Ada Quill1": ProviderDown("away", provider="acme")})

    first, context = await run(batch(people(3)), provider)
    assert isinstance(first, Retry)
    assert first.error.message.startswith("1 of 3 leads are left for another run")
    assert sorted(context.recorded) == ["0", "2"]

    last, context = await run(batch(people(3)), provider, items=context.items, attempt=TRIES_MAX)
    assert isinstance(last, Completed)
    assert (last.result["completed"], last.result["failed"]) == (2, 1)
    assert context.items["1"].error is not None
    assert context.items["1"].error["type"] == "provider_down"


async def test_a_batch_of_which_nothing_came_failed():
    down = ProviderDown("acme is down", provider="acme")
    provider = Fussy({f"Ada Quill{number}": down for number in range(3)})

    outcome, _ = await run(batch(people(3)), provider, attempt=TRIES_MAX)

    assert isinstance(outcome, Failed)
    assert (outcome.error.type, outcome.error.provider) == ("provider_down", "acme")


async def test_a_rate_limit_puts_the_whole_batch_off_and_keeps_what_is_done():
    limit = ProviderThrottled("slow down", provider="acme", retry_after_s=5)
    provider = Fussy({"Ada Quill20": limit})

    async with providers_of(provider) as providers:
        context = MemoryContext(providers)
        with pytest.raises(ProviderThrottled):
            await enrich_batch(batch(people(100)), context)

    assert 10 <= len(context.items) < 100


async def test_a_rate_limit_leaves_no_call_behind_that_may_have_been_paid(database_url):
    class Refusing(ScriptedProvider):
        """Refuses the fourth question while the others are at work."""

        ended = 0

        async def call(self, operation: Operation, query: Query) -> Found:
            self.asked.append((operation, query))
            if len(self.asked) == 4:
                raise ProviderThrottled("slow down", provider="acme", retry_after_s=0.1)
            await asyncio.sleep(0.05)
            self.ended += 1
            return TITLE

    provider = Refusing("acme", {Operation.ENRICH_PERSON: TITLE})
    async with sharing_providers(database_url, provider) as providers:
        context = MemoryContext(providers)
        with pytest.raises(ProviderThrottled):
            await enrich_batch(batch(people(30)), context)
        assert provider.ended == len(context.items) == AT_ONCE - 1

        outcome = await enrich_batch(batch(people(30)), context)

    assert isinstance(outcome, Completed)
    assert len(provider.asked) == 31, "nobody is asked about twice but who was refused"
    assert outcome.result["costCredits"] == 30


async def test_an_outage_on_the_last_attempt_costs_only_its_own_lead():
    provider = Fussy({"Ada Quill0": ProviderDown("away", provider="acme")})

    outcome, context = await run(batch(people(3)), provider, attempts_left=0)

    assert isinstance(outcome, Completed)
    assert (outcome.result["completed"], outcome.result["failed"]) == (2, 1)
    assert context.items["0"].status == "failed"


@pytest.mark.parametrize("lane", ["acme", "acme#tenant", "other"])
async def test_leads_that_a_breaker_kept_from_their_provider_are_left_for_later(database_url, lane):
    provider = Fussy({f"Ada Quill{n}": ProviderDown("away", provider="acme") for n in range(60)})
    async with sharing_providers(database_url, provider) as providers:
        context = MemoryContext(providers)
        context.provider_id = lane
        outcome = await enrich_batch(batch(people(60)), context)

    assert isinstance(outcome, Retry)
    if lane == "other":
        # The job was moved away from where it would wait: it takes what there is.
        assert 40 < len(context.items) < 60
    else:
        assert context.items == {}


async def test_a_run_that_lost_its_claim_stops_at_once():
    provider = Fussy({})
    async with providers_of(provider) as providers:
        context = MemoryContext(providers, lose_claim_after=3)
        with pytest.raises(ClaimLost):
            await enrich_batch(batch(people(500)), context)

    assert len(provider.asked) < 50


async def test_a_cancelled_batch_passes_the_cancellation_on():
    class Endless(ScriptedProvider):
        async def call(self, operation: Operation, query: Query) -> Found:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

    started = asyncio.Event()
    provider = Endless("acme", {Operation.ENRICH_PERSON: TITLE})
    async with providers_of(provider) as providers:
        task = asyncio.create_task(enrich_batch(batch(people(5)), MemoryContext(providers)))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_all_leads_share_one_cap():
    outcome, _ = await run(batch(people(20), maxCredits=Decimal(7)), Fussy({}))

    assert outcome.result["costCredits"] == 7
    assert outcome.result["outcomes"] == {
        "complete": 7,
        "partial": 0,
        "notFound": 13,
        "suppressed": 0,
    }


def test_leads_without_an_id_are_called_by_their_place():
    payload = batch([{"email": "a"}, {"id": "x"}, {"id": "x"}, {"id": "#1"}])

    assert [lead.lead_id for lead in leads_of(payload)] == ["#1", "x", "x#3", "#1#4"]


def test_ids_find_their_data():
    payload = parse(
        "batch_lead_enrichment",
        {"leadIds": ["a", "b", "a"], "inputData": {"b": {"fullName": "Ada Quill"}}},
    )
    assert isinstance(payload, BatchLeadEnrichment)

    assert [(lead.lead_id, lead.full_name) for lead in leads_of(payload)] == [
        ("a", None),
        ("b", "Ada Quill"),
    ]
