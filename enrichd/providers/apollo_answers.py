"""Apollo's bodies and headers, read into answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from enrichd.domain.facts import Json
from enrichd.domain.leads import Lead
from enrichd.errors import ProviderGarbled
from enrichd.providers import apollo_shape as shape
from enrichd.providers.base import Found
from enrichd.providers.client import Answer
from enrichd.providers.contracts import Standing, WindowSeen, garbled
from enrichd.providers.json_parts import credits, mapping, mappings, shared_out

WINDOWS: Final = (("minute", 60), ("hourly", 3_600), ("24-hour", 86_400))

REQUEST_ID: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)


def read_person(
    person: Json, answer: Answer, query: Lead, *, cost: Decimal, request_id: str | None = None
) -> Found | ProviderGarbled:
    """Return a match as an answer; null is nobody, whatever `status` says beside it."""
    if person is not None and not isinstance(person, dict):
        return garbled(answer, "a person that is none")
    gap = shape.email_gap(person) if person else None
    return Found(
        facts=tuple(shape.person_facts(person, query)) if person else (),
        missing=(gap,) if gap else (),
        verification=shape.verdict_of(person, query) if person else None,
        cost_credits=cost,
        request_id=request_id,
        standing=standing_of(answer),
    )


def read_company(organization: Json, answer: Answer, *, cost: Decimal) -> Found | ProviderGarbled:
    """Return an organization as an answer; null or nothing in it is nobody."""
    if organization is not None and not isinstance(organization, dict):
        return garbled(answer, "an organization that is none")
    facts = tuple(shape.company_facts(organization)) if organization else ()
    return Found(facts=facts, cost_credits=cost, standing=standing_of(answer))


def read_vendors(body: Json, query: Lead) -> Found:
    """Return what was called back or polled. Raises ProviderGarbled if it is no such answer."""
    told = mapping(body)
    people = told.get("people")
    if not isinstance(people, list):
        raise ProviderGarbled("apollo called back without people", provider="apollo")
    person = next((shape.with_best_email(one) for one in mappings(people)), {})
    gap = shape.email_gap(person)
    return Found(
        facts=tuple(shape.person_facts(person, query)),
        missing=(gap,) if gap else (),
        verification=shape.verdict_of(person, query),
        cost_credits=cost_of(told, is_found=gap is None),
        request_id=request_id_of(told),
    )


def in_places(domains: Sequence[str], listed: Sequence[Json]) -> list[Json]:
    """Return an organization for each domain, None for those that are not listed.

    Its own domain says whose it is; one that goes by another name than was asked for is known by
    its place, if there is one for each.
    """
    named: dict[str, Json] = {}
    for organization in listed:
        own = shape.domain_of(mapping(organization))
        if own is not None:
            named.setdefault(own, organization)
    has_places = len(listed) == len(domains)
    found = []
    for place, domain in enumerate(domains):
        there = listed[place] if has_places else None
        is_anothers = shape.domain_of(mapping(there)) in domains
        found.append(named.get(domain, None if is_anothers else there))
    return found


def cost_of(body: Mapping[str, Any], *, is_found: bool) -> Decimal:
    """Return what a call cost, one credit for a match where Apollo does not say."""
    said = credits(body.get("credits_consumed"))
    return said if said is not None else Decimal(1 if is_found else 0)


def costs_of(body: Mapping[str, Any], matches: Sequence[Json]) -> list[Decimal]:
    """Return what each question of a bulk call cost."""
    said = credits(body.get("credits_consumed"))
    found = [bool(match) for match in matches]
    return shared_out(Decimal(sum(found)) if said is None else said, found)


def request_id_of(body: Mapping[str, Any]) -> str | None:
    """Return the id as text: it is beyond what a float can hold, and often negative."""
    told = body.get("request_id")
    if isinstance(told, int) and not isinstance(told, bool):
        told = str(told)
    return told if isinstance(told, str) and REQUEST_ID.fullmatch(told) else None


def standing_of(answer: Answer) -> Standing:
    """Return what the headers say; an empty one is a window without a limit."""
    seen = []
    for name, seconds in WINDOWS:
        calls = _count(answer.headers.get(f"x-rate-limit-{name}"))
        left = _count(answer.headers.get(f"x-{name}-requests-left"))
        if calls is not None or left is not None:
            seen.append(WindowSeen(seconds, calls, left))
    return Standing(tuple(seen))


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None
