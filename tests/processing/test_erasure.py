"""Erasing while jobs run: what a run has in its memory does not come back."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, ClassVar

import psycopg
import pytest

from enrichd.domain.emails import parse_address
from enrichd.domain.facts import Fact
from enrichd.domain.jobs import NewJob
from enrichd.handlers.registry import load_handlers
from enrichd.plugin import JobContext, job_type
from enrichd.processing.erasure import Erasure
from enrichd.processing.processor import Limits
from enrichd.providers.base import Found, Operation, Query
from enrichd.providers.suppressions import Suppressions
from enrichd.settings import Settings
from enrichd.store.database import Database
from enrichd.store.installation import Installation
from tests.support.contexts import providers_of
from tests.support.job_types import GATES, SEEN, Anything
from tests.support.sharing import CountingProvider, sharing_providers
from tests.support.traces import ADA, BOB, NAME, traces

load_handlers()


@job_type("tells", Anything)
async def tells(payload: Anything, context: JobContext) -> dict[str, Any]:
    """Wait until the test opens the gate, then return the payload."""
    SEEN.started.append(str(context.job_id))
    await GATES["go"].wait()
    return dict(payload.model_extra or {})


@job_type("finds", Anything)
async def finds(payload: Anything, context: JobContext) -> dict[str, Any]:
    """Find a person of whom the payload says nothing."""
    SEEN.started.append(str(context.job_id))
    await GATES["go"].wait()
    return {"email": ADA, "name": NAME}


class SlowAboutAda:
    """A provider that knows everybody, and Ada when the gate opens."""

    provider_id: ClassVar[str] = "slow"
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.ENRICH_PERSON})

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def cost_credits(self, operation: Operation) -> Any:
        return 0

    def can_answer(self, operation: Operation, query: Query) -> str | None:
        return None

    async def call(self, operation: Operation, query: Query) -> Found:
        self.asked.append(query.email)
        if query.email == ADA:
            await GATES["go"].wait()
        title = Fact("person", "title", f"CTO ({query.last_name})", 0.9, "slow")
        return Found(facts=(title,))


@pytest.fixture
async def erase(database_url, tmp_path):
    """Give `await erase()`: the person is erased by a process of its own."""
    database = Database(database_url, name="erase")
    installation = Installation(database, Settings.load({}, directory=tmp_path))

    async def run(*, settle_s: float = 5.0, email: str = ADA):
        address = parse_address(email)
        return await Erasure(database, installation, address, workspace_id="default").run(
            settle_s=settle_s
        )

    yield run
    await database.close()


@pytest.fixture
def status(database_url):
    """Give `status(job_id)`: where a job stands."""

    def read(job_id):
        with psycopg.connect(database_url) as plain:
            row = plain.execute("select status from enrichment_jobs where id = %s", [job_id])
            return row.fetchone()[0]

    return read


async def begun():
    return SEEN.started


async def test_a_running_job_about_the_person_is_cancelled_and_leaves_nothing(
    make, running, queue, eventually, erase, database_url, status
):
    done = await queue.enqueue(NewJob("tells", {"about": {"email": ADA, "name": NAME}}))
    running(make())
    await eventually(begun)

    erased = await erase(settle_s=0.1)

    assert (erased.jobs, erased.cancelled) == (1, 1)
    assert traces(database_url) == []

    async def is_cancelled():
        return status(done.id) == "cancelled"

    await eventually(is_cancelled)
    assert traces(database_url) == []


@pytest.mark.parametrize("is_running", [False, True])
async def test_a_job_that_an_erasure_cancels_is_told_of_without_the_person(
    make, running, queue, eventually, erase, database_url, status, is_running
):
    about = {"about": {"email": ADA, "name": NAME}}
    done = await queue.enqueue(NewJob("tells", about, webhook_url="https://hooks.example.com/jobs"))
    if is_running:
        running(make())
        await eventually(begun)

    await erase(settle_s=0.1)
    await erase(settle_s=0.1)

    async def is_cancelled():
        return status(done.id) == "cancelled"

    await eventually(is_cancelled)
    with psycopg.connect(database_url) as plain:
        told = plain.execute(
            "select event, url, data->>'status' from enrichment_webhook_deliveries"
        ).fetchall()
    assert told == [("job.cancelled", "https://hooks.example.com/jobs", "cancelled")]
    assert traces(database_url) == []


async def test_a_run_that_ends_before_it_hears_of_its_cancelling_writes_nothing(
    make, running, queue, eventually, erase, database_url, status
):
    done = await queue.enqueue(NewJob("tells", {"about": {"email": ADA, "name": NAME}}))
    running(make(heartbeat_interval_s=2.0, worker_timeout_s=10.0))
    await eventually(begun)

    await erase(settle_s=0.0)
    GATES["go"].set()

    async def is_cancelled():
        return status(done.id) == "cancelled"

    await eventually(is_cancelled)
    assert traces(database_url) == []


async def test_a_running_batch_goes_on_for_the_others_and_keeps_nothing_of_the_person(
    make, running, queue, eventually, erase, database_url, status
):
    leads = [{"id": str(n), "email": f"lead{n}@nowhere.invalid"} for n in range(4)]
    leads.insert(2, {"id": "a", "email": ADA, "lastName": NAME})
    slow = SlowAboutAda()
    async with providers_of(slow) as providers:
        done = await queue.enqueue(
            NewJob("batch_lead_enrichment", {"leads": leads, "providerId": "slow"})
        )
        running(make(open_providers=lambda: providers))

        async def is_asked():
            return ADA in slow.asked

        await eventually(is_asked)
        erased = await erase(settle_s=0.1)
        GATES["go"].set()

        async def is_over():
            return status(done.id) == "completed"

        await eventually(is_over)

    assert (erased.jobs, erased.redacted, erased.leads) == (0, 1, 1)
    with psycopg.connect(database_url) as plain:
        items = plain.execute(
            "select item_key, result ->> 'outcome' = 'suppressed' from enrichment_job_items"
            " order by item_key"
        ).fetchall()
        (attempts,) = plain.execute("select attempts from enrichment_jobs").fetchone()
    assert items == [*((str(n), False) for n in range(4)), ("a", True)]
    assert attempts == 1, "the batch was not begun anew"
    assert traces(database_url) == []


async def test_a_running_job_about_several_people_begins_anew_without_the_one(
    make, running, queue, eventually, erase, database_url, status
):
    """What it has found so far stands in its memory, and it would write that at its end."""
    people = [{"email": ADA, "name": NAME}, {"email": BOB}]
    done = await queue.enqueue(NewJob("tells", {"people": people}))
    running(make())
    await eventually(begun)

    assert (await erase(settle_s=0.1)).redacted == 1
    GATES["go"].set()

    async def is_over():
        return status(done.id) == "completed"

    await eventually(is_over)
    with psycopg.connect(database_url) as plain:
        (result,) = plain.execute("select result from enrichment_jobs").fetchone()
    assert result == {"people": [{"erased": True}, {"email": BOB}]}
    assert len(SEEN.started) == 2
    assert traces(database_url) == []


async def test_what_a_run_finds_while_the_erasure_goes_on_is_erased_when_it_ends(
    make, running, queue, eventually, erase, database_url
):
    await queue.enqueue(NewJob("finds", {}))
    running(make())
    await eventually(begun)

    erasing = asyncio.create_task(erase(settle_s=10.0))

    async def is_suppressed():
        with psycopg.connect(database_url) as plain:
            return plain.execute("select from enrichment_suppressions").fetchone() is not None

    await eventually(is_suppressed)
    GATES["go"].set()
    erased = await erasing

    assert (erased.jobs + erased.redacted, erased.still_running) == (1, 0)
    assert traces(database_url) == []


async def test_a_run_that_goes_on_for_longer_is_told_of(make, running, queue, eventually, erase):
    await queue.enqueue(NewJob("finds", {}))
    running(make())
    await eventually(begun)

    assert (await erase(settle_s=0.1)).still_running == 1


async def test_jobs_of_others_are_read_in_parts_and_not_written(queue, erase, database_url):
    others = [NewJob("email_validation", {"emails": [f"p{n}@acme.com"]}) for n in range(2_500)]
    await queue.enqueue_many([*others, NewJob("email_validation", {"emails": [ADA]})])

    erased = await erase()

    assert (erased.jobs, erased.redacted) == (1, 0)
    assert traces(database_url) == []
    with psycopg.connect(database_url) as plain:
        row = plain.execute(
            "select count(*) from enrichment_jobs where status = 'pending'"
            " and updated_at = created_at"
        ).fetchone()
    assert row == (2_500,)


@pytest.mark.parametrize("again", [ADA, "ADA@googlemail.com"])
async def test_whoever_imports_the_person_again_gets_the_outcome_suppressed(
    make, queue, erase, database_url, tmp_path, again
):
    await erase()
    provider = CountingProvider("counting")
    async with sharing_providers(database_url, provider) as providers:
        assert providers.shared is not None
        installation = Installation(
            providers.shared.database, Settings.load({}, directory=tmp_path)
        )
        people = Suppressions(providers.shared.database, installation)
        providers.shared = dataclasses.replace(providers.shared, suppressions=people)
        leads = [{"id": "a", "email": again}, {"id": "b", "email": BOB}]
        await queue.enqueue(
            NewJob("batch_lead_enrichment", {"leads": leads, "providerId": "counting"})
        )
        await make(open_providers=lambda: providers).run(Limits(is_until_empty=True))

    with psycopg.connect(database_url) as plain:
        outcomes = dict(
            plain.execute(
                "select item_key, result ->> 'outcome' from enrichment_job_items"
            ).fetchall()
        )
    assert outcomes["a"] == "suppressed"
    assert outcomes["b"] != "suppressed"
    assert {query.email for query in provider.asked} == {BOB}
