"""From a schema.org organization, in JSON-LD's shape, to facts about the company."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from enrichd.domain.facts import Fact, Json
from enrichd.domain.web_links import registrable_domain, social_profile
from enrichd.providers.site_jsonld import Node, first_text, listed, types_of
from enrichd.providers.site_text import (
    clean_text,
    country_code,
    email,
    head_count,
    http_url,
    phone,
    region_of_tld,
    year,
)

DESCRIPTION_CHARS_MAX: Final = 2_000
LIST_MAX: Final = 10

_KIND_BY_TYPE: Final = {
    "EducationalOrganization": "education",
    "CollegeOrUniversity": "education",
    "School": "education",
    "GovernmentOrganization": "government",
    "GovernmentOffice": "government",
    "NGO": "nonprofit",
}
_TOO_GENERAL: Final = frozenset(
    {"Organization", "Corporation", "LocalBusiness", "Brand", "OnlineBusiness", "Project"}
)
_ADDRESS_PARTS: Final = (
    ("streetAddress", "street", 200),
    ("addressLocality", "city", 100),
    ("addressRegion", "region", 100),
    ("postalCode", "postalCode", 20),
)
_IDENTIFIERS: Final = (
    ("vatID", "vatId"),
    ("taxID", "taxId"),
    ("duns", "duns"),
    ("leiCode", "lei"),
)


@dataclass(frozen=True, slots=True)
class Said:
    """How and where facts of one page were said."""

    source: str
    confidence: float
    url: str
    domain: str
    """The site's registrable domain."""
    region: str | None = None
    """The country to read phone numbers in, where the item itself names none."""

    def fact(self, field: str, value: Json) -> Fact:
        """Return a fact about the company."""
        return Fact("company", field, value, self.confidence, self.source, self.url)

    def socials(self, urls: Sequence[Any]) -> list[Json]:
        """Return the company's profiles among some URLs, each once."""
        found: dict[str, Json] = {}
        for url in urls:
            profile = social_profile(url) if isinstance(url, str) else None
            # A person's profile on a company's page is an employee's or the founder's.
            if profile is not None and profile["kind"] == "company":
                found.setdefault(
                    profile["url"],
                    {
                        **profile,
                        "verified": False,
                        "source": self.source,
                        "confidence": self.confidence,
                    },
                )
        return list(found.values())[: 2 * LIST_MAX]


def organization_facts(node: Node, said: Said) -> Iterator[Fact]:
    """Yield what an item says, a fact for each field it has a usable value for."""
    values: dict[str, Json] = {
        "name": clean_text(first_text(node.get("name")), 200),
        "legalName": clean_text(first_text(node.get("legalName")), 200),
        "description": clean_text(first_text(node.get("description")), DESCRIPTION_CHARS_MAX),
        "logoUrl": _image(node.get("logo"), said.url),
        "foundedYear": year(first_text(node.get("foundingDate"))),
        "ticker": clean_text(first_text(node.get("tickerSymbol")), 20),
        "type": _kind(node),
    }
    count, size = head_count(_employees(node))
    values |= {"employeeCount": count, "employeeRange": size}
    address = _address(node)
    values |= {f"location.{part}": value for part, value in address.items()}
    region = address.get("countryCode") or said.region or region_of_tld(said.domain)
    values["phones"] = _contacts(node, "telephone", lambda text: phone(text, region))
    values["emails"] = _contacts(node, "email", email)
    values["socialProfiles"] = said.socials(
        [one for one in listed(node.get("sameAs"))[:100] if isinstance(one, str)]
    )
    values["tags"] = _tags(node)
    values["founders"] = _names(node.get("founder") or node.get("founders"))
    values |= _parent(node, said)
    for key, name in _IDENTIFIERS:
        values[f"identifiers.{name}"] = clean_text(first_text(node.get(key)), 40)
    for field, value in values.items():
        if value not in (None, [], ""):
            yield said.fact(field, value)


def _image(value: Any, base: str) -> str | None:
    for one in listed(value)[:5]:
        choices = [one]
        if isinstance(one, dict):
            choices = [first_text(one.get(key)) for key in ("url", "contentUrl", "@id")]
        for choice in choices:
            url = http_url(choice, base)
            if url is not None:
                return url
    return None


def _kind(node: Node) -> str | None:
    if node.get("tickerSymbol"):
        return "public"
    return next((_KIND_BY_TYPE[name] for name in types_of(node) if name in _KIND_BY_TYPE), None)


def _employees(node: Node) -> Any:
    value = listed(node.get("numberOfEmployees"))[:1]
    if not value:
        return None
    if isinstance(value[0], dict):  # Microdata gives each property a list.
        return {key: (listed(one) or [None])[0] for key, one in list(value[0].items())[:20]}
    return value[0]


def _address(node: Node) -> dict[str, Json]:
    """Return the parts of the first address that has any."""
    places = [place for place in listed(node.get("location"))[:5] if isinstance(place, dict)]
    addresses = listed(node.get("address"))[:5]
    for place in places:
        addresses = addresses + listed(place.get("address"))[:5]
    addresses += [place for place in places if "addressLocality" in place]
    for address in addresses:
        parts = _address_parts(address)
        if parts:
            return parts | _coordinates([node, *places])
    return {}


def _address_parts(address: Any) -> dict[str, Json]:
    if isinstance(address, str):
        text = clean_text(address, 300)
        return {"raw": text} if text else {}
    if not isinstance(address, dict):
        return {}
    parts: dict[str, Json] = {}
    for key, part, chars_max in _ADDRESS_PARTS:
        text = clean_text(first_text(address.get(key)), chars_max)
        if text is not None:
            parts[part] = text
    country = clean_text(first_text(address.get("addressCountry")), 60)
    code = country_code(country)
    if code is not None:
        parts["countryCode"] = code
    if country is not None and len(country) > 2:
        parts["country"] = country
    if parts:
        order = ("street", "postalCode", "city", "region")
        line = [str(parts[part]) for part in order if part in parts]
        parts["raw"] = ", ".join([*line, country] if country else line)
    return parts


def _coordinates(nodes: Sequence[Node]) -> dict[str, Json]:
    for node in nodes:
        for geo in listed(node.get("geo"))[:2]:
            if isinstance(geo, dict):
                lat, lng = _degrees(geo.get("latitude"), 90), _degrees(geo.get("longitude"), 180)
                if lat is not None and lng is not None and (lat, lng) != (0.0, 0.0):
                    return {"lat": lat, "lng": lng}
    return {}


def _degrees(value: Any, most: int) -> float | None:
    text = first_text(value)
    try:
        degrees = float(text[:30]) if text is not None else None
    except ValueError:
        return None
    return degrees if degrees is not None and -most <= degrees <= most else None


def _contacts(node: Node, key: str, read: Any) -> list[str]:
    """Return an item's own values of a property, then those of its contact points."""
    raw = listed(node.get(key))[:LIST_MAX]
    for point in listed(node.get("contactPoint"))[: 2 * LIST_MAX]:
        if isinstance(point, dict):
            raw = raw + listed(point.get(key))[:3]
    found = [read(first_text(one)) for one in raw]
    return list(dict.fromkeys(one for one in found if one))[:LIST_MAX]


def _tags(node: Node) -> list[str]:
    """Return what it is and knows about: its more special types, and its keywords."""
    tags = [name for name in types_of(node) if name not in _TOO_GENERAL]
    for key in ("keywords", "knowsAbout"):
        for one in listed(node.get(key))[: 2 * LIST_MAX]:
            text = first_text(one) or ""
            tags += text[:1_000].split(",") if key == "keywords" else [text]
    cleaned = (clean_text(tag, 60) for tag in tags)
    return list(dict.fromkeys(tag for tag in cleaned if tag and "//" not in tag))[: 2 * LIST_MAX]


def _names(value: Any) -> list[str]:
    names = (clean_text(first_text(one), 100) for one in listed(value)[:LIST_MAX])
    return list(dict.fromkeys(name for name in names if name and "//" not in name))


def _parent(node: Node, said: Said) -> dict[str, Json]:
    parent = (listed(node.get("parentOrganization")) or [None])[0]
    if isinstance(parent, str):
        parent = {"url" if "//" in parent else "name": parent}
    if not isinstance(parent, dict):
        return {}
    url = first_text(parent.get("url")) or ""
    domain = registrable_domain(url) if "//" in url else None
    return {
        "parentName": clean_text(first_text(parent.get("name")), 200),
        "parentDomain": domain if domain != said.domain else None,
    }
