"""`email_validation`: a verdict for each address, in the order in which they were given."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

from enrichd.domain.facts import Json
from enrichd.domain.leads import lead_from
from enrichd.domain.merging import amount
from enrichd.domain.payloads import EmailValidation, EnrichmentType, LeadInput, Verdict
from enrichd.handlers.bounded import for_each
from enrichd.handlers.context import JobContext
from enrichd.handlers.registry import handles
from enrichd.handlers.sourcing import search
from enrichd.providers.budget import Budget

TYPES = frozenset({EnrichmentType.EMAIL})
AT_ONCE = 20


@handles(EmailValidation)
async def validate_emails(payload: EmailValidation, context: JobContext) -> dict[str, Json]:
    """Return `{results: [EmailVerification], summary: {verdict: count}, total, costCredits}`.

    An address that was given several times is asked about once and answered each time.
    """
    wanted = list(dict.fromkeys(payload.emails))
    budget = Budget(payload.max_credits)
    verdicts: dict[str, Json] = {}
    spent = Decimal(0)

    async def validate(text: str) -> None:
        nonlocal spent
        lead = replace(lead_from(LeadInput(email=text)), email=text)
        result = await search(lead, payload, context, types=TYPES, budget=budget)
        assert result.verification is not None
        spent += result.cost_credits
        verdicts[text] = result.verification.to_json()
        await context.progress(len(verdicts), len(wanted))

    await for_each(wanted, validate, at_once=min(AT_ONCE, len(wanted)))
    results = [verdicts[text] for text in payload.emails]
    counts = Counter(verdict["verdict"] for verdict in results)
    return {
        "results": results,
        "summary": {str(verdict): counts[verdict] for verdict in Verdict},
        "total": len(results),
        "costCredits": amount(spent),
    }
