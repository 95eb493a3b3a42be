"""What a handler is given beside its payload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from enrichd.providers.roster import Providers


@dataclass(frozen=True, slots=True)
class Item:
    """One lead of a batch that is already done."""

    status: Literal["completed", "failed"]
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class OutsideEvent:
    """What somebody sent for a job, by `POST /api/enrichment/webhook` with a key."""

    event: str
    data: Any


class JobContext(Protocol):
    """A run's view of the world: whom it is for, providers, progress, a batch's finished leads.

    A handler stops when it is cancelled (asyncio.CancelledError: clean up and let it pass).
    """

    @property
    def job_id(self) -> UUID:
        """Return the job's id."""

    @property
    def workspace_id(self) -> str:
        """Return the tenant whose job it is."""

    @property
    def provider_id(self) -> str:
        """Return the job's lane: its provider, or `-`."""

    @property
    def attempt(self) -> int:
        """Return the number of this attempt, from 1."""

    @property
    def attempts_left(self) -> int:
        """Return how many attempts the job has after this one."""

    @property
    def priority(self) -> int:
        """Return the job's priority, 1 (highest) to 5."""

    @property
    def providers(self) -> Providers:
        """Return the process's data providers, opened at first use."""

    async def progress(self, done: int, total: int) -> None:
        """Say how far the job is; written at most once a second, so calling it often is cheap."""

    async def finished_items(self) -> Mapping[str, Item]:
        """Return a batch's leads that earlier attempts finished, by item key."""

    async def outside_events(self) -> Sequence[OutsideEvent]:
        """Return what was sent for the job while it was parked, oldest first, at most 100."""

    async def record_item(
        self,
        key: str,
        *,
        status: Literal["completed", "failed"],
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep one finished lead durably. Raises ClaimLost when the run no longer owns its job."""
