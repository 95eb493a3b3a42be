"""What a company's site says becomes facts; what it does not say has a reason.

The sites are files in tests/support/pages, served over HTTP by tests/support/sites.py.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrichd.domain.facts import Facts, Missing
from enrichd.providers.site_markup import read_markup
from enrichd.providers.site_page import page_facts
from enrichd.providers.site_reader import PAGES_MAX, read_company_site
from tests.support.sites import PAGES, NoNetwork, Sites


@pytest_asyncio.fixture
async def sites() -> AsyncIterator[Sites]:
    async with Sites() as sites:
        yield sites


async def read(sites: Sites, domain: str, **options: Any) -> Facts:
    async with sites.fetcher(**options) as fetcher:
        return await read_company_site(domain, fetcher=fetcher)


def said(facts: Facts, source: str) -> dict[str, Any]:
    return {fact.field: fact.value for fact in facts.facts if fact.source == source}


def profiles(values: dict[str, Any]) -> list[str]:
    return [profile["url"] for profile in values.get("socialProfiles", [])]


async def test_a_graph_with_references_says_everything(sites):
    facts = await read(sites, "graph.test")

    values = said(facts, "json-ld")
    assert profiles(values) == [
        "https://www.linkedin.com/company/northwind",
        "https://x.com/northwind",
    ]
    del values["socialProfiles"]
    assert values == {
        "name": "Northwind Traders",
        "legalName": "Northwind Traders Ltd",
        "description": "Fine goods & spices.",
        "logoUrl": "http://graph.test/static/logo.svg",
        "foundedYear": 1996,
        "ticker": "NWND",
        "type": "public",
        "employeeCount": 160,
        "location.street": "1 Quay Street",
        "location.city": "London",
        "location.region": "Greater London",
        "location.postalCode": "E1 6AN",
        "location.countryCode": "GB",
        "location.raw": "1 Quay Street, E1 6AN, London, Greater London, GB",
        "phones": ["+442079460123", "+12125550123"],
        "emails": ["hello@graph.test", "sales@graph.test"],
        "founders": ["Ada Quill", "Bert Ink"],
        "parentName": "Northwind Group",
        "parentDomain": "northwind-group.test",
        "identifiers.vatId": "GB123456789",
        "identifiers.duns": "150483782",
        "identifiers.lei": "529900T8BM49AURSDO55",
    }
    assert facts.missing == ()
    assert {fact.source_url for fact in facts.facts} == {"http://graph.test/"}
    assert sites.requests == {"graph.test/robots.txt": 1, "graph.test/": 1}


async def test_sources_come_by_precedence_with_their_confidence(sites):
    facts = await read(sites, "graph.test")

    names = [(one.value, one.source, one.confidence) for one in facts.facts if one.field == "name"]
    assert names == [
        ("Northwind Traders", "json-ld", 0.85),
        ("Northwind", "opengraph", 0.6),
        ("Northwind Traders", "title", 0.4),
    ]
    assert said(facts, "website") == {"domain": "graph.test"}
    assert profiles(said(facts, "footer")) == ["https://github.com/northwind"]


@pytest.mark.parametrize(
    ("host", "source", "expected"),
    [
        (
            "array",
            "json-ld",
            {
                "name": "Quill Paper Inc.",
                "logoUrl": "https://cdn.array.test/logo.png",
                "employeeRange": "51-200",
                "foundedYear": 1984,
            },
        ),
        (
            "commented",
            "json-ld",
            {
                "name": "Inkwell & Sons",
                "description": "Pens, // ink, and paper",
                "employeeRange": "11-50",
                "location.city": "Leeds",
                "location.countryCode": "GB",
                "location.country": "United Kingdom",
                "tags": ["Store"],
            },
        ),
        ("onebroken", "json-ld", {"name": "Whole Ltd", "phones": ["+442079460999"]}),
        (
            "references",
            "json-ld",
            {
                "name": "Reference Works",
                "emails": ["office@references.test"],
                "location.city": "Wien",
                "location.countryCode": "AT",
                "founders": ["Ada Quill"],
            },
        ),
        ("others", "json-ld", {"name": "Our Paper", "logoUrl": "http://others.test/logo.png"}),
        ("escaped", "json-ld", {"name": "O'Hara"}),
        ("bignumbers", "json-ld", {"name": "Digits"}),
        (
            "microdata",
            "microdata",
            {
                "name": "Bäckerei Sonnenschein",
                "legalName": "Sonnenschein GmbH",
                "logoUrl": "http://microdata.test/img/logo.png",
                "description": "Brot seit April 1950.",
                "foundedYear": 1950,
                "location.street": "Hauptstraße 5",
                "location.postalCode": "10115",
                "location.city": "Berlin",
                "location.countryCode": "DE",
                "phones": ["+4930901820"],
                "emails": ["brot@microdata.test"],
            },
        ),
        (
            "rdfa",
            "rdfa",
            {
                "name": "Rosa & Daughters",
                "location.city": "Porto",
                "location.countryCode": "PT",
            },
        ),
        (
            "opengraph",
            "opengraph",
            {
                "name": "Graphite Labs",
                "description": "Pencils & more.",
                "logoUrl": "http://cdn.opengraph.test/card.png",
            },
        ),
        (
            "opengraph",
            "meta",
            {
                "faviconUrl": "http://opengraph.test/192.png",
                "tags": ["pencils", "graphite", "drawing"],
                "technologies": ["WordPress"],
            },
        ),
        ("title", "title", {"name": "Title Boats & Co"}),
        ("footer", "footer", {"phones": ["+4930901820"], "emails": ["Hello@footer.test"]}),
        (
            "imprint",
            "text",
            {
                "legalName": "Impressa Druck GmbH & Co. KG",
                "location.raw": "Torstraße 1, 10119 Berlin",
                "phones": ["+4930901820"],
                "identifiers.vatId": "DE123456789",
            },
        ),
        (
            "french",
            "text",
            {
                "legalName": "Plume et Fils SARL",
                "phones": ["+33142685300"],
                "identifiers.vatId": "FR40303265045",
            },
        ),
        ("latin1header", "opengraph", {"name": "Müller & Söhne Gerätebau"}),
        ("latin1meta", "opengraph", {"name": "Müller & Söhne Gerätebau"}),
        ("utf16", "opengraph", {"name": "Müller & Söhne Gerätebau"}),
        ("undeclared", "opengraph", {"name": "Müller & Söhne Gerätebau"}),
        ("scripthead", "opengraph", {"name": "Headed"}),
        ("domaintrader", "opengraph", {"name": "Domain Trader"}),
    ],
)
async def test_a_site_is_read_in_its_own_way_of_saying(sites, host, source, expected):
    values = said(await read(sites, f"{host}.test"), source)

    assert {field: values.get(field) for field in expected} == expected


@pytest.mark.parametrize(
    ("host", "source", "urls"),
    [
        (
            "footer",
            "footer",
            ["https://x.com/footerco", "https://www.linkedin.com/company/footerco"],
        ),
        ("nofooter", "footer", ["https://x.com/nofooter"]),
        ("relme", "footer", ["https://mastodon.social/@relme"]),
        ("microdata", "microdata", ["https://www.facebook.com/baeckerei.sonnenschein"]),
        ("rdfa", "rdfa", ["https://www.instagram.com/rosa.daughters"]),
        ("opengraph", "meta", ["https://x.com/graphitelabs"]),
        ("hostile", "json-ld", []),
    ],
)
async def test_own_profiles_are_kept_and_share_links_and_others_are_not(sites, host, source, urls):
    assert profiles(said(await read(sites, f"{host}.test"), source)) == urls


async def test_an_organization_on_another_domain_is_not_the_company(sites):
    facts = await read(sites, "foreign.test")

    assert said(facts, "json-ld") == {}
    assert said(facts, "opengraph") == {"name": "Reseller"}


async def test_hostile_values_come_out_clean_or_not_at_all(sites):
    facts = await read(sites, "hostile.test")

    values = said(facts, "json-ld")
    assert values["name"] == "alert(1) Evil Corp"
    assert values["legalName"] == "Evil"
    assert values["emails"] == ["ok@hostile.test"]
    assert (values["location.city"], values["location.countryCode"]) == ("Riga", "LV")
    assert len(values["description"]) <= 2_000
    assert not values.keys() & {"logoUrl", "phones", "employeeCount", "foundedYear"}
    assert said(facts, "opengraph") == {"name": "Evil[31mCorp"}
    assert "footer" not in {fact.source for fact in facts.facts}


async def test_other_pages_are_opened_only_while_something_is_missing(sites):
    await read(sites, "complete.test")

    assert sites.requests == {"complete.test/robots.txt": 1, "complete.test/": 1}


async def test_pages_the_home_page_links_to_come_before_the_usual_ones(sites):
    facts = await read(sites, "bakery.test")

    assert said(facts, "text")["phones"][0] == "+4930901820"
    assert said(facts, "footer")["emails"] == ["info@bakery.test"]
    assert said(facts, "meta")["description"] == "Seit 1990 in Berlin."
    assert set(sites.requests) == {
        "bakery.test/robots.txt",
        "bakery.test/",
        "bakery.test/kontakt",
        "bakery.test/recht/impressum",
        "bakery.test/about",
    }


async def test_a_site_costs_five_pages_at_most(sites):
    await read(sites, "hometitle.test")

    pages = {path: n for path, n in sites.requests.items() if not path.endswith("robots.txt")}
    assert sum(pages.values()) == PAGES_MAX


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("parked.test", "parked"),
        ("parkedde.test", "parked"),
        ("parkedscript.test", "parked"),
        ("defaultnginx.test", "default_page"),
        ("comingsoon.test", "default_page"),
        ("secret.test", "robots_disallowed"),
        ("robotsbroken.test", "robots_unavailable"),
        ("nobody.test", "dns_failed"),
        ("inside.test", "address_refused"),
        ("toprivate.test", "address_refused"),
        ("forbidden.test", "http_403"),
        ("broken.test", "robots_unavailable"),
        ("pdf.test", "not_html"),
        ("huge.test", "too_large"),
        ("bomb.test", "too_large"),
        ("loop.test", "too_many_redirects"),
        ("garbage.test", "bad_response"),
        ("not a domain", "bad_domain"),
        ("localhost", "bad_domain"),
        ("127.0.0.1", "bad_domain"),
        ("", "bad_domain"),
    ],
)
async def test_a_site_that_cannot_be_read_has_a_reason(sites, host, reason):
    facts = await read(sites, host)

    assert (facts.facts, facts.missing) == ((), (Missing("company", "*", reason),))


async def test_a_page_of_scripts_says_so_and_is_not_searched_for_others(sites):
    facts = await read(sites, "scriptonly.test")

    assert facts.missing == (Missing("company", "*", "script_only"),)
    assert sites.requests == {"scriptonly.test/robots.txt": 1, "scriptonly.test/": 1}


async def test_a_page_of_scripts_with_a_telling_head_gives_that(sites):
    facts = await read(sites, "scripthead.test")

    assert said(facts, "meta")["description"] == "Says it in the head."
    assert Missing("company", "phones", "script_only") in facts.missing


async def test_what_a_readable_site_does_not_say_is_not_on_site(sites):
    facts = await read(sites, "array.test")

    assert Missing("company", "phones", "not_on_site") in facts.missing
    assert not {missing.field for missing in facts.missing} & {fact.field for fact in facts.facts}


async def test_a_site_without_a_network_is_unreachable_at_once(sites):
    names = NoNetwork()

    facts = await read(sites, "graph.test", resolver=names)

    assert facts.missing == (Missing("company", "*", "network_unreachable"),)
    assert names.asked == ["graph.test"]


async def test_a_page_that_robots_forbid_is_left_alone(sites):
    facts = await read(sites, "partly.test")

    assert said(facts, "opengraph")["name"] == "Partly"
    assert "partly.test/contact" not in sites.requests


async def test_a_host_that_wants_a_minute_between_requests_is_asked_for_one_page(sites):
    started = time.monotonic()

    facts = await read(sites, "slowly.test")

    assert time.monotonic() - started < 30
    assert said(facts, "opengraph")["name"] == "Slowly"
    assert sites.requests == {"slowly.test/robots.txt": 1, "slowly.test/": 1}


async def test_the_domain_is_that_of_the_page_the_redirects_end_at(sites):
    facts = await read(sites, "tograph.test")

    assert said(facts, "website") == {"domain": "graph.test", "domainAliases": ["tograph.test"]}
    assert sites.requests["graph.test/robots.txt"] == 1


async def test_a_site_that_is_a_page_on_a_network_gives_that_profile_only(sites):
    sites.add("www.facebook.com/acme", "<title>Facebook</title>")

    facts = await read(sites, "tosocial.test")

    assert [fact.field for fact in facts.facts] == ["socialProfiles"]
    assert profiles(said(facts, "website")) == ["https://www.facebook.com/acme"]
    assert {missing.reason for missing in facts.missing} == {"social_page"}


async def test_www_is_tried_when_the_bare_name_does_not_exist(sites):
    sites.add("www.onlywww.test/", '<meta property="og:site_name" content="Only">')
    sites.addresses["onlywww.test"] = []

    facts = await read(sites, "onlywww.test")

    assert said(facts, "opengraph") == {"name": "Only"}


async def test_a_name_is_also_tried_without_its_www(sites):
    sites.addresses["www.graph.test"] = []

    assert said(await read(sites, "www.graph.test"), "website") == {"domain": "graph.test"}


async def test_a_robots_file_of_html_is_no_rule(sites):
    sites.add("soft.test/", '<meta property="og:site_name" content="Soft">')
    sites.add("soft.test/robots.txt", "<html>User-agent: *\nDisallow: /</html>")

    assert said(await read(sites, "soft.test"), "opengraph") == {"name": "Soft"}


async def test_a_site_of_another_host_is_not_followed_for_more(sites):
    sites.add("leaves.test/", '<a href="/contact">Contact</a><p>Leaves</p>')
    away = web.Response(status=302, headers={"Location": "http://graph.test/"})
    sites.add("leaves.test/contact", away)

    facts = await read(sites, "leaves.test")

    assert sites.requests["graph.test/"] == 1
    assert [fact.field for fact in facts.facts] == ["domain"]


def fill(pattern: str) -> str:
    return (pattern * (2_000_000 // len(pattern) + 1))[:2_000_000]


LD = '<script type="application/ld+json">'


@pytest.mark.parametrize(
    "html",
    [
        pytest.param(lambda: fill("<div>"), id="nested"),
        pytest.param(lambda: fill("<p>"), id="unclosed"),
        pytest.param(lambda: fill("<a x=1><table><td>"), id="misnested"),
        pytest.param(lambda: fill('<a href="/x">y</a>'), id="links"),
        pytest.param(lambda: fill('<a href="https://x.com/a">y</a>'), id="profiles"),
        pytest.param(lambda: fill('<a href="tel:+442079460123">y</a>'), id="phones"),
        pytest.param(lambda: "<a " + fill("= "), id="equals"),
        pytest.param(lambda: fill('<a b="'), id="quotes"),
        pytest.param(lambda: fill("<!--"), id="comments"),
        pytest.param(lambda: "<p id=x " + fill("a1 b2 c3 "), id="attributes"),
        pytest.param(lambda: fill("<div itemscope><b itemprop=name>x"), id="items"),
        pytest.param(lambda: "&#" + fill("9"), id="reference"),
        pytest.param(lambda: LD + "[" * 10_000 + "]" * 10_000, id="json-depth"),
        pytest.param(lambda: LD + fill('"\\'), id="json-strings"),
        pytest.param(lambda: LD + fill("/*"), id="json-comments"),
        pytest.param(
            lambda: LD + "[" + fill('{"@type":"Organization","name":"a"},') + "0]", id="json-items"
        ),
        pytest.param(
            lambda: (
                LD
                + '[{"@type":"Organization","@id":"a","name":"x","logo":['
                + '{"@id":"a"},' * 50_000
                + '0],"founder":{"@id":"a"}}]'
            ),
            id="json-circles",
        ),
        pytest.param(lambda: fill("030 901820 "), id="phone-text"),
        pytest.param(lambda: fill("GmbH & Co. "), id="names"),
        pytest.param(lambda: "<title>" + fill(" - ") + "</title>", id="title"),
        pytest.param(lambda: f'<meta name="keywords" content="{fill("a,")}">', id="keywords"),
    ],
)
def test_a_hostile_page_of_two_megabytes_is_read_in_linear_time(html: Callable[[], str]):
    page = html()
    started = time.process_time()

    page_facts(read_markup(page), "https://acme.test/", "acme.test", is_legal_page=True)

    # Takes up to 1.2 s on a slow core; what is quadratic takes minutes.
    assert time.process_time() - started < 5


FRAGMENTS = [
    "<",
    ">",
    '"',
    "'",
    "=",
    "/",
    "<!--",
    "-->",
    "<a href=",
    "<div itemscope",
    "itemprop=name",
]
FRAGMENTS += [
    "<script type='application/ld+json'>",
    "</script>",
    '{"@type":"Organization","name":',
    "[",
    "]",
]
FRAGMENTS += [
    "{",
    "}",
    ",",
    "&#",
    "x",
    " ",
    "\x00",
    "\ud800",
    "<p>",
    "</p>",
    "<title>",
    "tel:",
    "property=",
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=40).map("".join))
def test_no_html_makes_the_reader_fail(html):
    facts = page_facts(read_markup(html), "https://acme.test/", "acme.test", is_legal_page=True)

    assert all(fact.value not in (None, "", []) for fact in facts)


@pytest.mark.parametrize("name", sorted(path.name for path in PAGES.glob("*.html")))
def test_no_cut_page_makes_the_reader_fail(name):
    html = (PAGES / name).read_text()
    for end in range(0, len(html), max(1, len(html) // 25)):
        page_facts(read_markup(html[:end]), "https://acme.test/", "acme.test", is_legal_page=True)
