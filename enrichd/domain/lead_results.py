"""A lead's answer: what was wanted, whether it is enough, what is missing, what was tried."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

from enrichd.domain.email_verdicts import EmailVerification
from enrichd.domain.facts import Entity, Json, Missing
from enrichd.domain.merging import Record, amount
from enrichd.domain.payloads import EnrichmentType, StopRule

Wanted: TypeAlias = tuple[Entity, str]
"""An entity and a field path."""

WANTED: Mapping[EnrichmentType, tuple[Wanted, ...]] = {
    EnrichmentType.EMAIL: (("person", "email"),),
    EnrichmentType.PERSON: (
        ("person", "fullName"),
        ("person", "title"),
        ("person", "location"),
        ("person", "phones"),
    ),
    EnrichmentType.COMPANY: (
        ("company", "name"),
        ("company", "domain"),
        ("company", "description"),
        ("company", "industry"),
        ("company", "employeeCount"),
        ("company", "foundedYear"),
        ("company", "location"),
        ("company", "phones"),
        ("company", "logoUrl"),
    ),
    EnrichmentType.SOCIAL: (("person", "socialProfiles"), ("company", "socialProfiles")),
}
"""The fields that a type is about; each that stays empty is named under `missing`."""

ENOUGH: Mapping[EnrichmentType, tuple[tuple[Wanted, ...], ...]] = {
    EnrichmentType.EMAIL: ((("person", "email"),),),
    EnrichmentType.PERSON: ((("person", "fullName"),), (("person", "title"),)),
    EnrichmentType.COMPANY: ((("company", "name"),), (("company", "description"),)),
    EnrichmentType.SOCIAL: ((("person", "socialProfiles"), ("company", "socialProfiles")),),
}
"""Without a stop rule: what makes a type complete, any one field of each inner group."""
ENOUGH_CONFIDENCE = 0.5
"""Without a stop rule: a guessed email (0.3) does not end the search."""


class LeadOutcome(StrEnum):
    """How much of what was wanted is there."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    NOT_FOUND = "notFound"
    SUPPRESSED = "suppressed"
    """The person does not want to be found: nothing is kept, nobody else is asked."""


@dataclass(frozen=True, slots=True)
class Call:
    """One source and one question, asked or skipped."""

    provider: str
    operation: str | None
    outcome: str
    """answered, noMatch, skipped, pending, down, throttled, denied, exhausted, rejected,
    suppressed, garbled."""
    skip_reason: str | None = None
    cost_credits: Decimal = Decimal(0)
    is_cached: bool = False
    """Whether the answer was there already, from an earlier question."""

    def to_json(self) -> dict[str, Json]:
        """Return one entry of a result's `providers`."""
        return {
            "provider": self.provider,
            "operation": str(self.operation) if self.operation else None,
            "outcome": self.outcome,
            "skipReason": self.skip_reason,
            "costCredits": amount(self.cost_credits),
            "cached": self.is_cached,
        }


@dataclass(frozen=True, slots=True)
class Awaited:
    """There is no result yet: a provider's answer is still to come."""

    provider: str
    deadline_s: float


@dataclass(frozen=True, slots=True)
class LeadResult:
    """The merged records of a lead, what is missing and why, and everything that was tried."""

    lead_id: str
    outcome: LeadOutcome
    person: Record | None = None
    company: Record | None = None
    verification: EmailVerification | None = None
    missing: Sequence[Missing] = ()
    calls: Sequence[Call] = ()

    @property
    def cost_credits(self) -> Decimal:
        """The sum of what all calls cost."""
        return sum((call.cost_credits for call in self.calls), Decimal(0))

    def to_json(self) -> dict[str, Json]:
        """Return the shape that a job's result and a batch's item keep; all keys always there."""
        asked = [call.provider for call in self.calls if call.outcome != "skipped"]
        return {
            "leadId": self.lead_id,
            "outcome": str(self.outcome),
            "person": self.person.to_json() if self.person else None,
            "company": self.company.to_json() if self.company else None,
            "emailVerification": self.verification.to_json() if self.verification else None,
            "missing": [
                {"entity": gap.entity, "field": gap.field, "reason": gap.reason}
                for gap in self.missing
            ],
            "providers": [call.to_json() for call in self.calls],
            "providersTried": list(dict.fromkeys(asked)),
            "costCredits": amount(self.cost_credits),
        }


def is_enough(
    types: Collection[EnrichmentType],
    rule: StopRule | None,
    *,
    person: Record | None,
    company: Record | None,
    verification: EmailVerification | None,
    expect_valid: bool,
) -> bool:
    """Return whether the search may stop.

    Without a rule, each type's own fields must be there, and an email that was asked for must not
    be known as bad: `valid` if a source in the order can say that (`expect_valid`), else DNS must
    at least have said that its domain takes mail.
    """
    records: dict[Entity, Record | None] = {"person": person, "company": company}
    least = ENOUGH_CONFIDENCE if rule is None else rule.min_confidence
    for group in required(types, rule):
        if not any(has(records[entity], path, least) for entity, path in group):
            return False
    if not cares_for_verdict(types, rule):
        return True
    return is_email_accepted(rule, verification, expect_valid=expect_valid)


def cares_for_verdict(types: Collection[EnrichmentType], rule: StopRule | None) -> bool:
    """Return whether the caller cares how sure the email is."""
    if EnrichmentType.EMAIL in types:
        return True
    return rule is not None and (bool(rule.email_verdicts) or not rule.accept_catch_all)


def is_email_accepted(
    rule: StopRule | None, verification: EmailVerification | None, *, expect_valid: bool
) -> bool:
    """Return whether an email with that verdict may end the search; see `is_enough`."""
    if rule is not None:
        return _accepts(rule, verification)
    if verification is None:
        return False
    if expect_valid:
        return verification.verdict == "valid"
    is_reachable = verification.mx.found is True or verification.verdict != "unknown"
    return verification.verdict != "invalid" and is_reachable


def known_types(
    types: Collection[EnrichmentType], person: Record | None, company: Record | None
) -> set[EnrichmentType]:
    """Return the types whose main fields are all there already."""
    records: dict[Entity, Record | None] = {"person": person, "company": company}
    return {
        kind
        for kind in types
        if all(
            any(has(records[entity], path, ENOUGH_CONFIDENCE) for entity, path in group)
            for group in ENOUGH[kind]
        )
    }


def required(types: Collection[EnrichmentType], rule: StopRule | None) -> list[tuple[Wanted, ...]]:
    """Return the fields that must be there, any one of each inner group."""
    if rule is not None and rule.required_fields:
        return [(wanted_field(path),) for path in rule.required_fields]
    return [group for kind in EnrichmentType if kind in types for group in ENOUGH[kind]]


def wanted_field(path: str) -> Wanted:
    """Return whose field a stop rule's path means: the person's, unless it says the company's."""
    head, dot, rest = path.partition(".")
    if dot and head == "company":
        return "company", rest
    return "person", rest if dot and head == "person" else path


def has(record: Record | None, path: str, least: float) -> bool:
    """Return whether a field has a value of at least that confidence."""
    if record is None or record.value_at(path) in (None, [], {}):
        return False
    # A refuted value has the confidence zero; it is there to be seen and counts for nothing.
    return record.confidence_at(path) >= max(least, 0.001)


def _accepts(rule: StopRule, verification: EmailVerification | None) -> bool:
    is_catch_all = bool(
        verification and verification.smtp and verification.smtp.is_catch_all is True
    )
    if is_catch_all and not rule.accept_catch_all:
        return False
    if not rule.email_verdicts:
        return True
    if verification is None:
        return False
    return str(verification.verdict) in {str(verdict) for verdict in rule.email_verdicts}


def missing_fields(
    types: Collection[EnrichmentType],
    *,
    person: Record | None,
    company: Record | None,
    reasons: Mapping[Wanted, str],
) -> list[Missing]:
    """Return each wanted field that is empty with the most telling of the sources' reasons.

    `reasons` has the field's own reason or its entity's under `*`; without either nobody had it.
    """
    gaps = []
    records: dict[Entity, Record | None] = {"person": person, "company": company}
    for kind in EnrichmentType:
        if kind not in types:
            continue
        for entity, path in WANTED[kind]:
            record = records[entity]
            if record is not None and record.value_at(path) not in (None, [], {}):
                continue
            reason = reasons.get((entity, path)) or reasons.get((entity, "*")) or "not_found"
            gaps.append(Missing(entity, path, reason))
    return gaps
