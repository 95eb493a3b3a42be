"""Answers that providers call back: an address that nobody can guess, and what came to it.

Providers do not sign what they post, so the address itself is the proof: 32 random bytes, of which
the database has the hash only. A callback may come early (before its request was noted), twice,
late, or never; whichever it is, the first body is kept and no job waits for ever.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias
from uuid import UUID

from enrichd.logs import get_logger
from enrichd.providers.operations import Operation
from enrichd.store import callbacks, job_moves, provider_keys
from enrichd.store.changes import Moved
from enrichd.store.database import Connection, Database, storing
from enrichd.store.provider_keys import ProviderKey

BODY_BYTES_MAX: Final = 1 << 20
TOKEN_BYTES: Final = 32
TOKEN_LENGTH_MAX: Final = 200
REQUEST_ID_LENGTH_MAX: Final = 500
PATH: Final = "/api/enrichment/webhook/"
"""Below CALLBACK_BASE_URL; the token follows."""

log = get_logger("providers")

ByRequest: TypeAlias = tuple[str, str]
"""(provider id, request id): for a provider that posts everything to one fixed address."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A callback that is listened for."""

    token: str
    url: str | None
    """Where the answer may be posted to; None: nothing reaches us, so it is polled for."""


@dataclass(frozen=True, slots=True)
class Received:
    """What was called back."""

    body: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing was called back yet."""

    request_id: str | None
    poll_due: bool
    deadline_s: float
    """How long it is still waited for; not positive when that is over."""


class Callbacks:
    """What the jobs of this process wait for."""

    def __init__(self, database: Database, *, base_url: str | None = None) -> None:
        self._database = database
        self._base_url = base_url.rstrip("/") if base_url else None

    async def expect(
        self,
        *,
        workspace_id: str,
        job_id: UUID,
        provider_id: str,
        operation: Operation,
        cache_key: bytes,
        deadline_s: float,
    ) -> Expected:
        """Listen for a job's callback; call it before the request is sent."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        async with self._database.connection() as conn:
            await callbacks.expect(
                conn,
                token_hash=hash_of(token),
                workspace_id=workspace_id,
                job_id=job_id,
                provider_id=provider_id,
                operation=operation,
                cache_key=cache_key,
                deadline_s=max(deadline_s, 1.0),
            )
        return Expected(token, f"{self._base_url}{PATH}{token}" if self._base_url else None)

    async def asked(self, token: str, *, request_id: str | None, poll_after_s: float) -> None:
        """Note what to ask for the answer by, and when the job is to come again."""
        kept = as_text(request_id.encode("utf-8", "replace")) if request_id is not None else None
        async with self._database.transaction() as conn:
            await callbacks.asked(
                conn,
                token_hash=hash_of(token),
                request_id=kept[:REQUEST_ID_LENGTH_MAX] if kept is not None else None,
                poll_after_s=max(poll_after_s, 0.0),
            )

    async def answer_for(self, job_id: UUID, cache_key: bytes) -> Received | Waiting | None:
        """Return how a job's question stands; None if nothing is listened for."""
        async with self._database.connection() as conn:
            standing = await callbacks.standing(conn, job_id=job_id, cache_key=cache_key)
        if standing is None:
            return None
        if standing.answer is not None:
            return Received(standing.answer)
        return Waiting(standing.request_id, standing.poll_due, standing.deadline_s)

    async def poll_again(self, job_id: UUID, cache_key: bytes, *, poll_after_s: float) -> None:
        """Note when the job is to come again."""
        async with self._database.connection() as conn:
            await callbacks.poll_again(
                conn, job_id=job_id, cache_key=cache_key, poll_after_s=max(poll_after_s, 0.0)
            )

    async def used(self, job_id: UUID, cache_key: bytes) -> None:
        """Listen no more."""
        async with self._database.connection() as conn:
            await callbacks.used(conn, job_id=job_id, cache_key=cache_key)


class Receipt(StrEnum):
    """What became of something that was posted to us."""

    RESUMED = "resumed"
    """Its job waited for it and goes on."""
    KEPT = "kept"
    """Its job is under way still, or has not noted the request yet: it finds it there."""
    DUPLICATE = "duplicate"
    LATE = "late"
    """Nobody waits for it any more."""
    UNKNOWN = "unknown"
    """Nobody gave that address out."""
    TOO_LARGE = "too_large"


async def receive_callback(database: Database, key: str | ByRequest, body: bytes) -> Receipt:
    """Keep what a provider called back and resume its job; the same again changes nothing.

    `key` is the address's token or, for a provider whose sender was proved in another way, the
    (provider, request id) that its body names. The body is not looked into: reading it is the
    adapter's business, and hostile text may cost no more than its own job. Raises Unavailable.
    """
    async with database.transaction() as conn:
        return (await receive_in(conn, key, body))[0]


async def receive_in(
    conn: Connection, key: str | ByRequest, body: bytes, *, workspace_id: str | None = None
) -> tuple[Receipt, Moved]:
    """Do the same inside the caller's transaction; return what was resumed, too.

    With a workspace it is for that one's jobs alone.
    """
    if len(body) > BODY_BYTES_MAX:
        return Receipt.TOO_LARGE, []
    if isinstance(key, str) and not (key.isascii() and 0 < len(key) <= TOKEN_LENGTH_MAX):
        return Receipt.UNKNOWN, []
    answer = as_text(body)
    answered = await storing(lambda: _keep(conn, key, answer, workspace_id))
    resumed = [
        job
        for job in sorted(set(answered), key=lambda job: job[1])
        if await job_moves.resume(conn, job_id=UUID(job[1]))
    ]
    if answered:
        receipt = Receipt.RESUMED if resumed else Receipt.KEPT
    elif workspace_id is not None:
        receipt = Receipt.DUPLICATE  # Its request is known, so this was answered, or given up.
    else:
        receipt = await _no_news(conn, key, answer)
    log.info("callback_received", receipt=str(receipt), size_bytes=len(body))
    return receipt, resumed


async def _keep(
    conn: Connection, key: str | ByRequest, answer: str, workspace_id: str | None
) -> Moved:
    if isinstance(key, str):
        return await callbacks.receive(conn, token_hash=hash_of(key), answer=answer)
    provider_id, request_id = key[0], _request_id(key)
    return await callbacks.receive_by_request(
        conn,
        provider_id=provider_id,
        request_id=request_id,
        answer=answer,
        workspace_id=workspace_id,
    )


async def own_keys(conn: Connection, key: ByRequest) -> list[ProviderKey]:
    """Return the keys of a provider that the workspaces of a request have brought along."""
    return await provider_keys.of_request(conn, provider_id=key[0], request_id=_request_id(key))


async def _no_news(conn: Connection, key: str | ByRequest, answer: str) -> Receipt:
    """Say why nobody was told."""
    if isinstance(key, str):
        state = await callbacks.state(conn, token_hash=hash_of(key))
    else:
        state = await callbacks.state_by_request(
            conn, provider_id=key[0], request_id=_request_id(key)
        )
    match state:
        case "expired":
            return Receipt.LATE
        case None if isinstance(key, tuple):
            await callbacks.keep_early(
                conn,
                token_hash=hash_of(f"early {len(key[0])} {key[0]} {_request_id(key)}"),
                provider_id=key[0],
                request_id=_request_id(key),
                answer=answer,
            )
            return Receipt.KEPT
        case None:
            return Receipt.UNKNOWN
        case _:
            return Receipt.DUPLICATE


def _request_id(key: ByRequest) -> str:
    return as_text(key[1].encode("utf-8", "replace"))[:REQUEST_ID_LENGTH_MAX]


def as_text(body: bytes) -> str:
    """Return bytes as text that a column takes: what is no UTF-8, and NUL, becomes U+FFFD."""
    return body.decode("utf-8", "replace").replace("\0", "\ufffd")


def hash_of(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode()).digest()
