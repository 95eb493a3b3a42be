"""Recovery: a worker and PostgreSQL agree again on which jobs are whose.

A connection that broke at the commit may have claimed jobs whose ids were lost with it, and the
server may commit only after we asked; our heartbeat would keep them ours for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from enrichd.errors import Unavailable
from enrichd.logs import get_logger
from enrichd.processing.ends import Ends
from enrichd.processing.pauses import backoff
from enrichd.processing.runs import Runners
from enrichd.store import workers
from enrichd.store.database import Database

log = get_logger("worker")


class Recovery:
    """Finds claims of this worker that it never heard of, and gives them back."""

    def __init__(self, hot: Database, beats: Database, runners: Runners, ends: Ends) -> None:
        self._hot = hot
        self._beats = beats
        self._runners = runners
        self._ends = ends

    async def wait_for_database(
        self,
        error: Unavailable,
        *,
        worker_id: UUID,
        time_left_s: Callable[[], float],
        is_stopping: Callable[[], bool],
    ) -> bool:
        """Wait until PostgreSQL is back; True when claims were found that are to be given back.

        It ends without that when it is time to stop: what is left is the drain's, which has an end
        of its own.
        """
        log.warning("database_away", reason=error.message)
        for pause_s in backoff():
            await asyncio.sleep(min(pause_s, max(time_left_s(), 0.0)))
            try:
                async with self._hot.connection() as conn:
                    held = await workers.held(conn, worker_id=worker_id)
            except Unavailable as still:
                log.debug("database_still_away", reason=still.message)
                if time_left_s() <= 0 or is_stopping():
                    return False
                continue
            log.info("database_back")
            return self._give_back_unknown(held)
        raise AssertionError("pauses have no end")

    async def compare(
        self, held_count: int, *, worker_id: UUID, turns: Callable[[], int | None]
    ) -> bool:
        """Compare what we have with what PostgreSQL holds to be ours; True as above.

        `turns` says how many turns were done, None during one: then nothing can be compared.
        """
        before = turns()
        if before is None or held_count == self._runners.held + len(self._ends):
            return False
        try:
            async with self._beats.connection() as conn:
                held = await workers.held(conn, worker_id=worker_id)
        except Unavailable:
            return False
        return turns() == before and self._give_back_unknown(held)

    def _give_back_unknown(self, held: list[tuple[str, int]]) -> bool:
        known = self._runners.ids() | self._ends.ids()
        unknown = [pair for pair in held if pair[0] not in known]
        if unknown:
            log.warning("claims_given_back", jobs=len(unknown))
            self._ends.release(unknown)
        return bool(unknown)
