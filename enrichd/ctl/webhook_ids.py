"""Endpoints and deliveries as people name them: a whole id or an unambiguous beginning."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from enrichd.ctl.job_ids import prefix_of
from enrichd.errors import Invalid, NotFound
from enrichd.store import delivery_log, webhooks
from enrichd.store.database import Connection
from enrichd.store.delivery_log import DeliveryNotFound
from enrichd.store.webhooks import WebhookNotFound


async def webhook_id(conn: Connection, *, workspace_id: str, text: str) -> UUID:
    """Return the id of the one endpoint that starts with `text`.

    Raises WebhookNotFound, and Invalid if there are several.
    """
    prefix = prefix_of(text)
    found = await webhooks.list_all(conn, workspace_id=workspace_id)
    return only([one.id for one in found if one.id.hex.startswith(prefix)], text, WebhookNotFound)


async def delivery_id(conn: Connection, *, workspace_id: str, text: str) -> UUID:
    """Return the id of the one delivery that starts with `text`.

    Raises DeliveryNotFound, and Invalid if there are several.
    """
    prefix = prefix_of(text)
    found = await delivery_log.find_by_prefix(
        conn,
        workspace_id=workspace_id,
        lowest=UUID(prefix.ljust(32, "0")),
        highest=UUID(prefix.ljust(32, "f")),
    )
    return only(found, text, DeliveryNotFound)


def only(found: Sequence[UUID], text: str, missing: type[NotFound]) -> UUID:
    """Return the one that was found; raise what fits when there is none, or more."""
    if not found:
        raise missing(f"none starts with {text} in this workspace")
    if len(found) > 1:
        shown = "\n  ".join(str(one) for one in found[:5])
        raise Invalid(
            f"{text} is the beginning of several ids:\n  {shown}", hint="Give more of it."
        )
    return found[0]
