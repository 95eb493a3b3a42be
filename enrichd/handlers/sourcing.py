"""How a payload's sourcing (providers, stop rule, credits) becomes a search."""

from __future__ import annotations

from collections.abc import Collection

from enrichd.domain.lead_results import Awaited, LeadResult
from enrichd.domain.leads import Lead
from enrichd.domain.outcomes import Park
from enrichd.domain.payloads import EnrichmentType, Sourcing
from enrichd.handlers.context import JobContext
from enrichd.providers.calls import Calls
from enrichd.providers.roster import BUILTIN
from enrichd.providers.waterfall import Asker, Search, enrich_lead


def provider_order(payload: Sourcing) -> tuple[str, ...]:
    """Return the providers to ask, the wanted one before its fallbacks."""
    return (payload.provider_id, *payload.fallback_providers)


def calls_of(payload: Sourcing, context: JobContext) -> Calls:
    """Return what puts a job's questions; all leads of the job share it, and its credits."""
    shared = context.providers.shared
    return Calls(
        context.providers,
        workspace_id=context.workspace_id,
        job_id=context.job_id,
        priority=context.priority,
        max_credits=payload.max_credits,
        wait_s_max=shared.wait_s_max if shared else 0.0,
    )


def search_of(
    payload: Sourcing,
    *,
    types: Collection[EnrichmentType],
    lane: str = BUILTIN,
    is_last_run: bool = False,
) -> Search:
    """Return how a payload wants its leads to be searched for, by a job in that lane."""
    return Search(
        types=types,
        order=provider_order(payload),
        stop_rule=payload.stop_rule,
        fill_mode=payload.fill_mode,
        infer_email=payload.infer_email,
        race=payload.race,
        lane=lane.partition("#")[0],
        is_last_run=is_last_run,
    )


async def search(
    lead: Lead,
    payload: Sourcing,
    context: JobContext,
    *,
    types: Collection[EnrichmentType],
    asker: Asker | None = None,
) -> LeadResult | Awaited:
    """Enrich one lead the way its payload says; leads of one job share its `asker`.

    Raises ProviderThrottled or ProviderDown where only a later run can answer.
    """
    wanted = search_of(
        payload, types=types, lane=context.provider_id, is_last_run=context.attempts_left == 0
    )
    return await enrich_lead(lead, wanted, asker or calls_of(payload, context))


def parked(awaited: Awaited) -> Park:
    """Return the end of a run that has to wait for a provider's answer."""
    return Park(awaited.deadline_s, f"{awaited.provider} answers later")
