"""Migrations: each once, in order, whoever calls how often, all of a file or nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from enrichd.errors import NotMigrated
from enrichd.queue.manager import JobQueueManager
from enrichd.store import migrate
from enrichd.store.database import Database
from tests.support import postgres
from tests.support.factories import an_email_job

pytestmark = pytest.mark.queue

ALL = [migration.version for migration in migrate.migrations()]


@pytest.fixture
def empty_url(admin_dsn: str) -> Iterator[str]:
    """Give the address of an empty database."""
    name = postgres.create_template(admin_dsn, lambda dsn: None)
    yield postgres.dsn_of(admin_dsn, name)
    postgres.drop_database(admin_dsn, name)


@pytest.fixture
async def empty(empty_url: str):
    opened = Database(empty_url)
    yield opened
    await opened.close()


def test_files_are_numbered_without_gaps():
    assert list(range(1, len(ALL) + 1)) == ALL


async def test_an_empty_database_gets_every_migration_in_order_and_then_none(empty):
    async with empty.connection() as conn:
        assert await migrate.applied(conn) == []
        assert [migration.version for migration in await migrate.pending(conn)] == ALL

        ran = await migrate.apply(conn)

        assert [migration.version for migration in ran] == ALL
        assert await migrate.applied(conn) == ALL
        assert await migrate.pending(conn) == []
        assert await migrate.apply(conn) == []


async def test_eight_callers_at_once_apply_each_migration_once(empty, empty_url):
    async def apply() -> int:
        own = Database(empty_url)
        async with own.connection() as conn:
            ran = await migrate.apply(conn)
        await own.close()
        return len(ran)

    counts = await asyncio.gather(*[apply() for _ in range(8)])

    assert sum(counts) == len(ALL)
    async with empty.connection() as conn:
        assert await migrate.applied(conn) == ALL


async def test_a_migration_that_fails_leaves_nothing_behind_and_can_be_repeated(empty):
    async with empty.connection() as conn:
        await conn.execute("create table enrichment_workers (mine integer)")

        with pytest.raises(psycopg.errors.DuplicateTable):
            await migrate.apply(conn)

        assert await migrate.applied(conn) == []
        cursor = await conn.execute("select to_regclass('enrichment_jobs') is null")
        assert await cursor.fetchone() == (True,)
        await conn.execute("drop table enrichment_workers")
        assert len(await migrate.apply(conn)) == len(ALL)


async def test_a_database_of_a_newer_enrichd_is_left_as_it_is(empty):
    async with empty.connection() as conn:
        await migrate.apply(conn)
        await conn.execute(
            "insert into enrichment_migrations (version, name) values (999, 'tomorrow')"
        )

        assert await migrate.apply(conn) == []
        assert await migrate.applied(conn) == [*ALL, 999]


async def test_an_enqueue_before_the_migration_says_what_to_run(empty):
    with pytest.raises(NotMigrated) as caught:
        await JobQueueManager(empty).enqueue(an_email_job())

    assert caught.value.hint == "Run: enrichctl db migrate"
