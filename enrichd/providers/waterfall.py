"""Ask source after source about one lead until enough is known.

First the built-in sources, all at once, because they are free; then the providers in the caller's
order, one question at a time, because they are not. Each question that is not put leaves its
reason. Whether it is enough is the stop rule's business (`domain/lead_results.py`), who is believed
is the merge's (`domain/merging.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from enrichd.domain.lead_results import Call, LeadResult
from enrichd.domain.leads import Lead
from enrichd.domain.payloads import EnrichmentType, StopRule
from enrichd.errors import (
    ProviderDenied,
    ProviderDown,
    ProviderError,
    ProviderGarbled,
    ProviderThrottled,
)
from enrichd.providers.base import Found, Operation, Provider
from enrichd.providers.budget import Budget
from enrichd.providers.findings import Findings
from enrichd.providers.roster import BUILTIN, Providers, build_providers

__all__ = ["Providers", "build_providers", "enrich_lead"]

NO_PROVIDER: Final = "-"
QUESTION_S: Final = 60.0
"""The most that one question to one provider may take, whatever bounds its adapter has."""

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
    ProviderGarbled: "garbled",
}


async def enrich_lead(
    lead: Lead,
    *,
    types: Collection[EnrichmentType],
    providers: Providers,
    order: Sequence[str] = (),
    stop_rule: StopRule | None = None,
    budget: Budget | None = None,
    overwrite: bool = False,
) -> LeadResult:
    """Return what the sources know of a lead; trouble of the built-in ones is part of the answer.

    Raises ProviderThrottled or ProviderDown when no provider of the order gave an answer and one
    of them may give it later.
    """
    paid = [name for name in dict.fromkeys(order) if name not in (BUILTIN, NO_PROVIDER)]
    findings = Findings(
        lead,
        types=types,
        rule=stop_rule,
        expect_valid=_can_verify(providers, paid),
        overwrite=overwrite,
    )
    search = _Search(findings, providers, budget or Budget())
    await search.ask_builtin()
    for rank, provider_id in enumerate(paid, start=1):
        await search.ask(provider_id, rank)
    return search.result()


def _can_verify(providers: Providers, paid: Sequence[str]) -> bool:
    """Return whether anybody in the order could call an address valid."""
    if providers.connections.prober is not None:
        return True
    adapters = [providers.find(name) for name in paid]
    return any(one is not None and Operation.VERIFY_EMAIL in one.operations for one in adapters)


class _Search:
    """One lead's questions: which were put, what they cost, what went wrong."""

    def __init__(self, findings: Findings, providers: Providers, budget: Budget) -> None:
        self._findings = findings
        self._providers = providers
        self._budget = budget
        self._calls: list[Call] = []
        self._errors: list[ProviderError] = []

    async def ask_builtin(self) -> None:
        """Put every free question that the wanted types put, all at the same time."""
        source, lead = self._providers.builtin, self._findings.lead
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

    async def ask(self, provider_id: str, rank: int) -> None:
        """Put to one provider the questions whose answers are lacking, one after the other."""
        if self._findings.is_enough():
            return self._skip(provider_id, None, "stop_rule_met")
        adapter = self._providers.find(provider_id)
        if adapter is None:
            return self._skip(provider_id, None, "no_such_provider")
        for operation in PAID:
            if operation not in adapter.operations:
                continue
            query = self._findings.query()
            if reason := self._reason_against(adapter, operation, query):
                self._skip(provider_id, operation, reason)
                continue
            cost = adapter.cost_credits(operation)
            if not self._budget.reserve(cost):
                self._skip(provider_id, operation, "would_exceed_max_credits")
                continue
            answer = await self._pay(adapter, operation, query, cost)
            self._take(provider_id, operation, answer, rank)
            if isinstance(answer, ProviderError):
                # Its other questions would meet the same trouble.
                return None
            if answer.facts:
                await self._verify_new_email()
            if self._findings.is_enough():
                return None
        return None

    def _reason_against(self, adapter: Provider, operation: Operation, query: Lead) -> str | None:
        if not self._findings.could_use(operation):
            return "nothing_missing"
        if reason := adapter.can_answer(operation, query):
            return reason
        return None

    async def _pay(
        self, adapter: Provider, operation: Operation, query: Lead, reserved: Decimal
    ) -> Found | ProviderError:
        spent = Decimal(0)
        try:
            answer = await _put(adapter, operation, query)
            if isinstance(answer, Found):
                spent = answer.cost_credits
            return answer
        finally:
            self._budget.settle(reserved, spent)

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
        checked = await _put(self._providers.builtin, Operation.VERIFY_EMAIL, query)
        self._take(BUILTIN, Operation.VERIFY_EMAIL, checked, rank=0)

    def _take(
        self, provider_id: str, operation: Operation, answer: Found | ProviderError, rank: int
    ) -> None:
        """Write down what one call brought."""
        if isinstance(answer, ProviderError):
            ending = ENDINGS.get(type(answer), answer.code)
            self._calls.append(Call(provider_id, operation, ending))
            self._findings.explain(operation, answer.code)
            self._errors.append(answer)
            return
        ending = "answered" if answer.is_match else "noMatch"
        self._calls.append(Call(provider_id, operation, ending, cost_credits=answer.cost_credits))
        self._findings.add(provider_id, operation, answer, rank=rank)

    def _skip(self, provider_id: str, operation: Operation | None, reason: str) -> None:
        self._calls.append(Call(provider_id, operation, "skipped", reason))

    def result(self) -> LeadResult:
        """Return the answer, or raise the trouble that kept every provider from giving one.

        Once a provider has answered, and was paid, its answer is kept: a second run would pay it
        again.
        """
        later = [error for error in self._errors if error.retryable]
        has_answer = any(
            call.provider != BUILTIN and (call.outcome == "answered" or call.cost_credits)
            for call in self._calls
        )
        if later and not has_answer and not self._findings.is_enough():
            throttled = [error for error in later if isinstance(error, ProviderThrottled)]
            raise min(throttled, key=lambda one: one.retry_after_s) if throttled else later[0]
        return self._findings.result(self._calls)


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
        # A defect, reported as itself: the group's own text says nothing.
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _put(source: Provider, operation: Operation, query: Lead) -> Found | ProviderError:
    """Put one question; a provider's trouble comes back as a value."""
    try:
        async with asyncio.timeout(QUESTION_S):
            return await source.call(operation, query)
    except ProviderError as error:
        return error
    except TimeoutError:
        name = source.provider_id
        return ProviderDown(f"{name} did not answer in {QUESTION_S:g} s", provider=name)
