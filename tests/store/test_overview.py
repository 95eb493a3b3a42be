from __future__ import annotations

import json

import pytest
from psycopg import sql

from enrichd.store import overview
from tests.support.factories import a_job, a_lane, a_worker, pending_jobs

pytestmark = pytest.mark.queue

STATEMENTS = {
    "TOTALS": {"searched": 2000},
    "LANES": {},
    "RUNNING": {},
    "ENDED": {"window_s": 60.0, "limit": 5000},
    "ERRORS": {"searched": 2000, "limit": 100},
}

HISTORY = """
    insert into enrichment_jobs
           (id, type, status, provider_id, payload, attempts, worker_id, started_at, completed_at)
    select enrichment_uuid7(), 'email_validation', 'completed', 'free', '{}', 1,
           enrichment_uuid7(), now() - make_interval(secs => place / 50.0 + 1),
           now() - make_interval(secs => place / 50.0)
      from generate_series(1, %s) as place
"""


async def plan_of(conn, name, mode):
    """Return every node of an executed plan and the pages it read."""
    await conn.execute(sql.SQL("set plan_cache_mode = {}").format(f"force_{mode}_plan"))
    cursor = await conn.execute(
        "explain (analyze, buffers, format json) " + getattr(overview, name),
        STATEMENTS[name],
        prepare=True,
    )
    (answer,) = await cursor.fetchone()
    root = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    nodes, todo = [], [root]
    while todo:
        node = todo.pop()
        nodes.append(node)
        todo += node.get("Plans", ())
    return nodes, root["Shared Hit Blocks"] + root["Shared Read Blocks"]


async def test_live_jobs_are_counted_by_lane(conn):
    await pending_jobs(conn, 3, provider_id="hunter")
    await pending_jobs(conn, 2, provider_id="hunter", priority=1)
    await a_lane(conn, "apollo")
    await conn.execute(
        "insert into enrichment_provider_state (provider_id, breaker, blocked_until, reason)"
        " values ('apollo', 'open', now() + interval '1 minute', 'too many errors')"
    )
    await a_job(conn, status="scheduled", scheduled_in_s=30)
    await a_job(conn, status="scheduled", scheduled_in_s=-30)
    await a_job(conn, status="waiting")

    found = await overview.snapshot(conn)

    lanes = {lane.provider_id: lane for lane in found.lanes}
    assert lanes["hunter"].ready == 5
    assert 0 <= lanes["hunter"].oldest_s < 60
    assert (lanes["apollo"].ready, lanes["apollo"].breaker) == (0, "open")
    assert 50 < lanes["apollo"].blocked_s <= 60
    assert (found.totals.scheduled, found.totals.overdue, found.totals.waiting) == (2, 1, 1)


async def test_running_jobs_and_their_workers_are_seen(conn):
    worker = await a_worker(conn)
    for started_ago_s in (5.0, 90.0):
        await a_job(
            conn,
            status="processing",
            provider_id="hunter",
            worker_id=worker.id,
            started_ago_s=started_ago_s,
        )

    found = await overview.snapshot(conn)

    (running,) = found.running
    assert (running.provider_id, running.type, running.jobs) == ("hunter", "email_validation", 2)
    assert 90 <= running.longest_s < 120
    assert [seen.id for seen in found.workers] == [worker.id]


async def test_what_ended_in_the_last_minute_is_grouped_by_lane_and_type(conn):
    for lane, status, ago_s in (
        ("hunter", "completed", 5),
        ("hunter", "completed", 30),
        ("hunter", "dead_letter", 30),
        ("apollo", "failed", 5),
        ("apollo", "completed", 90),
    ):
        await a_job(
            conn, status=status, provider_id=lane, started_ago_s=ago_s + 2, completed_ago_s=ago_s
        )

    found = (await overview.snapshot(conn)).ended

    ended = {(one.provider_id, one.type): one for one in found}
    in_all = ended[(None, None)]
    assert (in_all.completed, in_all.failed, in_all.completed_10s, in_all.failed_10s) == (
        2,
        2,
        1,
        1,
    )
    assert (ended["hunter", None].completed, ended["hunter", None].failed) == (2, 1)
    assert ended["hunter", "email_validation"].run_p50_s == pytest.approx(2, abs=0.5)
    assert ended["apollo", None].completed == 0


async def test_more_ends_than_are_read_make_the_window_shorter(conn, monkeypatch):
    await conn.execute(HISTORY, [2000])
    monkeypatch.setattr(overview, "ENDED_MAX", 500)

    found = (await overview.snapshot(conn)).ended

    in_all = next(one for one in found if one.provider_id is None and one.type is None)
    assert in_all.completed == 500
    assert in_all.completed / in_all.window_s == pytest.approx(50, rel=0.1)


async def test_errors_of_ends_and_of_attempts_to_be_tried_again_stand_together(conn):
    error = {"type": "provider_down", "message": "503 " + "x" * 1000}
    dead = await a_job(conn, status="dead_letter", completed_ago_s=60, error=error)
    retried = await a_job(conn, status="scheduled")
    await conn.execute(
        "insert into enrichment_attempt_log (job_id, workspace_id, attempt, outcome, error)"
        " values (%s, 'default', 1, 'retry', '\"odd\"'), (%s, 'default', 1, 'snoozed', null)",
        [retried.id, retried.id],
    )
    await a_job(conn, status="completed")

    found = await overview.snapshot(conn)

    assert [(one.job_id, one.outcome) for one in found.errors] == [
        (retried.id, "retry"),
        (dead.id, "dead_letter"),
    ]
    assert found.errors[0].message == '"odd"'
    assert (found.errors[1].kind, len(found.errors[1].message)) == ("provider_down", 300)
    assert found.totals.retried_1m == 1


async def test_an_empty_database_has_an_overview(conn):
    found = await overview.snapshot(conn)

    assert (found.lanes, found.running, found.errors, found.workers) == ([], [], [], [])


@pytest.fixture
async def with_history(conn):
    """Give a connection to a queue with a long history and a little to do."""
    await conn.execute(HISTORY, [60_000])
    await pending_jobs(conn, 200, provider_id="free")
    await a_job(conn, status="scheduled")
    await a_job(conn, status="processing")
    await conn.execute("vacuum analyze")
    return conn


@pytest.mark.parametrize("mode", ["custom", "generic"])
async def test_no_look_reads_the_history(with_history, mode):
    pages = 0
    for name in STATEMENTS:
        nodes, read = await plan_of(with_history, name, mode)
        pages += read
        scanned = [node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"]
        assert "enrichment_jobs" not in scanned, name

    # The table has some 1,500 pages; 3,000 ends of the last minute are in fewer than 150 of them.
    assert pages < 600, pages
