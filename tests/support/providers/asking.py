"""An adapter that asks a fake provider, and leads to ask about.

async with fake_hunter() as hunter, adapter_of(hunter) as adapter:
    found = await adapter.call(Operation.FIND_EMAIL, lead(firstName="Ada", …))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import SecretStr

from enrichd.domain.facts import Entity, Fact
from enrichd.domain.leads import Lead, lead_from
from enrichd.domain.merging import Candidate, merge
from enrichd.domain.payloads import LeadInput
from enrichd.providers.base import REGISTERED
from enrichd.providers.client import Connections, common_limits
from enrichd.providers.dns import Resolver
from enrichd.providers.web import WebFetcher
from tests.support.providers.server import FakeProvider

ADA = {"firstName": "Ada", "lastName": "Quill", "domain": "northwind.example"}
ADA_EMAIL = "ada.quill@northwind.example"


@asynccontextmanager
async def adapter_of(
    fake: FakeProvider, *, key: str | None = "", base_url: str | None = None
) -> AsyncIterator[Any]:
    """Yield the fake's adapter, with the fake's key, another or (None) without one."""
    secret = fake.key if key == "" else key
    settings = common_limits(fake.name).model_copy(
        update={
            "base_url": base_url or fake.url,
            "api_key": SecretStr(secret) if secret is not None else None,
        }
    )
    connections = Connections(resolver=Resolver(()), fetcher=WebFetcher())
    try:
        yield REGISTERED[fake.name].factory(connections, settings)
    finally:
        await connections.aclose()


def lead(email: str | None = None, **data: str) -> Lead:
    """Return a lead of a payload's input, camelCase as there."""
    return lead_from(LeadInput.model_validate({"email": email, **data}), "lead-1")


def values_of(facts: Sequence[Fact], entity: Entity = "person") -> dict[str, Any]:
    """Return what facts say, by field."""
    return {fact.field: fact.value for fact in facts if fact.entity == entity}


def assert_storable(facts: Sequence[Fact]) -> None:
    """Hold that facts, and what is merged of them, are something that jsonb takes."""
    as_of = datetime(2026, 11, 1, tzinfo=UTC)
    for fact in facts:
        assert 0 <= fact.confidence <= 1
        assert fact.value not in (None, "", [])
    candidates = [Candidate(fact, "acme", "enrichPerson", as_of.isoformat()) for fact in facts]
    entities: tuple[Entity, ...] = ("person", "company")
    for entity in entities:
        record = merge(entity, candidates, as_of=as_of)
        text = orjson.dumps(record.to_json() if record else None)
        assert b"\\u0000" not in text
