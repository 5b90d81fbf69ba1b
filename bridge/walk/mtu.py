"""How long a packet may be that leaves by a port (RFC 1191), and how a longer one is cut (RFC 791 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bridge.walk.interface import NamedPort
from wire import gso, ipv4
from wire.ipv4 import Packet

IP_TCP_HEADER_BYTES = 40
"""RFC 6691: an MSS counts neither the IP header nor the TCP header, both without options."""


class PathMtus:
    """The MTU of each port, lowered by what is known of the path behind it.

    `on_change` is called when `known` was replaced. `segments`: by port name, the packet size in bytes that the MSS of
    connections is made for, where that is less than the MTU.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.segments: Mapping[str, int] = {}
        self._known: Mapping[str, int] = {}

    @property
    def known(self) -> Mapping[str, int]:
        """The MTU of paths in bytes, by port name; ports that are not named have their interface's MTU."""
        return self._known

    @known.setter
    def known(self, known: Mapping[str, int]) -> None:
        if known != self._known:
            self._known = known
            self.on_change()

    def towards(self, port: NamedPort) -> int:
        """The largest packet that may leave by a port, in bytes."""
        mtu_bytes = port.interface.mtu_bytes
        return min(self._known.get(port.name, mtu_bytes), mtu_bytes) if self._known else mtu_bytes

    def segment_bytes(self, port: NamedPort) -> int:
        """The packet that the MSS of connections by a port is made for, in bytes."""
        mtu_bytes = self.towards(port)
        return min(self.segments.get(port.name, mtu_bytes), mtu_bytes) if self.segments else mtu_bytes

    def most_segment_bytes(self, one: NamedPort, other: NamedPort) -> int:
        """The largest MSS that a connection between two ports may offer, in bytes."""
        return min(self.segment_bytes(one), self.segment_bytes(other)) - IP_TCP_HEADER_BYTES


def wire_bytes(packet: Packet) -> int:
    """The size of the largest IP packet that `packet` is on a wire: of a super-frame, one full segment."""
    claims = packet.gso
    if claims is None or not claims.gso_type:
        return len(packet.data)
    start = packet.header_bytes
    transport_bytes = (packet.data[start + 12] >> 4) * 4 if packet.protocol == ipv4.TCP else 8
    return min(start + transport_bytes + claims.gso_bytes, len(packet.data))


def pieces(packet: Packet, mtu_bytes: int) -> Sequence[Packet]:
    """The packet whole where it fits, else its fragments. The caller has checked that DF is clear (`Decision`)."""
    if len(packet.data) <= mtu_bytes or wire_bytes(packet) <= mtu_bytes:
        return (packet,)
    if packet.gso is None:
        return [*ipv4.fragments_of(packet, mtu_bytes)]
    return [
        fragment
        for segment in gso.segment(packet.data, packet.gso)
        for fragment in ipv4.fragments_of(Packet(segment, None), mtu_bytes)
    ]
