"""The two ends of a flow, in two shapes: `FlowEnds` as seen from inside, `WireEnds` as on a wire."""

from __future__ import annotations

from alias import quote as quotes
from wire.drop import Drop
from wire.ipv4 import ICMP, Packet

FlowEnds = tuple[int, int, int, int, int]
"""(protocol, inside address, inside port, remote address, remote port)."""

WireEnds = tuple[int, int, int, int]
"""(source, source port, destination, destination port), as `flow.table.Table.learn` takes them."""


def flow_ends(packet: Packet) -> FlowEnds | None:
    """The flow of a packet from inside, or of the packet that an ICMP error from inside quotes; None where the error
    quotes no packet."""
    if not packet.is_icmp_error:
        return packet.protocol, packet.source, packet.source_port, packet.destination, packet.destination_port
    quote = quotes.read(packet)
    if isinstance(quote, Drop):
        return None
    return quote.protocol, quote.destination, quote.destination_port, quote.source, quote.source_port


def wire_ends(packet: Packet) -> WireEnds:
    """A packet's ends as the flow table keys them: the destination port of an ICMP message is its type."""
    if packet.protocol == ICMP and not packet.offset_bytes:
        return packet.source, packet.source_port, packet.destination, packet.data[packet.header_bytes]
    return packet.source, packet.source_port, packet.destination, packet.destination_port
