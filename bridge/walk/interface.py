"""Ports as values: `Interface` is a device or the tunnel, `NamedPort` is where frames come and go.

The tunnel is one interface and many ports, one for each node: `vpn` is the default node's port, `vpn:NODE` another
node's. Every other interface is one port of the same name. Addresses are integers, so that the walk compares integers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from alias.types import Egress
from arp.port import ArpPort
from bridge.walk.counters import PortCounters
from bridge.walk.settings import Framing, GatewaySettings, PortSettings
from route.table import node_of, vpn_target
from wire.units import prefix_mask

VPN = "vpn"


@dataclass(slots=True, eq=False)
class Interface:
    """One of tap0, tap1, tun0 and vpn, while the gateway runs. `PortSettings` says the units of its fields.

    `neighbours` answers which MAC address a next hop has; it is None where frames have no Ethernet header. `mask` is
    the prefix length of `network` as 32 bits. An `address` of 0 means that the port has none. `linked_address` is the
    address that links of `egress` belong to: `address`, or while there is none the address of an earlier run.
    `silent_from_ns`: when the first packet left for `gateway` since something came from there, None where none did;
    `has_spoken`: an IP packet has come from there (`bridge.walk.forwarding.next_hops`).
    """

    name: str
    framing: Framing
    is_inside: bool
    mtu_bytes: int
    address: int = 0
    linked_address: int = 0
    network: int = 0
    mask: int = 0xFFFFFFFF
    mac: bytes = b""
    gateway: int = 0
    neighbours: ArpPort | None = None
    egress: Egress | None = None
    edges: frozenset[int] = frozenset()
    counters: PortCounters = field(default_factory=PortCounters)
    silent_from_ns: int | None = None
    has_spoken: bool = False

    def is_on_link(self, address: int) -> bool:
        """True where `address` lies in the connected subnet."""
        return self.network != 0 and address & self.mask == self.network

    def next_hop(self, destination: int) -> int:
        """The address that a packet for `destination` is handed to here (RFC 1812 5.2.4.2)."""
        gateway = self.gateway
        if gateway and not (self.network != 0 and destination & self.mask == self.network):
            return gateway
        return destination

    def set_address(self, port: PortSettings, rng: random.Random) -> None:
        """Take address, subnet, MTU and next hop, and on a tap an ARP table that knows nothing but the static entries.

        The MAC address stays, because the device has it; a default that is made from the address names another one. A
        port that waits for its lease (`port.address` is 0) has none of these, and its ARP table is deaf. `ValueError`
        where a static entry is impossible.
        """
        self.mtu_bytes = port.mtu_bytes
        self.address = port.address
        self.network = port.network
        self.mask = prefix_mask(port.prefix_length)
        self.edges = port.edges
        self.gateway = port.gateway if port.address else 0
        if port.framing == "ethernet":
            self.neighbours = ArpPort(
                port.address,
                port.prefix_length,
                self.mac,
                port.static_arp if port.address else {},
                rng,
                reachable_ns=port.arp_timeout_ns,
                beyond=port.beyond,
            )


@dataclass(slots=True, eq=False)
class NamedPort:
    """Where a frame came in or leaves. `name` is public (`tap0`, `tap1`, `tun0`, `vpn`, `vpn:NODE`); `node` is the node
    of the tunnel behind it, None for devices, and for `vpn` where no default node is configured."""

    name: str
    interface: Interface
    node: str | None = None


class Ports:
    """All ports by name. The ports of nodes are made when they are first named.

    `interfaces`: by name, in the order of the settings. `direct`: the ports that an interface's name stands for.
    """

    def __init__(self, settings: GatewaySettings, rng: random.Random) -> None:
        self.interfaces: dict[str, Interface] = {}
        for port in settings.ports:
            interface = self.interfaces[port.name] = Interface(
                port.name,
                framing=port.framing,
                is_inside=port.is_inside,
                mtu_bytes=port.mtu_bytes,
                mac=port.mac,
                egress=port.egress,
            )
            interface.set_address(port, rng)
            interface.linked_address = interface.address
        self.default_node: str | None = None
        self.direct = {name: NamedPort(name, interface) for name, interface in self.interfaces.items()}
        self._by_name: dict[str, NamedPort] = {}
        self.set_default(settings.default_node)

    def set_default(self, node: str | None) -> None:
        """Put `node` behind the port `vpn`. Frames that wait in a store keep the port that they came by."""
        self.default_node = node
        if VPN in self.direct:
            self.direct[VPN] = NamedPort(VPN, self.interfaces[VPN], node)
        self._by_name = dict(self.direct)

    def named(self, name: str) -> NamedPort:
        """The port of a name. `KeyError` where its interface is not configured."""
        port = self._by_name.get(name)
        if port is None:
            interface_name, _, node = name.partition(":")
            port = self._by_name[name] = NamedPort(name, self.interfaces[interface_name], node or None)
        return port

    def of_node(self, node: str) -> NamedPort:
        """The port of a node. `KeyError` where there is no tunnel."""
        return self.named(VPN if node == self.default_node else vpn_target(node))

    def name_of(self, target: str) -> str:
        """The name of the port that a routing target stands for: `vpn:NODE` is `vpn` for the default node."""
        node = node_of(target)
        if node is None:
            return target
        return VPN if node == self.default_node else vpn_target(node)
