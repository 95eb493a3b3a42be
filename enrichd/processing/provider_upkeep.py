"""What waits for providers, kept moving: broken lanes, parked jobs, credits of calls that died."""

from __future__ import annotations

import asyncio

from enrichd.logs import get_logger
from enrichd.queue.changes import tell_moved
from enrichd.store import callbacks, credits, provider_state, relaning
from enrichd.store.database import RACES, Database
from enrichd.store.lanes import Look
from enrichd.store.relaning import Place

TEND_S = 1.0
# While a breaker is open, so many jobs a second are looked at for a fallback.
RELANE_TURNS_MAX = 10
# Who has none is looked at again after this long.
ROUND_S = 5.0

log = get_logger("providers")


class ProviderUpkeep:
    """Does once a second what a look at the queue has seen to be due; any number may run."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tend_at = float("-inf")
        self._place: Place | None = None
        self._round_at = float("-inf")

    async def tend(self, seen: Look) -> int:
        """Do what is due and return how many jobs became ready by it. Raises Unavailable."""
        now = asyncio.get_running_loop().time()
        if now < self._tend_at or not seen.has_provider_upkeep:
            return 0
        self._tend_at = now + TEND_S
        moved = 0
        try:
            if seen.has_open_breaker:
                moved += await self._half_open()
                moved += await self._relane()
            if seen.has_answers:
                async with self._database.connection() as conn:
                    resumed = await callbacks.resume_received(conn)
                await tell_moved(self._database, resumed)
                moved += len(resumed)
            if seen.has_forgotten_calls:
                async with self._database.connection() as conn:
                    calls = await credits.sweep(conn)
                if calls:
                    log.warning("calls_forgotten", calls=calls)
        except RACES:
            return moved  # What lost the race is tried again in a second.
        return moved

    async def _half_open(self) -> int:
        """Open the lanes whose breaker may be probed; their jobs count as ready."""
        async with self._database.connection() as conn:
            names = await provider_state.half_open_due(conn)
        for name in names:
            log.info("breaker_half_open", provider=name)
        return len(names)

    async def _relane(self) -> int:
        """Move jobs of broken lanes to their fallbacks, from where the last turn stopped."""
        now = asyncio.get_running_loop().time()
        if now < self._round_at:
            return 0
        moved = 0
        for _ in range(RELANE_TURNS_MAX):
            async with self._database.connection() as conn:
                done = await relaning.relane(conn, place=self._place)
            moved += done.moved
            self._place = done.next_place
            if self._place is None:
                self._round_at = now + ROUND_S
                break
        if moved:
            log.info("jobs_relaned", jobs=moved)
        return moved
