"""Who is at the other end: the peer, or the caller that a proxy on this host speaks for."""

from __future__ import annotations

import ipaddress

from aiohttp import web

HEADER = "X-Forwarded-For"


def client_of(incoming: web.Request) -> str:
    """Return the caller's address, empty if nobody knows it."""
    peer = incoming.remote or ""
    return caller_behind(peer, incoming.headers.getall(HEADER, ()))


def caller_behind(peer: str, forwarded: tuple[str, ...] | list[str]) -> str:
    """Return whom a peer on loopback says it speaks for, else the peer.

    Only the last address counts, which the proxy added itself; those before it are what its caller
    said. A peer elsewhere is never asked: anybody could say anything.
    """
    if not forwarded or not is_loopback(peer):
        return peer
    last = forwarded[-1].rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(last.strip("[]")))
    except ValueError:
        return peer


def is_loopback(address: str) -> bool:
    """Say whether an address is of this host's own."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
