"""Where a packet goes: the middle of the walk, between the checks before it and the carrying behind it.

`Decision.of` takes a checked packet, whole or a first fragment, and returns its `Outcome` as a value; it sends nothing
and counts nothing. The functions stand in the order of the decision:

    from inside | from outside | a peer by tap1 -> our own addresses -> route, node -> crossing -> alias, MTU

RFC 1812 5.2 (forwarding), RFC 1191 (`_too_big`), RFC 4787, 5382 and 5508 through `alias` and `icmp_errors`.
"""

from __future__ import annotations

from dataclasses import replace

from alias import rewrite
from alias.table import Aliases
from alias.types import Egress, Unanswered
from bridge.walk.effects import Effect
from bridge.walk.forwarding.crossing import Crossing
from bridge.walk.forwarding.icmp_errors import IcmpErrors
from bridge.walk.forwarding.nodes import Nodes, idle_ns
from bridge.walk.forwarding.peer_prefixes import Announced, PeerPrefixes, announced_layers
from bridge.walk.forwarding.reply_to import Returns
from bridge.walk.interface import VPN, Interface, NamedPort, Ports
from bridge.walk.local import Local
from bridge.walk.mtu import PathMtus, wire_bytes
from bridge.walk.outcome import (
    HOST_UNREACHABLE,
    NET_UNREACHABLE,
    PROHIBITED,
    TTL_EXCEEDED,
    IcmpError,
    Outcome,
    Refused,
    Resident,
)
from bridge.walk.own import OwnAddresses
from bridge.walk.path import Arrival, FlowEnds, Path
from bridge.walk.settings import GatewaySettings
from bridge.walk.trace import Tracing
from icmp import errors
from route.table import UNREACHABLE, RouteTable, is_private, node_of
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import SECOND_NS

FORGET_NS = 60 * SECOND_NS
"""How often visitors and flows that have ended are looked for."""


class Decision(Resident):
    """Decides by the routes, the nodes of the tunnel, the owners of inner addresses, the NAT and the crossing rules.
    Packets change only links, visitors and the flows on a fallback."""

    def __init__(
        self,
        settings: GatewaySettings,
        routes: RouteTable,
        ports: Ports,
        own: OwnAddresses,
        aliases: Aliases,
        mtus: PathMtus,
        local: Local,
        tracing: Tracing,
    ) -> None:
        self.settings = settings
        self.routes = routes
        self.nodes = Nodes(settings)
        self.peers = PeerPrefixes(settings.peers)
        self.crossing = Crossing(settings, ports, own, aliases, self.peers, self._port_towards)
        self.returns = Returns()
        self._forget_ns = 0
        self._ports = ports
        self._own = own
        self._aliases = aliases
        self._mtus = mtus
        self._local = local
        self._tracing = tracing
        self._icmp_errors = IcmpErrors(aliases, mtus, self.crossing.port_inside)
        interfaces = ports.interfaces
        self._tap0 = interfaces.get("tap0")
        self._tap1 = interfaces.get("tap1")
        self._tun0 = interfaces.get("tun0")
        self._vpn = interfaces.get(VPN)

    def reconfigure(self, settings: GatewaySettings, routes: RouteTable) -> None:
        """Take other settings and routes, after the aliases did. Announcements of peers that stay are kept."""
        self.settings = settings
        self.routes = routes
        self._ports.set_default(settings.default_node)
        self.peers.reconfigure(settings.peers)
        self.crossing.reconfigure(settings)
        if self.peers.announced:
            self._route_announced()
        self.nodes.reconfigure(settings, lambda remote: node_of(routes.target(remote)))
        self.returns.keep(self._is_forwarded)

    def announce(self, announced: Announced) -> bool:
        """Put these prefixes in the place of what peers announced before: packets find them, and may come from them, at
        once. False where nothing changed."""
        if not self.peers.announce(announced):
            return False
        self._route_announced()
        return True

    def _route_announced(self) -> None:
        peers, has_tunnel = [peer.name for peer in self.settings.peers], self._vpn is not None
        self.routes.announce(announced_layers(peers, self.peers.announced, has_tunnel=has_tunnel))

    def tick(self, now: int, effects: list[Effect]) -> None:
        """Now and then, forget visitors and flows on a fallback that have ended: they have no timer each."""
        if now >= self._forget_ns:
            self._forget_ns = now + FORGET_NS
            self.returns.forget(now)
            self.nodes.forget(now)

    def next_deadline(self) -> int | None:
        """When there is something to look through; None where nothing is kept."""
        return self._forget_ns if self.returns.ports or len(self.nodes) else None

    def _port_towards(self, remote: int) -> str:
        return self._ports.name_of(self.routes.target(remote))

    # From inside

    def of(self, arrival: Arrival, now: int) -> Outcome:
        """The outcome of a whole packet or a first fragment."""
        if arrival.port.interface.is_inside:
            return self._from_inside(arrival, now)
        return self.from_outside(arrival, now)

    def _from_inside(self, arrival: Arrival, now: int) -> Outcome:
        packet, came_by = arrival.packet, arrival.port.interface
        destination = packet.destination
        if destination in self._own.addresses:
            return self._to_own(arrival, now)
        if packet.ttl <= 1:
            return _EXPIRED
        target = self.routes.target(destination)
        if self._tracing.trace is not None:
            self._tracing.say("route", "{} -> {}", destination, target)
        back = self.returns.way_back(packet, now) if self.returns.ports else None
        if back is not None:
            target = back
            self._tracing.say("route", "the answer to a visitor of a static forward: {}", back)
        port = self._ports.direct.get(target)
        if port is None:
            found = self._at_node(target, packet, now)
            if isinstance(found, Refused):
                return found
            port = found
        if came_by is self._tun0:
            if port.interface is self._tun0:
                return Refused(Drop.ROUTE_REFLECTED)
            if not self.crossing.may_borrow(port.interface, packet.source):
                return Refused(Drop.ROUTE_NOT_FROM_OUTSIDE)
        return self._leave(arrival, port, now)

    def _at_node(self, target: str, packet: Packet, now: int) -> NamedPort | Refused:
        """The port of a routing target that is no device."""
        if target == UNREACHABLE:
            return Refused(Drop.ROUTE_UNREACHABLE, NET_UNREACHABLE)
        node = node_of(target)
        if node is None or self._vpn is None:
            return Refused(Drop.PORT_ABSENT)
        return self._reachable(node, packet, now)

    def _reachable(self, node: str, packet: Packet, now: int) -> NamedPort | Refused:
        """The port of a node, or of the node that stands in for it."""
        chosen = self.nodes.choose(node, packet, now)
        if chosen is None:
            self._tracing.say("tunnel", "{} is unreachable", node)
            return Refused(Drop.ROUTE_NO_TUNNEL, HOST_UNREACHABLE)
        if chosen != node:
            why = "is unreachable" if node in self.nodes.unreachable else "is back, but the flow began elsewhere"
            self._tracing.say("tunnel", "{} {}: {} takes it", node, why, chosen)
        return self._ports.of_node(chosen)

    def _leave(self, arrival: Arrival, port: NamedPort, now: int) -> Outcome:
        """By an egress, under its alias where one is due. Nothing leaves by tap1 before its address is leased."""
        packet = arrival.packet
        if port.interface is self._tap1 and not self._tap1.address:
            self._tracing.say("route", "tap1 has no address yet")
            return Refused(Drop.ROUTE_UNREACHABLE, NET_UNREACHABLE)
        if not self.crossing.is_aliased(port.interface, packet):
            return self._plain(arrival, port)
        mtu_bytes = self._mtus.towards(port)
        return _too_big(packet, mtu_bytes) or self._alias(arrival, port, port, mtu_bytes, now)

    def _alias(self, arrival: Arrival, turn: NamedPort, port: NamedPort, mtu_bytes: int, now: int) -> Path | Refused:
        """The path by `port` under the alias of `turn`; both are one port, but for a hairpin."""
        packet, out = arrival.packet, turn.interface
        assert out.egress is not None
        if packet.protocol == ipv4.ICMP and packet.data[packet.header_bytes] not in ipv4.ICMP_QUERIES:
            return self._icmp_errors.from_inside(arrival, turn)
        link = self._aliases.outbound(out.egress, packet, now)
        if isinstance(link, Drop):
            return Refused(link, PROHIBITED if link in _EXHAUSTED else None)
        inside, outside = (link.inside, link.inside_port), (out.address, link.outside_port)
        if self._tracing.trace is not None:
            self._tracing.say("alias", "{} is {} on {}, {}", inside, outside, out.name, link.state)
        return Path(
            port,
            mtu_bytes,
            (packet.source, packet.source_port),
            (packet.destination, packet.destination_port),
            source=outside,
            egress=out.egress,
            link=link,
        )

    # From outside

    def from_outside(self, arrival: Arrival, now: int) -> Outcome:
        """The outcome of a packet that came by tap1 or the tunnel."""
        packet, came_by = arrival.packet, arrival.port.interface
        if packet.destination == came_by.address:
            return self._to_alias_address(arrival, came_by, now)
        crossing = self.crossing
        if (
            crossing.anybody_leaves
            and crossing.may_leave(arrival)
            and (crossing.is_exit(arrival) or self.returns.way_back(packet, now) == "tap1")
        ):
            return self._exit(arrival, now)
        port = crossing.open_port(arrival)
        if port is None:
            return Refused(Drop.ROUTE_NOT_FROM_OUTSIDE)
        self._tracing.say("route", "{} is reached without alias, by {}", packet.destination, port.name)
        return self._in_the_open(arrival, port, now)

    def _in_the_open(self, arrival: Arrival, port: NamedPort, now: int) -> Outcome:
        """From outside to an inside address: to a peer as far as it can be reached, and never back where it came
        from."""
        if port.interface is self._vpn and port.name != arrival.port.name:
            assert port.node is not None, "a peer has a name"
            found = self._reachable(port.node, arrival.packet, now)
            if isinstance(found, Refused):
                return found
            port = found
        if port.name == arrival.port.name:
            return Refused(Drop.ROUTE_REFLECTED)
        return self._plain(arrival, port)

    def _exit(self, arrival: Arrival, now: int) -> Outcome:
        """A peer's packet leaves by tap1, or is for tap1's address: as one from inside, but nodes and lists do not
        count."""
        packet, port = arrival.packet, self._ports.direct["tap1"]
        if packet.destination == port.interface.address:
            return self._local.wanted(arrival) or self._hairpin(arrival, port, now)
        if packet.ttl <= 1:
            return _EXPIRED
        self._tracing.say("route", "{} leaves by tap1", packet.destination)
        if is_private(packet.destination) and self.routes.target(packet.destination) != port.name:
            return Refused(Drop.ROUTE_UNREACHABLE, NET_UNREACHABLE)
        return self._leave(arrival, port, now)

    def _to_alias_address(self, arrival: Arrival, came_by: Interface, now: int) -> Outcome:
        """A packet from outside to the address that inside hosts borrow: a service, an error, a link or silence."""
        packet, egress = arrival.packet, came_by.egress
        assert egress is not None
        wanted = self._local.wanted(arrival)
        if wanted is not None:
            return wanted
        if packet.protocol == ipv4.ICMP:
            kind = packet.data[packet.header_bytes]
            if kind in ipv4.ICMP_QUERY_REQUESTS:
                return Refused(Drop.LOCAL_SILENT)
            if kind not in ipv4.ICMP_QUERY_REPLIES:
                return _onward(arrival, self._icmp_errors.from_outside(arrival, came_by))
        link = self._aliases.inbound(egress, packet, now)
        if isinstance(link, Drop):
            if link in (Drop.ALIAS_NO_LINK, Drop.ALIAS_FILTERED):
                self._aliases.unsolicited(egress, packet, now)
            self._tracing.say("alias", "no link for {}", (packet.destination, packet.destination_port))
            return Refused(link)
        if packet.ttl <= 1:
            return _EXPIRED
        port = self.crossing.port_inside(link.inside)
        if port is None:
            return Refused(Drop.PORT_ABSENT)
        if port.name == arrival.port.name:
            return Refused(Drop.ROUTE_REFLECTED)
        mtu_bytes = self._mtus.towards(port)
        refused = _too_big(packet, mtu_bytes)
        if refused is not None:
            return refused
        near, far = (link.inside, link.inside_port), (packet.source, packet.source_port)
        if self._tracing.trace is not None:
            self._tracing.say("alias", "{} is {}, {}", (packet.destination, packet.destination_port), near, link.state)
        if link.is_static:
            self._remember_visitor(arrival, port, near, far, now)
        return Path(port, mtu_bytes, near, far, destination=near, link=link)

    def _remember_visitor(
        self, arrival: Arrival, port: NamedPort, near: tuple[int, int], far: tuple[int, int], now: int
    ) -> None:
        """A visitor of a static forward came by another port than the table's: the answers go back there."""
        protocol = arrival.packet.protocol
        if port.interface is self._vpn or self._port_towards(far[0]) != arrival.port.name:
            until = now + idle_ns(self.settings.alias, protocol)
            self.returns.came((protocol, *near, *far), arrival.port.name, until)

    def speaks_for(self, port: NamedPort, undelivered: Packet) -> int | None:
        """The source that our error about a packet must carry which a node did not get; None where any address of ours
        will do.

        An error that leaves by tap1 carries the node's own address, as an answer of the node would; one that another
        peer hears carries ours.
        """
        source, destination = undelivered.source, undelivered.destination
        if self.peers.owner(source) is not None:
            return self._own.speaker
        is_in_lan = self._tap0 is not None and self._tap0.is_on_link(source)
        if self._tap1 is None or source in self._own.addresses or is_in_lan:
            return None
        leaves = self.peers.has_exit(port.node) or destination in self.crossing.forwarded
        return destination if leaves else None

    def unanswered(self, syn: Unanswered) -> Arrival:
        """An unsolicited SYN as it came in, which nothing answered (RFC 5382 REQ-4): its sender is owed 3/3."""
        packet = Packet(bytearray(syn.quote), None)  # cut to the bytes that an error quotes: `parse` would refuse it
        if syn.egress is Egress.TAP1:
            return Arrival(self._ports.named("tap1"), packet, group=False)
        target = self.routes.target(packet.source)
        return Arrival(
            self._ports.named(VPN if node_of(target) is None else self._ports.name_of(target)), packet, group=False
        )

    def _is_forwarded(self, ends: FlowEnds, port: str) -> bool:
        egress = self._ports.named(port).interface.egress
        protocol, inside, inside_port, remote, _ = ends
        link = None if egress is None else self._aliases.peek_outbound(egress, protocol, inside, inside_port, remote)
        return link is not None and link.is_static

    # Paths

    def _plain(self, arrival: Arrival, port: NamedPort) -> Path | Refused:
        """A path that rewrites nothing but the TTL."""
        packet = arrival.packet
        ends = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
        near, far = ends if arrival.port.interface.is_inside or port.interface is self._tap1 else ends[::-1]
        return _onward(arrival, Path(port, self._mtus.towards(port), near, far))

    # Packets for our own addresses, from inside

    def _to_own(self, arrival: Arrival, now: int) -> Outcome:
        """A service of ours takes it, tun0's address is the host's, alias addresses hairpin, and nothing listens on
        tap0's address."""
        packet, own = arrival.packet, self._own
        wanted = self._local.wanted(arrival)
        if wanted is not None:
            return wanted
        if packet.destination == own.host:
            if arrival.port.interface is self._tun0:
                return Refused(Drop.ROUTE_REFLECTED)
            return self._plain(arrival, self._ports.direct["tun0"])
        for out in (self._tap1, self._vpn):
            if out is not None and packet.destination == out.address:
                if arrival.port.interface is self._tun0 and not self.crossing.may_borrow(out, packet.source):
                    return Refused(Drop.ROUTE_NOT_FROM_OUTSIDE)
                return self._hairpin(arrival, self._ports.direct[out.name], now)
        return self._local.closed(arrival)

    def _hairpin(self, arrival: Arrival, turn: NamedPort, now: int) -> Outcome:
        """RFC 4787 REQ-9: to another inside host by its outside name; the sender shows its own outside name."""
        packet, egress = arrival.packet, turn.interface.egress
        assert egress is not None
        if packet.protocol == ipv4.ICMP and packet.data[packet.header_bytes] not in ipv4.ICMP_QUERIES:
            return _onward(arrival, self._icmp_errors.hairpin(arrival, turn.interface))
        known = self._aliases.peek_inbound(egress, packet.protocol, packet.destination_port, packet.source)
        if known is None or packet.protocol not in (ipv4.TCP, ipv4.UDP):
            return Refused(Drop.ALIAS_NO_LINK)
        if packet.ttl <= 1:
            return _EXPIRED
        port = self.crossing.port_inside(known.inside)
        if port is None:
            return Refused(Drop.PORT_ABSENT)
        mtu_bytes = self._mtus.towards(port)
        near = _too_big(packet, mtu_bytes) or self._alias(arrival, turn, port, mtu_bytes, now)
        if isinstance(near, Refused):
            return near
        assert near.source is not None
        seen = packet.copy()
        rewrite.source(seen, *near.source)
        link = self._aliases.inbound(egress, seen, now, hairpin=True)
        if isinstance(link, Drop):
            return Refused(link)
        self._tracing.say("alias", "hairpin to {}", (link.inside, link.inside_port))
        return replace(near, destination=(link.inside, link.inside_port))


_EXPIRED = Refused(Drop.IP_TTL, TTL_EXCEEDED)
_EXHAUSTED = frozenset({Drop.ALIAS_NO_PORT, Drop.ALIAS_TABLE_FULL, Drop.ALIAS_HOST_LIMIT})


def _onward(arrival: Arrival, path: Path | Refused) -> Path | Refused:
    """The path, if there is one and the packet has hops left and fits: true of an ICMP error like of any other."""
    if isinstance(path, Refused):
        return path
    if arrival.packet.ttl <= 1:
        return _EXPIRED
    return _too_big(arrival.packet, path.mtu_bytes) or path


def _too_big(packet: Packet, mtu_bytes: int) -> Refused | None:
    """RFC 1191: a packet with DF that is too big for its egress is refused with the right MTU."""
    if not packet.dont_fragment or len(packet.data) <= mtu_bytes or wire_bytes(packet) <= mtu_bytes:
        return None
    error = IcmpError(errors.UNREACHABLE, errors.FRAGMENTATION_NEEDED, rest=mtu_bytes)
    return Refused(Drop.IP_TOO_BIG, error)
