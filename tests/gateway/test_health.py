"""`/livez`, `/readyz` and `/health` on a real database."""

from __future__ import annotations

import asyncio

import pytest
from psycopg.conninfo import make_conninfo

from enrichd.store import migrate
from enrichd.store.database import Database
from tests.gateway.conftest import a_gateway
from tests.support import postgres
from tests.support.factories import a_job, a_worker


async def a_turning_worker(conn, *, turned_ago_s=1.0, silent_s=0.0, running=0, state="running"):
    worker = await a_worker(conn)
    await conn.execute(
        """
        update enrichment_workers
           set turned_at = now() - make_interval(secs => %s), running = %s, state = %s,
               heartbeat_at = now() - make_interval(secs => %s)
         where id = %s
        """,
        [turned_ago_s, running, state, silent_s, worker.id],
    )
    return worker


async def test_all_is_well_with_a_worker_that_turns(gateway, conn):
    await a_turning_worker(conn)

    ready, health = await gateway.get("/readyz"), await gateway.get("/health")

    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "reasons": []})
    body = health.json()
    assert health.status_code == 200
    assert {name: check["status"] for name, check in body["checks"].items()} == {
        "supervisor": "pass",
        "draining": "pass",
        "database": "pass",
        "migrations": "pass",
        "workers": "pass",
        "claims": "pass",
        "readyJobs": "pass",
        "dueJobs": "pass",
        "metrics": "warn",  # no supervisor has prepared a folder here
    }
    assert body["checks"]["claims"]["observedUnit"] == "s"
    assert 1 <= body["checks"]["claims"]["observedValue"] < 10


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        (None, "no worker is alive on any host"),
        ({"silent_s": 30.0}, "no worker is alive on any host"),
        ({"state": "dead"}, "no worker is alive on any host"),
        ({"state": "draining"}, "no worker is alive on any host"),
        ({"turned_ago_s": 100.0}, "none has asked PostgreSQL for jobs for 10"),
        ({"turned_ago_s": None}, "none has asked PostgreSQL for jobs yet"),
    ],
)
async def test_not_ready_without_a_worker_that_turns(gateway, conn, worker, reason):
    if worker is not None:
        await a_turning_worker(conn, **worker)

    ready, health = await gateway.get("/readyz"), await gateway.get("/health")

    assert ready.status_code == health.status_code == 503
    assert reason in ready.json()["reasons"][0]
    assert health.json()["status"] == "fail"
    assert reason in health.json()["output"]
    assert (await gateway.get("/livez")).status_code == 200


async def test_a_worker_with_all_slots_taken_need_not_ask_for_jobs(gateway, conn):
    await a_turning_worker(conn, turned_ago_s=1000.0, running=10)

    assert (await gateway.get("/readyz")).status_code == 200


async def test_one_turning_worker_is_enough(gateway, conn):
    await a_turning_worker(conn, turned_ago_s=1000.0)
    await a_turning_worker(conn)

    assert (await gateway.get("/readyz")).status_code == 200


async def test_not_ready_on_a_database_without_tables(admin_dsn):
    dsn = postgres.clone_database(admin_dsn, "template0")
    try:
        async with a_gateway(dsn) as gateway:
            health = await gateway.get("/health")
            ready = await gateway.get("/readyz")
    finally:
        postgres.drop_database(admin_dsn, dsn)

    count = len(migrate.migrations())
    assert health.status_code == ready.status_code == 503
    assert ready.json()["reasons"] == [
        f"{count} migrations are missing: run enrichctl db migrate",
    ]
    assert "workers" not in health.json()["checks"]


async def test_draining_is_not_ready_at_once_and_stays_alive(gateway, conn):
    await a_turning_worker(conn)
    assert (await gateway.get("/readyz")).status_code == 200

    gateway.standing.hear("draining")

    ready, health = await gateway.get("/readyz"), await gateway.get("/health")
    assert (ready.status_code, health.status_code) == (503, 200)
    assert ready.json()["reasons"] == ["this daemon is draining: it takes no new jobs"]
    assert health.json()["checks"]["draining"]["status"] == "warn"
    assert (await gateway.get("/livez")).status_code == 200


async def test_a_supervisor_that_stopped_ticking_is_not_alive(gateway, conn):
    await a_turning_worker(conn)
    gateway.standing._ticked_at -= 11

    live, health = await gateway.get("/livez"), await gateway.get("/health")

    assert (live.status_code, health.status_code) == (503, 503)
    assert live.json() == {
        "status": "not alive",
        "output": "the supervisor has not been heard of for 11 s",
    }

    gateway.standing.hear("tick")
    assert (await gateway.get("/livez")).json() == {"status": "alive", "output": "all is well"}


async def test_jobs_that_wait_for_long_are_a_warning(gateway, conn):
    await a_turning_worker(conn)
    await a_job(conn)
    await conn.execute("update enrichment_jobs set updated_at = now() - interval '20 minutes'")
    await a_job(conn, status="scheduled", scheduled_in_s=-90)

    health = await gateway.get("/health")

    assert health.status_code == 200
    body = health.json()
    assert body["status"] == "warn"
    assert body["checks"]["readyJobs"]["output"] == "a ready job has waited for 1200 s"
    assert body["checks"]["dueJobs"]["output"] == "a job that was due 90 s ago is not ready yet"


async def test_a_database_that_hangs_is_told_within_a_second_or_so(database_url, conn):
    await a_turning_worker(conn)
    loop = asyncio.get_running_loop()
    async with a_gateway(database_url) as gateway:
        async with conn.transaction():
            await conn.execute("lock table enrichment_workers in access exclusive mode")
            began = loop.time()
            answers = await asyncio.gather(*(gateway.get("/readyz") for _ in range(20)))
            took_s = loop.time() - began
            live = await gateway.get("/livez")
            page = await gateway.get("/metrics")

        assert {answer.status_code for answer in answers} == {503}
        assert answers[0].json()["reasons"] == ["PostgreSQL did not answer within a second"]
        assert took_s < 2.0
        assert live.status_code == page.status_code == 200
        assert 'enrichd_scrape_error{source="database"} 1.0' in page.text
        assert "enrichd_queue_depth" not in page.text

        assert (await gateway.get("/readyz")).status_code == 200


async def test_a_broken_connection_is_replaced_without_a_bad_answer(gateway, conn):
    await a_turning_worker(conn)
    assert (await gateway.get("/readyz")).status_code == 200

    await conn.execute(
        """
        select pg_terminate_backend(pid)
          from pg_stat_activity
         where datname = current_database()
           and pid <> pg_backend_pid()
        """
    )

    assert (await gateway.get("/readyz")).status_code == 200


async def test_many_askers_share_one_question(database_url, conn):
    await a_turning_worker(conn)
    async with a_gateway(database_url, fresh_s=60.0) as gateway:
        await asyncio.gather(*(gateway.get("/readyz") for _ in range(50)))
        await conn.execute("delete from enrichment_workers")
        assert (await gateway.get("/readyz")).status_code == 200  # still the answer of before


async def test_a_role_without_rights_is_a_failure_and_not_an_error(database_url, database):
    async with database.connection() as conn:
        await conn.execute("drop role if exists enrichd_nobody")
        await conn.execute("create role enrichd_nobody login password 'x'")
    nobodys = make_conninfo(database_url, user="enrichd_nobody", password="x")
    try:
        async with a_gateway(nobodys) as gateway:
            health = await gateway.get("/health")
    finally:
        async with database.connection() as conn:
            await conn.execute("drop role enrichd_nobody")

    assert health.status_code == 503
    assert health.json()["checks"]["database"]["output"] == "PostgreSQL refuses the question"


async def test_nobody_is_told_hosts_names_or_versions(gateway, conn):
    await a_turning_worker(conn)
    gone = Database("postgresql://quentin:s3cret@127.0.0.1:1/private_name")
    async with a_gateway(gone.dsn) as away:
        answers = [
            await served.get(path)
            for served in (gateway, away)
            for path in ("/health", "/readyz", "/livez", "/metrics", "/nowhere")
        ]
    for answer in answers:
        told = answer.text + str(answer.headers)
        for secret in ("s3cret", "private_name", "quentin", "127.0.0.1", "Python", "aiohttp"):
            assert secret not in told, (answer.url, secret)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
