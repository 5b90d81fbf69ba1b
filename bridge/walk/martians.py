"""Martians: addresses that no packet may carry, checked before anything is asked about where a packet goes.

RFC 1812 5.3.7 and RFC 6890 (martians), RFC 2827 (sources that do not live behind the port), RFC 1812 5.3.4 and 5.3.5,
RFC 1112 and RFC 2644 (group destinations). Every fault here is silent: RFC 1812 4.3.2.7 forbids most errors about them.
"""

from __future__ import annotations

from bridge.walk.forwarding.peer_prefixes import PeerPrefixes
from bridge.walk.interface import Interface
from bridge.walk.own import OwnAddresses
from bridge.walk.path import Arrival
from wire import gso, ipv4
from wire.drop import Drop
from wire.gso import GsoHeader
from wire.ipv4 import Packet


class Martians:
    """The rules for one set of interfaces. `peers`: whose the inner addresses are."""

    def __init__(self, interfaces: dict[str, Interface], own: OwnAddresses, peers: PeerPrefixes) -> None:
        self._own = own
        self._peers = peers
        self._tap0 = interfaces.get("tap0")
        self._tun0 = interfaces.get("tun0")
        self._vpn = interfaces.get("vpn")

    def source_fault(self, arrival: Arrival) -> Drop | None:
        """The reason to drop a packet for its source: no host may have it (RFC 1812 5.3.7), or it does not live behind
        the port or the peer (RFC 2827)."""
        source, interface, own = arrival.packet.source, arrival.port.interface, self._own
        network = source >> 24
        if network in (0, 127) or network >= 224 or source >> 16 == 0xA9FE:
            return Drop.IP_MARTIAN_SOURCE
        if source in own.addresses:
            return None if source == own.host and interface is self._tun0 else Drop.IP_MARTIAN_SOURCE
        if source in own.edges:
            return Drop.IP_MARTIAN_SOURCE
        if interface is self._tap0:
            return None if interface.is_on_link(source) else Drop.IP_SPOOFED_SOURCE
        if interface is self._tun0:
            return Drop.IP_SPOOFED_SOURCE if self._tap0 is not None else None
        if self._tap0 is not None and self._tap0.is_on_link(source):
            return Drop.IP_SPOOFED_SOURCE
        if interface is self._vpn:
            peer = arrival.port.node
            if peer is not None and not self._peers.may_send(peer, source):
                return Drop.TUNNEL_INNER_SOURCE
        return None

    def destination_fault(self, arrival: Arrival) -> Drop | None:
        """The reason to drop a packet for its destination, which is never forwarded (RFC 1812 5.3.4, 5.3.5 and 5.3.7,
        RFC 1112, RFC 2644)."""
        destination = arrival.packet.destination
        network = destination >> 24
        if 224 <= network < 240:
            return Drop.IP_MULTICAST
        if destination == ipv4.BROADCAST or destination in self._own.edges:
            return Drop.IP_BROADCAST
        if network in (0, 127) or network >= 240 or destination >> 16 == 0xA9FE:
            return Drop.IP_MARTIAN_DESTINATION
        return Drop.ETH_GROUP if arrival.group else None


def claims_hold(packet: Packet, claims: GsoHeader) -> bool:
    """Check what a port's virtio header claims of a packet; False where the claims contradict the packet.

    A partial checksum of an inner header (a host that tunnels) is completed at once, and the packet is plain from there
    on.
    """
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
