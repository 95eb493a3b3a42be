"""How a payload's sourcing (providers, stop rule, credits) becomes a search."""

from __future__ import annotations

from collections.abc import Collection

from enrichd.domain.lead_results import LeadResult
from enrichd.domain.leads import Lead
from enrichd.domain.payloads import EnrichmentType, Sourcing
from enrichd.handlers.context import JobContext
from enrichd.providers.budget import Budget
from enrichd.providers.waterfall import enrich_lead


def provider_order(payload: Sourcing) -> tuple[str, ...]:
    """Return the providers to ask, the wanted one before its fallbacks."""
    return (payload.provider_id, *payload.fallback_providers)


async def search(
    lead: Lead,
    payload: Sourcing,
    context: JobContext,
    *,
    types: Collection[EnrichmentType],
    budget: Budget | None = None,
) -> LeadResult:
    """Enrich one lead the way its payload says; leads of one job share its `budget`.

    Raises ProviderThrottled or ProviderDown where only a later run can answer.
    """
    return await enrich_lead(
        lead,
        types=types,
        providers=context.providers,
        order=provider_order(payload),
        stop_rule=payload.stop_rule,
        budget=budget or Budget(payload.max_credits),
    )
