"""API keys: `enr_`, 8 characters that are public, `_`, 43 that are secret, 6 that check the rest.

The secret has 256 random bits. The check tells a key from a typing error without the database, and
lets scanners of leaked secrets be sure of what they found.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection
from hashlib import sha256
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SHAPE: Final = re.compile(r"enr_([0-9A-Za-z]{8})_[0-9A-Za-z]{43}([0-9A-Za-z]{6})")
ID_CHARS: Final = 8
SECRET_CHARS: Final = 43
CHECK_CHARS: Final = 6
ID_RANDOM_BELOW: Final = 62**ID_CHARS
SECRET_BITS: Final = 256

SCOPES: Final = ("read", "write", "admin")
"""Each has those before it in it."""


def key_of(random_id: int, random_secret: int) -> str:
    """Return the key made of a random number below ID_RANDOM_BELOW and one of SECRET_BITS."""
    start = f"enr_{base62(random_id, ID_CHARS)}_{base62(random_secret, SECRET_CHARS)}"
    return start + check_of(start)


def id_of(key: str) -> str | None:
    """Return a key's public part, None for a text that is no key."""
    shape = SHAPE.fullmatch(key)
    if shape is None or check_of(key[:-CHECK_CHARS]) != shape[2]:
        return None
    return shape[1]


def shown_id(text: str) -> str:
    """Return the public part of what a person gives for a key: that part alone or with `enr_`."""
    return text.removeprefix("enr_").partition("_")[0]


def hash_of(key: str) -> bytes:
    """Return what is stored of a key."""
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def with_implied(scopes: Collection[str]) -> frozenset[str]:
    """Return scopes with those that are in them: write may read, admin may do everything."""
    highest = max((SCOPES.index(scope) for scope in scopes), default=-1)
    return frozenset(SCOPES[: highest + 1])


def check_of(start: str) -> str:
    """Return the six characters that follow the rest of a key."""
    return base62(zlib.crc32(start.encode()), CHECK_CHARS)


def base62(number: int, chars: int) -> str:
    """Return a number in base 62, padded on the left."""
    digits = ""
    for _ in range(chars):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    assert number == 0, "the number has more digits"
    return digits
