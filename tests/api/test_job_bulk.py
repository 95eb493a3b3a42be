"""Bulk moves: one request, an outcome for each id."""

from __future__ import annotations

import pytest

from enrichd.domain.jobs import JobStatus
from tests.api.conftest import enqueued
from tests.support.factories import a_job, columns_of, counted, state_of

NOBODYS = "01890a5d-ac96-774b-bcce-b302099a8057"


async def moves_of(http, action, ids, **fields):
    body = {"action": action, "ids": [str(job_id) for job_id in ids], **fields}
    answer = await http.post("/jobs/bulk", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("action", "good", "state", "bad"),
    [
        ("cancel", "scheduled", "cancelled", "completed"),
        ("retry", "dead_letter", "pending", "completed"),
        ("delete", "completed", None, "pending"),
    ],
)
async def test_each_id_has_its_outcome(http, conn, action, good, state, bad):
    ws = {"workspace_id": "team-a"}
    first, second = await a_job(conn, status=good, **ws), await a_job(conn, status=good, **ws)
    wrong = await a_job(conn, status=bad, **ws)
    foreign = await a_job(conn, status=good, workspace_id="team-b")
    ids = [second.id, foreign.id, first.id, wrong.id, NOBODYS, first.id]

    found = await moves_of(http, action, ids)

    assert found["moved"] == [
        {"id": str(second.id), "status": state},
        {"id": str(first.id), "status": state},
    ]
    refused = {part["given"]: part["code"] for part in found["refused"]}
    assert refused == {
        str(foreign.id): "job_not_found",
        str(wrong.id): "illegal_move",
        NOBODYS: "job_not_found",
    }
    assert await state_of(conn, foreign.id) == good
    texts = {part["given"]: part["message"] for part in found["refused"]}
    assert texts[str(foreign.id)] == texts[NOBODYS].replace(NOBODYS, str(foreign.id))


OUTCOMES = {
    # The state afterwards, None for a job that is gone; what is not named refuses and stays.
    "cancel": {
        "pending": "cancelled",
        "scheduled": "cancelled",
        "waiting": "cancelled",
        "processing": "processing",
    },
    "retry": {"failed": "pending", "dead_letter": "pending", "cancelled": "pending"},
    "delete": {"completed": None, "failed": None, "dead_letter": None, "cancelled": None},
    "reprioritise": {state: state for state in ("pending", "scheduled", "processing", "waiting")},
}


@pytest.mark.parametrize("action", OUTCOMES)
async def test_every_action_has_its_outcome_in_every_state(http, conn, action):
    by_state = {
        state: await a_job(conn, status=str(state), workspace_id="team-a") for state in JobStatus
    }
    fields = {"priority": 1} if action == "reprioritise" else {}

    found = await moves_of(http, action, [job.id for job in by_state.values()], **fields)

    moved = {part["id"]: part["status"] for part in found["moved"]}
    refused = {part["given"]: part for part in found["refused"]}
    for state, job in by_state.items():
        if str(state) in OUTCOMES[action]:
            after = OUTCOMES[action][str(state)]
            assert moved.pop(str(job.id)) == after
            if after is not None:
                assert await state_of(conn, job.id) == after
        else:
            told = refused.pop(str(job.id))
            assert told["code"] == "illegal_move"
            assert f"is {state} and cannot" in told["message"]
            assert await state_of(conn, job.id) == state
    assert moved == refused == {}


async def test_a_deleted_job_leaves_nothing(http, conn):
    job = await a_job(conn, status="failed", workspace_id="team-a")
    await conn.execute(
        "insert into enrichment_job_items (job_id, item_key, workspace_id, status)"
        " values (%s, 'lead', 'team-a', 'failed')",
        [job.id],
    )

    await moves_of(http, "delete", [job.id])

    assert await counted(conn, "enrichment_jobs") == 0
    assert await counted(conn, "enrichment_job_items") == 0


async def test_another_priority_keeps_the_order_among_the_moved(http, conn):
    there = await enqueued(http, priority=1)
    jobs = [await enqueued(http, priority=4) for _ in range(3)]

    found = await moves_of(http, "reprioritise", [job["id"] for job in jobs], priority=1)

    assert [part["status"] for part in found["moved"]] == ["pending"] * 3
    rows = [await columns_of(conn, job["id"]) for job in (there, *jobs)]
    assert {row["priority"] for row in rows} == {1}
    ranks = [row["fair_rank"] for row in rows]
    assert ranks == sorted(set(ranks))


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"action": "explode", "ids": [NOBODYS]}, "action"),
        ({"action": "cancel", "ids": []}, "ids"),
        ({"action": "cancel", "ids": [NOBODYS, "x"]}, "ids.1"),
        ({"action": "cancel", "ids": [NOBODYS] * 1001}, "ids"),
        ({"action": "cancel", "ids": [NOBODYS], "priority": 1}, ""),
        ({"action": "reprioritise", "ids": [NOBODYS]}, ""),
        ({"action": "cancel"}, "ids"),
    ],
)
async def test_a_wrong_body_is_named(http, body, path):
    answer = await http.post("/jobs/bulk", json=body)

    assert answer.status_code == 422
    assert [part["path"] for part in answer.json()["errors"]] == [path]
