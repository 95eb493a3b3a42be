"""Hunter's answers, over HTTP from a server that keeps to its contract, become facts or errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrichd.domain.email_verdicts import Verdict
from enrichd.errors import (
    PersonSuppressed,
    ProviderDenied,
    ProviderDown,
    ProviderError,
    ProviderExhausted,
    ProviderGarbled,
    ProviderRejected,
    ProviderThrottled,
)
from enrichd.providers import client as client_module
from enrichd.providers.adapters.hunter import CONTRACT, Hunter
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
from tests.support.providers.hunter import TEST_KEY, FakeHunter, error, fake_hunter
from tests.support.providers.json_values import any_json, any_record
from tests.support.providers.windows import Limit

FIND, VERIFY = Operation.FIND_EMAIL, Operation.VERIFY_EMAIL
PERSON, COMPANY = Operation.ENRICH_PERSON, Operation.ENRICH_COMPANY
SOCIAL = Operation.FIND_SOCIAL_PROFILES
FULL = lead(ADA_EMAIL, **ADA)


@pytest.fixture
async def hunter() -> AsyncIterator[FakeHunter]:
    async with fake_hunter() as server:
        yield server


@pytest.fixture
async def adapter(hunter: FakeHunter) -> AsyncIterator[Hunter]:
    async with adapter_of(hunter) as made:
        yield made


async def ask(adapter: Hunter, operation: Operation = PERSON, about: Any = FULL) -> Found:
    return await adapter.call(operation, about)


async def test_an_email_is_found_with_everything_that_came_with_it(hunter, adapter):
    found = await ask(adapter, FIND, lead(**ADA))

    values = values_of(found.facts)
    assert values["email"] == ADA_EMAIL
    assert (values["firstName"], values["lastName"]) == ("Ada", "Quill")
    assert values["company.domain"] == "northwind.example"
    assert values["emails"][0]["status"] == "valid"
    email = next(fact for fact in found.facts if fact.field == "email")
    assert email.confidence == next(iter(found.facts)).confidence
    assert 0.8 <= email.confidence < 1
    assert email.source_url == "https://northwind.example/team"
    assert email.observed_at == "2026-06-01T00:00:00Z"
    assert found.cost_credits == hunter.credits_spent == 1


async def test_a_fresh_check_that_came_with_it_spares_the_verifier(adapter):
    found = await ask(adapter, FIND, lead(**ADA))

    assert found.verification is not None
    assert found.verification.verdict is Verdict.VALID
    assert found.verification.checked_by == ("hunter",)


@pytest.mark.parametrize("date", ["2020-01-01", "soon", None, 7])
async def test_an_old_check_is_no_verdict(hunter, adapter, date):
    data = {"email": ADA_EMAIL, "score": 90, "verification": {"date": date, "status": "valid"}}
    hunter.script("/email-finder", faults.status(200, {"data": data}))

    assert (await ask(adapter, FIND, lead(**ADA))).verification is None


@pytest.mark.parametrize(
    ("score", "confidence"), [(94, 0.94), (0, 0), (250, 1), (None, 0.5), ("94", 0.5), (True, 0.5)]
)
async def test_the_score_is_the_confidence(hunter, adapter, score, confidence):
    hunter.script(
        "/email-finder", faults.status(200, {"data": {"email": ADA_EMAIL, "score": score}})
    )

    found = await ask(adapter, FIND, lead(**ADA))

    assert {fact.confidence for fact in found.facts} == {confidence}


async def test_nobody_found_is_an_answer_that_costs_nothing(hunter, adapter):
    found = await ask(
        adapter, FIND, lead(firstName="Unknown", lastName="Lee", domain="acme.example")
    )

    assert found == Found()
    assert hunter.credits_spent == 0


async def test_nobody_found_may_be_a_404_too(hunter, adapter):
    hunter.script("/email-finder", faults.status(404, error(404, "not_found", "None").body))

    assert await ask(adapter, FIND, lead(**ADA)) == Found()


async def test_a_company_without_a_domain_is_asked_for_by_its_name(hunter, adapter):
    found = await ask(adapter, FIND, lead(fullName="Ada Quill", companyName="North Wind"))

    assert values_of(found.facts)["email"] == "ada.quill@north-wind.example"
    assert "domain" not in hunter.questions[-1].params


@pytest.mark.parametrize(
    ("email", "verdict", "reason", "cost"),
    [
        ("ada.quill@northwind.example", Verdict.VALID, "provider_valid", 1),
        ("invalid.lee@northwind.example", Verdict.INVALID, "provider_invalid", 1),
        ("ada.lee@catchall.example", Verdict.RISKY, "catch_all", 1),
        ("ada.lee@disposable.example", Verdict.RISKY, "disposable_domain", 0),
        ("ada.lee@webmail.example", Verdict.VALID, "provider_valid", 0),
        ("ada.lee@unverifiable.example", Verdict.UNKNOWN, "provider_unknown", 0),
    ],
)
async def test_a_check_becomes_a_verdict(hunter, adapter, email, verdict, reason, cost):
    found = await ask(adapter, VERIFY, lead(email))

    check = found.verification
    assert check is not None
    assert (check.verdict, check.reasons) == (verdict, (reason,))
    assert str(check.address) == email
    assert found.cost_credits == hunter.credits_spent == cost


async def test_a_webmail_address_that_no_server_confirmed_is_unknown(hunter, adapter):
    data = {"status": "webmail", "smtp_check": False}
    hunter.script("/email-verifier", faults.status(200, {"data": data}))

    check = (await ask(adapter, VERIFY)).verification
    assert check is not None
    assert check.verdict is Verdict.UNKNOWN


async def test_a_verdict_says_what_it_rests_on(adapter):
    check = (await ask(adapter, VERIFY, lead("ada.lee@catchall.example"))).verification

    assert check is not None
    said = check.to_json()
    assert (said["isCatchAll"], said["mx"]["found"], said["checkedBy"]) == (True, True, ["hunter"])


@pytest.mark.parametrize(
    ("score", "kept"), [(97, 97), (12.6, 13), (0, 0), (101, 95), (None, 95), ("97", 95), (True, 95)]
)
async def test_the_score_of_a_check_is_kept(hunter, adapter, score, kept):
    data = {"status": "valid", "email": ADA_EMAIL, "score": score}
    hunter.script("/email-verifier", faults.status(200, {"data": data}))

    check = (await ask(adapter, VERIFY)).verification

    assert check is not None
    said = check.to_json()
    assert (said["score"], said["decidedBy"]) == (kept, "hunter")
    assert said["scores"] == ({} if kept == 95 else {"hunter": kept})


async def test_a_slow_check_is_polled_at_the_same_address_and_counted_once(hunter, adapter):
    about = lead("later.lee@northwind.example")
    assert isinstance(adapter, Asynchronous)
    first = await adapter.begin(VERIFY, about, callback_url="http://127.0.0.1:9/never-used")
    assert isinstance(first, Pending)
    assert first.request_id is not None

    second = await adapter.poll(VERIFY, about, first.request_id)
    third = await adapter.poll(VERIFY, about, first.request_id)

    assert second == first
    assert isinstance(third, Found)
    assert third.verification is not None
    assert third.verification.verdict is Verdict.VALID
    assert hunter.calls == {"/email-verifier": 3}
    assert hunter.credits_spent == third.cost_credits == 1
    assert all(question.params == {"email": str(about.address)} for question in hunter.questions)


async def test_who_cannot_wait_is_told_to_come_again(hunter, adapter):
    with pytest.raises(ProviderThrottled) as caught:
        await ask(adapter, VERIFY, lead("later.lee@northwind.example"))

    assert caught.value.retry_after_s == 5


async def test_a_check_that_did_not_work_is_unknown_for_a_short_time(adapter):
    found = await ask(adapter, VERIFY, lead("greylisted.lee@northwind.example"))

    check = found.verification
    assert check is not None
    assert (check.verdict, check.reasons) == (Verdict.UNKNOWN, ("verification_failed",))
    kept = datetime.fromisoformat(check.expires_at) - datetime.fromisoformat(check.checked_at)
    assert kept <= timedelta(minutes=15)
    assert found.cost_credits == 0


async def test_a_check_of_another_address_is_no_answer(hunter, adapter):
    data = {"status": "valid", "email": "somebody.else@northwind.example"}
    hunter.script("/email-verifier", faults.status(200, {"data": data}))

    with pytest.raises(ProviderGarbled):
        await ask(adapter, VERIFY)


async def test_the_old_result_is_read_where_the_status_says_nothing(hunter, adapter):
    hunter.script("/email-verifier", faults.status(200, {"data": {"result": "undeliverable"}}))

    check = (await ask(adapter, VERIFY)).verification
    assert check is not None
    assert check.verdict is Verdict.INVALID


async def test_a_person_is_read_whole(hunter, adapter):
    found = await ask(adapter, PERSON)

    values = values_of(found.facts)
    assert values["fullName"] == "Ada Quill"
    assert values["email"] == ADA_EMAIL
    assert values["company.domain"] == "northwind.example"
    assert values["location.countryCode"] in ("US", "GB", "DE", "FR")
    assert values["phones"][0]["number"].startswith("+")
    assert {one["url"] for one in values["socialProfiles"]} == {
        "https://www.linkedin.com/in/adaquill",
        "https://x.com/adaquill",
        "https://github.com/adaquill",
    }
    assert values["providerIds.hunter"]
    assert {fact.observed_at for fact in found.facts} == {"2026-05-11T09:30:00Z", None}
    assert found.cost_credits == hunter.credits_spent == 1


async def test_an_approximate_match_is_believed_less(adapter):
    exact, fuzzy = [
        {fact.field: fact.confidence for fact in (await ask(adapter, PERSON, lead(email))).facts}
        for email in (ADA_EMAIL, "fuzzy.lee@northwind.example")
    ]

    assert (exact["fullName"], fuzzy["fullName"]) == (0.9, 0.6)


async def test_a_company_is_read_whole_and_its_size_is_text(adapter):
    values = values_of((await ask(adapter, COMPANY)).facts, "company")

    assert (values["name"], values["domain"]) == ("Northwind", "northwind.example")
    assert values["domainAliases"] == ["getnorthwind.example"]
    assert "employeeCount" not in values
    assert values["employeeRange"] in ("1-10", "11-50", "51-250", "251-1K", "1K-5K")
    assert values["foundedYear"] >= 1980
    assert values["technologies"]
    assert {one["network"] for one in values["socialProfiles"]} == {
        "linkedin",
        "x",
        "facebook",
        "crunchbase",
    }


async def test_profiles_come_from_the_person_or_else_the_company(hunter, adapter):
    person = await ask(adapter, SOCIAL, FULL)
    company = await ask(adapter, SOCIAL, lead(domain="northwind.example"))

    assert values_of(person.facts)["socialProfiles"]
    assert values_of(company.facts, "company")["socialProfiles"]
    assert hunter.calls == {"/people/find": 1, "/companies/find": 1}


async def test_a_person_is_found_by_a_linkedin_profile(hunter, adapter):
    about = lead(linkedinUrl="https://www.linkedin.com/in/adaq/")

    assert adapter.can_answer(PERSON, about) is None
    await ask(adapter, PERSON, about)

    assert hunter.questions[-1].params == {"linkedin_handle": "adaq"}


@pytest.mark.parametrize(
    ("operation", "about"),
    [
        (PERSON, lead("unknown.lee@northwind.example")),
        (COMPANY, lead(domain="unknown7.example")),
        (SOCIAL, lead(domain="unknown7.example")),
    ],
)
async def test_nobody_known_is_an_answer_that_costs_nothing(hunter, adapter, operation, about):
    assert await ask(adapter, operation, about) == Found()
    assert hunter.credits_spent == 0


@pytest.mark.parametrize(
    ("status", "name", "raised"),
    [
        (400, "wrong_params", ProviderRejected),
        (401, "authentication_failed", ProviderDenied),
        (403, "too_many_requests", ProviderThrottled),
        (422, "invalid_email", ProviderRejected),
        (429, "too_many_requests", ProviderExhausted),
        (451, "claimed_email", PersonSuppressed),
        (500, "server_error", ProviderDown),
        (503, "server_error", ProviderDown),
        (302, "moved", ProviderRejected),
    ],
)
@pytest.mark.parametrize("operation", [FIND, VERIFY, PERSON, COMPANY])
async def test_a_status_means_what_hunter_means(hunter, adapter, operation, status, name, raised):
    hunter.script("*", faults.status(status, error(status, name, "Details").body))

    with pytest.raises(ProviderError) as caught:
        await ask(adapter, operation)

    assert type(caught.value) is raised
    assert hunter.key not in str(caught.value)


async def test_too_fast_is_403_and_worth_waiting_for():
    async with (
        fake_hunter(limits={"*": [Limit(2, 60)]}) as hunter,
        adapter_of(hunter) as adapter,
    ):
        await ask(adapter)
        await ask(adapter)
        with pytest.raises(ProviderThrottled) as caught:
            await ask(adapter)

        assert caught.value.retry_after_s == 60
        assert hunter.refused == {"rate": 1}
        assert hunter.arrivals.max_in_window(60) == 3


async def test_no_credits_left_is_429_and_not_worth_waiting_for():
    async with fake_hunter(balance=1) as hunter, adapter_of(hunter) as adapter:
        await ask(adapter)
        with pytest.raises(ProviderExhausted):
            await ask(adapter, COMPANY)

        assert hunter.credits_spent == 1


@pytest.mark.parametrize("trouble", ["wrong", "revoked"])
async def test_a_key_that_does_not_work_is_denied(hunter, trouble):
    hunter.accounts[hunter.key].is_revoked = trouble == "revoked"
    async with adapter_of(hunter, key="no-such-key" if trouble == "wrong" else "") as adapter:
        with pytest.raises(ProviderDenied):
            await ask(adapter)

    assert hunter.refused == {trouble: 1}


async def test_who_opted_out_is_suppressed(hunter, adapter):
    for operation in (FIND, VERIFY, PERSON):
        about = lead(
            "optout.lee@acme.example", firstName="Optout", lastName="Lee", domain="acme.example"
        )
        with pytest.raises(PersonSuppressed):
            await ask(adapter, operation, about)

    assert hunter.credits_spent == 0


@pytest.mark.parametrize("body", [b"<h1>Not Found</h1>", b'{"detail": "Not Found"}', b"[]", b""])
async def test_a_404_of_somebody_else_is_no_word_about_anybody(hunter, adapter, body):
    hunter.script("*", faults.raw(body, code=404))

    with pytest.raises(ProviderRejected):
        await ask(adapter)


async def test_the_key_goes_in_the_header_and_nowhere_else(hunter, adapter):
    for operation in Operation:
        await ask(adapter, operation)

    assert {question.headers["X-API-KEY"] for question in hunter.questions} == {hunter.key}
    assert not any(hunter.key in str(question.params) for question in hunter.questions)


async def test_hunters_own_test_key_answers_and_costs_nothing(hunter):
    async with adapter_of(hunter, key=TEST_KEY) as adapter:
        found = await ask(adapter, FIND, lead(**ADA))

    # Its dummy's domain is reserved, so it is nobody.
    assert found.facts == ()
    assert hunter.credits_spent == 0


@pytest.mark.parametrize(
    ("operation", "about", "reason"),
    [
        (FIND, lead(domain="acme.example"), "no_name"),
        (FIND, lead(firstName="Ada", lastName="Quill"), "no_domain"),
        (FIND, lead("a@gmail.com", firstName="Ada", lastName="Quill"), "free_mail_domain"),
        (VERIFY, lead(), "no_email"),
        (VERIFY, lead("not-an-address"), "missing_at"),
        (PERSON, lead(domain="acme.example"), "no_email"),
        (COMPANY, lead("ada@gmail.com"), "free_mail_domain"),
        (COMPANY, lead(fullName="Ada Quill"), "no_domain"),
        (SOCIAL, lead(fullName="Ada Quill"), "no_domain"),
        *((operation, FULL, None) for operation in Operation),
    ],
)
async def test_a_question_that_makes_no_sense_is_not_put(adapter, operation, about, reason):
    assert adapter.can_answer(operation, about) == reason


async def test_without_a_key_nothing_is_asked(hunter):
    async with adapter_of(hunter, key=None) as adapter:
        assert {adapter.can_answer(one, FULL) for one in Operation} == {"no_api_key"}


async def test_its_contract_says_what_is_documented(adapter):
    registered = REGISTERED["hunter"]

    assert registered.contract is CONTRACT
    assert Window(1, 15) in CONTRACT.limits[Operation.FIND_EMAIL]
    assert Window(1, 10) in CONTRACT.limits[VERIFY]
    assert all(adapter.cost_credits(operation) == Decimal(1) for operation in Operation)
    assert registered.prior("person", "email") > registered.prior("person", "title")


async def test_hunter_calls_nobody_back(adapter):
    with pytest.raises(ProviderGarbled):
        adapter.read_callback(VERIFY, FULL, {"data": {}})


@pytest.mark.parametrize("kind", faults.HOSTILE)
async def test_hostile_values_cost_only_their_own_answer(hunter, adapter, kind):
    for operation in Operation:
        hunter.script("*", faults.hostile(kind))
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
        (faults.raw(b"[]"), ProviderGarbled),
        (faults.raw(b'{"data": "x"}'), ProviderGarbled),
        (faults.raw(b'{"data": {"nothing": 1}}'), ProviderGarbled),
        (faults.truncated(), ProviderDown),
        (faults.reset(), ProviderDown),
    ],
)
async def test_a_broken_answer_is_garbled_and_a_broken_line_is_down(hunter, adapter, fault, raised):
    hunter.script("*", fault)

    with pytest.raises(ProviderError) as caught:
        await ask(adapter)

    assert type(caught.value) is raised


@pytest.mark.parametrize("fault", [faults.never(), faults.drip(0.01)])
async def test_who_never_finishes_is_down(hunter, adapter, fault, monkeypatch):
    monkeypatch.setattr(client_module, "CALL_S", 0.2)
    hunter.script("*", fault)

    with pytest.raises(ProviderDown):
        await ask(adapter)


def test_any_json_is_an_answer_or_a_providers_error():
    with asyncio.Runner() as runner:
        server = fake_hunter()
        runner.run(server.__aenter__())
        making = adapter_of(server)
        adapter = runner.run(making.__aenter__())

        @settings(max_examples=150, deadline=None)
        @given(
            body=st.fixed_dictionaries({"data": any_record}) | any_json,
            status=st.sampled_from([200, 200, 200, 202, 222, 403, 404, 451, 500]),
            operation=st.sampled_from(Operation),
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


async def test_a_date_beyond_the_calendar_is_no_date(hunter, adapter):
    for date in ("0001-01-01", "9999-12-31T23:59:59-14:00", "2026-13-01", "x" * 100):
        record = {"name": {"fullName": "Ada Quill"}, "indexedAt": date}
        hunter.script("*", faults.status(200, {"data": record}))
        found = await ask(adapter)
        assert {fact.observed_at for fact in found.facts} == {None}
