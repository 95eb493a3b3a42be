"""What has been said about one lead so far, by whom, and what is still lacking."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from enrichd.domain.email_verdicts import NOT_LOOKED_UP, EmailVerification
from enrichd.domain.emails import Address, parse_address
from enrichd.domain.facts import Entity, Fact
from enrichd.domain.lead_results import (
    ENOUGH_CONFIDENCE,
    WANTED,
    Call,
    LeadOutcome,
    LeadResult,
    Wanted,
    cares_for_verdict,
    has,
    is_email_accepted,
    is_enough,
    known_types,
    missing_fields,
    required,
)
from enrichd.domain.leads import Lead, given_facts
from enrichd.domain.merging import INPUT, Candidate, Record, Weighed, merge_weighed, weigh
from enrichd.domain.payloads import EnrichmentType, StopRule
from enrichd.providers.answer_json import addresses_in
from enrichd.providers.base import REGISTERED, Found, Operation
from enrichd.providers.patterns import CONFIRMED_CONFIDENCE, GUESS_CONFIDENCE

ENTITIES: Final[tuple[Entity, ...]] = ("person", "company")

ABOUT: Final[Mapping[Operation, tuple[Wanted, ...]]] = {
    Operation.FIND_EMAIL: (("person", "email"),),
    Operation.VERIFY_EMAIL: (("person", "email"),),
    Operation.ENRICH_PERSON: (("person", "*"),),
    Operation.ENRICH_COMPANY: (("company", "*"),),
    Operation.FIND_SOCIAL_PROFILES: (("person", "socialProfiles"), ("company", "socialProfiles")),
}
"""What stays empty if an operation is not carried out."""


class Findings:
    """One lead's facts, verdict and reasons, and the records that are merged of them."""

    def __init__(
        self,
        lead: Lead,
        *,
        types: Collection[EnrichmentType],
        rule: StopRule | None,
        expect_valid: bool,
        overwrite: bool,
    ) -> None:
        self.lead = lead
        self.types = frozenset(types)
        self._rule = rule
        self._expect_valid = expect_valid
        self._overwrite = overwrite
        self._now = datetime.now(UTC)  # noqa: TID251 - when a fact was seen, not when a job is due
        self._seen_at = self._now.isoformat(timespec="seconds").replace("+00:00", "Z")
        self._verdicts: dict[Address | None, EmailVerification] = {}
        """By the address that they are about, the latest last."""
        self._people: set[str] = set()
        """Addresses that a source has of the person."""
        self._reasons: dict[Wanted, str] = {}
        self._weighed: dict[Entity, list[list[Weighed]]] = {"person": [], "company": []}
        """By candidate what it is worth, weighed once: a lead is merged again after each answer."""
        self._merged: dict[Entity, Record | None] = {}
        for fact in given_facts(lead):
            self._take(Candidate(fact, INPUT, INPUT, self._seen_at, rank=-1))

    def skip_known(self) -> bool:
        """Want no more of the types whose main fields are there; True if nothing is wanted now."""
        records = self.records()
        self.types -= known_types(self.types, records["person"], records["company"])
        return not self.types

    def add(self, provider_id: str, operation: Operation, answer: Found, *, rank: int) -> None:
        """Take in one provider's answer; `rank` is the provider's place in the order."""
        for fact in answer.facts:
            self._take(
                Candidate(
                    fact,
                    provider=provider_id,
                    operation=operation,
                    fetched_at=answer.fetched_at or self._seen_at,
                    rank=rank,
                    prior=_prior(provider_id, fact),
                    request_id=answer.request_id,
                    cost_credits=answer.cost_credits,
                    cached=answer.cached,
                )
            )
        for gap in answer.missing:
            self._reasons.setdefault((gap.entity, gap.field), gap.reason)
        self._people.update(_persons_addresses(answer))
        if answer.verification is not None:
            self._judge(answer.verification)
            self._merged.pop("person", None)

    def _take(self, candidate: Candidate) -> None:
        entity = candidate.fact.entity
        if weighed := weigh(candidate, as_of=self._now):
            self._weighed[entity].append(weighed)
        self._merged.pop(entity, None)

    def explain(self, operation: Operation, reason: str) -> None:
        """Keep why an operation brought nothing; the first reason stays."""
        for field in ABOUT[operation]:
            self._reasons.setdefault(field, reason)

    def _judge(self, verification: EmailVerification) -> None:
        """Take in an email's verdict."""
        address = verification.address
        known = self._verdicts.pop(address, None)
        self._verdicts[address] = verification = _combined(known, verification)
        if verification.verdict == "invalid":
            self._reasons["person", "email"] = "email_invalid"

    @property
    def verification(self) -> EmailVerification | None:
        """The verdict on the email that stands, or else the latest of all."""
        address = self.best_address()
        if address is not None:
            return self._verdicts.get(address)
        return next(reversed(self._verdicts.values()), None)

    def addresses(self) -> set[str]:
        """Return the addresses that the person is known by; the best guess is one of them."""
        person = self.records()["person"]
        standing = person.value_at("email") if person else None
        given = str(self.lead.address) if self.lead.address else None
        return self._people | {str(one) for one in (standing, given) if one}

    def records(self) -> dict[Entity, Record | None]:
        """Return the person and the company as far as they are known."""
        for entity in ENTITIES:
            if entity not in self._merged:
                weighed = self._judged() if entity == "person" else self._weighed[entity]
                self._merged[entity] = merge_weighed(
                    entity, chain.from_iterable(weighed), overwrite=self._overwrite
                )
        return self._merged

    def _judged(self) -> list[list[Weighed]]:
        """Return what is said of the person, an email with the weight that its verdict gives it.

        A bad one gives way to any other, a good one is worth as much as one that was confirmed, and
        beside it the rest are guesses; what the caller supplied is only ever refuted.
        """
        verdicts = {str(one).casefold(): said for one, said in self._verdicts.items()}
        if not verdicts:
            return self._weighed["person"]
        good = {one for one, said in verdicts.items() if said.verdict == "valid"}

        def judged(weighed: list[Weighed]) -> list[Weighed]:
            candidate = weighed[0].candidate
            fact = candidate.fact
            if fact.field != "email":
                return weighed
            address = str(fact.value).casefold()
            if address in verdicts and verdicts[address].verdict == "invalid":
                fact = replace(fact, confidence=0.0, source="refuted")
            elif address in good:
                fact = replace(fact, confidence=max(fact.confidence, CONFIRMED_CONFIDENCE))
            elif good and not candidate.is_given:
                fact = replace(fact, confidence=min(fact.confidence, GUESS_CONFIDENCE))
            return weigh(replace(candidate, fact=fact), as_of=self._now)

        return [judged(one) for one in self._weighed["person"]]

    def is_enough(self) -> bool:
        """Return whether the stop rule holds."""
        records = self.records()
        return is_enough(
            self.types,
            self._rule,
            person=records["person"],
            company=records["company"],
            verification=self.verification,
            expect_valid=self._expect_valid,
        )

    def wants_verdict(self) -> bool:
        """Return whether the caller cares how sure the email is."""
        return cares_for_verdict(self.types, self._rule)

    def could_use(self, operation: Operation, *, may_be_verified: bool = False) -> bool:
        """Return whether an operation can give something that is wanted and not there yet.

        `may_be_verified`: whether somebody is still to be asked who checks addresses.
        """
        if operation is Operation.VERIFY_EMAIL:
            is_open = self.verification is None or self.verification.verdict == "unknown"
            return self.wants_verdict() and self.best_address() is not None and is_open
        records = self.records()
        wanted = {field for kind in self.types for field in WANTED[kind]}
        wanted.update(field for group in required(self.types, self._rule) for field in group)
        least = max(ENOUGH_CONFIDENCE, self._rule.min_confidence if self._rule else 0.0)
        lacking = {(e, path) for e, path in wanted if not has(records[e], path, least)}
        match operation:
            case Operation.FIND_EMAIL:
                return ("person", "email") in lacking or self._wants_other_email(may_be_verified)
            case Operation.ENRICH_PERSON:
                return any(entity == "person" for entity, _ in lacking)
            case Operation.ENRICH_COMPANY:
                return any(entity == "company" for entity, _ in lacking)
            case Operation.FIND_SOCIAL_PROFILES:
                return any(path == "socialProfiles" for _, path in lacking)

    def _wants_other_email(self, may_be_verified: bool) -> bool:
        """Return whether an email was found and another could be better; never for a given one."""
        address, said = self.best_address(), self.verification
        if address is None or address == self.lead.address or not self.wants_verdict():
            return False
        if said is None or said.verdict == "unknown":
            if may_be_verified:
                return False
        elif self._rule is None and said.smtp is not None and said.smtp.is_catch_all:
            # Nobody can do better at that domain.
            return False
        return not is_email_accepted(self._rule, said, expect_valid=self._expect_valid)

    def best_address(self) -> Address | None:
        """Return the email that stands, unless it is only a guess or known as bad."""
        person = self.records()["person"]
        if person is None or not has(person, "email", ENOUGH_CONFIDENCE):
            return None
        parsed = parse_address(person.value_at("email"))
        return parsed if isinstance(parsed, Address) else None

    def query(self) -> Lead:
        """Return the lead with what is known by now; a bare guess is not knowledge."""
        records = self.records()
        address = self.best_address()

        def known(entity: Entity, path: str, given: str | None) -> str | None:
            record = records[entity]
            if given is not None or record is None or not has(record, path, ENOUGH_CONFIDENCE):
                return given
            return str(record.value_at(path))

        return replace(
            self.lead,
            email=str(address) if address else None,
            address=address,
            first_name=known("person", "firstName", self.lead.first_name),
            last_name=known("person", "lastName", self.lead.last_name),
            full_name=known("person", "fullName", self.lead.full_name),
            company_name=known("company", "name", self.lead.company_name),
            domain=known("company", "domain", self.lead.domain),
        )

    def result(self, calls: list[Call]) -> LeadResult:
        """Return everything as the lead's answer."""
        records = self.records()
        if self.is_enough():
            outcome = LeadOutcome.COMPLETE
        elif self._has_anything():
            outcome = LeadOutcome.PARTIAL
        else:
            outcome = LeadOutcome.NOT_FOUND
        return LeadResult(
            lead_id=self.lead.lead_id,
            outcome=outcome,
            person=records["person"],
            company=records["company"],
            verification=self.verification,
            missing=missing_fields(
                self.types,
                person=records["person"],
                company=records["company"],
                reasons=self._reasons,
            ),
            calls=calls,
        )

    def _has_anything(self) -> bool:
        """Return whether a source added anything to what the caller knew."""
        if self.verification is not None and self.verification.verdict != "invalid":
            return True
        return any(record is not None and record.has_findings for record in self.records().values())


def _persons_addresses(answer: Found) -> list[str]:
    """Return the addresses that an answer says are the person's; a guess says nothing."""
    facts = [
        fact
        for fact in answer.facts
        if fact.entity == "person" and fact.confidence >= ENOUGH_CONFIDENCE
    ]
    return addresses_in(replace(answer, facts=facts))


def _combined(known: EmailVerification | None, new: EmailVerification) -> EmailVerification:
    """Return the surer verdict on one address with what both saw of its domain and server."""
    if known is None or known.address != new.address:
        return new
    surer = known if new.verdict == "unknown" else new
    other = new if surer is known else known
    return replace(
        surer,
        mx=other.mx if surer.mx is NOT_LOOKED_UP else surer.mx,
        smtp=surer.smtp or other.smtp,
        checked_by=tuple(dict.fromkeys((*known.checked_by, *new.checked_by))),
        decided_by=surer.decider,
        scores={**known.scores, **new.scores},
    )


def _prior(provider_id: str, fact: Fact) -> float:
    registration = REGISTERED.get(provider_id)
    return registration.prior(fact.entity, fact.field) if registration else 1.0
