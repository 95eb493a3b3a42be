"""Ends: runs that are over and jobs that go back, until a turn has recorded them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from enrichd.domain.jobs import Claimed
from enrichd.store.jobs import TURN_BYTES_MAX, TURN_ROWS_MAX, Ended


class Ends:
    """What is to be recorded, first come first."""

    def __init__(self) -> None:
        self._rows: deque[Ended] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, ended: Ended) -> None:
        """Add the end of a run."""
        self._rows.append(ended)

    def give_back(self, jobs: Iterable[Claimed]) -> None:
        """Have jobs released that have not begun."""
        self.release((job.id, job.attempt) for job in jobs)

    def release(self, claims: Iterable[tuple[str, int]]) -> None:
        """Have claims, (job id, attempt) pairs, released: no attempt used, none logged."""
        self._rows.extend(
            Ended(job_id, attempt, "pending", "unstarted", delay_s=0.0, is_refunded=True)
            for job_id, attempt in claims
        )

    def take(self) -> list[Ended]:
        """Take what one turn carries: bounded rows and bytes."""
        batch: list[Ended] = []
        size = 0
        while self._rows and len(batch) < TURN_ROWS_MAX and size < TURN_BYTES_MAX:
            ended = self._rows.popleft()
            size += len(ended.result or "") + len(ended.error or "")
            batch.append(ended)
        return batch

    def put_back(self, batch: Sequence[Ended]) -> None:
        """Take back, to the front, what could not be recorded."""
        self._rows.extendleft(reversed(batch))

    def ids(self) -> set[str]:
        """Return the ids of the jobs."""
        return {ended.id for ended in self._rows}

    def clear(self) -> None:
        """Forget everything: the jobs are others' now."""
        self._rows.clear()
