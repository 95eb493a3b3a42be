"""Where a webhook may go: the URL when it is given, the address at each connection.

Public addresses are reached over https on the usual ports. Networks that the operator allows
(WEBHOOK_ALLOWED_NETWORKS, for receivers inside) may have any port and plain http.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from yarl import URL

from enrichd.domain.addresses import Network, is_public
from enrichd.errors import FieldProblem, Invalid

URL_CHARS_MAX: Final = 2_048
PORTS: Final = frozenset({443, 8443})
RESOLVE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that can be posted to, as far as its text shows."""

    url: URL

    @property
    def is_plain(self) -> bool:
        """Say whether it is http, which only allowed networks may use."""
        return self.url.scheme == "http"


@dataclass(frozen=True, slots=True)
class Guard:
    """Which addresses and ports webhooks may connect to."""

    allowed_networks: tuple[Network, ...] = ()
    own_ports: frozenset[int] = frozenset()
    """Ports of this installation's gateway: an allowed loopback does not open them."""
    own_host: str | None = None
    """The name under which the gateway is reached from outside."""

    def is_own(self, target: Target) -> bool:
        """Say whether a webhook would come back to this installation."""
        host = target.url.host
        return host is not None and host.rstrip(".").casefold() == self.own_host

    def allows(self, ip: str, port: int) -> bool:
        """Say whether https may connect there."""
        if self.allows_plain(ip, port):
            return True
        return port in PORTS and is_public(ip)

    def allows_plain(self, ip: str, port: int) -> bool:
        """Say whether the address is in an allowed network, where anything may."""
        try:
            address = ip_address(ip)
        except ValueError:
            return False
        if address.is_loopback and port in self.own_ports:
            return False
        return any(address in network for network in self.allowed_networks)


def read_target(text: str) -> Target | str:
    """Return the target a URL names, or what is wrong with the URL in a few words."""
    if len(text) > URL_CHARS_MAX:
        return f"it has more than {URL_CHARS_MAX} characters"
    if any(ord(char) < 0x21 or 0x7F <= ord(char) <= 0x9F for char in text):
        return "it holds a space or a control character"
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        return "it is not a URL"
    if url.scheme not in ("https", "http"):
        return "it must begin with https://"
    if not host or not port:
        return "it names no host"
    if url.user is not None or url.password is not None:
        return "it must not hold a user name or password"
    return Target(url.with_fragment(None))


def check_url(text: str, guard: Guard, *, field: str = "url") -> None:
    """Raise Invalid unless a webhook could go to this URL, as far as its text shows."""
    problem = url_problem(text, guard)
    if problem is not None:
        raise Invalid(
            f"the URL cannot receive webhooks: {problem}", fields=[FieldProblem(field, problem)]
        )


def url_problem(text: str, guard: Guard) -> str | None:
    """Return what keeps a URL from receiving webhooks, None if its text shows nothing."""
    target = read_target(text)
    if isinstance(target, str):
        return target
    host, port = target.url.host, target.url.port
    assert host is not None
    assert port is not None
    if guard.is_own(target):
        return "it is enrichd's own address"
    if not guard.allowed_networks:
        if target.is_plain:
            return "it must begin with https://"
        if port not in PORTS:
            return f"its port is {port}; {' and '.join(map(str, sorted(PORTS)))} are allowed"
    try:
        ip_address(host)
    except ValueError:
        return None
    return addresses_problem([host], target, guard)


async def check_reachable(text: str, guard: Guard, *, field: str = "url") -> None:
    """Do the same and look the host up: a name that leads inside is refused at once.

    A name that cannot be looked up now is let through; each connection is checked anyway.
    """
    check_url(text, guard, field=field)
    target = read_target(text)
    assert isinstance(target, Target)
    host = target.url.host
    assert host is not None
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, target.url.port, type=socket.SOCK_STREAM
            )
    except (OSError, TimeoutError, UnicodeError):
        return
    problem = addresses_problem([str(one[4][0]) for one in found], target, guard)
    if problem is not None:
        raise Invalid(
            f"the URL cannot receive webhooks: {problem}", fields=[FieldProblem(field, problem)]
        )


def addresses_problem(ips: Iterable[str], target: Target, guard: Guard) -> str | None:
    """Return what is wrong with a host's addresses, None if one of them may be connected to."""
    port = target.url.port
    assert port is not None
    allows = guard.allows_plain if target.is_plain else guard.allows
    if any(allows(ip, port) for ip in ips):
        return None
    if target.is_plain:
        return "plain http is for the networks in WEBHOOK_ALLOWED_NETWORKS alone"
    return "its address and port are not ones that webhooks may go to"
