"""A workspace's transaction in one message: what it gives, and what it leaves behind."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from enrichd.store.database import Database
from enrichd.store.one_trip import Prepared
from enrichd.store.tenancy import Tenants

PLACE = Prepared(
    "test_place",
    "select current_user::text, nullif(current_setting('enrichd.workspace_id', true), '')",
)
ECHO = Prepared("test_echo", "select %(text)s::text, %(other)s::int, %(text)s::text || '%%'")
DIVIDE = Prepared("test_divide", "select 1 / %(by)s::int")
ADD = Prepared(
    "test_add",
    "insert into enrichment_jobs (id, workspace_id, type, payload)"
    " values (enrichment_uuid7(), %(workspace_id)s, 'nap', '{}')",
)
COUNT = Prepared("test_count", "select count(*) from enrichment_jobs")


@pytest.fixture(params=[False, True], ids=["direct", "pooler"])
async def tenants(database_url: str, request):
    found = Tenants(Database(database_url, is_pooler=request.param), size=1)
    yield found
    await found.close()


@pytest.mark.parametrize("text", ["plain", "it's", "back\\slash", '"', "$1", "%s", "🙂\n;", None])
async def test_values_arrive_as_they_are(tenants, text):
    (echo,) = await tenants.ask("team-a", (ECHO, {"text": text, "other": "7"}))

    assert echo.rows == [(text, 7, None if text is None else text + "%")]


async def test_statements_see_the_workspace_and_what_went_before_them(tenants):
    place, added, count = await tenants.ask(
        "team-a", (PLACE, {}), (ADD, {"workspace_id": "team-a"}), (COUNT, {})
    )
    (other,) = await tenants.ask("team-b", (COUNT, {}))

    assert place.rows == [("enrichd_api", "team-a")]
    assert (added.count, count.rows, other.rows) == (1, [(1,)], [(0,)])


async def test_an_error_takes_all_back_and_the_connection_goes_on(tenants):
    for _ in range(2):
        with pytest.raises(psycopg.errors.DivisionByZero):
            await tenants.ask("team-a", (ADD, {"workspace_id": "team-a"}), (DIVIDE, {"by": "0"}))

    (count,) = await tenants.ask("team-a", (COUNT, {}))
    assert count.rows == [(0,)]


async def test_another_workspaces_row_is_refused(tenants):
    with pytest.raises(Exception, match=r"row-level security|role cannot be used"):
        await tenants.ask("team-a", (ADD, {"workspace_id": "team-b"}))


async def test_nothing_of_it_stays_behind(tenants):
    await tenants.ask("team-a", (PLACE, {}))

    async with tenants.of_nobody() as conn:
        cursor = await conn.execute(PLACE.statement)
        role, workspace = await cursor.fetchone()
    assert (role != "enrichd_api", workspace) == (True, None)


async def test_a_rollback_elsewhere_costs_no_statement(tenants):
    await tenants.ask("team-a", (ECHO, {"text": "a", "other": "1"}))
    with pytest.raises(ValueError, match="on purpose"):
        async with tenants.of("team-a"):
            raise ValueError("on purpose")

    (echo,) = await tenants.ask("team-a", (ECHO, {"text": "b", "other": "2"}))

    assert echo.rows == [("b", 2, "b%")]


async def test_many_at_once_keep_apart(tenants):
    names = [f"team-{number % 2}" for number in range(100)]

    places = await asyncio.gather(*(tenants.ask(name, (PLACE, {})) for name in names))

    assert [place.rows[0][1] for (place,) in places] == names
