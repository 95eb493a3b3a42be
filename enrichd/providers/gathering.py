"""A batch's questions put together, where a provider takes several in one call.

The leads of a batch are searched side by side and each asks for itself; questions of one kind that
come within a moment of each other go out as one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from enrichd.domain.leads import Lead
from enrichd.providers.base import REGISTERED, Asked, Operation
from enrichd.providers.calls import Calls
from enrichd.providers.roster import Providers

GATHER_S: Final = 0.02
"""How long the first question waits for others: a fifth of what a quick provider takes."""
AT_ONCE_MAX: Final = 100


def bulk_size(provider_id: str, operation: Operation) -> int:
    """Return how many questions one call to a provider carries; 1 if it takes them singly."""
    registration = REGISTERED.get(provider_id)
    contract = registration.contract if registration else None
    return contract.bulk.get(operation, 1) if contract else 1


def bulk_size_max(order: Sequence[str]) -> int:
    """Return the largest number of questions that any call to these providers carries."""
    sizes = [bulk_size(name, operation) for name in order for operation in Operation]
    return min(max(sizes, default=1), AT_ONCE_MAX)


@dataclass(slots=True)
class _Waiting:
    """Questions of one kind that have not been put yet."""

    queries: list[Lead] = field(default_factory=list)
    answers: list[asyncio.Future[Asked]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class Gatherer:
    """Stands before a job's `Calls`; use it as a context manager, which stops what is under way."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._waiting: dict[tuple[str, Operation], _Waiting] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for waiting in self._waiting.values():
            if waiting.timer is not None:
                waiting.timer.cancel()
        self._waiting.clear()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    @property
    def providers(self) -> Providers:
        """Return the process's providers."""
        return self._calls.providers

    @property
    def workspace_id(self) -> str:
        """Return the tenant who pays."""
        return self._calls.workspace_id

    async def ask(self, provider_id: str, operation: Operation, query: Lead) -> Asked:
        """Put one question, together with others of its kind."""
        size = bulk_size(provider_id, operation)
        if size <= 1:
            return await self._calls.ask(provider_id, operation, query)
        kind = (provider_id, operation)
        waiting = self._waiting.setdefault(kind, _Waiting())
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Asked] = loop.create_future()
        waiting.queries.append(query)
        waiting.answers.append(answer)
        if len(waiting.queries) >= size:
            self._send(kind)
        elif waiting.timer is None:
            waiting.timer = loop.call_later(GATHER_S, self._send, kind)
        return await answer

    def _send(self, kind: tuple[str, Operation]) -> None:
        waiting = self._waiting.pop(kind)
        if waiting.timer is not None:
            waiting.timer.cancel()
        task = asyncio.get_running_loop().create_task(self._put(kind, waiting))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _put(self, kind: tuple[str, Operation], waiting: _Waiting) -> None:
        # A lead whose search was stopped meanwhile asks no more.
        asked = [
            (query, answer)
            for query, answer in zip(waiting.queries, waiting.answers, strict=True)
            if not answer.done()
        ]
        if not asked:
            return
        try:
            answers = await self._calls.ask_many(*kind, [query for query, _ in asked])
        except BaseException as error:
            for _, future in asked:
                if not future.done():
                    future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            if not future.done():
                future.set_result(answer)
