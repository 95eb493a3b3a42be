"""An answer as the text that is kept of it, and back.

What comes out is what went in: facts in their order, floats as floats, what is missing and why, the
verification with all its parts. Only what a provider's data should not have had is mended (see
`store/json_text.py`). How we stand with the provider is of the moment and not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from enrichd.domain.email_verdicts import (
    EmailVerification,
    MailHosts,
    MxRecord,
    SmtpCheck,
    SmtpClass,
    Verdict,
)
from enrichd.domain.emails import Address, parse_address
from enrichd.domain.facts import Fact, Json, Missing
from enrichd.providers.base import Found
from enrichd.store.json_text import dumps

ADDRESSES_MAX: Final = 200
"""An answer about a company may list its people; it does not list a town's."""


def to_text(answer: Found) -> str:
    """Return an answer as JSON text."""
    return dumps(
        {
            "facts": [
                [
                    fact.entity,
                    fact.field,
                    fact.value,
                    fact.confidence,
                    fact.source,
                    fact.source_url,
                    fact.observed_at,
                ]
                for fact in answer.facts
            ],
            "missing": [[gap.entity, gap.field, gap.reason] for gap in answer.missing],
            "verification": _verification_json(answer.verification),
            "requestId": answer.request_id,
        }
    )


def from_text(text: str, *, fetched_at: str | None) -> Found:
    """Return the answer that was kept. Raises ValueError, TypeError or KeyError if it is none."""
    kept = orjson.loads(text)
    return Found(
        facts=tuple(Fact(*parts) for parts in kept["facts"]),
        missing=tuple(Missing(*parts) for parts in kept["missing"]),
        verification=_verification(kept["verification"]),
        request_id=kept["requestId"],
        fetched_at=fetched_at,
        cached=True,
    )


def _verification_json(one: EmailVerification | None) -> dict[str, Json] | None:
    if one is None:
        return None
    mx, smtp, address = one.mx, one.smtp, one.address
    return {
        "text": one.text,
        "address": [address.local, address.domain, address.ascii_domain] if address else None,
        "verdict": str(one.verdict),
        "reasons": list(one.reasons),
        "checkedAt": one.checked_at,
        "expiresAt": one.expires_at,
        "mx": {
            "found": mx.found,
            "reason": mx.reason,
            "records": [[record.host, record.preference] for record in mx.records],
            "nullMx": mx.null_mx,
            "fallback": mx.fallback,
        },
        "smtp": [
            str(smtp.kind),
            smtp.checked,
            smtp.connected,
            smtp.code,
            smtp.enhanced_code,
            smtp.is_catch_all,
        ]
        if smtp
        else None,
        "checkedBy": list(one.checked_by),
        "decidedBy": one.decided_by,
        "scores": dict(one.scores),
    }


def _verification(kept: Any) -> EmailVerification | None:
    if kept is None:
        return None
    mx, smtp = kept["mx"], kept["smtp"]
    return EmailVerification(
        text=kept["text"],
        address=Address(*kept["address"]) if kept["address"] else None,
        verdict=Verdict(kept["verdict"]),
        reasons=tuple(kept["reasons"]),
        checked_at=kept["checkedAt"],
        expires_at=kept["expiresAt"],
        mx=MailHosts(
            found=mx["found"],
            reason=mx["reason"],
            records=tuple(MxRecord(*record) for record in mx["records"]),
            null_mx=mx["nullMx"],
            fallback=mx["fallback"],
        ),
        smtp=SmtpCheck(SmtpClass(smtp[0]), *smtp[1:]) if smtp else None,
        checked_by=tuple(kept["checkedBy"]),
        decided_by=kept["decidedBy"],
        scores=kept["scores"],
    )


def addresses_in(answer: Found) -> list[str]:
    """Return the email addresses that an answer holds anywhere, at most ADDRESSES_MAX."""
    found: dict[str, None] = {}
    if answer.verification is not None and answer.verification.address is not None:
        found[str(answer.verification.address)] = None
    for fact in answer.facts:
        for text in _texts(fact.value):
            if "@" in text and isinstance(parsed := parse_address(text), Address):
                found[str(parsed)] = None
            if len(found) >= ADDRESSES_MAX:
                return list(found)
    return list(found)


def _texts(value: Json) -> Iterator[str]:
    """Yield all text in a value, however deep."""
    inside = [value]
    while inside:
        match inside.pop():
            case str() as text:
                yield text
            case dict() as parts:
                inside += parts.values()
            case list() | tuple() as parts:
                inside += parts
            case _:
                pass
