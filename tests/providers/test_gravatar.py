"""A profile becomes facts about its person, and no profile a reason."""

from __future__ import annotations

import hashlib

import httpx
import pytest
from aiohttp import web

from enrichd.domain.facts import Missing
from enrichd.providers.gravatar import gravatar_facts
from tests.support.sites import Sites

PROFILE = {
    "hash": "…",
    "display_name": "Ada\u0000 Quill",
    "profile_url": "https://gravatar.com/adaq",
    "avatar_url": "https://0.gravatar.com/avatar/abc",
    "location": "Oakland, CA",
    "description": "Ships &amp; sails",
    "job_title": "Head of Ops",
    "company": "Northwind",
    "verified_accounts": [
        {"service_type": "github", "url": "https://github.com/AdaQ", "is_hidden": False},
        {"service_type": "twitter", "url": "https://twitter.com/adaq", "is_hidden": True},
        {"service_type": "blog", "url": "javascript:alert(1)"},
        "odd",
    ],
    "pronouns": "",
}


def answering(response: httpx.Response, asked: list[httpx.Request] | None = None):
    def answer(request: httpx.Request) -> httpx.Response:
        if asked is not None:
            asked.append(request)
        return response

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


async def test_a_profile_says_name_work_place_and_verified_accounts():
    async with answering(httpx.Response(200, json=PROFILE)) as client:
        answer = await gravatar_facts("ada@northwind.test", client=client)

    values = {fact.field: fact.value for fact in answer.facts}
    profiles = values.pop("socialProfiles")
    assert values == {
        "fullName": "Ada Quill",
        "avatarUrl": "https://0.gravatar.com/avatar/abc",
        "location.raw": "Oakland, CA",
        "bio": "Ships & sails",
        "title": "Head of Ops",
        "company.name": "Northwind",
    }
    assert [(one["network"], one["url"], one["verified"]) for one in profiles] == [
        ("gravatar", "https://gravatar.com/adaq", True),
        ("github", "https://github.com/adaq", True),
    ]
    assert {fact.entity for fact in answer.facts} == {"person"}
    assert {fact.source_url for fact in answer.facts} == {"https://gravatar.com/adaq"}


async def test_the_address_is_sent_as_a_hash_of_its_trimmed_lower_case():
    asked: list[httpx.Request] = []
    async with answering(httpx.Response(404), asked) as client:
        await gravatar_facts("  Ada@Northwind.TEST ", client=client, api_key="key")
        await gravatar_facts("ada@northwind.test", client=client)

    name = hashlib.sha256(b"ada@northwind.test").hexdigest()
    assert {str(one.url) for one in asked} == {f"https://api.gravatar.com/v3/profiles/{name}"}
    assert [one.headers.get("Authorization") for one in asked] == ["Bearer key", None]


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (httpx.Response(404), "not_found"),
        (httpx.Response(429, headers={"Retry-After": "60"}), "rate_limited"),
        (httpx.Response(401), "denied"),
        (httpx.Response(502), "http_502"),
        (httpx.Response(200, text="<html>"), "garbled"),
        (httpx.Response(200, json=["x"]), "garbled"),
        (httpx.Response(200, json={"display_name": 7, "verified_accounts": {}}), "empty"),
        (httpx.Response(302, headers={"Location": "http://10.0.0.7/"}), "redirected"),
        (httpx.Response(200, content=b'"' + b"x" * 600_000 + b'"'), "too_large"),
    ],
)
async def test_no_profile_has_a_reason(response, reason):
    async with answering(response) as client:
        answer = await gravatar_facts("ada@northwind.test", client=client)

    assert (answer.facts, answer.missing) == ((), (Missing("person", "*", reason),))


async def test_it_speaks_real_http():
    name = hashlib.sha256(b"ada@northwind.test").hexdigest()
    async with Sites() as sites, httpx.AsyncClient(trust_env=False) as client:
        base_url = f"http://127.0.0.1:{sites.port}/v3"
        sites.add(f"127.0.0.1/v3/profiles/{name}", web.Response(body=b'{"display_name": "Ada"}'))
        answer = await gravatar_facts("ada@northwind.test", client=client, base_url=base_url)
        nobody = await gravatar_facts("bob@northwind.test", client=client, base_url=base_url)
        nothing = await gravatar_facts(
            "ada@northwind.test", client=client, base_url="http://127.0.0.1:1"
        )

    assert [fact.value for fact in answer.facts] == ["Ada"]
    assert nobody.missing == (Missing("person", "*", "not_found"),)
    assert nothing.missing == (Missing("person", "*", "connect_failed"),)


async def test_a_server_that_never_answers_is_a_timeout():
    async with Sites() as sites, httpx.AsyncClient(trust_env=False) as client:
        client.headers["Host"] = "silent.test"
        answer = await gravatar_facts(
            "ada@northwind.test",
            client=client,
            base_url=f"http://127.0.0.1:{sites.port}",
            timeout_s=0.1,
        )

    assert answer.missing == (Missing("person", "*", "timeout"),)
