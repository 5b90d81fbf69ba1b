"""What crosses the gateway under its own address, what borrows one, and what may not cross at all.

In the open go the host's own packets in the tunnel, LAN hosts where `[vpn]` has no address, and whatever is exchanged
with `alias.exempt` (RFC 6888 REQ-6). Everything else that leaves by tap1 or the tunnel is aliased.

Without a LAN we are an exit node: packets of a peer go in the open to the peer whose prefix holds their destination,
and else to tun0, where the kernel decides; those of a peer with `exit = true` leave by tap1, aliased, in tun0's place.
On a gateway with a LAN only these leave, and peers do not reach each other.
"""

from __future__ import annotations

from collections.abc import Callable

from alias import quote as quotes
from alias.table import Aliases
from alias.types import Egress
from bridge.walk.icmp_errors import PASSED
from bridge.walk.interface import Interface
from bridge.walk.nodes import Nodes
from bridge.walk.path import Arrival, Side
from bridge.walk.peer_prefixes import PeerPrefixes
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet


class Openings:
    """The rules for one set of interfaces. `exempt`: (network, mask) of the exempt remotes; `forwarded`: inside
    addresses with a static forward on tap1; `peers`: whose the inner addresses are. A reload puts others in their
    places. `port_towards`: the port that a remote address is reached by."""

    def __init__(
        self,
        interfaces: dict[str, Interface],
        aliases: Aliases,
        peers: PeerPrefixes,
        nodes: Nodes,
        port_towards: Callable[[int], str],
    ) -> None:
        self.exempt: list[tuple[int, int]] = []
        self.forwarded: frozenset[int] = frozenset()
        self.peers = peers
        self._nodes = nodes
        self._aliases = aliases
        self._port_towards = port_towards
        self._tap0 = interfaces.get("tap0")
        self._tap1 = interfaces.get("tap1")
        self._tun0 = interfaces.get("tun0")
        self._vpn = interfaces.get("vpn")
        self._at_tap0, self._at_tun0 = _side(self._tap0), _side(self._tun0)
        self._interfaces = interfaces
        self.readdressed()
        self._host = self._tun0.address if self._tun0 is not None else 0

    def readdressed(self) -> None:
        """The interfaces have their addresses."""
        self._own = {itf.address for itf in self._interfaces.values() if itf.address}

    # From inside

    def is_aliased(self, out: Interface, packet: Packet) -> bool:
        """True where the source of a packet from inside becomes the egress' address: on tap1 always, in the tunnel for
        LAN hosts and for what answers a static forward to the host. Exempt remotes see the true source, and so do the
        peers of an exit node: the kernel behind tun0 answers them for the whole world."""
        if out.egress is None or not out.address or (self.exempt and self._is_exempt(packet.destination)):
            return False
        if out is not self._vpn:
            return True
        if packet.source == self._host:
            return self._is_forwarded(packet)
        return self._tap0 is not None or self.peers.owner(packet.destination) is None

    def may_borrow(self, out: Interface, source: int) -> bool:
        """False where a packet from tun0 would get tap1's address for a source that is not the kernel's to answer for:
        what tap1 brings back would go to a peer, and a peer leaves by tap1 only where it may (`may_leave`)."""
        if out is not self._tap1 or source == self._host:
            return True
        side = self.side_of(source)
        if side is None or side.interface is not self._vpn:
            return True
        owner = self.peers.owner(source)
        return owner is not None and self.peers.has_exit(owner)

    def side_of(self, inside: int) -> Side | None:
        """Where the inside end of a link is: the host's own links go to tun0, those of a LAN host to the LAN, a peer's
        to the peer; the rest belongs to whoever has no boundaries, the LAN first."""
        if inside == self._host:
            return self._at_tun0
        if self._tap0 is not None and self._tap0.is_on_link(inside):
            return self._at_tap0
        if self._vpn is not None:
            peer = self.peers.owner(inside) or self.peers.exit_behind(inside)
            if peer is not None:
                return Side(self._nodes.port(peer), self._vpn)
        return self._at_tap0 or self._at_tun0

    def behind(self, inside: int) -> str | None:
        """The same, as the name of the node or the port."""
        side = self.side_of(inside)
        return None if side is None else self._nodes.node_at(side.port) or side.port

    # From outside

    def inside_of(self, arrival: Arrival) -> Side | None:
        """The side for a packet from outside that carries an inside address openly, where that is allowed: the host's
        own address from the tunnel, the LAN where the tunnel does not alias it, on an exit node other peers and all
        that lies behind tun0, and exempt remotes."""
        packet, came_by = arrival.packet, arrival.interface
        destination = packet.destination
        if destination in self._own:
            inside = self._at_tun0 if destination == self._host else None
        elif self._tap0 is not None and self._tap0.is_on_link(destination):
            inside = self._at_tap0
        else:
            return self._beyond(arrival)
        if inside is None:
            return None
        if came_by is self._vpn and (inside is self._at_tun0 or not came_by.address):
            return inside
        return inside if self._is_exchanged_openly(arrival) else None

    def _beyond(self, arrival: Arrival) -> Side | None:
        """The same for an address that is neither ours nor a LAN host's."""
        if self._vpn is None:
            return None
        owner = self.peers.owner(arrival.packet.destination)
        at_owner = Side(self._nodes.port(owner), self._vpn) if owner is not None else None
        if arrival.interface is not self._vpn:
            return at_owner if self.peers.has_exit(owner) and self._is_exchanged_openly(arrival) else None
        if self._tap0 is not None:
            return None
        return at_owner or (None if self.is_exit(arrival) else self._at_tun0)

    @property
    def anybody_leaves(self) -> bool:
        """False where `may_leave` is of no peer."""
        return self._tap1 is not None and (self.peers.has_exits or bool(self.forwarded))

    def may_leave(self, arrival: Arrival) -> bool:
        """True where a packet of a peer may leave by tap1, or ask at tap1's address: the peer has `exit`, or is one
        that a static forward leads to (it answers visitors, nobody else)."""
        if arrival.interface is not self._vpn or self._tap1 is None:
            return False
        destination = arrival.packet.destination
        if not self.is_exit(arrival) and arrival.packet.source not in self.forwarded:
            return False
        if destination in self._own:
            return destination == self._tap1.address
        if self._tap0 is not None and self._tap0.is_on_link(destination):
            return False
        if self.peers.owner(destination) is not None:
            return False
        side = self.side_of(arrival.packet.source)  # or the answers would go elsewhere
        return side is not None and side.port == arrival.port

    def lets_in(self, arrival: Arrival) -> bool:
        """True where a packet from outside, or a part of one, may be for more than an alias address."""
        return self.inside_of(arrival) is not None or self.may_leave(arrival)

    def is_exit(self, arrival: Arrival) -> bool:
        """True where it came from a peer whose packets leave by our tap1."""
        return self._tap1 is not None and self.peers.has_exit(self._nodes.node_at(arrival.port))

    def _is_exchanged_openly(self, arrival: Arrival) -> bool:
        return bool(self.exempt) and any(
            self._is_exempt(remote) and self._port_towards(remote) == arrival.port
            for remote in _remotes(arrival.packet)
        )

    def expects(self, arrival: Arrival) -> bool:
        """False for a packet from outside that no link or rule lets in: strangers meet silence, whatever is wrong with
        what they send. Its transport header need not have been read yet."""
        packet, came_by = arrival.packet, arrival.interface
        if came_by.egress is None or self.lets_in(arrival):
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


def _side(interface: Interface | None) -> Side | None:
    return Side(interface.name, interface) if interface is not None else None


def _remotes(packet: Packet) -> tuple[int, ...]:
    """The remotes that a packet from outside speaks of: its source, and where what an error quotes was sent to. Any
    router on the way may send such an error (RFC 4787 REQ-12a), and without it path MTU discovery breaks."""
    if not packet.is_icmp_error or packet.data[packet.header_bytes] not in PASSED:
        return (packet.source,)
    quote = quotes.read(packet)
    if isinstance(quote, Drop) or quote.source != packet.destination:
        return (packet.source,)
    return packet.source, quote.destination
