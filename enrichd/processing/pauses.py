"""How long to wait between tries while PostgreSQL is away."""

from __future__ import annotations

import random
from collections.abc import Iterator

FIRST_S = 0.05
LAST_S = 10.0


def backoff() -> Iterator[float]:
    """Yield seconds to wait: doubling from 50 ms to 10 s, with jitter, without end."""
    pause_s = FIRST_S
    while True:
        yield pause_s * random.uniform(0.5, 1.0)
        pause_s = min(pause_s * 2, LAST_S)
