"""What crosses the gateway under its own address, and what borrows one.

In the open go the host's own packets in the tunnel, LAN hosts where `[vpn]` has no address, and whatever is exchanged
with `alias.exempt` (RFC 6888 REQ-6). Everything else that leaves by tap1 or the tunnel is aliased.
"""

from __future__ import annotations

from collections.abc import Callable

from alias import quote as quotes
from alias.table import Aliases
from alias.types import Egress
from bridge.error_paths import PASSED
from bridge.interface import Interface
from bridge.path import Arrival
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet


class Openings:
    """The rules for one set of interfaces. `exempt`: (network, mask) of the exempt remotes. `port_towards`: the port
    that a remote address is reached by."""

    def __init__(self, interfaces: dict[str, Interface], aliases: Aliases, port_towards: Callable[[int], str]) -> None:
        self.exempt: list[tuple[int, int]] = []
        self._aliases = aliases
        self._port_towards = port_towards
        self._tap0 = interfaces.get("tap0")
        self._tun0 = interfaces.get("tun0")
        self._vpn = interfaces.get("vpn")
        self._own = {itf.address for itf in interfaces.values() if itf.address}
        self._host = self._tun0.address if self._tun0 is not None else 0

    def is_aliased(self, out: Interface, packet: Packet) -> bool:
        """True where the source of a packet from inside becomes the egress' address: on tap1 always, in the tunnel for
        LAN hosts and for what answers a static forward to the host. Exempt remotes see the true source."""
        if out.egress is None or not out.address or (self.exempt and self._is_exempt(packet.destination)):
            return False
        return out is not self._vpn or packet.source != self._host or self._is_forwarded(packet)

    def inside_of(self, arrival: Arrival) -> Interface | None:
        """The inside port for a packet from outside that carries an inside address openly, where that is allowed: the
        host's own address from the tunnel, the LAN where the tunnel does not alias it, and exempt remotes."""
        packet, came_by = arrival.packet, arrival.interface
        inside = None
        if self._tun0 is not None and packet.destination == self._host:
            inside = self._tun0
        elif self._tap0 is not None and self._tap0.is_on_link(packet.destination):
            inside = self._tap0
        if inside is None or packet.destination in self._own - {self._host}:
            return None
        if came_by is self._vpn and (inside is self._tun0 or not came_by.address):
            return inside
        if self.exempt and any(
            self._is_exempt(remote) and self._port_towards(remote) == arrival.port for remote in _remotes(packet)
        ):
            return inside
        return None

    def expects(self, arrival: Arrival) -> bool:
        """False for a packet from outside that no link or rule lets in: strangers meet silence, whatever is wrong with
        what they send. Its transport header need not have been read yet."""
        packet, came_by = arrival.packet, arrival.interface
        if came_by.egress is None or self.inside_of(arrival) is not None:
            return True
        if packet.destination != came_by.address or ipv4.read_transport(packet) is not None:
            return False
        link = self._aliases.peek_inbound(came_by.egress, packet.protocol, packet.destination_port, packet.source)
        return link is not None

    def _is_exempt(self, remote: int) -> bool:
        return any(remote & mask == network for network, mask in self.exempt)

    def _is_forwarded(self, packet: Packet) -> bool:
        """True where a packet of the host answers what came by a static forward of the tunnel's alias address."""
        protocol, port, remote = packet.protocol, packet.source_port, packet.destination
        if packet.is_icmp_error:
            quote = quotes.read(packet)
            if isinstance(quote, Drop) or quote.destination != self._host:
                return False
            protocol, port, remote = quote.protocol, quote.destination_port, quote.source
        link = self._aliases.peek_outbound(Egress.VPN, protocol, self._host, port, remote)
        return link is not None and link.is_static


def _remotes(packet: Packet) -> tuple[int, ...]:
    """The remotes that a packet from outside speaks of: its source, and where what an error quotes was sent to. Any
    router on the way may send such an error (RFC 4787 REQ-12a), and without it path MTU discovery breaks."""
    if not packet.is_icmp_error or packet.data[packet.header_bytes] not in PASSED:
        return (packet.source,)
    quote = quotes.read(packet)
    if isinstance(quote, Drop) or quote.source != packet.destination:
        return (packet.source,)
    return packet.source, quote.destination
