"""What one attempt costs and says, whatever the receiver does."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from aiohttp.abc import AbstractResolver
from standardwebhooks import Webhook

from enrichd.errors import Invalid
from enrichd.settings import Settings
from enrichd.webhooks.endpoints import guard_of
from enrichd.webhooks.sender import Answer, Sender, cleaned, retry_after_s
from enrichd.webhooks.signing import key_of, new_secret
from enrichd.webhooks.targets import Guard, check_url
from tests.support.receivers import LOOPBACK, Receivers

SECRET = new_secret()
INSIDE = Guard(LOOPBACK)


def now() -> int:
    """Return the time as the receiver's library has it."""
    return int(time.time())  # noqa: TID251 - the library has no other clock


@pytest.fixture
async def receivers():
    async with Receivers() as started:
        yield started


@pytest.fixture
async def sender():
    async with Sender(INSIDE, timeout_s=1.0) as opened:
        yield opened


async def post(sender: Sender, url: str, body: bytes = b'{"type":"job.completed"}'):
    return await sender.send(
        url,
        message_id="one",
        timestamp=now(),
        body=body,
        keys=[key_of(SECRET)],
    )


async def test_the_receiver_gets_the_body_and_can_verify_it(sender, receivers):
    answer = await post(sender, receivers.url("/ok"))

    assert (answer.status, answer.text, answer.error, answer.is_taken) == (
        200,
        "thanks",
        None,
        True,
    )
    [got] = receivers.got
    assert got.headers["Content-Type"] == "application/json"
    assert Webhook(SECRET).verify(got.body.decode(), dict(got.headers)) == {"type": "job.completed"}


async def test_one_connection_serves_many(sender, receivers):
    for _ in range(5):
        assert (await post(sender, receivers.url())).is_taken

    assert len(sender._plain.connector._conns) == 1


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/broken", 500, "http_500"),
        ("/gone", 410, "http_410"),
        ("/busy", 429, "http_429"),
        ("/redirect", 302, "redirected"),
        ("/hang", None, "timeout"),
        ("/cut", None, "bad_response"),
    ],
)
async def test_what_is_not_taken_says_why(sender, receivers, path, status, error):
    answer = await post(sender, receivers.url(path))

    assert (answer.status, answer.error, answer.is_taken) == (status, error, False)
    assert [got.path for got in receivers.got] == [path]


async def test_a_receiver_that_hangs_costs_the_timeout(sender, receivers):
    began = time.monotonic()
    await post(sender, receivers.url("/hang"))

    assert 0.9 < time.monotonic() - began < 2.0


async def test_ten_gigabytes_of_an_answer_are_not_read(sender, receivers):
    answer = await post(sender, receivers.url("/huge"))

    assert (answer.is_taken, answer.text) == (True, "x" * 1024)
    assert receivers.sent_bytes < 50_000_000


async def test_an_answer_whose_body_drips_is_taken_and_left(sender, receivers):
    began = time.monotonic()
    answer = await post(sender, receivers.url("/drip"))

    assert (answer.status, answer.error, set(answer.text)) == (200, None, {"."})
    assert time.monotonic() - began < 1.5


async def test_an_answer_is_not_decompressed(sender, receivers):
    assert len((await post(sender, receivers.url("/bomb"))).text) <= 1024


async def test_an_answer_is_kept_without_control_characters(sender, receivers):
    answer = await post(sender, receivers.url("/odd"))

    assert answer.text == "a\ufffdb\ufffd[31mc\ufffd\ufffdd\ne"


@pytest.mark.parametrize(
    ("status", "asks"), [(429, True), (502, True), (504, True), (500, False), (503, False)]
)
def test_who_is_overloaded_says_so_by_the_status(status, asks):
    assert Answer(status, None, 0.1, f"http_{status}").asks_for_less is asks


async def test_retry_after_is_told(sender, receivers):
    answer = await post(sender, receivers.url("/busy"))

    assert (answer.retry_after_s, answer.asks_for_less) == (3.0, True)


@pytest.mark.parametrize(
    ("text", "date", "seconds"),
    [
        ("0", None, 0.0),
        (" 120 ", None, 120.0),
        ("99999999999999", None, 999_999_999.0),
        ("Tue, 24 Nov 2026 10:00:30 GMT", "Tue, 24 Nov 2026 10:00:00 GMT", 30.0),
        ("Tue, 24 Nov 2026 09:00:00 GMT", "Tue, 24 Nov 2026 10:00:00 GMT", 0.0),
        ("soon", None, None),
        ("-1", None, None),
        ("²", None, None),
        ("1.5", None, None),
        (None, None, None),
    ],
)
def test_retry_after_as_receivers_write_it(text, date, seconds):
    assert retry_after_s(text, date) == seconds


async def test_nobody_listening_is_a_refused_connection(sender):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        answer = await post(sender, f"http://127.0.0.1:{bound.getsockname()[1]}/")

    assert answer.error == "connect_refused"


async def test_a_name_that_does_not_exist_is_dns_failed(sender):
    assert (await post(sender, "https://nobody.invalid/")).error == "dns_failed"


async def test_a_name_that_takes_for_ever_costs_the_timeout():
    async with Sender(INSIDE, timeout_s=0.2, resolver=Slow()) as sender:
        assert (await post(sender, "https://slow.test/")).error == "timeout"


async def test_a_certificate_nobody_vouches_for_is_refused(receivers):
    async with Sender(INSIDE, timeout_s=1.0) as sender:
        answer = await post(sender, receivers.url().replace("http:", "https:"))

    assert answer.error in ("tls_failed", "connect_failed")
    assert receivers.got == []


# The guard.

REFUSED = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("ip", REFUSED)
async def test_an_address_that_is_not_public_is_refused_by_name_and_by_number(ip):
    literal = f"[{ip}]" if ":" in ip else ip
    async with Sender(Guard(), timeout_s=2.0, resolver=Answers([ip])) as sender:
        for host in ("inside.test", literal):
            for url in (f"https://{host}/", f"https://{host}:8443/"):
                assert (await post(sender, url)).error == "address_refused"


@pytest.mark.parametrize("host", ["localhost", "0x7f.1", "127.1", "2130706433", "0", "0177.0.0.1"])
async def test_other_ways_to_write_this_machine_are_refused(host, receivers):
    async with Sender(Guard(), timeout_s=2.0) as sender:
        for url in (f"https://{host}:8443/", f"http://{host}:{receivers.port}/"):
            answer = await post(sender, url)
            assert answer.error in ("address_refused", "bad_url", "dns_failed")
    assert receivers.got == []


async def test_a_name_that_changes_its_answer_meets_the_guard_each_time(receivers):
    names = Answers(["10.0.0.1"], ["127.0.0.1"], ["169.254.169.254"])
    async with Sender(Guard(), timeout_s=2.0, resolver=names) as sender:
        for _ in range(3):
            answer = await post(sender, f"https://rebound.test:{8443}/")
            assert answer.error == "address_refused"
            sender._secure.connector.clear_dns_cache()
    assert names.asked == 3


async def test_plain_http_goes_to_allowed_networks_alone(receivers):
    async with Sender(Guard(), timeout_s=2.0) as sender:
        assert (await post(sender, receivers.url())).error == "address_refused"
    async with Sender(INSIDE, timeout_s=2.0, resolver=Answers(["93.184.216.34"])) as sender:
        assert (await post(sender, "http://public.test/")).error == "address_refused"
    assert receivers.got == []


async def test_a_redirect_to_this_machine_is_not_followed(sender, receivers):
    await post(sender, receivers.url("/redirect"))

    assert [got.path for got in receivers.got] == ["/redirect"]


@pytest.mark.parametrize("port", [22, 25, 80, 5432, 6379, 9200])
async def test_public_addresses_are_reached_on_the_usual_ports_alone(port):
    async with Sender(Guard(), timeout_s=2.0, resolver=Answers(["93.184.216.34"])) as sender:
        assert (await post(sender, f"https://public.test:{port}/")).error == "address_refused"


async def test_the_gateway_itself_is_refused_in_an_allowed_network(receivers):
    guard = Guard(LOOPBACK, frozenset({receivers.port}))
    async with Sender(guard, timeout_s=2.0) as sender:
        assert (await post(sender, receivers.url())).error == "address_refused"


@pytest.mark.parametrize("host", ["enrichd.test", "EnrichD.test", "enrichd.test."])
async def test_the_installations_own_name_is_refused_wherever_it_leads(receivers, host, tmp_path):
    env = {
        "CALLBACK_BASE_URL": "https://enrichd.test/base",
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    guard = guard_of(Settings.load(env, directory=tmp_path))
    url = f"http://{host}:{receivers.port}/"
    async with Sender(guard, timeout_s=2.0, resolver=Answers(["127.0.0.1"])) as sender:
        assert (await post(sender, url)).error == "address_refused"
        assert (await post(sender, url.replace("enrichd", "x").replace("EnrichD", "x"))).is_taken
    with pytest.raises(Invalid, match="own address"):
        check_url(url, guard)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://user:pass@example.com/",
        "https://example.com/\n",
        "https:///path",
        "gopher://127.0.0.1:6379/_x",
        "https://" + "a" * 2048 + ".com/",
        "unix:///run/docker.sock",
    ],
)
async def test_what_is_no_target_is_not_connected_to(sender, url):
    assert (await post(sender, url)).error == "bad_url"


async def test_no_proxy_is_asked(receivers, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with Sender(INSIDE, timeout_s=1.0) as sender:
        assert (await post(sender, receivers.url())).is_taken


def test_line_ends_and_tabs_stay():
    assert cleaned("a\r\nb\tc\nd") == "a\nb\tc\nd"


class Answers(AbstractResolver):
    """A resolver that gives one list of addresses after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(self, host, port=0, family=socket.AF_INET):
        self.asked += 1
        ips = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            {
                "hostname": host,
                "host": ip,
                "port": port,
                "family": socket.AF_INET6 if ":" in ip else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for ip in ips
        ]

    async def close(self):
        pass


class Slow(Answers):
    async def resolve(self, host, port=0, family=socket.AF_INET):
        await asyncio.Event().wait()
