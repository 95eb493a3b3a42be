"""A gateway that is killed, and the next one: what was accepted, and who listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import aiohttp
import httpx
import pytest
from uuid_utils.compat import uuid7

from enrichd.store import webhooks
from enrichd.store.database import Connection
from enrichd.store.sealing import Sealed
from tests.api.conftest import a_body
from tests.gateway.conftest import GatewayProcess, StartGateway
from tests.support.event_streams import listening
from tests.support.factories import a_job
from tests.support.keys import make_keys, text_of

CALLERS = 4
JOBS_EACH = 40
KILLED_AFTER = 30
HEADERS = {"Authorization": f"Bearer {text_of('key-a')}"}


@pytest.fixture
async def start(
    conn: Connection, database_url: str, start_gateway: StartGateway, unused_tcp_port: int
) -> Callable[[], Awaitable[GatewayProcess]]:
    """Give `await start()`: a gateway, always on the same port."""
    await make_keys(conn)
    port = str(unused_tcp_port)
    return lambda: asyncio.to_thread(
        start_gateway, database_url, HEALTH_CHECK_PORT=port, API_RATE_LIMIT_PER_SECOND="0"
    )


async def end(conn: Connection, job_id: object) -> None:
    """End a job as somebody does who gives no hint."""
    await conn.execute(
        "update enrichment_jobs set status = 'completed', completed_at = now(), updated_at = now()"
        " where id = %s",
        [job_id],
    )


async def test_what_a_killed_gateway_accepted_is_there_once_with_its_event(start, conn):
    await webhooks.insert(
        conn,
        webhook_id=uuid7(),
        workspace_id="team-a",
        url="https://hooks.example.com/",
        events=["job.created"],
        description=None,
        secret=Sealed(b"sealed", "test"),
    )
    gateway = await start()
    accepted: dict[str, str] = {}
    lost_answers = 0
    has_begun = asyncio.Event()

    async def call(caller: int) -> None:
        nonlocal lost_answers
        base = f"http://127.0.0.1:{gateway.port}/api/enrichment"
        async with httpx.AsyncClient(base_url=base, headers=HEADERS, timeout=10) as http:
            for number in range(JOBS_EACH):
                key = f"{caller}-{number}"
                while key not in accepted:
                    try:
                        answer = await http.post(
                            "/jobs", json=a_body(), headers={"Idempotency-Key": key}
                        )
                    except httpx.TransportError:
                        lost_answers += 1
                        await asyncio.sleep(0.1)
                        continue
                    assert answer.status_code in (200, 201), answer.text
                    accepted[key] = answer.json()["id"]
                    if len(accepted) == KILLED_AFTER:
                        has_begun.set()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for caller in range(CALLERS):
            group.create_task(call(caller))
        await has_begun.wait()
        gateway.process.kill()
        gateway = await start()

    rows = await (
        await conn.execute(
            "select job.id::text, job.idempotency_key,"
            "       (select count(*) from enrichment_webhook_deliveries where job_id = job.id)"
            "  from enrichment_jobs as job"
        )
    ).fetchall()
    assert lost_answers
    assert {key: job_id for job_id, key, _ in rows} == accepted
    assert len(rows) == CALLERS * JOBS_EACH
    assert {deliveries for _, _, deliveries in rows} == {1}


async def test_a_listener_of_a_killed_gateway_hears_from_the_next_what_it_missed(start, conn):
    heard, missed, later = [await a_job(conn, workspace_id="team-a") for _ in range(3)]
    gateway = await start()
    async with listening(gateway.port, key=text_of("key-a")) as listener:
        await end(conn, heard.id)
        assert (await listener.next()).job == ("job.completed", str(heard.id))
        gateway.process.kill()
        with contextlib.suppress(aiohttp.ClientError):  # An end or a reset, as the kernel has it.
            assert await listener.next() is None
        last_id = listener.last_id
    await end(conn, missed.id)

    gateway = await start()
    async with listening(gateway.port, key=text_of("key-a"), last_id=last_id) as listener:
        assert (await listener.next()).job == ("job.completed", str(missed.id))
        await end(conn, later.id)
        assert (await listener.next()).job == ("job.completed", str(later.id))
