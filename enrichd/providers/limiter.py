"""RateLimiter: when a call to a provider may be made, across all processes and hosts.

Permits come in batches from PostgreSQL (`store.rate_limits`), are handed out here by priority, and
are strict: no window of a provider ever holds more calls than its limit, whatever this host's clock
says. A provider's own word (Retry-After, its rate headers) tightens the limits for everybody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Final

from enrichd.errors import Unavailable
from enrichd.logs import get_logger
from enrichd.providers.contracts import Standing, Window, WindowSeen
from enrichd.providers.database_clock import DatabaseClock
from enrichd.providers.operations import Operation
from enrichd.providers.permits import Counts, PermitPool
from enrichd.store import provider_state, rate_limits
from enrichd.store.database import Database
from enrichd.store.rate_limits import PRIORITIES, SHARED, Taken, ToldWindow, WindowRow

# A provider says how we stand with every answer; so often it is passed on at most.
TELL_S: Final = 1.0
# What a provider said counts for a day, so it is repeated well before.
TELL_AGAIN_S: Final = 3600.0
CAP_S: Final = 1.0
CAP_CHANGE: Final = 0.25
# Another's word, or a breaker's, may have replaced ours.
CAP_AGAIN_S: Final = 30.0
LATENCY_WEIGHT: Final = 0.1
# A run's time with a provider is the call's and this much of waiting for its permit: without it
# each process has so few waiting that it asks for one or two permits at a time.
PERMIT_WAIT_S: Final = 0.25
POOLS_MAX: Final = 1000
# A month's quota is no rate: a window this long is somebody else's number.
WINDOW_S_MAX: Final = 7 * 86_400
CALLS_MAX: Final = 1_000_000_000
# Nobody stops a provider for longer by one answer.
RETRY_AFTER_S_MAX: Final = 86_400.0

log = get_logger("providers")


class RateLimiter:
    """The permits of one process and one event loop, for any number of credentials."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = DatabaseClock()
        self._pools: dict[tuple[str, str], PermitPool] = {}
        self._told: dict[tuple[str, str, int], tuple[int | None, float]] = {}
        self._paused_until: dict[tuple[str, str], float] = {}
        self._latency_s: dict[str, float] = {}
        self._caps: dict[str, tuple[int, float]] = {}

    async def take(
        self,
        bucket: str,
        operation: Operation,
        windows: Mapping[str, Sequence[Window]],
        *,
        priority: int = 3,
        wait_s_max: float = 5.0,
    ) -> float:
        """Return when one call may be made, at once; the moment, by `time.monotonic`.

        The windows hold for these moments; how long a call is on its way is not ours to know.
        `windows` are our limits by operation; those under `*` hold for all operations together.
        Raises ProviderThrottled if that moment is further away than `wait_s_max` or did not come in
        that time, and Unavailable if PostgreSQL gave no permits for that long.
        """
        pool = self._pool(bucket, operation)
        pool.windows = rows_of(windows, operation)
        return await pool.take(priority=min(max(priority, 1), PRIORITIES), wait_s_max=wait_s_max)

    async def tighten(
        self,
        bucket: str,
        operation: Operation,
        standing: Standing | None,
        *,
        retry_after_s: float | None = None,
    ) -> None:
        """Take a provider at its word, as far as it is stricter than what we know.

        Costs a round trip at most once a second, and for each new Retry-After. Never raises: what
        it says comes with the next answer again.
        """
        now = time.monotonic()
        key = bucket, operation.value
        news = [told for seen in (standing.windows if standing else ()) if (told := usable(seen))]
        news = [told for told in news if self._is_news(key, told, now)]
        if retry_after_s is not None and not retry_after_s > 0:  # not a number is not above 0
            retry_after_s = None
        if retry_after_s is not None:
            retry_after_s = min(retry_after_s, RETRY_AFTER_S_MAX)
            # Twenty calls that were under way are refused together: one message is enough.
            until = now + retry_after_s
            if until < self._paused_until.get(key, 0.0) + TELL_S / 2:
                retry_after_s = None
            else:
                self._paused_until[key] = until
                self._pool(bucket, operation).pause(until)
        if not news and retry_after_s is None:
            return
        for told in news:
            self._told[*key, told.seconds] = told.calls, now
        try:
            async with self._database.connection() as conn:
                await rate_limits.tell(
                    conn,
                    bucket=bucket,
                    operation=operation.value,
                    windows=sorted(news, key=lambda told: told.seconds),
                    retry_after_s=retry_after_s,
                )
        except Unavailable as error:
            log.debug("limits_not_told", bucket=bucket, reason=error.message)
        if retry_after_s is not None:
            # What was given while the message was under way is early as well.
            self._pool(bucket, operation).pause(self._paused_until[key])

    async def observed(self, bucket: str, operation: Operation, seconds: float) -> None:
        """Learn how long a call took, so that no more jobs are claimed than the rate feeds.

        Costs a round trip at most once a second, when the cap changed by a quarter. Never raises.
        """
        known_s = self._latency_s.get(bucket, seconds)
        known_s += (seconds - known_s) * LATENCY_WEIGHT
        self._latency_s[bucket] = known_s
        cap = self._inflight_cap(bucket, operation, known_s)
        now = time.monotonic()
        reported, reported_at = self._caps.get(bucket, (0, float("-inf")))
        is_same = abs(cap - reported) < max(reported * CAP_CHANGE, 1)
        pause_s = CAP_AGAIN_S if is_same else CAP_S
        if not cap or now - reported_at < pause_s:
            return
        self._caps[bucket] = cap, now
        try:
            async with self._database.connection() as conn:
                await provider_state.set_inflight_cap(conn, credential=bucket, cap=cap)
        except Unavailable as error:
            log.debug("cap_not_reported", bucket=bucket, reason=error.message)

    async def aclose(self) -> None:
        """Stop asking and give back what is held; whoever still waits is cancelled by its owner."""
        for pool in self._pools.values():
            await pool.aclose()

    def counts(self, bucket: str, operation: Operation) -> Counts:
        """Return what was asked and given for a question so far."""
        return self._pool(bucket, operation).counts

    def _pool(self, bucket: str, operation: Operation) -> PermitPool:
        key = bucket, operation.value
        pool = self._pools.get(key)
        if pool is None:
            self._forget_idle()

            async def ask(
                windows: Sequence[WindowRow],
                *,
                wanted: Sequence[int],
                spare: int,
                unused: Sequence[int],
                slack_us: int,
                patience_s: float,
            ) -> Taken:
                async with self._database.connection() as conn:
                    sent_at = time.monotonic()
                    taken = await rate_limits.take(
                        conn,
                        bucket=bucket,
                        operation=operation.value,
                        windows=windows,
                        wanted=wanted,
                        spare=spare,
                        unused=unused,
                        slack_us=slack_us,
                        patience_s=patience_s,
                    )
                    received_at = time.monotonic()
                    self._clock.note(sent_at=sent_at, received_at=received_at, now_us=taken.now_us)
                return taken

            pool = self._pools[key] = PermitPool(ask, self._clock, bucket=bucket)
        return pool

    def _forget_idle(self) -> None:
        """Keep memory bounded, however many workspaces bring their own keys."""
        if len(self._pools) < POOLS_MAX:
            return
        self._pools = {key: pool for key, pool in self._pools.items() if not pool.is_idle}
        for memory in (self._told, self._paused_until, self._latency_s, self._caps):
            memory.clear()

    def _is_news(self, key: tuple[str, str], told: ToldWindow, now: float) -> bool:
        """Say whether what a provider said of a window may be stricter than what is known."""
        pool = self._pools.get(key)
        known = [
            window for window in (pool.standing if pool else ()) if window.seconds == told.seconds
        ]
        calls, told_at = self._told.get((*key, told.seconds), (None, float("-inf")))
        if now - told_at < TELL_S:
            return False
        if told.calls is not None and (told.calls != calls or now - told_at > TELL_AGAIN_S):
            if not known or told.calls < min(window.limit for window in known):
                return True
            if calls is not None and told.calls > calls:
                return True  # It told us a lower one before, and takes that back.
        return told.left is not None and (
            told.left <= 0 or any(told.left < window.left for window in known)
        )

    def _inflight_cap(self, bucket: str, operation: Operation, latency_s: float) -> int:
        """Return how many runs the rate can feed, by Little's law and half as many again; 0: any.

        The shortest window counts: a longer one is kept by pausing the lane.
        """
        windows = self._pool(bucket, operation).standing
        if not windows:
            return 0
        shortest = min(window.seconds for window in windows)
        rate = min(w.limit / w.seconds for w in windows if w.seconds == shortest)
        return math.ceil(rate * (latency_s + PERMIT_WAIT_S) * 1.5) + 1


def rows_of(windows: Mapping[str, Sequence[Window]], operation: Operation) -> list[WindowRow]:
    """Return the windows that hold for an operation, the strictest of equal ones, in key order."""
    strictest: dict[tuple[str, int], int] = {}
    for name in (SHARED, operation.value):
        for window in windows.get(name, ()):
            key = name, window.seconds
            strictest[key] = min(window.calls, strictest.get(key, window.calls))
    return [WindowRow(name, seconds, calls) for (name, seconds), calls in sorted(strictest.items())]


def usable(seen: WindowSeen) -> ToldWindow | None:
    """Return what a provider said of a window as it can be kept; None for nonsense."""
    if not 1 <= seen.seconds <= WINDOW_S_MAX:
        return None
    calls = seen.calls if seen.calls is not None and 1 <= seen.calls <= CALLS_MAX else None
    left = None if seen.left is None else min(max(seen.left, 0), CALLS_MAX)
    reset_s = seen.reset_after_s
    if reset_s is not None:
        # Not a number compares as neither; a window never ends later than it is long.
        reset_s = min(max(reset_s, 0.0), float(seen.seconds)) if reset_s == reset_s else None
    if calls is None and left is None:
        return None
    return ToldWindow(seen.seconds, calls, left, reset_s)
