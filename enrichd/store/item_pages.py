"""Pages of a batch's finished leads, by key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString
from uuid import UUID

from enrichd.store.database import Connection
from enrichd.store.items import Item
from enrichd.store.json_text import loads

PAGE_MAX = 500

# By the primary key. Keys never change and a finished lead stays, so a page repeats and skips none.
PAGE: LiteralString = """
    select item_key, status, result::text, error::text
      from enrichment_job_items
     where job_id = %(job_id)s
       and workspace_id = %(workspace_id)s
       and item_key > %(after)s
       and (%(status)s::text is null or status = %(status)s)
     order by item_key
     limit %(limit)s
"""


async def page(
    conn: Connection,
    *,
    workspace_id: str,
    job_id: UUID,
    after: str = "",
    status: str | None = None,
    limit: int = PAGE_MAX,
) -> Sequence[Item]:
    """Return the finished leads behind the key `after`, at most `limit` and PAGE_MAX + 1."""
    cursor = await conn.execute(
        PAGE,
        {
            "workspace_id": workspace_id,
            "job_id": job_id,
            "after": after,
            "status": status,
            "limit": min(limit, PAGE_MAX + 1),
        },
    )
    return [
        Item(key, state, loads(result), loads(error))
        for key, state, result, error in await cursor.fetchall()
    ]
