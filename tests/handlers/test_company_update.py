"""`company_data_update`."""

from __future__ import annotations

from enrichd.domain.payloads import CompanyDataUpdate, LeadInput
from enrichd.handlers.company_update import update_company
from tests.support.contexts import MemoryContext, providers_of
from tests.support.sites import Sites


async def test_a_company_is_answered_under_the_callers_id():
    async with (
        Sites() as sites,
        sites.fetcher() as fetcher,
        providers_of(fetcher=fetcher) as providers,
    ):
        payload = CompanyDataUpdate(company_id="c-1", input_data=LeadInput(domain="graph.test"))
        answer = await update_company(payload, MemoryContext(providers))

    assert (answer["companyId"], answer["outcome"]) == ("c-1", "complete")
    assert answer["company"]["name"] == "Northwind Traders"
    assert "person" not in answer


async def test_the_payloads_domain_goes_before_the_input_data():
    async with (
        Sites() as sites,
        sites.fetcher() as fetcher,
        providers_of(fetcher=fetcher) as providers,
    ):
        payload = CompanyDataUpdate(
            domain="https://www.graph.test/x", input_data=LeadInput(domain="nowhere.test")
        )
        answer = await update_company(payload, MemoryContext(providers))

    assert answer["company"]["domain"] == "graph.test"


async def test_an_id_without_a_domain_says_what_is_lacking():
    async with providers_of() as providers:
        answer = await update_company(CompanyDataUpdate(company_id="c-1"), MemoryContext(providers))

    assert answer["outcome"] == "notFound"
    assert {gap["reason"] for gap in answer["missing"]} == {"no_domain"}
