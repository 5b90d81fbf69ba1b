"""Where a packet goes: the middle of the walk, between the checks before it and the carrying behind it.

`Decision.of` takes a checked packet, whole or a first fragment, and gives a `Path`, an `Answer`, a reason to drop it,
or None where it has been answered. The functions stand in the order of the decision:

    from inside | from outside | a peer by tap1 -> our own addresses -> route, node -> openings -> alias, MTU

RFC 1812 5.2 (forwarding), RFC 1191 (`_fit`), RFC 4787, 5382 and 5508 through `alias` and `bridge.walk.icmp_errors`.
"""

from __future__ import annotations

from dataclasses import replace

from alias import rewrite
from alias.table import Aliases
from alias.types import Egress, Unanswered
from bridge.config.into_routes import Announced, announced_layers
from bridge.config.into_walk import forwards_from
from bridge.config.load import Config
from bridge.walk.crossing import Openings
from bridge.walk.icmp_errors import error_from_inside, error_from_outside, error_hairpin
from bridge.walk.interface import Interface
from bridge.walk.nodes import Nodes, idle_ns
from bridge.walk.outgoing import Outgoing, wire_bytes
from bridge.walk.path import Answer, Arrival, Path, Side
from bridge.walk.peer_prefixes import peer_prefixes_from
from bridge.walk.reply_to import Ends, Returns
from icmp import errors, responder
from route.table import RouteTable, is_private, node_of
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import SECOND_NS, prefix_mask

FORGET_NS = 60 * SECOND_NS
"""How often what has ended is looked for."""


class Decision:
    """What decides: the routes, the nodes of the tunnel and whose its inner addresses are, the NAT, and the rules of
    what crosses. Only the links, the visitors and the flows on a fallback change with packets."""

    def __init__(
        self, config: Config, routes: RouteTable, interfaces: dict[str, Interface], aliases: Aliases, out: Outgoing
    ) -> None:
        self.routes = routes
        self.nodes = Nodes(config)
        self.peers = peer_prefixes_from(config)
        self.openings = Openings(interfaces, aliases, self.peers, self.nodes, self._port_towards)
        self.returns = Returns()
        self._forget_ns = 0
        self._interfaces = interfaces
        self._aliases = aliases
        self._out = out
        self._tap1 = interfaces.get("tap1")
        self._tun0 = interfaces.get("tun0")
        self._vpn = interfaces.get("vpn")
        self._host = self._tun0.address if self._tun0 is not None else 0
        self.readdressed()
        self._apply(config)

    def readdressed(self) -> None:
        """The interfaces have their addresses."""
        self._own = {itf.address for itf in self._interfaces.values() if itf.address}
        self.openings.readdressed()

    def _apply(self, config: Config) -> None:
        self._config = config
        self.openings.exempt = [(prefix.network, prefix_mask(prefix.length)) for prefix in config.alias.exempt]
        self.openings.forwarded = frozenset(
            forward.inside for forward in forwards_from(config) if forward.on is Egress.TAP1
        )

    def reconfigure(self, config: Config, routes: RouteTable) -> None:
        """Take a new configuration, after the aliases did."""
        announced = self.peers.announced
        self.routes = routes
        self.peers = self.openings.peers = peer_prefixes_from(config)
        self._apply(config)
        if announced:
            self.announce(announced)
        self.nodes.reconfigure(config, lambda remote: node_of(routes.target(remote)))
        self.returns.keep(self._is_forwarded)

    def announce(self, announced: Announced) -> None:
        """Peers announced these prefixes: put them in the place of what they did before. Packets find them, and may
        come from them, at once."""
        self.peers.announce(announced)
        self.routes.announce(announced_layers(self._config, self.peers.announced))

    def tick(self, now: int) -> None:
        """Now and then, forget what has ended: visitors and flows on a fallback have no timer each."""
        if now >= self._forget_ns:
            self._forget_ns = now + FORGET_NS
            self.returns.forget(now)
            self.nodes.forget(now)

    def next_deadline(self) -> int | None:
        """When there is something to look through; None where nothing is kept."""
        return self._forget_ns if self.returns.ports or len(self.nodes) else None

    def port_of(self, target: str) -> str:
        """The port's name for a routing target: `vpn:NODE` is `vpn` for the default node."""
        node = node_of(target)
        return target if node is None else self.nodes.port(node)

    def _port_towards(self, remote: int) -> str:
        return self.port_of(self.routes.target(remote))

    def of(self, arrival: Arrival, now: int) -> Path | Answer | Drop | None:
        """Where a whole packet (or a first fragment) goes; a drop reason; None where it has been answered."""
        if arrival.interface.is_inside:
            return self._from_inside(arrival, now)
        return self.from_outside(arrival, now)

    def _from_inside(self, arrival: Arrival, now: int) -> Path | Answer | Drop | None:
        packet, came_by = arrival.packet, arrival.interface
        destination = packet.destination
        if destination in self._own:
            local = self._to_own(arrival, now)
            if not isinstance(local, Interface):
                return local
            return self._plain(arrival, local.name, local, now)
        if packet.ttl <= 1:
            return self._expired(arrival, now)
        target = self.routes.target(destination)
        back = self.returns.way_back(packet, now) if self.returns.ports else None
        if self._out.tracing is not None:
            self._out.say("route", "{} -> {}", destination, target)
        if back is not None:
            target = back
            self._out.say("route", "the answer to a visitor of a static forward: {}", back)
        if target == "unreachable":
            self._out.error(arrival, errors.UNREACHABLE, errors.NET, now)
            return Drop.ROUTE_UNREACHABLE
        out, port = self._interfaces.get(target), target
        if out is None:
            node, out = node_of(target), self._vpn
            if node is None or out is None:
                return Drop.PORT_ABSENT
            reachable = self._reachable(arrival, node, now)
            if isinstance(reachable, Drop):
                return reachable
            port = reachable
        if came_by is self._tun0:
            if out is self._tun0:
                return Drop.ROUTE_REFLECTED
            if not self.openings.may_borrow(out, packet.source):
                return Drop.ROUTE_NOT_FROM_OUTSIDE
        return self._leave(arrival, port, out, now)

    def _reachable(self, arrival: Arrival, node: str, now: int) -> str | Drop:
        """The port of a node that can be reached: this one, or what stands in for it."""
        chosen = self.nodes.choose(node, arrival.packet, now)
        if chosen is None:
            self._out.say("tunnel", "{} is unreachable", node)
            self._out.error(arrival, errors.UNREACHABLE, errors.HOST, now)
            return Drop.ROUTE_NO_TUNNEL
        if chosen != node:
            why = "is unreachable" if node in self.nodes.unreachable else "is back, but the flow began elsewhere"
            self._out.say("tunnel", "{} {}: {} takes it", node, why, chosen)
        return self.nodes.port(chosen)

    def _leave(self, arrival: Arrival, port: str, out: Interface, now: int) -> Path | Drop:
        """By an egress: under its alias where one is due."""
        if not self.openings.is_aliased(out, arrival.packet):
            return self._plain(arrival, port, out, now)
        return self._fit(arrival, port, out, now) or self._alias(arrival, port, out, now)

    def _alias(self, arrival: Arrival, port: str, out: Interface, now: int) -> Path | Drop:
        packet, egress = arrival.packet, out.egress
        assert egress is not None
        if packet.protocol == ipv4.ICMP and packet.data[packet.header_bytes] not in ipv4.ICMP_QUERIES:
            return error_from_inside(self._aliases, arrival, port, out)
        link = self._aliases.outbound(egress, packet, now)
        if isinstance(link, Drop):
            if link in (Drop.ALIAS_NO_PORT, Drop.ALIAS_TABLE_FULL, Drop.ALIAS_HOST_LIMIT):
                self._out.error(arrival, errors.UNREACHABLE, errors.PROHIBITED, now)
            return link
        inside, outside = (link.inside, link.inside_port), (out.address, link.outside_port)
        if self._out.tracing is not None:
            self._out.say("alias", "{} is {} on {}, {}", inside, outside, out.name, link.state)
        return Path(
            port,
            out,
            (packet.source, packet.source_port),
            (packet.destination, packet.destination_port),
            source=outside,
            egress=egress,
            link=link,
        )

    def from_outside(self, arrival: Arrival, now: int) -> Path | Answer | Drop | None:
        """The same for what came by tap1 or the tunnel."""
        packet, came_by = arrival.packet, arrival.interface
        if packet.destination == came_by.address:
            return self._to_alias_address(arrival, came_by, now)
        if (
            self.openings.anybody_leaves
            and self.openings.may_leave(arrival)
            and (self.openings.is_exit(arrival) or self.returns.way_back(packet, now) == "tap1")
        ):
            return self._exit(arrival, now)
        inside = self.openings.inside_of(arrival)
        if inside is None:
            return Drop.ROUTE_NOT_FROM_OUTSIDE
        self._out.say("route", "{} is reached without alias, by {}", packet.destination, inside.port)
        return self._in_the_open(arrival, inside, now)

    def _in_the_open(self, arrival: Arrival, inside: Side, now: int) -> Path | Drop:
        """From outside to an inside address: to a peer as far as it can be reached, and never back where it came
        from."""
        port, out = inside
        if out is self._vpn and port != arrival.port:
            node = self.nodes.node_at(port)
            assert node is not None, "a peer has a name"
            reachable = self._reachable(arrival, node, now)
            if isinstance(reachable, Drop):
                return reachable
            port = reachable
        if port == arrival.port:
            return Drop.ROUTE_REFLECTED
        return self._plain(arrival, port, out, now)

    def _exit(self, arrival: Arrival, now: int) -> Path | Answer | Drop:
        """A peer's packet leaves by tap1, or is for tap1's address: as one from inside, but nodes and lists do not
        count."""
        packet, out = arrival.packet, self._tap1
        assert out is not None, "`may_leave` has seen it"
        if packet.destination == out.address:
            return Answer() if responder.is_echo_request(packet) else self._hairpin(arrival, out, now)
        if packet.ttl <= 1:
            return self._expired(arrival, now)
        self._out.say("route", "{} leaves by tap1", packet.destination)
        if is_private(packet.destination) and self.routes.target(packet.destination) != out.name:
            self._out.error(arrival, errors.UNREACHABLE, errors.NET, now)
            return Drop.ROUTE_UNREACHABLE
        return self._leave(arrival, out.name, out, now)

    def _to_alias_address(self, arrival: Arrival, came_by: Interface, now: int) -> Path | Answer | Drop | None:
        """A packet from outside to the address that inside hosts borrow: echo, error, link or silence."""
        packet, egress = arrival.packet, came_by.egress
        assert egress is not None
        if packet.protocol == ipv4.ICMP:
            kind = packet.data[packet.header_bytes]
            if kind in ipv4.ICMP_QUERY_REQUESTS:
                answered = came_by is not self._tap1 or self._config.icmp.answer_on_tap1
                return Answer() if answered and kind == responder.ECHO_REQUEST else Drop.LOCAL_SILENT
            if kind not in ipv4.ICMP_QUERY_REPLIES:
                return self._onward(
                    arrival, error_from_outside(self._aliases, arrival, came_by, self.openings.side_of), now
                )
        link = self._aliases.inbound(egress, packet, now)
        if isinstance(link, Drop):
            if link in (Drop.ALIAS_NO_LINK, Drop.ALIAS_FILTERED):
                self._aliases.unsolicited(egress, packet, now)
            self._out.say("alias", "no link for {}", (packet.destination, packet.destination_port))
            return link
        if packet.ttl <= 1:
            return self._expired(arrival, now)
        inside = self.openings.side_of(link.inside)
        if inside is None:
            return Drop.PORT_ABSENT
        if inside.port == arrival.port:
            return Drop.ROUTE_REFLECTED
        drop = self._fit(arrival, *inside, now)
        if drop is not None:
            return drop
        near, far = (link.inside, link.inside_port), (packet.source, packet.source_port)
        if self._out.tracing is not None:
            self._out.say("alias", "{} is {}, {}", (packet.destination, packet.destination_port), near, link.state)
        if link.is_static and (inside.interface is self._vpn or self._port_towards(packet.source) != arrival.port):
            until = now + idle_ns(self._config.alias, packet.protocol)
            self.returns.came((packet.protocol, *near, *far), arrival.port, until)
        return Path(*inside, near, far, destination=near, link=link)

    def speaks_for(self, port: str, undelivered: Packet) -> int | None:
        """The source of our error about a packet that a node did not get, where it must be a certain one: the node's
        own where the error leaves by tap1 as an answer of the node would, ours where another peer is to hear it."""
        source, destination = undelivered.source, undelivered.destination
        if self.peers.owner(source) is not None:
            return self._out.own_address
        lan = self._interfaces.get("tap0")
        if self._tap1 is None or source in self._own or (lan is not None and lan.is_on_link(source)):
            return None
        leaves = self.peers.has_exit(self.nodes.node_at(port)) or destination in self.openings.forwarded
        return destination if leaves else None

    def _is_forwarded(self, ends: Ends, port: str) -> bool:
        egress = self._interfaces[port.partition(":")[0]].egress
        protocol, inside, inside_port, remote, _ = ends
        link = None if egress is None else self._aliases.peek_outbound(egress, protocol, inside, inside_port, remote)
        return link is not None and link.is_static

    def _plain(self, arrival: Arrival, port: str, out: Interface, now: int) -> Path | Drop:
        """A path without any rewriting but the TTL."""
        packet = arrival.packet
        ends = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
        near, far = ends if arrival.interface.is_inside or out is self._tap1 else ends[::-1]
        return self._onward(arrival, Path(port, out, near, far), now)

    def _onward(self, arrival: Arrival, path: Path | Drop, now: int) -> Path | Drop:
        """The path, if there is one and the packet has hops left and fits: true of an ICMP error like of any other."""
        if isinstance(path, Drop):
            return path
        if arrival.packet.ttl <= 1:
            return self._expired(arrival, now)
        return self._fit(arrival, path.port, path.interface, now) or path

    def _expired(self, arrival: Arrival, now: int) -> Drop:
        self._out.error(arrival, errors.TIME_EXCEEDED, 0, now)
        return Drop.IP_TTL

    def _fit(self, arrival: Arrival, port: str, out: Interface, now: int) -> Drop | None:
        """RFC 1191: a packet with DF that is too big for its egress is refused with the right MTU."""
        packet = arrival.packet
        if not packet.dont_fragment:
            return None
        mtu_bytes = self._out.mtu_towards(port, out)
        if len(packet.data) <= mtu_bytes or wire_bytes(packet) <= mtu_bytes:
            return None
        self._out.error(arrival, errors.UNREACHABLE, errors.FRAGMENTATION_NEEDED, now, rest=mtu_bytes)
        return Drop.IP_TOO_BIG

    # Packets for our own addresses, from inside

    def _to_own(self, arrival: Arrival, now: int) -> Interface | Path | Answer | Drop | None:
        """Echo is answered, tun0's address is the host's, alias addresses hairpin, tap0's address refuses the rest."""
        packet = arrival.packet
        if responder.is_echo_request(packet):
            return Answer()
        if packet.destination == self._host:
            assert self._tun0 is not None
            return Drop.ROUTE_REFLECTED if arrival.interface is self._tun0 else self._tun0
        for out in (self._tap1, self._vpn):
            if out is not None and packet.destination == out.address:
                if arrival.interface is self._tun0 and not self.openings.may_borrow(out, packet.source):
                    return Drop.ROUTE_NOT_FROM_OUTSIDE
                return self._hairpin(arrival, out, now)
        return self._out.refuse_closed(arrival, now)

    def _hairpin(self, arrival: Arrival, turn: Interface, now: int) -> Path | Drop:
        """RFC 4787 REQ-9: to another inside host by its outside name, and the sender shows its outside name too."""
        packet, egress = arrival.packet, turn.egress
        assert egress is not None
        if packet.protocol == ipv4.ICMP and packet.data[packet.header_bytes] not in ipv4.ICMP_QUERIES:
            return self._onward(arrival, error_hairpin(self._aliases, arrival, turn, self.openings.side_of), now)
        port = packet.destination_port
        known = self._aliases.peek_inbound(egress, packet.protocol, port, packet.source)
        if known is None or packet.protocol not in (ipv4.TCP, ipv4.UDP):
            return Drop.ALIAS_NO_LINK
        if packet.ttl <= 1:
            return self._expired(arrival, now)
        inside = self.openings.side_of(known.inside)
        if inside is None:
            return Drop.PORT_ABSENT
        drop = self._fit(arrival, *inside, now)
        if drop is not None:
            return drop
        near = self._alias(arrival, turn.name, turn, now)
        if isinstance(near, Drop):
            return near
        assert near.source is not None
        seen = packet.copy()
        rewrite.source(seen, *near.source)
        link = self._aliases.inbound(egress, seen, now, hairpin=True)
        if isinstance(link, Drop):
            return link
        self._out.say("alias", "hairpin to {}", (link.inside, link.inside_port))
        turned = (link.inside, link.inside_port)
        return replace(near, port=inside.port, interface=inside.interface, destination=turned)

    def syn_unanswered(self, syn: Unanswered, now: int) -> None:
        """RFC 5382 REQ-4: six seconds without a SYN from inside: the stranger hears 3/3."""
        packet = Packet(bytearray(syn.quote), None)  # cut to what an error quotes: `parse` would miss the rest
        if syn.egress is Egress.TAP1:
            port = "tap1"
        else:
            target = self.routes.target(packet.source)
            port = self.port_of(target) if node_of(target) is not None else "vpn"
        self._out.error(
            Arrival(port, self._interfaces[port.partition(":")[0]], packet, False), errors.UNREACHABLE, errors.PORT, now
        )
