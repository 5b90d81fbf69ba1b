"""Answers to packets that are addressed to the gateway itself.

RFC 792 and RFC 1812 4.3.3.6 (`echo_reply`: source and destination swapped, data and TOS as they came), RFC 9293
3.10.7.1 (`reset`: how a closed TCP port answers). Errors about closed UDP ports and unknown protocols are made by
`icmp.errors`.
"""

from __future__ import annotations

import struct

from wire import ipv4, tcp
from wire.checksum import apply_icmp, checksum, delta16, is_valid, ones_sum, pseudo_header_sum
from wire.ipv4 import Packet

ECHO_REQUEST, ECHO_REPLY = 8, 0


def is_echo_request(packet: Packet) -> bool:
    """True for an echo request, whole or its first fragment."""
    return (
        packet.protocol == ipv4.ICMP
        and not packet.offset_bytes
        and packet.payload_bytes >= 8
        and packet.data[packet.header_bytes] == ECHO_REQUEST
    )


def has_valid_transport_checksum(packet: Packet) -> bool:
    """True where the transport checksum of a whole packet is right. A partial one counts as right: the kernel made
    it."""
    if packet.gso is not None and packet.gso.partial:
        return True
    payload = memoryview(packet.data)[packet.header_bytes :]
    if packet.protocol == ipv4.ICMP:
        return is_valid(payload)
    if packet.protocol == ipv4.UDP:
        length = payload[4] << 8 | payload[5]
        if payload[6] == payload[7] == 0:
            return True
        payload = payload[:length]
    elif packet.protocol != ipv4.TCP:
        return True
    pseudo = pseudo_header_sum(packet.source, packet.destination, packet.protocol, len(payload))
    return ones_sum(payload, pseudo) == 0xFFFF


def echo_reply(request: Packet, identification: int) -> Packet:
    """The reply to a whole, valid echo request. The caller fragments it for the port's MTU."""
    body = bytearray(memoryview(request.data)[request.header_bytes :])
    body[0] = ECHO_REPLY
    check = apply_icmp(memoryview(body), delta16(ECHO_REQUEST << 8 | body[1], ECHO_REPLY << 8 | body[1]))
    body[2:4] = check.to_bytes(2, "big")
    head = ipv4.header(
        request.destination, request.source, ipv4.ICMP, len(body), tos=request.tos, identification=identification
    )
    return Packet(bytearray(head) + body, None)


def reset(segment: Packet, identification: int) -> Packet | None:
    """The reset that answers a TCP segment to a closed port; None where the segment is a reset itself."""
    read = tcp.read(segment)
    if read.flags & tcp.RST:
        return None
    if read.flags & tcp.ACK:
        sequence, acknowledgment, flags = read.acknowledgment, 0, tcp.RST
    else:
        sequence, acknowledgment, flags = 0, (read.sequence + read.length) & 0xFFFFFFFF, tcp.RST | tcp.ACK
    body = bytearray(
        struct.pack(
            "!HHIIBBHHH",
            segment.destination_port,
            segment.source_port,
            sequence,
            acknowledgment,
            5 << 4,
            flags,
            0,
            0,
            0,
        )
    )
    pseudo = pseudo_header_sum(segment.destination, segment.source, ipv4.TCP, len(body))
    body[16:18] = checksum(body, pseudo).to_bytes(2, "big")
    head = ipv4.header(
        segment.destination,
        segment.source,
        ipv4.TCP,
        len(body),
        identification=identification,
        flags=ipv4.DONT_FRAGMENT,
    )
    return Packet(bytearray(head) + body, None)
