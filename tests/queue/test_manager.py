"""JobQueueManager against a real PostgreSQL: enqueue whole, record each alone, move or refuse."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from enrichd.domain.jobs import NewJob
from enrichd.errors import IllegalMove, Invalid, InvalidPayload, JobNotFound, Unavailable
from enrichd.store.jobs import Ended, Lane
from tests.support import job_types

pytestmark = pytest.mark.queue

EMPTY = NewJob("empty", {})
PLAN = [Lane(3, "-", 100, 0)]


@pytest.fixture(autouse=True)
def types():
    job_types.reset()


async def count(conn):
    [number] = await (await conn.execute("select count(*) from enrichment_jobs")).fetchone()
    return number


@pytest.fixture
async def claimed(queue, conn):
    """Give (worker id, five claimed jobs)."""
    worker_id = uuid7()
    await queue.enqueue_many([EMPTY] * 5)
    turn = await queue.turn(worker_id=worker_id, ended=[], plan=PLAN, room=5)
    return worker_id, turn.claimed


def completed(job, result="{}"):
    return Ended(job.id, job.attempt, "completed", "completed", result=result)


@pytest.mark.parametrize("wrong", [NewJob("empty", {"x": 1}), NewJob("no_such_type", {})])
async def test_a_refused_job_leaves_nothing_behind(queue, conn, wrong):
    with pytest.raises(InvalidPayload):
        await queue.enqueue(wrong)
    for jobs in (
        [EMPTY, wrong],
        [EMPTY] * 5_001 + [wrong],
        [NewJob("empty", {}, id=uuid7()), wrong],
    ):
        with pytest.raises(InvalidPayload):
            await queue.enqueue_many(jobs)

    assert await count(conn) == 0


async def test_in_the_callers_transaction_a_wrong_job_leaves_nothing_to_commit(queue, conn):
    async with conn.transaction():
        with pytest.raises(InvalidPayload):
            await queue.enqueue_many(
                [NewJob("empty", {}, id=uuid7()) for _ in range(5_001)]
                + [NewJob("empty", {"x": 1})],
                conn=conn,
            )

    assert await count(conn) == 0


async def test_the_callers_rollback_takes_the_jobs_back(queue, conn):
    async with conn.transaction(force_rollback=True):
        await queue.enqueue(EMPTY, conn=conn)
        await queue.enqueue_many([EMPTY] * 3, conn=conn)

    assert await count(conn) == 0


async def test_an_id_of_another_workspace_is_refused_one_by_one_and_in_bulk(queue):
    taken = (await queue.enqueue(NewJob("empty", {}, workspace_id="a"))).id

    with pytest.raises(Invalid, match="taken"):
        await queue.enqueue(NewJob("empty", {}, workspace_id="b", id=taken))
    with pytest.raises(Invalid, match="taken"):
        await queue.enqueue_many([NewJob("empty", {}, workspace_id="b", id=taken)])


async def test_repeats_inside_one_bulk_call_are_one_job(queue, conn):
    job_id = uuid7()
    by_id = await queue.enqueue_many([NewJob("empty", {}, id=job_id)] * 2)
    by_key = await queue.enqueue_many([NewJob("empty", {}, idempotency_key="k")] * 2)

    assert [done.is_new for done in by_id + by_key] == [True, False, True, False]
    assert by_key[0].id == by_key[1].id
    assert await count(conn) == 2


async def ranks_by_workspace(conn):
    cursor = await conn.execute(
        "select workspace_id, array_agg(fair_rank order by id) from enrichment_jobs group by 1"
    )
    return dict(await cursor.fetchall())


@pytest.mark.parametrize("is_keyed", [False, True])
async def test_ranks_run_on_in_each_workspace_however_the_jobs_are_mixed(queue, conn, is_keyed):
    """New workspaces come in the middle of a batch, late, and once all at the same time."""
    names = [f"w{place % 3}" for place in range(700)] + ["late"] * 90 + ["w0"] * 400
    names += [f"one of many {place}" for place in range(600)] + ["late"] * 10
    keys = map(str, range(len(names))) if is_keyed else iter([None] * len(names))

    done = await queue.enqueue_many(
        NewJob("empty", {}, workspace_id=name, idempotency_key=key)
        for name, key in zip(names, keys, strict=True)
    )

    cursor = await conn.execute("select id, workspace_id from enrichment_jobs")
    stored = dict(await cursor.fetchall())
    assert [stored[job.id] for job in done] == names
    ranks = await ranks_by_workspace(conn)
    assert {name: sorted(found) for name, found in ranks.items()} == {
        name: list(range(1, names.count(name) + 1)) for name in set(names)
    }


async def test_jobs_with_keys_may_follow_plain_ones_in_one_call(queue, conn):
    [first] = await queue.enqueue_many([NewJob("empty", {}, idempotency_key="there")])

    done = await queue.enqueue_many(
        [EMPTY] * 600 + [NewJob("empty", {}, idempotency_key=key) for key in ("there", "new")]
    )

    assert [job.is_new for job in done] == [True] * 600 + [False, True]
    assert done[600].id == first.id
    assert await count(conn) == 602
    assert max((await ranks_by_workspace(conn))["default"]) >= 602


async def test_a_generator_that_fails_in_the_middle_leaves_nothing_behind(queue, conn):
    def jobs():
        yield from [EMPTY] * 1_000
        raise RuntimeError("the file ends here")

    with pytest.raises(RuntimeError, match="the file ends here"):
        await queue.enqueue_many(jobs())

    assert await count(conn) == 0
    assert len(await queue.enqueue_many(EMPTY for _ in range(10))) == 10


@pytest.mark.parametrize(("kind", "tries"), [(list, 5), (iter, 1)])
async def test_a_lost_race_is_run_again_unless_the_jobs_cannot_be_read_again(
    queue, conn, kind, tries
):
    await conn.execute("create sequence races")
    await conn.execute(
        """
        create function lose() returns trigger language plpgsql as $$
        begin
            perform nextval('races');
            raise exception 'lost' using errcode = 'serialization_failure';
        end $$
        """
    )
    await conn.execute(
        "create trigger lose before insert on enrichment_jobs execute function lose()"
    )

    with pytest.raises(Unavailable):
        await queue.enqueue_many(kind([EMPTY] * 3))

    cursor = await conn.execute("select last_value from races")
    assert await cursor.fetchone() == (tries,)


async def test_awkward_texts_survive_each_way_in(queue, conn):
    awkward = 'a\\b "c" {d},\t\n\r\\N null \\. é 😀'
    ways = (
        lambda job: queue.enqueue(job),
        lambda job: queue.enqueue_many([job]),
        lambda job: queue.enqueue_many([job, NewJob("empty", {}, id=uuid7())]),
    )
    for way in ways:
        await way(
            NewJob(
                "echo", {"x": awkward}, workspace_id="w" + awkward[:20], tags=[awkward[:20], "null"]
            )
        )

    cursor = await conn.execute(
        "select distinct payload, workspace_id, tags from enrichment_jobs where type = 'echo'"
    )
    assert await cursor.fetchall() == [({"x": awkward}, "w" + awkward[:20], [awkward[:20], "null"])]


async def test_what_the_bulk_path_takes_the_single_one_takes_too(queue):
    large = NewJob("echo", {"x": [1] * 500_000})
    await queue.enqueue_many([large])
    await queue.enqueue(large)


@pytest.mark.parametrize("bad_result", ['{"x": "\\u0000"}', "not JSON", '{"x": 1e999999}'])
@pytest.mark.parametrize("place", [0, 2, 4])
async def test_a_refused_result_fails_its_own_job_only(queue, conn, claimed, bad_result, place):
    worker_id, jobs = claimed
    ended = [
        completed(job, bad_result if number == place else "{}") for number, job in enumerate(jobs)
    ]

    turn = await queue.turn(worker_id=worker_id, ended=ended, plan=[], room=0)

    assert turn.lost == []
    cursor = await conn.execute("select id::text, status, error ->> 'type' from enrichment_jobs")
    after = {row[0]: row[1:] for row in await cursor.fetchall()}
    assert after.pop(jobs[place].id) == ("failed", "unstorable_result")
    assert set(after.values()) == {("completed", None)}


async def test_the_same_ends_given_again_change_nothing(queue, conn, claimed):
    worker_id, jobs = claimed
    ended = [completed(job, '{"run": 1}') for job in jobs]
    await queue.turn(worker_id=worker_id, ended=ended, plan=[], room=0)

    again = [completed(job, '{"run": 2}') for job in jobs]
    turn = await queue.turn(worker_id=worker_id, ended=again, plan=[], room=0)

    assert set(turn.lost) == {job.id for job in jobs}
    cursor = await conn.execute("select distinct result from enrichment_jobs")
    assert await cursor.fetchall() == [({"run": 1},)]


@pytest.mark.parametrize("how", ["worker", "attempt"])
async def test_a_zombie_records_nothing(queue, conn, claimed, how):
    worker_id, jobs = claimed
    late = completed(jobs[0])
    if how == "attempt":
        late.attempt += 1
    else:
        worker_id = uuid7()

    turn = await queue.turn(worker_id=worker_id, ended=[late], plan=[], room=0)

    assert turn.lost == [jobs[0].id]
    cursor = await conn.execute("select distinct status from enrichment_jobs")
    assert await cursor.fetchall() == [("processing",)]


async def test_a_retry_writes_its_attempt_and_a_give_back_of_what_never_began_does_not(
    queue, conn, claimed
):
    worker_id, jobs = claimed
    error = json.dumps({"type": "later", "message": "x", "provider": None, "retryable": True})
    ended = [
        Ended(jobs[0].id, 1, "scheduled", "retry", error=error, delay_s=60.0),
        Ended(jobs[1].id, 1, "pending", "unstarted", delay_s=0.0, is_refunded=True),
        Ended(jobs[2].id, 1, "pending", "released", delay_s=0.0, is_refunded=True),
    ]
    await queue.turn(worker_id=worker_id, ended=ended, plan=[], room=0)

    cursor = await conn.execute("select job_id::text, outcome from enrichment_attempt_log")
    assert set(await cursor.fetchall()) == {(jobs[0].id, "retry"), (jobs[2].id, "released")}
    cursor = await conn.execute(
        "select attempts from enrichment_jobs where id = any(%s::uuid[]) order by id",
        [[job.id for job in jobs[:3]]],
    )
    assert sorted(row[0] for row in await cursor.fetchall()) == [0, 0, 1]


async def test_a_cancel_wins_over_every_end_that_is_not_final(queue, conn, claimed):
    worker_id, jobs = claimed
    await conn.execute("update enrichment_jobs set cancel_requested_at = now()")
    ended = [
        Ended(jobs[0].id, 1, "scheduled", "retry", delay_s=60.0),
        Ended(jobs[1].id, 1, "pending", "released", delay_s=0.0, is_refunded=True),
        completed(jobs[2]),
    ]
    await queue.turn(worker_id=worker_id, ended=ended, plan=[], room=0)

    cursor = await conn.execute(
        "select id::text, status from enrichment_jobs where status <> 'processing'"
    )
    assert dict(await cursor.fetchall()) == {
        jobs[0].id: "cancelled", jobs[1].id: "cancelled", jobs[2].id: "completed",
    }  # fmt: skip


async def test_a_move_that_the_state_forbids_is_refused_with_both_states(queue, claimed):
    worker_id, jobs = claimed
    await queue.turn(worker_id=worker_id, ended=[completed(jobs[0])], plan=[], room=0)
    done = UUID(jobs[0].id)

    with pytest.raises(IllegalMove, match=r"completed.*cancelled"):
        await queue.cancel(workspace_id="default", job_id=done)
    with pytest.raises(IllegalMove, match=r"completed.*pending"):
        await queue.retry(workspace_id="default", job_id=done)
    with pytest.raises(JobNotFound):
        await queue.cancel(workspace_id="another", job_id=UUID(jobs[1].id))
