"""The limits on connections, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from aiohttp import web

from enrichd.gateway.connections import Guard, watch_requests

REQUEST = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"


class Client:
    """A bare connection that sends what it is told, when it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> str:
        """Return the next answer's status line and body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.partition(":")[2])
            for line in head.lower().splitlines()
            if line.startswith("content-length")
        )
        body = await self.reader.readexactly(length)
        return f"{head.splitlines()[0]} {body.decode()}"

    async def is_closed(self, within_s: float = 5.0) -> bool:
        """Wait until the server closes the connection."""
        try:
            async with asyncio.timeout(within_s):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True


class Limited:
    """A server with small limits, whose `/slow` answers when the test says so."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.arrived = asyncio.Event()
        self.port = 0
        self.guard: Guard

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()

    async def slow(self, _: web.Request) -> web.Response:
        self.arrived.set()
        await self.may_answer.wait()
        return web.Response(text="at last")


async def quick(_: web.Request) -> web.Response:
    return web.Response(text="here")


@asynccontextmanager
async def limited_server(**changed: float) -> AsyncIterator[Limited]:
    limits = {"connections_max": 3, "headers_s": 0.3, "keepalive_s": 0.6}
    found = Limited()
    app = web.Application(middlewares=[watch_requests])
    app.add_routes([web.get("/quick", quick), web.get("/slow", found.slow)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    found.guard = Guard(runner.server, **{**limits, **changed})
    server = await asyncio.get_running_loop().create_server(found.guard, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        await runner.cleanup()


@pytest.fixture
async def limited(request) -> AsyncIterator[Limited]:
    async with limited_server(**getattr(request, "param", {})) as found:
        yield found


async def test_a_request_is_answered_and_the_connection_kept(limited):
    async with limited.client() as client:
        for _ in range(3):
            client.writer.write(REQUEST)
            assert await client.answer() == "HTTP/1.1 200 OK here"


@pytest.mark.parametrize("sent", [b"", b"G", REQUEST[:-2]], ids=["nothing", "a byte", "half"])
async def test_a_client_that_does_not_send_a_whole_request_is_cut_off(limited, sent):
    async with limited.client() as client:
        client.writer.write(sent)

        assert await client.is_closed()


async def test_drops_do_not_buy_time(limited):
    async def drip(client: Client) -> None:
        for byte in REQUEST:
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.05)  # the pace of the attack: 1.7 s for the whole request

    async with limited.client() as client:
        dripping = asyncio.create_task(drip(client))
        began = asyncio.get_running_loop().time()
        assert await client.is_closed()
        assert asyncio.get_running_loop().time() - began < 1.0
        dripping.cancel()


async def test_a_half_request_on_a_kept_connection_is_cut_off_as_soon(limited):
    async with limited.client() as client:
        client.writer.write(REQUEST)
        await client.answer()
        client.writer.write(REQUEST[:-2])

        assert await client.is_closed(within_s=0.5)


async def test_an_idle_connection_is_closed(limited):
    async with limited.client() as client:
        client.writer.write(REQUEST)
        await client.answer()

        assert await client.is_closed(within_s=2.0)
    assert not limited.guard.open
    assert not limited.guard.idle


async def test_a_request_under_way_has_all_the_time(limited):
    async with limited.client() as slow, limited.client() as idle:
        slow.writer.write(REQUEST.replace(b"quick", b"slow"))
        await limited.arrived.wait()
        assert await idle.is_closed()  # by then the limit is over for the other one, too

        limited.may_answer.set()

        assert await slow.answer() == "HTTP/1.1 200 OK at last"


@pytest.mark.parametrize("limited", [{"headers_s": 60.0, "keepalive_s": 60.0}], indirect=True)
async def test_the_connection_idle_for_longest_makes_room(limited):
    async with limited.client() as first, limited.client() as second, limited.client() as third:
        for client in (first, second, third):
            client.writer.write(REQUEST)
            await client.answer()
        first.writer.write(REQUEST)
        await first.answer()  # so the second has been idle for longest

        async with limited.client() as fourth:
            fourth.writer.write(REQUEST)
            assert await fourth.answer() == "HTTP/1.1 200 OK here"

            assert await second.is_closed()
            first.writer.write(REQUEST)
            assert await first.answer() == "HTTP/1.1 200 OK here"


@pytest.mark.parametrize("limited", [{"connections_max": 1}], indirect=True)
async def test_with_every_connection_busy_a_new_one_is_refused_in_words(limited):
    async with limited.client() as busy:
        busy.writer.write(REQUEST.replace(b"quick", b"slow"))
        await limited.arrived.wait()

        async with limited.client() as refused:
            refused.writer.write(REQUEST)
            answer = await refused.answer()
            assert answer == "HTTP/1.1 503 Service Unavailable too many connections\n"

        limited.may_answer.set()
        assert await busy.answer() == "HTTP/1.1 200 OK at last"
        busy.writer.write(REQUEST)
        assert await busy.answer() == "HTTP/1.1 200 OK here"


def test_the_limits_hold_on_the_loop_of_the_real_gateway():
    """Its transports are made differently, so one of everything is tried there again."""

    async def try_all() -> None:
        async with limited_server() as limited, limited.client() as slow, limited.client() as idle:
            slow.writer.write(REQUEST.replace(b"quick", b"slow"))
            await limited.arrived.wait()
            idle.writer.write(REQUEST[:-2])
            assert await idle.is_closed()
            limited.may_answer.set()
            assert await slow.answer() == "HTTP/1.1 200 OK at last"
            assert await slow.is_closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(try_all())


# The whole server's other limits


async def test_headers_and_lines_beyond_the_limits_are_refused(gateway):
    long_line = await gateway.client.get("/livez?" + "x" * 9000)
    long_field = await gateway.client.get("/livez", headers={"X-Long": "x" * 9000})
    many = await gateway.client.get("/livez", headers={f"X-{n}": "1" for n in range(200)})

    assert [answer.status_code for answer in (long_line, long_field, many)] == [400, 400, 400]
    assert {answer.headers["Server"] for answer in (long_line, long_field, many)} == {"enrichd"}


async def test_other_methods_and_paths_are_refused(gateway):
    assert (await gateway.client.post("/health", content=b"x")).status_code == 405
    assert (await gateway.client.get("/health/../../etc/passwd")).status_code == 404
    assert (await gateway.client.head("/livez")).status_code == 200


async def test_what_is_no_http_is_refused_without_a_word_in_the_log(gateway, capfd):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"\x16\x03\x01 this is TLS, or worse\r\n\r\n")
    answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()

    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert "ERROR" not in capfd.readouterr().err.upper()
