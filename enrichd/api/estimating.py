"""What jobs would cost: `dryRun` of an enqueue, which writes nothing and asks nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from enrichd.api.routing import Call
from enrichd.domain import payloads
from enrichd.handlers.estimating import estimate_job
from enrichd.providers.keyring import Keyring
from enrichd.providers.roster import build_providers
from enrichd.store.database import Database
from enrichd.store.installation import Installation
from enrichd.store.new_jobs import Row

TURN = "estimating"
AT_ONCE = 2
"""Estimates have connections of their own, so that they take none from other requests."""


async def estimates_of(call: Call, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return an estimate for each job, in order; `maxCostCredits` is null where nobody can say."""
    settings = call.api.settings
    turn = call.api.parts.setdefault(TURN, asyncio.Semaphore(AT_ONCE))
    async with turn:
        database = Database(settings.dsn, name="enrichd estimates", is_pooler=settings.is_pooler)
        try:
            keyring = Keyring(database, Installation(database, settings), settings.provider)
            async with build_providers(settings_of=settings.provider) as providers:
                found = [
                    await estimate_job(
                        payloads.parse(row.type, row.payload),
                        workspace_id=call.workspace_id,
                        providers=providers,
                        database=database,
                        keyring=keyring,
                    )
                    for row in rows
                ]
        finally:
            await database.close()
    return [
        {"isDryRun": True, **(one.to_json() if one is not None else {"maxCostCredits": None})}
        for one in found
    ]
