"""Breakers: which credentials are not to be called now, one truth for all processes.

The rows are in PostgreSQL (`store.provider_state`); a process looks at the troubled ones at most
once a second and otherwise answers from memory. A breaker that was open long enough lets in one
probe of the whole fleet, whose answer closes it or opens it for twice as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal
from uuid import UUID

from uuid_utils.compat import uuid7

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
    Unavailable,
)
from enrichd.logs import get_logger
from enrichd.providers.base import Found, Pending
from enrichd.store import provider_state
from enrichd.store.database import Database
from enrichd.store.provider_state import BreakerState, CallCounts, Trouble

VIEW_S: Final = 1.0
# Without PostgreSQL the last view serves for so long; nothing is known after that.
VIEW_S_MAX: Final = 60.0
DENIED_S: Final = 3600.0
EXHAUSTED_S_MAX: Final = 32 * 86_400.0
REASON_LENGTH_MAX: Final = 300

BREAKER_OPEN: Final = "breaker_open"
PAUSED: Final = "paused"

log = get_logger("providers")


class Breakers:
    """The breakers as one process and event loop sees them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owner: UUID = uuid7()
        self._states: dict[str, BreakerState] = {}
        self._viewed_at = float("-inf")
        self._tried_at = float("-inf")
        self._looking = asyncio.Lock()
        self._probing: dict[str, float] = {}
        self._untold: dict[str, CallCounts] = {}
        self._told_at: dict[str, float] = {}

    async def allows(self, credential: str) -> str | None:
        """Return None if a call may be made, which may be the probe, or else why not.

        Whoever is let in reports how it ended. `paused` is a breaker that a person opened. Costs a
        round trip once a second and for a probe. Raises Unavailable if nothing was known for long.
        """
        if reason := await self.refusal(credential):
            return reason
        state = self._states.get(credential)
        if state is None or state.breaker == "closed" or await self._begin_probe(credential):
            return None
        return _refusal_of(state)

    async def refusal(self, credential: str) -> str | None:
        """Return why no call may be made, as `allows` does, or None; a probe is left to others.

        So that nothing is set aside for a call that will not be made.
        """
        await self._look()
        state = self._states.get(credential)
        if state is None or state.breaker == "closed" or self._is_due(state):
            return None
        return _refusal_of(state)

    def again_s(self, credential: str) -> float | None:
        """Return when a breaker that did not let a call in may be probed; None if nobody knows."""
        state = self._states.get(credential)
        if state is None or state.breaker != "open":
            return 0.0
        if state.open_for_s is None:
            return None
        return max(state.open_for_s - (self._now() - self._viewed_at), 0.0)

    async def report(self, credential: str, answer: Found | Pending | ProviderError) -> None:
        """Say how a call ended. Never raises.

        A success costs nothing while all goes well, and a round trip a second while failures are
        counted. What PostgreSQL could not be told is told with the next report.
        """
        is_failure = isinstance(answer, ProviderDown | ProviderGarbled | ProviderDenied)
        try:
            if credential in self._live_probes():
                await self._end_probe(credential, answer)
            elif isinstance(answer, ProviderDenied):
                await self._open(credential, answer, open_s=_open_s(answer))
            elif not isinstance(answer, ProviderThrottled):
                self._count(credential, is_failure=is_failure)
                await self._tell(credential, answer if is_failure else None)
        except Unavailable as error:
            log.debug("breaker_not_told", provider=credential, reason=error.message)

    # Looking

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _look(self) -> None:
        """Have a view that is at most a second old, if PostgreSQL answers."""
        if self._now() - self._tried_at < VIEW_S:
            self._check_view()
            return
        if self._looking.locked() and self._now() - self._viewed_at < 2 * VIEW_S:
            return  # Somebody is looking already, and the last view is young enough.
        async with self._looking:
            if self._now() - self._tried_at < VIEW_S:
                self._check_view()
                return
            try:
                async with self._database.connection() as conn:
                    seen = await provider_state.troubled(conn)
            except Unavailable as error:
                self._tried_at = self._now()
                if self._now() - self._viewed_at > VIEW_S_MAX:
                    raise
                log.debug("breakers_not_seen", reason=error.message)
                return
            self._see(seen)

    def _check_view(self) -> None:
        if self._now() - self._viewed_at > VIEW_S_MAX:
            raise Unavailable("PostgreSQL does not say which providers may be called")

    def _see(self, seen: Sequence[BreakerState]) -> None:
        self._tried_at = self._viewed_at = self._now()
        self._states = {state.credential: state for state in seen}

    def _forget_view(self) -> None:
        """Look again before the next call: we changed something."""
        self._tried_at = float("-inf")

    # Probing

    def _live_probes(self) -> dict[str, float]:
        now = self._now()
        if self._probing:
            self._probing = {name: ends for name, ends in self._probing.items() if ends > now}
        return self._probing

    def _is_due(self, state: BreakerState) -> bool:
        """Say whether nobody probes a breaker and somebody should."""
        if state.is_probed or state.credential in self._live_probes():
            return False
        if state.breaker == "half_open":
            return True
        age_s = self._now() - self._viewed_at
        return state.open_for_s is not None and age_s >= state.open_for_s

    async def _begin_probe(self, credential: str) -> bool:
        # Noted before the round trip, so that no second caller here asks as well.
        self._probing[credential] = self._now() + provider_state.PROBE_S
        try:
            async with self._database.connection() as conn:
                is_ours = await provider_state.begin_probe(
                    conn, credential=credential, owner=self._owner
                )
        except BaseException:
            self._probing.pop(credential, None)
            raise
        if is_ours:
            log.info("breaker_probed", provider=credential)
        else:
            self._probing.pop(credential, None)
            if (state := self._states.get(credential)) is not None:
                self._states[credential] = replace(state, is_probed=True)
        return is_ours

    async def _end_probe(self, credential: str, answer: Found | Pending | ProviderError) -> None:
        end: Literal["success", "failure", "nothing"]
        open_s: float | None = None
        match answer:
            case ProviderThrottled():
                end = "nothing"
            case ProviderDenied():
                end, open_s = "failure", _open_s(answer)
            case ProviderDown() | ProviderGarbled():
                end = "failure"
            case _:
                end = "success"
        reason = _reason(answer) if isinstance(answer, ProviderError) else None
        self._probing.pop(credential, None)
        self._untold.pop(credential, None)
        async with self._database.connection() as conn:
            is_ours = await provider_state.end_probe(
                conn,
                credential=credential,
                owner=self._owner,
                end=end,
                reason=reason,
                trouble=_trouble(answer),
                open_s=open_s,
            )
        self._forget_view()
        if is_ours:
            log.info("breaker_probe_ended", provider=credential, end=end, reason=reason)

    # Counting

    def _count(self, credential: str, *, is_failure: bool) -> None:
        counts = self._untold.get(credential, CallCounts())
        self._untold[credential] = CallCounts(
            counts.succeeded + (not is_failure),
            counts.failed + is_failure,
            counts.streak + 1 if is_failure else 0,
        )

    async def _tell(self, credential: str, failure: Found | Pending | ProviderError | None) -> None:
        """Add what was counted here to what all count, if it may matter."""
        now = self._now()
        if failure is None:
            if credential not in self._states and not self._untold[credential].failed:
                # All is well. Successes of the last moments are kept for the share of failures.
                told_at = self._told_at.setdefault(credential, now)
                if now - told_at > provider_state.RECENT_S:
                    self._told_at[credential] = now
                    self._untold[credential] = CallCounts()
                return
            if now - self._told_at.get(credential, float("-inf")) < VIEW_S:
                return
        counts = self._untold.pop(credential)
        self._told_at[credential] = now
        try:
            async with self._database.connection() as conn:
                is_enough = await provider_state.count(conn, credential=credential, counts=counts)
        except BaseException:
            newer = self._untold.get(credential, CallCounts())
            self._untold[credential] = CallCounts(
                counts.succeeded + newer.succeeded,
                counts.failed + newer.failed,
                newer.streak if newer.succeeded else counts.streak + newer.streak,
            )
            raise
        if is_enough and isinstance(failure, ProviderError):
            await self._open(credential, failure, open_s=provider_state.OPEN_S)

    async def _open(self, credential: str, error: ProviderError, *, open_s: float) -> None:
        reason = _reason(error)
        async with self._database.connection() as conn:
            is_opened = await provider_state.open_breaker(
                conn,
                credential=credential,
                reason=reason,
                trouble=_trouble(error),
                open_s=open_s,
            )
        self._untold.pop(credential, None)
        self._forget_view()
        if is_opened:
            log.warning("breaker_opened", provider=credential, open_s=open_s, reason=reason)


def _refusal_of(state: BreakerState) -> str:
    return PAUSED if state.is_set_by_hand else BREAKER_OPEN


def call_ended(provider: str, answer: Found | Pending | ProviderError, seconds: float) -> None:
    """Count a call for the metrics, whatever its credential."""
    metrics.provider_called(provider, outcome_of(answer), seconds)


def outcome_of(answer: Found | Pending | ProviderError) -> str:
    """Return a call's end as the metrics name it."""
    match answer:
        case Pending():
            return "pending"
        case Found():
            return "found" if answer.is_match else "nothing"
        case ProviderThrottled():
            return "throttled"
        case ProviderDenied():
            return "denied"
        case ProviderRejected():
            return "rejected"
        case PersonSuppressed():
            return "suppressed"
        case ProviderGarbled():
            return "garbled"
        case _:
            return "down"


def _open_s(denied: ProviderDenied) -> float:
    reset_s = denied.reset_after_s if isinstance(denied, ProviderExhausted) else None
    if reset_s is None or not 0 < reset_s <= EXHAUSTED_S_MAX:
        return DENIED_S
    return reset_s


def _trouble(answer: Found | Pending | ProviderError) -> Trouble:
    if isinstance(answer, ProviderExhausted):
        return "exhausted"
    return "denied" if isinstance(answer, ProviderDenied) else "failing"


def _reason(error: ProviderError) -> str:
    # Control characters of a provider's answer have no place in a table that people look at.
    text = "".join(sign if sign.isprintable() else " " for sign in error.message)
    return text[:REASON_LENGTH_MAX].encode(errors="replace").decode()
