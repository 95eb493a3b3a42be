"""Proofs that a webhook is a provider's: how each signs, as data.

Every way to sign is tried with every secret, and all of it is always computed, so that the time an
answer takes says nothing about what was wrong: an unknown provider is tried with a key that nobody
has. Signatures are compared as bytes; text that is no ASCII would make the comparison raise.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets as random_secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

TOLERANCE_S: Final = 300.0
"""How far a time stamp may be from our clock, both ways."""
SIGNATURES_MAX: Final = 10
"""How many signatures of one header are looked at."""
REQUEST_ID_LENGTH_MAX: Final = 500
EVENT_ID_LENGTH_MAX: Final = 255
WHSEC: Final = "whsec_"
NOBODYS_KEY: Final = random_secrets.token_hex(32)

Headers: TypeAlias = Mapping[str, str]
"""By lower-case name."""
Check: TypeAlias = Callable[[bytes, Headers, str, float], bool]
"""Says whether a body and its headers are signed with a secret, at a time in Unix seconds."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a provider proves itself, and where its messages name what they answer."""

    checks: Sequence[Check]
    request_keys: Sequence[str]
    """Fields of the body that may name our request; the first one that is there counts."""
    signs_with_api_key: bool = False
    """Whether the secret is the API key, unless another one is set."""


def sha1_of_key(body: bytes, headers: Headers, secret: str, _now_s: float) -> bool:
    """Check Clearbit's `X-Request-Signature: sha1=…`, whose key goes without `sk_` or `pk_`."""
    key = secret[3:] if secret.startswith(("sk_", "pk_")) else secret
    right = "sha1=" + hmac.digest(key.encode(), body, hashlib.sha1).hex()
    return is_same(right, headers.get("x-request-signature", ""))


def sha1(body: bytes, headers: Headers, secret: str, _now_s: float) -> bool:
    """Check `X-Signature-SHA1: …`, in hexadecimal digits."""
    return is_signed(body, headers, secret, "sha1")


def sha256(body: bytes, headers: Headers, secret: str, _now_s: float) -> bool:
    """Check `X-Signature-SHA256: …`, in hexadecimal digits."""
    return is_signed(body, headers, secret, "sha256")


def is_signed(body: bytes, headers: Headers, secret: str, algorithm: str) -> bool:
    """Say whether `X-Signature-<algorithm>` is the HMAC of a body; its name may stand in front."""
    given = headers.get(f"x-signature-{algorithm}", "").removeprefix(f"{algorithm}=")
    return is_same(hmac.digest(secret.encode(), body, algorithm).hex(), given)


def standard_webhooks(body: bytes, headers: Headers, secret: str, now_s: float) -> bool:
    """Check Standard Webhooks 1.0.0: `webhook-signature` over the id, the time and the body."""
    message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    signed = f"{message_id}.{stamp}.".encode("utf-8", "replace") + body
    right = "v1," + b64encode(hmac.digest(standard_key(secret), signed, hashlib.sha256)).decode()
    given = headers.get("webhook-signature", "").split(" ")[:SIGNATURES_MAX]
    matches = [is_same(right, one) for one in given]
    return any(matches) and bool(message_id) and is_fresh(stamp, now_s)


def standard_key(secret: str) -> bytes:
    """Return the bytes of a secret: what follows `whsec_` is base64, another one is as it is."""
    if secret.startswith(WHSEC):
        try:
            return b64decode(secret.removeprefix(WHSEC), validate=True)
        except (binascii.Error, ValueError):
            pass
    return secret.encode()


def is_fresh(stamp: str, now_s: float) -> bool:
    """Say whether a time stamp in Unix seconds is near our own clock."""
    is_number = stamp.isascii() and stamp.isdecimal() and len(stamp) <= 12
    return is_number and abs(int(stamp) - now_s) <= TOLERANCE_S


def is_same(right: str, given: str) -> bool:
    """Compare in a time that does not depend on where they differ."""
    return hmac.compare_digest(right.encode(), given.strip().encode("utf-8", "replace"))


GENERIC: Final = Way(
    (standard_webhooks, sha256, sha1),
    ("request_id", "requestId", "enrichment_id", "enrichmentId", "id"),
)
WAYS: Final[Mapping[str, Way]] = {
    "clearbit": Way((sha1_of_key,), ("id",), signs_with_api_key=True),
    "fullenrich": Way((sha1, sha256), ("enrichment_id", "id"), signs_with_api_key=True),
}
"""Providers with a way of their own; everybody else may use any of the generic ones."""


def way_of(provider_id: str) -> Way:
    """Return how a provider proves itself."""
    return WAYS.get(provider_id, GENERIC)


def is_proved(
    way: Way, body: bytes, headers: Headers, secrets: Sequence[str], *, now_s: float
) -> bool:
    """Say whether any of the secrets signed this; no secret means no, after the same work."""
    results = [
        check(body, headers, secret, now_s)
        for secret in secrets or (NOBODYS_KEY,)
        for check in way.checks
    ]
    return any(results) and bool(secrets)


def request_id_of(way: Way, body: bytes) -> str | None:
    """Return our request that a message answers, None if it names none or is no JSON object."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    for key in way.request_keys:
        found = document.get(key)
        if isinstance(found, int) and not isinstance(found, bool):
            found = str(found)
        if isinstance(found, str) and 1 <= len(found) <= REQUEST_ID_LENGTH_MAX:
            return found
    return None


def event_id_of(body: bytes, headers: Headers) -> str:
    """Return what makes a message one message: its id where it has one, else its bytes."""
    given = headers.get("webhook-id", "")
    if given and len(given) <= EVENT_ID_LENGTH_MAX and given.isprintable() and given.isascii():
        return given
    return hashlib.sha256(body).hexdigest()
