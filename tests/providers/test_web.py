"""A fetch ends in a page or a reason, inside its bounds, and never at a private address."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from enrichd.domain.addresses import parse_networks
from enrichd.providers.site_outage import OUTAGE_S, Outage
from enrichd.providers.web import FetchFailure, Page, WebFetcher
from tests.support.dns_server import DnsServer, Trouble
from tests.support.sites import NoNetwork, Sites


@pytest_asyncio.fixture
async def sites() -> AsyncIterator[Sites]:
    async with Sites() as sites:
        yield sites


async def fetch(sites: Sites, url: str, **options) -> Page | FetchFailure:
    async with sites.fetcher(**options) as fetcher:
        return await fetcher.fetch(url)


async def test_a_page_comes_with_its_final_url_and_text(sites):
    sites.add("acme.test/", "<h1>Grüße</h1>")

    assert await fetch(sites, "http://acme.test/#team") == Page(
        url="http://acme.test/#team",
        final_url="http://acme.test/",
        status=200,
        text="<h1>Grüße</h1>",
        content_type="text/html",
        encoding="utf-8",
    )


@pytest.mark.parametrize("name", ["latin1header", "latin1meta", "utf16", "undeclared"])
async def test_the_charset_comes_from_header_mark_or_meta_or_the_bytes(sites, name):
    page = await fetch(sites, f"http://{name}.test/")

    assert isinstance(page, Page)
    assert "Müller & Söhne Gerätebau" in page.text


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://nobody.test/", "dns_failed"),
        ("https://graph.test/", "connect_refused"),
        ("http://graph.test/missing", "http_404"),
        ("http://forbidden.test/", "http_403"),
        ("http://broken.test/", "http_500"),
        ("http://pdf.test/", "not_html"),
        ("http://huge.test/", "too_large"),
        ("http://bomb.test/", "too_large"),
        ("http://loop.test/", "too_many_redirects"),
        ("http://garbage.test/", "bad_response"),
        ("http://bigheader.test/", "bad_response"),
        ("http://metadata.test/", "address_refused"),
        ("http://inside.test/", "address_refused"),
        ("http://rebound.test/", "address_refused"),
        ("http://wrapped.test/", "address_refused"),
        ("http://10.0.0.7/", "address_refused"),
        ("http://[::1]/", "address_refused"),
        ("http://[::ffff:127.0.0.1]/", "address_refused"),
        ("http://169.254.169.254/latest/meta-data/", "address_refused"),
        ("http://toprivate.test/", "address_refused"),
        ("http://toloopback6.test/", "address_refused"),
        ("http://tometadata.test/", "address_refused"),
        ("http://toport.test/", "address_refused"),
        ("http://graph.test:22/", "address_refused"),
        ("http://tofile.test/", "bad_url"),
        ("http://tocredentials.test/", "bad_url"),
        ("http://tobroken.test/", "bad_url"),
        ("file:///etc/passwd", "bad_url"),
        ("http://user:password@graph.test/", "bad_url"),
        ("http:///nohost", "bad_url"),
        ("http://acme.test/" + "x" * 2_100, "bad_url"),
        ("not a url", "bad_url"),
    ],
)
async def test_what_is_no_page_has_a_reason(sites, url, reason):
    failure = await fetch(sites, url)

    assert isinstance(failure, FetchFailure)
    assert failure.reason == reason


@pytest.mark.parametrize("host", ["localhost", "0x7f.1", "tolocalhost.test", "tohex.test"])
async def test_no_name_of_this_machine_passes_the_guard(sites, host):
    sites.addresses["0x7f.1"] = ["127.0.0.1"]
    only_elsewhere = parse_networks(["127.9.9.0/24"])
    async with sites.fetcher(allowed_networks=only_elsewhere) as fetcher:
        failure = await fetcher.fetch(f"http://{host}/")

    assert failure == FetchFailure("address_refused", f"http://{host}/")
    assert not sites.requests


async def test_a_denied_network_is_refused_like_a_private_one(sites):
    failure = await fetch(
        sites,
        "http://graph.test/",
        allowed_networks=(),
        denied_networks=parse_networks(["127.0.0.0/8"]),
    )

    assert isinstance(failure, FetchFailure)
    assert failure.reason == "address_refused"


async def test_a_name_that_changes_its_answer_between_requests_is_caught(sites):
    sites.add("flip.test/", web.Response(status=302, headers={"Location": "http://flop.test/"}))
    sites.addresses["flop.test"] = ["192.168.0.1"]

    failure = await fetch(sites, "http://flip.test/")

    assert isinstance(failure, FetchFailure)
    assert failure.reason == "address_refused"


async def test_redirects_are_followed_across_hosts_and_every_hop_is_asked_about(sites):
    hops: list[str] = []

    async def may_fetch(url):
        hops.append(str(url))
        return True

    async with sites.fetcher() as fetcher:
        page = await fetcher.fetch("http://tograph.test/", may_fetch=may_fetch)

    assert isinstance(page, Page)
    assert (page.url, page.final_url) == ("http://tograph.test/", "http://graph.test/")
    assert hops == ["http://tograph.test/", "http://graph.test/"]


async def test_a_hop_that_robots_forbid_is_not_requested(sites):
    async def may_fetch(url):
        return url.host != "graph.test"

    async with sites.fetcher() as fetcher:
        failure = await fetcher.fetch("http://tograph.test/", may_fetch=may_fetch)

    assert failure == FetchFailure("robots_disallowed", "http://tograph.test/")
    assert sites.requests == {"tograph.test/": 1}


@pytest.mark.parametrize("host", ["silent.test", "drip.test"])
async def test_a_host_that_does_not_finish_costs_only_the_time_limit(sites, host):
    started = time.monotonic()

    failure = await fetch(sites, f"http://{host}/", timeout_s=0.2)

    assert failure == FetchFailure("timeout", f"http://{host}/")
    assert time.monotonic() - started < 20


async def test_a_request_names_enrichd_and_carries_no_cookie(sites):
    sites.add(
        "cookie.test/",
        web.Response(status=302, headers={"Location": "/in", "Set-Cookie": "session=1; Path=/"}),
    )
    sites.add("cookie.test/in", "<p>in")

    await fetch(sites, "http://cookie.test/")

    headers = sites.headers["cookie.test/in"]
    assert headers["User-Agent"].startswith("enrichd/")
    assert "Cookie" not in headers


async def test_a_proxy_of_the_environment_is_not_used(sites, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    assert isinstance(await fetch(sites, "http://graph.test/"), Page)


async def test_one_host_gets_two_requests_at_a_time(sites):
    running, most = 0, 0
    gate = asyncio.Event()

    async def answer(_sites, _request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:  # A third would come at once, if it were let.
            asyncio.get_running_loop().call_later(0.2, gate.set)
        await gate.wait()
        running -= 1
        return web.Response(text="<p>hi", content_type="text/html")

    sites.add("busy.test/", answer)
    async with sites.fetcher() as fetcher:
        pages = await asyncio.gather(*(fetcher.fetch("http://busy.test/") for _ in range(6)))

    assert all(isinstance(page, Page) for page in pages)
    assert most == 2


async def test_without_a_network_the_fourth_domain_is_not_even_looked_up():
    names = NoNetwork()
    async with WebFetcher(resolver=names) as fetcher:
        failures = [await fetcher.fetch(f"https://acme{n}.test/") for n in range(50)]

    assert {failure.reason for failure in failures} == {"network_unreachable"}
    assert names.asked == ["acme0.test", "acme1.test", "acme2.test"]


async def test_one_domain_with_broken_nameservers_is_no_outage(sites):
    names = NoNetwork("dns_timeout")
    async with WebFetcher(resolver=names) as fetcher:
        for host in ("acme.test", "www.acme.test", "shop.acme.test") * 3:
            await fetcher.fetch(f"https://{host}/")

    assert len(names.asked) == 9


def test_an_outage_is_probed_by_one_request_at_a_time_and_ends_with_an_answer():
    now = 0.0
    outage = Outage(clock=lambda: now)
    for domain in ("a.test", "b.test", "c.test"):
        assert not outage.answers_at_once()
        outage.note(domain, "network_unreachable")
    assert outage.answers_at_once()

    now = OUTAGE_S
    assert not outage.answers_at_once()
    assert outage.answers_at_once()

    outage.note("d.test", "connect_refused")
    assert not outage.answers_at_once()


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (Trouble.SERVFAIL, "dns_failed"),
        ({}, "dns_failed"),
        ({"A": ["10.0.0.7"]}, "address_refused"),
        ({"A": ["127.0.0.1"]}, "address_refused"),
        ({"AAAA": ["::1"]}, "address_refused"),
    ],
)
async def test_names_are_asked_of_the_given_nameservers(records, reason):
    with DnsServer({"acme.example": records}) as server:
        async with WebFetcher(nameservers=[server.address]) as fetcher:
            failure = await fetcher.fetch("http://acme.example/")

    assert failure == FetchFailure(reason, "http://acme.example/")


async def test_tls_checks_the_name_it_asked_for(tmp_path):
    server, client = _tls(tmp_path, "secure.test")
    async with Sites(ssl_context=server) as sites:
        sites.add("secure.test/", "<p>safe")
        sites.add("other.test/", "<p>safe")
        async with sites.fetcher(ssl_context=client) as fetcher:
            page = await fetcher.fetch("https://secure.test/")
            wrong_name = await fetcher.fetch("https://other.test/")
        unknown_issuer = await fetch(sites, "https://secure.test/")

    assert isinstance(page, Page)
    assert wrong_name == FetchFailure("tls_failed", "https://other.test/")
    assert unknown_issuer == FetchFailure("tls_failed", "https://secure.test/")


async def test_a_fetcher_can_be_closed_twice_and_used_again(sites):
    fetcher = sites.fetcher()
    await fetcher.close()
    assert isinstance(await fetcher.fetch("http://graph.test/"), Page)
    await fetcher.close()
    await fetcher.close()


def _tls(folder: Path, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    )
    subject = ["-addext", f"subjectAltName=DNS:{host}"]
    subprocess.run(
        [openssl, *command.split(), *subject, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=20,
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))
