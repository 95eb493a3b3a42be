"""`single_lead_enrichment`: one lead, everything that its types ask for."""

from __future__ import annotations

from enrichd.domain.facts import Json
from enrichd.domain.lead_results import Awaited
from enrichd.domain.leads import lead_from
from enrichd.domain.outcomes import Outcome
from enrichd.domain.payloads import SingleLeadEnrichment
from enrichd.handlers.context import JobContext
from enrichd.handlers.registry import handles
from enrichd.handlers.sourcing import parked, search


@handles(SingleLeadEnrichment)
async def enrich_single_lead(
    payload: SingleLeadEnrichment, context: JobContext
) -> dict[str, Json] | Outcome:
    """Return the lead's result."""
    lead = lead_from(payload.input_data, payload.lead_id)
    result = await search(lead, payload, context, types=payload.enrichment_types)
    return parked(result) if isinstance(result, Awaited) else result.to_json()
