"""Kept answers: which questions are the same, what is kept of an answer, how long, and where."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar
from uuid import uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrichd.domain.email_verdicts import (
    EmailVerification,
    MailHosts,
    MxRecord,
    SmtpCheck,
    SmtpClass,
    Verdict,
)
from enrichd.domain.emails import Address, parse_address
from enrichd.domain.facts import Fact, Missing
from enrichd.domain.leads import Lead, lead_from
from enrichd.domain.payloads import LeadInput
from enrichd.errors import PersonSuppressed, ProviderDown
from enrichd.providers.answer_json import addresses_in, from_text, to_text
from enrichd.providers.answers import Answers, Lease
from enrichd.providers.base import Found, Operation, Pending
from enrichd.providers.call_ends import TEXT_BYTES_MAX, CallEnd, end_of
from enrichd.providers.questions import INPUTS, Question, cache_key
from enrichd.store.database import Database

DAY_S = 86_400.0
ADA = parse_address("Ada@bücher.example")
assert isinstance(ADA, Address)

# The same question


def key(operation: Operation = Operation.ENRICH_PERSON, provider: str = "hunter", **data: Any):
    return cache_key(object(), provider, operation, lead_from(LeadInput(**data)))


@pytest.mark.parametrize(
    ("operation", "one", "other"),
    [
        ("enrichPerson", {"email": "a.quill+x@gmail.com"}, {"email": "AQuill@googlemail.com"}),
        ("enrichPerson", {"full_name": "ADA  Quill"}, {"first_name": "ada", "last_name": "Quill"}),
        ("enrichPerson", {"first_name": "Ａｄａ"}, {"first_name": "Ada"}),
        (
            "findEmail",
            {"linkedin_url": "https://www.linkedin.com/in/AdaQ/?x=1"},
            {"linkedin_url": "linkedin.com/in/adaq"},
        ),
        ("enrichCompany", {"domain": "https://www.acme.test/about"}, {"domain": "ACME.test"}),
        ("enrichCompany", {"domain": "shop.acme.co.uk"}, {"domain": "acme.co.uk"}),
        (
            "enrichCompany",
            {"domain": "acme.com", "full_name": "Ada", "company_name": "Acme"},
            {"email": "bob@acme.com"},
        ),
        (
            "verifyEmail",
            {"email": "ada@acme.com", "full_name": "Ada"},
            {"email": "ada@ACME.com", "domain": "other.test"},
        ),
    ],
)
def test_one_question_in_two_spellings_is_one(operation, one, other):
    assert key(Operation(operation), **one) == key(Operation(operation), **other)


def test_whatever_may_be_sent_makes_another_question():
    data = {"email": "ada@acme.com", "full_name": "Ada Quill", "company_name": "Acme"}
    keys = [
        key(**data),
        key(**{**data, "email": "bob@acme.com"}),
        key(**{**data, "full_name": "Ada Quilt"}),
        key(**{**data, "company_name": "Acme Inc"}),
        key(**{**data, "phone": "+1 555 0100"}),
        key(Operation.FIND_SOCIAL_PROFILES, **data),
        key(provider="apollo", **data),
        key(Operation.VERIFY_EMAIL, email="ada.q@gmail.com"),
        key(Operation.VERIFY_EMAIL, email="adaq@gmail.com"),
        # The parts of one lead must not be taken for those of another.
        key(first_name="ada quill"),
        key(last_name="ada quill"),
        key(company_name="ada quill"),
    ]

    assert len(set(keys)) == len(keys)
    assert {len(one) for one in keys} == {32}


def test_an_adapter_that_says_what_it_sends_lets_more_leads_share():
    class Sparing:
        inputs: ClassVar = {Operation.ENRICH_PERSON: ("email",)}

    class NextVersion(Sparing):
        parameters_version = 2

    ada = lead_from(LeadInput(email="ada@acme.com", title="CTO"))
    same = lead_from(LeadInput(email="ada@acme.com", phone="+1"))

    def sparing(adapter: object, lead: Lead) -> bytes:
        return cache_key(adapter, "x", Operation.ENRICH_PERSON, lead)

    assert sparing(Sparing(), ada) == sparing(Sparing(), same)
    assert sparing(object(), ada) != sparing(object(), same)
    assert sparing(Sparing(), ada) != sparing(NextVersion(), ada)


def test_leads_of_which_no_known_part_is_sent_share_nothing():
    one, other = lead_from(LeadInput(title="CTO")), lead_from(LeadInput(title="CEO"))

    assert cache_key(object(), "x", Operation.ENRICH_COMPANY, one) != cache_key(
        object(), "x", Operation.ENRICH_COMPANY, other
    )


def test_every_operation_says_what_it_goes_by():
    assert set(INPUTS) == set(Operation)


# What is kept

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text("ab"), inside, max_size=3)
    ),
    max_leaves=8,
)
WORDS = st.text('abcé ☃\\"{},', max_size=8)
MAYBE = st.none() | WORDS
VERIFICATIONS = st.builds(
    EmailVerification,
    text=WORDS,
    address=st.none() | st.just(ADA),
    verdict=st.sampled_from(Verdict),
    reasons=st.lists(WORDS, max_size=3).map(tuple),
    checked_at=WORDS,
    expires_at=WORDS,
    mx=st.builds(
        MailHosts,
        found=st.none() | st.booleans(),
        reason=MAYBE,
        records=st.lists(st.builds(MxRecord, WORDS, st.integers(0, 65535)), max_size=2).map(tuple),
        null_mx=st.booleans(),
        fallback=st.sampled_from([None, "a", "aaaa"]),
    ),
    smtp=st.none()
    | st.builds(
        SmtpCheck,
        kind=st.sampled_from(SmtpClass),
        checked=st.booleans(),
        connected=st.booleans(),
        code=st.none() | st.integers(200, 599),
        enhanced_code=MAYBE,
        is_catch_all=st.none() | st.booleans(),
    ),
    checked_by=st.lists(WORDS, max_size=2).map(tuple),
    decided_by=MAYBE,
    scores=st.dictionaries(WORDS, st.integers(0, 100), max_size=2),
)
ENTITIES = st.sampled_from(["person", "company"])
ANSWERS = st.builds(
    Found,
    facts=st.lists(
        st.builds(Fact, ENTITIES, WORDS, VALUES, st.floats(0, 1), WORDS, MAYBE, MAYBE), max_size=3
    ).map(tuple),
    missing=st.lists(st.builds(Missing, ENTITIES, WORDS, WORDS), max_size=2).map(tuple),
    verification=st.none() | VERIFICATIONS,
    request_id=st.none() | st.just("-9007199254740993123"),
)


def typed(value: Any) -> Any:
    """Return a value with its types: 1 and 1.0 and True are not the same."""
    if isinstance(value, dict):
        return {name: typed(part) for name, part in value.items()}
    return list(map(typed, value)) if isinstance(value, list) else (type(value), repr(value))


@given(answer=ANSWERS)
def test_an_answer_comes_back_as_it_was(answer):
    back = from_text(to_text(answer), fetched_at="2026-11-24T00:00:00Z")

    assert back == replace(answer, fetched_at="2026-11-24T00:00:00Z", cached=True)
    assert typed([fact.value for fact in back.facts]) == typed([f.value for f in answer.facts])


def test_hostile_data_is_mended_on_its_way_and_reads_back():
    hostile = [float("nan"), "\0x", "\ud800", 10**5000, "<b>", "\x1b[31m"]
    answer = Found(facts=(Fact("person", "title", hostile, 0.5, "api"),))

    back = from_text(to_text(answer), fetched_at=None)

    assert back.facts[0].value == [None, "x", "\ufffd", "(integer too large)", "<b>", "\x1b[31m"]


def test_addresses_are_found_wherever_they_stand_in_an_answer():
    answer = Found(
        facts=(
            Fact("person", "email", "ada@acme.com", 0.9, "api"),
            Fact("person", "emails", [{"address": "Ada.Q@mail.com", "n": 1}], 0.9, "api"),
            Fact("company", "description", "write to @acme or not", 0.9, "api"),
        ),
        verification=a_verification(Verdict.VALID),
    )

    assert addresses_in(answer) == ["Ada@bücher.example", "ada@acme.com", "Ada.Q@mail.com"]
    many = [f"a{number}@acme.com" for number in range(500)]
    assert len(addresses_in(Found(facts=(Fact("company", "emails", many, 1.0, "api"),)))) <= 200


# How long


def a_verification(verdict: Verdict) -> EmailVerification:
    return EmailVerification(
        text="ada", address=ADA, verdict=verdict, reasons=(), checked_at="", expires_at=""
    )


FACT = (Fact("person", "title", "CTO", 0.9, "api"),)


@pytest.mark.parametrize(
    ("operation", "answer", "outcome", "keep_s"),
    [
        ("enrichPerson", Found(facts=FACT), "found", 30 * DAY_S),
        ("enrichCompany", Found(facts=FACT), "found", 30 * DAY_S),
        ("findEmail", Found(), "noMatch", 7 * DAY_S),
        ("verifyEmail", Found(verification=a_verification(Verdict.VALID)), "found", 7 * DAY_S),
        ("verifyEmail", Found(verification=a_verification(Verdict.INVALID)), "found", 7 * DAY_S),
        ("verifyEmail", Found(verification=a_verification(Verdict.RISKY)), "found", 7 * DAY_S),
        ("verifyEmail", Found(verification=a_verification(Verdict.UNKNOWN)), "found", 900.0),
        ("enrichPerson", PersonSuppressed("x", provider="x"), "suppressed", None),
        ("enrichPerson", Pending("7", deadline_s=60.0), "pending", 60.0),
    ],
)
def test_each_kind_of_answer_is_kept_its_time(operation, answer, outcome, keep_s):
    end = end_of(answer, Operation(operation))

    assert (end.outcome, end.keep_s, end.answer is not None) == (outcome, keep_s, True)


def test_an_answer_above_the_bound_is_not_kept():
    long = Fact("person", "bio", "é" * (TEXT_BYTES_MAX // 2), 0.9, "api")

    end = end_of(Found(facts=(long,), cost_credits=Decimal(2)), Operation.ENRICH_PERSON)

    assert (end.outcome, end.answer, end.cost) == ("found", None, 2)


def test_a_request_that_was_sent_and_never_answered_may_have_been_paid():
    def down(cause: BaseException | None) -> Decimal | None:
        error = ProviderDown("x", provider="x")
        error.__cause__ = cause
        return end_of(error, Operation.ENRICH_PERSON).cost

    assert down(None) == 0, "a 5xx"
    assert down(httpx.ConnectError("refused")) == 0
    assert down(httpx.ReadTimeout("late")) is None
    assert down(TimeoutError()) is None
    assert down(httpx.RemoteProtocolError("hung up")) is None


# Memory


def a_question(number: int = 1, **fields: Any) -> Question:
    return Question(
        **{
            "workspace_id": "acme",
            "job_id": uuid4(),
            "buyer": uuid4(),
            "provider_id": "hunter",
            "operation": Operation.ENRICH_PERSON,
            "key": number.to_bytes(32, "big"),
            "credits": Decimal(1),
            "job_cap": None,
            **fields,
        }
    )


async def keep(answers: Answers, question: Question, text: str = "CTO") -> None:
    lease = await answers.claim(question)
    assert isinstance(lease, Lease)
    fact = Fact("person", "title", [text], 0.9, "api")
    await answers.end_all([(lease, end_of(Found(facts=(fact,)), question.operation))])


async def test_what_is_remembered_is_nobodys_to_change(database):
    answers = Answers(database)
    await keep(answers, a_question())

    first = await answers.claim(a_question())
    assert isinstance(first, Found)
    first.facts[0].value.append("changed")
    second = await answers.claim(a_question())

    assert isinstance(second, Found)
    assert second.facts[0].value == ["CTO"]
    assert answers.begins.items == 1, "one look into the database, then memory"
    await answers.aclose()


async def test_memory_is_bounded_and_gives_up_the_longest_unused(database):
    answers = Answers(database, memory_bytes_max=4_000)
    for number in range(3):
        await keep(answers, a_question(number), "x" * 1_000)
    await answers.claim(a_question(0))
    await keep(answers, a_question(3), "x" * 1_000)
    seen = answers.begins.items

    await answers.claim(a_question(0))
    assert answers.begins.items == seen
    await answers.claim(a_question(1))
    assert answers.begins.items == seen + 1
    await answers.aclose()


async def test_memory_is_short(database):
    answers = Answers(database, memory_s=0.0)
    await keep(answers, a_question())

    assert isinstance(await answers.claim(a_question()), Found)
    assert answers.begins.items == 2
    await answers.aclose()


async def test_a_kept_answer_that_nobody_can_read_is_asked_for_again(database):
    answers = Answers(database, memory_s=0.0)
    await keep(answers, a_question())
    async with database.connection() as conn:
        await conn.execute("update enrichment_provider_cache set answer = '{\"facts\": [1]}'")

    lease = await answers.claim(a_question())

    assert isinstance(lease, Lease)
    await answers.end_all([(lease, CallEnd("free"))])
    await answers.aclose()


# Statements


async def test_what_comes_together_goes_together(database_url):
    database = Database(database_url)
    answers = Answers(database)

    async def call(number: int) -> None:
        lease = await answers.claim(a_question(number))
        assert isinstance(lease, Lease)
        await answers.end_all([(lease, end_of(Found(facts=FACT), Operation.ENRICH_PERSON))])

    await asyncio.gather(*map(call, range(50)))

    assert (answers.begins.items, answers.ends.items) == (50, 50)
    assert answers.begins.statements + answers.ends.statements <= 8
    await answers.aclose()
    await database.close()


async def test_a_question_that_the_database_refuses_fails_alone(database):
    answers = Answers(database)
    questions = [a_question(number) for number in range(5)]
    questions[2] = a_question(2, workspace_id="nul\0")

    claimed = await asyncio.gather(*map(answers.claim, questions), return_exceptions=True)

    assert [isinstance(one, Lease) for one in claimed] == [True, True, False, True, True]
    for one in claimed:
        if isinstance(one, Lease):
            answers.end_soon(one, CallEnd("free"))
    await answers.aclose()
