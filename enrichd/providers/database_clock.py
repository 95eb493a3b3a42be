"""PostgreSQL's clock as this process knows it, on the scale of its own monotonic one.

Every answer that says what time it is over there gives an interval that the difference of the two
clocks must lie in: between sending and receiving. Their intersection is narrower than any of them,
so it is as good as the fastest answer lately. This host's wall clock plays no part.
"""

from __future__ import annotations

# Two clocks drift apart by less than this; so an old answer's interval grows with its age.
DRIFT = 1e-4
US = 1_000_000


class DatabaseClock:
    """Moments of one server in microseconds since the epoch; ours in monotonic seconds."""

    def __init__(self) -> None:
        self._low = float("-inf")
        self._high = float("inf")
        self._noted_at = 0.0

    def note(self, *, sent_at: float, received_at: float, now_us: int) -> None:
        """Learn from an answer that was `now_us` at some moment between sent and received."""
        low, high = sent_at - now_us / US, received_at - now_us / US
        drifted = (received_at - self._noted_at) * DRIFT
        self._low = max(self._low - drifted, low)
        self._high = min(self._high + drifted, high)
        if self._low > self._high:
            # One of the clocks was set: what was learnt before says nothing any more.
            self._low, self._high = low, high
        self._noted_at = received_at

    @property
    def uncertainty_s(self) -> float:
        """Return how far apart the earliest and the latest possible time are."""
        return self._high - self._low

    def monotonic(self, moment_us: int) -> float:
        """Return when a moment has come for certain."""
        return moment_us / US + self._high

    def has_come(self, moment_us: int, at: float) -> bool:
        """Say whether it is that moment already, for certain."""
        return at >= moment_us / US + self._high

    def may_have_come(self, moment_us: int, at: float) -> bool:
        """Say whether it might be that moment already."""
        return at >= moment_us / US + self._low
