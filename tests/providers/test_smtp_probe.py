"""`providers/smtp_probe.py` against a real SMTP server on loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from enrichd.domain.email_verdicts import MailHosts, MxRecord, SmtpCheck, SmtpClass
from enrichd.domain.emails import Address, parse_address
from enrichd.providers import smtp_probe
from enrichd.providers.dns import Resolver
from enrichd.providers.smtp_probe import SmtpProbe, SmtpProber
from tests.support.dns_server import DnsServer

NO_SUCH_USER = "550 5.1.1 User unknown"
MX = MailHosts(found=True, records=(MxRecord("mx.acme.example", 10),))
SETTINGS = SmtpProbe(
    helo_name="probe.enrichd.example",
    mail_from="verify@enrichd.example",
    connect_timeout_s=0.3,
    command_timeout_s=0.5,
    session_timeout_s=2.0,
    wait_s_max=1.0,
    allowed_networks=("127.0.0.0/8",),
)


class MailServer:
    """A server's mailboxes, and what it heard."""

    def __init__(self, rcpt: Callable[[str], str], mail: str = "250 OK") -> None:
        self.rcpt, self.mail = rcpt, mail
        self.port = 0
        self.helo: set[str] = set()
        self.senders: set[str] = set()
        self.recipients: list[str] = []
        self.open_now, self.open_most, self.sessions = 0, 0, 0

    async def handle_EHLO(
        self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.helo.add(hostname)
        return responses

    async def handle_MAIL(self, *seen: Any) -> str:
        self.senders.add(seen[3])
        seen[2].mail_from = seen[3]
        return self.mail

    async def handle_RCPT(self, *seen: Any) -> str:
        self.recipients.append(seen[3])
        return self.rcpt(seen[3])


@asynccontextmanager
async def a_mail_server(
    rcpt: Callable[[str], str], *, mail: str = "250 OK", utf8: bool = True
) -> AsyncIterator[MailServer]:
    handler = MailServer(rcpt, mail)

    class Counted(SMTP):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            handler.sessions += 1
            handler.open_now += 1
            handler.open_most = max(handler.open_most, handler.open_now)
            super().connection_made(transport)

        def connection_lost(self, error: Exception | None) -> None:
            handler.open_now -= 1
            super().connection_lost(error)

    server = await asyncio.get_running_loop().create_server(
        lambda: Counted(handler, enable_SMTPUTF8=utf8, hostname="mx.acme.example"), "127.0.0.1", 0
    )
    handler.port = server.sockets[0].getsockname()[1]
    async with server:
        yield handler


@asynccontextmanager
async def a_raw_server(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer({"mx.acme.example": {"A": ["127.0.0.1"]}}) as server:
        yield server


def a_prober(dns: DnsServer, port: int, **changes: Any) -> SmtpProber:
    return SmtpProber(
        replace(SETTINGS, port=port, **changes), resolver=Resolver([dns.address], timeout_s=1)
    )


def an_address(text: str) -> Address:
    address = parse_address(text)
    assert isinstance(address, Address)
    return address


ADA = an_address("ada@acme.example")


def only(*known: str) -> Callable[[str], str]:
    return lambda recipient: "250 OK" if recipient in known else NO_SUCH_USER


async def test_a_mailbox_that_exists_at_a_server_that_refuses_others_is_ok(dns):
    async with a_mail_server(only("ada@acme.example")) as server:
        check = await a_prober(dns, server.port).check(ADA, MX)

    assert check == SmtpCheck(SmtpClass.OK, connected=True, code=250, is_catch_all=False)
    assert server.helo == {"probe.enrichd.example"}
    assert server.senders == {"verify@enrichd.example"}
    made_up, asked = server.recipients
    assert made_up.endswith("@acme.example")
    assert len(made_up) > 20
    assert asked == "ada@acme.example"


async def test_a_mailbox_that_the_server_does_not_know_is_invalid(dns):
    async with a_mail_server(only()) as server:
        check = await a_prober(dns, server.port).check(ADA, MX)

    assert check == SmtpCheck(
        SmtpClass.INVALID, connected=True, code=550, enhanced_code="5.1.1", is_catch_all=False
    )


async def test_a_server_that_takes_everybody_is_asked_once_for_the_whole_domain(dns):
    async with a_mail_server(lambda _: "250 OK") as server:
        prober = a_prober(dns, server.port)
        first = await prober.check(ADA, MX)
        second = await prober.check(an_address("bob@acme.example"), MX)

    assert (first.kind, first.is_catch_all) == (SmtpClass.OK, True)
    assert (second.checked, second.is_catch_all) == (False, True)
    assert server.sessions == 1


async def test_the_made_up_recipient_is_not_repeated_for_a_truthful_domain(dns):
    async with a_mail_server(only("ada@acme.example", "bob@acme.example")) as server:
        prober = a_prober(dns, server.port)
        await prober.check(ADA, MX)
        await prober.check(an_address("bob@acme.example"), MX)

    assert len(server.recipients) == 3


async def test_the_giants_are_not_asked_for_made_up_people(dns):
    async with a_mail_server(lambda _: "250 OK") as server:
        check = await a_prober(dns, server.port).check(an_address("ada@gmail.com"), MX)

    assert check.is_catch_all is False
    assert server.recipients == ["ada@gmail.com"]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("552 5.2.2 mailbox full", SmtpClass.FULL_INBOX),
        ("550 5.2.1 account disabled", SmtpClass.DISABLED),
        ("550 5.7.1 blocked by Spamhaus", SmtpClass.BLOCKED),
        ("450 4.2.0 greylisted", SmtpClass.TEMPFAIL),
    ],
)
async def test_the_reply_about_the_mailbox_is_classified(dns, reply, kind):
    def rcpt(recipient: str) -> str:
        return reply if recipient == str(ADA) else NO_SUCH_USER

    async with a_mail_server(rcpt) as server:
        check = await a_prober(dns, server.port).check(ADA, MX)

    assert (check.kind, check.checked, check.is_catch_all) == (kind, True, False)


@pytest.mark.parametrize("reply", ["550 5.7.1 blocked by Spamhaus", "450 greylisted"])
async def test_a_server_that_turns_us_away_is_not_asked_a_second_time(dns, reply):
    async with a_mail_server(lambda _: reply) as server:
        check = await a_prober(dns, server.port).check(ADA, MX)

    assert check.kind in (SmtpClass.BLOCKED, SmtpClass.TEMPFAIL)
    assert (check.checked, check.connected, check.is_catch_all) == (False, True, None)
    assert len(server.recipients) == 1


async def test_a_refused_sender_says_nothing_about_the_recipient(dns):
    async with a_mail_server(only(), mail="550 5.1.1 sender user unknown") as server:
        check = await a_prober(dns, server.port).check(ADA, MX)

    assert (check.kind, check.checked, check.code) == (SmtpClass.OTHER, False, 550)
    assert server.recipients == []


async def test_a_unicode_mailbox_needs_a_server_that_can_read_it(dns):
    address = an_address("jürgen@acme.example")
    async with a_mail_server(only("jürgen@acme.example")) as server:
        assert (await a_prober(dns, server.port).check(address, MX)).kind is SmtpClass.OK
    async with a_mail_server(only("jürgen@acme.example"), utf8=False) as server:
        assert (await a_prober(dns, server.port).check(address, MX)).kind is SmtpClass.OTHER


async def test_a_banner_that_refuses_is_about_us(dns):
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 5.7.1 no reverse DNS for your address\r\n")
        await writer.drain()

    async with a_raw_server(refuse) as port:
        check = await a_prober(dns, port).check(ADA, MX)

    assert (check.kind, check.connected, check.code) == (SmtpClass.NEEDS_PTR, True, 554)


@pytest.mark.parametrize("greeting", [b"", b"hello there\r\n", b"220 " + b"x" * 200_000, b"220"])
async def test_a_server_that_hangs_up_or_babbles_leaves_it_open(dns, greeting):
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)

    async with a_raw_server(babble) as port:
        check = await a_prober(dns, port).check(ADA, MX)

    assert check.kind in (SmtpClass.TEMPFAIL, SmtpClass.OTHER)
    assert (check.checked, check.connected) == (False, True)


async def test_a_silent_server_costs_the_session_timeout_and_no_more(dns):
    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    started = time.monotonic()
    async with a_raw_server(say_nothing) as port:
        check = await a_prober(dns, port, session_timeout_s=0.2).check(ADA, MX)

    assert (check.kind, check.checked) == (SmtpClass.TEMPFAIL, False)
    assert time.monotonic() - started < 15


async def test_the_second_exchange_is_asked_when_the_first_is_down(dns):
    dns.zones["down.acme.example"] = {"A": ["127.0.0.2"]}
    mx = MailHosts(
        found=True, records=(MxRecord("down.acme.example", 5), MxRecord("mx.acme.example", 10))
    )
    async with a_mail_server(only("ada@acme.example")) as server:
        check = await a_prober(dns, server.port).check(ADA, mx)

    assert check.kind is SmtpClass.OK


async def test_a_domain_without_mx_is_asked_at_its_own_address(dns):
    dns.zones["acme.example"] = {"A": ["127.0.0.1"]}
    async with a_mail_server(only("ada@acme.example")) as server:
        check = await a_prober(dns, server.port).check(ADA, MailHosts(found=True, fallback="a"))

    assert check.kind is SmtpClass.OK


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.0.0.1", "169.254.169.254"])
async def test_an_exchange_at_a_private_address_is_never_connected_to(dns, ip):
    dns.zones["mx.acme.example"] = {"A": [ip]}
    async with a_mail_server(lambda _: "250 OK") as server:
        check = await a_prober(dns, server.port, allowed_networks=()).check(ADA, MX)

    assert check == SmtpCheck(SmtpClass.NOT_ASKED, checked=False)
    assert server.sessions == 0


async def test_a_port_that_swallows_every_connection_is_named_and_left_alone(dns):
    # A full accept queue drops SYNs, as a firewall does.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        crowd = [socket.socket() for _ in range(3)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        prober = a_prober(dns, port, connect_timeout_s=0.05)

        kinds = [(await prober.check(ADA, MX)).kind for _ in range(3)]
        started = time.monotonic()
        after = await asyncio.gather(*(prober.check(ADA, MX) for _ in range(1000)))
        for one in crowd:
            one.close()

    assert kinds == [SmtpClass.UNREACHABLE, SmtpClass.UNREACHABLE, SmtpClass.PORT_BLOCKED]
    assert {check.kind for check in after} == {SmtpClass.PORT_BLOCKED}
    assert time.monotonic() - started < 15


async def test_no_exchange_sees_more_than_two_of_us_at_once(dns):
    async with a_mail_server(lambda r: "250 OK" if r.startswith("p") else NO_SUCH_USER) as server:
        prober = a_prober(dns, server.port, wait_s_max=5.0)
        people = [an_address(f"p{i}@acme.example") for i in range(12)]

        checks = await asyncio.gather(*(prober.check(person, MX) for person in people))

    assert {check.kind for check in checks} == {SmtpClass.OK}
    assert server.open_most <= 2


async def test_past_the_minutes_share_nobody_is_asked(dns):
    async with a_mail_server(only("ada@acme.example")) as server:
        prober = a_prober(dns, server.port, sessions_per_minute=3)

        kinds = [(await prober.check(ADA, MX)).kind for _ in range(5)]

    assert kinds == [SmtpClass.OK] * 3 + [SmtpClass.NOT_ASKED] * 2


async def test_past_the_days_share_nobody_is_asked(dns):
    async with a_mail_server(only("ada@acme.example")) as server:
        prober = a_prober(dns, server.port, sessions_per_day=2)

        kinds = [(await prober.check(ADA, MX)).kind for _ in range(3)]

    assert kinds == [SmtpClass.OK] * 2 + [SmtpClass.NOT_ASKED]


def test_a_minutes_share_comes_back_after_a_minute(monkeypatch):
    pace = smtp_probe._Pace(per_minute=2, per_day=100)

    assert [pace.take(wait_s_max=90) for _ in range(2)] == [0.0, 0.0]
    third, fourth, fifth = (pace.take(wait_s_max=90) for _ in range(3))

    assert third is not None
    assert fourth is not None
    assert (round(third), round(fourth), fifth) == (60, 60, None)
