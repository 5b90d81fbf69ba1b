"""The fast path as the walk sees it: the walk tells its decisions to the flow table, and the table tells its hits back.

`Outgoing` calls `learn` for every packet that it forwards. `Gateway` calls `report_connection` before a packet that
changes the state of a TCP connection, and `outdate` where anything changes that decisions rest on; the timer harvests.
Code that moves frames (`bridge.ports.bursts`) asks the table itself.

The table repeats pure rewrites only: of the address and port of one end, of a packet that is whole, has no options and
leaves by another port than it came by. Its link lives longer than the decision (`LEASE_S`), so that the table needs no
word when the link ends. The next hop's MAC address and the MTU may change at any time: every packet looks at them anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final, Protocol

from alias.table import Aliases
from alias.types import Egress, Link
from bridge.ports.counted import Counted, refusals, unwalked
from bridge.walk.counters import Counters
from bridge.walk.effects import Effect
from bridge.walk.forwarding import next_hops
from bridge.walk.forwarding.crossing import Crossing
from bridge.walk.interface import Interface, NamedPort, Ports
from bridge.walk.mtu import PathMtus
from bridge.walk.outcome import Resident
from bridge.walk.path import Arrival, Path, WireEnds, wire_ends
from flow.plain import PlainTable
from flow.table import (
    ALIASED,
    BRIEF,
    BRIEF_LEASE_S,
    HARVEST_S,
    LEASE_S,
    MOST_PORTS,
    NEAR_SENDS,
    NO_SLOT,
    REPEAT,
    Flow,
    Hits,
    Punt,
    Table,
)
from wire.ipv4 import ICMP, ICMP_QUERIES, ICMP_QUERY_REQUESTS, MINIMUM_HEADER_BYTES, TCP, UDP, Packet
from wire.tcp import FIN, RST, SYN
from wire.units import SECOND_NS

SLICES: Final = 40
"""A harvest goes round in so many steps, so that none of them is long."""
SLICE_NS: Final = HARVEST_S * SECOND_NS * 4 // 5 // SLICES  # a fifth is for loops that are late
RECORDED: Final = 32_768
"""Flows that are kept for people alone, where nothing is repeated."""
_LASTS_NS: Final = (LEASE_S + 1) * SECOND_NS
"""A link that lives so long outlives every lease, which is counted in whole seconds."""
_LASTS_BRIEFLY_NS: Final = (BRIEF_LEASE_S + 1) * SECOND_NS
"""The same for a `BRIEF` lease."""
_FLAGS_OFFSET: Final = 13  # of the TCP header


class Repeater(Protocol):
    """Moves frames and repeats decisions (`bridge.ports.bursts.Bursts`)."""

    def counted(self) -> list[Counted]:
        """The frames of each port since the last call."""

    def punts(self) -> dict[Punt, int]:
        """Frames handed to the walk since the start, by reason."""


class FastPath(Resident):
    """Joins the flow table to ports, links and counters.

    `table` is None where nothing is repeated: flows are recorded for people alone then. `bursts`: all that moves
    frames; its owner appends it here, so that its frames are counted. `due_ns`: when `harvest` is due, None while the
    table is empty.
    """

    def __init__(
        self,
        table: Table | None,
        ports: Ports,
        aliases: Aliases,
        crossing: Crossing,
        mtus: PathMtus,
        counters: Counters,
    ) -> None:
        self.repeats = table is not None
        self.table: Table = PlainTable(RECORDED) if table is None else table
        self.bursts: list[Repeater] = []
        self.due_ns: int | None = None
        self._ports = ports
        self._aliases = aliases
        self._crossing = crossing
        self._mtus = mtus
        self._counters = counters
        self._numbered: list[NamedPort] = []
        self._numbers: dict[str, int] = {}
        self._behind: dict[str, list[int]] = {name: [] for name in ports.interfaces}  # port numbers by interface
        self._owners: list[Link | None] = []  # by the number of the entry; numbers are given out from 0 on
        self._swept = 0
        self._unheard = 0  # slices to go until all that was repeated before the last change is heard
        for name in ports.interfaces:
            self.number(name)
        mtus.on_change = self.set_ports

    # Ports

    def number(self, port: str) -> int:
        """The number of a port's name in the table, given out at the first question; -1 where there is none left.
        `KeyError` where the port's interface is not configured."""
        number = self._numbers.get(port, -1)
        if number < 0 and len(self._numbered) < MOST_PORTS:
            named = self._ports.named(port)
            number = self._numbers[port] = len(self._numbered)
            self._numbered.append(named)
            self._behind[named.interface.name].append(number)
            self._set_port(number)
            self._set_outside(number)
        return number

    def name(self, number: int) -> str:
        """The port's name of a number."""
        return self._numbered[number].name

    def set_ports(self) -> None:
        """The MTU, the MAC address or the neighbours of some ports have changed."""
        for number in range(len(self._numbered)):
            self._set_port(number)

    def _set_port(self, number: int) -> None:
        port = self._numbered[number]
        neighbours = port.interface.neighbours
        slots = neighbours.words if neighbours is not None else None
        self.table.set_port(number, port.interface.mac, self._mtus.towards(port), slots)

    def set_outside(self) -> None:
        """The address, the links or the settings of outside ports have changed. A packet from outside to a port that no
        link has needs no walk where the settings are silent about it."""
        for number in range(len(self._numbered)):
            self._set_outside(number)

    def _set_outside(self, number: int) -> None:
        interface = self._interface_of(number)
        if interface.egress is None:
            return
        for protocol in (TCP, UDP):
            is_silent = protocol == UDP or self._aliases.settings.unsolicited_syn == "silent"
            is_silent = is_silent and interface.address != 0  # a port without an address has no links either
            marks = self._aliases.marks(interface.egress, protocol) if is_silent else None
            self.table.set_outside(number, interface.address, protocol, marks)

    def _interface_of(self, number: int) -> Interface:
        return self._numbered[number].interface

    # The walk tells

    def learn(self, arrival: Arrival, path: Path, sent: Packet, next_hop: int, now: int) -> None:
        """A packet is about to leave: `sent`, as it will be on the wire, to the address `next_hop`."""
        received, link, source, destination = arrival.packet, path.link, path.source, path.destination
        in_port, out_port = self._numbers.get(arrival.port.name, -1), self._numbers.get(path.port.name, -1)
        if in_port < 0 or out_port < 0:
            in_port, out_port = self.number(arrival.port.name), self.number(path.port.name)
            if in_port < 0 or out_port < 0:
                return
        protocol = received.protocol
        before = path.flow or wire_ends(received)
        after = before
        if source is not None:
            after = (*source, after[2], after[3])
        if destination is not None:
            after = (after[0], after[1], *destination)
        if protocol == ICMP:  # one identifier, wherever it was rewritten, and the type
            after = (after[0], after[1] if destination is None else after[3], after[2], before[3])
        flags = NEAR_SENDS if path.inside[0] == received.source else 0
        if path.egress is not None:
            flags |= ALIASED
        neighbours = path.port.interface.neighbours
        slot = NO_SLOT if neighbours is None else neighbours.slot_of(next_hop)  # None: nobody there can be a neighbour
        if in_port != out_port and slot is not None and _is_rewrite(received, path, before[3], flags):
            flags |= self._lease(path, flags, now)
        if link is not None and link.is_static and not flags & NEAR_SENDS:
            # A visitor of a forward. Its answers go where it comes from, whatever the table repeated before, and the
            # walk must see it when it comes by another port again.
            self._report(out_port, protocol, (after[2], after[3], after[0], after[1]), now, withdraw=True)
            self._report_inward(protocol, after[2:], after[:2], now, withdraw=True)
        entry = self.table.learn(
            in_port,
            out_port,
            protocol,
            before,
            after,
            len(sent.data),
            NO_SLOT if slot is None else slot,
            flags,
            now,
        )
        if self.repeats and entry >= 0:
            self._own(entry, link, (in_port, protocol, before), now)
            if self.due_ns is None:
                self.due_ns = now + SLICE_NS

    def _own(self, entry: int, link: Link | None, key: tuple[int, int, WireEnds], now: int) -> None:
        """The entry counts for this link from now on. Hits that it may have counted for another link before the last
        change are reported first, which costs the flow one more walk."""
        owners = self._owners
        if entry >= len(owners):
            owners += [link] * (entry + 1 - len(owners))
        if self._unheard and owners[entry] is not link:
            self._report(*key, now, withdraw=True)
        owners[entry] = link

    def _lease(self, path: Path, flags: int, now: int) -> int:
        """`REPEAT`, with `BRIEF` where the link may end within a lease; 0 where the next packet must be walked."""
        if path.link is None:
            return REPEAT
        remote, remote_port = path.outside
        outbound = bool(flags & NEAR_SENDS)
        lasts_ns = self._aliases.store.holds_until(path.link, remote, remote_port, now, outbound=outbound) - now
        if lasts_ns >= _LASTS_NS:
            return REPEAT
        return REPEAT | BRIEF if lasts_ns >= _LASTS_BRIEFLY_NS else 0

    def report_connection(self, arrival: Arrival, now: int) -> None:
        """Before a SYN, FIN or RST is walked, report the table's hits of its connection to its link, of both
        directions.

        Behind a reset the walk sees the next segment of either direction: it may revive the connection, and the link
        must not hear of it late. So it is behind the second FIN, whose acknowledgment ends the connection.
        """
        packet = arrival.packet
        flags = 0 if packet.offset_bytes else packet.data[packet.header_bytes + _FLAGS_OFFSET]
        if not flags & (SYN | FIN | RST):
            return
        near, far = (packet.source, packet.source_port), (packet.destination, packet.destination_port)
        link = self._link_from_outside(arrival)
        withdraw = bool(flags & RST) or (bool(flags & FIN) and self._is_half_closed(link, near, far))
        self._report(self._numbers.get(arrival.port.name, -1), TCP, (*near, *far), now, withdraw=withdraw)
        self._report_inward(TCP, near, far, now, withdraw=withdraw)
        port = self._crossing.port_inside(link.inside) if link is not None else None
        if link is not None and port is not None:
            ends = link.inside, link.inside_port, *near
            self._report(self._numbers.get(port.name, -1), TCP, ends, now, withdraw=withdraw)

    def _link_from_outside(self, arrival: Arrival) -> Link | None:
        """The link that a segment from outside is for."""
        packet, came_by = arrival.packet, arrival.port.interface
        if came_by.egress is None or packet.destination != came_by.address:
            return None
        return self._aliases.peek_inbound(came_by.egress, TCP, packet.destination_port, packet.source)

    def _is_half_closed(self, link: Link | None, near: tuple[int, int], far: tuple[int, int]) -> bool:
        """Whether an end of the connection has sent its FIN before. `link`: of a segment from outside, None of one from
        inside."""
        if link is not None:
            return self._aliases.is_half_closed(link, *near)
        links = [self._aliases.peek_outbound(egress, TCP, *near, far[0]) for egress in Egress]
        return any(one is not None and self._aliases.is_half_closed(one, *far) for one in links)

    def _report_inward(
        self, protocol: int, near: tuple[int, int], far: tuple[int, int], now: int, *, withdraw: bool
    ) -> None:
        """Report the hits of packets from a remote endpoint to the outside names of an inside one, by any port."""
        for egress in Egress:
            link = self._aliases.peek_outbound(egress, protocol, *near, far[0])
            if link is None:
                continue
            outside = self._ports.interfaces[egress.label].address, link.outside_port
            for number in self._behind[egress.label]:
                self._report(number, protocol, (*far, *outside), now, withdraw=withdraw)

    def _report(self, in_port: int, protocol: int, ends: WireEnds, now: int, *, withdraw: bool = False) -> None:
        hits = self.table.settle(in_port, protocol, ends, now, withdraw) if in_port >= 0 else None
        if hits is not None:
            self._confirm(hits)

    def outdate(self) -> None:
        """Something changed that decisions rest on: the table repeats none of them until the walk made it anew."""
        self.table.outdate()
        self._unheard = SLICES + 1

    # The table tells

    def tick(self, now: int, effects: list[Effect]) -> None:
        """Harvest the next part of the table where that is due, or as many parts as were missed."""
        if self.due_ns is None or now < self.due_ns:
            return
        missed = min((now - self.due_ns) // SLICE_NS + 1, SLICES)
        self.harvest(-(-self.table.limit * missed // SLICES), now)
        self.due_ns = now + SLICE_NS if len(self.table) else None
        self._unheard = max(self._unheard - missed, 0)

    def next_deadline(self) -> int | None:
        """When the next part of the table is harvested; None while the table is empty."""
        return self.due_ns

    def harvest(self, limit: int, now: int) -> None:
        """Report the hits of the next `limit` entries to links and ARP."""
        neighbours = set()
        for hits in self.table.harvest(limit, now):
            self._confirm(hits)
            if hits.slot != NO_SLOT:
                neighbours.add((hits.out_port, hits.slot))
        for port, slot in neighbours:
            interface = self._interface_of(port)
            assert interface.neighbours is not None, "only Ethernet ports have slots"
            interface.neighbours.lookup(interface.neighbours.address_of(slot), now)
        if self.repeats:
            self._sweep(limit)
        self.account(now)

    def _confirm(self, hits: Hits) -> None:
        link = self._owners[hits.entry]
        if link is not None:
            self._aliases.confirm(
                link,
                hits.last_ns,
                outbound=hits.near_sends,
                packets=hits.packets,
                size_bytes=hits.size_bytes,
                remote=hits.remote,
                remote_port=hits.remote_port,
                acknowledgment=hits.acknowledgment,
                window=hits.window,
            )

    def _sweep(self, limit: int) -> None:
        """Forget links that have ended: entries outlive them."""
        owners = self._owners
        start, end = self._swept, min(self._swept + limit, len(owners))
        for entry in range(start, end):
            link = owners[entry]
            if link is not None and not link.expires_ns:
                owners[entry] = None
        self._swept = end if end < len(owners) else 0

    def account(self, now: int | None = None) -> None:
        """Add the frames that were repeated since the last call to the counters of the ports. `Gateway.counters` does
        it for every reader. `now`: where the time is known, next hops hear of these frames."""
        counters = self._counters
        for counted in chain.from_iterable(bursts.counted() for bursts in self.bursts):
            interface = self._interface_of(counted.port)
            name = interface.name
            port = counters.ports[name]
            port.rx_packets += counted.rx_packets
            port.rx_bytes += counted.rx_bytes
            port.tx_packets += counted.tx_packets
            port.tx_bytes += counted.tx_bytes
            repeated = counted.rx_packets - counted.policed - counted.no_link
            port.sent += repeated  # a frame that is repeated is one frame out
            port.repeated_in += repeated
            port.repeated_out += counted.tx_packets
            if now is not None:
                next_hops.repeated(interface, repeated, counted.tx_packets, now)
            for reason, number in unwalked(counted):
                counters.dropped(name, reason, number)
            for reason, number in refusals(counted):
                counters.refused(name, reason, number)

    # For people

    def __len__(self) -> int:
        """Flows in the table, each direction counted."""
        return len(self.table)

    def live(self, now: int) -> Iterator[Flow]:
        """The flows seen lately."""
        return self.table.live(now)

    @property
    def punts(self) -> dict[Punt, int]:
        """Frames that were handed to the walk, by reason, zeros too."""
        totals = dict.fromkeys(Punt, 0)
        for bursts in self.bursts:
            for punt, count in bursts.punts().items():
                totals[punt] += count
        return totals


def _is_rewrite(received: Packet, path: Path, kind: int, flags: int) -> bool:
    """Whether the table may treat every packet of this flow as it treats this one, by what the packet shows."""
    link = path.link
    if received.offset_bytes:  # its decision may be older than the last change
        return False
    if received.header_bytes > MINIMUM_HEADER_BYTES or path.quoted is not None:
        return False
    if path.source is not None and path.destination is not None:
        return False
    if received.protocol == ICMP:
        # A reply from the near side does not refresh its link (RFC 7857 7.1), and hits would.
        is_reply = kind not in ICMP_QUERY_REQUESTS
        if kind not in ICMP_QUERIES or (link is not None and flags & NEAR_SENDS and is_reply):
            return False
    elif received.protocol == TCP:
        # Behind a reset the walk sees the next segment: it may revive the connection, or be the first of one.
        if received.data[received.header_bytes + _FLAGS_OFFSET] & RST:
            return False
    elif received.protocol != UDP:
        return False
    return True
