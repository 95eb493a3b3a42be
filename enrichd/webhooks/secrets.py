"""The secrets that webhooks are signed with: an endpoint's own, and a workspace's for its jobs.

An endpoint's are kept sealed in its row. A job's own webhookUrl has no row, so what goes there is
signed with a secret of the workspace, made of the keys in ENRICHD_SECRET_KEYS, or of the
installation's own where none is set: every key in force signs, so keys are changed by putting the
new one first and taking the old one out later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from enrichd.settings import Settings
from enrichd.settings.values import parsed_secret_keys
from enrichd.store.sealing import Sealed, Sealer, installation_key
from enrichd.store.webhooks import unkept
from enrichd.webhooks.signing import KEY_BYTES, key_of, secret_of


def purpose_of(webhook_id: UUID) -> str:
    """Return what an endpoint's secret is sealed for."""
    return f"webhook {webhook_id}"


def endpoint_keys(
    kept: str, *, webhook_id: UUID, sealer: Sealer, now: datetime
) -> tuple[bytes, ...]:
    """Return the keys of an endpoint that are in force, newest first. Raises Unreadable."""
    entries: Sequence[Mapping[str, Any]] = json.loads(kept)
    return tuple(
        key_of(sealer.open(opened(entry), purpose=purpose_of(webhook_id)))
        for entry in entries
        if entry["until"] is None or datetime.fromisoformat(entry["until"]) > now
    )


def opened(entry: Mapping[str, Any]) -> Sealed:
    """Return one sealed secret of the column."""
    return unkept(dict(entry))


class JobSecrets:
    """The secrets for jobs' own URLs, by workspace."""

    def __init__(self, settings: Settings, pepper: bytes) -> None:
        configured: Mapping[str, bytes] = {}
        if settings.secret_keys is not None:
            configured = parsed_secret_keys(settings.secret_keys.get_secret_value())
        self._roots = list(configured.values()) or [installation_key(pepper)]

    def keys(self, workspace_id: str) -> tuple[bytes, ...]:
        """Return the keys that sign for a workspace's jobs, the newest first."""
        info = b"enrichd job webhooks " + workspace_id.encode()
        return tuple(
            HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(root)
            for root in self._roots
        )

    def secret(self, workspace_id: str) -> str:
        """Return the newest of them as a receiver is given it."""
        return secret_of(self.keys(workspace_id)[0])
