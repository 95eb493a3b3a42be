"""Providers' HTTP answers, over a real server, become answers or the right error."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from enrichd.errors import ProviderDenied, ProviderDown, ProviderGarbled, ProviderRejected
from enrichd.providers import client as client_module
from enrichd.providers.client import Answer, retry_after_s, send
from enrichd.providers.http_transport import AiohttpTransport

CLOSING = web.AppKey("closing", asyncio.Event)


async def hang_up(request: web.Request) -> web.StreamResponse:
    hang_up.calls = getattr(hang_up, "calls", 0) + 1  # type: ignore[attr-defined]
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def echo(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    said = {
        "param": request.query["name"],
        "body": await request.json(),
        "key": request.headers["X-Key"],
        "peer": request.transport.get_extra_info("peername")[1],
    }
    return web.json_response(said)


async def flood(request: web.Request) -> web.StreamResponse:
    return web.Response(body=gzip.compress(b" " * 6_000_000), headers={"Content-Encoding": "gzip"})


async def not_gzip(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"plain", headers={"Content-Encoding": "gzip"})


async def stall(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"{")
    await request.app[CLOSING].wait()
    return response


async def json(request: web.Request) -> web.StreamResponse:
    return web.json_response({"id": -1039995589705121900})


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    app = web.Application()
    app[CLOSING] = asyncio.Event()
    for handler in (hang_up, flood, not_gzip, stall, json):
        app.router.add_get(f"/{handler.__name__}", handler)
    app.router.add_post("/echo", echo)
    server = TestServer(app)
    await server.start_server()
    yield server
    app[CLOSING].set()
    await server.close()


def a_client() -> httpx.AsyncClient:
    """Return the client that adapters use."""
    return httpx.AsyncClient(
        transport=AiohttpTransport(connect_s=5.0, answer_s=30.0, connections_max=5)
    )


async def ask(server: TestServer, path: str) -> Answer:
    async with a_client() as client:
        return await send(client, "GET", str(server.make_url(path)), provider="acme")


async def test_an_answer_is_read_whole(server):
    answer = await ask(server, "/json")

    assert (answer.status, answer.json()) == (200, {"id": -1039995589705121900})


@pytest.mark.parametrize("path", ["/flood", "/not_gzip"])
async def test_what_cannot_be_read_is_garbled(server, path):
    with pytest.raises(ProviderGarbled) as caught:
        await ask(server, path)

    assert caught.value.provider == "acme"


async def test_a_server_that_hangs_up_is_down(server):
    with pytest.raises(ProviderDown):
        await ask(server, "/hang_up")


async def test_a_request_whose_connection_breaks_is_not_put_again(server):
    hang_up.calls = 0
    async with a_client() as client:
        await send(client, "GET", str(server.make_url("/json")), provider="acme")

        with pytest.raises(ProviderDown):
            await send(client, "GET", str(server.make_url("/hang_up")), provider="acme")

    assert hang_up.calls == 1, "on a connection that was used before, aiohttp would"


async def test_a_connection_is_used_again_and_a_question_arrives_as_it_was_put(server):
    async with a_client() as client:
        peers = set()
        for name in ("Zoë & Söhne", "a+b@c", "%2F"):
            answer = await send(
                client,
                "POST",
                str(server.make_url("/echo")),
                provider="acme",
                params={"name": name},
                json={"name": name},
                headers={"X-Key": "k"},
            )
            said = answer.json()
            assert (said["param"], said["body"], said["key"]) == (name, {"name": name}, "k")
            peers.add(said["peer"])

    assert len(peers) == 1


async def test_an_answer_that_never_ends_is_given_up(server, monkeypatch):
    monkeypatch.setattr(client_module, "CALL_S", 0.2)

    with pytest.raises(ProviderDown, match="in time"):
        await ask(server, "/stall")


async def test_a_server_that_is_not_there_is_down():
    async with a_client() as client:
        with pytest.raises(ProviderDown, match="cannot be reached"):
            await send(client, "GET", "http://127.0.0.1:9/", provider="acme")


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer("acme", status, httpx.Headers(named), body)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after": "0"}, 1),
        ({"retry_after": "1e9"}, 6 * 3600),
        ({"retry_after": "nan"}, 60),
        ({"retry_after": "soon"}, 60),
        ({}, 60),
        (
            {
                "date": "Sun, 06 Nov 1994 08:49:37 GMT",
                "retry_after": "Sun, 06 Nov 1994 08:50:07 GMT",
            },
            30,
        ),
        ({"retry_after": "Sun, 06 Nov 1994 08:50:07 GMT"}, 1),
    ],
)
def test_the_wait_is_read_from_seconds_or_a_date(headers, seconds):
    assert retry_after_s(answer(429, **headers).headers) == seconds


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xfe", b"[" * 100_000, b"[" * 10_000 + b"]" * 10_000]
)
def test_a_body_that_is_no_json_or_a_well_is_garbled(body):
    with pytest.raises(ProviderGarbled):
        answer(200, body).json()


def test_what_is_bad_in_one_value_is_mended_and_the_others_stay():
    body = b'{"name": "\\ud800", "age": NaN, "id": ' + b"9" * 5_000 + b', "title": "CTO"}'

    read = answer(200, body).json()

    assert (read["name"], read["age"], read["title"]) == ("\ufffd", None, "CTO")
    assert str(read["id"]).startswith("999")


@pytest.mark.parametrize("key", ["s3cret\nX: y", "s3cret\r", "s3crét", "s3cret\0"])
async def test_a_key_that_no_header_may_hold_is_denied_and_not_shown(server, key):
    async with a_client() as client:
        with pytest.raises(ProviderDenied) as caught:
            await send(
                client,
                "GET",
                str(server.make_url("/json")),
                provider="acme",
                headers={"Authorization": f"Bearer {key}"},
            )

    assert "s3c" not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"


async def test_a_question_that_cannot_be_written_down_is_rejected_and_not_shown(server):
    async with a_client() as client:
        with pytest.raises(ProviderRejected) as caught:
            await send(
                client,
                "GET",
                str(server.make_url("/json")),
                provider="acme",
                params={"name": "Ada \ud800"},
            )

    assert "Ada" not in str(caught.value)


def test_what_is_shown_of_a_body_is_short_and_printable():
    assert answer(500, b"\x1b[31m" + b"x" * 9_000).shown() == " [31m" + "x" * 195
