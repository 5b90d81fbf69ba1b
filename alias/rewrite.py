"""Another source or destination for a packet, in place, all checksums updated incrementally.

RFC 3022 4.1 (addresses, ports, the pseudo-header) and 4.2 (ICMP query identifiers), RFC 1624 (a checksum that was wrong
stays wrong), RFC 768 (a UDP checksum of zero means none and stays zero, a computed zero is sent as 0xFFFF).

What is touched behind the IP header: TCP, UDP: ports and checksum. ICMP queries: identifier and checksum. UDP-Lite
(RFC 3828) and DCCP (RFC 4340): the checksum, which covers the addresses. SCTP, GRE, ESP, ICMP errors and the rest:
nothing (for what an error quotes see `alias.quote`). Later fragments: nothing.

A partial checksum (`Packet.offload`) holds the sum of the pseudo-header, uncomplemented: it takes the delta of the
address alone, for the ports are not in it yet.
"""

from __future__ import annotations

import struct

from wire.checksum import apply, apply_icmp, apply_partial, delta16, delta32
from wire.ipv4 import DCCP, ICMP, ICMP_QUERIES, TCP, UDP, UDPLITE, Packet

_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")

CHECKSUM_OFFSET = {TCP: 16, UDP: 6, UDPLITE: 6, DCCP: 6}
"""Where in the transport header a checksum that covers the addresses stands."""
ZERO_IS_SENT_AS_ONES = frozenset({UDP, UDPLITE})
"""RFC 768, RFC 3828 3.1: a computed zero is transmitted as 0xFFFF."""


def source(packet: Packet, address: int, port: int) -> None:
    """Give the packet another source. `port`: the TCP or UDP port, or an ICMP query's identifier; else ignored."""
    delta = delta32(packet.source, address)
    _U32.pack_into(packet.data, 12, address)
    packet.source = address
    _header_checksum(packet.data, delta)
    if not packet.offset_bytes:
        _transport(packet, delta, port, 0)


def destination(packet: Packet, address: int, port: int) -> None:
    """Give the packet another destination; `port` as for `source`."""
    delta = delta32(packet.destination, address)
    _U32.pack_into(packet.data, 16, address)
    packet.destination = address
    _header_checksum(packet.data, delta)
    if not packet.offset_bytes:
        _transport(packet, delta, port, 2)


def _header_checksum(data: bytearray, delta: int) -> None:
    """The checksum of the IP header after a change of an address."""
    _U16.pack_into(data, 10, apply(data[10] << 8 | data[11], delta))


def _transport(packet: Packet, address_delta: int, port: int, port_offset: int) -> None:
    """The transport header of a whole packet or first fragment; `port_offset` is 0 for the source, 2 for the
    destination."""
    data, start, protocol = packet.data, packet.header_bytes, packet.protocol
    if protocol == ICMP:
        if data[start] in ICMP_QUERIES:
            delta = delta16(packet.source_port, port)
            packet.source_port = packet.destination_port = port
            _U16.pack_into(data, start + 4, port)
            _U16.pack_into(data, start + 2, apply_icmp(memoryview(data)[start:], delta))
        return
    offset = CHECKSUM_OFFSET.get(protocol)
    if offset is None:
        return
    field = start + offset
    if field + 2 > len(data):
        return  # UDP-Lite or DCCP too short to have one: it passes as it came
    delta = address_delta
    if protocol in (TCP, UDP):
        if port_offset:
            delta += delta16(packet.destination_port, port)
            packet.destination_port = port
        else:
            delta += delta16(packet.source_port, port)
            packet.source_port = port
        _U16.pack_into(data, start + port_offset, port)
    check = data[field] << 8 | data[field + 1]
    if packet.offload is not None and packet.offload.partial:
        check = apply_partial(check, address_delta)
    elif protocol == UDP and check == 0:
        return
    else:
        check = apply(check, delta)
        if check == 0 and protocol in ZERO_IS_SENT_AS_ONES:
            check = 0xFFFF
    _U16.pack_into(data, field, check)
