"""The keys that workspaces call the API with, by hash alone.

Read with the daemon's rights: whose key it is, is what they are read for.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from enrichd.domain.api_keys import ID_RANDOM_BELOW, SECRET_BITS, key_of
from enrichd.errors import NotFound
from enrichd.store.database import Connection


class ApiKeyNotFound(NotFound):
    """No key of this workspace has that id, or none that is still good."""

    code = "api_key_not_found"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is listed."""

    id: str
    """The part between `enr_` and the next `_`."""
    workspace_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    rotated_from: str | None
    state: str
    """`active`, `expired` or `revoked`, by the database's clock."""


def new_key() -> str:
    """Return a key that nobody has or can guess."""
    return key_of(secrets.randbelow(ID_RANDOM_BELOW), secrets.randbits(SECRET_BITS))


COLUMNS: LiteralString = """
    id, workspace_id, name, scopes, created_at, expires_at, revoked_at, last_used_at, rotated_from,
    case when revoked_at is not null then 'revoked'
         when expires_at <= now() then 'expired'
         else 'active' end
"""


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What the gate needs to know of a key that is good now."""

    workspace_id: str
    scopes: list[str]
    key_hash: bytes
    good_for_s: float | None
    """Seconds until it expires; None for never."""
    is_noted: bool
    """Whether its use was written down within the last minute."""


FIND: LiteralString = """
    select workspace_id, scopes, key_hash, extract(epoch from expires_at - now())::float8,
           coalesce(last_used_at > now() - interval '1 minute', false)
      from enrichment_api_keys
     where id = %(id)s
       and revoked_at is null
       and coalesce(expires_at > now(), true)
"""


async def find(conn: Connection, key_id: str) -> KnownKey | None:
    """Return a key that is neither revoked nor expired."""
    row = await (await conn.execute(FIND, {"id": key_id})).fetchone()
    return KnownKey(*row) if row else None


# Several gateways see a key at once; one of them writes.
NOTE_USE: LiteralString = """
    update enrichment_api_keys
       set last_used_at = now()
     where id = %(id)s
       and coalesce(last_used_at <= now() - interval '1 minute', true)
"""


async def note_use(conn: Connection, key_id: str) -> None:
    """Write down that a key is used, once a minute at most."""
    await conn.execute(NOTE_USE, {"id": key_id})


INSERT: LiteralString = f"""
    insert into enrichment_api_keys
           (id, workspace_id, name, key_hash, scopes, expires_at)
    values (%(id)s, %(workspace_id)s, %(name)s, %(key_hash)s, %(scopes)s::text[],
            coalesce(%(expires_at)s::timestamptz, now() + make_interval(secs => %(keep_s)s)))
    returning {COLUMNS}
"""  # noqa: S608 - made of constants


async def insert(
    conn: Connection,
    *,
    key_id: str,
    workspace_id: str,
    name: str,
    key_hash: bytes,
    scopes: Sequence[str],
    keep_s: float | None = None,
    expires_at: datetime | None = None,
) -> ApiKey:
    """Add a key that is good until a time, or for `keep_s` seconds, or for ever."""
    cursor = await conn.execute(
        INSERT,
        {
            "id": key_id,
            "workspace_id": workspace_id,
            "name": name,
            "key_hash": key_hash,
            "scopes": list(scopes),
            "keep_s": keep_s,
            "expires_at": expires_at,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return ApiKey(*row)


LIST: LiteralString = f"""
    select {COLUMNS}
      from enrichment_api_keys
     where workspace_id = %(workspace_id)s
     order by created_at desc, id
     limit %(limit)s
"""  # noqa: S608 - made of constants


async def list_all(conn: Connection, *, workspace_id: str, limit: int = 1000) -> list[ApiKey]:
    """Return a workspace's keys, newest first, with those that are good no more."""
    cursor = await conn.execute(LIST, {"workspace_id": workspace_id, "limit": limit})
    return [ApiKey(*row) async for row in cursor]


REVOKE: LiteralString = f"""
    update enrichment_api_keys
       set revoked_at = coalesce(revoked_at, now())
     where workspace_id = %(workspace_id)s
       and id = %(id)s
    returning {COLUMNS}
"""  # noqa: S608 - made of constants


async def revoke(conn: Connection, *, workspace_id: str, key_id: str) -> ApiKey:
    """Let a key be good no more; again changes nothing. Raises ApiKeyNotFound."""
    row = await (
        await conn.execute(REVOKE, {"workspace_id": workspace_id, "id": key_id})
    ).fetchone()
    if row is None:
        raise ApiKeyNotFound(f"workspace {workspace_id} has no key {key_id}")
    return ApiKey(*row)


# One statement, so that there is never a moment with neither key or two that last. A key that
# would have expired in three months is taken over by one that does in three months from now.
ROTATE: LiteralString = f"""
    with old as (
        select id, workspace_id, name, scopes, expires_at - created_at as lasts
          from enrichment_api_keys as key
         where workspace_id = %(workspace_id)s
           and id = %(id)s
           and revoked_at is null
           and coalesce(expires_at > now(), true)
           and not exists (select 1
                             from enrichment_api_keys as later
                            where later.workspace_id = key.workspace_id
                              and later.rotated_from = key.id)
           for update
    ),
    ending as (
        update enrichment_api_keys as key
           set expires_at = least(key.expires_at,
                                  now() + make_interval(secs => %(overlap_s)s::float8))
          from old
         where key.id = old.id
    )
    insert into enrichment_api_keys
           (id, workspace_id, name, key_hash, scopes, expires_at, rotated_from)
    select %(new_id)s, workspace_id, name, %(key_hash)s, scopes, now() + lasts, id
      from old
    returning {COLUMNS}
"""  # noqa: S608 - made of constants


async def rotate(
    conn: Connection,
    *,
    workspace_id: str,
    key_id: str,
    new_id: str,
    key_hash: bytes,
    overlap_s: float,
) -> ApiKey:
    """Add a key with the same rights and end the old one after `overlap_s`; return the new one.

    Raises ApiKeyNotFound for a key that is unknown, revoked, expired or was rotated before.
    """
    cursor = await conn.execute(
        ROTATE,
        {
            "workspace_id": workspace_id,
            "id": key_id,
            "new_id": new_id,
            "key_hash": key_hash,
            "overlap_s": overlap_s,
        },
    )
    row = await cursor.fetchone()
    if row is None:
        raise ApiKeyNotFound(
            f"workspace {workspace_id} has no key {key_id} that is still good and was not rotated",
            hint="See its keys: enrichctl keys list",
        )
    return ApiKey(*row)
