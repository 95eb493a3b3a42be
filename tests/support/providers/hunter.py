"""Hunter v2: 403 is its rate limit, 429 its monthly quota, and the verifier may answer later.

A verifier question about one of the world's LATER people is answered 202 `pending_polls` times
before it is answered, and billed then. Hunter says nothing of limits in its headers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Final

from tests.support.providers import clearbit_words, world
from tests.support.providers.server import (
    Answer,
    FakeProvider,
    KeyTrouble,
    Question,
    Reply,
)
from tests.support.providers.windows import Limit, Usage

TEST_KEY: Final = "test-api-key"
"""Hunter's own key for trying out: it checks the parameters and always says the same."""
PENDING_FOR_EVER: Final = 1_000_000
VERIFY_FAILED_WORD: Final = "greylisted"
"""`greylisted.lee@…`: the check itself does not work, status 222."""

_RESULTS: Final = {
    "valid": ("deliverable", 97),
    "invalid": ("undeliverable", 4),
    "accept_all": ("risky", 61),
    "webmail": ("deliverable", 80),
    "disposable": ("risky", 30),
    "unknown": ("risky", 50),
}
_DUMMY: Final = {
    "first_name": "Alex",
    "last_name": "Doe",
    "email": "alex@dummy.test",
    "score": 99,
    "domain": "dummy.test",
    "accept_all": False,
    "position": None,
    "company": "Dummy",
    "sources": [],
    "verification": {"date": None, "status": "valid"},
}


class FakeHunter(FakeProvider):
    """Hunter on loopback."""

    name = "hunter"
    base_path = "/v2"
    limits: ClassVar[Mapping[str, Sequence[Limit]]] = {
        **{
            path: (Limit(15, 1), Limit(500, 60))
            for path in (
                "/domain-search",
                "/email-finder",
                "/people/find",
                "/companies/find",
                "/combined/find",
            )
        },
        "/email-verifier": (Limit(10, 1), Limit(300, 60)),
        "/email-count": (Limit(15, 1),),
    }
    free_paths = frozenset({"/account", "/email-count"})
    open_paths = frozenset({"/email-count"})
    side_paths = frozenset({"/account"})

    def __init__(self, *, pending_polls: int = 2, verify_cost: str = "1", **options: Any) -> None:
        super().__init__(**options)
        self.pending_polls = pending_polls
        self.verify_cost = Decimal(verify_cost)
        self.accounts.setdefault(TEST_KEY, type(self.accounts[self.key])())
        self._polled: Counter[str] = Counter()

    def routes(self) -> Mapping[tuple[str, str], Answer]:
        return {
            ("GET", "/email-finder"): self._find_email,
            ("GET", "/email-verifier"): self._verify,
            ("GET", "/people/find"): self._person,
            ("GET", "/companies/find"): self._company,
            ("GET", "/combined/find"): self._combined,
            ("GET", "/domain-search"): self._domain_search,
            ("GET", "/email-count"): self._count,
            ("GET", "/account"): self._account,
        }

    def key_of(self, question: Question) -> str | None:
        bearer = question.headers.get("Authorization", "")
        return (
            question.headers.get("X-API-KEY")
            or bearer.removeprefix("Bearer ")
            or question.params.get("api_key")
        )

    def subject_of(self, question: Question) -> str:
        params = question.params
        if "email" in params:
            return params["email"].lower()
        names = [params.get("full_name", "")]
        if not names[0]:
            names = [params.get("first_name", ""), params.get("last_name", "")]
        where = params.get("domain") or params.get("company") or params.get("linkedin_handle", "")
        return " ".join(word.lower() for word in (*names, where) if word)

    def refuse_key(self, question: Question, trouble: KeyTrouble) -> Reply:
        details = {
            KeyTrouble.MISSING: "No API key provided.",
            KeyTrouble.WRONG: "No user found for the API key supplied",
            KeyTrouble.REVOKED: "The API key supplied was revoked",
        }
        return error(401, "authentication_failed", details[trouble])

    def refuse_rate(self, question: Question, usage: Usage) -> Reply:
        return error(403, "too_many_requests", "You have reached the rate limit.")

    def refuse_credits(self, question: Question) -> Reply:
        return error(429, "too_many_requests", "You've reached your usage limit for this month.")

    def no_route(self, question: Question) -> Reply:
        return error(404, "not_found", "This endpoint does not exist.")

    def _find_email(self, question: Question) -> Reply:
        params = question.params
        where = params.get("domain") or world.domain_of(params.get("company", ""))
        first, last = params.get("first_name", ""), params.get("last_name", "")
        if full := params.get("full_name"):
            first, _, last = full.partition(" ")
        problem = None
        if not (params.get("domain") or params.get("company")):
            problem = "You must provide a domain name or company name."
        elif not (first and last):
            problem = "You must provide a first name and a last name, or a full name."
        elif "." not in where:
            problem = "The domain is not valid."
        elif not 3 <= _number(params.get("max_duration"), 10) <= 20:
            problem = "The max_duration must be between 3 and 20."
        if problem:
            return error(400, "wrong_params", problem)
        if question.key == TEST_KEY:
            return _data(question, _DUMMY)
        if world.is_suppressed(first):
            return _opted_out()
        person = world.person_named(first, last, where)
        if person is None:
            nothing = dict.fromkeys(_DUMMY) | {"domain": where, "sources": []}
            return _data(question, nothing | {"first_name": first, "last_name": last})
        source = f"https://{person.company.domain}/team"
        found = {
            "first_name": person.first_name,
            "last_name": person.last_name,
            "email": person.email,
            "score": round(person.confidence * 100),
            "domain": person.company.domain,
            "accept_all": world.email_status(person.email) == "catchall",
            "position": person.title,
            "twitter": None,
            "linkedin_url": None,
            "phone_number": None,
            "company": person.company.name,
            "sources": [
                {
                    "domain": person.company.domain,
                    "uri": source,
                    "extracted_on": "2026-01-02",
                    "last_seen_on": "2026-06-01",
                    "still_on_page": True,
                }
            ],
            "verification": {"date": _yesterday(), "status": _status(person.email)},
        }
        return _data(question, found, credits=1)

    def _verify(self, question: Question) -> Reply:
        email = question.params.get("email", "").strip().lower()
        if "@" not in email or "." not in email.rpartition("@")[2]:
            return error(400, "wrong_params", "The email is missing or not valid.")
        if world.is_suppressed(email):
            return _opted_out()
        status = "valid" if question.key == TEST_KEY else _status(email)
        is_pending = world.is_later(email) and self._polled[email] < self.pending_polls
        result, score = _RESULTS[status]
        checks: dict[str, Any] = {
            "status": "unknown" if is_pending else status,
            "result": "risky" if is_pending else result,
            "score": None if is_pending else score,
            "email": email,
            "regexp": True,
            "gibberish": False,
            "disposable": status == "disposable",
            "webmail": status == "webmail",
            "mx_records": True,
            "smtp_server": not is_pending and status != "unknown",
            "smtp_check": not is_pending and status in ("valid", "webmail"),
            "accept_all": status == "accept_all",
            "block": False,
            "sources": [],
        }
        if email.startswith(VERIFY_FAILED_WORD):
            failed = {**checks, "status": "unknown", "result": "risky", "score": None}
            return _data(question, failed, status=222)
        if is_pending:
            self._polled[email] += 1
            return _data(question, checks, status=202)
        del self._polled[email]
        is_free = status in ("webmail", "disposable", "unknown")
        return _data(question, checks, credits=0 if is_free else self.verify_cost)

    def _person(self, question: Question) -> Reply:
        email, handle = question.params.get("email"), question.params.get("linkedin_handle")
        if not email and not handle:
            return error(400, "wrong_params", "You must provide an email or a linkedin_handle.")
        if email and "@" not in email:
            return error(422, "invalid_email", "The email is not valid.")
        if world.is_suppressed(email or handle or ""):
            return _opted_out()
        person = world.person_at(email) if email else None
        if person is None:
            return error(404, "not_found", "No record was found for this person.")
        return _data(question, clearbit_words.person(person, question.params), credits=1)

    def _company(self, question: Question) -> Reply:
        domain = question.params.get("domain", "")
        if "." not in domain:
            return error(400, "wrong_params", "The domain is missing or not valid.")
        company = world.company_at(domain)
        if company is None:
            return error(404, "not_found", "No record was found for this company.")
        return _data(question, clearbit_words.company(company, is_count_text=True), credits=1)

    def _combined(self, question: Question) -> Reply:
        answer = self._person(question)
        if answer.status != 200:
            return answer
        person = world.person_at(question.params.get("email", ""))
        assert person is not None
        both = {
            "person": clearbit_words.person(person, question.params),
            "company": clearbit_words.company(person.company, is_count_text=True),
        }
        return _data(question, both, credits=2)

    def _domain_search(self, question: Question) -> Reply:
        params = question.params
        limit, offset = _number(params.get("limit"), 10), _number(params.get("offset"), 0)
        where = params.get("domain") or world.domain_of(params.get("company", ""))
        if not 1 <= limit <= 100 or not (params.get("domain") or params.get("company")):
            return error(400, "wrong_params", "The limit must be between 1 and 100.")
        if offset > 10:
            return error(400, "pagination_error", "The offset is limited to 10 on this plan.")
        company = world.company_at(where)
        person = world.person_named("Ada", "Quill", where)
        found = [] if person is None or offset else [person]
        emails = [
            {
                "value": one.email,
                "type": "personal",
                "confidence": round(one.confidence * 100),
                "first_name": one.first_name,
                "last_name": one.last_name,
                "position": one.title,
                "verification": {"date": "2026-06-01", "status": "valid"},
                "sources": [],
            }
            for one in found
        ]
        data = {
            "domain": where,
            "disposable": False,
            "webmail": False,
            "accept_all": False,
            "pattern": "{first}.{last}",
            "organization": company.name if company else None,
            "emails": emails[:limit],
        }
        return _data(question, data, credits=1 if emails else 0)

    def _count(self, question: Question) -> Reply:
        known = world.company_at(question.params.get("domain", ""))
        total = 1 if known else 0
        return _data(question, {"total": total, "personal_emails": total, "generic_emails": 0})

    def _account(self, question: Question) -> Reply:
        account = self.accounts[question.key or ""]
        used = float(self.credits_spent)
        # What the plan has in all, not what is left of it: its clients take the one from the other.
        available = 10_000 if account.balance is None else float(account.balance) + used
        credits = {"used": used, "available": available}
        return _data(question, {"plan_name": "Growth", "requests": {"credits": credits}})


fake_hunter = FakeHunter


def error(status: int, name: str, details: str) -> Reply:
    """Return Hunter's envelope of an error."""
    return Reply(status, {"errors": [{"id": name, "code": status, "details": details}]})


def _data(question: Question, data: Any, *, credits: Decimal | int = 0, status: int = 200) -> Reply:
    params = {name: text for name, text in question.params.items() if name != "api_key"}
    body = {"data": data, "meta": {"params": params}}
    return Reply(status, body, credits=0 if question.key == TEST_KEY else credits)


def _opted_out() -> Reply:
    details = "This person asked us to stop processing their personal data."
    return error(451, "claimed_email", details)


def _yesterday() -> str:
    now = datetime.now(UTC)  # noqa: TID251 - a date that is always fresh
    return (now - timedelta(days=1)).date().isoformat()


def _status(email: str) -> str:
    status = world.email_status(email)
    return {"catchall": "accept_all", "unverifiable": "unknown"}.get(status, status)


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdigit() else default if text is None else -1
