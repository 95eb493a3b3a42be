"""The shape of a person and a company that Clearbit defined and Hunter took over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.providers.world import Company, Person, Place


def person(one: Person, params: Mapping[str, str]) -> dict[str, Any]:
    """Return somebody as `people/find` does; names that were given come back as given."""
    given = params.get("given_name", one.first_name)
    family = params.get("family_name", one.last_name)
    return {
        "id": one.person_id,
        "name": {"fullName": f"{given} {family}", "givenName": given, "familyName": family},
        "email": one.email,
        "location": one.place.line,
        "timeZone": "America/Los_Angeles",
        "utcOffset": -8,
        "geo": _geo(one.place),
        "bio": f"{one.title} at {one.company.name}.",
        "site": f"https://{one.handle}.test",
        "avatar": f"https://images.test/{one.person_id}.jpg",
        "employment": {
            "domain": one.company.domain,
            "name": one.company.name,
            "title": one.title,
            "role": one.department,
            "subRole": None,
            "seniority": one.seniority,
        },
        "facebook": {"handle": None},
        "github": {
            "handle": one.handle,
            "id": 4242,
            "avatar": None,
            "company": one.company.name,
            "blog": None,
            "followers": 12,
            "following": 3,
        },
        "twitter": {
            "handle": one.handle[:15],
            "id": "7",
            "bio": None,
            "followers": 140,
            "following": 9,
            "statuses": 2,
            "favorites": 0,
            "location": None,
            "site": None,
            "avatar": None,
        },
        "linkedin": {"handle": f"in/{one.handle}"},
        "googleplus": {"handle": None},
        "gravatar": {"handle": None, "urls": [], "avatar": None, "avatars": []},
        "fuzzy": one.is_fuzzy,
        "emailProvider": False,
        "indexedAt": "2026-05-11T09:30:00.000Z",
        "phone": one.phone,
        "activeAt": "2026-05-01T00:00:00.000Z",
        "inactiveAt": None,
    }


def company(one: Company, *, is_count_text: bool) -> dict[str, Any]:
    """Return a company as `companies/find` does; Hunter writes head counts as text."""
    size = _size(one.employee_count)
    return {
        "id": one.company_id,
        "name": one.name,
        "legalName": one.legal_name,
        "domain": one.domain,
        "domainAliases": [f"get{one.domain}"],
        "site": {"phoneNumbers": [one.phone], "emailAddresses": [f"hello@{one.domain}"]},
        "category": {
            "sector": one.sector,
            "industryGroup": one.industry_group,
            "industry": one.industry,
            "subIndustry": one.industry,
            "gicsCode": "45103010",
            "sicCode": one.sic,
            "sic4Codes": [one.sic],
            "naicsCode": one.naics,
            "naics6Codes": [one.naics],
            "naics6Codes2022": [one.naics],
        },
        "tags": [one.industry, "B2B"],
        "description": one.description,
        "foundedYear": one.founded_year,
        "location": one.place.line,
        "timeZone": "America/Los_Angeles",
        "utcOffset": -8,
        "geo": {
            **_geo(one.place),
            "streetNumber": one.place.street.split()[0],
            "streetName": " ".join(one.place.street.split()[1:]),
            "subPremise": None,
            "streetAddress": one.place.street,
            "postalCode": one.place.postal_code,
        },
        "logo": f"https://logo.test/{one.domain}",
        "facebook": {"handle": one.handle, "likes": 3},
        "linkedin": {"handle": f"company/{one.handle}"},
        "twitter": {"handle": one.handle[:15], "id": "9", "followers": 4_200},
        "crunchbase": {"handle": f"organization/{one.handle}"},
        "emailProvider": False,
        "type": "private",
        "company_type": "privately held",
        "ticker": None,
        "identifiers": {"usEIN": None},
        "phone": one.phone,
        "metrics": {
            "alexaUsRank": None,
            "alexaGlobalRank": 90_001,
            "trafficRank": "high",
            "employees": size if is_count_text else one.employee_count,
            "employeesRange": size,
            "marketCap": None,
            "raised": one.total_funding,
            "annualRevenue": one.annual_revenue,
            "estimatedAnnualRevenue": "$10M-$50M",
            "fiscalYearEnd": 12,
        },
        "indexedAt": "2026-04-20T00:00:00.000Z",
        "tech": list(one.technologies),
        "techCategories": ["web_servers"],
        "fundingRounds": [],
        "parent": {"domain": None},
        "ultimateParent": {"domain": None},
    }


def _geo(place: Place) -> dict[str, Any]:
    return {
        "city": place.city,
        "state": place.region,
        "stateCode": place.region_code,
        "country": place.country,
        "countryCode": place.country_code,
        "lat": place.lat,
        "lng": place.lng,
    }


def _size(count: int) -> str:
    sizes = ((10, "1-10"), (50, "11-50"), (250, "51-250"), (1_000, "251-1K"))
    return next((name for most, name in sizes if count <= most), "1K-5K")
