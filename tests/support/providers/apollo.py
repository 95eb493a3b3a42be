"""Apollo v1: nobody is a 200 with null, and each endpoint opens its windows at its first call.

`locked.lee@…` is known, but the address is the placeholder of one that was not paid for. A match
with `run_waterfall_email` comes without an address; the vendors' answer is posted to `webhook_url`,
and can be had at `/webhook_result/{id}` after `pending_polls` times 404. Ids are negative and
beyond 2^53, as they often are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final

from tests.support.providers import world
from tests.support.providers.server import (
    Answer,
    Callback,
    FakeProvider,
    KeyTrouble,
    Question,
    Reply,
)
from tests.support.providers.windows import Kind, Limit, Usage

MATCH: Final = "/people/match"
BULK: Final = "/people/bulk_match"
COMPANY: Final = "/organizations/enrich"
COMPANIES: Final = "/organizations/bulk_enrich"
RESULT: Final = "/webhook_result/*"

LOCKED: Final = "locked"
PLACEHOLDER: Final = "email_not_unlocked@domain.com"
BULK_MAX: Final = 10
DETAILS: Final = frozenset(
    (
        "first_name",
        "last_name",
        "name",
        "email",
        "hashed_email",
        "organization_name",
        "domain",
        "id",
        "linkedin_url",
    )
)
FLAGS: Final = frozenset(
    (
        "reveal_personal_emails",
        "reveal_phone_number",
        "run_waterfall_email",
        "run_waterfall_phone",
        "webhook_url",
    )
)
_WINDOWS: Final = {60: "minute", 3_600: "hourly", 86_400: "24-hour"}


def windows(*limits: tuple[int, int]) -> Sequence[Limit]:
    """Return (calls, seconds) pairs as Apollo counts them."""
    return tuple(Limit(calls, seconds, Kind.FIRST_REQUEST) for calls, seconds in limits)


FREE_PLAN: Final[Mapping[str, Sequence[Limit]]] = {
    **dict.fromkeys((MATCH, COMPANY), windows((50, 60), (200, 3_600), (600, 86_400))),
    **dict.fromkeys((BULK, COMPANIES), windows((20, 60), (100, 3_600), (600, 86_400))),
}


class FakeApollo(FakeProvider):
    """Apollo on loopback."""

    name = "apollo"
    base_path = "/api/v1"
    limits: ClassVar[Mapping[str, Sequence[Limit]]] = dict.fromkeys(
        (MATCH, BULK, COMPANY, COMPANIES), windows((1_000, 60))
    )
    free_paths = frozenset({RESULT})

    def __init__(
        self,
        *,
        match_price: str = "1",
        vendor_price: str = "3",
        miss_price: str = "0",
        pending_polls: int = 1,
        waterfall_status: str = "accepted",
        credit_status: int = 422,
        lists_missing: bool = True,
        **options: Any,
    ) -> None:
        """Take prices and what Apollo's documents leave open.

        `lists_missing` is whether an unknown company is null in a bulk answer or left out.
        """
        super().__init__(**options)
        self.match_price = Decimal(match_price)
        self.vendor_price = Decimal(vendor_price)
        self.miss_price = Decimal(miss_price)
        self.pending_polls = pending_polls
        self.waterfall_status = waterfall_status
        self.credit_status = credit_status
        self.lists_missing = lists_missing
        self.expired: set[str] = set()
        self.request_ids: list[int] = []
        self._results: dict[str, bytes] = {}
        self._polls: Counter[str] = Counter()

    def routes(self) -> Mapping[tuple[str, str], Answer]:
        return {
            ("POST", MATCH): self._match,
            ("POST", BULK): self._bulk,
            ("GET", COMPANY): self._company,
            ("POST", COMPANIES): self._companies,
            ("GET", RESULT): self._result,
        }

    def key_of(self, question: Question) -> str | None:
        return question.headers.get("x-api-key") or None

    def subject_of(self, question: Question) -> str:
        params = question.params
        if question.path == MATCH:
            return params.get("email", "").lower() or " ".join(
                params.get(name, "").lower() for name in ("first_name", "last_name", "domain")
            )
        return params.get("domain", "").lower()

    def refuse_key(self, question: Question, trouble: KeyTrouble) -> Reply:
        if trouble is KeyTrouble.REVOKED:
            return Reply(401, {"error": "Invalid access credentials."})
        said = "Invalid API key. Send it as the header X-Api-Key."
        return Reply(401, said, content_type="text/plain; charset=utf-8")

    def refuse_rate(self, question: Question, usage: Usage) -> Reply:
        window = {60: "minute", 3_600: "hour", 86_400: "day"}.get(
            int(usage.limit.seconds), "period"
        )
        said = (
            f"The maximum number of api calls allowed for api/v1{question.path} is "
            f"{usage.limit.calls} times per {window}. Please upgrade your plan."
        )
        wait_s = max(1, math.ceil(usage.reset_after_s))
        return Reply(429, {"message": said}, {"Retry-After": str(wait_s)})

    def refuse_credits(self, question: Question) -> Reply:
        return Reply(self.credit_status, {"error": "You have insufficient credits to do this."})

    def no_route(self, question: Question) -> Reply:
        said = f"api/v1{question.path} is not accessible with this api_key"
        return Reply(403, {"error": said, "error_code": "API_INACCESSIBLE"})

    def standing_headers(self, question: Question, reply: Reply) -> Mapping[str, str]:
        """Return all nine headers, empty for windows without a limit; none with 401 and 403."""
        if reply.status in (401, 403):
            return {}
        usages = {
            int(usage.limit.seconds): usage
            for usage in self.meter.usages(question.key or "", question.path)
        }
        headers = {}
        for seconds, name in _WINDOWS.items():
            usage = usages.get(seconds)
            headers[f"x-rate-limit-{name}"] = str(usage.limit.calls) if usage else ""
            headers[f"x-{name}-usage"] = str(usage.used) if usage else ""
            headers[f"x-{name}-requests-left"] = str(usage.left) if usage else ""
        return headers

    def _match(self, question: Question) -> Reply:
        params = question.params
        if unknown := set(params) - DETAILS - FLAGS:
            return _invalid(f"unknown parameter {sorted(unknown)[0]}")
        if question.body is not None:
            return _invalid("parameters belong into the query")
        person = _person(params)
        if params.get("run_waterfall_email") == "true":
            return self._waterfall(params, person)
        if person is None:
            return Reply(200, {"person": None})
        return Reply(200, {"person": person_words(person)}, credits=self.match_price)

    def _waterfall(self, params: Mapping[str, str], person: world.Person | None) -> Reply:
        url = params.get("webhook_url", "")
        if not url.startswith(("http://", "https://")):
            return _invalid("webhook_url is required to run a waterfall")
        request_id = _request_id(f"{len(self.request_ids)} {params}")
        self.request_ids.append(request_id)
        is_found = person is not None
        paid = self.vendor_price if is_found else self.miss_price
        body = json.dumps(vendor_words(request_id, person, paid)).encode()
        is_accepted = self.waterfall_status != "failed"
        if is_accepted:
            self._results[str(request_id)] = body
        answer = {
            "person": _without_email(person_words(person)) if person else None,
            "waterfall": {"status": self.waterfall_status, "message": "Sent to the vendors."},
            "request_id": request_id,
        }
        callback = Callback(url, body) if is_accepted else None
        return Reply(200, answer, credits=paid if is_accepted else 0, callback=callback)

    def _result(self, question: Question) -> Reply:
        request_id = question.rest
        if not request_id.removeprefix("-").isdigit():
            return _coded(400, "invalid_request_id")
        if request_id in self.expired:
            return _coded(410, "request_id_expired")
        if request_id not in self._results:
            return _coded(404, "request_id_unknown")
        self._polls[request_id] += 1
        if self._polls[request_id] <= self.pending_polls:
            return _coded(404, "result_pending", retry_after_seconds=7)
        return Reply(200, self._results[request_id])

    def _bulk(self, question: Question) -> Reply:
        body = question.body if isinstance(question.body, dict) else {}
        details = body.get("details")
        if not isinstance(details, list) or not 1 <= len(details) <= BULK_MAX:
            return _invalid(f"details must have 1 to {BULK_MAX} entries")
        if any(set(detail) - DETAILS for detail in details):
            return _invalid("unknown field in details")
        found = [_person(detail) for detail in details]
        paid = self.match_price * sum(1 for person in found if person)
        told = {
            "status": "success",
            "error_code": None,
            "error_message": None,
            "total_requested_enrichments": len(details),
            "unique_enriched_records": sum(1 for person in found if person),
            "missing_records": sum(1 for person in found if person is None),
            "credits_consumed": float(paid),
            "matches": [person_words(person) if person else None for person in found],
        }
        return Reply(200, told, credits=paid)

    def _company(self, question: Question) -> Reply:
        domain = question.params.get("domain", "")
        if "." not in domain or "@" in domain or domain.startswith("www."):
            return _invalid("domain is missing or no domain")
        company = world.company_at(domain)
        if company is None:
            return Reply(200, {})
        return Reply(200, {"organization": company_words(company)}, credits=self.match_price)

    def _companies(self, question: Question) -> Reply:
        domains = question.lists.get("domains[]", ())
        if not 1 <= len(domains) <= BULK_MAX:
            return _invalid(f"domains must have 1 to {BULK_MAX} entries")
        found = [world.company_at(domain) for domain in domains]
        listed = [company_words(company) if company else None for company in found]
        paid = self.match_price * sum(1 for company in found if company)
        told = {
            "status": "success",
            "error_code": None,
            "error_message": None,
            "total_requested_domains": len(domains),
            "unique_domains": len(set(domains)),
            "unique_enriched_records": sum(1 for company in found if company),
            "missing_records": sum(1 for company in found if company is None),
            "organizations": listed if self.lists_missing else [one for one in listed if one],
        }
        return Reply(200, told, credits=paid)


fake_apollo = FakeApollo


def person_words(person: world.Person) -> dict[str, Any]:
    """Return somebody in Apollo's words."""
    status = world.email_status(person.email)
    is_locked = person.first_name.lower().startswith(LOCKED)
    company_id = person.company.company_id
    return {
        "id": person.person_id,
        "first_name": person.first_name,
        "last_name": person.last_name,
        "name": person.full_name,
        "linkedin_url": f"http://www.linkedin.com/in/{person.handle}",
        "title": person.title,
        "email_status": {
            "catchall": "likely to engage",
            "unverifiable": "unverified",
            "disposable": "unverified",
            "invalid": "unavailable",
        }.get(status, "verified"),
        "photo_url": f"https://images.test/{person.person_id}.jpg",
        "twitter_url": f"https://twitter.com/{person.handle[:15]}",
        "github_url": None,
        "facebook_url": None,
        "extrapolated_email_confidence": None,
        "headline": f"{person.title} at {person.company.name}",
        "email": PLACEHOLDER if is_locked else None if status == "invalid" else person.email,
        "organization_id": company_id,
        "employment_history": [
            {
                "id": f"{person.person_id}1",
                "current": True,
                "organization_id": company_id,
                "organization_name": person.company.name,
                "title": person.title,
                "start_date": "2024-01-01",
                "end_date": None,
            },
            {
                "id": f"{person.person_id}0",
                "current": False,
                "organization_id": None,
                "organization_name": "Elsewhere",
                "title": "Trainee",
                "start_date": "2019-05-01",
                "end_date": "2023-12-01",
            },
        ],
        "state": person.place.region,
        "city": person.place.city,
        "country": person.place.country,
        "contact": {
            "id": "crm",
            "email": "stale@elsewhere.example",
            "time_zone": "Europe/Paris",
        },
        "organization": company_words(person.company),
        "departments": [person.department],
        "subdepartments": [],
        "functions": [],
        "seniority": {"executive": "c_suite"}.get(person.seniority, person.seniority),
    }


def company_words(company: world.Company) -> dict[str, Any]:
    """Return a company in Apollo's words."""
    place = company.place
    return {
        "id": company.company_id,
        "name": company.name,
        "website_url": f"http://www.{company.domain}",
        "linkedin_url": f"http://www.linkedin.com/company/{company.handle}",
        "twitter_url": f"https://twitter.com/{company.handle[:15]}",
        "facebook_url": None,
        "crunchbase_url": None,
        "primary_phone": {"number": company.phone, "source": "Scraped"},
        "phone": company.phone,
        "founded_year": company.founded_year,
        "publicly_traded_symbol": None,
        "logo_url": f"https://logo.test/{company.domain}",
        "primary_domain": company.domain,
        "industry": company.industry.lower(),
        "industries": [company.industry.lower()],
        "keywords": [company.industry.lower(), "b2b"],
        "estimated_num_employees": company.employee_count,
        "raw_address": f"{place.street}, {place.line}",
        "street_address": place.street,
        "city": place.city,
        "state": place.region,
        "postal_code": place.postal_code,
        "country": place.country,
        "short_description": company.description,
        "annual_revenue": company.annual_revenue,
        "total_funding": company.total_funding,
        "latest_funding_round_date": "2023-06-01T00:00:00.000+00:00",
        "latest_funding_stage": "Series B",
        "funding_events": [],
        "technology_names": list(company.technologies),
        "current_technologies": [
            {"uid": name, "name": name, "category": "Other"} for name in company.technologies
        ],
    }


def vendor_words(
    request_id: int, person: world.Person | None, paid: Decimal | None
) -> dict[str, Any]:
    """Return what is called back when the vendors have been asked."""
    emails = [{"email": person.email, "email_status": "verified"}] if person else []
    vendors = [{"id": "x1", "name": "VendorX", "status": "VERIFIED", "emails": []}]
    answered = {"emails": [{"vendors": vendors}]}
    people = [{"id": person.person_id, "waterfall": answered, "emails": emails}] if person else []
    return {
        "status": "success",
        "request_id": request_id,
        "credits_consumed": float(paid) if paid is not None else None,
        "total_requested_enrichments": 1,
        "records_enriched": len(people),
        "email_records_enriched": len(emails),
        "email_records_not_found": 1 - len(emails),
        "people": people,
    }


def _person(asked: Mapping[str, Any]) -> world.Person | None:
    if email := asked.get("email"):
        return world.person_at(email)
    if handle := str(asked.get("linkedin_url", "")).rpartition("/in/")[2]:
        return world.person_at(f"{handle}@northwind.example")
    first, last = asked.get("first_name", ""), asked.get("last_name", "")
    if name := asked.get("name"):
        first, _, last = name.partition(" ")
    where = asked.get("domain") or world.domain_of(asked.get("organization_name", ""))
    return world.person_named(first, last, where)


def _without_email(words: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in words.items() if name not in ("email", "email_status")}


def _request_id(seed: str) -> int:
    """Return a negative 64-bit number that no float can hold."""
    digest = hashlib.sha256(seed.encode("utf-8", "replace")).digest()
    return -(2**60 + int.from_bytes(digest[:7], "big")) | 1


def _invalid(problem: str) -> Reply:
    return Reply(422, {"error": problem, "error_code": "INVALID_PARAMETERS"})


def _coded(status: int, code: str, **more: Any) -> Reply:
    return Reply(status, {"error": code.replace("_", " "), "error_code": code, **more})
