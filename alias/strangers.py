"""Unsolicited inbound SYNs that wait for their ICMP error (RFC 5382 REQ-4).

An error at once would break a simultaneous open through two NATs: for `PATIENCE_NS` nothing is said, and if the inside
sends its own SYN for that pair in this time nothing ever is. A SYN repeated in the meantime changes nothing. Bounds:
`LIMIT` SYNs of at most `QUOTE_BYTES`; what exceeds them meets silence, which the RFC allows (4a).
"""

from __future__ import annotations

from alias.types import Egress, Unanswered
from wire.gso import complete
from wire.ipv4 import Packet
from wire.units import SECOND_NS

PATIENCE_NS = 6 * SECOND_NS
LIMIT = 1024
QUOTE_BYTES = 548  # RFC 1812 4.3.2.3: what an error of 576 bytes has room for


class Strangers:
    """The SYNs that wait, oldest first."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # (egress, outside port, remote, remote port) -> (when to give up, the SYN)
        self._waiting: dict[tuple[int, int, int, int], tuple[int, Unanswered]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def remember(self, egress: Egress, packet: Packet, now: int) -> None:
        """An inbound SYN that nobody wants."""
        key = (egress, packet.destination_port, packet.source, packet.source_port)
        if key in self._waiting or len(self._waiting) >= LIMIT:
            return
        quote = bytearray(packet.data)
        if packet.gso is not None:
            complete(quote, packet.gso)
        self._waiting[key] = (now + PATIENCE_NS, Unanswered(egress, bytes(quote[:QUOTE_BYTES])))

    def answer(self, egress: Egress, outside_port: int, remote: int, remote_port: int) -> None:
        """The inside has sent a SYN for this pair: the stranger was none."""
        self._waiting.pop((egress, outside_port, remote, remote_port), None)

    def due(self, now: int) -> list[Unanswered]:
        """Those that have waited long enough."""
        given_up = []
        while self._waiting:
            key = next(iter(self._waiting))
            when, unanswered = self._waiting[key]
            if when > now:
                break
            del self._waiting[key]
            given_up.append(unanswered)
        return given_up

    def next_deadline(self) -> int | None:
        """When the oldest has waited long enough."""
        return next(iter(self._waiting.values()))[0] if self._waiting else None
