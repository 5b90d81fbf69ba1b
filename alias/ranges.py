"""Which bytes of a datagram its fragments have brought (RFC 791 3.2), and when they cannot belong together.

RFC 1858 3, RFC 3128 2, RFC 5722 4: ranges that overlap are an attack (or a broken host), and the whole datagram is
given up, whichever copy came first. The very same range again is a duplicate, which networks do make.
"""

from __future__ import annotations

from bisect import bisect_left

from wire.drop import Drop
from wire.ipv4 import Packet

_LONGEST_BYTES = 65_535


def fragment_fault(packet: Packet) -> Drop | None:
    """Why a fragment cannot be one: a length that is no multiple of eight before the last one, nothing in it, or an end
    beyond what a total length can say (the ping of death)."""
    payload_bytes = packet.payload_bytes
    if (
        payload_bytes == 0
        or (packet.more_fragments and payload_bytes % 8)
        or packet.header_bytes + packet.offset_bytes + payload_bytes > _LONGEST_BYTES
    ):
        return Drop.FRAGMENT_BAD
    return None


class Ranges:
    """The ranges of one datagram. `total_bytes`: of its payload, None until the last fragment is here."""

    __slots__ = ("_parts", "covered_bytes", "total_bytes")

    def __init__(self) -> None:
        self._parts: list[int] = []  # sorted, each `start << 16 | end`
        self.covered_bytes = 0
        self.total_bytes: int | None = None

    def add(self, packet: Packet) -> Drop | None:
        """Put in the range of a fragment without `fragment_fault`; else `FRAGMENT_DUPLICATE` or `FRAGMENT_OVERLAP`."""
        start = packet.offset_bytes
        end = start + packet.payload_bytes
        is_last = not packet.more_fragments
        parts, total_bytes = self._parts, self.total_bytes
        part = start << 16 | end
        at = bisect_left(parts, part)
        if at < len(parts) and parts[at] == part:
            return Drop.FRAGMENT_DUPLICATE if is_last == (end == total_bytes) else Drop.FRAGMENT_OVERLAP
        if (at and parts[at - 1] & 0xFFFF > start) or (at < len(parts) and parts[at] >> 16 < end):
            return Drop.FRAGMENT_OVERLAP
        if is_last:
            if total_bytes is not None or at < len(parts):
                return Drop.FRAGMENT_OVERLAP
            self.total_bytes = end
        elif total_bytes is not None and end >= total_bytes:
            return Drop.FRAGMENT_OVERLAP
        parts.insert(at, part)
        self.covered_bytes += end - start
        return None

    @property
    def is_complete(self) -> bool:
        """True once every byte from the first to the last has come."""
        return self.covered_bytes == self.total_bytes
