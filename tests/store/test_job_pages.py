"""What a page of the list costs: every statement it runs, explained on a loaded table as the API's
own role, with the values known and as the generic plan."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from enrichd.store import job_figures, job_pages
from enrichd.store.database import Database
from enrichd.store.job_pages import Wanted
from enrichd.store.tenancy import Tenants
from tests.support import postgres

pytestmark = pytest.mark.queue

JOBS = 40_000
SEEN_MAX, SEEN_MAX_TEXT, FEW, COUNTED_MAX = 300, 100, 200, 400
STATES_MAX = 5

# As it is after months: nearly everything is done, a queue stands, little has failed. A second
# workspace has as many.
LOAD = """
    insert into enrichment_jobs
           (id, workspace_id, type, status, provider_id, payload, tags, worker_id, scheduled_at,
            completed_at)
    select enrichment_uuid7(), workspace, 'email_validation', state, '-', '{"emails": ["a@b.co"]}',
           '{}', case when state = 'processing' then enrichment_uuid7() end,
           case when state = 'scheduled' then now() + interval '1 day' end,
           case when state in ('completed', 'failed', 'dead_letter', 'cancelled') then now() end
      from generate_series(1, %s) as place
     cross join unnest(array['big', 'other']) as workspace
     cross join lateral (
           select case when place %% 100 = 0 then 'failed'
                       when place %% 100 = 1 then 'dead_letter'
                       when place %% 400 = 2 then 'scheduled'
                       when place %% 40 = 3 then 'pending'
                       when place %% 8000 = 4 then 'processing'
                       else 'completed' end as state) as chosen
"""


@pytest.fixture(scope="module")
def loaded(admin_dsn: str, template: str) -> Iterator[str]:
    """Give a database of 80,000 jobs."""
    dsn = postgres.clone_database(admin_dsn, template)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(LOAD, [JOBS])
        conn.execute("vacuum analyze enrichment_jobs")
    yield dsn
    postgres.drop_database(admin_dsn, dsn)


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the bounds as small beside this table as they are beside a million jobs."""
    monkeypatch.setattr(job_pages, "SEEN_MAX", SEEN_MAX)
    monkeypatch.setattr(job_pages, "SEEN_MAX_TEXT", SEEN_MAX_TEXT)
    monkeypatch.setattr(job_pages, "FEW", FEW)
    monkeypatch.setattr(job_figures, "COUNTED_MAX", COUNTED_MAX)
    monkeypatch.setattr(job_figures, "STATE_MAX", COUNTED_MAX)
    monkeypatch.setattr(job_figures, "SAMPLED", 2 * COUNTED_MAX)


class Explaining:
    """A connection that keeps the executed plan of everything it is asked."""

    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self._conn = conn
        self.plans: list[list[Mapping[str, Any]]] = []

    async def execute(self, statement: str, values: Mapping[str, Any]) -> Any:
        cursor = await self._conn.execute(
            f"explain (analyze, buffers, format json) {statement}".encode(), values, prepare=True
        )
        row = await cursor.fetchone()
        assert row is not None
        self.plans.append(list(nodes_of(row[0][0]["Plan"])))
        return await self._conn.execute(statement.encode(), values)


def nodes_of(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a plan's node and all below it."""
    yield node
    for below in node.get("Plans", ()):
        yield from nodes_of(below)


def looked_at(plan: Sequence[Mapping[str, Any]]) -> float:
    """Return how many jobs a plan read, those it threw away among them."""
    removed = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    return sum(
        (node["Actual Rows"] + sum(node.get(name, 0) for name in removed)) * node["Actual Loops"]
        for node in plan
        if node.get("Relation Name") == "enrichment_jobs"
        or node.get("Index Name", "").startswith("enrichment_jobs")
    )


def pages_of(plan: Sequence[Mapping[str, Any]]) -> float:
    """Return how many pages of 8 kB a plan touched."""
    root = plan[0]
    return root["Shared Hit Blocks"] + root["Shared Read Blocks"]


async def explained(dsn: str, mode: str, work: Any) -> list[list[Mapping[str, Any]]]:
    """Return the plans of what `work` asks in a transaction of the workspace `big`."""
    tenants = Tenants(Database(dsn), size=1)
    try:
        async with tenants.of("big") as conn:
            await conn.execute(f"set local plan_cache_mode = force_{mode}_plan".encode())
            explaining = Explaining(conn)
            await work(explaining)
            return explaining.plans
    finally:
        await tenants.close()


LONG_AGO, FAR_AWAY = datetime(2001, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
FILTERS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a state that is few": {"statuses": ["failed"]},
    "states that are few": {"statuses": ["failed", "dead_letter", "scheduled", "waiting"]},
    "a state that nothing has": {"statuses": ["waiting"]},
    "what runs": {"statuses": ["processing"]},
    "what waits and runs": {"statuses": ["pending", "processing"]},
    "the state of nearly all": {"statuses": ["completed"]},
    "a type of all": {"type": "email_validation"},
    "a type of none": {"type": "nap"},
    "a provider of none": {"provider_id": "hunter"},
    "a tag of none": {"tag": "spring"},
    "a text of none": {"text": "zanzibar"},
    "a time before all": {"created_before": LONG_AGO},
    "a time after all": {"created_after": FAR_AWAY},
    "a range with all": {"created_after": LONG_AGO, "created_before": FAR_AWAY},
    "a state and a tag of none": {"statuses": ["failed", "cancelled"], "tag": "spring"},
    "a state and a time before all": {"statuses": ["pending"], "created_before": LONG_AGO},
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", FILTERS)
async def test_a_page_looks_at_so_many_jobs_and_no_more(loaded, name, mode):
    wanted = Wanted("big", **FILTERS[name])

    plans = await explained(loaded, mode, lambda conn: job_pages.page(conn, wanted, limit=50))

    assert plans
    for plan in plans:
        assert not walks_the_table(plan)
        assert looked_at(plan) <= STATES_MAX * SEEN_MAX


@pytest.mark.parametrize("mode", ["custom", "generic"])
async def test_a_page_in_the_depth_costs_what_the_first_one_does(loaded, mode):
    async def pages(conn: Any) -> None:
        before = None
        for _ in range(3):
            page = await job_pages.page(conn, Wanted("big"), before=before, limit=50)
            before = page.next_before
        deep = await (
            await conn.execute(
                "select id from enrichment_jobs where workspace_id = %(workspace_id)s"
                " order by id offset 1000 limit 1",
                {"workspace_id": "big"},
            )
        ).fetchone()
        await job_pages.page(conn, Wanted("big"), before=deep[0], limit=50)

    *first, _, last = await explained(loaded, mode, pages)

    assert {looked_at(plan) for plan in (*first, last)} == {51}
    # What an index scan steps over in the index itself is only seen by its pages: a few, and one of
    # the table for each job at most.
    assert max(pages_of(plan) for plan in (*first, last)) <= 51 + 15


@pytest.mark.parametrize("mode", ["custom", "generic"])
async def test_figures_look_at_the_newest_jobs_at_what_is_few_and_at_a_sample(loaded, mode):
    plans = await explained(
        loaded, mode, lambda conn: job_figures.figures(conn, workspace_id="big", live_workers=1)
    )

    assert len(plans) == 5
    for plan in plans:
        assert not walks_the_table(plan)
        assert looked_at(plan) <= 8 * COUNTED_MAX


def walks_the_table(plan: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a plan walked through the jobs; what it had at hand and never ran is no walk."""
    return any(
        node["Node Type"] == "Seq Scan"
        and node["Relation Name"] == "enrichment_jobs"
        and node["Actual Loops"]
        for node in plan
    )


async def test_the_walk_over_a_filter_that_nothing_fits_ends(loaded):
    tenants = Tenants(Database(loaded), size=1)
    wanted, before, pages = Wanted("big", tag="spring"), None, 0
    try:
        async with tenants.of("big") as conn, asyncio.timeout(30):
            while True:
                page = await job_pages.page(conn, wanted, before=before)
                assert page.jobs == []
                pages += 1
                before = page.next_before
                if before is None:
                    break
    finally:
        await tenants.close()
    assert JOBS / SEEN_MAX <= pages <= JOBS / SEEN_MAX + 1
