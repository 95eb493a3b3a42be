"""The permits of one question to one credential in one process: who waits, and what is held.

The highest priority gets the earliest moment, and inside a priority who came first. Permits are
asked for in batches by one task that lives while somebody waits; a permit that was not used in its
time is never used late but given back with the next batch. Moments are by `time.monotonic`: the
clock of uvloop knows only whole milliseconds, and a millisecond early is early.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from enrichd.errors import ProviderThrottled, Unavailable
from enrichd.providers.database_clock import US, DatabaseClock
from enrichd.providers.permit_stock import PermitStock
from enrichd.store.rate_limits import PRIORITIES, Grant, Taken, TakenWindow, WindowRow

# A batch is worth a round trip from so many permits on.
BATCH: Final = 8
# How long to gather: while the limit is reached, as long as a batch takes to become free; where
# there is room but not plenty, just so that a burst goes together.
GAP_S_MIN: Final = 0.02
GAP_S_MAX: Final = 0.35
GATHER_S: Final = 0.06
# Moments in hand keep the first in line busy: the next ones are asked for when the last is so near.
NEAR_S: Final = 0.03
# From so many calls a second on, a batch has some to spare for those who come in the next moment.
SPARE_FROM: Final = 10.0
SPARE_S: Final = 0.25
SPARE_MAX: Final = 500
# How late a moment may be used, beside what we are unsure of PostgreSQL's time.
SLACK_S: Final = 0.015
SLACK_S_MIN: Final = 0.02
SLACK_S_MAX: Final = 0.2
# A permit that nobody needs is given back after this long, if no other batch goes before.
LINGER_S: Final = 0.5
# That a limit is reached is not asked again for so long while there are moments to come back at.
CLOSED_S_MAX: Final = 5.0
# An answer of PostgreSQL that takes longer than this counts as none when somebody's patience ends.
SILENT_S: Final = 1.0
# Permits that last so long are leases: there is plenty.
LEASE_US_MIN: Final = 240_000
# As many moments to come back at as PostgreSQL reserves at least.
SOFT_BLOCK: Final = 16
RETRY_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)


class Ask(Protocol):
    """Asks PostgreSQL for permits."""

    def __call__(
        self,
        windows: Sequence[WindowRow],
        *,
        wanted: Sequence[int],
        spare: int,
        unused: Sequence[int],
        slack_us: int,
        patience_s: float,
    ) -> Awaitable[Taken]: ...


@dataclass(eq=False, slots=True)
class Waiter:
    """Somebody who waits for a permit until `deadline`."""

    priority: int
    deadline: float
    permit: asyncio.Future[Grant]


@dataclass(frozen=True, slots=True)
class Counts:
    """What a pool did since it was made."""

    asks: int
    given: int
    unused: int
    """Permits that nobody used in their time."""


class PermitPool:
    """The waiting and the permits of one bucket and operation."""

    def __init__(self, ask: Ask, clock: DatabaseClock, *, bucket: str) -> None:
        self.windows: Sequence[WindowRow] = ()
        self.standing: Sequence[TakenWindow] = ()
        """The windows as they stood at the last answer."""
        self._asks = 0
        self._given = 0
        self._ask = ask
        self._clock = clock
        self._bucket = bucket
        self._lines: list[dict[Waiter, None]] = [{} for _ in range(PRIORITIES)]
        self._stock = PermitStock(clock)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asking_since: float | None = None
        self._asked_at = float("-inf")
        self._came = 0
        self._came_since = float("-inf")
        self._came_a_second = 0.0
        self._rate = 0.0  # permits we got a second, while the limit is reached
        self._gap_s = 0.0
        self._next_us = 0
        self._is_short = False
        self._softs: Iterator[int] = iter(())
        self._failure: Exception | None = None

    async def take(self, *, priority: int, wait_s_max: float) -> float:
        """Return when a call may be made; raise as `RateLimiter.take` does."""
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        self._came += 1
        if not self._waiting() and self._stock.spend(now) is not None:
            self._given += 1
            return now
        self._refuse_while_closed(now, now + wait_s_max)
        waiter = Waiter(priority, now + wait_s_max, loop.create_future())
        self._lines[priority - 1][waiter] = None
        while True:
            grant = await self._wait_in_line(waiter)
            now = time.monotonic()
            if not self._stock.is_late(grant, now):
                return now
            # This loop was held up between the giving and now: too late to be used.
            self._given -= 1
            self._stock.put_away(grant)
            waiter = Waiter(priority, waiter.deadline, loop.create_future())
            self._lines[priority - 1] = {waiter: None, **self._lines[priority - 1]}

    async def _wait_in_line(self, waiter: Waiter) -> Grant:
        loop = asyncio.get_running_loop()
        self._serve()
        timer = loop.call_later(
            max(waiter.deadline - time.monotonic(), 0.0), self._lose_patience, waiter
        )
        try:
            return await waiter.permit
        except asyncio.CancelledError:
            if waiter.permit.done() and not waiter.permit.cancelled():
                self._take_back(waiter.permit)
            raise
        finally:
            timer.cancel()
            self._lines[waiter.priority - 1].pop(waiter, None)

    @property
    def is_idle(self) -> bool:
        """Say whether nobody waits and nothing is held or to be given back."""
        return not (self._waiting() or self._stock or self._stock.has_unused)

    @property
    def counts(self) -> Counts:
        """Return what was asked and given so far."""
        return Counts(self._asks, self._given, self._stock.unused_ever)

    def pause(self, until: float) -> None:
        """Use no permit before a monotonic time: the provider wants to be left alone."""
        self._stock.drop_before(until)
        self._is_short = False
        self._wake()

    async def aclose(self) -> None:
        """Stop; give back what is held if PostgreSQL answers."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._stock.drop_before(float("inf"))
        if self._stock.has_unused:
            try:
                async with asyncio.timeout(SILENT_S):
                    await self._refill()
            except (Unavailable, TimeoutError):
                return

    # Handing out

    def _serve(self) -> None:
        """Give permits whose time has come to the first in line; come again for the next."""
        clock = time.monotonic
        while (waiter := self._first()) is not None and (grant := self._stock.spend(clock())):
            self._given += 1
            self._lines[waiter.priority - 1].pop(waiter)
            waiter.permit.set_result(grant)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if waiter is not None:
            if self._stock:
                pause_s = max(self._stock.first_at - clock(), 0.0)
                self._timer = asyncio.get_running_loop().call_later(pause_s, self._serve)
            if self._lacking():
                self._wake()

    def _first(self) -> Waiter | None:
        for line in self._lines:
            for waiter in line:
                if not waiter.permit.done():
                    return waiter
        return None

    def _take_back(self, permit: asyncio.Future[Grant]) -> None:
        """Give a cancelled one's permit to the next in line."""
        if permit.exception() is None:
            self._given -= 1
            self._stock.add([permit.result()])
            self._serve()

    # Refusing

    def _refuse_while_closed(self, now: float, deadline: float) -> None:
        """Send away at once who cannot wait for the next permit, as far as it is known."""
        if (
            self._is_short
            and self._failure is None
            and now - self._asked_at < CLOSED_S_MAX
            and self._clock.monotonic(self._next_us) > deadline
            and (soft_us := next(self._softs, None)) is not None
        ):
            raise self._throttled(self._clock.monotonic(soft_us) - now)

    def _refuse_hopeless(self) -> None:
        """Send away, each to a moment of its own, those for whom the next permit is too late."""
        now = time.monotonic()
        next_at = self._clock.monotonic(self._next_us)
        in_line = itertools.chain.from_iterable(list(line) for line in self._lines)
        for waiter in itertools.islice(in_line, len(self._stock), None):
            if next_at > waiter.deadline and not waiter.permit.done():
                self._lines[waiter.priority - 1].pop(waiter)
                wait_s = self._clock.monotonic(next(self._softs, self._next_us)) - now
                waiter.permit.set_exception(self._throttled(wait_s))

    def _lose_patience(self, waiter: Waiter) -> None:
        """Send somebody away whose time is over."""
        if waiter.permit.done():
            return
        self._lines[waiter.priority - 1].pop(waiter, None)
        now = time.monotonic()
        is_silent = self._asking_since is not None and now - self._asking_since > SILENT_S
        if self._failure is not None or is_silent:
            error = Unavailable("PostgreSQL gives no permits to call providers now")
            error.__cause__ = self._failure
            waiter.permit.set_exception(error)
            return
        wait_s = self._clock.monotonic(self._next_us) - now if self._next_us else 0.0
        # Nobody reserved a moment for it; not all who waited shall be back at the same one.
        waiter.permit.set_exception(self._throttled(max(wait_s, 0.1) + random.random()))

    def _throttled(self, wait_s: float) -> ProviderThrottled:
        provider = self._bucket.partition("#")[0]
        wait_s = max(wait_s, 0.001)
        return ProviderThrottled(
            f"the rate limit of {provider} is reached: again in {wait_s:.3g} s",
            provider=provider,
            retry_after_s=wait_s,
        )

    # Asking

    def _wake(self) -> None:
        """Have the asking task look again; start it if it is not there."""
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._keep_asking())

    def _waiting(self) -> int:
        return sum(map(len, self._lines))

    def _lacking(self) -> int:
        return max(self._waiting() - len(self._stock), 0)

    def _due_at(self) -> float:
        """Return when the next batch is worth asking for."""
        due_at = self._asked_at + self._gap_s
        if self._is_short:
            best = next(place for place, line in enumerate(self._lines, start=1) if line)
            return max(due_at, self._clock.monotonic(self._next_us) - horizon_s(best))
        if self._stock and self._lacking() < BATCH:
            return max(due_at, self._stock.last_at - NEAR_S)
        return due_at

    async def _keep_asking(self) -> None:
        """Ask while anybody lacks a permit, and once more for what nobody used."""
        pauses_s = iter(RETRY_PAUSES_S)
        clock = time.monotonic
        try:
            while not self.is_idle:
                self._changed.clear()
                if not self._lacking():
                    await self._wait(LINGER_S)
                    self._stock.drop_late(clock())
                    if self._waiting() or self._stock or not self._stock.has_unused:
                        continue
                elif (pause_s := self._due_at() - clock()) > 0:
                    await self._wait(pause_s)
                    continue
                try:
                    await self._refill()
                    pauses_s = iter(RETRY_PAUSES_S)
                except Unavailable as error:
                    self._failure = error
                    if not self._waiting():
                        return
                    await asyncio.sleep(next(pauses_s, RETRY_PAUSES_S[-1]))
        except Exception as error:  # noqa: BLE001
            # A fault of ours: whoever waits is to hear of it, not this task's loop.
            for waiter in itertools.chain.from_iterable(list(line) for line in self._lines):
                if not waiter.permit.done():
                    waiter.permit.set_exception(error)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _refill(self) -> None:
        """Ask for what is lacking and hand it out."""
        clock = time.monotonic
        wanted = self._wanted()
        lacking = sum(wanted)
        unused = self._stock.take_unused()
        slack_s = min(max(self._clock.uncertainty_s + SLACK_S, SLACK_S_MIN), SLACK_S_MAX)
        self._asking_since = clock()
        try:
            taken = await self._ask(
                self.windows,
                wanted=wanted,
                spare=self._spare(clock()) if lacking else 0,
                unused=unused,
                slack_us=int(slack_s * US),
                patience_s=self._patience_s(),
            )
        except BaseException:
            self._stock.keep_unused(unused)
            raise
        finally:
            self._asking_since = None
        self._asks += 1
        self._failure = None
        self._learn(taken, lacking, clock() - self._asked_at)
        self._asked_at = clock()
        self._stock.add(taken.grants)
        self._serve()
        if self._is_short:
            self._refuse_hopeless()

    def _spare(self, now: float) -> int:
        """Return how many permits those who come in the next moment will want."""
        since_s = now - self._came_since
        if since_s > SPARE_S:
            self._came_a_second = self._came / since_s
            self._came, self._came_since = 0, now
        if self._came_a_second < SPARE_FROM:
            return 0
        return min(int(self._came_a_second * SPARE_S), SPARE_MAX)

    def _wanted(self) -> list[int]:
        """Return how many lack a permit, by priority: what is held goes to the first in line."""
        held, wanted = len(self._stock), []
        for line in self._lines:
            wanted.append(max(len(line) - held, 0))
            held = max(held - len(line), 0)
        return wanted

    def _patience_s(self) -> float:
        """Return how long whoever must leave first can wait."""
        deadlines = [waiter.deadline for line in self._lines for waiter in line]
        now = time.monotonic()
        return max(min(deadlines, default=now) - now, 0.0)

    def _learn(self, taken: Taken, lacking: int, since_s: float) -> None:
        """Note how the limit stands and how long the next batch takes to become free."""
        given = sum(grant.permits for grant in taken.grants)
        self.standing = taken.windows
        self._next_us = taken.next_us
        self._is_short = given < lacking
        is_lease = given > 0 and taken.grants[0].end_us - taken.grants[0].start_us > LEASE_US_MIN
        if self._is_short:
            self._rate += (given / max(since_s, 0.01) - self._rate) / 4
            self._gap_s = min(max(BATCH / max(self._rate, 1.0), GAP_S_MIN), GAP_S_MAX)
        else:
            # Whoever asks before the next free moment is near gets no earlier one than if it waits
            # until more have come.
            left_s = self._clock.monotonic(taken.next_us) - time.monotonic() - NEAR_S
            self._gap_s = 0.0 if is_lease else min(max(left_s, GATHER_S), GAP_S_MAX)
        softs: Iterator[int] = iter(())
        if self._is_short and taken.soft_us is not None:
            places = range(max(lacking - given, SOFT_BLOCK))
            softs = iter([taken.soft_us + taken.soft_step_us * place for place in places])
        self._softs = softs


def horizon_s(priority: int) -> float:
    """Return how far ahead permits of a priority reach, as PostgreSQL has it."""
    return 2.4 - 0.4 * priority
