"""Clearbit, for those who still have a key: people and companies, found at once or a bit later.

What is not at hand is looked up meanwhile, 202: the same question asked again has it, and so has
the webhook, whose body is signed with the key. People and companies have hosts of their own; one
base URL in the settings stands for both.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final
from uuid import uuid4

import httpx

from enrichd.domain.facts import Json
from enrichd.errors import ProviderGarbled, ProviderThrottled
from enrichd.providers.base import Found, Operation, Pending, Query, provider
from enrichd.providers.clearbit_shape import company_facts, person_facts
from enrichd.providers.client import RETRY_AFTER_S_MAX, Answer, Connections, send
from enrichd.providers.contracts import (
    Contract,
    Ending,
    Standing,
    Window,
    WindowSeen,
    garbled,
    judge,
)
from enrichd.settings.providers import ProviderSettings

PERSON_HOST: Final = "https://person.clearbit.com"
COMPANY_HOST: Final = "https://company.clearbit.com"
PERSON_PATH: Final = "/v2/people/find"
COMPANY_PATH: Final = "/v2/companies/find"
API_VERSION: Final = "2019-12-19"
POLL_AFTER_S: Final = 10.0
GIVE_UP_AFTER_S: Final = 3_600.0
WINDOW_S: Final = 60
ONE: Final = Decimal(1)

CONTRACT: Final = Contract(
    base_url=PERSON_HOST,
    statuses={
        202: Ending.PENDING,
        401: Ending.AUTH,
        402: Ending.QUOTA,
        403: Ending.AUTH,
        429: Ending.RATE_LIMITED,
    },
    # Each API by itself; social profiles are in the record of one of them (`same_request`).
    limits=dict.fromkeys(
        (Operation.ENRICH_PERSON, Operation.ENRICH_COMPANY), (Window(WINDOW_S, 600),)
    ),
    # An answer that nobody is known is billed like any other.
    credits=dict.fromkeys(
        (Operation.ENRICH_PERSON, Operation.ENRICH_COMPANY, Operation.FIND_SOCIAL_PROFILES), ONE
    ),
)
PRIORS: Final = {"person": 0.8, "company": 0.85}
"""Good data that nobody has looked after since 2023."""


@provider("clearbit", priors=PRIORS, contract=CONTRACT)
class Clearbit:
    """Clearbit with one key."""

    provider_id: ClassVar[str]
    operations: ClassVar[frozenset[Operation]] = frozenset(CONTRACT.credits)

    def __init__(self, connections: Connections, settings: ProviderSettings) -> None:
        base_url = (settings.base_url or "").rstrip("/").removesuffix("/v2")
        self._connections = connections
        self._person_url = (base_url or PERSON_HOST) + PERSON_PATH
        self._company_url = (base_url or COMPANY_HOST) + COMPANY_PATH
        self._key = settings.api_key

    def cost_credits(self, operation: Operation) -> Decimal:
        """Return one credit, whatever is asked."""
        return CONTRACT.credits.get(operation, Decimal(0))

    def can_answer(self, operation: Operation, query: Query) -> str | None:
        """Return what is lacking to ask about this lead, or None."""
        if self._key is None:
            return "no_api_key"
        if operation not in self.operations:
            return "not_offered"
        if operation is Operation.ENRICH_COMPANY:
            return None if query.domain else query.domain_problem or "no_domain"
        if operation is Operation.ENRICH_PERSON:
            return None if query.address else query.email_problem or "no_email"
        return None if query.address or query.domain else query.domain_problem or "no_domain"

    def same_request(self, operation: Operation, lead: Query) -> Operation:
        """Return the operation whose record has the social profiles that are asked for."""
        if operation is not Operation.FIND_SOCIAL_PROFILES:
            return operation
        is_person = _is_about_person(operation, lead)
        return Operation.ENRICH_PERSON if is_person else Operation.ENRICH_COMPANY

    async def call(self, operation: Operation, query: Query) -> Found:
        """Ask once. Raises ProviderThrottled for an answer that only comes later."""
        answer = await self.begin(operation, query, callback_url=None)
        if isinstance(answer, Pending):
            raise ProviderThrottled(
                "clearbit is still looking it up",
                provider=self.provider_id,
                retry_after_s=answer.poll_after_s,
            )
        return answer

    async def begin(
        self, operation: Operation, query: Query, *, callback_url: str | None
    ) -> Found | Pending:
        """Ask; if the answer comes later, it comes to `callback_url` too."""
        request_id = uuid4().hex
        callback = {"webhook_url": callback_url, "webhook_id": request_id} if callback_url else {}
        return await self._ask(operation, query, request_id, callback)

    async def poll(self, operation: Operation, query: Query, request_id: str) -> Found | Pending:
        """Ask the same again; Clearbit counts it once."""
        return await self._ask(operation, query, request_id, {})

    def read_callback(self, operation: Operation, query: Query, body: Json) -> Found:
        """Return what a webhook said. Raises ProviderGarbled if it is no webhook of Clearbit's."""
        wanted = "person" if _is_about_person(operation, query) else "company"
        kind = body.get("type") if isinstance(body, dict) else None
        if kind not in (wanted, "person_company"):
            raise ProviderGarbled(
                f"clearbit called back about something else than a {wanted}",
                provider=self.provider_id,
            )
        record, request_id = body.get("body"), body.get("id")
        request_id = request_id[:100] if isinstance(request_id, str) else None
        if kind == "person_company" and isinstance(record, dict):
            record = record.get(wanted)
        status = body.get("status")
        if status == 404 or (status == 200 and record is None):
            return Found(cost_credits=ONE, request_id=request_id)
        if status != 200 or not isinstance(record, dict):
            raise ProviderGarbled(
                f"clearbit called back without a {wanted}", provider=self.provider_id
            )
        return self._facts(operation, query, record, request_id=request_id)

    async def _ask(
        self, operation: Operation, query: Query, request_id: str, callback: Mapping[str, str]
    ) -> Found | Pending:
        assert self._key is not None
        is_person = _is_about_person(operation, query)
        params = _person_params(query) if is_person else {"domain": query.domain or ""}
        answer = await send(
            self._connections.http,
            "GET",
            self._person_url if is_person else self._company_url,
            provider=self.provider_id,
            params={**params, **callback},
            headers={
                "Authorization": f"Bearer {self._key.get_secret_value()}",
                "API-Version": API_VERSION,
                "Accept": "application/json",
            },
        )
        stands = standing(answer.headers)
        wait_s = None
        if stands is not None and "retry-after" not in answer.headers:
            wait_s = stands.windows[0].reset_after_s
        ending = judge(answer, CONTRACT, ending=_reading(answer), wait_s=wait_s)
        if ending is Ending.PENDING:
            return Pending(request_id, POLL_AFTER_S, GIVE_UP_AFTER_S)
        if ending is Ending.NO_MATCH:
            return Found(cost_credits=ONE, standing=stands)
        record = answer.json()
        if not isinstance(record, dict):
            raise garbled(answer, "no record")
        found = self._facts(operation, query, record, standing=stands)
        if not found.facts:
            raise garbled(answer, "no field that is known")
        return found

    def _facts(
        self,
        operation: Operation,
        query: Query,
        record: Mapping[str, Any],
        *,
        request_id: str | None = None,
        standing: Standing | None = None,
    ) -> Found:
        read = person_facts if _is_about_person(operation, query) else company_facts
        facts = read(record, source=self.provider_id)
        return Found(facts, cost_credits=ONE, request_id=request_id, standing=standing)


def verify_clearbit_signature(body: bytes, header: str, key: str) -> bool:
    """Return whether an `X-Request-Signature` is that of a body, made with the API key.

    The prefix of the key, `sk_` or `pk_`, is no part of the secret. Takes the same time whatever
    is wrong with it.
    """
    secret = key[3:] if key.startswith(("sk_", "pk_")) else key
    right = "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()
    return hmac.compare_digest(right.encode(), header.strip().encode("utf-8", "replace"))


def standing(headers: httpx.Headers) -> Standing | None:
    """Return what the rate headers say, None without them; the reset is by the answer's clock."""
    calls, left, reset = (
        _number(headers.get(f"x-ratelimit-{name}")) for name in ("limit", "remaining", "reset")
    )
    if calls is None and left is None and reset is None:
        return None
    reset_after_s = None
    if reset is not None:
        wait_s = reset - _answered_at(headers)
        reset_after_s = min(max(wait_s, 1.0), RETRY_AFTER_S_MAX)
    return Standing((WindowSeen(WINDOW_S, calls, left, reset_after_s),))


def _is_about_person(operation: Operation, query: Query) -> bool:
    if operation is Operation.FIND_SOCIAL_PROFILES:
        return query.address is not None
    return operation is Operation.ENRICH_PERSON


def _person_params(query: Query) -> dict[str, str]:
    """Return the address and what helps to tell its owner from others."""
    known = {
        "email": query.address.wire if query.address else None,
        "given_name": query.first_name,
        "family_name": query.last_name,
        "company": query.company_name,
        "company_domain": query.domain,
    }
    return {name: text for name, text in known.items() if text}


def _reading(answer: Answer) -> Ending | None:
    """Return what the type of an error adds to the status."""
    if answer.status not in (200, 404):
        return None
    try:
        body = answer.json()
    except ProviderGarbled:
        return Ending.INVALID if answer.status == 404 else None
    error = body.get("error") if isinstance(body, dict) else None
    kind = error.get("type") if isinstance(error, dict) else None
    if answer.status == 404:
        # An unknown route is our mistake and says nothing of anybody.
        is_record = isinstance(error, dict) and kind != "unknown_route"
        return Ending.NO_MATCH if is_record else Ending.INVALID
    return Ending.PENDING if kind == "queued" else None


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def _answered_at(headers: httpx.Headers) -> float:
    """Return the epoch of the answer's `Date`, so that a wrong clock here does no harm."""
    try:
        date = parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, IndexError):
        return _now().timestamp()
    seconds = date.timestamp() if date.tzinfo else date.replace(tzinfo=UTC).timestamp()
    return seconds if math.isfinite(seconds) else _now().timestamp()


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - an epoch to compare with, not when a job is due
