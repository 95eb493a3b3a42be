"""`social_profile_discovery`: where a lead and its company are on social networks."""

from __future__ import annotations

from enrichd.domain.facts import Entity, Json
from enrichd.domain.lead_results import Awaited
from enrichd.domain.leads import lead_from
from enrichd.domain.merging import Record
from enrichd.domain.outcomes import Outcome
from enrichd.domain.payloads import EnrichmentType, SocialProfileDiscovery
from enrichd.handlers.context import JobContext
from enrichd.handlers.registry import handles
from enrichd.handlers.sourcing import parked, search

TYPES = frozenset({EnrichmentType.SOCIAL})


@handles(SocialProfileDiscovery)
async def discover_social_profiles(
    payload: SocialProfileDiscovery, context: JobContext
) -> dict[str, Json] | Outcome:
    """Return the lead's result with all profiles, the person's first, in `socialProfiles`."""
    lead = lead_from(payload.input_data, payload.lead_id)
    result = await search(lead, payload, context, types=TYPES)
    if isinstance(result, Awaited):
        return parked(result)
    profiles = [*_profiles(result.person, "person"), *_profiles(result.company, "company")]
    return {**result.to_json(), "socialProfiles": profiles}


def _profiles(record: Record | None, entity: Entity) -> list[Json]:
    found = record.value_at("socialProfiles") if record else None
    return [{"entity": entity, **profile} for profile in found or []]
