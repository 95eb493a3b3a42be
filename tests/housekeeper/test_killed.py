"""Webhooks while housekeepers are killed and PostgreSQL stops: none lost, no second id."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.rows import dict_row

from enrichd.housekeeper.deliveries import deliverer_of
from enrichd.settings import Settings
from enrichd.store import embedded
from enrichd.store.database import Database
from tests.conftest import apply_migrations
from tests.e2e.linked import LinkedChild
from tests.support.postgres import THROW_AWAY
from tests.support.receivers import Receivers

ALLOWED = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8", "HEALTH_CHECK_PORT": "1"}
RECEIVERS = 5
EACH = 120
KILLS = 2
SENT_BEFORE_A_KILL = 150

# To jobs' own URLs, which need no endpoint and no secret of their own.
FILL = """
    insert into enrichment_webhook_deliveries (workspace_id, target, url, event, data)
    select 'default', 'default ' || path, %(base)s || path, 'job.completed', '{}'
      from unnest(%(paths)s::text[]) as path, generate_series(1, %(each)s)
"""


@pytest.fixture
async def receivers() -> AsyncIterator[Receivers]:
    async with Receivers(slow_s=0.02) as started:
        yield started


async def fill(dsn: str, receivers: Receivers, *, path: str, lines: int, each: int) -> None:
    paths = [f"{path}/{number}" for number in range(lines)]
    values = {"base": receivers.url(""), "paths": paths, "each": each}
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute(FILL, values)


async def outbox(dsn: str) -> list[dict]:
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as conn:
        cursor = await conn.execute(
            "select id::text, status, attempts from enrichment_webhook_deliveries"
        )
        return await cursor.fetchall()


async def test_housekeepers_that_are_killed_lose_no_delivery(
    conn, database_url, tmp_path, receivers, eventually
):
    await fill(database_url, receivers, path="/slow", lines=RECEIVERS, each=EACH)
    for number in range(1, KILLS + 1):
        with LinkedChild("housekeeper", database_url, tmp_path, **ALLOWED) as child:

            async def has_sent(wanted=number * SENT_BEFORE_A_KILL):
                return len(receivers.got) >= wanted

            await eventually(has_sent)
            child.process.kill()
        assert {row["status"] for row in await outbox(database_url)} == {"pending", "delivered"}
        # As if the leases were over.
        await conn.execute(
            "update enrichment_webhook_deliveries set next_attempt_at = now()"
            " where status = 'pending'"
        )

    with LinkedChild("housekeeper", database_url, tmp_path, **ALLOWED):

        async def are_delivered():
            return {row["status"] for row in await outbox(database_url)} == {"delivered"}

        await eventually(are_delivered)
    came = Counter(got.id for got in receivers.got)
    attempts = {row["id"]: row["attempts"] for row in await outbox(database_url)}
    assert came.keys() == attempts.keys()
    assert all(1 <= came[one] <= attempts[one] <= KILLS + 1 for one in came), "each was counted"


async def test_a_postgresql_that_stops_costs_no_delivery_and_repeats_none(
    tmp_path, receivers, eventually
):
    server = embedded.start(tmp_path / "data", settings=THROW_AWAY)
    dsn = server.dsn
    try:
        await apply_migrations(dsn)
        await fill(dsn, receivers, path="/slow", lines=RECEIVERS, each=40)
        database = Database(dsn, name="test webhooks")
        running = asyncio.create_task(deliverer_of(Settings.load(ALLOWED), database).run())

        async def has_sent():
            return len(receivers.got) >= 40

        await eventually(has_sent)
        await asyncio.to_thread(server.stop)
        server = await asyncio.to_thread(embedded.start, tmp_path / "data", settings=THROW_AWAY)

        async def are_delivered():
            return {row["status"] for row in await outbox(dsn)} == {"delivered"}

        await eventually(are_delivered)
        running.cancel()
        await asyncio.wait([running])
        rows = await outbox(dsn)
    finally:
        server.stop()
        shutil.rmtree(server.data_dir, ignore_errors=True)
    assert sorted(got.id for got in receivers.got) == sorted(row["id"] for row in rows)
    assert {row["attempts"] for row in rows} == {1}
