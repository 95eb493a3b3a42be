"""The nameservers themselves: how one is asked, why none answered, when to stop asking."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import time
from typing import Any

import dns.asyncquery
import dns.message
import dns.nameserver
import dns.resolver

FAILURES_UNTIL_OPEN = 3
CLOSED_S = 15.0

# The network's trouble, as opposed to an answer nobody likes: only this opens the circuit.
UNREACHED = frozenset(
    {"dns_timeout", "dns_connection_refused", "network_unreachable", "no_resolver"}
)
NAMESERVER = re.compile(
    r"\[(?P<v6>[0-9a-fA-F:.]+)\](?::(?P<port6>\d{1,5}))?"
    r"|(?P<v4>[0-9.]+)(?::(?P<port4>\d{1,5}))?"
    r"|(?P<bare6>[0-9a-fA-F:.]+)"
)
NO_ROUTE = frozenset(
    {
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EPERM,
        errno.EACCES,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
    }
)


class ConnectedNameserver(dns.nameserver.Do53Nameserver):
    """A nameserver asked over a connected UDP socket.

    Only a connected socket is told that nobody listens or that there is no route; dnspython's own
    waits for its timeout instead.
    """

    async def async_query(
        self,
        request: dns.message.QueryMessage,
        timeout: float,  # noqa: ASYNC109 - the signature is dnspython's
        source: str | None,
        source_port: int,
        max_size: bool,
        backend: Any,
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> dns.message.Message:
        if max_size:
            return await super().async_query(
                request, timeout, source, source_port, max_size, backend
            )
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        sock = await backend.make_socket(
            family, socket.SOCK_DGRAM, 0, None, (self.address, self.port)
        )
        async with sock:
            return await dns.asyncquery.udp(
                request,
                self.address,
                timeout=timeout,
                port=self.port,
                sock=sock,
                raise_on_truncation=True,
                ignore_errors=True,
                ignore_unexpected=True,
            )


def read_nameserver(text: str) -> ConnectedNameserver:
    """Read `ip`, `ip:port` or `[ipv6]:port`; raise ValueError for anything else."""
    if (match := NAMESERVER.fullmatch(text)) is None:
        raise ValueError(f"nameserver {text!r}: must be an IP address, or ip:port")
    port = int(match["port6"] or match["port4"] or 53)
    try:
        address = str(ipaddress.ip_address(match["v6"] or match["v4"] or match["bare6"]))
    except ValueError:
        raise ValueError(f"nameserver {text!r}: must be an IP address, or ip:port") from None
    if not 0 < port < 65_536:
        raise ValueError(f"nameserver {text!r}: the port must be 1 to 65535")
    return ConnectedNameserver(address, port)


def reason_of(error: dns.resolver.NoNameservers | dns.resolver.LifetimeTimeout) -> str:
    """Name why no nameserver gave an answer; what a server said outranks what the network did."""
    causes = [cause for _, _, _, cause, _ in error.kwargs.get("errors", ())]
    said = {cause for cause in causes if isinstance(cause, str)}
    if said:
        return (
            "dns_servfail"
            if "SERVFAIL" in said
            else "dns_refused"
            if "REFUSED" in said
            else "dns_failed"
        )
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return "dns_timeout"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "dns_connection_refused"
    if any(isinstance(cause, OSError) and cause.errno in NO_ROUTE for cause in causes):
        return "network_unreachable"
    return "dns_garbled"


class Circuit:
    """Whether asking makes sense: it does not for a while after every nameserver was silent."""

    def __init__(self) -> None:
        self._failures = 0
        self._reason = ""
        self._open_until = 0.0
        self.is_probing = False

    def refuses(self) -> str | None:
        """Return the reason if a lookup should not even be tried; lets one through now and then."""
        if self._failures < FAILURES_UNTIL_OPEN:
            return None
        if self.is_probing or time.monotonic() < self._open_until:
            return self._reason
        self.is_probing = True
        return None

    def abandon(self) -> None:
        """Take in that a lookup was cancelled, which says nothing about the network."""
        self.is_probing = False

    def note(self, reason: str | None) -> None:
        """Take in how a lookup ended; any answer of a server, also SERVFAIL, proves the network."""
        self.is_probing = False
        if reason not in UNREACHED:
            self._failures = 0
            return
        self._failures += 1
        self._reason = str(reason)
        self._open_until = time.monotonic() + CLOSED_S
