"""Put one question to one provider: whether to, at what price, within which limits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Final
from uuid import UUID

from enrichd.domain.leads import Lead
from enrichd.errors import ProviderDown, ProviderError
from enrichd.providers.base import Asked, Found, Operation, Provider, Skipped
from enrichd.providers.budget import Budget
from enrichd.providers.roster import Providers

QUESTION_S: Final = 60.0
"""The most that one question to one provider may take, whatever bounds its adapter has."""


class Calls:
    """One run's questions."""

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
        self._budget = Budget(max_credits)

    async def ask(self, provider_id: str, operation: Operation, query: Lead) -> Asked:
        """Put one question; a provider's trouble is a value."""
        adapter = self.providers.find(provider_id)
        if adapter is None:
            return Skipped("no_such_provider")
        if reason := adapter.can_answer(operation, query):
            return Skipped(reason)
        cost = adapter.cost_credits(operation)
        if not self._budget.reserve(cost):
            return Skipped("would_exceed_max_credits")
        spent = Decimal(0)
        try:
            answer = await _put(adapter, operation, query)
            if isinstance(answer, Found):
                spent = answer.cost_credits
            return answer
        finally:
            self._budget.settle(cost, spent)

    async def ask_many(
        self, provider_id: str, operation: Operation, queries: Sequence[Lead]
    ) -> list[Asked]:
        """Put several questions of one kind; the answers are in their order."""
        return [await self.ask(provider_id, operation, query) for query in queries]


async def _put(adapter: Provider, operation: Operation, query: Lead) -> Found | ProviderError:
    try:
        async with asyncio.timeout(QUESTION_S):
            return await adapter.call(operation, query)
    except ProviderError as error:
        return error
    except TimeoutError:
        name = adapter.provider_id
        return ProviderDown(f"{name} did not answer in {QUESTION_S:g} s", provider=name)
