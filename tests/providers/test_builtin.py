"""The built-in sources together: real DNS, real websites, real APIs, all on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from enrichd.domain.lead_results import LeadResult
from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import EnrichmentType, LeadInput
from enrichd.providers.base import Operation
from enrichd.providers.calls import Calls
from enrichd.providers.waterfall import Providers, Search, build_providers, enrich_lead
from enrichd.providers.web import WebFetcher
from tests.support.contexts import providers_of
from tests.support.dns_server import DnsServer
from tests.support.sites import NoNetwork, Sites

ALL = tuple(EnrichmentType)


@asynccontextmanager
async def apis() -> AsyncIterator[dict[str, str]]:
    """Put up a Gravatar that knows ada@acme.com and a registry; yield their base URLs."""
    known = hashlib.sha256(b"ada@acme.com").hexdigest()

    async def profile(request: web.Request) -> web.Response:
        if request.match_info["hash"] != known:
            return web.Response(status=404)
        return web.json_response(
            {
                "hash": known,
                "display_name": "Ada Quill",
                "job_title": "Head of Ops",
                "location": "Oakland",
                "profile_url": "https://gravatar.com/adaq",
                "verified_accounts": [
                    {"service_type": "github", "url": "https://github.com/adaq", "is_hidden": False}
                ],
            }
        )

    async def domain(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "objectClassName": "domain",
                "ldhName": request.match_info["name"],
                "events": [{"eventAction": "registration", "eventDate": "1999-01-02T00:00:00Z"}],
            }
        )

    app = web.Application()
    app.router.add_get("/profiles/{hash}", profile)
    app.router.add_get("/domain/{name}", domain)
    server = TestServer(app)
    await server.start_server()
    base = str(server.make_url("")).rstrip("/")
    try:
        yield {"gravatar": base, "rdap": base}
    finally:
        await server.close()


async def enrich(providers: Providers, *types: EnrichmentType, **data: Any) -> LeadResult:
    calls = Calls(providers, workspace_id="default", job_id=None, priority=3, max_credits=None)
    result = await enrich_lead(lead_from(LeadInput(**data), "1"), Search(types or ALL), calls)
    assert isinstance(result, LeadResult)
    return result


async def test_a_company_is_known_from_its_website_and_its_registry():
    async with (
        apis() as urls,
        Sites() as sites,
        sites.fetcher() as fetcher,
        providers_of(fetcher=fetcher, base_urls=urls) as providers,
    ):
        result = await enrich(
            providers, EnrichmentType.COMPANY, EnrichmentType.SOCIAL, domain="graph.test"
        )

    assert result.outcome == "complete"
    company = result.company
    assert company is not None
    assert company.value_at("name") == "Northwind Traders"
    assert company.value_at("employeeRange") == "51-200"
    assert company.value_at("location.city") == "London"
    assert company.value_at("domainRegisteredAt").startswith("1999-01-02")
    assert "linkedin" in {profile["network"] for profile in company.value_at("socialProfiles")}
    assert company.provenance["name"]["source"] == "json-ld"
    assert sites.requests["graph.test/"] == 1


async def test_a_person_is_known_from_gravatar():
    async with apis() as urls, providers_of(base_urls=urls) as providers:
        result = await enrich(providers, EnrichmentType.PERSON, email="ada@acme.com")

    person = result.person
    assert result.outcome == "complete"
    assert person is not None
    assert (person.value_at("fullName"), person.value_at("title")) == ("Ada Quill", "Head of Ops")


async def test_a_hundred_leads_of_one_company_read_its_website_once():
    async with (
        Sites() as sites,
        sites.fetcher() as fetcher,
        providers_of(fetcher=fetcher) as providers,
    ):
        await asyncio.gather(
            *(enrich(providers, EnrichmentType.COMPANY, domain="graph.test") for _ in range(100))
        )

    assert sites.requests["graph.test/"] == 1


async def test_a_guessed_email_is_marked_as_a_guess():
    with DnsServer({"acme.com": {"MX": ["10 mx.acme.com."]}}) as dns:
        async with providers_of(nameservers=[dns.address]) as providers:
            result = await enrich(
                providers, EnrichmentType.EMAIL, full_name="Ada Quill", domain="acme.com"
            )

    assert result.outcome == "partial"
    assert result.person is not None
    assert result.person.value_at("email") == "ada.quill@acme.com"
    assert result.person.provenance["email"]["source"] == "pattern"
    assert result.person.provenance["email"]["confidence"] == 0.3
    assert result.person.value_at("emails")[0]["status"] == "guess"
    assert result.verification is not None
    assert result.verification.verdict == "unknown"


async def test_nothing_is_guessed_where_no_mail_is_taken():
    with DnsServer({"acme.com": {"MX": ["0 ."]}}) as dns:
        async with providers_of(nameservers=[dns.address]) as providers:
            result = await enrich(
                providers, EnrichmentType.EMAIL, full_name="Ada Quill", domain="acme.com"
            )

    assert result.outcome == "notFound"
    assert [(gap.field, gap.reason) for gap in result.missing] == [("email", "null_mx")]


async def test_an_email_whose_domain_takes_mail_is_complete_without_being_called_valid():
    with DnsServer({"acme.com": {"MX": ["10 mx.acme.com."]}}) as dns:
        async with providers_of(nameservers=[dns.address]) as providers:
            result = await enrich(providers, EnrichmentType.EMAIL, email="ada@acme.com")

    assert result.verification is not None
    assert (result.outcome, result.verification.verdict) == ("complete", "unknown")


async def test_without_a_network_every_field_says_why_and_all_ends_quickly():
    started = time.monotonic()
    async with providers_of(fetcher=WebFetcher(resolver=NoNetwork())) as providers:
        result = await enrich(providers, email="ada@acme.com")

    assert time.monotonic() - started < 30
    assert result.outcome == "partial"
    reasons = {(gap.entity, gap.field): gap.reason for gap in result.missing}
    assert reasons["company", "name"] == "network_unreachable"
    assert reasons["person", "fullName"] == "connect_failed"
    assert "not_found" not in reasons.values()
    assert result.verification is not None
    assert result.verification.verdict == "unknown"


async def test_free_mail_is_no_company():
    async with providers_of() as providers:
        result = await enrich(providers, EnrichmentType.COMPANY, email="ada@gmail.com")

    assert (result.outcome, result.company) == ("notFound", None)
    assert {gap.reason for gap in result.missing} == {"free_mail_domain"}
    assert [call.skip_reason for call in result.calls] == ["free_mail_domain"]


async def test_a_malformed_email_opens_no_connection():
    async with providers_of() as providers:
        result = await enrich(providers, EnrichmentType.EMAIL, email="ada(at)acme.com")

        assert not providers.connections.is_open
    assert result.outcome == "notFound"
    assert result.verification is not None
    assert result.verification.reasons == ("missing_at",)


@pytest.mark.parametrize(
    ("operation", "data", "reason"),
    [
        (Operation.VERIFY_EMAIL, {}, "no_email"),
        (Operation.FIND_EMAIL, {"domain": "acme.com"}, "no_name"),
        (Operation.FIND_EMAIL, {"full_name": "Ada Quill"}, "no_domain"),
        (Operation.ENRICH_PERSON, {"email": "x"}, "missing_at"),
        (Operation.ENRICH_COMPANY, {"email": "ada@gmail.com"}, "free_mail_domain"),
        (Operation.FIND_SOCIAL_PROFILES, {"full_name": "Ada"}, "no_domain"),
        (Operation.FIND_SOCIAL_PROFILES, {"email": "ada@gmail.com"}, None),
    ],
)
async def test_what_is_lacking_for_a_question_has_a_name(operation, data, reason):
    async with build_providers() as providers:
        assert providers.builtin.can_answer(operation, lead_from(LeadInput(**data))) == reason
