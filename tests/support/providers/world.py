"""Made-up companies and people: the same question always has the same answer.

Every `.example` and `.test` domain is a company and every `first.last@` of it an employee, except
those whose name begins with one of the words below. Nobody here exists. For whole jobs take
`.example`: an address at `.test` is refused as a reserved domain before anybody is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

ENDINGS: Final = (".example", ".test")
UNKNOWN: Final = "unknown"
"""`unknown7.example`, `unknown.lee@northwind.example`: nobody has heard of them."""
SUPPRESSED: Final = "optout"
"""`optout.lee@northwind.example` does not want to be found."""
FUZZY: Final = "fuzzy"
"""`fuzzy.lee@northwind.example`: an approximate match."""
LATER: Final = "later"
"""`later.lee@northwind.example`, `later7.example`: where a provider may answer later, it does."""
NEVER_FOUND: Final = "lost"
"""Like LATER, and then nobody is found."""
EMAIL_STATUSES: Final = ("invalid", "catchall", "disposable", "unverifiable", "webmail")
"""`catchall.lee@…` or `…@catchall.example`: what a check of the address says; else it is valid."""

_FIRST_NAMES = ("Ada", "Bela", "Chidi", "Dara", "Emre", "Fumiko", "Greta", "Hugo")
_LAST_NAMES = ("Quill", "Okafor", "Lindqvist", "Moreau", "Sato", "Vance", "Ibarra", "Novak")
_TITLES = (
    ("Head of Operations", "operations", "head"),
    ("VP of Sales", "sales", "vp"),
    ("Software Engineer", "engineering", "senior"),
    ("Marketing Manager", "marketing", "manager"),
    ("Chief Executive Officer", "leadership", "executive"),
    ("Director of Finance", "finance", "director"),
)
_PLACES = (
    ("Oakland", "California", "CA", "United States", "US", "+15105550", 37.8044, -122.2712),
    ("Leeds", "England", "ENG", "United Kingdom", "GB", "+441134960", 53.8008, -1.5491),
    ("Berlin", "Berlin", "BE", "Germany", "DE", "+493023125", 52.52, 13.405),
    ("Lyon", "Rhône", "69", "France", "FR", "+33465710", 45.764, 4.8357),
)
_INDUSTRIES = (
    ("Software", "Technology", "Software & Services", "541511", "7372"),
    ("Logistics", "Industrials", "Transportation", "488510", "4731"),
    ("Renewable Energy", "Utilities", "Utilities", "221114", "4911"),
)
_TECHNOLOGIES = ("postgresql", "nginx", "react", "kubernetes", "stripe", "segment")

Choice = TypeVar("Choice")


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody is."""

    street: str
    city: str
    region: str
    region_code: str
    country: str
    country_code: str
    postal_code: str
    lat: float
    lng: float

    @property
    def line(self) -> str:
        """The place in one line."""
        return f"{self.city}, {self.region}, {self.country}"


@dataclass(frozen=True, slots=True)
class Company:
    """One made-up company."""

    company_id: str
    domain: str
    name: str
    legal_name: str
    description: str
    industry: str
    sector: str
    industry_group: str
    naics: str
    sic: str
    founded_year: int
    employee_count: int
    annual_revenue: int
    total_funding: int
    phone: str
    place: Place
    technologies: tuple[str, ...]
    handle: str
    """On every network."""


@dataclass(frozen=True, slots=True)
class Person:
    """One made-up employee."""

    person_id: str
    first_name: str
    last_name: str
    email: str
    title: str
    department: str
    seniority: str
    phone: str
    place: Place
    company: Company
    handle: str
    """On every network."""
    is_fuzzy: bool
    confidence: float
    """How sure a provider is, 0.5 to 1."""

    @property
    def full_name(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}"


def company_at(domain: str) -> Company | None:
    """Return the company of a domain, None if nobody knows one."""
    domain = domain.strip().lower().removeprefix("www.")
    label = domain.rpartition(".")[0].rpartition(".")[2]
    if not domain.endswith(ENDINGS) or label.startswith((UNKNOWN, NEVER_FOUND)) or not label:
        return None
    industry, sector, group, naics, sic = _choice(_INDUSTRIES, "industry", domain)
    name = label.replace("-", " ").title()
    place = _place(domain)
    return Company(
        company_id=_id("company", domain),
        domain=domain,
        name=name,
        legal_name=f"{name}, Inc.",
        description=f"{name} sells {industry.lower()} that nobody has ever seen.",
        industry=industry,
        sector=sector,
        industry_group=group,
        naics=naics,
        sic=sic,
        founded_year=1980 + _number("founded", domain, 44),
        employee_count=5 + _number("employees", domain, 4_000),
        annual_revenue=1_000_000 * (1 + _number("revenue", domain, 900)),
        total_funding=100_000 * (1 + _number("funding", domain, 500)),
        phone=_phone(domain),
        place=place,
        technologies=tuple(
            tech for tech in _TECHNOLOGIES if _number(f"tech {tech}", domain, 2) == 0
        )
        or _TECHNOLOGIES[:1],
        handle=label,
    )


def person_at(email: str) -> Person | None:
    """Return the person with an address, None if nobody knows one."""
    local, at, domain = email.strip().lower().rpartition("@")
    company = company_at(domain) if at else None
    if company is None or not local or local.startswith((UNKNOWN, SUPPRESSED, NEVER_FOUND)):
        return None
    given, _, family = local.partition(".")
    first = given.title() or _choice(_FIRST_NAMES, "first", email)
    last = family.replace(".", " ").title() or _choice(_LAST_NAMES, "last", email)
    address = f"{local}@{company.domain}"
    title, department, seniority = _choice(_TITLES, "title", address)
    return Person(
        person_id=_id("person", address),
        first_name=first,
        last_name=last,
        email=address,
        title=title,
        department=department,
        seniority=seniority,
        phone=_phone(address),
        place=_place(address),
        company=company,
        handle=local.replace(".", ""),
        is_fuzzy=local.startswith(FUZZY),
        confidence=0.6 if local.startswith(FUZZY) else 0.8 + _number("sure", address, 20) / 100,
    )


def person_named(first: str, last: str, domain: str) -> Person | None:
    """Return an employee by name, None if nobody knows one."""
    words = [word.strip().lower().replace(" ", ".") for word in (first, last)]
    return person_at(f"{'.'.join(words)}@{domain.strip().lower()}") if all(words) else None


def domain_of(company_name: str) -> str:
    """Return where a company of that name is found."""
    return company_name.strip().lower().replace(" ", "-") + ENDINGS[0]


def is_suppressed(text: str) -> bool:
    """Return whether the person with an address or first name does not want to be found."""
    return text.strip().lower().startswith(SUPPRESSED)


def is_later(email_or_domain: str) -> bool:
    """Return whether a provider may take its time with an address or domain."""
    words = email_or_domain.strip().lower().split("@")
    return any(word.startswith((LATER, NEVER_FOUND)) for word in words)


def email_status(email: str) -> str:
    """Return what a check says: one of EMAIL_STATUSES, or `valid`."""
    words = email.strip().lower().split("@")
    return next(
        (one for one in EMAIL_STATUSES if any(word.startswith(one) for word in words)), "valid"
    )


def _place(seed: str) -> Place:
    city, region, code, country, country_code, _, lat, lng = _choice(_PLACES, "place", seed)
    number = 1 + _number("street", seed, 200)
    return Place(
        street=f"{number} Example Street",
        city=city,
        region=region,
        region_code=code,
        country=country,
        country_code=country_code,
        postal_code=f"{10_000 + _number('postal', seed, 80_000)}",
        lat=lat,
        lng=lng,
    )


def _phone(seed: str) -> str:
    prefix = _choice(_PLACES, "place", seed)[5]
    return f"{prefix}{100 + _number('phone', seed, 100)}"


def _choice(choices: Sequence[Choice], what: str, seed: str) -> Choice:
    return choices[_number(what, seed, len(choices))]


def _number(what: str, seed: str, below: int) -> int:
    digest = hashlib.sha256(f"{what}\x1f{seed}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") % below


def _id(what: str, seed: str) -> str:
    return hashlib.sha256(f"{what}\x1f{seed}".encode("utf-8", "replace")).hexdigest()[:24]
