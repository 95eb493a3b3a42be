"""What a search would cost at most, said before anything is asked.

Every question that could be put counts with its highest price, as if each source before it had
found nothing; those whose answers are in the cache count nothing. What is found along the way only
makes it cheaper.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from enrichd.domain.facts import Json
from enrichd.domain.leads import Lead, canonical_key
from enrichd.domain.merging import amount
from enrichd.domain.payloads import FillMode
from enrichd.providers.base import Operation, Provider
from enrichd.providers.findings import Findings
from enrichd.providers.questions import cache_key
from enrichd.providers.roster import BUILTIN
from enrichd.providers.waterfall import INFERRED_MAX, NO_PROVIDER, PAID, Search

NO_KEY: Final = "no_api_key"
NO_SUCH: Final = "no_such_provider"


@dataclass(frozen=True, slots=True)
class PricedQuestion:
    """A question that may be put, and the most that it costs."""

    provider_id: str
    operation: Operation
    key: bytes | None
    """Where its answer would be kept; None if that depends on what is found first."""
    credits: Decimal


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a search may ask."""

    leads: int
    unique_leads: int
    """Leads that are alike share their answers."""
    questions: Sequence[PricedQuestion]
    skipped: Mapping[str, str]
    """Providers that would not be asked at all, and why."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a search may cost."""

    leads: int
    unique_leads: int
    questions: int
    cached: int
    """Questions whose answers are known now."""
    most: Decimal
    """With an empty cache."""
    most_now: Decimal
    """With what is known now."""
    by_provider: Mapping[str, Decimal]
    """Of `most_now`, before the job's own cap."""
    skipped: Mapping[str, str]

    def to_json(self) -> dict[str, Json]:
        """Return the shape that the command line and the API answer."""
        return {
            "leads": self.leads,
            "uniqueLeads": self.unique_leads,
            "questions": self.questions,
            "cachedAnswers": self.cached,
            "maxCostCredits": amount(self.most_now),
            "maxCostCreditsUncached": amount(self.most),
            "byProvider": {name: amount(cost) for name, cost in self.by_provider.items()},
            "skipped": dict(self.skipped),
        }


def plan(leads: Sequence[Lead], search: Search, adapters: Mapping[str, Provider | None]) -> Plan:
    """Return what a search for these leads may ask; `adapters` has the providers of its order."""
    order = [name for name in dict.fromkeys(search.order) if name not in (BUILTIN, NO_PROVIDER)]
    unique = list({canonical_key(lead): lead for lead in leads}.values())
    skipped: dict[str, str] = {}
    able: dict[str, Provider] = {}
    for name in order:
        adapter = adapters.get(name)
        if adapter is None:
            skipped[name] = NO_SUCH
        elif unique and _lacks_key(adapter, unique[0]):
            skipped[name] = NO_KEY
        else:
            able[name] = adapter
    questions = [one for lead in unique for one in _questions(lead, search, able)]
    return Plan(len(leads), len(unique), questions, skipped)


def estimate(
    planned: Plan,
    known: Collection[tuple[str, bytes]] = (),
    *,
    cap: Decimal | None = None,
    unusable: Mapping[str, str] = MappingProxyType({}),
) -> Estimate:
    """Return what a plan costs at most; `known` are (provider, key) of answers in the cache.

    `cap` is the job's own: it is never exceeded. `unusable` says of providers why they are not
    there, where the reason is another than that nobody brought them.
    """
    most = Decimal(0)
    costs: dict[str, Decimal] = {}
    cached = 0
    for question in planned.questions:
        most += question.credits
        costs.setdefault(question.provider_id, Decimal(0))
        if question.key is not None and (question.provider_id, question.key) in known:
            cached += 1
        else:
            costs[question.provider_id] += question.credits
    most_now = sum(costs.values(), Decimal(0))
    return Estimate(
        leads=planned.leads,
        unique_leads=planned.unique_leads,
        questions=len(planned.questions),
        cached=cached,
        most=most if cap is None else min(most, cap),
        most_now=most_now if cap is None else min(most_now, cap),
        by_provider=costs,
        skipped={**planned.skipped, **unusable},
    )


def _lacks_key(adapter: Provider, lead: Lead) -> bool:
    operations = sorted(adapter.operations)
    return bool(operations) and all(
        adapter.can_answer(operation, lead) == NO_KEY for operation in operations
    )


def _questions(
    lead: Lead, search: Search, adapters: Mapping[str, Provider]
) -> Sequence[PricedQuestion]:
    findings = Findings(
        lead,
        types=search.types,
        rule=search.stop_rule,
        expect_valid=any(Operation.VERIFY_EMAIL in one.operations for one in adapters.values()),
        overwrite=search.fill_mode is FillMode.OVERWRITE,
    )
    if search.fill_mode is FillMode.SKIP_EXISTING and findings.skip_known():
        return []
    wanted = [one for one in PAID if _may_be_put(one, findings)]
    found: list[PricedQuestion] = []
    if search.infer_email and Operation.FIND_EMAIL in wanted:
        found += _guesses(adapters)
    for name, adapter in adapters.items():
        for operation in wanted:
            if operation in adapter.operations:
                key = cache_key(adapter, name, operation, lead)
                is_known_now = adapter.can_answer(operation, lead) is None
                cost = adapter.cost_credits(operation)
                found.append(PricedQuestion(name, operation, key if is_known_now else None, cost))
    return found


def _may_be_put(operation: Operation, findings: Findings) -> bool:
    if operation is Operation.VERIFY_EMAIL:
        # An address may be found first.
        return findings.wants_verdict()
    return findings.could_use(operation)


def _guesses(adapters: Mapping[str, Provider]) -> Sequence[PricedQuestion]:
    for name, adapter in adapters.items():
        if Operation.VERIFY_EMAIL in adapter.operations:
            cost = adapter.cost_credits(Operation.VERIFY_EMAIL)
            return [PricedQuestion(name, Operation.VERIFY_EMAIL, None, cost)] * INFERRED_MAX
    return []
