"""A workspace's webhook endpoints, what they were sent, and sending it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints

from enrichd.api.cursors import bad_cursor, cursor_of, place_of
from enrichd.api.job_models import ApiModel
from enrichd.api.jobs import ID
from enrichd.api.messages import Answer, Response, json_response
from enrichd.api.problems import Problem
from enrichd.api.routing import PREFIX, Access, Call, route
from enrichd.api.transactions import at_large, in_workspace
from enrichd.domain.webhook_events import checked_events
from enrichd.errors import FieldProblem, Refused
from enrichd.store import answers, delivery_log, webhooks
from enrichd.store.database import Connection
from enrichd.store.delivery_log import REPLAY_MAX, Delivery
from enrichd.store.sealing import Sealer, sealer_of
from enrichd.store.webhooks import UNCHANGED, WebhookNotFound
from enrichd.webhooks import endpoints
from enrichd.webhooks.shapes import delivery_shape, webhook_shape
from enrichd.webhooks.targets import check_reachable

SEALER = "sealer"
DAY_MS = 86_400_000
OVERLAP_MS_MAX = 30 * DAY_MS
PAGE_MAX = 200

Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
EventName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
EventNames = Annotated[tuple[EventName, ...], Field(max_length=50)]
Description = Annotated[str, StringConstraints(max_length=500)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class NewWebhook(ApiModel):
    """An endpoint to add."""

    url: Url
    events: EventNames = ()
    """What to be told of; none, or `*`, is everything."""
    description: Description | None = None
    secret: Secret | None = None
    """`whsec_` and base64, of 24 to 64 bytes; absent: one is made."""


class WebhookChange(ApiModel):
    """What is to become of an endpoint; what is absent stays as it is."""

    url: Url | None = None
    events: EventNames | None = None
    description: Description | None = None
    """null takes it away."""
    enabled: bool | None = None


class WebhookDocument(ApiModel):
    """An endpoint."""

    id: UUID
    workspace_id: str
    url: str
    events: Sequence[str]
    description: str | None
    enabled: bool
    disabled_reason: str | None
    """`gone`, `failing` or `manual`."""
    disabled_at: AwareDatetime | None
    failure_streak: int
    failing_since: AwareDatetime | None
    secrets: int
    """How many sign now: 2 while a rotation overlaps."""
    created_at: AwareDatetime
    updated_at: AwareDatetime


class WebhookWithSecret(WebhookDocument):
    """An endpoint and the secret that signs what it gets, shown this once."""

    secret: str


class Webhooks(ApiModel):
    """The endpoints of a workspace, oldest first."""

    webhooks: Sequence[WebhookDocument]


@route("GET", "/webhooks", Access.READ, answers={200: Webhooks})
async def list_webhooks(call: Call) -> Answer:
    """List the webhook endpoints of the workspace."""
    found = await in_workspace(
        call, lambda conn: webhooks.list_all(conn, workspace_id=call.workspace_id)
    )
    return json_response({"webhooks": [webhook_shape(one) for one in found]})


@route("POST", "/webhooks", Access.WRITE, body=NewWebhook, answers={201: WebhookWithSecret})
async def add_webhook(call: Call) -> Answer:
    """Add a webhook endpoint and show the secret that signs what it gets."""
    wanted: NewWebhook = call.body
    checked_events(list(wanted.events))
    # Looking the host up can take seconds, in which no transaction may stay open.
    await check_reachable(wanted.url, endpoints.guard_of(call.api.settings))
    sealer = await sealer_for(call)
    webhook, secret = await in_workspace(
        call,
        lambda conn: endpoints.insert(
            conn,
            sealer=sealer,
            workspace_id=call.workspace_id,
            url=wanted.url,
            events=wanted.events,
            description=wanted.description,
            secret=wanted.secret,
        ),
    )
    return json_response(
        webhook_shape(webhook, secret=secret), 201, Location=f"{PREFIX}/webhooks/{webhook.id}"
    )


async def sealer_for(call: Call) -> Sealer:
    """Return what seals secrets; its key is read once."""
    known: Sealer | None = call.api.parts.get(SEALER)
    if known is None:
        pepper = await at_large(call, answers.pepper)
        known = call.api.parts[SEALER] = sealer_of(call.api.settings, pepper)
    return known


@route("GET", "/webhooks/{id}", Access.READ, answers={200: WebhookDocument})
async def read_webhook(call: Call) -> Answer:
    """Read one webhook endpoint."""
    webhook_id = webhook_of(call)
    found = await in_workspace(
        call,
        lambda conn: webhooks.get(conn, workspace_id=call.workspace_id, webhook_id=webhook_id),
    )
    return json_response(webhook_shape(found))


@route("PUT", "/webhooks/{id}", Access.WRITE, body=WebhookChange, answers={200: WebhookDocument})
async def change_webhook(call: Call) -> Answer:
    """Change a webhook endpoint, or enable or disable it."""
    wanted: WebhookChange = call.body
    given = wanted.model_fields_set
    webhook_id = webhook_of(call)
    require_no_null(wanted, given & {"url", "events", "enabled"})
    events = None if wanted.events is None else checked_events(list(wanted.events))
    if wanted.url is not None:
        await check_reachable(wanted.url, endpoints.guard_of(call.api.settings))
    found = await in_workspace(
        call,
        lambda conn: webhooks.update(
            conn,
            workspace_id=call.workspace_id,
            webhook_id=webhook_id,
            url=wanted.url,
            events=events,
            description=wanted.description if "description" in given else UNCHANGED,
            enabled=wanted.enabled,
        ),
    )
    return json_response(webhook_shape(found))


def require_no_null(wanted: WebhookChange, names: set[str]) -> None:
    """Raise Problem 422 for a field that was given as null and cannot be."""
    problems = [
        FieldProblem(name, "must not be null; leave it out to keep it")
        for name in sorted(names)
        if getattr(wanted, name) is None
    ]
    if problems:
        shown = "; ".join(map(str, problems))
        raise Problem(422, "invalid_body", f"The body is wrong: {shown}", fields=problems)


@route("DELETE", "/webhooks/{id}", Access.WRITE, answers={204: None})
async def remove_webhook(call: Call) -> Answer:
    """Remove a webhook endpoint, its log, and what it was still to be sent."""
    webhook_id = webhook_of(call)
    await in_workspace(
        call,
        lambda conn: webhooks.delete(conn, workspace_id=call.workspace_id, webhook_id=webhook_id),
    )
    return Response(204)


class Rotation(ApiModel):
    """How a new secret takes over."""

    overlap_ms: Annotated[int, Field(ge=0, le=OVERLAP_MS_MAX, strict=True)] = DAY_MS
    """How long the secret before signs on; 0 takes it away now."""


@route(
    "POST",
    "/webhooks/{id}/rotate",
    Access.WRITE,
    body=Rotation,
    answers={200: WebhookWithSecret},
)
async def rotate_secret(call: Call) -> Answer:
    """Give a webhook endpoint a new secret and show it; until the overlap is over both sign."""
    webhook_id = webhook_of(call)
    sealer = await sealer_for(call)
    webhook, secret = await in_workspace(
        call,
        lambda conn: endpoints.rotate(
            conn,
            sealer=sealer,
            workspace_id=call.workspace_id,
            webhook_id=webhook_id,
            overlap_s=call.body.overlap_ms / 1000,
        ),
    )
    return json_response(webhook_shape(webhook, secret=secret))


class Sent(ApiModel):
    """A delivery that is on its way."""

    delivery_id: UUID


@route("POST", "/webhooks/{id}/test", Access.WRITE, answers={202: Sent})
async def test_webhook(call: Call) -> Answer:
    """Send a test event to a webhook endpoint; the log says how it was taken."""
    webhook_id = webhook_of(call)

    async def work(conn: Connection) -> UUID:
        workspace_id = call.workspace_id
        sent = await delivery_log.test(conn, workspace_id=workspace_id, webhook_id=webhook_id)
        if sent is None:
            await webhooks.get(conn, workspace_id=workspace_id, webhook_id=webhook_id)
            raise Refused(f"webhook endpoint {webhook_id} is disabled; enable it first")
        return sent

    return json_response({"deliveryId": str(await in_workspace(call, work))}, 202)


class DeliveriesQuery(ApiModel):
    """Which deliveries."""

    webhook_id: UUID | None = None
    job_id: UUID | None = None
    status: Literal["pending", "delivered", "failed"] | None = None
    event: EventName | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 50
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None
    """The nextCursor of the page before."""


class AttemptDocument(ApiModel):
    """What came of one attempt."""

    attempt: int
    """From 1 on; a replay begins anew."""
    at: AwareDatetime | None
    answer_status: int | None
    answer: str | None
    """The first KiB of what the receiver answered."""
    latency_ms: int | None
    error: str | None


class DeliveryDocument(ApiModel):
    """One event for one receiver, and how far it got."""

    id: UUID
    """The header `webhook-id`, the same at every attempt."""
    sequence: int
    webhook_id: UUID | None
    """null for a job's own webhookUrl."""
    url: str | None
    event: str
    job_id: UUID | None
    item_key: str | None
    data: Any
    """What the event said; null once that is no longer kept."""
    status: str
    attempts: int
    next_attempt_at: AwareDatetime | None
    answer_status: int | None
    answer: str | None
    """The first KiB of what the receiver answered."""
    latency_ms: int | None
    error: str | None
    created_at: AwareDatetime
    attempted_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    history: Sequence[AttemptDocument]
    """The attempts, oldest first; the last twenty are kept."""


class DeliveriesPage(ApiModel):
    """Deliveries, newest first."""

    deliveries: Sequence[DeliveryDocument]
    next_cursor: str | None


@route(
    "GET", "/webhooks/deliveries", Access.READ, query=DeliveriesQuery, answers={200: DeliveriesPage}
)
async def list_deliveries(call: Call) -> Answer:
    """List what was sent and what is to be, newest first."""
    query: DeliveriesQuery = call.query
    before = None if query.cursor is None else sequence_at(query.cursor)

    async def work(conn: Connection) -> list[Delivery]:
        return await delivery_log.list_page(
            conn,
            workspace_id=call.workspace_id,
            webhook_id=query.webhook_id,
            job_id=query.job_id,
            status=query.status,
            event=query.event,
            before=before,
            limit=query.limit + 1,
        )

    found = await in_workspace(call, work)
    shown = found[: query.limit]
    is_cut = len(found) > len(shown)
    return json_response(
        {
            "deliveries": [delivery_shape(one) for one in shown],
            "nextCursor": cursor_of(str(shown[-1].sequence)) if is_cut else None,
        }
    )


def sequence_at(cursor: str) -> int:
    """Return the place in the log that a cursor names. Raises Problem 422."""
    text = place_of(cursor)
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise bad_cursor()
    return int(text)


class Replay(ApiModel):
    """Which deliveries to send again; each keeps its id."""

    ids: Annotated[tuple[UUID, ...], Field(min_length=1, max_length=1000)] | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    only_failed: bool = False


class ReplayOfAny(Replay):
    """Which deliveries of any receiver to send again; at least one field must say."""

    webhook_id: UUID | None = None


class Replayed(ApiModel):
    """How many go out again; at most 10,000 at a time."""

    replayed: Annotated[int, Field(le=REPLAY_MAX)]


@route("POST", "/webhooks/replay", Access.WRITE, body=ReplayOfAny, answers={202: Replayed})
async def replay_any(call: Call) -> Answer:
    """Send deliveries again: by id, an endpoint's, a range of time, all that failed."""
    wanted: ReplayOfAny = call.body
    if not (wanted.ids or wanted.since or wanted.only_failed or wanted.webhook_id):
        raise Problem(422, "invalid_body", "Give ids, since, onlyFailed or webhookId.")
    return await replay(call, wanted, wanted.webhook_id)


@route("POST", "/webhooks/{id}/replay", Access.WRITE, body=Replay, answers={202: Replayed})
async def replay_of_webhook(call: Call) -> Answer:
    """Send deliveries of one webhook endpoint again: some by id, a range of time, or all."""
    return await replay(call, call.body, webhook_of(call))


async def replay(call: Call, wanted: Replay, webhook_id: UUID | None) -> Answer:
    """Put deliveries back to be sent."""

    async def work(conn: Connection) -> list[UUID]:
        workspace_id = call.workspace_id
        if webhook_id is not None:
            await webhooks.get(conn, workspace_id=workspace_id, webhook_id=webhook_id)
        return await delivery_log.replay(
            conn,
            workspace_id=workspace_id,
            ids=wanted.ids,
            webhook_id=webhook_id,
            since=wanted.since,
            until=wanted.until,
            only_failed=wanted.only_failed,
        )

    return json_response({"replayed": len(await in_workspace(call, work))}, 202)


def webhook_of(call: Call) -> UUID:
    """Return the path's id. What is no id names no endpoint: 404, as for one that is not there."""
    text = call.path["id"]
    if ID.fullmatch(text) is None:
        raise WebhookNotFound(f"there is no webhook endpoint {text[:60]}")
    return UUID(text)
