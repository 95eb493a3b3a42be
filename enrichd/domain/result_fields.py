"""The columns that enriching adds to a lead list, each with the way to read it from a result.

A result is a lead's JSON as the API gives it: `{"leadId", "outcome", "person", "company",
"emailVerification", "missing", …}`; any part may be absent or null. Values are text of one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import orjson

from enrichd.errors import FieldProblem, Invalid

Result: TypeAlias = Mapping[str, Any]
Extractor: TypeAlias = Callable[[Result], object]

CELL_CHARS_MAX = 32_000
"""Excel keeps 32,767 characters of a cell."""
MISSING_LISTED_MAX = 40


def _path(*keys: str) -> Extractor:
    def extract(result: Result) -> object:
        value: object = result
        for key in keys:
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    return extract


def _first(*extractors: Extractor) -> Extractor:
    def extract(result: Result) -> object:
        for extractor in extractors:
            value = extractor(result)
            if value is not None and value != "" and value != []:
                return value
        return None

    return extract


def _member(list_path: Extractor, key: str) -> Extractor:
    """Take a key of a list's primary member, or of its first one, which may be plain text."""

    def extract(result: Result) -> object:
        members = _items(list_path(result))
        chosen = next((m for m in members if isinstance(m, dict) and m.get("primary")), None)
        member = chosen or (members[0] if members else None)
        return member.get(key) if isinstance(member, dict) else member

    return extract


def _profile(entity: str, network: str) -> Extractor:
    """Take the URL of an entity's profile on a network."""
    profiles = _path(entity, "socialProfiles")

    def extract(result: Result) -> object:
        for profile in _items(profiles(result)):
            if isinstance(profile, dict) and profile.get("network") == network:
                return profile.get("url")
        return None

    return extract


def _missing(result: Result) -> object:
    """List what was not found and why: `company.phones: robots_disallowed; …`."""
    missing = result.get("missing")
    if isinstance(missing, dict):
        return [f"{path}: {reason}" for path, reason in missing.items()][:MISSING_LISTED_MAX]
    listed = []
    for item in _items(missing)[:MISSING_LISTED_MAX]:
        if isinstance(item, dict):
            path = ".".join(str(item[key]) for key in ("entity", "field") if item.get(key))
            listed.append(f"{path}: {item.get('reason') or 'unknown'}")
        else:
            listed.append(str(item))
    return listed


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


_EMAILS, _PHONES = _path("person", "emails"), _path("person", "phones")

FIELDS: dict[str, Extractor] = {
    "outcome": _path("outcome"),
    "error": _path("error"),
    "lead_id": _path("leadId"),
    "email": _first(
        _path("person", "email"), _member(_EMAILS, "address"), _path("emailVerification", "email")
    ),
    "email_status": _member(_EMAILS, "status"),
    "email_verdict": _path("emailVerification", "verdict"),
    "email_score": _path("emailVerification", "score"),
    "email_reasons": _path("emailVerification", "reasons"),
    "email_suggestion": _path("emailVerification", "suggestion"),
    "email_is_disposable": _path("emailVerification", "isDisposable"),
    "email_is_role": _path("emailVerification", "isRole"),
    "email_is_free_mail": _path("emailVerification", "isFreeMail"),
    "email_is_catch_all": _path("emailVerification", "isCatchAll"),
    "email_mail_host": _path("emailVerification", "mx", "provider"),
    "full_name": _path("person", "fullName"),
    "first_name": _path("person", "firstName"),
    "last_name": _path("person", "lastName"),
    "title": _path("person", "title"),
    "headline": _path("person", "headline"),
    "seniority": _path("person", "seniority"),
    "department": _path("person", "department"),
    "phone": _member(_PHONES, "number"),
    "city": _path("person", "location", "city"),
    "region": _path("person", "location", "region"),
    "country": _first(
        _path("person", "location", "country"), _path("person", "location", "countryCode")
    ),
    "time_zone": _path("person", "timeZone"),
    "bio": _path("person", "bio"),
    "avatar_url": _path("person", "avatarUrl"),
    "website_url": _path("person", "websiteUrl"),
    "linkedin_url": _profile("person", "linkedin"),
    "x_url": _profile("person", "x"),
    "github_url": _profile("person", "github"),
    "facebook_url": _profile("person", "facebook"),
    "company_name": _first(_path("company", "name"), _path("person", "company", "name")),
    "company_legal_name": _path("company", "legalName"),
    "company_domain": _first(_path("company", "domain"), _path("person", "company", "domain")),
    "company_description": _path("company", "description"),
    "company_industry": _path("company", "industry"),
    "company_employees": _first(
        _path("company", "employeeCount"),
        _path("company", "employeeRange"),
        _path("company", "employeeRangeRaw"),
    ),
    "company_revenue": _first(_path("company", "annualRevenue"), _path("company", "revenueRange")),
    "company_founded_year": _path("company", "foundedYear"),
    "company_type": _path("company", "type"),
    "company_tags": _path("company", "tags"),
    "company_technologies": _path("company", "technologies"),
    "company_street": _path("company", "location", "street"),
    "company_postal_code": _path("company", "location", "postalCode"),
    "company_city": _path("company", "location", "city"),
    "company_region": _path("company", "location", "region"),
    "company_country": _first(
        _path("company", "location", "country"), _path("company", "location", "countryCode")
    ),
    "company_phone": _member(_path("company", "phones"), "number"),
    "company_email": _member(_path("company", "emails"), "address"),
    "company_logo_url": _path("company", "logoUrl"),
    "company_linkedin_url": _profile("company", "linkedin"),
    "company_x_url": _profile("company", "x"),
    "company_facebook_url": _profile("company", "facebook"),
    "company_instagram_url": _profile("company", "instagram"),
    "company_youtube_url": _profile("company", "youtube"),
    "company_github_url": _profile("company", "github"),
    "company_crunchbase_url": _profile("company", "crunchbase"),
    "missing": _missing,
    "providers_tried": _path("providersTried"),
    "cost_credits": _path("costCredits"),
}

DEFAULT_FIELDS = (
    "outcome",
    "email",
    "email_status",
    "email_verdict",
    "email_reasons",
    "email_suggestion",
    "full_name",
    "title",
    "phone",
    "city",
    "country",
    "linkedin_url",
    "x_url",
    "github_url",
    "company_name",
    "company_domain",
    "company_description",
    "company_industry",
    "company_employees",
    "company_city",
    "company_country",
    "company_phone",
    "company_email",
    "company_linkedin_url",
    "company_x_url",
    "missing",
    "error",
)


def chosen_fields(text: str | None) -> tuple[str, ...]:
    """Read `--fields a,b,c`: the default fields for None, every field for `all`.

    Raises Invalid with the nearest names for one that does not exist.
    """
    if text is None:
        return DEFAULT_FIELDS
    names = [name.strip().lower().replace("-", "_") for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return tuple(FIELDS)
    if not names:
        raise Invalid("--fields names no field.", hint=_field_hint())
    for name in names:
        if name not in FIELDS:
            close = difflib.get_close_matches(name, FIELDS, n=3, cutoff=0.5)
            raise Invalid(
                f"There is no result field {name!r}"
                + (f"; did you mean {' or '.join(close)}?" if close else "."),
                fields=[FieldProblem("fields", f"no field {name!r}")],
                hint=_field_hint(),
            )
    return tuple(dict.fromkeys(names))


def _field_hint() -> str:
    return f"The fields are all, or any of: {', '.join(FIELDS)}."


def column_values(result: Result | None, error: str | None, fields: Sequence[str]) -> list[str]:
    """Return the text of each field, "" where the result has none.

    `error` is why there is no result (the job failed, the row was bad); it wins over the result's.
    """
    found: Result = result or {}
    values = [cell_text(FIELDS[field](found)) for field in fields]
    if error is not None and "error" in fields:
        values[fields.index("error")] = cell_text(error)
    if error is not None and result is None and "outcome" in fields:
        values[fields.index("outcome")] = "failed"
    return values


def cell_text(value: object) -> str:
    """Return any JSON value as the text of one cell, on one line."""
    if value is None:
        return ""
    match value:
        case bool():
            return "yes" if value else "no"
        case str():
            text = value if value.isascii() and value.isprintable() else _one_line(value)
        case float() if value.is_integer() and abs(value) < 1e15:
            text = str(int(value))
        case int() | float():
            text = str(value)
        case list():
            text = "; ".join(filter(None, map(cell_text, value)))
        case {"message": str(message)}:
            text = _one_line(message)
        case _:
            text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    return text[:CELL_CHARS_MAX]


def _one_line(text: str) -> str:
    # A result comes from strangers' pages: no controls, and nothing that is not a letter at all.
    printable = (letter if letter.isprintable() or letter == "\u200d" else " " for letter in text)
    return " ".join("".join(printable).split())
