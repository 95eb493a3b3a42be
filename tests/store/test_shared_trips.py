"""Requests of one workspace that go to PostgreSQL together, and stay apart in what they get."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from enrichd.errors import Unavailable
from enrichd.store.database import Database
from enrichd.store.one_trip import Prepared
from enrichd.store.tenancy import Tenants

WHERE = Prepared(
    "test_where",
    "select pg_current_xact_id()::text, current_setting('enrichd.workspace_id'), %(number)s::text",
)
DIVIDE = Prepared("test_divide_by", "select 1 / %(by)s::int")
ADD = Prepared(
    "test_add_one",
    "insert into enrichment_jobs (id, workspace_id, type, payload)"
    " values (enrichment_uuid7(), %(workspace_id)s, 'nap', '{}')",
)
COUNT = Prepared("test_count_all", "select count(*) from enrichment_jobs")
SLEEP = Prepared("test_sleep", "select pg_sleep(%(seconds)s::float8)::text")


@pytest.fixture(params=[False, True], ids=["direct", "pooler"])
async def tenants(database_url: str, request):
    found = Tenants(Database(database_url, is_pooler=request.param), size=4)
    yield found
    await found.close()


async def together(tenants, *questions, workspace_id="team-a"):
    """Ask everything at once and return answers and errors in order."""
    asked = [tenants.ask(workspace_id, question) for question in questions]
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_many_questions_share_few_transactions_and_each_gets_its_own_answer(tenants):
    found = await together(tenants, *[(WHERE, {"number": str(n)}) for n in range(40)])

    rows = [answer[0].rows[0] for answer in found]
    assert [row[2] for row in rows] == [str(n) for n in range(40)]
    assert len({row[0] for row in rows}) <= 6


async def test_workspaces_never_share(tenants):
    names = [f"team-{n % 5}" for n in range(40)]
    found = await asyncio.gather(*(tenants.ask(one, (WHERE, {"number": "0"})) for one in names))

    seen = [answer[0].rows[0] for answer in found]
    assert [row[1] for row in seen] == names
    owners: dict[str, set[str]] = {}
    for transaction, name, _ in seen:
        owners.setdefault(transaction, set()).add(name)
    assert all(len(one) == 1 for one in owners.values())


async def test_an_error_is_its_own_askers_alone(tenants):
    add = (ADD, {"workspace_id": "team-a"})
    found = await together(tenants, add, (DIVIDE, {"by": "0"}), add, add)

    assert isinstance(found[1], psycopg.errors.DivisionByZero)
    assert [answer[0].count for answer in (found[0], *found[2:])] == [1, 1, 1]
    (count,) = await tenants.ask("team-a", (COUNT, {}))
    assert count.rows == [(3,)]


async def test_who_stops_waiting_takes_nobody_along(tenants):
    add = (ADD, {"workspace_id": "team-a"})
    tasks = [asyncio.create_task(tenants.ask("team-a", add)) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(found[2], asyncio.CancelledError)
    assert [answer[0].count for place, answer in enumerate(found) if place != 2] == [1] * 4


async def test_a_lost_connection_is_told_to_all_it_carried_and_the_next_goes_on(
    tenants, database_url, eventually
):
    sleeping = asyncio.create_task(tenants.ask("team-a", (SLEEP, {"seconds": "30"})))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
        await eventually(lambda: cut_sleepers(admin))
    with pytest.raises(Unavailable):
        await sleeping

    (count,) = await tenants.ask("team-a", (COUNT, {}))
    assert count.rows == [(0,)]


async def cut_sleepers(admin):
    """End the connections that sleep; return how many."""
    cursor = await admin.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where datname = current_database() and wait_event = 'PgSleep'"
    )
    return len(await cursor.fetchall())


async def test_nobody_waits_for_ever_when_postgresql_is_away():
    tenants = Tenants(Database("postgresql://x@127.0.0.1:1/x"), size=2)
    found = await together(tenants, *[(COUNT, {})] * 20)

    assert {type(error) for error in found} == {Unavailable}
    await tenants.close()


async def test_a_workspace_that_hangs_leaves_the_others_their_connections(tenants):
    hanging = [
        asyncio.create_task(tenants.ask("team-a", (SLEEP, {"seconds": "3"}))) for _ in range(50)
    ]
    await asyncio.sleep(0)

    async with asyncio.timeout(2):
        (count,) = await tenants.ask("team-b", (COUNT, {}))

    assert count.rows == [(0,)]
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_closing_ends_what_is_under_way(database_url):
    tenants = Tenants(Database(database_url), size=2)
    asked = [
        asyncio.create_task(tenants.ask("team-a", (SLEEP, {"seconds": "30"}))) for _ in range(40)
    ]
    await asyncio.sleep(0.05)

    await tenants.close()

    found = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(error) for error in found} == {Unavailable}
