"""Adding an endpoint and changing its secret: what the API and `enrichctl` both do."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from uuid_utils.compat import uuid7
from yarl import URL

from enrichd.domain.webhook_events import checked_events
from enrichd.settings import Settings
from enrichd.store import webhooks
from enrichd.store.database import Connection
from enrichd.store.sealing import Sealer
from enrichd.store.webhooks import Webhook
from enrichd.webhooks.secrets import purpose_of
from enrichd.webhooks.signing import key_of, new_secret
from enrichd.webhooks.targets import Guard, check_reachable

OVERLAP_S = 24 * 3600.0


def guard_of(settings: Settings) -> Guard:
    """Return the guard that the settings ask for."""
    outside = settings.callback_base_url
    return Guard(
        settings.webhook_allowed_networks,
        own_ports=frozenset({settings.health_check_port}),
        own_host=URL(outside).host if outside else None,
    )


async def add(
    conn: Connection,
    *,
    sealer: Sealer,
    guard: Guard,
    workspace_id: str,
    url: str,
    events: Sequence[str] = (),
    description: str | None = None,
    secret: str | None = None,
) -> tuple[Webhook, str]:
    """Add an endpoint; return it and its secret, which is not shown again.

    Raises Invalid for a URL that may not be posted to, an unknown event or a secret that is none,
    and TooManyWebhooks.
    """
    await check_reachable(url, guard)
    return await insert(
        conn,
        sealer=sealer,
        workspace_id=workspace_id,
        url=url,
        events=events,
        description=description,
        secret=secret,
    )


async def insert(
    conn: Connection,
    *,
    sealer: Sealer,
    workspace_id: str,
    url: str,
    events: Sequence[str] = (),
    description: str | None = None,
    secret: str | None = None,
) -> tuple[Webhook, str]:
    """Add an endpoint whose URL was looked up already, which can take seconds.

    Raises Invalid and TooManyWebhooks.
    """
    wanted = checked_events(list(events))
    secret = secret or new_secret()
    key_of(secret)
    webhook_id = uuid7()
    webhook = await webhooks.insert(
        conn,
        webhook_id=webhook_id,
        workspace_id=workspace_id,
        url=url,
        events=wanted,
        description=description,
        secret=sealer.seal(secret, purpose=purpose_of(webhook_id)),
    )
    return webhook, secret


async def change(
    conn: Connection,
    *,
    guard: Guard,
    workspace_id: str,
    webhook_id: UUID,
    url: str | None = None,
    events: Sequence[str] | None = None,
    description: str | webhooks.Unchanged | None = webhooks.UNCHANGED,
    enabled: bool | None = None,
) -> Webhook:
    """Change what is given of an endpoint. Raises Invalid and WebhookNotFound."""
    if url is not None:
        await check_reachable(url, guard)
    return await webhooks.update(
        conn,
        workspace_id=workspace_id,
        webhook_id=webhook_id,
        url=url,
        events=None if events is None else checked_events(list(events)),
        description=description,
        enabled=enabled,
    )


async def rotate(
    conn: Connection,
    *,
    sealer: Sealer,
    workspace_id: str,
    webhook_id: UUID,
    overlap_s: float = OVERLAP_S,
) -> tuple[Webhook, str]:
    """Give an endpoint a new secret and return both; the one before signs on for `overlap_s`."""
    secret = new_secret()
    webhook = await webhooks.rotate(
        conn,
        workspace_id=workspace_id,
        webhook_id=webhook_id,
        secret=sealer.seal(secret, purpose=purpose_of(webhook_id)),
        overlap_s=overlap_s,
    )
    return webhook, secret
