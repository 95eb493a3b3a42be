"""One run: which outcome each way of ending has."""

from __future__ import annotations

import asyncio

import pytest

from enrichd.domain.jobs import Claimed
from enrichd.domain.outcomes import Completed, Failed, Retry, Snooze
from enrichd.errors import ClaimLost
from enrichd.processing.run import MESSAGE_LENGTH_MAX, run_job
from tests.support import job_types

JOB_ID = "01a20a3b-82ad-7594-bde0-0049ebb5f9b9"


class Context:
    """As much of a run as these handlers look at."""

    job_id = JOB_ID


async def run(job_type, payload="{}", age_s=0.0):
    job = Claimed(JOB_ID, 1, 3, job_type, "default", "-", 3, 1, payload, age_s=age_s)
    return await run_job(job, Context())


async def raising(kind):
    return await run("raising", f'{{"error": "{kind}"}}')


@pytest.mark.parametrize(
    "kind",
    ["value", "surrogate", "group", "memory", "recursion", "timeout", "stop_iteration",
     "unprintable", "unavailable", "down", "exit", "panic", "cancelled"],
)  # fmt: skip
async def test_what_a_retry_may_mend_is_tried_again(kind):
    outcome = await raising(kind)

    assert isinstance(outcome, Retry)
    assert outcome.error.retryable


@pytest.mark.parametrize(
    "kind", ["assertion", "invalid", "refused", "denied", "garbled", "uninitialised"]
)
async def test_what_no_retry_can_mend_fails(kind):
    assert isinstance(await raising(kind), Failed)


async def test_a_throttled_provider_snoozes_the_job():
    assert await raising("throttled") == Snooze(30.0, "429")


async def test_the_provider_is_kept_with_its_error():
    outcome = await raising("denied")
    assert (outcome.error.type, outcome.error.provider) == ("provider_denied", "hunter")


async def test_a_long_message_is_cut():
    outcome = await raising("long")
    assert len(outcome.error.message) == MESSAGE_LENGTH_MAX


async def test_a_dict_completes():
    assert await run("answering") == Completed({"a": 1})


@pytest.mark.parametrize("answer", ["none", "list", "text", "number"])
async def test_nonsense_fails_and_says_what_it_was(answer):
    outcome = await run("answering", f'{{"answer": "{answer}"}}')

    assert isinstance(outcome, Failed)
    assert outcome.error.type == "bad_result"


@pytest.mark.parametrize(
    ("age_s", "delay_s"), [(0.0, 1.0), (60.0, 6.0), (600.0, 60.0), (1e6, 60.0)]
)
async def test_an_unknown_type_is_soon_left_to_another_worker_and_later_costs_little(
    age_s, delay_s
):
    outcome = await run("no_such_type", age_s=age_s)

    assert isinstance(outcome, Snooze)
    assert outcome.delay_s == delay_s
    assert "'no_such_type'" in outcome.reason
    assert "ENRICHD_PLUGINS" in outcome.reason


@pytest.mark.parametrize(
    ("payload", "path"),
    [('{"seconds": "soon"}', "seconds"), ('{"secconds": 1}', "secconds"), ("[]", ""), ("{", "")],
)
async def test_a_payload_that_does_not_fit_fails_with_its_paths(payload, path):
    outcome = await run("nap", payload)

    assert isinstance(outcome, Failed)
    assert outcome.error.type == "invalid_payload"
    assert path in [field for field, _ in outcome.error.fields]


@pytest.mark.parametrize("type", ["empty", "echo"])
@pytest.mark.parametrize(
    "text", ["9" * 5_000, "1e999999", "[" * 10_000 + "]" * 10_000, '"\\ud800"']
)
async def test_a_payload_python_cannot_read_ends_its_own_run(type, text):
    outcome = await run(type, f'{{"seconds": {text}}}')

    assert isinstance(outcome, (Failed, Retry, Completed))


async def test_a_lost_claim_and_a_stopped_run_pass_through():
    async def lost():
        raise ClaimLost("given away")

    job_types.HOOKS["lost"] = lost
    with pytest.raises(ClaimLost):
        await run("hooked", '{"hook": "lost"}')

    task = asyncio.create_task(run("gate"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
