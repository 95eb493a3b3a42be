"""Two questions are one question when they make the same request, and only then."""

from __future__ import annotations

import pytest

from enrichd.domain.leads import Lead, lead_from
from enrichd.domain.payloads import LeadInput
from enrichd.providers.adapters.clearbit import Clearbit
from enrichd.providers.adapters.hunter import Hunter
from enrichd.providers.operations import Operation
from enrichd.providers.questions import cache_key
from tests.support.contexts import providers_of


def lead(**data: str) -> Lead:
    return lead_from(LeadInput(**data), "1")


@pytest.mark.parametrize("provider", ["hunter", "clearbit"])
async def test_social_profiles_are_read_off_the_record_that_was_paid(provider):
    person, company = lead(email="ada@acme.com"), lead(domain="acme.com")
    async with providers_of() as providers:
        adapter = providers.find(provider)
        assert isinstance(adapter, (Hunter, Clearbit))

        def key(operation: Operation, about: Lead) -> bytes:
            return cache_key(adapter, provider, operation, about)

        assert key(Operation.FIND_SOCIAL_PROFILES, person) == key(Operation.ENRICH_PERSON, person)
        assert key(Operation.FIND_SOCIAL_PROFILES, company) == key(
            Operation.ENRICH_COMPANY, company
        )
        assert key(Operation.ENRICH_PERSON, person) != key(Operation.ENRICH_COMPANY, person)


async def test_what_hunter_is_not_told_does_not_make_another_question():
    named = lead(email="ada@acme.com", first_name="Ada")
    async with providers_of() as providers:
        hunter = providers.find("hunter")
        keys = {
            cache_key(hunter, "hunter", Operation.ENRICH_PERSON, one)
            for one in (named, lead(email="ada@acme.com", title="CTO"))
        }
    assert len(keys) == 1
