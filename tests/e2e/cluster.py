"""A PostgreSQL server of one test alone: to crash, to start again, to follow and to promote.

Unlike the session's server it keeps every commit it acknowledged through a crash of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from enrichd.store.server_binaries import package_folders
from tests.e2e.daemon import wait_for

NOBODY = 65534
SETTINGS = {
    "fsync": "off",  # the machine does not crash
    "max_connections": "60",
    "wal_level": "replica",
    "autovacuum": "off",
    "tcp_keepalives_idle": "1",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
}


class Cluster:
    """One data folder with its server."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = a_free_port()
        self._folder = folder
        self._data = folder / "data"

    @property
    def url(self) -> str:
        """Return the address of its database over TCP."""
        return f"postgresql://enrichd@{self.host}:{self.port}/postgres"

    @property
    def local_url(self) -> str:
        """Return the address over its Unix socket, which no broken network reaches."""
        return f"postgresql://enrichd@/postgres?host={self._folder}&port={self.port}"

    def create(self) -> Self:
        """Make the data folder and start the server."""
        run("initdb", "-D", self._data, "-U", "enrichd", "-A", "trust", "--no-sync", "-E", "UTF8")
        with open(self._data / "pg_hba.conf", "a") as rules:
            rules.write("host all all 0.0.0.0/0 trust\n")
        self.configure(**SETTINGS)
        self.start()
        return self

    def follow(self, primary: Cluster) -> Self:
        """Become a standby of another server."""
        run("pg_basebackup", "-D", self._data, "-d", primary.local_url, "-R", "-c", "fast", "-X",
            "stream", "--no-sync")  # fmt: skip
        self.start()
        return self

    def configure(self, **settings: str) -> None:
        """Write settings for the next start or reload."""
        with open(self._data / "postgresql.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> None:
        """Start the server and wait until it serves."""
        options = (
            f"-p {self.port} -c listen_addresses='*' -c unix_socket_directories={self._folder}"
        )
        run("pg_ctl", "start", "-D", self._data, "-w", "-t", "30", "-s", "-o", options,
            "-l", self._folder / "log")  # fmt: skip

    def reload(self) -> None:
        """Have the server read its settings again."""
        run("pg_ctl", "reload", "-D", self._data, "-s")

    def promote(self) -> None:
        """Make a standby the primary."""
        run("pg_ctl", "promote", "-D", self._data, "-w", "-s")

    def crash(self) -> None:
        """Kill every process of the server at once (SIGQUIT: an immediate shutdown)."""
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)
            wait_for(lambda: not (self._data / "postmaster.pid").exists())

    def _pid(self) -> int | None:
        try:
            return int((self._data / "postmaster.pid").read_text().split()[0])
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def clusters() -> Iterator[Path]:
    """Give a folder for clusters; all of them are crashed and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="enrichd-cluster-"))
    os.chown(folder, *account())
    try:
        yield folder
    finally:
        for place in folder.iterdir():
            Cluster(place).crash()
        shutil.rmtree(folder, ignore_errors=True)


def a_folder(parent: Path, name: str) -> Path:
    """Make a folder that the server's account owns."""
    folder = parent / name
    folder.mkdir()
    os.chown(folder, *account())
    return folder


def run(program: str, *arguments: str | Path) -> None:
    """Run one of PostgreSQL's programs as an account that it accepts."""
    uid, gid = account()
    is_other = os.geteuid() == 0
    subprocess.run(
        [binaries() / program, *arguments],
        check=True,
        cwd="/",
        stdin=subprocess.DEVNULL,
        # A server that inherits a pipe would hold it open for as long as it lives.
        stdout=subprocess.DEVNULL,
        user=uid if is_other else None,
        group=gid if is_other else None,
        extra_groups=[] if is_other else None,
        timeout=60,
    )


def account() -> tuple[int, int]:
    """Return whom PostgreSQL runs as: it refuses root."""
    return (NOBODY, NOBODY) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def binaries() -> Path:
    """Return the folder of PostgreSQL's programs: Debian's newest, or the package's."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
    )
    packaged = [] if os.geteuid() == 0 else package_folders()
    for folder in [*reversed(debian), *packaged]:
        if (folder / "pg_basebackup").exists():
            return folder
    pytest.skip(
        "needs PostgreSQL's programs (initdb, pg_basebackup) where any account may run them"
    )


def a_free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
