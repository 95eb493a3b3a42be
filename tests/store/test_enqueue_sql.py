"""enrichment_enqueue(…): the queue's door for any language that speaks SQL."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest

from enrichd.domain.jobs import NewJob
from enrichd.store import job_reads
from enrichd.store.database import Database
from tests.support.factories import columns_of, counted

pytestmark = pytest.mark.queue

LEAD = """'single_lead_enrichment', '{"leadId": "7"}'"""


async def enqueue(conn, arguments: str) -> UUID:
    """Call the function with literal arguments."""
    cursor = await conn.execute("select enrichment_enqueue(" + arguments + ")")
    [job_id] = await cursor.fetchone()
    return job_id


async def test_a_type_and_a_payload_are_enough(conn):
    job_id = await enqueue(conn, LEAD)

    job = await job_reads.get(conn, workspace_id="default", job_id=job_id)
    assert job is not None
    assert (job.type, job.payload) == ("single_lead_enrichment", {"leadId": "7"})
    assert (job.status, job.priority, job.attempts, job.max_retries) == ("pending", 3, 0, 3)
    assert (job.provider_id, job.tags, job.scheduled_at) == ("-", [], None)
    assert (job.webhook_url, job.idempotency_key, job.worker_id) == (None, None, None)


async def test_every_argument_reaches_its_column(conn):
    own_id = "019a0000-0000-7000-8000-000000000001"
    job_id = await enqueue(
        conn,
        f"""{LEAD}, workspace_id => 'acme', priority => 1, provider_id => 'hunter',
            max_retries => 0, tags => array['a', 'b'], webhook_url => 'https://example.com/',
            idempotency_key => 'k', scheduled_at => '2999-01-02 03:04+00', id => '{own_id}'""",
    )

    row = await columns_of(conn, job_id)
    assert str(job_id) == own_id
    assert (row["workspace_id"], row["priority"], row["provider_id"]) == ("acme", 1, "hunter")
    assert (row["max_retries"], row["tags"], row["status"]) == (0, ["a", "b"], "scheduled")
    assert (row["webhook_url"], row["idempotency_key"]) == ("https://example.com/", "k")
    assert row["scheduled_at"] == datetime(2999, 1, 2, 3, 4, tzinfo=UTC)


async def test_nulls_for_what_is_optional_mean_the_defaults(conn):
    job_id = await enqueue(
        conn,
        f"""{LEAD}, workspace_id => null, provider_id => null, tags => null, webhook_url => null,
            idempotency_key => null, scheduled_at => null, delay => null, id => null""",
    )

    row = await columns_of(conn, job_id)
    assert (row["workspace_id"], row["provider_id"], row["tags"]) == ("default", "-", [])


async def test_the_lane_is_the_payload_provider(conn):
    job_id = await enqueue(conn, """'x', '{"providerId": "hunter"}'""")

    assert (await columns_of(conn, job_id))["provider_id"] == "hunter"


async def test_a_delay_counts_from_the_transaction_own_now(conn):
    job_id = await enqueue(conn, f"{LEAD}, delay => interval '90 s'")

    row = await columns_of(conn, job_id)
    assert row["status"] == "scheduled"
    assert (row["scheduled_at"] - row["created_at"]).total_seconds() == 90


async def test_a_delay_of_nothing_means_now(conn):
    job_id = await enqueue(conn, f"{LEAD}, delay => interval '0'")

    assert (await columns_of(conn, job_id))["status"] == "pending"


@pytest.mark.parametrize(
    ("payload", "cost"),
    [
        ({"leadIds": [1, 2, 3]}, 3),
        ({"leads": [{}, {}]}, 2),
        ({"leadIds": []}, 1),
        ({"leadIds": "not a list", "leads": None}, 1),
        ({"emails": ["a@b.co"] * 40}, 4),
        ({"emails": ["a@b.co"]}, 1),
    ],
)
async def test_a_batch_costs_its_leads(conn, payload, cost):
    job_id = await enqueue(conn, f"'batch_lead_enrichment', '{json.dumps(payload)}'")

    row = await columns_of(conn, job_id)
    assert (row["cost"], row["fair_rank"]) == (cost, cost)


@pytest.mark.parametrize(
    "new",
    [
        NewJob("email_validation", {"emails": ["a@b.co"] * 25, "providerId": "hunter"}),
        NewJob("batch_lead_enrichment", {"leadIds": ["1", "2"], "providerId": "builtin"}),
        NewJob("batch_lead_enrichment", {"leads": [{"email": "a@b.co"}], "providerId": "x"}),
        NewJob("single_lead_enrichment", {"leadId": "7", "providerId": "hunter"}),
    ],
)
async def test_sql_and_python_agree_on_lane_and_cost(conn, queue, new):
    by_python = await columns_of(conn, (await queue.enqueue(new)).id)
    await conn.execute("truncate enrichment_jobs")
    by_sql = await columns_of(
        conn, await enqueue(conn, f"'{new.type}', '{json.dumps(new.payload)}'")
    )

    for name in ("provider_id", "cost", "fair_rank", "payload", "status", "max_retries"):
        assert by_sql[name] == by_python[name], name


async def test_a_key_or_an_id_given_again_answers_the_first_job(conn):
    first = await enqueue(conn, f"{LEAD}, idempotency_key => 'k'")

    assert await enqueue(conn, f"{LEAD}, idempotency_key => 'k', priority => 1") == first
    assert await enqueue(conn, f"{LEAD}, id => '{first}'") == first
    assert await counted(conn, "enrichment_jobs") == 1


async def test_a_key_waits_for_a_transaction_that_uses_it_too(conn, database_url, eventually):
    """The second caller sees the first one's job, or makes its own when that rolls back."""
    other = Database(database_url)
    for first_commits in (True, False):
        arguments = f"{LEAD}, idempotency_key => 'key {first_commits}'"

        async def second(arguments: str = arguments) -> UUID:
            async with other.connection() as bare:
                return await enqueue(bare, arguments)

        async def is_waiting() -> object:
            cursor = await conn.execute("select 1 from pg_locks where not granted")
            return await cursor.fetchone()

        async with (
            asyncio.TaskGroup() as group,
            conn.transaction(force_rollback=not first_commits),
        ):
            first = await enqueue(conn, arguments)
            task = group.create_task(second())
            await eventually(is_waiting)
        assert (task.result() == first) is first_commits
    await other.close()

    assert await counted(conn, "enrichment_jobs") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"{LEAD}, priority => 0", "priority is 0; it must be 1 (highest) to 5 (lowest)"),
        (f"{LEAD}, priority => 6", "priority is 6; it must be 1 (highest) to 5 (lowest)"),
        (f"{LEAD}, priority => null", "priority is null; it must be 1 (highest) to 5 (lowest)"),
        (f"{LEAD}, max_retries => -1", "max_retries is -1; it must be 0 to 100"),
        (f"{LEAD}, max_retries => 101", "max_retries is 101; it must be 0 to 100"),
        (f"{LEAD}, max_retries => null", "max_retries is null; it must be 0 to 100"),
        ("'x', '[]'", "the payload must be a JSON object"),
        ("'x', 'null'", "the payload must be a JSON object"),
        ("'x', null", "the payload must be a JSON object"),
        ("null, '{}'", "type must have 1 to 100 characters"),
        ("'', '{}'", "type must have 1 to 100 characters"),
        ("repeat('x', 101), '{}'", "type must have 1 to 100 characters"),
        (f"{LEAD}, workspace_id => ''", "workspace_id and provider_id must have 1 to 100"),
        (f"{LEAD}, provider_id => ''", "workspace_id and provider_id must have 1 to 100"),
        (f"{LEAD}, idempotency_key => ''", "idempotency_key must have 1 to 255 characters"),
        (f"{LEAD}, webhook_url => repeat('x', 2049)", "webhook_url may have 2048 characters"),
        (
            "'x', jsonb_build_object('a', repeat('x', 2 * 1048576))",
            "the payload has 2097161 bytes; 1 MiB of compact JSON is the limit",
        ),
        (f"{LEAD}, scheduled_at => 'infinity'", "scheduled_at is infinity; it must be between"),
        (f"{LEAD}, scheduled_at => '-infinity'", "scheduled_at is -infinity; it must be between"),
        (f"{LEAD}, delay => '9000 years'", "it must be between the years 2000 and 9999"),
    ],
)
async def test_a_wrong_argument_is_refused_in_plain_words(conn, arguments, message):
    with pytest.raises(psycopg.Error) as caught:
        await enqueue(conn, arguments)

    assert message in str(caught.value.diag.message_primary)
    assert await counted(conn, "enrichment_jobs") == 0


async def test_an_id_of_another_workspace_is_refused(conn):
    job_id = await enqueue(conn, f"{LEAD}, workspace_id => 'other'")

    with pytest.raises(psycopg.errors.UniqueViolation, match=f"job id {job_id} is taken"):
        await enqueue(conn, f"{LEAD}, id => '{job_id}'")


# The ids it makes


async def test_ids_are_version_7_and_carry_the_database_clock(conn):
    cursor = await conn.execute(
        """
        select id, extract(epoch from clock_timestamp()) * 1000
          from (select enrichment_uuid7() as id from generate_series(1, 1000)) as made
        """
    )
    rows = await cursor.fetchall()

    assert {made.version for made, _ in rows} == {7}
    assert {made.variant for made, _ in rows} == {"specified in RFC 4122"}
    assert all(abs((made.int >> 80) - int(clock)) <= 5 for made, clock in rows)
    assert len({made for made, _ in rows}) == 1000


async def test_ids_grow_with_time(conn):
    cursor = await conn.execute("select enrichment_uuid7() from generate_series(1, 2000)")
    stamps = [made.int >> 80 for (made,) in await cursor.fetchall()]

    assert stamps == sorted(stamps)
    assert stamps[0] > int(datetime(2025, 1, 1, tzinfo=UTC).timestamp() * 1000)
