"""Suspects, jobs whose worker died: who runs them, when, and with nothing beside them.

The worker's row names the one that is run: if it takes this worker down as well, no other job is
blamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from enrichd.domain.jobs import Claimed
from enrichd.processing.runs import Runners
from enrichd.store import workers
from enrichd.store.database import Database

# Suspects are left for so long to workers with nothing to do; one that has them waits so long for
# its other runs, and lets suspects be for so long after it waited in vain.
AFTER_S = 0.2
WAIT_S = 10.0
SPARED_S = 60.0


class Suspects:
    """How a worker deals with the suspects it claimed."""

    def __init__(
        self, runners: Runners, database: Database, *, on_blocked: Callable[[], None]
    ) -> None:
        self._runners = runners
        self._database = database
        self._on_blocked = on_blocked
        self._since: float | None = None
        self._spared_until = float("-inf")

    @property
    def are_here(self) -> bool:
        """Say whether there are any, waiting or being run."""
        return bool(self._runners.suspects) or self._runners.is_alone

    def after_s(self, *, is_idle: bool) -> float:
        """Return how long suspects are left to others: not at all with nothing to do."""
        if is_idle:
            return 0.0
        is_spared = asyncio.get_running_loop().time() < self._spared_until
        return SPARED_S if is_spared else AFTER_S

    def make_room(self) -> list[Claimed]:
        """Take every job that is not to begin before the suspects are done."""
        if self._runners.is_alone:
            return []
        return [*self._runners.empty_buffer(), *self._runners.spare_suspects()]

    def wait_until(self) -> float | None:
        """Return how long, by the loop's clock, they may wait for what runs; None without any."""
        if not self._runners.suspects:
            return None
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        return self._since + WAIT_S

    def leave_to_others(self) -> list[Claimed]:
        """Take those that waited in vain; the runs that held them up call for a fresh worker."""
        self._since = None
        self._spared_until = asyncio.get_running_loop().time() + SPARED_S
        left = self._runners.spare_suspects(keep=0)
        if not self._runners.is_alone:
            self._on_blocked()
        return left

    async def run_next(self, worker_id: UUID) -> None:
        """Run the next one, or say that there is none any more. Raises Unavailable."""
        runners = self._runners
        suspect = runners.suspects[0].id if runners.suspects else None
        async with self._database.connection() as conn:
            await workers.set_alone(conn, worker_id=worker_id, job_id=suspect)
        self._since = None
        runners.is_alone = suspect is not None
        if runners.is_alone:
            runners.run_suspect()
