"""Debian's PgBouncer in transaction mode, with one connection for everybody.

One connection is the hardest case: whatever a transaction leaves behind meets the next caller.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import psycopg

PORT = 6432
"""Of a socket file in a folder of its own; by this number enrichd knows a pooler."""
START_S = 10.0
PROGRAM = "/usr/sbin/pgbouncer"

CONFIGURATION = """
[databases]
* = host={host} port={port} user={user}

[pgbouncer]
listen_addr =
listen_port = {listen_port}
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
query_wait_timeout = 20
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
logfile = {folder}/pgbouncer.log
"""


def program() -> str | None:
    """Return where PgBouncer is, None if it is not installed."""
    return shutil.which("pgbouncer") or (PROGRAM if os.path.exists(PROGRAM) else None)


@contextlib.contextmanager
def pgbouncer(admin_dsn: str, folder: Path, *, size: int = 1) -> Iterator[str]:
    """Give the admin DSN by way of a pooler with `size` connections to each database."""
    found = program()
    assert found is not None
    parts = urlsplit(admin_dsn)
    sockets = parse_qs(parts.query).get("host", [parts.hostname or ""])[0]
    server_port = parse_qs(parts.query).get("port", [str(parts.port or 5432)])[0]
    owner = os.stat(f"{sockets}/.s.PGSQL.{server_port}")
    # PgBouncer refuses to be root, and PostgreSQL's own account can reach the socket.
    account = (
        {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        if os.geteuid() == 0
        else {}
    )
    folder.mkdir(mode=0o755)
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        CONFIGURATION.format(
            host=sockets,
            port=server_port,
            user=parts.username,
            listen_port=PORT,
            folder=folder,
            size=size,
        )
    )
    if account:
        os.chown(folder, owner.st_uid, owner.st_gid)
    url = (
        f"{parts.scheme}://{parts.username}@{parts.path}?host={quote(str(folder), safe='')}"
        f"&port={PORT}"
    )
    process = subprocess.Popen(
        [found, "-q", str(configuration)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        **account,  # type: ignore[call-overload]
    )
    try:
        wait_until_it_answers(url, process, folder / "pgbouncer.log")
        yield url
    finally:
        process.kill()
        process.wait()


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once a client gets through."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(url, autocommit=True, prepare_threshold=None).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text() if log.exists() else "nothing"
                raise AssertionError(f"PgBouncer did not start; it said: {said}") from None
            time.sleep(0.05)
        else:
            return
