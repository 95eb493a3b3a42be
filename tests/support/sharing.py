"""What processes share, for tests of the questions themselves: real cache, limits and breakers.

Keys, suppressions and callbacks are plain parts without a table, for tests that are not about them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, ClassVar

from enrichd.domain.facts import Fact
from enrichd.providers.answers import Answers
from enrichd.providers.base import Found, Operation, Provider, Query
from enrichd.providers.breakers import Breakers
from enrichd.providers.client import Connections, common_limits
from enrichd.providers.credits import NO_CAPS, Caps
from enrichd.providers.credits_left import CreditsLeft
from enrichd.providers.dns import Resolver
from enrichd.providers.limiter import RateLimiter
from enrichd.providers.roster import Providers, Shared
from enrichd.providers.web import WebFetcher
from enrichd.settings.providers import ProviderSettings
from enrichd.store.database import Database

NOBODY = ("127.0.0.1:9",)
PLENTY = {
    "rate_limit_per_second": 1_000_000,
    "rate_limit_per_minute": 1_000_000,
    "rate_limit_per_hour": 1_000_000,
}


class OneKeyring:
    """Every workspace asks with the key of the environment."""

    def __init__(self, settings_of: Callable[[str], ProviderSettings]) -> None:
        self._settings_of = settings_of

    async def settings_for(
        self, provider_id: str, workspace_id: str
    ) -> tuple[str, ProviderSettings]:
        return provider_id, self._settings_of(provider_id)


class NobodySuppressed:
    """Nobody wants to be left alone."""

    async def is_suppressed(self, workspace_id: str, *addresses: str) -> bool:
        return False

    async def aclose(self) -> None:
        pass


class CountingProvider:
    """A provider that counts what it is asked and what it bills; `answer` says what it answers."""

    provider_id: ClassVar[str]
    operations: ClassVar[frozenset[Operation]] = frozenset(Operation)

    def __init__(
        self,
        provider_id: str = "counting",
        *,
        answer: Callable[[Operation, Query], Awaitable[Found]] | None = None,
        cost: str = "1",
    ) -> None:
        self.provider_id = provider_id  # type: ignore[misc] - one class plays many providers
        self.asked: list[Query] = []
        self._answer = answer
        self._cost = Decimal(cost)

    def cost_credits(self, operation: Operation) -> Decimal:
        return self._cost

    def can_answer(self, operation: Operation, query: Query) -> str | None:
        return None

    async def call(self, operation: Operation, query: Query) -> Found:
        self.asked.append(query)
        if self._answer is not None:
            return await self._answer(operation, query)
        return titled(f"CTO {len(self.asked)}", cost=self._cost)


def titled(text: str, *, cost: Decimal | str = "1", more: Sequence[Fact] = ()) -> Found:
    """Return an answer that names a title."""
    fact = Fact("person", "title", text, 0.9, "api", "https://acme.test", "2026-01-02")
    return Found(facts=(fact, *more), cost_credits=Decimal(cost), request_id="-1039995589705121900")


@asynccontextmanager
async def sharing_providers(
    dsn: str, *adapters: Provider, caps: Caps = NO_CAPS, callbacks: Any = None, **options: Any
) -> AsyncIterator[Providers]:
    """Give one process's providers; each of these plays a process of its own."""

    def settings_of(name: str) -> ProviderSettings:
        return common_limits(name).model_copy(update=PLENTY)

    database = Database(dsn, name="test providers")
    shared = Shared(
        database=database,
        answers=Answers(database, caps, **options),
        limiter=RateLimiter(database),
        breakers=Breakers(database),
        keyring=OneKeyring(settings_of),  # type: ignore[arg-type]
        suppressions=NobodySuppressed(),  # type: ignore[arg-type]
        callbacks=callbacks,
        caps=caps,
        credits_left=CreditsLeft(database, pause_s=0.05),
    )
    connections = Connections(
        resolver=Resolver(NOBODY, timeout_s=1.0),
        fetcher=WebFetcher(nameservers=NOBODY),
        settings_of=settings_of,
    )
    async with Providers(
        connections, adapters={one.provider_id: one for one in adapters}, shared=shared
    ) as providers:
        try:
            yield providers
        finally:
            await shared.answers.aclose()
            await shared.limiter.aclose()
