"""One signed POST to one receiver, and what came of it as a value.

Whatever a receiver does costs at most `timeout_s` and 64 KiB: names are looked up, connected to and
read within it, redirects are not followed, and what it answers is never decompressed.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver

from enrichd import __version__
from enrichd.guarded import MayConnect, guarded_sockets, is_refusal
from enrichd.webhooks.names import Names
from enrichd.webhooks.signing import signatures
from enrichd.webhooks.targets import Guard, Target, read_target

USER_AGENT: Final = f"enrichd/{__version__} (webhooks)"
TIMEOUT_S: Final = 15.0
CONNECT_S: Final = 10.0
ANSWER_S: Final = 5.0
"""For the body of an answer whose status is there: it changes nothing any more."""
MARGIN_S: Final = 0.05
ANSWER_BYTES_MAX: Final = 65_536
KEPT_BYTES: Final = 1_024
HEADER_BYTES_MAX: Final = 8_190
HEADERS_MAX: Final = 100
GONE: Final = 410


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt."""

    status: int | None
    text: str | None
    """The answer's first KiB without control characters."""
    latency_s: float
    error: str | None
    """Why it was not taken: `http_` and the status, `redirected`, `timeout`, `connect_refused`,
    `connect_failed`, `dns_failed`, `tls_failed`, `address_refused`, `bad_url`, `bad_response`."""
    retry_after_s: float | None = None

    @property
    def is_taken(self) -> bool:
        """Say whether the receiver has it."""
        return self.error is None

    @property
    def is_gone(self) -> bool:
        """Say whether the receiver wants nothing more, ever."""
        return self.status == GONE

    @property
    def asks_for_less(self) -> bool:
        """Say whether the receiver is overloaded: others for it had better wait too."""
        return self.status in (429, 502, 504)


class Sender:
    """One process's way to receivers."""

    def __init__(
        self,
        guard: Guard,
        *,
        timeout_s: float = TIMEOUT_S,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._timeout_s = timeout_s
        self._names = resolver or Names()
        self._ssl_context = ssl_context
        self._secure: aiohttp.ClientSession | None = None
        self._plain: aiohttp.ClientSession | None = None

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
        """Close every connection."""
        for session in (self._secure, self._plain):
            if session is not None:
                await session.close()
        self._secure = self._plain = None
        await self._names.close()

    async def send(
        self, url: str, *, message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]
    ) -> Answer:
        """Post a body, signed with each key; `timestamp` is of this attempt, in Unix seconds."""
        began = time.monotonic()
        target = read_target(url)
        if isinstance(target, str):
            return Answer(None, None, 0.0, "bad_url")
        if self._guard.is_own(target):
            return Answer(None, None, 0.0, "address_refused")
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(
                keys, message_id=message_id, timestamp=timestamp, body=body
            ),
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(target, body, headers, began)
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            return Answer(None, None, time.monotonic() - began, reason(error))

    async def _post(
        self, target: Target, body: bytes, headers: dict[str, str], began: float
    ) -> Answer:
        async with self._session(target).post(
            target.url, data=body, headers=headers, allow_redirects=False
        ) as response:
            latency_s = time.monotonic() - began
            left_s = self._timeout_s - latency_s - MARGIN_S
            text = await first_words(response, within_s=min(ANSWER_S, max(left_s, 0.0)))
            return Answer(
                response.status,
                text,
                latency_s,
                error_of(response.status),
                retry_after_s(response.headers.get("Retry-After"), response.headers.get("Date")),
            )

    def _session(self, target: Target) -> aiohttp.ClientSession:
        if target.is_plain:
            self._plain = self._plain or self._open(self._guard.allows_plain)
            return self._plain
        self._secure = self._secure or self._open(self._guard.allows)
        return self._secure

    def _open(self, may_connect: MayConnect) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=self._names,
            socket_factory=guarded_sockets(may_connect),
            limit=0,  # Who sends has limits of its own, by receiver and in all.
            ssl=self._ssl_context if self._ssl_context is not None else True,
        )
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=True,
            trust_env=False,  # A proxy would hide the address from the guard.
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
            headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
        )


async def first_words(response: aiohttp.ClientResponse, *, within_s: float) -> str:
    """Return an answer's first KiB and read the rest, so that the connection can serve again.

    One that is too long, or too slow, loses its connection.
    """
    kept = bytearray()
    size = 0
    try:
        async with asyncio.timeout(within_s):
            async for chunk in response.content.iter_chunked(ANSWER_BYTES_MAX):
                kept += chunk[: KEPT_BYTES - len(kept)]
                size += len(chunk)
                if size > ANSWER_BYTES_MAX:
                    response.close()
                    break
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError):
        response.close()
    return cleaned(kept.decode("utf-8", "replace"))


def cleaned(text: str) -> str:
    """Return text with control characters, but for line ends and tabs, as replacement marks."""
    return "".join(
        char if char in "\n\t" or not (char < " " or "\x7f" <= char <= "\x9f") else "\ufffd"
        for char in text.replace("\r\n", "\n")
    )


def error_of(status: int) -> str | None:
    """Return why an answer means that the event was not taken; None for 2xx."""
    if 200 <= status < 300:
        return None
    return "redirected" if 300 <= status < 400 else f"http_{status}"


def retry_after_s(text: str | None, date: str | None) -> float | None:
    """Return what a Retry-After asks for, seconds or a date; None for none that can be read.

    A date is told from the receiver's own clock, where it says what that shows.
    """
    if text is None:
        return None
    number = text.strip()[:9]
    if number.isascii() and number.isdigit():
        return float(number)
    try:
        until = parsedate_to_datetime(text)
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)  # noqa: TID251 - no Date
        return max((until - now).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def reason(error: BaseException) -> str:
    """Name what kept an answer from coming."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if is_refusal(cause):
        return "address_refused"
    match cause:
        case _ if isinstance(error, aiohttp.ClientConnectorDNSError):
            return "dns_failed"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "tls_failed"
        case TimeoutError():
            return "timeout"
        case aiohttp.InvalidURL():
            return "bad_url"
        case ssl.SSLError():
            return "tls_failed"
        case ConnectionRefusedError():
            return "connect_refused"
        case _ if isinstance(error, aiohttp.ClientConnectorError):
            return "connect_failed"
        case _:
            return "bad_response"
