"""Every statement of the store prepares; the hot ones keep their index and their price.

The plans are looked at on a loaded table, as prepared statements: with the values known, and as the
generic plan that PostgreSQL may settle for after five runs.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from uuid_utils.compat import uuid7

import enrichd.store
from enrichd.store import (
    arrays,
    items,
    job_moves,
    job_reads,
    jobs,
    lanes,
    new_jobs,
    prune,
    workers,
)
from tests.support import postgres

pytestmark = pytest.mark.queue

PREPARABLE = {"select", "with", "insert", "update", "delete"}
PARAMETER = re.compile(r"%\((\w+)\)s")


def statements() -> Iterator[tuple[str, str]]:
    """Yield (module.NAME, text) of every SQL constant of the store."""
    for found in pkgutil.iter_modules(enrichd.store.__path__, "enrichd.store."):
        module = importlib.import_module(found.name)
        texts = {
            name: getattr(module, name)
            for name, annotation in getattr(module, "__annotations__", {}).items()
            if annotation == "LiteralString"
        }
        for name, text in texts.items():
            is_part = any(text in other for other in texts.values() if other is not text)
            if not is_part:
                yield f"{found.name.rpartition('.')[2]}.{name}", text


STATEMENTS = dict(statements())


def numbered(text: str) -> tuple[str, list[str]]:
    """Return a statement with $1, $2 … for its parameters, and their names in that order."""
    names = list(dict.fromkeys(PARAMETER.findall(text)))
    return (
        PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", text).replace("%%", "%"),
        names,
    )


# A loaded table

WORKER = UUID("019a0000-0000-7000-8000-00000000000a")
DEAD_WORKER = UUID("019a0000-0000-7000-8000-00000000000d")
EMPTY_LANES = [f"empty{number}" for number in range(20)]

LOAD_LANES = """
    insert into enrichment_lanes (provider_id, priority)
    select lane, 3 from unnest(array['free', 'throttled']) as lane
    union all
    select 'empty' || number, 3 from generate_series(0, 19) as number
"""

LOAD_READY = """
    insert into enrichment_jobs (id, workspace_id, type, provider_id, payload, fair_rank)
    select enrichment_uuid7(), 'ws' || place % 5, 'email_validation', 'free', '{}', place / 5
      from generate_series(1, 500) as place
"""

STAGES = {
    "100,000 jobs of a throttled lane": """
        insert into enrichment_jobs (id, workspace_id, type, provider_id, payload, fair_rank)
        select enrichment_uuid7(), 'big', 'email_validation', 'throttled', '{}', place
          from generate_series(1, 100000) as place
    """,
    "50,000 jobs that ended": """
        insert into enrichment_jobs
               (id, workspace_id, type, status, provider_id, payload, result, attempts, worker_id,
                started_at, completed_at)
        select enrichment_uuid7(), 'ws' || place % 50, 'email_validation',
               (array['completed', 'completed', 'failed', 'dead_letter', 'cancelled'])
                   [1 + place % 5],
               'free', '{}', '{}', 1, enrichment_uuid7(), now() - make_interval(mins => place),
               now() - make_interval(mins => place)
          from generate_series(1, 50000) as place
    """,
    "20,000 jobs for next week": """
        insert into enrichment_jobs
               (id, workspace_id, type, status, provider_id, payload, scheduled_at)
        select enrichment_uuid7(), 'big', 'email_validation', 'scheduled', 'free', '{}',
               now() + interval '7 days' + make_interval(secs => place)
          from generate_series(1, 20000) as place
    """,
}

LOAD_WORKERS = """
    insert into enrichment_workers (id, host, pid, version, concurrency, state)
    values (%(worker)s, 'test', 1, '0', 10, 'running'), (%(dead)s, 'test', 2, '0', 10, 'dead')
"""

LOAD_DUE_AND_PARKED = """
    insert into enrichment_jobs
           (id, workspace_id, type, status, provider_id, payload, scheduled_at)
    select enrichment_uuid7(), 'ws1', 'email_validation', 'scheduled', 'free', '{}'::jsonb,
           now() - make_interval(secs => place)
      from generate_series(1, 50) as place
    union all
    select enrichment_uuid7(), 'ws2', 'email_validation', 'waiting', 'free', '{}'::jsonb,
           now() + make_interval(hours => place - 10)
      from generate_series(1, 200) as place
"""

LOAD_RUNNING = """
    insert into enrichment_jobs
           (id, workspace_id, type, status, provider_id, payload, attempts, worker_id, started_at,
            cancel_requested_at)
    select enrichment_uuid7(), 'ws3', 'email_validation', 'processing', 'free', '{}', 1,
           case when place %% 2 = 0 then %(worker)s::uuid else %(dead)s::uuid end, now(),
           case when place < 5 then now() end
      from generate_series(1, 20) as place
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded database and what a claim cost while it filled."""

    dsn: str
    claim_buffers: Mapping[str, int]
    """Pages that a claim's search read, by what had been loaded last."""


@pytest.fixture(scope="module")
def loaded(admin_dsn: str, template: str) -> Iterator[Loaded]:
    """Give a database with backlog, history, and jobs in every state, analysed."""
    dsn = postgres.clone_database(admin_dsn, template)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(LOAD_LANES)
        conn.execute(LOAD_READY)
        conn.execute("vacuum analyze enrichment_jobs")
        claim_buffers = {"nothing else": claim_plan(conn, room=10).part("CTE picked").buffers}
        for stage, statement in STAGES.items():
            conn.execute(statement)
            conn.execute("vacuum analyze enrichment_jobs")
            claim_buffers[stage] = claim_plan(conn, room=10).part("CTE picked").buffers
        conn.execute(LOAD_WORKERS, {"worker": WORKER, "dead": DEAD_WORKER})
        conn.execute(LOAD_DUE_AND_PARKED)
        conn.execute(LOAD_RUNNING, {"worker": WORKER, "dead": DEAD_WORKER})
        conn.execute("vacuum analyze")
    yield Loaded(dsn, claim_buffers)
    postgres.drop_database(admin_dsn, dsn)


@pytest.fixture
def conn(loaded: Loaded) -> Iterator[psycopg.Connection]:
    """Give a connection to the loaded database."""
    with psycopg.connect(loaded.dsn, autocommit=True) as opened:
        yield opened


# Plans


@dataclass(frozen=True, slots=True)
class Plan:
    """A node of an executed plan and all below it."""

    node: Mapping[str, Any]

    @property
    def buffers(self) -> int:
        """Return the pages read, from cache or not."""
        return int(self.node["Shared Hit Blocks"] + self.node["Shared Read Blocks"])

    def nodes(self) -> Iterator[Mapping[str, Any]]:
        """Yield this node and all below it."""
        yield self.node
        for below in self.node.get("Plans", ()):
            yield from Plan(below).nodes()

    def part(self, subplan: str) -> Plan:
        """Return the part with that name."""
        return Plan(next(node for node in self.nodes() if node.get("Subplan Name") == subplan))

    @property
    def indexes(self) -> set[str]:
        """Return the indexes of enrichment_jobs in use, without the table's name."""
        names = {node["Index Name"] for node in self.nodes() if "Index Name" in node}
        return {
            name.removeprefix("enrichment_jobs_")
            for name in names
            if name.startswith("enrichment_jobs_")
        }

    @property
    def scans_all_jobs(self) -> bool:
        """Say whether the whole table is read."""
        return any(
            node["Node Type"] == "Seq Scan" and node["Relation Name"] == "enrichment_jobs"
            for node in self.nodes()
        )


def executed(
    conn: psycopg.Connection, statement: str, values: Mapping[str, Any], *, mode: str = "custom"
) -> Plan:
    """Run a prepared statement under EXPLAIN, take its effects back and return its plan."""
    text, names = numbered(statement)
    arguments = sql.SQL(", ").join(sql.Literal(values[name]) for name in names)
    with conn.transaction(force_rollback=True):
        conn.execute(f"set local plan_cache_mode = force_{mode}_plan")
        conn.execute("prepare hot as " + text)
        cursor = conn.execute(
            sql.SQL("explain (analyze, buffers, format json) execute hot {}").format(
                sql.SQL("({})").format(arguments) if names else sql.SQL("")
            )
        )
        row = cursor.fetchone()
    conn.execute("deallocate hot")
    assert row is not None
    return Plan(row[0][0]["Plan"])


def claim_values(*, room: int, plan_lanes: list[str], floor: int = 0) -> dict[str, Any]:
    """Return TURN's values for a claim that records nothing."""
    count = len(plan_lanes)
    nothing = ("ids", "attempts", "statuses", "outcomes", "results", "errors", "delays", "refunds")
    return {
        **dict.fromkeys(nothing, "{}"),
        "worker_id": WORKER,
        "priorities": arrays.plain_array([3] * count),
        "lanes": arrays.text_array(plan_lanes),
        "quotas": arrays.plain_array([room] * count),
        "floors": arrays.plain_array([floor] * count),
        "room": room,
        "suspects_after_s": 0.0,
    }


def claim_plan(
    conn: psycopg.Connection, *, room: int, floor: int = 0, mode: str = "custom"
) -> Plan:
    """Return how a claim runs that looks into every lane but the throttled one."""
    values = claim_values(room=room, plan_lanes=[*EMPTY_LANES, "free"], floor=floor)
    return executed(conn, jobs.TURN, values, mode=mode)


# Every statement


def test_the_walk_finds_the_statements_and_not_their_parts():
    assert {
        "jobs.TURN",
        "jobs.CLAIM",
        "bulk.COPY",
        "job_reads.LIST",
        "workers.BEAT",
    } <= STATEMENTS.keys()
    assert "job_reads.COLUMNS" not in STATEMENTS


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_is_valid_against_the_migrated_schema(conn, name):
    text, _ = numbered(STATEMENTS[name])
    verb = text.split()[0].lower()

    with conn.transaction(force_rollback=True):
        if verb == "begin;":
            # Inside a transaction already: what is begun with is what matters.
            text = text.replace("begin;", "").format(workspace_id="'acme'")
            conn.execute(text)
        elif verb.lstrip("(") in PREPARABLE:
            conn.execute("prepare it as " + text)
            conn.execute("deallocate it")
        elif verb == "copy":
            with conn.cursor().copy(text):
                pass
        else:
            assert verb in ("create", "listen", "unlisten")
            conn.execute(text)


# The hot ones keep their index


def rank_base(conn: psycopg.Connection) -> str:
    """Return the body of enrichment_rank_base with parameters in place of its arguments."""
    row = conn.execute(
        "select prosrc from pg_proc where proname = 'enrichment_rank_base'"
    ).fetchone()
    assert row is not None
    types = {"workspace": "text", "provider": "text", "priority": "smallint"}
    return re.sub(r"in_(\w+)", lambda found: f"%({found[1]})s::{types[found[1]]}", row[0])


IDS = [uuid7() for _ in range(50)]
RUNS = arrays.plain_array(IDS)
FILTER = {"statuses": None, "type": None, "provider_id": None, "tag": None}
AGED = {"statuses": ["completed", "failed"], "age_s": 86_400.0, "workspace_id": None, "limit": 1000}
HOT: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "a claim": (
        jobs.CLAIM,
        claim_values(room=10, plan_lanes=["free", "empty1"]),
        {"ready", "pkey"},
    ),
    "a turn that claims": (
        jobs.TURN,
        claim_values(room=10, plan_lanes=["free", "empty1"]),
        {"ready", "pkey"},
    ),
    "a turn that records and claims": (
        jobs.TURN,
        claim_values(room=10, plan_lanes=["free", "empty1"])
        | {
            "ids": RUNS,
            "attempts": arrays.plain_array([1] * 50),
            "statuses": arrays.plain_array(["completed"] * 50),
            "outcomes": arrays.plain_array(["completed"] * 50),
            "results": arrays.text_array(["{}"] * 50),
            "errors": arrays.plain_array([None] * 50),
            "delays": arrays.plain_array([None] * 50),
            "refunds": arrays.plain_array([False] * 50),
        },
        {"ready", "pkey"},
    ),
    "promotion of what is due": (job_moves.PROMOTE_DUE, {"limit": 500}, {"due", "pkey"}),
    "the next due time": (job_moves.NEXT_DUE, {}, {"due"}),
    "rescue": (job_moves.RESCUE, {"limit": 500, "crashes_max": 3}, {"running", "pkey"}),
    "a housekeeper's look": (
        lanes.LOOK,
        {"room": 10, "timeout_s": 20.0},
        {"ready", "due", "waiting", "running"},
    ),
    "the load": (workers.LOAD, {}, {"ready"}),
    "expiry of the parked": (job_moves.EXPIRE_WAITING, {"limit": 500}, {"waiting", "pkey"}),
    "cancel": (job_moves.CANCEL, {"ids": IDS, "workspace_id": "ws1"}, {"pkey", "list"}),
    "retry": (job_moves.RETRY, {"ids": IDS, "workspace_id": "ws1"}, {"pkey", "list"}),
    "resume": (job_moves.RESUME, {"id": IDS[0]}, {"pkey"}),
    "floors": (lanes.RAISE_FLOORS, {"age_s": 0.0}, {"ready"}),
    "the sweep below the floors": (lanes.RERANK_BELOW_FLOOR, {}, {"ready", "pkey"}),
    "a worker's cancelled runs": (workers.CANCELLED_RUNS, {"id": WORKER}, {"running"}),
    "what a worker holds": (workers.HELD, {"id": WORKER}, {"running"}),
    "a list's first page": (
        job_reads.LIST,
        {"workspace_id": "ws7", "before": None, "limit": 20} | FILTER,
        {"list"},
    ),
    "ends": (job_reads.ENDS, {"ids": IDS}, {"pkey"}),
    "states": (job_reads.STATUSES, {"ids": IDS, "workspace_id": "ws1"}, {"pkey", "list"}),
    "pruning": (prune.PRUNE, AGED, {"prune", "pkey"}),
    "a batch's progress": (
        items.PROGRESS,
        {
            "worker_id": WORKER,
            "jobs": RUNS,
            "attempts": arrays.plain_array([1] * 50),
            "dones": arrays.plain_array([1] * 50),
            "totals": arrays.plain_array([9] * 50),
        },
        {"running"},
    ),
    "a batch's finished leads": (
        items.RECORD,
        {
            "worker_id": WORKER,
            "jobs": RUNS,
            "attempts": arrays.plain_array([1] * 50),
            "keys": arrays.plain_array(range(50)),
            "statuses": arrays.plain_array(["completed"] * 50),
            "results": arrays.text_array(["{}"] * 50),
            "errors": arrays.plain_array([None] * 50),
        },
        {"running"},
    ),
}


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_uses_its_index_and_never_reads_all_jobs(conn, name, mode):
    statement, values, indexes = HOT[name]

    plan = executed(conn, statement, values, mode=mode)

    assert plan.indexes <= indexes, plan.indexes
    assert plan.indexes, "reads no job at all"
    assert not plan.scans_all_jobs


@pytest.mark.parametrize("mode", ["custom", "generic"])
def test_a_new_job_rank_is_one_look_into_its_index_however_long_the_queue(conn, mode):
    values = {"workspace": "big", "provider": "throttled", "priority": 3}

    plan = executed(conn, rank_base(conn), values, mode=mode)

    assert (plan.indexes, plan.scans_all_jobs) == ({"fair"}, False)
    assert plan.buffers <= 8


@pytest.mark.parametrize("key", [None, "new"])
def test_an_enqueue_costs_the_same_however_long_the_queue(conn, key):
    values = {
        "id": uuid7(),
        "workspace_id": "big",
        "type": "x",
        "priority": 3,
        "provider_id": "throttled",
        "payload": "{}",
        "tags": "{}",
        "max_retries": 3,
        "cost": 1,
        "webhook_url": None,
        "idempotency_key": key,
        "scheduled_at": None,
        "delay_s": None,
    }
    executed(conn, new_jobs.ENQUEUE, values)  # The function plans its statements at its first call.

    assert executed(conn, new_jobs.ENQUEUE, values).buffers <= 60


@pytest.mark.parametrize("mode", ["custom", "generic"])
def test_a_list_page_costs_the_same_at_any_depth(conn, mode):
    values = {"workspace_id": "ws7", "limit": 20} | FILTER
    row = conn.execute(
        "select id from enrichment_jobs where workspace_id = 'ws7' order by id offset 50 limit 1"
    ).fetchone()
    assert row is not None

    first = executed(conn, job_reads.LIST, values | {"before": None}, mode=mode)
    deep = executed(conn, job_reads.LIST, values | {"before": row[0]}, mode=mode)

    assert first.indexes == deep.indexes == {"list"}
    assert max(first.buffers, deep.buffers) <= 40


# What a claim costs


def test_a_claim_costs_the_same_with_any_backlog_history_and_future(loaded):
    costs = loaded.claim_buffers.values()

    assert len(loaded.claim_buffers) == 1 + len(STAGES)
    # An index that grew one level costs one page more in each lane.
    assert max(costs) - min(costs) <= len(EMPTY_LANES) + 1, loaded.claim_buffers


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("room", [1, 10, 100])
def test_a_claim_costs_a_few_pages_a_lane_and_a_job(conn, room, mode):
    picked = claim_plan(conn, room=room, mode=mode).part("CTE picked")

    assert picked.node["Actual Rows"] == room
    assert picked.buffers <= 4 * (len(EMPTY_LANES) + 1) + 6 * room


@pytest.mark.parametrize("mode", ["custom", "generic"])
def test_a_housekeeper_look_costs_a_few_pages_a_lane(conn, mode):
    plan = executed(conn, lanes.LOOK, {"room": 1, "timeout_s": 20.0}, mode=mode)

    assert plan.buffers <= 5 * (len(EMPTY_LANES) + 2) + 60


def test_a_claim_locks_the_jobs_it_takes_and_no_others(conn, loaded):
    values = claim_values(room=7, plan_lanes=["free", "throttled", "empty1"])
    values["quotas"] = "{5,90,90}"
    free = "select id from enrichment_jobs where status = 'pending' for update skip locked"
    with psycopg.connect(loaded.dsn) as other, conn.transaction(force_rollback=True):
        before = len(other.execute(free).fetchall())
        other.rollback()
        assert len(conn.execute(jobs.TURN, values).fetchall()) == 7

        assert len(other.execute(free).fetchall()) == before - 7
        other.rollback()


@pytest.fixture
def finished_under_a_snapshot(admin_dsn: str, template: str) -> Iterator[psycopg.Connection]:
    """Give a database where 20,000 jobs of a lane ended while an old snapshot is held.

    Their index entries cannot go, so a search from the start of the lane walks over all of them.
    """
    dsn = postgres.clone_database(admin_dsn, template)
    with psycopg.connect(dsn, autocommit=True) as conn, psycopg.connect(dsn) as reader:
        conn.execute(LOAD_LANES)
        conn.execute(
            """
            insert into enrichment_jobs (id, type, provider_id, payload, fair_rank)
            select enrichment_uuid7(), 'x', 'free', '{}', place
              from generate_series(1, 20100) as place
            """
        )
        conn.execute("vacuum analyze")
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select count(*) from enrichment_jobs")
        conn.execute(
            """
            update enrichment_jobs set status = 'completed', completed_at = now()
             where fair_rank <= 20000
            """
        )
        conn.execute("vacuum analyze")
        yield conn
        reader.rollback()
    postgres.drop_database(admin_dsn, dsn)


def test_a_claim_never_walks_over_what_is_finished_while_an_old_snapshot_is_held(
    finished_under_a_snapshot,
):
    conn = finished_under_a_snapshot
    dear = claim_plan(conn, room=10).part("CTE picked").buffers

    conn.execute(lanes.PUSH_VTIME, {"lanes": "{free}", "priorities": "{3}", "vtimes": "{20000}"})
    for _ in range(2):
        conn.execute("update enrichment_lanes set floor_at = now() - interval '6 s'")
        conn.execute(lanes.RAISE_FLOORS, {"age_s": 5.0})
    row = conn.execute(
        "select floor_rank from enrichment_lanes where provider_id = 'free'"
    ).fetchone()
    assert row == (20000,)
    picked = claim_plan(conn, room=10, floor=20000).part("CTE picked")

    assert picked.node["Actual Rows"] == 10
    assert picked.buffers <= 4 * (len(EMPTY_LANES) + 1) + 6 * 10
    assert dear > 3 * picked.buffers, "the snapshot holds nothing, so this test shows nothing"


def test_an_enqueue_never_walks_over_what_is_finished_while_an_old_snapshot_is_held(
    finished_under_a_snapshot,
):
    conn = finished_under_a_snapshot
    conn.execute("update enrichment_jobs set status = 'completed' where fair_rank > 20000")
    conn.execute("vacuum analyze")
    values = {"workspace": "default", "provider": "free", "priority": 3}
    dear = executed(conn, rank_base(conn), values).buffers

    conn.execute("update enrichment_lanes set vtime = 20100, floor_rank = 20100")

    assert executed(conn, rank_base(conn), values).buffers <= 8
    assert dear > 50, "the snapshot holds nothing, so this test shows nothing"
