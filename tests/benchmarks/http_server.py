"""HTTP servers of a measurement, each in a process of its own, and a key for ours."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enrichd.domain.api_keys import hash_of, id_of, key_of
from enrichd.store import api_keys
from enrichd.store.database import Database

ROOT = Path(__file__).parents[2]
START_S = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server in a process of its own."""

    port: int
    pid: int

    @property
    def cpu_s(self) -> float:
        """Return the seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def a_key(dsn: str) -> str:
    """Make a key of the workspace."""
    key = key_of(secrets.randbits(46), secrets.randbits(256))
    key_id = id_of(key)
    assert key_id is not None
    opened = Database(dsn, name="bench")
    async with opened.connection() as conn:
        await api_keys.insert(
            conn,
            key_id=key_id,
            workspace_id="bench",
            name="bench",
            key_hash=hash_of(key),
            scopes=("read", "write"),
            keep_s=None,
        )
    await opened.close()
    return key


@contextlib.contextmanager
def gateway(dsn: str) -> Iterator[Server]:
    """Give the gateway child, as the supervisor starts it."""
    port = a_free_port()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway.child", str(theirs.fileno()), "0"],
            env={
                **os.environ,
                "DATABASE_URL": dsn,
                "HEALTH_CHECK_PORT": str(port),
                "API_RATE_LIMIT_PER_SECOND": "0",
                "API_ACCESS_LOG": "off",
                "LOG_LEVEL": "error",
            },
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
        )
        with ended(process):
            ours.settimeout(START_S)
            while b"ready" not in ours.recv(4096):
                pass
            yield Server(port, process.pid)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process after the block."""
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=START_S)


def a_free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
