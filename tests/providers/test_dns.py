"""`providers/dns.py` against a real DNS server on loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from enrichd.domain.email_verdicts import MailHosts, MxRecord
from enrichd.providers import dns as resolving
from enrichd.providers.dns import HostAddresses, Resolver
from tests.support.dns_server import DnsServer, Trouble

PUBLIC_V4, PUBLIC_V6 = "93.184.216.34", "2606:2800:220:1::1"


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        yield running


@pytest.fixture
def resolver(server: DnsServer) -> Resolver:
    return Resolver([server.address], timeout_s=0.5)


def a_dead_nameserver() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


async def test_mx_records_come_best_first_and_without_the_last_dot(server, resolver):
    server.zones["acme.example"] = {"MX": ["20 B.acme.example.", "10 a.acme.example."]}

    assert await resolver.mail_hosts("acme.example") == MailHosts(
        found=True, records=(MxRecord("a.acme.example", 10), MxRecord("b.acme.example", 20))
    )


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ({"MX": ["0 ."]}, MailHosts(found=False, reason="null_mx", null_mx=True)),
        ({"A": [PUBLIC_V4]}, MailHosts(found=True, fallback="a")),
        ({"AAAA": [PUBLIC_V6]}, MailHosts(found=True, fallback="aaaa")),
        ({"A": [PUBLIC_V4], "AAAA": [PUBLIC_V6]}, MailHosts(found=True, fallback="a")),
        ({"A": ["10.0.0.1"], "AAAA": [PUBLIC_V6]}, MailHosts(found=True, fallback="aaaa")),
        ({"A": ["10.0.0.1"]}, MailHosts(found=False, reason="address_not_public")),
        ({"TXT": ['"hello"']}, MailHosts(found=False, reason="no_mail_host")),
        (
            {"A": [PUBLIC_V4], "TXT": ['"v=spf1 -all"']},
            MailHosts(found=False, reason="spf_refuses_all", fallback="a"),
        ),
        (
            {"A": [PUBLIC_V4], "TXT": ['"v=spf1 a -all"', '"google-site-verification=x"']},
            MailHosts(found=True, fallback="a"),
        ),
        ({"MX": ["10 localhost."]}, MailHosts(found=False, reason="mx_unusable")),
        ({"MX": ["10 127.0.0.1."]}, MailHosts(found=False, reason="mx_unusable")),
        (
            {"MX": ["5 localhost.", "10 mx.acme.example."]},
            MailHosts(found=True, records=(MxRecord("mx.acme.example", 10),)),
        ),
        (
            {"MX": [f"10 {PUBLIC_V4}."]},
            MailHosts(found=True, records=(MxRecord(PUBLIC_V4, 10),)),
        ),
        (Trouble.SERVFAIL, MailHosts(found=None, reason="dns_servfail")),
        (Trouble.REFUSED, MailHosts(found=None, reason="dns_refused")),
        (Trouble.DROP, MailHosts(found=None, reason="dns_timeout")),
        (Trouble.GARBAGE, MailHosts(found=None, reason="dns_timeout")),
    ],
)
async def test_every_kind_of_answer_has_its_meaning(server, resolver, zone, expected):
    server.zones["acme.example"] = zone

    assert await resolver.mail_hosts("acme.example") == expected


async def test_a_domain_that_does_not_exist_is_certain(resolver):
    expected = MailHosts(found=False, reason="domain_not_found")

    assert await resolver.mail_hosts("nowhere.example") == expected


@pytest.mark.parametrize(
    "zones", [{}, {"acme.example": {"TXT": ['"x"']}}, {"acme.example": {"A": ["203.0.113.80"]}}]
)
async def test_a_nameserver_that_knows_nothing_of_the_internet_is_not_believed(zones):
    with DnsServer(zones, vouches=False) as walled_in:
        resolver = Resolver([walled_in.address])

        expected = MailHosts(found=None, reason="dns_not_public")
        assert await resolver.mail_hosts("acme.example") == expected


async def test_a_no_without_its_zone_is_believed_of_one_that_knows_the_internet():
    with DnsServer({"a.root-servers.net": {"A": ["198.41.0.4"]}}, vouches=False) as forwarder:
        resolver = Resolver([forwarder.address])
        names = [f"gone{i}.example" for i in range(20)]

        answers = await asyncio.gather(*(resolver.mail_hosts(name) for name in names))

        assert {answer.reason for answer in answers} == {"domain_not_found"}
        assert forwarder.asked("a.root-servers.net") == 1


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64 + ".com", "." * 3])
async def test_what_is_no_name_is_never_asked_for(server, resolver, name):
    expected = MailHosts(found=False, reason="domain_invalid")

    assert await resolver.mail_hosts(name) == expected
    assert server.asked() == 0


async def test_a_chain_of_aliases_is_followed_and_a_loop_is_not(server, resolver):
    server.zones.update(
        {
            "www.acme.example": {"CNAME": ["web.acme.example."]},
            "web.acme.example": {"CNAME": ["acme.example."]},
            "acme.example": {"MX": ["10 mx.acme.example."]},
            "dangling.example": {"CNAME": ["gone.example."]},
            "ring.example": {"CNAME": ["gnir.example."]},
            "gnir.example": {"CNAME": ["ring.example."]},
        }
    )

    assert (await resolver.mail_hosts("www.acme.example")).found is True
    assert (await resolver.mail_hosts("dangling.example")).reason == "domain_not_found"
    assert (await resolver.mail_hosts("ring.example")).found is None


async def test_a_truncated_answer_is_fetched_over_tcp(server, resolver):
    server.zones["big.example"] = {"MX": [f"{i} mx{i}.a-long-name.example." for i in range(60)]}
    server.truncated.add("big.example")

    answer = await resolver.mail_hosts("big.example")

    assert len(answer.records) == resolving.MX_RECORDS_MAX
    assert answer.records[0] == MxRecord("mx0.a-long-name.example", 0)
    assert (server.asked(over="udp"), server.asked(over="tcp")) == (1, 1)


async def test_a_unicode_domain_is_asked_for_in_ascii(server, resolver):
    server.zones["xn--bcher-kva.example"] = {"MX": ["10 mx.example."]}

    assert (await resolver.mail_hosts("bücher.example")).found is True


async def test_ten_thousand_leads_of_one_company_make_one_lookup(server, resolver):
    server.zones["acme.example"] = {"MX": ["10 mx.acme.example."]}

    answers = await asyncio.gather(*(resolver.mail_hosts("acme.example") for _ in range(10_000)))
    await resolver.mail_hosts("ACME.example")

    assert {answer.found for answer in answers} == {True}
    assert server.asked() == 1


async def test_an_answer_is_kept_for_its_ttl_but_at_least_a_minute_and_at_most_an_hour():
    kept_for = {}
    for ttl_s in (1, 600, 86_400):
        with DnsServer({"acme.example": {"MX": ["1 mx.example."]}}, ttl_s=ttl_s) as server:
            resolver = Resolver([server.address])
            await resolver.mail_hosts("acme.example")
            ((_, until),) = resolver._mail_hosts._kept.values()
            kept_for[ttl_s] = round(until - time.monotonic())

    assert kept_for == {1: 60, 600: 600, 86_400: 3600}


async def test_trouble_is_kept_for_seconds_only(server, resolver):
    server.zones["acme.example"] = Trouble.SERVFAIL
    await resolver.mail_hosts("acme.example")
    ((answer, until),) = resolver._mail_hosts._kept.values()
    assert until - time.monotonic() <= resolving.KEEP_TROUBLE_S

    resolver._mail_hosts._kept["acme.example"] = (answer, time.monotonic() - 1)
    server.zones["acme.example"] = {"MX": ["10 mx.acme.example."]}

    assert (await resolver.mail_hosts("acme.example")).found is True


async def test_the_memory_for_answers_is_bounded(server, resolver):
    server.zones["*"] = {"MX": ["10 mx.example."]}
    resolver._mail_hosts._kept_max = 10

    await asyncio.gather(*(resolver.mail_hosts(f"d{i}.example") for i in range(25)))

    assert len(resolver._mail_hosts._kept) == 10


async def test_when_the_asker_is_cancelled_somebody_who_waits_asks_instead(server, resolver):
    server.zones["acme.example"] = Trouble.DROP
    first = asyncio.create_task(resolver.mail_hosts("acme.example"))
    others = [asyncio.create_task(resolver.mail_hosts("acme.example")) for _ in range(3)]
    await asyncio.to_thread(server.wait_until_asked)
    server.zones["acme.example"] = {"MX": ["10 mx.acme.example."]}

    first.cancel()

    assert [answer.found for answer in await asyncio.gather(*others)] == [True] * 3
    assert first.cancelled()


async def test_the_second_nameserver_answers_for_a_dead_first(server):
    server.zones["acme.example"] = {"MX": ["10 mx.acme.example."]}
    resolver = Resolver([a_dead_nameserver(), server.address])

    assert (await resolver.mail_hosts("acme.example")).found is True


async def test_the_second_nameserver_answers_for_a_silent_first(server):
    server.zones["acme.example"] = {"MX": ["10 mx.acme.example."]}
    with DnsServer({"*": Trouble.DROP}) as silent:
        resolver = Resolver([silent.address, server.address], timeout_s=0.5)

        assert (await resolver.mail_hosts("acme.example")).found is True


async def test_a_nameserver_that_is_not_there_is_noticed_at_once():
    started = time.monotonic()

    answer = await Resolver([a_dead_nameserver()], timeout_s=5).mail_hosts("acme.example")

    assert answer == MailHosts(found=None, reason="dns_connection_refused")
    assert time.monotonic() - started < 10


async def test_a_host_without_any_resolver_says_so(monkeypatch, tmp_path):
    def without_resolv_conf(self, path):
        return real(self, str(tmp_path / "resolv.conf"))

    real = resolving.dns.asyncresolver.Resolver.read_resolv_conf
    monkeypatch.setattr(
        resolving.dns.asyncresolver.Resolver, "read_resolv_conf", without_resolv_conf
    )

    answer = await Resolver().mail_hosts("acme.example")

    assert answer == MailHosts(found=None, reason="no_resolver")


async def test_ten_thousand_domains_without_a_network_end_quickly():
    with DnsServer({"*": Trouble.DROP}) as server:
        resolver = Resolver([server.address], timeout_s=0.5)
        started = time.monotonic()

        answers = await asyncio.gather(
            *(resolver.mail_hosts(f"company{i}.example") for i in range(10_000))
        )

        assert {(answer.found, answer.reason) for answer in answers} == {(None, "dns_timeout")}
        assert time.monotonic() - started < 30
        # The first 64 at once, each retried within its half second, and who slips in while the
        # first of them end; then nobody.
        assert len({name for name, _, _ in server.queries}) <= 2 * resolving.LOOKUPS_AT_ONCE


@pytest.mark.parametrize("text", ["1.1.1.1", "1.1.1.1:5353", "::1", "[::1]", "[::1]:5353"])
def test_a_nameserver_is_an_address_with_or_without_a_port(text):
    assert Resolver([text])._nameservers[0].port == (5353 if "5353" in text else 53)


async def test_after_an_outage_one_lookup_tries_and_success_lets_all_through(server, resolver):
    server.zones["*"] = Trouble.DROP
    await asyncio.gather(*(resolver.mail_hosts(f"d{i}.example") for i in range(3)))
    server.queries.clear()
    assert (await resolver.mail_hosts("other.example")).reason == "dns_timeout"
    assert server.asked() == 0

    resolver._circuit._open_until = 0.0
    server.zones["*"] = {"MX": ["10 mx.example."]}
    probe, refused = await asyncio.gather(
        resolver.mail_hosts("probe.example"), resolver.mail_hosts("second.example")
    )

    assert (probe.found, refused.found) == (True, None)
    assert (await resolver.mail_hosts("third.example")).found is True


async def test_servfail_is_an_answer_and_never_stops_the_asking(server, resolver):
    server.zones["*"] = Trouble.SERVFAIL
    await asyncio.gather(*(resolver.mail_hosts(f"d{i}.example") for i in range(10)))
    server.zones["acme.example"] = {"MX": ["10 mx.example."]}

    assert (await resolver.mail_hosts("acme.example")).found is True


async def test_lookups_that_wait_for_room_do_not_run_out_of_time(server):
    # 640 lookups through 64 places, with a time limit far below what all of them take together.
    server.zones["*"] = {"MX": ["10 mx.example."]}
    resolver = Resolver([server.address], timeout_s=0.5)

    answers = await asyncio.gather(*(resolver.mail_hosts(f"d{i}.example") for i in range(640)))

    assert {answer.found for answer in answers} == {True}


async def test_a_host_says_which_of_its_addresses_are_public(server, resolver):
    server.zones["mx.example"] = {"A": ["10.0.0.1", PUBLIC_V4], "AAAA": [PUBLIC_V6, "fe80::1"]}

    addresses = await resolver.addresses("mx.example")

    assert addresses == HostAddresses(("10.0.0.1", PUBLIC_V4, PUBLIC_V6, "fe80::1"))
    assert addresses.public == (PUBLIC_V4, PUBLIC_V6)
    assert await resolver.addresses("gone.example") == HostAddresses((), "host_not_found")
    assert (await resolver.addresses("[8.8.8.8]")).public == ("8.8.8.8",)
    assert (await resolver.addresses("127.0.0.1")).public == ()


async def test_one_address_family_is_enough_when_the_other_has_trouble(server, resolver):
    server.zones["mx.example"] = {"A": [PUBLIC_V4], "AAAA": Trouble.SERVFAIL}

    assert (await resolver.addresses("mx.example")).found == (PUBLIC_V4,)


@pytest.mark.parametrize("text", ["dns.example", "1.1.1.1:0", "1.1.1.1:70000", "::1:x", "[::1", ""])
def test_a_nameserver_that_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="nameserver"):
        Resolver([text])
