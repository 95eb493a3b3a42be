"""From a row of a lead list to the job that enriches it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from enrichd.ctl.sheet_reading import SheetRow
from enrichd.domain.jobs import NewJob


@dataclass(frozen=True, slots=True)
class Wish:
    """What to find out for every row."""

    types: tuple[str, ...]
    provider_id: str
    fallback_providers: tuple[str, ...]
    workspace_id: str
    tag: str
    salt: str = ""
    """Makes the keys of this run its own, so that nothing done before is used."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else goes into every payload: `fillMode`, `inferEmail`, `maxCredits`, `stopRule`."""

    @property
    def order(self) -> tuple[str, ...]:
        """Return the sources to ask, the first one first."""
        return (self.provider_id, *self.fallback_providers)

    @property
    def lanes(self) -> frozenset[str]:
        """Return the lanes that its jobs may be in: with a key of its own a workspace has one."""
        return frozenset(
            lane for name in self.order for lane in (name, f"{name}#{self.workspace_id}")
        )


def job_of(row: SheetRow, wish: Wish) -> NewJob:
    """Return the job that enriches a row."""
    key = key_of(row.lead, wish)
    payload: dict[str, Any] = {
        "leadId": row.lead.get("id") or key[:16],
        "providerId": wish.provider_id,
        "enrichmentTypes": list(wish.types),
        "inputData": row.lead,
        **wish.options,
    }
    if wish.fallback_providers:
        payload["fallbackProviders"] = list(wish.fallback_providers)
    return NewJob(
        type="single_lead_enrichment",
        payload=payload,
        workspace_id=wish.workspace_id,
        tags=[wish.tag],
        idempotency_key=f"enrich:{key}",
    )


def key_of(lead: Mapping[str, str], wish: Wish) -> str:
    """Return what makes two rows the same work: the lead's fields and what is wanted of it."""
    same = [
        sorted((name, value.strip().casefold()) for name, value in lead.items() if value.strip()),
        sorted(wish.types),
        wish.provider_id,
        list(wish.fallback_providers),
        wish.salt,
        *([wish.options] if wish.options else []),
    ]
    return hashlib.sha256(orjson.dumps(same, option=orjson.OPT_SORT_KEYS)).hexdigest()[:40]
