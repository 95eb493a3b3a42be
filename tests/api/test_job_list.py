"""The list of jobs: filters, pages that stay right while rows change, figures."""

from __future__ import annotations

import asyncio

import pytest

from enrichd.store import job_figures, job_pages
from tests.api.conftest import enqueued
from tests.support.factories import a_job, a_worker, pending_jobs


async def ids_of(http, path="/jobs", **query) -> list[str]:
    """Walk all pages and return the ids in the order in which they came."""
    found: list[str] = []
    cursor = None
    for _ in range(500):
        answer = await http.get(path, params={**query, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [job["id"] for job in page["jobs"]]
        cursor = page["nextCursor"]
        if cursor is None:
            return found
    raise AssertionError("the list has no end")


async def test_jobs_come_newest_first_without_payload_and_result(http):
    made = [await enqueued(http) for _ in range(3)]

    jobs = (await http.get("/jobs")).json()["jobs"]

    assert [job["id"] for job in jobs] == [job["id"] for job in reversed(made)]
    assert not {"payload", "result"} & jobs[0].keys()


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ({"status": "completed"}, [0]),
        ({"status": "failed,dead_letter"}, [1, 2]),
        ({"status": ["failed", "pending"]}, [1, 3]),
        ({"status": "pending,processing,scheduled"}, [3, 4, 5]),
        ({"type": "nap"}, [5]),
        ({"provider": "hunter"}, [4]),
        ({"provider": "pdl"}, [5]),
        ({"provider": "pdl", "status": "scheduled"}, [5]),
        ({"provider": "pdl#team-a"}, [5]),
        ({"provider": "pd"}, []),
        ({"tag": "spring"}, [1]),
        ({"tag": "spring", "status": "dead_letter"}, []),
        ({"text": "RIMU@"}, [2]),
        ({"text": "50%_o"}, []),
        ({"createdAfter": "2001-01-01T00:00:00Z"}, [0, 1, 2, 3, 4, 5]),
        ({"createdBefore": "2001-01-01T00:00:00Z"}, []),
        ({"createdBefore": "2001-01-01T00:00:00+01:00"}, []),
        ({"createdAfter": "2001-01-01T00:00:00 01:00"}, [0, 1, 2, 3, 4, 5]),
    ],
)
@pytest.mark.parametrize("limit", [1, 50])
async def test_a_filter_shows_what_fits(http, conn, query, places, limit):
    ws = {"workspace_id": "team-a"}
    jobs = [
        await a_job(conn, status="completed", **ws),
        await a_job(conn, status="failed", tags=["spring"], **ws),
        await a_job(conn, status="dead_letter", payload={"emails": ["rimu@x.nz"]}, **ws),
        await a_job(conn, **ws),
        await a_job(conn, status="processing", provider_id="hunter", **ws),
        await a_job(conn, status="scheduled", type="nap", provider_id="pdl#team-a", **ws),
    ]
    await a_job(conn, workspace_id="team-b", tags=["spring"], status="failed", provider_id="pdl")

    found = await ids_of(http, limit=limit, **query)

    assert found == [str(jobs[place].id) for place in reversed(places)]


@pytest.mark.parametrize("status", [None, "failed", "failed,cancelled", "completed"])
async def test_every_price_bound_leads_on_to_the_next_page(http, conn, monkeypatch, status):
    monkeypatch.setattr(job_pages, "SEEN_MAX", 3)
    states = ["completed", "failed", "cancelled"] * 4
    jobs = [
        await a_job(conn, status=state, workspace_id="team-a", tags=["x"] if place % 5 == 0 else [])
        for place, state in enumerate(states)
    ]
    wanted = status.split(",") if status else states
    query = {"tag": "x", **({"status": status} if status else {})}

    found = await ids_of(http, limit=2, **query)

    assert found == [
        str(job.id) for job in reversed(jobs) if job.tags and str(job.status) in wanted
    ]


async def test_pages_neither_repeat_nor_skip_while_jobs_come_and_change(http, conn):
    await pending_jobs(conn, 120, workspace_id="team-a")
    before = await ids_of(http)
    stop = asyncio.Event()

    async def change() -> None:
        place = 0
        while not stop.is_set():
            await enqueued(http)
            await http.delete(f"/jobs/{before[place % len(before)]}")
            await http.post(f"/jobs/{before[place % len(before)]}/retry")
            await http.put(f"/jobs/{before[(place + 3) % len(before)]}", json={"priority": 1})
            place += 7

    changing = asyncio.create_task(change())
    try:
        walked = await ids_of(http, limit=7)
    finally:
        stop.set()
        await changing

    assert [job_id for job_id in walked if job_id in set(before)] == before
    assert len(set(walked)) == len(walked)


async def test_a_page_goes_on_where_its_last_job_was_though_that_is_deleted(http, conn):
    jobs = [await a_job(conn, status="failed", workspace_id="team-a") for _ in range(9)]
    newest_first = [str(job.id) for job in reversed(jobs)]
    page = (await http.get("/jobs", params={"limit": 4})).json()

    gone = [newest_first[3], newest_first[5]]
    await http.post("/jobs/bulk", json={"action": "delete", "ids": gone})
    rest = (await http.get("/jobs", params={"cursor": page["nextCursor"]})).json()

    assert [job["id"] for job in rest["jobs"]] == [newest_first[4], *newest_first[6:]]
    assert rest["nextCursor"] is None


async def test_a_job_that_leaves_the_filter_between_pages_hides_no_other(http, conn):
    jobs = [await a_job(conn, status="failed", workspace_id="team-a") for _ in range(9)]
    newest_first = [str(job.id) for job in reversed(jobs)]
    query = {"status": "failed", "limit": 4}
    page = (await http.get("/jobs", params=query)).json()

    for job_id in (newest_first[0], newest_first[3], newest_first[5]):
        await http.post(f"/jobs/{job_id}/retry")
    rest = (await http.get("/jobs", params={**query, "cursor": page["nextCursor"]})).json()

    assert [job["id"] for job in rest["jobs"]] == [newest_first[4], *newest_first[6:]]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"status": "failed,done"}, "status.1"),
        ({"status": ","}, "status"),
        ({"limit": "0"}, "limit"),
        ({"limit": ["1", "2"]}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "%00"}, "cursor"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"createdAfter": "2030-01-01T00:00:00"}, "createdAfter"),
        ({"colour": "red"}, "colour"),
        ({"tag": ""}, "tag"),
        ({"workspaceId": "team-b"}, "workspaceId"),
    ],
)
async def test_a_wrong_parameter_is_named(http, query, path):
    answer = await http.get("/jobs", params=query)

    assert answer.status_code == 422
    assert [part["path"] for part in answer.json()["errors"]] == [path]


async def test_text_that_postgresql_cannot_hold_is_refused(http):
    for name in ("text", "type", "tag", "provider"):
        assert (await http.get("/jobs", params={name: "a\0b"})).status_code == 422


async def test_counts_come_on_demand(http, conn):
    await a_job(conn, status="failed", workspace_id="team-a")
    await pending_jobs(conn, 3, workspace_id="team-a")

    page = (await http.get("/jobs", params={"counts": "true", "limit": 1})).json()

    assert (page["counts"]["failed"], page["counts"]["pending"]) == (1, 3)
    assert "counts" not in (await http.get("/jobs")).json()


async def test_metrics_count_the_own_workspace_alone(http, conn):
    await a_worker(conn)
    await a_job(
        conn, status="completed", workspace_id="team-a", started_ago_s=2.0, completed_ago_s=1.0
    )
    await a_job(conn, status="dead_letter", workspace_id="team-a")
    await pending_jobs(conn, 2, workspace_id="team-a")
    await pending_jobs(conn, 9, workspace_id="team-b")

    found = (await http.get("/jobs/metrics")).json()

    assert found["isExact"]
    assert {state: jobs for state, jobs in found["totals"].items() if jobs} == {
        "pending": 2,
        "completed": 1,
        "dead_letter": 1,
    }
    pace = found["pace"]
    assert (pace["completedLastMinute"], pace["completedLastHour"]) == (1, 1)
    assert (pace["failedLastHour"], pace["liveWorkers"]) == (1, 1)
    assert pace["runP50Seconds"] == pytest.approx(1.0, abs=0.1)
    assert pace["oldestReadySeconds"] >= 0


async def test_many_jobs_are_counted_by_state_and_guessed_by_type(http, conn, monkeypatch):
    monkeypatch.setattr(job_figures, "COUNTED_MAX", 50)
    await pending_jobs(conn, 400, workspace_id="team-a")
    for _ in range(3):
        await a_job(conn, status="failed", workspace_id="team-a")
    await conn.execute("analyze enrichment_jobs")

    found = (await http.get("/jobs/metrics")).json()

    assert not found["isExact"]
    assert (found["totals"]["failed"], found["totals"]["pending"]) == (3, 400)
