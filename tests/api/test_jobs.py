"""One job over HTTP: enqueue, read, change, cancel, retry."""

from __future__ import annotations

from tests.api.conftest import a_body, enqueued


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
