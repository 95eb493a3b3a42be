"""DNS as enrichd needs it: where a domain takes its mail, which public addresses a host has.

One `Resolver` lives as long as its process. It keeps answers in memory, asks about a domain once
however many leads want to know at the same time, and stops asking for a while when no nameserver
can be reached at all. A domain is called undeliverable only when DNS said so; every trouble on the
way is `found=None` with its reason.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdata
import dns.resolver
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.TXT import TXT

from enrichd.domain.email_verdicts import MailHosts, MxRecord
from enrichd.providers.kept_answers import KeptAnswers
from enrichd.providers.nameservers import (
    Circuit,
    ConnectedNameserver,
    read_nameserver,
    reason_of,
)

KEEP_S_MIN, KEEP_S_MAX = 60.0, 3600.0
KEEP_TROUBLE_S = 15.0
KEPT_MAX = 20_000
"""Answers in memory, about 600 bytes each; the longest unused one goes first."""
LOOKUPS_AT_ONCE = 64
"""Each holds one socket. A usual descriptor limit is 1024."""
MX_RECORDS_MAX = 20
NAT64 = ipaddress.ip_network("64:ff9b::/32")
# Private for IANA; `is_global` of older Python 3.11 thinks otherwise.
PROTOCOL_ASSIGNMENTS = ipaddress.ip_network("192.0.0.0/24")


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """The globally routable addresses of a host, IPv4 first."""

    found: tuple[str, ...]
    reason: str | None = None
    """Why there are none: `host_not_found`, `address_not_public`, or the trouble on the way."""


class _Trouble(Exception):
    """A question without an answer, and the reason it gets."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _NotThere(Exception):
    """The name does not exist; `ttl_s` is how long that holds."""

    def __init__(self, ttl_s: float) -> None:
        super().__init__()
        self.ttl_s = ttl_s


class Resolver:
    """Looks names up for one process and one event loop.

    `nameservers` are `"ip"`, `"ip:port"` or `"[ipv6]:port"`; none means those of /etc/resolv.conf.
    `timeout_s` bounds one whole lookup, all its questions and nameservers together.
    """

    def __init__(self, nameservers: Sequence[str] = (), *, timeout_s: float = 5.0) -> None:
        self._nameservers = [read_nameserver(text) for text in nameservers]
        self._timeout_s = timeout_s
        self._stub: dns.asyncresolver.Resolver | None = None
        self._circuit = Circuit()
        self._room = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        self._mail_hosts: KeptAnswers[MailHosts] = KeptAnswers(kept_max=KEPT_MAX)
        self._addresses: KeptAnswers[HostAddresses] = KeptAnswers(kept_max=KEPT_MAX)

    async def mail_hosts(self, domain: str) -> MailHosts:
        """Return where a domain takes its mail; never raises for anything DNS does.

        MX records first; without any, the domain's own address (RFC 5321, 5.1), unless its SPF says
        that it has nothing to do with mail.
        """

        async def look_up() -> tuple[MailHosts, float]:
            async with self._room:
                try:
                    return await self._look_up_mail(domain)
                except _Trouble as trouble:
                    return MailHosts(found=None, reason=trouble.reason), KEEP_TROUBLE_S

        return await self._mail_hosts.get(domain.lower(), look_up)

    async def addresses(self, host: str) -> HostAddresses:
        """Return the public addresses of a host name, or of an address given as text."""

        async def look_up() -> tuple[HostAddresses, float]:
            async with self._room:
                try:
                    return await self._look_up_addresses(host)
                except _Trouble as trouble:
                    return HostAddresses((), trouble.reason), KEEP_TROUBLE_S

        return await self._addresses.get(host.lower(), look_up)

    async def _look_up_mail(self, domain: str) -> tuple[MailHosts, float]:
        name = _absolute(domain)
        if name is None:
            return MailHosts(found=False, reason="domain_invalid"), KEEP_S_MAX
        deadline = time.monotonic() + self._timeout_s
        try:
            answer, ttl_s = await self._ask(name, "MX", deadline)
        except _NotThere as gone:
            return MailHosts(found=False, reason="domain_not_found"), gone.ttl_s
        if answer:
            return _from_mx(answer), ttl_s
        return await self._fall_back(name, ttl_s, deadline)

    async def _fall_back(
        self, name: dns.name.Name, ttl_s: float, deadline: float
    ) -> tuple[MailHosts, float]:
        fallback: Literal["a", "aaaa"]
        (v4, v4_ttl_s), (v6, v6_ttl_s) = await self._both_families(name, deadline)
        ttl_s = min(ttl_s, v4_ttl_s, v6_ttl_s)
        if any(is_public_address(text) for text in v4):
            fallback = "a"
        elif any(is_public_address(text) for text in v6):
            fallback = "aaaa"
        else:
            reason = "address_not_public" if v4 or v6 else "no_mail_host"
            return MailHosts(found=False, reason=reason), ttl_s
        if await self._sends_no_mail(name, deadline):
            return MailHosts(found=False, reason="spf_refuses_all", fallback=fallback), ttl_s
        return MailHosts(found=True, fallback=fallback), ttl_s

    async def _sends_no_mail(self, name: dns.name.Name, deadline: float) -> bool:
        # A parked website publishes "v=spf1 -all" and often no null MX. Without the record, or
        # without an answer, nothing is known, and that must not cost the address its verdict.
        try:
            answer, _ = await self._ask(name, "TXT", deadline)
        except (_Trouble, _NotThere):
            return False
        texts = (b"".join(rdata.strings) for rdata in answer if isinstance(rdata, TXT))
        return any(text.lower().split() == [b"v=spf1", b"-all"] for text in texts)

    async def _look_up_addresses(self, host: str) -> tuple[HostAddresses, float]:
        if (literal := _as_address(host)) is not None:
            if is_public_address(literal):
                return HostAddresses((literal,)), KEEP_S_MAX
            return HostAddresses((), "address_not_public"), KEEP_S_MAX
        if (name := _absolute(host)) is None:
            return HostAddresses((), "host_not_found"), KEEP_S_MAX
        deadline = time.monotonic() + self._timeout_s
        (v4, v4_ttl_s), (v6, v6_ttl_s) = await self._both_families(name, deadline)
        public = tuple(text for text in (*v4, *v6) if is_public_address(text))
        reason = None if public else "address_not_public" if v4 or v6 else "host_not_found"
        return HostAddresses(public, reason), min(v4_ttl_s, v6_ttl_s)

    async def _both_families(
        self, name: dns.name.Name, deadline: float
    ) -> tuple[tuple[list[str], float], tuple[list[str], float]]:
        """Return the A and the AAAA records with their lifetimes.

        Raises _Trouble only if one of them failed and the other has nothing.
        """
        families = []
        troubles = []
        for rtype in ("A", "AAAA"):
            try:
                answer, ttl_s = await self._ask(name, rtype, deadline)
            except _NotThere as gone:
                answer, ttl_s = [], gone.ttl_s
            except _Trouble as trouble:
                answer, ttl_s = [], KEEP_TROUBLE_S
                troubles.append(trouble)
            families.append(([rdata.to_text() for rdata in answer], ttl_s))
        if troubles and not any(texts for texts, _ in families):
            raise troubles[0]
        return families[0], families[1]

    async def _ask(
        self, name: dns.name.Name, rtype: str, deadline: float
    ) -> tuple[list[dns.rdata.Rdata], float]:
        """Return the records of one type, possibly none, and how long they hold.

        Raises _NotThere for a name that does not exist and _Trouble for everything that is no
        answer.
        """
        if (reason := self._circuit.refuses()) is not None:
            raise _Trouble(reason)
        try:
            answer = await self._resolve(name, rtype, deadline - time.monotonic())
        except _Trouble as trouble:
            self._circuit.note(trouble.reason)
            raise
        except _NotThere:
            self._circuit.note(None)
            raise
        except asyncio.CancelledError:
            self._circuit.abandon()
            raise
        self._circuit.note(None)
        return list(answer.rrset or ()), _kept_for(answer.chaining_result.minimum_ttl)

    async def _resolve(
        self, name: dns.name.Name, rtype: str, lifetime_s: float
    ) -> dns.resolver.Answer:
        try:
            return await self._configured().resolve(
                name, rtype, raise_on_no_answer=False, lifetime=max(0.0, lifetime_s), search=False
            )
        except dns.resolver.NXDOMAIN as gone:
            raise _NotThere(_kept_for(_negative_ttl_s(gone, name))) from None
        except dns.resolver.NoResolverConfiguration:
            raise _Trouble("no_resolver") from None
        except (dns.resolver.NoNameservers, dns.resolver.LifetimeTimeout) as error:
            raise _Trouble(reason_of(error)) from None
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise _Trouble("dns_garbled") from error

    def _configured(self) -> dns.asyncresolver.Resolver:
        # The file is read again after an outage: a laptop that changed networks, a container whose
        # resolv.conf was written late.
        if self._stub is None or (not self._nameservers and self._circuit.is_probing):
            stub = dns.asyncresolver.Resolver(configure=not self._nameservers)
            if self._nameservers:
                stub.nameservers = self._nameservers
            else:
                stub.nameservers = [
                    ConnectedNameserver(server, 53)
                    for server in stub.nameservers
                    if isinstance(server, str)
                ]
            stub.cache = None
            stub.lifetime = self._timeout_s
            # Two nameservers, the first of them dead, must both get their turn.
            stub.timeout = self._timeout_s / 2.5
            self._stub = stub
        return self._stub


def is_public_address(text: str) -> bool:
    """Say whether an IP address is one of the open internet, by itself and by what it wraps."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        # Each of these forms carries an IPv4 address that a gateway may unwrap and deliver to.
        if address in NAT64 or address.sixtofour or address.teredo or address.ipv4_mapped:
            return False
        if address.is_site_local:
            return False
    elif address in PROTOCOL_ASSIGNMENTS:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _from_mx(answer: Sequence[dns.rdata.Rdata]) -> MailHosts:
    exchanges = sorted(
        (rdata.preference, rdata.exchange.to_text(omit_final_dot=True).lower())
        for rdata in answer
        if isinstance(rdata, MX)
    )
    named = [(preference, host) for preference, host in exchanges if host not in ("", ".")]
    if not named:
        return MailHosts(found=False, reason="null_mx", null_mx=True)
    # "localhost" and 10.0.0.1 are how people write "no mail here". A public address in an MX is
    # against the standard, and yet some senders deliver to it, so it stays.
    usable = [(preference, host) for preference, host in named if _may_be_reached(host)]
    if not usable:
        return MailHosts(found=False, reason="mx_unusable")
    records = tuple(MxRecord(host, preference) for preference, host in usable[:MX_RECORDS_MAX])
    return MailHosts(found=True, records=records)


def _may_be_reached(host: str) -> bool:
    if (literal := _as_address(host)) is not None:
        return is_public_address(literal)
    return host != "localhost" and not host.endswith((".localhost", ".local", ".invalid"))


def _as_address(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None


def _absolute(domain: str) -> dns.name.Name | None:
    try:
        name = dns.name.from_text(domain + ".", idna_codec=dns.name.IDNA_2008_UTS_46)
    except (dns.exception.DNSException, UnicodeError):
        return None
    return None if name == dns.name.root else name


def _kept_for(ttl_s: float) -> float:
    return min(max(float(ttl_s), KEEP_S_MIN), KEEP_S_MAX)


def _negative_ttl_s(gone: dns.resolver.NXDOMAIN, name: dns.name.Name) -> float:
    response = gone.kwargs["responses"].get(name)
    return float(response.resolve_chaining().minimum_ttl) if response else KEEP_S_MIN
