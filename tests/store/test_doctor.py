from __future__ import annotations

import psycopg
import pytest
from uuid_utils.compat import uuid7

from enrichd.store import doctor
from tests.support import postgres
from tests.support.factories import a_job, a_lane, a_worker, pending_jobs

pytestmark = pytest.mark.queue


async def test_the_server_tells_its_settings_in_milliseconds_and_bytes(conn):
    await conn.execute("set statement_timeout = '2min'")
    await conn.execute("set synchronous_commit = off")

    server = await doctor.server(conn)

    assert server.version >= 140000
    assert (server.is_standby, server.is_read_only) == (False, False)
    assert server.settings["statement_timeout"] == "120000"
    assert server.settings["synchronous_commit"] == "off"
    assert int(server.settings["shared_buffers"]) > 1_000_000
    assert server.connections >= 1
    assert server.backend_pid == server.client_pid


async def test_two_clocks_on_one_host_agree(conn):
    clock = await doctor.clock(conn)

    assert abs(clock.ahead_s) < 0.5
    assert 0 < clock.round_trip_s < 1


async def test_a_forgotten_transaction_is_found(conn, database_url):
    with psycopg.connect(database_url, application_name="report") as other:
        other.execute("select 1")
        # Only this session is older than nothing: others of the server come and go.
        horizon = await doctor.horizon(conn)

        assert horizon.sees_all
        assert horizon.idle_in_transaction >= 1
        assert horizon.transaction_s >= 0
    assert horizon.slot is None
    assert horizon.prepared is None


async def test_a_table_without_autovacuum_is_told(conn):
    await conn.execute("alter table enrichment_workers set (autovacuum_enabled = off)")

    tables = {table.name: table for table in await doctor.tables(conn)}

    assert {"enrichment_jobs", "enrichment_lanes", "enrichment_migrations"} <= tables.keys()
    assert not tables["enrichment_workers"].has_autovacuum
    assert tables["enrichment_jobs"].has_autovacuum
    assert tables["enrichment_jobs"].size_bytes > 0


async def test_missing_and_invalid_indexes_are_told_apart(conn):
    assert await doctor.broken_indexes(conn, versions=[1]) == {}
    await conn.execute("drop index enrichment_jobs_due")
    await conn.execute(
        "update pg_index set indisvalid = false"
        " where indexrelid = 'enrichment_jobs_ready'::regclass"
    )

    assert await doctor.broken_indexes(conn, versions=[1]) == {
        "enrichment_jobs_due": False,
        "enrichment_jobs_ready": True,
    }
    assert await doctor.broken_indexes(conn, versions=[]) == {}


async def test_a_notify_is_heard_on_another_connection(conn, database_url):
    assert 0 < await doctor.hears_itself(database_url, conn) < 2


async def test_a_notify_is_not_heard_in_another_database(conn, admin_dsn, monkeypatch):
    monkeypatch.setattr(doctor, "LISTEN_WAIT_S", 0.2)

    assert await doctor.hears_itself(postgres.dsn_of(admin_dsn, "postgres"), conn) is None


async def test_a_direct_connection_prepares(conn):
    await doctor.can_prepare(conn)


async def test_what_is_stuck_is_counted(conn):
    alive = await a_worker(conn)
    for silent_s, state in ((60, "running"), (0, "dead")):
        worker = await a_worker(conn, silent_s=silent_s, state=state)
        await a_job(conn, status="processing", worker_id=worker.id)
    await a_job(conn, status="processing", worker_id=uuid7())
    await a_job(conn, status="processing", worker_id=alive.id)
    await a_job(conn, status="scheduled", scheduled_in_s=-90)
    await a_job(conn, status="scheduled", scheduled_in_s=-30)
    await a_job(conn, status="waiting", scheduled_in_s=-90)
    await a_job(conn, status="dead_letter")
    await a_job(conn, status="dead_letter", completed_ago_s=90_000)
    await a_job(conn, status="completed")

    queue = await doctor.queue(conn, worker_timeout_s=20)

    assert (queue.orphans, queue.overdue, queue.late_callbacks) == (3, 1, 1)
    assert (queue.dead_letters_24h, queue.ended_24h) == (1, 2)


async def test_jobs_of_a_throttled_lane_are_not_late(conn):
    await pending_jobs(conn, 2, provider_id="hunter")
    await conn.execute("update enrichment_jobs set updated_at = now() - interval '5 minutes'")
    assert (await doctor.queue(conn, worker_timeout_s=20)).oldest_ready_s > 290

    await conn.execute(
        "insert into enrichment_provider_state (provider_id, blocked_until, reason)"
        " values ('hunter', now() + interval '1 hour', '429')"
    )
    queue = await doctor.queue(conn, worker_timeout_s=20)
    (held,) = await doctor.held_lanes(conn)

    assert (queue.ready, queue.oldest_ready_s) == (2, None)
    assert (held.provider_id, held.breaker, held.reason) == ("hunter", "closed", "429")
    assert 3500 < held.blocked_s <= 3600


async def test_an_open_lane_is_not_held(conn):
    await a_lane(conn, "hunter")
    await conn.execute(
        "insert into enrichment_provider_state (provider_id, blocked_until)"
        " values ('hunter', now() - interval '1 second')"
    )

    assert await doctor.held_lanes(conn) == []
