"""Real websites on loopback under made-up names, for tests.

    async with Sites() as sites, sites.fetcher() as fetcher:
        page = await fetcher.fetch("http://graph.test/")
    assert sites.requests["graph.test/"] == 1

`tests/support/pages/graph.html` is `http://graph.test/`, `graph.contact.html` is its `/contact`;
`add` puts up more. Some hosts misbehave, as `_BEHAVIOURS` lists. Names that nobody put up do not
exist, and nothing but loopback is ever reached.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from enrichd.domain.addresses import parse_networks
from enrichd.providers.site_names import NameFailure
from enrichd.providers.web import WebFetcher

PAGES: Final = Path(__file__).parent / "pages"
LOOPBACK: Final = parse_networks(["127.0.0.0/8"])

# Pages are kept in UTF-8 and sent in these: (encoding, Content-Type).
_ENCODINGS: Final[Mapping[str, tuple[str, str]]] = {
    "latin1header": ("iso-8859-1", "text/html; charset=ISO-8859-1"),
    "latin1meta": ("iso-8859-1", "text/html"),
    "utf16": ("utf-16", "text/html"),
    "undeclared": ("cp1252", "text/html"),
}

Handler = Callable[["Sites", web.Request], Awaitable[web.StreamResponse]]


class Sites:
    """A server for every name that ends in `.test`; `requests` counts by host and path."""

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.requests: Counter[str] = Counter()
        self.headers: dict[str, Mapping[str, str]] = {}
        """The last request's headers, by host and path."""
        self.addresses: dict[str, list[str]] = {
            "metadata.test": ["169.254.169.254"],
            "inside.test": ["10.0.0.7"],
            "wrapped.test": ["::ffff:127.0.0.1"],
            "rebound.test": ["10.0.0.7", "192.168.0.7"],
            "localhost": ["127.0.0.1"],
        }
        self.host = host
        self.port = port
        self._ssl_context = ssl_context
        self._added: dict[str, web.Response | Handler] = {}
        self._closing = asyncio.Event()
        self._closed_port = socket.socket()
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        runner = self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, self.host, self.port, ssl_context=self._ssl_context)
        await site.start()
        self.port = runner.addresses[0][1]
        # Bound and not listening: the other scheme's port refuses, and nobody else gets it.
        self._closed_port.bind(("127.0.0.1", 0))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._closed_port.close()
        assert self._runner is not None
        await self._runner.cleanup()

    def add(self, host_and_path: str, answer: str | bytes | web.Response | Handler) -> None:
        """Put up a page (`acme.test/about`): HTML, a whole response, or a handler."""
        if isinstance(answer, str | bytes):
            body = answer if isinstance(answer, bytes) else answer.encode()
            answer = web.Response(body=body, content_type="text/html", charset="utf-8")
        self._added[host_and_path] = answer

    def fetcher(self, **options: Any) -> WebFetcher:
        """Return a fetcher that finds these sites, and loopback not forbidden."""
        closed: int = self._closed_port.getsockname()[1]
        ports = (closed, self.port) if self._ssl_context is not None else (self.port, closed)
        options = {
            "resolver": MadeUpNames(self),
            "allowed_networks": LOOPBACK,
            "http_port": ports[0],
            "https_port": ports[1],
            "timeout_s": 5.0,
            **options,
        }
        return WebFetcher(**options)

    def knows(self, host: str) -> bool:
        """Say whether a name was put up."""
        name = host.removesuffix(".test")
        return (
            name in _BEHAVIOURS
            or (PAGES / f"{name}.html").exists()
            or any(key.partition("/")[0] == host for key in self._added)
        )

    async def until_closing(self) -> None:
        """Wait for the end of the server, as a host does that never answers."""
        await self._closing.wait()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.BaseRequest)
        host = request.host.partition(":")[0]
        key = host + request.path
        self.requests[key] += 1
        self.headers[key] = dict(request.headers)
        added = self._added.get(key)
        if isinstance(added, web.Response):
            return web.Response(body=added.body, status=added.status, headers=added.headers)
        if added is not None:
            return await added(self, request)  # type: ignore[arg-type]
        name = host.removesuffix(".test")
        if name in _BEHAVIOURS:
            return await _BEHAVIOURS[name](self, request)  # type: ignore[arg-type]
        return _page(name, request.path)


class MadeUpNames(AbstractResolver):
    """Resolve what a `Sites` has put up to loopback, and nothing else."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return a made-up host's addresses."""
        default = ["127.0.0.1"] if self._sites.knows(host) else []
        addresses = self._sites.addresses.get(host, default)
        if not addresses:
            raise NameFailure("dns_failed")
        return [
            ResolveResult(
                hostname=host,
                host=ip,
                port=port,
                family=socket.AF_INET6 if ":" in ip else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for ip in addresses
        ]

    async def close(self) -> None:
        """Release nothing."""


class NoNetwork(AbstractResolver):
    """Resolve nothing, as a machine does whose network is down; `asked` are the hosts."""

    def __init__(self, reason: str = "network_unreachable") -> None:
        self.reason: str | None = reason
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Fail."""
        self.asked.append(host)
        raise NameFailure(self.reason or "dns_failed")

    async def close(self) -> None:
        """Release nothing."""


def _page(name: str, path: str) -> web.Response:
    part = path.strip("/")
    if path == "/robots.txt":
        file = PAGES / f"{name}.robots.txt"
    else:
        file = PAGES / (f"{name}.{part}.html" if part else f"{name}.html")
    if "/" in part or not file.exists():
        return web.Response(status=404, text="<h1>Not found</h1>", content_type="text/html")
    if path == "/robots.txt":
        return web.Response(text=file.read_text())
    encoding, content_type = _ENCODINGS.get(name, ("utf-8", "text/html; charset=utf-8"))
    body = file.read_text(encoding="utf-8").encode(encoding)
    return web.Response(body=body, headers={"Content-Type": content_type})


def _redirect(location: str) -> Handler:
    async def answer(_sites: Sites, _request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": location})

    return answer


def _always(response: Callable[[], web.Response]) -> Handler:
    async def answer(_sites: Sites, _request: web.Request) -> web.StreamResponse:
        return response()

    return answer


async def _loop(_sites: Sites, request: web.Request) -> web.StreamResponse:
    step = int(request.query_string or "0") + 1
    return web.Response(status=302, headers={"Location": f"/?{step}"})


async def _drip(sites: Sites, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/html"})
    await response.prepare(request)
    await response.write(b"<html><title>Slow")
    await sites.until_closing()
    return response


async def _silent(sites: Sites, _request: web.Request) -> web.StreamResponse:
    await sites.until_closing()
    return web.Response()


async def _garbage(_sites: Sites, request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"\x00\xff this is no HTTP \r\n\r\n")
    request.transport.close()
    return web.Response()


async def _robots_broken(_sites: Sites, request: web.Request) -> web.StreamResponse:
    if request.path == "/robots.txt":
        return web.Response(status=503)
    return web.Response(text="<title>Acme</title>", content_type="text/html")


def _html(body: str | bytes, **headers: str) -> Callable[[], web.Response]:
    data = body if isinstance(body, bytes) else body.encode()
    return lambda: web.Response(
        body=data, headers={"Content-Type": "text/html; charset=utf-8", **headers}
    )


# 20 kB on the wire, 20 MB when read.
def _bomb() -> web.Response:
    packed = gzip.compress(b"<p>" + b"a" * 20_000_000, 9)
    return _html(packed, **{"Content-Encoding": "gzip"})()


_BEHAVIOURS: Final[Mapping[str, Handler]] = {
    "huge": _always(_html("<p>" + "x" * 2_100_000)),
    "bomb": _always(_bomb),
    "drip": _drip,
    "silent": _silent,
    "garbage": _garbage,
    "loop": _loop,
    "toprivate": _redirect("http://10.0.0.7/admin"),
    "tolocalhost": _redirect("http://localhost/"),
    "toloopback6": _redirect("http://[::1]/"),
    "tohex": _redirect("http://0x7f.1/"),
    "tometadata": _redirect("http://metadata.test/latest/meta-data/"),
    "tofile": _redirect("file:///etc/passwd"),
    "toport": _redirect("http://graph.test:6379/"),
    "tocredentials": _redirect("http://admin:secret@graph.test/"),
    "tobroken": _redirect("http://[bad"),
    "tograph": _redirect("http://graph.test/"),
    "tosocial": _redirect("http://www.facebook.com/acme"),
    "pdf": _always(lambda: web.Response(body=b"%PDF-1.7", content_type="application/pdf")),
    "bigheader": _always(_html("<p>hi", **{"X-Long": "x" * 9_000})),
    "forbidden": _always(lambda: web.Response(status=403)),
    "broken": _always(lambda: web.Response(status=500)),
    "robotsbroken": _robots_broken,
}
