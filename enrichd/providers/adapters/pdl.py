"""People Data Labs v5: people by nearly anything, companies by domain or name, a hundred to a call.

A match costs a credit whatever is in it, and no match is free: so a question that only an email or
a profile would answer says so (`required`), and a match too unlikely to be believed is not asked
for (`min_likelihood`). Questions go as bodies: a name does not belong into a proxy's log of URLs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final

import orjson

from enrichd.domain.facts import Json
from enrichd.errors import ProviderError, ProviderGarbled, ProviderRejected, ProviderThrottled
from enrichd.providers import pdl_shape as shape
from enrichd.providers.base import Found, Operation, Query, provider
from enrichd.providers.client import Answer, Connections, send
from enrichd.providers.contracts import Contract, Ending, Window, garbled, judge
from enrichd.providers.json_parts import credits, mapping, object_of, shared_out
from enrichd.providers.pdl_headers import reset_after_s, standing_of
from enrichd.settings.providers import ProviderSettings

PERSON: Final = frozenset(
    {Operation.FIND_EMAIL, Operation.ENRICH_PERSON, Operation.FIND_SOCIAL_PROFILES}
)
OPERATIONS: Final = PERSON | {Operation.ENRICH_COMPANY}
PERSON_INPUTS: Final = (
    *("first_name", "last_name", "full_name", "address"),
    *("company_name", "domain", "linkedin_url", "phone", "location"),
)
BULK_MAX: Final = 100
ONE_BY_ONE_S: Final = 30.0
"""How long a bulk call may take that is made of single ones; the rest comes later."""
MIN_LIKELIHOOD: Final = 6
"""Below it a fact would count as a guess, and cost as much."""
REQUIRED: Final[Mapping[Operation, str]] = {
    Operation.FIND_EMAIL: "work_email",
    Operation.FIND_SOCIAL_PROFILES: "profiles",
}
"""A match without it is none, and free."""

CONTRACT: Final = Contract(
    base_url="https://api.peopledatalabs.com/v5",
    statuses={
        400: Ending.INVALID,
        401: Ending.AUTH,
        402: Ending.QUOTA,
        403: Ending.AUTH,
        404: Ending.NO_MATCH,
        405: Ending.INVALID,
        429: Ending.RATE_LIMITED,
    },
    # Paid plans, each endpoint by itself. A bulk one counts with its single one: surely allowed.
    limits=dict.fromkeys((Operation.ENRICH_PERSON, Operation.ENRICH_COMPANY), (Window(60, 1_000),)),
    counted_as=dict.fromkeys(PERSON, Operation.ENRICH_PERSON),
    credits=dict.fromkeys(OPERATIONS, Decimal(1)),
    bulk=dict.fromkeys(OPERATIONS, BULK_MAX),
)


PRIORS: Final = {"person": 0.9, "person.email": 0.85, "company": 0.9}
"""Its addresses are not checked."""


@provider("pdl", priors=PRIORS, contract=CONTRACT)
class PeopleDataLabs:
    """One key of People Data Labs."""

    provider_id: ClassVar[str]
    operations: ClassVar[frozenset[Operation]] = OPERATIONS
    one_record: ClassVar[frozenset[Operation]] = PERSON
    """What is answered with all there is of a person: after a match the others add nothing."""
    inputs: ClassVar[Mapping[Operation, Sequence[str]]] = {
        **dict.fromkeys(PERSON, PERSON_INPUTS),
        Operation.ENRICH_COMPANY: ("company",),
    }
    """The parts of a lead that are sent."""

    def __init__(self, connections: Connections, settings: ProviderSettings) -> None:
        self._connections = connections
        self._base_url = (settings.base_url or CONTRACT.base_url).rstrip("/")
        self._key = settings.api_key

    def cost_credits(self, operation: Operation) -> Decimal:
        """Return the price of a match."""
        return CONTRACT.credits[operation]

    def can_answer(self, operation: Operation, query: Query) -> str | None:
        """Return what is lacking to find this person or company, or None."""
        if self._key is None:
            return "no_api_key"
        if operation is Operation.ENRICH_COMPANY:
            is_known = query.domain or query.company_name
            return None if is_known else query.domain_problem or "no_domain"
        if query.address or query.linkedin_url or query.phone:
            return None
        if not (query.full_name or (query.first_name and query.last_name)):
            return "no_name"
        is_placed = query.domain or query.company_name or query.location
        return None if is_placed else query.domain_problem or "no_domain"

    async def call(self, operation: Operation, query: Query) -> Found:
        """Ask about one person or company."""
        path = "/company/enrich" if operation is Operation.ENRICH_COMPANY else "/person/enrich"
        answer = await self._send(path, _params(operation, query))
        if _judge(answer) is Ending.NO_MATCH:
            return Found(standing=standing_of(answer))
        read = _read(operation, object_of(answer), answer, query)
        if isinstance(read, ProviderGarbled):
            raise read
        spent = credits(answer.headers.get("x-call-credits-spent"))
        cost = Decimal(1 if read.facts else 0) if spent is None else spent
        return _with_cost(read, cost)

    async def call_many(
        self, operation: Operation, queries: Sequence[Query]
    ) -> Sequence[Found | ProviderError]:
        """Ask about up to a hundred."""
        assert 0 < len(queries) <= BULK_MAX
        is_company = operation is Operation.ENRICH_COMPANY
        path = "/company/enrich/bulk" if is_company else "/person/bulk"
        requests = [
            {"params": _params(operation, query), "metadata": {"row": row}}
            for row, query in enumerate(queries)
        ]
        answer = await self._send(path, {"requests": requests})
        if is_company and answer.status in (404, 405):
            # Not every plan has this path, and its documents are not clear about it.
            return await self._one_by_one(operation, queries)
        if _judge(answer) is Ending.NO_MATCH:
            raise ProviderRejected("pdl has no bulk path here", provider="pdl")
        body = answer.json()
        if not isinstance(body, list):
            raise garbled(answer, "no list")
        items = _in_rows(body, len(queries))
        answers = [
            _read_item(operation, item, answer, query)
            for item, query in zip(items, queries, strict=True)
        ]
        found = [isinstance(one, Found) and bool(one.facts) for one in answers]
        spent = credits(answer.headers.get("x-call-credits-spent"))
        costs = shared_out(Decimal(sum(found)) if spent is None else spent, found)
        return [
            _with_cost(one, cost) if isinstance(one, Found) else one
            for one, cost in zip(answers, costs, strict=True)
        ]

    async def _one_by_one(
        self, operation: Operation, queries: Sequence[Query]
    ) -> list[Found | ProviderError]:
        """Ask one after the other; at the first sign that all will fail, fail the rest alike."""
        answers: list[Found | ProviderError] = []
        ends_at = time.monotonic() + ONE_BY_ONE_S
        for query in queries:
            try:
                if time.monotonic() > ends_at:
                    raise ProviderThrottled(
                        "pdl takes companies one by one", provider="pdl", retry_after_s=1.0
                    )
                answers.append(await self.call(operation, query))
            except (ProviderRejected, ProviderGarbled) as error:
                answers.append(error)
            except ProviderError as error:
                rest = len(queries) - len(answers)
                return answers + [error] * rest
        return answers

    async def _send(self, path: str, asked: Mapping[str, Json]) -> Answer:
        assert self._key is not None
        return await send(
            self._connections.http,
            "POST",
            self._base_url + path,
            provider="pdl",
            json=asked,
            headers={"X-Api-Key": self._key.get_secret_value(), "Accept": "application/json"},
        )


def _params(operation: Operation, query: Query) -> dict[str, Json]:
    """Return a question in PDL's words."""
    if operation is Operation.ENRICH_COMPANY:
        subject = {"website": query.domain, "name": None if query.domain else query.company_name}
    else:
        has_both = query.first_name and query.last_name
        subject = {
            "first_name": query.first_name if has_both else None,
            "last_name": query.last_name if has_both else None,
            "name": None if has_both else query.full_name,
            "email": str(query.address) if query.address else None,
            "phone": query.phone,
            "profile": query.linkedin_url,
            "company": query.domain or query.company_name,
            "location": query.location,
            "required": REQUIRED.get(operation),
        }
    known = {name: value for name, value in subject.items() if value}
    return {**known, "min_likelihood": MIN_LIKELIHOOD, "titlecase": True}


def _judge(answer: Answer) -> Ending:
    return judge(answer, CONTRACT, wait_s=reset_after_s(answer.headers))


def _read(
    operation: Operation, body: Mapping[str, Any], answer: Answer, query: Query
) -> Found | ProviderGarbled:
    """Return a match as an answer that costs nothing yet; a person is under `data`."""
    confidence = shape.confidence_of(body)
    if operation is Operation.ENRICH_COMPANY:
        facts = shape.company_facts(body, confidence)
        return Found(facts=tuple(facts), standing=standing_of(answer))
    data = body.get("data")
    if not isinstance(data, dict):
        return garbled(answer, "no person")
    gap = shape.email_gap(data)
    return Found(
        facts=tuple(shape.person_facts(data, confidence, query)),
        missing=(gap,) if gap else (),
        standing=standing_of(answer),
    )


def _read_item(
    operation: Operation, item: Json, answer: Answer, query: Query
) -> Found | ProviderError:
    """Return one question's part of a bulk answer; each has a status of its own."""
    body = mapping(item)
    status = body.get("status")
    if not isinstance(status, int) or isinstance(status, bool) or not 100 <= status <= 599:
        return garbled(answer, "no answer to one of the questions")
    part = Answer(answer.provider, status, answer.headers, orjson.dumps(body.get("error")))
    try:
        if _judge(part) is Ending.NO_MATCH:
            return Found(standing=standing_of(answer))
    except ProviderError as error:
        return error
    return _read(operation, body, answer, query)


def _in_rows(items: Sequence[Json], rows: int) -> list[Json]:
    """Return the item of each row: by the number that was sent along, else by its place."""
    numbered: dict[int, Json] = {}
    for item in items:
        row = mapping(mapping(item).get("metadata")).get("row")
        if isinstance(row, int) and not isinstance(row, bool):
            numbered.setdefault(row, item)
    if numbered or len(items) != rows:
        return [numbered.get(row) for row in range(rows)]
    return list(items)


def _with_cost(found: Found, cost: Decimal) -> Found:
    return Found(
        facts=found.facts,
        missing=found.missing,
        cost_credits=cost,
        standing=found.standing,
    )
