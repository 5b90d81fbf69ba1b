"""IPv6 routers on a wire that the gateway shares with them are noticed (report 35)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6ND_RA, IPv6

from bridge.walk.counters import MOST_ROUTERS
from bridge.walk.effects import Event
from bridge.walk.gateway import Gateway
from tests.conformance.harness import Ether, Scenario


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    """A gateway as the daemon has it, without events."""
    s = Scenario(tmp_path, "V")
    return Gateway(s.gateway.settings, s.gateway.routes, random.Random(0))


def advertised(mac: str) -> bytes:
    return bytes(Ether(src=mac, dst="33:33:00:00:00:01") / IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_RA())


def test_an_ipv6_router_is_told_once_and_remembered(gateway: Gateway) -> None:
    frame = advertised("02:aa:00:00:00:66")
    assert gateway.receive("tap0", frame, 0) == [Event("tap0", "ipv6_router", {"mac": "02:aa:00:00:00:66"})]
    assert gateway.receive("tap0", frame, 1) == []
    assert gateway.counters.ipv6_routers == {("tap0", bytes.fromhex("02aa00000066"))}


def test_forged_routers_fill_no_memory(gateway: Gateway) -> None:
    for number in range(100):
        gateway.receive("tap0", advertised(f"02:aa:00:00:01:{number:02x}"), number)
    assert len(gateway.counters.ipv6_routers) == MOST_ROUTERS


def test_other_ipv6_frames_are_no_routers(gateway: Gateway) -> None:
    asked = Ether(src="02:aa:00:00:00:66", dst="33:33:00:00:00:01") / IPv6(dst="ff02::1") / ICMPv6ND_NS()
    for length in range(14, len(asked) + 1):
        assert gateway.receive("tap0", bytes(asked)[:length], 0) == []
    assert gateway.receive("tap0", advertised("02:aa:00:00:00:66")[:54], 0) == []
    assert not gateway.counters.ipv6_routers
