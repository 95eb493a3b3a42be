"""The public Python API, as programs use it."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg.rows import dict_row
from uuid_utils.compat import uuid7

from enrichd import client
from enrichd.client import NewJob, enqueue_job, enqueue_jobs
from enrichd.errors import InvalidPayload, InvalidSetting, Unavailable

pytestmark = pytest.mark.queue

EMAILS = {"emails": ["ada@northwind.test"]}


@pytest.fixture(autouse=True)
def configured(database_url, monkeypatch, tmp_path):
    """Have DATABASE_URL in the environment, no files of settings, and plug-ins not read yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    client.know_plugins.cache_clear()
    yield
    client.know_plugins.cache_clear()


def jobs(database_url):
    with psycopg.connect(database_url) as conn:
        return conn.execute("select id, type, status from enrichment_jobs order by id").fetchall()


def test_one_call_puts_a_job_on_the_queue_of_database_url(database_url):
    job_id = enqueue_job("email_validation", EMAILS)

    assert jobs(database_url) == [(job_id, "email_validation", "pending")]


async def test_in_a_running_loop_the_same_call_is_awaited(database_url):
    job_id = await enqueue_job("email_validation", EMAILS)

    assert jobs(database_url) == [(job_id, "email_validation", "pending")]


def test_a_given_address_wins_over_the_environment(database_url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://x@127.0.0.1:1/x")

    job_id = enqueue_job("email_validation", EMAILS, database_url=database_url)

    assert [row[0] for row in jobs(database_url)] == [job_id]


@pytest.mark.parametrize("row_factory", [psycopg.rows.tuple_row, dict_row])
def test_in_the_callers_transaction_a_job_comes_and_goes_with_it(database_url, row_factory):
    with psycopg.connect(database_url, row_factory=row_factory) as conn:
        enqueue_job("email_validation", EMAILS, conn=conn)
        assert jobs(database_url) == []
        conn.rollback()
        kept = enqueue_job("email_validation", EMAILS, conn=conn)
        conn.commit()

    assert [row[0] for row in jobs(database_url)] == [kept]


@pytest.mark.parametrize("row_factory", [psycopg.rows.tuple_row, dict_row])
async def test_in_an_asynchronous_callers_transaction_too(database_url, row_factory):
    async with await psycopg.AsyncConnection.connect(database_url, row_factory=row_factory) as conn:
        await enqueue_job("email_validation", EMAILS, conn=conn)
        assert jobs(database_url) == []
        await conn.rollback()
        kept = await enqueue_job("email_validation", EMAILS, conn=conn)
        await conn.commit()

    assert [row[0] for row in jobs(database_url)] == [kept]


def test_a_refused_job_leaves_the_callers_transaction_usable(database_url):
    with psycopg.connect(database_url) as conn:
        with pytest.raises(InvalidPayload):
            enqueue_job("email_validation", {"emails": []}, conn=conn)
        conn.execute("select 1")


def test_an_id_or_key_that_was_used_finds_the_earlier_job(database_url):
    job_id = uuid7()
    assert enqueue_job("email_validation", EMAILS, id=job_id) == job_id
    assert enqueue_job("email_validation", EMAILS, id=str(job_id)) == job_id
    keyed = enqueue_job("email_validation", EMAILS, idempotency_key="order 5")
    assert enqueue_job("email_validation", EMAILS, idempotency_key="order 5") == keyed
    other = enqueue_job("email_validation", EMAILS, idempotency_key="order 5", workspace_id="b")

    assert {row[0] for row in jobs(database_url)} == {job_id, keyed, other}


def test_many_go_in_together_in_order(database_url):
    ids = enqueue_jobs([NewJob("email_validation", EMAILS) for _ in range(20)])

    assert [row[0] for row in jobs(database_url)] == ids


def test_one_wrong_job_among_many_keeps_all_out(database_url):
    good, bad = NewJob("email_validation", EMAILS), NewJob("email_validation", {})
    with pytest.raises(InvalidPayload):
        enqueue_jobs([good] * 5_001 + [bad])

    assert jobs(database_url) == []


def test_wrong_arguments_are_named(database_url):
    with pytest.raises(InvalidPayload, match="priority"):
        enqueue_job("email_validation", EMAILS, priority=9)
    with pytest.raises(InvalidPayload, match="id: must be a UUID"):
        enqueue_job("email_validation", EMAILS, id="nonsense")
    with pytest.raises(InvalidPayload, match="unknown job type"):
        enqueue_job("emial", EMAILS)

    assert jobs(database_url) == []


def test_without_an_address_the_error_says_what_to_set(monkeypatch):
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(InvalidSetting, match="DATABASE_URL"):
        enqueue_job("email_validation", EMAILS)


def test_a_database_that_is_away_is_unavailable():
    with pytest.raises(Unavailable):
        enqueue_job("email_validation", EMAILS, database_url="postgresql://x@127.0.0.1:1/x")


def test_every_call_closes_its_connection(database_url):
    for _ in range(3):
        enqueue_job("email_validation", EMAILS)
    asyncio.run(asyncio.sleep(0))

    with psycopg.connect(database_url) as conn:
        row = conn.execute(
            "select count(*) from pg_stat_activity where application_name = 'enrichd client'"
            " and datname = current_database()"
        ).fetchone()
    assert row == (0,)
