"""One connection that comes back: translation of errors, reconnecting, cancelling."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from enrichd.errors import Invalid, NotMigrated, Unavailable
from enrichd.store.database import Database, conninfo, storing

pytestmark = pytest.mark.queue


async def pid(database):
    async with database.connection() as conn:
        [number] = await (await conn.execute("select pg_backend_pid()")).fetchone()
        return number


async def cut(database_url, victim):
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as admin:
        await admin.execute("select pg_terminate_backend(%s, 5000)", [victim])


async def test_a_connection_is_kept_between_uses(database):
    assert await pid(database) == await pid(database)


async def test_nothing_is_compiled(database):
    async with database.connection() as conn:
        assert await (await conn.execute("show jit")).fetchone() == ("off",)


async def test_a_cut_connection_is_unavailable_once_and_then_replaced(database, database_url):
    before = await pid(database)
    await cut(database_url, before)

    with pytest.raises(Unavailable):
        await pid(database)

    assert await pid(database) != before


async def test_a_server_that_is_not_there_is_unavailable():
    with pytest.raises(Unavailable):
        await pid(Database("postgresql://x@127.0.0.1:1/x"))


async def test_what_is_no_address_is_invalid():
    with pytest.raises(Invalid, match="DATABASE_URL"):
        await pid(Database("no address"))


async def test_a_database_without_our_tables_says_what_to_run(admin_dsn):
    database = Database(admin_dsn)
    with pytest.raises(NotMigrated) as missing:
        async with database.connection() as conn:
            await conn.execute("select from enrichment_jobs")
    assert "enrichctl db migrate" in missing.value.hint
    await database.close()


async def test_one_task_at_a_time_gets_the_connection(database):
    async def use():
        async with database.connection() as conn:
            await conn.execute("select pg_sleep(0.01)")

    await asyncio.gather(*(use() for _ in range(10)))


async def test_a_cancelled_statement_leaves_the_connection_usable(database):
    async def wait():
        async with database.connection() as conn:
            await conn.execute("select pg_sleep(30)")

    before = await pid(database)
    task = asyncio.create_task(wait())
    while True:  # until the statement runs
        async with await psycopg.AsyncConnection.connect(database.dsn) as other:
            cursor = await other.execute(
                "select state from pg_stat_activity where pid = %s", [before]
            )
            if await cursor.fetchone() == ("active",):
                break
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async with asyncio.timeout(5):
        assert await pid(database)


async def test_a_transaction_commits_whole_or_not_at_all(database, conn_of):
    async def insert(name):
        async with database.transaction() as conn:
            await conn.execute(
                "insert into enrichment_lanes (provider_id, priority) values (%s, 3)", [name]
            )
            if name == "bad":
                raise ValueError

    await insert("good")
    with pytest.raises(ValueError):  # noqa: PT011 - any error of the block
        await insert("bad")

    cursor = await conn_of.execute("select provider_id from enrichment_lanes")
    assert await cursor.fetchall() == [("good",)]


@pytest.fixture
async def conn_of(database_url):
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        yield conn


@pytest.mark.parametrize("statement", ["select 1 / 0", "select 'x'::int", "select '{'::jsonb"])
async def test_a_refused_value_is_invalid_and_the_connection_stays(database, statement):
    before = await pid(database)

    with pytest.raises(Invalid):
        async with database.connection() as conn:
            await storing(lambda: conn.execute(statement))

    assert await pid(database) == before


def test_the_users_own_settings_win():
    given = conninfo("postgresql://u@h/d?connect_timeout=99&application_name=mine", "enrichd")

    assert "connect_timeout=99" in given
    assert "application_name=mine" in given
    assert "keepalives_idle=10" in given
