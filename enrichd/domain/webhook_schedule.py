"""When a webhook that was not taken is sent again."""

from __future__ import annotations

from typing import Final

MINUTE: Final = 60.0
HOUR: Final = 3600.0

PAUSES_S: Final = (
    5.0,
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
)
"""After the first attempt, the second …: ten attempts in about three days."""

ATTEMPTS_MAX: Final = len(PAUSES_S) + 1
JITTER: Final = 0.2
RETRY_AFTER_MAX_S: Final = 24 * HOUR


def pause_s(attempt: int, *, retry_after_s: float | None, dice: float) -> float | None:
    """Return the seconds until the attempt after this one (from 1), None if it was the last.

    A receiver's Retry-After can make it longer, up to a day, never shorter. `dice` is 0 to 1: a
    fifth of the pause is chance, so that what failed together does not come back together.
    """
    if attempt >= ATTEMPTS_MAX:
        return None
    pause = PAUSES_S[attempt - 1] * (1 + JITTER * dice)
    return max(pause, min(retry_after_s or 0.0, RETRY_AFTER_MAX_S))
