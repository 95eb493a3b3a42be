"""A worker's heartbeat, when PostgreSQL takes it for one too many."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from enrichd.errors import Unavailable
from enrichd.processing.pulse import Pulse, Vitals
from enrichd.store.database import Database


@pytest.fixture
def pulse(database: Database) -> Pulse:
    """Give the pulse of a worker that is not announced."""
    vitals = Vitals(uuid4(), "idle", running=0, completed=0, failed=0, turned_s=0.0)
    return Pulse(database, interval_s=1.0, timeout_s=30.0, concurrency=1, vitals=lambda: vitals)


async def test_a_heartbeat_that_lost_to_a_migration_is_one_missed(
    pulse: Pulse, database_url: str, eventually
):
    await pulse.announce()
    migrating = Database(database_url, name="migration")
    async with migrating.connection() as conn:
        # The heartbeat is the one that looks for a deadlock first.
        await conn.execute("set deadlock_timeout = '20s'")
        async with conn.transaction():
            await conn.execute("lock table enrichment_jobs in access exclusive mode")
            beat = asyncio.create_task(pulse.beat())

            async def waits():
                cursor = await conn.execute(
                    "select 1 from pg_locks where not granted"
                    " and relation = 'enrichment_jobs'::regclass"
                )
                return await cursor.fetchone()

            await eventually(waits)
            await conn.execute("lock table enrichment_workers in access exclusive mode")
        with pytest.raises(Unavailable, match="deadlock"):
            await beat
    await migrating.close()

    assert await pulse.beat() == 0
