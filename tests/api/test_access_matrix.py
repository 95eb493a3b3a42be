"""Every route × every kind of key: who may not is told so, and told nothing else."""

from __future__ import annotations

import pytest

from enrichd.api import failed_attempts
from enrichd.api.routes import ROUTES
from enrichd.api.routing import Access, Route
from tests.api.conftest import an_api
from tests.support.factories import a_job

ALLOWED = {
    "GET /jobs": Access.READ,
    "POST /jobs": Access.WRITE,
    "GET /jobs/metrics": Access.READ,
    "POST /jobs/bulk": Access.WRITE,
    "GET /jobs/{id}": Access.READ,
    "PUT /jobs/{id}": Access.WRITE,
    "DELETE /jobs/{id}": Access.WRITE,
    "POST /jobs/{id}/retry": Access.WRITE,
    "GET /jobs/{id}/items": Access.READ,
    "GET /jobs/{id}/result": Access.READ,
    "GET /events": Access.READ,
    "GET /providers": Access.READ,
    "GET /webhooks": Access.READ,
    "POST /webhooks": Access.WRITE,
    "GET /webhooks/{id}": Access.READ,
    "PUT /webhooks/{id}": Access.WRITE,
    "DELETE /webhooks/{id}": Access.WRITE,
    "POST /webhooks/{id}/test": Access.WRITE,
    "POST /webhooks/{id}/rotate": Access.WRITE,
    "POST /webhooks/{id}/replay": Access.WRITE,
    "POST /webhooks/replay": Access.WRITE,
    "GET /webhooks/deliveries": Access.READ,
    "POST /webhook": Access.SIGNED,
    "POST /webhook/{token}": Access.SIGNED,
    "GET /process": Access.CRON,
    "POST /process": Access.CRON,
    "GET /openapi.json": Access.OPEN,
    "GET /docs": Access.OPEN,
}
"""Who may call what, said a second time on purpose: a new route needs a line here."""

KEYED = [route for route in ROUTES if route.access in (Access.READ, Access.WRITE, Access.ADMIN)]
BY_SECRET = [route for route in ROUTES if route.access in (Access.CRON, Access.SIGNED)]
EVERY_KEY = [None, "enr_wrong", "key-revoked", "key-expired", "key-reads", "key-b", "key-a"]
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


def test_every_route_says_who_may_call_it():
    assert {named(route): route.access for route in ROUTES} == ALLOWED


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


@pytest.mark.parametrize("key", EVERY_KEY)
async def test_a_key_is_neither_a_signature_nor_the_crons_secret(database_url, monkeypatch, key):
    monkeypatch.setattr(failed_attempts, "BURST", 1000)
    async with an_api(database_url, CRON_SECRET="what-the-cron-knows") as served:
        client = served.client(key)
        for route in BY_SECRET:
            path = route.path.replace("{token}", "x" * 40)
            params = {"provider": "clearbit"} if path == "/webhook" else {}
            answer = await client.request(route.method, path, params=params)
            assert answer.status_code == 401, (named(route), answer.text)


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (None, 401, "missing_key"),
        ("enr_wrong", 401, "invalid_key"),
        ("key-revoked", 401, "invalid_key"),
        ("key-expired", 401, "invalid_key"),
        ("key-reads", 403, "missing_scope"),
        ("key-b", 404, "job_not_found"),
        ("key-a", 202, None),
    ],
)
async def test_an_event_without_a_signature_needs_a_key_of_the_jobs_workspace(
    served, conn, key, status, code
):
    job = await a_job(conn, status="waiting", workspace_id="team-a")
    body = {"jobId": str(job.id), "event": "done", "data": {}}

    answer = await served.client(key).post("/webhook", json=body)

    assert (answer.status_code, answer.json().get("code")) == (status, code)


@pytest.mark.parametrize("key", EVERY_KEY)
async def test_what_is_open_is_open_to_everybody(served, key):
    for route in ROUTES:
        if route.access is Access.OPEN:
            assert (await served.client(key).get(route.path)).status_code == 200


async def test_nothing_that_lists_has_a_word_of_another_workspace(served, conn):
    word = "zanzibar"
    job = await a_job(
        conn, workspace_id="team-a", tags=[word], payload={"emails": [f"{word}@x.de"]}
    )
    await served.client().post(
        "/webhooks", json={"url": "https://hooks.example.com/x", "description": word}
    )
    await served.client().delete(f"/jobs/{job.id}")

    for route in KEYED:
        if route.method == "GET" and "{" not in route.path and route.path != "/events":
            ours = await served.client().get(route.path)
            theirs = await served.client("key-b").get(route.path)
            assert ours.status_code == theirs.status_code == 200
            assert word not in theirs.text, route.path
            assert str(job.id) not in theirs.text, route.path
            if route.path in ("/jobs", "/webhooks"):
                assert word in ours.text, route.path


async def test_what_moves_many_passes_by_another_workspaces(served, conn):
    job = await a_job(conn, workspace_id="team-a")
    made = await served.client().post("/webhooks", json={"url": "https://hooks.example.com/x"})
    await served.client().post(f"/webhooks/{made.json()['id']}/test")
    log = (await served.client().get("/webhooks/deliveries")).json()["deliveries"]
    await conn.execute("update enrichment_webhook_deliveries set status = 'failed'")
    other = served.client("key-b")

    moved = await other.post("/jobs/bulk", json={"action": "cancel", "ids": [str(job.id)]})
    some = await other.post("/webhooks/replay", json={"ids": [log[0]["id"]]})
    rest = await other.post("/webhooks/replay", json={"onlyFailed": True})

    assert [one["code"] for one in moved.json()["refused"]] == ["job_not_found"]
    assert [answer.json().get("replayed", 0) for answer in (some, rest)] == [0, 0]
    after = (await served.client().get("/webhooks/deliveries")).json()["deliveries"]
    assert [one["status"] for one in after] == ["failed"]


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
