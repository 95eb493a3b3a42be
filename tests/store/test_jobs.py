"""The hot path: what enqueue writes, what a turn claims, what it records and what it refuses."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import chain
from uuid import UUID

import psycopg
import pytest
from uuid_utils.compat import uuid7

from enrichd.domain.jobs import Enqueued, NewJob
from enrichd.domain.outcomes import (
    Cancelled,
    Completed,
    Failed,
    JobError,
    Outcome,
    Park,
    Released,
    Retry,
    Snooze,
)
from enrichd.domain.retries import RetryRule
from enrichd.errors import Invalid, InvalidPayload
from enrichd.queue.endings import ended_of
from enrichd.queue.intake import row_of
from enrichd.queue.manager import ENQUEUE_BATCH, JobQueueManager
from enrichd.store import job_moves, jobs, new_jobs
from enrichd.store.database import Connection, Database
from enrichd.store.jobs import Ended, Lane
from tests.support.factories import (
    a_job,
    a_worker,
    an_email_job,
    claim,
    columns_of,
    counted,
    history_of,
    open_plan,
    pending_jobs,
    state_of,
)

pytestmark = pytest.mark.queue

ERROR = JobError("provider_down", "timed out", "hunter", retryable=True)
SERVER_MADE = ("id", "created_at", "updated_at", "scheduled_at")


async def run_ended(
    conn: Connection, outcome: Outcome, *, cancel_requested: bool = False, max_retries: int = 3
) -> UUID:
    """Claim a new job, end its run with `outcome` and return its id."""
    worker = await a_worker(conn)
    job = await a_job(conn, max_retries=max_retries)
    [claimed] = await claim(conn, worker.id)
    if cancel_requested:
        await job_moves.cancel(conn, workspace_id="default", ids=[job.id])
    ended = ended_of(claimed, outcome, RetryRule(), 0.5)
    _, lost = await jobs.turn(conn, worker_id=worker.id, ended=[ended], plan=(), room=0)
    assert lost == []
    return job.id


# Recording


async def test_a_completed_run_keeps_its_result_and_costs_no_row_in_the_log(conn):
    job_id = await run_ended(conn, Completed({"email": "ada@example.com"}))

    after = await columns_of(conn, job_id)
    assert (after["status"], after["attempts"], after["error"]) == ("completed", 1, None)
    assert after["result"] == {"email": "ada@example.com"}
    assert after["completed_at"] >= after["started_at"]
    assert await history_of(conn, job_id) == [(1, "completed")]
    assert await counted(conn, "enrichment_attempt_log") == 0


async def test_a_failed_run_keeps_its_error(conn):
    job_id = await run_ended(conn, Failed(ERROR))

    after = await columns_of(conn, job_id)
    assert (after["status"], after["error"]) == ("failed", ERROR.to_json())
    assert await history_of(conn, job_id) == [(1, "failed")]


async def test_a_run_to_repeat_waits_and_keeps_its_attempt(conn):
    job_id = await run_ended(conn, Retry(ERROR, delay_s=60))

    after = await columns_of(conn, job_id)
    assert (after["status"], after["attempts"], after["worker_id"]) == ("scheduled", 1, None)
    assert (after["scheduled_at"] - after["updated_at"]).total_seconds() == 60
    assert await history_of(conn, job_id) == [(1, "retry")]


async def test_the_last_attempt_ends_in_the_dead_letter(conn):
    job_id = await run_ended(conn, Retry(ERROR), max_retries=0)

    after = await columns_of(conn, job_id)
    assert (after["status"], after["error"]) == ("dead_letter", ERROR.to_json())
    assert await history_of(conn, job_id) == [(1, "failed")]


@pytest.mark.parametrize(
    ("outcome", "status", "logged"),
    [
        (Snooze(60), "scheduled", "snoozed"),
        (Park(60), "waiting", "parked"),
        (Released(), "pending", "released"),
    ],
)
async def test_putting_a_run_aside_gives_the_attempt_back(conn, outcome, status, logged):
    job_id = await run_ended(conn, outcome)

    after = await columns_of(conn, job_id)
    assert (after["status"], after["attempts"], after["worker_id"]) == (status, 0, None)
    assert after["completed_at"] is None
    assert await history_of(conn, job_id) == [(1, logged)]


async def test_a_stopped_run_is_cancelled(conn):
    job_id = await run_ended(conn, Cancelled("asked"), cancel_requested=True)

    assert await state_of(conn, job_id) == "cancelled"
    assert await history_of(conn, job_id) == [(1, "cancelled")]


@pytest.mark.parametrize("outcome", [Retry(ERROR), Snooze(60), Park(60), Released()])
async def test_a_cancel_wins_over_an_end_that_would_run_the_job_again(conn, outcome):
    job_id = await run_ended(conn, outcome, cancel_requested=True)

    after = await columns_of(conn, job_id)
    assert (after["status"], after["worker_id"]) == ("cancelled", None)
    assert after["completed_at"] is not None
    assert len(await history_of(conn, job_id)) == 1


@pytest.mark.parametrize(
    ("outcome", "status"), [(Completed({}), "completed"), (Failed(ERROR), "failed")]
)
async def test_a_run_that_ended_before_it_could_be_stopped_keeps_its_end(conn, outcome, status):
    job_id = await run_ended(conn, outcome, cancel_requested=True)

    assert await state_of(conn, job_id) == status


async def test_an_error_of_an_earlier_attempt_goes_when_the_job_completes(conn):
    worker = await a_worker(conn)
    job = await a_job(conn, error=ERROR.to_json(), attempts=1)
    [claimed] = await claim(conn, worker.id)

    await claim(conn, worker.id, ended=[ended_of(claimed, Completed({}), RetryRule(), 0)])

    assert (await columns_of(conn, job.id))["error"] is None


async def test_a_released_job_keeps_its_place_but_does_not_pass_what_was_claimed(conn):
    worker = await a_worker(conn)
    job = await a_job(conn, fair_rank=5)
    [claimed] = await claim(conn, worker.id)
    await conn.execute("update enrichment_lanes set vtime = 40")

    await claim(conn, worker.id, room=0, ended=[ended_of(claimed, Released(), RetryRule(), 0)])

    assert (await columns_of(conn, job.id))["fair_rank"] == 40


# The fence


@pytest.mark.parametrize("status", ["completed", "scheduled", "waiting", "pending", "dead_letter"])
@pytest.mark.parametrize("wrong", ["worker", "attempt", "state"])
async def test_a_run_that_lost_its_claim_is_told_so_and_changes_nothing(conn, status, wrong):
    worker = await a_worker(conn)
    other = await a_worker(conn)
    job = await a_job(
        conn,
        status="failed" if wrong == "state" else "processing",
        worker_id=worker.id,
        attempts=2,
    )
    before = await columns_of(conn, job.id)
    delay_s = None if status in ("completed", "dead_letter") else 0.0
    ended = Ended(
        str(job.id),
        1 if wrong == "attempt" else 2,
        status,
        "retry",
        result='{"stale": true}',
        error='{"type": "stale"}',
        delay_s=delay_s,
        is_refunded=True,
    )

    claimed, lost = await jobs.turn(
        conn,
        worker_id=other.id if wrong == "worker" else worker.id,
        ended=[ended],
        plan=(),
        room=0,
    )

    assert (claimed, lost) == ([], [str(job.id)])
    assert await columns_of(conn, job.id) == before
    assert await counted(conn, "enrichment_attempt_log") == 0


async def test_the_same_end_given_twice_is_recorded_once(conn):
    worker = await a_worker(conn)
    await a_job(conn)
    [claimed] = await claim(conn, worker.id)
    ended = ended_of(claimed, Retry(ERROR), RetryRule(), 0.5)

    _, first = await jobs.turn(conn, worker_id=worker.id, ended=[ended], plan=(), room=0)
    _, second = await jobs.turn(conn, worker_id=worker.id, ended=[ended], plan=(), room=0)

    assert (first, second) == ([], [claimed.id])
    assert await history_of(conn, claimed.id) == [(1, "retry")]


async def test_a_worker_paused_past_its_death_finds_itself_fenced(conn):
    paused = await a_worker(conn)
    await a_job(conn)
    [old_run] = await claim(conn, paused.id)
    await conn.execute("update enrichment_workers set state = 'dead'")
    await job_moves.rescue(conn)
    [new_run] = await claim(conn, (await a_worker(conn)).id)

    stale = ended_of(old_run, Completed({"by": "the paused worker"}), RetryRule(), 0)
    _, lost = await jobs.turn(conn, worker_id=paused.id, ended=[stale], plan=(), room=0)

    assert lost == [old_run.id] == [new_run.id]
    after = await columns_of(conn, new_run.id)
    assert (after["status"], after["attempts"], after["result"]) == ("processing", 2, None)


async def test_a_value_that_postgresql_refuses_fails_its_own_job_only(conn, queue):
    worker = await a_worker(conn)
    for _ in range(5):
        await a_job(conn)
    runs = await claim(conn, worker.id, room=5)
    ended = [Ended(run.id, run.attempt, "completed", "completed", result="{}") for run in runs]
    ended[3].result = '{"broken": '

    turn = await queue.turn(worker_id=worker.id, ended=ended, plan=(), room=0)

    assert turn.lost == []
    after = [await columns_of(conn, run.id) for run in runs]
    assert [row["status"] for row in after] == [
        "completed", "completed", "completed", "failed", "completed",
    ]  # fmt: skip
    assert after[3]["error"]["type"] == "unstorable_result"


# Claiming


async def test_a_claim_takes_what_there_is_room_for_and_says_what_a_worker_needs(conn):
    worker = await a_worker(conn)
    job = await a_job(conn, payload={"emails": ["a@b.co"]}, provider_id="hunter", max_retries=7)
    await a_job(conn, provider_id="hunter", fair_rank=1)

    [claimed] = await claim(conn, worker.id, room=1)

    assert (claimed.id, claimed.attempt, claimed.max_retries) == (str(job.id), 1, 7)
    assert (claimed.type, claimed.workspace_id) == ("email_validation", "default")
    assert (claimed.provider_id, claimed.priority, claimed.fair_rank) == ("hunter", 3, 0)
    assert claimed.payload == '{"emails": ["a@b.co"]}'
    after = await columns_of(conn, job.id)
    assert (after["status"], after["worker_id"]) == ("processing", worker.id)
    assert after["started_at"] is not None


async def test_priorities_are_strict_across_lanes(conn):
    worker = await a_worker(conn)
    for priority, lane in [(3, "a"), (1, "b"), (5, "a"), (2, "a"), (1, "a"), (4, "b")]:
        await a_job(conn, priority=priority, provider_id=lane)

    order = [(await claim(conn, worker.id))[0].priority for _ in range(6)]

    assert order == [1, 1, 2, 3, 4, 5]


async def test_a_lane_gives_at_most_its_quota(conn):
    worker = await a_worker(conn)
    await pending_jobs(conn, 5, provider_id="a")
    await pending_jobs(conn, 5, provider_id="b")
    plan = [Lane(3, "a", 2, 0), Lane(3, "b", 10, 0)]

    claimed, _ = await jobs.turn(conn, worker_id=worker.id, ended=(), plan=plan, room=6)

    lanes = [run.provider_id for run in claimed]
    assert (lanes.count("a"), lanes.count("b")) == (2, 4)


async def test_one_turn_records_and_claims_and_the_two_do_not_meet(conn):
    """A job that this very turn releases is not claimed by it."""
    worker = await a_worker(conn)
    await a_job(conn)
    [run] = await claim(conn, worker.id)
    waiting = await a_job(conn, fair_rank=1)

    claimed = await claim(
        conn, worker.id, room=5, ended=[ended_of(run, Released(), RetryRule(), 0)]
    )

    assert [found.id for found in claimed] == [str(waiting.id)]
    assert await state_of(conn, run.id) == "pending"


async def test_eight_workers_at_once_never_get_the_same_job(conn, database_url):
    await pending_jobs(conn, 200)
    plan = await open_plan(conn, 7)

    async def drain() -> list[str]:
        own = Database(database_url)
        worker_id = uuid7()
        taken: list[str] = []
        async with own.connection() as bare:
            while claimed := (
                await jobs.turn(bare, worker_id=worker_id, ended=(), plan=plan, room=7)
            )[0]:
                taken += [run.id for run in claimed]
        await own.close()
        return taken

    taken = list(chain.from_iterable(await asyncio.gather(*[drain() for _ in range(8)])))

    assert len(taken) == len(set(taken)) == 200


async def test_a_job_that_changed_between_the_look_and_the_lock_is_claimed_as_it_is_now(
    conn, database_url, eventually
):
    """The claim is held at its look by an advisory lock that stands in for a slow machine."""
    worker = await a_worker(conn)
    job, gone = await a_job(conn), await a_job(conn)
    await conn.execute(
        """
        create function held_up() returns boolean language plpgsql volatile cost 1 as $$
        begin perform pg_advisory_xact_lock(7); return true; end $$
        """
    )
    slow = jobs.TURN.replace("where status = 'pending'", "where held_up() and status = 'pending'")
    assert slow != jobs.TURN
    nothing = ("ids", "attempts", "statuses", "outcomes", "results", "errors", "delays", "refunds")
    values = {
        **dict.fromkeys(nothing, "{}"),
        "worker_id": worker.id,
        "priorities": "{3}",
        "lanes": "{-}",
        "quotas": "{5}",
        "floors": "{0}",
        "room": 5,
        "suspects_after_s": 0.0,
    }
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:

        async def claim_slowly() -> list[str]:
            return [row[0] for row in await (await other.execute(slow, values)).fetchall()]

        async def is_held_up() -> object:
            cursor = await conn.execute(
                "select 1 from pg_locks where locktype = 'advisory' and not granted"
            )
            return await cursor.fetchone()

        async with asyncio.TaskGroup() as group, conn.transaction():
            await conn.execute("select pg_advisory_xact_lock(7)")
            task = group.create_task(claim_slowly())
            await eventually(is_held_up)
            await conn.execute("update enrichment_jobs set fair_rank = 9 where id = %s", [job.id])
            await job_moves.cancel(conn, workspace_id="default", ids=[gone.id])

    assert task.result() == [str(job.id)]
    after = await columns_of(conn, job.id)
    assert (after["status"], after["attempts"], after["fair_rank"]) == ("processing", 1, 9)
    assert await state_of(conn, gone.id) == "cancelled"


async def test_one_unreadable_payload_does_not_hide_the_others(conn):
    worker = await a_worker(conn)
    too_deep_for_python = '{"d":' * 3000 + "1" + "}" * 3000
    bad = await a_job(conn)
    await a_job(conn)
    await conn.execute(
        "update enrichment_jobs set payload = %s::jsonb where id = %s",
        [too_deep_for_python, bad.id],
    )

    claimed = await claim(conn, worker.id, room=5)

    assert len(claimed) == 2


# Enqueue: one


async def test_enqueue_stores_everything_a_caller_gave(conn, queue):
    new = NewJob(
        "single_lead_enrichment",
        {"leadId": "7", "providerId": "hunter"},
        workspace_id="acme",
        priority=1,
        max_retries=9,
        tags=["x", 'quo"te', "back\\slash", "a,b", "{}", ""][:5],
        webhook_url="https://example.com/hook",
        idempotency_key="key",
    )

    enqueued = await queue.enqueue(new)

    assert enqueued.is_new is True
    after = await columns_of(conn, enqueued.id)
    assert {name: after[name] for name in STORED} == {
        "workspace_id": "acme",
        "type": "single_lead_enrichment",
        "status": "pending",
        "priority": 1,
        "provider_id": "hunter",
        "payload": {"leadId": "7", "providerId": "hunter"},
        "tags": ["x", 'quo"te', "back\\slash", "a,b", "{}"],
        "attempts": 0,
        "max_retries": 9,
        "cost": 1,
        "fair_rank": 1,
        "webhook_url": "https://example.com/hook",
        "idempotency_key": "key",
    }


STORED = (
    "workspace_id", "type", "status", "priority", "provider_id", "payload", "tags", "attempts",
    "max_retries", "cost", "fair_rank", "webhook_url", "idempotency_key",
)  # fmt: skip


async def test_a_delay_counts_by_the_database_clock(conn, queue):
    enqueued = await queue.enqueue(an_email_job(delay_s=3600))

    after = await columns_of(conn, enqueued.id)
    assert after["status"] == "scheduled"
    assert (after["scheduled_at"] - after["created_at"]).total_seconds() == 3600


async def test_a_moment_in_the_past_means_now(conn, queue):
    enqueued = await queue.enqueue(an_email_job(scheduled_at=datetime(2020, 1, 1, tzinfo=UTC)))

    assert await state_of(conn, enqueued.id) == "pending"


async def test_a_due_time_in_another_zone_is_the_same_moment(conn, queue):
    moment = datetime(2999, 1, 1, 12, 30, tzinfo=UTC)

    enqueued = await queue.enqueue(an_email_job(scheduled_at=moment))

    after = await columns_of(conn, enqueued.id)
    assert (after["status"], after["scheduled_at"] - moment) == ("scheduled", timedelta(0))


async def test_the_same_key_gives_the_same_job_whatever_became_of_it(conn, queue):
    first = await queue.enqueue(an_email_job(idempotency_key="k"))
    await conn.execute("update enrichment_jobs set status = 'completed', completed_at = now()")

    again = await queue.enqueue(an_email_job(idempotency_key="k", priority=1))

    assert again == Enqueued(first.id, False)
    assert await counted(conn, "enrichment_jobs") == 1


async def test_a_key_belongs_to_its_workspace(queue):
    first = await queue.enqueue(an_email_job(idempotency_key="k"))
    other = await queue.enqueue(an_email_job(idempotency_key="k", workspace_id="other"))

    assert other.is_new
    assert other.id != first.id


async def test_an_enqueue_repeated_with_its_own_id_changes_nothing(conn, queue):
    new = an_email_job(id=uuid7())

    assert await queue.enqueue(new) == Enqueued(new.id, True)
    assert await queue.enqueue(new) == Enqueued(new.id, False)
    assert await counted(conn, "enrichment_jobs") == 1


async def test_eight_connections_with_one_key_make_one_job(conn, database_url):
    async def enqueue(place: int) -> Enqueued:
        own = Database(database_url)
        enqueued = await JobQueueManager(own).enqueue(an_email_job(idempotency_key="k"))
        await own.close()
        return enqueued

    answers = await asyncio.gather(*map(enqueue, range(8)))

    assert len({answer.id for answer in answers}) == 1
    assert sum(answer.is_new for answer in answers) == 1
    assert await counted(conn, "enrichment_jobs") == 1


@pytest.mark.parametrize("path", ["one", "many"])
async def test_an_id_that_another_workspace_has_is_refused(conn, queue, path):
    taken = await a_job(conn, workspace_id="other")
    new = an_email_job(id=taken.id)

    with pytest.raises(Invalid, match=f"job id {taken.id} is taken"):
        await (queue.enqueue(new) if path == "one" else queue.enqueue_many([an_email_job(), new]))

    assert await counted(conn, "enrichment_jobs") == 1


@pytest.mark.parametrize("path", ["one", "copy", "keyed"])
async def test_an_enqueue_in_the_caller_transaction_goes_with_it(conn, queue, path):
    new = an_email_job(idempotency_key="k" if path == "keyed" else None)

    async with conn.transaction(force_rollback=True):
        if path == "one":
            await queue.enqueue(new, conn=conn)
        else:
            await queue.enqueue_many([new], conn=conn)
        assert await counted(conn, "enrichment_jobs") == 1

    assert await counted(conn, "enrichment_jobs") == 0


def test_a_synchronous_caller_enqueues_in_its_own_transaction(database_url):
    with psycopg.connect(database_url) as sync:
        enqueued = new_jobs.enqueue_sync(sync, row_of(an_email_job()))
        assert enqueued.is_new
        sync.rollback()
        assert sync.execute("select count(*) from enrichment_jobs").fetchone() == (0,)


# Enqueue: many


async def test_the_copy_path_and_the_keyed_path_give_the_same_rows(conn, queue):
    hard = 'tab\tnewline\nreturn\rquote"back\\slash \\N {a,b} née 𝄞'
    new = [
        NewJob(
            "batch_lead_enrichment",
            {"leadIds": [str(n) for n in range(1 + place % 7)], "providerId": lane},
            workspace_id=workspace,
            priority=1 + place % 3,
            max_retries=place % 4,
            tags=tags,
            webhook_url=url,
        )
        for place, (workspace, lane, tags, url) in enumerate(
            [
                ("a", "hunter", [], None),
                ("a", "hunter", [hard, "null", "NULL"], "https://example.com/?q=%20"),
                (hard, "builtin", ["x"], None),
                ("\\N", "hunter", ["\\"], None),
            ]
            * 5
        )
    ]

    copied = await queue.enqueue_many(new)
    rows_copied = [await columns_of(conn, job.id) for job in copied]
    await conn.execute("truncate enrichment_jobs, enrichment_lanes")
    keyed = await queue.enqueue_many(
        [NewJob(**{**fields(job), "id": one.id}) for job, one in zip(new, copied, strict=True)]
    )
    rows_keyed = [await columns_of(conn, job.id) for job in keyed]
    await conn.execute("truncate enrichment_jobs, enrichment_lanes")
    singly = [
        await queue.enqueue(NewJob(**{**fields(job), "id": one.id}))
        for job, one in zip(new, copied, strict=True)
    ]
    rows_singly = [await columns_of(conn, job.id) for job in singly]

    assert all(job.is_new for job in copied + keyed)
    assert list(map(timeless, rows_keyed)) == list(map(timeless, rows_copied))
    assert list(map(timeless, rows_singly)) == list(map(timeless, rows_copied))


@pytest.mark.parametrize("key", [None, "k"])
async def test_the_statement_for_one_job_stores_what_the_function_does(conn, queue, key):
    """The first of a lane goes by the function, the others by the statement."""
    new = NewJob(
        "email_validation",
        {"emails": ["tab\t", "quo'te", "back\\slash", "née 𝄞"] * 10},
        workspace_id='a "b" {c},\\N',
        priority=2,
        provider_id="hunter",
        max_retries=0,
        tags=["a,b", 'quo"te', "null"],
        webhook_url="https://example.com/?q='%20",
        idempotency_key=key,
    )
    keys = [key and f"{key}{place}" for place in range(3)]
    done = [await queue.enqueue(NewJob(**{**fields(new), "idempotency_key": key})) for key in keys]

    rows = [timeless(await columns_of(conn, job.id)) for job in done]
    assert [row.pop("fair_rank") for row in rows] == [4, 8, 12]
    assert [row.pop("id") for row in rows] == [job.id for job in done]
    assert [row.pop("idempotency_key") for row in rows] == keys
    assert rows[0] == rows[1] == rows[2]


async def test_one_job_after_the_other_ranks_behind_its_own_and_behind_what_was_claimed(
    conn, queue
):
    await queue.enqueue(an_email_job())
    await conn.execute("update enrichment_lanes set vtime = 40")
    done = [
        await queue.enqueue(an_email_job(workspace_id=workspace))
        for workspace in ("default", "default", "other")
    ]

    assert [(await columns_of(conn, job.id))["fair_rank"] for job in done] == [41, 42, 41]


async def test_a_ready_job_is_one_statement_that_is_prepared_once(conn):
    """Whatever the size of its numbers: psycopg has a type for each, and a statement for each."""
    counting = (
        "select count(*), sum(generic_plans + custom_plans) from pg_prepared_statements"
        " where statement like '%%lane.floor_rank%%' and statement not like '%%pg_prepared%%'"
    )
    await new_jobs.enqueue(conn, row_of(an_email_job()))
    before = await (await conn.execute(counting)).fetchone()
    for max_retries, leads in [(0, 1), (100, 700), (3, 10_000)]:
        payload = {"leadIds": [str(place) for place in range(leads)], "providerId": "builtin"}
        await new_jobs.enqueue(
            conn, row_of(NewJob("batch_lead_enrichment", payload, max_retries=max_retries))
        )

    after = await (await conn.execute(counting)).fetchone()
    assert (before, after) == ((1, 1), (1, 4))


def fields(new: NewJob) -> dict[str, object]:
    return {name: getattr(new, name) for name in NewJob.__dataclass_fields__}


def timeless(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if name not in ("created_at", "updated_at")}


@pytest.mark.parametrize("is_keyed", [False, True])
async def test_ranks_run_on_over_the_bounded_statements_of_one_call(conn, queue, is_keyed):
    count = ENQUEUE_BATCH + 10
    new = [an_email_job(idempotency_key=str(place) if is_keyed else None) for place in range(count)]

    done = await queue.enqueue_many(new)

    assert len({job.id for job in done}) == count
    cursor = await conn.execute("select fair_rank from enrichment_jobs order by id")
    assert [rank for (rank,) in await cursor.fetchall()] == list(range(1, count + 1))


async def test_one_wrong_job_keeps_all_out_and_is_named(conn, queue):
    new = [an_email_job(), an_email_job(priority=9)]

    with pytest.raises(InvalidPayload, match="priority"):
        await queue.enqueue_many(new)

    assert await counted(conn, "enrichment_jobs") == 0


async def test_many_with_keys_find_those_that_are_there_and_answer_in_order(conn, queue):
    there = await queue.enqueue(an_email_job(idempotency_key="there"))
    new = [an_email_job(idempotency_key=key) for key in ("new", "there", "twice", "twice")]

    done = await queue.enqueue_many(new)

    assert [job.is_new for job in done] == [True, False, True, False]
    assert done[1].id == there.id
    assert done[3].id == done[2].id
    assert await counted(conn, "enrichment_jobs") == 3


async def test_one_id_given_twice_in_one_call_is_new_once(conn, queue):
    new = an_email_job(id=uuid7())

    done = await queue.enqueue_many([new, new])

    assert done == [Enqueued(new.id, True), Enqueued(new.id, False)]
    assert await counted(conn, "enrichment_jobs") == 1


async def test_many_may_be_delayed_and_only_the_ready_ones_are_charged(conn, queue):
    done = await queue.enqueue_many(
        [an_email_job(), an_email_job(delay_s=60), an_email_job(), an_email_job(delay_s=0)]
    )

    rows = [await columns_of(conn, job.id) for job in done]
    assert [row["status"] for row in rows] == ["pending", "scheduled", "pending", "pending"]
    assert [row["fair_rank"] for row in rows] == [1, 0, 2, 3]


async def test_eight_bulk_calls_with_the_same_keys_in_mixed_order_make_each_job_once(
    conn, database_url
):
    keys = [str(number) for number in range(40)]

    async def enqueue(place: int) -> set[UUID]:
        own = Database(database_url)
        wanted = keys[place * 5 :] + keys[: place * 5]
        done = await JobQueueManager(own).enqueue_many(
            [an_email_job(idempotency_key=key) for key in wanted]
        )
        await own.close()
        return {job.id for job in done}

    answers = await asyncio.gather(*map(enqueue, range(8)))

    assert await counted(conn, "enrichment_jobs") == 40
    assert all(answer == answers[0] for answer in answers)


async def test_nothing_to_enqueue_is_nothing(queue):
    assert await queue.enqueue_many([]) == []
