"""What a result says that it did cost: all that its job has paid, over all its runs, once."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from enrichd.domain.facts import Fact
from enrichd.domain.lead_results import LeadResult
from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import EnrichmentType, LeadInput
from enrichd.errors import ProviderDown
from enrichd.providers.base import Operation
from enrichd.providers.calls import Calls
from enrichd.providers.roster import Providers
from enrichd.providers.waterfall import Search, enrich_lead
from tests.support.contexts import ScriptedProvider, found
from tests.support.sharing import sharing_providers

PERSON, COMPANY = Operation.ENRICH_PERSON, Operation.ENRICH_COMPANY
TITLE = found(Fact("person", "title", "CTO", 0.9, "api"), cost="1.5")
NAME = found(Fact("company", "name", "Acme", 0.9, "api"), cost="2")


def run(providers: Providers, job_id: UUID) -> Calls:
    return Calls(providers, workspace_id="acme", job_id=job_id)


async def searched(asker: Calls, lead_id: str = "1") -> LeadResult:
    lead = lead_from(LeadInput(first_name="Ada", last_name="Quill", domain="acme.com"), lead_id)
    types = (EnrichmentType.PERSON, EnrichmentType.COMPANY)
    result = await enrich_lead(lead, Search(types, ("people", "firms")), asker)
    assert isinstance(result, LeadResult)
    return result


@pytest.mark.parametrize("is_other_process", [False, True])
async def test_what_an_earlier_run_paid_is_part_of_what_the_job_did_cost(
    database_url, is_other_process
):
    people = ScriptedProvider("people", {PERSON: TITLE})
    firms = ScriptedProvider("firms", {COMPANY: ProviderDown("away", provider="firms")})
    job_id = uuid4()
    async with (
        sharing_providers(database_url, people, firms) as one,
        sharing_providers(database_url, people, firms) as two,
    ):
        with pytest.raises(ProviderDown):
            await searched(run(one, job_id))
        firms.answers[COMPANY] = NAME
        other = two if is_other_process else one

        result = await searched(run(other, job_id))
        elsewhere = await searched(run(other, uuid4()))

    said = {call.provider: (call.cost_credits, call.is_cached) for call in result.calls}
    assert said["people"] == (TITLE.cost_credits, True)
    assert result.cost_credits == TITLE.cost_credits + NAME.cost_credits
    assert elsewhere.cost_credits == 0, "another job paid nothing"
    assert len(people.asked) == 1


@pytest.mark.parametrize("ways", ["one by one", "together"])
async def test_an_answer_that_several_leads_share_is_paid_by_one_of_them(database_url, ways):
    firms = ScriptedProvider("firms", {COMPANY: NAME})
    job_id = uuid4()
    leads = [lead_from(LeadInput(domain="acme.com"), str(number)) for number in range(3)]
    async with sharing_providers(database_url, firms) as providers:
        costs = []
        for _ in range(2):
            asker = run(providers, job_id)
            if ways == "together":
                answers: list[Any] = await asker.ask_many("firms", COMPANY, leads)
            else:
                answers = [await asker.ask("firms", COMPANY, lead) for lead in leads]
            costs.append([answer.cost_credits for answer in answers])

    assert sorted(costs[0]) == [0, 0, NAME.cost_credits]
    assert costs[1] == costs[0], "the same lead of the same job says so again"


async def test_a_lead_that_asks_the_same_twice_says_the_cost_once(database_url):
    firms = ScriptedProvider("firms", {COMPANY: NAME})
    lead = lead_from(LeadInput(domain="acme.com"), "1")
    async with sharing_providers(database_url, firms) as providers:
        asker = run(providers, uuid4())

        answers: list[Any] = [await asker.ask("firms", COMPANY, lead) for _ in range(2)]

    assert [answer.cost_credits for answer in answers] == [NAME.cost_credits, 0]
