"""The gateway: one walk through the rooms. Read this file first.

A frame comes in as bytes with the port's name and `now`; what is to be done comes out as effects. Nothing here reads a
clock, opens a socket or draws a random number of its own: the same object runs under the daemon, under `replay` and
under tests. The functions stand in the order of a packet's way:

    receive -> frame checks -> IP checks -> fragments -> from inside | from outside -> path -> carry -> emit

RFC 1812 5.2.2 and 5.3 (the checks and their order), RFC 2827 through `bridge.admission`, RFC 4787, 5382 and 5508
through `alias`, RFC 1812 4.3 through `icmp`, RFC 826 through `arp`, RFC 1191 (`_fit`), RFC 791 3.2 and RFC 6691
(`_carry`).
A packet is either sent, answered, held or dropped with a reason; every drop is counted in `bridge.counters`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from alias import quote as quotes
from alias import rewrite
from alias.fragments import FragmentStore
from alias.reassembly import Expired, Reassembly
from alias.table import Aliases
from alias.types import Egress, Unanswered
from bridge.admission import Admission, claims_hold
from bridge.alias_settings import alias_settings, forwards_from, reserved_ports
from bridge.config import Config
from bridge.effects import Effect, Send
from bridge.error_paths import error_from_inside, error_from_outside, error_hairpin
from bridge.interface import Interface, interfaces_from
from bridge.openings import Openings
from bridge.outgoing import Outgoing, Trace, pieces, wire_bytes
from bridge.path import Answer, Arrival, Path
from bridge.returns import Ends, Returns
from flow.table import FlowTable
from icmp import errors, responder
from route.table import RouteTable, node_of
from wire import ethernet, ipv4, tcp
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.offload import Offload
from wire.units import prefix_mask, seconds_ns


class Gateway:
    """The forwarder. `events`: tell drops, links and ARP changes as effects too (replay does, the daemon does not)."""

    def __init__(self, config: Config, routes: RouteTable, rng: random.Random, *, events: bool = False) -> None:
        self.config = config
        self.routes = routes
        self.interfaces = interfaces_from(config, rng)
        self.arp = {name: itf.arp for name, itf in self.interfaces.items() if itf.arp is not None}
        self.aliases = Aliases(alias_settings(config), forwards_from(config), reserved_ports(config), rng)
        self.fragments: FragmentStore[Path | Answer, Arrival] = FragmentStore()
        self.reassembly = Reassembly()
        self.flows = FlowTable()
        self.returns = Returns()
        self.unreachable_nodes: set[str] = set()
        self.wanted_nodes: set[str] = set()  # those of them that packets were meant for, till somebody takes them out
        self.started_ns = 0
        self._events = events
        self._tap0 = self.interfaces.get("tap0")
        self._tap1 = self.interfaces.get("tap1")
        self._tun0 = self.interfaces.get("tun0")
        self._vpn = self.interfaces.get("vpn")
        self._own = {itf.address for itf in self.interfaces.values() if itf.address}
        self.admission = Admission(self.interfaces)
        self.openings = Openings(self.interfaces, self.aliases, self._port_towards)
        self._host = self._tun0.address if self._tun0 is not None else 0
        own_address = self._tap0.address if self._tap0 is not None else self._host
        self.out = Outgoing(self.interfaces, own_address, rng.randrange(0x10000), events=events)
        self.counters = self.out.counters
        self._apply(config)

    def _apply(self, config: Config) -> None:
        """Take what a reload may change from the configuration."""
        self.out.rate_limit = errors.RateLimit(config.icmp.errors_per_second)
        self.out.muted = frozenset(config.icmp.mute)
        self.openings.exempt = [(prefix.network, prefix_mask(prefix.length)) for prefix in config.alias.exempt]
        self._default_node = config.vpn.node if config.vpn is not None else None

    # Entry points

    def start(self, now: int) -> list[Effect]:
        """Begin the RFC 5227 probes and announcements; traffic does not wait for them."""
        self.started_ns = now
        effects = self.out.effects = []
        for name, table in self.arp.items():
            self.out.arp_effects(self.interfaces[name], table.start(now), now)
        return effects

    def receive(
        self, port: str, frame: bytes | bytearray | memoryview, now: int, offload: Offload | None = None
    ) -> list[Effect]:
        """Walk one frame. `port`: `tap0`, `tap1`, `tun0`, `vpn` or `vpn:NODE`; `now` in ns, never backwards."""
        effects = self.out.effects = []
        interface = self._interface_of(port)
        counters = self.counters.ports[interface.name]
        counters.rx_packets += 1
        counters.rx_bytes += len(frame)
        if interface.arp is None:
            drop = self._ip(port, interface, frame, 0, offload, now, group=False)
        else:
            drop = self._ethernet(port, interface, bytes(frame), offload, now)
        if drop is not None:
            self.out.dropped(port, drop)
        self._tell_links()
        return effects

    def tick(self, now: int) -> list[Effect]:
        """Fire every timer that is due at `now`."""
        effects = self.out.effects = []
        for name, table in self.arp.items():
            self.out.arp_effects(self.interfaces[name], table.tick(now), now)
        for outcome in self.aliases.tick(now):
            if isinstance(outcome, Unanswered):
                self._syn_unanswered(outcome, now)
            elif self._events:
                self.out.link_changed(outcome)
        self._give_up(self.fragments.tick(now))
        for expired in self.reassembly.tick(now):
            self._unfinished(expired, now)
        self._tell_links()
        return effects

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, in ns; None where nothing waits."""
        deadlines = [table.next_deadline() for table in self.arp.values()]
        deadlines += [self.aliases.next_deadline(), self.fragments.next_deadline(), self.reassembly.next_deadline()]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def reconfigure(self, config: Config, routes: RouteTable, now: int) -> list[Effect]:
        """Take a new configuration whose ports are the same: lists, routes, alias, forwards, ICMP, static ARP.

        Links live on; a packet whose destination is decided differently now takes the new way at once, under the new
        egress' own link.
        """
        effects = self.out.effects = []
        for name, table in self.arp.items():
            old, new = (getattr(settings, name).arp for settings in (self.config, config))
            for address in old.keys() - new.keys():
                table.delete(address)
            for address, mac in new.items():
                if old.get(address) != mac:
                    self.out.arp_effects(self.interfaces[name], table.add(address, mac), now)
        self.config = config
        self.routes = routes
        self.aliases.reconfigure(alias_settings(config), forwards_from(config), reserved_ports(config), now)
        self.returns.keep(self._is_forwarded)
        self._apply(config)
        self._tell_links()
        return effects

    def probe(self, port: str, address: int, now: int) -> list[Effect]:
        """An operator asks for a neighbour's MAC address: a request leaves at once, at most one a second."""
        effects = self.out.effects = []
        self.out.arp_effects(self.interfaces[port], self.arp[port].probe(address, now), now)
        return effects

    def add_neighbour(self, port: str, address: int, mac: bytes, now: int) -> list[Effect]:
        """A static ARP entry on the operator's word; frames that waited for it go. `ValueError` as `ArpPort.add`."""
        effects = self.out.effects = []
        self.out.arp_effects(self.interfaces[port], self.arp[port].add(address, mac), now)
        return effects

    def trace(
        self, port: str, frame: bytes | bytearray | memoryview, now: int, offload: Offload | None = None
    ) -> Trace:
        """Walk one frame and tell every step. It changes this object: callers trace on a copy or in a fork."""
        told = self.out.tracing = Trace()
        self.out.answered = self.out.held = False
        effects = self.receive(port, frame, now, offload)
        self.out.tracing = None
        told.out = [effect for effect in effects if isinstance(effect, Send)]
        if told.drop is None:
            told.verdict = "answer" if self.out.answered else "hold" if self.out.held else "send"
        return told

    def refused(self, port: str, reason: Drop) -> None:
        """A port could not put a frame on its device."""
        self.counters.drops_by_port[port.partition(":")[0], reason] += 1

    def undelivered(self, port: str, sent: bytes, now: int) -> list[Effect]:
        """A packet that left by `port` of the tunnel did not get through: its sender hears 3/1 (RFC 1812 5.2.7.1).

        `sent` is the packet as it left. The error is one of our own about it, and goes the way of any error that comes
        back by that port: to whoever the quoted packet's link names.
        """
        effects = self.out.effects = []
        quoted = ipv4.parse(sent, 0, None)
        if isinstance(quoted, Drop) or not errors.may_answer(quoted, group=False) or not self.out.address_for_host:
            return effects
        data = errors.error(
            errors.UNREACHABLE,
            errors.HOST,
            sent,
            source=self.out.address_for_host,
            destination=quoted.source,
            identification=self.out.next_identification(),
        )
        message = ipv4.parse(data, 0, None)
        assert isinstance(message, Packet)
        ipv4.read_transport(message)
        arrival = Arrival(port, self._interface_of(port), message, False)
        way = self._from_outside(arrival, now)
        if isinstance(way, Path) and self.out.may_tell(way.interface, way.inside[0], now, may_answer=True):
            self._carry(arrival, way, now)
        return effects

    def port_of(self, target: str) -> str:
        """The port's name for a routing target: `vpn:NODE` is `vpn` for the default node."""
        return "vpn" if target == f"vpn:{self._default_node}" else target

    def _port_towards(self, remote: int) -> str:
        return self.port_of(self.routes.target(remote))

    def _interface_of(self, port: str) -> Interface:
        return self.interfaces[port.partition(":")[0]]

    # Frame and header checks

    def _ethernet(
        self, port: str, interface: Interface, frame: bytes, offload: Offload | None, now: int
    ) -> Drop | None:
        if len(frame) < ethernet.HEADER_BYTES:
            return Drop.ETH_SHORT
        destination, source = frame[:6], frame[6:12]
        group = ethernet.is_group(destination)
        if not group and destination != interface.mac:
            return Drop.ETH_NOT_FOR_US
        if ethernet.is_group(source) or source in (interface.mac, ethernet.NO_MAC):
            return Drop.ETH_SOURCE
        kind = frame[12:14]
        if kind == ethernet.IPV4_TYPE:
            return self._ip(port, interface, frame, ethernet.HEADER_BYTES, offload, now, group=group)
        if kind == ethernet.ARP_TYPE:
            assert interface.arp is not None
            self.out.answered = True
            self.out.say("arp", "an ARP frame: the table takes in what it says")
            return self.out.arp_effects(interface, interface.arp.receive(frame, now), now)
        return self._other_ethertype(int.from_bytes(kind, "big"))

    def _other_ethertype(self, ethertype: int) -> Drop:
        self.counters.ethertypes[ethertype] += 1
        return ethernet.ethertype_drop(ethertype)

    def _ip(
        self,
        port: str,
        interface: Interface,
        frame: bytes | bytearray | memoryview,
        start: int,
        claims: Offload | None,
        now: int,
        *,
        group: bool,
    ) -> Drop | None:
        if interface.arp is None and len(frame) and frame[0] >> 4 == 6:
            return self._other_ethertype(ethernet.ETHERTYPE_IPV6)
        packet = ipv4.parse(frame, start, claims)
        if isinstance(packet, Drop):
            return packet
        if claims is not None and not claims_hold(packet, claims):
            return Drop.PORT_MALFORMED
        self.out.say("wire", "{}", packet)
        arrival = Arrival(port, interface, packet, group)
        drop = self.admission.source_fault(arrival) or self.admission.destination_fault(arrival)
        if drop is not None:
            return drop
        if packet.header_bytes > ipv4.MINIMUM_HEADER_BYTES:
            fault = ipv4.options_fault(packet)
            if fault is not None:
                reason, pointer = fault
                if reason is Drop.IP_OPTION and self.openings.expects(arrival):
                    self.out.error(arrival, errors.PARAMETER_PROBLEM, 0, now, rest=pointer << 24)
                return reason
        if packet.is_fragment:
            return self._fragment(arrival, now)
        drop = ipv4.read_transport(packet)
        if drop is not None:
            return drop
        decision = self._decide(arrival, now)
        if isinstance(decision, Path):
            return self._carry(arrival, decision, now)
        if isinstance(decision, Answer):
            return self.out.answer_echo(arrival, packet, now)
        return decision

    # Fragments: the first one decides, the others follow it or wait for it

    def _fragment(self, arrival: Arrival, now: int) -> Drop | None:
        packet, came_by = arrival.packet, arrival.interface
        if not came_by.is_inside and packet.destination != came_by.address and self.openings.inside_of(arrival) is None:
            return Drop.ROUTE_NOT_FROM_OUTSIDE
        key = arrival.fragment_key
        fate = self.fragments.arrive(key, packet, arrival, now)
        self._give_up(fate.fallen)
        if fate.verdict == "drop":
            return fate.reason
        if fate.verdict == "held":
            self.out.held = True
            self.out.say("alias", "a later fragment: it waits for the first")
            return None
        if fate.verdict == "follow":
            assert fate.decision is not None
            return self._follow(arrival, fate.decision, now)
        decision = ipv4.read_transport(packet) or self._decide(arrival, now)
        if not isinstance(decision, Path | Answer):
            self._give_up((Drop.FRAGMENT_DATAGRAM_DROPPED, item) for item in self.fragments.refuse(key, now))
            return decision
        if isinstance(decision, Path) and decision.egress is not None:
            decision = decision._replace(identification=self.aliases.identification(decision.egress, packet, now))
        waiting = self.fragments.settle(key, decision, now)
        drop = self._follow(arrival, decision, now)
        for later in waiting:
            late_drop = self._follow(later, decision, now)
            if late_drop is not None:
                self.out.dropped(later.port, late_drop)
        return drop

    def _follow(self, arrival: Arrival, decision: Path | Answer, now: int) -> Drop | None:
        """Treat a fragment as the first of its datagram was decided."""
        if isinstance(decision, Path):
            return self._carry(arrival, decision, now)
        whole = self.reassembly.add(arrival.fragment_key, arrival.packet, now)
        if isinstance(whole, Packet):
            return ipv4.read_transport(whole) or self.out.answer_echo(arrival, whole, now)
        if whole is None:
            self.out.held = True
            self.out.say("icmp", "part of an echo request to us: it waits for the rest")
        return whole

    def _give_up(self, items: Iterable[tuple[Drop, Arrival]]) -> None:
        for reason, arrival in items:
            self.out.dropped(arrival.port, reason)

    # The decision

    def _decide(self, arrival: Arrival, now: int) -> Path | Answer | Drop | None:
        """Where a whole packet (or a first fragment) goes; a drop reason; None where it has been answered."""
        if arrival.interface.is_inside:
            return self._from_inside(arrival, now)
        return self._from_outside(arrival, now)

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
        back = self.returns.way_back(packet, now) if self.returns else None
        self.out.say("route", "{} -> {}", destination, target)
        if back is not None:
            target = back
            self.out.say("route", "the answer to a visitor of a static forward: {}", back)
        if target == "unreachable":
            self.out.error(arrival, errors.UNREACHABLE, errors.NET, now)
            return Drop.ROUTE_UNREACHABLE
        out = self.interfaces.get(target.partition(":")[0])
        if out is None:
            return Drop.PORT_ABSENT
        node = node_of(target)
        if node is not None and node in self.unreachable_nodes:
            self.wanted_nodes.add(node)
            self.out.error(arrival, errors.UNREACHABLE, errors.HOST, now)
            return Drop.ROUTE_NO_TUNNEL
        if out is self._tun0 and came_by is self._tun0:
            return Drop.ROUTE_REFLECTED
        port = self.port_of(target)
        if not self.openings.is_aliased(out, packet):
            return self._plain(arrival, port, out, now)
        drop = self._fit(arrival, out, now)
        if drop is not None:
            return drop
        return self._alias(arrival, port, out, now)

    def _alias(self, arrival: Arrival, port: str, out: Interface, now: int) -> Path | Drop:
        packet, egress = arrival.packet, out.egress
        assert egress is not None
        if packet.protocol == ipv4.ICMP and packet.data[packet.header_bytes] not in ipv4.ICMP_QUERIES:
            return error_from_inside(self.aliases, arrival, port, out)
        link = self.aliases.outbound(egress, packet, now)
        if isinstance(link, Drop):
            if link in (Drop.ALIAS_NO_PORT, Drop.ALIAS_TABLE_FULL, Drop.ALIAS_HOST_LIMIT):
                self.out.error(arrival, errors.UNREACHABLE, errors.PROHIBITED, now)
            return link
        inside, outside = (link.inside, link.inside_port), (out.address, link.outside_port)
        self.out.say("alias", "{} is {} on {}, {}", inside, outside, out.name, link.state)
        return Path(
            port,
            out,
            (packet.source, packet.source_port),
            (packet.destination, packet.destination_port),
            source=outside,
            egress=egress,
        )

    def _from_outside(self, arrival: Arrival, now: int) -> Path | Answer | Drop | None:
        packet, came_by = arrival.packet, arrival.interface
        if packet.destination == came_by.address:
            return self._to_alias_address(arrival, came_by, now)
        inside = self.openings.inside_of(arrival)
        if inside is None:
            return Drop.ROUTE_NOT_FROM_OUTSIDE
        self.out.say("route", "{} is reached without alias, by {}", packet.destination, inside.name)
        return self._plain(arrival, inside.name, inside, now)

    def _to_alias_address(self, arrival: Arrival, came_by: Interface, now: int) -> Path | Answer | Drop | None:
        """A packet from outside to the address that inside hosts borrow: echo, error, link or silence."""
        packet, egress = arrival.packet, came_by.egress
        assert egress is not None
        if packet.protocol == ipv4.ICMP:
            kind = packet.data[packet.header_bytes]
            if kind in ipv4.ICMP_QUERY_REQUESTS:
                answered = came_by is not self._tap1 or self.config.icmp.answer_on_tap1
                return Answer() if answered and kind == responder.ECHO_REQUEST else Drop.LOCAL_SILENT
            if kind not in ipv4.ICMP_QUERY_REPLIES:
                return self._onward(arrival, error_from_outside(self.aliases, arrival, came_by, self._side_of), now)
        link = self.aliases.inbound(egress, packet, now)
        if isinstance(link, Drop):
            if link in (Drop.ALIAS_NO_LINK, Drop.ALIAS_FILTERED):
                self.aliases.unsolicited(egress, packet, now)
            self.out.say("alias", "no link for {}", (packet.destination, packet.destination_port))
            return link
        if packet.ttl <= 1:
            return self._expired(arrival, now)
        inside = self._side_of(link.inside)
        if inside is None:
            return Drop.PORT_ABSENT
        drop = self._fit(arrival, inside, now)
        if drop is not None:
            return drop
        near, far = (link.inside, link.inside_port), (packet.source, packet.source_port)
        self.out.say("alias", "{} is {}, {}", (packet.destination, packet.destination_port), near, link.state)
        if link.is_static and self.port_of(self.routes.target(packet.source)) != arrival.port:
            alias = self.config.alias
            idle_s = alias.tcp_established_timeout if packet.protocol == ipv4.TCP else alias.udp_timeout
            self.returns.came((packet.protocol, *near, *far), arrival.port, now + seconds_ns(idle_s))
        return Path(inside.name, inside, near, far, destination=near)

    def _is_forwarded(self, ends: Ends, port: str) -> bool:
        egress = self._interface_of(port).egress
        protocol, inside, inside_port, remote, _ = ends
        link = None if egress is None else self.aliases.peek_outbound(egress, protocol, inside, inside_port, remote)
        return link is not None and link.is_static

    def _side_of(self, inside: int) -> Interface | None:
        """The alias table decides: the host's own links go to tun0, all others to the LAN."""
        return self._tun0 if inside == self._host else self._tap0

    def _plain(self, arrival: Arrival, port: str, out: Interface, now: int) -> Path | Drop:
        """A path without any rewriting but the TTL."""
        packet = arrival.packet
        ends = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
        near, far = ends if arrival.interface.is_inside else ends[::-1]
        return self._onward(arrival, Path(port, out, near, far), now)

    def _onward(self, arrival: Arrival, path: Path | Drop, now: int) -> Path | Drop:
        """The path, if there is one and the packet has hops left and fits: true of an ICMP error like of any other."""
        if isinstance(path, Drop):
            return path
        if arrival.packet.ttl <= 1:
            return self._expired(arrival, now)
        return self._fit(arrival, path.interface, now) or path

    def _expired(self, arrival: Arrival, now: int) -> Drop:
        self.out.error(arrival, errors.TIME_EXCEEDED, 0, now)
        return Drop.IP_TTL

    def _fit(self, arrival: Arrival, out: Interface, now: int) -> Drop | None:
        """RFC 1191: a packet with DF that is too big for its egress is refused with the right MTU."""
        packet = arrival.packet
        if not packet.dont_fragment or wire_bytes(packet) <= out.mtu_bytes:
            return None
        self.out.error(arrival, errors.UNREACHABLE, errors.FRAGMENTATION_NEEDED, now, rest=out.mtu_bytes)
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
                return self._hairpin(arrival, out, now)
        return self.out.refuse_closed(arrival, now)

    def _hairpin(self, arrival: Arrival, turn: Interface, now: int) -> Path | Drop:
        """RFC 4787 REQ-9: to another inside host by its outside name, and the sender shows its outside name too."""
        packet, egress = arrival.packet, turn.egress
        assert egress is not None
        if packet.protocol == ipv4.ICMP and packet.data[packet.header_bytes] not in ipv4.ICMP_QUERIES:
            return self._onward(arrival, error_hairpin(self.aliases, arrival, turn, self._side_of), now)
        port = packet.destination_port
        known = self.aliases.peek_inbound(egress, packet.protocol, port, packet.source)
        if known is None or packet.protocol not in (ipv4.TCP, ipv4.UDP):
            return Drop.ALIAS_NO_LINK
        if packet.ttl <= 1:
            return self._expired(arrival, now)
        inside = self._side_of(known.inside)
        if inside is None:
            return Drop.PORT_ABSENT
        drop = self._fit(arrival, inside, now)
        if drop is not None:
            return drop
        near = self._alias(arrival, turn.name, turn, now)
        if isinstance(near, Drop):
            return near
        assert near.source is not None
        seen = packet.copy()
        rewrite.source(seen, *near.source)
        link = self.aliases.inbound(egress, seen, now, hairpin=True)
        if isinstance(link, Drop):
            return link
        self.out.say("alias", "hairpin to {}", (link.inside, link.inside_port))
        return near._replace(port=inside.name, interface=inside, destination=(link.inside, link.inside_port))

    def _syn_unanswered(self, syn: Unanswered, now: int) -> None:
        """RFC 5382 REQ-4: six seconds without a SYN from inside: the stranger hears 3/3."""
        packet = Packet(bytearray(syn.quote), None)  # cut to what an error quotes: `parse` would miss the rest
        if syn.egress is Egress.TAP1:
            port = "tap1"
        else:
            target = self.routes.target(packet.source)
            port = self.port_of(target) if node_of(target) is not None else "vpn"
        self.out.error(Arrival(port, self._interface_of(port), packet, False), errors.UNREACHABLE, errors.PORT, now)

    # Carrying a decision out

    def _carry(self, arrival: Arrival, path: Path, now: int) -> Drop | None:
        """Rewrite a copy of the packet as its path says, fit it to the egress, and send it to its next hop."""
        received, out = arrival.packet, path.interface
        if received.offset_bytes:  # what `_decide` checked for the first fragment, without an error (RFC 1122 3.2.2)
            if received.ttl <= 1:
                return Drop.IP_TTL
            if received.dont_fragment and len(received.data) > out.mtu_bytes:
                return Drop.IP_TOO_BIG
        packet = received.copy()
        ipv4.set_ttl(packet, received.ttl - 1)
        if path.quoted is not None and not packet.offset_bytes:
            quote, quoted_source, quoted_destination = path.quoted
            quotes.rewrite_quote(
                packet,
                quote,
                source=quoted_source,
                destination=quoted_destination,
                identification=path.quoted_identification,
            )
        if path.source is not None:
            rewrite.source(packet, *path.source)
        if path.destination is not None:
            rewrite.destination(packet, *path.destination)
        identification = path.identification
        if path.egress is not None and identification is None and not received.dont_fragment:
            identification = self.aliases.identification(path.egress, received, now)
        if identification is not None and identification != received.identification:
            ipv4.set_identification(packet, identification)
        if packet.protocol == ipv4.TCP and not packet.offset_bytes:
            tcp.clamp_mss(packet, min(arrival.interface.mtu_bytes, out.mtu_bytes) - 40)
        self.flows.saw(
            arrival.interface.name,
            path.port,
            packet.protocol,
            path.inside,
            path.outside,
            len(packet.data),
            now,
        )
        drop: Drop | None = None
        for piece in pieces(packet, out.mtu_bytes):
            drop = self.out.emit(path.port, out, piece, arrival, now) or drop
        return drop

    def _unfinished(self, expired: Expired, now: int) -> None:
        """RFC 1122 3.3.2: a datagram to us that never became whole: 11/1 where its first fragment is here."""
        interface = self._interface_of(expired.port)
        if expired.first is not None:
            arrival = Arrival(expired.port, interface, expired.first, False)
            self.out.error(arrival, errors.TIME_EXCEEDED, 1, now)
        for _ in range(expired.fragments):
            self.out.dropped(expired.port, expired.reason)

    # Telling

    def _tell_links(self) -> None:
        events = self.aliases.take_events()  # taken in any case, or they would pile up
        if self._events:
            for event in events:
                self.out.link_changed(event)
