"""The log of webhook deliveries: what people read, replay and erase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from enrichd.domain.webhook_events import ENDPOINT_TEST
from enrichd.errors import NotFound
from enrichd.store.database import Connection
from enrichd.store.deliveries import KEPT
from enrichd.store.json_text import loads

PAGE = 100
REPLAY_MAX = 10_000


class DeliveryNotFound(NotFound):
    """No delivery of this workspace has that id, or what it said is not kept any more."""

    code = "delivery_not_found"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one attempt."""

    attempt: int
    """From 1 on; a replay begins anew."""
    at: datetime | None
    answer_status: int | None
    answer: str | None
    """The answer's first KiB."""
    latency_ms: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one receiver, and how far it got."""

    id: UUID
    """The header `webhook-id`, the same at every attempt."""
    sequence: int
    webhook_id: UUID | None
    """None for a job's own webhookUrl."""
    url: str | None
    event: str
    job_id: UUID | None
    item_key: str | None
    data: Any
    """What the event said; None once it was pruned or erased."""
    status: str
    """`pending`, `delivered` or `failed`."""
    attempts: int
    next_attempt_at: datetime | None
    answer_status: int | None
    answer: str | None
    latency_ms: int | None
    error: str | None
    created_at: datetime
    attempted_at: datetime | None
    finished_at: datetime | None
    history: list[Attempt]
    """The attempts that were answered or failed, oldest first, at most about HISTORY_MAX."""


# The attempt that was taken is in the columns alone: most deliveries have no other.
TAKEN: LiteralString = """
    case when delivery.status = 'delivered' and delivery.latency_ms is not null
         then jsonb_build_array(jsonb_build_object(
             'attempt', delivery.attempts, 'at', delivery.attempted_at,
             'answerStatus', delivery.answer_status, 'answer', delivery.answer,
             'latencyMs', delivery.latency_ms, 'error', delivery.error))
         else '[]' end"""

SELECT: LiteralString = f"""
    select delivery.id, delivery.sequence, delivery.webhook_id,
           coalesce(delivery.url, (select hook.url
                                     from enrichment_webhooks as hook
                                    where hook.id = delivery.webhook_id)) as url,
           delivery.event, delivery.job_id, delivery.item_key, delivery.data::text, delivery.status,
           delivery.attempts,
           case delivery.status when 'pending' then delivery.next_attempt_at end as next_attempt_at,
           delivery.answer_status, delivery.answer, delivery.latency_ms, delivery.error,
           delivery.created_at, delivery.attempted_at, delivery.finished_at,
           (coalesce(delivery.history, '[]') || {TAKEN})::text
      from enrichment_webhook_deliveries as delivery
     where delivery.workspace_id = %(workspace_id)s
"""  # noqa: S608 - made of constants

# Newest first; the next page goes on before the last sequence seen, which stays right while new
# ones come in. With an endpoint or a job it reads that index, else the workspace's.
PAGE_CONDITIONS: LiteralString = """
       and (%(webhook_id)s::uuid is null or delivery.webhook_id = %(webhook_id)s)
       and (%(job_id)s::uuid is null or delivery.job_id = %(job_id)s)
       and (%(status)s::text is null or delivery.status = %(status)s)
       and (%(event)s::text is null or delivery.event = %(event)s)
       and (%(before)s::bigint is null or delivery.sequence < %(before)s)
     order by delivery.sequence desc
     limit %(limit)s
"""

LIST: LiteralString = SELECT + PAGE_CONDITIONS


async def list_page(
    conn: Connection,
    *,
    workspace_id: str,
    webhook_id: UUID | None = None,
    job_id: UUID | None = None,
    status: str | None = None,
    event: str | None = None,
    before: int | None = None,
    limit: int = PAGE,
) -> list[Delivery]:
    """Return deliveries, newest first, from before a `sequence` on."""
    cursor = await conn.execute(
        LIST,
        {
            "workspace_id": workspace_id,
            "webhook_id": webhook_id,
            "job_id": job_id,
            "status": status,
            "event": event,
            "before": before,
            "limit": limit,
        },
    )
    return [read(row) async for row in cursor]


GET: LiteralString = SELECT + " and delivery.id = %(id)s"


async def get(conn: Connection, *, workspace_id: str, delivery_id: UUID) -> Delivery:
    """Return one delivery. Raises DeliveryNotFound."""
    cursor = await conn.execute(GET, {"workspace_id": workspace_id, "id": delivery_id})
    row = await cursor.fetchone()
    if row is None:
        raise DeliveryNotFound(f"there is no delivery {delivery_id}")
    return read(row)


FIND: LiteralString = """
    select id
      from enrichment_webhook_deliveries
     where workspace_id = %(workspace_id)s
       and id between %(lowest)s and %(highest)s
     order by id
     limit 6
"""


async def find_by_prefix(
    conn: Connection, *, workspace_id: str, lowest: UUID, highest: UUID
) -> list[UUID]:
    """Return the ids of a workspace's deliveries from one id to another, at most six."""
    cursor = await conn.execute(
        FIND, {"workspace_id": workspace_id, "lowest": lowest, "highest": highest}
    )
    return [found async for (found,) in cursor]


# The same id goes out again: to a receiver that remembers ids a replay is a repeat. Attempts start
# again, so the whole schedule lies before it. One that is still pending is due now, unless an
# attempt is under way.
REPLAY: LiteralString = f"""
    with wanted as materialized (
        select delivery.id
          from enrichment_webhook_deliveries as delivery
         where delivery.workspace_id = %(workspace_id)s
           and delivery.data is not null
           and (%(ids)s::uuid[] is null or delivery.id = any(%(ids)s))
           and (%(webhook_id)s::uuid is null or delivery.webhook_id = %(webhook_id)s)
           and (%(since)s::timestamptz is null or delivery.created_at >= %(since)s)
           and (%(until)s::timestamptz is null or delivery.created_at < %(until)s)
           and (not %(only_failed)s or delivery.status = 'failed')
           and (delivery.status <> 'pending'
                or (delivery.attempts > 0 and delivery.error is not null
                    and delivery.next_attempt_at > now()))
           and (delivery.webhook_id is null
                or exists (select 1
                             from enrichment_webhooks as hook
                            where hook.id = delivery.webhook_id
                              and hook.enabled))
         order by delivery.id
         limit %(limit)s
           for update
    )
    update enrichment_webhook_deliveries as delivery
       set status = 'pending', attempts = 0, next_attempt_at = now(), finished_at = null,
           history = jsonb_path_query_array(coalesce(delivery.history, '[]') || {TAKEN},
                                            %(kept)s::jsonpath)
      from wanted
     where delivery.id = wanted.id
    returning delivery.id
"""  # noqa: S608 - made of constants


async def replay(
    conn: Connection,
    *,
    workspace_id: str,
    ids: Sequence[UUID] | None = None,
    webhook_id: UUID | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    only_failed: bool = False,
    limit: int = REPLAY_MAX,
) -> list[UUID]:
    """Send deliveries again: some by id, one endpoint's, a range of time, or the failed ones.

    Return the ids that will be. Left out are those whose endpoint is off or gone, whose data is not
    kept any more, and those that are on their way.
    """
    cursor = await conn.execute(
        REPLAY,
        {
            "workspace_id": workspace_id,
            "ids": None if ids is None else list(ids),
            "webhook_id": webhook_id,
            "since": since,
            "until": until,
            "only_failed": only_failed,
            "limit": limit,
            "kept": KEPT,
        },
    )
    return [delivery_id async for (delivery_id,) in cursor]


TEST: LiteralString = """
    insert into enrichment_webhook_deliveries (workspace_id, webhook_id, target, event, data)
    select hook.workspace_id, hook.id, hook.id::text, %(event)s,
           jsonb_build_object('webhookId', hook.id, 'message', 'This is a test.')
      from enrichment_webhooks as hook
     where hook.workspace_id = %(workspace_id)s
       and hook.id = %(webhook_id)s
       and hook.enabled
    returning id
"""


async def test(conn: Connection, *, workspace_id: str, webhook_id: UUID) -> UUID | None:
    """Send a test event to an endpoint and return its id; None when the endpoint is off."""
    cursor = await conn.execute(
        TEST, {"workspace_id": workspace_id, "webhook_id": webhook_id, "event": ENDPOINT_TEST}
    )
    row = await cursor.fetchone()
    return row[0] if row else None


def read(row: Sequence[Any]) -> Delivery:
    """Read one row; its data and its history are JSON text."""
    return Delivery(
        *[*row[:7], loads(row[7]), *row[8:-1], [attempt_of(one) for one in loads(row[-1])]]
    )


def attempt_of(kept: dict[str, Any]) -> Attempt:
    """Return an attempt from the column."""
    return Attempt(
        kept["attempt"],
        datetime.fromisoformat(kept["at"]) if kept["at"] else None,
        kept["answerStatus"],
        kept["answer"],
        kept["latencyMs"],
        kept["error"],
    )
