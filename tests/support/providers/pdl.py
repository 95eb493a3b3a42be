"""People Data Labs v5: 404 is nobody and free, and limits are JSON in headers.

Text is in lower case unless `titlecase` is asked for; what a plan hides (`hidden`) is `true`. A
bulk call has a status for each question, also when the credits end in the middle of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar, Final

from tests.support.providers import world
from tests.support.providers.server import Answer, FakeProvider, KeyTrouble, Question, Reply
from tests.support.providers.windows import Limit, Usage

PERSON: Final = "/person/enrich"
PEOPLE: Final = "/person/bulk"
COMPANY: Final = "/company/enrich"
COMPANIES: Final = "/company/enrich/bulk"
BULK_MAX: Final = 100
SIZES: Final = ((10, "1-10"), (50, "11-50"), (200, "51-200"), (500, "201-500"), (1_000, "501-1000"))
ERRORS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "payment_required",
    404: "not_found",
    405: "method_not_allowed",
    429: "rate_limit_error",
}
_AS_GIVEN: Final = frozenset({"id", "type", "size", "inferred_revenue"})


class FakePdl(FakeProvider):
    """People Data Labs on loopback."""

    name = "pdl"
    base_path = "/v5"
    limits: ClassVar[Mapping[str, Sequence[Limit]]] = dict.fromkeys(
        (PERSON, PEOPLE, COMPANY, COMPANIES), (Limit(1_000, 60),)
    )

    def __init__(
        self,
        *,
        hidden: Sequence[str] = (),
        is_python_style: bool = False,
        has_company_bulk: bool = True,
        **options: Any,
    ) -> None:
        """Take what differs by plan and by day.

        `is_python_style` prints the limits with single quotes, as PDL at times does.
        """
        self.has_company_bulk = has_company_bulk
        super().__init__(**options)
        self.hidden = frozenset(hidden)
        self.is_python_style = is_python_style

    def routes(self) -> Mapping[tuple[str, str], Answer]:
        both: dict[tuple[str, str], Answer] = {}
        for method in ("GET", "POST"):
            both[method, PERSON] = self._person
            both[method, COMPANY] = self._company
        bulk: dict[tuple[str, str], Answer] = {("POST", PEOPLE): self._people}
        if self.has_company_bulk:
            bulk["POST", COMPANIES] = self._companies
        return both | bulk

    def key_of(self, question: Question) -> str | None:
        return question.headers.get("x-api-key") or question.params.get("api_key")

    def subject_of(self, question: Question) -> str:
        asked = _asked(question)
        return str(asked.get("email") or asked.get("website") or asked.get("name") or "").lower()

    def refuse_key(self, question: Question, trouble: KeyTrouble) -> Reply:
        return error(401, "Please provide a valid API key")

    def refuse_rate(self, question: Question, usage: Usage) -> Reply:
        return error(429, "You have hit your account's rate limit per minute")

    def refuse_credits(self, question: Question) -> Reply:
        return error(402, "You have hit your account's maximum for person enrichment")

    def no_route(self, question: Question) -> Reply:
        known = {path for _, path in self.routes()}
        if question.path in known:
            return error(405, "The method is not allowed for the requested URL")
        return error(404, "The requested URL was not found")

    def standing_headers(self, question: Question, reply: Reply) -> Mapping[str, str]:
        usage = next(iter(self.meter.usages(question.key or "", question.path)), None)
        now = datetime.now(UTC)  # noqa: TID251 - the headers hold moments
        headers = {"Date": format_datetime(now, usegmt=True)}
        if reply.status == 401:
            return headers
        account = self.accounts.get(question.key or "")
        if account is not None and account.balance is not None:
            headers["X-TotalLimit-Remaining"] = str(account.balance)
        if usage is None:
            return headers
        reset = now.replace(microsecond=0) + timedelta(seconds=usage.reset_after_s)
        return headers | {
            "X-RateLimit-Limit": self._printed(usage.limit.calls),
            "X-RateLimit-Remaining": self._printed(usage.left),
            "X-RateLimit-Reset": reset.isoformat().replace("+00:00", "Z"),
        }

    def _printed(self, minute: int) -> str:
        windows = {"minute": minute, "day": None, "month": None}
        return repr(windows) if self.is_python_style else json.dumps(windows)

    def _person(self, question: Question) -> Reply:
        status, body = self._find_person(_asked(question))
        return _billed(status, body, 1 if status == 200 else 0)

    def _company(self, question: Question) -> Reply:
        status, body = self._find_company(_asked(question))
        return _billed(status, body, 1 if status == 200 else 0)

    def _people(self, question: Question) -> Reply:
        return self._bulk(question, self._find_person)

    def _companies(self, question: Question) -> Reply:
        return self._bulk(question, self._find_company)

    def _bulk(self, question: Question, find: Any) -> Reply:
        body = question.body if isinstance(question.body, dict) else {}
        requests = body.get("requests")
        if not isinstance(requests, list) or not 1 <= len(requests) <= BULK_MAX:
            return error(400, f"Request object must contain 1 to {BULK_MAX} `requests`")
        left = self.accounts[question.key or ""].balance
        items, spent = [], 0
        for request in requests:
            status, item = find(request.get("params", {}))
            if status == 200 and left is not None and spent >= left:
                item = _error_body(402, "You have hit your account's maximum")
            elif status == 200:
                spent += 1
            metadata = {"metadata": request["metadata"]} if "metadata" in request else {}
            items.append({**item, **metadata})
        return _billed(200, items, spent)

    def _find_person(self, asked: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        names = asked.get("name") or (asked.get("first_name") and asked.get("last_name"))
        places = [
            asked.get(name) for name in ("location", "locality", "region", "company", "school")
        ]
        if not (asked.get("profile") or asked.get("email") or asked.get("phone")) and not (
            names and any(places)
        ):
            return 400, _error_body(400, "Request must contain sufficient parameters")
        least = asked.get("min_likelihood", 2)
        if not isinstance(least, int) or not 1 <= least <= 10:
            return 400, _error_body(400, "`min_likelihood` must be 1 to 10")
        person = _known(asked)
        nobody = _error_body(404, "No records were found matching your request")
        if person is None:
            return 404, nobody
        likelihood = round(person.confidence * 10)
        data = self._told(person_words(person), asked)
        if likelihood < least or not data.get(asked.get("required") or "id"):
            return 404, nobody
        return 200, {"status": 200, "likelihood": likelihood, "matched": ["email"], "data": data}

    def _find_company(self, asked: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        where = asked.get("website") or world.domain_of(str(asked.get("name", "")))
        if where in world.ENDINGS:
            return 400, _error_body(400, "Request must contain name, ticker, website or profile")
        company = world.company_at(where)
        if company is None:
            return 404, _error_body(404, "No records were found matching your request")
        return 200, {"status": 200, "likelihood": 9, **self._told(company_words(company), asked)}

    def _told(self, words: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
        is_titled = asked.get("titlecase") in (True, "true")
        return {
            name: bool(part) if name in self.hidden else _cased(name, part, is_titled)
            for name, part in words.items()
        }


fake_pdl = FakePdl


def person_words(person: world.Person) -> dict[str, Any]:
    """Return somebody in PDL's words."""
    place, company = person.place, person.company
    is_known_address = world.email_status(person.email) != "invalid"
    return {
        "id": f"{person.person_id}_0000",
        "full_name": person.full_name,
        "first_name": person.first_name,
        "last_name": person.last_name,
        "sex": None,
        "linkedin_url": f"linkedin.com/in/{person.handle}",
        "linkedin_username": person.handle,
        "github_url": None,
        "twitter_url": None,
        "facebook_url": None,
        "work_email": person.email if is_known_address else None,
        "personal_emails": [f"{person.handle}@mail.example.org"],
        "recommended_personal_email": None,
        "mobile_phone": person.phone,
        "phone_numbers": [person.phone],
        "emails": [
            {"address": person.email, "type": "current_professional"},
            {"address": f"{person.handle}@elsewhere.example.org", "type": "professional"},
            {"address": f"{person.handle}@bin.example.org", "type": "disposable"},
        ]
        if is_known_address
        else [],
        "industry": company.industry,
        "job_title": person.title,
        "job_title_role": person.department,
        "job_title_sub_role": None,
        "job_title_levels": [
            {"executive": "cxo", "head": "director"}.get(person.seniority, person.seniority)
        ],
        "job_company_name": company.name,
        "job_company_website": company.domain,
        "job_company_size": _size(company.employee_count),
        "job_company_founded": company.founded_year,
        "job_company_industry": company.industry,
        "job_company_linkedin_url": f"linkedin.com/company/{company.handle}",
        "job_start_date": "2024-01",
        "location_name": place.line,
        "location_locality": place.city,
        "location_region": place.region,
        "location_country": place.country,
        "location_street_address": None,
        "location_postal_code": None,
        "location_geo": f"{place.lat},{place.lng}",
        "profiles": [
            {
                "network": "github",
                "url": f"github.com/{person.handle}",
                "username": person.handle,
                "id": None,
            }
        ],
        "experience": [
            {
                "company": {"name": company.name, "website": company.domain},
                "title": {"name": person.title, "role": person.department, "levels": []},
                "start_date": "2024-01",
                "end_date": None,
                "is_primary": True,
            }
        ],
        "education": [],
        "skills": [],
        "dataset_version": "35.0",
    }


def company_words(company: world.Company) -> dict[str, Any]:
    """Return a company in PDL's words."""
    place = company.place
    return {
        "id": company.company_id,
        "name": company.name.lower(),
        "display_name": company.name,
        "website": company.domain,
        "size": _size(company.employee_count),
        "employee_count": company.employee_count,
        "founded": company.founded_year,
        "industry": company.industry,
        "naics": [{"naics_code": company.naics}],
        "sic": [{"sic_code": company.sic}],
        "location": {
            "name": place.line,
            "locality": place.city,
            "region": place.region,
            "country": place.country,
            "street_address": place.street,
            "postal_code": place.postal_code,
            "geo": f"{place.lat},{place.lng}",
        },
        "linkedin_url": f"linkedin.com/company/{company.handle}",
        "linkedin_slug": company.handle,
        "facebook_url": None,
        "twitter_url": None,
        "profiles": [f"linkedin.com/company/{company.handle}"],
        "ticker": None,
        "type": "private",
        "summary": company.description,
        "tags": [company.industry.lower()],
        "headline": None,
        "alternative_names": [],
        "alternative_domains": [f"get{company.domain}"],
        "total_funding_raised": company.total_funding,
        "latest_funding_stage": "series_b",
        "last_funding_date": "2023-06-01",
        "inferred_revenue": "$10M-$25M",
    }


def error(status: int, message: str) -> Reply:
    """Return PDL's envelope of an error."""
    return Reply(status, _error_body(status, message), {"X-Call-Credits-Spent": "0"})


def _error_body(status: int, message: str) -> dict[str, Any]:
    return {"status": status, "error": {"type": ERRORS[status], "message": message}}


def _billed(status: int, body: Any, credits: int) -> Reply:
    headers = {"X-Call-Credits-Spent": str(credits), "X-Call-Credits-Type": "enrichment"}
    return Reply(status, body, headers, credits=credits)


def _asked(question: Question) -> Mapping[str, Any]:
    """Return the parameters; those of the body win."""
    body = question.body if isinstance(question.body, dict) else {}
    return {**question.params, **body}


def _known(asked: Mapping[str, Any]) -> world.Person | None:
    if email := asked.get("email"):
        return world.person_at(email)
    if handle := str(asked.get("profile", "")).rpartition("/in/")[2]:
        return world.person_at(f"{handle}@northwind.example")
    first, last = asked.get("first_name", ""), asked.get("last_name", "")
    if name := asked.get("name"):
        first, _, last = name.partition(" ")
    where = asked.get("company", "")
    return world.person_named(first, last, where if "." in where else world.domain_of(where))


def _cased(name: str, value: Any, is_titled: bool) -> Any:
    if isinstance(value, dict):
        return {inner: _cased(inner, part, is_titled) for inner, part in value.items()}
    if isinstance(value, list):
        return [_cased(name, part, is_titled) for part in value]
    is_word = isinstance(value, str) and not {".", "@", "/"} & set(value)
    if not is_word or name in _AS_GIVEN:
        return value
    return value.title() if is_titled else value.lower()


def _size(count: int) -> str:
    return next((name for most, name in SIZES if count <= most), "1001-5000")
