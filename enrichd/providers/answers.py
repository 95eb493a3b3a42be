"""Every answer paid once: kept for a while, and asked for by one at a time, over all processes.

A question goes first to this process's memory, then, with all that gather at the same time, to
PostgreSQL. There it finds an answer, somebody who is asking the same, a cap in its way, or it gets
the lease: then it may be put, and nobody else puts it until the lease is ended. Tenants never see
each other's answers: workspace and question together are the key, in memory too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final
from uuid import UUID

import orjson
from uuid_utils.compat import uuid7

from enrichd.errors import PersonSuppressed
from enrichd.logs import get_logger
from enrichd.providers.answer_json import from_text
from enrichd.providers.answer_memory import AnswerMemory, Place
from enrichd.providers.base import Found, Pending, Skipped
from enrichd.providers.call_ends import CallEnd
from enrichd.providers.credits import NO_CAPS, Caps
from enrichd.providers.group_commit import GroupCommit
from enrichd.providers.questions import Question
from enrichd.providers.suppressions import hashes_of
from enrichd.store import answers
from enrichd.store.answers import Beginning, End, Verdict
from enrichd.store.database import Database, storing

MEMORY_BYTES_MAX: Final = 16 * 1024 * 1024
MEMORY_S: Final = 30.0
"""Short, so that what was erased elsewhere is soon gone here."""
LEASE_S: Final = 120.0
"""The wait for a permit, the call's own bound, and half a minute for its record."""
WAIT_S_MAX: Final = 30.0
"""The longest that somebody waits for another's answer; it costs a run its slot."""
POLL_S_MIN: Final = 0.025
POLL_S_MAX: Final = 0.25
BATCH_MAX: Final = 200
WAITING_MAX: Final = 20_000
HITS_S: Final = 5.0
"""How often the hits that were counted here are written."""
FREED_MAX: Final = 1000

UNKNOWN: Final = Skipped("unknown")
"""There is no answer, for those who may not ask."""

log = get_logger("answers")


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to put a question; it must be given back by `end`."""

    question: Question
    call_id: UUID
    pending: Pending | None = None
    """The answer that is still to come, if the question was put by an earlier run."""
    paid: Decimal = Decimal(0)
    """What earlier calls of the same lead's did cost, without an answer."""


class Answers:
    """One process's way to the kept answers; close it before its database."""

    def __init__(
        self,
        database: Database,
        caps: Caps = NO_CAPS,
        *,
        memory_bytes_max: int = MEMORY_BYTES_MAX,
        memory_s: float = MEMORY_S,
        lease_s: float = LEASE_S,
        wait_s_max: float = WAIT_S_MAX,
    ) -> None:
        self._database = database
        self._caps = caps
        self._memory = AnswerMemory(memory_bytes_max, memory_s)
        self._lease_s = lease_s
        self._wait_s_max = wait_s_max
        self._under_way: dict[Place, asyncio.Event] = {}
        """What this process asks PostgreSQL or a provider at this moment."""
        self._freed: deque[End] = deque(maxlen=FREED_MAX)
        """Leases that were perhaps taken when PostgreSQL went away: given back with other ends."""
        self._hits: Counter[tuple[str, str, str]] = Counter()
        self._hits_timer: asyncio.TimerHandle | None = None
        self._pepper: bytes | None = None
        self.begins: GroupCommit[Beginning, Verdict] = GroupCommit(
            self._run_begins,
            size_max=BATCH_MAX,
            waiting_max=WAITING_MAX,
            tries=2,
            unclaimed=self._give_back_unclaimed,
            failed=self._give_back_later,
        )
        self.ends: GroupCommit[tuple[End, Sequence[str]], str] = GroupCommit(
            self._run_ends,
            size_max=BATCH_MAX,
            waiting_max=WAITING_MAX,
            tries=None,
            failed=_report_lost,
        )
        self._hit_writes: GroupCommit[Sequence[tuple[str, str, str, int]], None] = GroupCommit(
            self._run_hits, size_max=1, waiting_max=10, tries=1
        )

    async def claim(
        self, question: Question, *, may_ask: bool = True, wait_s: float | None = None
    ) -> Found | PersonSuppressed | Pending | Skipped | Lease | None:
        """Return the kept answer, or why the question may not be put, or the lease to put it.

        Waits while somebody else asks the same, and returns None when that takes longer than
        `wait_s`, or than this process's bound. Pending: it is still to come, to another job.
        UNKNOWN: there is none, and not `may_ask`; nothing was written then. Raises Unavailable.
        """
        place = (question.workspace_id, question.key)
        deadline = time.monotonic() + (self._wait_s_max if wait_s is None else wait_s)
        while True:
            if kept := self._recall(question):
                return kept
            ended = self._under_way.get(place)
            if ended is None:
                break
            # If the one who asks fails, the first to wake asks in his place; the others wait again.
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                    await ended.wait()
            except TimeoutError:
                return None
        self._under_way[place] = asyncio.Event()
        claimed: Found | PersonSuppressed | Pending | Skipped | Lease | None = None
        try:
            claimed = await self._begin(question, deadline, may_ask=may_ask)
        finally:
            if not isinstance(claimed, Lease):
                self._leave(question)
        return claimed

    async def end_all(self, ends: Sequence[tuple[Lease, CallEnd]]) -> None:
        """Keep answers, settle credits, give back leases, all at once.

        Goes on trying while PostgreSQL is away. Who is cancelled meanwhile may go: it is written as
        soon as it can be.
        """
        written = [(lease, ended, self.ends.put(_end(lease, ended))) for lease, ended in ends]
        try:
            for lease, ended, future in written:
                fetched_at = await future
                if ended.outcome != "pending" and ended.answer is not None:
                    now = time.monotonic()
                    paid = replace(ended, cost=lease.paid + (ended.cost or Decimal(0)))
                    self._memory.put(lease.question, paid, now, fetched_at, is_bought=True)
        finally:
            for lease, _ in ends:
                self.leave(lease)

    def end_soon(self, lease: Lease, ended: CallEnd) -> None:
        """Do the same without waiting for it, for who is being cancelled."""
        self.ends.put_soon(_end(lease, ended))
        self.leave(lease)

    def leave(self, lease: Lease) -> None:
        """Let others of this process ask; the lease itself stays as it is."""
        self._leave(lease.question)

    async def aclose(self) -> None:
        """Write what is still to be written, within seconds."""
        if self._hits_timer is not None:
            self._hits_timer.cancel()
        await self.begins.aclose()
        await self.ends.aclose()
        if self._hits:
            self._write_hits()
        await self._hit_writes.aclose(1.0)

    # What is known here.

    def _recall(self, question: Question) -> Found | PersonSuppressed | None:
        remembered = self._memory.get(question, time.monotonic())
        if remembered is None:
            return None
        self._count_hit(question)
        is_bought = remembered.buyer == question.buyer
        return _answer(
            question,
            remembered.outcome,
            remembered.text,
            remembered.fetched_at,
            remembered.cost if is_bought else None,
        )

    def _leave(self, question: Question) -> None:
        ended = self._under_way.pop((question.workspace_id, question.key), None)
        if ended is not None:
            ended.set()

    # What PostgreSQL knows.

    async def _begin(
        self, question: Question, deadline: float, *, may_ask: bool
    ) -> Found | PersonSuppressed | Pending | Skipped | Lease | None:
        beginning = Beginning(
            call_id=uuid7(),
            job_id=question.job_id,
            buyer=question.buyer,
            workspace_id=question.workspace_id,
            key=question.key,
            provider_id=question.provider_id,
            operation=question.operation,
            credits=question.credits,
            job_cap=question.job_cap,
            may_ask=may_ask,
        )
        pause_s = POLL_S_MIN
        while True:
            verdict = await self._verdict(beginning)
            match verdict.word:
                case "go" if verdict.call_id is not None:
                    return Lease(question, verdict.call_id, paid=verdict.cost or Decimal(0))
                case "resume" if verdict.call_id is not None:
                    paid = verdict.cost or Decimal(0)
                    return Lease(question, verdict.call_id, _pending(verdict), paid)
                case "pending":
                    return _pending(verdict)
                case "found" | "noMatch" | "suppressed":
                    if kept := await self._kept(question, verdict):
                        return kept
                case "wait":
                    if time.monotonic() + pause_s >= deadline:
                        return None
                    # One of each process polls; those behind it are woken by it.
                    await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
                    pause_s = min(pause_s * 1.5, POLL_S_MAX)
                case "unknown":
                    return UNKNOWN
                case reason:
                    return Skipped(reason, cost_credits=verdict.cost or Decimal(0))

    async def _verdict(self, beginning: Beginning) -> Verdict:
        future = self.begins.put(beginning)
        try:
            return await future
        except asyncio.CancelledError:
            # Stopped between the verdict's coming and its being read.
            if not future.cancelled() and future.done() and future.exception() is None:
                self._give_back_unclaimed(beginning, future.result())
            raise

    async def _kept(self, question: Question, verdict: Verdict) -> Found | PersonSuppressed | None:
        text, cost = verdict.answer or "{}", verdict.cost
        ended = CallEnd(verdict.word, cost, text, verdict.left_s)
        try:
            answer = _answer(question, verdict.word, text, verdict.fetched_at, cost)
        except (ValueError, TypeError, KeyError) as error:
            # Nobody writes such a row; a hand that mended something may have.
            log.error("kept_answer_unreadable", provider=question.provider_id, error=str(error))
            async with self._database.connection() as conn:
                await answers.forget(conn, workspace_id=question.workspace_id, key=question.key)
            return None
        now, is_bought = time.monotonic(), cost is not None
        self._memory.put(question, ended, now, verdict.fetched_at, is_bought=is_bought)
        self._count_hit(question)
        return answer

    # The statements.

    async def _run_begins(self, beginnings: Sequence[Beginning]) -> Sequence[Verdict]:
        async with self._database.connection() as conn:
            return await storing(
                lambda: answers.begin(
                    conn,
                    beginnings,
                    day_cap=self._caps.per_day,
                    workspace_day_cap=self._caps.workspace_per_day,
                    workspace_month_cap=self._caps.workspace_per_month,
                    lease_s=self._lease_s,
                )
            )

    async def _run_ends(self, ends: Sequence[tuple[End, Sequence[str]]]) -> Sequence[str]:
        freed = list(self._freed)
        async with self._database.connection() as conn:
            pepper = self._pepper = self._pepper or await answers.pepper(conn)
            hashed = [_with_subjects(pepper, *one) for one in ends]
            now = await storing(lambda: answers.end(conn, [*freed, *hashed]))
        for _ in freed:
            self._freed.popleft()
        return [now] * len(ends)

    def _give_back_unclaimed(self, beginning: Beginning, verdict: Verdict) -> None:
        """Give back the lease of somebody who was cancelled while he got it."""
        if verdict.word == "go":
            self.ends.put_soon((_free(beginning), ()))

    def _give_back_later(self, beginning: Beginning) -> None:
        self._freed.append(_free(beginning))

    # How often the cache helped.

    def _count_hit(self, question: Question) -> None:
        self._hits[question.workspace_id, question.provider_id, question.operation] += 1
        if self._hits_timer is None:
            loop = asyncio.get_running_loop()
            self._hits_timer = loop.call_later(HITS_S, self._write_hits)

    def _write_hits(self) -> None:
        self._hits_timer = None
        hits = [(*kind, times) for kind, times in self._hits.items()]
        self._hits.clear()
        self._hit_writes.put_soon(hits)

    async def _run_hits(
        self, batches: Sequence[Sequence[tuple[str, str, str, int]]]
    ) -> Sequence[None]:
        async with self._database.connection() as conn:
            for hits in batches:
                await answers.count_hits(conn, hits)
        return [None] * len(batches)


def _answer(
    question: Question, outcome: str, text: str, fetched_at: str | None, cost: Decimal | None
) -> Found | PersonSuppressed:
    if outcome == "suppressed":
        return PersonSuppressed(
            f"{question.provider_id} may not speak of this person", provider=question.provider_id
        )
    return replace(from_text(text, fetched_at=fetched_at), cost_credits=cost or Decimal(0))


def _end(lease: Lease, ended: CallEnd) -> tuple[End, Sequence[str]]:
    """Return an end to write, and the addresses of those whom it is about."""
    question = lease.question
    end = End(
        call_id=lease.call_id,
        buyer=question.buyer,
        workspace_id=question.workspace_id,
        key=question.key,
        provider_id=question.provider_id,
        operation=question.operation,
        outcome=ended.outcome,
        answer=ended.answer,
        keep_s=ended.keep_s,
        cost=ended.cost,
    )
    return end, (*question.addresses, *ended.addresses)


def _free(beginning: Beginning) -> End:
    return End(
        call_id=beginning.call_id,
        buyer=beginning.buyer,
        workspace_id=beginning.workspace_id,
        key=beginning.key,
        provider_id=beginning.provider_id,
        operation=beginning.operation,
        outcome="free",
    )


def _with_subjects(pepper: bytes, end: End, addresses: Sequence[str]) -> End:
    if end.answer is None:
        return end
    return replace(
        end, subjects=sorted({one for text in addresses for one in hashes_of(pepper, text)})
    )


def _report_lost(item: tuple[End, Sequence[str]]) -> None:
    """Say that a call's end was never written: its credits count as spent, its answer is gone."""
    end, _ = item
    if end.outcome != "free":
        log.error(
            "call_end_lost",
            call_id=str(end.call_id),
            workspace=end.workspace_id,
            provider=end.provider_id,
            operation=end.operation,
            outcome=end.outcome,
            cost_credits=str(end.cost),
        )


def _pending(verdict: Verdict) -> Pending:
    said = orjson.loads(verdict.answer or "{}")
    return Pending(
        request_id=said.get("requestId"),
        poll_after_s=float(said.get("pollAfterS", 5.0)),
        deadline_s=float(verdict.left_s or 0.0),
    )
