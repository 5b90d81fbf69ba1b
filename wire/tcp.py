"""TCP as a middlebox reads it: flags, sequence numbers, and the two options it must know (RFC 9293, RFC 7323)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from wire.checksum import apply, delta16
from wire.ipv4 import Packet

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
OPTION_END, OPTION_NOP, OPTION_MSS, OPTION_WINDOW_SCALE = 0, 1, 2, 3
MINIMUM_MSS = 536

_FROM_SEQUENCE = struct.Struct("!IIBBH")  # the TCP header from the sequence number to the window


@dataclass(slots=True)
class Segment:
    """The fields that the state machine of a link reads. `length`: of its sequence space, SYN and FIN included.
    `window_scale`: 0 to 14; None unless this is a SYN with the option (RFC 7323 2)."""

    flags: int
    sequence: int
    acknowledgment: int
    window: int
    length: int
    window_scale: int | None


def read(packet: Packet) -> Segment:
    """The segment of a packet whose transport header passed `wire.ipv4.read_transport`."""
    data, start = packet.data, packet.header_bytes
    sequence, acknowledgment, offset, flags, window = _FROM_SEQUENCE.unpack_from(data, start + 4)
    length = max(len(data) - start - (offset >> 4) * 4, 0)
    if flags & FIN:
        length += 1
    scale = None
    if flags & SYN:
        length += 1
        at = option_offset(packet, OPTION_WINDOW_SCALE, 3)
        if at:
            scale = min(data[at + 2], 14)
    return Segment(flags, sequence, acknowledgment, window, length, scale)


def opens(packet: Packet) -> bool:
    """True for a SYN. Only a SYN carries the option that `clamp_mss` lowers."""
    return bool(packet.data[packet.header_bytes + 13] & SYN)


def option_offset(packet: Packet, wanted: int, wanted_length: int) -> int:
    """The offset in `packet.data` at which an option begins; 0 where there is none, or the list is malformed before
    it."""
    data = packet.data
    at = packet.header_bytes + 20
    end = min(packet.header_bytes + (data[packet.header_bytes + 12] >> 4) * 4, len(data))
    while at < end:
        kind = data[at]
        if kind == OPTION_END:
            return 0
        if kind == OPTION_NOP:
            at += 1
            continue
        length = data[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            return 0
        if kind == wanted:
            return at if length == wanted_length else 0
        at += length
    return 0


def clamp_mss(packet: Packet, limit: int) -> None:
    """Lower the MSS option of a SYN to `limit` (RFC 6691), never below 536, never raise or add one.

    The TCP checksum is updated incrementally; a partial one does not cover the options yet and stays. A SYN is never
    a super-frame.
    """
    if not opens(packet):
        return
    data, start = packet.data, packet.header_bytes
    at = option_offset(packet, OPTION_MSS, 4)
    if not at:
        return
    limit = max(limit, MINIMUM_MSS)
    old = data[at + 2] << 8 | data[at + 3]
    if old <= limit:
        return
    data[at + 2 : at + 4] = limit.to_bytes(2, "big")
    if packet.gso is not None and packet.gso.partial:
        return
    delta = delta16(old, limit)
    if (at - start) & 1:  # the option stands on an odd offset: the words that cover it are byte-swapped (RFC 1071 2.B)
        delta = (delta & 0xFF) << 8 | delta >> 8
    check = apply(data[start + 16] << 8 | data[start + 17], delta)
    data[start + 16 : start + 18] = check.to_bytes(2, "big")
