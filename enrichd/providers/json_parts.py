"""Somebody else's JSON, read part by part: whatever is not of the expected kind is not there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_DOWN, Decimal, InvalidOperation
from typing import Any

from enrichd.domain import fields
from enrichd.domain.facts import Entity, Fact, Json
from enrichd.domain.web_links import host_of, registrable_domain
from enrichd.providers.client import Answer
from enrichd.providers.contracts import garbled

ITEMS_MAX = 200
CREDITS_MAX = Decimal(1_000_000)


def object_of(answer: Answer) -> Mapping[str, Any]:
    """Return an answer's JSON object. Raises ProviderGarbled if it is none."""
    body = answer.json()
    if not isinstance(body, dict):
        raise garbled(answer, "no object")
    return body


def mapping(value: Json) -> Mapping[str, Any]:
    """Return an object, an empty one in the place of anything else."""
    return value if isinstance(value, dict) else {}


def mappings(value: Json) -> list[Mapping[str, Any]]:
    """Return the objects of a list, the first ITEMS_MAX."""
    items = value[:ITEMS_MAX] if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]


def words(value: Json) -> str | None:
    """Return text that says something, on one line; plans that hide a value say true instead."""
    return fields.text(value)


def number(value: Json) -> float | int | None:
    """Return a finite number; no flag, no text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def credits(value: Json) -> Decimal | None:
    """Return an amount of credits, a number or its text; None if it is none, or absurd."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        amount = Decimal(str(value)[:40].strip())
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 <= amount <= CREDITS_MAX else None


def shared_out(total: Decimal, is_found: Sequence[bool]) -> list[Decimal]:
    """Share what a bulk call cost among the questions that were answered, to the last part.

    If none was, among all of them: some charge for looking.
    """
    payers = [place for place, found in enumerate(is_found) if found] or list(range(len(is_found)))
    costs = [Decimal(0)] * len(is_found)
    share = (total / len(payers)).quantize(Decimal("0.001"), ROUND_DOWN)
    for place in payers:
        costs[place] = share
    costs[payers[0]] += total - share * len(payers)
    return costs


def first_words(value: Json) -> str | None:
    """Return the first text of a list."""
    return words(value[0]) if isinstance(value, list) and value else None


def all_words(value: Json) -> list[str]:
    """Return the texts of a list, the first ITEMS_MAX."""
    items = value[:ITEMS_MAX] if isinstance(value, list) else []
    return [line for item in items if (line := words(item))]


def web_address(value: Json) -> str | None:
    """Return a web address with its scheme, which some leave out."""
    line = words(value)
    if line is None or host_of(line) is None:
        return None
    return line if "://" in line else f"https://{line}"


def domain(value: Json) -> str | None:
    """Return the bare host of a domain or a web address."""
    line = words(value)
    host = host_of(line) if line else None
    return host.removeprefix("www.") if host else None


def is_same_company(one: str | None, other: str | None) -> bool:
    """Return whether two hosts belong to one registered domain."""
    return bool(one and other) and registrable_domain(one or "") == registrable_domain(other or "")


def facts_of(
    entity: Entity, said: Iterable[tuple[str, Json]], confidence: float, source: str
) -> list[Fact]:
    """Return a fact for each (path, value) that has a value."""
    return [
        Fact(entity, path, value, confidence, source)
        for path, value in said
        if value is not None and value != [] and value != {}
    ]


def without_gaps(item: Mapping[str, Json]) -> dict[str, Json]:
    """Return an object without the parts that are not there."""
    return {name: part for name, part in item.items() if part is not None}
