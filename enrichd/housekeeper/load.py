"""How loaded the fleet is, told to the supervisor, which scales by it."""

from __future__ import annotations

import asyncio

from enrichd.errors import Unavailable
from enrichd.processing.link import Link
from enrichd.store import workers
from enrichd.store.database import Database


async def report_load(database: Database, link: Link, *, every_s: float) -> None:
    """Say the age of the oldest ready job and the share of slots in use, until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        try:
            async with database.connection() as conn:
                oldest_ready_s, use = await workers.load(conn)
        except Unavailable:
            continue
        link.say(f"load {oldest_ready_s:.1f} {use:.2f}")
