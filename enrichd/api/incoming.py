"""Webhooks that come in: a provider's, by its signature or a token, and anybody's with a key.

What came is kept and its job goes back on the queue; reading it is the run's business. Whoever
cannot prove who he is gets the same answer, whatever was wrong.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError
from uuid_utils.compat import uuid7

from enrichd import metrics
from enrichd.api.live import note_changed
from enrichd.api.messages import Answer, json_response
from enrichd.api.problems import Problem
from enrichd.api.routing import Access, Call, route
from enrichd.api.transactions import again_after_races, at_large, in_workspace
from enrichd.api.webhook_routes import sealer_for
from enrichd.domain.jobs import JobStatus
from enrichd.domain.payloads import CamelModel
from enrichd.errors import FieldProblem, IllegalMove, JobNotFound
from enrichd.logs import get_logger
from enrichd.providers import proofs
from enrichd.providers.callbacks import (
    BODY_BYTES_MAX,
    TOKEN_LENGTH_MAX,
    Receipt,
    own_keys,
    receive_in,
)
from enrichd.providers.keyring import credential_of, opened
from enrichd.settings.providers import normal_id
from enrichd.store import incoming, job_moves
from enrichd.store.changes import Moved
from enrichd.store.database import Connection
from enrichd.store.json_text import dumps
from enrichd.store.sealing import Unreadable

KEY_CHARS_MAX: Final = 200
FIELDS_SHOWN_MAX: Final = 20
UNPROVED: Final = "This webhook's sender could not be verified."

log = get_logger("gateway")


class IncomingQuery(CamelModel):
    """Whose webhook it is; without either, the caller shows an API key."""

    provider: Annotated[str, Field(max_length=100)] | None = None
    """A provider that signs what it sends."""
    token: Annotated[str, Field(max_length=TOKEN_LENGTH_MAX)] | None = None
    """The token of a callback's address, in place of a signature."""


class IncomingEvent(CamelModel):
    """What happened outside that a parked job waits for."""

    job_id: UUID
    event: Annotated[str, Field(min_length=1, max_length=100)]
    data: Any = None
    """Any JSON; the job's next run reads it."""


class Accepted(CamelModel):
    """What became of a webhook: `resumed`, `kept`, `duplicate` or `late`."""

    receipt: str


EVENT_READER: Final[TypeAdapter[IncomingEvent]] = TypeAdapter(IncomingEvent)


@route(
    "POST",
    "/webhook",
    Access.SIGNED,
    query=IncomingQuery,
    answers={202: Accepted},
    headers={
        "X-Request-Signature": "Clearbit's: `sha1=` and the HMAC-SHA1 of the body.",
        "X-Signature-SHA256": "HMAC-SHA256 of the body in hexadecimal digits.",
        "X-Signature-SHA1": "HMAC-SHA1 of the body in hexadecimal digits.",
        "Webhook-Signature": "Standard Webhooks, with `Webhook-Id` and `Webhook-Timestamp`.",
    },
)
async def webhook(call: Call) -> Answer:
    """Take a provider's webhook, or an event for a parked job from whoever has a key."""
    body = bounded(call)
    if call.query.token is not None:
        return await by_token(call, call.query.token, body)
    if call.query.provider is not None:
        return await by_signature(call, call.query.provider, body)
    return await by_key(call, body)


@route("POST", "/webhook/{token}", Access.SIGNED, answers={202: Accepted})
async def webhook_by_token(call: Call) -> Answer:
    """Take a provider's answer at the address it was given."""
    return await by_token(call, call.path["token"], bounded(call))


def bounded(call: Call) -> bytes:
    """Return the body as it came. Raises Problem 413 before anything looks at it."""
    body = call.request.body
    if len(body) > BODY_BYTES_MAX:
        raise Problem(
            413,
            "body_too_large",
            f"A webhook may have {BODY_BYTES_MAX:,} bytes, not {len(body):,}.",
        )
    return body


# By a token.


async def by_token(call: Call, token: str, body: bytes) -> Answer:
    """Take what was posted to an address that only the provider knows."""
    receipt, resumed = await in_transaction(call, lambda conn: receive_in(conn, token, body))
    if receipt is Receipt.UNKNOWN:
        raise unproved()
    return await received(call, receipt, resumed)


# By a signature.


async def by_signature(call: Call, provider: str, body: bytes) -> Answer:
    """Take what a provider signed; a message that came before changes nothing."""
    provider_id = normal_id(provider)
    way = proofs.way_of(provider_id)
    headers = call.request.headers
    now_s = time.time()  # noqa: TID251 - the sender's stamp is of a wall clock
    workspace_id = None
    if not proofs.is_proved(way, body, headers, secrets_of(call, provider_id, way), now_s=now_s):
        workspace_id = await signer_of(call, provider_id, way, body, now_s=now_s)
        if workspace_id is None:
            raise unproved()
    request_id = proofs.request_id_of(way, body)
    if request_id is None:
        wanted = " or ".join(way.request_keys)
        raise Problem(
            422,
            "no_request_id",
            f"The body names no request: {wanted} must be in a JSON object.",
            fields=[FieldProblem(way.request_keys[0], "is missing")],
        )
    event_id = proofs.event_id_of(body, headers)
    # What one workspace signs must not be taken for what came to another.
    source = credential_of(provider_id, workspace_id) if workspace_id else provider_id

    async def keep(conn: Connection) -> tuple[Receipt, Moved]:
        if not await incoming.is_first(conn, source=source, event_id=event_id):
            return Receipt.DUPLICATE, []
        return await receive_in(conn, (provider_id, request_id), body, workspace_id=workspace_id)

    return await received(call, *await in_transaction(call, keep))


def secrets_of(call: Call, provider_id: str, way: proofs.Way) -> tuple[str, ...]:
    """Return what a provider may sign with; nothing for one that nobody configured."""
    chosen = call.api.settings.providers.get(provider_id)
    if chosen is None:
        return ()
    if not chosen.webhook_secrets and way.signs_with_api_key and chosen.api_key is not None:
        return (chosen.api_key.get_secret_value(),)
    return chosen.webhook_secrets


async def signer_of(
    call: Call, provider_id: str, way: proofs.Way, body: bytes, *, now_s: float
) -> str | None:
    """Return the workspace that made the request and whose own key signed the answer to it."""
    request_id = proofs.request_id_of(way, body) if way.signs_with_api_key else None
    if request_id is None:
        return None
    sealer = await sealer_for(call)
    keys = await at_large(call, lambda conn: own_keys(conn, (provider_id, request_id)))
    signer = None
    for key in keys:
        try:
            secret = opened(sealer, key)
        except Unreadable as error:
            log.error("provider_key_unreadable", provider=provider_id, reason=error.message)
            continue
        if proofs.is_proved(way, body, call.request.headers, (secret,), now_s=now_s):
            signer = key.workspace_id
    return signer


def unproved() -> Problem:
    """Return the one answer to whoever did not prove himself."""
    metrics.webhook_came_in("refused")
    return Problem(401, "bad_signature", UNPROVED)


async def received(call: Call, receipt: Receipt, resumed: Moved) -> Answer:
    """Answer what was taken; wake a worker for jobs that go on, and tell who listens."""
    metrics.webhook_came_in(str(receipt))
    for workspace_id, job_id in resumed:
        note_changed(call, (job_id,), workspace_id=workspace_id)
    if receipt is Receipt.RESUMED:
        await call.api.hints.tell(1)
    return json_response({"receipt": str(receipt)}, 202)


async def in_transaction(
    call: Call, work: Callable[[Connection], Awaitable[tuple[Receipt, Moved]]]
) -> tuple[Receipt, Moved]:
    """Do it with the daemon's own rights: whose job it is for only the provider's word says."""

    async def whole(conn: Connection) -> tuple[Receipt, Moved]:
        async with conn.transaction():
            return await work(conn)

    return await again_after_races(lambda: at_large(call, whole))


# By a key.


async def by_key(call: Call, body: bytes) -> Answer:
    """Resume a parked job of the key's workspace with what is sent for it."""
    principal, headers = await call.api.gate.admit(call.request, Access.WRITE)
    assert principal is not None
    if call.api.buckets is not None:
        headers |= call.api.buckets.take(principal.key_id)
    told = event_in(body)
    data = dumps(told.data)
    event_id = key_of(call) or str(uuid7())
    own = Call(call.api, call.request, call.request_id, call.path, None, None, principal)

    async def resume(conn: Connection) -> Receipt:
        workspace_id, job_id = own.workspace_id, told.job_id
        status = await incoming.lock_job(conn, workspace_id=workspace_id, job_id=job_id)
        if status is None:
            raise JobNotFound(f"There is no job {job_id}.")
        if not await incoming.is_first(
            conn,
            source=f"{incoming.FROM_KEY} {job_id}",
            event_id=event_id,
            event=told.event,
            data=data,
            workspace_id=workspace_id,
            job_id=job_id,
        ):
            return Receipt.DUPLICATE
        if status is not JobStatus.WAITING:
            raise IllegalMove(
                f"job {job_id} is {status} and cannot become pending; only waiting jobs can"
            )
        await incoming.answer(conn, workspace_id=workspace_id, job_id=job_id, answer=data)
        await job_moves.resume(conn, job_id=job_id)
        return Receipt.RESUMED

    receipt = await in_workspace(own, resume)
    is_resumed = receipt is Receipt.RESUMED
    resumed = [(own.workspace_id, str(told.job_id))] if is_resumed else []
    answer = await received(call, receipt, resumed)
    answer.headers |= headers
    return answer


def event_in(body: bytes) -> IncomingEvent:
    """Return what a body says. Raises Problem 400 or 422 with the path of each bad field."""
    try:
        return EVENT_READER.validate_json(body)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    fields = [
        FieldProblem(".".join(str(part)[:100] for part in detail["loc"]), detail["msg"])
        for detail in details[:FIELDS_SHOWN_MAX]
    ]
    raise Problem(
        400 if details[0]["type"] == "json_invalid" else 422,
        "invalid_body",
        f"The body is wrong: {fields[0]}",
        fields=fields,
    )


def key_of(call: Call) -> str | None:
    """Return what makes this message one message, None if the sender does not say."""
    given = call.request.header("idempotency-key") or call.request.header("webhook-id")
    if not given:
        return None
    if len(given) > KEY_CHARS_MAX or not (given.isascii() and given.isprintable()):
        problem = f"must have 1 to {KEY_CHARS_MAX} printable characters"
        raise Problem(
            422,
            "invalid_header",
            f"Idempotency-Key {problem}.",
            fields=[FieldProblem("Idempotency-Key", problem)],
        )
    return given
