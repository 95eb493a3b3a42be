"""Rank floors on their way: lifted while jobs are claimed, and swept below.

The floor keeps claims off the entries of finished jobs: a second's worth at 20,000 jobs a second is
what makes the difference under a held snapshot. A transaction that was open for longer than the
floor takes to pass may put a job below it, where no claim looks: the sweep ranks it anew.
"""

from __future__ import annotations

import asyncio

from enrichd.store import lanes
from enrichd.store.database import RACES, Database

LIFT_S = 1.0
SWEEP_S = 1.0
# Also without any job: a transaction may have been open since the last one.
IDLE_SWEEP_S = 10.0
# A sweep walks over what vacuum could not remove: then it comes less often.
SWEEP_SHARE = 0.02
SWEEP_S_MAX = 60.0


class Floors:
    """Lifts floors and sweeps below them, each when it is time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lift_at = float("-inf")
        self._swept_at = float("-inf")
        self._sweep_s = SWEEP_S

    async def tend(self, *, is_active: bool) -> int:
        """Do what is due and return how many jobs were ranked anew. Raises Unavailable.

        Call it often; `is_active` says whether jobs were claimed lately.
        """
        clock = asyncio.get_running_loop().time
        if is_active and clock() >= self._lift_at:
            self._lift_at = clock() + LIFT_S
            async with self._database.connection() as conn:
                await lanes.raise_floors(conn, age_s=LIFT_S)
        began = clock()
        if began < self._swept_at + (self._sweep_s if is_active else IDLE_SWEEP_S):
            return 0
        try:
            async with self._database.connection() as conn:
                return await lanes.rerank_below_floor(conn)
        except RACES:
            return 0
        finally:
            self._swept_at = clock()
            took_s = self._swept_at - began
            self._sweep_s = min(max(took_s / SWEEP_SHARE, SWEEP_S), SWEEP_S_MAX)
