"""Consecutive segments of a TCP flow as one super-frame: the inverse of `wire.gso.segment`.

Up to 64 KB then take one walk and one write. Segments are merged only where cutting the super-frame gives the same
segments back: in sequence, of one size (the last may be shorter), with no flags but ACK and PSH, and otherwise equal in
both headers. PSH ends a super-frame. Checksums are verified before merging, because cutting makes new ones and a
segment that arrived damaged must stay damaged. Every other packet passes as it is. The order within a flow is kept.

IP identifications must count up, as they do after cutting. They may also be equal on packets with DF set, where they
have no meaning (RFC 6864 4.1): some stacks leave them 0.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from wire.checksum import apply, delta16, ones_sum, pseudo_header_sum
from wire.gso import GSO_TCPV4, SMALLEST_SEGMENT_BYTES, GsoHeader

_IP_BYTES: Final = 20
_LONGEST_BYTES: Final = 65_535
_ORDINARY: Final = b"\x45"  # version 4, no options
_TCP: Final = 6
_ACK, _PSH = 0x10, 0x08
_DONT_FRAGMENT: Final = 0x4000
_FIELDS = struct.Struct("!BBHHHBBH12sIIBBHHH")
"""A packet of 40 bytes and more: version, TOS, length, identification, fragment, TTL, protocol, checksum, addresses and
ports, sequence number, acknowledgment, data offset, flags, window, checksum, urgent pointer."""

FrameWithGso = tuple[bytes, GsoHeader | None]


class _Run:
    """Segments of one flow, each continuing where the one before ended."""

    __slots__ = ("constant", "following", "header_bytes", "identification", "parts", "segment_bytes", "size")

    def __init__(self, packet: bytes, header_bytes: int, following: int, identification: int) -> None:
        self.parts = [packet]
        self.header_bytes = header_bytes
        self.segment_bytes = len(packet) - header_bytes
        self.size = len(packet)
        self.following = following
        self.identification = identification
        self.constant: bool | None = None  # whether all have one identification; None while there is one segment


def coalesce(packets: Sequence[bytes]) -> list[FrameWithGso]:
    """IPv4 packets, well-formed or not, as packets for the walk: plain ones, and super-frames with a partial
    checksum."""
    if len(packets) < 2:
        return [(packet, None) for packet in packets]
    order: list[_Run | bytes] = []
    open_runs: dict[bytes, _Run] = {}
    for packet in packets:
        size = len(packet)
        ordinary = packet[:1] == _ORDINARY and size >= _IP_BYTES
        if not ordinary or packet[9] != _TCP or size < _IP_BYTES + 20:
            if not ordinary or packet[9] == _TCP:
                open_runs.clear()  # e.g. IP options, or a cut header: it may belong to any of the flows
            order.append(packet)
            continue
        _, _, length, identification, fragment, _, _, _, ends, sequence, _, offset, flags, _, _, urgent = (
            _FIELDS.unpack_from(packet)
        )
        run = open_runs.get(ends)
        header_bytes = _IP_BYTES + (offset >> 4) * 4
        payload_bytes = size - header_bytes
        if (
            flags & ~_PSH != _ACK
            or length != size
            or payload_bytes < SMALLEST_SEGMENT_BYTES
            or offset < 0x50
            or fragment & ~_DONT_FRAGMENT
            or urgent
            or not _is_whole(packet, ends)
        ):
            open_runs.pop(ends, None)
            order.append(packet)
            continue
        if run is not None and _continues(run, packet, sequence, identification, header_bytes, fragment):
            run.parts.append(packet)
            run.size += payload_bytes
            run.identification = identification
        else:
            run = open_runs[ends] = _Run(packet, header_bytes, sequence, identification)
            order.append(run)
        run.following = (sequence + payload_bytes) & 0xFFFFFFFF
        if flags & _PSH or payload_bytes < run.segment_bytes:
            del open_runs[ends]
    return [_frame(item) if isinstance(item, _Run) else (item, None) for item in order]


def _is_whole(packet: bytes, ends: bytes) -> bool:
    """True where both checksums are right. `ends`: the 12 bytes of addresses and ports."""
    pseudo = ones_sum(ends[:8], _TCP + len(packet) - _IP_BYTES)
    return ones_sum(packet[:_IP_BYTES]) == 0xFFFF and ones_sum(packet[_IP_BYTES:], pseudo) == 0xFFFF


def _continues(run: _Run, packet: bytes, sequence: int, identification: int, header_bytes: int, fragment: int) -> bool:
    first = run.parts[0]
    payload_bytes = len(packet) - header_bytes
    if (
        sequence != run.following
        or header_bytes != run.header_bytes
        or payload_bytes > run.segment_bytes
        or run.size + payload_bytes > _LONGEST_BYTES
        or packet[1] != first[1]  # TOS
        or packet[6:9] != first[6:9]  # DF, TTL
        or packet[28:33] != first[28:33]  # acknowledgment, data offset
        or packet[34:36] != first[34:36]  # window
        or packet[40:header_bytes] != first[40:header_bytes]  # options
    ):
        return False
    constant = identification == run.identification
    if run.constant is not None and constant is not run.constant:
        return False
    if constant:
        if not fragment & _DONT_FRAGMENT:
            return False
    elif identification != (run.identification + 1) & 0xFFFF:
        return False
    run.constant = constant
    return True


def _frame(run: _Run) -> FrameWithGso:
    first = run.parts[0]
    if len(run.parts) == 1:
        return first, None
    header_bytes, size = run.header_bytes, run.size
    frame = bytearray(first)
    for part in run.parts[1:]:
        frame += memoryview(part)[header_bytes:]
    checksum = apply(first[10] << 8 | first[11], delta16(len(first), size))
    struct.pack_into("!H", frame, 2, size)
    struct.pack_into("!H", frame, 10, checksum)
    frame[33] = run.parts[-1][33]  # PSH, where the last one has it
    source, destination = struct.unpack_from("!II", first, 12)
    struct.pack_into("!H", frame, 36, pseudo_header_sum(source, destination, _TCP, size - _IP_BYTES))
    return bytes(frame), GsoHeader(True, GSO_TCPV4, header_bytes, run.segment_bytes, _IP_BYTES, 16)
