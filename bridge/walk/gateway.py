"""The gateway: one walk through the rooms. Read this file first.

A frame comes in as bytes with the port's name and `now`; the caller gets back a list of effects to carry out. Nothing
here reads a clock, opens a socket or draws a random number of its own: the daemon, `replay` and the tests drive the
same object. A frame passes these files, in this order:

    gateway -> intake (martians, fragments) -> forwarding.decision (crossing, alias) -> outgoing (fast_path)

Every frame is sent, answered, taken in, held or dropped with a reason (`outcome`), and counted so: `counters`,
`balance`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import NamedTuple

from alias.plain import PlainStore
from alias.table import Aliases, MakeStore
from alias.types import AliasSettings, Egress, Unanswered
from arp.port import ArpPort
from bridge.walk.balance import missing
from bridge.walk.counters import Counters
from bridge.walk.effects import Effect, Send
from bridge.walk.fast_path import FastPath
from bridge.walk.forwarding.decision import Decision
from bridge.walk.forwarding.peer_prefixes import Announced
from bridge.walk.fragments import Fragments
from bridge.walk.intake import Intake
from bridge.walk.interface import NamedPort, Ports
from bridge.walk.lease import OWN_PORT, LeaseService, holds, leased, leased_layers
from bridge.walk.local import Local
from bridge.walk.martians import Martians
from bridge.walk.messages import Messages
from bridge.walk.mtu import PathMtus
from bridge.walk.outcome import PORT_UNREACHABLE, Resident, Service
from bridge.walk.outgoing import Outgoing
from bridge.walk.own import OwnAddresses
from bridge.walk.path import Arrival, Path
from bridge.walk.residents import LinkKeeper, NatLinks, Neighbours
from bridge.walk.settings import GatewaySettings, PortSettings
from bridge.walk.trace import Trace, Tracing
from dhcp.client import Client
from dhcp.lease import Lease
from flow.table import HARVEST_S, Table
from route.table import RouteTable
from wire import ipv4
from wire.drop import Drop
from wire.gso import GsoHeader
from wire.units import SECOND_NS


class _Change(NamedTuple):
    """A reload on its way through the stages: the settings before and after, the new routes, and the call's time and
    effects."""

    before: GatewaySettings
    after: GatewaySettings
    routes: RouteTable
    now: int
    effects: list[Effect]


class Gateway:
    """The forwarder. `events`: drops, links and ARP changes become effects too (replay tells them, the daemon does
    not). `table`: the flow table that repeats decisions; None where every packet is walked. `rng`: for alias ports,
    the pauses of RFC 5227 and our first IP identification."""

    def __init__(
        self,
        settings: GatewaySettings,
        routes: RouteTable,
        rng: random.Random,
        *,
        events: bool = False,
        table: Table | None = None,
        make_store: MakeStore = PlainStore,
    ) -> None:
        self.settings = settings
        self.started_ns = 0
        self._rng = rng
        tap1 = settings.port("tap1")
        client = tap1.dhcp if tap1 is not None else None
        xids = random.Random(rng.getrandbits(64)) if client is not None else rng  # first: they depend on the seed alone
        self._late_ns = HARVEST_S * SECOND_NS if table is not None else 0
        self.ports = Ports(settings, rng)
        self.interfaces = self.ports.interfaces
        self.own = OwnAddresses(self.interfaces)
        self.aliases = Aliases(
            delayed(settings.alias, self._late_ns), settings.forwards, settings.reserved_ports, rng, make_store
        )
        self.mtus = PathMtus()
        self._counters = Counters({name: interface.counters for name, interface in self.interfaces.items()})
        self._tracing = tracing = Tracing()
        self._messages = Messages(self.own, self._counters, tracing, settings.icmp, rng.randrange(0x10000))
        self.local = Local(self._messages, tracing, settings.icmp)
        self.decision = Decision(settings, routes, self.ports, self.own, self.aliases, self.mtus, self.local, tracing)
        self.nodes = self.decision.nodes
        self.fast = FastPath(table, self.ports, self.aliases, self.decision.crossing, self.mtus, self._counters)
        self.out = Outgoing(
            self.interfaces,
            self._counters,
            self.aliases,
            self.fast,
            self.mtus,
            self._messages,
            tracing,
            events=events,
        )
        self._fragments = Fragments(self.ports, self.aliases, self.out, tracing)
        self.fragments, self.reassembly = self._fragments.store, self._fragments.reassembly
        self.links = NatLinks(self.aliases, self.interfaces, self._tell_unanswered, events=events)
        self._neighbours = {
            name: Neighbours(self.ports.direct[name], self.out, tracing)
            for name, interface in self.interfaces.items()
            if interface.framing == "ethernet"
        }
        self._intake = self._begin_intake()
        # In the order in which their timers fire. The flow table is first: its hits keep links and ARP entries alive.
        self.residents: tuple[Resident, ...] = (
            self.fast,
            *self._neighbours.values(),
            self.links,
            self.decision,
            self._fragments,
            *self.local.services,
        )
        self.leases = None if client is None else self._begin_leases(Client(client, rng, xids))

    def _begin_intake(self) -> Intake:
        """The checks before the decision, with the parts that they ask."""
        return Intake(
            Martians(self.interfaces, self.own, self.decision.peers),
            self.local,
            self._neighbours,
            self.decision,
            self.fast,
            self._fragments,
            self.out,
            self._counters,
            self._tracing,
        )

    def _begin_leases(self, client: Client) -> LeaseService:
        """tap1's address is leased: its client hears every packet first, and no link gets its port."""
        self.aliases.listen(*OWN_PORT)
        tap1_port = self.ports.direct["tap1"]
        leases = LeaseService(client, tap1_port, self.out, self._take_lease, self._forget_linked_address)
        self.add_service(leases, early=True)
        self.out.on_neighbour_change = leases.neighbour_changed
        return leases

    def add_service(self, service: Service, *, early: bool = False) -> None:
        """Let a service answer datagrams to our own addresses. `early`: it is asked about every packet, before the
        check for martians. Services are asked in the order in which they were added, echo first."""
        if early:
            self.local.early += (service,)
        else:
            self.local.services += (service,)
        self.residents += (service,)

    @property
    def counters(self) -> Counters:
        """All counters, with the frames that the flow table has repeated until now."""
        self.fast.account()
        return self._counters

    @property
    def arp(self) -> dict[str, ArpPort]:
        """The ARP tables of the taps, by the port's name."""
        return {name: itf.neighbours for name, itf in self.interfaces.items() if itf.neighbours is not None}

    @property
    def routes(self) -> RouteTable:
        """Where destinations go."""
        return self.decision.routes

    @property
    def announced(self) -> Announced:
        """The prefixes that peers have announced, by peer."""
        return self.decision.peers.announced

    # Entry points of the loop

    def start(self, now: int, *, announces: bool = True) -> list[Effect]:
        """Begin. `announces`: with the RFC 5227 probes and announcements, for which traffic does not wait."""
        effects: list[Effect] = []
        self.started_ns = now
        for resident in self.residents:
            if announces or not isinstance(resident, Neighbours):
                resident.start(now, effects)
        return effects

    def receive(
        self, port: str, frame: bytes | bytearray | memoryview, now: int, gso: GsoHeader | None = None
    ) -> list[Effect]:
        """Walk one frame. `port`: `tap0`, `tap1`, `tun0`, `vpn` or `vpn:NODE`; `now` in ns, never backwards. `KeyError`
        where the port is not configured."""
        effects: list[Effect] = []
        came_by = self.ports.named(port)
        counters = came_by.interface.counters
        counters.rx_packets += 1
        counters.rx_bytes += len(frame)
        self._intake.receive(came_by, frame, gso, now, effects)
        if self.aliases.events:
            self.links.tell(effects)
        return effects

    def tick(self, now: int) -> list[Effect]:
        """Fire every timer that is due at `now`."""
        effects: list[Effect] = []
        for resident in self.residents:
            resident.tick(now, effects)
        return effects

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, in ns; None where nothing waits."""
        due: int | None = None
        for resident in self.residents:
            wanted = resident.next_deadline()
            if wanted is not None and (due is None or wanted < due):
                due = wanted
        return due

    def refused(self, port: str, reason: Drop) -> None:
        """A port could not put a frame on its device."""
        self._counters.refused(self.ports.named(port).interface.name, reason)

    def failed(self, port: str | None) -> None:
        """A bug of ours: the walk, or the loop behind it, failed on a frame of `port`, or on a timer (None).

        Frames that have no fate now never get one, the frames that were to be released among them: they are dropped.
        """
        found = missing(self)
        for name, number in found.items():
            self._counters.dropped(name, Drop.WALK_FAULT, number)
        if not found and port is not None:
            self._counters.lost(self.ports.named(port).interface.name, Drop.WALK_FAULT)

    def undelivered(self, port: str, sent: bytes, now: int, *, mtu_bytes: int = 0) -> list[Effect]:
        """A packet that left by `port` of the tunnel did not get through: its sender hears 3/1 (RFC 1812 5.2.7.1), or
        3/4 with the MTU in bytes that it is too long for.

        `sent` is the packet as it left. The error is one of our own about it, and takes the way of any error that comes
        back by that port: to the host that the quoted packet's link names.
        """
        effects: list[Effect] = []
        quoted = ipv4.parse(sent, 0, None)
        if isinstance(quoted, Drop):
            return effects
        left_by = self.ports.named(port)
        message = self._messages.undelivered(quoted, self.decision.speaks_for(left_by, quoted), mtu_bytes)
        if message is None:
            return effects
        arrival = Arrival(left_by, message, group=False, is_ours=True)
        path = self.decision.from_outside(arrival, now)
        if isinstance(path, Path) and self._messages.may_tell(
            path.port.interface, path.inside[0], now, may_answer=True
        ):
            self.out.carry_out(arrival, path, now, effects)
        return effects

    def _tell_unanswered(self, syn: Unanswered, now: int, effects: list[Effect]) -> None:
        """RFC 5382 REQ-4: six seconds without a SYN from inside: the stranger hears 3/3."""
        self.out.tell_sender(self.decision.unanswered(syn), PORT_UNREACHABLE, now, effects)

    # A reload

    def reconfigure(self, settings: GatewaySettings, routes: RouteTable, now: int) -> list[Effect]:
        """Take other settings whose ports are the same, in stages: each rests on the stages before it.

        Links live on, but for those of an address that tap1 no longer has. A packet whose destination is decided
        differently now takes the new way at once, under the new egress' own link. `ValueError` where a static ARP entry
        is impossible.
        """
        change = _Change(self.settings, settings, routes, now, [])
        for stage in self._stages():
            stage(change)
        return change.effects

    def _stages(self) -> tuple[Callable[[_Change], None], ...]:
        """In their order: each method says why it stands there."""
        return (
            self._apply_tap1,
            self._apply_static_neighbours,
            self._apply_alias,
            self._apply_decision,
            self._apply_messages,
            self._apply_lease,
            self._outdate,
        )

    def _apply_tap1(self, change: _Change) -> None:
        """First, because links and neighbours of the old address must end before new ones are made."""
        before, after = change.before.port("tap1"), change.after.port("tap1")
        if before is None or after is None or after.dhcp is not None:
            return
        ground, ground_before = ((port.address, port.prefix_length, port.beyond) for port in (after, before))
        if ground != ground_before:
            self._readdress(self.ports.direct["tap1"], after, change.now, change.effects)
        self.interfaces["tap1"].gateway = after.gateway if after.address else 0

    def _apply_static_neighbours(self, change: _Change) -> None:
        """After tap1's address: another address brings a table that has the new entries already."""
        for name, table in self.arp.items():
            before, after = change.before.static_arp(name), change.after.static_arp(name)
            for address in before.keys() - after.keys():
                table.delete(address)
            for address, mac in after.items():
                if before.get(address) != mac and (table.is_resolvable(address) or not self._is_leased(name)):
                    self.out.arp_effects(self.ports.direct[name], table.add(address, mac), change.now, change.effects)

    def _apply_alias(self, change: _Change) -> None:
        """Before the decision, which asks whether a forward still exists. Hits of before count by the timers of before,
        so they are heard first; the table learns afterwards which outside ports have links."""
        alias = delayed(change.after.alias, self._late_ns)
        if alias != self.aliases.settings:
            self.fast.harvest(self.fast.table.limit, change.now)
        self.aliases.reconfigure(alias, change.after.forwards, change.after.reserved_ports, change.now)
        self.fast.set_outside()

    def _apply_decision(self, change: _Change) -> None:
        """After the aliases. Links of hosts that live behind another port or peer now are ended, see `_end_moved`."""
        before = self._homes()
        self.settings = change.after
        self.decision.reconfigure(change.after, change.routes)
        self._end_moved(before)

    def _apply_messages(self, change: _Change) -> None:
        """After the decision: errors that the stages before sent obey the settings of before."""
        self._messages.reconfigure(change.after.icmp)
        self.local.reconfigure(change.after.icmp)

    def _apply_lease(self, change: _Change) -> None:
        """After the decision, whose new routes must know the leased network before the client may lose or change it."""
        tap1 = change.after.port("tap1")
        if self.leases is not None and tap1 is not None and tap1.dhcp is not None:
            self._route_lease(leased(tap1, self.leases.client.lease))
            self.leases.reconfigure(tap1.dhcp, change.now, change.effects)

    def _outdate(self, change: _Change) -> None:
        """Last: all that decisions rest on has changed by now, and the flow table must ask for each of them anew."""
        self.fast.outdate()
        self.links.tell(change.effects)

    def _readdress(self, port: NamedPort, settings: PortSettings, now: int, effects: list[Effect]) -> None:
        """The ISP gave us another address. Links that were aliased to the old address end, as a kernel that masquerades
        ends them: nobody answers there any more. Neighbours are asked anew, the MAC address stays, and the new address
        is probed and announced as at the start (RFC 5227), beside traffic."""
        interface = port.interface
        self.fast.outdate()  # first: other threads go on repeating
        self.fast.harvest(self.fast.table.limit, now)  # its hits count for the links of before
        if interface.neighbours is not None:
            self.out.arp_effects(port, interface.neighbours.give_up(), now, effects)
        self.own.readdress(interface, settings, self._rng)
        if interface.address != interface.linked_address:  # links of an earlier run wait for the address that they had
            self.aliases.flush(now=now, egress=Egress.TAP1)
            interface.linked_address = interface.address
        self.fast.set_ports()
        self.fast.set_outside()
        if interface.neighbours is not None:
            self.out.arp_effects(port, interface.neighbours.start(now), now, effects)

    # The DHCP client of tap1

    def _is_leased(self, port: str) -> bool:
        return port == "tap1" and self.leases is not None

    def _take_lease(self, lease: Lease | None, now: int, effects: list[Effect]) -> None:
        """tap1 has this lease from now on, None for no address. A renewal that changes neither address nor subnet keeps
        neighbours and links."""
        port, own = self.ports.direct["tap1"], self.settings.port("tap1")
        assert own is not None, "its client runs"
        settings, interface = leased(own, lease), port.interface
        if not holds(interface, settings):
            self._readdress(port, settings, now, effects)
        interface.gateway = settings.gateway if settings.address else 0
        interface.mtu_bytes = settings.mtu_bytes
        self._route_lease(settings)
        self.fast.set_ports()
        self.fast.outdate()

    def _route_lease(self, port: PortSettings) -> None:
        self.routes.connect(leased_layers(port), port.edges)

    def remember_lease(self, lease: Lease | None) -> None:
        """The lease of an earlier run, before links are taken up and before `start`: the client asks for it again, and
        links of its address wait for it."""
        if self.leases is not None:
            self.leases.remembered = lease
            self.interfaces["tap1"].linked_address = lease.address if lease is not None else 0

    def _forget_linked_address(self, now: int) -> None:
        """The address of an earlier run does not come back."""
        interface = self.interfaces["tap1"]
        if interface.linked_address and not interface.address:
            self.aliases.flush(now=now, egress=Egress.TAP1)
            interface.linked_address = 0

    def renew_lease(self, now: int) -> list[Effect]:
        """An operator wants an answer of the DHCP server now; only where tap1's address is leased."""
        effects: list[Effect] = []
        assert self.leases is not None
        self.leases.renew(now, effects)
        return effects

    def release_lease(self, now: int) -> list[Effect]:
        """An operator gives the leased address back; only where tap1's address is leased."""
        effects: list[Effect] = []
        assert self.leases is not None
        self.leases.release(now, effects)
        return effects

    def joined(self, port: str, now: int) -> list[Effect]:
        """The link of a port came back, and the network behind it may be another one."""
        effects: list[Effect] = []
        if self._is_leased(port) and self.leases is not None:
            self.leases.reattach(now, effects)
        return effects

    def _homes(self) -> dict[int, str | None]:
        """The port or node that each host with links lives behind. Hosts are few where links are many, and every reload
        and announcement asks."""
        return {inside: self.decision.crossing.behind(inside) for inside in self.aliases.insides}

    def _end_moved(self, before: dict[int, str | None]) -> None:
        """If an address moved to another port or peer, end its links: replies meant for the old host must not reach the
        new one, or the kernel when nobody owns the prefix."""
        behind = self.decision.crossing.behind
        moved = {inside for inside, home in before.items() if behind(inside) != home}
        if moved:
            self.links.flush(moved)

    # The tunnel's owner

    def announce(self, announced: Announced) -> None:
        """Put these prefixes in the place of what peers announced before. Packets find them and may come from them at
        once; a reload keeps those of peers that stay."""
        before = self._homes()
        if self.decision.announce(announced):
            self._end_moved(before)
            self.fast.outdate()

    def port_of(self, target: str) -> str:
        """The port's name for a routing target: `vpn:NODE` is `vpn` for the default node."""
        return self.ports.name_of(target)

    @property
    def unreachable_nodes(self) -> set[str]:
        """Nodes that packets cannot go to."""
        return self.nodes.unreachable

    @unreachable_nodes.setter
    def unreachable_nodes(self, nodes: set[str]) -> None:
        if nodes != self.nodes.unreachable:
            self.nodes.unreachable = nodes
            self.fast.outdate()

    @property
    def wanted_nodes(self) -> set[str]:
        """Unreachable nodes that packets were meant for, until the tunnel's owner takes them out."""
        return self.nodes.wanted

    # The operator

    @property
    def ledger(self) -> LinkKeeper | None:
        """The file that links are written to; None where they end with the process."""
        return self.links.keeper

    @ledger.setter
    def ledger(self, keeper: LinkKeeper | None) -> None:
        self.links.keeper = keeper

    def flush_links(self, insides: Collection[int] | None = None) -> int:
        """End all links that are not static (of these inside addresses), and return how many."""
        ended = self.links.flush(insides)
        self.fast.outdate()
        return ended

    def probe(self, port: str, address: int, now: int) -> list[Effect]:
        """Ask for a neighbour's MAC address now, at most once a second. `KeyError` where the port has no ARP table."""
        effects: list[Effect] = []
        self.out.arp_effects(self.ports.direct[port], self.arp[port].probe(address, now), now, effects)
        return effects

    def add_neighbour(self, port: str, address: int, mac: bytes, now: int) -> list[Effect]:
        """Add a static ARP entry; frames that waited for it go. `ValueError` where the entry is impossible, `KeyError`
        where the port has no ARP table."""
        effects: list[Effect] = []
        self.out.arp_effects(self.ports.direct[port], self.arp[port].add(address, mac), now, effects)
        return effects

    def trace(self, port: str, frame: bytes | bytearray | memoryview, now: int, gso: GsoHeader | None = None) -> Trace:
        """Walk one frame and tell every step. It changes this object: callers trace on a copy or in a fork."""
        told = self._tracing.trace = Trace()
        effects = self.receive(port, frame, now, gso)
        self._tracing.trace = None
        told.out = [effect for effect in effects if isinstance(effect, Send)]
        return told


def delayed(alias: AliasSettings, late_ns: int) -> AliasSettings:
    """The settings with every timer longer by `late_ns`: links hear so much later of packets that the flow table
    repeats, and no link may end early for it."""
    return replace(
        alias,
        udp_timeout_ns=alias.udp_timeout_ns + late_ns,
        tcp_established_ns=alias.tcp_established_ns + late_ns,
        tcp_transitory_ns=alias.tcp_transitory_ns + late_ns,
        icmp_timeout_ns=alias.icmp_timeout_ns + late_ns,
        question_timeout_ns=alias.question_timeout_ns + late_ns,
    )
