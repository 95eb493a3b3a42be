"""How the providers stand for a workspace, and what a job would cost there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enrichd.api.job_models import ApiModel
from enrichd.api.messages import Answer, json_response
from enrichd.api.routing import Access, Call, route
from enrichd.api.transactions import at_large
from enrichd.api.webhook_routes import sealer_for
from enrichd.domain.merging import amount
from enrichd.providers.rows import ProviderRow, rows_of
from enrichd.store import credits
from enrichd.store.credits import Budget, Spending
from enrichd.store.database import Connection


class ProviderDocument(ApiModel):
    """One provider as the workspace meets it."""

    provider_id: str
    credential: str
    key: str
    """`set`, `own`, `missing`, `unreadable`, `refused`, or `none needed`."""
    key_hint: str | None
    limits: dict[str, Any]
    """By operation: windows in seconds, and calls in each; `*` is what all share."""
    today: dict[str, Any]
    """The workspace's own use, since midnight UTC."""
    cache_hit_rate: float | None
    cost_per_result: float | None
    credits_left: float | None
    """Of the workspace's own key; the common one's account is nobody's business but its owner's."""
    credits_seen_at: str | None
    breaker: str
    breaker_until: str | None
    breaker_trouble: str | None
    """`denied` (the key), `exhausted` (the credits) or `failing`; null for one opened by hand."""
    breaker_reason: str | None
    is_set_by_hand: bool


class SpendingDocument(ApiModel):
    """Credits: spent and set aside, and the caps; null is no cap."""

    today: float
    this_month: float
    per_day_max: float | None
    per_month_max: float | None


class ProvidersDocument(ApiModel):
    """All providers, by name, and what the workspace has spent."""

    providers: Sequence[ProviderDocument]
    credits: SpendingDocument


@route("GET", "/providers", Access.READ, answers={200: ProvidersDocument})
async def list_providers(call: Call) -> Answer:
    """Show providers: keys, limits, use, credits, breakers."""
    sealer = await sealer_for(call)
    settings, workspace_id = call.api.settings, call.workspace_id

    # Breakers and limits are the installation's, hence its rights; each read names the workspace.
    async def work(conn: Connection) -> tuple[list[ProviderRow], Budget, Spending]:
        return (
            await rows_of(conn, settings, sealer, workspace_id),
            await credits.budget_of(conn, workspace_id=workspace_id),
            await credits.spending(conn, workspace_id=workspace_id),
        )

    rows, budget, spent = await at_large(call, work)
    per_day, per_month = budget.per_day_max, budget.per_month_max
    if per_day is None:
        per_day = settings.workspace_credits_per_day_max
    if per_month is None:
        per_month = settings.workspace_credits_per_month_max
    return json_response(
        {
            "providers": [told_of(row) for row in rows],
            "credits": {
                "today": amount(spent.today),
                "thisMonth": amount(spent.this_month),
                "perDayMax": None if per_day is None else amount(per_day),
                "perMonthMax": None if per_month is None else amount(per_month),
            },
        }
    )


def told_of(row: ProviderRow) -> dict[str, Any]:
    """Return a provider without what only the owner of the common key may know."""
    shape = row.to_json()
    if row.credential == row.provider_id:
        shape |= {"creditsLeft": None, "creditsSeenAt": None, "breakerReason": None}
    return shape
