"""How providers stand for a workspace, and what jobs would cost."""

from __future__ import annotations

from tests.api.conftest import a_body
from tests.support.factories import counted

LEAD = {
    "type": "single_lead_enrichment",
    "payload": {
        "leadId": "1",
        "providerId": "hunter",
        "enrichmentTypes": ["email"],
        "inputData": {"firstName": "Ada", "lastName": "Lovelace", "domain": "example.com"},
    },
}


async def test_providers_are_told_without_the_owners_balance(http, conn):
    await conn.execute(
        """
        insert into enrichment_provider_state (provider_id, breaker, reason, credits_left)
        values ('hunter', 'open', 'hunter answered 401 to ada@example.com', 1234)
        """
    )

    found = (await http.get("/providers")).json()

    by_name = {one["providerId"]: one for one in found["providers"]}
    assert {"hunter", "apollo", "clearbit", "pdl"} <= by_name.keys()
    assert by_name["hunter"]["breaker"] == "open"
    assert by_name["hunter"]["creditsLeft"] is None
    assert by_name["hunter"]["breakerReason"] is None
    assert found["credits"]["today"] == 0


async def test_a_dry_run_says_what_a_job_would_cost_and_enqueues_nothing(http, conn):
    answer = await http.post("/jobs", params={"dryRun": "true"}, json=LEAD)

    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["isDryRun"], found["leads"]) == (True, 1)
    assert await counted(conn, "enrichment_jobs") == 0


async def test_a_dry_run_of_many_adds_them_up(http, conn):
    answer = await http.post("/jobs", params={"dryRun": "true"}, json=[LEAD, a_body()])

    found = answer.json()
    assert len(found["jobs"]) == 2
    assert found["maxCostCredits"] == sum(one["maxCostCredits"] for one in found["jobs"])
    assert await counted(conn, "enrichment_jobs") == 0


async def test_a_dry_run_uses_up_no_idempotency_key(http, conn):
    headers = {"Idempotency-Key": "order-1"}

    dry = await http.post("/jobs", params={"dryRun": "true"}, json=LEAD, headers=headers)
    wet = await http.post("/jobs", json=a_body(), headers=headers)

    assert (dry.status_code, wet.status_code) == (200, 201)
    assert await counted(conn, "enrichment_jobs") == 1


async def test_a_dry_run_refuses_what_enqueue_refuses(http):
    wrong = {**LEAD, "payload": {"leadId": "1", "colour": "red"}}

    answer = await http.post("/jobs", params={"dryRun": "true"}, json=[LEAD, wrong])

    assert answer.status_code == 422
    assert [part["path"] for part in answer.json()["errors"]] == ["1.payload.colour"]
