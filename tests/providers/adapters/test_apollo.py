"""Apollo's answers, over HTTP from a server that keeps to its contract, become facts or errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from enrichd.domain.email_verdicts import Verdict
from enrichd.domain.lead_results import LeadResult
from enrichd.domain.leads import Lead
from enrichd.domain.payloads import EnrichmentType
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
from enrichd.providers.adapters.apollo import BULK_MAX, CONTRACT, OPERATIONS, Apollo
from enrichd.providers.base import REGISTERED, Asynchronous, Bulk, Found, Operation, Pending
from enrichd.providers.calls import Calls
from enrichd.providers.client import Connections, common_limits
from enrichd.providers.contracts import Window, WindowSeen
from enrichd.providers.dns import Resolver
from enrichd.providers.questions import cache_key
from enrichd.providers.waterfall import Search, enrich_lead
from enrichd.providers.web import WebFetcher
from tests.support.contexts import providers_of
from tests.support.providers import faults
from tests.support.providers.apollo import (
    BULK,
    COMPANIES,
    FREE_PLAN,
    MATCH,
    RESULT,
    FakeApollo,
    fake_apollo,
    vendor_words,
    windows,
)
from tests.support.providers.asking import (
    ADA,
    ADA_EMAIL,
    adapter_of,
    assert_storable,
    lead,
    values_of,
)
from tests.support.providers.server import CallbackStyle
from tests.support.providers.world import person_at

FIND, PERSON = Operation.FIND_EMAIL, Operation.ENRICH_PERSON
COMPANY, SOCIAL = Operation.ENRICH_COMPANY, Operation.FIND_SOCIAL_PROFILES
FULL = lead(ADA_EMAIL, **ADA)
NAMED = lead(**ADA)


@pytest.fixture
async def apollo() -> AsyncIterator[FakeApollo]:
    async with fake_apollo() as server:
        yield server


@pytest.fixture
async def adapter(apollo: FakeApollo) -> AsyncIterator[Apollo]:
    async with adapter_of(apollo) as made:
        yield made


async def ask(adapter: Apollo, operation: Operation = PERSON, about: Lead = FULL) -> Found:
    return await adapter.call(operation, about)


def employees(count: int, domain: str = "northwind.example") -> list[Lead]:
    return [lead(f"worker{number}.lee@{domain}") for number in range(count)]


def confidence_of(found: Found, field: str) -> float:
    return next(fact.confidence for fact in found.facts if fact.field == field)


# One question.


async def test_a_person_is_read_whole_and_its_employer_with_it(apollo, adapter):
    found = await ask(adapter)

    person, company = values_of(found.facts), values_of(found.facts, "company")
    assert (person["fullName"], person["firstName"], person["lastName"]) == (
        "Ada Quill",
        "Ada",
        "Quill",
    )
    assert person["email"] == ADA_EMAIL
    assert person["emails"] == [
        {"address": ADA_EMAIL, "type": "work", "status": "valid", "primary": True}
    ]
    assert person["company.domain"] == "northwind.example"
    assert person["company.startDate"] == "2024-01-01"
    assert [job["current"] for job in person["employmentHistory"]] == [True, False]
    assert person["employmentHistory"][0]["companyDomain"] == "northwind.example"
    assert person["socialProfiles"] == [
        "http://www.linkedin.com/in/adaquill",
        "https://twitter.com/adaquill",
    ]
    assert person["providerIds.apollo"]
    assert person["timeZone"] == "Europe/Paris"
    assert "stale@elsewhere.example" not in str(found.facts)
    assert {"location.city", "location.region", "location.country"} <= set(person)
    assert (company["name"], company["domain"]) == ("Northwind", "northwind.example")
    assert company["employeeCount"] >= 5
    assert found.cost_credits == apollo.credits_spent == 1
    assert confidence_of(found, "email") == 0.95


async def test_the_questions_words_go_into_the_query_and_the_key_into_its_header(apollo, adapter):
    for operation in OPERATIONS:
        await ask(adapter, operation, NAMED)

    assert {question.headers["x-api-key"] for question in apollo.questions} == {apollo.key}
    assert not any("Authorization" in question.headers for question in apollo.questions)
    assert not any(apollo.key in str(question.params) for question in apollo.questions)
    match = next(question for question in apollo.questions if question.path == MATCH)
    assert dict(match.params) == {
        "first_name": "Ada",
        "last_name": "Quill",
        "domain": "northwind.example",
    }


async def test_an_employer_that_was_not_asked_for_tells_nothing_of_the_company(adapter):
    found = await ask(adapter, PERSON, lead(ADA_EMAIL, domain="elsewhere.example"))

    assert values_of(found.facts, "company") == {}
    assert values_of(found.facts)["company.domain"] == "northwind.example"


async def test_a_person_is_found_by_a_linkedin_profile(apollo, adapter):
    about = lead(linkedinUrl="https://linkedin.com/in/adaquill")
    assert adapter.can_answer(PERSON, about) is None

    assert (await ask(adapter, PERSON, about)).is_match


async def test_nobody_is_a_200_with_null_and_costs_nothing(apollo, adapter):
    found = await ask(adapter, PERSON, lead("unknown.lee@northwind.example"))

    assert not found.is_match
    assert found.cost_credits == apollo.credits_spent == 0


@pytest.mark.parametrize("body", [{}, {"organization": None}, {"organization": {}}])
async def test_an_unknown_company_is_nobody_however_it_is_said(apollo, adapter, body):
    apollo.script("/organizations/enrich", faults.status(200, body))

    found = await ask(adapter, COMPANY)
    assert (found.is_match, found.cost_credits) == (False, 0)


async def test_a_success_that_says_so_is_no_match_for_that(apollo, adapter):
    apollo.script(MATCH, faults.status(200, {"status": "success", "person": None}))

    assert not (await ask(adapter)).is_match


async def test_a_company_is_read_whole(apollo, adapter):
    found = await ask(adapter, COMPANY)

    company = values_of(found.facts, "company")
    assert (company["name"], company["domain"]) == ("Northwind", "northwind.example")
    assert (company["lastFundingStage"], company["lastFundingDate"]) == ("Series B", "2023-06-01")
    assert company["phones"].startswith("+")
    assert company["technologies"]
    assert {"annualRevenue", "totalFunding", "foundedYear", "tags", "logoUrl"} <= set(company)
    assert {"location.street", "location.postalCode"} <= set(company)
    assert found.cost_credits == apollo.credits_spent == 1


async def test_one_match_answers_all_that_is_wanted_of_a_lead(apollo, adapter):
    async with providers_of(adapter) as providers:
        result = await enrich_lead(
            NAMED,
            Search(tuple(EnrichmentType), ("apollo",)),
            Calls(providers, workspace_id="default"),
        )

    assert isinstance(result, LeadResult)
    assert result.outcome == "complete"
    assert result.verification is not None
    assert result.verification.verdict is Verdict.VALID
    assert apollo.calls == {MATCH: 1}
    assert apollo.credits_spent == 1


async def test_the_address_that_was_not_unlocked_is_no_address(adapter):
    found = await ask(adapter, FIND, lead("locked.lee@northwind.example"))

    assert "email" not in values_of(found.facts)
    assert "email_not_unlocked" not in str(found.facts)
    assert [(gap.field, gap.reason) for gap in found.missing] == [("email", "email_not_unlocked")]
    assert found.verification is None


@pytest.mark.parametrize(
    ("email", "confidence", "verdict", "status"),
    [
        ("ada.quill@northwind.example", 0.95, Verdict.VALID, "valid"),
        ("catchall.lee@northwind.example", 0.7, Verdict.RISKY, "risky"),
        ("unverifiable.lee@northwind.example", 0.5, None, "unknown"),
    ],
)
async def test_the_emails_status_is_its_confidence_and_a_verdict_where_it_is_one(
    adapter, email, confidence, verdict, status
):
    found = await ask(adapter, FIND, lead(email))

    check = found.verification
    assert confidence_of(found, "email") == confidence
    assert values_of(found.facts)["emails"][0]["status"] == status
    assert (check.verdict if check else None) == verdict
    assert check is None or (check.checked_by, str(check.address)) == (("apollo",), email)


async def test_an_extrapolated_address_is_as_sure_as_apollo_says(apollo, adapter):
    person = {"id": "1", "email": ADA_EMAIL, "extrapolated_email_confidence": 0.62}
    apollo.script(MATCH, faults.status(200, {"person": person}))

    assert confidence_of(await ask(adapter, FIND), "email") == 0.62


async def test_a_verdict_on_another_address_is_none_on_the_address_in_question(apollo, adapter):
    person = {"email": ADA_EMAIL, "email_status": "verified"}
    apollo.always(MATCH, faults.status(200, {"person": person}))

    asked_with = [lead("ada@acme.example"), lead(ADA_EMAIL.upper()), NAMED]
    checks = [(await ask(adapter, PERSON, about)).verification for about in asked_with]

    assert [check is not None for check in checks] == [False, True, True]


@pytest.mark.parametrize(("word", "facts"), [("none", 0), ("low", 1), ("high", 1)])
async def test_a_match_is_believed_as_far_as_apollo_believes_it(apollo, adapter, word, facts):
    person = {"title": "Pilot", "match_confidence": word}
    apollo.script(MATCH, faults.status(200, {"person": person}))

    found = await ask(adapter)
    titles = [fact for fact in found.facts if fact.field == "title"]
    assert len(titles) == facts
    assert word != "low" or titles[0].confidence == pytest.approx(0.34)


@pytest.mark.parametrize(
    ("told", "cost"), [(0.25, "0.25"), (0, "0"), (2, "2"), ("1.5", "1.5"), (None, "1"), ({}, "1")]
)
async def test_a_call_costs_what_apollo_says_or_one(apollo, adapter, told, cost):
    body = {"person": {"name": "Ada"}, "credits_consumed": told}
    apollo.script(MATCH, faults.status(200, body))

    assert (await ask(adapter)).cost_credits == Decimal(cost)


# What goes wrong.


@pytest.mark.parametrize(
    ("status", "body", "raised"),
    [
        (400, {"error": "bad"}, ProviderRejected),
        (401, b"Invalid API key", ProviderDenied),
        (401, {"error": "Invalid access credentials."}, ProviderDenied),
        (401, {"error_code": "INVALID_ACCESS_TOKEN"}, ProviderDenied),
        (402, {}, ProviderExhausted),
        (403, {"error": "not accessible", "error_code": "API_INACCESSIBLE"}, ProviderDenied),
        (403, {"error": "You have used all your lead credits"}, ProviderExhausted),
        (404, b"", ProviderRejected),
        (410, b"", ProviderRejected),
        (422, {"error": "Invalid domain"}, ProviderRejected),
        (422, {"message": "Insufficient credits"}, ProviderExhausted),
        (500, b"", ProviderDown),
        (503, b"<html>", ProviderDown),
    ],
)
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
async def test_a_status_means_what_apollo_means(apollo, adapter, operation, status, body, raised):
    apollo.script("*", faults.status(status, body))

    with pytest.raises(ProviderError) as caught:
        await ask(adapter, operation)

    assert type(caught.value) is raised
    assert apollo.key not in str(caught.value)


async def test_a_word_of_the_question_does_not_end_our_credits(apollo, adapter):
    said = {"error": "Credit-Union.example is no domain of ours"}
    apollo.script("*", faults.status(422, said))

    with pytest.raises(ProviderRejected):
        await ask(adapter, COMPANY, lead(domain="credit-union.example"))


@pytest.mark.parametrize("trouble", ["wrong", "revoked"])
async def test_a_key_that_does_not_work_is_denied_in_plain_text_or_json(apollo, trouble):
    apollo.accounts[apollo.key].is_revoked = trouble == "revoked"
    async with adapter_of(apollo, key="no-such-key" if trouble == "wrong" else "") as adapter:
        with pytest.raises(ProviderDenied):
            await ask(adapter)


async def test_too_fast_says_how_long_to_wait():
    async with (
        fake_apollo(limits={MATCH: windows((2, 60))}) as apollo,
        adapter_of(apollo) as adapter,
    ):
        for _ in range(2):
            await ask(adapter)
        with pytest.raises(ProviderThrottled) as caught:
            await ask(adapter)
        company = await ask(adapter, COMPANY)

    assert 58 <= caught.value.retry_after_s <= 60
    # Another endpoint has windows of its own.
    assert company.is_match


async def test_the_windows_are_as_the_headers_say_and_an_empty_one_is_none():
    async with fake_apollo() as paid, adapter_of(paid) as adapter:
        standing = (await ask(adapter)).standing
        assert standing is not None
        assert standing.windows == (WindowSeen(60, 1_000, 999),)

    async with fake_apollo(limits=FREE_PLAN) as free, adapter_of(free) as adapter:
        standing = (await ask(adapter)).standing
        assert standing is not None
        assert [(one.seconds, one.calls, one.left) for one in standing.windows] == [
            (60, 50, 49),
            (3_600, 200, 199),
            (86_400, 600, 599),
        ]


async def test_all_windows_open_at_the_first_call_and_close_one_after_the_other():
    now = 1_010.0
    limits = {MATCH: windows((2, 60), (3, 3_600))}
    async with (
        fake_apollo(limits=limits, clock=lambda: now) as apollo,
        adapter_of(apollo) as adapter,
    ):

        async def wait_s() -> float:
            try:
                await ask(adapter)
            except ProviderThrottled as error:
                return error.retry_after_s
            return 0

        waits = [await wait_s(), await wait_s(), await wait_s()]
        now += 60
        waits.append(await wait_s())
        now += 3_540
        waits.append(await wait_s())

    # The third is one too many for the minute; it counts for the hour all the same.
    assert waits == [0, 0, 60, 3_540, 0]


@pytest.mark.parametrize("text", ["", "unlimited", "-1", "1e9", "9" * 5_000])
async def test_a_window_that_cannot_be_read_is_none(apollo, adapter, text):
    headers = {"x-rate-limit-minute": text, "x-minute-requests-left": text}
    apollo.script("*", faults.status(200, {"person": None}, **headers))

    standing = (await ask(adapter)).standing
    assert standing is not None
    assert standing.windows == ()


@pytest.mark.parametrize("status", [422, 403])
async def test_no_credits_left_is_not_worth_waiting_for(status):
    async with (
        fake_apollo(balance=1, credit_status=status) as apollo,
        adapter_of(apollo) as adapter,
    ):
        await ask(adapter)
        with pytest.raises(ProviderExhausted):
            await ask(adapter)

        assert apollo.credits_spent == 1


@pytest.mark.parametrize(
    ("operation", "about", "reason"),
    [
        (PERSON, lead(domain="acme.example"), "no_name"),
        (FIND, lead(firstName="Ada", lastName="Quill"), "no_domain"),
        (FIND, lead("ada(at)acme", fullName="Ada Quill"), "no_domain"),
        (COMPANY, lead("ada@gmail.com"), "free_mail_domain"),
        (COMPANY, lead(companyName="Acme"), "no_domain"),
        (FIND, lead(fullName="Ada Quill", companyName="Acme"), None),
        *((operation, FULL, None) for operation in sorted(OPERATIONS)),
    ],
)
async def test_a_question_that_makes_no_sense_is_not_put(adapter, operation, about, reason):
    assert adapter.can_answer(operation, about) == reason


async def test_without_a_key_nothing_is_asked(apollo):
    async with adapter_of(apollo, key=None) as adapter:
        assert {adapter.can_answer(one, FULL) for one in OPERATIONS} == {"no_api_key"}


async def test_its_contract_says_what_is_documented(adapter):
    assert REGISTERED["apollo"].contract is CONTRACT
    assert Operation.VERIFY_EMAIL not in adapter.operations
    assert CONTRACT.limits[Operation.ENRICH_PERSON] == (Window(60, 1_000),)
    assert set(CONTRACT.bulk.values()) == {BULK_MAX}
    assert {adapter.cost_credits(one) for one in OPERATIONS} == {Decimal(1)}
    assert isinstance(adapter, Bulk)
    assert isinstance(adapter, Asynchronous)


async def test_two_leads_share_an_answer_if_what_is_sent_of_them_is_the_same(adapter):
    def key(operation: Operation, about: Lead) -> bytes:
        return cache_key(adapter, "apollo", operation, about)

    assert key(FIND, lead(ADA_EMAIL, title="CEO")) == key(FIND, lead(ADA_EMAIL, phone="+1"))
    assert key(FIND, lead(ADA_EMAIL)) != key(FIND, lead("bela@northwind.example"))
    assert key(FIND, NAMED) != key(FIND, FULL)
    assert key(COMPANY, FULL) == key(COMPANY, lead(domain="northwind.example", companyName="N"))


# Several questions.


async def test_ten_people_are_one_call_in_their_order(apollo, adapter):
    about = employees(9)
    about.insert(3, lead("unknown.lee@northwind.example"))

    answers = await adapter.call_many(PERSON, about)

    emails = [values_of(found.facts).get("email") for found in answers]
    assert emails == [str(one.address) if place != 3 else None for place, one in enumerate(about)]
    assert apollo.calls == {BULK: 1}
    assert sum(found.cost_credits for found in answers) == apollo.credits_spent == 9
    assert answers[3].cost_credits == 0


async def test_a_fraction_of_a_credit_is_shared_out_to_the_last_part():
    async with fake_apollo(match_price="0.3333") as apollo, adapter_of(apollo) as adapter:
        answers = await adapter.call_many(PERSON, employees(7))

        assert sum(found.cost_credits for found in answers) == apollo.credits_spent


async def test_one_bad_match_costs_only_its_own_question(apollo, adapter):
    matches = [{"name": "Ada"}, "not a person", None, ["x"], {"name": "Bela \ud800"}]
    apollo.script(BULK, faults.raw(json.dumps({"matches": matches}).encode()))

    answers = await adapter.call_many(PERSON, employees(5))

    kinds = [type(one) for one in answers]
    assert kinds == [Found, ProviderGarbled, Found, ProviderGarbled, Found]
    assert values_of(answers[4].facts)["fullName"].startswith("Bela")
    assert [bool(one.facts) for one in answers if isinstance(one, Found)] == [True, False, True]


@pytest.mark.parametrize("matches", [None, [], [None] * 2, [None] * 4, {}, "x"])
async def test_matches_that_could_be_anybodys_are_nobodys(apollo, adapter, matches):
    apollo.script(BULK, faults.status(200, {"status": "success", "matches": matches}))

    with pytest.raises(ProviderGarbled):
        await adapter.call_many(PERSON, employees(3))


@pytest.mark.parametrize("lists_missing", [True, False])
async def test_companies_are_known_by_their_domain_not_their_place(lists_missing):
    domains = ["b.example", "unknown1.example", "a.example", "b.example", "unknown2.example"]
    async with (
        fake_apollo(lists_missing=lists_missing) as apollo,
        adapter_of(apollo) as adapter,
    ):
        answers = await adapter.call_many(COMPANY, [lead(domain=one) for one in domains])

        named = [values_of(found.facts, "company").get("domain") for found in answers]
        assert named == ["b.example", None, "a.example", "b.example", None]
        assert apollo.calls == {COMPANIES: 1}
        assert sum(found.cost_credits for found in answers) == apollo.credits_spent == 2


async def test_a_company_that_goes_by_another_name_is_known_by_its_place(apollo, adapter):
    listed = [{"primary_domain": "new.example", "name": "New"}, {"primary_domain": "b.example"}]
    apollo.script(COMPANIES, faults.status(200, {"organizations": listed}))

    first, second = await adapter.call_many(
        COMPANY, [lead(domain="old.example"), lead(domain="b.example")]
    )

    assert values_of(first.facts, "company")["name"] == "New"
    assert values_of(second.facts, "company")["domain"] == "b.example"


async def test_a_bulk_call_that_fails_is_every_questions_failure(apollo, adapter):
    apollo.script("*", faults.status(429, {"message": "slow down"}, Retry_After="30"))

    with pytest.raises(ProviderThrottled) as caught:
        await adapter.call_many(PERSON, employees(2))
    assert caught.value.retry_after_s == 30


# The vendors' answer, later.


class Vendors(Apollo):
    """Apollo with its waterfall of vendors."""

    asks_vendors = True


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Yield a callback URL and what was posted to it."""
    posted: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        posted.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_post("/callbacks/{token}", take)
    async with TestServer(app) as server:
        yield str(server.make_url("/callbacks/secret")), posted


@asynccontextmanager
async def vendors_of(apollo: FakeApollo) -> AsyncIterator[Vendors]:
    chosen = common_limits("apollo").model_copy(
        update={"base_url": apollo.url, "api_key": SecretStr(apollo.key)}
    )
    connections = Connections(resolver=Resolver(()), fetcher=WebFetcher())
    try:
        yield Vendors(connections, chosen)
    finally:
        await connections.aclose()


async def test_the_vendors_are_not_asked_unless_they_are_wanted(apollo, adapter):
    found = await adapter.begin(FIND, NAMED, callback_url="http://127.0.0.1:9/x")

    assert isinstance(found, Found)
    assert "run_waterfall_email" not in apollo.questions[-1].params
    assert adapter.cost_credits(FIND) == 1


@pytest.mark.parametrize(("operation", "url"), [(FIND, None), (PERSON, "http://127.0.0.1:9/x")])
async def test_the_vendors_are_asked_for_emails_and_only_if_somebody_listens(
    apollo, operation, url
):
    async with vendors_of(apollo) as adapter:
        assert isinstance(await adapter.begin(operation, NAMED, callback_url=url), Found)

    assert "run_waterfall_email" not in apollo.questions[-1].params


async def test_the_vendors_answer_is_called_back(apollo):
    async with listening() as (url, posted), vendors_of(apollo) as adapter:
        pending = await adapter.begin(FIND, NAMED, callback_url=url)
        await apollo.settle_callbacks()
        found = adapter.read_callback(FIND, NAMED, json.loads(posted[0]))

        assert adapter.cost_credits(FIND) >= 3

    assert isinstance(pending, Pending)
    assert pending.request_id == str(apollo.request_ids[0])
    assert apollo.request_ids[0] < -(2**53)
    assert values_of(found.facts)["email"] == ADA_EMAIL
    assert found.verification is not None
    assert found.verification.verdict is Verdict.VALID
    assert found.request_id == pending.request_id
    assert found.cost_credits == apollo.credits_spent == 3


@pytest.mark.parametrize(
    ("style", "before", "after"),
    [
        (CallbackStyle.EARLY, 1, 1),
        (CallbackStyle.DUPLICATE, 0, 2),
        (CallbackStyle.NEVER, 0, 0),
        (CallbackStyle.LATE, 0, 0),
    ],
)
async def test_a_callback_comes_early_twice_late_or_never_and_says_the_same(style, before, after):
    async with (
        fake_apollo(callback_style=style) as apollo,
        listening() as (url, posted),
        vendors_of(apollo) as adapter,
    ):
        pending = await adapter.begin(FIND, NAMED, callback_url=url)
        assert isinstance(pending, Pending)
        assert len(posted) >= before
        await apollo.settle_callbacks()
        assert len(posted) == after
        await apollo.release_callbacks()
        assert len(posted) == after + (style is CallbackStyle.LATE)
        for body in posted:
            found = adapter.read_callback(FIND, NAMED, json.loads(body))
            assert found.request_id == pending.request_id
        assert len(set(posted)) <= 1


async def test_who_is_not_called_back_polls_for_nothing_until_it_is_there(apollo):
    async with vendors_of(apollo) as adapter:
        pending = await adapter.begin(FIND, NAMED, callback_url="http://127.0.0.1:9/gone")
        assert isinstance(pending, Pending)
        assert pending.request_id is not None

        still = await adapter.poll(FIND, NAMED, pending.request_id)
        found = await adapter.poll(FIND, NAMED, pending.request_id)

    assert isinstance(still, Pending)
    assert (still.request_id, still.poll_after_s) == (pending.request_id, 7)
    assert isinstance(found, Found)
    assert values_of(found.facts)["email"] == ADA_EMAIL
    assert apollo.credits_spent == found.cost_credits == 3
    assert apollo.calls[RESULT] == 2


@pytest.mark.parametrize("request_id", ["-12345", "not a number", "../../people/match"])
async def test_an_answer_nobody_has_is_not_waited_for(adapter, request_id):
    with pytest.raises(ProviderRejected):
        await adapter.poll(FIND, NAMED, request_id)


async def test_an_answer_that_expired_is_not_waited_for(apollo, adapter):
    apollo.expired.add("-7")

    with pytest.raises(ProviderRejected):
        await adapter.poll(FIND, NAMED, "-7")


@pytest.mark.parametrize(
    ("told", "wait_s"), [(7, 7), (None, 30), ("soon", 30), (0, 30), (-5, 1), (1e300, 3_600)]
)
async def test_the_wait_is_apollos_within_bounds(apollo, adapter, told, wait_s):
    body = {"error_code": "result_pending", "retry_after_seconds": told}
    apollo.script("*", faults.status(404, body))

    pending = await adapter.poll(FIND, NAMED, "-7")
    assert isinstance(pending, Pending)
    assert pending.poll_after_s == wait_s


async def test_vendors_that_find_nobody_may_bill_all_the_same():
    about = lead(firstName="Lost", lastName="Lee", domain="northwind.example")
    async with (
        fake_apollo(miss_price="0.5") as apollo,
        listening() as (url, posted),
        vendors_of(apollo) as adapter,
    ):
        assert isinstance(await adapter.begin(FIND, about, callback_url=url), Pending)
        await apollo.settle_callbacks()
        found = adapter.read_callback(FIND, about, json.loads(posted[0]))

        assert not found.is_match
        assert [gap.reason for gap in found.missing] == ["no_email"]
        assert found.cost_credits == apollo.credits_spent == Decimal("0.5")


async def test_a_waterfall_that_does_not_start_leaves_what_came_at_once():
    async with (
        fake_apollo(waterfall_status="failed") as apollo,
        vendors_of(apollo) as adapter,
    ):
        found = await adapter.begin(FIND, NAMED, callback_url="http://127.0.0.1:9/x")

    assert isinstance(found, Found)
    assert values_of(found.facts)["fullName"] == "Ada Quill"


async def test_the_surest_address_of_several_is_taken(adapter):
    body = vendor_words(-5, person_at(ADA_EMAIL), None)
    body["people"][0]["emails"] = [
        {"email": "a.q@northwind.example", "email_status": "unverified"},
        {"email": ADA_EMAIL, "email_status": "verified"},
        {"email": "not one", "email_status": "verified"},
    ]

    found = adapter.read_callback(FIND, NAMED, body)
    assert values_of(found.facts)["email"] == ADA_EMAIL
    assert found.cost_credits == 1


@pytest.mark.parametrize("body", [None, [], "x", 7, {}, {"people": None}, {"people": {"id": 1}}])
async def test_a_callback_that_is_none_is_garbled(adapter, body):
    with pytest.raises(ProviderGarbled):
        adapter.read_callback(FIND, NAMED, body)


# What nobody should send.


@pytest.mark.parametrize("kind", faults.HOSTILE)
async def test_hostile_values_cost_only_their_own_answer(apollo, adapter, kind):
    async def asked(operation: Operation, is_bulk: bool) -> Sequence[Found | ProviderError]:
        apollo.script("*", faults.hostile(kind))
        try:
            if is_bulk:
                return await adapter.call_many(operation, [FULL, FULL])
            return [await ask(adapter, operation)]
        except ProviderGarbled:
            return []

    for operation in OPERATIONS:
        for answer in (*await asked(operation, False), *await asked(operation, True)):
            if isinstance(answer, Found):
                assert_storable(answer.facts)


@pytest.mark.parametrize("kind", ["surrogate", "digits", "nan", "infinity", "nul", "escapes"])
async def test_one_hostile_name_does_not_spoil_the_others(apollo, adapter, kind):
    good = b'{"name": "Bela Okafor"}'
    bad = b'{"name": ' + faults.HOSTILE[kind] + b', "title": "Pilot"}'
    apollo.script(BULK, faults.raw(b'{"matches": [' + good + b", " + bad + b"]}"))

    first, second = await adapter.call_many(PERSON, employees(2))

    assert values_of(first.facts)["fullName"] == "Bela Okafor"
    assert values_of(second.facts)["title"] == "Pilot"
    assert_storable(second.facts)


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (faults.garbage(), ProviderGarbled),
        (faults.html(), ProviderGarbled),
        (faults.not_utf8(), ProviderGarbled),
        (faults.cut_json(), ProviderGarbled),
        (faults.flood(), ProviderGarbled),
        (faults.raw(b""), ProviderGarbled),
        (faults.raw(b"[]"), ProviderGarbled),
        (faults.raw(b'{"person": "x"}'), ProviderGarbled),
        (faults.truncated(), ProviderDown),
        (faults.reset(), ProviderDown),
    ],
)
async def test_a_broken_answer_is_garbled_and_a_broken_line_is_down(apollo, adapter, fault, raised):
    apollo.script("*", fault)

    with pytest.raises(ProviderError) as caught:
        await ask(adapter)

    assert type(caught.value) is raised


@pytest.mark.parametrize("fault", [faults.never(), faults.drip(0.01)])
async def test_who_never_finishes_is_down(apollo, adapter, fault, monkeypatch):
    monkeypatch.setattr(client_module, "CALL_S", 0.2)
    apollo.script("*", fault)

    with pytest.raises(ProviderDown):
        await ask(adapter)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KNOWN = st.sampled_from(
    [
        *("person", "organization", "organizations", "matches", "people", "emails", "email"),
        *("email_status", "credits_consumed", "request_id", "waterfall", "status", "name"),
        *("employment_history", "current", "phone_numbers", "sanitized_number", "departments"),
        *("linkedin_url", "primary_domain", "website_url", "primary_phone", "number", "keywords"),
        *("founded_year", "estimated_num_employees", "match_confidence", "technology_names"),
        *("extrapolated_email_confidence", "seniority", "photo_url", "error_code"),
    ]
)
RECORDS = st.recursive(JSON, lambda inner: st.dictionaries(KNOWN, inner, max_size=8), max_leaves=12)


def test_any_json_is_an_answer_or_a_providers_error():
    with asyncio.Runner() as runner:
        server = fake_apollo()
        runner.run(server.__aenter__())
        making = adapter_of(server)
        adapter = runner.run(making.__aenter__())

        async def asked(operation: Operation, way: str) -> list[Any]:
            if way == "many":
                return list(await adapter.call_many(operation, [FULL, NAMED]))
            if way == "poll":
                return [await adapter.poll(operation, FULL, "-7")]
            return [await ask(adapter, operation)]

        @settings(max_examples=150, deadline=None)
        @given(
            body=st.fixed_dictionaries({"person": RECORDS})
            | st.fixed_dictionaries({"matches": st.lists(RECORDS, min_size=2, max_size=2)})
            | st.fixed_dictionaries({"people": st.lists(RECORDS, max_size=2)})
            | RECORDS,
            status=st.sampled_from([200, 200, 200, 403, 404, 422, 429, 500]),
            operation=st.sampled_from(sorted(OPERATIONS)),
            way=st.sampled_from(["one", "many", "poll"]),
        )
        def check(body: Any, status: int, operation: Operation, way: str) -> None:
            server.script("*", faults.status(status, faults.dumped(body)))
            try:
                answers = runner.run(asked(operation, way))
            except ProviderError:
                return
            for answer in answers:
                assert isinstance(answer, Found | Pending | ProviderError)
                if isinstance(answer, Found):
                    assert_storable(answer.facts)
                    assert answer.cost_credits >= 0

        try:
            check()
        finally:
            runner.run(making.__aexit__(None, None, None))
            runner.run(server.__aexit__(None, None, None))
