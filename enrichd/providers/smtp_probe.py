"""Ask a domain's mail server whether it would take mail for a mailbox, without sending any.

Off by default. Probing from the wrong place harms: port 25 is closed on most clouds, big providers
forbid it, and block lists answer it by listing the sender. So it is slow on purpose, never runs
from a shared address unless an operator says so, and whatever a server holds against *us* leaves
the address `unknown`.
"""

from __future__ import annotations

import asyncio
import errno
import math
import secrets
import socket
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import aiosmtplib

from enrichd.domain.addresses import is_public, parse_networks
from enrichd.domain.email_verdicts import MailHosts, SmtpCheck, SmtpClass
from enrichd.domain.emails import Address, mx_provider
from enrichd.providers.dns import Resolver
from enrichd.providers.smtp_replies import class_of, enhanced_code

HOSTS_TRIED_MAX = 2
ADDRESSES_TRIED_MAX = 2
CATCH_ALL_KEPT_S = 7 * 86_400.0
CATCH_ALL_KEPT_MAX = 10_000
ROOMS_KEPT_MAX = 1_000
# So many connections in a row that time out, and none made lately, are a closed port and not that
# many dead servers.
TIMEOUTS_UNTIL_PORT_BLOCKED = 3
PORT_BLOCKED_S = 300.0
CONNECTED_LATELY_S = 600.0
# A firewall that rejects, rather than drops, answers with one of these; a server never does.
FILTERED = frozenset({errno.EPERM, errno.EACCES, errno.ENETUNREACH, errno.EHOSTUNREACH})
NOT_ASKED = SmtpCheck(SmtpClass.NOT_ASKED, checked=False)

# Here a made-up mailbox is refused for certain, and asking for one looks like harvesting. Yahoo is
# not among them: it takes everybody first and bounces later, which the question reveals.
TRUTHFUL_GIANTS = frozenset(
    """
    gmail.com googlemail.com outlook.com hotmail.com hotmail.co.uk hotmail.fr hotmail.de hotmail.it
    hotmail.es live.com live.co.uk live.fr live.nl msn.com icloud.com me.com mac.com
    """.split()  # noqa: SIM905 - reads better as words
)


@dataclass(frozen=True, slots=True)
class SmtpProbe:
    """How to probe: who we say we are, and how much of it."""

    helo_name: str
    """The name that the sending address resolves back to; many servers check."""
    mail_from: str
    """A mailbox of ours that exists."""
    port: int = 25
    connect_timeout_s: float = 10.0
    command_timeout_s: float = 10.0
    session_timeout_s: float = 45.0
    """For everything about one address; slow servers hold back their greeting on purpose."""
    sessions_per_host: int = 2
    sessions_per_minute: int = 60
    sessions_per_day: int = 10_000
    wait_s_max: float = 30.0
    """How long a probe waits for its turn before it answers `notAsked`."""
    allowed_networks: tuple[str, ...] = ()
    """Networks that may be connected to although they are not public; for tests."""


class SmtpProber:
    """Probes for one process and one event loop, within the limits of its settings."""

    def __init__(self, settings: SmtpProbe, *, resolver: Resolver) -> None:
        self._settings = settings
        self._resolver = resolver
        self._allowed = parse_networks(settings.allowed_networks)
        self._pace = _Pace(settings.sessions_per_minute, settings.sessions_per_day)
        self._rooms: OrderedDict[str, asyncio.Semaphore] = OrderedDict()
        self._catch_all: OrderedDict[str, tuple[bool, float]] = OrderedDict()
        self._connect_timeouts = 0
        self._connected_at = -math.inf
        self._port_blocked_until = -math.inf

    async def check(self, address: Address, mx: MailHosts) -> SmtpCheck:
        """Ask the domain's best exchange about one mailbox. Never raises for what a server does."""
        hosts = [record.host for record in mx.records] or [address.ascii_domain]
        async with self._turn(hosts[0]) as is_our_turn:
            if self._known_catch_all(address.ascii_domain) is True:
                return replace(NOT_ASKED, is_catch_all=True)
            if time.monotonic() < self._port_blocked_until:
                return replace(NOT_ASKED, kind=SmtpClass.PORT_BLOCKED)
            if not is_our_turn:
                return NOT_ASKED
            try:
                async with asyncio.timeout(self._settings.session_timeout_s):
                    return await self._ask_first_that_answers(address, hosts[:HOSTS_TRIED_MAX])
            except TimeoutError:
                return SmtpCheck(SmtpClass.TEMPFAIL, checked=False)

    async def _ask_first_that_answers(self, address: Address, hosts: Sequence[str]) -> SmtpCheck:
        check = NOT_ASKED
        for host in hosts:
            for ip in await self._reachable(host):
                check = await self._session(address, ip)
                if check.connected or check.kind is SmtpClass.PORT_BLOCKED:
                    return check
        return check

    async def _reachable(self, host: str) -> Sequence[str]:
        addresses = await self._resolver.addresses(host)
        reachable = [ip for ip in addresses.found if is_public(ip, allowed_networks=self._allowed)]
        return reachable[:ADDRESSES_TRIED_MAX]

    async def _session(self, address: Address, ip: str) -> SmtpCheck:
        try:
            # To the address that was checked, not to the name: a second resolution could say
            # 127.0.0.1.
            sock = await _connect(ip, self._settings.port, self._settings.connect_timeout_s)
        except TimeoutError:
            return SmtpCheck(self._note_connect_timeout(), checked=False)
        except OSError as error:
            is_filtered = error.errno in FILTERED and not self._has_connected_lately()
            kind = SmtpClass.PORT_BLOCKED if is_filtered else SmtpClass.UNREACHABLE
            return SmtpCheck(kind, checked=False)
        self._connected_at, self._connect_timeouts = time.monotonic(), 0
        client = aiosmtplib.SMTP(
            sock=sock,
            local_hostname=self._settings.helo_name,
            timeout=self._settings.command_timeout_s,
            # A probe carries no message, and must not fail over somebody's certificate.
            start_tls=False,
        )
        try:
            return await self._dialogue(client, address)
        except (aiosmtplib.SMTPConnectResponseError, aiosmtplib.SMTPResponseException) as refusal:
            return _meaning(refusal.code, refusal.message, about_recipient=False)
        except (aiosmtplib.SMTPException, OSError, ValueError):
            # Hung up, fell silent or spoke something else, after it had let us in.
            return SmtpCheck(SmtpClass.TEMPFAIL, checked=False, connected=True)
        finally:
            client.close()

    async def _dialogue(self, client: aiosmtplib.SMTP, address: Address) -> SmtpCheck:
        # Some servers hold their greeting back for half a minute, to see who cannot wait.
        await client.connect(timeout=self._settings.session_timeout_s)
        await client.ehlo()
        needs_utf8 = not address.local.isascii()
        if needs_utf8 and not client.supports_extension("smtputf8"):
            return SmtpCheck(SmtpClass.OTHER, checked=False, connected=True)
        await client.mail(self._settings.mail_from, options=["SMTPUTF8"] if needs_utf8 else [])

        domain = address.ascii_domain
        is_catch_all = False if domain in TRUTHFUL_GIANTS else self._known_catch_all(domain)
        if is_catch_all is None:
            made_up = await _rcpt(client, f"{secrets.token_hex(9)}@{domain}")
            if made_up.kind in (SmtpClass.BLOCKED, SmtpClass.NEEDS_PTR, SmtpClass.TEMPFAIL):
                # It would say the same about the real one, and remember us for asking twice.
                await _say_goodbye(client)
                return replace(made_up, checked=False)
            if made_up.kind in (SmtpClass.OK, SmtpClass.INVALID):
                is_catch_all = made_up.kind is SmtpClass.OK
                self._remember_catch_all(domain, is_catch_all)
        check = await _rcpt(client, address.wire)
        await _say_goodbye(client)
        return replace(check, is_catch_all=is_catch_all)

    @asynccontextmanager
    async def _turn(self, host: str) -> AsyncIterator[bool]:
        """Hold one of the exchange's few places; False if the limits leave no turn in time."""
        room = self._room(host)
        patience_s = self._settings.wait_s_max
        started = time.monotonic()
        try:
            async with asyncio.timeout(patience_s):
                await room.acquire()
        except TimeoutError:
            yield False
            return
        try:
            waited_s = time.monotonic() - started
            wait_s = self._pace.take(wait_s_max=patience_s - waited_s)
            if wait_s:
                await asyncio.sleep(wait_s)
            yield wait_s is not None
        finally:
            room.release()

    def _room(self, host: str) -> asyncio.Semaphore:
        # A big provider has one exchange a customer, and still counts us as one visitor.
        whose = mx_provider([host]) or host
        room = self._rooms.setdefault(whose, asyncio.Semaphore(self._settings.sessions_per_host))
        self._rooms.move_to_end(whose)
        if len(self._rooms) > ROOMS_KEPT_MAX:
            self._rooms.popitem(last=False)
        return room

    def _known_catch_all(self, domain: str) -> bool | None:
        kept = self._catch_all.get(domain)
        return kept[0] if kept is not None and kept[1] > time.monotonic() else None

    def _remember_catch_all(self, domain: str, is_catch_all: bool) -> None:
        self._catch_all[domain] = (is_catch_all, time.monotonic() + CATCH_ALL_KEPT_S)
        self._catch_all.move_to_end(domain)
        if len(self._catch_all) > CATCH_ALL_KEPT_MAX:
            self._catch_all.popitem(last=False)

    def _has_connected_lately(self) -> bool:
        return time.monotonic() - self._connected_at < CONNECTED_LATELY_S

    def _note_connect_timeout(self) -> SmtpClass:
        self._connect_timeouts += 1
        if self._has_connected_lately() or self._connect_timeouts < TIMEOUTS_UNTIL_PORT_BLOCKED:
            return SmtpClass.UNREACHABLE
        self._port_blocked_until = time.monotonic() + PORT_BLOCKED_S
        return SmtpClass.PORT_BLOCKED


class _Pace:
    """Sessions by the minute and by the day, counted from now backwards."""

    def __init__(self, per_minute: int, per_day: int) -> None:
        self._per_minute = per_minute
        self._per_day = per_day
        self._minute: deque[float] = deque()
        self._day_ends = 0.0
        self._today = 0

    def take(self, *, wait_s_max: float) -> float | None:
        """Reserve one session and return the seconds until it may start; None if none is left."""
        now = time.monotonic()
        if now >= self._day_ends:
            self._day_ends, self._today = now + 86_400.0, 0
        while self._minute and self._minute[0] <= now - 60.0:
            self._minute.popleft()
        wait_s = 0.0
        if len(self._minute) >= self._per_minute:
            wait_s = max(0.0, self._minute[-self._per_minute] + 60.0 - now)
        if self._today >= self._per_day or wait_s > wait_s_max:
            return None
        self._today += 1
        self._minute.append(now + wait_s)
        return wait_s


async def _connect(ip: str, port: int, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(sock, (ip, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _rcpt(client: aiosmtplib.SMTP, recipient: str) -> SmtpCheck:
    try:
        reply = await client.rcpt(recipient, encoding="utf-8")
    except aiosmtplib.SMTPRecipientRefused as refusal:
        return _meaning(refusal.code, refusal.message, about_recipient=True)
    return _meaning(reply.code, reply.message, about_recipient=True)


async def _say_goodbye(client: aiosmtplib.SMTP) -> None:
    try:
        await client.quit()
    except (aiosmtplib.SMTPException, OSError):
        return  # What was asked is answered; how they part does not matter.


def _meaning(code: int, message: str, *, about_recipient: bool) -> SmtpCheck:
    return SmtpCheck(
        class_of(code, message, about_recipient=about_recipient),
        checked=about_recipient,
        connected=True,
        code=code,
        enhanced_code=enhanced_code(message),
    )
