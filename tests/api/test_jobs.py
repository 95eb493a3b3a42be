"""One job over HTTP: read, change, cancel, retry."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.conftest import a_body, enqueued
from tests.support.factories import a_job, a_worker, columns_of


async def test_a_job_is_enqueued_and_read(http):
    made = await http.post("/jobs", json=a_body(priority=1, tags=["spring"]))

    assert made.status_code == 201
    job = made.json()
    assert (job["status"], job["workspaceId"], job["isNew"]) == ("pending", "team-a", True)
    read = await http.get(f"/jobs/{job['id']}")
    assert made.headers["location"] == read.request.url.path
    assert read.json() == {
        **{name: value for name, value in job.items() if name != "isNew"},
        "attemptLog": [],
        "itemCounts": {},
    }


async def test_a_wrong_field_is_named(http):
    answer = await http.post("/jobs", json=a_body(payload={"emails": [], "color": "red"}))

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_payload"
    assert {part["path"] for part in problem["errors"]} == {"payload.emails", "payload.color"}


async def test_another_workspaces_job_is_not_there(served, http):
    job = await enqueued(http)

    other = served.client("key-b")
    theirs = await other.get(f"/jobs/{job['id']}")
    missing = await other.get("/jobs/01890a5d-ac96-774b-bcce-b302099a8057")

    assert theirs.status_code == missing.status_code == 404
    assert theirs.json()["code"] == missing.json()["code"]


async def test_a_job_is_changed_by_who_has_seen_it(http):
    job = await enqueued(http)
    path = f"/jobs/{job['id']}"
    tag = (await http.get(path)).headers["etag"]
    wanted = {"priority": 1, "tags": ["b", "a"], "webhookUrl": "https://example.com/hook"}

    changed = await http.put(path, json=wanted, headers={"If-Match": tag})
    stale = await http.put(path, json={"priority": 5}, headers={"If-Match": tag})

    assert changed.status_code == 200
    assert {name: changed.json()[name] for name in wanted} == wanted
    assert stale.status_code == 412
    assert stale.headers["etag"] == changed.headers["etag"] != tag
    assert (await http.get(path)).json()["priority"] == 1


async def test_of_many_who_saw_the_same_job_one_changes_it(served, http):
    job = await enqueued(http)
    path = f"/jobs/{job['id']}"
    tag = (await http.get(path)).headers["etag"]

    answers = await asyncio.gather(
        *(http.put(path, json={"tags": [str(n)]}, headers={"If-Match": tag}) for n in range(8))
    )

    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


async def test_an_absent_field_stays_and_null_takes_away(http):
    job = await enqueued(http, webhookUrl="https://example.com/hook", tags=["a"])
    path = f"/jobs/{job['id']}"

    kept = await http.put(path, json={"priority": 2})
    taken = await http.put(path, json={"webhookUrl": None})

    assert kept.json()["webhookUrl"] == "https://example.com/hook"
    assert (taken.json()["webhookUrl"], taken.json()["tags"]) == (None, ["a"])


async def test_a_time_makes_a_job_wait_and_null_makes_it_ready(http):
    job = await enqueued(http)
    path = f"/jobs/{job['id']}"

    later = (await http.put(path, json={"scheduledAt": "2999-01-01T00:00:00Z"})).json()
    ready = (await http.put(path, json={"scheduledAt": None})).json()

    assert (later["status"], later["scheduledAt"]) == ("scheduled", "2999-01-01T00:00:00+00:00")
    assert (ready["status"], ready["scheduledAt"]) == ("pending", None)


async def test_another_priority_puts_a_job_at_the_end_of_its_line(http, conn):
    first = await enqueued(http, priority=2)
    second = await enqueued(http, priority=3)

    await http.put(f"/jobs/{second['id']}", json={"priority": 2})

    ranks = [(await columns_of(conn, job["id"]))["fair_rank"] for job in (first, second)]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 2


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"priority": 9}, "priority"),
        ({"priority": None}, "priority"),
        ({"tags": ["ok", "\0"]}, "tags.1"),
        ({"webhookUrl": "ftp://example.com"}, "webhookUrl"),
        ({"scheduledAt": "2030-01-01T00:00:00"}, "scheduledAt"),
        ({"status": "completed"}, "status"),
    ],
)
async def test_a_wrong_change_is_named_and_nothing_is_changed(http, body, path):
    job = await enqueued(http)

    answer = await http.put(f"/jobs/{job['id']}", json=body)

    assert answer.status_code == 422
    assert [part["path"] for part in answer.json()["errors"]] == [path]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "dead_letter"])
async def test_what_has_ended_is_not_changed(http, conn, status):
    job = await a_job(conn, status=status, workspace_id="team-a")

    answer = await http.put(f"/jobs/{job.id}", json={"priority": 1})

    assert answer.status_code == 409
    assert status in answer.json()["detail"]


async def test_the_time_of_a_running_job_is_not_changed(http, conn):
    job = await a_job(conn, status="processing", workspace_id="team-a")

    answer = await http.put(f"/jobs/{job.id}", json={"scheduledAt": "2999-01-01T00:00:00Z"})

    assert answer.status_code == 409
    assert "is processing" in answer.json()["detail"]


async def test_delete_cancels_at_once_or_asks_the_worker(http, conn):
    waiting = await enqueued(http)
    running = await a_job(conn, status="processing", workspace_id="team-a")

    at_once = await http.delete(f"/jobs/{waiting['id']}")
    asked = await http.delete(f"/jobs/{running.id}")
    again = await http.delete(f"/jobs/{waiting['id']}")

    assert (at_once.status_code, at_once.json()["status"]) == (200, "cancelled")
    assert (asked.status_code, asked.json()["status"]) == (202, "processing")
    assert asked.json()["cancelRequestedAt"] is not None
    assert again.status_code == 409
    assert "is cancelled and cannot become cancelled" in again.json()["detail"]


async def test_a_failed_job_is_retried_and_its_history_kept(http, conn):
    worker = await a_worker(conn)
    job = await a_job(
        conn, status="dead_letter", workspace_id="team-a", attempts=4, worker_id=worker.id
    )

    answer = await http.post(f"/jobs/{job.id}/retry")

    assert (answer.status_code, answer.json()["status"]) == (200, "pending")
    assert answer.json()["attempts"] == 0
    log = (await http.get(f"/jobs/{job.id}")).json()["attemptLog"]
    assert [attempt["outcome"] for attempt in log] == ["failed"]
    again = await http.post(f"/jobs/{job.id}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "illegal_move")


async def test_an_unchanged_job_is_not_sent_again(http):
    job = await enqueued(http)
    first = await http.get(f"/jobs/{job['id']}")

    second = await http.get(f"/jobs/{job['id']}", headers={"If-None-Match": first.headers["etag"]})

    assert (second.status_code, second.content) == (304, b"")


@pytest.mark.parametrize("text", ["x", "%00", "..", "0" * 33, "🙂", "{}", "a%2Fb", "%ff"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_what_is_no_id_is_not_there(http, method, text):
    answer = await http.request(method, f"/jobs/{text}", json={} if method == "PUT" else None)

    assert answer.status_code == 404
