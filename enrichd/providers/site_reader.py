"""Read a company's website and say what it says about the company.

The home page first; a contact, legal or about page only while something useful is missing; five
pages at most, one after the other, as robots.txt allows. What cannot be read is a reason.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from yarl import URL

from enrichd.domain.facts import Fact, Facts, Missing
from enrichd.domain.web_links import host_of, registrable_domain, social_profile
from enrichd.providers.site_markup import Anchor, Markup, read_markup
from enrichd.providers.site_page import is_elsewhere, page_facts
from enrichd.providers.site_robots import Robots
from enrichd.providers.site_text import http_url
from enrichd.providers.site_verdicts import is_default_page, is_parked, is_script_only
from enrichd.providers.web import FetchFailure, Page, WebFetcher

PAGES_MAX: Final = 5
READ_S: Final = 30.0
"""For one whole site; what was read by then counts."""
DELAY_S_MAX: Final = 3.0
"""A crawl delay we wait for. A host that wants more is asked for its home page only."""

FIELDS: Final = (
    "name",
    "description",
    "logoUrl",
    "foundedYear",
    "employeeCount",
    "location.city",
    "phones",
    "emails",
    "socialProfiles",
)
"""What a reader of the answer asks for first; each is a fact or a reason."""

# For what a page of a kind is opened, in which words it is linked, where it is when it is not.
_KINDS: Final = (
    (
        "contact",
        frozenset({"phones", "emails", "location.city"}),
        re.compile(r"\b(?:contact|kontakt|contacto|contatti|contato|contactez|contatt)"),
        ("/contact",),
    ),
    (
        "legal",
        frozenset({"phones", "emails", "location.city", "legalName"}),
        re.compile(r"\b(?:impressum|imprint|legal-?notice|mentions-?legales|aviso-?legal|colofon)"),
        ("/impressum",),
    ),
    (
        "about",
        frozenset({"description", "foundedYear", "employeeCount", "name"}),
        re.compile(
            r"\b(?:about|company|ueber|uber-?uns|über|unternehmen|a-?propos|qui-?sommes|chi-?siamo"
            r"|quienes|sobre|over-?ons|om-?os|firma|azienda)"
        ),
        ("/about", "/about-us", "/company"),
    ),
)
_WORTH_A_PAGE: Final = frozenset({"phones", "emails", "location.city", "description", "name"})
# A host that answers like this is there; another form of its address would be a way around it.
_FINAL: Final = frozenset(
    {
        "network_unreachable",
        "address_refused",
        "robots_disallowed",
        "http_401",
        "http_403",
        "http_429",
    }
)
# Of several failures the one that came furthest says most.
_FURTHEST: Final = (
    "dns_failed",
    "dns_timeout",
    "connect_refused",
    "connect_failed",
    "timeout",
    "tls_failed",
)


async def read_company_site(domain: str, *, fetcher: WebFetcher) -> Facts:
    """Return what the website of a domain (or URL) says about its company.

    A `Missing` for `*` says why there is nothing at all: a reason of `FetchFailure`, `parked`,
    `default_page`, `script_only`, `social_page` or `bad_domain`. Single fields that a readable site
    does not mention are `not_on_site`, or `script_only`.
    """
    host = host_of(domain)
    if host is None:
        return _nothing("bad_domain")
    reading = _Reading(host, fetcher)
    try:
        async with asyncio.timeout(READ_S):
            await reading.run()
    except TimeoutError:
        reading.reason = reading.reason or "timeout"
    return reading.answer()


class _Reading:
    """The state of reading one site: what is known, and how many pages it has cost."""

    def __init__(self, host: str, fetcher: WebFetcher) -> None:
        self.host = host
        self.reason: str | None = None
        self._fetcher = fetcher
        self._robots = Robots(fetcher)
        self._facts: list[Fact] = []
        self._pages = 0
        self._is_script_only = False

    async def run(self) -> None:
        """Read the home page, then others while they can add something."""
        home = await self._home()
        if isinstance(home, FetchFailure):
            self.reason = home.reason
            return
        if is_elsewhere(home.final_url):
            self._social_page(home.final_url)
            return
        domain = registrable_domain(home.final_url)
        if domain is None:  # A public address without a name.
            self.reason = "bad_domain"
            return
        markup = await asyncio.to_thread(read_markup, home.text)
        if is_parked(markup, home.final_url) or is_default_page(markup):
            self.reason = "parked" if is_parked(markup, home.final_url) else "default_page"
            return
        self._is_script_only = is_script_only(markup)
        await self._keep(markup, home, domain, is_legal_page=False)
        self._name_domain(domain, home.final_url)
        await self._others(markup, home, domain)

    def answer(self) -> Facts:
        """Return everything known, each field by source once, and what is missing."""
        facts = _united(self._facts)
        known = {fact.field for fact in facts}
        if self.reason is not None and not known:
            return _nothing(self.reason)
        if self._is_script_only and known <= {"domain", "domainAliases", "faviconUrl", "name"}:
            return Facts(facts, (Missing("company", "*", "script_only"),))
        why = self.reason or ("script_only" if self._is_script_only else "not_on_site")
        missing = [Missing("company", name, why) for name in FIELDS if name not in known]
        return Facts(facts, tuple(missing))

    async def _home(self) -> Page | FetchFailure:
        is_www = self.host.startswith("www.")
        other = self.host.removeprefix("www.") if is_www else f"www.{self.host}"
        worst: FetchFailure | None = None
        dead: set[str] = set()
        for scheme, host in (
            ("https", self.host),
            ("https", other),
            ("http", self.host),
            ("http", other),
        ):
            # Plain http of the other form is for names that exist in that form only.
            if host in dead or (scheme == "http" and host == other and self.host not in dead):
                continue
            url = f"{scheme}://{host}/"
            # Asked first: a host that cannot even say its rules is not asked for more.
            trouble = await self._robots.trouble(url)
            if trouble is not None and trouble.status is not None:
                trouble = replace(trouble, reason="robots_unavailable")
            answer = trouble if trouble is not None else await self._fetch(url)
            if isinstance(answer, Page):
                return answer
            if answer.reason in ("dns_failed", "dns_timeout"):
                dead.add(host)
            if worst is None or _rank(answer.reason) > _rank(worst.reason):
                worst = replace(answer, url=url)
            if answer.reason in _FINAL:
                break
        assert worst is not None
        return worst

    async def _fetch(self, url: str) -> Page | FetchFailure:
        self._pages += 1
        return await self._fetcher.fetch(url, may_fetch=self._robots.allows)

    async def _keep(self, markup: Markup, page: Page, domain: str, *, is_legal_page: bool) -> None:
        # In a thread, so that a page of 2 MB does not hold up heartbeats.
        self._facts += await asyncio.to_thread(
            page_facts, markup, page.final_url, domain, is_legal_page=is_legal_page
        )

    async def _others(self, home: Markup, page: Page, domain: str) -> None:
        """Open pages for what is missing: those the home page links to, then the usual ones."""
        origin = URL(page.final_url).origin()
        delay_s = self._robots.delay_s(origin)
        if delay_s > DELAY_S_MAX or self._is_script_only:
            return
        seen = {page.final_url.rstrip("/")}
        linked = _links(home.anchors, page.final_url, domain)
        for kind, gives, _, paths in _KINDS:
            known = {fact.field for fact in self._facts}
            wanted = gives - known
            # A founding year alone is not worth a request.
            if not wanted & _WORTH_A_PAGE:
                continue
            urls = linked.get(kind) or [str(origin.with_path(path)) for path in paths]
            for url in urls:
                if self._pages >= PAGES_MAX:
                    return
                if url.rstrip("/") in seen:
                    continue
                seen.add(url.rstrip("/"))
                await asyncio.sleep(delay_s)
                answer = await self._fetch(url)
                if isinstance(answer, Page) and registrable_domain(answer.final_url) == domain:
                    markup = await asyncio.to_thread(read_markup, answer.text)
                    await self._keep(markup, answer, domain, is_legal_page=kind != "about")
                    break

    def _name_domain(self, domain: str, url: str) -> None:
        self._facts.append(Fact("company", "domain", domain, 0.9, "website", url))
        asked = registrable_domain(self.host)
        if asked is not None and asked != domain:
            self._facts.append(Fact("company", "domainAliases", [asked], 0.9, "website", url))

    def _social_page(self, url: str) -> None:
        """Keep that a company's site is its page on a network; that page's text is not its own."""
        self.reason = "social_page"
        profile = social_profile(url)
        if profile is not None:
            value = [{**profile, "verified": False, "source": "website", "confidence": 0.8}]
            self._facts.append(Fact("company", "socialProfiles", value, 0.8, "website", url))


def _nothing(reason: str) -> Facts:
    return Facts((), (Missing("company", "*", reason),))


def _rank(reason: str) -> int:
    return _FURTHEST.index(reason) if reason in _FURTHEST else len(_FURTHEST)


def _links(anchors: Sequence[Anchor], base: str, domain: str) -> dict[str, list[str]]:
    """Return up to two of the site's own pages of each kind, best first."""
    found: dict[str, list[tuple[int, str]]] = {}
    for anchor in anchors:
        url = http_url(anchor.href.partition("#")[0], base)
        if url is None or registrable_domain(url) != domain:
            continue
        path = URL(url).path.lower().replace("_", "-")
        if re.search(r"\.(?:pdf|jpe?g|png|zip|docx?|xlsx?)$", path):
            continue
        text = anchor.text.lower()
        for kind, _, words, _ in _KINDS:
            # A short path with the word in it is the page itself, not an article about contacts.
            rank = path.count("/") + (0 if words.search(path) else 2)
            if words.search(path) or (len(text) < 40 and words.search(text)):
                found.setdefault(kind, []).append((rank, url))
    return {
        kind: list(dict.fromkeys(url for _, url in sorted(ranked, key=lambda one: one[0])))[:2]
        for kind, ranked in found.items()
    }


def _united(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Return facts with one for each field and source: the first, lists put together.

    A place comes from the first page and source that names one, because the city of one office and
    the street of another are no address.
    """
    kept: dict[tuple[str, str], Fact] = {}
    places: dict[str, str | None] = {}
    for fact in facts:
        if fact.field.startswith("location."):
            place = places.setdefault(fact.source, fact.source_url)
            if place != fact.source_url:
                continue
        key = (fact.field, fact.source)
        known = kept.get(key)
        if known is None:
            kept[key] = fact
        elif isinstance(known.value, list) and isinstance(fact.value, list):
            new = [one for one in fact.value if one not in known.value]
            kept[key] = replace(known, value=[*known.value, *new][:20])
    return tuple(sorted(kept.values(), key=lambda fact: -fact.confidence))
