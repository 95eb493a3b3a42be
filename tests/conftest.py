"""The fixtures every test may use: a real PostgreSQL, a fresh database, waiting for conditions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from enrichd.queue.manager import JobQueueManager
from enrichd.store import migrate
from enrichd.store.database import Connection, Database
from tests.support import postgres

END_TO_END = Path(__file__).parent / "e2e"


def pytest_configure(config: pytest.Config) -> None:
    # `load` deals hundreds of tests at once: at the end one worker has all the long ones.
    if config.getoption("dist", "no") == "load":
        config.option.dist = "worksteal"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The long ones first, which mostly wait: one worker has them while the others do the short.
    def place(item: pytest.Item) -> tuple[bool, bool]:
        return item.get_closest_marker("slow") is None, END_TO_END not in item.path.parents

    items.sort(key=place)


@pytest.fixture(scope="session")
def admin_dsn() -> Iterator[str]:
    """Give the session's server."""
    with postgres.test_server() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def template(admin_dsn: str) -> Iterator[str]:
    """Give the name of a migrated database to clone."""
    name = postgres.create_template(admin_dsn, lambda dsn: asyncio.run(apply_migrations(dsn)))
    yield name
    postgres.drop_database(admin_dsn, name)


async def apply_migrations(dsn: str) -> None:
    database = Database(dsn)
    async with database.connection() as conn:
        await migrate.apply(conn)
    await database.close()


@pytest.fixture(scope="session")
def clones(admin_dsn: str, template: str) -> Iterator[postgres.Clones]:
    """Give the maker of fresh databases."""
    made = postgres.Clones(admin_dsn, template)
    yield made
    made.close()


@pytest.fixture
def database_url(clones: postgres.Clones) -> Iterator[str]:
    """Give the address of a fresh, migrated database of this test alone."""
    dsn = clones.take()
    yield dsn
    clones.drop(dsn)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Give a connection to the fresh database."""
    opened = Database(database_url, name="test")
    yield opened
    await opened.close()


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[Connection]:
    """Give the bare connection, in autocommit mode; nobody else may use `database` meanwhile."""
    async with database.connection() as bare:
        yield bare


@pytest.fixture
async def queue(database_url: str) -> AsyncIterator[JobQueueManager]:
    """Give a JobQueueManager with a connection of its own."""
    opened = Database(database_url, name="test queue")
    yield JobQueueManager(opened)
    await opened.close()


Condition = Callable[[], Awaitable[object]]


@pytest.fixture
def eventually() -> Callable[..., Awaitable[object]]:
    """Give `await eventually(condition)`: poll until it holds, at most `within_s` seconds."""

    async def wait(condition: Condition, within_s: float = 10.0) -> object:
        async with asyncio.timeout(within_s):
            while not (answer := await condition()):  # noqa: ASYNC110 - it is another process's
                await asyncio.sleep(0.02)
            return answer

    return wait
