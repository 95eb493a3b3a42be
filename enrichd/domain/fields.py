"""The fields of a person and a company: what each may hold, and when two values are the same.

Providers' data is somebody else's text. A value that does not fit its field is dropped here, once,
for all of them.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from enrichd.domain.facts import Entity, Json
from enrichd.domain.web_links import social_profile

TEXT_CHARS_MAX = 4_000
LIST_ITEMS_READ_MAX = 200
DEPTH_MAX = 4

GROUPS: Final = frozenset({"location", "company", "providerIds"})
"""Objects whose parts are fields of their own."""
OBJECT_LISTS: Final = frozenset({"emails", "phones", "socialProfiles", "employmentHistory"})
TEXT_LISTS: Final = frozenset({"domainAliases", "naicsCodes", "sicCodes", "tags", "technologies"})
RECORD_FIELDS: Final[Mapping[Entity, frozenset[str]]] = {
    "person": frozenset(
        {
            *("email", "emails", "fullName", "firstName", "middleName", "lastName", "title"),
            *("headline", "seniority", "department", "subDepartment", "company"),
            *("employmentHistory", "phones", "location", "timeZone", "avatarUrl", "bio"),
            *("websiteUrl", "socialProfiles", "matchConfidence"),
        }
    ),
    "company": frozenset(
        {
            *("domain", "domainAliases", "name", "legalName", "description", "industry"),
            *("industryGroup", "sector", "naicsCodes", "sicCodes", "tags", "type", "foundedYear"),
            *("employeeCount", "employeeRange", "annualRevenue", "revenueRange", "totalFunding"),
            *("lastFundingStage", "lastFundingDate", "ticker", "phones", "emails", "location"),
            *("logoUrl", "faviconUrl", "technologies", "socialProfiles", "parentDomain"),
            "domainRegisteredAt",
        }
    ),
}
"""What a record may have at its top; a plug-in's provider may bring more."""
ADDRESS_FIELDS: Final = frozenset(
    f"location.{part}"
    for part in (
        "raw",
        "street",
        "city",
        "region",
        "regionCode",
        "postalCode",
        "country",
        "countryCode",
        "lat",
        "lng",
    )
)
EMPLOYEE_RANGES: Final = (
    (10, "1-10"),
    (50, "11-50"),
    (200, "51-200"),
    (500, "201-500"),
    (1_000, "501-1000"),
    (5_000, "1001-5000"),
    (10_000, "5001-10000"),
)
LARGEST_RANGE: Final = "10001+"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_SPACES = re.compile(r"\s+")
_NOT_WORD = re.compile(r"[\W_]+")
_PHONE_NOISE = re.compile(r"[^\d+]")


def is_list(path: str) -> bool:
    """Return whether a field holds many values that are united rather than chosen from."""
    return path in OBJECT_LISTS or path in TEXT_LISTS


def employee_range(count: int) -> str:
    """Return the size class of a head count."""
    return next((name for most, name in EMPLOYEE_RANGES if count <= most), LARGEST_RANGE)


def clean(entity: Entity, path: str, value: Json) -> Iterator[tuple[str, Json]]:
    """Yield (path, value) for each usable part of what a source said.

    Objects come by part, lists by item.
    """
    head, dot, part_name = path.partition(".")
    if dot and (head not in GROUPS or "." in part_name):
        return
    if path in GROUPS:
        # A place or an employer in one string is a whole by itself, `raw` or the name.
        parts = {_WHOLE[path]: value} if isinstance(value, str) and path in _WHOLE else value
        for name, part in parts.items() if isinstance(parts, Mapping) else ():
            if str(name).isidentifier():
                yield from clean(entity, f"{path}.{name}", part)
    elif is_list(path):
        items = value if isinstance(value, (list, tuple)) else [value]
        for item in items[:LIST_ITEMS_READ_MAX]:
            cleaned = _clean_item(entity, path, item)
            if cleaned is not None:
                yield path, cleaned
    elif path == "employeeRange":
        yield from _clean_range(value)
    else:
        cleaned = _CLEANERS.get(path, _any)(value)
        if cleaned is not None:
            yield path, cleaned


def equality_key(path: str, value: Json) -> str:
    """Return what makes two values of a field the same, as text."""
    if isinstance(value, Mapping):
        return _object_key(path, value)
    if isinstance(value, str):
        if path in _URL_FIELDS:
            return _url_key(value)
        folded = unicodedata.normalize("NFKC", value).casefold()
        if path in _WORDED_FIELDS:
            return _NOT_WORD.sub(" ", folded).strip() or folded
        return folded
    return json.dumps(value, sort_keys=True)


def text(value: Json, chars_max: int = TEXT_CHARS_MAX) -> str | None:
    """Return a value as one line of printable text, or None if it has none."""
    if not isinstance(value, str):
        return None
    # A lone surrogate is legal in Python and JSON, and in no database.
    sound = value[: chars_max * 2].encode("utf-8", "ignore").decode("utf-8")
    line = _SPACES.sub(" ", _CONTROL.sub(" ", sound)).strip()[:chars_max]
    return line or None


def url(value: Json) -> str | None:
    """Return a web address (http or https with a host), or None."""
    line = text(value, 2_048)
    if line is None or " " in line:
        return None
    line = "https:" + line if line.startswith("//") else line
    try:
        parts = urlsplit(line)
        host = parts.hostname
    except ValueError:
        return None
    return line if parts.scheme in ("http", "https") and host else None


def _domain(value: Json) -> str | None:
    line = text(value, 253)
    return line.lower().rstrip(".") if line and "." in line and " " not in line else None


def _email(value: Json) -> str | None:
    line = text(value, 320)
    return line if line and "@" in line and " " not in line else None


def _whole(least: int, most: int) -> Callable[[Json], Json]:
    def read(value: Json) -> int | None:
        if isinstance(value, str):
            value = value.strip()
            value = int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None
        if isinstance(value, float):
            value = int(value) if value.is_integer() else None
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        return value if least <= value <= most else None

    return read


def _between(least: float, most: float) -> Callable[[Json], Json]:
    def read(value: Json) -> float | None:
        if isinstance(value, str):
            try:
                value = float(value[:40])
            except ValueError:
                return None
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return None
        return float(value) if least <= value <= most else None

    return read


def _any(value: Json) -> Json:
    """Keep what a field without a rule of its own may hold: text, a number, a flag."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**63:
        return None
    return value if isinstance(value, (int, float)) else None


def _clean_item(entity: Entity, path: str, value: Json) -> Json:
    if path in TEXT_LISTS:
        return text(str(value) if isinstance(value, int) else value, 200)
    if isinstance(value, str):
        value = {_ITEM_NAMES[path]: value} if path in _ITEM_NAMES else {}
    if not isinstance(value, Mapping):
        return None
    # The names are the source's words too: what cannot be stored must not stand in them either.
    said = [(text(str(name), 100), _any(part)) for name, part in list(value.items())[:30]]
    item = {name: part for name, part in said if name and part is not None}
    match path:
        case "socialProfiles":
            return _clean_profile(entity, item)
        case "emails":
            item["address"] = _email(item.get("address"))
            return item if item["address"] else None
        case "phones":
            number = text(item.get("number"), 40)
            return {**item, "number": number} if number and any(map(str.isdigit, number)) else None
        case _:
            return item or None


def _clean_profile(entity: Entity, item: dict[str, Json]) -> dict[str, Json] | None:
    """Return a profile under its network's one address, or as it is if the network is unknown."""
    address = item.get("url")
    known = social_profile(address, assume=entity) if isinstance(address, str) else None
    if known is None and url(address) is None:
        return None
    # How it was found is the merge's to say, from the candidate itself.
    rest = {name: part for name, part in item.items() if name not in ("source", "confidence")}
    return {"network": "other", "kind": entity, **rest, **(known or {})}


def _clean_range(value: Json) -> Iterator[tuple[str, Json]]:
    """Keep a size class of ours; others overlap with ours and stay as they were said."""
    said = text(value, 40)
    if said is None:
        return
    known = {name for _, name in EMPLOYEE_RANGES} | {LARGEST_RANGE}
    yield ("employeeRange" if said in known else "employeeRangeRaw"), said


def _object_key(path: str, value: Mapping[str, Json]) -> str:
    match path:
        case "socialProfiles":
            return _url_key(value["url"])
        case "emails":
            return str(value["address"]).casefold()
        case "phones":
            digits = _PHONE_NOISE.sub("", str(value["number"]))
            return digits.removeprefix("00") if digits.startswith("00") else digits.lstrip("+")
        case "employmentHistory":
            parts = (value.get(name) for name in ("companyName", "title", "startDate"))
            return "|".join(str(part or "").casefold() for part in parts)
        case _:
            return json.dumps(value, sort_keys=True)


def _url_key(value: str) -> str:
    """Return an address without what tells no two pages apart: scheme, www, last slash, case."""
    bare = re.sub(r"^https?://(www\.)?", "", value.strip(), flags=re.IGNORECASE)
    return bare.rstrip("/").casefold()


_WHOLE: Final = {"location": "raw", "company": "name"}
_ITEM_NAMES: Final = {"emails": "address", "phones": "number", "socialProfiles": "url"}
_URL_FIELDS: Final = frozenset({"avatarUrl", "logoUrl", "faviconUrl", "websiteUrl"}) | {
    "company.linkedinUrl"
}
_WORDED_FIELDS: Final = frozenset(
    {"name", "legalName", "fullName", "firstName", "lastName", "title", "industry", "company.name"}
) | (ADDRESS_FIELDS - {"location.lat", "location.lng"})
_CLEANERS: Final[Mapping[str, Callable[[Json], Json]]] = {
    **dict.fromkeys(_URL_FIELDS, url),
    "email": _email,
    "domain": _domain,
    "company.domain": _domain,
    "parentDomain": _domain,
    "foundedYear": _whole(1_000, 2_200),
    "employeeCount": _whole(0, 20_000_000),
    "annualRevenue": _whole(0, 2**53),
    "totalFunding": _whole(0, 2**53),
    "location.lat": _between(-90, 90),
    "location.lng": _between(-180, 180),
    "matchConfidence": _between(0, 1),
}
