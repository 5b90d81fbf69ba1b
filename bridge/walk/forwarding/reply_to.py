"""Visitors of a static forward are answered by the port that they came by (pf calls it reply-to).

The routing table decides for all flows that begin inside. A visitor of a static forward begins outside, and may live
where the table sends packets elsewhere (a forward on tap1, a visitor whose prefix is not offloaded). An answer under
another address would not be taken for one. So the port of each visitor that came against the table's direction is kept
while the exchange lasts. Links that the inside made are never treated so: a stranger could pull traffic out of the
tunnel by writing to them.
"""

from __future__ import annotations

from collections.abc import Callable

from bridge.walk.path import FlowEnds, flow_ends
from wire.ipv4 import Packet

VISITORS = 4096


class Returns:
    """Visitors that came by another port than the table's, at most `VISITORS`; the visitor that is silent for longest
    gives way. `ports`: by flow, the port's name and the time (ns) when it is forgotten."""

    def __init__(self) -> None:
        self.ports: dict[FlowEnds, tuple[str, int]] = {}

    def __len__(self) -> int:
        return len(self.ports)

    def came(self, ends: FlowEnds, port: str, until: int) -> None:
        """A visitor's packet came by `port`; it is remembered until the time `until` in ns."""
        self.ports.pop(ends, None)
        if len(self.ports) >= VISITORS:
            del self.ports[next(iter(self.ports))]
        self.ports[ends] = (port, until)

    def way_back(self, packet: Packet, now: int) -> str | None:
        """The port for a packet (or an ICMP error) from inside to a visitor; None where the table decides."""
        ends = flow_ends(packet)
        known = self.ports.get(ends) if ends is not None else None
        if known is None or ends is None:
            return None
        port, until = known
        if until > now:
            return port
        del self.ports[ends]
        return None

    def forget(self, now: int) -> None:
        """Forget visitors whose time is over."""
        self.ports = {ends: known for ends, known in self.ports.items() if known[1] > now}

    def keep(self, is_forwarded: Callable[[FlowEnds, str], bool]) -> None:
        """Forget visitors of forwards that no longer exist; `is_forwarded` tells it of a flow and its port."""
        self.ports = {ends: known for ends, known in self.ports.items() if is_forwarded(ends, known[0])}
