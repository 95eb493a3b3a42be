"""Clearbit's answers, at once, polled or called back, become facts or errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from enrichd.errors import (
    ProviderDenied,
    ProviderDown,
    ProviderError,
    ProviderExhausted,
    ProviderGarbled,
    ProviderRejected,
    ProviderThrottled,
)
from enrichd.providers import client as client_module
from enrichd.providers.adapters.clearbit import (
    COMPANY_HOST,
    CONTRACT,
    PERSON_HOST,
    Clearbit,
    standing,
    verify_clearbit_signature,
)
from enrichd.providers.base import REGISTERED, Asynchronous, Found, Operation, Pending
from enrichd.providers.contracts import Window
from tests.support.providers import faults
from tests.support.providers.asking import (
    ADA,
    ADA_EMAIL,
    adapter_of,
    assert_storable,
    lead,
    values_of,
)
from tests.support.providers.clearbit import (
    COMPANY as COMPANY_PATH,
)
from tests.support.providers.clearbit import (
    PERSON as PERSON_PATH,
)
from tests.support.providers.clearbit import FakeClearbit, error, fake_clearbit, signature
from tests.support.providers.json_values import any_json, any_record
from tests.support.providers.server import CallbackStyle
from tests.support.providers.windows import Kind, Limit

PERSON, COMPANY = Operation.ENRICH_PERSON, Operation.ENRICH_COMPANY
SOCIAL = Operation.FIND_SOCIAL_PROFILES
FULL = lead(ADA_EMAIL, **ADA)
LATER = lead("later.lee@northwind.example")
LOST = lead("lost.lee@northwind.example")


@pytest.fixture
async def clearbit() -> AsyncIterator[FakeClearbit]:
    async with fake_clearbit() as server:
        yield server


@pytest.fixture
async def adapter(clearbit: FakeClearbit) -> AsyncIterator[Clearbit]:
    async with adapter_of(clearbit) as made:
        yield made


async def ask(adapter: Clearbit, operation: Operation = PERSON, about: Any = FULL) -> Found:
    return await adapter.call(operation, about)


async def begin(adapter: Clearbit, about: Any, callback_url: str | None = None) -> Pending:
    answer = await adapter.begin(PERSON, about, callback_url=callback_url)
    assert isinstance(answer, Pending)
    return answer


class Listener:
    """Where webhooks arrive: `(signature, body)` of each, in order."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.received: list[tuple[str, bytes]] = []


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    async def take(request: web.Request) -> web.Response:
        header = request.headers["X-Request-Signature"]
        listener.received.append((header, await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/callbacks/token-1", take)
    server = TestServer(app)
    await server.start_server()
    listener = Listener(str(server.make_url("/callbacks/token-1")))
    try:
        yield listener
    finally:
        await server.close()


async def test_a_person_is_read_whole(clearbit, adapter):
    found = await ask(adapter)

    values = values_of(found.facts)
    assert (values["fullName"], values["email"]) == ("Ada Quill", ADA_EMAIL)
    assert values["providerIds.clearbit"]
    assert {fact.source for fact in found.facts} == {"clearbit"}
    assert found.cost_credits == clearbit.credits_spent == 1


async def test_a_person_is_asked_for_with_what_tells_them_from_others(clearbit, adapter):
    await ask(adapter)

    assert clearbit.questions[-1].params == {
        "email": ADA_EMAIL,
        "given_name": "Ada",
        "family_name": "Quill",
        "company_domain": "northwind.example",
    }


async def test_a_company_has_a_head_count(adapter):
    values = values_of((await ask(adapter, COMPANY)).facts, "company")

    assert values["name"] == "Northwind"
    assert values["employeeCount"] > 0
    assert values["revenueRange"] == "$10M-$50M"


async def test_a_size_class_that_is_not_ours_stays_as_it_was_said(clearbit, adapter):
    record = {"name": "Acme", "metrics": {"employees": None, "employeesRange": "51-250"}}
    clearbit.script("*", faults.status(200, record))

    values = values_of((await ask(adapter, COMPANY)).facts, "company")

    assert values == {"name": "Acme", "employeeRange": "51-250"}


async def test_profiles_come_from_the_person_or_else_the_company(clearbit, adapter):
    person = await ask(adapter, SOCIAL, FULL)
    company = await ask(adapter, SOCIAL, lead(domain="northwind.example"))

    assert values_of(person.facts)["socialProfiles"]
    assert values_of(company.facts, "company")["socialProfiles"]
    assert clearbit.calls == {PERSON_PATH: 1, COMPANY_PATH: 1}


async def test_an_approximate_match_is_believed_less(adapter):
    found = await ask(adapter, PERSON, lead("fuzzy.lee@northwind.example"))

    assert values_of(found.facts)["matchConfidence"] == 0.6
    assert {fact.confidence for fact in found.facts if fact.field != "matchConfidence"} == {0.6}


@pytest.mark.parametrize(
    ("operation", "about"),
    [(PERSON, lead("unknown.lee@acme.example")), (COMPANY, lead(domain="unknown7.example"))],
)
async def test_nobody_known_is_an_answer_and_billed(clearbit, adapter, operation, about):
    found = await ask(adapter, operation, about)

    assert not found.is_match
    assert found.cost_credits == clearbit.credits_spent == 1


@pytest.mark.parametrize("body", ["empty", "error"])
async def test_what_is_being_looked_up_is_polled(body):
    async with fake_clearbit(queued_body=body) as clearbit, adapter_of(clearbit) as adapter:
        assert isinstance(adapter, Asynchronous)
        first = await begin(adapter, LATER)
        assert first.request_id is not None

        second = await adapter.poll(PERSON, LATER, first.request_id)
        third = await adapter.poll(PERSON, LATER, first.request_id)

        assert second == first
        assert values_of(third.facts)["email"] == "later.lee@northwind.example"
        assert (clearbit.calls[PERSON_PATH], clearbit.credits_spent) == (3, 1)
        assert not any("webhook_url" in question.params for question in clearbit.questions)


async def test_a_queue_that_is_said_with_200_is_no_answer_either(clearbit, adapter):
    clearbit.script("*", faults.status(200, error(200, "queued", "Soon.").body))

    await begin(adapter, FULL)


async def test_who_cannot_wait_is_told_to_come_again(adapter):
    with pytest.raises(ProviderThrottled) as caught:
        await ask(adapter, PERSON, LATER)

    assert caught.value.retry_after_s == 10


@pytest.mark.parametrize(
    ("style", "copies"),
    [(CallbackStyle.PROMPT, 1), (CallbackStyle.EARLY, 1), (CallbackStyle.DUPLICATE, 2)],
)
async def test_a_webhook_brings_the_person(style, copies):
    async with (
        fake_clearbit(callback_style=style) as clearbit,
        adapter_of(clearbit) as adapter,
        listening() as listener,
    ):
        pending = await begin(adapter, LATER, listener.url)
        await clearbit.settle_callbacks()

        assert len(listener.received) == copies
        for header, body in listener.received:
            assert verify_clearbit_signature(body, header, clearbit.key)
            found = adapter.read_callback(PERSON, LATER, json.loads(body))
            assert values_of(found.facts)["fullName"] == "Later Lee"
            assert (found.request_id, found.cost_credits) == (pending.request_id, 1)


async def test_a_webhook_may_bring_nobody(clearbit, adapter):
    async with listening() as listener:
        await begin(adapter, LOST, listener.url)
        await clearbit.settle_callbacks()

        (_, body), *_ = listener.received
        found = adapter.read_callback(PERSON, LOST, json.loads(body))

    assert json.loads(body)["status"] == 404
    assert not found.is_match
    assert found.cost_credits == 1


async def test_a_webhook_may_come_late_or_never_and_polling_still_ends_it():
    async with (
        fake_clearbit(callback_style=CallbackStyle.LATE, pending_polls=1) as clearbit,
        adapter_of(clearbit) as adapter,
        listening() as listener,
    ):
        await begin(adapter, LATER, listener.url)
        assert isinstance(await adapter.poll(PERSON, LATER, "any"), Found)
        assert listener.received == []

        assert await clearbit.release_callbacks() == 1
        assert len(listener.received) == 1
        assert clearbit.credits_spent == 1


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"type": "company", "status": 200, "body": {"name": "Acme"}},
        {"type": "person", "status": 500, "body": {}},
        {"type": "person", "status": 200, "body": "text"},
        {"type": ["person"], "status": 200, "body": {}},
    ],
)
async def test_what_is_no_webhook_of_clearbits_is_garbled(adapter, body):
    with pytest.raises(ProviderGarbled):
        adapter.read_callback(PERSON, FULL, body)


async def test_a_webhook_about_both_is_read_for_what_was_asked(adapter):
    body = {
        "type": "person_company",
        "status": 200,
        "body": {"person": {"name": {"fullName": "Ada Quill"}}, "company": {"name": "Northwind"}},
    }

    person = adapter.read_callback(PERSON, FULL, body)
    company = adapter.read_callback(COMPANY, FULL, body)

    assert values_of(person.facts)["fullName"] == "Ada Quill"
    assert values_of(company.facts, "company")["name"] == "Northwind"


@pytest.mark.parametrize("key", ["sk_abc", "pk_abc", "abc"])
def test_the_signature_is_made_with_the_key_without_its_prefix(key):
    header = "sha1=2604d14547ec14a07bd4c15334c4574bc8e42bae"

    assert verify_clearbit_signature(b"A-OK", header, key)
    assert signature(b"A-OK", key) == header


@pytest.mark.parametrize(
    ("body", "header", "key"),
    [
        (b"A-OK!", "sha1=2604d14547ec14a07bd4c15334c4574bc8e42bae", "sk_abc"),
        (b"A-OK", "sha1=2604d14547ec14a07bd4c15334c4574bc8e42bae", "sk_abd"),
        (b"A-OK", "2604d14547ec14a07bd4c15334c4574bc8e42bae", "sk_abc"),
        (b"A-OK", "sha1=", "sk_abc"),
        (b"A-OK", "", "sk_abc"),
        (b"A-OK", "sha1=\udcff€", "sk_abc"),
    ],
)
def test_a_wrong_signature_is_refused(body, header, key):
    assert not verify_clearbit_signature(body, header, key)


@pytest.mark.parametrize(
    ("status", "kind", "raised"),
    [
        (400, "params_invalid", ProviderRejected),
        (401, "invalid_api_key", ProviderDenied),
        (402, "over_quota", ProviderExhausted),
        (404, "unknown_route", ProviderRejected),
        (422, "email_invalid", ProviderRejected),
        (429, "rate_limit", ProviderThrottled),
        (500, "internal", ProviderDown),
        (503, "internal", ProviderDown),
    ],
)
@pytest.mark.parametrize("operation", [PERSON, COMPANY])
async def test_a_status_means_what_clearbit_means(
    clearbit, adapter, operation, status, kind, raised
):
    clearbit.script("*", faults.status(status, error(status, kind, "Details").body))

    with pytest.raises(ProviderError) as caught:
        await ask(adapter, operation)

    assert type(caught.value) is raised
    assert clearbit.key not in str(caught.value)


async def test_too_fast_waits_until_the_window_of_the_header_ends():
    limits = {"*": [Limit(2, 30, Kind.FIRST_REQUEST)]}
    async with fake_clearbit(limits=limits) as clearbit, adapter_of(clearbit) as adapter:
        await ask(adapter)
        second = await ask(adapter)
        with pytest.raises(ProviderThrottled) as caught:
            await ask(adapter)

    assert second.standing is not None
    (window,) = second.standing.windows
    assert (window.calls, window.left) == (2, 0)
    assert 25 <= caught.value.retry_after_s <= 32


async def test_no_credits_left_is_402():
    async with fake_clearbit(balance=1) as clearbit, adapter_of(clearbit) as adapter:
        await ask(adapter)
        with pytest.raises(ProviderExhausted):
            await ask(adapter, COMPANY)

        assert clearbit.credits_spent == 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-ratelimit-limit": "600"}, (600, None, None)),
        ({"x-ratelimit-limit": "", "x-ratelimit-remaining": "9" * 5_000}, None),
        (
            {
                "date": "Sun, 06 Nov 1994 08:49:37 GMT",
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": "784111807",
            },
            (None, 0, 30),
        ),
        ({"date": "never", "x-ratelimit-reset": "1"}, (None, None, 1)),
        ({"date": "Sun, 06 Nov 1994 08:49:37 -9999", "x-ratelimit-reset": "1"}, (None, None, 1)),
    ],
)
def test_the_rate_headers_say_how_we_stand_by_their_own_clock(headers, expected):
    found = standing(httpx.Headers(headers))

    windows = [(one.calls, one.left, one.reset_after_s) for one in found.windows] if found else []
    assert windows == ([expected] if expected else [])


@pytest.mark.parametrize("trouble", ["wrong", "revoked"])
async def test_a_key_that_does_not_work_is_denied(clearbit, trouble):
    clearbit.accounts[clearbit.key].is_revoked = trouble == "revoked"
    async with adapter_of(clearbit, key="sk_other" if trouble == "wrong" else "") as adapter:
        with pytest.raises(ProviderDenied):
            await ask(adapter)

    assert clearbit.refused == {trouble: 1}


async def test_the_key_goes_in_the_header_and_nowhere_else(clearbit, adapter):
    for operation in (PERSON, COMPANY, SOCIAL):
        await ask(adapter, operation)

    said = {question.headers["Authorization"] for question in clearbit.questions}
    assert said == {f"Bearer {clearbit.key}"}
    assert not any(clearbit.key in str(question.params) for question in clearbit.questions)


async def test_one_base_url_stands_for_both_hosts(clearbit):
    for base_url in (clearbit.origin, clearbit.origin + "/", clearbit.origin + "/v2"):
        async with adapter_of(clearbit, base_url=base_url) as adapter:
            await ask(adapter, PERSON)
            await ask(adapter, COMPANY)

    assert clearbit.calls == {PERSON_PATH: 3, COMPANY_PATH: 3}


async def test_without_a_key_nothing_is_asked(clearbit):
    async with adapter_of(clearbit, key=None) as adapter:
        assert {adapter.can_answer(one, FULL) for one in Operation} == {"no_api_key"}


@pytest.mark.parametrize(
    ("operation", "about", "reason"),
    [
        (Operation.FIND_EMAIL, FULL, "not_offered"),
        (Operation.VERIFY_EMAIL, FULL, "not_offered"),
        (PERSON, lead(domain="acme.example"), "no_email"),
        (COMPANY, lead("ada@gmail.com"), "free_mail_domain"),
        (SOCIAL, lead(fullName="Ada Quill"), "no_domain"),
        (PERSON, FULL, None),
        (COMPANY, FULL, None),
        (SOCIAL, FULL, None),
    ],
)
async def test_a_question_that_makes_no_sense_is_not_put(adapter, operation, about, reason):
    assert adapter.can_answer(operation, about) == reason


async def test_its_contract_says_what_is_documented(adapter):
    assert REGISTERED["clearbit"].contract is CONTRACT
    assert CONTRACT.limits[Operation.ENRICH_PERSON] == (Window(60, 600),)
    assert {adapter.cost_credits(one) for one in adapter.operations} == {1}
    assert (CONTRACT.base_url, "https://company.clearbit.com") == (PERSON_HOST, COMPANY_HOST)


@pytest.mark.parametrize("kind", faults.HOSTILE)
async def test_hostile_values_cost_only_their_own_answer(clearbit, adapter, kind):
    for operation in (PERSON, COMPANY, SOCIAL):
        clearbit.script("*", faults.hostile(kind))
        try:
            found = await ask(adapter, operation)
        except ProviderGarbled:
            continue
        assert_storable(found.facts)


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (faults.garbage(), ProviderGarbled),
        (faults.html(), ProviderGarbled),
        (faults.not_utf8(), ProviderGarbled),
        (faults.cut_json(), ProviderGarbled),
        (faults.flood(), ProviderGarbled),
        (faults.raw(b""), ProviderGarbled),
        (faults.raw(b"null"), ProviderGarbled),
        (faults.raw(b"{}"), ProviderGarbled),
        (faults.raw(b"<html>", code=404), ProviderRejected),
        (faults.truncated(), ProviderDown),
        (faults.reset(is_billed=True), ProviderDown),
    ],
)
async def test_a_broken_answer_is_garbled_and_a_broken_line_is_down(
    clearbit, adapter, fault, raised
):
    clearbit.script("*", fault)

    with pytest.raises(ProviderError) as caught:
        await ask(adapter)

    assert type(caught.value) is raised


@pytest.mark.parametrize("fault", [faults.never(), faults.drip(0.01)])
async def test_who_never_finishes_is_down(clearbit, adapter, fault, monkeypatch):
    monkeypatch.setattr(client_module, "CALL_S", 0.2)
    clearbit.script("*", fault)

    with pytest.raises(ProviderDown):
        await ask(adapter)


def test_any_json_is_an_answer_or_a_providers_error():
    with asyncio.Runner() as runner:
        server = fake_clearbit()
        runner.run(server.__aenter__())
        making = adapter_of(server)
        adapter = runner.run(making.__aenter__())

        @settings(max_examples=150, deadline=None)
        @given(
            body=any_record,
            status=st.sampled_from([200, 200, 200, 202, 402, 404, 429]),
            operation=st.sampled_from([PERSON, COMPANY, SOCIAL]),
        )
        def check(body: Any, status: int, operation: Operation) -> None:
            server.script("*", faults.status(status, faults.dumped(body)))
            try:
                found = runner.run(ask(adapter, operation))
            except ProviderError:
                return
            assert type(found) is Found
            assert_storable(found.facts)

        try:
            check()
        finally:
            runner.run(making.__aexit__(None, None, None))
            runner.run(server.__aexit__(None, None, None))


@settings(max_examples=200, deadline=None)
@given(
    body=any_json
    | st.fixed_dictionaries(
        {
            "type": st.sampled_from(["person", "company", "person_company"]),
            "status": st.sampled_from([200, 404]) | any_json,
            "body": any_record,
        }
    )
)
def test_any_webhook_is_an_answer_or_garbled(body):
    made = Clearbit(None, client_module.common_limits("clearbit"))  # type: ignore[arg-type]
    try:
        found = made.read_callback(PERSON, FULL, body)
    except ProviderGarbled:
        return
    assert_storable(found.facts)
