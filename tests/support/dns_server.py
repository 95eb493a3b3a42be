"""A real DNS server on loopback, UDP and TCP on one port, for tests.

    with DnsServer({"acme.example": {"MX": ["10 mx.acme.example."]}}) as server:
        Resolver(nameservers=[server.address])

A zone is a name's records by type, or a `Trouble` that every question about it gets; a type may
have its trouble too. CNAMEs are
followed as a resolver would. `"*"` answers for all names that are not listed; without it they do
not exist. Zones may be changed while the server runs. By hand: `python -m tests.support.dns_server
--port 5353 zones.json`, the same shape in JSON with `"SERVFAIL"` for trouble.
"""

from __future__ import annotations

import argparse
import json
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, ClassVar

from dnslib import QTYPE, RCODE, RR, SOA, DNSError, DNSRecord


class Trouble(StrEnum):
    """What a server does instead of answering."""

    SERVFAIL = "SERVFAIL"
    REFUSED = "REFUSED"
    DROP = "DROP"
    """Never answers: the question times out."""
    GARBAGE = "GARBAGE"
    """Answers with bytes that are no DNS message."""


Zone = Mapping[str, Sequence[str] | Trouble] | Trouble
"""Zone file values by type: `{"MX": ["10 mx.acme.example."], "TXT": ['"v=spf1 -all"']}`."""


class DnsServer:
    """A DNS server in threads of its own, from `with` to the end of the block."""

    def __init__(
        self,
        zones: Mapping[str, Zone] | None = None,
        *,
        port: int = 0,
        ttl_s: int = 300,
        truncated: Sequence[str] = (),
        vouches: bool = True,
    ) -> None:
        self.zones: MutableMapping[str, Zone] = dict(zones or {})
        self.ttl_s = ttl_s
        self.truncated = set(truncated)
        """Names whose records come over TCP only."""
        self.vouches = vouches
        """Whether a no carries the zone's SOA, as RFC 2308 demands and many a forwarder forgets."""
        self.queries: Counter[tuple[str, str, str]] = Counter()
        """How often was asked, by (name, type, "udp" or "tcp")."""
        self._was_asked = threading.Event()
        self._udp, self._tcp = _bind_both(port)
        for server in (self._udp, self._tcp):
            server.dns = self
        self.port = int(self._udp.server_address[1])
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> DnsServer:
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            for server in (self._udp, self._tcp)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in (self._udp, self._tcp):
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def asked(self, name: str | None = None, rtype: str | None = None, over: str = "") -> int:
        """Return how many questions matched."""
        return sum(
            count
            for (of_name, of_type, transport), count in self.queries.items()
            if name in (None, of_name) and rtype in (None, of_type) and over in ("", transport)
        )

    def wait_until_asked(self, *, within_s: float = 5.0) -> None:
        """Block until the first question arrives; raise TimeoutError if none does."""
        if not self._was_asked.wait(within_s):
            raise TimeoutError(f"no question within {within_s} s")

    def respond(self, wire: bytes, transport: str) -> bytes | None:
        """Return the answer to one message, None for silence."""
        try:
            request = DNSRecord.parse(wire)
        except DNSError:
            return None
        name = str(request.q.qname).rstrip(".").lower()
        rtype = QTYPE[request.q.qtype]
        self.queries[name, rtype, transport] += 1
        self._was_asked.set()
        reply = request.reply(ra=1, aa=0)
        zone = self._zone(name)
        match zone.get(rtype) if isinstance(zone, Mapping) else zone:
            case Trouble.DROP:
                return None
            case Trouble.GARBAGE:
                return wire[:2] + b"\xff\xff garbage"
            case Trouble.SERVFAIL | Trouble.REFUSED as trouble:
                reply.header.rcode = getattr(RCODE, trouble)
                return bytes(reply.pack())
        if transport == "udp" and name in self.truncated:
            reply.header.tc = 1
            return bytes(reply.pack())
        self._answer(reply, name, rtype)
        return bytes(reply.pack())

    def _zone(self, name: str) -> Zone | None:
        return self.zones.get(name, self.zones.get("*"))

    def _answer(self, reply: DNSRecord, name: str, rtype: str) -> None:
        for _ in range(20):  # a CNAME loop ends here, unanswered
            zone = self._zone(name)
            if zone is None and not self._has_children(name):
                reply.header.rcode = RCODE.NXDOMAIN
                break
            records = zone if isinstance(zone, Mapping) else {}
            if found := records.get(rtype, ()):
                for value in found:
                    reply.add_answer(*RR.fromZone(f"{name}. {self.ttl_s} IN {rtype} {value}"))
                return
            if not (alias := records.get("CNAME")):
                break
            reply.add_answer(*RR.fromZone(f"{name}. {self.ttl_s} IN CNAME {alias[0]}"))
            name = alias[0].rstrip(".").lower()
        if not self.vouches:
            return
        soa = SOA("ns.invalid.", "hostmaster.invalid.", (1, 60, 60, 60, self.ttl_s))
        reply.add_auth(RR(name or ".", QTYPE.SOA, ttl=self.ttl_s, rdata=soa))

    def _has_children(self, name: str) -> bool:
        return any(other.endswith("." + name) for other in self.zones)


class _OverUdp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        wire, sock = self.request
        if (answer := self.server.dns.respond(wire, "udp")) is not None:  # type: ignore[attr-defined]
            sock.sendto(answer, self.client_address)


class _OverTcp(socketserver.StreamRequestHandler):
    timeout = 2.0

    def handle(self) -> None:
        head = self.rfile.read(2)
        if len(head) < 2:
            return
        wire = self.rfile.read(struct.unpack("!H", head)[0])
        if (answer := self.server.dns.respond(wire, "tcp")) is not None:  # type: ignore[attr-defined]
            self.wfile.write(struct.pack("!H", len(answer)) + answer)


class _Udp(socketserver.UDPServer):
    max_packet_size = 65_535
    dns: DnsServer


class _Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address: ClassVar[bool] = True  # type: ignore[misc]
    daemon_threads = True
    dns: DnsServer


def _bind_both(port: int) -> tuple[_Udp, _Tcp]:
    # A port that is free for TCP may be taken for UDP, so a free one takes a few tries.
    for attempt in range(50):
        tcp = _Tcp(("127.0.0.1", port), _OverTcp)
        try:
            return _Udp(("127.0.0.1", tcp.server_address[1]), _OverUdp), tcp
        except OSError:
            tcp.server_close()
            if port or attempt == 49:
                raise
    raise AssertionError("unreachable")


def main() -> None:
    """Serve the zones of a JSON file until interrupted."""
    parser = argparse.ArgumentParser(description="A DNS server on 127.0.0.1 for tests.")
    parser.add_argument("zones", nargs="?", help="a JSON file: name -> records by type, or trouble")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    zones: dict[str, Any] = {}
    if options.zones:
        with open(options.zones, encoding="utf-8") as file:
            zones = json.load(file)
    with DnsServer(
        {name: Trouble(zone) if isinstance(zone, str) else zone for name, zone in zones.items()},
        port=options.port,
    ) as server:
        print(server.address, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
