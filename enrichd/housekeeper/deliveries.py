"""Webhook deliveries: claims what is due, sends it, records what came of it.

Each receiver has a line of its own: at most `concurrency` requests at once, however much waits for
it, so one that is slow delays itself alone; and all those of a host have a bound together. A
receiver that answers well is handed more per claim, one that does not is asked with a single
request until it does. One turn at a time talks to PostgreSQL, and what ends meanwhile is recorded
by the next.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from enrichd import metrics
from enrichd.domain.webhook_schedule import pause_s
from enrichd.errors import Unavailable
from enrichd.housekeeper.receivers import FIRST_PACE, PACE_MAX, Held, Host, Line, Place
from enrichd.logs import get_logger
from enrichd.processing.pauses import backoff
from enrichd.settings import Settings
from enrichd.store import deliveries
from enrichd.store.database import RACES, Database, storing
from enrichd.store.deliveries import ATTEMPTS_RECORDED_MAX, Attempted, Due
from enrichd.store.installation import Installation
from enrichd.store.sealing import Unreadable
from enrichd.webhooks import messages
from enrichd.webhooks.endpoints import guard_of
from enrichd.webhooks.secrets import SigningKeys
from enrichd.webhooks.sender import Answer, Sender

CONCURRENCY = 4
HOST_LINES = 8
"""So many times a receiver's own requests may be under way to all receivers of one host."""
HELD_MAX = 2_000
"""Deliveries in memory, under way or next."""
TROUBLED_SHARE = 0.5
"""What troubled receivers together may hold of HELD_MAX."""
LINES_MAX = 10_000

GATHER_S = 0.02
"""What ends within it is recorded together."""
WARM_S = 3.0
WARM_LOOK_S = 0.1
COLD_LOOK_S = 60.0
"""Without a word from the housekeeper's own look, which asks each second what is due."""
HELD_S_MAX = 20.0
"""A delivery that has not begun after this long is given back: its lease runs out."""
GRACE_S = 5.0
THROTTLE_S = 5.0
THROTTLE_S_MAX = 300.0

log = get_logger("webhooks")

Keys = Callable[[Due, datetime], Awaitable[Sequence[bytes]]]
"""The keys that sign a delivery, by the database's time. Raises Unreadable."""


class Deliverer:
    """Sends what is due until cancelled; the connection and the sender are its own."""

    def __init__(
        self,
        database: Database,
        sender: Sender,
        keys: Keys,
        *,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._database = database
        self._sender = sender
        self._keys = keys
        self._concurrency = concurrency
        self._lines: dict[str, Line] = {}
        self._hosts: dict[str, Host] = {}
        self._held = 0
        self._ended: list[Attempted] = []
        self._running: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._after = ""
        self._warm_until = 0.0

    def wake(self) -> None:
        """Look soon: something is due."""
        self._woken.set()

    async def run(self) -> None:
        """Claim, send and record until cancelled; then finish what is under way, for a while."""
        try:
            await self._work()
        finally:
            await self._finish()

    async def _work(self) -> None:
        pauses_s = backoff()
        while True:
            self._woken.clear()  # Before the look: what comes during it is looked at next.
            try:
                await self._record()
                claimed = await self._claim()
                pauses_s = backoff()
            except (Unavailable, *RACES) as error:
                log.warning("webhooks_wait_for_database", reason=str(error))
                await asyncio.sleep(next(pauses_s))
                continue
            except Exception as error:
                log.error("deliveries_broke", exc_info=error)
                await asyncio.sleep(next(pauses_s))
                continue
            now = self._time()
            if claimed:
                self._warm_until = now + WARM_S
            pause = GATHER_S if claimed or self._ended else self._pause(now)
            if pause > GATHER_S:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._woken.wait()
            await asyncio.sleep(GATHER_S)

    def _pause(self, now: float) -> float:
        is_warm = now < self._warm_until or self._held
        return WARM_LOOK_S if is_warm else COLD_LOOK_S

    # Claim.

    async def _claim(self) -> int:
        room = HELD_MAX - self._held
        if room <= 0:
            return 0
        async with self._database.connection() as conn:
            claim = await deliveries.claim(
                conn,
                room=room,
                quota=FIRST_PACE,
                quotas=self._quotas(),
                after=self._after,
            )
        self._after = claim.after
        at = self._time()
        for due in claim.due:
            assert claim.now is not None
            line = self._lines.setdefault(due.target, Line())
            line.waiting.append(Held(due, claim.now, at))
            self._held += 1
        for target in {due.target for due in claim.due}:
            self._start(self._lines[target])
        return len(claim.due)

    def _quotas(self) -> dict[str, int]:
        """Return how many more each known receiver may be handed."""
        now = self._time()
        troubled = sum(line.held for line in self._lines.values() if line.is_troubled)
        has_room = troubled < HELD_MAX * TROUBLED_SHARE
        quotas = {}
        for target, line in list(self._lines.items()):
            if line.blocked_until and line.blocked_until <= now:
                line.blocked_until = 0.0
            if line.is_plain:
                del self._lines[target]
            elif line.blocked_until:
                quotas[target] = 0
            elif line.is_troubled:
                quotas[target] = max(1 - line.held, 0) if has_room else 0
            else:
                quotas[target] = max(line.pace - line.held, 0)
        self._forget()
        return quotas

    def _forget(self) -> None:
        """Keep the memory of receivers bounded: forget the idle ones that were met first."""
        for target in list(self._lines):
            if len(self._lines) <= LINES_MAX:
                return
            if not self._lines[target].held:
                del self._lines[target]

    # Send.

    def _start(self, line: Line) -> None:
        """Put as many requests under way as the line, and its host, may have."""
        limit = 1 if line.is_troubled else self._concurrency
        while line.waiting and line.running < limit:
            place = self._host(line.waiting[0].host).enter(line)
            if place is None:
                return
            line.running += 1
            task = asyncio.create_task(self._serve(line, line.waiting.popleft(), place))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _host(self, name: str) -> Host:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = Host(name, HOST_LINES * self._concurrency)
        return host

    async def _serve(self, line: Line, held: Held, place: Place) -> None:
        """Send one delivery after the other for as long as the line has any and may."""
        host = place.host
        try:
            while True:
                await self._attempt(line, held)
                self._held -= 1
                if line.is_troubled or host.queue or host.extra_queue:
                    return
                self._start(line)
                if not line.waiting or line.waiting[0].host != host.name:
                    return
                held = line.waiting.popleft()
        finally:
            line.running -= 1
            place.leave()
            while (queued := host.next_line()) is not None:
                self._start(queued)
            self._start(line)
            if host.is_idle:
                self._hosts.pop(host.name, None)

    async def _attempt(self, line: Line, held: Held) -> None:
        due = held.due
        now = self._time()
        if now - held.at > HELD_S_MAX or line.blocked_until > now:
            self._end(Attempted(due.id, due.attempt, "pending", is_sent=False))
            return
        if not due.is_wanted or due.url is None or due.data is None:
            error = "pruned" if due.data is None else "endpoint_disabled"
            self._end(Attempted(due.id, due.attempt, "failed", error=error, is_sent=False))
            metrics.webhook("dropped")
            return
        try:
            answer = await self._send(held, due.url, due.data)
        except (asyncio.CancelledError, Unavailable) as error:
            self._end(Attempted(due.id, due.attempt, "pending", is_sent=False))
            if isinstance(error, Unavailable):
                return
            raise
        except Exception as error:  # One delivery must not end the others.
            log.error("delivery_broke", exc_info=error, delivery_id=str(due.id))
            answer = Answer(None, None, 0.0, "internal")
        self._judge(line, answer)
        self._end(attempted(due, answer))
        metrics.webhook(outcome(answer), answer.latency_s, due.waited_s)

    async def _send(self, held: Held, url: str, data: str) -> Answer:
        due = held.due
        now = held.now + timedelta(seconds=self._time() - held.at)
        try:
            keys = await self._keys(due, now)
        except Unreadable as error:
            log.error(
                "webhook_secret_unreadable", webhook_id=str(due.webhook_id), reason=str(error)
            )
            return Answer(None, None, 0.0, "secret_unreadable")
        body = messages.body(
            event=due.event,
            at=due.created_at,
            data=data,
            sequence=due.sequence,
            job_path=f"/api/enrichment/jobs/{due.job_id}",
        )
        return await self._sender.send(
            url, message_id=str(due.id), timestamp=int(now.timestamp()), body=body, keys=keys
        )

    def _judge(self, line: Line, answer: Answer) -> None:
        """Learn from an answer how much the receiver can take."""
        if answer.is_taken:
            line.failures = 0
            line.pace = min(line.pace + 1, PACE_MAX)
            return
        line.failures += 1
        line.pace = FIRST_PACE
        if answer.asks_for_less:
            wait_s = min(max(answer.retry_after_s or 0.0, THROTTLE_S), THROTTLE_S_MAX)
            line.blocked_until = self._time() + wait_s

    def _end(self, one: Attempted) -> None:
        self._ended.append(one)
        self._woken.set()

    # Record.

    async def _record(self) -> None:
        while self._ended:
            batch = self._ended[:ATTEMPTS_RECORDED_MAX]
            async with self._database.connection() as conn:
                disabled = await storing(lambda: deliveries.record(conn, attempted=batch))  # noqa: B023
            del self._ended[: len(batch)]
            for one in disabled:
                log.warning(
                    "webhook_disabled",
                    webhook_id=str(one.webhook_id),
                    workspace_id=one.workspace_id,
                    reason=one.reason,
                )

    async def _finish(self) -> None:
        """Let what is under way end, give the rest back, and record it all."""
        for line in self._lines.values():
            for held in line.waiting:
                due = held.due
                self._ended.append(Attempted(due.id, due.attempt, "pending", is_sent=False))
            line.waiting.clear()
        if self._running:
            await asyncio.wait(self._running, timeout=GRACE_S)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        with suppress(Unavailable):
            await self._record()
        await self._sender.close()
        await self._database.close()

    def _time(self) -> float:
        return asyncio.get_running_loop().time()


def deliverer_of(settings: Settings, database: Database) -> Deliverer:
    """Return what sends webhooks as the settings ask for."""
    return Deliverer(
        database,
        Sender(guard_of(settings), timeout_s=settings.webhook_timeout_s),
        SigningKeys(settings, Installation(database, settings)),
        concurrency=settings.webhook_concurrency,
    )


def attempted(due: Due, answer: Answer) -> Attempted:
    """Return what an answer means for a delivery."""
    pause = None
    status = "delivered"
    if not answer.is_taken:
        pause = pause_s(due.attempt, retry_after_s=answer.retry_after_s, dice=random.random())
        status = "failed" if pause is None or answer.is_gone else "pending"
    return Attempted(
        due.id,
        due.attempt,
        status,
        delay_s=pause or 0.0,
        answer_status=answer.status,
        answer=answer.text,
        latency_ms=round(answer.latency_s * 1000),
        error=answer.error,
        is_gone=answer.is_gone,
    )


def outcome(answer: Answer) -> str:
    """Return what an answer is counted as: few words, whoever answered."""
    if answer.is_taken:
        return "delivered"
    if answer.status is None:
        return answer.error or "bad_response"
    return "redirected" if answer.status < 400 else f"http_{answer.status // 100}xx"
