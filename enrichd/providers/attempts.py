"""One call to one provider: within its time, booked however it ends, told to who keeps limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, TypeAlias, TypeVar

import httpx

from enrichd import metrics
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
from enrichd.logs import get_logger
from enrichd.providers.answers import Answers, Lease
from enrichd.providers.base import Asked, Found, Pending, Skipped
from enrichd.providers.call_ends import MAYBE_PAID, NO_CALL, CallEnd, end_of
from enrichd.providers.operations import Operation
from enrichd.providers.roster import Shared

Told: TypeAlias = Asked | Sequence[Found | ProviderError]
"""What became of a call: one answer, or one for each of its questions."""
Answer = TypeVar("Answer", bound=Found | Pending | Sequence[Found | ProviderError])

log = get_logger("providers")

QUESTION_S: Final = 60.0
"""The most that one question to one provider may take, whatever bounds its adapter has."""

OUTCOMES: Final[Mapping[type[ProviderError], str]] = {
    ProviderDown: "down",
    ProviderThrottled: "throttled",
    ProviderDenied: "denied",
    ProviderExhausted: "denied",
    ProviderGarbled: "garbled",
    ProviderRejected: "rejected",
    PersonSuppressed: "suppressed",
}


class Attempt:
    """Leases on their way through one call: ended at the end of the block, however it ends.

    Until `is_sent` no call was made, and everything is given back; from then on, until `settle`
    says how it ended, it may have been paid.
    """

    def __init__(self, answers: Answers, leases: Sequence[Lease]) -> None:
        self._answers = answers
        self._leases = leases
        self._ends: Sequence[CallEnd] | None = None
        self.is_sent = False
        self.is_left = False
        """The answer is still to come: the question's row stays as it is."""

    def settle(self, told: Told) -> None:
        """Say what came of the call."""
        self._ends = [
            end_of(answer, lease.question.operation)
            for lease, answer in zip(self._leases, self.each(told), strict=True)
        ]

    def each(self, told: Told) -> Sequence[Asked]:
        """Return what became of each question."""
        if not isinstance(told, Sequence):
            return [told] * len(self._leases)
        if len(told) == len(self._leases):
            return told
        name = self._leases[0].question.provider_id
        problem = f"{name} answered {len(told)} of {len(self._leases)} questions"
        return [ProviderGarbled(problem, provider=name)] * len(self._leases)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.is_left:
            for lease in self._leases:
                self._answers.leave(lease)
            return
        otherwise = MAYBE_PAID if self.is_sent else NO_CALL
        ends = self._ends if self._ends is not None else [otherwise] * len(self._leases)
        if error is not None:
            # Cancelled, or a defect: whoever is still there writes it.
            for lease, ended in zip(self._leases, ends, strict=True):
                self._answers.end_soon(lease, ended)
            return
        await self._answers.end_all(list(zip(self._leases, ends, strict=True)))


async def timed(
    provider_id: str, call: Callable[[], Awaitable[Answer]]
) -> tuple[Answer | ProviderError, float]:
    """Make a call within its time; return its answer, trouble included, and how long it took."""
    answer: Answer | ProviderError
    started = time.monotonic()
    try:
        async with asyncio.timeout(QUESTION_S):
            answer = await call()
    except ProviderError as error:
        answer = error
    except TimeoutError as error:
        answer = ProviderDown(
            f"{provider_id} did not answer in {QUESTION_S:g} s", provider=provider_id
        )
        answer.__cause__ = error
    except Exception as error:  # noqa: BLE001 - a plug-in's defect must not cost the other sources
        answer = defect_of(provider_id, error)
    seconds = time.monotonic() - started
    metrics.provider_called(provider_id, _outcome(answer), seconds)
    return answer, seconds


def defect_of(provider_id: str, error: Exception) -> ProviderError:
    """Return what an adapter should not have raised as what it means: nothing can be read.

    The text stays in the log: an HTTP library's may hold the address that was asked, key and all.
    """
    kind = type(error).__name__
    said: ProviderError
    if isinstance(error, httpx.TransportError):
        said = ProviderDown(f"{provider_id} cannot be reached: {kind}", provider=provider_id)
    else:
        log.error("provider_raised", provider=provider_id, exc_info=error)
        problem = f"{provider_id} gave an answer that its adapter does not understand: {kind}"
        said = ProviderGarbled(problem, provider=provider_id)
    said.__cause__ = error
    return said


def _outcome(answer: Found | Pending | ProviderError | Sequence[Found | ProviderError]) -> str:
    match answer:
        case ProviderError():
            return OUTCOMES.get(type(answer), answer.code)
        case Found():
            return "found" if answer.is_match else "nothing"
        case Pending():
            return "pending"
        case _:
            is_found = any(isinstance(one, Found) and one.is_match for one in answer)
            return "found" if is_found else "nothing"


async def report(
    shared: Shared, credential: str, operation: Operation, told: Told, seconds: float
) -> None:
    """Tell the breaker and the limiter what an answer says of the provider; never raises."""
    answers = told if isinstance(told, Sequence) else [told]
    standings = [one.standing for one in answers if isinstance(one, Found) and one.standing]
    said = next((one for one in answers if not isinstance(one, Skipped)), None)
    if said is None:
        return
    wait_s = said.retry_after_s if isinstance(said, ProviderThrottled) else None
    if standings or wait_s is not None:
        standing = standings[-1] if standings else None
        await shared.limiter.tighten(credential, operation, standing, retry_after_s=wait_s)
    if not isinstance(said, ProviderError):
        await shared.limiter.observed(credential, operation, seconds)
    await shared.breakers.report(credential, said)
