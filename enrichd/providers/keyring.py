"""Whose key a workspace's questions go with: its own if it has brought one, else the common one.

A *credential* is what that makes of a provider's id: `hunter` with the key of the environment,
`hunter#acme` with the one that the workspace `acme` brought. Limits and breakers go by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pydantic import SecretStr

from enrichd.errors import Invalid, InvalidSetting
from enrichd.logs import get_logger, register_secret
from enrichd.providers.kept_answers import KeptAnswers
from enrichd.settings.providers import ProviderSettings
from enrichd.store import provider_keys, provider_state
from enrichd.store.database import Connection, Database, storing
from enrichd.store.installation import Installation
from enrichd.store.provider_keys import ProviderKey
from enrichd.store.sealing import INSTALLATION, Sealer, Unreadable

KEEP_S: Final = 30.0
"""How long a process goes on with what it knows of a workspace's keys."""
WORKSPACES_MAX: Final = 10_000
RESEAL_BATCH: Final = 100
HINT_KEY_LENGTH_MIN: Final = 16
"""Of a shorter key not even the end is told."""
KEY_LENGTH_MAX: Final = 1024

log = get_logger("providers")


class Keyring:
    """One process's way to the workspaces' keys."""

    def __init__(
        self,
        database: Database,
        installation: Installation,
        settings_of: Callable[[str], ProviderSettings],
        *,
        keep_s: float = KEEP_S,
    ) -> None:
        self._database = database
        self._installation = installation
        self._settings_of = settings_of
        self._keep_s = keep_s
        self._kept: KeptAnswers[Mapping[str, str | Unreadable]] = KeptAnswers(
            kept_max=WORKSPACES_MAX
        )

    async def settings_for(
        self, provider_id: str, workspace_id: str
    ) -> tuple[str, ProviderSettings]:
        """Return the credential that a workspace asks a provider with, and its settings.

        Raises Unreadable when it has brought a key that cannot be opened: its questions must not
        go with somebody else's. Raises Unavailable when PostgreSQL is away.
        """
        keys = await self._kept.get(workspace_id, lambda: self._look_up(workspace_id))
        key = keys.get(provider_id)
        settings = self._settings_of(provider_id)
        if key is None:
            return provider_id, settings
        if isinstance(key, Unreadable):
            raise Unreadable(key.message, hint=key.hint)
        return credential_of(provider_id, workspace_id), settings.model_copy(
            update={"api_key": SecretStr(key)}
        )

    async def _look_up(self, workspace_id: str) -> tuple[Mapping[str, str | Unreadable], float]:
        sealer = await self._installation.sealer()
        async with self._database.connection() as conn:
            rows = await provider_keys.of_workspace(conn, workspace_id=workspace_id)
        found: dict[str, str | Unreadable] = {}
        for row in rows:
            try:
                found[row.provider_id] = opened(sealer, row)
            except Unreadable as error:
                log.error(
                    "provider_key_unreadable",
                    workspace=workspace_id,
                    provider=row.provider_id,
                    reason=error.message,
                )
                found[row.provider_id] = error
        return found, self._keep_s


def credential_of(provider_id: str, workspace_id: str) -> str:
    """Return the credential of a workspace's own key."""
    return f"{provider_id}#{workspace_id}"


def opened(sealer: Sealer, row: ProviderKey) -> str:
    """Return a kept key, and see to it that no log ever has it. Raises Unreadable."""
    try:
        key = sealer.open(row.kept, purpose=purpose_of(row.workspace_id, row.provider_id))
    except Unreadable as error:
        whose = f"the key of workspace {row.workspace_id} for {row.provider_id}"
        raise Unreadable(f"{whose} cannot be used: {error.message}", hint=error.hint) from error
    register_secret(key)
    return key


def purpose_of(workspace_id: str, provider_id: str) -> str:
    """Return what a key is bound to, so that it opens in its own row only."""
    return f"provider key {len(workspace_id)} {workspace_id} {provider_id}"


def sealed(sealer: Sealer, *, workspace_id: str, provider_id: str, key: str) -> ProviderKey:
    """Return a key as it may be kept.

    Raises InvalidSetting without ENRICHD_SECRET_KEYS: what the database itself could open would
    protect nobody whose backup is stolen.
    """
    if sealer.sealing_key == INSTALLATION:
        raise InvalidSetting(
            "ENRICHD_SECRET_KEYS is not set: a provider's key is not kept unsealed",
            hint="Make one on every host: k1:$(head -c 32 /dev/urandom | base64).",
        )
    kept = sealer.seal(key, purpose=purpose_of(workspace_id, provider_id))
    hint = key[-4:] if len(key) >= HINT_KEY_LENGTH_MIN else ""
    return ProviderKey(workspace_id, provider_id, kept, hint)


async def set_key(
    conn: Connection, sealer: Sealer, *, workspace_id: str, provider_id: str, key: str
) -> bool:
    """Keep a workspace's key sealed; return whether it had none.

    Raises Invalid for what cannot be a key, InvalidSetting when there is nothing to seal it with.
    """
    if not 1 <= len(key) <= KEY_LENGTH_MAX or not key.isascii() or not key.isprintable():
        raise Invalid(f"a key has 1 to {KEY_LENGTH_MAX} visible ASCII characters")
    if " " in key:
        raise Invalid("a key has no spaces")
    register_secret(key)
    row = sealed(sealer, workspace_id=workspace_id, provider_id=provider_id, key=key)
    is_first = await storing(lambda: provider_keys.put(conn, row))
    # Once no process has the one before any more, which may have been refused.
    await provider_state.probe_soon(
        conn, credential=credential_of(provider_id, workspace_id), in_s=2 * KEEP_S
    )
    return is_first


@dataclass(frozen=True, slots=True)
class Rotation:
    """What became of the keys that another secret had sealed."""

    resealed: int = 0
    unreadable: int = 0
    """No secret that is set opens them; they were left as they are."""


async def rotate(database: Database, sealer: Sealer, *, batch: int = RESEAL_BATCH) -> Rotation:
    """Seal every key with the first secret. May be cut off at any moment and run again.

    Raises InvalidSetting when no secret is set.
    """
    # Said at once, and not only when there is a row to seal.
    sealed(sealer, workspace_id="", provider_id="", key="")
    done, after = Rotation(), ("", "")
    while True:
        async with database.transaction() as conn:
            rows = await provider_keys.next_to_reseal(
                conn, sealed_with=sealer.sealing_key, after=after, limit=batch
            )
            for row in rows:
                try:
                    key = opened(sealer, row)
                except Unreadable:
                    done = replace(done, unreadable=done.unreadable + 1)
                    continue
                owner = {"workspace_id": row.workspace_id, "provider_id": row.provider_id}
                await provider_keys.reseal(conn, sealed(sealer, **owner, key=key))
                done = replace(done, resealed=done.resealed + 1)
        if len(rows) < batch:
            return done
        after = (rows[-1].workspace_id, rows[-1].provider_id)
