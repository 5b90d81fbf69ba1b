"""ICMP errors: when an error may be sent, its content, its rate.

RFC 792 (formats), RFC 1122 3.2.2 and RFC 1812 4.3.2.7 (`may_answer`: when never), RFC 1812 4.3.2.3 (`error`: the quote
fills 576 bytes), 4.3.2.5 (precedence 6), 4.3.2.8 (`RateLimit`), RFC 4884 4 (the length field of a plain error
stays 0), RFC 1191 4 (the MTU in 3/4).
"""

from __future__ import annotations

from collections import deque

from wire import ipv4
from wire.checksum import checksum
from wire.ipv4 import Packet
from wire.units import SECOND_NS

UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM = 3, 11, 12
NET, HOST, PROTOCOL, PORT, FRAGMENTATION_NEEDED, PROHIBITED = 0, 1, 2, 3, 4, 13

MAXIMUM_BYTES = 576
INTERNETWORK_CONTROL = 6 << 5
_HEADERS_BYTES = ipv4.MINIMUM_HEADER_BYTES + 8
_DESTINATIONS_KEPT = 4096


def may_answer(packet: Packet, *, group: bool) -> bool:
    """False where RFC 1812 4.3.2.7 forbids any error about `packet`.

    Forbidden are errors about ICMP messages other than queries, later fragments, group destinations and sources that
    are no host's. `group`: the packet came in a broadcast or multicast frame. The caller knows directed broadcasts.
    """
    if group or packet.offset_bytes:
        return False
    source_class, destination_class = packet.source >> 24, packet.destination >> 24
    if source_class in (0, 127) or source_class >= 224 or destination_class >= 224:
        return False
    if packet.protocol != ipv4.ICMP:
        return True
    return packet.payload_bytes > 0 and packet.data[packet.header_bytes] in ipv4.ICMP_QUERIES


def error(
    kind: int,
    code: int,
    quoted: bytes | bytearray,
    *,
    source: int,
    destination: int,
    identification: int,
    rest: int = 0,
) -> bytes:
    """The IP packet of an ICMP error of type `kind` about `quoted`, an IP packet with the addresses of its sender's
    side.

    The quote is cut so that the error has 576 bytes at most. `rest`: the second 32-bit word, which holds the next hop's
    MTU in 3/4 and the pointer, in its high byte, in 12/0.
    """
    room = MAXIMUM_BYTES - _HEADERS_BYTES
    body = bytearray((kind, code, 0, 0)) + rest.to_bytes(4, "big") + quoted[:room]
    body[2:4] = checksum(body).to_bytes(2, "big")
    head = ipv4.header(
        source, destination, ipv4.ICMP, len(body), tos=INTERNETWORK_CONTROL, identification=identification
    )
    return head + bytes(body)


class RateLimit:
    """At most `per_second` errors in any second, and `per_destination` of them to one address (RFC 1812 4.3.2.8).

    Sliding windows of send times. Memory: one time for each error of the last second, at most `per_second`.
    """

    __slots__ = ("_all", "_by_destination", "per_destination", "per_second")

    def __init__(self, per_second: int, per_destination: int = 10) -> None:
        self.per_second = per_second
        self.per_destination = per_destination
        self._all: deque[int] = deque()
        self._by_destination: dict[int, deque[int]] = {}

    def allows(self, destination: int, now: int) -> bool:
        """True where an error to `destination` may leave at `now` (ns); it is counted then."""
        expired = now - SECOND_NS
        sent = self._all
        while sent and sent[0] <= expired:
            sent.popleft()
        if len(sent) >= self.per_second:
            return False
        mine = self._by_destination.get(destination)
        if mine is None:
            if len(self._by_destination) >= _DESTINATIONS_KEPT:
                self._forget(expired)
            mine = deque(maxlen=self.per_destination)
        elif len(mine) == self.per_destination and mine[0] > expired:
            return False
        else:
            del self._by_destination[destination]
        self._by_destination[destination] = mine  # in the order of the latest error
        mine.append(now)
        sent.append(now)
        return True

    def _forget(self, expired: int) -> None:
        """Remove the destination whose latest error is the oldest, and all without an error in the last second."""
        kept = self._by_destination
        del kept[next(iter(kept))]
        while kept and kept[oldest := next(iter(kept))][-1] <= expired:
            del kept[oldest]
