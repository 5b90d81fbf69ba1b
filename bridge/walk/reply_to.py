"""The way back for visitors of a static forward: what came in by a port is answered by that port.

The routing table decides for everything that the inside begins. A visitor of a static forward began it from outside,
and may live where the table sends packets elsewhere (a forward on tap1, a visitor whose prefix is not offloaded): an
answer under another address would not be taken for one. So the port of each visitor that came against the table's
direction is kept while the exchange lasts. Links that the inside made are never treated so: a stranger could pull
traffic out of the tunnel by writing to them.
"""

from __future__ import annotations

from collections.abc import Callable

from alias import quote as quotes
from wire.drop import Drop
from wire.ipv4 import Packet

VISITORS = 4096

Ends = tuple[int, int, int, int, int]
"""(protocol, inside address, inside port, remote address, remote port)."""


class Returns:
    """Visitors that came by another port than the table's, at most `VISITORS`; the one silent for longest gives way.
    `ports`: where each came by, and when that is forgotten."""

    def __init__(self) -> None:
        self.ports: dict[Ends, tuple[str, int]] = {}

    def __len__(self) -> int:
        return len(self.ports)

    def came(self, ends: Ends, port: str, until: int) -> None:
        """A visitor's packet came by `port`; it is remembered until the time `until` in ns."""
        self.ports.pop(ends, None)
        if len(self.ports) >= VISITORS:
            del self.ports[next(iter(self.ports))]
        self.ports[ends] = (port, until)

    def way_back(self, packet: Packet, now: int) -> str | None:
        """The port for a packet (or an ICMP error) from inside to a visitor; None where the table decides."""
        ends = ends_of(packet)
        known = self.ports.get(ends) if ends is not None else None
        if known is None or ends is None:
            return None
        port, until = known
        if until > now:
            return port
        del self.ports[ends]
        return None

    def forget(self, now: int) -> None:
        """Let go of visitors whose time is over."""
        self.ports = {ends: known for ends, known in self.ports.items() if known[1] > now}

    def keep(self, is_forwarded: Callable[[Ends, str], bool]) -> None:
        """Forget the visitors of forwards that are no more."""
        self.ports = {ends: known for ends, known in self.ports.items() if is_forwarded(ends, known[0])}


def ends_of(packet: Packet) -> Ends | None:
    """The flow of a packet from inside, or of what an ICMP error from inside quotes; None where that is no packet."""
    if not packet.is_icmp_error:
        return packet.protocol, packet.source, packet.source_port, packet.destination, packet.destination_port
    quote = quotes.read(packet)
    if isinstance(quote, Drop):
        return None
    return quote.protocol, quote.destination, quote.destination_port, quote.source, quote.source_port
