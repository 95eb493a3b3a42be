"""JobProcessor over seconds: PostgreSQL restarts under load, eight processes claim at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import psycopg
import pytest

from enrichd.domain.jobs import NewJob
from enrichd.errors import Unavailable
from enrichd.queue.manager import JobQueueManager
from enrichd.store import embedded
from enrichd.store.database import Database
from tests.conftest import apply_migrations
from tests.support import postgres
from tests.support.job_types import SEEN

pytestmark = [pytest.mark.queue, pytest.mark.slow]

ROOT = Path(__file__).parents[2]

WORKER = """
import asyncio, sys
from enrichd.processing.processor import JobProcessor, Limits
from enrichd.store.database import Database
from tests.support import job_types

async def main(dsn):
    hot, control = Database(dsn), Database(dsn)
    processor = JobProcessor(hot=hot, control=control, concurrency=5, poll_interval_s=0.1)
    report = await processor.run(Limits(is_until_empty=True))
    await hot.close()
    await control.close()
    print(report.completed, report.lost, len(job_types.SEEN.ended), len(set(job_types.SEEN.ended)))
    print(*job_types.SEEN.ended)

asyncio.run(main(sys.argv[1]))
"""


def start_workers(database_url):
    command = [sys.executable, "-c", WORKER, database_url]
    return [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]


async def test_eight_processes_at_once_run_every_job_once(database_url, queue, statuses):
    await queue.enqueue_many([NewJob("nap", {"seconds": 0.002}) for _ in range(4_000)])

    workers = start_workers(database_url)
    outputs = [(await asyncio.to_thread(worker.communicate, timeout=120))[0] for worker in workers]

    assert [worker.returncode for worker in workers] == [0] * 8
    ran = [job for output in outputs for job in output.splitlines()[1].split()]
    assert len(ran) == len(set(ran)) == 4_000
    assert sum(int(output.split()[0]) for output in outputs) == 4_000
    assert await statuses() == {"completed": 4_000}


@pytest.fixture
def own_server():
    """Give a server of this test alone, and its folder, to stop and start again."""
    folder = Path(tempfile.gettempdir()) / f"enrichd-tests-{uuid.uuid4().hex}"
    with postgres.throw_away_server(folder) as server:
        yield server, folder


async def test_a_restarted_postgresql_loses_nothing(own_server, make, eventually):
    server, folder = own_server
    await apply_migrations(server.dsn)
    database = Database(server.dsn)
    queue = JobQueueManager(database)
    await queue.enqueue_many([NewJob("nap", {"seconds": 0.01}) for _ in range(600)])
    processor = make(dsn=server.dsn, concurrency=5)
    task = asyncio.create_task(processor.run())

    async def count(status):
        try:
            async with database.connection() as conn:
                cursor = await conn.execute(
                    "select count(*) from enrichment_jobs where status = %s", [status]
                )
                return (await cursor.fetchone())[0]
        except Unavailable:
            return 0

    for part in (100, 300):

        async def is_under_way(part=part):
            return await count("completed") > part

        await eventually(is_under_way, within_s=30)
        await asyncio.to_thread(server.stop)  # its only user leaves: fast shutdown
        server = await asyncio.to_thread(
            embedded.start, folder / "data", settings=postgres.THROW_AWAY
        )

    async def is_done():
        return await count("completed") == 600

    await eventually(is_done, within_s=30)
    processor.stop()
    async with asyncio.timeout(10):
        await task
    await database.close()
    with psycopg.connect(server.dsn) as conn:
        row = conn.execute("select max(attempts), count(*) from enrichment_jobs").fetchone()
        left = conn.execute("select count(*) from enrichment_workers").fetchone()
    await asyncio.to_thread(server.stop)
    assert (row, left) == ((1, 600), (0,))
    assert len(SEEN.ended) == len(set(SEEN.ended))


async def test_stop_during_an_outage_ends_within_the_grace(own_server, make, eventually):
    server, _ = own_server
    await apply_migrations(server.dsn)
    database = Database(server.dsn)
    queue = JobQueueManager(database)
    await queue.enqueue_many([NewJob("nap", {"seconds": 0.01}) for _ in range(500)])
    processor = make(dsn=server.dsn, grace_s=0.5)
    task = asyncio.create_task(processor.run())

    async def has_begun():
        return len(SEEN.ended) > 20

    await eventually(has_begun)
    await database.close()
    await asyncio.to_thread(server.stop)
    processor.stop()

    async with asyncio.timeout(15):
        await task
