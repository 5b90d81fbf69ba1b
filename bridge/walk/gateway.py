"""The gateway: one walk through the rooms. Read this file first.

A frame comes in as bytes with the port's name and `now`; what is to be done comes out as effects. Nothing here reads a
clock, opens a socket or draws a random number of its own: the same object runs under the daemon, under `replay` and
under tests. The functions stand in the order of a packet's way:

    receive -> frame checks -> IP checks -> fragments -> from inside | outside | a peer -> path -> carry -> emit

RFC 1812 5.2.2 and 5.3 (the checks and their order), RFC 2827 through `bridge.walk.martians`, RFC 4787, 5382 and 5508
through `alias`, RFC 1812 4.3 through `icmp`, RFC 826 through `arp`, RFC 1191 (`_fit`), RFC 791 3.2 and RFC 6691
(`_carry`).
Every frame is sent, answered, taken in, held or dropped with a reason, and counted so: `bridge.walk.counters`,
`bridge.walk.balance`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import replace

from alias import quote as quotes
from alias import rewrite
from alias.fragments import FragmentStore
from alias.plain import PlainStore
from alias.reassembly import Expired, Reassembly
from alias.table import Aliases, MakeStore
from alias.types import Egress, Unanswered
from arp.effects import ArpEffect, Transmit
from bridge.config.into_routes import Announced
from bridge.config.into_walk import alias_settings, forwards_from, reserved_ports
from bridge.config.load import Config
from bridge.config.model import Tap1Table
from bridge.state.links import LinkFile
from bridge.walk.balance import missing
from bridge.walk.decision import Decision
from bridge.walk.effects import Effect, Send
from bridge.walk.fast_path import FastPath, ends_of
from bridge.walk.interface import Interface, interfaces_from, take_address
from bridge.walk.martians import Admission, claims_hold
from bridge.walk.outgoing import Outgoing, Trace, pieces
from bridge.walk.path import Answer, Arrival, Path
from flow.table import HARVEST_S, Table
from icmp import errors
from route.table import RouteTable
from wire import ethernet, ipv4, tcp
from wire.drop import Drop
from wire.gso import GsoHeader
from wire.ipv4 import Packet
from wire.units import earliest


class Gateway:
    """The forwarder. `events`: tell drops, links and ARP changes as effects too (replay does, the daemon does not).
    `table`: where decisions are repeated from; None where every packet is walked. `ledger`: where links are written
    down to outlive the process; whoever wants that puts one here."""

    def __init__(
        self,
        config: Config,
        routes: RouteTable,
        rng: random.Random,
        *,
        events: bool = False,
        table: Table | None = None,
        make_store: MakeStore = PlainStore,
    ) -> None:
        self.config = config
        self._rng = rng
        self.interfaces = interfaces_from(config, rng)
        self.arp = {name: itf.arp for name, itf in self.interfaces.items() if itf.arp is not None}
        self._late_s = HARVEST_S if table is not None else 0
        self.aliases = Aliases(
            alias_settings(config, self._late_s), forwards_from(config), reserved_ports(config), rng, make_store
        )
        self.fragments: FragmentStore[Path | Answer, Arrival] = FragmentStore()
        self.reassembly = Reassembly()
        self.started_ns = 0
        self._events = self.aliases.tells = events
        self.out = Outgoing(self.interfaces, rng.randrange(0x10000), events=events)
        self.counters = self.out.counters
        self.decision = Decision(config, routes, self.interfaces, self.aliases, self.out)
        self.nodes = self.decision.nodes
        self.fast = FastPath(table, self.interfaces, self.aliases, self.decision.openings, self.out)
        self.admission = Admission(self.interfaces, self.decision.peers, self.nodes)
        self.ledger: LinkFile | None = None
        self._apply(config)

    def _apply(self, config: Config) -> None:
        """Take what a reload may change from the configuration."""
        self.out.rate_limit = errors.RateLimit(config.icmp.errors_per_second)
        self.out.muted = frozenset(config.icmp.mute)

    @property
    def routes(self) -> RouteTable:
        """Where destinations go."""
        return self.decision.routes

    # Entry points

    def start(self, now: int) -> list[Effect]:
        """Begin the RFC 5227 probes and announcements; traffic does not wait for them."""
        self.started_ns = now
        effects = self.out.effects = []
        for name, table in self.arp.items():
            self.out.arp_effects(self.interfaces[name], table.start(now), now)
        return effects

    def receive(
        self, port: str, frame: bytes | bytearray | memoryview, now: int, gso: GsoHeader | None = None
    ) -> list[Effect]:
        """Walk one frame. `port`: `tap0`, `tap1`, `tun0`, `vpn` or `vpn:NODE`; `now` in ns, never backwards."""
        effects = self.out.effects = []
        interface = self.interfaces.get(port) or self._interface_of(port)
        counters = interface.counters
        counters.rx_packets += 1
        counters.rx_bytes += len(frame)
        if interface.arp is None:
            drop = self._ip(port, interface, frame, 0, gso, now, group=False)
        else:
            drop = self._ethernet(port, interface, bytes(frame), gso, now)
        if drop is not None:
            self.out.dropped(port, drop)
        if self.aliases.events:
            self._tell_links()
        return effects

    def tick(self, now: int) -> list[Effect]:
        """Fire every timer that is due at `now`."""
        effects = self.out.effects = []
        self.fast.tick(now)  # first: what it tells keeps links and ARP entries alive
        for name, table in self.arp.items():
            self.out.arp_effects(self.interfaces[name], table.tick(now), now)
        for outcome in self.aliases.tick(now):
            if isinstance(outcome, Unanswered):
                self.decision.syn_unanswered(outcome, now)
            elif self._events:
                self.out.link_changed(outcome)
        self.decision.tick(now)
        self._give_up(self.fragments.tick(now))
        for expired in self.reassembly.tick(now):
            self._unfinished(expired, now)
        self._tell_links()
        if self.ledger is not None:
            self.ledger.tick(now)
        return effects

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, in ns; None where nothing waits."""
        due = earliest(self.aliases.next_deadline(), self.fragments.next_deadline())
        due = earliest(due, earliest(self.reassembly.next_deadline(), self.fast.due_ns))
        due = earliest(due, self.decision.next_deadline())
        for table in self.arp.values():
            due = earliest(due, table.next_deadline())
        return due if self.ledger is None else earliest(due, self.ledger.next_deadline())

    def reconfigure(self, config: Config, routes: RouteTable, now: int) -> list[Effect]:
        """Take a new configuration whose ports are the same: lists, routes, alias, forwards, ICMP, static ARP, and
        tap1's address and next hop.

        Links live on, but for those of an address that tap1 no longer has; a packet whose destination is decided
        differently now takes the new way at once, under the new egress' own link.
        """
        effects = self.out.effects = []
        if config.tap1 is not None and self.config.tap1 is not None:
            if config.tap1.address != self.config.tap1.address:
                self._readdress(config.tap1, now)
            self.interfaces["tap1"].gateway = int(config.tap1.gateway) if config.tap1.gateway is not None else 0
        for name, table in self.arp.items():
            old, new = (getattr(settings, name).arp for settings in (self.config, config))
            for address in old.keys() - new.keys():
                table.delete(address)
            for address, mac in new.items():
                if old.get(address) != mac:
                    self.out.arp_effects(self.interfaces[name], table.add(address, mac), now)
        self.config = config
        settings = alias_settings(config, self._late_s)
        if settings != self.aliases.settings:
            self.fast.harvest(self.fast.table.limit, now)  # what has passed counts by the rules of before
        self.aliases.reconfigure(settings, forwards_from(config), reserved_ports(config), now)
        self.fast.set_outside()
        sides = self._sides()
        self.decision.reconfigure(config, routes)
        self._end_moved(sides)
        self.admission.peers = self.decision.peers
        self._apply(config)
        self.fast.outdate()
        self._tell_links()
        return effects

    def _readdress(self, tap1: Tap1Table, now: int) -> None:
        """The ISP gave us another address. What was aliased to the old one ends, as a kernel that masquerades has it:
        nobody answers there any more. Neighbours are asked anew, the MAC address stays, and the new address is probed
        and announced as at the start (RFC 5227), beside traffic."""
        interface = self.interfaces["tap1"]
        self.fast.outdate()  # first: other threads go on repeating
        self.fast.harvest(self.fast.table.limit, now)  # what has passed counts for the links of before
        if interface.arp is not None:
            self.out.arp_effects(interface, interface.arp.give_up(), now)
        self.aliases.flush(now=now, egress=Egress.TAP1)
        take_address(interface, tap1, self._rng)
        self.decision.readdressed()
        self.admission.readdressed()
        self.out.readdressed()
        self.fast.set_ports()
        if interface.arp is not None:
            self.arp["tap1"] = interface.arp
            self.out.arp_effects(interface, interface.arp.start(now), now)

    def announce(self, announced: Announced) -> None:
        """Peers announced these prefixes, put them in the place of what they did before. Packets find them and may come
        from them at once; a reload keeps those of peers that stay."""
        sides = self._sides()
        before = self.announced
        self.decision.announce(announced)
        self._end_moved(sides)
        if self.announced != before:
            self.fast.outdate()

    def _sides(self) -> dict[int, str | None]:
        """The port or node that each host with links lives behind. Hosts are few where links are many, and every reload
        and announcement asks."""
        return {inside: self.decision.openings.behind(inside) for inside in self.aliases.insides}

    def _end_moved(self, before: dict[int, str | None]) -> None:
        """A host that lives elsewhere now is another host: what still comes for the one before, in answer to
        what it sent, is not for the eyes of that one, nor of the kernel where nobody has the prefix any more."""
        behind = self.decision.openings.behind
        moved = {inside for inside, port in before.items() if behind(inside) != port}
        if moved:
            self._flush(moved)

    def flush_links(self, insides: Collection[int] | None = None) -> int:
        """End all links that are not static (of these inside addresses), on the operator's word; how many."""
        ended = self._flush(insides)
        self.fast.outdate()
        return ended

    def _flush(self, insides: Collection[int] | None) -> int:
        ended = self.aliases.flush(insides)
        if self.ledger is not None:
            self.ledger.catch_up()  # what is ended on somebody's word does not come back
        return ended

    @property
    def announced(self) -> Announced:
        """What peers have announced, by peer."""
        return self.decision.peers.announced

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

    def trace(self, port: str, frame: bytes | bytearray | memoryview, now: int, gso: GsoHeader | None = None) -> Trace:
        """Walk one frame and tell every step. It changes this object: callers trace on a copy or in a fork."""
        told = self.out.tracing = Trace()
        self.out.answered = self.out.held = False
        effects = self.receive(port, frame, now, gso)
        self.out.tracing = None
        told.out = [effect for effect in effects if isinstance(effect, Send)]
        if told.drop is None:
            told.verdict = "answer" if self.out.answered else "hold" if self.out.held else "send"
        return told

    def refused(self, port: str, reason: Drop) -> None:
        """A port could not put a frame on its device."""
        self.counters.refused(port.partition(":")[0], reason)

    def failed(self, port: str | None) -> None:
        """A bug of ours: the walk, or what was to be done after it, failed on a frame of `port`, or on a timer (None).
        Frames that have no fate now never get one, those that were to be released among them: they are dropped."""
        found = missing(self)
        for name, number in found.items():
            self.counters.dropped(name, Drop.WALK_FAULT, number)
        if not found and port is not None:
            self.counters.lost(port.partition(":")[0], Drop.WALK_FAULT)

    def undelivered(self, port: str, sent: bytes, now: int, *, mtu_bytes: int = 0) -> list[Effect]:
        """A packet that left by `port` of the tunnel did not get through: its sender hears 3/1 (RFC 1812 5.2.7.1), or
        3/4 with the MTU that it is too long for.

        `sent` is the packet as it left. The error is one of our own about it, and goes the way of any error that comes
        back by that port: to whoever the quoted packet's link names.
        """
        effects = self.out.effects = []
        quoted = ipv4.parse(sent, 0, None)
        if isinstance(quoted, Drop):
            return effects
        message = self.out.undelivered(quoted, self.decision.speaks_for(port, quoted), mtu_bytes)
        if message is None:
            return effects
        arrival = Arrival(port, self._interface_of(port), message, False, is_ours=True)
        way = self.decision.from_outside(arrival, now)
        if isinstance(way, Path) and self.out.may_tell(way.interface, way.inside[0], now, may_answer=True):
            self._carry(arrival, way, now)
        return effects

    def port_of(self, target: str) -> str:
        """The port's name for a routing target: `vpn:NODE` is `vpn` for the default node."""
        return self.decision.port_of(target)

    @property
    def unreachable_nodes(self) -> set[str]:
        """Nodes that packets cannot go to, as whoever runs the tunnel says."""
        return self.nodes.unreachable

    @unreachable_nodes.setter
    def unreachable_nodes(self, nodes: set[str]) -> None:
        if nodes != self.nodes.unreachable:
            self.nodes.unreachable = nodes
            self.fast.outdate()

    @property
    def wanted_nodes(self) -> set[str]:
        """Those of them that packets were meant for, until somebody takes them out."""
        return self.nodes.wanted

    def mtu_towards(self, port: str, interface: Interface) -> int:
        """The largest packet that may leave by a port, in bytes: the interface's MTU, or less where the way is narrower
        (`Outgoing.path_mtus`)."""
        return self.out.mtu_towards(port, interface)

    def _interface_of(self, port: str) -> Interface:
        return self.interfaces[port.partition(":")[0]]

    # Frame and header checks

    def _ethernet(self, port: str, interface: Interface, frame: bytes, gso: GsoHeader | None, now: int) -> Drop | None:
        if len(frame) < ethernet.HEADER_BYTES:
            return Drop.ETH_SHORT
        destination, source = frame[:6], frame[6:12]
        group = destination != interface.mac
        if group and not ethernet.is_group(destination):
            return Drop.ETH_NOT_FOR_US
        if source[0] & 1 or source in (interface.mac, ethernet.NO_MAC):
            return Drop.ETH_SOURCE
        kind = frame[12:14]
        if kind == ethernet.IPV4_TYPE:
            return self._ip(port, interface, frame, ethernet.HEADER_BYTES, gso, now, group=group)
        if kind == ethernet.ARP_TYPE:
            assert interface.arp is not None
            self.out.answered = True
            self.out.say("arp", "an ARP frame: the table takes in what it says")
            return self._taken_in(interface, interface.arp.receive(frame, now), now)
        return self._other_ethertype(int.from_bytes(kind, "big"))

    def _taken_in(self, interface: Interface, effects: list[ArpEffect], now: int) -> Drop | None:
        drop = self.out.arp_effects(interface, effects, now)
        if drop is None and any(isinstance(effect, Transmit) for effect in effects):
            interface.counters.answered += 1
        elif drop is None:
            interface.counters.taken += 1
        return drop

    def _other_ethertype(self, ethertype: int) -> Drop:
        self.counters.ethertype(ethertype)
        return ethernet.ethertype_drop(ethertype)

    def _ip(
        self,
        port: str,
        interface: Interface,
        frame: bytes | bytearray | memoryview,
        start: int,
        claims: GsoHeader | None,
        now: int,
        *,
        group: bool,
    ) -> Drop | None:
        if interface.arp is None and len(frame) and frame[0] >> 4 == 6:
            return self._other_ethertype(ethernet.ETHERTYPE_IPV6)
        packet = ipv4.parse(frame, start, claims)
        if not isinstance(packet, Packet):
            return packet
        if claims is not None and not claims_hold(packet, claims):
            return Drop.PORT_MALFORMED
        if self.out.tracing is not None:
            self.out.say("wire", "{}", packet)
        arrival = Arrival(port, interface, packet, group)
        drop = self.admission.source_fault(arrival) or self.admission.destination_fault(arrival)
        if drop is not None:
            return drop
        if packet.header_bytes > ipv4.MINIMUM_HEADER_BYTES:
            fault = ipv4.options_fault(packet)
            if fault is not None:
                reason, pointer = fault
                if reason is Drop.IP_OPTION and self.decision.openings.expects(arrival):
                    self.out.error(arrival, errors.PARAMETER_PROBLEM, 0, now, rest=pointer << 24)
                return reason
        if packet.is_fragment:
            return self._fragment(arrival, now)
        drop = ipv4.read_transport(packet)
        if drop is not None:
            return drop
        if packet.protocol == ipv4.TCP and self.fast.repeats:
            self.fast.settle(arrival, now)
        decision = self.decision.of(arrival, now)
        if isinstance(decision, Path):
            return self._carry(arrival, decision, now)
        if isinstance(decision, Answer):
            return self.out.answer_echo(arrival, packet, now)
        return decision

    # Fragments: the first one decides, the others follow it or wait for it

    def _fragment(self, arrival: Arrival, now: int) -> Drop | None:
        packet, came_by = arrival.packet, arrival.interface
        if (
            not came_by.is_inside
            and packet.destination != came_by.address
            and not self.decision.openings.lets_in(arrival)
        ):
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
        fault = ipv4.read_transport(packet)
        if fault is None and packet.protocol == ipv4.TCP and self.fast.repeats:
            self.fast.settle(arrival, now)
        decision = fault or self.decision.of(arrival, now)
        if not isinstance(decision, Path | Answer):
            self._give_up((Drop.FRAGMENT_DATAGRAM_DROPPED, item) for item in self.fragments.refuse(key, now))
            return decision
        if isinstance(decision, Path):
            decision = replace(decision, flow=ends_of(packet))
            if decision.egress is not None:
                decision = replace(decision, identification=self.aliases.identification(decision.egress, packet, now))
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
        for expired in self.reassembly.take_fallen():
            self._unfinished(expired, now)
        if whole is None:
            self.out.held = True
            self.out.say("icmp", "part of an echo request to us: it waits for the rest")
            return None
        if isinstance(whole, Drop):
            return whole
        packet, fragments = whole
        drop = packet if isinstance(packet, Drop) else ipv4.read_transport(packet)
        if drop is None and isinstance(packet, Packet):
            drop = self.out.answer_echo(arrival, packet, now)
        if drop is None:  # by one answer, and the fragment at hand is counted there
            arrival.interface.counters.answered += fragments - 1
        else:
            for _ in range(fragments - 1):
                self.out.dropped(arrival.port, drop)
        return drop

    def _give_up(self, items: Iterable[tuple[Drop, Arrival]]) -> None:
        for reason, arrival in items:
            self.out.dropped(arrival.port, reason)

    # Carrying a decision out

    def _carry(self, arrival: Arrival, path: Path, now: int) -> Drop | None:
        """Rewrite a copy of the packet as its path says, fit it to the egress, and send it to its next hop."""
        received, out = arrival.packet, path.interface
        mtu_bytes = self.out.mtu_towards(path.port, out)
        if received.offset_bytes:  # what the decision checked for the first fragment, without an error (RFC 1122 3.2.2)
            if received.ttl <= 1:
                return Drop.IP_TTL
            if received.dont_fragment and len(received.data) > mtu_bytes:
                return Drop.IP_TOO_BIG
            if (
                path.egress is not None
                and path.source is not None
                and path.source[0] != self.interfaces[path.egress.label].address
            ):
                return Drop.FRAGMENT_DATAGRAM_DROPPED  # the address of before a reload
        packet = received.copy()
        rewrite.forward(packet, received.ttl - 1, path.source, path.destination)
        if path.quoted is not None and not packet.offset_bytes:
            quote, quoted_source, quoted_destination = path.quoted
            quotes.rewrite_quote(
                packet,
                quote,
                source=quoted_source,
                destination=quoted_destination,
                identification=path.quoted_identification,
            )
        identification = path.identification
        if path.egress is not None and identification is None and not received.dont_fragment:
            identification = self.aliases.identification(path.egress, received, now)
        if identification is not None and identification != received.identification:
            ipv4.set_identification(packet, identification)
        if packet.protocol == ipv4.TCP and not packet.offset_bytes and tcp.opens(packet):
            ways = (arrival.port, arrival.interface), (path.port, out)
            tcp.clamp_mss(packet, min(self.out.segment_bytes(*way) for way in ways) - 40)
        self.fast.learn(arrival, path, packet, now)
        if len(packet.data) <= mtu_bytes:
            return self.out.emit(path.port, out, (packet,), arrival, now)
        return self.out.emit(path.port, out, [*pieces(packet, mtu_bytes)], arrival, now)

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
        if not self._events:
            self.aliases.events.clear()
            return
        for event in self.aliases.take_events():
            self.out.link_changed(event)
