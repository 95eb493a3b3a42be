"""Ask a small public JSON API over httpx: bounded in bytes and seconds, every end a value."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx
import orjson

from enrichd.domain.facts import Json

ANSWER_S: Final = 8.0
RETRY_AFTER_S_MAX: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """A JSON value, or the reason there is none."""

    value: Json = None
    reason: str | None = None
    """`not_found`, `rate_limited`, `denied`, `garbled`, `too_large`, `timeout`, `connect_failed`,
    `network_unreachable`, `redirected`, or `http_` and the status."""
    retry_after_s: float | None = None
    location: str | None = None
    """Where a redirect points, for the caller to judge."""


async def ask_json(
    client: httpx.AsyncClient,
    url: str,
    *,
    headers: Mapping[str, str] = {},
    bytes_max: int = 500_000,
    timeout_s: float = ANSWER_S,
) -> ApiAnswer:
    """Return what an API answers to a GET; never raises for what the network or server does."""
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream("GET", url, headers=dict(headers), follow_redirects=False) as response,
        ):
            refusal = _refusal(response)
            if refusal is not None:
                return refusal
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > bytes_max:
                    return ApiAnswer(reason="too_large")
    except (TimeoutError, httpx.TimeoutException):
        return ApiAnswer(reason="timeout")
    except httpx.ConnectError as error:
        return ApiAnswer(reason=_connect_reason(error))
    except (httpx.HTTPError, httpx.InvalidURL):
        return ApiAnswer(reason="connect_failed")
    try:
        return ApiAnswer(value=orjson.loads(bytes(body)))
    except orjson.JSONDecodeError:
        return ApiAnswer(reason="garbled")


def _refusal(response: httpx.Response) -> ApiAnswer | None:
    status = response.status_code
    if response.has_redirect_location:
        return ApiAnswer(reason="redirected", location=response.headers["Location"])
    if status == 200:
        return None
    if status == 404:
        return ApiAnswer(reason="not_found")
    if status == 429:
        return ApiAnswer(reason="rate_limited", retry_after_s=_retry_after(response))
    if status in (401, 403):
        return ApiAnswer(reason="denied")
    return ApiAnswer(reason=f"http_{status}")


def _retry_after(response: httpx.Response) -> float | None:
    """Return Retry-After in seconds; the form with a date counts as an unknown wait."""
    text = response.headers.get("Retry-After", "").strip()
    if not text.isascii() or not text.isdigit():
        return None
    return min(float(text[:9]), RETRY_AFTER_S_MAX)


def _connect_reason(error: BaseException) -> str:
    # httpx and httpcore each wrap the socket's own error once more.
    cause: BaseException | None = error
    for _ in range(5):
        if cause is None:
            break
        if isinstance(cause, OSError) and cause.errno in (errno.ENETUNREACH, errno.ENETDOWN):
            return "network_unreachable"
        cause = cause.__cause__ or cause.__context__
    return "network_unreachable" if "name resolution" in str(error) else "connect_failed"
