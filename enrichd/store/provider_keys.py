"""Providers' keys that workspaces bring along; sealed before they come here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from enrichd.store.arrays import text_array
from enrichd.store.database import Connection
from enrichd.store.sealing import Sealed


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """One key as it is kept."""

    workspace_id: str
    provider_id: str
    kept: Sealed
    hint: str = ""
    """Its last characters, to tell keys apart."""


PUT: LiteralString = """
    insert into enrichment_provider_keys as known
           (workspace_id, provider_id, sealed, sealed_with, hint)
    values (%(workspace_id)s, %(provider_id)s, %(sealed)s, %(sealed_with)s, %(hint)s)
        on conflict (workspace_id, provider_id) do update
       set sealed = excluded.sealed, sealed_with = excluded.sealed_with, hint = excluded.hint,
           updated_at = now()
    returning known.created_at = known.updated_at
"""


async def put(conn: Connection, key: ProviderKey) -> bool:
    """Keep a workspace's key, in place of the one it had; return whether it had none."""
    cursor = await conn.execute(
        PUT,
        {
            "workspace_id": key.workspace_id,
            "provider_id": key.provider_id,
            "sealed": key.kept.sealed,
            "sealed_with": key.kept.sealed_with,
            "hint": key.hint,
        },
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


DELETE: LiteralString = """
    delete from enrichment_provider_keys
     where workspace_id = %(workspace_id)s
       and provider_id = %(provider_id)s
"""


async def delete(conn: Connection, *, workspace_id: str, provider_id: str) -> bool:
    """Forget a workspace's key; return whether there was one."""
    values = {"workspace_id": workspace_id, "provider_id": provider_id}
    return (await conn.execute(DELETE, values)).rowcount > 0


def key_of(
    workspace_id: str, provider_id: str, sealed: bytes, sealed_with: str, hint: str
) -> ProviderKey:
    """Make a key of a row."""
    return ProviderKey(workspace_id, provider_id, Sealed(bytes(sealed), sealed_with), hint)


OF_WORKSPACE: LiteralString = """
    select workspace_id, provider_id, sealed, sealed_with, hint
      from enrichment_provider_keys
     where workspace_id = %(workspace_id)s
     order by provider_id
     limit 1000
"""


async def of_workspace(conn: Connection, *, workspace_id: str) -> list[ProviderKey]:
    """Return the keys that a workspace has brought, by provider."""
    cursor = await conn.execute(OF_WORKSPACE, {"workspace_id": workspace_id})
    return [key_of(*row) async for row in cursor]


# By the callbacks' index of requests: a provider's ids are its own, so this is one row as a rule.
OF_REQUEST: LiteralString = """
    select key.workspace_id, key.provider_id, key.sealed, key.sealed_with, key.hint
      from (select distinct workspace_id
              from enrichment_callbacks
             where provider_id = %(provider_id)s
               and request_id = %(request_id)s
               and state <> 'early') as asked
      join enrichment_provider_keys as key
        on key.workspace_id = asked.workspace_id
       and key.provider_id = %(provider_id)s
     limit 10
"""


async def of_request(conn: Connection, *, provider_id: str, request_id: str) -> list[ProviderKey]:
    """Return the keys of those workspaces that made a request of a provider."""
    values = {"provider_id": provider_id, "request_id": request_id}
    return [key_of(*row) async for row in await conn.execute(OF_REQUEST, values)]


LIST: LiteralString = """
    select workspace_id, provider_id, sealed, sealed_with, hint
      from enrichment_provider_keys
     order by workspace_id, provider_id
     limit %(limit)s
"""


async def list_all(conn: Connection, *, limit: int = 1000) -> list[ProviderKey]:
    """Return the keys of all workspaces."""
    return [key_of(*row) async for row in await conn.execute(LIST, {"limit": limit})]


# The keyset is what ends a rotation over rows that nobody can open: they stay as they are.
NEXT_TO_RESEAL: LiteralString = """
    select workspace_id, provider_id, sealed, sealed_with, hint
      from enrichment_provider_keys
     where sealed_with <> %(sealed_with)s
       and (workspace_id, provider_id) > (%(after_workspace)s, %(after_provider)s)
     order by workspace_id, provider_id
     limit %(limit)s
       for update
"""


async def next_to_reseal(
    conn: Connection, *, sealed_with: str, after: tuple[str, str], limit: int
) -> list[ProviderKey]:
    """Lock and return keys, in order of (workspace, provider), that another secret has sealed."""
    cursor = await conn.execute(
        NEXT_TO_RESEAL,
        {
            "sealed_with": sealed_with,
            "after_workspace": after[0],
            "after_provider": after[1],
            "limit": limit,
        },
    )
    return [key_of(*row) async for row in cursor]


RESEAL: LiteralString = """
    update enrichment_provider_keys
       set sealed = %(sealed)s, sealed_with = %(sealed_with)s
     where workspace_id = %(workspace_id)s
       and provider_id = %(provider_id)s
"""


async def reseal(conn: Connection, key: ProviderKey) -> None:
    """Write a key that was sealed anew; its row is locked by `next_to_reseal`."""
    await conn.execute(
        RESEAL,
        {
            "sealed": key.kept.sealed,
            "sealed_with": key.kept.sealed_with,
            "workspace_id": key.workspace_id,
            "provider_id": key.provider_id,
        },
    )


# What a bulk enqueue asks once for all its groups; one job's enqueue has it in its SQL function.
LANES_OF: LiteralString = """
    select enrichment_lane_of(asked.workspace_id, asked.provider_id)
      from unnest(%(workspaces)s::text[], %(providers)s::text[])
           with ordinality as asked(workspace_id, provider_id, place)
     order by asked.place
"""


async def lanes_of(conn: Connection, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the lane of each (workspace, provider): its own where it brings its own key."""
    cursor = await conn.execute(
        LANES_OF,
        {
            "workspaces": text_array([workspace for workspace, _ in pairs]),
            "providers": text_array([provider for _, provider in pairs]),
        },
    )
    return [lane async for (lane,) in cursor]
