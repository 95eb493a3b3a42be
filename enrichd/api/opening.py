"""An Api with all that belongs to it, for as long as somebody serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from enrichd.api import events
from enrichd.api.application import Api
from enrichd.api.hub import Hub
from enrichd.api.key_limits import Buckets
from enrichd.api.keys import KeyGate
from enrichd.api.live import CHANGES
from enrichd.api.process import close_runs
from enrichd.queue.changes import Changes
from enrichd.queue.hints import Hints
from enrichd.settings import Settings
from enrichd.store.database import Database
from enrichd.store.tenancy import Tenants

CONNECTIONS = 8
"""More would not make one process faster: each is busy for a fraction of a millisecond."""


@asynccontextmanager
async def opened_api(
    settings: Settings, group: asyncio.TaskGroup, *, name: str, connections: int = CONNECTIONS
) -> AsyncIterator[Api]:
    """Give the API to serve; PostgreSQL is reached for at the first request."""
    database = Database(settings.dsn, name=name, is_pooler=settings.is_pooler)
    tenants = Tenants(database, size=connections)
    hints = Hints(database.sibling("hints"))
    changes = Changes(database.sibling("changes"))
    hub = Hub(database.sibling("live"), listen_dsn=listen_dsn_of(settings))
    api = Api(
        settings,
        tenants,
        gate=KeyGate(tenants, secret_of(settings)),
        hints=hints,
        buckets=buckets_of(settings),
        parts={events.HUB: hub, CHANGES: changes},
    )
    tasks = [group.create_task(work.run()) for work in (hints, changes, hub)]
    try:
        yield api
    finally:
        await close_runs(api)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await hints.close()
        await changes.close()
        await tenants.close()


def listen_dsn_of(settings: Settings) -> str | None:
    """Return where to LISTEN, None where there is a pooler and no way past it."""
    if settings.database_direct_url is not None:
        return settings.database_direct_url.get_secret_value()
    return None if settings.is_pooler else settings.dsn


def secret_of(settings: Settings) -> str | None:
    """Return CRON_SECRET."""
    return settings.cron_secret.get_secret_value() if settings.cron_secret is not None else None


def buckets_of(settings: Settings) -> Buckets | None:
    """Return the limits of keys, None if there are to be none."""
    if settings.api_rate_limit_per_second == 0:
        return None
    return Buckets(settings.api_rate_limit_per_second, settings.api_rate_limit_burst)
