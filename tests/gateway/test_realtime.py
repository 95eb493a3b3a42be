"""Supabase Realtime: what is broadcast where, how often, how, and when the server fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from enrichd.api.hub import Hub
from enrichd.api.live import event_of
from enrichd.gateway import realtime
from enrichd.gateway.realtime import Broadcaster, broadcast, headers_for
from enrichd.settings import Settings
from enrichd.store import changes
from enrichd.store.database import Connection, Database
from tests.support.factories import a_job
from tests.support.phoenix import Phoenix, phoenix

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2ln"


def settings_of(dsn: str, server: Phoenix, **variables: str) -> Settings:
    return Settings.load(
        {
            "DATABASE_URL": dsn,
            "ENRICHD_DATA_DIR": "/nonexistent",
            "SUPABASE_URL": server.url,
            "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x",
            **variables,
        }
    )


@asynccontextmanager
async def broadcasting(dsn: str, server: Phoenix, **variables: str) -> AsyncIterator[Hub]:
    """Broadcast as a gateway does, with a hub of its own."""
    hub = Hub(Database(dsn, name="test hub"), listen_dsn=dsn)
    settings = settings_of(dsn, server, **variables)
    tasks = [
        asyncio.create_task(hub.run()),
        asyncio.create_task(broadcast(settings, hub, Database(dsn, name="test realtime"))),
    ]
    try:
        yield hub
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def leads(conn: Connection) -> bool:
    """Say whether somebody broadcasts."""
    cursor = await conn.execute("select 1 from enrichment_listeners where name = 'realtime'")
    return await cursor.fetchone() is not None


@pytest.fixture
async def server() -> AsyncIterator[Phoenix]:
    async with phoenix() as found:
        yield found


async def sent(server: Phoenix, count: int, eventually: Any) -> list[dict[str, Any]]:
    """Wait for so many messages."""

    async def has_come() -> bool:
        return len(server.messages) >= count

    await eventually(has_come)
    return server.messages


async def change(conn: Connection, *jobs: Any, status: str = "completed") -> None:
    """End jobs and hint at them."""
    for job in jobs:
        await conn.execute(
            "update enrichment_jobs set status = %s, completed_at = now(), updated_at = now(),"
            ' result = \'{"email": "ada@example.com"}\' where id = %s',
            [status, job.id],
        )
        await changes.tell(conn, {job.workspace_id: [str(job.id)]})


async def test_the_open_topic_has_ids_and_states_of_one_workspace_and_nothing_else(
    database_url, conn, server, eventually
):
    ours = await a_job(conn, workspace_id="default", tags=["ada@example.com"])
    theirs = await a_job(conn, workspace_id="team-a")
    async with broadcasting(database_url, server):
        await eventually(lambda: leads(conn))
        await change(conn, ours, theirs)
        messages = await sent(server, 2, eventually)

    by_topic = {message["topic"]: message for message in messages}
    assert by_topic.keys() == {"enrichment_updates", "enrichment_updates:team-a"}
    shared, private = by_topic["enrichment_updates"], by_topic["enrichment_updates:team-a"]
    assert shared["event"] == private["event"] == "job_update"
    assert (shared["private"], private["private"]) == (False, True)
    assert shared["payload"].keys() == {"jobId", "status", "updatedAt"}
    assert shared["payload"]["jobId"] == str(ours.id)
    assert private["payload"]["status"] == "completed"
    assert "ada@example.com" not in str(messages)


async def test_private_leaves_nothing_on_the_open_topic(database_url, conn, server, eventually):
    job = await a_job(conn, workspace_id="default")
    async with broadcasting(database_url, server, SUPABASE_REALTIME="private"):
        await eventually(lambda: leads(conn))
        await change(conn, job)
        (message,) = await sent(server, 1, eventually)

    assert (message["topic"], message["private"]) == ("enrichment_updates:default", True)


@pytest.mark.parametrize(
    "variables", [{"SUPABASE_REALTIME": "off"}, {"SUPABASE_SERVICE_ROLE_KEY": ""}]
)
async def test_nothing_is_broadcast_unless_it_is_configured(database_url, conn, server, variables):
    settings = settings_of(database_url, server, **variables)
    hub = Hub(Database(database_url), listen_dsn=None)

    await broadcast(settings, hub, Database(database_url))

    assert not await leads(conn)


def test_only_a_json_web_token_is_a_bearer_token():
    assert headers_for("sb_secret_x") == {"apikey": "sb_secret_x"}
    assert headers_for(TOKEN) == {"apikey": TOKEN, "Authorization": f"Bearer {TOKEN}"}


async def test_many_changes_go_in_requests_of_a_hundred(database_url, conn, server, eventually):
    jobs = [await a_job(conn, workspace_id="team-a") for _ in range(230)]
    async with broadcasting(database_url, server):
        await eventually(lambda: leads(conn))
        async with conn.transaction():
            await conn.execute("update enrichment_jobs set status = 'failed', completed_at = now()")
        await changes.tell(conn, {"team-a": [str(job.id) for job in jobs]})
        messages = await sent(server, 230, eventually)

    assert max(len(batch) for _, batch in server.requests) <= 100
    assert {message["payload"]["jobId"] for message in messages} == {str(job.id) for job in jobs}
    headers = server.requests[0][0]
    assert headers["apikey"] == "sb_secret_x"
    assert "Authorization" not in headers


async def test_a_jobs_updates_come_once_a_second_and_the_last_one_always(
    database_url, conn, server, eventually
):
    job = await a_job(conn, workspace_id="team-a", status="processing")
    hint = {"team-a": [str(job.id)]}
    async with broadcasting(database_url, server):
        await eventually(lambda: leads(conn))
        for done in range(20):
            await conn.execute(
                "update enrichment_jobs set progress_done = %s, progress_total = 20,"
                " updated_at = now()",
                [done],
            )
            await changes.tell(conn, hint)
            await asyncio.sleep(0.03)
        await change(conn, job)

        async def has_ended() -> bool:
            return any(one["payload"]["status"] == "completed" for one in server.messages)

        await eventually(has_ended)

    assert len(server.messages) <= 3
    assert server.messages[-1]["payload"]["status"] == "completed"


async def test_one_of_several_gateways_broadcasts_and_another_takes_over(
    database_url, conn, server, eventually, monkeypatch
):
    monkeypatch.setattr(realtime, "RENEW_S", 0.1)
    first, second, third = [await a_job(conn, workspace_id="team-a") for _ in range(3)]
    async with broadcasting(database_url, server):
        await eventually(lambda: leads(conn))
        async with broadcasting(database_url, server):
            await change(conn, first)
            await change(conn, second)
            await sent(server, 2, eventually)
            await asyncio.sleep(0.3)
            assert len(server.messages) == 2
    async with broadcasting(database_url, server):
        await eventually(lambda: leads(conn))
        await change(conn, third)

        async def has_come() -> bool:
            return any(one["payload"]["jobId"] == str(third.id) for one in server.messages)

        await eventually(has_come)


@pytest.mark.parametrize("answer", [(429, {"Retry-After": "1"}), (500, {}), (503, {})])
async def test_what_the_server_could_not_take_is_sent_again(
    database_url, conn, server, eventually, monkeypatch, answer
):
    monkeypatch.setattr(realtime, "REST_MIN_S", 0.05)
    job = await a_job(conn, workspace_id="team-a")
    server.answers.append(answer)
    async with broadcasting(database_url, server):
        await eventually(lambda: leads(conn))
        await change(conn, job)
        (message,) = await sent(server, 1, eventually)

    assert message["payload"]["jobId"] == str(job.id)
    assert server.answers == []


async def test_what_the_server_refuses_is_dropped(
    database_url, conn, server, eventually, monkeypatch
):
    monkeypatch.setattr(realtime, "REST_MIN_S", 0.05)
    first, second = [await a_job(conn, workspace_id="team-a") for _ in range(2)]
    server.answers.append((422, {}))
    async with broadcasting(database_url, server):
        await eventually(lambda: leads(conn))
        await change(conn, first)

        async def was_refused() -> bool:
            return not server.answers

        await eventually(was_refused)
        await change(conn, second)
        messages = await sent(server, 1, eventually)

    assert [one["payload"]["jobId"] for one in messages] == [str(second.id)]


async def test_a_server_that_is_away_costs_bounded_memory(database_url, conn, monkeypatch):
    monkeypatch.setattr(realtime, "WAITING_MAX", 5)
    hub = Hub(Database(database_url), listen_dsn=None)
    sender = realtime.ByRest("http://127.0.0.1:9", "key")
    broadcaster = Broadcaster(hub, Database(database_url), sender)
    for _ in range(9):
        job = await a_job(conn, workspace_id="team-a")
        (found,) = await changes.by_id(conn, [job.id])
        broadcaster._note(event_of(found))

    assert len(broadcaster._waiting) == 5
    with pytest.raises(realtime.NotSent):
        await sender.send([])
    await sender.close()


async def test_a_database_with_realtime_sends_by_itself(database_url, conn, server, eventually):
    await conn.execute(
        """
        create schema realtime;
        create table realtime.messages (payload jsonb, event text, topic text, private boolean);
        create function realtime.send(payload jsonb, event text, topic text,
                                      private boolean default true) returns void
        language sql as 'insert into realtime.messages values (payload, event, topic, private)'
        """,
        prepare=False,
    )
    job = await a_job(conn, workspace_id="team-a")
    async with broadcasting(database_url, server):
        await eventually(lambda: leads(conn))
        await change(conn, job)

        async def rows() -> list[Any]:
            return await (await conn.execute("select * from realtime.messages")).fetchall()

        ((payload, event, topic, is_private),) = await eventually(rows)

    assert server.requests == []
    assert (event, topic, is_private) == ("job_update", "enrichment_updates:team-a", True)
    assert payload["jobId"] == str(job.id)
