from __future__ import annotations

import psycopg
import pytest

from enrichd.store import doctor
from tests.support import postgres

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
