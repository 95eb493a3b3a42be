"""People who are not to be asked about, as keyed hashes of their addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, LiteralString, TypeAlias

from enrichd.store.answers import bytes_array
from enrichd.store.arrays import text_array
from enrichd.store.database import Connection

Reason: TypeAlias = Literal["erased", "opted_out", "by_hand"]
EVERYWHERE = "*"
"""The workspace of a suppression that counts for all of them."""

# Two probes of the primary key for each question.
LOOK_UP: LiteralString = """
    select exists (select
                     from enrichment_suppressions as unwanted
                    where unwanted.workspace_id in (asked.workspace_id, '*')
                      and unwanted.email_hmac = asked.email_hmac)
      from unnest(%(workspaces)s::text[], %(hashes)s::bytea[])
           with ordinality as asked(workspace_id, email_hmac, place)
     order by asked.place
"""


async def look_up(conn: Connection, asked: Sequence[tuple[str, bytes]]) -> list[bool]:
    """Say of each (workspace, hash) whether the person is suppressed there or everywhere."""
    cursor = await conn.execute(
        LOOK_UP,
        {
            "workspaces": text_array([workspace for workspace, _ in asked]),
            "hashes": bytes_array([email_hmac for _, email_hmac in asked]),
        },
    )
    return [bool(answer) async for (answer,) in cursor]


# Who was erased stays so, whatever somebody else says of him later.
ADD: LiteralString = """
    insert into enrichment_suppressions as known (workspace_id, email_hmac, reason, provider_id)
    select %(workspace_id)s, email_hmac, %(reason)s, %(provider_id)s
      from unnest(%(hashes)s::bytea[]) as email_hmac
     order by email_hmac
        on conflict (workspace_id, email_hmac) do update
       set reason = excluded.reason
     where excluded.reason = 'erased'
       and known.reason <> 'erased'
    returning email_hmac
"""


async def add(
    conn: Connection,
    *,
    workspace_id: str,
    hashes: Sequence[bytes],
    reason: Reason,
    provider_id: str | None = None,
) -> int:
    """Remember that a person is to be left alone; return how many of the hashes were news."""
    cursor = await conn.execute(
        ADD,
        {
            "workspace_id": workspace_id,
            "hashes": bytes_array(sorted(set(hashes))),
            "reason": reason,
            "provider_id": provider_id,
        },
    )
    return cursor.rowcount
