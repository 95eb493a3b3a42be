"""aiohttp around the API: bodies that attack, compression, HEAD and OPTIONS, streams, TLS."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator

import pytest

from enrichd.api import bodies
from enrichd.api.key_limits import Buckets
from enrichd.api.messages import Answer, Stream
from enrichd.api.routing import PREFIX, Access, Call, Route
from enrichd.gateway import transport
from tests.api.conftest import Served, a_body, an_api, enqueued

JOB = json.dumps(a_body()).encode()


async def test_a_compressed_body_is_read(http):
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}

    assert (
        await http.post("/jobs", content=gzip.compress(JOB), headers=headers)
    ).status_code == 201


@pytest.mark.parametrize("size", [bodies.BODY_BYTES_MAX + 1, 200 << 20])
async def test_a_compressed_bomb_is_refused_before_it_is_big(http, size):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    chunk = b" " * (1 << 20)
    bomb = b"".join(packer.compress(chunk) for _ in range(size >> 20)) + packer.flush()
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}

    answer = await http.post("/jobs", content=bomb, headers=headers)

    assert answer.status_code in (400, 413, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body",
    [b"not gzip at all", gzip.compress(JOB, mtime=0)[:-20], b"\x1f\x8b\x08"],
    ids=["plain", "cut", "head"],
)
async def test_broken_compression_is_the_callers_mistake(http, body):
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}

    answer = await http.post("/jobs", content=body, headers=headers)

    assert answer.status_code == 400


async def test_a_body_past_the_limit_is_refused(http):
    headers = {"Content-Type": "application/json"}

    answer = await http.post("/jobs", content=b" " * (bodies.BODY_BYTES_MAX + 1), headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("header", ["Content-Length: 500", "Transfer-Encoding: chunked"])
async def test_a_body_that_drips_is_cut_off(served, monkeypatch, header):
    monkeypatch.setattr(transport, "BODY_S", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(
        f"POST {PREFIX}/jobs HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode() + b"1\r\n{\r\n"
    )

    async with asyncio.timeout(5):
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"slow_body" in answer
    writer.close()


@pytest.mark.parametrize(
    "request_text",
    [
        f"GET {PREFIX}/jobs HTTP/1.1\r\nHost: x\r\nX-Long: {'x' * 10_000}\r\n\r\n",
        f"GET {PREFIX}/{'x' * 10_000} HTTP/1.1\r\nHost: x\r\n\r\n",
        f"GET {PREFIX}/jobs HTTP/1.1\r\nHost: x\r\n" + "X-Many: x\r\n" * 500 + "\r\n",
        f"GET {PREFIX}/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
        "Transfer-Encoding: chunked\r\n\r\n",
        f"GET {PREFIX}/jobs HTTP/9.9\r\nHost: x\r\n\r\n",
        "\0\1\2\3\r\n\r\n",
    ],
    ids=["long header", "long line", "many headers", "two lengths", "version", "no HTTP"],
)
async def test_a_malformed_request_is_refused(served, request_text):
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(request_text.encode())

    async with asyncio.timeout(5):
        answer = await reader.read(4096)

    assert answer.startswith((b"HTTP/1.0 4", b"HTTP/1.1 4"))
    assert b"Traceback" not in answer
    writer.close()


@pytest.mark.parametrize(
    "path", ["/jobs?a=%ff", "/jobs?%00=1", "/jobs?=", "/jobs/%ff%fe", "/%2e%2e/x"]
)
async def test_odd_addresses_are_never_our_mistake(http, path):
    assert 400 <= (await http.get(path)).status_code < 500


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("*", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("", False),
    ],
)
async def test_an_answer_is_compressed_for_those_who_take_it(http, accepted, is_packed):
    job = await enqueued(http, payload={"emails": ["ada@example.com"] * 200})

    answer = await http.get(f"/jobs/{job['id']}", headers={"Accept-Encoding": accepted})

    assert answer.headers.get("content-encoding") == ("gzip" if is_packed else None)
    assert answer.headers["vary"] == "Accept-Encoding"
    assert len(answer.json()["payload"]["emails"]) == 200


async def test_a_small_answer_is_not_worth_it(http):
    answer = await http.get("/jobs", headers={"Accept-Encoding": "gzip"})

    assert "content-encoding" not in answer.headers


async def test_head_answers_like_get_without_the_body(http):
    job = await enqueued(http)
    path = f"/jobs/{job['id']}"

    head, get = await http.head(path), await http.get(path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers["etag"] == get.headers["etag"]
    assert (await http.head("/jobs/x")).status_code == 404


async def test_options_says_what_may_be_asked(served):
    answer = await served.client(None).options("/jobs")

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "TRACE"])
async def test_another_method_is_refused(http, method):
    answer = await http.request(method, "/jobs")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize("path", ["/nothing", "", "/", "/jobs/", "//jobs"])
async def test_an_unknown_route_is_told_without_a_key(served, path):
    address = f"http://127.0.0.1:{served.port}{PREFIX}{path}"

    answer = await served.client(None).get(address)

    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_route")


async def test_what_only_begins_like_the_api_is_not_it(served):
    answer = await served.client(None).get(f"http://127.0.0.1:{served.port}{PREFIX}s/jobs")

    assert (answer.status_code, answer.headers["content-type"][:10]) == (404, "text/plain")


async def test_a_request_keeps_its_id_or_gets_one(http):
    kept = await http.get("/jobs", headers={"X-Request-Id": "abc-1"})
    made = await http.get("/jobs", headers={"X-Request-Id": "<script>" + "x" * 100})

    assert kept.headers["x-request-id"] == "abc-1"
    assert len(made.headers["x-request-id"]) == 36
    problem = (await http.get("/jobs/x")).json()
    assert len(problem["requestId"]) == 36


async def test_every_answer_says_how_it_may_be_used(http):
    for answer in (await http.get("/jobs"), await http.get("/jobs/x"), await http.get("/docs")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["server"] == "enrichd"


# Pages of other origins


async def test_a_page_of_a_configured_origin_may_ask(database_url):
    async with an_api(database_url, API_CORS_ORIGINS="https://app.example.com") as served:
        client = served.client()
        ours = {"Origin": "https://app.example.com"}
        asked = {"Access-Control-Request-Method": "PUT"}
        before = await client.options("/jobs", headers={**ours, **asked})
        answer = await client.get("/jobs", headers=ours)
        refused = await client.get("/jobs/x", headers=ours)
        other = await client.get("/jobs", headers={"Origin": "https://evil.example.com"})

    assert before.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "Authorization" in before.headers["access-control-allow-headers"]
    assert "POST" in before.headers["access-control-allow-methods"]
    for one in (answer, refused):
        assert one.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "Origin" in one.headers["vary"]
        assert "access-control-allow-credentials" not in one.headers
    assert "access-control-allow-origin" not in other.headers


# How often


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(database_url):
    clock = [100.0]
    buckets = Buckets(2.0, 3, clock=lambda: clock[0])
    async with an_api(database_url, buckets=buckets) as served:
        answers = [await served.client().get("/jobs") for _ in range(4)]
        other = await served.client("key-b").get("/jobs")
        clock[0] += 0.5
        again = await served.client().get("/jobs")

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit"] for answer in answers] == [
        '"key";r=2;t=1',
        '"key";r=1;t=1',
        '"key";r=0;t=2',
        '"key";r=0;t=2',
    ]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"key";q=3;w=2'}
    assert (answers[3].headers["retry-after"], answers[3].json()["code"]) == (
        "1",
        "too_many_requests",
    )
    assert other.status_code == again.status_code == 200


# Streams


class Ticks:
    """A route that tells numbers until it is closed."""

    def __init__(self) -> None:
        self.is_closed = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            yield b"data: 1\n\n"
            await self.may_go_on.wait()
            yield b"data: 2\n\n"
            await asyncio.Event().wait()
        finally:
            self.is_closed.set()

    async def serve(self, _: Call) -> Answer:
        return Stream(200, self.pieces(), {"Content-Type": "text/event-stream"})


@pytest.fixture
async def ticking(database_url) -> AsyncIterator[tuple[Served, Ticks]]:
    ticks = Ticks()
    async with an_api(database_url) as served:
        served.api.tree.add(Route("GET", "/ticks", ticks.serve, Access.OPEN, "Tick"))
        yield served, ticks


async def test_a_piece_is_sent_at_once(ticking):
    served, ticks = ticking
    async with served.client().stream("GET", "/ticks") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"data: 1\n\n"
        ticks.may_go_on.set()
        assert await anext(pieces) == b"data: 2\n\n"
        assert "content-encoding" not in answer.headers
        await pieces.aclose()


async def test_a_stream_is_closed_when_its_reader_leaves(ticking):
    served, ticks = ticking
    async with served.client().stream("GET", "/ticks") as answer:
        await anext(aiter(answer.aiter_raw()))

    async with asyncio.timeout(5):
        await ticks.is_closed.wait()


async def test_a_stream_ends_in_order_when_the_gateway_stops(database_url):
    ticks = Ticks()
    async with an_api(database_url) as served:
        served.api.tree.add(Route("GET", "/ticks", ticks.serve, Access.OPEN, "Tick"))
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(f"GET {PREFIX}/ticks HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"data: 1\n\n")

    rest = await reader.read()
    assert b"200 OK" in head
    assert rest.endswith(b"0\r\n\r\n")
    assert ticks.is_closed.is_set()
    writer.close()
