"""Transactions of one workspace: what they leave behind, and how long they may take."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from enrichd.errors import Unavailable
from enrichd.store import tenancy
from enrichd.store.database import Database
from enrichd.store.tenancy import Tenants


@pytest.fixture
async def tenants(database: Database):
    found = Tenants(database, size=1)
    yield found
    await found.close()


async def place(conn) -> tuple[str, str | None]:
    """Return the role and the workspace that a connection has now."""
    cursor = await conn.execute(
        "select current_user::text, nullif(current_setting('enrichd.workspace_id', true), '')"
    )
    row = await cursor.fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize("name", ["team-a", "it's", 'a"b', "back\\slash", "🙂", "%s {x}"])
async def test_a_workspace_is_entered_whatever_its_name(tenants, name):
    async with tenants.of(name) as conn:
        assert await place(conn) == ("enrichd_api", name)


@pytest.mark.parametrize("error", [None, ValueError, asyncio.CancelledError, "sql"])
async def test_nothing_of_it_stays_behind(tenants, error):
    try:
        async with tenants.of("team-a") as conn:
            if error == "sql":
                await conn.execute("select 1 / 0")
            elif error is not None:
                raise error
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever it was
        pass

    async with tenants.of_nobody() as conn:
        role, workspace = await place(conn)
        assert (role != "enrichd_api", workspace) == (True, None)


async def test_a_swallowed_error_is_no_commit(tenants):
    async def careless() -> None:
        async with tenants.of("team-a") as conn:
            with contextlib.suppress(Exception):
                await conn.execute("select 1 / 0")

    with pytest.raises(AssertionError):
        await careless()


async def test_a_server_that_hangs_ends_the_wait(tenants, monkeypatch):
    monkeypatch.setattr(tenancy, "WAIT_S", 0.3)
    began = asyncio.get_running_loop().time()

    with pytest.raises(Unavailable):
        async with tenants.of("team-a") as conn:
            await conn.execute("select pg_sleep(30)")

    assert asyncio.get_running_loop().time() - began < 5
    async with tenants.of("team-b") as conn:
        assert await place(conn) == ("enrichd_api", "team-b")


async def test_a_crowd_is_told_that_there_is_no_room(tenants, monkeypatch):
    async with tenants.of("team-a"):
        monkeypatch.setattr(tenancy, "WAIT_S", 0.2)
        with pytest.raises(Unavailable, match="in use"):
            async with tenants.of("team-b"):
                pass


async def test_whoever_asks_first_is_served_first(tenants):
    order: list[str] = []

    async def ask(name: str) -> None:
        async with tenants.of("team-a"):
            order.append(name)

    async with asyncio.TaskGroup() as group:
        async with tenants.of("team-a"):
            group.create_task(ask("waited"))
            await asyncio.sleep(0)
        # The connection is free and the one who waits has not run yet: here a newcomer overtook.
        await ask("newcomer")

    assert order == ["waited", "newcomer"]
