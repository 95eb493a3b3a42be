"""Live updates over HTTP: who hears what, resuming, ends of streams, and a database that goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from enrichd.api import events as events_module
from enrichd.api import live
from enrichd.api.hub import Hub
from enrichd.api.live import Event, Place, Subscription, Wanted, event_of, place_of
from enrichd.domain.api_keys import id_of
from enrichd.domain.jobs import NewJob
from enrichd.processing.processor import JobProcessor
from enrichd.processing.provider_upkeep import ProviderUpkeep
from enrichd.queue.changes import Changes
from enrichd.store import api_keys, changes, job_moves, lanes
from enrichd.store.database import Connection, Database
from tests.api.conftest import Served, an_api
from tests.support import job_types
from tests.support.event_streams import Listener
from tests.support.event_streams import listening as listening_at
from tests.support.factories import a_job, a_worker

KILL_THE_EAR = """
    select pg_terminate_backend(pid)
      from pg_stat_activity
     where application_name = 'enrichd changes'
       and datname = current_database()
"""


@asynccontextmanager
async def a_live_api(
    dsn: str, *, hub_dsn: str | None = None, hears: bool = True, sweep_s: float = 0.3
) -> AsyncIterator[tuple[Served, Hub]]:
    """Serve the API with a hub, as the gateway does."""
    async with an_api(dsn) as served:
        database = Database(hub_dsn or dsn, name="test hub")
        hub = Hub(database, listen_dsn=(hub_dsn or dsn) if hears else None, sweep_s=sweep_s)
        served.api.parts[events_module.HUB] = hub
        task = asyncio.create_task(hub.run())
        try:
            yield served, hub
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[Served]:
    """Give an API whose hub hears hints, and sweeps so seldom that only hints count."""
    async with a_live_api(database_url, sweep_s=60.0) as (served, _):
        yield served


def listening(
    served: Served, *, key: str = "key-a", **options: Any
) -> AbstractAsyncContextManager[Listener]:
    """Open a stream with one of the keys that tests know by name."""
    return listening_at(served.port, key=served.keys[key], **options)


async def ended(conn: Connection, job_id: UUID | str, *, status: str = "completed") -> None:
    """End a job, as a worker's turn does."""
    await conn.execute(
        "update enrichment_jobs set status = %s, completed_at = now(), updated_at = now()"
        " where id = %s",
        [status, job_id],
    )


async def told(conn: Connection, job: Any, *, status: str = "completed") -> None:
    """End a job and hint at it."""
    await ended(conn, job.id, status=status)
    await changes.tell(conn, {job.workspace_id: [str(job.id)]})


# What is told


async def test_a_listener_is_told_what_becomes_of_a_job(api, conn):
    job = await a_job(conn, workspace_id="team-a")
    async with listening(api) as listener:
        await told(conn, job)

        event = await listener.next()

    assert event.job == ("job.completed", str(job.id))
    assert event.data["status"] == "completed"
    assert event.data["progress"] == {"done": 0, "total": 0}
    assert event.data["completedAt"] == event.data["updatedAt"]
    assert not {"payload", "result"} & event.data.keys()
    assert place_of(event.id).job_id == job.id


async def test_the_stream_says_what_it_is(api):
    async with listening(api) as listener:
        headers = listener.answer.headers

    assert listener.answer.status == 200
    assert headers["Content-Type"] == "text/event-stream"
    assert "no-store" in headers["Cache-Control"]
    assert headers["X-Accel-Buffering"] == "no"


async def test_nobody_is_told_of_another_workspaces_jobs(api, conn):
    theirs = await a_job(conn, workspace_id="team-b")
    ours = await a_job(conn, workspace_id="team-a")
    async with listening(api, key="key-a") as a, listening(api, key="key-b") as b:
        await told(conn, theirs)
        await told(conn, ours)

        assert (await a.next()).data["id"] == str(ours.id)
        assert (await b.next()).data["id"] == str(theirs.id)


async def test_a_hint_that_lies_about_the_workspace_tells_nobody(api, conn):
    theirs = await a_job(conn, workspace_id="team-b")
    ours = await a_job(conn, workspace_id="team-a")
    async with listening(api) as listener:
        await ended(conn, theirs.id)
        await changes.tell(conn, {"team-a": [str(theirs.id)]})
        await told(conn, ours)

        assert (await listener.next()).data["id"] == str(ours.id)


@pytest.mark.parametrize("payload", ["", "[]", "{}", '{"w": 1, "ids": []}', '{"w":"x","ids":[3]}'])
async def test_a_notification_of_somebody_else_does_no_harm(api, conn, payload):
    job = await a_job(conn, workspace_id="team-a")
    async with listening(api) as listener:
        await conn.execute("select pg_notify('enrichd_changes', %s)", [payload])
        await told(conn, job)

        assert (await listener.next()).data["id"] == str(job.id)


async def test_the_same_state_is_told_once(api, conn):
    first, second = [await a_job(conn, workspace_id="team-a") for _ in range(2)]
    async with listening(api) as listener:
        await told(conn, first)
        await listener.next()
        for _ in range(3):
            await changes.tell(conn, {"team-a": [str(first.id)]})
        await told(conn, second)

        assert (await listener.next()).data["id"] == str(second.id)


async def test_a_filter_by_job_and_by_status_leaves_the_rest_out(api, conn):
    jobs = [await a_job(conn, workspace_id="team-a") for _ in range(4)]
    one, two, *_ = ids = [str(job.id) for job in jobs]
    async with (
        listening(api, query=f"?jobId={one},{two}") as by_comma,
        listening(api, query=f"?jobId={two}&jobId={one}&status=failed") as by_both,
        listening(api, query="?status=failed") as by_status,
    ):
        for job, status in zip(jobs, ["completed", "failed", "failed", "completed"], strict=True):
            await told(conn, job, status=status)

        assert [(await by_comma.next()).data["id"] for _ in range(2)] == ids[:2]
        assert (await by_both.next()).data["id"] == two
        assert [(await by_status.next()).data["id"] for _ in range(2)] == ids[1:3]


@pytest.mark.parametrize("query", ["?jobId=x", "?status=done", "?wanted=1", "?jobId="])
async def test_a_wrong_filter_is_refused(api, query):
    answer = await api.client().get(f"/events{query}")

    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_query"


async def test_a_transport_without_a_hub_says_so(served):
    answer = await served.client().get("/events")

    assert (answer.status_code, answer.json()["code"]) == (501, "no_live_updates")


async def test_head_of_the_stream_has_its_headers_and_ends(api):
    answer = await api.client().head("/events")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/event-stream"


# What a job goes through


async def test_a_run_is_told_from_its_beginning_to_its_end(api, conn):
    job = await a_job(conn, workspace_id="team-a")
    hint = {"team-a": [str(job.id)]}
    async with listening(api) as listener:
        names = []
        for change in (
            "updated_at = updated_at",
            "status = 'processing', worker_id = enrichment_uuid7(), attempts = 1,"
            " started_at = now(), updated_at = now()",
            "progress_done = 1, progress_total = 2, updated_at = now()",
            "status = 'scheduled', scheduled_at = now(), updated_at = now()",
            "status = 'dead_letter', completed_at = now(), updated_at = now()",
            "status = 'pending', attempts = 0, completed_at = null, updated_at = now()",
        ):
            await conn.execute(f"update enrichment_jobs set {change} where id = %s", [job.id])  # noqa: S608
            await changes.tell(conn, hint)
            names.append((await listener.next()).name)

    assert names == [
        "job.created",
        "job.started",
        "job.progress",
        "job.scheduled",
        "job.dead_letter",
        "job.pending",
    ]


async def test_a_worker_tells_of_its_runs_once_somebody_listens(api, database_url, queue):
    hot, control = (Database(database_url, name=f"enrichd {name}") for name in ("hot", "control"))
    worker = JobProcessor(hot=hot, control=control, poll_interval_s=0.05)
    running = asyncio.create_task(worker.run())
    try:
        async with listening(api) as listener:
            payload = {"gate": "told"}
            job = await queue.enqueue(NewJob("gate", payload, workspace_id="team-a"))
            begun = await listener.until("job.started", str(job.id))
            job_types.GATES["told"].set()
            ended = await listener.until("job.completed", str(job.id))
    finally:
        worker.stop_now()
        await running
        await hot.close()
        await control.close()

    assert {event.data["id"] for event in (*begun, *ended)} == {str(job.id)}
    assert begun[-1].data["attempts"] == 1


async def test_what_upkeep_moves_is_told_at_once(api, conn, queue):
    dead = await a_worker(conn, state="dead")
    run = {"status": "processing", "worker_id": dead.id, "attempts": 1}
    moves = {
        "promoted": await a_job(
            conn, workspace_id="team-a", status="scheduled", scheduled_in_s=-1, attempts=1
        ),
        "expired": await a_job(
            conn, workspace_id="team-a", status="waiting", scheduled_in_s=-1, max_retries=0
        ),
        "rescued": await a_job(conn, workspace_id="team-a", **run),
        "given up": await a_job(conn, workspace_id="team-a", **run, max_retries=0),
    }
    async with listening(api) as listener:
        await queue.tend(worker_timeout_s=60)
        heard = {(await listener.next()).job for _ in moves}

    assert heard == {
        ("job.pending", str(moves["promoted"].id)),
        ("job.dead_letter", str(moves["expired"].id)),
        ("job.pending", str(moves["rescued"].id)),
        ("job.dead_letter", str(moves["given up"].id)),
    }


async def test_a_job_whose_callback_came_while_it_ran_is_told_when_it_goes_on(
    api, conn, database_url
):
    job = await a_job(conn, workspace_id="team-a", status="waiting", attempts=1)
    await conn.execute(
        "insert into enrichment_callbacks (token_hash, workspace_id, provider_id, operation,"
        " cache_key, job_id, state, answer, received_at, deadline)"
        " values ('t', 'team-a', 'p', 'o', 'k', %s, 'received', '{}', now(), now() + '1 h')",
        [job.id],
    )
    database = Database(database_url)
    async with listening(api) as listener:
        seen = await lanes.look(conn, room=1, worker_timeout_s=60)
        assert await ProviderUpkeep(database).tend(seen) == 1
        event = await listener.next()
    await database.close()

    assert event.job == ("job.pending", str(job.id))


# Lost hints


async def test_an_end_without_a_hint_is_told_by_the_next_sweep(database_url, conn):
    async with a_live_api(database_url) as (served, _):
        job = await a_job(conn, workspace_id="team-a")
        running = await a_job(conn, workspace_id="team-a")
        async with listening(served) as listener:
            await ended(conn, job.id)
            await conn.execute(
                "update enrichment_jobs set status = 'processing', worker_id = enrichment_uuid7(),"
                " updated_at = now() where id = %s",
                [running.id],
            )
            seen = {(await listener.next()).job for _ in range(2)}

    assert seen == {("job.completed", str(job.id)), ("job.started", str(running.id))}


async def test_a_sweep_tells_nothing_that_ended_before_the_listener_came(database_url, conn):
    async with a_live_api(database_url) as (served, _):
        before = await a_job(conn, workspace_id="team-a", status="completed")
        async with listening(served) as listener:
            after = await a_job(conn, workspace_id="team-a", status="completed")

            assert (await listener.next()).data["id"] == str(after.id) != str(before.id)


async def test_without_a_way_to_hear_hints_sweeps_tell_all(database_url, conn):
    async with a_live_api(database_url, hears=False) as (served, _):
        job = await a_job(conn, workspace_id="team-a")
        async with listening(served) as listener:
            await ended(conn, job.id)

            assert (await listener.next()).data["id"] == str(job.id)


async def test_nothing_is_lost_when_the_listening_backend_is_killed(database_url, conn):
    async with a_live_api(database_url) as (served, _):
        jobs = [await a_job(conn, workspace_id="team-a") for _ in range(60)]
        async with listening(served) as listener:
            for number, job in enumerate(jobs):
                if number in (20, 40):
                    await conn.execute(KILL_THE_EAR)
                await told(conn, job)
            seen = [(await listener.next()).data["id"] for _ in jobs]

    assert sorted(seen) == sorted(str(job.id) for job in jobs)


async def test_more_ends_than_can_be_told_one_by_one_are_a_reset(database_url, conn, monkeypatch):
    monkeypatch.setattr("enrichd.api.hub.PAGE_MAX", 2)
    monkeypatch.setattr("enrichd.api.hub.PAGES_MAX", 2)
    async with a_live_api(database_url) as (served, _), listening(served) as listener:
        async with conn.transaction():
            for _ in range(6):
                await a_job(conn, workspace_id="team-a", status="completed")
        while (event := await listener.next()).name != "reset":
            pass

    assert "more ended" in event.data["reason"]


# Who listens is known


async def test_nothing_is_told_while_nobody_listens(database_url, conn):
    teller = Changes(Database(database_url, name="test teller"))
    await conn.execute("listen enrichd_changes")
    teller.note("team-a", [str(uuid7())])
    await teller.close()
    async for notice in conn.notifies(timeout=0.1):
        pytest.fail(f"told {notice.payload}")


async def test_a_mark_names_the_workspaces_and_lapses(conn):
    holder = uuid7()
    await changes.mark(conn, name="here", holder=holder, workspaces=["a", "b"], lease_s=30)
    await conn.execute("listen enrichd_changes")
    ids = {name: str(uuid7()) for name in ("a", "c")}
    await changes.tell(conn, {name: [job_id] for name, job_id in ids.items()})
    heard = [changes.read_hint(n.payload) async for n in conn.notifies(timeout=0.1)]
    await conn.execute("update enrichment_listeners set expires_at = now() - interval '1 s'")
    await changes.tell(conn, {"a": [ids["a"]]})
    later = [notice async for notice in conn.notifies(timeout=0.1)]

    assert heard == [("a", [UUID(ids["a"])])]
    assert later == []


async def test_one_holder_at_a_time_has_a_name(conn):
    first, second = uuid7(), uuid7()
    mark = {"name": "realtime", "workspaces": ["*"], "lease_s": 30.0}

    assert await changes.mark(conn, holder=first, **mark) is not None
    assert await changes.mark(conn, holder=second, **mark) is None
    assert await changes.mark(conn, holder=first, **mark) is not None
    await changes.unmark(conn, name="realtime", holder=first)
    assert await changes.mark(conn, holder=second, **mark) is not None


async def test_many_ids_go_in_notifications_that_postgresql_takes(conn):
    ids = [str(uuid7()) for _ in range(1_000)]
    workspace = "ü" * 100
    await changes.mark(conn, name="x", holder=uuid7(), workspaces=["*"], lease_s=30)
    await conn.execute("listen enrichd_changes")

    await changes.tell(conn, {workspace: ids})

    heard: list[str] = []
    async for notice in conn.notifies(timeout=0.2):
        assert len(notice.payload.encode()) < 8_000
        name, found = changes.read_hint(notice.payload)
        assert name == workspace
        heard += map(str, found)
    assert heard == ids


async def test_the_hub_says_who_listens_and_takes_it_back(database_url, conn):
    async with a_live_api(database_url) as (served, hub):  # noqa: SIM117 - the hub ends later
        async with listening(served), listening(served, key="key-b"):
            cursor = await conn.execute("select workspaces from enrichment_listeners")
            assert {name for (names,) in await cursor.fetchall() for name in names} == {
                "team-a",
                "team-b",
            }
            assert hub.listeners == 2
    assert (await (await conn.execute("select 1 from enrichment_listeners")).fetchall()) == []


# Resuming


async def test_a_listener_that_was_away_is_told_what_it_missed_once(api, conn):
    jobs = [await a_job(conn, workspace_id="team-a") for _ in range(4)]
    async with listening(api) as other, listening(api) as listener:
        await told(conn, jobs[0])
        await listener.next()
        await listener.answer.release()
        for job in jobs[1:3]:
            await told(conn, job)
        await other.until("job.completed", str(jobs[2].id))
        async with listening(api, last_id=listener.last_id) as again:
            await asyncio.sleep(0)
            await told(conn, jobs[3])
            seen = await again.until("job.completed", str(jobs[3].id))

    assert [event.data["id"] for event in seen] == [str(job.id) for job in jobs[1:]]


async def test_another_gateway_tells_it_from_the_tables(database_url, conn):
    first = await a_job(conn, workspace_id="team-a", status="completed", completed_ago_s=60.0)
    missed = [
        await a_job(conn, workspace_id="team-a", status=status, completed_ago_s=30.0 - place)
        for place, status in enumerate(["completed", "failed", "cancelled", "dead_letter"])
    ]
    await a_job(conn, workspace_id="team-b", status="completed", completed_ago_s=20.0)
    place = live.place_at(first.completed_at, first.id)
    async with (
        a_live_api(database_url) as (served, _),
        listening(served, last_id=str(place)) as listener,
    ):
        seen = [await listener.next() for _ in missed]
        now = await a_job(conn, workspace_id="team-a", status="completed")
        last = await listener.next()

    assert [event.data["id"] for event in seen] == [str(job.id) for job in missed]
    assert last.data["id"] == str(now.id)


async def test_an_id_without_an_event_resumes_as_well(api, conn):
    job = await a_job(conn, workspace_id="team-a")
    async with listening(api) as listener:
        stands_at = listener.last_id
    await ended(conn, job.id)
    async with listening(api, last_id=stands_at) as again:
        assert (await again.next()).data["id"] == str(job.id)


async def test_what_was_missed_is_filtered_too(database_url, conn):
    jobs = [
        await a_job(conn, workspace_id="team-a", status=status, completed_ago_s=30.0)
        for status in ("completed", "failed", "failed")
    ]
    place = Place(live.place_at(jobs[0].completed_at).at_us - 1, UUID(int=0))
    async with a_live_api(database_url) as (served, _):
        query = f"?status=failed&jobId={jobs[0].id},{jobs[1].id}"
        async with listening(served, query=query, last_id=str(place)) as listener:
            event = await listener.next()
            await told(conn, jobs[1], status="failed")
            again = await listener.next()

    assert (event.data["id"], again.data["id"]) == (str(jobs[1].id), str(jobs[1].id))


@pytest.mark.parametrize(
    "last_id",
    [
        "x",
        "12",
        "1-2",
        "0-00000000-0000-0000-0000-000000000000",
        "9" * 18 + "-" + "0" * 36,
        "-" * 40,
    ],
)
async def test_an_id_that_says_nothing_is_a_reset(api, conn, last_id):
    job = await a_job(conn, workspace_id="team-a")
    async with listening(api, last_id=last_id) as listener:
        event = await listener.next()
        await told(conn, job)
        after = await listener.next()

    assert event.name == "reset"
    assert after.data["id"] == str(job.id)


async def test_too_much_missed_is_a_reset(database_url, conn, monkeypatch):
    monkeypatch.setattr(events_module, "MISSED_MAX", 3)
    jobs = [
        await a_job(conn, workspace_id="team-a", status="completed", completed_ago_s=9.0)
        for _ in range(5)
    ]
    place = live.place_at(jobs[0].completed_at, UUID(int=0))
    async with (
        a_live_api(database_url) as (served, _),
        listening(served, last_id=str(place)) as listener,
    ):
        assert (await listener.next()).name == "reset"


# Ends of streams


async def test_a_revoked_key_ends_its_stream_within_5_s(api, conn):
    async with listening(api, key="key-reads") as listener, listening(api) as other:
        key_id = id_of(api.keys["key-reads"])
        assert await api_keys.revoke(conn, workspace_id="team-a", key_id=key_id)

        assert await listener.next(within_s=8.0) is None
        assert not other.answer.content.at_eof()


async def test_a_silent_stream_says_that_it_is_there(api, monkeypatch):
    monkeypatch.setattr(events_module, "HEARTBEAT_S", 0.05)
    async with listening(api) as listener:
        async with asyncio.timeout(5):
            lines = [await listener.answer.content.readline() for _ in range(4)]

    assert b": still here\n" in lines


async def test_a_listener_that_leaves_is_forgotten(database_url, eventually, monkeypatch):
    monkeypatch.setattr(events_module, "HEARTBEAT_S", 0.05)
    async with a_live_api(database_url) as (served, hub):
        async with listening(served):
            assert hub.listeners == 1

        async def is_gone() -> bool:
            return hub.listeners == 0

        await eventually(is_gone)


async def test_too_many_streams_are_refused_with_a_time(api, monkeypatch):
    monkeypatch.setattr(events_module, "STREAMS_MAX", 0)
    answer = await api.client().get("/events")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


def an_event() -> Event:
    """Return some event, as large as they are."""
    job_id = uuid7()
    return Event(Place(1, job_id), "team-a", "completed", "job.completed", b"x" * 700, {})  # type: ignore[arg-type]


async def test_a_slow_listener_is_overrun_and_holds_a_bounded_amount(monkeypatch):
    monkeypatch.setattr(live, "WAITING_EVENTS_MAX", 10)
    slow, quick = Subscription("team-a", Wanted()), Subscription("team-a", Wanted())
    for _ in range(25):
        event = an_event()
        slow.put(event)
        quick.put(event)
        assert await quick.next(within_s=1.0) == event.frame

    assert slow.is_overrun
    assert await slow.next(within_s=1.0) == b""
    assert not quick.is_overrun


async def test_a_slow_listener_is_sent_a_reset_and_dropped(api, conn, monkeypatch):
    monkeypatch.setattr(live, "WAITING_EVENTS_MAX", 3)
    async with listening(api) as listener:
        jobs = [await a_job(conn, workspace_id="team-a") for _ in range(8)]
        for job in jobs:
            await ended(conn, job.id)
        await changes.tell(conn, {"team-a": [str(job.id) for job in jobs]})

        assert (await listener.next()).name == "reset"
        assert await listener.next() is None


# PostgreSQL away


async def test_a_stream_outlives_an_outage_and_tells_what_happened_in_it(database_url, conn):
    name = (await (await conn.execute("select current_database()")).fetchone())[0]
    admin = Database(database_url.replace(f"/{name}", "/postgres"), name="test admin")
    jobs = [await a_job(conn, workspace_id="team-a") for _ in range(3)]
    async with a_live_api(database_url) as (served, _), listening(served) as listener:
        await told(conn, jobs[0])
        await listener.next()
        async with admin.connection() as outside:
            # Nobody gets in; those that are in, but for the test's own, are thrown out.
            await outside.execute(f'alter database "{name}" allow_connections false')
            await outside.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = %s and application_name <> 'test'",
                [name],
            )
            await ended(conn, jobs[1].id)
            await outside.execute(f'alter database "{name}" allow_connections true')
        await ended(conn, jobs[2].id)
        seen = {(await listener.next()).data["id"] for _ in range(2)}
    await admin.close()

    assert seen == {str(job.id) for job in jobs[1:]}


# A crowd


async def test_500_listeners_are_told_over_http_while_the_listening_backend_is_killed(
    database_url, conn
):
    async with a_live_api(database_url) as (served, _):
        jobs = [await a_job(conn, workspace_id="team-a") for _ in range(6)]
        async with AsyncExitStack() as stack:
            listeners: list[Listener] = list(
                await asyncio.gather(
                    *[stack.enter_async_context(listening(served)) for _ in range(500)]
                )
            )
            for number, job in enumerate(jobs):
                if number == 3:
                    await conn.execute(KILL_THE_EAR)
                await told(conn, job)
            heard = await asyncio.gather(*[hears(listener, len(jobs)) for listener in listeners])

    assert set(heard) == {frozenset(str(job.id) for job in jobs)}


async def hears(listener: Listener, count: int) -> frozenset[str]:
    """Return the jobs of the next events."""
    return frozenset([(await listener.next(within_s=30)).data["id"] for _ in range(count)])


# Pure parts


def test_a_place_is_read_back_as_it_was_written():
    place = Place(1_763_942_400_123_456, uuid7())

    assert place_of(str(place)) == place
    assert live.place_at(place.at, place.job_id) == place


async def test_an_event_is_one_line_of_json_whatever_a_job_says(conn):
    job = await a_job(conn, type="a\nb", workspace_id="team-a", error={"message": "x\n\ndata: y"})
    (change,) = await changes.by_id(conn, [job.id])

    frame = event_of(change).frame

    assert frame.count(b"\n") == 4
    assert frame.endswith(b"\n\n")


async def test_a_resumed_job_is_told_like_any_other(api, conn):
    job = await a_job(conn, workspace_id="team-a", status="waiting", attempts=1)
    async with listening(api) as listener:
        assert await job_moves.resume(conn, job_id=job.id)
        await changes.tell(conn, {"team-a": [str(job.id)]})

        assert (await listener.next()).name == "job.pending"
