"""Ask source after source about one lead until enough is known.

First whether the person may be asked about at all; then the built-in sources, all at once, because
they are free; then the providers in the caller's order, one question at a time, because they are
not. Each question that is not put leaves its reason. What one question costs, whether it was
answered before and whether the provider's limits allow it is `calls.py`; whether it is enough is
the stop rule's business (`domain/lead_results.py`), who is believed the merge's
(`domain/merging.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from enrichd.domain.email_verdicts import EmailVerification
from enrichd.domain.emails import Address, parse_address
from enrichd.domain.facts import Fact, Json
from enrichd.domain.lead_results import Awaited, Call, LeadOutcome, LeadResult
from enrichd.domain.leads import Lead
from enrichd.domain.payloads import EnrichmentType, FillMode, StopRule
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
from enrichd.providers.attempts import defect_of
from enrichd.providers.base import Asked, Found, Operation, Pending, Provider, Skipped
from enrichd.providers.findings import Findings
from enrichd.providers.patterns import CONFIRMED_CONFIDENCE, guesses
from enrichd.providers.roster import BUILTIN, Providers, build_providers

__all__ = ["Providers", "Search", "build_providers", "enrich_lead"]

NO_PROVIDER: Final = "-"
QUESTION_S: Final = 60.0
"""The most that one free question may take, whatever bounds its source has."""
INFERRED_MAX: Final = 2
"""Guessed addresses that a verifying provider is asked about; each costs what a check costs."""

FREE: Final[Mapping[Operation, frozenset[EnrichmentType]]] = {
    Operation.VERIFY_EMAIL: frozenset({EnrichmentType.EMAIL}),
    Operation.FIND_EMAIL: frozenset({EnrichmentType.EMAIL}),
    Operation.ENRICH_PERSON: frozenset({EnrichmentType.PERSON}),
    Operation.ENRICH_COMPANY: frozenset({EnrichmentType.COMPANY}),
    Operation.FIND_SOCIAL_PROFILES: frozenset({EnrichmentType.SOCIAL}),
}
"""The questions to the built-in sources, and the enrichment types that put them."""

PAID: Final = (
    Operation.FIND_EMAIL,
    Operation.ENRICH_PERSON,
    Operation.ENRICH_COMPANY,
    Operation.FIND_SOCIAL_PROFILES,
    Operation.VERIFY_EMAIL,
)
"""An email that was found first makes the later questions better; verifying it comes last."""

ENDINGS: Final[Mapping[type[ProviderError], str]] = {
    ProviderDown: "down",
    ProviderThrottled: "throttled",
    ProviderDenied: "denied",
    ProviderExhausted: "exhausted",
    ProviderRejected: "rejected",
    PersonSuppressed: "suppressed",
    ProviderGarbled: "garbled",
}


class Asker(Protocol):
    """Whoever puts a job's questions: its `Calls`, or a batch's `Gatherer` before it."""

    @property
    def providers(self) -> Providers:
        """Return the process's providers."""

    @property
    def workspace_id(self) -> str:
        """Return the tenant who pays."""

    async def ask(self, provider_id: str, operation: Operation, query: Lead) -> Asked:
        """Put one question; a provider's trouble is a value."""


@dataclass(frozen=True, slots=True)
class Search:
    """What a payload says about how to search, for all its leads."""

    types: Collection[EnrichmentType]
    order: Sequence[str] = ()
    stop_rule: StopRule | None = None
    fill_mode: FillMode = FillMode.FILL_EMPTY
    infer_email: bool = False
    race: bool = False
    lane: str = BUILTIN
    """The provider whose lane the job is in: it comes again there as soon as that one is up."""
    is_last_run: bool = False
    """Whether what a provider cannot say now will never be asked again."""


async def enrich_lead(lead: Lead, search: Search, asker: Asker) -> LeadResult | Awaited:
    """Return what the sources know of a lead; trouble of the built-in ones is part of the answer.

    `Awaited` means that a provider's answer is still to come. Raises ProviderThrottled or
    ProviderDown when the search is not over and a provider of the order may answer later; what was
    answered by then is in the cache and costs nothing a second time.
    """
    return await _Waterfall(lead, search, asker).run()


def _can_verify(providers: Providers, paid: Sequence[str]) -> bool:
    """Return whether anybody in the order could call an address valid."""
    if providers.connections.prober is not None:
        return True
    adapters = [providers.find(name) for name in paid]
    return any(one is not None and Operation.VERIFY_EMAIL in one.operations for one in adapters)


class _Waterfall:
    """One lead's questions: which were put, what they cost, what went wrong."""

    def __init__(self, lead: Lead, search: Search, asker: Asker) -> None:
        self._search = search
        self._asker = asker
        self._paid = [n for n in dict.fromkeys(search.order) if n not in (BUILTIN, NO_PROVIDER)]
        self._findings = Findings(
            lead,
            types=search.types,
            rule=search.stop_rule,
            expect_valid=_can_verify(asker.providers, self._paid),
            overwrite=search.fill_mode is FillMode.OVERWRITE,
        )
        self._calls: list[Call] = []
        self._errors: list[ProviderError] = []
        self._awaited: Awaited | None = None
        self._cleared: set[str] = set()
        """Addresses that were seen not to be suppressed."""
        self._is_over = False
        """The person does not want to be found."""

    async def run(self) -> LeadResult | Awaited:
        """Ask, and say how it ended."""
        if await self._is_suppressed():
            return self._suppressed()
        if self._search.fill_mode is FillMode.SKIP_EXISTING and self._findings.skip_known():
            return self._findings.result(self._calls)
        await self._ask_builtin()
        if self._search.infer_email:
            await self._infer_email()
        for rank, provider_id in enumerate(self._paid, start=1):
            if await self._is_suppressed() or (self._awaited and not self._search.race):
                break
            await self._ask_provider(provider_id, rank)
        if await self._is_suppressed():
            return self._suppressed()
        if self._awaited and not self._search.race:
            return self._awaited
        return self._ending()

    # Who may be asked about.

    async def _is_suppressed(self, *more: str) -> bool:
        """Return whether the person wants to be left alone, by every address known by now."""
        shared = self._asker.providers.shared
        if self._is_over or shared is None:
            return self._is_over
        unknown = {*self._findings.addresses(), *more} - self._cleared
        if unknown:
            self._is_over = await shared.suppressions.is_suppressed(
                self._asker.workspace_id, *sorted(unknown)
            )
            self._cleared |= unknown
        return self._is_over

    def _suppressed(self) -> LeadResult:
        """Return a result that says nothing about the person."""
        lead_id = self._findings.lead.lead_id
        return LeadResult(lead_id, LeadOutcome.SUPPRESSED, calls=self._calls)

    async def _ask(self, provider_id: str, operation: Operation, query: Lead) -> Asked:
        """Put one question to a provider; who says that nobody may ask ends the search."""
        asked = await self._asker.ask(provider_id, operation, query)
        if isinstance(asked, PersonSuppressed):
            self._is_over = True
            await self._remember_suppression(provider_id, query)
        return asked

    async def _remember_suppression(self, provider_id: str, query: Lead) -> None:
        """Leave a person alone by the addresses known; without one, the kept answer says it."""
        shared = self._asker.providers.shared
        if shared is None:
            return
        known = {str(one) for one in (query.address, self._findings.lead.address) if one}
        for address in sorted(known):
            await shared.suppressions.add(
                self._asker.workspace_id, address, "opted_out", provider_id
            )

    # The free sources.

    async def _ask_builtin(self) -> None:
        """Put every free question that the wanted types put, all at the same time."""
        source, lead = self._asker.providers.builtin, self._findings.lead
        asked = []
        for operation in FREE:
            if not self._is_free_question(operation):
                continue
            if reason := source.can_answer(operation, lead):
                self._skip(BUILTIN, operation, reason)
                self._findings.explain(operation, reason)
            else:
                asked.append(operation)
        answers = await _all_at_once(source, asked, lead)
        for operation, answer in zip(asked, answers, strict=True):
            self._take(BUILTIN, operation, answer, rank=0)

    def _is_free_question(self, operation: Operation) -> bool:
        lead = self._findings.lead
        if operation is Operation.VERIFY_EMAIL:
            return lead.email is not None and self._findings.wants_verdict()
        if operation is Operation.FIND_EMAIL and lead.address is not None:
            return False
        return not FREE[operation].isdisjoint(self._findings.types)

    async def _verify_new_email(self) -> None:
        """Check an email that a provider just found, for free, unless the provider has done so."""
        address, known = self._findings.best_address(), self._findings.verification
        if address is None or not self._findings.wants_verdict():
            return
        if known is not None and known.address == address:
            return
        query = replace(
            self._findings.lead, email=str(address), address=address, email_problem=None
        )
        checked = await _put(self._asker.providers.builtin, Operation.VERIFY_EMAIL, query)
        self._take(BUILTIN, Operation.VERIFY_EMAIL, checked, rank=0)

    # The guess.

    async def _infer_email(self) -> None:
        """Have the likeliest addresses checked by the first provider that verifies.

        Cheaper than finding, and right about a third of the time.
        """
        lead = self._findings.query()
        if not self._findings.could_use(Operation.FIND_EMAIL):
            return
        if not (lead.first_name and lead.last_name and lead.domain):
            return
        verifiers = self._verifiers()
        for guess in guesses(lead.first_name, lead.last_name, lead.domain)[:INFERRED_MAX]:
            address = parse_address(guess.address)
            if not isinstance(address, Address):
                continue
            if await self._is_suppressed(str(address)):
                return
            query = replace(lead, email=guess.address, address=address, email_problem=None)
            verdict = await self._check_guess(verifiers, query, guess.pattern)
            if verdict is None or verdict.verdict == "valid":
                return
            if verdict.smtp is not None and verdict.smtp.is_catch_all:
                # There every guess is as good as any other.
                return

    async def _check_guess(
        self, verifiers: list[str], query: Lead, pattern: str
    ) -> EmailVerification | None:
        """Have a guess checked by the first of the verifiers that can be asked.

        Those that cannot are taken off the list.
        """
        while verifiers:
            asked = await self._ask(verifiers[0], Operation.VERIFY_EMAIL, query)
            verdict = asked.verification if isinstance(asked, Found) else None
            if isinstance(asked, Found):
                # A wrong guess says nothing about the address that is wanted.
                is_valid = verdict is not None and verdict.verdict == "valid"
                facts = _confirmed(str(query.address), pattern) if is_valid else ()
                asked = replace(asked, facts=facts, verification=verdict if is_valid else None)
            self._take(verifiers[0], Operation.VERIFY_EMAIL, asked, rank=1)
            if not isinstance(asked, Skipped):
                return verdict
            del verifiers[0]
        return None

    def _verifiers(self, after: int = 0) -> list[str]:
        """Return those of the order who check addresses, from one place on."""
        adapters = [(name, self._asker.providers.find(name)) for name in self._paid[after:]]
        return [
            name
            for name, adapter in adapters
            if adapter is not None and Operation.VERIFY_EMAIL in adapter.operations
        ]

    # The providers.

    async def _ask_provider(self, provider_id: str, rank: int) -> None:
        """Put to one provider the questions whose answers are lacking, one after the other."""
        if self._findings.is_enough():
            return self._skip(provider_id, None, "stop_rule_met")
        adapter = self._asker.providers.find(provider_id)
        if adapter is None:
            return self._skip(provider_id, None, "no_such_provider")
        answered: set[Operation] = set()
        one_record: frozenset[Operation] = getattr(adapter, "one_record", frozenset())
        may_be_verified = bool(self._verifiers(rank - 1))
        for operation in PAID:
            if operation not in adapter.operations:
                continue
            if operation in one_record and not answered.isdisjoint(one_record):
                # It would be the whole record once more, and cost as much.
                self._skip(provider_id, operation, "same_record")
                continue
            if not self._findings.could_use(operation, may_be_verified=may_be_verified):
                self._skip(provider_id, operation, "nothing_missing")
                continue
            query = self._findings.query()
            if operation is Operation.ENRICH_COMPANY and query.domain_problem == "free_mail_domain":
                self._skip(provider_id, operation, "free_mail_domain")
                continue
            asked = await self._ask(provider_id, operation, query)
            self._take(provider_id, operation, asked, rank)
            if await self._is_suppressed():
                return None
            if isinstance(asked, (ProviderError, Pending)) and not _is_ours(asked):
                # Its other questions would meet the same trouble.
                return None
            if isinstance(asked, Found) and asked.facts:
                answered.add(operation)
                await self._verify_new_email()
            if self._findings.is_enough():
                return None
        return None

    def _take(self, provider_id: str, operation: Operation, asked: Asked, rank: int) -> None:
        """Write down what became of one question."""
        match asked:
            case Skipped(reason, trouble, cost):
                self._calls.append(Call(provider_id, operation, "skipped", reason, cost))
                if trouble is not None and provider_id == self._search.lane:
                    self._wait_out(trouble)
            case Pending():
                self._calls.append(Call(provider_id, operation, "pending"))
                self._awaited = self._awaited or Awaited(provider_id, asked.deadline_s)
            case ProviderError():
                ending = ENDINGS.get(type(asked), asked.code)
                cost = asked.cost_credits
                self._calls.append(Call(provider_id, operation, ending, cost_credits=cost))
                self._findings.explain(operation, asked.code)
                self._errors.append(asked)
            case Found():
                ending = "answered" if asked.is_match else "noMatch"
                self._calls.append(
                    Call(
                        provider_id,
                        operation,
                        ending,
                        cost_credits=asked.cost_credits,
                        is_cached=asked.cached,
                    )
                )
                self._findings.add(provider_id, operation, asked, rank=rank)

    def _wait_out(self, trouble: ProviderError) -> None:
        """Leave to a later run what is soon over; on the last one it is a reason like others."""
        if isinstance(trouble, ProviderThrottled) or not self._search.is_last_run:
            self._errors.append(trouble)

    def _skip(self, provider_id: str, operation: Operation | None, reason: str) -> None:
        self._calls.append(Call(provider_id, operation, "skipped", reason))

    # The end.

    def _ending(self) -> LeadResult | Awaited:
        """Return the answer, or raise the trouble that only a later run can mend.

        Without a cache an answer that was paid is kept whatever became of the others: a second run
        would pay it again. A limit is always waited for, an outage until the last run.
        """
        if self._findings.is_enough():
            return self._findings.result(self._calls)
        if self._awaited is not None:
            return self._awaited
        has_answer = any(
            call.provider != BUILTIN
            and (call.outcome == "answered" or (call.outcome == "noMatch" and call.cost_credits))
            for call in self._calls
        )
        may_ask_again = self._asker.providers.shared is not None or not has_answer
        later = [error for error in self._errors if error.retryable]
        throttled = [error for error in later if isinstance(error, ProviderThrottled)]
        if throttled and may_ask_again:
            raise min(throttled, key=lambda one: one.retry_after_s)
        if later and may_ask_again and not (has_answer and self._search.is_last_run):
            raise later[0]
        return self._findings.result(self._calls)


def _is_ours(error: ProviderError | Pending) -> bool:
    """Return whether the trouble is with the question: others may be answered all the same."""
    return isinstance(error, ProviderRejected)


def _confirmed(address: str, pattern: str) -> tuple[Fact, Fact]:
    entry: dict[str, Json] = {
        "address": address,
        "type": "work",
        "status": "valid",
        "primary": True,
        "pattern": pattern,
    }
    return (
        Fact("person", "email", address, CONFIRMED_CONFIDENCE, "pattern"),
        Fact("person", "emails", [entry], CONFIRMED_CONFIDENCE, "pattern"),
    )


async def _all_at_once(
    source: Provider, operations: Sequence[Operation], query: Lead
) -> list[Found | ProviderError]:
    if len(operations) <= 1:
        # The usual case of an email column; a task group would be most of its cost.
        return [await _put(source, operation, query) for operation in operations]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_put(source, operation, query)) for operation in operations]
    except ExceptionGroup as errors:
        # Reported as itself: the group's own text says nothing.
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _put(source: Provider, operation: Operation, query: Lead) -> Found | ProviderError:
    """Put one free question; a source's trouble comes back as a value."""
    name = source.provider_id
    try:
        async with asyncio.timeout(QUESTION_S):
            return await source.call(operation, query)
    except ProviderError as error:
        return error
    except TimeoutError:
        return ProviderDown(f"{name} did not answer in {QUESTION_S:g} s", provider=name)
    except Exception as error:  # noqa: BLE001 - the other sources may know the lead all the same
        return defect_of(name, error)
