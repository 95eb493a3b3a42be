"""Apollo v1: people by name and company, companies by domain, ten to a call.

Whatever is asked about a person, Apollo is asked for a match and answers with all it has, so one
answer holds it all. Its own waterfall of email vendors, each with a price of its own, is asked
only if `asks_vendors` says so and somebody listens; that answer is called back or polled for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final, TypeAlias

from enrichd.domain.facts import Json
from enrichd.errors import ProviderError, ProviderGarbled, ProviderRejected
from enrichd.providers.apollo_answers import (
    REQUEST_ID,
    cost_of,
    costs_of,
    in_places,
    read_company,
    read_person,
    read_vendors,
    request_id_of,
)
from enrichd.providers.base import Found, Operation, Pending, Query, provider
from enrichd.providers.client import Answer, Connections, send
from enrichd.providers.contracts import (
    Contract,
    Ending,
    Window,
    garbled,
    judge,
)
from enrichd.providers.json_parts import mapping, number, object_of, words
from enrichd.settings.providers import ProviderSettings

PERSON: Final = frozenset(
    {Operation.FIND_EMAIL, Operation.ENRICH_PERSON, Operation.FIND_SOCIAL_PROFILES}
)
OPERATIONS: Final = PERSON | {Operation.ENRICH_COMPANY}
PERSON_INPUTS: Final = (
    *("first_name", "last_name", "full_name", "address"),
    *("company_name", "domain", "linkedin_url"),
)
BULK_MAX: Final = 10
VENDORS_CREDITS_MAX: Final = Decimal(10)
"""Kept back for a call that asks Apollo's vendors; what they charge is only known afterwards."""
POLL_AFTER_S: Final = 30.0
POLL_AFTER_S_MAX: Final = 3_600.0
DEADLINE_S: Final = 6 * 3_600.0
ACCEPTED: Final = ("accepted", "partial_accepted")

Params: TypeAlias = Mapping[str, str | list[str]]

_CREDIT = re.compile(r"\bcredits?\b")

CONTRACT: Final = Contract(
    base_url="https://api.apollo.io/api/v1",
    statuses={
        400: Ending.INVALID,
        401: Ending.AUTH,
        402: Ending.QUOTA,
        403: Ending.AUTH,
        404: Ending.INVALID,
        410: Ending.INVALID,
        422: Ending.INVALID,
        429: Ending.RATE_LIMITED,
    },
    # Paid plans, each endpoint by itself. A bulk one counts with its single one: surely allowed.
    limits=dict.fromkeys((Operation.ENRICH_PERSON, Operation.ENRICH_COMPANY), (Window(60, 1_000),)),
    counted_as=dict.fromkeys(PERSON, Operation.ENRICH_PERSON),
    credits=dict.fromkeys(OPERATIONS, Decimal(1)),
    bulk=dict.fromkeys(OPERATIONS, BULK_MAX),
)


PRIORS: Final = {"person": 0.95, "company": 0.9}


@provider("apollo", priors=PRIORS, contract=CONTRACT)
class Apollo:
    """One Apollo key."""

    provider_id: ClassVar[str]
    operations: ClassVar[frozenset[Operation]] = OPERATIONS
    inputs: ClassVar[Mapping[Operation, Sequence[str]]] = {
        **dict.fromkeys(PERSON, PERSON_INPUTS),
        Operation.ENRICH_COMPANY: ("domain",),
    }
    """The parts of a lead that are sent."""
    asks_vendors: ClassVar[bool] = False
    """Whether to ask Apollo's waterfall for an email: dearer, and some vendors bill misses."""

    def __init__(self, connections: Connections, settings: ProviderSettings) -> None:
        self._connections = connections
        self._base_url = (settings.base_url or CONTRACT.base_url).rstrip("/")
        self._key = settings.api_key

    @property
    def one_record(self) -> frozenset[Operation]:
        """The operations answered with all there is of a person: after one the others add nothing.

        The vendors' answer is an email alone.
        """
        return PERSON - {Operation.FIND_EMAIL} if self.asks_vendors else PERSON

    def cost_credits(self, operation: Operation) -> Decimal:
        """Return a match's price, that of the vendors if they are asked."""
        is_dear = self.asks_vendors and operation is Operation.FIND_EMAIL
        return VENDORS_CREDITS_MAX if is_dear else CONTRACT.credits[operation]

    def can_answer(self, operation: Operation, query: Query) -> str | None:
        """Return what is lacking to find this person or company, or None."""
        if self._key is None:
            return "no_api_key"
        if operation is Operation.ENRICH_COMPANY:
            return None if query.domain else query.domain_problem or "no_domain"
        if query.address or query.linkedin_url:
            return None
        if not (query.full_name or (query.first_name and query.last_name)):
            return "no_name"
        return None if query.domain or query.company_name else query.domain_problem or "no_domain"

    async def call(self, operation: Operation, query: Query) -> Found:
        """Ask about one person or company."""
        if operation is Operation.ENRICH_COMPANY:
            answer = await self._send(
                "GET", "/organizations/enrich", {"domain": query.domain or ""}
            )
            body = object_of(answer)
            organization = body.get("organization")
            cost = cost_of(body, is_found=bool(organization))
            return _raised(read_company(organization, answer, cost=cost))
        answer = await self._send("POST", "/people/match", _details(query))
        return _person_in(object_of(answer), answer, query)

    async def call_many(
        self, operation: Operation, queries: Sequence[Query]
    ) -> Sequence[Found | ProviderError]:
        """Ask about up to ten."""
        assert 0 < len(queries) <= BULK_MAX
        if operation is Operation.ENRICH_COMPANY:
            return await self._companies(queries)
        details = [_details(query) for query in queries]
        answer = await self._send("POST", "/people/bulk_match", {}, details=details)
        body = object_of(answer)
        matches = body.get("matches")
        if not isinstance(matches, list) or len(matches) != len(queries):
            # Nothing in a match says whose it is: one too few, and each could be another's.
            raise garbled(answer, "no match for each question")
        return [
            read_person(match, answer, query, cost=cost)
            for query, match, cost in zip(queries, matches, costs_of(body, matches), strict=True)
        ]

    async def begin(
        self, operation: Operation, query: Query, *, callback_url: str | None
    ) -> Found | Pending:
        """Ask about one person or company, for an email the vendors too where that is wanted."""
        is_wanted = self.asks_vendors and operation is Operation.FIND_EMAIL
        if not is_wanted or callback_url is None:
            return await self.call(operation, query)
        asked = {
            **_details(query),
            "run_waterfall_email": "true",
            "webhook_url": callback_url,
        }
        answer = await self._send("POST", "/people/match", asked)
        body = object_of(answer)
        if words(mapping(body.get("waterfall")).get("status")) in ACCEPTED:
            return Pending(request_id_of(body), POLL_AFTER_S, DEADLINE_S)
        return _person_in(body, answer, query)

    async def poll(self, operation: Operation, query: Query, request_id: str) -> Found | Pending:
        """Ask whether the vendors have answered; Apollo keeps that for 30 days."""
        if REQUEST_ID.fullmatch(request_id) is None:
            raise ProviderRejected(f"{request_id!r} is no request of apollo's", provider="apollo")
        answer = await self._put("GET", f"/webhook_result/{request_id}", {})
        wait_s = _pending_s(answer)
        if wait_s is not None:
            return Pending(request_id, wait_s, DEADLINE_S)
        _judge(answer, ())
        return read_vendors(answer.json(), query)

    def read_callback(self, operation: Operation, query: Query, body: Json) -> Found:
        """Return what the vendors found; nothing of it is signed."""
        return read_vendors(body, query)

    async def _companies(self, queries: Sequence[Query]) -> list[Found | ProviderError]:
        domains = list(dict.fromkeys(query.domain or "" for query in queries))
        answer = await self._send("POST", "/organizations/bulk_enrich", {"domains[]": domains})
        body = object_of(answer)
        listed = body.get("organizations")
        if not isinstance(listed, list):
            raise garbled(answer, "no organizations")
        organizations = in_places(domains, listed)
        by_domain = dict(zip(domains, organizations, strict=True))
        # A company that was asked for twice is paid once: the first question has the cost.
        costs = dict(zip(domains, costs_of(body, organizations), strict=True))
        return [
            read_company(by_domain[domain], answer, cost=costs.pop(domain, Decimal(0)))
            for domain in (query.domain or "" for query in queries)
        ]

    async def _send(self, method: str, path: str, asked: Params, **body: Json) -> Answer:
        answer = await self._put(method, path, asked, **body)
        _judge(answer, [value for value in asked.values() if isinstance(value, str)])
        return answer

    async def _put(self, method: str, path: str, asked: Params, **body: Json) -> Answer:
        assert self._key is not None
        return await send(
            self._connections.http,
            method,
            self._base_url + path,
            provider="apollo",
            params=asked,
            headers={"X-Api-Key": self._key.get_secret_value(), "Accept": "application/json"},
            **({"json": body} if body else {}),
        )


def _details(query: Query) -> dict[str, str]:
    """Return all that is known of a person, in Apollo's words."""
    has_both = query.first_name and query.last_name
    known = {
        "first_name": query.first_name if has_both else None,
        "last_name": query.last_name if has_both else None,
        "name": None if has_both else query.full_name,
        "email": str(query.address) if query.address else None,
        "organization_name": query.company_name,
        "domain": query.domain,
        "linkedin_url": query.linkedin_url,
    }
    return {name: value for name, value in known.items() if value}


def _judge(answer: Answer, asked: Sequence[str]) -> None:
    """Raise what an answer's status means; without credits it is 422 or 403, like much else."""
    ending = None
    if answer.status in (403, 422):
        said = answer.body[:4_096].decode("utf-8", "replace").casefold()
        for value in asked:
            # `Credit Suisse is no domain` is about the question, not about our account.
            said = said.replace(value.casefold(), " ")
        ending = Ending.QUOTA if _CREDIT.search(said) else None
    judge(answer, CONTRACT, ending=ending)


def _pending_s(answer: Answer) -> float | None:
    """Return when to ask again for an answer that is still to come, None if it is not."""
    if answer.status != 404:
        return None
    try:
        body = mapping(answer.json())
    except ProviderGarbled:
        return None
    if body.get("error_code") != "result_pending":
        return None
    wait_s = number(body.get("retry_after_seconds")) or POLL_AFTER_S
    return min(max(float(wait_s), 1.0), POLL_AFTER_S_MAX)


def _person_in(body: Mapping[str, Any], answer: Answer, query: Query) -> Found:
    person = body.get("person")
    cost, request_id = cost_of(body, is_found=bool(person)), request_id_of(body)
    return _raised(read_person(person, answer, query, cost=cost, request_id=request_id))


def _raised(answer: Found | ProviderGarbled) -> Found:
    if isinstance(answer, ProviderGarbled):
        raise answer
    return answer
