"""Signatures as Standard Webhooks 1.0.0 has them: HMAC-SHA256 over `id.timestamp.body`.

A secret is written `whsec_` and base64. A header may carry several signatures, one for each secret
in force, which is how a secret is changed without a message lost.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Final

from enrichd.errors import Invalid

PREFIX: Final = "whsec_"
KEY_BYTES: Final = 32
KEY_BYTES_MIN: Final = 24
KEY_BYTES_MAX: Final = 64


def new_secret() -> str:
    """Return a fresh secret."""
    return secret_of(secrets.token_bytes(KEY_BYTES))


def secret_of(key: bytes) -> str:
    """Return a key as a secret is written."""
    return PREFIX + b64encode(key).decode()


def key_of(secret: str) -> bytes:
    """Return the bytes that a secret signs with. Raises Invalid."""
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise Invalid(
            f"a webhook secret is {PREFIX} and {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes in base64"
        )
    return key


def signatures(keys: Sequence[bytes], *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each key."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(
        "v1," + b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys
    )
