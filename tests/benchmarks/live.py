"""Live updates: from a commit to the last of 500 listeners, by the real gateway over HTTP."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
import time

import psycopg
from uuid_utils.compat import uuid7

from enrichd.domain.api_keys import hash_of, id_of, key_of
from enrichd.store import api_keys, changes
from enrichd.store.database import Database
from tests.benchmarks.figures import Figures
from tests.benchmarks.peers import peer
from tests.benchmarks.processes import database

LISTENERS = 500
WITHIN_S = 30.0
ENDED = """
    update enrichment_jobs
       set status = 'completed', completed_at = now(), updated_at = now()
     where id = %s
"""
JOB = """
    insert into enrichment_jobs (id, workspace_id, type, payload)
    values (%s, 'bench', 'nap', '{}')
"""


def live(admin_dsn: str, jobs: int, figures: Figures) -> None:
    """Measure how long after its commit an event reaches the first and the last listener."""
    with database(admin_dsn, peer("enrichd")) as dsn:
        key = asyncio.run(a_key(dsn))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            gateway = subprocess.Popen(
                [sys.executable, "-m", "tests.gateway.child", str(theirs.fileno()), "0"],
                env={
                    **os.environ,
                    "DATABASE_URL": dsn,
                    "HEALTH_CHECK_PORT": str(port),
                    "API_RATE_LIMIT_PER_SECOND": "0",
                    "LOG_LEVEL": "error",
                },
                pass_fds=[theirs.fileno()],
                stderr=subprocess.DEVNULL,
            )
            try:
                ours.settimeout(WITHIN_S)
                while b"ready" not in ours.recv(4096):
                    pass
                firsts, lasts = asyncio.run(measured(dsn, port, key, jobs))
            finally:
                gateway.terminate()
                gateway.wait(timeout=WITHIN_S)
    for name, times in (("first", firsts), ("last", lasts)):
        times.sort()
        for share in (50, 99):
            value = times[min(len(times) * share // 100, len(times) - 1)]
            what = f"commit to the {name} of {LISTENERS} listeners, p{share}"
            figures.add(what, "enrichd", value * 1000, "ms")


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
            scopes=("read",),
            keep_s=None,
        )
    await opened.close()
    return key


async def measured(dsn: str, port: int, key: str, jobs: int) -> tuple[list[float], list[float]]:
    """Return, for each job, the seconds from its commit to the first and to the last listener."""
    arrivals: dict[str, list[float]] = {}
    readers = [await listen(port, key) for _ in range(LISTENERS)]
    tasks = [asyncio.create_task(hear(reader, arrivals)) for reader, _ in readers]
    committed: dict[str, float] = {}
    conn = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    for _ in range(jobs):
        job_id = uuid7()
        await conn.execute(JOB, [job_id])
        await conn.execute(ENDED, [job_id])
        committed[str(job_id)] = time.perf_counter()
        await changes.tell(conn, {"bench": [str(job_id)]})
        async with asyncio.timeout(WITHIN_S):
            while len(arrivals.get(str(job_id), ())) < LISTENERS:  # noqa: ASYNC110 - 500 wait
                await asyncio.sleep(0.002)
    await conn.close()
    for task in tasks:
        task.cancel()
    for _, writer in readers:
        writer.close()
    waits = [[at - committed[job] for at in times] for job, times in arrivals.items()]
    return [min(times) for times in waits], [max(times) for times in waits]


async def listen(port: int, key: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream and wait until it listens."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /api/enrichment/events?status=completed HTTP/1.1\r\nHost: x\r\n"
        b"Authorization: Bearer %b\r\n\r\n" % key.encode()
    )
    await reader.readuntil(b"\nid: ")
    return reader, writer


async def hear(reader: asyncio.StreamReader, arrivals: dict[str, list[float]]) -> None:
    """Note when each event came."""
    while line := await reader.readline():
        if line.startswith(b"id: "):
            job_id = line[4:].decode().strip().partition("-")[2]
            arrivals.setdefault(job_id, []).append(time.perf_counter())
