"""Only globally routed unicast is public, however an address is dressed."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address

import pytest

from enrichd.domain.addresses import is_public, parse_networks

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.1",
    "168.63.129.15",
    "172.15.255.255",
    "172.32.0.1",
    "191.255.255.255",
    "192.0.1.1",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.1",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
]

NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.8",
    "192.0.0.9",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700:4700::1111%1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]

NOT_ADDRESSES = ["", "localhost", "0x7f.1", "127.1", "2130706433", "1.1.1.1:80", "1.1.1.256"]


@pytest.mark.parametrize("ip", PUBLIC)
def test_a_globally_routed_address_is_public(ip):
    assert is_public(ip)
    assert is_public(ip_address(ip))


@pytest.mark.parametrize("ip", NOT_PUBLIC)
def test_everything_else_is_not(ip):
    assert not is_public(ip)
    assert not is_public(ip_address(ip))


@pytest.mark.parametrize("text", NOT_ADDRESSES)
def test_text_that_is_no_canonical_address_is_refused(text):
    assert not is_public(text)


def test_an_allowed_network_lets_inside_receivers_through():
    inside = parse_networks(["10.0.0.0/8", "fd00::/8"])

    assert is_public("10.1.2.3", allowed_networks=inside)
    assert is_public("fd00::5", allowed_networks=inside)
    assert not is_public("192.168.0.1", allowed_networks=inside)


def test_an_allowed_network_does_not_open_the_wrapped_forms_of_it():
    inside = parse_networks(["127.0.0.0/8"])

    assert not is_public("::ffff:127.0.0.1", allowed_networks=inside)
    assert not is_public("64:ff9b::7f00:1", allowed_networks=inside)
    assert not is_public("2002:7f00:1::", allowed_networks=inside)


def test_a_denied_network_closes_a_public_address_and_the_allowed_one_wins():
    ours = parse_networks(["93.184.216.0/24"])

    assert not is_public("93.184.216.34", denied_networks=ours)
    assert is_public("93.184.216.34", allowed_networks=ours, denied_networks=ours)


def test_networks_are_read_with_host_bits_and_as_single_addresses():
    assert parse_networks(["10.1.2.3/8", " 192.0.2.7 "]) == (
        IPv4Network("10.0.0.0/8"),
        IPv4Network("192.0.2.7/32"),
    )
    with pytest.raises(ValueError, match="loopback"):
        parse_networks(["loopback"])
