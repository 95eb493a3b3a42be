"""Who is calling: a workspace's key, or the one who knows CRON_SECRET.

A key's answer is kept for a few seconds, so that a busy key costs no query a request and a revoked
one is refused within that time. Strangers are told one sentence, whatever is wrong with what they
showed, and how often they may try is limited by address.
"""

from __future__ import annotations

import contextlib
import hmac
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from enrichd.api.failed_attempts import FailedAttempts
from enrichd.api.messages import Request
from enrichd.api.problems import Problem
from enrichd.api.routing import Access, Principal
from enrichd.domain.api_keys import hash_of, id_of, with_implied
from enrichd.domain.recent import Recent
from enrichd.errors import EnrichdError
from enrichd.logs import get_logger
from enrichd.store import api_keys
from enrichd.store.tenancy import Tenants

FRESH_S: Final = 4.0
"""How long what was read of a key holds: with the time of a request under the five promised."""
KNOWN_MAX: Final = 10_000
STRANGERS_MAX: Final = 10_000
CRON_SECRET_BYTES_MIN: Final = 16
AUTHORIZATION_CHARS_MAX: Final = 1_000
REALM: Final = 'Bearer realm="enrichd"'
NO_HASH: Final = bytes(32)

log = get_logger("api")


@dataclass(frozen=True, slots=True)
class Known:
    """A key that was good when it was last read."""

    principal: Principal
    fresh_until: float


class KeyGate:
    """Lets callers in by their key."""

    def __init__(
        self,
        tenants: Tenants,
        cron_secret: str | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tenants = tenants
        self._cron_secret = (cron_secret or "").encode("utf-8", "surrogateescape")
        self._clock = clock
        self._known: Recent[bytes, Known] = Recent(KNOWN_MAX)
        """By the hash of the whole key. Stale ones stay: they may be looked up at any time."""
        self._strangers: Recent[bytes, float] = Recent(STRANGERS_MAX)
        """Until when a key that is not good need not be looked up again."""
        self._failed = FailedAttempts(clock=clock)

    async def admit(
        self, request: Request, access: Access
    ) -> tuple[Principal | None, dict[str, str]]:
        """Return the caller, None on a route that needs no key, and headers for the answer.

        Raises Problem: 401 for no key or a bad one, 403 for one that may not do this, 429 after too
        many bad ones, 503 if CRON_SECRET is wanted and unset.
        """
        if access in (Access.OPEN, Access.SIGNED):
            return None, {}
        if access is Access.CRON:
            self._admit_cron(request)
            return None, {}
        principal = await self._principal(request)
        if access.value not in principal.scopes:
            raise Problem(
                403,
                "missing_scope",
                f"This key may not do that: it lacks the scope {access}.",
                headers={
                    "WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{access}"'
                },
            )
        return principal, {}

    async def _principal(self, request: Request) -> Principal:
        shown = bearer_of(request)
        if shown is None:
            raise Problem(
                401,
                "missing_key",
                "Send an API key: Authorization: Bearer enr_…",
                headers={"WWW-Authenticate": REALM},
            )
        key_hash, now = hash_of(shown), self._clock()
        known = self._known.get(key_hash)
        if known is not None and now < known.fresh_until:
            return known.principal
        if known is None:
            # Only of strangers: who had a good key goes on, whatever else comes from his address.
            wait_s = self._failed.wait_s(request.client)
            if wait_s > 0.0:
                raise too_many(wait_s)
        key_id = id_of(shown)
        if key_id is None or self._strangers.get(key_hash, 0.0) > now:
            raise self._refuse(request, key_hash)
        found = await self._read(key_id, key_hash)
        if found is None:
            raise self._refuse(request, key_hash)
        self._known.put(key_hash, found)
        return found.principal

    async def _read(self, key_id: str, key_hash: bytes) -> Known | None:
        """Return what the database says of a key now, None if it is not good."""
        async with self._tenants.of_nobody() as conn:
            began = self._clock()
            row = await api_keys.find(conn, key_id)
            stored = row.key_hash if row else NO_HASH
            if not hmac.compare_digest(stored, key_hash) or row is None:
                return None
            if not row.is_noted:
                # A note that cannot be made is no reason to refuse somebody.
                with contextlib.suppress(EnrichdError):
                    await api_keys.note_use(conn, key_id)
        holds_s = FRESH_S if row.good_for_s is None else min(FRESH_S, row.good_for_s)
        principal = Principal(row.workspace_id, key_id, with_implied(row.scopes))
        return Known(principal, began + holds_s)

    def _refuse(self, request: Request, key_hash: bytes) -> Problem:
        """Count a bad key and return the answer to it."""
        self._known.drop(key_hash)
        self._strangers.put(key_hash, self._clock() + FRESH_S)
        self._count(request, "key_refused")
        return Problem(
            401,
            "invalid_key",
            "The API key is not valid.",
            headers={"WWW-Authenticate": f'{REALM}, error="invalid_token"'},
        )

    def _admit_cron(self, request: Request) -> None:
        """Raise Problem unless the caller knows CRON_SECRET."""
        if len(self._cron_secret) < CRON_SECRET_BYTES_MIN:
            raise Problem(
                503,
                "cron_secret_unset",
                "This route is closed until CRON_SECRET is set, with 16 characters or more.",
            )
        shown = (bearer_of(request) or "").encode("utf-8", "surrogateescape")
        # Of hashes, so that the time tells nothing about the length either.
        if hmac.compare_digest(sha256(shown).digest(), sha256(self._cron_secret).digest()):
            return
        wait_s = self._failed.wait_s(request.client)
        if wait_s > 0.0:
            raise too_many(wait_s)
        self._count(request, "cron_secret_refused")
        raise Problem(
            401,
            "invalid_secret",
            "Send CRON_SECRET: Authorization: Bearer …",
            headers={"WWW-Authenticate": REALM},
        )

    def _count(self, request: Request, event: str) -> None:
        """Count a failed attempt; the log has a line for the first of many."""
        if self._failed.add(request.client):
            log.warning(event, client=request.client)


def bearer_of(request: Request) -> str | None:
    """Return what the Authorization header bears, None without one."""
    given = request.header("authorization")
    scheme, _, shown = given[:AUTHORIZATION_CHARS_MAX].partition(" ")
    shown = shown.strip(" ")
    return shown if scheme.lower() == "bearer" and shown else None


def too_many(wait_s: float) -> Problem:
    """Return the answer to an address that has shown too many bad keys."""
    seconds = max(math.ceil(wait_s), 1)
    return Problem(
        429,
        "too_many_failures",
        f"Too many requests without a valid key; try again in {seconds} s.",
        headers={"Retry-After": str(seconds)},
    )
