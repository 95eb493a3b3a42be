"""Fetch one page from a host that somebody else named, and come back with a value.

Where a request goes is decided at the last moment: `TCPConnector` asks `socket_factory` for every
socket with the address it is about to connect to, so names, literals, `localhost`, a redirect and a
name that changed its answer all meet the same guard. TLS still checks the name. Everything has a
bound: hops, seconds, bytes after decompression, header lines.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from w3lib.encoding import html_to_unicode
from yarl import URL

from enrichd import __version__
from enrichd.domain.addresses import Network, is_public
from enrichd.guarded import guarded_sockets, is_refusal
from enrichd.providers.site_names import NameFailure, SiteNames
from enrichd.providers.site_outage import Outage

USER_AGENT: Final = f"enrichd/{__version__} (+https://github.com/enrichd/enrichd)"
BODY_BYTES_MAX: Final = 2_000_000
REDIRECTS_MAX: Final = 5
URL_CHARS_MAX: Final = 2_048
FETCH_S: Final = 10.0
CONNECT_S: Final = 5.0
HEADER_BYTES_MAX: Final = 8_190
"""Of one header line."""
HEADERS_MAX: Final = 100
PER_HOST: Final = 2
PORTS: Final = frozenset({80, 443, 8080, 8443})

HTML_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})


@dataclass(frozen=True, slots=True)
class Page:
    """A body that came with a 2xx status, as text."""

    url: str
    final_url: str
    status: int
    text: str
    content_type: str
    encoding: str


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """Why there is no page; `reason` is stable and in snake_case.

    `network_unreachable`, `dns_failed`, `dns_timeout`, `connect_refused`, `connect_failed`,
    `tls_failed`, `timeout`, `too_large`, `too_many_redirects`, `not_html`, `address_refused`,
    `robots_disallowed`, `bad_url`, `bad_response`, or `http_` and the status.
    """

    reason: str
    url: str
    status: int | None = None


MayFetch = Callable[[URL], Awaitable[bool]]


class WebFetcher:
    """One process's way to other people's websites.

    `allowed_networks` are let through the guard, `denied_networks` are not even if public.
    `nameservers` (`ip` or `ip:port`) or a whole `resolver` replace the system's DNS; `http_port`
    and `https_port` are where the two schemes' standard ports really are, for tests on loopback.
    """

    def __init__(
        self,
        *,
        user_agent: str = USER_AGENT,
        allowed_networks: Iterable[Network] = (),
        denied_networks: Iterable[Network] = (),
        nameservers: Sequence[str] = (),
        resolver: AbstractResolver | None = None,
        http_port: int = 80,
        https_port: int = 443,
        ssl_context: ssl.SSLContext | None = None,
        timeout_s: float = FETCH_S,
    ) -> None:
        self.user_agent = user_agent
        self._allowed = tuple(allowed_networks)
        self._denied = tuple(denied_networks)
        self._names = _Ports(resolver or SiteNames(nameservers), {80: http_port, 443: https_port})
        self._ssl_context = ssl_context
        self._timeout_s = timeout_s
        self._outage = Outage()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close what is connected; a later fetch would open anew."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch(
        self,
        url: str,
        *,
        types: frozenset[str] | None = HTML_TYPES,
        bytes_max: int = BODY_BYTES_MAX,
        may_fetch: MayFetch | None = None,
    ) -> Page | FetchFailure:
        """Return the page behind a URL and its redirects, or why there is none.

        `types` are the accepted content types, None for any. `may_fetch` is asked before each hop
        (robots.txt); its own time does not count towards this fetch's.
        """
        hop = _checked_url(url)
        left_s = self._timeout_s
        for _ in range(REDIRECTS_MAX + 1):
            if hop is None:
                return FetchFailure("bad_url", url)
            if hop.port not in PORTS:
                return FetchFailure("address_refused", url)
            if may_fetch is not None and not await may_fetch(hop):
                return FetchFailure("robots_disallowed", url)
            started = time.monotonic()
            answer = await self._hop(url, hop, types=types, bytes_max=bytes_max, timeout_s=left_s)
            if not isinstance(answer, str):
                return answer
            hop = _checked_url(answer, base=hop)
            left_s = max(0.05, left_s - (time.monotonic() - started))
        return FetchFailure("too_many_redirects", url)

    async def _hop(
        self,
        url: str,
        hop: URL,
        *,
        types: frozenset[str] | None,
        bytes_max: int,
        timeout_s: float,
    ) -> Page | FetchFailure | str:
        """Make one request: a page, a failure, or the text of a Location to follow."""
        assert hop.host is not None
        if self._outage.answers_at_once():
            return FetchFailure("network_unreachable", url)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._request(url, hop, types, bytes_max)
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            failure = FetchFailure(_reason(error), url)
            self._outage.note(hop.host, failure.reason)
            return failure
        self._outage.over()
        return answer

    async def _request(
        self, url: str, hop: URL, types: frozenset[str] | None, bytes_max: int
    ) -> Page | FetchFailure | str:
        async with self._open().get(hop, allow_redirects=False) as response:
            if response.status in {301, 302, 303, 307, 308} and "Location" in response.headers:
                response.close()
                return response.headers["Location"]
            if not 200 <= response.status < 300:
                response.close()
                return FetchFailure(f"http_{response.status}", url, response.status)
            declared = response.headers.get("Content-Type", "")
            content_type = declared.partition(";")[0].strip().lower()
            if types is not None and content_type and content_type not in types:
                response.close()
                return FetchFailure("not_html", url, response.status)
            body = await _read(response, bytes_max)
        if body is None:
            return FetchFailure("too_large", url, response.status)
        if types is not None and not content_type and body.lstrip()[:1] != b"<":
            return FetchFailure("not_html", url, response.status)
        encoding, text = html_to_unicode(declared or None, body, auto_detect_fun=_sniff)
        final_url = str(hop.with_fragment(None))
        return Page(url, final_url, response.status, text, content_type, encoding)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=self._names,
                socket_factory=guarded_sockets(self._may_connect),
                limit=128,
                limit_per_host=PER_HOST,
                ssl=self._ssl_context if self._ssl_context is not None else True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,  # A proxy would hide the address from the guard.
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                max_line_size=HEADER_BYTES_MAX,
                max_field_size=HEADER_BYTES_MAX,
                max_headers=HEADERS_MAX,
                headers={
                    "User-Agent": self.user_agent,
                    "Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1",
                    "Accept-Language": "en,*;q=0.5",
                    "Accept-Encoding": "gzip, deflate",
                },
            )
        return self._session

    def _may_connect(self, ip: str, port: int) -> bool:
        return is_public(ip, allowed_networks=self._allowed, denied_networks=self._denied)


class _Ports(AbstractResolver):
    """A resolver that also says on which port a scheme's standard port is to be found."""

    def __init__(self, names: AbstractResolver, ports: dict[int, int]) -> None:
        self._names = names
        self._ports = ports

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return await self._names.resolve(host, self._ports.get(port, port), family)

    async def close(self) -> None:
        await self._names.close()


def _checked_url(text: str, *, base: URL | None = None) -> URL | None:
    """Return an http or https URL without credentials, or None."""
    if len(text) > URL_CHARS_MAX:
        return None
    try:
        url = URL(text) if base is None else base.join(URL(text))
        usable = url.scheme in ("http", "https") and url.host and url.port
    except ValueError:
        return None
    if not usable or url.user is not None or url.password is not None:
        return None
    return url


async def _read(response: aiohttp.ClientResponse, bytes_max: int) -> bytes | None:
    """Return the decompressed body, or None as soon as it is too long."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > bytes_max:
            response.close()
            return None
    return bytes(body)


def _sniff(body: bytes) -> str:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _reason(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    match cause:
        case NameFailure():
            return cause.reason
        case _ if is_refusal(cause):
            return "address_refused"
        case ssl.SSLError() | ssl.CertificateError() | aiohttp.ClientSSLError():
            return "tls_failed"
        case _ if isinstance(error, aiohttp.ClientConnectorDNSError):
            return "dns_failed"
        case _ if isinstance(
            error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError
        ):
            return "tls_failed"
        case TimeoutError():
            return "timeout"
        case aiohttp.InvalidURL():
            return "bad_url"
        case OSError(errno=errno.ECONNREFUSED):
            return "connect_refused"
        case OSError(errno=errno.ENETUNREACH | errno.ENETDOWN):
            return "network_unreachable"
        case _ if isinstance(error, aiohttp.ClientConnectorError):
            return "connect_failed"
        case _:
            return "bad_response"
