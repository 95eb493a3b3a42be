"""Which network addresses a request on behalf of a user may go to.

A company's website, a redirect or a webhook's URL can name any host, so the decision is made on
the address the socket is about to connect to. Only globally routed unicast passes; every form that
wraps another address (IPv4-mapped, NAT64, 6to4, Teredo) is refused, whatever is inside. Operators
widen and narrow this with their own networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# `is_global` alone lets these through, on some or all Python versions: 3.11 says yes to 192.0.0.8,
# and every version up to 3.13 says yes to the 6to4 relay anycast. 168.63.129.16 is routed as a
# public address but is Azure's host agent, which hands out a virtual machine's secrets.
_NEVER_PUBLIC_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "168.63.129.16/32",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
    )
)

# All public IPv6 is inside 2000::/3, which already leaves out ::/96, mapped addresses, NAT64
# (64:ff9b::/96 and 64:ff9b:1::/48), 100::/64, 5f00::/16, fc00::/7, fe80::/10, fec0::/10 and
# ff00::/8 without asking the Python version. What stays to be refused inside of it:
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
_NEVER_PUBLIC_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)


def is_public(
    ip: str | Address,
    *,
    allowed_networks: Iterable[Network] = (),
    denied_networks: Iterable[Network] = (),
) -> bool:
    """Say whether a connection to this address is allowed; text that is no address is not.

    An operator's allowed networks win over everything, its denied networks over the rest. Neither
    looks inside a wrapped address: an allowed `10.0.0.0/8` does not let `::ffff:10.0.0.1` through.
    """
    try:
        address = ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False
    if any(address in network for network in allowed_networks):
        return True
    if any(address in network for network in denied_networks):
        return False
    if isinstance(address, IPv4Address):
        if any(address in network for network in _NEVER_PUBLIC_V4):
            return False
    elif address not in _GLOBAL_UNICAST_V6 or any(
        address in network for network in _NEVER_PUBLIC_V6
    ):
        return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Read CIDRs (host bits allowed) and single addresses; raise ValueError for anything else."""
    return tuple(ip_network(text.strip(), strict=False) for text in texts)
