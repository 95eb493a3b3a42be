"""When a domain was registered and by whom, asked of its registry over RDAP.

IANA's bootstrap file (RFC 9224) says which server knows a top-level domain; it is kept for a day.
Registries are busy and strict: one that answers 429 is left alone for as long as it says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx

from enrichd.domain.facts import Fact, Facts, Json, Missing
from enrichd.domain.web_links import host_of, registrable_domain
from enrichd.providers.site_api import ApiAnswer, ask_json
from enrichd.providers.site_text import clean_text

BOOTSTRAP_URL: Final = "https://data.iana.org/rdap/dns.json"
BOOTSTRAP_KEEP_S: Final = 86_400.0
BOOTSTRAP_RETRY_S: Final = 60.0
BOOTSTRAP_BYTES_MAX: Final = 2_000_000
PAUSE_S: Final = 60.0
"""After a 429 that does not say how long."""
PAUSES_MAX: Final = 2_000
REDIRECTS_MAX: Final = 3
CONFIDENCE: Final = 0.95
FIELD: Final = "domainRegisteredAt"

_HEADERS: Final = {"Accept": "application/rdap+json, application/json;q=0.9"}
_EVENTS: Final = {
    "registration": FIELD,
    "expiration": "domainExpiresAt",
    "last changed": "domainChangedAt",
}


class Bootstrap:
    """One process's memory of which RDAP server knows which domains, and which want a pause.

    `base_url` stands for every domain's server, without IANA and without the demand for https: for
    tests, and for a registry's mirror inside.
    """

    def __init__(
        self,
        *,
        url: str = BOOTSTRAP_URL,
        base_url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._base_url = base_url
        self._clock = clock
        self._lock = asyncio.Lock()
        self._bases: dict[str, str] = {}
        self._reason: str | None = None
        self._fresh_until: float | None = None
        self._paused_until: dict[str, float] = {}

    @property
    def is_fixed(self) -> bool:
        """Whether all questions go to one server that the operator named."""
        return self._base_url is not None

    async def base_for(self, domain: str, client: httpx.AsyncClient) -> str | ApiAnswer:
        """Return the URL of the server for a domain, with its slash, or why there is none."""
        if self._base_url is not None:
            return self._base_url.rstrip("/") + "/"
        async with self._lock:
            if self._fresh_until is None or self._clock() >= self._fresh_until:
                await self._load(client)
        if not self._bases:
            return ApiAnswer(reason=self._reason or "garbled")
        labels = domain.split(".")
        for start in range(1, len(labels)):  # The longest suffix that is listed.
            base = self._bases.get(".".join(labels[start:]))
            if base is not None:
                return base
        return ApiAnswer(reason="tld_without_rdap")

    def pause(self, base: str, retry_after_s: float | None) -> None:
        """Leave a server alone for a while."""
        if len(self._paused_until) < PAUSES_MAX:
            self._paused_until[base] = self._clock() + (retry_after_s or PAUSE_S)

    def is_paused(self, base: str) -> bool:
        """Say whether a server still wants to be left alone."""
        return self._clock() < self._paused_until.get(base, 0.0)

    async def _load(self, client: httpx.AsyncClient) -> None:
        answer = await ask_json(client, self._url, bytes_max=BOOTSTRAP_BYTES_MAX)
        bases = dict(_services(answer.value)) if answer.reason is None else {}
        # An old list is better than none: registries seldom move.
        self._bases = bases or self._bases
        self._reason = answer.reason
        keep_s = BOOTSTRAP_KEEP_S if bases else BOOTSTRAP_RETRY_S
        self._fresh_until = self._clock() + keep_s


async def rdap_facts(domain: str, *, client: httpx.AsyncClient, bootstrap: Bootstrap) -> Facts:
    """Return when a domain was registered, changed and ends, and its registrar.

    A `Missing` for `domainRegisteredAt` says why not: a reason of `ApiAnswer`, `bad_domain`,
    `tld_without_rdap`, or `not_published` if the registry keeps the date to itself.
    """
    name = registrable_domain(domain, private_suffixes=False)
    if name is None:
        return _missing("bad_domain")
    base = await bootstrap.base_for(name, client)
    if isinstance(base, ApiAnswer):
        return _missing(base.reason or "garbled")
    if bootstrap.is_paused(base):
        return _missing("rate_limited")
    url = urljoin(base, f"domain/{name}")
    answer = await ask_json(client, url, headers=_HEADERS)
    for _ in range(REDIRECTS_MAX):
        if answer.location is None:
            break
        url = urljoin(url, answer.location)
        if not bootstrap.is_fixed and not _is_public_https(url):
            return _missing("redirected")
        answer = await ask_json(client, url, headers=_HEADERS)
    if answer.reason == "rate_limited":
        bootstrap.pause(base, answer.retry_after_s)
    if answer.reason is not None:
        return _missing(answer.reason)
    if not isinstance(answer.value, dict) or not _is_about(answer.value, name):
        return _missing("garbled")
    facts = tuple(_facts(answer.value, url))
    known = {fact.field for fact in facts}
    return Facts(facts, () if FIELD in known else _missing("not_published").missing)


def _missing(reason: str) -> Facts:
    return Facts((), (Missing("company", FIELD, reason),))


def _services(value: Json) -> Iterator[tuple[str, str]]:
    """Yield (suffix, base URL) of a bootstrap file; what has another shape is left out."""
    services = value.get("services") if isinstance(value, dict) else None
    for service in services if isinstance(services, list) else ():
        if not (isinstance(service, list) and len(service) >= 2):
            continue
        suffixes, urls = service[0], service[1]
        if not (isinstance(suffixes, list) and isinstance(urls, list)):
            continue
        base = next((url for url in urls if isinstance(url, str) and _is_public_https(url)), None)
        if base is not None:
            for suffix in suffixes:
                if isinstance(suffix, str):
                    yield suffix.lower().strip("."), base.rstrip("/") + "/"


def _is_public_https(url: str) -> bool:
    """Say whether a URL is https at a host with a name; addresses and `localhost` are not."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and parts.username is None and host_of(url) is not None
    except ValueError:
        return False


def _is_about(value: dict[str, Any], name: str) -> bool:
    said = value.get("ldhName")
    return not isinstance(said, str) or host_of(said) == name


def _facts(value: dict[str, Any], url: str) -> Iterator[Fact]:
    for event in _dicts(value.get("events")):
        action = event.get("eventAction")
        field = _EVENTS.get(action) if isinstance(action, str) else None
        moment = _moment(event.get("eventDate"))
        if field is not None and moment is not None:
            yield Fact("company", field, moment, CONFIDENCE, "rdap", url)
    for entity in _dicts(value.get("entities")):
        roles = entity.get("roles")
        if isinstance(roles, list) and "registrar" in roles:
            registrar = _vcard_name(entity.get("vcardArray"))
            if registrar is not None:
                yield Fact("company", "domainRegistrar", registrar, CONFIDENCE, "rdap", url)
                break


def _dicts(value: Json) -> list[dict[str, Any]]:
    items = value[:100] if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]


def _moment(value: Json) -> str | None:
    """Return a date of RFC 3339 in UTC, to the second."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment.year >= 1985 else None


def _vcard_name(card: Json) -> str | None:
    """Return the formatted name of a jCard: `["vcard", [["fn", {}, "text", "Acme"], …]]`."""
    if not (isinstance(card, list) and len(card) == 2 and isinstance(card[1], list)):
        return None
    for line in card[1][:50]:
        if isinstance(line, list) and len(line) >= 4 and line[0] == "fn":
            return clean_text(line[3], 200)
    return None
