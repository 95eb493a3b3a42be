"""`single_lead_enrichment`."""

from __future__ import annotations

import time

import pytest

from enrichd.domain.facts import Fact
from enrichd.domain.payloads import SingleLeadEnrichment, parse
from enrichd.errors import ProviderThrottled
from enrichd.handlers.registry import HANDLERS, load_handlers
from enrichd.handlers.single_lead import enrich_single_lead
from enrichd.providers.base import Operation
from tests.support.contexts import MemoryContext, ScriptedProvider, found, providers_of


def payload(**fields: object) -> SingleLeadEnrichment:
    model = parse("single_lead_enrichment", {"leadId": "lead-1", **fields})
    assert isinstance(model, SingleLeadEnrichment)
    return model


def test_every_built_in_type_has_its_handler():
    load_handlers()

    assert HANDLERS["single_lead_enrichment"] is enrich_single_lead
    assert len(HANDLERS) >= 5


async def test_the_lead_is_asked_about_where_its_payload_says():
    hunter = ScriptedProvider("one", {Operation.ENRICH_PERSON: found()})
    pdl = ScriptedProvider(
        "two", {Operation.ENRICH_PERSON: found(Fact("person", "title", "CTO", 0.9, "api"))}
    )
    async with providers_of(hunter, pdl) as providers:
        answer = await enrich_single_lead(
            payload(
                providerId="one",
                fallbackProviders=["two"],
                enrichmentTypes=["person"],
                inputData={"fullName": "Ada Quill"},
            ),
            MemoryContext(providers),
        )

    assert (answer["leadId"], answer["outcome"]) == ("lead-1", "complete")
    assert answer["person"]["title"] == "CTO"
    assert answer["providersTried"] == ["one", "two"]


async def test_credits_are_capped():
    dear = ScriptedProvider("dear", {Operation.ENRICH_PERSON: found()}, cost="2")
    async with providers_of(dear) as providers:
        answer = await enrich_single_lead(
            payload(providerId="dear", maxCredits="1.5", enrichmentTypes=["person"]),
            MemoryContext(providers),
        )

    assert dear.asked == []
    assert answer["providers"][-1]["skipReason"] == "would_exceed_max_credits"


async def test_a_rate_limit_is_raised_for_the_run_to_snooze():
    error = ProviderThrottled("slow down", provider="one", retry_after_s=5)
    slow = ScriptedProvider("one", {Operation.ENRICH_PERSON: error})
    async with providers_of(slow) as providers:
        with pytest.raises(ProviderThrottled):
            await enrich_single_lead(
                payload(providerId="one", enrichmentTypes=["person"]), MemoryContext(providers)
            )


async def test_a_malformed_email_is_answered_within_200_microseconds():
    row = payload(enrichmentTypes=["email"], inputData={"email": "ada(at)acme.com"})
    async with providers_of() as providers:
        context = MemoryContext(providers)
        best_s = 1.0
        for _ in range(20):
            started = time.process_time()
            for _ in range(50):
                answer = await enrich_single_lead(row, context)
            best_s = min(best_s, (time.process_time() - started) / 50)

    assert answer["emailVerification"]["verdict"] == "invalid"
    assert best_s < 200e-6
