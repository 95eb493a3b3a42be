"""A workspace's webhook endpoints.

Secrets come and go sealed; every function is held to one workspace, whoever calls it.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from enrichd.errors import NotFound, Refused
from enrichd.store.database import Connection
from enrichd.store.sealing import Sealed

ENDPOINTS_MAX = 50
"""Of one workspace: each event is written once for each endpoint that hears it."""


class WebhookNotFound(NotFound):
    """No endpoint of this workspace has that id."""

    code = "webhook_not_found"


class TooManyWebhooks(Refused):
    """The workspace has as many endpoints as it may have."""

    code = "too_many_webhooks"


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint as it is kept, without its secrets."""

    id: UUID
    workspace_id: str
    url: str
    events: list[str]
    description: str | None
    enabled: bool
    disabled_reason: str | None
    """`gone` (it answered 410), `failing` (five days of failures alone) or `manual`."""
    disabled_at: datetime | None
    failure_streak: int
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime
    secrets: int
    """How many sign now: 2 while a rotation overlaps."""


RETURNING: LiteralString = """
    returning id, workspace_id, url, events, description, enabled, disabled_reason, disabled_at,
    failure_streak, failing_since, created_at, updated_at,
    (select count(*)::int
       from jsonb_array_elements(secrets) as secret
      where coalesce((secret ->> 'until')::timestamptz > now(), true))
"""

SELECT: LiteralString = """
    select id, workspace_id, url, events, description, enabled, disabled_reason, disabled_at,
           failure_streak, failing_since, created_at, updated_at,
           (select count(*)::int
              from jsonb_array_elements(secrets) as secret
             where coalesce((secret ->> 'until')::timestamptz > now(), true))
      from enrichment_webhooks
"""

# Two that come at once may pass the limit by one; it guards the fan-out, not a promise.
INSERT_ROW: LiteralString = """
    insert into enrichment_webhooks (id, workspace_id, url, events, description, secrets)
    select %(id)s::uuid, %(workspace_id)s, %(url)s, %(events)s::text[], %(description)s,
           %(secrets)s::jsonb
     where (select count(*)
              from enrichment_webhooks
             where workspace_id = %(workspace_id)s) < %(endpoints_max)s
"""

INSERT: LiteralString = INSERT_ROW + RETURNING


async def insert(
    conn: Connection,
    *,
    webhook_id: UUID,
    workspace_id: str,
    url: str,
    events: Sequence[str],
    description: str | None,
    secret: Sealed,
) -> Webhook:
    """Add an endpoint. Raises TooManyWebhooks."""
    cursor = await conn.execute(
        INSERT,
        {
            "id": webhook_id,
            "workspace_id": workspace_id,
            "url": url,
            "events": list(events),
            "description": description,
            "secrets": json.dumps([kept(secret)]),
            "endpoints_max": ENDPOINTS_MAX,
        },
    )
    row = await cursor.fetchone()
    if row is None:
        raise TooManyWebhooks(f"a workspace may have {ENDPOINTS_MAX} webhook endpoints")
    return Webhook(*row)


ALL: LiteralString = SELECT + " where workspace_id = %(workspace_id)s order by id"


async def list_all(conn: Connection, *, workspace_id: str) -> list[Webhook]:
    """Return the endpoints of a workspace, oldest first; at most ENDPOINTS_MAX, about."""
    cursor = await conn.execute(ALL, {"workspace_id": workspace_id})
    return [Webhook(*row) async for row in cursor]


GET: LiteralString = SELECT + " where workspace_id = %(workspace_id)s and id = %(id)s"


async def get(conn: Connection, *, workspace_id: str, webhook_id: UUID) -> Webhook:
    """Return one endpoint. Raises WebhookNotFound."""
    cursor = await conn.execute(GET, {"workspace_id": workspace_id, "id": webhook_id})
    return found(await cursor.fetchone(), webhook_id)


# Enabled again, an endpoint starts with a clean record. What failed while it was off stays in the
# log, to be replayed by whoever wants it.
UPDATE_ROW: LiteralString = """
    update enrichment_webhooks
       set url = coalesce(%(url)s, url),
           events = coalesce(%(events)s::text[], events),
           description = case when %(has_description)s then %(description)s else description end,
           enabled = coalesce(%(enabled)s, enabled),
           disabled_reason = case when coalesce(%(enabled)s, enabled) then null
                                  else coalesce(disabled_reason, 'manual') end,
           disabled_at = case when coalesce(%(enabled)s, enabled) then null
                              else coalesce(disabled_at, now()) end,
           failure_streak = case when %(enabled)s and not enabled then 0 else failure_streak end,
           failing_since = case when %(enabled)s and not enabled then null
                                else failing_since end,
           updated_at = now()
     where workspace_id = %(workspace_id)s
       and id = %(id)s
"""

UPDATE: LiteralString = UPDATE_ROW + RETURNING


class Unchanged:
    """Stand for a description that stays as it is; None takes it away."""


UNCHANGED = Unchanged()


async def update(
    conn: Connection,
    *,
    workspace_id: str,
    webhook_id: UUID,
    url: str | None = None,
    events: Sequence[str] | None = None,
    description: str | Unchanged | None = UNCHANGED,
    enabled: bool | None = None,
) -> Webhook:
    """Change what is given and leave the rest. Raises WebhookNotFound."""
    has_description = not isinstance(description, Unchanged)
    cursor = await conn.execute(
        UPDATE,
        {
            "workspace_id": workspace_id,
            "id": webhook_id,
            "url": url,
            "events": None if events is None else list(events),
            "has_description": has_description,
            "description": description if has_description else None,
            "enabled": enabled,
        },
    )
    return found(await cursor.fetchone(), webhook_id)


# Its log goes with it, what is still to be sent too: nobody is left to send it to.
DELETE: LiteralString = """
    with gone as (
        delete from enrichment_webhooks
         where workspace_id = %(workspace_id)s
           and id = %(id)s
        returning id
    ),
    log as (
        delete from enrichment_webhook_deliveries as delivery
         using gone
         where delivery.webhook_id = gone.id
    )
    select id from gone
"""


async def delete(conn: Connection, *, workspace_id: str, webhook_id: UUID) -> None:
    """Remove an endpoint and its deliveries. Raises WebhookNotFound."""
    cursor = await conn.execute(DELETE, {"workspace_id": workspace_id, "id": webhook_id})
    if await cursor.fetchone() is None:
        raise not_found(webhook_id)


# The new secret goes first. Those before sign on until the overlap is over; what is past goes.
ROTATE_ROW: LiteralString = """
    update enrichment_webhooks
       set secrets = jsonb_build_array(%(secret)s::jsonb) || coalesce(
               (select jsonb_agg(old || jsonb_build_object('until', least(
                            coalesce((old ->> 'until')::timestamptz, 'infinity'),
                            now() + make_interval(secs => %(overlap_s)s))) order by place)
                  from jsonb_array_elements(secrets) with ordinality as kept(old, place)
                 where coalesce((old ->> 'until')::timestamptz > now(), true)
                   and place <= %(olds_max)s
                   and %(overlap_s)s > 0), '[]'),
           updated_at = now()
     where workspace_id = %(workspace_id)s
       and id = %(id)s
"""

ROTATE: LiteralString = ROTATE_ROW + RETURNING

OLDS_MAX = 4
"""Secrets before the newest that may sign on: each makes the header longer."""


async def rotate(
    conn: Connection, *, workspace_id: str, webhook_id: UUID, secret: Sealed, overlap_s: float
) -> Webhook:
    """Let a new secret sign, and those before for `overlap_s` more. Raises WebhookNotFound."""
    cursor = await conn.execute(
        ROTATE,
        {
            "workspace_id": workspace_id,
            "id": webhook_id,
            "secret": json.dumps(kept(secret)),
            "overlap_s": float(overlap_s),
            "olds_max": OLDS_MAX,
        },
    )
    return found(await cursor.fetchone(), webhook_id)


def kept(secret: Sealed) -> dict[str, Any]:
    """Return a sealed secret as the column holds it."""
    sealed = b64encode(secret.sealed).decode()
    return {"sealed": sealed, "sealedWith": secret.sealed_with, "until": None}


def unkept(entry: dict[str, Any]) -> Sealed:
    """Return a sealed secret from the column."""
    return Sealed(b64decode(entry["sealed"]), entry["sealedWith"])


def found(row: Sequence[Any] | None, webhook_id: UUID) -> Webhook:
    """Read one row. Raises WebhookNotFound when there is none."""
    if row is None:
        raise not_found(webhook_id)
    return Webhook(*row)


def not_found(webhook_id: UUID) -> WebhookNotFound:
    """Return the error for an id that is nobody's."""
    return WebhookNotFound(f"there is no webhook endpoint {webhook_id}")
