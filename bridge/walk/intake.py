"""A frame comes in: the checks before the decision, in their order.

    Ethernet | raw IP -> ARP -> IP header -> early services -> martians -> options, fragments -> transport -> decide

RFC 1812 5.2.2 and 5.3 (the checks and their order). `Intake` hands what has passed to the decision, and its outcome to
`Outgoing`. Refusals of the checks owe nobody an ICMP error, but for a bad IP option.
"""

from __future__ import annotations

from collections.abc import Mapping

from bridge.walk.counters import Counters
from bridge.walk.effects import Effect
from bridge.walk.fast_path import FastPath
from bridge.walk.forwarding import next_hops
from bridge.walk.forwarding.decision import Decision
from bridge.walk.fragments import Fragments
from bridge.walk.interface import NamedPort
from bridge.walk.local import Local
from bridge.walk.martians import Martians, claims_hold
from bridge.walk.outcome import IcmpError, Outcome, Refused
from bridge.walk.outgoing import Outgoing
from bridge.walk.path import Arrival, Path
from bridge.walk.residents import Neighbours
from bridge.walk.trace import Tracing
from icmp import errors
from wire import ethernet, ipv4
from wire.drop import Drop
from wire.gso import GsoHeader, untagged
from wire.ipv4 import Packet


class Intake:
    """The checks, with the parts that they hand frames to. `neighbours`: the ARP of each tap, by the port's name."""

    def __init__(
        self,
        martians: Martians,
        local: Local,
        neighbours: Mapping[str, Neighbours],
        decision: Decision,
        fast: FastPath,
        fragments: Fragments,
        out: Outgoing,
        counters: Counters,
        tracing: Tracing,
    ) -> None:
        self._martians = martians
        self._local = local
        self._neighbours = neighbours
        self._decision = decision
        self._crossing = decision.crossing
        self._fast = fast
        self._fragments = fragments
        self._out = out
        self._counters = counters
        self._tracing = tracing

    def receive(
        self,
        port: NamedPort,
        frame: bytes | bytearray | memoryview,
        gso: GsoHeader | None,
        now: int,
        effects: list[Effect],
    ) -> None:
        """Walk a frame that came in by `port`. Its fate is counted when this returns, or it is held."""
        if port.interface.framing == "ethernet":
            outcome = self._ethernet(port, bytes(frame), gso, now, effects)
        else:
            outcome = self._raw(port, frame, gso, now, effects)
        if outcome is not None:
            self._out.count(port, outcome, effects)

    def _ethernet(
        self, port: NamedPort, frame: bytes, gso: GsoHeader | None, now: int, effects: list[Effect]
    ) -> Outcome | None:
        """The outcome of a frame with an Ethernet header; None where it has been carried out."""
        if len(frame) < ethernet.HEADER_BYTES:
            return Refused(Drop.ETH_SHORT)
        own_mac = port.interface.mac
        destination, source = frame[:6], frame[6:12]
        group = destination != own_mac
        if group and not ethernet.is_group(destination):
            return Refused(Drop.ETH_NOT_FOR_US)
        if source[0] & 1 or source in (own_mac, ethernet.NO_MAC):
            return Refused(Drop.ETH_SOURCE)
        kind = frame[12:14]
        if kind != ethernet.IPV4_TYPE and kind in ethernet.TAG_TYPES and (tags := ethernet.priority_tags(frame)):
            frame = ethernet.without_tags(frame, tags)
            gso = gso and untagged(gso, tags * ethernet.TAG_BYTES)
            kind = frame[12:14]
            self._tracing.say("wire", "a priority tag (VLAN 0): the frame counts as untagged")
        if kind == ethernet.IPV4_TYPE:
            next_hops.heard(port.interface, source)
            return self._ip(port, frame, ethernet.HEADER_BYTES, gso, now, effects, group=group)
        if kind == ethernet.IPV6_TYPE and ethernet.is_router_advertisement(frame):
            self._out.tell_ipv6_router(port, source, effects)
        if kind == ethernet.ARP_TYPE:
            return self._neighbours[port.name].receive(frame, now, effects)
        return self._other_ethertype(int.from_bytes(kind, "big"))

    def _raw(
        self,
        port: NamedPort,
        frame: bytes | bytearray | memoryview,
        gso: GsoHeader | None,
        now: int,
        effects: list[Effect],
    ) -> Outcome | None:
        """The same for a frame that begins with the IP header."""
        if len(frame) and frame[0] >> 4 == 6:
            return self._other_ethertype(ethernet.ETHERTYPE_IPV6)
        return self._ip(port, frame, 0, gso, now, effects, group=False)

    def _other_ethertype(self, ethertype: int) -> Refused:
        self._counters.ethertype(ethertype)
        return Refused(ethernet.ethertype_drop(ethertype))

    def _ip(
        self,
        port: NamedPort,
        frame: bytes | bytearray | memoryview,
        start: int,
        claims: GsoHeader | None,
        now: int,
        effects: list[Effect],
        *,
        group: bool,
    ) -> Outcome | None:
        """The outcome of a frame whose IP header begins at `start`; None where it has been carried out."""
        packet = ipv4.parse(frame, start, claims)
        if not isinstance(packet, Packet):
            return Refused(packet)
        if claims is not None and not claims_hold(packet, claims):
            return Refused(Drop.PORT_MALFORMED)
        if self._tracing.trace is not None:
            self._tracing.say("wire", "{}", packet)
        arrival = Arrival(port, packet, group)
        outcome: Outcome | None = self._local.wanted_early(arrival) if self._local.early else None
        if outcome is None:
            drop = self._martians.source_fault(arrival) or self._martians.destination_fault(arrival)
            if drop is not None:
                outcome = Refused(drop)
            elif packet.is_fragment or packet.header_bytes > ipv4.MINIMUM_HEADER_BYTES:
                outcome = self._unusual(arrival)
        if outcome is None and packet.is_fragment:
            self._fragments.receive(arrival, self._decide, now, effects)
            return None
        if outcome is None:
            drop = ipv4.read_transport(packet)
            if drop is not None:
                outcome = Refused(drop)
            else:
                outcome = self._decide(arrival, now)
                neighbours = port.interface.neighbours
                if (
                    neighbours is not None
                    and isinstance(outcome, Path)
                    and next_hops.proves_both_ways(arrival, outcome)
                ):
                    neighbours.confirm(port.interface.next_hop(packet.source), bytes(frame[6:12]), now)
        self._out.carry_out(arrival, outcome, now, effects)
        return None

    def _unusual(self, arrival: Arrival) -> Refused | None:
        """Refuse bad IP options, and fragments from outside that nothing lets in."""
        packet, came_by = arrival.packet, arrival.port.interface
        if packet.header_bytes > ipv4.MINIMUM_HEADER_BYTES:
            fault = ipv4.options_fault(packet)
            if fault is not None:
                reason, pointer = fault
                is_owed = reason is Drop.IP_OPTION and self._crossing.expects(arrival)
                return Refused(reason, IcmpError(errors.PARAMETER_PROBLEM, 0, pointer << 24) if is_owed else None)
        if (
            packet.is_fragment
            and not came_by.is_inside
            and packet.destination != came_by.address
            and not self._crossing.lets_in(arrival)
        ):
            return Refused(Drop.ROUTE_NOT_FROM_OUTSIDE)
        return None

    def _decide(self, arrival: Arrival, now: int) -> Outcome:
        """The decision for a whole packet or a first fragment. The table's hits of a TCP connection are told to its
        link before a packet changes the connection's state."""
        if arrival.packet.protocol == ipv4.TCP and self._fast.repeats:
            self._fast.report_connection(arrival, now)
        return self._decision.of(arrival, now)
