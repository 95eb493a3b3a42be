"""Answers that come later: called back, or fetched by the run that begins when they are due.

The question's row stays leased meanwhile, so that nobody puts it a second time. The callback's row
stands before the request is sent, because an answer may come before the provider has said that it
will. Once the request is out, nothing here may lose what came of it: what cannot be noted about
callbacks is left to polling, for the question's own row knows what to ask by.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, TypeAlias, runtime_checkable
from uuid import UUID

from enrichd.domain.leads import Lead
from enrichd.errors import ProviderDown, ProviderError, ProviderGarbled, Unavailable
from enrichd.logs import get_logger
from enrichd.providers.answers import Lease
from enrichd.providers.base import Asked, Asynchronous, Found, Pending
from enrichd.providers.hostile_json import read_json
from enrichd.providers.operations import Operation
from enrichd.providers.questions import Question

CALLBACK_S_MAX: Final = 86_400.0
"""How long a callback is listened for whose provider has not yet said how long it takes."""

log = get_logger("providers")

AskProvider: TypeAlias = Callable[[Callable[[], Awaitable[Found | Pending]]], Awaitable[Asked]]
"""Makes one call when it is allowed; a provider's trouble comes back as a value."""


class Expected(Protocol):
    """A callback that is listened for."""

    @property
    def token(self) -> str:
        """What nobody can guess."""

    @property
    def url(self) -> str | None:
        """Where the answer may be posted to; None if nothing reaches us."""


@runtime_checkable
class Received(Protocol):
    """What was called back."""

    @property
    def body(self) -> str:
        """Whatever it is, as text."""


@runtime_checkable
class Waiting(Protocol):
    """Nothing was called back yet."""

    @property
    def request_id(self) -> str | None:
        """What to ask for the answer by."""

    @property
    def poll_due(self) -> bool:
        """Whether it is time to ask for it."""

    @property
    def deadline_s(self) -> float:
        """How long it is still waited for; not positive when that is over."""


class Callbacks(Protocol):
    """What a job waits for; `providers/callbacks.py` has it in PostgreSQL."""

    async def expect(
        self,
        *,
        workspace_id: str,
        job_id: UUID,
        provider_id: str,
        operation: Operation,
        cache_key: bytes,
        deadline_s: float,
    ) -> Expected:
        """Listen for a job's callback."""

    async def asked(self, token: str, *, request_id: str | None, poll_after_s: float) -> None:
        """Note what to ask for the answer by, and when the job is to come again."""

    async def answer_for(self, job_id: UUID, cache_key: bytes) -> Received | Waiting | None:
        """Return how a job's question stands; None if nothing is listened for."""

    async def poll_again(self, job_id: UUID, cache_key: bytes, *, poll_after_s: float) -> None:
        """Note when the job is to come again."""

    async def used(self, job_id: UUID, cache_key: bytes) -> None:
        """Listen no more."""


@runtime_checkable
class CallsBack(Protocol):
    """An asynchronous adapter that says for which questions it uses a callback's address."""

    calls_back: Collection[Operation]


class Attempt(Protocol):
    """A lease on its way through one call."""

    is_sent: bool
    is_left: bool

    def settle(self, told: Asked) -> None:
        """Say what came of the call."""


class LaterAnswer:
    """One question to an asynchronous provider, whose lease we have."""

    def __init__(
        self, callbacks: Callbacks, adapter: Asynchronous, lease: Lease, query: Lead
    ) -> None:
        self._callbacks = callbacks
        self._adapter = adapter
        self._question = lease.question
        self._pending = lease.pending
        self._query = query
        self._is_over = False

    async def ask(self, ask: AskProvider, attempt: Attempt, *, want_callback: bool) -> Asked:
        """Put the question, or go on with it where an earlier run has put it."""
        if self._pending is None:
            return await self._begin(ask, want_callback=want_callback)
        return await self._go_on(self._pending, ask, attempt)

    async def listen_no_more(self) -> None:
        """Forget the callback of a question that was answered; only once the answer is kept."""
        if self._is_over:
            # Without it the callback's row is of no use either, and ends by itself.
            with suppress(Unavailable):
                await self._callbacks.used(self._question.job_id, self._question.key)

    async def _begin(self, ask: AskProvider, *, want_callback: bool) -> Asked:
        expected = None
        if want_callback and self._calls_back():
            expected = await self._expect(CALLBACK_S_MAX)
        asked = await ask(
            partial(
                self._adapter.begin,
                self._question.operation,
                self._query,
                callback_url=expected.url if expected else None,
            )
        )
        try:
            if isinstance(asked, Pending):
                expected = expected or await self._expect(asked.deadline_s)
                await self._callbacks.asked(
                    expected.token, request_id=asked.request_id, poll_after_s=asked.poll_after_s
                )
            else:
                self._is_over = expected is not None
        except Unavailable as error:
            log.warning("callback_not_noted", provider=self._question.provider_id, error=str(error))
        return asked

    async def _go_on(self, pending: Pending, ask: AskProvider, attempt: Attempt) -> Asked:
        state = await self._callbacks.answer_for(self._question.job_id, self._question.key)
        if isinstance(state, Received):
            called_back = self._read(state.body)
            if isinstance(called_back, Found) or pending.request_id is None:
                return self._end(called_back, attempt)
            # What was called back is no answer; perhaps there is one to be fetched.
            log.warning("callback_unreadable", provider=self._question.provider_id)
            return await self._poll(pending, ask, attempt)
        if pending.deadline_s <= 0 or (state is not None and state.deadline_s <= 0):
            name = self._question.provider_id
            problem = f"{name} did not give the answer it had promised"
            # Not settled: nobody knows whether it was done and billed.
            attempt.is_sent = self._is_over = True
            return ProviderDown(problem, provider=name)
        if pending.request_id is not None and (state is None or state.poll_due):
            return await self._poll(pending, ask, attempt)
        attempt.is_left = True
        return pending

    async def _poll(self, pending: Pending, ask: AskProvider, attempt: Attempt) -> Asked:
        assert pending.request_id is not None
        operation = self._question.operation
        asked = await ask(partial(self._adapter.poll, operation, self._query, pending.request_id))
        if isinstance(asked, Found) or (isinstance(asked, ProviderError) and not asked.retryable):
            self._is_over = True
            return asked
        # Still to come, or not to be reached at this moment: the question stays put.
        attempt.is_left = True
        if isinstance(asked, ProviderError):
            return asked
        after_s = asked.poll_after_s if isinstance(asked, Pending) else pending.poll_after_s
        with suppress(Unavailable):
            await self._callbacks.poll_again(
                self._question.job_id, self._question.key, poll_after_s=after_s
            )
        return Pending(pending.request_id, after_s, pending.deadline_s)

    def _end(self, asked: Found | ProviderError, attempt: Attempt) -> Asked:
        attempt.is_sent = True
        attempt.settle(asked)
        self._is_over = True
        return asked

    def _read(self, body: str) -> Found | ProviderError:
        name = self._question.provider_id
        try:
            told = read_json(body)
        except ValueError:
            return ProviderGarbled(f"{name} called back what is no JSON", provider=name)
        try:
            return self._adapter.read_callback(self._question.operation, self._query, told)
        except ProviderError as error:
            return error

    def _calls_back(self) -> bool:
        if isinstance(self._adapter, CallsBack):
            return self._question.operation in self._adapter.calls_back
        return True

    async def _expect(self, deadline_s: float) -> Expected:
        return await expect(self._callbacks, self._question, deadline_s)


async def expect(callbacks: Callbacks, question: Question, deadline_s: float) -> Expected:
    """Listen for the answer to a question."""
    return await callbacks.expect(
        workspace_id=question.workspace_id,
        job_id=question.job_id,
        provider_id=question.provider_id,
        operation=question.operation,
        cache_key=question.key,
        deadline_s=deadline_s,
    )


async def come_again(callbacks: Callbacks, question: Question, pending: Pending) -> None:
    """See to it that a job comes again for an answer that is still to come to another."""
    state = await callbacks.answer_for(question.job_id, question.key)
    after_s = max(pending.poll_after_s, 1.0)
    if state is None:
        expected = await expect(callbacks, question, max(pending.deadline_s, 1.0))
        await callbacks.asked(expected.token, request_id=None, poll_after_s=after_s)
    elif isinstance(state, Waiting) and state.poll_due:
        await callbacks.poll_again(question.job_id, question.key, poll_after_s=after_s)
