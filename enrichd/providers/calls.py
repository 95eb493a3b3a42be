"""Put a run's questions to providers: whether to, at what price, within which limits.

The way of a question: is there anybody to ask, is the answer known, may it be paid for and is
nobody else asking (`answers.py`), is the provider up (`breakers.py`), is it our turn
(`limiter.py`), the call, its record. Everything that was taken on the way is given back wherever
the way ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Final, TypeVar
from uuid import UUID, uuid4

from enrichd.domain.emails import is_free_mail
from enrichd.domain.leads import Lead
from enrichd.errors import (
    ProviderDown,
    ProviderError,
    ProviderThrottled,
)
from enrichd.providers.answers import UNKNOWN, Lease
from enrichd.providers.attempts import Answer, Attempt, report, timed
from enrichd.providers.base import (
    REGISTERED,
    Asked,
    Asynchronous,
    Bulk,
    Found,
    Operation,
    Pending,
    Provider,
    Skipped,
)
from enrichd.providers.breakers import PAUSED
from enrichd.providers.call_ends import NO_CALL, may_be_paid
from enrichd.providers.contracts import Contract
from enrichd.providers.later_answers import LaterAnswer, come_again
from enrichd.providers.limits import limits_in_force
from enrichd.providers.questions import Question, buyer_of, cache_key, counted_as
from enrichd.providers.roster import BUILTIN, Providers, Shared
from enrichd.settings.providers import ProviderSettings
from enrichd.store.provider_state import OPEN_S_MAX
from enrichd.store.sealing import Unreadable

Result = TypeVar("Result")

AT_ONCE_MAX: Final = 10
"""Questions of one `ask_many` under way together, where a call carries only one."""
PAUSED_S: Final = 5.0
"""When to come again for a provider that is paused; until it is not, its lane is closed."""
BUSY_RETRY_S: Final = 5.0
"""When to come again for an answer that somebody else has been asking for very long."""


@dataclass(frozen=True, slots=True)
class Source:
    """One provider as one workspace may ask it."""

    adapter: Provider
    credential: str
    settings: ProviderSettings
    contract: Contract | None

    @property
    def provider_id(self) -> str:
        """Return the provider's id."""
        return self.adapter.provider_id


class Calls:
    """One run's questions. Its credits are counted for its job, over all the job's runs."""

    def __init__(
        self,
        providers: Providers,
        *,
        workspace_id: str,
        job_id: UUID | None = None,
        priority: int = 3,
        max_credits: Decimal | None = None,
        wait_s_max: float = 5.0,
    ) -> None:
        self.providers = providers
        self.workspace_id = workspace_id
        self._job_id = job_id or uuid4()
        self._priority = priority
        self._max_credits = max_credits
        self._wait_s_max = wait_s_max
        self._said: dict[tuple[UUID, bytes], Decimal] = {}
        """What of a question's cost this run has said, by lead and question."""
        self._spent = Decimal(0)
        """What was spent or promised, where nothing is shared; else PostgreSQL counts it."""

    async def ask(
        self, provider_id: str, operation: Operation, query: Lead, *, want_callback: bool = True
    ) -> Asked:
        """Put one question; a provider's trouble is a value.

        Raises Unavailable, with nothing paid, when PostgreSQL is away before the call.
        `want_callback`: whether an answer that comes later may come by itself.
        """
        source = await self._source(provider_id)
        if isinstance(source, Skipped):
            return source
        if reason := _reason_against(source.adapter, operation, query):
            return Skipped(reason)
        shared = self.providers.shared
        if shared is None or provider_id == BUILTIN:
            return await self._ask_alone(source, operation, query)
        question = self._question(source, operation, query)
        refused = await self._refused(shared, source)
        claimed = await shared.answers.claim(question, may_ask=refused is None)
        if claimed is UNKNOWN and refused is not None:
            return refused
        if isinstance(claimed, Lease):
            asked = await self._put(shared, source, claimed, query, want_callback=want_callback)
            return self._priced(question, _with_cost(asked, claimed))
        if isinstance(claimed, Pending) and want_callback:
            await come_again(shared.callbacks, question, claimed)
        return self._priced(question, claimed or _busy(source))

    async def ask_many(
        self, provider_id: str, operation: Operation, queries: Sequence[Lead]
    ) -> list[Asked]:
        """Put several questions of one kind, in as few calls as the provider takes them in.

        The answers are in the questions' order.
        """
        source = await self._source(provider_id)
        if isinstance(source, Skipped):
            return [source] * len(queries)
        shared, contract = self.providers.shared, source.contract
        size = contract.bulk.get(operation, 1) if contract else 1
        if shared is None or size < 2 or not isinstance(source.adapter, Bulk):
            return await self._ask_each(provider_id, operation, queries)
        asked: list[Asked | None] = [None] * len(queries)
        leased: list[tuple[int, Lease]] = []
        try:
            for start in range(0, len(queries), size):
                # A call's worth at a time, so that no lease ends while it waits for its call.
                slice_ = list(enumerate(queries[start : start + size], start))
                await self._claim_all(shared, source, operation, slice_, asked, leased)
                is_last = start + size >= len(queries)
                while len(leased) >= size or (leased and is_last):
                    chunk, leased[:] = leased[:size], leased[size:]
                    answers = await self._put_many(
                        shared,
                        source,
                        source.adapter,
                        [lease for _, lease in chunk],
                        [queries[place] for place, _ in chunk],
                    )
                    for (place, lease), answer in zip(chunk, answers, strict=True):
                        asked[place] = self._priced(lease.question, _with_cost(answer, lease))
        finally:
            for _, lease in leased:
                shared.answers.end_soon(lease, NO_CALL)
        # Whoever else asked the same is done by now, or nearly: another job, or a lead above.
        return [
            answer or await self.ask(provider_id, operation, query)
            for answer, query in zip(asked, queries, strict=True)
        ]

    # Who is asked, and what.

    async def _source(self, provider_id: str) -> Source | Skipped:
        providers, credential = self.providers, provider_id
        if providers.find(provider_id) is None:
            return Skipped("no_such_provider")
        settings = providers.connections.settings_of(provider_id)
        if providers.shared is not None and provider_id != BUILTIN:
            try:
                credential, settings = await providers.shared.keyring.settings_for(
                    provider_id, self.workspace_id
                )
            except Unreadable:
                # Never with the common key in its place: that is somebody else's bill.
                return Skipped("key_unreadable")
        adapter = providers.with_key(provider_id, credential, settings)
        assert adapter is not None
        registration = REGISTERED.get(provider_id)
        contract = registration.contract if registration else None
        return Source(adapter, credential, settings, contract)

    def _question(self, source: Source, operation: Operation, query: Lead) -> Question:
        return Question(
            workspace_id=self.workspace_id,
            job_id=self._job_id,
            buyer=buyer_of(self._job_id, query),
            provider_id=source.provider_id,
            operation=operation,
            key=cache_key(source.adapter, source.provider_id, operation, query),
            credits=source.adapter.cost_credits(operation),
            job_cap=self._max_credits,
            addresses=(str(query.address),) if query.address else (),
        )

    def _priced(self, question: Question, asked: Asked) -> Asked:
        """Have all that was paid for a question said once, whichever run of the job has paid it."""
        if isinstance(asked, Pending) or not asked.cost_credits:
            return asked
        mark = question.buyer, question.key
        said = self._said.get(mark, Decimal(0))
        self._said[mark] = max(said, asked.cost_credits)
        news = max(asked.cost_credits - said, Decimal(0))
        if isinstance(asked, ProviderError):
            asked.cost_credits = news
            return asked
        return replace(asked, cost_credits=news)

    # The call.

    async def _put(
        self, shared: Shared, source: Source, lease: Lease, query: Lead, *, want_callback: bool
    ) -> Asked:
        """Put a question that only we may put now."""
        adapter, operation = source.adapter, lease.question.operation
        counted = counted_as(adapter, source.contract, operation, query)
        attempt = Attempt(shared.answers, [lease])
        ask = partial(self._ask_provider, shared, source, counted, attempt)
        if not isinstance(adapter, Asynchronous):
            async with attempt:
                return await ask(partial(adapter.call, operation, query))
        later = LaterAnswer(shared.callbacks, adapter, lease, query)
        async with attempt:
            asked = await later.ask(ask, attempt, want_callback=want_callback)
        await later.listen_no_more()
        return asked

    async def _put_many(
        self,
        shared: Shared,
        source: Source,
        adapter: Bulk,
        leases: Sequence[Lease],
        queries: Sequence[Lead],
    ) -> Sequence[Asked]:
        """Put several questions in one call."""
        operation = leases[0].question.operation
        counted = counted_as(adapter, source.contract, operation, queries[0])
        async with Attempt(shared.answers, leases) as attempt:
            told = await self._ask_provider(
                shared, source, counted, attempt, partial(adapter.call_many, operation, queries)
            )
            return attempt.each(told)

    async def _ask_provider(
        self,
        shared: Shared,
        source: Source,
        counted: Operation,
        attempt: Attempt,
        call: Callable[[], Awaitable[Answer]],
    ) -> Answer | Skipped | ProviderError:
        """Make one call when it is allowed; a provider's trouble comes back as a value.

        `counted` is the operation whose limits it falls under.
        """
        if reason := await shared.breakers.allows(source.credential):
            return _skipped(shared, source, reason)
        try:
            await shared.limiter.take(
                source.credential,
                counted,
                limits_in_force(source.settings, source.contract),
                priority=self._priority,
                wait_s_max=self._wait_s_max,
            )
        except ProviderThrottled as error:
            # If this call was to be the breaker's probe, another may be it.
            await shared.breakers.report(source.credential, error)
            return error
        attempt.is_sent = True
        answer, seconds = await timed(source.provider_id, call)
        # First of all: whoever is cancelled from here on leaves the answer behind.
        attempt.settle(answer)
        await report(shared, source.credential, counted, answer, seconds)
        shared.credits_left.hear(source.credential, source.adapter, answer)
        return answer

    async def _refused(self, shared: Shared, source: Source) -> Skipped | None:
        """Return why the provider is not asked now: only an answer that is kept is to be had."""
        reason = await shared.breakers.refusal(source.credential)
        return _skipped(shared, source, reason) if reason else None

    async def _claim_all(
        self,
        shared: Shared,
        source: Source,
        operation: Operation,
        queries: Sequence[tuple[int, Lead]],
        asked: list[Asked | None],
        leased: list[tuple[int, Lease]],
    ) -> None:
        """Fill in what can be said without a call, and add the leases of what can be asked now."""

        async def claim(place: int, query: Lead) -> None:
            if reason := _reason_against(source.adapter, operation, query):
                asked[place] = Skipped(reason)
                return
            question = self._question(source, operation, query)
            # Not waiting for others: they may be waiting for us. And an answer that is still to
            # come is no matter for a bulk call.
            refused = await self._refused(shared, source)
            claimed = await shared.answers.claim(question, may_ask=refused is None, wait_s=0.0)
            if claimed is UNKNOWN and refused is not None:
                asked[place] = refused
            elif isinstance(claimed, Lease) and claimed.pending is None:
                leased.append((place, claimed))
            elif isinstance(claimed, Lease):
                shared.answers.leave(claimed)
            elif claimed is not None:
                asked[place] = self._priced(question, claimed)

        await _together([partial(claim, *one) for one in queries], len(queries))
        leased.sort(key=lambda one: one[0])

    async def _ask_each(
        self, provider_id: str, operation: Operation, queries: Sequence[Lead]
    ) -> list[Asked]:
        asks = [partial(self.ask, provider_id, operation, query) for query in queries]
        return await _together(asks, AT_ONCE_MAX)

    async def _ask_alone(self, source: Source, operation: Operation, query: Lead) -> Asked:
        """Put a question where nothing is shared: the job's own cap is all there is."""
        reserved = source.adapter.cost_credits(operation)
        if self._max_credits is not None and 0 < reserved > self._max_credits - self._spent:
            return Skipped("would_exceed_max_credits")
        self._spent += reserved
        cost = Decimal(0)
        try:
            call = partial(source.adapter.call, operation, query)
            answer, _ = await timed(source.provider_id, call)
            cost = answer.cost_credits if isinstance(answer, Found) else cost
            return answer
        finally:
            self._spent += cost - reserved


def _with_cost(asked: Asked, lease: Lease) -> Asked:
    """Return what became of a question with all that was paid for it, over the job's runs."""
    if isinstance(asked, ProviderError):
        # Several questions may share an error, and then what they did cost as well.
        lost = lease.question.credits if may_be_paid(asked) else Decimal(0)
        asked.cost_credits = lost + lease.paid
    elif not isinstance(asked, Pending) and lease.paid:
        return replace(asked, cost_credits=asked.cost_credits + lease.paid)
    return asked


def _reason_against(adapter: Provider, operation: Operation, query: Lead) -> str | None:
    if operation not in adapter.operations:
        return "cannot_answer_that"
    if operation is Operation.ENRICH_COMPANY and query.domain and is_free_mail(query.domain):
        return "free_mail_domain"
    return adapter.can_answer(operation, query)


def _skipped(shared: Shared, source: Source, reason: str) -> Skipped:
    again_s = shared.breakers.again_s(source.credential)
    return Skipped(reason, _passing(source.provider_id, reason, again_s))


def _passing(name: str, reason: str, again_s: float | None) -> ProviderError | None:
    """Return the trouble behind a breaker, unless that is to last."""
    if reason == PAUSED:
        problem = f"{name} is paused by hand"
        return ProviderThrottled(
            problem, provider=name, retry_after_s=max(again_s or 0.0, PAUSED_S)
        )
    if again_s is None or again_s > OPEN_S_MAX:
        return None
    problem = f"{name} is not asked for now: its last calls failed"
    return ProviderDown(problem, provider=name)


def _busy(source: Source) -> ProviderThrottled:
    name = source.provider_id
    return ProviderThrottled(
        f"another job has been asking {name} the same for long: again in {BUSY_RETRY_S:g} s",
        provider=name,
        retry_after_s=BUSY_RETRY_S,
    )


async def _together(works: Sequence[Callable[[], Awaitable[Result]]], at_once: int) -> list[Result]:
    """Do things side by side, so many at once; return their results in order."""
    room = asyncio.Semaphore(max(at_once, 1))

    async def do(work: Callable[[], Awaitable[Result]]) -> Result:
        async with room:
            return await work()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(do(work)) for work in works]
    except ExceptionGroup as errors:
        # Reported as itself: the group's own text says nothing.
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
