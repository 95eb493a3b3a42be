"""`batch_lead_enrichment`: many leads, each kept as soon as it is done.

A lead's answer goes to its own item row, so that a batch which stops half-way goes on where it
stopped. One lead's trouble is that lead's; only a rate limit, which is everybody's, puts the whole
batch off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from enrichd.domain.facts import Json
from enrichd.domain.lead_results import Awaited, LeadOutcome
from enrichd.domain.leads import Lead, canonical_key, lead_from
from enrichd.domain.merging import amount
from enrichd.domain.outcomes import Completed, Failed, JobError, Outcome, Retry
from enrichd.domain.payloads import BatchLeadEnrichment, LeadInput
from enrichd.errors import ClaimLost, EnrichdError, ProviderError, ProviderThrottled, Unavailable
from enrichd.handlers.bounded import for_each
from enrichd.handlers.context import Item, JobContext
from enrichd.handlers.registry import handles
from enrichd.handlers.sourcing import calls_of, parked, provider_order, search_of
from enrichd.logs import get_logger
from enrichd.providers.gathering import Gatherer, bulk_size_max
from enrichd.providers.waterfall import Asker, enrich_lead

AT_ONCE = 10
TRIES_MAX = 3
"""Runs of a batch in which a lead's passing trouble is left to a later run; then it is final."""

log = get_logger("handlers")


@handles(BatchLeadEnrichment)
async def enrich_batch(payload: BatchLeadEnrichment, context: JobContext) -> Outcome:
    """Enrich every lead that is not done yet; return counts, the answers are in the items.

    Completed is `{total, completed, failed, outcomes: {complete, partial, notFound, suppressed},
    costCredits}`.
    """
    leads = leads_of(payload)
    finished = await context.finished_items()
    groups = _alike(lead for lead in leads if lead.lead_id not in finished)
    at_once = max(AT_ONCE, bulk_size_max(provider_order(payload)))
    async with Gatherer(calls_of(payload, context)) as asker:
        batch = _Batch(payload, context, finished, asker)
        await batch.report(len(leads))

        async def enrich(group: list[Lead]) -> None:
            await batch.enrich(group)
            await batch.report(len(leads))

        if groups:
            await for_each(groups, enrich, at_once=min(at_once, len(groups)))
        return batch.outcome(len(leads))


def leads_of(payload: BatchLeadEnrichment) -> list[Lead]:
    """Return a batch's leads, each with an id of its own.

    A whole lead without an id is called by its place, `#3` for the third; a second lead with an id
    that was there before is called by both.
    """
    if payload.lead_ids:
        unique = dict.fromkeys(payload.lead_ids)
        return [lead_from(payload.input_data.get(one, LeadInput()), one) for one in unique]
    leads: dict[str, Lead] = {}
    for place, data in enumerate(payload.leads, start=1):
        lead_id = data.id or f"#{place}"
        if lead_id in leads:
            lead_id = f"{lead_id}#{place}"
        leads[lead_id] = lead_from(data, lead_id)
    return list(leads.values())


def _alike(leads: Iterable[Lead]) -> list[list[Lead]]:
    """Group the leads that share one answer, to ask about a person in several rows once."""
    groups: dict[str, list[Lead]] = {}
    for lead in leads:
        groups.setdefault(canonical_key(lead), []).append(lead)
    return list(groups.values())


@dataclass(slots=True)
class _Tally:
    completed: int = 0
    failed: int = 0
    left: int = 0
    """For a later run."""


class _Batch:
    """One run of a batch: what it has kept, spent and left."""

    def __init__(
        self,
        payload: BatchLeadEnrichment,
        context: JobContext,
        finished: Mapping[str, Item],
        asker: Asker,
    ) -> None:
        self._payload = payload
        self._context = context
        self._tally = _Tally()
        self._outcomes: Counter[str] = Counter()
        self._spent = Decimal(0)
        self._error: JobError | None = None
        for item in finished.values():
            self._count(item.status == "completed", item.result or {})
        self._asker = asker
        self._awaited: list[Awaited] = []
        self._is_last_run = context.attempts_left == 0 or context.attempt >= TRIES_MAX
        # A lead's passing trouble is left to later runs, so the last of those keeps what there is.
        self._search = search_of(
            payload,
            types=payload.enrichment_types,
            lane=context.provider_id,
            is_last_run=self._is_last_run,
        )

    async def report(self, total: int) -> None:
        """Say how far the batch is."""
        await self._context.progress(self._tally.completed + self._tally.failed, total)

    async def enrich(self, group: list[Lead]) -> None:
        """Answer leads that are the same; the first one carries what the answer cost."""
        try:
            result = await enrich_lead(group[0], self._search, self._asker)
        except (ClaimLost, ProviderThrottled, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 - one lead must not take its batch down
            return await self._give_up(group, error)
        if isinstance(result, Awaited):
            self._awaited.append(result)
            return None
        answer = result.to_json()
        for lead in group:
            await self._keep(lead, {**answer, "leadId": lead.lead_id})
            answer = {**answer, "costCredits": 0}
        return None

    async def _keep(self, lead: Lead, answer: dict[str, Json]) -> None:
        await self._context.record_item(lead.lead_id, status="completed", result=answer)
        self._count(True, answer)

    async def _give_up(self, group: list[Lead], error: Exception) -> None:
        kept = _job_error(error)
        if self._error is None or not self._error.retryable:
            self._error = kept
        if not isinstance(error, EnrichdError):
            log.warning("lead_raised", job_id=self._context.job_id, exc_info=error)
        if kept.retryable and not self._is_last_run:
            self._tally.left += len(group)
            return
        for lead in group:
            await self._context.record_item(lead.lead_id, status="failed", error=kept.to_json())
            self._count(False, {})

    def _count(self, is_completed: bool, answer: Mapping[str, Json]) -> None:
        if not is_completed:
            self._tally.failed += 1
            return
        self._tally.completed += 1
        self._outcomes[str(answer.get("outcome"))] += 1
        self._spent += Decimal(str(answer.get("costCredits") or 0))

    def outcome(self, total: int) -> Outcome:
        """Return how the batch ended, with counts over all its runs."""
        error, tally = self._error, self._tally
        if error is not None and tally.left:
            text = f"{tally.left} of {total} leads are left for another run: {error.message}"
            return Retry(replace(error, message=text))
        if self._awaited:
            return parked(min(self._awaited, key=lambda one: one.deadline_s))
        if error is not None and not tally.completed:
            return Failed(replace(error, retryable=False))
        return Completed(
            {
                "total": total,
                "completed": tally.completed,
                "failed": tally.failed,
                "outcomes": {str(outcome): self._outcomes[str(outcome)] for outcome in LeadOutcome},
                "costCredits": amount(self._spent),
            }
        )


def _job_error(error: Exception) -> JobError:
    match error:
        case ProviderError():
            return JobError(error.code, error.message, error.provider, error.retryable)
        case EnrichdError():
            return JobError(error.code, error.message)
        case _:
            return JobError(type(error).__name__, str(error)[:2_000], retryable=True)
