"""Which packets cross the gateway under their own address, which get an alias, and which may not cross at all.

Packets that keep their address: the host's own packets in the tunnel, those of LAN hosts where `[vpn]` has no address,
and all that is exchanged with `alias.exempt` (RFC 6888 REQ-6). Everything else that leaves by tap1 or the tunnel is
aliased.

A gateway without a LAN is an exit node: a peer's packet goes to the peer whose prefix holds its destination, and else
to tun0, where the kernel decides. Packets of a peer with `exit = true` leave by tap1, aliased, in tun0's place. On a
gateway with a LAN only these leave, and peers do not reach each other.
"""

from __future__ import annotations

from collections.abc import Callable

from alias import quote as quotes
from alias.table import Aliases
from alias.types import Egress
from bridge.walk.forwarding.icmp_errors import PASSED
from bridge.walk.forwarding.peer_prefixes import PeerPrefixes
from bridge.walk.interface import Interface, NamedPort, Ports
from bridge.walk.own import OwnAddresses
from bridge.walk.path import Arrival
from bridge.walk.settings import GatewaySettings
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import prefix_mask


class Crossing:
    """The rules for one set of ports. `peers`: whose the inner addresses are; `port_towards`: the name of the port that
    a remote address is reached by."""

    def __init__(
        self,
        settings: GatewaySettings,
        ports: Ports,
        own: OwnAddresses,
        aliases: Aliases,
        peers: PeerPrefixes,
        port_towards: Callable[[int], str],
    ) -> None:
        self._ports = ports
        self._own = own
        self._aliases = aliases
        self._peers = peers
        self._port_towards = port_towards
        interfaces = ports.interfaces
        self._tap0 = interfaces.get("tap0")
        self._tap1 = interfaces.get("tap1")
        self._vpn = interfaces.get("vpn")
        self._at_tap0 = ports.direct.get("tap0")
        self._at_tun0 = ports.direct.get("tun0")
        self.reconfigure(settings)

    def reconfigure(self, settings: GatewaySettings) -> None:
        """Take other settings. `forwarded`: inside addresses with a static forward on tap1."""
        self._exempt = [(prefix.network, prefix_mask(prefix.length)) for prefix in settings.exempt]
        self.forwarded = frozenset(forward.inside for forward in settings.forwards if forward.on is Egress.TAP1)

    # From inside

    def is_aliased(self, out: Interface, packet: Packet) -> bool:
        """True where the source of a packet from inside becomes the egress' address.

        On tap1 always, in the tunnel for LAN hosts and for answers to a static forward to the host. Exempt remotes see
        the true source, and so do the peers of an exit node: the kernel behind tun0 answers them for the whole world.
        """
        if out.egress is None or not out.address or (self._exempt and self._is_exempt(packet.destination)):
            return False
        if out is not self._vpn:
            return True
        if packet.source == self._own.host:
            return self._is_forwarded(packet)
        return self._tap0 is not None or self._peers.owner(packet.destination) is None

    def may_borrow(self, out: Interface, source: int) -> bool:
        """False where a packet from tun0 would get tap1's address for a source that is not the kernel's to answer for.

        tap1 would bring the replies to a peer, and a peer's packets leave by tap1 only where they may (`may_leave`).
        """
        if out is not self._tap1 or source == self._own.host:
            return True
        port = self.port_inside(source)
        if port is None or port.interface is not self._vpn:
            return True
        owner = self._peers.owner(source)
        return owner is not None and self._peers.has_exit(owner)

    def port_inside(self, inside: int) -> NamedPort | None:
        """The port that the inside end of a link is reached by; None where there is no such port.

        The host's own links go to tun0, a LAN host's to the LAN, a peer's to the peer. Any other address belongs to
        the side without boundaries, the LAN first.
        """
        if inside == self._own.host:
            return self._at_tun0
        if self._tap0 is not None and self._tap0.is_on_link(inside):
            return self._at_tap0
        if self._vpn is not None:
            peer = self._peers.owner(inside) or self._peers.exit_behind(inside)
            if peer is not None:
                return self._ports.of_node(peer)
        return self._at_tap0 or self._at_tun0

    def behind(self, inside: int) -> str | None:
        """The node, or else the name of the port, that an inside address lives behind."""
        port = self.port_inside(inside)
        return None if port is None else port.node or port.name

    # From outside

    def open_port(self, arrival: Arrival) -> NamedPort | None:
        """The port for a packet from outside that carries an inside address openly; None where that is not allowed.

        Allowed are the host's own address from the tunnel, the LAN where the tunnel does not alias it, other peers and
        all addresses behind tun0 on an exit node, and exchanges with exempt remotes.
        """
        destination, came_by = arrival.packet.destination, arrival.port.interface
        if destination in self._own.addresses:
            port = self._at_tun0 if destination == self._own.host else None
        elif self._tap0 is not None and self._tap0.is_on_link(destination):
            port = self._at_tap0
        else:
            return self._beyond(arrival)
        if port is None:
            return None
        if came_by is self._vpn and (port is self._at_tun0 or not came_by.address):
            return port
        return port if self._is_exchanged_openly(arrival) else None

    def _beyond(self, arrival: Arrival) -> NamedPort | None:
        """The same for an address that is neither ours nor a LAN host's."""
        if self._vpn is None:
            return None
        owner = self._peers.owner(arrival.packet.destination)
        at_owner = self._ports.of_node(owner) if owner is not None else None
        if arrival.port.interface is not self._vpn:
            return at_owner if self._peers.has_exit(owner) and self._is_exchanged_openly(arrival) else None
        if self._tap0 is not None:
            return None
        return at_owner or (None if self.is_exit(arrival) else self._at_tun0)

    @property
    def anybody_leaves(self) -> bool:
        """False where `may_leave` is true of no peer."""
        return self._tap1 is not None and (self._peers.has_exits or bool(self.forwarded))

    def may_leave(self, arrival: Arrival) -> bool:
        """True where a packet of a peer may leave by tap1, or ask at tap1's address.

        The peer has `exit`, or a static forward leads to it, so that it answers visitors and nobody else.
        """
        packet = arrival.packet
        if arrival.port.interface is not self._vpn or self._tap1 is None:
            return False
        if not self.is_exit(arrival) and packet.source not in self.forwarded:
            return False
        destination = packet.destination
        if destination in self._own.addresses:
            return destination == self._tap1.address
        if self._tap0 is not None and self._tap0.is_on_link(destination):
            return False
        if self._peers.owner(destination) is not None:
            return False
        port = self.port_inside(packet.source)  # the answers would go there
        return port is not None and port.name == arrival.port.name

    def lets_in(self, arrival: Arrival) -> bool:
        """True where a packet from outside, or a fragment of one, may be for more than an alias address."""
        return self.open_port(arrival) is not None or self.may_leave(arrival)

    def is_exit(self, arrival: Arrival) -> bool:
        """True where a packet came from a peer whose packets leave by our tap1."""
        return self._tap1 is not None and self._peers.has_exit(arrival.port.node)

    def expects(self, arrival: Arrival) -> bool:
        """False for a packet from outside that no link and no rule lets in: strangers meet silence, whatever is wrong
        with their packets. Reads the transport header."""
        packet, came_by = arrival.packet, arrival.port.interface
        if came_by.egress is None or self.lets_in(arrival):
            return True
        if packet.destination != came_by.address or ipv4.read_transport(packet) is not None:
            return False
        link = self._aliases.peek_inbound(came_by.egress, packet.protocol, packet.destination_port, packet.source)
        return link is not None

    def _is_exchanged_openly(self, arrival: Arrival) -> bool:
        return bool(self._exempt) and any(
            self._is_exempt(remote) and self._port_towards(remote) == arrival.port.name
            for remote in _remotes(arrival.packet)
        )

    def _is_exempt(self, remote: int) -> bool:
        return any(remote & mask == network for network, mask in self._exempt)

    def _is_forwarded(self, packet: Packet) -> bool:
        """True where a packet of the host answers a visitor of a static forward on the tunnel's alias address."""
        protocol, port, remote = packet.protocol, packet.source_port, packet.destination
        if packet.is_icmp_error:
            quote = quotes.read(packet)
            if isinstance(quote, Drop) or quote.destination != self._own.host:
                return False
            protocol, port, remote = quote.protocol, quote.destination_port, quote.source
        link = self._aliases.peek_outbound(Egress.VPN, protocol, self._own.host, port, remote)
        return link is not None and link.is_static


def _remotes(packet: Packet) -> tuple[int, ...]:
    """The remotes that a packet from outside speaks of: its source, and the destination of a packet that it quotes.

    Any router on the way may send such an error (RFC 4787 REQ-12a), and without it path MTU discovery breaks.
    """
    if not packet.is_icmp_error or packet.data[packet.header_bytes] not in PASSED:
        return (packet.source,)
    quote = quotes.read(packet)
    if isinstance(quote, Drop) or quote.source != packet.destination:
        return (packet.source,)
    return packet.source, quote.destination
