"""Whose address counts: the peer's, or the one that a proxy on this host adds."""

from __future__ import annotations

import pytest

from enrichd.api.failed_attempts import BURST
from enrichd.gateway.clients import caller_behind


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("::1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:127.0.0.1", ["[2001:db8::7]"], "2001:db8::7"),
        ("127.0.0.1", ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["203.0.113.7, "], "127.0.0.1"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["x" * 8000], "127.0.0.1"),
        ("192.0.2.1", ["203.0.113.7"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.7"], "10.0.0.1"),
        ("", ["203.0.113.7"], ""),
    ],
)
def test_a_proxy_on_this_host_says_who_called_and_nobody_else(peer, forwarded, caller):
    assert caller_behind(peer, forwarded) == caller


async def test_behind_a_proxy_one_callers_bad_keys_hold_up_no_other(served):
    stranger = served.client("enr_wrong", **{"X-Forwarded-For": "203.0.113.7"})
    for _ in range(BURST):
        assert (await stranger.get("/jobs")).status_code == 401

    late = await stranger.get("/jobs")
    same = await served.client("key-b", **{"X-Forwarded-For": "9.9.9.9, 203.0.113.7"}).get("/jobs")
    good = await served.client("key-a", **{"X-Forwarded-For": "203.0.113.8"}).get("/jobs")

    assert [answer.status_code for answer in (late, same, good)] == [429, 429, 200]
