"""How many workers there should be: a pure step with hysteresis.

Up quickly (a backlog ages while the slots are used), down slowly (a minute of little use), so that
a burst does not make the fleet swing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

OLD_AGE_S = 2.0
HIGH_USE = 0.8
LOW_USE = 0.3
UP_AFTER = 2
DOWN_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the next step needs to remember."""

    wanted: int
    pressed: int = 0
    """How many reports in a row said that there is too much to do."""
    calm_since: float | None = None
    """Since when there has been little to do, by the caller's clock."""


def step(
    state: Scaling, *, low: int, high: int, oldest_ready_s: float, use: float, now: float
) -> Scaling:
    """Return the state after one report; `use` is the share of slots that run jobs, 0 to 1."""
    if oldest_ready_s > OLD_AGE_S and use >= HIGH_USE:
        pressed = state.pressed + 1
        if pressed < UP_AFTER:
            return replace(state, pressed=pressed, calm_since=None)
        return Scaling(bounded(state.wanted + 1, low, high))
    if use <= LOW_USE and oldest_ready_s <= OLD_AGE_S:
        calm_since = now if state.calm_since is None else state.calm_since
        if now - calm_since < DOWN_AFTER_S:
            return Scaling(bounded(state.wanted, low, high), 0, calm_since)
        return Scaling(bounded(state.wanted - 1, low, high), 0, now)
    return Scaling(bounded(state.wanted, low, high))


def bounded(count: int, low: int, high: int) -> int:
    """Return a count between the two."""
    return max(low, min(high, count))
