"""Secrets that are kept in the database, sealed: AES-GCM under a key that is not kept there.

What a secret belongs to is part of the seal, so that a sealed key cannot be moved to another row.
Several keys may be in force: the first one seals, every one opens, and sealing anew is how an old
one is retired.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from enrichd.errors import Invalid
from enrichd.settings import Settings
from enrichd.settings.values import parsed_secret_keys

NONCE_BYTES: Final = 12
INSTALLATION: Final = "installation"
"""The id of the key made of the database's own secret: it guards against a leaked table only."""


class Unreadable(Invalid):
    """A sealed secret cannot be opened with the keys in force."""

    code = "secret_unreadable"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A secret as it is kept."""

    sealed: bytes
    sealed_with: str
    """The id of the key that opens it."""


class Sealer:
    """Seals and opens secrets with the keys in force."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        assert keys
        self._keys = {name: AESGCM(key) for name, key in keys.items()}
        self.sealing_key = next(iter(keys))
        """The id of the key that seals now."""

    def seal(self, secret: str, *, purpose: str) -> Sealed:
        """Return a secret sealed; `purpose` says what it is for, and whose."""
        nonce = os.urandom(NONCE_BYTES)
        box = self._keys[self.sealing_key].encrypt(nonce, secret.encode(), purpose.encode())
        return Sealed(nonce + box, self.sealing_key)

    def open(self, kept: Sealed, *, purpose: str) -> str:
        """Return the secret. Raises Unreadable when its key is not there or it is another's."""
        key = self._keys.get(kept.sealed_with)
        if key is None:
            raise Unreadable(
                f"a secret is sealed with the key {kept.sealed_with!r}, which is not among"
                " ENRICHD_SECRET_KEYS",
                hint="Add the key, or store the secret again.",
            )
        nonce, box = kept.sealed[:NONCE_BYTES], kept.sealed[NONCE_BYTES:]
        try:
            return key.decrypt(nonce, box, purpose.encode()).decode()
        except (InvalidTag, ValueError):
            raise Unreadable(
                f"a secret does not open with the key {kept.sealed_with!r}",
                hint="ENRICHD_SECRET_KEYS may have another key of that name.",
            ) from None


def sealer_of(settings: Settings, pepper: bytes) -> Sealer:
    """Return the keys of ENRICHD_SECRET_KEYS, and after them the installation's own.

    Without any configured, the installation's key seals: a dump of the whole database opens it.
    """
    keys: dict[str, bytes] = {}
    if settings.secret_keys is not None:
        keys.update(parsed_secret_keys(settings.secret_keys.get_secret_value()))
    keys.setdefault(INSTALLATION, installation_key(pepper))
    return Sealer(keys)


def installation_key(pepper: bytes) -> bytes:
    """Return the key that is derived of the installation's secret."""
    return HKDF(hashes.SHA256(), 32, salt=None, info=b"enrichd sealing").derive(pepper)
