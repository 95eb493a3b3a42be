"""What a worker may claim from: the open lanes, and whether they were seen empty."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from uuid import UUID

from enrichd.domain.jobs import Claimed
from enrichd.errors import Unavailable
from enrichd.queue.manager import HINT_EVERY_S
from enrichd.store import lanes
from enrichd.store.database import Database
from enrichd.store.jobs import Lane
from enrichd.store.lanes import NOBODY, OpenLane

REFRESH_S = 1.0
# Who enqueues hints once in 20 ms (`HINT_EVERY_S`), so a job that came right after a hint has none
# of its own. It is committed before those 20 ms are over, and found by one more look after them.
SETTLED_AFTER_S = 2 * HINT_EVERY_S
# While claims come back full, each starts where the last one did and not at the rank floor: under a
# held snapshot, thousands of dead entries lie in between. What came in below waits for a deep one.
DEEP_S = 0.25


def nothing() -> Iterable[str]:
    """Return the lanes of the jobs that a worker holds, where it holds none."""
    return ()


class Plan:
    """A worker's view of the lanes, at most a second old; `only_lanes` leaves the others alone.

    `holding` says the lanes of the jobs that the worker has now, one for each job. A lane with a
    cap is claimed from up to the worker's share of it: what was free at the last look, and again
    what its own jobs gave free since.
    """

    def __init__(
        self,
        only_lanes: frozenset[str] | None = None,
        *,
        holding: Callable[[], Iterable[str]] = nothing,
    ) -> None:
        self._only_lanes = only_lanes
        self._holding = holding
        self._held_at_read: Counter[str] = Counter()
        self._capped: frozenset[str] = frozenset()
        self._is_held_back = False
        """Whether the last claim left something behind because of a cap."""
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
        self._settled_at = float("-inf")
        """When no job can be there any more whose hint was spared because of the last one."""
        self._asked_at = float("-inf")
        """When the last look or claim was sent."""
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
        """Look again at once, with fresh lanes, and once more when the hint has settled."""
        self._look_at = self._read_at = float("-inf")
        self._settled_at = asyncio.get_running_loop().time() + SETTLED_AFTER_S
        self._has_hint = True
        self.hints += 1

    def expire(self) -> None:
        """Have the lanes read again before the next claim."""
        self._look_at = self._read_at = float("-inf")

    def pause_s(self) -> float:
        """Return the seconds until it is worth looking again."""
        return max(self._look_at - asyncio.get_running_loop().time(), 0.0)

    def note_freed(self) -> None:
        """Note that a job ended here: its lane, if it has a cap, may be claimed from at once."""
        if self._is_held_back:
            self._look_at = float("-inf")

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
        if not was_deep:
            return False
        self._is_held_back = self._is_full(claimed)
        if self._is_held_back:
            next_look_s = min(next_look_s, REFRESH_S)
        if self._read_at > float("-inf"):
            self.note_empty(next_look_s=next_look_s, hints=hints)
        return not (claimed or self._is_held_back)

    def _is_full(self, claimed: Sequence[Claimed]) -> bool:
        """Say whether a lane may have more than the worker's share, which is used up."""
        busy = {job.provider_id for job in claimed}
        busy.update(lane.provider_id for lane in self._lanes if lane.has_ready)
        return any(left <= 0 and name in busy for name, left in self._shares().items())

    def _shares(self) -> dict[str, int]:
        """Return how many more jobs of each capped lane may be claimed here now."""
        if not self._capped:
            return {}
        held = Counter(self._holding())
        return {
            lane.provider_id: lane.spare
            + self._held_at_read[lane.provider_id]
            - held[lane.provider_id]
            for lane in self._lanes
            if lane.spare is not None
        }

    def note_empty(self, *, next_look_s: float, hints: int) -> None:
        """Note that there is nothing to claim."""
        if hints != self.hints:
            return
        if self._asked_at < self._settled_at:
            self._look_at, self._read_at = self._settled_at, float("-inf")
        else:
            now = asyncio.get_running_loop().time()
            self._look_at = now + next_look_s * random.uniform(1.0, 1.75)

    async def refresh(
        self, database: Database, *, next_look_s: float, worker_id: UUID = NOBODY
    ) -> None:
        """Read the lanes again if they are older than a second; an idle poll is only this."""
        now = asyncio.get_running_loop().time()
        if now - self._read_at < REFRESH_S or self.is_known_empty:
            return
        if self._has_hint and self._lanes:
            # Somebody says that there are jobs: first the claim, on the lanes as they were known.
            self._has_hint = False
            return
        hints, self._asked_at = self.hints, now
        try:
            async with database.connection() as conn:
                found = await lanes.open_lanes(conn, worker_id=worker_id)
        except Unavailable:
            return  # The turn meets the same outage and waits for its end.
        wanted = self._only_lanes
        self._lanes = [lane for lane in found if wanted is None or lane.provider_id in wanted]
        self._capped = frozenset(lane.provider_id for lane in found if lane.spare is not None)
        self._held_at_read = Counter(self._holding()) if self._capped else Counter()
        self.heard = frozenset(found[0].heard) if found else frozenset()
        if hints == self.hints:  # Else the hint may be of a lane that was not there yet.
            self._read_at, self._has_hint = now, False
        if not any(lane.has_ready for lane in self._lanes):
            self.note_empty(next_look_s=next_look_s, hints=hints)

    def lines(self, room: int) -> list[Lane]:
        """Return a claim's plan: strict priority, and inside it the lanes in turn."""
        if not room:
            return []
        self._turn += 1
        self._asked_at = now = asyncio.get_running_loop().time()
        if now >= self._deep_at:
            self._deep_at = now + DEEP_S
            self._heads = {}
        quotas = self._quotas(room)
        plan: list[Lane] = []
        for _, same in groupby(self._lanes, key=lambda lane: lane.priority):
            group = list(same)
            start = self._turn % len(group)
            plan += [
                Lane(lane.priority, lane.provider_id, quota, max(lane.floor_rank, head))
                for lane in group[start:] + group[:start]
                if (quota := quotas.get((lane.provider_id, lane.priority), room))
                for head in (self._heads.get((lane.provider_id, lane.priority), 0),)
            ]
        return plan

    def _quotas(self, room: int) -> dict[tuple[str, int], int]:
        """Return what capped lanes' priorities may be claimed from: together no more than is left.

        The highest gets what there is but for one job of each below it; those that were seen empty
        come last.
        """
        quotas: dict[tuple[str, int], int] = {}
        by_lane: dict[str, list[OpenLane]] = defaultdict(list)
        for lane in self._lanes:
            if lane.provider_id in self._capped:
                by_lane[lane.provider_id].append(lane)
        shares = self._shares()
        for name, rows in by_lane.items():
            left = max(min(shares[name], room), 0)
            ranked = sorted(rows, key=lambda lane: (not lane.has_ready, lane.priority))
            for place, lane in enumerate(ranked):
                below = min(len(ranked) - place - 1, max(left - 1, 0))
                given = left - below if place == 0 else min(left, 1)
                quotas[name, lane.priority] = given
                left -= given
        return quotas
