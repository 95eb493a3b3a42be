"""What one page says beside its structured items: OpenGraph, meta tags, title, links, footer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from enrichd.domain.facts import Fact
from enrichd.domain.web_links import host_of, is_social_host
from enrichd.providers.site_jsonld import find_company, read_blocks
from enrichd.providers.site_markup import Markup
from enrichd.providers.site_organization import (
    DESCRIPTION_CHARS_MAX,
    LIST_MAX,
    Said,
    organization_facts,
)
from enrichd.providers.site_text import (
    clean_text,
    email,
    http_url,
    phone,
    phones_in,
    region_of_tld,
)

JSON_LD, MICRODATA, OPENGRAPH, META, FOOTER, TITLE = 0.85, 0.8, 0.6, 0.5, 0.7, 0.4

_TITLE_PARTS = re.compile(r"\s+[|·•»–—-]\s+|\s*[|»]\s*|:\s+")
_EMPTY_TITLES: Final = frozenset(
    {"home", "homepage", "home page", "startseite", "accueil", "inicio", "welcome", "index"}
)
_NOT_LETTERS = re.compile(r"[^a-z0-9]+")
_VAT = re.compile(
    r"(?:USt-?\s?Id(?:ent)?\.?-?\s?(?:Nr|Nummer)?|UID|VAT|TVA|P\.?\s?IVA|BTW|NIF|CIF)"
    r"[^A-Z0-9\n]{0,25}((?:AT|BE|CHE|DE|DK|ES|FI|FR|GB|IE|IT|LU|NL|PL|PT|SE)[A-Z0-9 .-]{7,14}\d)"
)
_LEGAL_FORM = re.compile(
    r"(?:GmbH(?: & Co\. ?KG(?:aA)?)?|AG|SE|UG \(haftungsbeschränkt\)|KGaA|OHG|e\.K\.|Ltd\.?|Limited"
    r"|LLP|LLC|Inc\.?|S\.?A\.?S\.?|S\.?A\.?R\.?L\.?|S\.r\.l\.|S\.p\.A\.|S\.L\.|B\.V\.|N\.V\.|A/S|ApS"
    r"|AB|Oy|AS|Sp\. z o\.o\.)$"
)


def page_facts(markup: Markup, url: str, domain: str, *, is_legal_page: bool) -> list[Fact]:
    """Return everything a page says about its company, by falling precedence.

    Structured data first, then OpenGraph, meta tags, links, the title; on a page for legal notices
    or contacts the visible text is read as well.
    """
    region = _region(markup, domain)
    said = Said("json-ld", JSON_LD, http_url(markup.base, url) or url, domain, region)
    facts: list[Fact] = []
    for source, confidence, items in (
        ("json-ld", JSON_LD, read_blocks(markup.blocks)),
        ("microdata", MICRODATA, markup.microdata),
        ("rdfa", MICRODATA, markup.rdfa),
    ):
        company = find_company(items, domain)
        if company is not None:
            how = replace(said, source=source, confidence=confidence)
            facts += organization_facts(company, how)
    facts += _opengraph(markup, replace(said, source="opengraph", confidence=OPENGRAPH))
    facts += _metas(markup, replace(said, source="meta", confidence=META))
    facts += _anchors(markup, replace(said, source="footer", confidence=FOOTER))
    facts += _title(markup, replace(said, source="title", confidence=TITLE))
    if is_legal_page:
        facts += _visible(markup, replace(said, source="text", confidence=META))
    # The base of relative links is not where a fact was seen.
    return [replace(fact, source_url=url) for fact in facts]


def _region(markup: Markup, domain: str) -> str | None:
    by_tld = region_of_tld(domain)
    if by_tld is not None:
        return by_tld
    tag = re.fullmatch(r"[a-zA-Z]{2}[-_]([a-zA-Z]{2})", markup.language)
    # Half of the world's pages say en-US because a template did.
    return tag[1].upper() if tag and markup.language.lower() != "en-us" else None


def _opengraph(markup: Markup, said: Said) -> Iterator[Fact]:
    metas = markup.metas
    name = clean_text(metas.get("og:site_name"), 200)
    if name and "." not in name and name.casefold() not in _EMPTY_TITLES:
        yield said.fact("name", name)
    description = clean_text(metas.get("og:description"), DESCRIPTION_CHARS_MAX)
    if description:
        yield said.fact("description", description)
    image = http_url(metas.get("og:logo") or metas.get("og:image"), said.url)
    if image:
        yield said.fact("logoUrl", image)
    for key, field in (
        ("business:contact_data:street_address", "location.street"),
        ("business:contact_data:locality", "location.city"),
        ("business:contact_data:postal_code", "location.postalCode"),
        ("business:contact_data:country_name", "location.country"),
    ):
        text = clean_text(metas.get(key), 200)
        if text:
            yield said.fact(field, text)


def _metas(markup: Markup, said: Said) -> Iterator[Fact]:
    metas = markup.metas
    name = clean_text(metas.get("application-name"), 200)
    if name and name.casefold() not in _EMPTY_TITLES:
        yield said.fact("name", name)
    description = clean_text(
        metas.get("description") or metas.get("twitter:description"), DESCRIPTION_CHARS_MAX
    )
    if description:
        yield said.fact("description", description)
    icon = _icon(markup, said.url)
    if icon:
        yield said.fact("faviconUrl", icon)
    handle = (metas.get("twitter:site") or "").strip()
    profiles = said.socials([f"https://x.com/{handle[1:]}"]) if handle.startswith("@") else []
    if profiles:
        yield said.fact("socialProfiles", profiles)
    keywords = (clean_text(word, 60) for word in metas.get("keywords", "")[:1_000].split(","))
    tags = list(dict.fromkeys(word for word in keywords if word))[: 2 * LIST_MAX]
    if tags:
        yield said.fact("tags", tags)
    generator = clean_text(metas.get("generator"), 60)
    if generator:
        yield said.fact("technologies", [re.split(r"[\s/;(]+\d|;", generator)[0].strip()])


def _icon(markup: Markup, base: str) -> str | None:
    """Return the icon that will look best: vector, then the largest, then Apple's."""
    best: tuple[int, str] | None = None
    for link in markup.links:
        rels = link.get("rel", "").lower().split()
        if "icon" not in rels and "apple-touch-icon" not in rels:
            continue
        url = http_url(link.get("href"), base)
        if url is None:
            continue
        size = re.match(r"(\d{1,4})x", link.get("sizes", "").lower())
        rank = int(size[1]) if size else (180 if "apple-touch-icon" in rels else 16)
        if "svg" in link.get("type", "") or url.endswith(".svg"):
            rank = 10_000
        if best is None or rank > best[0]:
            best = (rank, url)
    return best[1] if best else None


def _anchors(markup: Markup, said: Said) -> Iterator[Fact]:
    """Yield profiles the page links to as its own, and its `tel:` and `mailto:` links."""
    own = [
        anchor.href for anchor in markup.anchors if anchor.in_footer or "me" in anchor.rel.split()
    ]
    own += [link["href"] for link in markup.links if link.get("rel") == "me" and "href" in link]
    profiles = said.socials(own)
    if not profiles:
        # Many pages have no footer element. A link to one profile of a network is the company's;
        # to several, it is a team's, or a list of partners.
        profiles = said.socials([anchor.href for anchor in markup.anchors])
        networks = [profile["network"] for profile in profiles]
        profiles = [one for one in profiles if networks.count(one["network"]) == 1]
    if profiles:
        yield said.fact("socialProfiles", profiles)
    hrefs = [anchor.href for anchor in markup.anchors]
    numbers = (
        phone(h[4:].replace("%20", " "), said.region) for h in hrefs if h[:4].lower() == "tel:"
    )
    phones = list(dict.fromkeys(number for number in numbers if number))[:LIST_MAX]
    if phones:
        yield said.fact("phones", phones)
    addresses = (email(href) for href in hrefs if href[:7].lower() == "mailto:")
    emails = list(dict.fromkeys(address for address in addresses if address))[:LIST_MAX]
    if emails:
        yield said.fact("emails", emails)


def _title(markup: Markup, said: Said) -> Iterator[Fact]:
    """Yield the part of the title that is the company: the one its domain is made of."""
    title = clean_text(markup.title, 300)
    parts = [part.strip() for part in _TITLE_PARTS.split(title or "")]
    parts = [part for part in parts if part and part.casefold() not in _EMPTY_TITLES]
    label = _NOT_LETTERS.sub("", said.domain.split(".")[0])
    for part in parts:
        letters = _NOT_LETTERS.sub("", part.casefold())
        if len(letters) > 2 and (letters.startswith(label) or label.startswith(letters)):
            yield said.fact("name", part[:200])
            return
    if len(parts) == 1 and len(parts[0]) <= 40:
        yield said.fact("name", parts[0])


def _visible(markup: Markup, said: Said) -> Iterator[Fact]:
    """Yield what legal notices must say by law, read from the page's text."""
    text = markup.text[:20_000]
    phones = phones_in(text, said.region)
    if phones:
        yield said.fact("phones", phones)
    vat = _VAT.search(text)
    if vat:
        yield said.fact("identifiers.vatId", re.sub(r"[ .-]", "", vat[1]))
    for line in text.split("\n")[:300]:
        name = clean_text(line, 120)
        if name and 4 < len(name) < 100 and _LEGAL_FORM.search(name) and "©" not in name:
            yield said.fact("legalName", name)
            break
    for address in markup.addresses:
        raw = clean_text(address.replace("\n", ", "), 300)
        if raw and re.search(r"\d", raw):
            yield said.fact("location.raw", re.sub(r"(?:, )+", ", ", raw).strip(", "))
            break


def is_elsewhere(url: str) -> bool:
    """Say whether a page stands on a platform whose metadata are its own, not the company's."""
    host = host_of(url)
    return host is not None and is_social_host(host)
