"""The gateway's API, carried by aiohttp, for as long as it serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from enrichd.api.events import HUB
from enrichd.api.opening import opened_api
from enrichd.gateway.access_log import AccessLog
from enrichd.gateway.realtime import broadcast
from enrichd.gateway.transport import Transport
from enrichd.settings import Settings
from enrichd.store.database import Database


@asynccontextmanager
async def serving_api(settings: Settings, group: asyncio.TaskGroup) -> AsyncIterator[Transport]:
    """Give the API's transport; PostgreSQL is reached for at the first request."""
    async with opened_api(settings, group, name="enrichd gateway") as api:
        database = Database(settings.dsn, name="enrichd realtime", is_pooler=settings.is_pooler)
        broadcasting = group.create_task(broadcast(settings, api.parts[HUB], database))
        try:
            yield Transport(api, AccessLog(settings.api_access_log))
        finally:
            broadcasting.cancel()
            await asyncio.wait([broadcasting])
