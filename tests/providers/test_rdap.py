"""A registry says when a domain was registered, or the answer says why not."""

from __future__ import annotations

import json

import httpx
import pytest
from aiohttp import web

from enrichd.domain.facts import Missing
from enrichd.providers.rdap import BOOTSTRAP_URL, Bootstrap, rdap_facts
from tests.support.sites import Sites

SERVICES = {
    "version": "1.0",
    "services": [
        [["com", "net"], ["http://plain.registry.example/", "https://rdap.registry.example/v1"]],
        [["uk"], ["https://rdap.uk.example/"]],
        [["co.uk"], ["https://rdap.co.uk.example/"]],
        [["inside"], ["https://127.0.0.1/"]],
        ["broken"],
        [[7], "x"],
    ],
}
ACME = {
    "objectClassName": "domain",
    "ldhName": "ACME.COM",
    "events": [
        {"eventAction": "registration", "eventDate": "1996-03-01T05:00:00+02:00"},
        {"eventAction": "expiration", "eventDate": "2030-03-01T05:00:00Z"},
        {"eventAction": "last changed", "eventDate": "yesterday"},
        {"eventAction": ["odd"], "eventDate": 7},
        "odd",
    ],
    "entities": [
        {"roles": ["abuse"]},
        {
            "roles": ["registrar"],
            "vcardArray": [
                "vcard",
                [["version", {}, "text", "4.0"], ["fn", {}, "text", "Names Ltd"]],
            ],
        },
    ],
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Registry:
    """A transport that answers by URL and counts."""

    def __init__(self, answers: dict[str, httpx.Response]) -> None:
        self.asked: list[str] = []
        self._answers = {BOOTSTRAP_URL: httpx.Response(200, json=SERVICES), **answers}

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        found = self._answers.get(str(request.url), httpx.Response(404))
        return httpx.Response(found.status_code, headers=found.headers, content=found.content)


async def test_dates_come_in_utc_with_the_registrar():
    registry = Registry(
        {"https://rdap.registry.example/v1/domain/acme.com": httpx.Response(200, json=ACME)}
    )

    async with registry.client() as client:
        answer = await rdap_facts("https://www.acme.com/", client=client, bootstrap=Bootstrap())

    assert {fact.field: fact.value for fact in answer.facts} == {
        "domainRegisteredAt": "1996-03-01T03:00:00Z",
        "domainExpiresAt": "2030-03-01T05:00:00Z",
        "domainRegistrar": "Names Ltd",
    }
    assert {(fact.entity, fact.source) for fact in answer.facts} == {("company", "rdap")}
    assert answer.missing == ()


async def test_the_longest_listed_suffix_names_the_server():
    registry = Registry({})

    async with registry.client() as client:
        await rdap_facts("shop.acme.co.uk", client=client, bootstrap=Bootstrap())

    assert registry.asked == [BOOTSTRAP_URL, "https://rdap.co.uk.example/domain/acme.co.uk"]


async def test_the_bootstrap_file_is_kept_for_a_day():
    clock = Clock()
    registry, bootstrap = Registry({}), Bootstrap(clock=clock)
    async with registry.client() as client:
        for clock.now in (0.0, 10.0, 86_000.0):
            await rdap_facts("acme.com", client=client, bootstrap=bootstrap)
        assert registry.asked.count(BOOTSTRAP_URL) == 1
        clock.now = 86_401.0
        await rdap_facts("acme.com", client=client, bootstrap=bootstrap)

    assert registry.asked.count(BOOTSTRAP_URL) == 2


async def test_a_bootstrap_file_that_cannot_be_had_is_asked_for_once_a_minute():
    clock = Clock()
    registry = Registry({BOOTSTRAP_URL: httpx.Response(500)})
    bootstrap = Bootstrap(clock=clock)
    async with registry.client() as client:
        for clock.now in (0.0, 1.0, 59.0, 61.0):
            answer = await rdap_facts("acme.com", client=client, bootstrap=bootstrap)

    assert answer.missing == (Missing("company", "domainRegisteredAt", "http_500"),)
    assert registry.asked == [BOOTSTRAP_URL] * 2


async def test_a_busy_registry_is_left_alone_for_as_long_as_it_says():
    clock = Clock()
    url = "https://rdap.registry.example/v1/domain/acme.com"
    registry = Registry({url: httpx.Response(429, headers={"Retry-After": "120"})})
    bootstrap = Bootstrap(clock=clock)
    async with registry.client() as client:
        for clock.now in (0.0, 1.0, 119.0, 121.0):
            answer = await rdap_facts("acme.com", client=client, bootstrap=bootstrap)
            assert answer.missing == (Missing("company", "domainRegisteredAt", "rate_limited"),)

    assert registry.asked.count(url) == 2


@pytest.mark.parametrize(
    ("domain", "answer", "reason"),
    [
        ("acme.com", httpx.Response(404), "not_found"),
        ("acme.com", httpx.Response(503), "http_503"),
        ("acme.com", httpx.Response(403), "denied"),
        ("acme.com", httpx.Response(200, text="<html>"), "garbled"),
        ("acme.com", httpx.Response(200, json=[1]), "garbled"),
        ("acme.com", httpx.Response(200, json={"ldhName": "other.com"}), "garbled"),
        ("acme.com", httpx.Response(200, json={"events": None}), "not_published"),
        ("acme.com", httpx.Response(200, content=b'"' + b"x" * 600_000 + b'"'), "too_large"),
        ("acme.com", httpx.Response(302, headers={"Location": "http://10.0.0.7/"}), "redirected"),
        ("acme.com", httpx.Response(302, headers={"Location": "https://localhost/"}), "redirected"),
        ("acme.com", httpx.Response(302, headers={"Location": "acme.com"}), "redirected"),
        ("acme.inside", httpx.Response(200), "tld_without_rdap"),
        ("acme.example", httpx.Response(200), "tld_without_rdap"),
        ("co.uk", httpx.Response(200), "bad_domain"),
        ("127.0.0.1", httpx.Response(200), "bad_domain"),
    ],
)
async def test_what_cannot_be_known_has_a_reason(domain, answer, reason):
    registry = Registry({"https://rdap.registry.example/v1/domain/acme.com": answer})

    async with registry.client() as client:
        found = await rdap_facts(domain, client=client, bootstrap=Bootstrap())

    assert found.facts == ()
    assert found.missing == (Missing("company", "domainRegisteredAt", reason),)


async def test_a_redirect_to_the_registrars_server_is_followed():
    registry = Registry(
        {
            "https://rdap.registry.example/v1/domain/acme.com": httpx.Response(
                301, headers={"Location": "https://rdap.registrar.example/domain/acme.com"}
            ),
            "https://rdap.registrar.example/domain/acme.com": httpx.Response(200, json=ACME),
        }
    )
    async with registry.client() as client:
        answer = await rdap_facts("acme.com", client=client, bootstrap=Bootstrap())

    assert answer.facts[0].source_url == "https://rdap.registrar.example/domain/acme.com"


async def test_a_named_server_is_asked_without_iana_over_real_http():
    async with Sites() as sites, httpx.AsyncClient(trust_env=False) as client:
        sites.add(
            "127.0.0.1/domain/acme.example",
            web.Response(body=json.dumps(ACME | {"ldhName": "acme.example"}).encode()),
        )
        bootstrap = Bootstrap(base_url=f"http://127.0.0.1:{sites.port}")
        answer = await rdap_facts("acme.example", client=client, bootstrap=bootstrap)
        closed = Bootstrap(base_url="http://127.0.0.1:1")
        refused = await rdap_facts("acme.example", client=client, bootstrap=closed)

    assert answer.facts[0].value == "1996-03-01T03:00:00Z"
    assert refused.missing == (Missing("company", "domainRegisteredAt", "connect_failed"),)
