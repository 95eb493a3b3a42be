"""Putting jobs on the queue over HTTP: one, many, again, and wrong ones."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.conftest import a_body
from tests.support.factories import a_worker, claim, columns_of, counted


@pytest.mark.parametrize("is_header", [True, False])
async def test_a_repeated_key_adds_nothing(http, conn, is_header):
    headers = {"Idempotency-Key": "order-1"} if is_header else {}
    body = a_body() if is_header else a_body(idempotencyKey="order-1")

    first = await http.post("/jobs", json=body, headers=headers)
    again = await http.post("/jobs", json=body, headers=headers)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert (first.json()["isNew"], again.json()["isNew"]) == (True, False)
    assert await counted(conn, "enrichment_jobs") == 1


async def test_a_key_at_the_same_moment_adds_one_job(http, conn):
    answers = await asyncio.gather(
        *(http.post("/jobs", json=a_body(), headers={"Idempotency-Key": "k"}) for _ in range(12))
    )

    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_key_of_another_job_is_refused(http, conn):
    headers = {"Idempotency-Key": "order-1"}
    await http.post("/jobs", json=a_body(), headers=headers)

    other = await http.post(
        "/jobs", json=a_body(payload={"emails": ["else@example.com"]}), headers=headers
    )

    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await counted(conn, "enrichment_jobs") == 1


async def test_a_key_of_another_array_is_refused_and_adds_nothing(http, conn):
    headers = {"Idempotency-Key": "import-7"}
    first, other = a_body(), a_body(payload={"emails": ["else@example.com"]})
    await http.post("/jobs", json=[first, first], headers=headers)

    answer = await http.post("/jobs", json=[first, other, first], headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert "job 1 of the array" in answer.json()["detail"]
    assert await counted(conn, "enrichment_jobs") == 2


@pytest.mark.parametrize("spelling", [b"30", b"30.0", b"3e1", b"3.00E+1"])
async def test_the_same_payload_in_another_spelling_is_the_same_job(http, spelling):
    body = b'{"payload":{"leadId":"1","providerId":"hunter","maxCredits":30},"type":"%s"}'
    headers = {"Idempotency-Key": "order-1", "Content-Type": "application/json"}
    await http.post("/jobs", content=body % b"single_lead_enrichment", headers=headers)

    again = await http.post(
        "/jobs",
        content=(body % b"single_lead_enrichment").replace(b"30", spelling),
        headers=headers,
    )

    assert again.status_code == 200, again.text


async def test_workspaces_have_keys_of_their_own(served, conn):
    for key in ("key-a", "key-b"):
        answer = await served.client(key).post(
            "/jobs", json=a_body(), headers={"Idempotency-Key": "same"}
        )
        assert answer.status_code == 201
    assert await counted(conn, "enrichment_jobs") == 2


async def test_an_array_goes_in_whole_and_in_order(http, conn):
    answer = await http.post("/jobs", json=[a_body(priority=place % 5 + 1) for place in range(50)])

    assert answer.status_code == 201
    found = answer.json()
    assert (found["new"], found["alreadyThere"]) == (50, 0)
    for place, job in enumerate(found["jobs"][:10]):
        assert (await columns_of(conn, job["id"]))["priority"] == place % 5 + 1


async def test_a_repeated_array_adds_nothing(http, conn):
    headers = {"Idempotency-Key": "import-7"}
    first = await http.post("/jobs", json=[a_body(), a_body()], headers=headers)

    again = await http.post("/jobs", json=[a_body(), a_body()], headers=headers)

    assert (again.status_code, again.json()["alreadyThere"]) == (200, 2)
    assert [job["id"] for job in first.json()["jobs"]] == [
        job["id"] for job in again.json()["jobs"]
    ]


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"payload": {"emails": []}}, "777.payload.emails"),
        ({"priority": 9}, "777.priority"),
        ({"type": "nonsense"}, "777.type"),
        ({"scheduledAt": "2030-01-01T00:00:00"}, "777.scheduledAt"),
    ],
)
async def test_one_wrong_job_of_a_thousand_keeps_all_out(http, conn, wrong, path):
    jobs = [a_body() for _ in range(1000)]
    jobs[777] = a_body(**wrong)

    answer = await http.post("/jobs", json=jobs)

    assert answer.status_code == 422
    assert [part["path"] for part in answer.json()["errors"]] == [path]
    assert await counted(conn, "enrichment_jobs") == 0


@pytest.mark.parametrize("count", [0, 1001])
async def test_an_array_has_one_to_a_thousand_jobs(http, count):
    assert (await http.post("/jobs", json=[a_body()] * count)).status_code == 422


async def test_a_thousand_jobs_go_in_at_once(http, conn):
    assert (await http.post("/jobs", json=[a_body()] * 1000)).status_code == 201
    assert await counted(conn, "enrichment_jobs") == 1000


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"type": "nonsense"}, "type"),
        ({"type": 5}, "type"),
        ({"payload": []}, "payload"),
        ({"payload": {"emails": ["a"], "x": 1}}, "payload.x"),
        ({"payload": {"emails": ["\0"]}}, "payload"),
        ({"priority": 0}, "priority"),
        ({"priority": "1"}, "priority"),
        ({"maxRetries": 101}, "maxRetries"),
        ({"tags": ["x"] * 21}, "tags"),
        ({"tags": [""]}, "tags.0"),
        ({"webhookUrl": "javascript:alert(1)"}, "webhookUrl"),
        ({"scheduledAt": "tomorrow"}, "scheduledAt"),
        ({"scheduledAt": "2030-01-01T00:00:00"}, "scheduledAt"),
        ({"delayMs": -1}, "delayMs"),
        ({"delayMs": 1e300}, "delay"),
        ({"id": "x"}, "id"),
        ({"idempotencyKey": ""}, "idempotencyKey"),
        ({"status": "completed"}, "status"),
    ],
)
async def test_a_wrong_field_is_named_with_its_path(http, conn, fields, path):
    answer = await http.post("/jobs", json=a_body(**fields))

    assert answer.status_code == 422, answer.text
    assert [part["path"] for part in answer.json()["errors"]] == [path]
    assert await counted(conn, "enrichment_jobs") == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1, 2",
        b"\xff\xfe",
        b'{"type": "email_validation", "payload": {"emails": ["\\ud800"]}}',
        b'{"type": "email_validation", "payload": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
        b"[" * 100_000,
        b'{"type": "email_validation", "payload": {"n": ' + b"9" * 100_000 + b"}}",
        b'{"type": "email_validation", "payload": {"n": 1e999}}',
        b'{"type": "email_validation", "payload": {"n": NaN}}',
        b'"text"',
        b"null",
        b"7",
    ],
    ids=lambda body: repr(body[:30]),
)
async def test_what_is_no_job_is_refused(http, conn, body):
    answer = await http.post("/jobs", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 10_000
    assert await counted(conn, "enrichment_jobs") == 0


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", "x"])
async def test_another_media_type_is_refused(http, kind):
    answer = await http.post("/jobs", content=b"{}", headers={"Content-Type": kind})

    assert answer.status_code == 415


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
async def test_a_wrong_key_header_is_refused(http, key):
    answer = await http.post("/jobs", json=a_body(), headers={"Idempotency-Key": key})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "Idempotency-Key"


async def test_a_delayed_job_waits(http):
    made = (await http.post("/jobs", json=a_body(delayMs=60_000))).json()

    assert made["status"] == "scheduled"


async def test_a_worker_gets_what_was_enqueued(http, conn):
    made = (await http.post("/jobs", json=a_body())).json()
    worker = await a_worker(conn)

    (job,) = await claim(conn, worker.id)

    assert (job.id, job.workspace_id) == (made["id"], "team-a")
