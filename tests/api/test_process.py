"""`/api/enrichment/process`: what a cron calls, from the outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from enrichd.processing import aside
from enrichd.processing.aside import Aside, NoRun
from enrichd.processing.bounded import Done, limits_of
from enrichd.settings import Settings
from enrichd.store.database import Connection
from tests.api.conftest import Served, an_api, settings_of
from tests.support import job_types
from tests.support.factories import a_job, a_worker

SECRET = "a-secret-that-cron-knows"
VARIABLES = {
    "CRON_SECRET": SECRET,
    "ENRICHD_PLUGINS": "tests.support.job_types",
    "MAX_CONCURRENT_JOBS": "5",
    "PROCESS_TIMEOUT_MAX": "20000",
}
VERCEL = {"User-Agent": "vercel-cron/1.0", "x-vercel-cron-schedule": "*/5 * * * *"}


@pytest.fixture(autouse=True)
def fresh_job_types():
    job_types.reset()


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    async with an_api(database_url, **VARIABLES) as found:
        yield found


@pytest.fixture
def cron(served: Served) -> httpx.AsyncClient:
    """Give a client that calls as Vercel's cron does."""
    return served.client(SECRET, **VERCEL)


async def naps(conn: Connection, count: int, seconds: float = 0.0, **columns: Any) -> None:
    for _ in range(count):
        await a_job(conn, type="nap", payload={"seconds": seconds}, **columns)


async def states(conn: Connection) -> dict[str, int]:
    cursor = await conn.execute("select status, count(*) from enrichment_jobs group by status")
    return {status: count async for status, count in cursor}


async def test_a_get_without_a_body_runs_what_is_ready(cron, conn):
    await naps(conn, 12)
    await naps(conn, 1, status="scheduled", scheduled_in_s=-5.0)
    await naps(conn, 1, status="scheduled")

    answer = await cron.get("/process")

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    counts = answer.json()
    assert 0 <= counts.pop("durationMs") < 20_000
    assert counts == {
        "claimed": 13,
        "completed": 13,
        "failed": 0,
        "retried": 0,
        "snoozed": 0,
        "cancelled": 0,
        "released": 0,
        "lost": 0,
        "remaining": 0,
    }
    assert await states(conn) == {"completed": 13, "scheduled": 1}


async def test_a_second_call_finds_nothing_to_do(cron, conn):
    await naps(conn, 3)

    first, second = await cron.get("/process"), await cron.post("/process")

    assert (first.json()["claimed"], second.json()["claimed"]) == (3, 0)


@pytest.mark.parametrize("place", ["query", "body", "both"])
async def test_max_jobs_stands_in_the_query_or_in_the_body_which_counts_more(cron, conn, place):
    await naps(conn, 5)
    query = {"maxJobs": {"query": "2", "both": "4"}[place]} if place != "body" else {}
    body = {"maxJobs": 2} if place != "query" else None

    answer = await cron.post("/process", params=query, json=body)

    assert (answer.json()["claimed"], answer.json()["remaining"]) == (2, 3)


async def test_what_is_unfinished_in_time_goes_back_without_an_attempt(cron, conn):
    await naps(conn, 2, seconds=60)
    began = time.monotonic()

    answer = await cron.get("/process", params={"timeout": "1s"})

    assert time.monotonic() - began < 5
    assert (answer.json()["released"], answer.json()["remaining"]) == (2, 2)
    cursor = await conn.execute("select distinct status, attempts from enrichment_jobs")
    assert await cursor.fetchall() == [("pending", 0)]


async def test_a_batch_that_is_cut_off_keeps_its_finished_leads(cron, conn):
    payload = {"keys": ["a", "b", "c"], "wait_at": "c"}
    job = await a_job(conn, type="batch", payload=payload)

    cut = await cron.get("/process", params={"timeout": "1000"})
    payload["wait_at"] = None
    await conn.execute("update enrichment_jobs set payload = payload - 'wait_at'")
    whole = await cron.get("/process")

    assert (cut.json()["released"], whole.json()["completed"]) == (1, 1)
    assert job_types.SEEN.ended == ["a", "b", "c"]
    cursor = await conn.execute("select attempts from enrichment_jobs where id = %s", (job.id,))
    assert await cursor.fetchone() == (1,)


async def test_nobody_asks_for_more_time_than_is_allowed(database_url, conn):
    await naps(conn, 1, seconds=60)
    variables = {**VARIABLES, "PROCESS_TIMEOUT_MAX": "1000"}
    async with an_api(database_url, **variables) as served:
        began = time.monotonic()
        answer = await served.client(SECRET).get("/process", params={"timeout": "10m"})

    assert time.monotonic() - began < 5
    assert answer.json()["released"] == 1


async def test_calls_that_overlap_share_the_jobs(cron, conn):
    await naps(conn, 200, seconds=0.005)

    answers = await asyncio.gather(*(cron.get("/process") for _ in range(6)))

    assert [answer.status_code for answer in answers] == [200] * 6
    assert sum(answer.json()["completed"] for answer in answers) == 200
    cursor = await conn.execute("select count(*) from enrichment_job_attempts")
    assert await cursor.fetchone() == (200,)


async def test_a_dead_workers_job_is_taken_over(cron, conn):
    worker = await a_worker(conn, silent_s=3600.0)
    await naps(conn, 1, status="processing", worker_id=worker.id)

    assert (await cron.get("/process")).json()["completed"] == 1


@pytest.mark.parametrize("type", ["nap", "blocking"])
async def test_the_others_are_answered_meanwhile(served, cron, conn, type):
    """A handler that never lets its loop go holds up its own run and nobody else."""
    for _ in range(3):
        await a_job(conn, type=type, payload={"seconds": 0.5})
    client = served.client()
    await client.get("/openapi.json")  # It is made when it is asked for first.
    run = asyncio.create_task(cron.get("/process"))
    took: list[float] = []
    while not run.done():
        began = time.monotonic()
        assert (await client.get("/openapi.json")).status_code == 200
        took.append(time.monotonic() - began)

    assert run.result().json()["completed"] == 3
    assert len(took) > 20
    assert sorted(took)[len(took) * 9 // 10] < 0.1
    assert max(took) < 0.4


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"maxJobs": "0"}, "maxJobs"),
        ({"maxJobs": "-1"}, "maxJobs"),
        ({"maxJobs": "all"}, "maxJobs"),
        ({"maxJobs": "١٢"}, "maxJobs"),
        ({"maxJobs": ["1", "2"]}, "maxJobs"),
        ({"timeout": "25"}, "timeout"),
        ({"timeout": "25h"}, "timeout"),
        ({"timeout": "-1"}, "timeout"),
        ({"timeout": ""}, "timeout"),
        ({"timeoutMs": "2500"}, "timeoutMs"),
    ],
)
async def test_a_wrong_limit_is_refused_and_runs_nothing(cron, conn, query, path):
    await naps(conn, 1)

    answer = await cron.get("/process", params=query)

    assert answer.status_code == 422
    assert [part["path"] for part in answer.json()["errors"]] == [path]
    assert await states(conn) == {"pending": 1}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": f"Bearer {SECRET}x"}, 401),
        ({"Authorization": f"Basic {SECRET}"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"X-Cron-Secret": SECRET}, 401),
        ({**VERCEL}, 401),
        ({"Authorization": f"bearer {SECRET}"}, 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_who_knows_the_secret_is_let_in(served, conn, headers, status, method):
    await naps(conn, 1)

    answer = await served.client(None).request(method, "/process", headers=headers)

    assert answer.status_code == status
    assert await states(conn) == ({"completed": 1} if status == 200 else {"pending": 1})


async def test_a_workspaces_key_is_no_secret(served):
    assert (await served.client("key-a").get("/process")).status_code == 401


async def test_without_a_secret_the_route_is_closed(database_url, conn):
    await naps(conn, 1)
    async with an_api(database_url) as served:
        for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer x"}, VERCEL):
            answer = await served.client(None).get("/process", headers=headers)
            assert answer.status_code == 503

    assert await states(conn) == {"pending": 1}


async def test_a_head_runs_nothing(cron, conn):
    await naps(conn, 1)

    answer = await cron.head("/process")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, OPTIONS, POST")
    assert await states(conn) == {"pending": 1}


async def test_a_gateway_that_ends_hands_the_jobs_back(database_url, conn, eventually):
    await naps(conn, 2, seconds=60)
    async with an_api(database_url, **VARIABLES) as served:
        call = asyncio.create_task(served.client(SECRET).get("/process"))

        async def both_run():
            return (await states(conn)).get("processing") == 2

        await eventually(both_run)
        began = time.monotonic()

    assert time.monotonic() - began < 5
    await asyncio.gather(call, return_exceptions=True)
    cursor = await conn.execute("select distinct status, attempts, crashes from enrichment_jobs")
    assert await cursor.fetchall() == [("pending", 0, 0)]


# Many at once, and ones that do not come back.


@pytest.fixture
def settings(database_url: str) -> Settings:
    return settings_of(database_url, **VARIABLES)


@pytest.fixture
async def one_at_a_time(settings: Settings) -> AsyncIterator[Aside]:
    made = Aside(settings, name="test", runs_max=1)
    yield made
    await made.close()


async def test_who_has_no_turn_in_time_has_done_nothing(one_at_a_time, conn, eventually):
    await naps(conn, 1, seconds=1.5)
    first = asyncio.create_task(one_at_a_time.run(limits_of(None, 10.0)))
    await eventually(lambda: is_running(conn))

    second = await one_at_a_time.run(limits_of(None, 0.2))

    assert isinstance(second, Done)
    assert (second.report.claimed, second.remaining) == (0, None)
    assert (await first).report.completed == 1


async def test_too_many_who_wait_are_sent_away(one_at_a_time, conn, monkeypatch, eventually):
    monkeypatch.setattr(aside, "WAITING_MAX", 1)
    await naps(conn, 1, seconds=1.0)
    first = asyncio.create_task(one_at_a_time.run(limits_of(None, 10.0)))
    await eventually(lambda: is_running(conn))
    second = asyncio.create_task(one_at_a_time.run(limits_of(None, 10.0)))
    await asyncio.sleep(0)

    assert await one_at_a_time.run(limits_of(None, 10.0)) is NoRun.BUSY
    assert [(await first).report.claimed, (await second).report.claimed] == [1, 0]


async def test_a_run_that_blocks_is_answered_for_and_keeps_its_place(
    one_at_a_time, conn, monkeypatch
):
    monkeypatch.setattr(aside, "OVERRUN_S", 0.2)
    await a_job(conn, type="blocking", payload={"seconds": 2.0})
    began = time.monotonic()

    assert await one_at_a_time.run(limits_of(None, 0.8)) is NoRun.OVERRAN
    assert time.monotonic() - began < 1.5
    held = await one_at_a_time.run(limits_of(None, 0.2))
    assert isinstance(held, Done)
    assert held.remaining is None, "it had no turn"


async def test_a_database_that_is_away_is_503(served, cron, monkeypatch):
    away = settings_of("postgresql://nobody@127.0.0.1:1/nothing", **VARIABLES)
    monkeypatch.setattr(served.api, "settings", away)

    answer = await cron.get("/process")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "127.0.0.1" not in answer.text


async def is_running(conn: Connection) -> bool:
    return "processing" in await states(conn)
