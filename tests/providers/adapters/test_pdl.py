"""People Data Labs' answers, over HTTP from a server that keeps to its contract, become facts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrichd.domain.leads import Lead
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
from enrichd.providers.adapters import pdl as pdl_module
from enrichd.providers.adapters.pdl import (
    BULK_MAX,
    CONTRACT,
    MIN_LIKELIHOOD,
    OPERATIONS,
    PeopleDataLabs,
)
from enrichd.providers.base import REGISTERED, Asynchronous, Bulk, Found, Operation
from enrichd.providers.contracts import Standing, Window, WindowSeen
from enrichd.providers.questions import cache_key
from tests.support.providers import faults
from tests.support.providers.asking import (
    ADA,
    ADA_EMAIL,
    adapter_of,
    assert_storable,
    lead,
    values_of,
)
from tests.support.providers.pdl import COMPANIES, COMPANY, PEOPLE, PERSON, FakePdl, error, fake_pdl
from tests.support.providers.windows import Limit

FIND, ENRICH = Operation.FIND_EMAIL, Operation.ENRICH_PERSON
FIRM, SOCIAL = Operation.ENRICH_COMPANY, Operation.FIND_SOCIAL_PROFILES
FULL = lead(ADA_EMAIL, **ADA)
NAMED = lead(**ADA)


@pytest.fixture
async def pdl() -> AsyncIterator[FakePdl]:
    async with fake_pdl() as server:
        yield server


@pytest.fixture
async def adapter(pdl: FakePdl) -> AsyncIterator[PeopleDataLabs]:
    async with adapter_of(pdl) as made:
        yield made


async def ask(adapter: PeopleDataLabs, operation: Operation = ENRICH, about: Lead = FULL) -> Found:
    return await adapter.call(operation, about)


def employees(count: int) -> list[Lead]:
    return [lead(f"worker{number}.lee@northwind.example") for number in range(count)]


def confidences(found: Found) -> set[float]:
    return {fact.confidence for fact in found.facts}


# One question.


async def test_a_person_is_read_whole_with_capital_letters(pdl, adapter):
    found = await ask(adapter)

    person, company = values_of(found.facts), values_of(found.facts, "company")
    assert (person["fullName"], person["firstName"], person["lastName"]) == (
        "Ada Quill",
        "Ada",
        "Quill",
    )
    assert person["email"] == ADA_EMAIL
    assert [(one["address"], one["type"], one["primary"]) for one in person["emails"]] == [
        (ADA_EMAIL, "work", True),
        ("adaquill@elsewhere.example.org", "other", False),
        ("adaquill@mail.example.org", "personal", False),
    ]
    assert person["company.domain"] == company["domain"] == "northwind.example"
    assert person["company.linkedinUrl"] == "https://linkedin.com/company/northwind"
    assert person["employmentHistory"][0]["current"] is True
    assert person["phones"] == [{"number": person["phones"][0]["number"], "type": "mobile"}]
    assert {"location.city", "location.country", "location.lat", "location.lng"} <= set(person)
    assert person["socialProfiles"] == [
        "https://linkedin.com/in/adaquill",
        "https://github.com/adaquill",
    ]
    assert found.cost_credits == pdl.credits_spent == 1


async def test_a_company_is_read_whole_though_its_answer_is_flat(pdl, adapter):
    found = await ask(adapter, FIRM)

    company = values_of(found.facts, "company")
    assert (company["name"], company["domain"]) == ("Northwind", "northwind.example")
    assert company["domainAliases"] == ["getnorthwind.example"]
    assert company["employeeRange"] in (
        "1-10",
        "11-50",
        "51-200",
        "201-500",
        "501-1000",
        "1001-5000",
    )
    assert company["naicsCodes"]
    assert company["sicCodes"]
    assert company["revenueRange"] == "$10M-$25M"
    assert company["socialProfiles"] == ["https://linkedin.com/company/northwind"]
    assert {"description", "industry", "foundedYear", "totalFunding", "type"} <= set(company)
    assert {"location.street", "location.postalCode", "location.lat"} <= set(company)
    assert found.cost_credits == pdl.credits_spent == 1


async def test_the_question_is_a_body_and_the_key_a_header(pdl, adapter):
    await ask(adapter, ENRICH, lead(ADA_EMAIL, **ADA, phone="+15105550100", location="Oakland"))

    question = pdl.questions[-1]
    assert (question.method, question.path, question.params) == ("POST", PERSON, {})
    assert question.headers["X-Api-Key"] == pdl.key
    assert question.body == {
        "first_name": "Ada",
        "last_name": "Quill",
        "email": ADA_EMAIL,
        "phone": "+15105550100",
        "company": "northwind.example",
        "location": "Oakland",
        "min_likelihood": MIN_LIKELIHOOD,
        "titlecase": True,
    }


async def test_a_company_without_a_domain_is_asked_for_by_its_name(pdl, adapter):
    about = lead("ada@gmail.com", companyName="North Wind")
    assert adapter.can_answer(FIRM, about) is None

    assert values_of((await ask(adapter, FIRM, about)).facts, "company")["name"] == "North Wind"
    assert pdl.questions[-1].body["name"] == "North Wind"


@pytest.mark.parametrize(
    ("operation", "required"), [(FIND, "work_email"), (SOCIAL, "profiles"), (ENRICH, None)]
)
async def test_a_match_without_what_is_wanted_is_not_paid(pdl, adapter, operation, required):
    about = lead(firstName="Invalid", lastName="Lee", domain="northwind.example")
    found = await ask(adapter, operation, about)

    assert pdl.questions[-1].body.get("required") == required
    assert found.is_match is (operation is not FIND)
    assert found.cost_credits == pdl.credits_spent == (0 if operation is FIND else 1)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
async def test_nobody_is_a_404_and_costs_nothing(pdl, adapter, operation):
    about = lead("unknown.lee@unknown7.example")

    found = await ask(adapter, operation, about)

    assert not found.is_match
    assert found.cost_credits == pdl.credits_spent == 0


@pytest.mark.parametrize(
    ("likelihood", "confidence"),
    [(8, 0.8), (10, 1.0), (1, 0.1), (None, 0.6), (11, 0.6), (True, 0.6)],
)
async def test_the_likelihood_is_the_confidence(pdl, adapter, likelihood, confidence):
    data = {"full_name": "Ada Quill"}
    body = {"status": 200, "likelihood": likelihood, "data": data}
    pdl.script(PERSON, faults.status(200, body))

    assert confidences(await ask(adapter)) == {confidence}


async def test_what_the_plan_hides_is_no_value():
    hidden = ("work_email", "emails", "mobile_phone", "phone_numbers", "location_name", "job_title")
    async with fake_pdl(hidden=hidden) as pdl, adapter_of(pdl) as adapter:
        found = await ask(adapter, FIND, NAMED)

    person = values_of(found.facts)
    assert not {"email", "phones", "location.raw", "title"} & set(person)
    assert not any(fact.value in (True, False, "True") for fact in found.facts)
    assert [(gap.field, gap.reason) for gap in found.missing] == [("email", "hidden_by_plan")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"work_email": True}, "hidden_by_plan"),
        ({"emails": True}, "hidden_by_plan"),
        ({"work_email": False, "emails": []}, "no_email"),
        ({"emails": [{"address": "ada@mail.example.org", "type": "personal"}]}, "no_email"),
    ],
)
async def test_a_missing_email_says_why(pdl, adapter, data, reason):
    pdl.script(PERSON, faults.status(200, {"status": 200, "likelihood": 8, "data": data}))

    found = await ask(adapter, FIND)
    assert [(gap.field, gap.reason) for gap in found.missing] == [("email", reason)]


async def test_everything_hidden_is_no_trouble(pdl, adapter):
    names = [*values_of((await ask(adapter)).facts)]
    assert names
    fields = dict.fromkeys(
        ["id", "full_name", "emails", "profiles", "experience", "job_title"], True
    )
    pdl.script(PERSON, faults.status(200, {"status": 200, "likelihood": 7, "data": fields}))

    assert set(values_of((await ask(adapter)).facts)) == {"matchConfidence"}


@pytest.mark.parametrize(
    ("spent", "cost"),
    [("1", "1"), ("0", "0"), ("0.5", "0.5"), ("much", "1"), ("-3", "1"), ("NaN", "1")],
)
async def test_a_call_costs_what_its_header_says_or_one(pdl, adapter, spent, cost):
    body = {"status": 200, "likelihood": 8, "data": {"full_name": "Ada Quill"}}
    pdl.script(PERSON, faults.status(200, body, x_call_credits_spent=spent))

    assert (await ask(adapter)).cost_credits == Decimal(cost)


# What goes wrong.


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, ProviderRejected),
        (401, ProviderDenied),
        (402, ProviderExhausted),
        (403, ProviderDenied),
        (405, ProviderRejected),
        (429, ProviderThrottled),
        (500, ProviderDown),
        (503, ProviderDown),
    ],
)
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
async def test_a_status_means_what_pdl_means(pdl, adapter, operation, status, raised):
    body = {"status": status, "error": {"type": "some_error", "message": "Details"}}
    pdl.script("*", faults.status(status, body))

    with pytest.raises(ProviderError) as caught:
        await ask(adapter, operation)

    assert type(caught.value) is raised
    assert pdl.key not in str(caught.value)


@pytest.mark.parametrize("trouble", ["wrong", "revoked"])
async def test_a_key_that_does_not_work_is_denied(pdl, trouble):
    pdl.accounts[pdl.key].is_revoked = trouble == "revoked"
    async with adapter_of(pdl, key="no-such-key" if trouble == "wrong" else "") as adapter:
        with pytest.raises(ProviderDenied):
            await ask(adapter)


@pytest.mark.parametrize("is_python_style", [False, True])
async def test_the_standing_is_json_or_what_python_prints(is_python_style):
    async with (
        fake_pdl(is_python_style=is_python_style, balance=50) as pdl,
        adapter_of(pdl) as adapter,
    ):
        standing = (await ask(adapter)).standing

    assert standing is not None
    (minute,) = standing.windows
    assert (minute.seconds, minute.calls, minute.left) == (60, 1_000, 999)
    assert minute.reset_after_s is not None
    assert 1 <= minute.reset_after_s <= 61
    assert standing.credits_left == 49


@pytest.mark.parametrize(
    ("limit", "seen"),
    [
        ("120", (WindowSeen(60, 120),)),
        ("{'minute': 5, 'day': 100, 'month': None}", (WindowSeen(60, 5), WindowSeen(86_400, 100))),
        ('{"minute": true, "hour": -1, "day": "9", "month": 1e99}', ()),
        ("", ()),
        ("{'minute'", ()),
        ("[1, 2]", ()),
        ("9" * 500, ()),
        ("[" * 900, ()),
    ],
)
async def test_a_limit_that_cannot_be_read_is_none(pdl, adapter, limit, seen):
    body = {"status": 200, "data": {}}
    pdl.script("*", faults.status(200, body, x_ratelimit_limit=limit))

    assert (await ask(adapter)).standing == Standing(seen)


async def test_too_fast_says_when_by_the_servers_own_clock():
    async with fake_pdl(limits={PERSON: [Limit(1, 60)]}) as pdl, adapter_of(pdl) as adapter:
        await ask(adapter)
        with pytest.raises(ProviderThrottled) as caught:
            await ask(adapter)
        company = await ask(adapter, FIRM)

    assert 1 <= caught.value.retry_after_s <= 61
    # Another endpoint has a window of its own.
    assert company.is_match


async def test_a_window_ends_with_the_minute_of_pdls_clock():
    now = 600.0 + 50
    async with (
        fake_pdl(limits={PERSON: [Limit(1, 60)]}, clock=lambda: now) as pdl,
        adapter_of(pdl) as adapter,
    ):
        await ask(adapter)
        with pytest.raises(ProviderThrottled) as caught:
            await ask(adapter)
        now += caught.value.retry_after_s

        assert caught.value.retry_after_s == pytest.approx(10, abs=1)
        assert (await ask(adapter)).is_match


@pytest.mark.parametrize(
    ("reset", "wait_s"),
    [
        ("2026-06-01T12:00:30Z", 30),
        ("2026-06-01T12:00:30+00:00", 30),
        ("2026-06-01T12:00:30", 30),
        ("2026-06-01T11:00:00Z", 1),
        ("9999-12-31T23:59:59Z", 21_600),
        ("1780315230", 60),
        ("soon", 60),
        ("", 60),
    ],
)
async def test_the_wait_is_to_the_reset_within_bounds(pdl, adapter, reset, wait_s):
    headers = {"x-ratelimit-reset": reset, "Date": "Mon, 01 Jun 2026 12:00:00 GMT"}
    pdl.script("*", faults.status(429, error(429, "Slow down").body, **headers))

    with pytest.raises(ProviderThrottled) as caught:
        await ask(adapter)
    assert caught.value.retry_after_s == wait_s


async def test_no_credits_left_is_not_worth_waiting_for():
    async with fake_pdl(balance=1) as pdl, adapter_of(pdl) as adapter:
        await ask(adapter)
        with pytest.raises(ProviderExhausted):
            await ask(adapter)

        assert pdl.credits_spent == 1


@pytest.mark.parametrize(
    ("operation", "about", "reason"),
    [
        (ENRICH, lead(domain="acme.example"), "no_name"),
        (FIND, lead(firstName="Ada", lastName="Quill"), "no_domain"),
        (FIND, lead(fullName="Ada Quill", location="Oakland"), None),
        (FIND, lead(phone="+15105550100"), None),
        (FIND, lead(linkedinUrl="https://linkedin.com/in/adaq"), None),
        (FIRM, lead("ada@gmail.com"), "free_mail_domain"),
        (FIRM, lead(fullName="Ada Quill"), "no_domain"),
        *((operation, FULL, None) for operation in sorted(OPERATIONS)),
    ],
)
async def test_a_question_that_makes_no_sense_is_not_put(adapter, operation, about, reason):
    assert adapter.can_answer(operation, about) == reason


async def test_without_a_key_nothing_is_asked(pdl):
    async with adapter_of(pdl, key=None) as adapter:
        assert {adapter.can_answer(one, FULL) for one in OPERATIONS} == {"no_api_key"}


async def test_its_contract_says_what_is_documented(adapter):
    assert REGISTERED["pdl"].contract is CONTRACT
    assert Operation.VERIFY_EMAIL not in adapter.operations
    assert CONTRACT.limits[Operation.ENRICH_PERSON] == (Window(60, 1_000),)
    assert set(CONTRACT.bulk.values()) == {BULK_MAX}
    assert {adapter.cost_credits(one) for one in OPERATIONS} == {Decimal(1)}
    assert isinstance(adapter, Bulk)
    assert not isinstance(adapter, Asynchronous)


# Several questions.


async def test_a_hundred_people_are_one_call_in_their_order(pdl, adapter):
    about = employees(99)
    about.insert(3, lead("unknown.lee@northwind.example"))

    answers = await adapter.call_many(ENRICH, about)

    emails = [values_of(found.facts).get("email") for found in answers]
    assert emails == [str(one.address) if place != 3 else None for place, one in enumerate(about)]
    assert pdl.calls == {PEOPLE: 1}
    assert sum(found.cost_credits for found in answers) == pdl.credits_spent == 99
    assert answers[3].cost_credits == 0


async def test_answers_in_another_order_go_where_they_belong(pdl, adapter):
    answers = [
        {"status": 200, "data": {"full_name": f"Worker {row}"}, "metadata": {"row": row}}
        for row in (2, 0, 1)
    ]
    pdl.script(PEOPLE, faults.status(200, answers))

    found = await adapter.call_many(ENRICH, employees(3))
    names = [values_of(one.facts)["fullName"] for one in found]
    assert names == ["Worker 0", "Worker 1", "Worker 2"]


async def test_each_question_of_a_bulk_call_ends_in_its_own_way(pdl, adapter):
    statuses = [200, 404, 400, 402, 429, 500]
    answers: list[Any] = [
        {"status": status, "data": {"full_name": "Ada"}, "error": {"message": "x"}}
        for status in statuses
    ]
    answers += [None, {"status": True}, {"status": 200, "data": True}, {"status": 7}]
    answers = [
        {**one, "metadata": {"row": row}} if isinstance(one, dict) else one
        for row, one in enumerate(answers)
    ]
    pdl.script(PEOPLE, faults.status(200, answers))

    found = await adapter.call_many(ENRICH, employees(10))

    assert [type(one) for one in found] == [
        Found,
        Found,
        ProviderRejected,
        ProviderExhausted,
        ProviderThrottled,
        ProviderDown,
        *[ProviderGarbled] * 4,
    ]
    assert [one.is_match for one in found if isinstance(one, Found)] == [True, False]


async def test_credits_that_end_in_the_middle_leave_what_was_answered():
    async with fake_pdl(balance=2) as pdl, adapter_of(pdl) as adapter:
        answers = await adapter.call_many(ENRICH, employees(4))

        assert [type(one) for one in answers] == [Found] * 2 + [ProviderExhausted] * 2
        assert pdl.credits_spent == 2


@pytest.mark.parametrize("body", [{}, None, "x", {"status": 200}])
async def test_a_bulk_answer_that_is_no_list_is_garbled(pdl, adapter, body):
    pdl.script(PEOPLE, faults.raw(json.dumps(body).encode()))

    with pytest.raises(ProviderGarbled):
        await adapter.call_many(ENRICH, employees(2))


@pytest.mark.parametrize("body", [[], [{"status": 200, "data": {"full_name": "Somebody"}}]])
async def test_an_answer_that_could_be_anybodys_is_nobodys(pdl, adapter, body):
    pdl.script(PEOPLE, faults.status(200, body))

    answers = await adapter.call_many(ENRICH, employees(2))
    assert [type(one) for one in answers] == [ProviderGarbled] * 2


async def test_companies_come_in_bulk(pdl, adapter):
    domains = ["a.example", "unknown1.example", "b.example"]
    answers = await adapter.call_many(FIRM, [lead(domain=one) for one in domains])

    named = [values_of(found.facts, "company").get("domain") for found in answers]
    assert named == ["a.example", None, "b.example"]
    assert pdl.calls == {COMPANIES: 1}
    assert sum(found.cost_credits for found in answers) == pdl.credits_spent == 2


async def test_companies_come_one_by_one_where_there_is_no_bulk_for_them():
    domains = ["a.example", "unknown1.example", "b.example"]
    async with fake_pdl(has_company_bulk=False) as pdl, adapter_of(pdl) as adapter:
        answers = await adapter.call_many(FIRM, [lead(domain=one) for one in domains])

        assert [one.is_match for one in answers] == [True, False, True]
        assert pdl.calls == {COMPANIES: 1, COMPANY: 3}
        assert sum(found.cost_credits for found in answers) == pdl.credits_spent == 2


async def test_one_by_one_stops_where_all_would_fail():
    about = [lead(domain=f"{name}.example") for name in "abcd"]
    async with (
        fake_pdl(has_company_bulk=False, balance=1) as pdl,
        adapter_of(pdl) as adapter,
    ):
        answers = await adapter.call_many(FIRM, about)

        assert [type(one) for one in answers] == [Found] + [ProviderExhausted] * 3
        assert pdl.calls[COMPANY] == 2


async def test_one_by_one_ends_in_time_and_keeps_what_was_paid(monkeypatch):
    monkeypatch.setattr(pdl_module, "ONE_BY_ONE_S", -1.0)
    async with fake_pdl(has_company_bulk=False) as pdl, adapter_of(pdl) as adapter:
        answers = await adapter.call_many(FIRM, [lead(domain="a.example")] * 2)

        assert [type(one) for one in answers] == [ProviderThrottled] * 2
        assert pdl.credits_spent == 0


async def test_two_leads_share_an_answer_if_what_is_sent_of_them_is_the_same(adapter):
    def key(operation: Operation, about: Lead) -> bytes:
        return cache_key(adapter, "pdl", operation, about)

    assert key(FIND, lead(ADA_EMAIL, title="CEO")) == key(FIND, lead(ADA_EMAIL))
    assert key(FIND, lead(ADA_EMAIL)) != key(FIND, lead("bela@northwind.example"))
    assert key(FIND, NAMED) != key(FIND, FULL)
    assert key(FIRM, FULL) == key(FIRM, lead(domain="northwind.example"))


async def test_a_bulk_call_that_fails_is_every_questions_failure(pdl, adapter):
    pdl.script("*", faults.status(402, error(402, "No more").body))

    with pytest.raises(ProviderExhausted):
        await adapter.call_many(ENRICH, employees(2))


async def test_a_bulk_path_that_is_not_there_is_nobodys_absence(pdl, adapter):
    pdl.script(PEOPLE, faults.status(404, error(404, "No such URL").body))

    with pytest.raises(ProviderRejected):
        await adapter.call_many(ENRICH, employees(2))


# What nobody should send.


@pytest.mark.parametrize("kind", faults.HOSTILE)
async def test_hostile_values_cost_only_their_own_answer(pdl, adapter, kind):
    async def asked(operation: Operation, is_bulk: bool) -> Sequence[Found | ProviderError]:
        pdl.script("*", faults.hostile(kind))
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
async def test_one_hostile_name_does_not_spoil_the_others(pdl, adapter, kind):
    def answer(row: int, name: bytes) -> bytes:
        data = b'{"job_title": "Pilot", "full_name": ' + name + b"}"
        return b'{"status": 200, "data": %b, "metadata": {"row": %d}}' % (data, row)

    body = b"[" + answer(0, b'"Bela Okafor"') + b"," + answer(1, faults.HOSTILE[kind]) + b"]"
    pdl.script(PEOPLE, faults.raw(body))

    first, second = await adapter.call_many(ENRICH, employees(2))

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
        (faults.raw(b'{"status": 200, "data": "x"}'), ProviderGarbled),
        (faults.truncated(), ProviderDown),
        (faults.reset(), ProviderDown),
    ],
)
async def test_a_broken_answer_is_garbled_and_a_broken_line_is_down(pdl, adapter, fault, raised):
    pdl.script("*", fault)

    with pytest.raises(ProviderError) as caught:
        await ask(adapter)

    assert type(caught.value) is raised


@pytest.mark.parametrize("fault", [faults.never(), faults.drip(0.01)])
async def test_who_never_finishes_is_down(pdl, adapter, fault, monkeypatch):
    monkeypatch.setattr(client_module, "CALL_S", 0.2)
    pdl.script("*", fault)

    with pytest.raises(ProviderDown):
        await ask(adapter)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KNOWN = st.sampled_from(
    [
        *("status", "likelihood", "data", "error", "metadata", "row", "id", "full_name", "emails"),
        *("address", "type", "work_email", "personal_emails", "mobile_phone", "phone_numbers"),
        *(
            "job_title_levels",
            "experience",
            "company",
            "title",
            "name",
            "website",
            "profiles",
            "url",
        ),
        *(
            "location_geo",
            "location",
            "geo",
            "naics",
            "naics_code",
            "tags",
            "employee_count",
            "size",
        ),
        *("alternative_domains", "founded", "total_funding_raised", "linkedin_url"),
    ]
)
RECORDS = st.recursive(JSON, lambda inner: st.dictionaries(KNOWN, inner, max_size=8), max_leaves=12)
ITEMS = st.fixed_dictionaries({"status": st.sampled_from([200, 404, 500]), "data": RECORDS})


def test_any_json_is_an_answer_or_a_providers_error():
    with asyncio.Runner() as runner:
        server = fake_pdl()
        runner.run(server.__aenter__())
        making = adapter_of(server)
        adapter = runner.run(making.__aenter__())

        async def asked(operation: Operation, is_bulk: bool) -> list[Any]:
            if is_bulk:
                return list(await adapter.call_many(operation, [FULL, NAMED]))
            return [await ask(adapter, operation)]

        @settings(max_examples=150, deadline=None)
        @given(
            body=ITEMS | st.lists(ITEMS | RECORDS, max_size=3) | RECORDS,
            status=st.sampled_from([200, 200, 200, 402, 404, 405, 429, 500]),
            operation=st.sampled_from(sorted(OPERATIONS)),
            is_bulk=st.booleans(),
        )
        def check(body: Any, status: int, operation: Operation, is_bulk: bool) -> None:
            server.always("*", faults.status(status, faults.dumped(body)))
            try:
                answers = runner.run(asked(operation, is_bulk))
            except ProviderError:
                return
            for answer in answers:
                assert isinstance(answer, Found | ProviderError)
                if isinstance(answer, Found):
                    assert_storable(answer.facts)
                    assert answer.cost_credits >= 0

        try:
            check()
        finally:
            runner.run(making.__aexit__(None, None, None))
            runner.run(server.__aexit__(None, None, None))
