"""The limits in force: configured, documented, and which of them gives way."""

from __future__ import annotations

import pytest

from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import LeadInput
from enrichd.providers.adapters.apollo import Apollo
from enrichd.providers.adapters.clearbit import Clearbit
from enrichd.providers.adapters.hunter import Hunter
from enrichd.providers.adapters.pdl import PeopleDataLabs
from enrichd.providers.base import REGISTERED
from enrichd.providers.client import common_limits
from enrichd.providers.contracts import Contract, Window
from enrichd.providers.limits import limits_in_force
from enrichd.providers.operations import Operation
from enrichd.providers.questions import counted_as
from tests.support.contexts import providers_of

COMMON = (Window(1, 10), Window(60, 100), Window(3600, 1000))
CONTRACT = Contract(
    "https://api.test",
    statuses={},
    limits={
        None: (Window(60, 500), Window(86_400, 5000)),
        Operation.VERIFY_EMAIL: (Window(60, 300),),
    },
)


def test_what_is_configured_and_what_is_documented_both_hold():
    assert limits_in_force(common_limits("x"), CONTRACT) == {
        "*": (*COMMON, Window(60, 500), Window(86_400, 5000)),
        "verifyEmail": (Window(60, 300),),
    }
    assert limits_in_force(common_limits("x"), None) == {"*": COMMON}


def test_a_limit_set_for_the_provider_by_name_replaces_the_documented_ones_of_its_length():
    bought = common_limits("x").model_copy(
        update={
            "rate_limit_per_minute": 9000,
            "rate_limit_per_day": 7,
            "limits_by_name": frozenset({"rate_limit_per_minute"}),
        }
    )

    assert limits_in_force(bought, CONTRACT) == {
        "*": (
            *(Window(1, 10), Window(60, 9000), Window(3600, 1000), Window(86_400, 7)),
            Window(86_400, 5000),
        )
    }


PERSON = lead_from(LeadInput(email="ada@acme.com"))
DOMAIN = lead_from(LeadInput(domain="acme.com"))
EMAIL, CHECK = Operation.FIND_EMAIL, Operation.VERIFY_EMAIL
PEOPLE, COMPANIES = Operation.ENRICH_PERSON, Operation.ENRICH_COMPANY
SOCIAL = Operation.FIND_SOCIAL_PROFILES


@pytest.mark.parametrize(
    ("adapter", "operation", "lead", "counted"),
    [
        # Hunter: the finder, the verifier, and its records of people and companies.
        (Hunter, EMAIL, PERSON, EMAIL),
        (Hunter, CHECK, PERSON, CHECK),
        (Hunter, PEOPLE, PERSON, PEOPLE),
        (Hunter, COMPANIES, DOMAIN, PEOPLE),
        (Hunter, SOCIAL, DOMAIN, PEOPLE),
        # Apollo and PDL: one endpoint for all about people.
        (Apollo, EMAIL, PERSON, PEOPLE),
        (Apollo, SOCIAL, PERSON, PEOPLE),
        (Apollo, COMPANIES, DOMAIN, COMPANIES),
        (PeopleDataLabs, EMAIL, PERSON, PEOPLE),
        (PeopleDataLabs, PEOPLE, PERSON, PEOPLE),
        (PeopleDataLabs, COMPANIES, DOMAIN, COMPANIES),
        # Clearbit: an API of people and one of companies.
        (Clearbit, SOCIAL, PERSON, PEOPLE),
        (Clearbit, SOCIAL, DOMAIN, COMPANIES),
        (Clearbit, COMPANIES, DOMAIN, COMPANIES),
    ],
)
async def test_a_question_falls_under_the_limits_of_its_endpoint(adapter, operation, lead, counted):
    contract = REGISTERED[adapter.provider_id].contract
    assert contract is not None
    async with providers_of() as providers:
        made = adapter(providers.connections, common_limits(adapter.provider_id))

    assert counted_as(made, contract, operation, lead) is counted
    assert contract.limits[counted]
    assert None not in contract.limits
