"""Questions in PostgreSQL: kept, leased, still to come, pruned."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from enrichd.domain.email_hashes import email_hmac
from enrichd.store import answers
from enrichd.store.answers import Beginning, End, Verdict
from enrichd.store.database import Connection, Database
from tests.support.factories import a_job, a_worker

HOUR_S = 3600.0


def a_question(key: str = "k", *, job_id: UUID | None = None, **fields: Any) -> Beginning:
    return Beginning(
        **{
            "call_id": uuid4(),
            "job_id": job_id or uuid4(),
            "buyer": uuid4(),
            "workspace_id": "acme",
            "key": key.encode(),
            "provider_id": "hunter",
            "operation": "enrichPerson",
            "credits": Decimal(1),
            "job_cap": None,
            **fields,
        }
    )


def an_end(question: Beginning, outcome: str = "found", **fields: Any) -> End:
    return End(
        call_id=question.call_id,
        buyer=question.buyer,
        workspace_id=question.workspace_id,
        key=question.key,
        provider_id=question.provider_id,
        operation=question.operation,
        outcome=outcome,
        **{"answer": "{}" if outcome in ("found", "noMatch") else None, "keep_s": HOUR_S, **fields},
    )


async def begin(conn: Connection, *questions: Beginning, **caps: Any) -> list[Verdict]:
    """Begin calls without caps, or with those."""
    none = dict.fromkeys(("day_cap", "workspace_day_cap", "workspace_month_cap"))
    return await answers.begin(conn, questions, **{**none, "lease_s": 90.0, **caps})


async def words(conn: Connection, *questions: Beginning, **caps: Any) -> list[str]:
    return [verdict.word for verdict in await begin(conn, *questions, **caps)]


async def lease_ended(conn: Connection, seconds_ago: float = 1.0) -> None:
    await conn.execute(
        "update enrichment_provider_cache set asked_until = now() - make_interval(secs => %s)",
        [seconds_ago],
    )


async def kept(conn: Connection) -> list[Any]:
    cursor = await conn.execute(
        "select convert_from(cache_key, 'UTF8'), outcome from enrichment_provider_cache order by 1"
    )
    return await cursor.fetchall()


async def test_the_first_asks_the_others_wait_and_then_have_the_answer(conn):
    first, second = a_question(), a_question()

    assert await words(conn, first, second) == ["go", "wait"]
    await answers.end(conn, [an_end(first, answer='{"a": [1e16, "\\\\\\""]}', cost=Decimal(2))])
    (verdict,) = await begin(conn, second)

    assert (verdict.word, verdict.answer) == ("found", '{"a": [1e16, "\\\\\\""]}')
    assert verdict.fetched_at is not None
    assert HOUR_S - 60 < (verdict.left_s or 0) <= HOUR_S


async def test_a_batch_is_answered_question_by_question_in_its_order(conn):
    known, other = a_question("known"), a_question("known", workspace_id="other")
    await begin(conn, known)
    await answers.end(conn, [an_end(known)])

    assert await words(
        conn, a_question("new"), a_question("known"), other, a_question("newer"), a_question("new")
    ) == ["go", "found", "go", "go", "wait"]


@pytest.mark.parametrize("outcome", ["error", "free"])
async def test_a_call_that_brought_nothing_frees_its_question_at_once(conn, outcome):
    first = a_question()
    await begin(conn, first)

    await answers.end(conn, [an_end(first, outcome)])

    assert await kept(conn) == []
    assert await words(conn, a_question()) == ["go"]


async def test_what_is_kept_ends_and_what_is_suppressed_does_not(conn):
    for key, outcome in (("a", "found"), ("b", "noMatch"), ("c", "suppressed")):
        question = a_question(key)
        await begin(conn, question)
        keep_s = None if outcome == "suppressed" else HOUR_S
        await answers.end(conn, [an_end(question, outcome, keep_s=keep_s)])
    assert await words(conn, *map(a_question, "abc")) == ["found", "noMatch", "suppressed"]

    await conn.execute(
        "update enrichment_provider_cache set expires_at = now() where expires_at is not null"
    )

    assert await words(conn, *map(a_question, "abc")) == ["go", "go", "suppressed"]


async def test_a_lease_ends_with_its_time(conn):
    await begin(conn, a_question())
    assert await words(conn, a_question()) == ["wait"]

    await lease_ended(conn)

    assert await words(conn, a_question()) == ["go"]


@pytest.mark.parametrize("end", ["worker dead", "job given back", "asked by its next run"])
async def test_a_lease_ends_with_the_run_it_was_taken_for(conn, end):
    worker = await a_worker(conn)
    job = await a_job(conn, status="processing", worker_id=worker.id)
    await begin(conn, a_question(job_id=job.id))
    assert await words(conn, a_question()) == ["wait"]

    if end == "worker dead":
        await conn.execute("update enrichment_workers set state = 'dead'")
    elif end == "job given back":
        await conn.execute("update enrichment_jobs set status = 'pending', worker_id = null")

    next_job = job.id if end == "asked by its next run" else uuid4()
    assert await words(conn, a_question(job_id=next_job)) == ["go"]


async def test_an_answer_that_comes_after_the_lease_is_kept_all_the_same(conn):
    late, owner = a_question(), a_question()
    await begin(conn, late)
    await lease_ended(conn)
    assert await words(conn, owner) == ["go"]

    await answers.end(conn, [an_end(late)])
    assert await words(conn, a_question()) == ["found"]
    await answers.end(conn, [an_end(owner, "error")])

    assert await words(conn, a_question()) == ["found"]


async def test_a_failure_that_comes_after_the_lease_takes_nothing_from_the_new_owner(conn):
    late, owner = a_question(), a_question()
    await begin(conn, late)
    await lease_ended(conn)
    await begin(conn, owner)

    await answers.end(conn, [an_end(late, "error")])

    assert await words(conn, a_question()) == ["wait"]


async def test_a_begin_that_is_sent_again_is_the_same_begin(conn):
    question = a_question()

    assert await words(conn, question) == await words(conn, question) == ["go"]

    cursor = await conn.execute("select sum(reserved) from enrichment_credit_counters")
    assert await cursor.fetchall() == [(3,)], "a credit in each of day, workspace's day and month"


# Still to come


async def a_pending(conn: Connection, job_id: UUID) -> Beginning:
    question = a_question(job_id=job_id)
    await begin(conn, question)
    await answers.end(conn, [an_end(question, "pending", answer='{"requestId": "7"}')])
    return question


async def test_what_is_still_to_come_goes_on_in_its_job_and_is_awaited_by_others(conn):
    job = await a_job(conn, status="waiting")
    question = await a_pending(conn, job.id)

    mine, other = await begin(conn, a_question(job_id=job.id)), await begin(conn, a_question())

    assert [(v.word, v.call_id, v.answer) for v in mine] == [
        ("resume", question.call_id, '{"requestId": "7"}')
    ]
    assert [v.word for v in other] == ["pending"]
    await answers.end(conn, [an_end(question, cost=Decimal(1))])
    assert await words(conn, a_question()) == ["found"]


async def test_what_is_still_to_come_to_a_job_that_ended_goes_over_to_the_next(conn):
    job = await a_job(conn, status="cancelled")
    question = await a_pending(conn, job.id)
    heir = a_question()

    assert await words(conn, heir) == ["wait"]
    (verdict,) = await begin(conn, heir)

    assert (verdict.word, verdict.call_id) == ("resume", question.call_id)
    assert await words(conn, a_question()) == ["pending"]


async def test_past_its_deadline_the_owner_is_told_and_others_ask_anew(conn):
    job = await a_job(conn, status="waiting")
    await a_pending(conn, job.id)
    await lease_ended(conn)

    (mine,) = await begin(conn, a_question(job_id=job.id))
    assert (mine.word, (mine.left_s or 0) <= 0) == ("resume", True)
    assert await words(conn, a_question()) == ["go"]


# People


async def test_an_answer_about_somebody_who_was_erased_meanwhile_is_not_kept(conn):
    pepper = await answers.pepper(conn)
    hashed = email_hmac(pepper, "ada@acme.com")
    question = a_question()
    await begin(conn, question)
    await conn.execute(
        "insert into enrichment_suppressions (workspace_id, email_hmac, reason)"
        " values ('acme', %s, 'erased')",
        [hashed],
    )

    await answers.end(conn, [an_end(question, subjects=[b"\0" * 32, hashed], cost=Decimal(1))])

    assert await kept(conn) == []
    cursor = await conn.execute("select distinct spent, reserved from enrichment_credit_counters")
    assert await cursor.fetchall() == [(1, 0)]


def test_all_spellings_of_a_mailbox_have_one_hash_and_other_peppers_another():
    spellings = ["Ada.Quill+x@googlemail.com", "adaquill@GMAIL.com", " <ada.quill@gmail.com> "]

    assert len({email_hmac(b"pepper", one) for one in spellings}) == 1
    assert email_hmac(b"salt", spellings[0]) != email_hmac(b"pepper", spellings[0])
    assert email_hmac(b"pepper", "ada@acme.com") != email_hmac(b"pepper", "bob@acme.com")
    assert len(email_hmac(b"pepper", "no address \ud800")) == 32


# Pruning


async def test_pruning_takes_what_is_over_in_steps_and_leaves_what_is_asked(conn):
    questions = [a_question(key) for key in "abcd"]
    await begin(conn, *questions)
    await answers.end(conn, [an_end(one, keep_s=-1.0) for one in questions[:3]])
    assert await words(conn, a_question("c")) == ["go"]

    assert await answers.prune(conn, limit=1) == 1
    assert await answers.prune(conn, limit=10) == 1
    assert [key for key, _ in await kept(conn)] == ["c", "d"]

    await lease_ended(conn, 2 * 86_400)
    assert await answers.prune(conn) == 2
    assert await kept(conn) == []


async def test_batches_with_the_same_questions_in_any_order_never_lock_each_other_out(
    database_url,
):
    databases = [Database(database_url) for _ in range(4)]

    async def run(database: Database, number: int) -> None:
        keys = [f"k{key}" for key in range(20)]
        async with database.connection() as conn:
            for turn in range(10):
                order = keys if (number + turn) % 2 else keys[::-1]
                questions = [a_question(key) for key in order]
                verdicts = await begin(conn, *questions, day_cap=Decimal(10_000))
                gone = [q for q, v in zip(questions, verdicts, strict=True) if v.word == "go"]
                await answers.end(
                    conn, [an_end(one, "error", cost=Decimal(1)) for one in gone[::-1]]
                )

    await asyncio.gather(*(run(database, number) for number, database in enumerate(databases)))

    async with databases[0].connection() as conn:
        cursor = await conn.execute("select reserved from enrichment_credit_counters")
        assert set(await cursor.fetchall()) == {(0,)}
    for database in databases:
        await database.close()
