"""Which of several emails stands, what its verdict is, and when another is looked for."""

from __future__ import annotations

from decimal import Decimal

import pytest

from enrichd.domain.email_verdicts import EmailVerification
from enrichd.domain.email_verdicts import Verdict as Said
from enrichd.domain.emails import Address, parse_address
from enrichd.domain.facts import Fact
from enrichd.domain.payloads import StopRule, Verdict
from enrichd.providers.base import Found, Operation
from enrichd.providers.checked_emails import checked_email
from tests.providers.test_waterfall import EMAIL, PERSON, email, search, title, tried
from tests.support.contexts import ScriptedProvider

ADA = {"first_name": "Ada", "last_name": "Quill", "domain": "acme.com"}
VALID = StopRule(email_verdicts=(Verdict.VALID,))


def said(address: str, verdict: str, *, is_catch_all: bool | None = None) -> EmailVerification:
    parsed = parse_address(address)
    assert isinstance(parsed, Address)
    checks = {"accept_all": is_catch_all}
    return checked_email(parsed, Said(verdict), "said", checked_by="test", checks=checks)


def found(address: str, verdict: str, *more: Fact, confidence: float = 0.9, **how: bool) -> Found:
    checked = said(address, verdict, **how)
    return Found((email(address, confidence), *more), verification=checked, cost_credits=Decimal(1))


def finder(name: str, answer: Found) -> ScriptedProvider:
    return ScriptedProvider(name, {Operation.FIND_EMAIL: answer})


@pytest.mark.parametrize("rule", [VALID, StopRule(accept_catch_all=False)])
async def test_an_email_that_the_rule_does_not_accept_is_no_reason_to_stop(rule):
    first = finder("first", found("a@acme.com", "risky", confidence=0.97, is_catch_all=True))
    second = finder("second", found("ada.quill@acme.com", "valid", confidence=0.6))

    result = await search(first, second, data=ADA, types=(EMAIL,), stop_rule=rule)

    assert tried(result) == [("first", "answered", None), ("second", "answered", None)]
    assert result.outcome == "complete"
    assert result.person is not None
    assert result.person.value_at("email") == "ada.quill@acme.com"
    assert result.verification is not None
    assert result.verification.verdict == "valid"


async def test_without_a_rule_a_domain_that_takes_everything_is_not_asked_about_twice():
    first = finder("first", found("ada@acme.com", "risky", is_catch_all=True))
    second = finder("second", found("ada.quill@acme.com", "valid"))
    checks = {Operation.VERIFY_EMAIL: Found()}

    result = await search(
        first, second, ScriptedProvider("third", checks), data=ADA, types=(EMAIL,)
    )

    assert second.asked == []
    assert result.outcome == "partial"


async def test_an_email_that_nobody_is_sure_of_is_checked_before_another_is_bought():
    first = finder("first", found("ada@acme.com", "unknown"))
    second = ScriptedProvider(
        "second",
        {
            Operation.FIND_EMAIL: found("other@acme.com", "valid"),
            Operation.VERIFY_EMAIL: Found(verification=said("ada@acme.com", "valid")),
        },
    )

    result = await search(first, second, data=ADA, types=(EMAIL,), stop_rule=VALID)

    assert [operation for operation, _ in second.asked] == [Operation.VERIFY_EMAIL]
    assert result.outcome == "complete"


async def test_the_callers_own_email_is_judged_and_never_replaced_by_a_better_one():
    judge = ScriptedProvider(
        "judge",
        {
            Operation.FIND_EMAIL: found("ada.quill@acme.com", "valid"),
            Operation.VERIFY_EMAIL: Found(verification=said("ada@acme.com", "risky")),
        },
    )

    result = await search(
        judge, data={**ADA, "email": "ada@acme.com"}, types=(EMAIL,), stop_rule=VALID
    )

    assert [operation for operation, _ in judge.asked] == [Operation.VERIFY_EMAIL]
    assert result.outcome == "partial"


async def test_the_verdict_is_about_the_email_that_stands():
    first = finder("first", found("ada@acme.com", "risky", confidence=0.9))
    second = ScriptedProvider(
        "second",
        {Operation.ENRICH_PERSON: found("quill@acme.com", "unknown", title("CTO"), confidence=0.6)},
    )

    result = await search(first, second, data=ADA, types=(EMAIL, PERSON))

    assert result.person is not None
    assert result.person.value_at("email") == "ada@acme.com"
    assert result.verification is not None
    assert (str(result.verification.address), result.verification.verdict) == (
        "ada@acme.com",
        "risky",
    )


async def test_where_every_guess_is_taken_only_one_is_paid_for():
    checker = ScriptedProvider(
        "checker",
        {
            Operation.VERIFY_EMAIL: Found(
                verification=said("ada.quill@acme.com", "risky", is_catch_all=True)
            )
        },
    )

    await search(checker, data=ADA, types=(EMAIL,), infer_email=True)

    assert len(checker.asked) == 1


async def test_a_guess_is_checked_by_the_first_who_can():
    keyless = ScriptedProvider("keyless", {Operation.VERIFY_EMAIL: Found()}, refusal="no_api_key")
    checker = ScriptedProvider(
        "checker",
        {Operation.VERIFY_EMAIL: Found(verification=said("ada.quill@acme.com", "valid"))},
    )

    result = await search(keyless, checker, data=ADA, types=(EMAIL,), infer_email=True)

    assert tried(result)[:2] == [
        ("keyless", "skipped", "no_api_key"),
        ("checker", "answered", None),
    ]
    assert result.outcome == "complete"


async def test_a_provider_s_own_score_stays_with_its_name_whoever_decides():
    """One finds it and says risky with a number, the other checks it and is sure."""
    address = parse_address("ada@acme.com")
    assert isinstance(address, Address)

    def scored(name: str, verdict: str, score: int | None) -> EmailVerification:
        return checked_email(address, Said(verdict), "said", checked_by=name, score=score)

    first = finder(
        "first", Found((email("ada@acme.com", 0.9),), verification=scored("first", "unknown", 41))
    )
    checks = {Operation.VERIFY_EMAIL: Found(verification=scored("second", "valid", 88))}

    result = await search(
        first, ScriptedProvider("second", checks), data=ADA, types=(EMAIL,), stop_rule=VALID
    )

    assert result.verification is not None
    told = result.verification.to_json()
    assert (told["verdict"], told["score"], told["decidedBy"]) == ("valid", 88, "second")
    assert told["scores"] == {"first": 41, "second": 88}
    assert set(told["checkedBy"]) >= {"first", "second"}
