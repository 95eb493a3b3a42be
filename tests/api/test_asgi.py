"""The API as an ASGI application: under two real servers, and driven by hand."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
import logging
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
import structlog

from enrichd.api import asgi, asgi_health, asgi_messages
from enrichd.api.asgi import application
from enrichd.api.bodies import BODY_BYTES_MAX
from enrichd.errors import InvalidSetting
from enrichd.logs import configure_logs
from enrichd.store.database import Connection
from tests.api.conftest import a_body, settings_of
from tests.support.asgi import Exchange, a_scope, body_parts, served_by
from tests.support.event_streams import listening
from tests.support.factories import a_job
from tests.support.keys import TEXTS, make_keys

API = "/api/enrichment"
SECRET = "a-secret-that-cron-knows"


@pytest.fixture(autouse=True)
def restored_logs() -> Iterator[None]:
    level, handlers = logging.getLogger().level, list(logging.getLogger().handlers)
    yield
    configure_logs("warning")
    logging.getLogger().setLevel(level)
    logging.getLogger().handlers[:] = handlers
    structlog.contextvars.clear_contextvars()


@pytest.fixture
async def keys(conn: Connection) -> dict[str, str]:
    await make_keys(conn)
    return TEXTS


@pytest.fixture
def an_app(database_url: str) -> Callable[..., asgi.App]:
    """Give `an_app(**variables)`: an application that reads these settings when it is asked."""

    def make(**variables: str) -> asgi.App:
        chosen = {"CRON_SECRET": SECRET, "LOG_LEVEL": "critical", **variables}
        return application(lambda: settings_of(database_url, **chosen))

    return make


@dataclass(slots=True)
class Site:
    """A served application and a client of it."""

    client: httpx.AsyncClient
    port: int


@pytest.fixture(params=["uvicorn", "hypercorn"])
async def site(request, an_app, keys) -> AsyncIterator[Site]:
    async with (
        served_by(request.param, an_app()) as port,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {keys['key-a']}"},
        ) as client,
    ):
        yield Site(client, port)


# The rule by which Vercel and others know an ASGI application.


def test_the_application_is_an_async_function_of_exactly_three_positional_parameters():
    parameters = inspect.signature(asgi.app).parameters.values()

    assert inspect.iscoroutinefunction(asgi.app)
    assert [one.kind for one in parameters] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 3
    assert [one.default for one in parameters] == [inspect.Parameter.empty] * 3


def test_importing_it_reads_no_settings_and_opens_nothing():
    code = """
import socket
def refuse(*_): raise AssertionError("a socket was opened")
socket.socket.connect = refuse
import enrichd.api.asgi
"""
    environment = {"DATABASE_URL": "nonsense", "WORKER_COUNT": "many"}

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")


# Under real servers.


async def test_a_job_is_made_read_and_listed(site: Site):
    made = await site.client.post(f"{API}/jobs", json=a_body())
    read = await site.client.get(made.headers["location"])
    listed = await site.client.get(f"{API}/jobs", params={"status": "pending", "limit": 5})

    assert (made.status_code, read.status_code, listed.status_code) == (201, 200, 200)
    assert read.json()["id"] == made.json()["id"] == listed.json()["jobs"][0]["id"]
    assert read.headers["x-content-type-options"] == "nosniff"
    assert read.headers["x-request-id"]


async def test_an_answer_to_a_head_has_the_headers_and_no_body(site: Site):
    made = (await site.client.post(f"{API}/jobs", json=a_body())).json()

    whole = await site.client.get(f"{API}/jobs/{made['id']}")
    head = await site.client.head(f"{API}/jobs/{made['id']}")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert head.headers["etag"] == whole.headers["etag"]


async def test_a_large_answer_is_compressed(site: Site):
    answer = await site.client.get(f"{API}/openapi.json")
    plain = await site.client.get(f"{API}/openapi.json", headers={"Accept-Encoding": "identity"})

    assert answer.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert answer.json() == plain.json()


async def test_a_packed_body_is_unpacked(site: Site):
    body = gzip.compress(json.dumps(a_body()).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}

    answer = await site.client.post(f"{API}/jobs", content=body, headers=headers)

    assert answer.status_code == 201


async def test_events_come_and_end_with_the_listener(site: Site, keys, conn):
    async with listening(site.port, key=keys["key-a"]) as listener:
        job = await a_job(conn, workspace_id="team-a")
        await conn.execute(
            "update enrichment_jobs set status = 'completed', completed_at = now(),"
            " updated_at = now() where id = %s",
            (job.id,),
        )
        told = await listener.until("job.completed", str(job.id))

    assert told[-1].data["status"] == "completed"
    assert (await site.client.get("/livez")).status_code == 200


async def test_a_cron_runs_the_queue(site: Site, conn):
    for _ in range(3):
        await a_job(conn, type="email_validation", payload={"emails": []})
    headers = {"Authorization": f"Bearer {SECRET}", "User-Agent": "vercel-cron/1.0"}

    refused = await site.client.get(f"{API}/process")
    first, second = await asyncio.gather(
        *(site.client.get(f"{API}/process", headers=headers, timeout=30) for _ in range(2))
    )

    assert (refused.status_code, first.status_code, second.status_code) == (401, 200, 200)
    assert first.json()["claimed"] + second.json()["claimed"] == 3
    assert first.headers["cache-control"] == "no-store"


async def test_health_is_about_the_process_and_the_database(site: Site):
    answers = {path: await site.client.get(path) for path in asgi_health.PATHS}

    assert {answer.status_code for answer in answers.values()} == {200}
    assert answers["/readyz"].json() == {"status": "ready", "reasons": []}
    assert answers["/health"].json()["checks"]["database"]["status"] == "pass"
    assert (await site.client.post("/health")).status_code == 405


async def test_what_is_not_there_is_a_problem(site: Site):
    for path in ("/", "/favicon.ico", "/api", f"{API}/nothing", "//"):
        answer = await site.client.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_the_end_of_the_server_closes_every_connection(
    server, an_app, keys, conn, eventually
):
    async with served_by(server, an_app()) as port, httpx.AsyncClient() as client:
        headers = {"Authorization": f"Bearer {keys['key-a']}"}
        answer = await client.get(f"http://127.0.0.1:{port}{API}/jobs", headers=headers)
        assert answer.status_code == 200
        assert await connections(conn) > 0

    async def has_none() -> bool:
        return await connections(conn) == 0

    await eventually(has_none)  # A server process takes a moment to be gone.


async def connections(conn: psycopg.AsyncConnection[Any]) -> int:
    cursor = await conn.execute(
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and application_name like 'enrichd asgi%'"
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


# By hand: what no well-behaved server or client does.


@pytest.fixture
async def driven(an_app) -> AsyncIterator[asgi.App]:
    """Give an application without a server: nobody tells it of a beginning, only of the end."""
    app = an_app()
    yield app
    ending = Exchange([{"type": "lifespan.shutdown"}])
    await app({"type": "lifespan"}, ending.receive, ending.send)
    assert ending.said == [{"type": "lifespan.shutdown.complete"}]


async def asked(app: asgi.App, scope: dict[str, Any], *pieces: bytes) -> Exchange:
    exchange = Exchange(body_parts(*pieces))
    await app(scope, exchange.receive, exchange.send)
    return exchange


async def test_without_a_lifespan_the_first_request_opens_the_api(driven, keys):
    scope = a_scope("GET", f"{API}/jobs?limit=1", authorization=f"Bearer {keys['key-a']}")

    answers = await asyncio.gather(*(asked(driven, scope) for _ in range(5)))

    assert [(one.status, one.is_complete) for one in answers] == [(200, True)] * 5


async def test_a_body_in_pieces_is_put_together(driven, keys):
    body = json.dumps(a_body()).encode()
    scope = a_scope("POST", f"{API}/jobs", authorization=f"Bearer {keys['key-a']}")

    exchange = await asked(driven, scope, body[:5], b"", body[5:6], body[6:])

    assert exchange.status == 201


@pytest.mark.parametrize(
    ("headers", "pieces", "status", "code"),
    [
        ({"content_length": "99999999999"}, (), 413, "body_too_large"),
        ({}, (b" " * BODY_BYTES_MAX, b" "), 413, "body_too_large"),
        (
            {"content_encoding": "gzip"},
            (gzip.compress(b" " * (BODY_BYTES_MAX + 1)),),
            413,
            "body_too_large",
        ),
        ({"content_encoding": "gzip"}, (b"this is not gzip",), 400, "broken_body"),
        ({"content_encoding": "gzip"}, (gzip.compress(b"{}")[:-4],), 400, "broken_body"),
        ({"content_encoding": "gzip"}, (gzip.compress(b"{}") + b"more",), 400, "broken_body"),
        ({"content_encoding": "deflate"}, (zlib.compress(b"{")[:-1],), 400, "broken_body"),
        ({"content_encoding": "br"}, (b"x",), 415, "unsupported_encoding"),
        ({}, (b"{",), 400, "invalid_body"),
    ],
)
async def test_a_body_that_cannot_be_taken_is_refused(driven, keys, headers, pieces, status, code):
    shown = {"authorization": f"Bearer {keys['key-a']}", **headers}

    exchange = await asked(driven, a_scope("POST", f"{API}/jobs", **shown), *pieces)

    assert (exchange.status, json.loads(exchange.body)["code"]) == (status, code)
    assert "connection" not in exchange.headers


async def test_a_body_that_never_ends_is_refused(driven, monkeypatch):
    monkeypatch.setattr(asgi_messages, "BODY_S", 0.1)
    exchange = Exchange([{"type": "http.request", "body": b"{", "more_body": True}])

    await driven(a_scope("POST", f"{API}/jobs"), exchange.receive, exchange.send)

    assert exchange.status == 408


async def test_a_query_of_thousands_of_fields_is_refused(driven):
    exchange = await asked(driven, a_scope("GET", f"{API}/jobs?" + "a=1&" * 5000))

    assert exchange.status == 400


async def test_a_client_that_leaves_in_its_body_gets_nothing(driven):
    exchange = Exchange([{"type": "http.request", "body": b"{", "more_body": True}])
    exchange.left.set()

    await driven(a_scope("POST", f"{API}/jobs"), exchange.receive, exchange.send)

    assert exchange.said == []


@pytest.mark.parametrize("path", ["/events", "/jobs"])
async def test_a_client_that_is_gone_when_it_is_answered_raises_nothing(driven, keys, path):
    exchange = Exchange(body_parts(), is_broken=True)
    scope = a_scope("GET", API + path, authorization=f"Bearer {keys['key-a']}")

    async with asyncio.timeout(5):
        await driven(scope, exchange.receive, exchange.send)

    assert exchange.said == []


async def test_a_stream_ends_when_its_listener_leaves(driven, keys, eventually):
    exchange = Exchange(body_parts())
    scope = a_scope("GET", f"{API}/events", authorization=f"Bearer {keys['key-a']}")
    serving = asyncio.ensure_future(driven(scope, exchange.receive, exchange.send))

    async def has_begun() -> bool:
        return len(exchange.said) > 1

    await eventually(has_begun)
    exchange.left.set()
    async with asyncio.timeout(2):
        await serving

    assert exchange.headers["content-type"] == "text/event-stream"
    assert "content-encoding" not in exchange.headers


async def test_a_stream_of_events_ends_by_itself_before_the_platform_cuts_it(
    driven, keys, monkeypatch
):
    monkeypatch.setattr(asgi_messages, "EVENTS_S", 0.3)
    scope = a_scope("GET", f"{API}/events", authorization=f"Bearer {keys['key-a']}")

    async with asyncio.timeout(5):
        exchange = await asked(driven, scope)

    assert exchange.is_complete


async def test_a_websocket_is_closed(driven):
    exchange = Exchange([{"type": "websocket.connect"}])

    await driven({"type": "websocket", "path": "/"}, exchange.receive, exchange.send)

    assert exchange.said == [{"type": "websocket.close", "code": 1000}]


async def test_bytes_that_are_no_text_are_no_error(driven):
    scope = a_scope("GET", f"{API}/jobs")
    scope["headers"] = [(b"authorization", b"Bearer \xff\xfe"), (b"\xff", b"\x00\x80")]
    scope["query_string"] = b"text=%ff%00&\xff"

    assert (await asked(driven, scope)).status == 401


async def test_a_bug_is_500_without_a_word_about_it(an_app, monkeypatch):
    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(asgi, "request_of", broken)

    exchange = await asked(an_app(), a_scope("GET", f"{API}/jobs"))

    assert (exchange.status, b"secret" in exchange.body) == (500, False)


# Settings that are wrong, a database that is away.


def misconfigured() -> Any:
    raise InvalidSetting("WORKER_COUNT is 'many'; it must be a whole number", hint="Mend it.")


async def test_wrong_settings_keep_a_server_with_a_lifespan_from_starting():
    exchange = Exchange([{"type": "lifespan.startup"}])

    await application(misconfigured)({"type": "lifespan"}, exchange.receive, exchange.send)

    assert [one["type"] for one in exchange.said] == ["lifespan.startup.failed"]
    assert "WORKER_COUNT" in exchange.said[0]["message"]


@pytest.mark.parametrize("path", [f"{API}/jobs", "/health"])
async def test_without_a_lifespan_wrong_settings_are_503_and_tell_strangers_nothing(path):
    exchange = await asked(application(misconfigured), a_scope("GET", path))

    assert exchange.status == 503
    assert b"WORKER_COUNT" not in exchange.body


async def test_without_a_database_url_it_says_so():
    exchange = Exchange([{"type": "lifespan.startup"}])
    app = application(lambda: asgi.Settings.load({"ENRICHD_DATA_DIR": "/nonexistent"}))

    await app({"type": "lifespan"}, exchange.receive, exchange.send)

    assert "DATABASE_URL is not set" in exchange.said[0]["message"]


async def test_a_database_that_is_away_is_503_and_health_says_so(keys):
    away = "postgresql://nobody@127.0.0.1:1/nothing"
    app = application(lambda: settings_of(away, LOG_LEVEL="critical"))
    scope = a_scope("GET", f"{API}/jobs", authorization=f"Bearer {keys['key-a']}")

    jobs = await asked(app, scope)
    health = await asked(app, a_scope("GET", "/health"))
    live = await asked(app, a_scope("GET", "/livez"))
    ending = Exchange([{"type": "lifespan.shutdown"}])
    await app({"type": "lifespan"}, ending.receive, ending.send)

    assert (jobs.status, health.status, live.status) == (503, 503, 200)
    assert "retry-after" in jobs.headers
    assert json.loads(health.body)["output"] == "PostgreSQL cannot be reached"
    assert b"127.0.0.1" not in jobs.body + health.body
