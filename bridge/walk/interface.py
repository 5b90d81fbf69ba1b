"""The gateway's interfaces: the ports of the settings, with what they hold while the gateway runs."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from alias.types import Egress
from arp.port import ArpPort
from bridge.walk.counters import PortCounters
from bridge.walk.settings import Framing, GatewaySettings, PortSettings
from wire.units import prefix_mask


@dataclass(slots=True, eq=False)
class Interface:
    """One of tap0, tap1, tun0 and vpn.

    `address` is our own (of the vpn: the alias of LAN hosts, 0 where there is none). `network` and `mask` are the
    subnet whose hosts are neighbours, 0 where a port has none; `edges` are the network and broadcast address of the
    configured subnet. `arp` is None for raw IP ports. `egress` names the alias address that packets get when they
    leave here.
    """

    name: str
    framing: Framing
    is_inside: bool
    address: int
    mtu_bytes: int
    network: int = 0
    mask: int = 0xFFFFFFFF
    mac: bytes = b""
    gateway: int = 0
    arp: ArpPort | None = None
    egress: Egress | None = None
    edges: frozenset[int] = frozenset()
    counters: PortCounters = field(default_factory=PortCounters)

    def is_on_link(self, address: int) -> bool:
        """True where `address` lies in the connected subnet."""
        return self.network != 0 and address & self.mask == self.network


def take_address(interface: Interface, port: PortSettings, rng: random.Random) -> None:
    """Give a port its address, subnet and next hop, and where it has a MAC address an ARP table that knows nothing but
    the static entries."""
    interface.address = port.address
    interface.network = port.network
    interface.mask = prefix_mask(port.prefix_length)
    interface.edges = port.edges
    interface.gateway = port.gateway
    if port.framing == "ethernet":
        interface.arp = ArpPort(
            port.address, port.prefix_length, port.mac, port.static_arp, rng, reachable_ns=port.arp_timeout_ns
        )


def interfaces_from(settings: GatewaySettings, rng: random.Random) -> dict[str, Interface]:
    """The interfaces by name, in the order of the settings."""
    found: dict[str, Interface] = {}
    for port in settings.ports:
        interface = Interface(
            port.name,
            framing=port.framing,
            is_inside=port.is_inside,
            address=port.address,
            mtu_bytes=port.mtu_bytes,
            mac=port.mac,
            egress=port.egress,
        )
        take_address(interface, port, rng)
        found[port.name] = interface
    return found
