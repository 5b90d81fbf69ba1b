"""Congestion marks across the tunnel, RFC 6040: outer headers are marked by routers that never see the inner ones.

`outer_tos` is its normal mode (section 4.1), DSCP 0; `marked` its decapsulation (section 4.2). A mark on a packet whose
ends do not speak ECN must not be delivered as if nothing had happened: such a packet is dropped, which they understand.
"""

from __future__ import annotations

from typing import Final

from wire.checksum import apply, delta16
from wire.drop import Drop

NOT_ECT, ECT_1, ECT_0, CE = range(4)
HANDSHAKE_TOS: Final = 0x88
"""DSCP AF41, as the kernel's WireGuard marks handshakes."""


def outer_tos(packet: bytes) -> int:
    """The TOS byte around an inner IPv4 or IPv6 packet; 0 around anything else, for example a keepalive."""
    if len(packet) < 2:
        return NOT_ECT
    version = packet[0] >> 4
    if version == 4:
        return packet[1] & 3
    return packet[1] >> 4 & 3 if version == 6 else NOT_ECT


def marked(packet: bytes, outer: int) -> bytes | Drop:
    """An inner packet (its header is checked) with the mark of the outer ECN field `outer`, or the reason to drop
    it."""
    inner = outer_tos(packet)
    if outer in (NOT_ECT, inner) or inner == CE or (outer, inner) == (ECT_0, ECT_1):
        return packet
    if inner == NOT_ECT:
        return Drop.TUNNEL_CONGESTION if outer == CE else packet
    changed = bytearray(packet)
    if packet[0] >> 4 == 4:
        changed[1] = packet[1] & ~3 | outer
        delta = delta16(packet[0] << 8 | packet[1], changed[0] << 8 | changed[1])
        changed[10:12] = apply(packet[10] << 8 | packet[11], delta).to_bytes(2, "big")
    else:
        changed[1] = packet[1] & ~0x30 | outer << 4
    return bytes(changed)
