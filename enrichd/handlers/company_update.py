"""`company_data_update`: a company's facts, by its domain."""

from __future__ import annotations

from enrichd.domain.facts import Json
from enrichd.domain.lead_results import Awaited
from enrichd.domain.leads import lead_from
from enrichd.domain.outcomes import Outcome
from enrichd.domain.payloads import CompanyDataUpdate, EnrichmentType
from enrichd.handlers.context import JobContext
from enrichd.handlers.registry import handles
from enrichd.handlers.sourcing import parked, search

TYPES = frozenset({EnrichmentType.COMPANY})


@handles(CompanyDataUpdate)
async def update_company(
    payload: CompanyDataUpdate, context: JobContext
) -> dict[str, Json] | Outcome:
    """Return the company, with `companyId` as the caller calls it."""
    company_id = payload.company_id or payload.domain or ""
    data = payload.input_data
    if payload.domain:
        data = data.model_copy(update={"domain": payload.domain})
    result = await search(lead_from(data, company_id), payload, context, types=TYPES)
    if isinstance(result, Awaited):
        return parked(result)
    answer = result.to_json()
    kept = ("outcome", "company", "missing", "providers", "providersTried", "costCredits")
    return {"companyId": company_id, **{name: answer[name] for name in kept}}
