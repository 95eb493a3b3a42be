"""What a job would cost at most, by its payload."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from enrichd.domain.leads import Lead, lead_from
from enrichd.domain.payloads import (
    BatchLeadEnrichment,
    CompanyDataUpdate,
    EmailValidation,
    EnrichmentType,
    LeadInput,
    SingleLeadEnrichment,
    SocialProfileDiscovery,
    Sourcing,
)
from enrichd.handlers.batch_leads import leads_of
from enrichd.handlers.sourcing import provider_order, search_of
from enrichd.providers.base import Provider
from enrichd.providers.estimates import Estimate, estimate, plan
from enrichd.providers.keyring import Keyring
from enrichd.providers.roster import Providers
from enrichd.store import known_answers
from enrichd.store.database import Database
from enrichd.store.sealing import Unreadable


async def estimate_job(
    payload: BaseModel,
    *,
    workspace_id: str,
    providers: Providers,
    database: Database,
    keyring: Keyring,
) -> Estimate | None:
    """Return what a job would cost its workspace now; None for a type that nobody can price.

    Asks no provider and writes nothing. Raises Unavailable.
    """
    if not isinstance(payload, Sourcing):
        return None
    leads, types = _leads(payload)
    if types is None:
        return None
    search = search_of(payload, types=types)
    adapters: dict[str, Provider | None] = {}
    skipped: dict[str, str] = {}
    for name in provider_order(payload):
        adapters[name] = providers.find(name)
        if adapters[name] is None:
            continue
        try:
            credential, settings = await keyring.settings_for(name, workspace_id)
        except Unreadable:
            skipped[name] = "key_unreadable"
            adapters[name] = None
        else:
            adapters[name] = providers.with_key(name, credential, settings)
    planned = plan(leads, search, adapters)
    keys = [(one.provider_id, one.key) for one in planned.questions if one.key is not None]
    async with database.connection() as conn:
        known = await known_answers.known(conn, workspace_id=workspace_id, keys=keys)
    return estimate(planned, known, cap=payload.max_credits, unusable=skipped)


def _leads(payload: Sourcing) -> tuple[Sequence[Lead], Sequence[EnrichmentType] | None]:
    """Return whom a payload is about, and what is wanted; None for a type of somebody else's."""
    match payload:
        case SingleLeadEnrichment():
            return [lead_from(payload.input_data, payload.lead_id)], payload.enrichment_types
        case BatchLeadEnrichment():
            return leads_of(payload), payload.enrichment_types
        case EmailValidation():
            emails = dict.fromkeys(payload.emails)
            return [lead_from(LeadInput(email=one)) for one in emails], [EnrichmentType.EMAIL]
        case CompanyDataUpdate():
            data = payload.input_data
            if payload.domain:
                data = data.model_copy(update={"domain": payload.domain})
            return [lead_from(data, payload.company_id)], [EnrichmentType.COMPANY]
        case SocialProfileDiscovery():
            return [lead_from(payload.input_data, payload.lead_id)], [EnrichmentType.SOCIAL]
        case _:
            return [], None
