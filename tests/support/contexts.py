"""A run's view of the world for handlers' tests: items and progress are kept in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, ClassVar, Literal
from uuid import UUID, uuid4

from enrichd.domain.facts import Fact
from enrichd.errors import ClaimLost
from enrichd.handlers.context import Item
from enrichd.providers.base import Found, Operation, Query
from enrichd.providers.client import Connections, common_limits
from enrichd.providers.dns import Resolver
from enrichd.providers.waterfall import Providers
from enrichd.providers.web import WebFetcher


class MemoryContext:
    """A JobContext whose items live in a dict; `lose_claim_after` items the claim is gone."""

    def __init__(
        self,
        providers: Providers,
        *,
        attempt: int = 1,
        attempts_left: int = 3,
        items: Mapping[str, Item] | None = None,
        lose_claim_after: int | None = None,
    ) -> None:
        self.job_id: UUID = uuid4()
        self.workspace_id = "default"
        self.provider_id = "builtin"
        self.attempt = attempt
        self.attempts_left = attempts_left
        self.priority = 3
        self.providers = providers
        self.items = dict(items or {})
        self.recorded: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self._lose_claim_after = lose_claim_after

    async def progress(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    async def finished_items(self) -> Mapping[str, Item]:
        return dict(self.items)

    async def record_item(
        self,
        key: str,
        *,
        status: Literal["completed", "failed"],
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        if self._lose_claim_after is not None and len(self.recorded) >= self._lose_claim_after:
            raise ClaimLost("the run lost its claim")
        self.recorded.append(key)
        self.items[key] = Item(status, result, error)


class ScriptedProvider:
    """A provider whose answers a test writes down; `asked` has every question it was put.

    An answer is a Found or an error to raise; a question without one finds nobody.
    """

    provider_id: ClassVar[str]

    def __init__(
        self,
        provider_id: str,
        answers: Mapping[Operation, Found | Exception],
        *,
        cost: str = "1",
        refusal: str | None = None,
    ) -> None:
        self.provider_id = provider_id  # type: ignore[misc] - one class plays many providers
        self.operations = frozenset(answers)
        self.answers = dict(answers)
        self.asked: list[tuple[Operation, Query]] = []
        self._cost = Decimal(cost)
        self._refusal = refusal

    def cost_credits(self, operation: Operation) -> Decimal:
        return self._cost

    def can_answer(self, operation: Operation, query: Query) -> str | None:
        return self._refusal

    async def call(self, operation: Operation, query: Query) -> Found:
        self.asked.append((operation, query))
        answer = self.answers[operation]
        if isinstance(answer, Exception):
            raise answer
        return answer


def found(*facts: Fact, cost: str = "1") -> Found:
    """Return an answer that costs credits."""
    return Found(facts=facts, cost_credits=Decimal(cost), request_id="r-1")


@asynccontextmanager
async def providers_of(
    *adapters: ScriptedProvider,
    nameservers: Iterable[str] = ("127.0.0.1:9",),
    fetcher: WebFetcher | None = None,
    base_urls: Mapping[str, str] | None = None,
) -> AsyncIterator[Providers]:
    """Give providers whose network is what the test put up; by default nothing answers."""
    urls = {"gravatar": "http://127.0.0.1:9", "rdap": "http://127.0.0.1:9", **(base_urls or {})}
    connections = Connections(
        resolver=Resolver(tuple(nameservers), timeout_s=2.0),
        fetcher=fetcher or WebFetcher(nameservers=tuple(nameservers)),
        settings_of=lambda name: common_limits(name).model_copy(
            update={"base_url": urls.get(name)}
        ),
    )
    async with Providers(
        connections, adapters={one.provider_id: one for one in adapters}
    ) as providers:
        yield providers
