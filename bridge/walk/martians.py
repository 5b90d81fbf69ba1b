"""Which addresses a packet may carry at all, before anything is asked about where it goes.

RFC 1812 5.3.7 and RFC 6890 (martians), RFC 2827 (sources that do not live behind the port), RFC 1812 5.3.4 and 5.3.5,
RFC 1112 and RFC 2644 (group destinations). Every fault here is silent: RFC 1812 4.3.2.7 forbids most errors about them.
"""

from __future__ import annotations

from bridge.walk.interface import Interface
from bridge.walk.nodes import Nodes
from bridge.walk.path import Arrival
from bridge.walk.peer_prefixes import PeerPrefixes
from wire import gso, ipv4
from wire.drop import Drop
from wire.gso import GsoHeader
from wire.ipv4 import Packet


class Admission:
    """The rules for one set of interfaces. `peers`: whose the inner addresses are; a reload puts another one here."""

    def __init__(self, interfaces: dict[str, Interface], peers: PeerPrefixes, nodes: Nodes) -> None:
        self.peers = peers
        self._nodes = nodes
        self._tap0 = interfaces.get("tap0")
        self._tun0 = interfaces.get("tun0")
        self._vpn = interfaces.get("vpn")
        self._host = self._tun0.address if self._tun0 is not None else 0
        self._interfaces = interfaces
        self.readdressed()

    def readdressed(self) -> None:
        """The interfaces have their addresses."""
        self._own = {itf.address for itf in self._interfaces.values() if itf.address}
        self._edges = {edge for itf in self._interfaces.values() for edge in itf.edges}

    def source_fault(self, arrival: Arrival) -> Drop | None:
        """RFC 1812 5.3.7 and RFC 2827: sources that no host may have, and those that do not live behind the port or the
        peer."""
        source, interface = arrival.packet.source, arrival.interface
        network = source >> 24
        if network in (0, 127) or network >= 224 or source >> 16 == 0xA9FE:
            return Drop.IP_MARTIAN_SOURCE
        if source in self._own:
            return None if source == self._host and interface is self._tun0 else Drop.IP_MARTIAN_SOURCE
        if source in self._edges:
            return Drop.IP_MARTIAN_SOURCE
        if interface is self._tap0:
            return None if interface.is_on_link(source) else Drop.IP_SPOOFED_SOURCE
        if interface is self._tun0:
            return Drop.IP_SPOOFED_SOURCE if self._tap0 is not None else None
        if self._tap0 is not None and self._tap0.is_on_link(source):
            return Drop.IP_SPOOFED_SOURCE
        if interface is self._vpn:
            peer = self._nodes.node_at(arrival.port)
            if peer is not None and not self.peers.may_send(peer, source):
                return Drop.TUNNEL_INNER_SOURCE
        return None

    def destination_fault(self, arrival: Arrival) -> Drop | None:
        """RFC 1812 5.3.4, 5.3.5 and 5.3.7, RFC 1112, RFC 2644: destinations that are never forwarded."""
        destination = arrival.packet.destination
        network = destination >> 24
        if 224 <= network < 240:
            return Drop.IP_MULTICAST
        if destination == ipv4.BROADCAST or destination in self._edges:
            return Drop.IP_BROADCAST
        if network in (0, 127) or network >= 240 or destination >> 16 == 0xA9FE:
            return Drop.IP_MARTIAN_DESTINATION
        return Drop.ETH_GROUP if arrival.group else None


def claims_hold(packet: Packet, claims: GsoHeader) -> bool:
    """Check what the port said of a packet. A partial checksum that is not the outer transport's (a host that tunnels)
    is completed at once and the packet is plain from there on; False where the claims contradict the packet."""
    if claims.gso_type:
        if packet.is_fragment:
            return False
        claims = packet.gso = gso.as_partial(packet.data, claims)
    if not packet.is_fragment and gso.is_consistent(packet.data, claims):
        return True
    if claims.gso_type or not claims.partial:
        return False
    field_at = claims.checksum_start + claims.checksum_offset
    if claims.checksum_start < packet.header_bytes or field_at + 2 > len(packet.data):
        return False
    gso.complete(packet.data, claims)
    packet.gso = None
    return True
