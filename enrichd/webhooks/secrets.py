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
from functools import lru_cache
from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from enrichd.settings import Settings
from enrichd.settings.values import parsed_secret_keys
from enrichd.store.deliveries import Due
from enrichd.store.installation import Installation
from enrichd.store.sealing import Sealer, installation_key
from enrichd.store.webhooks import unkept
from enrichd.webhooks.signing import KEY_BYTES, key_of, secret_of


def purpose_of(webhook_id: UUID) -> str:
    """Return what an endpoint's secret is sealed for."""
    return f"webhook {webhook_id}"


class JobSecrets:
    """The secrets for jobs' own URLs, by workspace."""

    def __init__(self, settings: Settings, pepper: bytes) -> None:
        configured: Mapping[str, bytes] = {}
        if settings.secret_keys is not None:
            configured = parsed_secret_keys(settings.secret_keys.get_secret_value())
        self._roots = list(configured.values()) or [installation_key(pepper)]

    def keys(self, workspace_id: str) -> tuple[bytes, ...]:
        """Return the keys that sign for a workspace's jobs, the newest first."""
        return tuple(derived(root, workspace_id) for root in self._roots)

    def secret(self, workspace_id: str) -> str:
        """Return the newest of them as a receiver is given it."""
        return secret_of(self.keys(workspace_id)[0])


@lru_cache(maxsize=10_000)
def derived(root: bytes, workspace_id: str) -> bytes:
    """Return the key of a workspace that comes of one of the installation's."""
    info = b"enrichd job webhooks " + workspace_id.encode()
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(root)


KEPT_MAX = 10_000


class SigningKeys:
    """The keys of deliveries: opened once, kept while the row has the same secrets."""

    def __init__(self, settings: Settings, installation: Installation) -> None:
        self._settings = settings
        self._installation = installation
        self._jobs: JobSecrets | None = None
        self._opened: dict[str, list[tuple[bytes, datetime | None]]] = {}

    async def __call__(self, due: Due, now: datetime) -> Sequence[bytes]:
        """Return the keys in force for a delivery. Raises Unreadable and Unavailable."""
        if due.secrets is None or due.webhook_id is None:
            if self._jobs is None:
                self._jobs = JobSecrets(self._settings, await self._installation.pepper())
            return self._jobs.keys(due.workspace_id)
        entries = self._opened.get(due.secrets)
        if entries is None:
            entries = opened(due.secrets, due.webhook_id, await self._installation.sealer())
            if len(self._opened) >= KEPT_MAX:
                self._opened.clear()
            self._opened[due.secrets] = entries
        return [key for key, until in entries if until is None or until > now]


def opened(secrets: str, webhook_id: UUID, sealer: Sealer) -> list[tuple[bytes, datetime | None]]:
    """Return an endpoint's keys, newest first, and until when each signs. Raises Unreadable."""
    return [
        (
            key_of(sealer.open(unkept(entry), purpose=purpose_of(webhook_id))),
            entry["until"] and datetime.fromisoformat(entry["until"]),
        )
        for entry in json.loads(secrets)
    ]
