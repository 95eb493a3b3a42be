"""The real PostgreSQL of the tests: one server a session, a migrated template, clones of it.

The server is the one at ENRICHD_TEST_DATABASE_URL (a role that may create databases), or else a
throw-away embedded one that all xdist workers of a run share. To run tests on other programs:

    python -m tests.support.postgres /usr/lib/postgresql/15/bin -- .venv/bin/pytest -m queue
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from enrichd.store import embedded
from enrichd.store.embedded import EmbeddedServer

URL_VARIABLE = "ENRICHD_TEST_DATABASE_URL"
POOLER_VARIABLE = "ENRICHD_TEST_POOLER_URL"
"""Where the same server is reached through a pooler: tests then get their databases that way."""
THROW_AWAY = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "autovacuum_naptime": "10min",  # no surprise load on a short test
}
STRATEGY_SINCE = 150_000


@contextlib.contextmanager
def test_server() -> Iterator[str]:
    """Give the admin DSN of the session's server; the last xdist worker to leave removes it."""
    if url := os.environ.get(URL_VARIABLE):
        yield url
        return
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    folder = Path(tempfile.gettempdir()) / f"enrichd-tests-{run_id}"
    with throw_away_server(folder) as server:
        yield server.dsn


test_server.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


@contextlib.contextmanager
def debian_server(folder: Path, binaries: Path) -> Iterator[str]:
    """Give the admin DSN of a throw-away server of other programs, in a new folder."""
    with throw_away_server(folder, binaries) as server:
        yield server.dsn


@contextlib.contextmanager
def throw_away_server(folder: Path, binaries: Path | None = None) -> Iterator[EmbeddedServer]:
    """Start or join a fast server without durability; its last user removes the folder."""
    with _turn(folder):
        server = embedded.start(folder / "data", settings=THROW_AWAY, binaries=binaries)
    try:
        yield server
    finally:
        with _turn(folder):
            if server.stop():
                shutil.rmtree(server.data_dir, ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Let one process at a time start or remove a server; one lasting file serves all folders."""
    with open(folder.parent / f"enrichd-tests-{os.geteuid()}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def create_template(admin_dsn: str, migrate: Callable[[str], None]) -> str:
    """Create a database, let `migrate(dsn)` fill it, and return its name, unique to the worker.

    `migrate` must close its connections: a database in use cannot be cloned.
    """
    name = _new_name("template")
    with _admin(admin_dsn) as conn:
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    migrate(dsn_of(admin_dsn, name))
    return name


def clone_database(admin_dsn: str, template: str) -> str:
    """Create a copy of the template and return its DSN."""
    name = _new_name("test")
    statement = sql.SQL("create database {} template {}").format(
        sql.Identifier(name), sql.Identifier(template)
    )
    with _admin(admin_dsn) as conn:
        if conn.info.server_version >= STRATEGY_SINCE:
            # Without fsync, creating and dropping takes 46 ms this way and 52 ms by way of the log.
            statement += sql.SQL(" strategy file_copy")
        conn.execute(statement)
    return dsn_of(os.environ.get(POOLER_VARIABLE) or admin_dsn, name)


def drop_database(admin_dsn: str, name_or_dsn: str) -> None:
    """Drop a clone (by its DSN) or a template (by its name), cutting off whoever is connected."""
    name = urlsplit(name_or_dsn).path.rpartition("/")[2]
    with _admin(admin_dsn) as conn:
        conn.execute(
            sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
        )


def dsn_of(admin_dsn: str, database: str) -> str:
    """Return the same address with another database."""
    return urlsplit(admin_dsn)._replace(path=f"/{database}").geturl()


def _admin(admin_dsn: str) -> psycopg.Connection:
    return psycopg.connect(admin_dsn, autocommit=True, connect_timeout=10)


def _new_name(kind: str) -> str:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return f"enrichd_{kind}_{worker}_{uuid.uuid4().hex[:12]}"


def main(arguments: list[str]) -> int:
    """Run a command with ENRICHD_TEST_DATABASE_URL set to a server of the given programs."""
    if len(arguments) < 3 or arguments[1] != "--":
        print(
            "usage: python -m tests.support.postgres BINARIES -- COMMAND [ARGUMENT…]",
            file=sys.stderr,
        )
        return 2
    folder = Path(tempfile.gettempdir()) / f"enrichd-tests-{uuid.uuid4().hex}"
    with debian_server(folder, Path(arguments[0])) as dsn:
        return subprocess.call(arguments[2:], env={**os.environ, URL_VARIABLE: dsn})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
