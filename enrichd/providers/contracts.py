"""A provider's contract as data: what its statuses mean, what it allows, what it charges.

Statuses do not mean the same everywhere: Hunter says 403 for a rate limit and 429 for spent
credits, everybody else the other way round. So each adapter brings its table; `judge` applies it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import assert_never

from enrichd.errors import (
    PersonSuppressed,
    ProviderDenied,
    ProviderDown,
    ProviderExhausted,
    ProviderGarbled,
    ProviderRejected,
    ProviderThrottled,
)
from enrichd.providers.client import Answer, retry_after_s
from enrichd.providers.operations import Operation


class Ending(StrEnum):
    """What an answer means: one list for all providers."""

    OK = "ok"
    PENDING = "pending"
    """It comes later: by polling, or as a callback."""
    VERIFY_FAILED = "verifyFailed"
    """The check itself did not work: nothing is known, worth another try later."""
    NO_MATCH = "noMatch"
    RATE_LIMITED = "rateLimited"
    QUOTA = "quota"
    AUTH = "auth"
    INVALID = "invalid"
    SUPPRESSED = "suppressed"
    TRANSIENT = "transient"


@dataclass(frozen=True, slots=True)
class Window:
    """At most `calls` in any `seconds` in a row."""

    seconds: int
    calls: int


@dataclass(frozen=True, slots=True)
class WindowSeen:
    """What an answer said of a window: our own limits are tightened by it, never loosened."""

    seconds: int
    calls: int | None = None
    left: int | None = None
    reset_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How we stand with a provider by its own word; what it did not say is None or empty."""

    windows: Sequence[WindowSeen] = ()
    credits_left: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """One provider's table."""

    base_url: str
    statuses: Mapping[int, Ending]
    """Besides the common meaning of those not named: 2xx ok, 5xx transient, 4xx invalid."""
    limits: Mapping[Operation | None, Sequence[Window]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """What the provider documents, by operation; None is what all operations share."""
    counted_as: Mapping[Operation, Operation] = field(default_factory=lambda: MappingProxyType({}))
    """Operations that the provider counts together with another: they are the same endpoint."""
    credits: Mapping[Operation, Decimal] = field(default_factory=lambda: MappingProxyType({}))
    """The most that one call costs."""
    bulk: Mapping[Operation, int] = field(default_factory=lambda: MappingProxyType({}))
    """Questions that one call can carry, where it can carry several."""
    needs_key: bool = True

    def ending(self, status: int) -> Ending:
        """Return what a status means."""
        known = self.statuses.get(status)
        if known is not None:
            return known
        if 200 <= status < 300:
            return Ending.OK
        return Ending.TRANSIENT if status >= 500 else Ending.INVALID


def judge(
    answer: Answer,
    contract: Contract,
    *,
    ending: Ending | None = None,
    wait_s: float | None = None,
    reset_after_s: float | None = None,
) -> Ending:
    """Return OK, PENDING, VERIFY_FAILED or NO_MATCH; raise what another ending means.

    `ending` is the adapter's own reading of the body where the status alone does not tell; `wait_s`
    (else Retry-After) and `reset_after_s` are when to come back. The messages hold the status and
    the beginning of the body, never the request.
    """
    name, meaning = answer.provider, ending or contract.ending(answer.status)
    told = f"{name} answered {answer.status}: {answer.shown()!r}"
    match meaning:
        case Ending.OK | Ending.PENDING | Ending.VERIFY_FAILED | Ending.NO_MATCH:
            return meaning
        case Ending.RATE_LIMITED:
            wait_s = retry_after_s(answer.headers) if wait_s is None else wait_s
            raise ProviderThrottled(
                f"{name} limits its rate: again in {wait_s:g} s",
                provider=name,
                retry_after_s=wait_s,
            )
        case Ending.QUOTA:
            raise ProviderExhausted(told, provider=name, reset_after_s=reset_after_s)
        case Ending.AUTH:
            raise ProviderDenied(told, provider=name)
        case Ending.INVALID:
            raise ProviderRejected(told, provider=name)
        case Ending.SUPPRESSED:
            raise PersonSuppressed(f"{name} may not speak of this person", provider=name)
        case Ending.TRANSIENT:
            raise ProviderDown(f"{name} answered {answer.status}", provider=name)
        case _:
            assert_never(meaning)


def garbled(answer: Answer, what: str) -> ProviderGarbled:
    """Return the error for a body that is JSON but not the shape that was agreed."""
    return ProviderGarbled(
        f"{answer.provider} answered {answer.status} with {what}: {answer.shown()!r}",
        provider=answer.provider,
    )
