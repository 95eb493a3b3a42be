"""Questions to providers: each paid once, none beyond a cap, whatever else happens."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import LeadInput
from enrichd.errors import PersonSuppressed, ProviderDenied, ProviderDown, Unavailable
from enrichd.providers.base import Found, Operation, Skipped
from enrichd.providers.calls import Calls
from enrichd.providers.credits import Caps
from enrichd.providers.roster import Providers
from tests.support.sharing import CountingProvider, sharing_providers, titled

PERSON, COMPANY, VERIFY = (
    Operation.ENRICH_PERSON,
    Operation.ENRICH_COMPANY,
    Operation.VERIFY_EMAIL,
)


def lead(**data: Any):
    return lead_from(LeadInput(**(data or {"email": "ada@acme.test"})))


def calls_of(providers: Providers, **options: Any) -> Calls:
    return Calls(providers, **{"workspace_id": "acme", "job_id": uuid4(), **options})


async def test_two_hundred_jobs_for_one_company_in_several_processes_make_one_call(database_url):
    async def slowly(operation, query):
        await asyncio.sleep(0.1)
        return titled("CTO")

    source = CountingProvider(answer=slowly)
    async with AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(sharing_providers(database_url, source))
            for _ in range(4)
        ]
        runs = [calls_of(processes[number % 4]) for number in range(200)]

        answers = await asyncio.gather(
            *(run.ask("counting", COMPANY, lead(domain="acme.test")) for run in runs)
        )

    assert len(source.asked) == 1
    assert {answer.facts[0].value for answer in answers} == {"CTO"}
    assert sum(answer.cost_credits for answer in answers) == 1
    assert sum(answer.cached for answer in answers) == 199
    assert all(answer.fetched_at for answer in answers if answer.cached)
