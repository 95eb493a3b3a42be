"""Paid questions from real daemons: killed, cut off from PostgreSQL, racing each other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.conftest import apply_migrations
from tests.e2e.cluster import Cluster, a_folder, clusters
from tests.e2e.daemon import enqueue, query, wait_for
from tests.support.providers.faults import delayed
from tests.support.providers.hunter import FakeHunter
from tests.support.providers.server import ANY, in_thread
from tests.support.whole_path import environment

PERSON = {"leadId": "1", "enrichmentTypes": ["person"], "providerId": "hunter"}
ADA = {"inputData": {"email": "ada.quill@northwind.example"}}


@pytest.fixture
def hunter() -> Iterator[FakeHunter]:
    with in_thread(lambda: FakeHunter(limits={})) as fake:
        yield fake


def ask(database_url: str, count: int = 1, **payload: Any) -> list[str]:
    """Enqueue searches for a person."""
    return enqueue(database_url, "single_lead_enrichment", count, **{**PERSON, **payload})


def test_a_worker_killed_between_a_paid_call_and_its_record_pays_at_most_that_one_again(
    daemon, database_url, hunter
):
    hunter.script(ANY, delayed(30))  # Billed, and then on its way for so long.
    with daemon(**environment(hunter)) as one:
        accepted = ask(database_url, **ADA)
        wait_for(lambda: hunter.credits_spent, what="the call")
        os.kill(one.child("worker"), signal.SIGKILL)
        assert one.wait_until_done() == {"completed": 1}
        one.assert_sound(accepted)

    assert hunter.calls.total() == 2
    ((booked, set_aside),) = query(
        database_url,
        "select (select coalesce(sum(credits), 0) from enrichment_provider_use),"
        " (select coalesce(sum(credits), 0) from enrichment_credit_reservations)",
    )
    assert booked + set_aside == hunter.credits_spent == 2, "what may have been paid counts"


def test_connections_that_break_while_credits_are_set_aside_cost_nothing_twice(
    daemon, database_url, hunter
):
    hunter.always(ANY, delayed(0.6))
    with daemon(**environment(hunter)) as one:
        accepted = [
            job_id
            for number in range(6)
            for job_id in ask(
                database_url, inputData={"email": f"ada{number}.quill@northwind.example"}
            )
        ]
        wait_for(lambda: hunter.calls.total() >= 4, what="calls under way")
        query(
            database_url,
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name like 'enrichd%%'",
        )
        assert one.wait_until_done(20.0) == {"completed": 6}
        one.assert_sound(accepted)

    assert hunter.calls.total() == 6, "each answer was kept although its connection was gone"
    ((left,),) = query(database_url, "select count(*) from enrichment_credit_reservations")
    assert left == 0


def test_a_server_that_is_down_while_credits_are_set_aside_costs_nothing_twice(daemon, hunter):
    """Answers that come while it is down are kept once it is back, and so are their costs."""
    hunter.always(ANY, delayed(0.8))
    with clusters() as folder:
        cluster = Cluster(a_folder(folder, "credits")).create()
        asyncio.run(apply_migrations(cluster.local_url))
        with daemon(url=cluster.url, **environment(hunter)) as one:
            accepted = [
                job_id
                for number in range(6)
                for job_id in ask(
                    cluster.url, inputData={"email": f"ada{number}.quill@northwind.example"}
                )
            ]
            wait_for(lambda: hunter.calls.total() >= 4, what="calls under way")
            ((set_aside,),) = query(
                cluster.url, "select sum(credits) from enrichment_credit_reservations"
            )
            cluster.crash()
            one.wait_for_event("database_away")
            wait_for(lambda: hunter.credits_spent >= 4, what="answers without a database")
            cluster.start()
            assert one.wait_until_done(30.0) == {"completed": 6}
            one.assert_sound(accepted)
        ((left, spent),) = query(
            cluster.url,
            "select (select count(*) from enrichment_credit_reservations),"
            " (select sum(credits) from enrichment_provider_use)",
        )

    assert set_aside >= 4
    assert hunter.calls.total() == hunter.credits_spent == 6
    assert (left, spent) == (0, 6)


def test_two_daemons_of_two_workers_make_one_call_for_two_hundred_jobs(
    daemon, database_url, hunter
):
    hunter.latency_s = 0.3
    env = environment(hunter, WORKER_COUNT="2", MAX_CONCURRENT_JOBS="25")
    with daemon(**env) as one, daemon(**env):
        accepted = enqueue(
            database_url,
            "company_data_update",
            200,
            domain="northwind.example",
            providerId="hunter",
        )
        assert one.wait_until_done(30.0) == {"completed": 200}
        one.assert_sound(accepted)

    assert hunter.calls == {"/companies/find": 1}


def test_a_cap_holds_over_two_daemons_in_a_race(daemon, database_url, hunter):
    env = environment(hunter, WORKER_COUNT="2", CREDITS_PER_DAY_MAX="11")
    with daemon(**env) as one, daemon(**env):
        for number in range(40):
            ask(database_url, inputData={"email": f"ada{number}.quill@northwind.example"})
        assert one.wait_until_done(30.0) == {"completed": 40}

    assert hunter.credits_spent == Decimal(11)
