"""Another source or destination for a packet, in place, all checksums updated incrementally.

RFC 3022 4.1 (addresses, ports, the pseudo-header) and 4.2 (ICMP query identifiers), RFC 1624 (a checksum that was wrong
stays wrong), RFC 768 (a UDP checksum of zero means none and stays zero, a computed zero is sent as 0xFFFF).

What is touched behind the IP header: TCP, UDP: ports and checksum. ICMP queries: identifier and checksum. UDP-Lite
(RFC 3828) and DCCP (RFC 4340): the checksum, which covers the addresses. SCTP, GRE, ESP, ICMP errors and the rest:
nothing (for what an error quotes see `alias.quote`). Later fragments: nothing.

A partial checksum (`Packet.gso`) holds the sum of the pseudo-header, uncomplemented: it takes the delta of the
address alone, for the ports are not in it yet.
"""

from __future__ import annotations

import struct

from wire.checksum import apply, apply_icmp, apply_partial, delta16
from wire.ipv4 import DCCP, ICMP, ICMP_QUERIES, TCP, UDP, UDPLITE, Packet

_U16 = struct.Struct("!H")
_FROM_TTL = struct.Struct("!BBHII")  # the IP header from the TTL to the destination

CHECKSUM_OFFSET = {TCP: 16, UDP: 6, UDPLITE: 6, DCCP: 6}
"""Where in the transport header a checksum that covers the addresses stands."""
ZERO_IS_SENT_AS_ONES = frozenset({UDP, UDPLITE})
"""RFC 768, RFC 3828 3.1: a computed zero is transmitted as 0xFFFF."""


End = tuple[int, int]
"""An address with its port: the TCP or UDP port, or an ICMP query's identifier; else ignored."""


def forward(packet: Packet, ttl: int, source: End | None, destination: End | None) -> None:
    """Give the packet another TTL, and another source and destination where there is one; each checksum is touched
    once, by the delta of everything that it covers."""
    data = packet.data
    # Deltas as those of `wire.checksum`, not folded: 0xFFFFFFFF and 0xFFFF count as zero and keep them from
    # being negative.
    addresses = 0
    if source is not None:
        addresses = source[0] - packet.source + 0xFFFFFFFF
        packet.source = source[0]
    if destination is not None:
        addresses += destination[0] - packet.destination + 0xFFFFFFFF
        packet.destination = destination[0]
    check = apply(data[10] << 8 | data[11], addresses + ((ttl - packet.ttl) << 8) + 0xFFFF)
    packet.ttl = ttl
    _FROM_TTL.pack_into(data, 8, ttl, packet.protocol, check, packet.source, packet.destination)
    if not packet.offset_bytes and (source is not None or destination is not None):
        _transport(packet, addresses, source, destination)


def source(packet: Packet, address: int, port: int) -> None:
    """Give the packet another source. `port`: the TCP or UDP port, or an ICMP query's identifier; else ignored."""
    forward(packet, packet.ttl, (address, port), None)


def destination(packet: Packet, address: int, port: int) -> None:
    """Give the packet another destination; `port` as for `source`."""
    forward(packet, packet.ttl, None, (address, port))


def _transport(packet: Packet, addresses: int, source: End | None, destination: End | None) -> None:
    """The transport header of a whole packet or first fragment; `addresses`: their delta."""
    data, start, protocol = packet.data, packet.header_bytes, packet.protocol
    if protocol == ICMP:
        named = destination or source
        if data[start] in ICMP_QUERIES and named is not None:
            delta = delta16(packet.source_port, named[1])
            packet.source_port = packet.destination_port = named[1]
            _U16.pack_into(data, start + 4, named[1])
            _U16.pack_into(data, start + 2, apply_icmp(memoryview(data)[start:], delta))
        return
    offset = CHECKSUM_OFFSET.get(protocol)
    if offset is None:
        return
    field = start + offset
    if field + 2 > len(data):
        return  # UDP-Lite or DCCP too short to have one: it passes as it came
    delta = addresses
    if protocol in (TCP, UDP):
        if source is not None:
            delta += source[1] - packet.source_port + 0xFFFF
            packet.source_port = source[1]
            _U16.pack_into(data, start, source[1])
        if destination is not None:
            delta += destination[1] - packet.destination_port + 0xFFFF
            packet.destination_port = destination[1]
            _U16.pack_into(data, start + 2, destination[1])
    check = data[field] << 8 | data[field + 1]
    if packet.gso is not None and packet.gso.partial:
        check = apply_partial(check, addresses)
    elif protocol == UDP and check == 0:
        return
    else:
        check = apply(check, delta)
        if check == 0 and protocol in ZERO_IS_SENT_AS_ONES:
            check = 0xFFFF
    _U16.pack_into(data, field, check)
