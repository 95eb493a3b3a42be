"""API keys that tests know by short names; `text_of` gives what a client shows."""

from __future__ import annotations

from enrichd.domain.api_keys import hash_of, id_of, key_of
from enrichd.store import api_keys
from enrichd.store.database import Connection

ALL = ("read", "write", "admin")
KEYS: dict[str, tuple[str, tuple[str, ...], float | None]] = {
    "key-a": ("team-a", ALL, None),
    "key-b": ("team-b", ALL, None),
    "key-reads": ("team-a", ("read",), None),
    "key-expired": ("team-a", ALL, -1.0),
    "key-revoked": ("team-a", ALL, None),
    "key-gone": ("team-a", ALL, None),
}
"""Workspace, scopes and seconds until the end of each."""

TEXTS = {name: key_of(place, place) for place, name in enumerate(KEYS, start=1)}


def text_of(name: str) -> str:
    """Return a key as it is shown; a text that names none is shown as it is."""
    return TEXTS.get(name, name)


async def make_keys(conn: Connection) -> None:
    """Put the keys into a database."""
    for name, (workspace_id, scopes, keep_s) in KEYS.items():
        await api_keys.insert(
            conn,
            key_id=key_id_of(name),
            workspace_id=workspace_id,
            name=name,
            key_hash=hash_of(text_of(name)),
            scopes=scopes,
            keep_s=keep_s,
        )
    await revoke(conn, "key-revoked")


async def revoke(conn: Connection, name: str) -> None:
    """Revoke one of the keys."""
    await api_keys.revoke(conn, workspace_id=KEYS[name][0], key_id=key_id_of(name))


def key_id_of(name: str) -> str:
    """Return a key's public part."""
    found = id_of(text_of(name))
    assert found is not None
    return found
