"""A real gateway application over HTTP, on a real database, with keys of two workspaces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from enrichd.api.application import Api
from enrichd.api.key_limits import Buckets
from enrichd.api.keys import KeyGate
from enrichd.api.opening import secret_of
from enrichd.gateway.access_log import AccessLog
from enrichd.gateway.server import serving
from enrichd.gateway.transport import Transport
from enrichd.queue.hints import Hints
from enrichd.settings import Settings
from enrichd.store.database import Database
from enrichd.store.tenancy import Tenants
from tests.support.keys import TEXTS, make_keys, text_of


@dataclass(slots=True)
class Served:
    """An API that listens, and clients of it."""

    port: int
    api: Api
    keys: Mapping[str, str] = field(default_factory=lambda: TEXTS)
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    def client(self, key: str | None = "key-a", **headers: str) -> httpx.AsyncClient:
        """Return a client that shows a key."""
        name = f"{key} {headers}"
        if name not in self.clients:
            given = {**headers, **({"Authorization": f"Bearer {text_of(key)}"} if key else {})}
            self.clients[name] = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{self.port}/api/enrichment", headers=given, timeout=20
            )
        return self.clients[name]

    async def close(self) -> None:
        for client in self.clients.values():
            await client.aclose()


def settings_of(dsn: str, **variables: str) -> Settings:
    return Settings.load({"DATABASE_URL": dsn, "ENRICHD_DATA_DIR": "/nonexistent", **variables})


@asynccontextmanager
async def an_api(
    dsn: str, *, buckets: Buckets | None = None, **variables: str
) -> AsyncIterator[Served]:
    """Serve the whole API over loopback."""
    database = Database(dsn, name="test api")
    tenants = Tenants(database, size=4)
    hints = Hints(database.sibling("hints"))
    settings = settings_of(dsn, **variables)
    gate = KeyGate(tenants, secret_of(settings))
    api = Api(settings, tenants, gate, hints, buckets=buckets)
    transport = Transport(api, AccessLog("path"))
    try:
        async with serving(transport.application(), "127.0.0.1", 0) as (port,):
            async with database.connection() as conn:
                await make_keys(conn)
            served = Served(port, api)
            try:
                yield served
            finally:
                await served.close()
    finally:
        await hints.close()
        await tenants.close()
        await database.close()


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    """Give the API on the test's own database."""
    async with an_api(database_url) as found:
        yield found


@pytest.fixture
def http(served: Served) -> httpx.AsyncClient:
    """Give a client with a key of workspace `team-a` that may do everything."""
    return served.client()


def a_body(**fields: Any) -> dict[str, Any]:
    """Return the body of a job that every check lets through."""
    return {"type": "email_validation", "payload": {"emails": ["ada@example.com"]}, **fields}


async def enqueued(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """Enqueue a job over HTTP and return it."""
    answer = await http.post("/jobs", json=a_body(**fields))
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found
