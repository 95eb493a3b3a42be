"""When enough has been found, and what is said to be missing."""

from __future__ import annotations

from typing import Any

import pytest

from enrichd.domain.email_verdicts import (
    EmailVerification,
    MailHosts,
    SmtpCheck,
    SmtpClass,
    Verdict,
)
from enrichd.domain.emails import Address
from enrichd.domain.lead_results import is_enough, missing_fields
from enrichd.domain.merging import Record
from enrichd.domain.payloads import EnrichmentType, StopRule
from enrichd.domain.payloads import Verdict as WantedVerdict

EMAIL, PERSON, SOCIAL = EnrichmentType.EMAIL, EnrichmentType.PERSON, EnrichmentType.SOCIAL


def record(confidence: float = 0.9, **values: Any) -> Record:
    provenance = {path: {"confidence": confidence, "provider": "acme"} for path in values}
    return Record(values, provenance)


def verdict(
    said: Verdict, *, found: bool | None = True, catch_all: bool = False
) -> EmailVerification:
    return EmailVerification(
        text="ada@acme.com",
        address=Address("ada", "acme.com", "acme.com"),
        verdict=said,
        reasons=(),
        checked_at="",
        expires_at="",
        mx=MailHosts(found=found),
        smtp=SmtpCheck(SmtpClass.OK, is_catch_all=True) if catch_all else None,
    )


def enough(*types: EnrichmentType, rule: StopRule | None = None, **known: Any) -> bool:
    answer: dict[str, Any] = {"person": None, "company": None, "verification": None}
    return is_enough(types, rule, **{**answer, "expect_valid": False, **known})


def test_without_a_rule_each_type_has_its_own_least():
    named = record(fullName="Ada Quill", title="CTO")

    assert enough(PERSON, person=named)
    assert not enough(PERSON, person=record(fullName="Ada Quill"))
    assert not enough(PERSON, person=record(0.3, fullName="Ada Quill", title="CTO"))
    assert enough(SOCIAL, company=record(socialProfiles=[{"url": "x"}]))


@pytest.mark.parametrize(
    ("verification", "expect_valid", "holds"),
    [
        (verdict(Verdict.VALID), True, True),
        (verdict(Verdict.UNKNOWN), True, False),
        (verdict(Verdict.UNKNOWN), False, True),
        (verdict(Verdict.RISKY), False, True),
        (verdict(Verdict.UNKNOWN, found=None), False, False),
        (verdict(Verdict.INVALID), False, False),
        (None, False, False),
    ],
)
def test_an_email_must_be_as_sure_as_the_order_can_make_it(verification, expect_valid, holds):
    known = {"person": record(email="ada@acme.com"), "verification": verification}

    assert enough(EMAIL, expect_valid=expect_valid, **known) is holds


def test_a_rule_says_which_fields_and_how_sure():
    rule = StopRule(required_fields=("company.name", "person.title", "email"), min_confidence=0.8)
    person = record(title="CTO", email="ada@acme.com")

    assert enough(PERSON, rule=rule, person=person, company=record(name="Acme"))
    assert not enough(PERSON, rule=rule, person=person, company=record(0.7, name="Acme"))
    assert not enough(PERSON, rule=rule, person=person)


def test_a_rule_says_which_verdicts_and_whether_a_catch_all_counts():
    known = {
        "person": record(email="a@b.co"),
        "verification": verdict(Verdict.RISKY, catch_all=True),
    }

    assert enough(EMAIL, rule=StopRule(email_verdicts=(WantedVerdict.RISKY,)), **known)
    assert not enough(EMAIL, rule=StopRule(email_verdicts=(WantedVerdict.VALID,)), **known)
    assert not enough(EMAIL, rule=StopRule(accept_catch_all=False), **known)
    assert enough(EMAIL, rule=StopRule(), **known)


def test_a_refuted_value_is_not_there():
    assert not enough(EMAIL, rule=StopRule(), person=record(0.0, email="ada@acme.com"))


def test_each_empty_field_has_the_most_telling_reason():
    gaps = missing_fields(
        (PERSON,),
        person=record(title="CTO"),
        company=None,
        reasons={("person", "phones"): "not_on_site", ("person", "*"): "rate_limited"},
    )

    assert [(gap.field, gap.reason) for gap in gaps] == [
        ("fullName", "rate_limited"),
        ("location", "rate_limited"),
        ("phones", "not_on_site"),
    ]
