"""What a result says that it did cost: all that its job has paid, over all its runs, once."""

from __future__ import annotations

import signal
from typing import Any
from uuid import UUID, uuid4

import pytest

from enrichd.domain.facts import Fact
from enrichd.domain.lead_results import LeadResult
from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import EnrichmentType, LeadInput
from enrichd.errors import ProviderDown, ProviderGarbled
from enrichd.providers.base import Operation
from enrichd.providers.calls import Calls
from enrichd.providers.roster import Providers
from enrichd.providers.waterfall import Search, enrich_lead
from tests.providers.test_calls import asking
from tests.support.contexts import ScriptedProvider, found
from tests.support.credit_server import CreditServer
from tests.support.providers.faults import reset, status
from tests.support.providers.hunter import FakeHunter
from tests.support.providers.pdl import FakePdl
from tests.support.providers.server import ANY
from tests.support.sharing import CountingProvider, sharing_providers
from tests.support.whole_path import fleet_of, lead

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
                answers = [await asker.ask("firms", COMPANY, one) for one in leads]
            costs.append([answer.cost_credits for answer in answers])

    assert sorted(costs[0]) == [0, 0, NAME.cost_credits]
    assert costs[1] == costs[0], "the same lead of the same job says so again"


async def test_a_lead_that_asks_the_same_twice_says_the_cost_once(database_url):
    firms = ScriptedProvider("firms", {COMPANY: NAME})
    about = lead_from(LeadInput(domain="acme.com"), "1")
    async with sharing_providers(database_url, firms) as providers:
        asker = run(providers, uuid4())

        answers: list[Any] = [await asker.ask("firms", COMPANY, about) for _ in range(2)]

    assert [answer.cost_credits for answer in answers] == [NAME.cost_credits, 0]


async def test_a_call_that_brought_nothing_but_may_have_been_paid_counts_once(database_url):
    firms = ScriptedProvider("firms", {COMPANY: ProviderGarbled("no JSON", provider="firms")})
    about, job_id = lead_from(LeadInput(domain="acme.com"), "1"), uuid4()

    async with sharing_providers(database_url, firms) as providers:
        lost: Any = await run(providers, job_id).ask("firms", COMPANY, about)
        assert lost.cost_credits == 1
        asker = run(providers, job_id)
        again: Any = await asker.ask("firms", COMPANY, about)
        assert again.cost_credits == 2, "both, over both runs"
        firms.answers[COMPANY] = NAME
        answer: Any = await asker.ask("firms", COMPANY, about)
        assert answer.cost_credits == NAME.cost_credits, "the rest is said"
        elsewhere: Any = await run(providers, uuid4()).ask("firms", COMPANY, about)
    async with sharing_providers(database_url, firms) as providers:
        last: Any = await run(providers, job_id).ask("firms", COMPANY, about)

    assert elsewhere.cost_credits == 0
    assert (last.cached, last.cost_credits) == (True, 2 + NAME.cost_credits)


async def test_a_run_that_is_killed_between_paid_calls_leaves_its_costs_to_the_next(database_url):
    """The second of three was paid and never written: it is paid again, and both count."""
    job_id, domains = uuid4(), [f"acme{number}.test" for number in range(3)]
    with CreditServer() as server:
        [(code, _)] = await asking(
            {
                "dsn": database_url,
                "url": server.url,
                "questions": domains,
                "at_once": 1,
                "job_id": str(job_id),
                "die_after": domains[1],
            }
        )
    source = CountingProvider()
    async with sharing_providers(database_url, source) as providers:
        asker = run(providers, job_id)
        answers: list[Any] = [
            await asker.ask("counting", COMPANY, lead_from(LeadInput(domain=domain)))
            for domain in domains
        ]

    assert code == -signal.SIGKILL
    assert (server.billed, len(source.asked)) == (2, 2)
    assert [answer.cost_credits for answer in answers] == [1, 2, 1]


LEADS = [{"id": f"{n}", "email": f"ada{n}.quill@northwind.example"} for n in range(3)]
BOTH = {
    "providerId": "hunter",
    "fallbackProviders": ["pdl"],
    "stopRule": {"requiredFields": ["person.employmentHistory"]},
}


@pytest.mark.parametrize(
    "payload",
    [
        lead("ada.quill@northwind.example", **BOTH),
        {"leads": LEADS, "enrichmentTypes": ["person"], **BOTH},
    ],
    ids=["single", "batch"],
)
async def test_a_job_s_result_has_the_cost_of_all_its_runs(database_url, payload):
    """Hunter answers and is paid; then People Data Labs breaks off a call that it bills."""
    async with FakeHunter() as hunter, FakePdl() as pdl:
        pdl.script(ANY, status(503), reset(is_billed=True))
        async with fleet_of(database_url, hunter, pdl) as fleet:
            [job_id] = await fleet.enqueue(payload)
            job = await fleet.ended(job_id)

    count = len(payload.get("leads", "1"))
    assert (job.status, job.attempts) == ("completed", 3)
    assert (hunter.credits_spent, pdl.credits_spent) == (count, 2 * count)
    assert job.result["costCredits"] == 3 * count
