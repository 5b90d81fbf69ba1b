"""IPv4 packets: the header checks, the fields that the walk reads, fragmentation and options.

RFC 791 (format, fragmentation: `fragments_of`), RFC 1812 5.2.2 (`parse`: the checks in their order), RFC 1812 5.3.13
and RFC 7126 (`options_fault`), RFC 6864 (an identification matters only where DF is clear).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from wire.checksum import apply, checksum, delta16
from wire.drop import Drop
from wire.gso import GsoHeader

MINIMUM_HEADER_BYTES = 20
ICMP, IGMP, TCP, UDP, GRE, ESP, DCCP, SCTP, UDPLITE = 1, 2, 6, 17, 47, 50, 33, 132, 136
DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000
BROADCAST = 0xFFFFFFFF
_FRAGMENT = 0x3FFF  # more fragments, or an offset

OPTION_END, OPTION_NOP, OPTION_LSRR, OPTION_SSRR = 0, 1, 131, 137
_COPIED = 0x80

_FIXED = struct.Struct("!BBHHHBBHII")
_PORTS = struct.Struct("!HH")


class Packet:
    """An IPv4 packet that passed `parse`, with its fields read once. Code that rewrites `data` sets the fields, too
    (see
    `alias.rewrite`).

    `data`: the packet without link header and padding. `header_bytes`: of the IP header. `is_fragment`: a first,
    middle or last one. `offset_bytes`: of a fragment. `source_port` and `destination_port`: TCP and UDP ports; for an
    ICMP query both are its identifier; 0 for later fragments and every other protocol. `gso`: its virtio header,
    None for a plain packet.
    """

    __slots__ = (
        "data",
        "destination",
        "destination_port",
        "dont_fragment",
        "gso",
        "header_bytes",
        "identification",
        "is_fragment",
        "more_fragments",
        "offset_bytes",
        "protocol",
        "source",
        "source_port",
        "tos",
        "ttl",
    )
    data: bytearray
    gso: GsoHeader | None
    source: int
    destination: int
    protocol: int
    ttl: int
    tos: int
    identification: int
    header_bytes: int
    offset_bytes: int

    def __init__(self, data: bytearray, gso: GsoHeader | None) -> None:
        first, self.tos, _, self.identification, flags, self.ttl, self.protocol, _, self.source, self.destination = (
            _FIXED.unpack_from(data)
        )
        self.data = data
        self.gso = gso
        self.header_bytes = (first & 15) * 4
        self.offset_bytes = (flags & 0x1FFF) * 8
        self.more_fragments = bool(flags & MORE_FRAGMENTS)
        self.is_fragment = bool(flags & _FRAGMENT)
        self.dont_fragment = bool(flags & DONT_FRAGMENT)
        self.source_port = 0
        self.destination_port = 0

    @property
    def payload_bytes(self) -> int:
        """Bytes behind the IP header."""
        return len(self.data) - self.header_bytes

    @property
    def is_icmp_error(self) -> bool:
        """True for an ICMP message that quotes a packet; False for later fragments, which show no type."""
        return (
            self.protocol == ICMP
            and not self.offset_bytes
            and self.payload_bytes > 0
            and self.data[self.header_bytes] in ICMP_ERRORS
        )

    def copy(self) -> Packet:
        """An independent packet with the same bytes and fields."""
        twin = Packet.__new__(Packet)
        twin.data = self.data[:]
        twin.gso = self.gso
        twin.source = self.source
        twin.destination = self.destination
        twin.source_port = self.source_port
        twin.destination_port = self.destination_port
        twin.protocol = self.protocol
        twin.ttl = self.ttl
        twin.tos = self.tos
        twin.identification = self.identification
        twin.header_bytes = self.header_bytes
        twin.offset_bytes = self.offset_bytes
        twin.more_fragments = self.more_fragments
        twin.is_fragment = self.is_fragment
        twin.dont_fragment = self.dont_fragment
        return twin


ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
ICMP_QUERY_REQUESTS = frozenset({8, 13, 15, 17})
ICMP_QUERY_REPLIES = frozenset({0, 14, 16, 18})
ICMP_QUERIES = ICMP_QUERY_REQUESTS | ICMP_QUERY_REPLIES


def parse(frame: bytes | bytearray | memoryview, start: int = 0, gso: GsoHeader | None = None) -> Packet | Drop:
    """The packet that begins at byte `start` of a frame, trimmed to its total length, or the reason to drop it.

    The order is RFC 1812 5.2.2: 20 bytes, checksum, version, header length, total length. Transport headers are
    checked by `read_transport`, which needs a first fragment.
    """
    available = len(frame) - start
    if available < MINIMUM_HEADER_BYTES:
        return Drop.IP_SHORT
    first = frame[start]
    header_bytes = (first & 15) * 4
    summed = header_bytes
    if not MINIMUM_HEADER_BYTES <= header_bytes <= available:
        summed = min(max(header_bytes, MINIMUM_HEADER_BYTES), available)
    words = int.from_bytes(frame[start : start + summed], "big")
    if words % 0xFFFF or not words:  # `is_valid` without the call: every packet comes by here
        return Drop.IP_CHECKSUM
    if first >> 4 != 4:
        return Drop.IP_VERSION
    if header_bytes < MINIMUM_HEADER_BYTES:
        return Drop.IP_HEADER_LENGTH
    if header_bytes > available:
        return Drop.IP_SHORT
    total_bytes = frame[start + 2] << 8 | frame[start + 3]
    if total_bytes < header_bytes or total_bytes > available:
        return Drop.IP_TOTAL_LENGTH
    data = bytearray(frame)
    del data[start + total_bytes :]
    del data[:start]  # moves a pointer, not the bytes
    return Packet(data, gso)


def read_transport(packet: Packet) -> Drop | None:
    """Read the ports (or the ICMP query's identifier) of an unfragmented packet or a first fragment into the packet.

    Refused: a TCP header below 20 bytes or beyond the packet, UDP or ICMP below 8 bytes, a UDP length below 8 or beyond
    the packet (a first fragment may promise more), ports of zero. Later fragments and other protocols pass unread.
    """
    if packet.offset_bytes:
        return None
    data, start, protocol = packet.data, packet.header_bytes, packet.protocol
    room = len(data) - start
    if protocol == TCP:
        if room < 20:
            return Drop.TRANSPORT_SHORT
        header = (data[start + 12] >> 4) * 4
        if header < 20 or (header > room and not packet.more_fragments):
            return Drop.TRANSPORT_SHORT
    elif protocol == UDP:
        if room < 8:
            return Drop.TRANSPORT_SHORT
        length = data[start + 4] << 8 | data[start + 5]
        is_super = packet.gso is not None and packet.gso.gso_type
        if length < 8 or (length > room and not packet.more_fragments and not is_super):
            return Drop.TRANSPORT_SHORT
    elif protocol == ICMP:
        if room < 8:
            return Drop.TRANSPORT_SHORT
        if data[start] in ICMP_QUERIES:
            packet.source_port = packet.destination_port = data[start + 4] << 8 | data[start + 5]
        return None
    else:
        return None
    packet.source_port, packet.destination_port = _PORTS.unpack_from(data, start)
    if not packet.source_port or not packet.destination_port:
        return Drop.TRANSPORT_PORT_ZERO
    return None


def options_fault(packet: Packet) -> tuple[Drop, int] | None:
    """The first bad option as (reason, offset from the header's start), or None. ICMP 12/0 points at the offset.

    Bad are impossible lengths and source routes (RFC 7126 4.3, 4.4). All other options pass as they are.
    """
    data, end = packet.data, packet.header_bytes
    at = MINIMUM_HEADER_BYTES
    while at < end:
        kind = data[at]
        if kind == OPTION_END:
            return None
        if kind == OPTION_NOP:
            at += 1
            continue
        length = data[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            return Drop.IP_OPTION, at
        if kind in (OPTION_LSRR, OPTION_SSRR):
            return Drop.IP_SOURCE_ROUTE, at
        at += length
    return None


def set_identification(packet: Packet, identification: int) -> None:
    """Write another identification, the header checksum updated incrementally (RFC 6864 5.3.1)."""
    data = packet.data
    check = apply(data[10] << 8 | data[11], delta16(packet.identification, identification))
    data[4:6] = identification.to_bytes(2, "big")
    data[10:12] = check.to_bytes(2, "big")
    packet.identification = identification


def header(
    source: int,
    destination: int,
    protocol: int,
    payload_bytes: int,
    *,
    ttl: int = 64,
    tos: int = 0,
    identification: int = 0,
    flags: int = 0,
) -> bytes:
    """A 20-byte header with its checksum, for packets that the gateway itself originates. `flags`: the 16-bit field."""
    packed = bytearray(
        _FIXED.pack(
            0x45,
            tos,
            MINIMUM_HEADER_BYTES + payload_bytes,
            identification,
            flags,
            ttl,
            protocol,
            0,
            source,
            destination,
        )
    )
    packed[10:12] = checksum(packed).to_bytes(2, "big")
    return bytes(packed)


def fragments_of(packet: Packet, mtu_bytes: int) -> Iterator[Packet]:
    """The packet cut for an MTU (RFC 791 3.2, RFC 1812 4.2.2.7): in order, the same identification, payloads of a
    multiple of eight bytes but the last, options repeated in later fragments only where their copy bit is set.

    The packet is plain (no `gso`) and DF is clear; it may be a fragment itself.
    """
    data, header_bytes = packet.data, packet.header_bytes
    first_header = bytes(data[:header_bytes])
    later_header = _later_header(first_header)
    payload = memoryview(data)[header_bytes:]
    at = 0
    while at < len(payload):
        head = first_header if at == 0 else later_header
        room = (mtu_bytes - len(head)) // 8 * 8
        part = payload[at : at + room]
        if at + room > len(payload) or len(payload) - at <= mtu_bytes - len(head):
            part = payload[at:]
        more = packet.more_fragments or at + len(part) < len(payload)
        piece = bytearray(head)
        piece += part
        field = (packet.offset_bytes + at) // 8 | (MORE_FRAGMENTS if more else 0)
        struct.pack_into("!H", piece, 2, len(piece))
        struct.pack_into("!H", piece, 6, field)
        struct.pack_into("!H", piece, 10, 0)
        struct.pack_into("!H", piece, 10, checksum(memoryview(piece)[: len(head)]))
        fragment = Packet(piece, None)
        if at == 0:
            fragment.source_port, fragment.destination_port = packet.source_port, packet.destination_port
        yield fragment
        at += len(part)


def _later_header(first_header: bytes) -> bytes:
    """The header of every fragment but the first: the fixed part and the options with the copy bit, padded."""
    options = bytearray()
    at = MINIMUM_HEADER_BYTES
    while at < len(first_header) and first_header[at] != OPTION_END:
        length = 1 if first_header[at] == OPTION_NOP else first_header[at + 1]
        if first_header[at] & _COPIED:
            options += first_header[at : at + length]
        at += length
    options += bytes(-len(options) % 4)
    head = bytearray(first_header[:MINIMUM_HEADER_BYTES]) + options
    head[0] = 0x40 | len(head) // 4
    return bytes(head)
