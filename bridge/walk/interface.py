"""The gateway's interfaces, read from the configuration once: integers inside, so that the walk compares integers."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from alias.types import Egress
from arp.port import ArpPort
from bridge.config.into_routes import subnet_edges
from bridge.config.load import Config
from bridge.config.model import Tap0Table, Tap1Table
from bridge.walk.counters import PortCounters
from wire.units import prefix_mask, seconds_ns


@dataclass(slots=True, eq=False)
class Interface:
    """One of tap0, tap1, tun0 and vpn.

    `address` is our own (of the vpn: the alias of LAN hosts, 0 where there is none). `network` and `mask` are the
    subnet whose hosts are neighbours, 0 where a port has none; `edges` are the network and broadcast address of the
    configured subnet. `arp` is None for raw IP ports. `egress` names the alias address that packets get when they
    leave here.
    """

    name: str
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


def is_ethernet(config: Config, port: str) -> bool:
    """True for ports whose frames begin with an Ethernet header."""
    return port == "tap0" or (port == "tap1" and (config.tap1 is None or config.tap1.kind == "tap"))


def take_address(interface: Interface, port: Tap0Table | Tap1Table, rng: random.Random) -> None:
    """Give a port its address, subnet and next hop, and where it has a MAC address an ARP table that knows nothing but
    the static entries. A port that waits for its lease has none of them, and an ARP table that is deaf."""
    if port.address is None:
        interface.arp = ArpPort(0, 32, interface.mac, {}, rng)
        return
    address, length = int(port.address.ip), port.address.network.prefixlen
    interface.address = address
    interface.network = int(port.address.network.network_address)
    interface.mask = prefix_mask(length)
    interface.edges = subnet_edges(port.address)
    if interface.mac:
        interface.arp = ArpPort(
            address, length, interface.mac, port.arp, rng, reachable_ns=seconds_ns(port.arp_timeout)
        )
    if isinstance(port, Tap1Table):
        interface.gateway = int(port.gateway) if port.gateway is not None else 0


def interfaces_from(config: Config, rng: random.Random) -> dict[str, Interface]:
    """The interfaces that the configuration names, in the order tap0, tap1, tun0, vpn."""
    found: dict[str, Interface] = {}
    for name, port in (("tap0", config.tap0), ("tap1", config.tap1)):
        if port is None:
            continue
        interface = Interface(name, is_inside=name == "tap0", address=0, mtu_bytes=port.mtu)
        if isinstance(port, Tap0Table) or port.kind == "tap":
            interface.mac = port.mac
        if isinstance(port, Tap1Table):
            interface.egress = Egress.TAP1
        take_address(interface, port, rng)
        found[name] = interface
    if config.tun0 is not None:
        address = int(config.tun0.address.ip)
        edges = subnet_edges(config.tun0.address)
        found["tun0"] = Interface("tun0", is_inside=True, address=address, mtu_bytes=config.tun0_mtu, edges=edges)
    if config.has_vpn:
        alias = int(config.vpn.address) if config.vpn is not None and config.vpn.address is not None else 0
        found["vpn"] = Interface("vpn", is_inside=False, address=alias, mtu_bytes=config.vpn_mtu, egress=Egress.VPN)
    return found
