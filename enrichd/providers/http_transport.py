"""httpx over aiohttp's connections.

httpx asks each of its open connections, at every request, whether the other side has closed it, and
takes 2 ms of CPU where aiohttp takes a quarter: asking providers was most of what a worker did.
Requests, answers and errors stay httpx's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final
from urllib.request import getproxies

import aiohttp
import httpx
from yarl import URL

CHUNK_BYTES: Final = 65_536
IDLE_S: Final = 15.0
DNS_S: Final = 30


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Connections to any host, at most `connections_max`; opened at the first request."""

    def __init__(self, *, connect_s: float, answer_s: float, connections_max: int) -> None:
        self._connections_max = connections_max
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=answer_s, sock_connect=connect_s, sock_read=answer_s
        )
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the answer's body is read by whoever wants it."""
        if self._session is None:
            self._session = self._opened()
        assert isinstance(request.stream, httpx.AsyncByteStream)
        body = b"".join([part async for part in request.stream])
        with _errors_of_httpx():
            answer = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=[(name.decode(), text.decode()) for name, text in request.headers.raw],
                data=body or None,
                allow_redirects=False,
            )
        return httpx.Response(
            answer.status, headers=list(answer.raw_headers), stream=_Body(answer), request=request
        )

    async def aclose(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections_max,
                ttl_dns_cache=DNS_S,
                keepalive_timeout=IDLE_S,
                # With the certificates that come along: an image may have none of its own.
                ssl=httpx.create_ssl_context(),
            ),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=bool(getproxies()),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        # A question whose connection broke may have been paid: whether to put it again is not for
        # the connection to decide.
        session._retry_connection = False
        return session


class _Body(httpx.AsyncByteStream):
    """An answer's body as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors_of_httpx():
            async for part in self._answer.content.iter_chunked(CHUNK_BYTES):
                yield part

    async def aclose(self) -> None:
        # What was not read to its end cannot be used again; what was has gone back already.
        self._answer.close()


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """Raise what went wrong as httpx names it; whether the request was sent is what matters."""
    try:
        yield
    except aiohttp.InvalidURL as error:
        raise httpx.InvalidURL("the address cannot be used") from error
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error)) from error
    except asyncio.TimeoutError as error:  # noqa: UP041 - aiohttp's own are of this class
        raise httpx.ReadTimeout(str(error)) from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError) as error:
        raise httpx.RemoteProtocolError(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx.ReadError(str(error)) from error
    except ValueError as error:
        # Its text shows the request.
        raise httpx.LocalProtocolError("the request cannot be sent") from error
