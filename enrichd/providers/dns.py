"""DNS as enrichd needs it: where a domain takes its mail, which addresses a host has.

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
import dns.message
import dns.name
import dns.rdata
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.TXT import TXT

from enrichd.domain.addresses import is_public
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
PUBLIC_NAME = dns.name.from_text("a.root-servers.net.")


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """Where a host is. Connect only to what is `public`, unless an operator allowed the rest."""

    found: tuple[str, ...]
    """All its addresses, IPv4 first."""
    reason: str | None = None
    """Why there are none: `host_not_found`, or the trouble on the way."""

    @property
    def public(self) -> tuple[str, ...]:
        """The addresses of the open internet."""
        return tuple(address for address in self.found if is_public(address))


class _Trouble(Exception):
    """A question without an answer, and the reason it gets."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Reply:
    """What a nameserver said to one question."""

    records: tuple[dns.rdata.Rdata, ...]
    ttl_s: float
    exists: bool
    """False: NXDOMAIN. True without records: the name has none of this type."""
    is_vouched: bool
    """A no comes with the SOA of the zone that says so."""


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
        self._knows_public_names: KeptAnswers[bool] = KeptAnswers(kept_max=1)

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
        """Return the addresses of a host name, or of an address given as text."""

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
        reply = await self._ask(name, "MX", deadline)
        if reply.records:
            return _from_mx(reply.records), reply.ttl_s
        if reply.exists:
            hosts, ttl_s = await self._fall_back(name, reply.ttl_s, deadline)
        else:
            hosts, ttl_s = MailHosts(found=False, reason="domain_not_found"), reply.ttl_s
        if hosts.found is False and not reply.is_vouched and not await self._is_public(deadline):
            return MailHosts(found=None, reason="dns_not_public"), KEEP_TROUBLE_S
        return hosts, ttl_s

    async def _is_public(self, deadline: float) -> bool:
        """Say whether the nameserver knows the public internet at all.

        Behind some firewalls, and in containers, it says NXDOMAIN to everything but a few names.
        That must not turn every address in the world invalid. Such a no lacks the SOA that RFC 2308
        demands, but so does one from the cache of an honest dnsmasq: hence a second question, about
        a name that exists.
        """

        async def look_up() -> tuple[bool, float]:
            try:
                is_known = bool((await self._ask(PUBLIC_NAME, "A", deadline)).records)
            except _Trouble:
                is_known = False
            return is_known, KEEP_S_MAX if is_known else KEEP_TROUBLE_S

        return await self._knows_public_names.get("", look_up)

    async def _fall_back(
        self, name: dns.name.Name, ttl_s: float, deadline: float
    ) -> tuple[MailHosts, float]:
        v4, v6, addresses_ttl_s = await self._both_families(name, deadline)
        ttl_s = min(ttl_s, addresses_ttl_s)
        fallback: Literal["a", "aaaa"]
        if any(is_public(text) for text in v4):
            fallback = "a"
        elif any(is_public(text) for text in v6):
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
            reply = await self._ask(name, "TXT", deadline)
        except _Trouble:
            return False
        texts = (b"".join(rdata.strings) for rdata in reply.records if isinstance(rdata, TXT))
        return any(text.lower().split() == [b"v=spf1", b"-all"] for text in texts)

    async def _look_up_addresses(self, host: str) -> tuple[HostAddresses, float]:
        if (literal := _as_address(host)) is not None:
            return HostAddresses((literal,)), KEEP_S_MAX
        if (name := _absolute(host)) is None:
            return HostAddresses((), "host_not_found"), KEEP_S_MAX
        deadline = time.monotonic() + self._timeout_s
        v4, v6, ttl_s = await self._both_families(name, deadline)
        found = (*v4, *v6)
        return HostAddresses(found, None if found else "host_not_found"), ttl_s

    async def _both_families(
        self, name: dns.name.Name, deadline: float
    ) -> tuple[list[str], list[str], float]:
        """Return the texts of the A and of the AAAA records, and how long they hold.

        Raises _Trouble only if one question failed and the other found nothing.
        """
        found: list[list[str]] = []
        ttl_s, trouble = KEEP_S_MAX, None
        for rtype in ("A", "AAAA"):
            try:
                reply = await self._ask(name, rtype, deadline)
            except _Trouble as this:
                found.append([])
                ttl_s, trouble = KEEP_TROUBLE_S, this
            else:
                found.append([rdata.to_text() for rdata in reply.records])
                ttl_s = min(ttl_s, reply.ttl_s)
        v4, v6 = found
        if trouble is not None and not v4 and not v6:
            raise trouble
        return v4, v6, ttl_s

    async def _ask(self, name: dns.name.Name, rtype: str, deadline: float) -> _Reply:
        """Ask one question; raise _Trouble for everything that is no answer."""
        if (reason := self._circuit.refuses()) is not None:
            raise _Trouble(reason)
        try:
            reply = await self._resolve(name, rtype, deadline - time.monotonic())
        except _Trouble as trouble:
            self._circuit.note(trouble.reason)
            raise
        except asyncio.CancelledError:
            self._circuit.abandon()
            raise
        self._circuit.note(None)
        return reply

    async def _resolve(self, name: dns.name.Name, rtype: str, lifetime_s: float) -> _Reply:
        try:
            answer = await self._configured().resolve(
                name, rtype, raise_on_no_answer=False, lifetime=max(0.0, lifetime_s), search=False
            )
        except dns.resolver.NXDOMAIN as gone:
            return _negative(name, gone.kwargs["responses"][name], exists=False)
        except dns.resolver.NoResolverConfiguration:
            raise _Trouble("no_resolver") from None
        except (dns.resolver.NoNameservers, dns.resolver.LifetimeTimeout) as error:
            raise _Trouble(reason_of(error)) from None
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise _Trouble("dns_garbled") from error
        if answer.rrset is None:
            return _negative(name, answer.response, exists=True)
        ttl_s = _kept_for(answer.chaining_result.minimum_ttl)
        return _Reply(tuple(answer.rrset), ttl_s, exists=True, is_vouched=True)

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
        return is_public(literal)
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


def _negative(name: dns.name.Name, response: dns.message.QueryMessage, *, exists: bool) -> _Reply:
    chain = response.resolve_chaining()
    is_vouched = any(
        rrset.rdtype == dns.rdatatype.SOA
        and (name.is_subdomain(rrset.name) or chain.canonical_name.is_subdomain(rrset.name))
        for rrset in response.authority
    )
    ttl_s = _kept_for(chain.minimum_ttl) if is_vouched else KEEP_S_MIN
    return _Reply((), ttl_s, exists=exists, is_vouched=is_vouched)
