"""robots.txt: may this page be asked for, and how slowly."""

from __future__ import annotations

from typing import Final

from protego import Protego
from yarl import URL

from enrichd.providers.web import FetchFailure, WebFetcher

ROBOTS_BYTES_MAX: Final = 500_000
ORIGINS_MAX: Final = 8
AGENT: Final = "enrichd"


class Robots:
    """The robots.txt files of the hosts one reading of a site comes across."""

    def __init__(self, fetcher: WebFetcher) -> None:
        self._fetcher = fetcher
        self._by_origin: dict[str, Protego | FetchFailure | None] = {}

    async def trouble(self, origin: str) -> FetchFailure | None:
        """Return why a host's robots.txt could not be asked for at all: the host is not there."""
        rules = await self._rules(URL(origin))
        return rules if isinstance(rules, FetchFailure) else None

    async def allows(self, url: URL) -> bool:
        """Say whether a page may be fetched; no file means yes, a broken server means no."""
        if len(self._by_origin) >= ORIGINS_MAX and str(url.origin()) not in self._by_origin:
            return False
        rules = await self._rules(url)
        if isinstance(rules, FetchFailure):
            # RFC 9309: unreachable means disallowed. Without an answer there is no page either,
            # and the fetch itself says best why.
            return rules.status is None
        return rules is None or rules.can_fetch(str(url), AGENT)

    def delay_s(self, url: URL) -> float:
        """Return the seconds a host wants between two requests."""
        rules = self._by_origin.get(str(url.origin()))
        return float(rules.crawl_delay(AGENT) or 0) if isinstance(rules, Protego) else 0.0

    async def _rules(self, url: URL) -> Protego | FetchFailure | None:
        origin = str(url.origin())
        if origin not in self._by_origin:
            self._by_origin[origin] = await self._read(origin)
        return self._by_origin[origin]

    async def _read(self, origin: str) -> Protego | FetchFailure | None:
        answer = await self._fetcher.fetch(
            f"{origin}/robots.txt", types=None, bytes_max=ROBOTS_BYTES_MAX
        )
        if isinstance(answer, FetchFailure):
            status = answer.status or 0
            if 400 <= status < 500 or answer.reason in _NO_RULES:
                return None
            return answer
        # Many servers answer any path with their home page.
        if answer.content_type.endswith("html") or answer.text.lstrip()[:1] == "<":
            return None
        return Protego.parse(answer.text)


_NO_RULES: Final = frozenset({"too_large", "too_many_redirects", "bad_url", "address_refused"})
