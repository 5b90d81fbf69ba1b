"""Two gateways of one seed, with short words for the packets that cross them: `TwinWorld`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alias.types import Link
from trials.fuzz.targets.flow import (
    HOST,
    LAN_HOSTS,
    STATIC_ARP,
    X_TAP1,
    X_VPN,
    FlowPair,
    Twins,
    packet,
)
from trials.fuzz.targets.frames import MACS
from wire.ethernet import IPV4_TYPE
from wire.ipv4 import DONT_FRAGMENT, ICMP, UDP
from wire.units import address_int, mac_bytes

A, B = LAN_HOSTS
E = address_int("203.0.113.5")  # offloaded: by tap1
F = address_int("198.51.100.7")  # by the tunnel
ROUTER_TEXT = "192.168.1.1"
ROUTER = address_int(ROUTER_TEXT)
NEW_MAC = mac_bytes("02:aa:00:00:00:99")
WITHOUT_STATIC = STATIC_ARP.replace('"192.168.1.1" = "02:aa:00:00:00:01"', "")
PEERS = """
[peer.hk]
allowed_ips = ["0.0.0.0/0"]
fallback = "de"
[peer.de]
allowed_ips = ["0.0.0.0/0", "10.9.0.0/24"]
"""


class TwinWorld(Twins):
    """Twins with short words for their packets. Packets have DF, or they would be walked for their identification."""

    def port_of(self, source: int) -> str:
        return "tun0" if source == HOST else "tap0"

    def inside(self, protocol: int, ends: FlowPair, data: bytes = b"data", **more: int) -> bool:
        """A packet from the LAN or the host; True where it was repeated."""
        return self.put(self.port_of(ends[0]), protocol, ends, data, **more)

    def put(self, port: str, protocol: int, ends: FlowPair, data: bytes = b"data", **more: int) -> bool:
        raw = packet(protocol, ends, data, **{"flags": DONT_FRAGMENT, **more})
        return self.inject(port, (MACS[port] + IPV4_TYPE if port in MACS else b"") + raw)[1]

    def link(self, protocol: int, inside: int, inside_port: int) -> Link:
        """The link of an inside endpoint, of the gateway that repeats."""
        return next(
            link
            for link in self.fast.aliases.links(self.now)
            if (link.protocol, link.inside, link.inside_port) == (protocol, inside, inside_port)
        )

    def answer(self, remote: int, protocol: int = UDP, source: int = A, port: int = 5000, **more: Any) -> bool:
        """The remote's packet back to the link of an inside endpoint."""
        link = self.link(protocol, source, port)
        address = X_TAP1 if link.egress.label == "tap1" else X_VPN
        ends = (remote, link.outside_port, address, 0) if protocol == ICMP else (remote, 53, address, link.outside_port)
        return self.put(link.egress.label, protocol, ends, **more)


def learned(world: TwinWorld, remote: int = E, source: int = A) -> Callable[[], bool]:
    """A UDP flow whose decision is repeated; what comes back sends its next packet."""

    def once() -> bool:
        return world.inside(UDP, (source, 5000, remote, 53))

    assert not once()
    assert once()
    return once
