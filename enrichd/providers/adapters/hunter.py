"""Hunter: finds and checks email addresses, and knows people and companies in Clearbit's shape.

Its 403 is the rate limit and its 429 the monthly quota, the other way round than everywhere else.
No header says how we stand. A check that takes longer is answered 202 and asked for again at the
same address; 222 is a check that did not work. Nothing is ever called back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit
from uuid import uuid4

from enrichd.domain.email_verdicts import Verdict
from enrichd.domain.emails import Address, canonical_key, parse_address
from enrichd.domain.facts import Fact, Json
from enrichd.errors import ProviderGarbled, ProviderThrottled
from enrichd.providers.base import Found, Operation, Pending, Query, provider
from enrichd.providers.checked_emails import KEEP_CERTAIN, checked_email, now
from enrichd.providers.clearbit_shape import company_facts, observed, person_facts, profile_of
from enrichd.providers.client import Answer, Connections, send
from enrichd.providers.contracts import Contract, Ending, Window, garbled, judge
from enrichd.providers.json_parts import credits, mapping, object_of
from enrichd.providers.site_text import clean_text, email, http_url
from enrichd.settings.providers import ProviderSettings

POLL_AFTER_S: Final = 5.0
GIVE_UP_AFTER_S: Final = 600.0
CONFIDENCE_WITHOUT_SCORE: Final = 0.5

CONTRACT: Final = Contract(
    base_url="https://api.hunter.io/v2",
    statuses={
        202: Ending.PENDING,
        204: Ending.NO_MATCH,
        222: Ending.VERIFY_FAILED,
        401: Ending.AUTH,
        403: Ending.RATE_LIMITED,
        429: Ending.QUOTA,
        451: Ending.SUPPRESSED,
    },
    # Whether the endpoints share the windows is not documented; that they do is the careful guess.
    limits={
        Operation.FIND_EMAIL: (Window(1, 15), Window(60, 500)),
        Operation.ENRICH_PERSON: (Window(1, 15), Window(60, 500)),
        Operation.VERIFY_EMAIL: (Window(1, 10), Window(60, 300)),
    },
    # Its table names people, companies and both in one line: that may be one count.
    counted_as={Operation.ENRICH_COMPANY: Operation.ENRICH_PERSON},
    credits=dict.fromkeys(Operation, Decimal(1)),
)
PRIORS: Final = {"person.email": 0.95, "person": 0.85, "company": 0.85}
"""Email is its trade."""

_VERDICTS: Final = {
    "valid": (Verdict.VALID, "provider_valid"),
    "invalid": (Verdict.INVALID, "provider_invalid"),
    "accept_all": (Verdict.RISKY, "catch_all"),
    "disposable": (Verdict.RISKY, "disposable_domain"),
    "webmail": (Verdict.UNKNOWN, "webmail"),
    "unknown": (Verdict.UNKNOWN, "provider_unknown"),
}
_OLD_RESULTS: Final = {"deliverable": "valid", "undeliverable": "invalid", "risky": "accept_all"}
_UNBILLED: Final = frozenset({"webmail", "disposable", "unknown"})


@provider("hunter", priors=PRIORS, contract=CONTRACT)
class Hunter:
    """Hunter with one key."""

    provider_id: ClassVar[str]
    operations: ClassVar[frozenset[Operation]] = frozenset(Operation)
    calls_back: ClassVar[frozenset[Operation]] = frozenset()
    inputs: ClassVar[Mapping[Operation, Sequence[str]]] = {
        Operation.ENRICH_PERSON: ("email", "linkedin_url"),
        Operation.ENRICH_COMPANY: ("domain",),
    }

    def __init__(self, connections: Connections, settings: ProviderSettings) -> None:
        self._connections = connections
        self._base_url = (settings.base_url or CONTRACT.base_url).rstrip("/")
        self._key = settings.api_key

    def cost_credits(self, operation: Operation) -> Decimal:
        """Return one credit, whatever is asked."""
        return CONTRACT.credits[operation]

    def can_answer(self, operation: Operation, query: Query) -> str | None:
        """Return what is lacking to ask about this lead, or None."""
        if self._key is None:
            return "no_api_key"
        match operation:
            case Operation.FIND_EMAIL:
                if _linkedin_handle(query):
                    return None
                if not _has_name(query):
                    return "no_name"
                has_company = query.domain or query.company_name
                return None if has_company else query.domain_problem or "no_domain"
            case Operation.VERIFY_EMAIL:
                return None if query.address else query.email_problem or "no_email"
            case Operation.ENRICH_PERSON:
                has_way = query.address or _linkedin_handle(query)
                return None if has_way else query.email_problem or "no_email"
            case Operation.ENRICH_COMPANY:
                return None if query.domain else query.domain_problem or "no_domain"
            case Operation.FIND_SOCIAL_PROFILES:
                has_way = query.address or _linkedin_handle(query) or query.domain
                return None if has_way else query.domain_problem or "no_domain"

    def same_request(self, operation: Operation, lead: Query) -> Operation:
        """Return the operation whose record has the social profiles that are asked for."""
        if operation is not Operation.FIND_SOCIAL_PROFILES:
            return operation
        is_person = lead.address or _linkedin_handle(lead)
        return Operation.ENRICH_PERSON if is_person else Operation.ENRICH_COMPANY

    async def call(self, operation: Operation, query: Query) -> Found:
        """Ask once. Raises ProviderThrottled for an answer that only comes later."""
        answer = await self.begin(operation, query, callback_url=None)
        if isinstance(answer, Pending):
            raise ProviderThrottled(
                "hunter is still at work on it",
                provider=self.provider_id,
                retry_after_s=answer.poll_after_s,
            )
        return answer

    async def begin(
        self, operation: Operation, query: Query, *, callback_url: str | None
    ) -> Found | Pending:
        """Ask; nobody is called back, so `callback_url` is not used."""
        return await self._ask(operation, query, uuid4().hex)

    async def poll(self, operation: Operation, query: Query, request_id: str) -> Found | Pending:
        """Ask the same again; Hunter counts it once. `request_id` is ours and never sent."""
        return await self._ask(operation, query, request_id)

    def read_callback(self, operation: Operation, query: Query, body: Json) -> Found:
        """Raise ProviderGarbled: Hunter never calls back."""
        raise ProviderGarbled("hunter never calls back", provider=self.provider_id)

    async def credits_left(self) -> Decimal | None:
        """Ask for the account; what is called available there is what the plan has in all."""
        answer = await self._get("/account", {})
        judge(answer, CONTRACT)
        data = mapping(object_of(answer).get("data"))
        plan = mapping(mapping(data.get("requests")).get("credits"))
        has, used = credits(plan.get("available")), credits(plan.get("used"))
        return None if has is None or used is None else max(has - used, Decimal(0))

    async def _get(self, path: str, params: Mapping[str, str]) -> Answer:
        assert self._key is not None
        return await send(
            self._connections.http,
            "GET",
            self._base_url + path,
            provider=self.provider_id,
            params=params,
            headers={"X-API-KEY": self._key.get_secret_value(), "Accept": "application/json"},
        )

    async def _ask(self, operation: Operation, query: Query, request_id: str) -> Found | Pending:
        answer = await self._get(*_request(operation, query))
        ending = judge(answer, CONTRACT, ending=_reading(answer))
        if ending is Ending.PENDING:
            return Pending(request_id, POLL_AFTER_S, GIVE_UP_AFTER_S)
        if ending is Ending.NO_MATCH:
            return Found()
        if ending is Ending.VERIFY_FAILED and query.address and operation is Operation.VERIFY_EMAIL:
            failed = checked_email(
                query.address, Verdict.UNKNOWN, "verification_failed", checked_by=self.provider_id
            )
            return Found(verification=failed)
        return self._found(operation, query, answer)

    def _found(self, operation: Operation, query: Query, answer: Answer) -> Found:
        body = answer.json()
        data = body.get("data", body) if isinstance(body, dict) else None
        if data is None and isinstance(body, dict):
            return Found()
        if not isinstance(data, dict):
            raise garbled(answer, "no data")
        if operation is Operation.VERIFY_EMAIL:
            return _verified(query, data, answer)
        if operation is Operation.FIND_EMAIL:
            return _email(data)
        is_person = _request(operation, query)[0] == "/people/find"
        read = person_facts if is_person else company_facts
        facts = read(data, source=self.provider_id)
        if data and not facts:
            raise garbled(answer, "no field that is known")
        return Found(facts, cost_credits=Decimal(1) if facts else Decimal(0))


def _request(operation: Operation, query: Query) -> tuple[str, dict[str, str]]:
    """Return the path and the parameters of a question that `can_answer` let pass."""
    handle = _linkedin_handle(query)
    match operation:
        case Operation.VERIFY_EMAIL:
            assert query.address is not None
            return "/email-verifier", {"email": query.address.wire}
        case Operation.FIND_EMAIL:
            return "/email-finder", _finder_params(query, handle)
        case Operation.ENRICH_COMPANY:
            return "/companies/find", {"domain": query.domain or ""}
        case Operation.ENRICH_PERSON | Operation.FIND_SOCIAL_PROFILES:
            if query.address:
                return "/people/find", {"email": query.address.wire}
            if handle:
                return "/people/find", {"linkedin_handle": handle}
            return "/companies/find", {"domain": query.domain or ""}


def _finder_params(query: Query, handle: str | None) -> dict[str, str]:
    if not (_has_name(query) and (query.domain or query.company_name)):
        return {"linkedin_handle": handle or ""}
    if query.first_name and query.last_name:
        params = {"first_name": query.first_name, "last_name": query.last_name}
    else:
        params = {"full_name": query.full_name or ""}
    if query.domain:
        return {"domain": query.domain, **params}
    return {"company": query.company_name or "", **params}


def _has_name(query: Query) -> bool:
    return bool((query.first_name and query.last_name) or query.full_name)


def _linkedin_handle(query: Query) -> str | None:
    path = urlsplit(query.linkedin_url or "").path.strip("/")
    kind, _, handle = path.partition("/")
    return handle if kind == "in" and handle and "/" not in handle else None


def _reading(answer: Answer) -> Ending | None:
    """Return what a 404 means: nobody like that, unless it is no answer of Hunter's at all."""
    if answer.status != 404:
        return None
    try:
        body = answer.json()
    except ProviderGarbled:
        return Ending.INVALID
    is_hunter = isinstance(body, dict) and ("errors" in body or "data" in body)
    return Ending.NO_MATCH if is_hunter else Ending.INVALID


def _email(data: Mapping[str, Any]) -> Found:
    """Read an answer of the email finder; without an address it found nobody and costs nothing."""
    address = email(data.get("email"))
    parsed = parse_address(address) if address else None
    if not isinstance(parsed, Address):
        return Found()
    confidence = _score(data.get("score"))
    source_url, seen_on = _seen(data.get("sources"))
    checked = data.get("verification")
    checked = checked if isinstance(checked, dict) else {}
    status = clean_text(checked.get("status"), 20) or ""
    verdict, reason = _VERDICTS.get(status, (None, ""))
    item = {
        "address": str(parsed),
        "type": "work",
        "status": str(verdict) if verdict else None,
        "primary": True,
    }
    first, last, company, title = (
        clean_text(data.get(key), 200) for key in ("first_name", "last_name", "company", "position")
    )
    links = (
        profile_of("person", "linkedin", data.get("linkedin_url")),
        profile_of("person", "twitter", data.get("twitter")),
    )
    host = clean_text(data.get("domain"), 253)
    phone = clean_text(data.get("phone_number"), 40)
    values: dict[str, Json] = {
        "email": str(parsed),
        "emails": [item],
        "firstName": first,
        "lastName": last,
        "fullName": f"{first} {last}" if first and last else None,
        "title": title,
        "company.name": company,
        "company.domain": host if host and "." in host else None,
        "phones": [{"number": phone}] if phone and any(map(str.isdigit, phone)) else None,
        "socialProfiles": [one for one in links if one],
    }
    facts = [
        Fact("person", path, value, confidence, "hunter", source_url, seen_on)
        for path, value in values.items()
        if value
    ]
    checked_at = observed(checked.get("date"))
    verified = None
    if verdict and checked_at and now() - datetime.fromisoformat(checked_at) <= KEEP_CERTAIN:
        verified = checked_email(
            parsed,
            verdict,
            reason,
            checked_by="hunter",
            checks={"accept_all": data.get("accept_all")},
            checked_at=checked_at,
        )
    return Found(facts, verification=verified, cost_credits=Decimal(1))


def _verified(query: Query, data: Mapping[str, Any], answer: Answer) -> Found:
    """Read an answer of the email verifier."""
    assert query.address is not None
    about = data.get("email")
    parsed = parse_address(about) if isinstance(about, str) and about else None
    if isinstance(parsed, Address) and canonical_key(parsed) != canonical_key(query.address):
        raise garbled(answer, "a check of another address")
    status, result = data.get("status"), data.get("result")
    if not isinstance(status, str) or status not in _VERDICTS:
        status = _OLD_RESULTS.get(result) if isinstance(result, str) else None
    if status is None:
        raise garbled(answer, "a check without a result")
    verdict, reason = _VERDICTS[status]
    if status == "webmail" and data.get("smtp_check") is True:
        verdict, reason = Verdict.VALID, "provider_valid"
    return Found(
        verification=checked_email(
            query.address,
            verdict,
            reason,
            checked_by="hunter",
            checks=data,
            score=data.get("score"),
        ),
        cost_credits=Decimal(0) if status in _UNBILLED else Decimal(1),
    )


def _score(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return min(value, 100) / 100 if is_number and value >= 0 else CONFIDENCE_WITHOUT_SCORE


def _seen(sources: Any) -> tuple[str | None, str | None]:
    """Return where an address was found and when it was last there, of the newest source."""
    newest_url, newest_at = None, ""
    for source in sources[:20] if isinstance(sources, list) else ():
        if not isinstance(source, dict):
            continue
        url, seen_on = http_url(source.get("uri"), ""), observed(source.get("last_seen_on")) or ""
        if newest_url is None or seen_on > newest_at:
            newest_url, newest_at = url, seen_on
    return newest_url, newest_at or None
