"""Clearbit: what it does not have at hand it looks up, and says 202 meanwhile.

A question about one of the world's LATER people or companies is answered 202 `pending_polls` times;
with a `webhook_url` the result is posted there, signed, besides. What it said 404 for is billed
too, and each subject only once in a billing period. Its rate headers are there even on a 401.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from tests.support.providers import clearbit_words, world
from tests.support.providers.server import (
    Answer,
    Callback,
    FakeProvider,
    KeyTrouble,
    Question,
    Reply,
)
from tests.support.providers.windows import Kind, Limit, Usage

PERSON = "/v2/people/find"
COMPANY = "/v2/companies/find"
COMBINED = "/v2/combined/find"


class FakeClearbit(FakeProvider):
    """Clearbit's hosts for people and companies as one, on loopback."""

    name = "clearbit"
    limits: ClassVar[Mapping[str, Sequence[Limit]]] = {
        path: (Limit(600, 60, Kind.FIRST_REQUEST),) for path in (PERSON, COMPANY, COMBINED)
    }

    def __init__(
        self,
        *,
        keys: Sequence[str] = ("sk_clearbit-key-1",),
        pending_polls: int = 2,
        queued_body: Literal["empty", "error"] = "error",
        **options: Any,
    ) -> None:
        super().__init__(keys=keys, **options)
        self.pending_polls = pending_polls
        self.queued_body = queued_body
        self._asked: Counter[str] = Counter()
        self._billed: set[tuple[str | None, str, str]] = set()

    def routes(self) -> Mapping[tuple[str, str], Answer]:
        return {
            ("GET", PERSON): self._person,
            ("GET", COMPANY): self._company,
            ("GET", COMBINED): self._combined,
            ("GET", "/v1/domains/find"): self._name_to_domain,
        }

    def key_of(self, question: Question) -> str | None:
        scheme, _, credentials = question.headers.get("Authorization", "").partition(" ")
        return credentials if scheme == "Bearer" and credentials else None

    def subject_of(self, question: Question) -> str:
        return (question.params.get("email") or question.params.get("domain") or "").lower()

    def refuse_key(self, question: Question, trouble: KeyTrouble) -> Reply:
        if trouble is KeyTrouble.MISSING:
            return error(401, "auth_required", "Authentication required.")
        return error(401, "invalid_api_key", "Invalid API key provided.")

    def refuse_rate(self, question: Question, usage: Usage) -> Reply:
        return error(429, "rate_limit", "Too many requests.")

    def refuse_credits(self, question: Question) -> Reply:
        return error(402, "over_quota", "You have used all lookups of this billing period.")

    def no_route(self, question: Question) -> Reply:
        return error(404, "unknown_route", "Unknown route.")

    def standing_headers(self, question: Question, reply: Reply) -> Mapping[str, str]:
        usage = next(iter(self.meter.usages(question.key or "", question.path)), None)
        if usage is None:
            return {}
        now = datetime.now(UTC)  # noqa: TID251 - the header is an epoch
        return {
            "X-RateLimit-Limit": str(usage.limit.calls),
            "X-RateLimit-Remaining": str(usage.left),
            "X-RateLimit-Reset": str(math.ceil(now.timestamp() + usage.reset_after_s)),
            "X-API-Version": "2019-12-19",
        }

    def _person(self, question: Question) -> Reply:
        email = question.params.get("email", "")
        if "@" not in email:
            return error(422, "email_invalid", "Invalid email.")
        found = world.person_at(email)
        body = clearbit_words.person(found, question.params) if found else None
        return self._found(question, "person", email, body)

    def _company(self, question: Question) -> Reply:
        domain = question.params.get("domain", "")
        if "." not in domain or "@" in domain:
            return error(422, "params_invalid", "Invalid domain.")
        found = world.company_at(domain)
        body = clearbit_words.company(found, is_count_text=False) if found else None
        return self._found(question, "company", domain, body)

    def _combined(self, question: Question) -> Reply:
        email = question.params.get("email", "")
        if "@" not in email:
            return error(422, "email_invalid", "Invalid email.")
        person, company = world.person_at(email), world.company_at(email.rpartition("@")[2])
        body = {
            "person": clearbit_words.person(person, question.params) if person else None,
            "company": clearbit_words.company(company, is_count_text=False) if company else None,
        }
        return self._found(question, "person_company", email, body if person or company else None)

    def _found(
        self, question: Question, kind: str, subject: str, body: dict[str, Any] | None
    ) -> Reply:
        subject = subject.strip().lower()
        bill = (question.key, question.path, subject)
        credits = 0 if bill in self._billed else 1
        self._billed.add(bill)
        times = self._asked[f"{kind} {subject}"]
        self._asked[f"{kind} {subject}"] += 1
        is_cached_only = question.params.get("cached") == "true"
        if world.is_later(subject) and times < self.pending_polls and not is_cached_only:
            callback = self._webhook(question, kind, body) if times == 0 else None
            queued = {"error": {"type": "queued", "message": "The record is being looked up."}}
            said: Any = queued if self.queued_body == "error" else b""
            return Reply(202, said, credits=credits, callback=callback)
        if body is None:
            said = error(404, "unknown_record", "Unknown record.")
            return Reply(said.status, said.body, credits=credits)
        return Reply(200, body, credits=credits)

    def _webhook(
        self, question: Question, kind: str, body: dict[str, Any] | None
    ) -> Callback | None:
        url = question.params.get("webhook_url")
        if not url:
            return None
        said = {
            "id": question.params.get("webhook_id"),
            "type": kind,
            "status": 200 if body else 404,
            "body": body,
        }
        raw = json.dumps(said).encode()
        return Callback(url, raw, {"X-Request-Signature": signature(raw, question.key or "")})

    def _name_to_domain(self, question: Question) -> Reply:
        name = question.params.get("name", "")
        company = world.company_at(world.domain_of(name)) if name else None
        if company is None:
            return error(404, "unknown_record", "Unknown record.")
        return Reply(200, {"name": company.name, "domain": company.domain, "logo": None})


fake_clearbit = FakeClearbit


def error(status: int, kind: str, message: str) -> Reply:
    """Return Clearbit's envelope of an error."""
    return Reply(status, {"error": {"type": kind, "message": message}})


def signature(body: bytes, key: str) -> str:
    """Return the `X-Request-Signature` of a webhook."""
    secret = key.removeprefix("sk_").removeprefix("pk_").encode()
    return "sha1=" + hmac.new(secret, body, hashlib.sha1).hexdigest()
