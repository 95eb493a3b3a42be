"""Every route × every kind of key: who may not is told so, and told nothing else."""

from __future__ import annotations

import pytest

from enrichd.api import failed_attempts
from enrichd.api.routes import ROUTES
from enrichd.api.routing import Access, Route
from tests.support.factories import a_job

KEYED = [route for route in ROUTES if route.access in (Access.READ, Access.WRITE, Access.ADMIN)]
NOBODYS = "01890a5d-ac96-774b-bcce-b302099a8057"
BODIES = {
    ("POST", "/jobs"): {"type": "email_validation", "payload": {"emails": ["a@b.co"]}},
    ("PUT", "/jobs/{id}"): {"priority": 1},
    ("POST", "/jobs/bulk"): {"action": "cancel", "ids": [NOBODYS]},
    ("POST", "/webhooks"): {"url": "https://hooks.example.com/x"},
    ("PUT", "/webhooks/{id}"): {"enabled": True},
    ("POST", "/webhooks/{id}/rotate"): {},
    ("POST", "/webhooks/{id}/replay"): {},
    ("POST", "/webhooks/replay"): {"onlyFailed": True},
}


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


async def ask(client, route: Route, item_id: str = NOBODYS):
    path = route.path.replace("{id}", item_id)
    return await client.request(route.method, path, json=BODIES.get((route.method, route.path)))


@pytest.mark.parametrize("key", [None, "enr_wrong", "key-revoked", "key-expired"])
async def test_without_a_good_key_nothing_is_done(served, conn, monkeypatch, key):
    monkeypatch.setattr(failed_attempts, "BURST", 1000)
    client = served.client(key)
    answers = {named(route): await ask(client, route) for route in KEYED}

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(
        answers, 401
    )
    # In the same words, whatever is wrong with the key.
    words = {(answer.json()["code"], answer.json()["detail"]) for answer in answers.values()}
    assert len(words) == 1
    assert all(
        answer.headers["www-authenticate"].startswith("Bearer") for answer in answers.values()
    )
    row = await (await conn.execute("select count(*) from enrichment_jobs")).fetchone()
    assert row == (0,)


@pytest.mark.parametrize(
    "route", [route for route in KEYED if route.access is not Access.READ], ids=named
)
async def test_a_key_that_reads_does_not_write(served, route):
    answer = await ask(served.client("key-reads"), route)

    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")


@pytest.mark.parametrize(
    "route",
    [route for route in KEYED if "{id}" in route.path and route.path.startswith("/jobs")],
    ids=named,
)
async def test_another_workspaces_job_is_like_none(served, conn, route):
    status = "dead_letter" if "retry" in route.path or "result" in route.path else "pending"
    job = await a_job(conn, status=status, workspace_id="team-a", tags=["secret"])
    other = served.client("key-b")

    theirs = await ask(other, route, str(job.id))
    missing = await ask(other, route)

    assert (theirs.status_code, missing.status_code) == (404, 404)
    for answer, item_id in ((theirs, str(job.id)), (missing, NOBODYS)):
        shape = {**answer.json(), "requestId": None}
        shape["detail"] = shape["detail"].replace(item_id, "ID")
        assert shape == {
            "type": "about:blank",
            "title": "Not found",
            "status": 404,
            "code": "job_not_found",
            "detail": "There is no job ID.",
            "requestId": None,
        }


async def test_a_list_has_the_own_jobs_alone(served, conn):
    await a_job(conn, workspace_id="team-a")
    mine = await a_job(conn, workspace_id="team-b")

    jobs = (await served.client("key-b").get("/jobs")).json()["jobs"]

    assert [job["id"] for job in jobs] == [str(mine.id)]


@pytest.mark.parametrize("workspace", ["team-b", "default", ""])
async def test_a_body_cannot_name_another_workspace(served, conn, workspace):
    body = {**BODIES["POST", "/jobs"], "workspaceId": workspace}
    for given in (body, [body]):
        answer = await served.client().post("/jobs", json=given)
        assert answer.status_code in (403, 422)
    row = await (await conn.execute("select count(*) from enrichment_jobs")).fetchone()
    assert row == (0,)


async def test_the_own_workspace_may_be_named(served):
    body = {**BODIES["POST", "/jobs"], "workspaceId": "team-a"}

    assert (await served.client().post("/jobs", json=body)).status_code == 201


async def test_another_workspaces_id_is_not_taken_over(served, conn):
    job = await a_job(conn, workspace_id="team-a")
    body = {**BODIES["POST", "/jobs"], "id": str(job.id)}

    answer = await served.client("key-b").post("/jobs", json=body)

    assert answer.status_code == 422
    assert "team-a" not in answer.text
