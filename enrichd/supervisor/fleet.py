"""What the supervisor is to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from enrichd.supervisor.child import ChildSpec

KILL_EXTRA_S = 15.0


def nothing() -> None:
    """Have nothing to set up."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What to run: made anew at each reload."""

    worker: ChildSpec
    others: Sequence[ChildSpec]
    """One child of each; at a reload they are replaced in this order, before the workers."""
    worker_count: int
    worker_max_count: int
    grace_s: float
    """How long a drain may take."""
    hang_s: float
    """How long a child may be silent."""
    kill_extra_s: float = KILL_EXTRA_S
    """From the end of the grace to the kill of what is left: time to write results down."""
    enter: Callable[[], None] = nothing
    """Called when this comes into force (again): it sets up what the supervisor itself needs."""

    @property
    def leave_within_s(self) -> float:
        """How long a child may live on after it was told to leave, or after its supervisor."""
        return self.grace_s + self.kill_extra_s
