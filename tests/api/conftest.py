"""A real gateway application over HTTP, on a real database, with keys of two workspaces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from enrichd.api.application import Api
from enrichd.api.key_limits import Buckets
from enrichd.api.messages import Request
from enrichd.api.problems import Problem
from enrichd.api.routing import Access, Principal
from enrichd.gateway.access_log import AccessLog
from enrichd.gateway.server import serving
from enrichd.gateway.transport import Transport
from enrichd.queue.hints import Hints
from enrichd.settings import Settings
from enrichd.store.database import Database
from enrichd.store.tenancy import Tenants

ROLE = """
    do $$
    begin
        create role enrichd_api nologin;
    exception when duplicate_object or unique_violation then null;
    end
    $$;
    grant enrichd_api to current_user;
    grant usage on schema public to enrichd_api;
    grant select, insert, update, delete on all tables in schema public to enrichd_api;
    grant usage on all sequences in schema public to enrichd_api;
"""

KEYS = {
    "key-a": Principal("team-a", "a", frozenset({"read", "write", "admin"})),
    "key-b": Principal("team-b", "b", frozenset({"read", "write", "admin"})),
    "key-reads": Principal("team-a", "r", frozenset({"read"})),
}


class FixedGate:
    """Knows the keys above."""

    async def admit(
        self, request: Request, access: Access
    ) -> tuple[Principal | None, dict[str, str]]:
        if access in (Access.OPEN, Access.SIGNED):
            return None, {}
        found = KEYS.get(request.header("authorization").removeprefix("Bearer "))
        if found is None:
            raise Problem(401, "no_key", "no", headers={"WWW-Authenticate": "Bearer"})
        if access.value not in found.scopes:
            raise Problem(403, "missing_scope", "no")
        return found, {}


@dataclass(slots=True)
class Served:
    """An API that listens, and clients of it."""

    port: int
    api: Api
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    def client(self, key: str | None = "key-a", **headers: str) -> httpx.AsyncClient:
        """Return a client that shows a key."""
        name = f"{key} {headers}"
        if name not in self.clients:
            given = {**headers, **({"Authorization": f"Bearer {key}"} if key else {})}
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
    api = Api(settings_of(dsn, **variables), tenants, FixedGate(), hints, buckets=buckets)
    transport = Transport(api, AccessLog("path"))
    try:
        async with serving(transport.application(), "127.0.0.1", 0) as (port,):
            served = Served(port, api)
            try:
                yield served
            finally:
                await served.close()
    finally:
        await hints.close()
        await tenants.close()


@pytest.fixture
async def served(database_url: str, database: Database) -> AsyncIterator[Served]:
    """Give the API on the test's own database."""
    async with database.connection() as conn:
        await conn.execute(ROLE, prepare=False)
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
