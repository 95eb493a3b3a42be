"""An estimate is never below what the search then costs, whatever providers find."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrichd.domain.facts import Fact
from enrichd.domain.lead_results import LeadResult
from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import EnrichmentType, FillMode, LeadInput
from enrichd.providers.base import Operation
from enrichd.providers.calls import Calls
from enrichd.providers.estimates import Plan, PricedQuestion, estimate, plan
from enrichd.providers.waterfall import Search, enrich_lead
from tests.support.contexts import ScriptedProvider, found, providers_of

INPUTS = st.builds(
    LeadInput,
    email=st.sampled_from([None, "ada@nowhere.invalid"]),
    full_name=st.sampled_from([None, "Ada Quill"]),
    domain=st.sampled_from([None, "nowhere.invalid"]),
    title=st.sampled_from([None, "CTO"]),
)
FACTS = st.lists(
    st.sampled_from(
        [
            Fact("person", "email", "ada@nowhere.invalid", 0.9, "api"),
            Fact("person", "fullName", "Ada Quill", 0.9, "api"),
            Fact("person", "title", "CTO", 0.9, "api"),
            Fact("company", "name", "Nowhere", 0.9, "api"),
        ]
    ),
    max_size=3,
)
ANSWERS = st.dictionaries(st.sampled_from(list(Operation)), FACTS, max_size=5)
SEARCHES = st.builds(
    Search,
    types=st.sets(st.sampled_from(list(EnrichmentType)), min_size=1),
    order=st.just(("one", "two")),
    fill_mode=st.sampled_from(list(FillMode)),
    infer_email=st.booleans(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=INPUTS, one=ANSWERS, two=ANSWERS, search=SEARCHES)
async def test_no_search_costs_more_than_its_estimate(data, one, two, search):
    lead = lead_from(data, "1")
    scripts = [
        ScriptedProvider(name, {op: found(*facts) for op, facts in answers.items()})
        for name, answers in (("one", one), ("two", two))
    ]
    async with providers_of(*scripts) as providers:
        adapters = {name: providers.find(name) for name in search.order}
        most = estimate(plan([lead], search, adapters)).most_now

        result = await enrich_lead(lead, search, Calls(providers, workspace_id="acme"))

    assert isinstance(result, LeadResult)
    assert result.cost_credits <= most


def a_plan(*questions: PricedQuestion) -> Plan:
    return Plan(leads=1, unique_leads=1, questions=questions, skipped={})


def test_what_is_known_and_what_the_job_may_cost_at_most_lower_it():
    questions = [
        PricedQuestion("hunter", Operation.FIND_EMAIL, b"1", Decimal("1.5")),
        PricedQuestion("hunter", Operation.VERIFY_EMAIL, None, Decimal(1)),
        PricedQuestion("pdl", Operation.ENRICH_PERSON, b"1", Decimal(2)),
    ]

    found_now = estimate(a_plan(*questions), {("hunter", b"1")})

    assert (found_now.most, found_now.most_now) == (Decimal("4.5"), Decimal(3))
    assert found_now.by_provider == {"hunter": Decimal(1), "pdl": Decimal(2)}
    assert found_now.cached == 1
    assert estimate(a_plan(*questions), cap=Decimal(2)).most_now == 2


@pytest.mark.parametrize("order", [(), ("builtin",), ("-", "builtin")])
def test_the_free_sources_are_free(order):
    lead = lead_from(LeadInput(email="ada@acme.com"), "1")

    planned = plan([lead], Search(types=list(EnrichmentType), order=order), {})

    assert (planned.questions, planned.skipped) == ([], {})
