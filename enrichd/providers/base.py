"""What a data provider is, and how one joins in.

An adapter is a class with `@provider("its-id")` above it. It is made at its first use, once per
process, of the process's connections and of what was set for it (`<ID>_API_KEY`, `<ID>_BASE_URL`).
It answers with facts and knows nothing of jobs, other providers, or how facts are merged. The
built-in sources are an adapter like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar, Protocol, TypeAlias, TypeVar, runtime_checkable

from enrichd.domain.email_verdicts import EmailVerification
from enrichd.domain.facts import Fact, Json, Missing
from enrichd.domain.leads import Lead
from enrichd.errors import ProviderError
from enrichd.providers.client import Connections
from enrichd.providers.contracts import Contract, Standing
from enrichd.providers.operations import Operation as Operation
from enrichd.settings.providers import ProviderSettings

Query: TypeAlias = Lead
"""What is asked about: the lead as far as it is known when the question is put."""


@dataclass(frozen=True, slots=True)
class Found:
    """One answer; without facts and verification the provider knows nobody like that."""

    facts: Sequence[Fact] = ()
    missing: Sequence[Missing] = ()
    verification: EmailVerification | None = None
    cost_credits: Decimal = Decimal(0)
    """What it did cost, as far as the provider says so."""
    request_id: str | None = None
    fetched_at: str | None = None
    """ISO 8601, for an answer that was kept; None is now."""
    cached: bool = False
    standing: Standing | None = None
    """How we stand with the provider, as far as its answer says so."""

    @property
    def is_match(self) -> bool:
        """True if there is anything in it."""
        return bool(self.facts) or self.verification is not None


@dataclass(frozen=True, slots=True)
class Pending:
    """The answer comes later."""

    request_id: str | None
    """What to ask for it by; None if it can only be called back."""
    poll_after_s: float = 5.0
    deadline_s: float = 3600.0
    """When to give up on it."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """The question was not put."""

    reason: str
    """Snake_case: `no_api_key`, `breaker_open`, `would_exceed_max_credits` …"""
    trouble: ProviderError | None = None
    """What will soon be over, for a job that can wait for it; None for a reason that stays."""
    cost_credits: Decimal = Decimal(0)
    """What earlier runs of the job paid for the question, without an answer."""


Asked: TypeAlias = Found | Pending | Skipped | ProviderError
"""What became of one question; a provider's trouble is a value here."""


class Provider(Protocol):
    """A data source.

    `call` raises the classes of ProviderError and nothing else for what the other side does; "no
    such person" is a `Found` without facts.
    """

    provider_id: ClassVar[str]
    operations: ClassVar[frozenset[Operation]]

    def cost_credits(self, operation: Operation) -> Decimal:
        """Return the most that one call costs, for a cap to be held before it is spent."""

    def can_answer(self, operation: Operation, query: Query) -> str | None:
        """Return None if it makes sense to ask, else why not, in snake_case (`no_api_key`)."""

    async def call(self, operation: Operation, query: Query) -> Found:
        """Ask, and return the facts that came back."""


@runtime_checkable
class Bulk(Protocol):
    """A provider that takes several questions in one call; its contract says how many."""

    async def call_many(
        self, operation: Operation, queries: Sequence[Query]
    ) -> Sequence[Found | ProviderError]:
        """Ask, and return an answer for each question, in their order.

        An error raised is every question's; one returned is its question's alone.
        """


@runtime_checkable
class Asynchronous(Protocol):
    """A provider whose answer may come later: `begin` is asked in place of `call`."""

    async def begin(
        self, operation: Operation, query: Query, *, callback_url: str | None
    ) -> Found | Pending:
        """Ask; `callback_url` is where the answer may be posted to, None if nobody listens."""

    async def poll(self, operation: Operation, query: Query, request_id: str) -> Found | Pending:
        """Ask for an answer that was pending."""

    def read_callback(self, operation: Operation, query: Query, body: Json) -> Found:
        """Return the answer that was called back. Raises ProviderGarbled if it is none."""


@runtime_checkable
class Accounting(Protocol):
    """A provider that says what is left of its credits only when it is asked, for free."""

    async def credits_left(self) -> Decimal | None:
        """Ask; None if the answer does not say."""


Factory: TypeAlias = Callable[[Connections, ProviderSettings], Provider]
Adapter = TypeVar("Adapter", bound=type[Provider])


@dataclass(frozen=True, slots=True)
class Registration:
    """How to make an adapter, and how far it is trusted."""

    factory: Factory
    priors: Mapping[str, float]
    """By field path (`person.title`) or entity (`person`), 0 to 1; 1 for what is not named."""
    contract: Contract | None = None
    """Its statuses, limits and prices; None for one that needs no such thing."""

    def prior(self, entity: str, path: str) -> float:
        """Return how far this provider is trusted for a field."""
        return self.priors.get(f"{entity}.{path}", self.priors.get(entity, 1.0))


REGISTERED: dict[str, Registration] = {}


def provider(
    provider_id: str,
    *,
    priors: Mapping[str, float] | None = None,
    contract: Contract | None = None,
) -> Callable[[Adapter], Adapter]:
    """Register the decorated adapter class under an id and set its `provider_id`.

    Raises ValueError when another class has the id already.
    """

    def register(adapter: Adapter) -> Adapter:
        known = REGISTERED.get(provider_id)
        if known is not None and known.factory is not adapter:
            raise ValueError(f"provider {provider_id!r} is registered already")
        adapter.provider_id = provider_id
        REGISTERED[provider_id] = Registration(adapter, dict(priors or {}), contract)
        return adapter

    return register
