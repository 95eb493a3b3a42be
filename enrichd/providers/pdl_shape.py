"""People Data Labs' people and companies in the words of the data model.

A plan that hides a value says `true` in its place; that is not a value. Whatever is said is as sure
as the match: `likelihood` out of ten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from enrichd.domain.emails import Address, parse_address
from enrichd.domain.facts import Fact, Json, Missing
from enrichd.domain.leads import Lead
from enrichd.providers.json_parts import (
    all_words,
    domain,
    facts_of,
    first_words,
    is_same_company,
    mapping,
    mappings,
    number,
    web_address,
    without_gaps,
    words,
)

UNTOLD_LIKELIHOOD: Final = 6
"""In the place of a likelihood that is missing or out of range."""
SENIORITIES: Final[Mapping[str, str]] = {
    "cxo": "cSuite",
    "partner": "owner",
    "training": "intern",
    **{same: same for same in ("owner", "vp", "director", "manager", "senior", "entry")},
}
EMAIL_TYPES: Final[Mapping[str, str]] = {
    "current_professional": "work",
    "professional": "other",
    "personal": "personal",
}
"""Of an earlier job is `other`; disposable ones are left out."""
NETWORKS: Final = ("linkedin", "twitter", "github", "facebook")
HISTORY_MAX: Final = 20
PROFILES_MAX: Final = 50


def confidence_of(record: Mapping[str, Any]) -> float:
    """Return how sure a match is, 0 to 1."""
    likelihood = number(record.get("likelihood"))
    is_sound = likelihood is not None and 1 <= likelihood <= 10
    return float(likelihood if is_sound and likelihood else UNTOLD_LIKELIHOOD) / 10


def person_facts(data: Mapping[str, Any], confidence: float, query: Lead) -> Iterator[Fact]:
    """Yield what a match says of the person, and of the employer if it is the company asked for."""
    email = email_of(data)
    summary, headline = words(data.get("summary")), words(data.get("headline"))
    said: list[tuple[str, Json]] = [
        ("providerIds.pdl", words(data.get("id"))),
        ("fullName", words(data.get("full_name"))),
        ("firstName", words(data.get("first_name"))),
        ("middleName", words(data.get("middle_name"))),
        ("lastName", words(data.get("last_name"))),
        ("email", str(email) if email else None),
        ("emails", _emails(data, email)),
        ("title", words(data.get("job_title"))),
        ("headline", headline),
        ("bio", summary or headline),
        ("seniority", SENIORITIES.get((first_words(data.get("job_title_levels")) or "").lower())),
        ("department", words(data.get("job_title_role"))),
        ("subDepartment", words(data.get("job_title_sub_role"))),
        ("company.name", words(data.get("job_company_name"))),
        ("company.domain", domain(data.get("job_company_website"))),
        ("company.linkedinUrl", web_address(data.get("job_company_linkedin_url"))),
        ("company.startDate", words(data.get("job_start_date"))),
        (
            "employmentHistory",
            [_job(job) for job in mappings(data.get("experience"))[:HISTORY_MAX]],
        ),
        ("phones", _phones(data)),
        ("location.raw", words(data.get("location_name"))),
        ("location.street", words(data.get("location_street_address"))),
        ("location.city", words(data.get("location_locality"))),
        ("location.region", words(data.get("location_region"))),
        ("location.postalCode", words(data.get("location_postal_code"))),
        ("location.country", words(data.get("location_country"))),
        *_point(data.get("location_geo")),
        ("socialProfiles", _profiles(data)),
        ("matchConfidence", confidence),
    ]
    yield from facts_of("person", said, confidence, "pdl")
    employer = domain(data.get("job_company_website"))
    if employer and (query.domain is None or is_same_company(employer, query.domain)):
        yield from facts_of("company", _employer(data, employer), confidence, "pdl")


def email_of(data: Mapping[str, Any]) -> Address | None:
    """Return the address at the present job, None if there is none or the plan hides it."""
    listed = [
        entry.get("address")
        for entry in mappings(data.get("emails"))
        if entry.get("type") == "current_professional"
    ]
    for value in (data.get("work_email"), *listed):
        address = _address(value)
        if address is not None:
            return address
    return None


def email_gap(data: Mapping[str, Any]) -> Missing | None:
    """Return why a match has no email, None if it has one."""
    if email_of(data) is not None:
        return None
    is_hidden = data.get("work_email") is True or data.get("emails") is True
    return Missing("person", "email", "hidden_by_plan" if is_hidden else "no_email")


def company_facts(body: Mapping[str, Any], confidence: float) -> list[Fact]:
    """Return what a company's answer says; unlike a person's it is flat."""
    place = mapping(body.get("location"))
    said: list[tuple[str, Json]] = [
        ("providerIds.pdl", words(body.get("id"))),
        ("domain", domain(body.get("website"))),
        ("domainAliases", all_words(body.get("alternative_domains"))),
        ("name", words(body.get("display_name")) or words(body.get("name"))),
        ("description", words(body.get("summary")) or words(body.get("headline"))),
        ("industry", words(body.get("industry"))),
        ("naicsCodes", _codes(body.get("naics"), "naics_code")),
        ("sicCodes", _codes(body.get("sic"), "sic_code")),
        ("tags", all_words(body.get("tags"))),
        ("type", words(body.get("type"))),
        ("foundedYear", number(body.get("founded"))),
        ("employeeCount", number(body.get("employee_count"))),
        ("employeeRange", words(body.get("size"))),
        ("revenueRange", words(body.get("inferred_revenue"))),
        ("totalFunding", number(body.get("total_funding_raised"))),
        ("lastFundingStage", words(body.get("latest_funding_stage"))),
        ("lastFundingDate", words(body.get("last_funding_date"))),
        ("ticker", words(body.get("ticker"))),
        ("location.raw", words(place.get("name"))),
        ("location.street", words(place.get("street_address"))),
        ("location.city", words(place.get("locality"))),
        ("location.region", words(place.get("region"))),
        ("location.postalCode", words(place.get("postal_code"))),
        ("location.country", words(place.get("country"))),
        *_point(place.get("geo")),
        ("socialProfiles", _profiles(body)),
    ]
    return facts_of("company", said, confidence, "pdl")


def _employer(data: Mapping[str, Any], employer: str) -> list[tuple[str, Json]]:
    return [
        ("domain", employer),
        ("name", words(data.get("job_company_name"))),
        ("industry", words(data.get("job_company_industry"))),
        ("employeeRange", words(data.get("job_company_size"))),
        ("foundedYear", number(data.get("job_company_founded"))),
        ("socialProfiles", _profiles(data, "job_company_")),
    ]


def _address(value: Json) -> Address | None:
    line = words(value)
    address = parse_address(line) if line else None
    return address if isinstance(address, Address) else None


def _emails(data: Mapping[str, Any], primary: Address | None) -> list[Json]:
    kinds = {str(primary): "work"} if primary else {}
    for entry in mappings(data.get("emails")):
        address = _address(entry.get("address"))
        kind = EMAIL_TYPES.get(words(entry.get("type")) or "")
        if address and kind:
            kinds.setdefault(str(address), kind)
    for line in all_words(data.get("personal_emails")):
        if address := _address(line):
            kinds.setdefault(str(address), "personal")
    return [
        {"address": address, "type": kind, "primary": primary is not None and place == 0}
        for place, (address, kind) in enumerate(kinds.items())
    ]


def _phones(data: Mapping[str, Any]) -> list[Json]:
    mobile = words(data.get("mobile_phone"))
    others = [line for line in all_words(data.get("phone_numbers")) if line != mobile]
    first: list[Json] = [{"number": mobile, "type": "mobile"}] if mobile else []
    return first + [{"number": line} for line in others]


def _profiles(record: Mapping[str, Any], prefix: str = "") -> list[Json]:
    """Return the addresses of all profiles, of the named fields first."""
    named = [record.get(f"{prefix}{network}_url") for network in NETWORKS]
    profiles = record.get("profiles")
    # A person's are objects, a company's bare addresses.
    listed = profiles[:PROFILES_MAX] if isinstance(profiles, list) and not prefix else []
    said = [*named, *(one.get("url") if isinstance(one, dict) else one for one in listed)]
    return list(dict.fromkeys(url for one in said if (url := web_address(one))))


def _job(job: Mapping[str, Any]) -> dict[str, Json]:
    company, title = mapping(job.get("company")), mapping(job.get("title"))
    said = without_gaps(
        {
            "companyName": words(company.get("name")),
            "companyDomain": domain(company.get("website")),
            "title": words(title.get("name")),
            "startDate": words(job.get("start_date")),
            "endDate": words(job.get("end_date")),
        }
    )
    return {**said, "current": job.get("is_primary") is True}


def _codes(value: Json, name: str) -> list[Json]:
    codes = [one.get(name) for one in mappings(value)]
    return [
        str(code) if isinstance(code, int) else code for code in codes if words(str(code or ""))
    ]


def _point(value: Json) -> list[tuple[str, Json]]:
    """Return `37.80,-122.27` as two fields."""
    latitude, comma, longitude = (words(value) or "").partition(",")
    return [("location.lat", latitude), ("location.lng", longitude.strip())] if comma else []
