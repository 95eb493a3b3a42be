"""From a person or a company in Clearbit's shape, which Hunter took over, to facts.

The data is a stranger's: a part of the wrong type is left out, the rest stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from enrichd.domain.facts import Entity, Fact, Json
from enrichd.domain.fields import EMPLOYEE_RANGES, LARGEST_RANGE
from enrichd.domain.web_links import host_of, social_profile
from enrichd.providers.site_text import clean_text, email, http_url

CONFIDENCE: Final = 0.9
FUZZY_CONFIDENCE: Final = 0.6
"""For a record that is approximately of whom was asked about."""
LIST_MAX: Final = 50
AMOUNT_MAX: Final = 2**53

_GEO: Final = (
    ("streetAddress", "street", 200),
    ("city", "city", 100),
    ("state", "region", 100),
    ("stateCode", "regionCode", 20),
    ("postalCode", "postalCode", 20),
    ("country", "country", 100),
    ("countryCode", "countryCode", 2),
)
_NETWORKS: Final[Mapping[Entity, Mapping[str, tuple[str, str]]]] = {
    "person": {
        "linkedin": ("https://www.linkedin.com/", "in"),
        "twitter": ("https://x.com/", ""),
        "github": ("https://github.com/", ""),
        "facebook": ("https://www.facebook.com/", ""),
        "gravatar": ("https://gravatar.com/", ""),
    },
    "company": {
        "linkedin": ("https://www.linkedin.com/", "company"),
        "twitter": ("https://x.com/", ""),
        "facebook": ("https://www.facebook.com/", ""),
        "crunchbase": ("https://www.crunchbase.com/", "organization"),
    },
}
"""Per network its site, and the first segment that a handle may leave out."""

_SENIORITIES: Final = {
    "executive": "cSuite",
    "c_suite": "cSuite",
    "junior": "entry",
    **{
        level.casefold(): level
        for level in (
            *("owner", "founder", "cSuite", "vp", "director", "head", "manager", "senior"),
            *("entry", "intern"),
        )
    },
}


def person_facts(record: Mapping[str, Any], *, source: str) -> list[Fact]:
    """Return what a record says about a person; `source` is the provider that gave it."""
    employment, geo = _part(record, "employment"), _part(record, "geo")
    title = clean_text(employment.get("title"), 200)
    address = email(record.get("email"))
    is_fuzzy = record.get("fuzzy") is True
    confidence = FUZZY_CONFIDENCE if is_fuzzy else CONFIDENCE
    avatar = http_url(record.get("avatar"), "") or http_url(
        _part(record, "gravatar").get("avatar"), ""
    )
    kind = "personal" if record.get("emailProvider") is True else "work"
    values: dict[str, Json] = {
        **_name(_part(record, "name")),
        "email": address,
        "emails": [{"address": address, "type": kind, "primary": True}] if address else None,
        "title": title,
        "seniority": _seniority(employment.get("seniority"), title),
        "department": clean_text(employment.get("role"), 100),
        "subDepartment": clean_text(employment.get("subRole"), 100),
        "company.name": clean_text(employment.get("name"), 200),
        "company.domain": _domain(employment.get("domain")),
        "phones": _phones(record.get("phone")),
        **_location(record, geo),
        "timeZone": clean_text(record.get("timeZone"), 60),
        "avatarUrl": avatar,
        "bio": clean_text(record.get("bio"), 2_000),
        "websiteUrl": http_url(record.get("site"), ""),
        "socialProfiles": _profiles("person", record, source, confidence),
        f"providerIds.{source}": _id(record),
    }
    facts = list(_facts("person", values, record, source, confidence))
    if facts:
        facts.append(Fact("person", "matchConfidence", confidence, 1.0, source))
    return facts


def company_facts(record: Mapping[str, Any], *, source: str) -> list[Fact]:
    """Return what a record says about a company; `source` is the provider that gave it."""
    category, metrics, site = (_part(record, key) for key in ("category", "metrics", "site"))
    parents = (_part(record, "parent").get("domain"), _part(record, "ultimateParent").get("domain"))
    confidence = FUZZY_CONFIDENCE if record.get("fuzzy") is True else CONFIDENCE
    values: dict[str, Json] = {
        "domain": _domain(record.get("domain")),
        "domainAliases": [
            name for one in _items(record, "domainAliases") if (name := _domain(one))
        ],
        "name": clean_text(record.get("name"), 200),
        "legalName": clean_text(record.get("legalName"), 200),
        "description": clean_text(record.get("description"), 2_000),
        "industry": clean_text(category.get("industry"), 100),
        "industryGroup": clean_text(category.get("industryGroup"), 100),
        "sector": clean_text(category.get("sector"), 100),
        "naicsCodes": _codes(category, "naicsCode", "naics6Codes2022", "naics6Codes"),
        "sicCodes": _codes(category, "sicCode", "sic4Codes"),
        "tags": _texts(_items(record, "tags")),
        "type": clean_text(record.get("type"), 40),
        "foundedYear": _whole(record.get("foundedYear"), 2_200),
        **_size(metrics),
        "annualRevenue": _whole(metrics.get("annualRevenue"), AMOUNT_MAX),
        "revenueRange": clean_text(metrics.get("estimatedAnnualRevenue"), 40),
        "totalFunding": _whole(metrics.get("raised"), AMOUNT_MAX),
        "ticker": clean_text(record.get("ticker"), 20),
        "phones": _phones(record.get("phone"), *_items(site, "phoneNumbers")),
        "emails": [
            {"address": address, "type": "work"}
            for one in _items(site, "emailAddresses")
            if (address := email(one))
        ],
        **_location(record, _part(record, "geo")),
        "logoUrl": http_url(record.get("logo"), ""),
        "technologies": _texts(_items(record, "tech")),
        "socialProfiles": _profiles("company", record, source, confidence),
        "parentDomain": next((name for one in parents if (name := _domain(one))), None),
        f"providerIds.{source}": _id(record),
    }
    return list(_facts("company", values, record, source, confidence))


def _facts(
    entity: Entity,
    values: Mapping[str, Json],
    record: Mapping[str, Any],
    source: str,
    confidence: float,
) -> Iterator[Fact]:
    observed_at = observed(record.get("indexedAt"))
    for path, value in values.items():
        if value not in (None, [], ""):
            yield Fact(entity, path, value, confidence, source, observed_at=observed_at)


def observed(value: Any) -> str | None:
    """Return a date or time in ISO 8601 if it can be when somebody saw something, else None."""
    text = value if isinstance(value, str) and len(value) <= 40 else ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not 2_000 <= moment.year < 2_200:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def profile_of(entity: Entity, network: str, handle: Any) -> dict[str, Json] | None:
    """Return the profile of a handle (`x`, `in/x`, `@x`, or a whole URL), None if it is none."""
    text = clean_text(handle, 200)
    if text is None or network not in _NETWORKS[entity]:
        return None
    base, lead = _NETWORKS[entity][network]
    if "//" in text or (host_of(text.partition("/")[0]) and "/" in text):
        url = text
    else:
        path = text.strip("/@")
        path = f"{lead}/{path}" if lead and "/" not in path else path
        url = base + quote(path, safe="/@._-~%")
    profile = social_profile(url, assume=entity)
    if profile is None or profile["kind"] != entity:
        return None
    return {**profile, "verified": False}


def _profiles(
    entity: Entity, record: Mapping[str, Any], source: str, confidence: float
) -> list[Json]:
    found: dict[str, Json] = {}
    for network in _NETWORKS[entity]:
        account = _part(record, network)
        profile = profile_of(entity, network, account.get("handle"))
        if profile is None:
            continue
        followers = _whole(account.get("followers"), 10**10)
        if followers is not None:
            profile["followers"] = followers
        found[profile["url"]] = {**profile, "source": source, "confidence": confidence}
    return list(found.values())


def _part(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = record.get(key)
    return part if isinstance(part, dict) else {}


def _items(record: Mapping[str, Any], key: str) -> list[Any]:
    items = record.get(key)
    return items[:LIST_MAX] if isinstance(items, list) else []


def _name(name: Mapping[str, Any]) -> dict[str, Json]:
    paths = (("fullName", 200), ("givenName", 100), ("familyName", 100))
    full, first, last = (clean_text(name.get(key), chars_max) for key, chars_max in paths)
    return {"fullName": full, "firstName": first, "lastName": last}


def _seniority(value: Any, title: str | None) -> str | None:
    """Return a level of the data model's; Clearbit calls vice presidents executives as well."""
    said = (clean_text(value, 40) or "").casefold()
    words = (title or "").casefold().replace("-", " ").split()
    if said == "executive" and ("vp" in words or "vice" in words):
        return "vp"
    return _SENIORITIES.get(said)


def _location(record: Mapping[str, Any], geo: Mapping[str, Any]) -> dict[str, Json]:
    values: dict[str, Json] = {
        f"location.{part}": clean_text(geo.get(key), chars_max) for key, part, chars_max in _GEO
    }
    values["location.raw"] = clean_text(record.get("location"), 300)
    lat, lng = _degrees(geo.get("lat"), 90), _degrees(geo.get("lng"), 180)
    if lat is not None and lng is not None and (lat, lng) != (0.0, 0.0):
        values |= {"location.lat": lat, "location.lng": lng}
    return values


def _degrees(value: Any, most: int) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -most <= value <= most else None


def _whole(value: Any, most: int) -> int | None:
    """Return a number from zero to `most`, of text too."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= most else None


def _size(metrics: Mapping[str, Any]) -> dict[str, Json]:
    """Return the head count and the size class.

    Hunter's `employees` is text and may be a class itself. A class that is not one of ours
    (`51-250`) stays as it was said, beside ours.
    """
    count = _whole(metrics.get("employees"), 20_000_000)
    said = [clean_text(metrics.get("employeesRange"), 40)]
    if count is None:
        said.append(clean_text(metrics.get("employees"), 40))
    ours = {name for _, name in EMPLOYEE_RANGES} | {LARGEST_RANGE}
    classes = sorted((one for one in said if one), key=lambda one: one not in ours)
    return {"employeeCount": count, "employeeRange": classes[0] if classes else None}


def _codes(category: Mapping[str, Any], single: str, *lists: str) -> list[Json]:
    raw = [category.get(single), *(one for key in lists for one in _items(category, key))]
    as_text = [str(one) if _whole(one, 10**8) is not None else one for one in raw]
    return _texts([one for one in as_text if isinstance(one, str) and one.isdigit()])


def _texts(items: Sequence[Any]) -> list[Json]:
    texts = (clean_text(one, 100) for one in items)
    return list(dict.fromkeys(text for text in texts if text))[:LIST_MAX]


def _phones(*numbers: Any) -> list[Json]:
    texts = (clean_text(one, 40) for one in numbers)
    found = dict.fromkeys(text for text in texts if text and any(map(str.isdigit, text)))
    return [{"number": text} for text in found]


def _domain(value: Any) -> str | None:
    host = host_of(value) if isinstance(value, str) else None
    return host.removeprefix("www.") if host else None


def _id(record: Mapping[str, Any]) -> str | None:
    return clean_text(record.get("id"), 100)
