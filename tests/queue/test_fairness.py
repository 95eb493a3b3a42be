"""Fair sharing, as tenants feel it: through the manager, worker by worker, claim by claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from uuid import UUID

import pytest

from enrichd.domain.jobs import Claimed, NewJob
from enrichd.queue.manager import JobQueueManager
from enrichd.store import job_moves, lanes
from enrichd.store.database import Connection
from enrichd.store.jobs import Ended
from tests.support.factories import a_worker, an_email_job, open_plan

pytestmark = pytest.mark.queue


class Workers:
    """Two workers that take turns: each records what it ran and claims the next `room` jobs.

    Every `push_every` turns one of them says how far it came, as the heartbeat does.
    """

    def __init__(
        self,
        queue: JobQueueManager,
        conn: Connection,
        ids: Sequence[UUID],
        *,
        room: int = 1,
        push_every: int = 1,
    ) -> None:
        self._queue = queue
        self._conn = conn
        self._ids = ids
        self._room = room
        self._push_every = push_every
        self._turns = 0
        self._running: dict[UUID, list[Claimed]] = {worker_id: [] for worker_id in ids}
        self._vtimes: dict[tuple[str, int], int] = {}

    async def run(self, count: int) -> list[Claimed]:
        """Run `count` jobs, or what there is, and return them in the order claimed."""
        order: list[Claimed] = []
        while len(order) < count and (claimed := await self._turn()):
            order += claimed
        return order[:count]

    async def run_until(self, is_enough: Callable[[Claimed], bool]) -> list[Claimed]:
        """Run one job after the other up to the first that is enough; return them in order."""
        order: list[Claimed] = []
        while not order or not is_enough(order[-1]):
            [claimed] = await self.run(1)
            order.append(claimed)
        return order

    async def _turn(self) -> list[Claimed]:
        worker_id = self._ids[self._turns % len(self._ids)]
        ended = [
            Ended(run.id, run.attempt, "completed", "completed", result="{}")
            for run in self._running[worker_id]
        ]
        plan = await open_plan(self._conn, self._room)
        turn = await self._queue.turn(worker_id=worker_id, ended=ended, plan=plan, room=self._room)
        assert turn.lost == []
        self._running[worker_id] = turn.claimed
        for run in turn.claimed:
            lane = (run.provider_id, run.priority)
            self._vtimes[lane] = max(self._vtimes.get(lane, 0), run.fair_rank)
        self._turns += 1
        if self._turns % self._push_every == 0:
            await lanes.push_vtime(
                self._conn, [(*lane, rank) for lane, rank in self._vtimes.items()]
            )
        return turn.claimed


@pytest.fixture
async def make_workers(queue: JobQueueManager, conn: Connection) -> Callable[..., Workers]:
    """Give `make_workers(room=…, push_every=…)`: two workers over this test's queue."""
    ids = [(await a_worker(conn)).id for _ in range(2)]
    return lambda **options: Workers(queue, conn, ids, **options)


async def enqueue_singles(
    queue: JobQueueManager, count: int, workspace_id: str, **fields: object
) -> None:
    """Enqueue that many jobs of one lead each."""
    await queue.enqueue_many(
        [an_email_job(workspace_id=workspace_id, **fields) for _ in range(count)]
    )


async def enqueue_batches(
    queue: JobQueueManager, count: int, leads: int, workspace_id: str
) -> None:
    """Enqueue that many jobs of `leads` leads each."""
    payload = {"leadIds": [str(place) for place in range(leads)]}
    await queue.enqueue_many(
        [NewJob("batch_lead_enrichment", payload, workspace_id=workspace_id)] * count
    )


def leads_of(run: Claimed) -> int:
    """Return what a run costs its workspace."""
    return run.payload.count('",') + 1 if run.type == "batch_lead_enrichment" else 1


def is_last_of(workspace_id: str, count: int) -> Callable[[Claimed], bool]:
    """Return a test that holds at a workspace's `count`-th run."""
    seen = Counter[str]()

    def is_last(run: Claimed) -> bool:
        seen[run.workspace_id] += 1
        return run.workspace_id == workspace_id and seen[workspace_id] == count

    return is_last


async def test_two_tenants_share_a_thousand_claims_evenly_while_a_third_lane_is_blocked(
    queue, conn, make_workers
):
    workers = make_workers(room=10, push_every=7)
    await enqueue_singles(queue, 1000, "patient", provider_id="hunter", priority=1)
    await conn.execute(
        "insert into enrichment_provider_state (provider_id, breaker) values ('hunter', 'open')"
    )
    await enqueue_singles(queue, 900, "early")
    await enqueue_singles(queue, 900, "late")

    shares = Counter(run.workspace_id for run in await workers.run(1000))

    assert shares.keys() == {"early", "late"}
    assert 475 <= shares["early"] <= 525


async def test_ten_thousand_single_leads_delay_ten_of_another_by_about_ten(queue, make_workers):
    workers = make_workers()
    await enqueue_singles(queue, 10_000, "big")
    await workers.run(25)

    await enqueue_singles(queue, 10, "small")
    order = await workers.run_until(is_last_of("small", 10))

    assert len(order) - 10 <= 12


async def test_ten_thousand_leads_in_batches_delay_ten_of_another_by_a_batch_at_most(
    queue, make_workers
):
    workers = make_workers()
    await enqueue_batches(queue, 100, 100, "big")
    await workers.run(5)

    await enqueue_singles(queue, 10, "small")
    order = await workers.run_until(is_last_of("small", 10))

    assert sum(leads_of(run) for run in order if run.workspace_id == "big") <= 100


async def test_tenants_are_charged_by_leads_and_not_by_jobs(queue, make_workers):
    workers = make_workers()
    await enqueue_batches(queue, 100, 10, "batches")
    await enqueue_singles(queue, 1000, "singles")

    leads = Counter[str]()
    for run in await workers.run(550):
        leads[run.workspace_id] += leads_of(run)

    assert leads["batches"] == pytest.approx(500, rel=0.05)
    assert leads["singles"] == pytest.approx(500, rel=0.05)


async def test_a_flood_that_comes_due_at_once_waits_behind_its_own_share(queue, conn, make_workers):
    workers = make_workers()
    await enqueue_singles(queue, 1500, "flood", delay_s=3600)
    await conn.execute("update enrichment_jobs set scheduled_at = now() - interval '1 s'")
    while await job_moves.promote_due(conn):
        pass
    await workers.run(20)

    await enqueue_singles(queue, 10, "small")
    order = await workers.run_until(is_last_of("small", 10))

    assert len(order) - 10 <= 12


async def test_a_thousand_retried_jobs_wait_behind_their_own_share(queue, conn, make_workers):
    workers = make_workers()
    await enqueue_singles(queue, 1000, "again")
    await conn.execute("update enrichment_jobs set status = 'failed', completed_at = now()")
    cursor = await conn.execute("select id from enrichment_jobs")
    ids = [job_id for (job_id,) in await cursor.fetchall()]
    assert len(await queue.retry_many(workspace_id="again", ids=ids)) == 1000
    await workers.run(20)

    await enqueue_singles(queue, 10, "small")
    order = await workers.run_until(is_last_of("small", 10))

    assert len(order) - 10 <= 12


async def test_who_was_idle_has_no_credit_for_the_time_past(queue, make_workers):
    workers = make_workers()
    await enqueue_singles(queue, 500, "busy")
    await workers.run(400)

    await enqueue_singles(queue, 300, "newcomer")
    shares = Counter(run.workspace_id for run in await workers.run(100))

    assert 45 <= shares["newcomer"] <= 55


async def test_a_higher_priority_goes_before_every_share(queue, make_workers):
    workers = make_workers(room=3)
    await enqueue_singles(queue, 50, "a", priority=4)
    await enqueue_singles(queue, 30, "b", priority=2)

    order = [run.workspace_id for run in await workers.run(80)]

    assert order == ["b"] * 30 + ["a"] * 50
