"""Which questions have an answer in the cache already, for an estimate of what a job costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from enrichd.store.answers import bytes_array
from enrichd.store.database import Connection

BATCH = 5_000

KNOWN: LiteralString = """
    select kept.provider_id, kept.cache_key
      from unnest(%(keys)s::bytea[]) as asked(cache_key)
      join enrichment_provider_cache as kept
        on kept.workspace_id = %(workspace_id)s
       and kept.cache_key = asked.cache_key
     where kept.outcome in ('found', 'noMatch', 'suppressed')
       and (kept.expires_at is null or kept.expires_at > now())
"""


async def known(
    conn: Connection, *, workspace_id: str, keys: Sequence[tuple[str, bytes]]
) -> set[tuple[str, bytes]]:
    """Return which of some (provider, key) a workspace has a fresh answer to."""
    found: set[tuple[str, bytes]] = set()
    unique = list(dict.fromkeys(key for _, key in keys))
    for start in range(0, len(unique), BATCH):
        part = bytes_array(unique[start : start + BATCH])
        cursor = await conn.execute(KNOWN, {"keys": part, "workspace_id": workspace_id})
        found.update((provider_id, bytes(key)) for provider_id, key in await cursor.fetchall())
    return found
