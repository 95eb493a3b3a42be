"""DNS for the website reader: from a host name to the addresses aiohttp may try.

Asked over dnspython and not the C library, because the library answers `try again` alike for a
domain whose nameservers are broken and for a machine without a network, and occupies a thread while
it waits. A failure carries its reason, so that `web.py` can tell one from the other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
from aiohttp.abc import AbstractResolver, ResolveResult

from enrichd.providers.nameservers import ConnectedNameserver, read_nameserver

LOOKUP_S = 4.0
ADDRESSES_MAX = 8
"""Tried for one host, of each family."""


class NameFailure(OSError):
    """A host without an address.

    `reason` is `dns_failed`, `dns_timeout` or `network_unreachable`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SiteNames(AbstractResolver):
    """Resolve hosts over the system's nameservers, or over given ones (`ip` or `ip:port`)."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        self._nameservers = [read_nameserver(text) for text in nameservers]
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return a host's addresses, IPv4 first; raise NameFailure."""
        answers = await asyncio.gather(self._ask(host, "A"), self._ask(host, "AAAA"))
        addresses = [ip for answer in answers if not isinstance(answer, str) for ip in answer]
        if not addresses:
            reasons = [answer for answer in answers if isinstance(answer, str)]
            # Of two different troubles the one that says more about the network.
            raise NameFailure(max(reasons, key=_WEIGHT.index, default="dns_failed"))
        return [
            ResolveResult(
                hostname=host,
                host=ip,
                port=port,
                family=socket.AF_INET6 if ":" in ip else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for ip in addresses
        ]

    async def close(self) -> None:
        """Release nothing: every lookup has its own socket."""

    async def _ask(self, host: str, rdtype: str) -> list[str] | str:
        try:
            self._resolver = self._resolver or self._configure()
            answer = await self._resolver.resolve(
                host, rdtype, search=False, lifetime=LOOKUP_S, raise_on_no_answer=False
            )
        except dns.resolver.NoNameservers as error:
            return _no_nameserver(error)
        except dns.exception.Timeout:
            return "dns_timeout"
        except (dns.resolver.NoResolverConfiguration, OSError):
            return "network_unreachable"
        except dns.exception.DNSException:
            return "dns_failed"
        return [record.to_text() for record in answer][:ADDRESSES_MAX] if answer.rrset else []

    def _configure(self) -> dns.asyncresolver.Resolver:
        resolver = dns.asyncresolver.Resolver(configure=not self._nameservers)
        # Connected ones, which say at once that nobody listens; dnspython's own wait in silence.
        resolver.nameservers = self._nameservers or [
            ConnectedNameserver(server, 53)
            for server in resolver.nameservers
            if isinstance(server, str)
        ]
        resolver.timeout = LOOKUP_S / 2
        return resolver


_WEIGHT = ("dns_failed", "dns_timeout", "network_unreachable")


def _no_nameserver(error: dns.resolver.NoNameservers) -> str:
    # A response (SERVFAIL, REFUSED) is the fifth part of each entry: some nameserver did answer.
    attempts = error.kwargs.get("errors") or ()
    answered = any(attempt[4] is not None for attempt in attempts)
    return "dns_failed" if answered or not attempts else "network_unreachable"
