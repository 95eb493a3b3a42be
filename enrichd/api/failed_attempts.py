"""How often an address may show a key that is not good."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from enrichd.domain.recent import Recent

BURST: Final = 20
PER_SECOND: Final = 0.5
ADDRESSES_MAX: Final = 10_000
LOG_PAUSE_S: Final = 60.0


@dataclass(slots=True)
class Tally:
    """What an address has left, and when that was so."""

    left: float
    at: float
    logged_at: float = -LOG_PAUSE_S


class FailedAttempts:
    """Failures by address: 20 at once, then one every two seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tallies: Recent[str, Tally] = Recent(ADDRESSES_MAX)

    def wait_s(self, client: str) -> float:
        """Return the seconds until an address may try again; 0.0 is now."""
        tally = self._tallies.get(network_of(client))
        if tally is None:
            return 0.0
        left = tally.left + (self._clock() - tally.at) * PER_SECOND
        return max((1.0 - left) / PER_SECOND, 0.0)

    def add(self, client: str) -> bool:
        """Count a failure; True if it is the first in a while and worth a line in the log."""
        now, network = self._clock(), network_of(client)
        tally = self._tallies.get(network) or Tally(float(BURST), now, now - LOG_PAUSE_S)
        tally.left = min(tally.left + (now - tally.at) * PER_SECOND, float(BURST)) - 1.0
        tally.at = now
        is_first = now - tally.logged_at >= LOG_PAUSE_S
        if is_first:
            tally.logged_at = now
        self._tallies.put(network, tally)
        return is_first


def network_of(client: str) -> str:
    """Return what one caller has of addresses: an IPv4 address, the first half of an IPv6 one."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client[:100]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)
