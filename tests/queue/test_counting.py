"""What is put on the queue is counted where it commits. In a process that keeps metrics."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client.multiprocess import MultiProcessCollector

pytestmark = pytest.mark.queue

SCRIPT = """
import asyncio, sys
from pathlib import Path
from enrichd import metrics
from enrichd.domain.jobs import NewJob
from enrichd.errors import InvalidPayload
from enrichd.queue.manager import JobQueueManager
from enrichd.store.database import Database
from tests.support import job_types

async def enqueue(dsn):
    own, callers = Database(dsn), Database(dsn)
    queue = JobQueueManager(own)
    one, keyed = NewJob("empty", {}), NewJob("echo", {}, idempotency_key="k")
    await queue.enqueue(one)
    await queue.enqueue(keyed)
    await queue.enqueue(keyed)
    await queue.enqueue_many([one] * 300 + [keyed, NewJob("echo", {}, idempotency_key="new")])
    try:
        await queue.enqueue_many([one, NewJob("empty", {"x": 1})])
    except InvalidPayload:
        pass
    async with callers.transaction() as conn:
        await queue.enqueue(one, conn=conn)
        await queue.enqueue_many([one] * 3, conn=conn)
    await own.close()
    await callers.close()

job_types.reset()
metrics.prepare(Path(sys.argv[1]))
metrics.allow(job_types=["empty", "echo"], providers=[])
asyncio.run(enqueue(sys.argv[2]))
"""


def test_new_jobs_are_counted_once_they_are_committed_here(database_url, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path), database_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    counts = {
        sample.labels["type"]: sample.value
        for family in MultiProcessCollector.merge([str(file) for file in tmp_path.glob("*.db")])
        for sample in family.samples
        if sample.name == "enrichd_jobs_enqueued_total"
    }
    assert {kind: count for kind, count in counts.items() if count} == {"empty": 301, "echo": 2}
