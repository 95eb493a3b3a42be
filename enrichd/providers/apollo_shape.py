"""Apollo's people and organizations in the words of the data model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from enrichd.domain.email_verdicts import EmailVerification, Verdict
from enrichd.domain.emails import Address, parse_address
from enrichd.domain.facts import Fact, Json, Missing
from enrichd.domain.leads import Lead
from enrichd.providers.checked_emails import checked_email
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

PLACEHOLDERS: Final = frozenset({"email_not_unlocked@domain.com"})
"""What stands in the place of an address that was not paid for."""
CONFIDENCE: Final = 0.85
"""Of everything but the email."""
MATCH_CONFIDENCES: Final[Mapping[str, float]] = {"none": 0.0, "low": 0.4, "medium": 0.7}
"""What `match_confidence` makes of it; another word, or none, takes nothing away."""
EMAIL_CONFIDENCES: Final[Mapping[str, float]] = {"verified": 0.95, "likely to engage": 0.7}
UNVERIFIED_CONFIDENCE: Final = 0.5
VERDICTS: Final[Mapping[str, tuple[Verdict, str]]] = {
    "verified": (Verdict.VALID, "provider_valid"),
    "likely to engage": (Verdict.RISKY, "likely_to_engage"),
    "extrapolated": (Verdict.RISKY, "extrapolated"),
}
"""The statuses that say something; `unverified` and `unavailable` leave it to who verifies."""
SENIORITIES: Final[Mapping[str, str]] = {
    "c_suite": "cSuite",
    "partner": "owner",
    **{
        same: same
        for same in (
            "owner",
            "founder",
            "vp",
            "director",
            "head",
            "manager",
            "senior",
            "entry",
            "intern",
        )
    },
}
HISTORY_MAX: Final = 20


def person_facts(person: Mapping[str, Any], query: Lead) -> Iterator[Fact]:
    """Yield what a match says of the person, and of the employer if it is the company asked for."""
    told = (words(person.get("match_confidence")) or "").lower()
    certainty = MATCH_CONFIDENCES.get(told, 1.0)
    if certainty == 0.0:
        return
    organization = mapping(person.get("organization"))
    jobs = mappings(person.get("employment_history"))[:HISTORY_MAX]
    current = next((job for job in jobs if job.get("current") is True), {})
    headline = words(person.get("headline"))
    # The customer's own copy in Apollo's CRM; only what Apollo works out itself is of use.
    contact = mapping(person.get("contact"))
    said: list[tuple[str, Json]] = [
        ("providerIds.apollo", words(person.get("id"))),
        ("fullName", words(person.get("name"))),
        ("firstName", words(person.get("first_name"))),
        ("lastName", words(person.get("last_name"))),
        ("title", words(person.get("title"))),
        ("headline", headline),
        ("bio", headline),
        ("seniority", SENIORITIES.get((words(person.get("seniority")) or "").lower())),
        ("department", first_words(person.get("departments"))),
        ("subDepartment", first_words(person.get("subdepartments"))),
        ("company.name", words(organization.get("name"))),
        ("company.domain", domain_of(organization)),
        ("company.linkedinUrl", web_address(organization.get("linkedin_url"))),
        ("company.startDate", words(current.get("start_date"))),
        ("employmentHistory", [job for one in jobs if (job := _job(one, organization))]),
        ("phones", _phones(person)),
        ("location.city", words(person.get("city"))),
        ("location.region", words(person.get("state"))),
        ("location.country", words(person.get("country"))),
        ("timeZone", words(person.get("time_zone") or contact.get("time_zone"))),
        ("avatarUrl", web_address(person.get("photo_url"))),
        ("socialProfiles", _profiles(person, ("linkedin", "twitter", "github", "facebook"))),
        ("matchConfidence", certainty if told else None),
    ]
    yield from facts_of("person", said, CONFIDENCE * certainty, "apollo")
    yield from email_facts(person, certainty)
    if query.domain is None or is_same_company(domain_of(organization), query.domain):
        yield from company_facts(organization, certainty)


def email_facts(person: Mapping[str, Any], certainty: float = 1.0) -> Iterator[Fact]:
    """Yield the address, as sure as Apollo is of it."""
    address = email_of(person)
    if address is None:
        return
    status = status_of(person)
    guessed = number(person.get("extrapolated_email_confidence"))
    if status not in EMAIL_CONFIDENCES and guessed is not None and 0 <= guessed <= 1:
        confidence = float(guessed)
    else:
        confidence = EMAIL_CONFIDENCES.get(status, UNVERIFIED_CONFIDENCE)
    verdict, _ = VERDICTS.get(status, (Verdict.UNKNOWN, ""))
    entry = {"address": str(address), "type": "work", "status": str(verdict), "primary": True}
    said: list[tuple[str, Json]] = [("email", str(address)), ("emails", [entry])]
    yield from facts_of("person", said, confidence * certainty, "apollo")


def with_best_email(person: Mapping[str, Any]) -> dict[str, Any]:
    """Return a person of a callback with the surest of its `emails` in the place of `email`."""
    offered = [one for one in mappings(person.get("emails")) if email_of(one)]
    best = max(offered, key=lambda one: EMAIL_CONFIDENCES.get(status_of(one), 0.0), default=person)
    return {**person, "email": best.get("email"), "email_status": best.get("email_status")}


def email_gap(person: Mapping[str, Any]) -> Missing | None:
    """Return why a match has no email, None if it has one."""
    if email_of(person) is not None:
        return None
    shown = (words(person.get("email")) or "").lower()
    reason = "email_not_unlocked" if shown in PLACEHOLDERS else "no_email"
    return Missing("person", "email", reason)


def email_of(person: Mapping[str, Any]) -> Address | None:
    """Return a match's address, None for the placeholder and for what is no address."""
    text = words(person.get("email"))
    if text is None or text.lower() in PLACEHOLDERS:
        return None
    address = parse_address(text)
    return address if isinstance(address, Address) else None


def status_of(person: Mapping[str, Any]) -> str:
    """Return a match's `email_status`, empty if it has none."""
    return (words(person.get("email_status")) or "").lower().replace("_", " ")


def verdict_of(person: Mapping[str, Any], query: Lead) -> EmailVerification | None:
    """Return the verdict on the address, if there is one and it is the address in question."""
    address, status = email_of(person), status_of(person)
    if address is None or status not in VERDICTS:
        return None
    if query.address is not None and str(query.address).casefold() != str(address).casefold():
        return None
    verdict, reason = VERDICTS[status]
    return checked_email(address, verdict, reason, checked_by="apollo")


def company_facts(organization: Mapping[str, Any], certainty: float = 1.0) -> list[Fact]:
    """Return what Apollo says of an organization."""
    ticker = words(organization.get("publicly_traded_symbol"))
    description = words(organization.get("short_description"))
    phone = mapping(organization.get("primary_phone")).get("number") or organization.get("phone")
    networks = ("linkedin", "twitter", "facebook", "crunchbase")
    said: list[tuple[str, Json]] = [
        ("providerIds.apollo", words(organization.get("id"))),
        ("domain", domain_of(organization)),
        ("name", words(organization.get("name"))),
        ("description", description or words(organization.get("seo_description"))),
        ("industry", words(organization.get("industry"))),
        ("tags", all_words(organization.get("keywords"))),
        ("type", "public" if ticker else None),
        ("ticker", ticker),
        ("foundedYear", number(organization.get("founded_year"))),
        ("employeeCount", number(organization.get("estimated_num_employees"))),
        ("annualRevenue", number(organization.get("annual_revenue"))),
        ("totalFunding", number(organization.get("total_funding"))),
        ("lastFundingStage", words(organization.get("latest_funding_stage"))),
        ("lastFundingDate", _day(organization.get("latest_funding_round_date"))),
        ("phones", words(phone)),
        ("location.raw", words(organization.get("raw_address"))),
        ("location.street", words(organization.get("street_address"))),
        ("location.city", words(organization.get("city"))),
        ("location.region", words(organization.get("state"))),
        ("location.postalCode", words(organization.get("postal_code"))),
        ("location.country", words(organization.get("country"))),
        ("logoUrl", web_address(organization.get("logo_url"))),
        ("technologies", all_words(organization.get("technology_names"))),
        ("socialProfiles", _profiles(organization, networks)),
    ]
    return facts_of("company", said, CONFIDENCE * certainty, "apollo")


def domain_of(organization: Mapping[str, Any]) -> str | None:
    """Return an organization's domain."""
    primary = domain(organization.get("primary_domain"))
    return primary or domain(organization.get("website_url"))


def _day(value: Json) -> str | None:
    """Return the date of a moment, in whose hours nobody is interested."""
    line = words(value)
    return line.partition("T")[0] if line else None


def _profiles(record: Mapping[str, Any], networks: tuple[str, ...]) -> list[Json]:
    return [url for network in networks if (url := web_address(record.get(f"{network}_url")))]


def _phones(person: Mapping[str, Any]) -> list[Json]:
    found = []
    for phone in mappings(person.get("phone_numbers")):
        said = words(phone.get("sanitized_number")) or words(phone.get("raw_number"))
        if said:
            kind, status = words(phone.get("type_cd")), words(phone.get("status_cd"))
            found.append(without_gaps({"number": said, "type": kind, "status": status}))
    return found


def _job(job: Mapping[str, Any], employer: Mapping[str, Any]) -> dict[str, Json]:
    is_employer = job.get("organization_id") and job["organization_id"] == employer.get("id")
    said = without_gaps(
        {
            "companyName": words(job.get("organization_name")),
            "companyDomain": domain_of(employer) if is_employer else None,
            "title": words(job.get("title")),
            "startDate": words(job.get("start_date")),
            "endDate": words(job.get("end_date")),
        }
    )
    return {**said, "current": job.get("current") is True} if said else {}
