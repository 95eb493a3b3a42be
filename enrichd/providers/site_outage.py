"""The memory that there is no network at all, so that ten thousand leads end quickly."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from enrichd.domain.web_links import registrable_domain

OUTAGE_DOMAINS: Final = 3
OUTAGE_S: Final = 15.0

_NOTHING_REACHED: Final = frozenset({"network_unreachable", "dns_timeout"})
_SAYS_NOTHING: Final = frozenset({"address_refused", "bad_url", "timeout", "connect_failed"})


class Outage:
    """Counts failures to reach anything, in a row and of different domains.

    Different ones, because a single domain with broken nameservers fails in the same way. While
    an outage lasts, one request in `OUTAGE_S` seconds goes out to see whether it is over.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._domains: set[str] = set()
        self._next_probe_at = 0.0

    def answers_at_once(self) -> bool:
        """Say whether to fail without trying; the caller that gets False is the probe."""
        if len(self._domains) < OUTAGE_DOMAINS:
            return False
        if self._clock() < self._next_probe_at:
            return True
        self._next_probe_at = self._clock() + OUTAGE_S
        return False

    def note(self, host: str, reason: str) -> None:
        """Count a failure by its reason; one that somebody's answer caused ends the row."""
        if reason in _NOTHING_REACHED:
            if len(self._domains) < OUTAGE_DOMAINS:
                self._domains.add(registrable_domain(host) or host)
            self._next_probe_at = self._clock() + OUTAGE_S
        elif reason not in _SAYS_NOTHING:
            self.over()

    def over(self) -> None:
        """Note that somebody answered."""
        self._domains.clear()
