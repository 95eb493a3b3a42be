"""Receivers that break the rules of HTTP, TLS and names: each costs its timeout, little memory."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from enrichd.domain.addresses import parse_networks
from enrichd.webhooks.sender import Answer, Sender
from enrichd.webhooks.targets import Guard
from tests.support.receivers import LOOPBACK, Receivers

TIMEOUT_S = 0.6
FLOOD_BYTES_MAX = 20_000_000
"""What fills the buffers of both sides by far, and is nothing to 10 GB."""


class Wire:
    """One connection as a hostile receiver sees it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.sent_bytes = 0
        self._writer = writer

    async def send(self, part: bytes) -> None:
        self._writer.write(part)
        await self._writer.drain()
        self.sent_bytes += len(part)

    async def send_for_ever(self, part: bytes, *, pause_s: float = 0.0) -> None:
        while True:
            await self.send(part)
            await asyncio.sleep(pause_s)


async def drip_headers(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    await wire.send_for_ever(b"a", pause_s=0.02)


async def drip_the_status(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 O")
    await wire.send_for_ever(b"K", pause_s=0.02)


async def flood_headers(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\n")
    await wire.send_for_ever(b"X-More: " + b"a" * 1_000 + b"\r\n")


async def send_one_endless_header(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    await wire.send_for_ever(b"a" * 65_536)


async def flood_interim_answers(wire: Wire) -> None:
    await wire.send_for_ever(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


async def speak_no_http(wire: Wire) -> None:
    await wire.send(b"220 mail.example.com ESMTP\r\n")
    await asyncio.Event().wait()


async def say_nothing(wire: Wire) -> None:
    await asyncio.Event().wait()


async def flood_chunks(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await wire.send_for_ever(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")


async def break_off(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


Behaviour = Callable[[Wire], Awaitable[None]]


@asynccontextmanager
async def hostile(behave: Behaviour) -> AsyncIterator[tuple[int, list[Wire]]]:
    """Give the port of a receiver that does this to each connection, and the connections."""
    wires: list[Wire] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wires.append(Wire(writer))
        try:
            await reader.readuntil(b"\r\n\r\n")
            await behave(wires[-1])
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], wires
    finally:
        server.close()
        await server.wait_closed()


async def post(sender: Sender, url: str) -> Answer:
    return await sender.send(url, message_id="one", timestamp=1, body=b"{}", keys=[b"k" * 32])


@pytest.mark.parametrize(
    ("behave", "error"),
    [
        (drip_headers, "timeout"),
        (drip_the_status, "timeout"),
        (flood_headers, "bad_response"),
        (send_one_endless_header, "bad_response"),
        (flood_interim_answers, "timeout"),
        (speak_no_http, "bad_response"),
        (say_nothing, "timeout"),
        (flood_chunks, None),
        (break_off, None),
    ],
    ids=lambda given: getattr(given, "__name__", str(given)),
)
async def test_what_is_no_answer_costs_the_timeout_and_little_memory(behave, error):
    async with (
        hostile(behave) as (port, wires),
        Sender(Guard(LOOPBACK), timeout_s=TIMEOUT_S) as sender,
    ):
        began = time.monotonic()
        answer = await post(sender, f"http://127.0.0.1:{port}/")
        took_s = time.monotonic() - began

    assert answer.error == error
    assert took_s < TIMEOUT_S + 0.5
    assert len(wires) == 1, "it is asked once an attempt"
    assert wires[0].sent_bytes < FLOOD_BYTES_MAX
    assert len(answer.text or "") <= 1_024


# TLS.


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder: Path = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)]
    subprocess.run([*command, "-out", str(cert)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


async def test_a_certificate_of_the_receivers_own_making_is_refused(self_signed):
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=self_signed)
    port = server.sockets[0].getsockname()[1]
    async with server, Sender(Guard(LOOPBACK), timeout_s=2.0) as sender:
        answer = await post(sender, f"https://localhost:{port}/")

    assert answer.error == "tls_failed"
    assert asked == [], "nothing of the event went out"


# Names.


class Rebinding(AbstractResolver):
    """Answers with the addresses of the moment; nothing is remembered."""

    def __init__(self, *ips: str) -> None:
        self.ips = ips

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=ip, port=port, family=socket.AF_INET, proto=0, flags=0
            )
            for ip in self.ips
        ]

    async def close(self) -> None:
        pass


@pytest.fixture
async def inside() -> AsyncIterator[tuple[Receivers, list[object]]]:
    """Give a receiver that may be reached, and who came to an address beside that may not."""
    came: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername"))
        writer.close()

    async with (
        Receivers() as allowed,
        await asyncio.start_server(serve, "127.0.0.2", allowed.port),
    ):
        yield allowed, came


async def test_a_name_that_turns_inwards_after_a_delivery_reaches_nobody(inside):
    allowed, came = inside
    names = Rebinding("127.0.0.1")
    async with Sender(
        Guard(parse_networks(["127.0.0.1/32"])), timeout_s=2.0, resolver=names
    ) as sender:
        assert (await post(sender, allowed.url(host="hook.test"))).is_taken
        names.ips = ("127.0.0.2",)
        # A new connection and a new look-up, as after the moment that both are kept for.
        await sender._plain.close()
        sender._plain = None

        assert (await post(sender, allowed.url(host="hook.test"))).error == "address_refused"
    assert (len(allowed.got), came) == (1, [])


async def test_of_several_addresses_only_an_allowed_one_is_connected_to(inside):
    allowed, came = inside
    names = Rebinding("127.0.0.2", "127.0.0.1")
    async with Sender(
        Guard(parse_networks(["127.0.0.1/32"])), timeout_s=2.0, resolver=names
    ) as sender:
        answer = await post(sender, allowed.url(host="hook.test"))

    assert answer.is_taken
    assert came == []
