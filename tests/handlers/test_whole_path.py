"""Real jobs, real PostgreSQL, providers over HTTP that fail in every way they know."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from enrichd.providers import client
from enrichd.providers.callbacks import PATH, receive_callback
from enrichd.store import provider_state
from enrichd.store.database import Database
from tests.support.providers.apollo import FakeApollo
from tests.support.providers.clearbit import FakeClearbit
from tests.support.providers.faults import (
    HOSTILE,
    cut_json,
    drip,
    flood,
    garbage,
    hostile,
    html,
    never,
    not_utf8,
    reset,
    status,
    truncated,
)
from tests.support.providers.hunter import FakeHunter
from tests.support.providers.pdl import FakePdl
from tests.support.providers.server import ANY, CallbackStyle, FakeProvider
from tests.support.whole_path import fleet_of, lead, said

pytestmark = pytest.mark.queue

ADA = "ada.quill@northwind.example"
FAKES = (FakeHunter, FakeApollo, FakePdl, FakeClearbit)
NAMES = [fake.name for fake in FAKES]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Give up on a provider that does not answer after a moment."""
    monkeypatch.setattr(client, "CALL_S", 0.3)


def revoke(fake: FakeProvider) -> None:
    for account in fake.accounts.values():
        account.is_revoked = True


def spend_all(fake: FakeProvider) -> None:
    for account in fake.accounts.values():
        account.balance = Decimal(0)


def always(*fault: Any) -> Callable[[FakeProvider], None]:
    return lambda fake: fake.always(ANY, fault[0])


TROUBLE: dict[str, tuple[Callable[[FakeProvider], None], str]] = {
    "revoked key": (revoke, "denied"),
    "no credits": (spend_all, "exhausted"),
    "invalid": (always(status(400, {"errors": [{"details": "wrong"}]})), "rejected"),
    "server error": (always(status(500, b"oops")), "down"),
    "bad gateway": (always(html()), "garbled"),
    "garbage": (always(garbage()), "garbled"),
    "latin-1": (always(not_utf8()), "garbled"),
    "half the JSON": (always(cut_json()), "garbled"),
    "hangs up half-way": (always(truncated()), "down"),
    "resets": (always(reset()), "down"),
    "never answers": (always(never()), "down"),
    "drips": (always(drip()), "down"),
    "floods": (always(flood()), "garbled"),
}
"""What goes wrong, and what a result calls it."""


@pytest.mark.parametrize("name", NAMES)
async def test_each_provider_failing_in_each_way_leaves_the_answer_to_the_next(database_url, name):
    """One job after the other: the last one's trouble must not be the next one's."""
    make = {fake.name: fake for fake in FAKES}[name]
    helper = FakePdl if name != "pdl" else FakeApollo
    for number, (what, (trouble, called)) in enumerate(TROUBLE.items()):
        async with make() as bad, helper() as good:
            trouble(bad)
            async with fleet_of(database_url, bad, good) as fleet:
                await fleet.rows("delete from enrichment_provider_state returning 1")
                wanted = lead(
                    f"ada.quill{number}@northwind.example",
                    providerId=name,
                    fallbackProviders=[good.name],
                )
                [job_id] = await fleet.enqueue(wanted)
                job = await fleet.ended(job_id)

        assert job.status == "completed", (what, job.error)
        found = said(job.result)
        assert found[name][0] == called, (what, found)
        assert found[good.name][0] == "answered", (what, found)
        assert job.result["person"]["title"], what


async def test_all_providers_failing_in_all_ways_at_once_harm_only_the_leads_they_fail(
    database_url,
):
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(make(limits={})) for make in FAKES]
        faults = [
            status(500),
            status(400),
            garbage(),
            html(),
            truncated(),
            reset(is_billed=True),
            never(),
            flood(2_000_000),
            *map(hostile, ("nul", "deep-list", "digits", "nan")),
        ]
        for place, fake in enumerate(fakes):
            for turn in range(40):
                fake.script(ANY, faults[(turn + 3 * place) % len(faults)])
        async with fleet_of(database_url, *fakes, processes=2) as fleet:
            job_ids = await fleet.enqueue(
                *(
                    lead(
                        f"ada.quill{number}@northwind.example",
                        providerId=NAMES[number % 4],
                        fallbackProviders=[*NAMES[number % 4 + 1 :], *NAMES[: number % 4]],
                    )
                    for number in range(24)
                ),
                max_retries=1,
            )
            await fleet.ended(*job_ids, within_s=120.0)
            rows = await fleet.rows(
                "select status, result, error ->> 'type' from enrichment_jobs where id = any(%s)",
                job_ids,
            )
            left = await fleet.rows("select count(*) from enrichment_credit_reservations")
            booked = await fleet.rows("select sum(credits) from enrichment_provider_use")

    for state, result, error in rows:
        assert (state == "completed" and result["providers"]) or error, (state, error)
        assert "NaN" not in json.dumps(result)
    assert left == [(0,)], "what was set aside was settled"
    paid = sum((fake.credits_spent for fake in fakes), Decimal())
    assert booked[0][0] >= paid, "a call whose answer was lost counts as paid"


async def test_a_missing_and_a_wrong_key_are_left_out_and_said(database_url):
    async with (
        FakeHunter(limits={}) as hunter,
        FakePdl(limits={}) as pdl,
        FakeClearbit() as clearbit,
    ):
        variables = {"HUNTER_API_KEY": "wrong", "CLEARBIT_API_KEY": ""}
        async with fleet_of(database_url, hunter, pdl, clearbit, **variables) as fleet:
            wanted = {"providerId": "clearbit", "fallbackProviders": ["hunter", "pdl"]}
            first, *rest = await fleet.enqueue(
                *(lead(f"ada{n}.quill@northwind.example", **wanted) for n in range(5))
            )
            await fleet.ended(first, *rest)
            results = [(await fleet.job(job_id)).result for job_id in (first, *rest)]

    for result in results:
        assert said(result)["clearbit"][0] == "no_api_key"
        assert said(result)["hunter"][0] in ("denied", "breaker_open")
        assert said(result)["pdl"] == ["answered"]
    assert clearbit.calls.total() == 0
    assert hunter.refused == {"wrong": hunter.calls.total()}
    assert "wrong" not in json.dumps(results)


async def test_a_key_that_is_revoked_meanwhile_is_refused_once_and_then_left_out(database_url):
    async with (
        FakeHunter(limits={}) as hunter,
        FakePdl(limits={}) as pdl,
        fleet_of(database_url, hunter, pdl) as fleet,
    ):
        results = []
        for number in range(4):
            if number == 2:
                hunter.accounts[hunter.key].is_revoked = True
            [job_id] = await fleet.enqueue(
                lead(
                    f"ada{number}.quill@northwind.example",
                    providerId="hunter",
                    fallbackProviders=["pdl"],
                )
            )
            results.append((await fleet.ended(job_id)).result)

    assert [said(result)["hunter"][0] for result in results[:3]] == ["answered"] * 2 + ["denied"]
    # The last one's lane is closed: it is moved to the next, or told that the breaker is open.
    assert said(results[3]).get("hunter", ["breaker_open"])[0] == "breaker_open"
    assert [said(result)["pdl"] for result in results[2:]] == [["answered"]] * 2
    assert hunter.refused == {"revoked": 1}
    assert (hunter.credits_spent, pdl.credits_spent) == (2, 2)


async def test_credits_that_end_in_a_batch_leave_the_rest_to_the_next_and_keep_what_was_found(
    database_url,
):
    leads = [{"id": f"{n}", "email": f"ada{n}.quill@northwind.example"} for n in range(20)]
    async with (
        FakeHunter(balance=7) as hunter,
        FakePdl() as pdl,
        fleet_of(database_url, hunter, pdl) as fleet,
    ):
        [job_id] = await fleet.enqueue(
            {
                "leads": leads,
                "enrichmentTypes": ["person"],
                "providerId": "hunter",
                "fallbackProviders": ["pdl"],
            }
        )
        job = await fleet.ended(job_id)
        items = await fleet.items(job_id)

    assert (job.status, job.result["completed"], job.result["failed"]) == ("completed", 20, 0)
    answered = [said(result) for _, result, _ in items.values()]
    assert sum(one["hunter"][0] == "answered" for one in answered) == 7
    assert sum(one.get("pdl", [""])[0] == "answered" for one in answered) == 13
    assert (hunter.credits_spent, pdl.credits_spent) == (7, 13)
    assert job.result["costCredits"] == 20


async def test_two_hundred_jobs_for_one_company_in_four_processes_make_one_call(database_url):
    async with (
        FakeHunter(latency_s=0.2) as hunter,
        fleet_of(database_url, hunter, processes=4, concurrency=25) as fleet,
    ):
        wanted = {"domain": "northwind.example", "providerId": "hunter"}
        job_ids = await fleet.enqueue(*[wanted] * 200)
        await fleet.ended(*job_ids)
        names = await fleet.rows(
            "select distinct status, result -> 'company' ->> 'name' from enrichment_jobs"
        )

    assert hunter.calls == {"/companies/find": 1}
    assert hunter.credits_spent == 1
    assert names == [("completed", "Northwind")]


@pytest.mark.parametrize("name", NAMES)
async def test_hostile_data_never_loses_a_batch_and_comes_out_clean(database_url, name, tmp_path):
    make = {fake.name: fake for fake in FAKES}[name]
    kinds = list(HOSTILE)
    leads = [
        {"id": f"{n}", "email": f"ada{n}.quill@northwind{n}.example"} for n in range(len(kinds) + 1)
    ]
    async with make(limits={}) as fake:
        # One answer each; where a bulk call carries several, one bad value is in all of its leads.
        fake.script(ANY, *(hostile(kind) for kind in kinds))
        async with fleet_of(database_url, fake) as fleet:
            # Else it opens, and whoever comes last is not asked about at all.
            async with fleet.queue.database.connection() as conn:
                await provider_state.set_by_hand(conn, credential=name, breaker="closed")
            batches = await fleet.enqueue(
                *(
                    {"leads": [one], "enrichmentTypes": ["person"], "providerId": name}
                    for one in leads[:-1]
                ),
                {"leads": leads, "enrichmentTypes": ["person"], "providerId": name},
                max_retries=1,
            )
            await fleet.ended(*batches, within_s=40.0)
            rows = await fleet.rows(
                "select status, error ->> 'type', result from enrichment_jobs where id = any(%s)",
                batches,
            )
            items = await fleet.items(batches[-1])
            texts = await fleet.rows("select result::text from enrichment_job_items")

    assert all(state in ("completed", "failed", "dead_letter") for state, _, _ in rows), rows
    assert not [error for _, error, _ in rows if error and not error.startswith("provider")]
    assert len(items) == len(leads)
    assert items[leads[-1]["id"]][0] == "completed", "only its own lead is harmed"
    assert {"answered", "garbled"} & set(said(items[leads[-1]["id"]][1])[name]), "it was asked"
    for (text,) in texts:
        assert not any(sign in (text or "") for sign in ("\\u001b", "\x1b", "\\u0000", "\u202e"))


async def test_who_wants_to_be_left_alone_is_asked_about_once_over_all_jobs(database_url):
    person = "optout.lee@northwind.example"
    async with FakeHunter(limits={}) as hunter, FakePdl(limits={}) as pdl:
        wanted = {"providerId": "hunter", "fallbackProviders": ["pdl"]}
        async with fleet_of(database_url, hunter, pdl, processes=2) as fleet:
            for number, types in enumerate((["person"], ["email"], ["person", "company"])):
                [job_id] = await fleet.enqueue(lead(person, types=types, **wanted))
                job = await fleet.ended(job_id)
                assert (job.status, job.result["outcome"]) == ("completed", "suppressed"), number
                assert job.result["person"] is None
            rows = await fleet.rows("select reason, provider_id from enrichment_suppressions")

    assert hunter.calls_by_subject == {person: 1}
    assert pdl.calls.total() == 0
    assert rows == [("opted_out", "hunter")]


@pytest.mark.parametrize("domain", ["gmail.com", "outlook.com", "gmx.de"])
async def test_a_free_mail_domain_is_never_looked_up_as_a_company(database_url, domain):
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(make(limits={})) for make in FAKES]
        async with fleet_of(database_url, *fakes) as fleet:
            wanted = {"providerId": "hunter", "fallbackProviders": NAMES[1:]}
            job_ids = await fleet.enqueue(
                lead(f"ada@{domain}", types=["company"], **wanted), {"domain": domain, **wanted}
            )
            await fleet.ended(*job_ids)
            results = [(await fleet.job(job_id)).result for job_id in job_ids]

    assert sum(fake.calls.total() for fake in fakes) == 0
    assert all("free_mail_domain" in said(result)["hunter"] for result in results)


# Answers that come later


async def test_an_answer_that_comes_later_is_polled_for_and_paid_once(database_url):
    async with (
        FakeClearbit(pending_polls=1) as clearbit,
        fleet_of(database_url, clearbit) as fleet,
    ):
        [job_id] = await fleet.enqueue(lead("later.lee@northwind.example", providerId="clearbit"))
        await fleet.until([job_id], frozenset({"waiting"}))
        await fleet.rows("update enrichment_callbacks set poll_at = now() returning 1")
        job = await fleet.ended(job_id)
        left = await fleet.rows("select count(*) from enrichment_credit_reservations")

    assert (job.status, job.attempts) == ("completed", 1)
    assert said(job.result)["clearbit"] == ["answered"]
    assert clearbit.calls.total() == 2
    assert (clearbit.credits_spent, job.result["costCredits"]) == (1, 1)
    assert left == [(0,)]


async def test_a_batch_waits_for_its_later_leads_and_keeps_the_others(database_url):
    leads = [
        {"id": "now", "email": ADA},
        {"id": "later", "email": "later.lee@northwind.example"},
    ]
    async with (
        FakeClearbit(pending_polls=1) as clearbit,
        fleet_of(database_url, clearbit) as fleet,
    ):
        [job_id] = await fleet.enqueue(
            {"leads": leads, "enrichmentTypes": ["person"], "providerId": "clearbit"}
        )
        await fleet.until([job_id], frozenset({"waiting"}))
        assert set(await fleet.items(job_id)) == {"now"}
        await fleet.rows("update enrichment_callbacks set poll_at = now() returning 1")
        job = await fleet.ended(job_id)

    assert (job.result["completed"], job.result["costCredits"]) == (2, 2)
    assert clearbit.calls_by_subject[ADA] == 1


@asynccontextmanager
async def gateway(dsn: str) -> AsyncIterator[str]:
    """Take callbacks in as the gateway does; give its base URL."""
    database = Database(dsn, name="test gateway")

    async def take(request: web.Request) -> web.Response:
        receipt = await receive_callback(
            database, request.match_info["token"], await request.read()
        )
        return web.json_response(str(receipt))

    app = web.Application()
    app.router.add_post(PATH + "{token}", take)
    server = TestServer(app)
    await server.start_server()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.close()
        await database.close()


@pytest.mark.parametrize("style", [one for one in CallbackStyle if one is not CallbackStyle.NEVER])
async def test_an_answer_is_called_back_early_twice_or_late_and_used_once(database_url, style):
    async with AsyncExitStack() as stack:
        clearbit = await stack.enter_async_context(
            FakeClearbit(pending_polls=1_000, callback_style=style)
        )
        base_url = await stack.enter_async_context(gateway(database_url))
        fleet = await stack.enter_async_context(
            fleet_of(database_url, clearbit, CALLBACK_BASE_URL=base_url)
        )
        [job_id] = await fleet.enqueue(lead("later.lee@northwind.example", providerId="clearbit"))
        if style is CallbackStyle.LATE:
            await fleet.until([job_id], frozenset({"waiting"}))
            assert await clearbit.release_callbacks() == 1
        job = await fleet.ended(job_id)
        await clearbit.settle_callbacks()
        states = await fleet.rows("select state from enrichment_callbacks")

    assert said(job.result)["clearbit"] == ["answered"]
    assert job.result["person"]["title"]
    assert (clearbit.calls.total(), job.result["costCredits"], job.attempts) == (1, 1, 1)
    assert states == [("used",)]
    assert {code for _, code in clearbit.callbacks_sent} == {200}


async def test_a_job_whose_answer_never_comes_is_ended_by_its_deadline(database_url):
    async with AsyncExitStack() as stack:
        clearbit = await stack.enter_async_context(FakeClearbit(pending_polls=1_000))
        fleet = await stack.enter_async_context(fleet_of(database_url, clearbit))
        [job_id] = await fleet.enqueue(
            lead("later.lee@northwind.example", providerId="clearbit"), max_retries=0
        )
        await fleet.until([job_id], frozenset({"waiting"}))
        await fleet.rows("update enrichment_provider_cache set asked_until = now() returning 1")
        await fleet.rows(
            "update enrichment_callbacks set deadline = now(), poll_at = now() returning 1"
        )
        await fleet.rows("update enrichment_jobs set scheduled_at = now() returning 1")
        job = await fleet.ended(job_id)

    assert job.status in ("completed", "failed", "dead_letter")
    assert clearbit.calls.total() <= 2


# Limits, caps, breakers


async def test_a_provider_that_says_wait_puts_its_job_off_without_an_attempt(database_url):
    async with FakeHunter() as hunter:
        hunter.always(ANY, status(403, {"errors": [{"id": "too_many_requests"}]}, Retry_After="40"))
        async with fleet_of(database_url, hunter) as fleet:
            job_ids = await fleet.enqueue(
                *(lead(f"ada{n}.quill@northwind.example", providerId="hunter") for n in range(30))
            )
            await fleet.until(job_ids[:1], frozenset({"scheduled", "pending"}))
            await fleet.until(job_ids, frozenset({"scheduled", "pending"}))
            rows = await fleet.rows(
                "select status, attempts, extract(epoch from scheduled_at - now())"
                " from enrichment_jobs"
            )

    assert {attempts for _, attempts, _ in rows} == {0}
    assert all(20 < left <= 41 for state, _, left in rows if state == "scheduled")
    assert hunter.calls.total() <= 10, "who comes after knows, and the lane is left out"


@pytest.mark.parametrize(
    ("variables", "options", "most"),
    [
        ({"CREDITS_PER_DAY_MAX": "9"}, {}, 9),
        ({"WORKSPACE_CREDITS_PER_DAY_MAX": "5"}, {}, 5),
        ({}, {"maxCredits": 3}, 3),
    ],
)
async def test_caps_hold_over_all_processes_in_a_race(database_url, variables, options, most):
    leads = [{"id": f"{n}", "email": f"ada{n}.quill@northwind.example"} for n in range(15)]
    async with (
        FakeHunter(latency_s=0.01) as hunter,
        fleet_of(database_url, hunter, processes=4, **variables) as fleet,
    ):
        batch = {"leads": leads, "enrichmentTypes": ["person"], "providerId": "hunter"}
        one_by_one = [lead(one["email"], providerId="hunter") for one in leads]
        work = [batch | options] if options else [batch, *one_by_one]
        job_ids = await fleet.enqueue(*work)
        await fleet.ended(*job_ids)
        results = [(await fleet.job(job_id)) for job_id in job_ids]

    assert all(job.status == "completed" for job in results)
    assert hunter.credits_spent == most


async def test_jobs_of_a_broken_provider_fall_back_and_its_probe_closes_the_breaker(database_url):
    async with FakeHunter(limits={}) as hunter, FakePdl(limits={}) as pdl:
        hunter.always(ANY, status(500))
        async with fleet_of(database_url, hunter, pdl, processes=2) as fleet:
            job_ids = await fleet.enqueue(
                *(
                    lead(
                        f"ada{n}.quill@northwind.example",
                        providerId="hunter",
                        fallbackProviders=["pdl"],
                    )
                    for n in range(200)
                ),
            )
            await fleet.ended(*job_ids)
            asked = hunter.calls.total()
            [(breaker, cap)] = await fleet.rows(
                "select breaker, inflight_cap from enrichment_provider_state"
                " where provider_id = 'hunter'"
            )
            assert breaker == "open"
            assert asked < 100
            lanes = await fleet.rows("select distinct provider_id from enrichment_jobs")
            assert ("pdl",) in lanes, "some were moved while they waited"

            hunter.always(ANY, None)
            await fleet.rows(
                "update enrichment_provider_state set opened_for = '0 s'"
                " where provider_id = 'hunter' returning 1"
            )
            [last] = await fleet.enqueue(lead("eva.novak@northwind.example", providerId="hunter"))
            job = await fleet.ended(last)
            [(breaker, cap)] = await fleet.rows(
                "select breaker, inflight_cap from enrichment_provider_state"
                " where provider_id = 'hunter'"
            )

    assert said(job.result)["hunter"] == ["answered"]
    assert (breaker, cap) == ("closed", None)
    assert pdl.calls.total() >= 1


async def test_a_slow_lane_holds_only_its_cap_and_does_not_delay_another(database_url):
    async with FakeHunter(latency_s=0.05) as hunter, FakePdl() as pdl:
        limit = {"HUNTER_RATE_LIMIT_PER_SECOND": "1"}
        async with fleet_of(
            database_url, hunter, pdl, processes=2, concurrency=4, **limit
        ) as fleet:
            slow = await fleet.enqueue(
                *(lead(f"ada{n}.quill@northwind.example", providerId="hunter") for n in range(200)),
                priority=1,
            )
            await fleet.until(slow[:1], frozenset({"completed"}))
            quick = await fleet.enqueue(
                *(lead(f"eva{n}.quill@northwind.example", providerId="pdl") for n in range(50)),
                priority=5,
            )
            most = 0
            async with asyncio.timeout(10):
                while await fleet.rows(
                    "select 1 from enrichment_jobs where id = any(%s) and status <> 'completed'"
                    " limit 1",
                    quick,
                ):
                    [(running,)] = await fleet.rows(
                        "select count(*) from enrichment_jobs"
                        " where status = 'processing' and provider_id = 'hunter'"
                    )
                    most = max(most, running)
            [(used,)] = await fleet.rows("select max(attempts) from enrichment_jobs")
            worst = hunter.arrivals.max_in_window(0.95)

    assert most <= 8
    assert worst <= 1
    assert used <= 1


async def test_what_providers_say_reaches_a_sheet_only_clean(database_url, tmp_path):
    async with FakeHunter() as hunter:
        hunter.always(ANY, hostile("escapes"))
        async with fleet_of(database_url, hunter) as fleet:
            [job_id] = await fleet.enqueue(
                {"domain": "northwind.example", "providerId": "hunter"}, max_retries=0
            )
            job = await fleet.ended(job_id)

    text = json.dumps(job.result) + json.dumps(job.error)
    out = io.StringIO()
    csv.writer(out).writerow([text])
    assert "\\u001b" not in text
    assert "\x1b" not in out.getvalue()
