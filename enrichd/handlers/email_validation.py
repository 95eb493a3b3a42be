"""`email_validation`: a verdict for each address, in the order in which they were given."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

from enrichd.domain.facts import Json
from enrichd.domain.lead_results import Awaited, LeadOutcome, LeadResult
from enrichd.domain.leads import lead_from
from enrichd.domain.merging import amount
from enrichd.domain.outcomes import Outcome
from enrichd.domain.payloads import EmailValidation, EnrichmentType, LeadInput, Verdict
from enrichd.handlers.bounded import for_each
from enrichd.handlers.context import JobContext
from enrichd.handlers.registry import handles
from enrichd.handlers.sourcing import calls_of, parked, search

TYPES = frozenset({EnrichmentType.EMAIL})
AT_ONCE = 20


@handles(EmailValidation)
async def validate_emails(
    payload: EmailValidation, context: JobContext
) -> dict[str, Json] | Outcome:
    """Return `{results: [EmailVerification], summary: {verdict: count}, total, costCredits}`.

    An address that was given several times is asked about once and answered each time.
    """
    wanted = list(dict.fromkeys(payload.emails))
    asker = calls_of(payload, context)
    awaited: list[Awaited] = []
    verdicts: dict[str, Json] = {}
    spent = Decimal(0)

    async def validate(text: str) -> None:
        nonlocal spent
        lead = replace(lead_from(LeadInput(email=text), text), email=text)
        result = await search(lead, payload, context, types=TYPES, asker=asker)
        if isinstance(result, Awaited):
            awaited.append(result)
            return
        spent += result.cost_credits
        verdicts[text] = _verdict(result)
        await context.progress(len(verdicts), len(wanted))

    await for_each(wanted, validate, at_once=min(AT_ONCE, len(wanted)))
    if awaited:
        return parked(min(awaited, key=lambda one: one.deadline_s))
    results = [verdicts[text] for text in payload.emails]
    counts = Counter(verdict["verdict"] for verdict in results)
    return {
        "results": results,
        "summary": {str(verdict): counts[verdict] for verdict in Verdict},
        "total": len(results),
        "costCredits": amount(spent),
    }


def _verdict(result: LeadResult) -> dict[str, Json]:
    if result.outcome is LeadOutcome.SUPPRESSED:
        # Whose address it was is what must not be kept.
        return {"email": None, "verdict": str(Verdict.UNKNOWN), "reasons": ["suppressed"]}
    assert result.verification is not None
    return result.verification.to_json()
