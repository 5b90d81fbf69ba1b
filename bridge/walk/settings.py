"""The settings of the walk: frozen values, integers inside, nothing that was not checked before.

`bridge.config.into_walk` makes them from a configuration file. The walk knows no file format and no key of one; a test
may make them by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from alias.types import AliasSettings, Egress, Forward
from dhcp.settings import ClientSettings
from route.lists import Prefix
from wire.units import SECOND_NS

Framing = Literal["ethernet", "ip"]
"""How frames of a port begin: with an Ethernet header (taps) or with the IP header (tun devices and the tunnel)."""


@dataclass(frozen=True, slots=True)
class PortSettings:
    """One of tap0, tap1, tun0 and vpn."""

    name: str
    framing: Framing
    is_inside: bool
    """tap0 and tun0 are inside, tap1 and vpn are outside."""
    mtu_bytes: int
    """The largest IP packet that leaves by the port."""
    address: int = 0
    """Our own address, on vpn the alias of LAN hosts; 0 where the port has none, or waits for a lease."""
    network: int = 0
    """The subnet whose hosts are neighbours; 0 where the port has no neighbours."""
    prefix_length: int = 32
    edges: frozenset[int] = frozenset()
    """Network and broadcast address of the configured subnet, if it has them (RFC 3021)."""
    gateway: int = 0
    """The next hop of addresses outside the subnet; 0: every address is asked for on the port itself."""
    beyond: int = 0
    """A neighbour outside the subnet that is on the link all the same, as the gateway of a /32; 0: there is none."""
    dhcp: ClientSettings | None = None
    """How the port's DHCP client presents itself, and what a lease must fit; None where the address is static."""
    written_at: tuple[str, int] = ("", 0)
    """The file and the line that say the address, for people."""
    egress: Egress | None = None
    """The alias address that packets get when they leave here; None: they keep their source."""
    mac: bytes = b""
    """Our MAC address, six bytes; empty for raw IP."""
    static_arp: Mapping[int, bytes] = field(default_factory=dict)
    """MAC addresses by IPv4 address, which no ARP frame changes."""
    arp_timeout_ns: int = 30 * SECOND_NS
    """How long a neighbour's answer is believed."""


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """A configured peer of the tunnel."""

    name: str
    allowed_ips: tuple[Prefix, ...] | None = ()
    """Inner addresses that are the peer's. None where a plain device stands in for the tunnel: the peer may send from
    any address and owns none."""
    has_exit: bool = False
    """The peer's packets may leave by our tap1."""
    fallbacks: tuple[str, ...] = ()
    """The nodes that take this one's new flows while it is unreachable, in their order."""


@dataclass(frozen=True, slots=True)
class IcmpSettings:
    """Our own ICMP messages."""

    answer_on_tap1: bool = True
    """Echo requests from the ISP side are answered."""
    errors_per_second: int = 1000
    mute: frozenset[str] = frozenset()
    """Names of ports whose hosts get no ICMP error from us."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Everything that the walk is told, but for the routes (`route.table.RouteTable`)."""

    source: str
    """The file that these settings come from, for people; the walk never reads it."""
    ports: tuple[PortSettings, ...]
    """In the order tap0, tap1, tun0, vpn, as far as they are configured."""
    alias: AliasSettings = field(default_factory=AliasSettings)
    """Timers as an operator wrote them. A gateway with a flow table adds the time by which the table reports late."""
    forwards: tuple[Forward, ...] = ()
    reserved_ports: tuple[tuple[Egress, int, int], ...] = ()
    """(egress, protocol, port): outside ports that no link may get."""
    exempt: tuple[Prefix, ...] = ()
    """Remotes that see the true sources (RFC 6888 REQ-6)."""
    icmp: IcmpSettings = IcmpSettings()
    peers: tuple[PeerSettings, ...] = ()
    default_node: str | None = None
    """The node behind the port `vpn`, which takes everything that nothing else names."""
    has_default_port: bool = False
    """People may name the port `vpn` alone: without `[vpn]` every node has to be named (`vpn:NODE`)."""

    def port(self, name: str) -> PortSettings | None:
        """The settings of a port by its name; None where it is not configured."""
        return next((port for port in self.ports if port.name == name), None)

    def static_arp(self, name: str) -> Mapping[int, bytes]:
        """The static ARP entries of a port."""
        port = self.port(name)
        return {} if port is None else port.static_arp

    @property
    def has_tunnel(self) -> bool:
        """True where the port `vpn` exists."""
        return self.port("vpn") is not None
