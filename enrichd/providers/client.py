"""One process's connections to data providers, and what their HTTP answers mean.

Everything is opened at its first use: a process that never asks anybody never pays for a TLS
context. A provider's troubles become the classes of ProviderError here, so that an adapter reads
only answers that are worth reading.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from enrichd import __version__
from enrichd.domain.facts import Json
from enrichd.errors import ProviderDenied, ProviderDown, ProviderGarbled, ProviderRejected
from enrichd.providers.dns import Resolver
from enrichd.providers.hostile_json import read_json
from enrichd.providers.http_transport import AiohttpTransport
from enrichd.providers.smtp_probe import SmtpProber
from enrichd.providers.web import WebFetcher
from enrichd.settings.providers import ProviderSettings

BODY_BYTES_MAX = 5_000_000
CALL_S = 30.0
CONNECT_S = 5.0
CONNECTIONS_MAX = 200
RETRY_AFTER_S_DEFAULT = 60.0
RETRY_AFTER_S_MAX = 6 * 3600.0
SHOWN_CHARS = 200


def common_limits(provider_id: str) -> ProviderSettings:
    """Return the settings of a provider for which nothing was set."""
    return ProviderSettings(
        id=provider_id,
        rate_limit_per_second=10,
        rate_limit_per_minute=100,
        rate_limit_per_hour=1000,
    )


class Connections:
    """The network parts that a process's adapters share."""

    def __init__(
        self,
        *,
        resolver: Resolver,
        fetcher: WebFetcher,
        prober: SmtpProber | None = None,
        settings_of: Callable[[str], ProviderSettings] = common_limits,
    ) -> None:
        self.resolver = resolver
        self.fetcher = fetcher
        self.prober = prober
        """None: nobody asked for SMTP probes, the default."""
        self.settings_of = settings_of
        """What was set for a provider or a single source (`gravatar`), by its id."""
        self._http: httpx.AsyncClient | None = None

    @property
    def is_open(self) -> bool:
        """True once somebody needed the client."""
        return self._http is not None

    @property
    def http(self) -> httpx.AsyncClient:
        """The client for providers' APIs; opened now if nobody needed it before."""
        if self._http is None:
            self._http = httpx.AsyncClient(
                headers={"User-Agent": f"enrichd/{__version__}"},
                timeout=httpx.Timeout(CALL_S, connect=CONNECT_S),
                transport=AiohttpTransport(
                    connect_s=CONNECT_S, answer_s=CALL_S, connections_max=CONNECTIONS_MAX
                ),
            )
        return self._http

    async def aclose(self) -> None:
        """Close what was opened."""
        client, self._http = self._http, None
        if client is not None:
            await client.aclose()
        await self.fetcher.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's whole answer, its body within bounds."""

    provider: str
    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> Json:
        """Return the body as JSON. Raises ProviderGarbled for anything else.

        A lone surrogate, a NaN or a number of 5,000 digits somewhere in it is mended: one person's
        name must not cost the 99 others of the same answer.
        """
        try:
            return read_json(self.body)
        except ValueError as error:
            raise ProviderGarbled(
                f"{self.provider} answered {self.status} with what is no JSON: {self.shown()!r}",
                provider=self.provider,
            ) from error

    def shown(self) -> str:
        """Return the beginning of the body, fit for a message."""
        text = self.body[:SHOWN_CHARS].decode("utf-8", "replace")
        return "".join(char if char.isprintable() else " " for char in text)


async def send(
    client: httpx.AsyncClient, method: str, url: str, *, provider: str, **options: Any
) -> Answer:
    """Put one request and return the answer, whatever its status.

    `options` are those of `httpx.AsyncClient.stream`. Raises ProviderDown when nobody answers in
    time or hangs up half-way, ProviderGarbled when the body cannot be decoded or is larger than
    BODY_BYTES_MAX, ProviderDenied for headers that cannot be sent (a key with a line break in it),
    ProviderRejected for another question that cannot.
    """
    for name, value in (options.get("headers") or {}).items():
        if not (value.isascii() and value.isprintable()):
            # httpx would say so too, and show the key.
            raise ProviderDenied(
                f"{provider} cannot be asked: the header {name} holds what no header may; look at"
                " its key",
                provider=provider,
            )
    try:
        async with (
            asyncio.timeout(CALL_S),
            client.stream(method, url, follow_redirects=False, **options) as response,
        ):
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise ProviderGarbled(
                        f"{provider} answered more than {BODY_BYTES_MAX} bytes", provider=provider
                    )
            return Answer(provider, response.status_code, response.headers, bytes(body))
    except (TimeoutError, httpx.TimeoutException) as error:
        raise ProviderDown(f"{provider} did not answer in time", provider=provider) from error
    except httpx.DecodingError as error:
        raise ProviderGarbled(
            f"{provider} answered what cannot be read: {error}", provider=provider
        ) from error
    except (UnicodeError, httpx.InvalidURL, httpx.LocalProtocolError):
        # Their texts show the request, which has people and keys in it.
        problem = f"the question to {provider} cannot be sent as it is"
        raise ProviderRejected(problem, provider=provider) from None
    except httpx.TransportError as error:
        raise ProviderDown(f"{provider} cannot be reached: {error}", provider=provider) from error


def retry_after_s(
    headers: Mapping[str, str], *, otherwise_s: float = RETRY_AFTER_S_DEFAULT
) -> float:
    """Return the seconds of `Retry-After`, a number or a date; at least 1, at most six hours.

    A date is measured against the answer's own `Date`, so that a wrong clock here does no harm.
    """
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        until = _date(text)
        since = _date(headers.get("date", "")) or datetime.now(UTC)  # noqa: TID251 - theirs, not due
        seconds = (until - since).total_seconds() if until else otherwise_s
    if not math.isfinite(seconds):
        seconds = otherwise_s
    return min(max(seconds, 1.0), RETRY_AFTER_S_MAX)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
