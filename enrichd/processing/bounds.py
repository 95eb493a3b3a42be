"""How far a run of a JobProcessor goes, and what it did."""

from __future__ import annotations

from dataclasses import dataclass

from enrichd.store.jobs import Ended


@dataclass(slots=True)
class Limits:
    """How far a bounded run goes. None means without end."""

    max_jobs: int | None = None
    timeout_s: float | None = None
    is_until_empty: bool = False
    """End when nothing is ready to claim and nothing runs."""
    reserve_s: float = 0.0
    """How long before the timeout to begin nothing more; what runs may still end by itself."""

    @property
    def is_bounded(self) -> bool:
        """Say whether the run is to end by itself."""
        return self.is_until_empty or self.max_jobs is not None or self.timeout_s is not None


@dataclass(slots=True)
class Report:
    """What a JobProcessor did."""

    claimed: int = 0
    completed: int = 0
    failed: int = 0
    retried: int = 0
    snoozed: int = 0
    cancelled: int = 0
    released: int = 0
    lost: int = 0

    @property
    def ended(self) -> int:
        """Return how many runs came to an end of their own."""
        return self.completed + self.failed + self.retried + self.snoozed + self.cancelled

    def count(self, ended: Ended) -> None:
        """Count one recorded run by its end."""
        match ended.outcome:
            case "completed":
                self.completed += 1
            case "failed":
                self.failed += 1
            case "retry":
                self.retried += 1
            case "snoozed" | "parked":
                self.snoozed += 1
            case "cancelled":
                self.cancelled += 1
            case _:
                self.released += 1
