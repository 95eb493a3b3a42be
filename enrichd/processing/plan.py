"""What a worker may claim from: the open lanes, and whether they were seen empty."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from itertools import groupby

from enrichd.domain.jobs import Claimed
from enrichd.errors import Unavailable
from enrichd.store import lanes
from enrichd.store.database import Database
from enrichd.store.jobs import Lane
from enrichd.store.lanes import OpenLane

REFRESH_S = 1.0
# While claims come back full, each starts where the last one did and not at the rank floor: under a
# held snapshot, thousands of dead entries lie in between. What came in below waits for a deep one.
DEEP_S = 0.25


class Plan:
    """A worker's view of the lanes, at most a second old; `only_lanes` leaves the others alone."""

    def __init__(self, only_lanes: frozenset[str] | None = None) -> None:
        self._only_lanes = only_lanes
        self.heard: frozenset[str] = frozenset()
        """Workspaces whose changes somebody listens for, as of the last look at the lanes."""
        self._lanes: list[OpenLane] = []
        self._read_at = float("-inf")
        self._look_at = float("-inf")
        self._turn = 0
        self._heads: dict[tuple[str, int], int] = {}
        """The lowest rank that the last full claim took, by lane and priority."""
        self._deep_at = float("-inf")
        self._has_hint = False
        self.hints = 0
        """How many times somebody said that there are jobs."""

    @property
    def read_at(self) -> float:
        """Return when the lanes were last read, by the loop's clock."""
        return self._read_at

    @property
    def is_known_empty(self) -> bool:
        """Say whether the last look found less than there was room for, and none was due since."""
        return asyncio.get_running_loop().time() < self._look_at

    def forget_empty(self) -> None:
        """Look again at once, with fresh lanes."""
        self._look_at = self._read_at = float("-inf")
        self._has_hint = True
        self.hints += 1

    def expire(self) -> None:
        """Have the lanes read again before the next claim."""
        self._look_at = self._read_at = float("-inf")

    def pause_s(self) -> float:
        """Return the seconds until it is worth looking again."""
        return max(self._look_at - asyncio.get_running_loop().time(), 0.0)

    def note(
        self, room: int, claimed: Sequence[Claimed], *, next_look_s: float, hints: int
    ) -> bool:
        """Note what a claim brought; say whether it found every lane empty.

        `hints` is their number when the claim was sent: one that came since is not to be lost.
        """
        if len(claimed) >= room:
            heads: dict[tuple[str, int], int] = {}
            for job in claimed:
                lane = (job.provider_id, job.priority)
                heads[lane] = min(heads.get(lane, job.fair_rank), job.fair_rank)
            self._heads = heads
            return False
        was_deep, self._heads = not self._heads, {}
        if was_deep and self._read_at > float("-inf"):
            self.note_empty(next_look_s=next_look_s, hints=hints)
        return was_deep and not claimed

    def note_empty(self, *, next_look_s: float, hints: int) -> None:
        """Note that there is nothing to claim."""
        if hints == self.hints:
            jitter = random.uniform(1.0, 1.75)
            self._look_at = asyncio.get_running_loop().time() + next_look_s * jitter

    async def refresh(self, database: Database, *, next_look_s: float) -> None:
        """Read the lanes again if they are older than a second; an idle poll is only this."""
        now = asyncio.get_running_loop().time()
        if now - self._read_at < REFRESH_S or self.is_known_empty:
            return
        if self._has_hint and self._lanes:
            # Somebody says that there are jobs: first the claim, on the lanes as they were known.
            self._has_hint = False
            return
        hints = self.hints
        try:
            async with database.connection() as conn:
                found = await lanes.open_lanes(conn)
        except Unavailable:
            return  # The turn meets the same outage and waits for its end.
        wanted = self._only_lanes
        self._lanes = [lane for lane in found if wanted is None or lane.provider_id in wanted]
        self.heard = frozenset(found[0].heard) if found else frozenset()
        self._read_at = now
        if not any(lane.has_ready for lane in self._lanes):
            self.note_empty(next_look_s=next_look_s, hints=hints)

    def lines(self, room: int) -> list[Lane]:
        """Return a claim's plan: strict priority, and inside it the lanes in turn."""
        if not room:
            return []
        self._turn += 1
        now = asyncio.get_running_loop().time()
        if now >= self._deep_at:
            self._deep_at = now + DEEP_S
            self._heads = {}
        plan: list[Lane] = []
        for _, same in groupby(self._lanes, key=lambda lane: lane.priority):
            group = list(same)
            start = self._turn % len(group)
            plan += [
                Lane(
                    lane.priority,
                    lane.provider_id,
                    min(room, lane.inflight_cap or room),
                    max(lane.floor_rank, self._heads.get((lane.provider_id, lane.priority), 0)),
                )
                for lane in group[start:] + group[:start]
            ]
        return plan
