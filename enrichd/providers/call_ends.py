"""What is booked and kept of a call, by how it ended.

Kept is only what the provider said about the person or company: an answer, that it knows nobody,
that nobody may ask. Trouble of any kind is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import httpx

from enrichd.domain.email_verdicts import Verdict
from enrichd.errors import PersonSuppressed, ProviderDown, ProviderError, ProviderGarbled
from enrichd.providers.answer_json import addresses_in, to_text
from enrichd.providers.base import Asked, Found, Pending, Skipped
from enrichd.providers.operations import Operation
from enrichd.store.json_text import dumps

DAY_S: Final = 86_400.0
KEEP_FOUND_S: Final = 30 * DAY_S
KEEP_VERDICT_S: Final = 7 * DAY_S
KEEP_UNKNOWN_S: Final = 900.0
KEEP_NO_MATCH_S: Final = 7 * DAY_S

TEXT_BYTES_MAX: Final = 256 * 1024
"""What is larger is handed on but not kept."""


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call ended, for the cache and the books."""

    outcome: str
    cost: Decimal | None = Decimal(0)
    """None: unknown, so that what was set aside counts as spent."""
    answer: str | None = None
    """JSON text to keep, or None."""
    keep_s: float | None = None
    """None: for ever."""
    addresses: Sequence[str] = ()
    """Whose data is in the answer."""


NO_CALL: Final = CallEnd("free")
MAYBE_PAID: Final = CallEnd("error", cost=None)
"""The request may have been sent, and nobody knows what became of it."""


def end_of(asked: Asked, operation: Operation) -> CallEnd:
    """Return what one answer means for the cache and the books."""
    match asked:
        case Skipped():
            return NO_CALL
        case Found():
            return _end_of_answer(asked, operation)
        case Pending():
            return CallEnd("pending", answer=_pending_text(asked), keep_s=asked.deadline_s)
        case PersonSuppressed():
            return CallEnd("suppressed", answer=dumps({"message": asked.message}))
        case _:
            return CallEnd("error", cost=None if may_be_paid(asked) else Decimal(0))


def _end_of_answer(found: Found, operation: Operation) -> CallEnd:
    text = to_text(found)
    is_kept = len(text.encode()) <= TEXT_BYTES_MAX
    return CallEnd(
        "found" if found.is_match else "noMatch",
        cost=found.cost_credits,
        answer=text if is_kept else None,
        keep_s=keep_s(found, operation),
        addresses=addresses_in(found) if is_kept else (),
    )


def keep_s(found: Found, operation: Operation) -> float:
    """Return how long an answer holds."""
    if operation is Operation.VERIFY_EMAIL and found.verification is not None:
        is_known = found.verification.verdict is not Verdict.UNKNOWN
        return KEEP_VERDICT_S if is_known else KEEP_UNKNOWN_S
    return KEEP_FOUND_S if found.is_match else KEEP_NO_MATCH_S


def may_be_paid(error: ProviderError) -> bool:
    """Return whether the provider may have done, and billed, what it did not tell us.

    An answer that cannot be read is one, and so is a request that was sent and never answered.
    """
    if isinstance(error, ProviderGarbled):
        return True
    cause = error.__cause__
    if not isinstance(error, ProviderDown) or isinstance(
        cause, (httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ConnectError)
    ):
        return False
    return isinstance(cause, (TimeoutError, asyncio.CancelledError, httpx.TransportError))


def _pending_text(pending: Pending) -> str:
    said: Mapping[str, object] = {
        "requestId": pending.request_id,
        "pollAfterS": pending.poll_after_s,
    }
    return dumps(said)
