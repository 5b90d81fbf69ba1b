"""The virtio header that a tap or tun with `IFF_VNET_HDR` puts in front of a frame (VIRTIO 1.2 5.1.6).

A *super-frame* is up to 64 KB of one TCP or UDP flow under one header; it is cut into packets of `gso_bytes` payload. A
*partial* checksum holds only the uncomplemented sum of the pseudo-header; the last device before the wire completes it.
Offsets in a `GsoHeader` count from the start of the **IP packet**; the ports add and take off their link header.

Where an egress supports neither, `segment` makes ordinary packets with whole checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from wire.checksum import checksum, ones_sum, pseudo_header_sum

HEADER = struct.Struct("=BBHHHH")
HEADER_BYTES = HEADER.size

NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4 = 0, 1, 3, 4, 5
GSO_ECN = 0x80

SMALLEST_SEGMENT_BYTES = 8  # of TCP; a UDP segment (UDP_SEGMENT) may be shorter
MOST_TINY_SEGMENTS = 128  # UDP segments shorter than that in one super-frame: the kernel makes no more

_TCP, _UDP = 6, 17  # names of `wire.ipv4` and `wire.tcp`, which import this module
_TCP_FIN, _TCP_PSH, _TCP_CWR = 0x01, 0x08, 0x80


class GsoHeader(NamedTuple):
    """The virtio header of one IPv4 packet that is not plain. Plain packets have None instead of one.

    `partial`: the transport checksum at `checksum_start + checksum_offset` is partial. `gso_type`: 0 or one of the
    GSO constants (with `GSO_ECN`); `gso_bytes`: transport payload of each segment; `header_bytes`: of all headers up
    to the payload, from the start of the IP packet (a hint, may be 0).
    """

    partial: bool
    gso_type: int
    header_bytes: int
    gso_bytes: int
    checksum_start: int
    checksum_offset: int


def untagged(gso: GsoHeader, tag_bytes: int) -> GsoHeader:
    """The header of a frame from whose link header `tag_bytes` were taken: its offsets were counted with them."""
    return gso._replace(
        header_bytes=max(gso.header_bytes - tag_bytes, 0), checksum_start=gso.checksum_start - tag_bytes
    )


def unpack(header: bytes | bytearray | memoryview, link_bytes: int) -> GsoHeader | None:
    """Read the ten bytes in front of a frame with `link_bytes` of link header; None for a plain packet."""
    flags, gso_type, header_bytes, gso_bytes, start, offset = HEADER.unpack_from(header)
    if not flags & NEEDS_CSUM and gso_type == GSO_NONE:
        return None
    return GsoHeader(
        bool(flags & NEEDS_CSUM), gso_type, max(header_bytes - link_bytes, 0), gso_bytes, start - link_bytes, offset
    )


PLAIN = bytes(HEADER_BYTES)


def pack(gso: GsoHeader | None, link_bytes: int) -> bytes:
    """The ten bytes in front of a frame with `link_bytes` of link header. None: a plain packet's."""
    if gso is None:
        return PLAIN
    if not gso.partial:
        return HEADER.pack(0, gso.gso_type, gso.header_bytes + link_bytes, gso.gso_bytes, 0, gso.checksum_offset)
    return HEADER.pack(
        NEEDS_CSUM,
        gso.gso_type,
        min(gso.header_bytes + link_bytes, 0xFFFF) if gso.gso_type else 0,  # the sender's hint
        gso.gso_bytes,
        gso.checksum_start + link_bytes,
        gso.checksum_offset,
    )


def is_consistent(packet: bytes | bytearray | memoryview, gso: GsoHeader) -> bool:
    """True where the virtio header fits the checked, unfragmented IPv4 packet: the checksum field lies inside, the GSO
    type is the protocol's and the segment size is possible. An inconsistent packet is dropped, never repaired."""
    ip_bytes = (packet[0] & 15) * 4
    protocol = packet[9]
    if protocol == _TCP:
        offset, kind = 16, GSO_TCPV4
        if len(packet) < ip_bytes + 20:
            return False
        transport_bytes = (packet[ip_bytes + 12] >> 4) * 4
        if transport_bytes < 20:
            return False
    elif protocol == _UDP:
        offset, kind, transport_bytes = 6, GSO_UDP_L4, 8
    else:
        return False
    if gso.partial and (gso.checksum_start, gso.checksum_offset) != (ip_bytes, offset):
        return False
    if len(packet) < ip_bytes + transport_bytes:
        return False
    if gso.gso_type == GSO_NONE:
        return True
    if gso.gso_type & ~GSO_ECN != kind or not gso.partial:
        return False
    if gso.gso_bytes >= SMALLEST_SEGMENT_BYTES:
        return True
    payload_bytes = len(packet) - ip_bytes - transport_bytes
    return protocol == _UDP and 0 < payload_bytes <= MOST_TINY_SEGMENTS * gso.gso_bytes


def as_partial(packet: bytearray, gso: GsoHeader) -> GsoHeader:
    """Give a TCP super-frame that came without a partial checksum one, in place; leave any other packet as it is.

    A device that merges segments itself has verified them and may leave any checksum behind. A whole checksum is
    useless on a packet that will be cut. The kernel does the same (tcp4_gso_segment).
    """
    ip_bytes = (packet[0] & 15) * 4
    field = ip_bytes + 16
    if gso.partial or gso.gso_type & ~GSO_ECN != GSO_TCPV4 or packet[9] != _TCP or len(packet) < field + 2:
        return gso
    source, destination = struct.unpack_from("!II", packet, 12)
    packet[field : field + 2] = pseudo_header_sum(source, destination, _TCP, len(packet) - ip_bytes).to_bytes(2, "big")
    return gso._replace(partial=True, checksum_start=ip_bytes, checksum_offset=16)


def complete(packet: bytearray, gso: GsoHeader) -> None:
    """Turn the partial checksum of one packet into a whole one, in place (RFC 1071; a UDP zero becomes 0xFFFF)."""
    if not gso.partial:
        return
    field = gso.checksum_start + gso.checksum_offset
    value = checksum(memoryview(packet)[gso.checksum_start :])
    if value == 0 and packet[9] == _UDP:
        value = 0xFFFF
    packet[field : field + 2] = value.to_bytes(2, "big")


def segment(packet: bytearray, gso: GsoHeader) -> Iterator[bytearray]:
    """Cut a consistent super-frame into ordinary packets, in order, with whole checksums.

    Sequence numbers, IP identifications, total lengths and UDP lengths are set; FIN and PSH stay on the last segment,
    CWR on the first (RFC 3168 6.1.2). A packet that is no super-frame is yielded itself, its checksum completed.
    """
    if gso.gso_type == GSO_NONE:
        complete(packet, gso)
        yield packet
        return
    ip_bytes = (packet[0] & 15) * 4
    protocol = packet[9]
    header_bytes = ip_bytes + ((packet[ip_bytes + 12] >> 4) * 4 if protocol == _TCP else 8)
    headers = bytes(packet[:header_bytes])
    identification = int.from_bytes(headers[4:6], "big")
    source, destination = struct.unpack_from("!II", headers, 12)
    sequence = int.from_bytes(headers[ip_bytes + 4 : ip_bytes + 8], "big") if protocol == _TCP else 0
    flags = headers[ip_bytes + 13] if protocol == _TCP else 0
    payload = memoryview(packet)[header_bytes:]
    for index, start in enumerate(range(0, len(payload), gso.gso_bytes) or (0,)):  # without payload: one packet
        part = payload[start : start + gso.gso_bytes]
        piece = bytearray(headers)
        piece += part
        struct.pack_into("!HH", piece, 2, len(piece), (identification + index) & 0xFFFF)
        struct.pack_into("!H", piece, 10, 0)
        struct.pack_into("!H", piece, 10, checksum(memoryview(piece)[:ip_bytes]))
        transport_length = len(piece) - ip_bytes
        if protocol == _TCP:
            keep = flags
            if start + len(part) < len(payload):
                keep &= ~(_TCP_FIN | _TCP_PSH)
            if index:
                keep &= ~_TCP_CWR
            struct.pack_into("!I", piece, ip_bytes + 4, (sequence + start) & 0xFFFFFFFF)
            piece[ip_bytes + 13] = keep
            field = ip_bytes + 16
        else:
            struct.pack_into("!H", piece, ip_bytes + 4, transport_length)
            field = ip_bytes + 6
        struct.pack_into("!H", piece, field, 0)
        pseudo = pseudo_header_sum(source, destination, protocol, transport_length)
        value = ones_sum(memoryview(piece)[ip_bytes:], pseudo) ^ 0xFFFF
        if value == 0 and protocol == _UDP:
            value = 0xFFFF
        struct.pack_into("!H", piece, field, value)
        yield piece
