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
from psycopg import pq, sql

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
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 4_000_000_000
PREFIX = "enrichd-tests-"


@contextlib.contextmanager
def test_server() -> Iterator[str]:
    """Give the admin DSN of the session's server; the last xdist worker to leave removes it."""
    if url := os.environ.get(URL_VARIABLE):
        yield url
        return
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    with throw_away_server(server_folder(run_id)) as server:
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
        remove_left_behind(folder)
        server = embedded.start(folder / "data", settings=THROW_AWAY, binaries=binaries)
    try:
        yield server
    finally:
        with _turn(folder):
            if server.stop():
                shutil.rmtree(server.data_dir, ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)


def server_folder(run_id: str) -> Path:
    """Return the folder of a run's server: in memory, unless there is little of it.

    A database is 300 files: to make and drop one takes a fifth of the time there.
    """
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN
    return (MEMORY if has_room else Path(tempfile.gettempdir())) / f"{PREFIX}{run_id}"


def remove_left_behind(folder: Path) -> None:
    """Remove what runs that were killed left in memory beside a folder."""
    if folder.parent == MEMORY:
        for other in MEMORY.glob(f"{PREFIX}*/"):
            is_ours = other.stat().st_uid == os.geteuid()
            if is_ours and other != folder and not _is_served(other):
                shutil.rmtree(other, ignore_errors=True)


def _is_served(folder: Path) -> bool:
    """Say whether the server of a folder runs."""
    try:
        os.kill(int((folder / "data/postmaster.pid").read_text().split()[0]), 0)
    except (OSError, ValueError, IndexError) as error:
        return isinstance(error, PermissionError)
    return True


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Let one process at a time start or remove a server; one lasting file serves all folders."""
    with open(folder.parent / f"{PREFIX}{os.geteuid()}.lock", "a") as lock:
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
    with _admin(admin_dsn) as conn:
        conn.execute(_cloning(conn, name, template))
    return _dsn_of_clone(admin_dsn, name)


def drop_database(admin_dsn: str, name_or_dsn: str) -> None:
    """Drop a clone (by its DSN) or a template (by its name), cutting off whoever is connected."""
    with _admin(admin_dsn) as conn:
        conn.execute(_dropping(name_or_dsn))


class Clones:
    """Copies of the template, one a test; the server makes the next one while a test runs.

    It also drops the last one meanwhile: making and dropping one takes longer than most tests.
    """

    def __init__(self, admin_dsn: str, template: str) -> None:
        self._admin_dsn = admin_dsn
        self._template = template
        self._making, self._dropping = (_admin(admin_dsn) for _ in range(2))
        self._next: str | None = None

    def take(self) -> str:
        """Return the DSN of a fresh copy."""
        if self._next is None:
            self._make()
        _finish(self._making)
        taken = self._next
        assert taken is not None
        self._make()
        return _dsn_of_clone(self._admin_dsn, taken)

    def drop(self, dsn: str) -> None:
        """Begin to drop a copy, cutting off whoever is connected."""
        _finish(self._dropping)
        _begin(self._dropping, _dropping(dsn))

    def close(self) -> None:
        """Drop the copy that nobody took, and wait for the end of it all."""
        with self._making, self._dropping:
            if self._next is not None:
                _finish(self._making)
                self.drop(self._next)
            _finish(self._dropping)

    def _make(self) -> None:
        self._next = _new_name("test")
        _begin(self._making, _cloning(self._making, self._next, self._template))


def _begin(conn: psycopg.Connection, statement: sql.Composed) -> None:
    """Send a statement and do not wait for its end: no thread, for tests fork."""
    conn.pgconn.send_query(statement.as_bytes(conn))


def _finish(conn: psycopg.Connection) -> None:
    """Wait for the end of the statement begun last, if there is one."""
    while (result := conn.pgconn.get_result()) is not None:
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)


def _cloning(conn: psycopg.Connection, name: str, template: str) -> sql.Composed:
    statement = sql.SQL("create database {} template {}").format(
        sql.Identifier(name), sql.Identifier(template)
    )
    if conn.info.server_version >= STRATEGY_SINCE:
        # Without fsync, creating and dropping takes 46 ms this way and 52 ms by way of the log.
        statement += sql.SQL(" strategy file_copy")
    return statement


def _dropping(name_or_dsn: str) -> sql.Composed:
    name = urlsplit(name_or_dsn).path.rpartition("/")[2]
    return sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))


def _dsn_of_clone(admin_dsn: str, name: str) -> str:
    return dsn_of(os.environ.get(POOLER_VARIABLE) or admin_dsn, name)


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
    with debian_server(server_folder(uuid.uuid4().hex), Path(arguments[0])) as dsn:
        return subprocess.call(arguments[2:], env={**os.environ, URL_VARIABLE: dsn})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
