"""Live updates: from a commit to the last of 500 listeners, by the real gateway over HTTP."""

from __future__ import annotations

import asyncio
import time

import psycopg
from uuid_utils.compat import uuid7

from enrichd.store import changes
from tests.benchmarks.figures import Figures
from tests.benchmarks.http_server import a_key, gateway
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
        with gateway(dsn) as server:
            firsts, lasts = asyncio.run(measured(dsn, server.port, key, jobs))
    for name, times in (("first", firsts), ("last", lasts)):
        times.sort()
        for share in (50, 99):
            value = times[min(len(times) * share // 100, len(times) - 1)]
            what = f"commit to the {name} of {LISTENERS} listeners, p{share}"
            figures.add(what, "enrichd", value * 1000, "ms")


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
