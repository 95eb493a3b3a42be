"""`enqueue --dry-run`: what a job would cost at most, without asking or enqueueing anything."""

from __future__ import annotations

import asyncio
import json

import pytest

from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import LeadInput
from enrichd.providers.base import REGISTERED, Operation
from enrichd.providers.client import Connections, common_limits
from enrichd.providers.questions import cache_key
from enrichd.providers.roster import build_providers

ADA = {"id": "a", "firstName": "Ada", "lastName": "Quill", "domain": "acme.com"}
BOB = {"id": "b", "firstName": "Bob", "lastName": "Byte", "domain": "acme.com"}

FOR_AN_EMAIL = (Operation.FIND_EMAIL, Operation.ENRICH_PERSON, Operation.VERIFY_EMAIL)
"""Where the search finds none, what is known of the person may have one; then it is checked."""


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name in ("HUNTER", "APOLLO", "PDL", "CLEARBIT"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)
    monkeypatch.setenv("HUNTER_API_KEY", "hunter-key")


@pytest.fixture
def estimate(enrichctl):
    """Give `estimate(type, payload)`: the answer of a dry run."""

    def dry(job_type, payload, *words):
        ended = enrichctl(
            "enqueue", job_type, "--payload", json.dumps(payload), "--dry-run", "--json", *words
        )
        assert ended.exit_code == 0, ended.stderr
        return ended.document

    return dry


def price(*operations):
    contract = REGISTERED["hunter"].contract
    assert contract is not None
    return float(sum(contract.credits.get(one, 0) for one in operations))


async def key_of(data, operation=Operation.FIND_EMAIL):
    async with build_providers(settings_of=common_limits) as providers:
        assert isinstance(providers.connections, Connections)
        adapter = providers.find("hunter")
        return cache_key(adapter, "hunter", operation, lead_from(LeadInput(**data)))


def test_a_lead_costs_at_most_what_all_its_questions_cost(estimate, states):
    payload = {"leadId": "1", "inputData": ADA, "enrichmentTypes": ["email"]}

    found = estimate("single_lead_enrichment", {**payload, "providerId": "hunter"})

    assert found["maxCostCredits"] == price(*FOR_AN_EMAIL)
    assert found["byProvider"] == {"hunter": found["maxCostCredits"]}
    assert found["isDryRun"]
    assert states() == {}


def test_leads_that_are_alike_are_paid_once_and_a_job_never_costs_more_than_its_cap(estimate):
    payload = {"leads": [ADA, BOB, {**ADA, "id": "c"}], "providerId": "hunter"}
    payload["enrichmentTypes"] = ["email"]

    found = estimate("batch_lead_enrichment", payload)
    capped = estimate("batch_lead_enrichment", {**payload, "maxCredits": 1})

    assert (found["leads"], found["uniqueLeads"]) == (3, 2)
    assert found["maxCostCredits"] == 2 * price(*FOR_AN_EMAIL)
    assert capped["maxCostCredits"] == 1


async def test_what_is_known_already_costs_nothing(estimate, db):
    payload = {"leads": [ADA, BOB], "providerId": "hunter", "enrichmentTypes": ["email"]}
    insert = (
        "insert into enrichment_provider_cache"
        " (workspace_id, cache_key, provider_id, operation, outcome, expires_at)"
        " values (%s, %s, 'hunter', 'findEmail', 'found', now() + %s * interval '1 hour')"
    )
    db.execute(insert, ["default", await key_of(ADA), 1])
    db.execute(insert, ["default", await key_of(BOB), -1])
    db.execute(insert, ["theirs", await key_of(BOB), 1])

    found = await asyncio.to_thread(estimate, "batch_lead_enrichment", payload)

    assert found["cachedAnswers"] == 1
    saved = found["maxCostCreditsUncached"] - found["maxCostCredits"]
    assert saved == price(Operation.FIND_EMAIL)


def test_providers_that_would_not_be_asked_are_named_with_the_reason(estimate):
    payload = {
        "leadId": "1",
        "inputData": ADA,
        "providerId": "hunter",
        "fallbackProviders": ["pdl", "nobody"],
    }

    found = estimate("single_lead_enrichment", payload)

    assert found["skipped"] == {"pdl": "no_api_key", "nobody": "no_such_provider"}
    assert set(found["byProvider"]) == {"hunter"}


def test_the_free_sources_alone_cost_nothing(estimate, enrichctl):
    assert estimate("email_validation", {"emails": ["ada@acme.com"]})["maxCostCredits"] == 0

    shown = enrichctl(
        "enqueue", "email_validation", "--payload", '{"emails": ["ada@acme.com"]}', "--dry-run"
    )
    assert shown.stdout == "at most 0 credits for 1 lead\nnothing was enqueued\n"


def test_a_wrong_payload_is_as_wrong_as_without_a_dry_run(offline):
    ended = offline("enqueue", "email_validation", "--payload", "{}", "--dry-run")

    assert ended.exit_code == 2
    assert "emails" in ended.stderr


def test_a_file_has_no_dry_run(offline):
    assert offline("enqueue", "--from", "x.jsonl", "--dry-run").exit_code == 2
