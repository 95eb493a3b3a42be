"""Callbacks that come early, in time, twice, late, hostile, or not at all."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from enrichd.providers.callbacks import (
    BODY_BYTES_MAX,
    Callbacks,
    Receipt,
    Received,
    Waiting,
    hash_of,
    receive_callback,
)
from enrichd.providers.later_answers import Callbacks as WantedCallbacks
from enrichd.providers.operations import Operation
from enrichd.store import callbacks
from enrichd.store.database import Database
from tests.support.factories import a_job, state_of

KEY = b"k" * 32


@pytest.fixture
async def other(database_url):
    """Give the connection of another process: the one that is posted to."""
    opened = Database(database_url, name="gateway")
    yield opened
    await opened.close()


@pytest.fixture
async def jobs(database_url):
    """Give a third connection, for jobs and their states."""
    opened = Database(database_url, name="jobs")
    async with opened.connection() as conn:
        yield conn
    await opened.close()


@pytest.fixture
def waiting(database) -> WantedCallbacks:
    """Give the callbacks of a worker whose gateway can be reached."""
    return Callbacks(database, base_url="https://enrichd.test/")


async def expect(waiting: Callbacks, job_id, *, provider_id="apollo", deadline_s=3600.0):
    return await waiting.expect(
        workspace_id="acme",
        job_id=job_id,
        provider_id=provider_id,
        operation=Operation.FIND_EMAIL,
        cache_key=KEY,
        deadline_s=deadline_s,
    )


async def test_the_address_cannot_be_guessed_and_its_token_is_not_kept(waiting, database):
    one, two = await expect(waiting, uuid4()), await expect(waiting, uuid4())

    assert one.url == f"https://enrichd.test/api/enrichment/webhook/{one.token}"
    assert one.token != two.token
    assert len(one.token) >= 43
    async with database.connection() as conn:
        cursor = await conn.execute("select c::text, token_hash from enrichment_callbacks c")
        kept = await cursor.fetchall()
    assert one.token not in str(kept)
    assert {bytes(row[1]) for row in kept} == {hash_of(one.token), hash_of(two.token)}


async def test_without_a_public_address_nothing_is_called_back_but_polled_for(database):
    job_id = uuid4()
    deaf = Callbacks(database)
    expected = await expect(deaf, job_id)
    await deaf.asked(expected.token, request_id="r-1", poll_after_s=0.0)

    assert expected.url is None
    state = await deaf.answer_for(job_id, KEY)
    assert isinstance(state, Waiting)
    assert (state.request_id, state.poll_due) == ("r-1", True)
    assert 3590 < state.deadline_s <= 3600


async def test_a_callback_resumes_its_parked_job_and_the_run_finds_it(waiting, other, jobs):
    job = await a_job(jobs, status="waiting")
    expected = await expect(waiting, job.id)
    await waiting.asked(expected.token, request_id="-1039995589705121900", poll_after_s=60.0)

    assert await receive_callback(other, expected.token, b'{"email": "a@b.co"}') is Receipt.RESUMED

    assert await state_of(jobs, job.id) == "pending"
    assert await waiting.answer_for(job.id, KEY) == Received('{"email": "a@b.co"}')
    await waiting.used(job.id, KEY)
    assert await waiting.answer_for(job.id, KEY) is None
    cursor = await jobs.execute("select state, answer from enrichment_callbacks")
    assert await cursor.fetchall() == [("used", None)]


async def test_the_first_body_wins_and_the_same_again_changes_nothing(waiting, other, jobs):
    job = await a_job(jobs, status="waiting")
    token = (await expect(waiting, job.id)).token

    receipts = [await receive_callback(other, token, body) for body in (b"1", b"2", b"1")]
    await waiting.used(job.id, KEY)
    receipts.append(await receive_callback(other, token, b"3"))

    assert receipts == [Receipt.RESUMED, *[Receipt.DUPLICATE] * 3]
    cursor = await jobs.execute("select answer from enrichment_callbacks")
    assert await cursor.fetchall() == [(None,)]


async def test_of_many_at_once_one_is_taken(waiting, jobs, database_url):
    job = await a_job(jobs, status="waiting")
    token = (await expect(waiting, job.id)).token
    gateways = [Database(database_url) for _ in range(8)]

    receipts = await asyncio.gather(
        *(receive_callback(one, token, b"%d" % place) for place, one in enumerate(gateways))
    )

    assert sorted(receipts) == [*[Receipt.DUPLICATE] * 7, Receipt.RESUMED]
    taken = receipts.index(Receipt.RESUMED)
    assert await waiting.answer_for(job.id, KEY) == Received(str(taken))
    for one in gateways:
        await one.close()


async def test_one_that_comes_while_the_job_still_runs_is_found_when_it_parks(waiting, other, jobs):
    job = await a_job(jobs, status="processing")
    token = (await expect(waiting, job.id)).token

    # Even before the provider's own answer said what the request is called.
    assert await receive_callback(other, token, b"{}") is Receipt.KEPT
    await waiting.asked(token, request_id="r-1", poll_after_s=60.0)
    assert len(await callbacks.resume_received(jobs)) == 0
    await jobs.execute(
        "update enrichment_jobs set status = 'waiting', worker_id = null,"
        " scheduled_at = now() + interval '1 hour'"
    )

    assert len(await callbacks.resume_received(jobs)) == 1
    assert await state_of(jobs, job.id) == "pending"
    assert await waiting.answer_for(job.id, KEY) == Received("{}")


async def test_a_job_is_not_resumed_again_and_again_for_the_same_news(waiting, jobs):
    job = await a_job(jobs, status="waiting")
    token = (await expect(waiting, job.id)).token
    await waiting.asked(token, request_id="r-1", poll_after_s=0.0)

    async def parks_again():
        await jobs.execute(
            "update enrichment_jobs set status = 'waiting', scheduled_at = now() + interval '1 h'"
        )

    assert len(await callbacks.resume_received(jobs)) == 1
    await parks_again()
    assert len(await callbacks.resume_received(jobs)) == 0, "it did not poll, and would spin"
    await waiting.poll_again(job.id, KEY, poll_after_s=0.0)
    assert len(await callbacks.resume_received(jobs)) == 1, "it polled, and the next poll is due"
    await parks_again()
    await jobs.execute("update enrichment_callbacks set resumed_at = now() - interval '31 s'")
    assert len(await callbacks.resume_received(jobs)) == 1, "somebody has to look some day"


async def test_a_poll_that_is_not_due_resumes_nobody_and_sweeps_are_bounded(waiting, jobs):
    for _ in range(3):
        job = await a_job(jobs, status="waiting")
        await waiting.asked((await expect(waiting, job.id)).token, request_id="r", poll_after_s=0.0)
    late = await a_job(jobs, status="waiting")
    await waiting.asked((await expect(waiting, late.id)).token, request_id="x", poll_after_s=60.0)

    assert [len(await callbacks.resume_received(jobs, limit=2)) for _ in range(3)] == [2, 1, 0]
    assert await state_of(jobs, late.id) == "waiting"


async def test_one_that_never_comes_is_given_up_and_one_that_comes_late_changes_nothing(
    waiting, other, jobs
):
    job = await a_job(jobs, status="waiting")
    token = (await expect(waiting, job.id)).token
    await jobs.execute("update enrichment_callbacks set deadline = now() - interval '1 s'")

    assert await callbacks.expire(jobs) == 1
    assert await waiting.answer_for(job.id, KEY) is None
    assert await receive_callback(other, token, b"{}") is Receipt.LATE

    assert await state_of(jobs, job.id) == "waiting"
    await jobs.execute("update enrichment_callbacks set deadline = now() - interval '8 days'")
    assert await callbacks.expire(jobs) == 1
    assert await receive_callback(other, token, b"{}") is Receipt.UNKNOWN


async def test_a_deadline_that_nobody_noticed_yet_does_not_cost_the_answer(waiting, other, jobs):
    job = await a_job(jobs, status="waiting")
    token = (await expect(waiting, job.id)).token
    await jobs.execute("update enrichment_callbacks set deadline = now() - interval '1 s'")

    assert await receive_callback(other, token, b"{}") is Receipt.RESUMED
    assert await callbacks.expire(jobs) == 0
    assert await waiting.answer_for(job.id, KEY) == Received("{}")


@pytest.mark.parametrize("token", ["", "x", "a" * 5000, "töken", "\0", "'; drop table --"])
async def test_an_address_nobody_gave_out_is_unknown(other, token):
    assert await receive_callback(other, token, b"{}") is Receipt.UNKNOWN


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"", ""),
        (b"a\0b", "a\ufffdb"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'"\\ud800\\u0000"', '"\\ud800\\u0000"'),
        (b"[" * 10_000, "[" * 10_000),
        (b"9" * 5_000, "9" * 5_000),
    ],
)
async def test_whatever_is_posted_is_kept_as_it_is(waiting, other, jobs, body, kept):
    job = await a_job(jobs, status="waiting")
    token = (await expect(waiting, job.id)).token

    assert await receive_callback(other, token, body) is Receipt.RESUMED
    assert await waiting.answer_for(job.id, KEY) == Received(kept)


async def test_what_is_too_large_is_refused_and_a_smaller_one_may_follow(waiting, other, jobs):
    job = await a_job(jobs, status="waiting")
    token = (await expect(waiting, job.id)).token

    assert await receive_callback(other, token, b" " * (BODY_BYTES_MAX + 1)) is Receipt.TOO_LARGE
    assert await receive_callback(other, token, b" " * BODY_BYTES_MAX) is Receipt.RESUMED


async def test_a_question_that_was_put_twice_is_answered_by_either(waiting, other, jobs):
    job = await a_job(jobs, status="waiting")
    first = (await expect(waiting, job.id)).token
    await expect(waiting, job.id)

    assert await receive_callback(other, first, b"1") is Receipt.RESUMED
    assert await waiting.answer_for(job.id, KEY) == Received("1")


async def test_a_provider_with_one_address_for_all_names_its_request(waiting, other, jobs):
    job = await a_job(jobs, status="waiting")
    expected = await expect(waiting, job.id)
    await waiting.asked(expected.token, request_id="r-1", poll_after_s=60.0)

    assert await receive_callback(other, ("hunter", "r-1"), b"0") is Receipt.KEPT
    assert await receive_callback(other, ("apollo", "r-1"), b"1") is Receipt.RESUMED
    assert await receive_callback(other, ("apollo", "r-1"), b"2") is Receipt.DUPLICATE

    assert await waiting.answer_for(job.id, KEY) == Received("1")


async def test_an_answer_that_names_a_request_before_we_know_it_waits_for_it(waiting, other, jobs):
    job = await a_job(jobs, status="processing")
    expected = await expect(waiting, job.id)

    assert await receive_callback(other, ("apollo", "r-\0"), b"1") is Receipt.KEPT
    assert await receive_callback(other, ("apollo", "r-\0"), b"2") is Receipt.DUPLICATE
    await waiting.asked(expected.token, request_id="r-\0", poll_after_s=60.0)

    assert await waiting.answer_for(job.id, KEY) == Received("1")
    cursor = await jobs.execute("select state from enrichment_callbacks")
    assert await cursor.fetchall() == [("received",)]


async def test_an_early_answer_that_nobody_asked_for_goes_by_itself(other, jobs):
    await receive_callback(other, ("apollo", "r-1"), b"1")
    await jobs.execute("update enrichment_callbacks set deadline = now() - interval '1 s'")

    assert await callbacks.expire(jobs) == 1
    assert await callbacks.state_by_request(jobs, provider_id="apollo", request_id="r-1") is None
