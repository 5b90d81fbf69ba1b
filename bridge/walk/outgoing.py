"""Outcomes carried out and counted: the half of the walk behind the decision.

`Outgoing.carry_out` takes a frame's `Outcome`, carries it out and counts it. No other place counts the fate of a frame,
and no other place sends an ICMP error. The functions stand in the order of a packet's way:

    carry_out -> carry (rewrite, MSS, learn) -> emit (next hop) -> send | hold -> count, tell the sender

RFC 791 3.2 (fragments), RFC 6691 and RFC 879 (MSS), RFC 826 (`emit`, `arp_effects`), RFC 1812 3.3.2 (3/1 for packets
whose next hop is silent). `effects` is always the list of the current call of `Gateway`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from alias import quote as quotes
from alias import rewrite
from alias.table import Aliases
from arp.effects import ArpEffect, EntryChanged, FrameDropped, GaveUp, Release, Transmit
from bridge.walk.counters import Counters
from bridge.walk.effects import Effect, Event, Send
from bridge.walk.fast_path import FastPath
from bridge.walk.forwarding import next_hops
from bridge.walk.interface import Interface, NamedPort
from bridge.walk.messages import Messages
from bridge.walk.mtu import PathMtus, pieces
from bridge.walk.outcome import (
    ANSWERED,
    HELD,
    HOST_UNREACHABLE,
    SENT,
    TAKEN,
    Answer,
    Answered,
    IcmpError,
    Outcome,
    Refused,
    TakenIn,
    Wanted,
)
from bridge.walk.path import Arrival, Path
from bridge.walk.trace import Tracing, arp_facts
from wire import ethernet, ipv4, tcp
from wire.drop import Drop
from wire.gso import GsoHeader
from wire.ipv4 import Packet
from wire.units import mac_text


class Waiting(NamedTuple):
    """A packet that waits for its next hop's MAC address, in one piece or several. `arrival` is None for messages of
    our own."""

    pieces: Sequence[Packet]
    port: NamedPort
    arrival: Arrival | None


class Outgoing:
    """Carries outcomes out. `events`: drops and ARP changes become effects too. `on_neighbour_change` hears of each
    change of an ARP table."""

    def __init__(
        self,
        interfaces: dict[str, Interface],
        counters: Counters,
        aliases: Aliases,
        fast: FastPath,
        mtus: PathMtus,
        messages: Messages,
        tracing: Tracing,
        *,
        events: bool,
    ) -> None:
        self._interfaces = interfaces
        self._counters = counters
        self._aliases = aliases
        self._fast = fast
        self._mtus = mtus
        self._messages = messages
        self._tracing = tracing
        self._events = events
        self.on_neighbour_change: Callable[[NamedPort, EntryChanged, int, list[Effect]], None] = lambda *_: None

    # A frame's outcome

    def carry_out(self, arrival: Arrival, outcome: Outcome, now: int, effects: list[Effect]) -> None:
        """Carry an outcome out, and count it as the one fate of the frame."""
        if isinstance(outcome, Path):
            outcome = self._carry(arrival, outcome, now, effects)
            if outcome is SENT and not arrival.is_ours and self._tracing.trace is None:  # nearly every frame
                arrival.port.interface.counters.sent += 1
                return
        elif isinstance(outcome, Wanted):
            outcome = outcome.service.receive(arrival, now, effects)
        if arrival.is_ours:
            return
        if isinstance(outcome, Refused):
            if outcome.icmp is not None:
                self.tell_sender(arrival, outcome.icmp, now, effects)
        elif isinstance(outcome, Answer):
            outcome = self._answer(arrival.port, outcome.reply, now, effects)
        self.count(arrival.port, outcome, effects)

    def count(self, port: NamedPort, outcome: Outcome, effects: list[Effect]) -> None:
        """Count the fate of one frame that came in by `port`; a held frame is counted when it leaves its store."""
        counters = port.interface.counters
        if outcome is SENT:
            counters.sent += 1
        elif isinstance(outcome, Refused):
            self._counters.dropped(port.interface.name, outcome.drop)
            if self._events:
                effects.append(Event(port.name, "drop", {"reason": outcome.drop.value}))
        elif isinstance(outcome, Answered):
            counters.answered += 1
        elif isinstance(outcome, TakenIn):
            counters.taken += 1
        if self._tracing.trace is not None:
            self._tracing.trace.conclude(outcome)

    def tell_sender(self, arrival: Arrival, error: IcmpError, now: int, effects: list[Effect]) -> None:
        """Send the ICMP error that a packet owes its sender, where it may be sent at all."""
        message = self._messages.error(arrival, error, now)
        if message is not None:
            self._emit(arrival.port, (message,), None, now, effects)

    def _answer(self, port: NamedPort, reply: Packet, now: int, effects: list[Effect]) -> Answered:
        """Send a message of our own back by the port that its cause came from."""
        self._counters.answered += 1
        self._emit(port, pieces(reply, self._mtus.towards(port)), None, now, effects)
        return ANSWERED

    def _lost(self, port: NamedPort, reason: Drop, effects: list[Effect]) -> None:
        """A message of our own does not leave by `port`."""
        self._counters.lost(port.interface.name, reason)
        if self._events:
            effects.append(Event(port.interface.name, "drop", {"reason": reason.value}))

    # A packet on its path

    def _carry(self, arrival: Arrival, path: Path, now: int, effects: list[Effect]) -> Outcome:
        """Rewrite a copy of the packet as its path says, fit it to the egress, and send it to its next hop."""
        received, mtu_bytes = arrival.packet, path.mtu_bytes
        if received.offset_bytes:
            mtu_bytes = self._mtus.towards(path.port)
            fault = self._later_fault(received, path, mtu_bytes)
            if fault is not None:
                return Refused(fault)
        packet = received.copy()
        rewrite.forward(packet, received.ttl - 1, path.source, path.destination)
        if path.quoted is not None and not packet.offset_bytes:
            quote, quoted_source, quoted_destination = path.quoted
            self._counters.damaged_quotes += quote.is_damaged
            quotes.rewrite_quote(
                packet,
                quote,
                source=quoted_source,
                destination=quoted_destination,
                identification=path.quoted_identification,
            )
        identification = path.identification
        if path.egress is not None and identification is None and not received.dont_fragment:
            identification = self._aliases.identification(path.egress, received, now)
        if identification is not None and identification != received.identification:
            ipv4.set_identification(packet, identification)
        if packet.protocol == ipv4.TCP and not packet.offset_bytes and tcp.opens(packet):
            tcp.clamp_mss(packet, self._mtus.most_segment_bytes(arrival.port, path.port))
        next_hop = path.port.interface.next_hop(packet.destination)
        self._fast.learn(arrival, path, packet, next_hop, now)
        fitting = (packet,) if len(packet.data) <= mtu_bytes else pieces(packet, mtu_bytes)
        return self._emit(path.port, fitting, arrival, now, effects, next_hop)

    def _later_fault(self, received: Packet, path: Path, mtu_bytes: int) -> Drop | None:
        """Check of a later fragment what the decision checked of the first one; no error is owed for a later fragment
        (RFC 1122 3.2.2). An alias address from before a reload is no path any more."""
        if received.ttl <= 1:
            return Drop.IP_TTL
        if received.dont_fragment and len(received.data) > mtu_bytes:
            return Drop.IP_TOO_BIG
        if path.egress is None or path.source is None:
            return None
        is_ours = path.source[0] == self._interfaces[path.egress.label].address
        return None if is_ours else Drop.FRAGMENT_DATAGRAM_DROPPED

    def submit(self, port: NamedPort, packet: Packet, now: int, effects: list[Effect]) -> None:
        """Send a packet of our own by a port's next hop, whatever the routes say."""
        self._emit(port, (packet,), None, now, effects)

    def _emit(
        self,
        port: NamedPort,
        fitting: Sequence[Packet],
        arrival: Arrival | None,
        now: int,
        effects: list[Effect],
        next_hop: int | None = None,
    ) -> Outcome:
        """Put a packet on a port, in one piece or several, on a tap under its next hop's MAC address; it waits where
        that is not known yet. `arrival`: the packet as it came in, None for messages of our own."""
        out = port.interface
        neighbours = out.neighbours
        if neighbours is None:
            for piece in fitting:
                self.send(port, piece.data, piece.gso, effects)
            return SENT
        if next_hop is None:
            next_hop = out.next_hop(fitting[0].destination)
        mac = neighbours.lookup(next_hop, now)
        if mac is not None:
            if next_hop == out.gateway and out.silent_from_ns is None:
                next_hops.sent(out, now)
            if self._tracing.trace is not None:
                self._tracing.say("arp", "{} is at {}", next_hop, mac)
            for piece in fitting:
                self.send(port, b"".join((mac, out.mac, ethernet.IPV4_TYPE, piece.data)), piece.gso, effects)
            return SENT
        if not neighbours.is_resolvable(next_hop):
            if arrival is None or arrival.is_ours:
                self._lost(port, Drop.ARP_NO_SUCH_HOST, effects)
            return Refused(Drop.ARP_NO_SUCH_HOST, HOST_UNREACHABLE)
        self._tracing.say("arp", "{} is not known yet: asked, the packet waits", next_hop)
        size_bytes = sum(len(piece.data) for piece in fitting) + (
            len(arrival.packet.data) if arrival is not None else 0
        )
        waiting = Waiting(fitting, port, arrival)
        self.arp_effects(port, neighbours.hold(next_hop, waiting, size_bytes, now), now, effects)
        return HELD

    def send(self, port: NamedPort, frame: bytes | bytearray, claims: GsoHeader | None, effects: list[Effect]) -> None:
        """A frame is ready: count it and hand it to the caller."""
        counters = port.interface.counters
        counters.tx_packets += 1
        counters.tx_bytes += len(frame)
        effects.append(Send(port.name, frame, claims))

    def tell_ipv6_router(self, port: NamedPort, mac: bytes, effects: list[Effect]) -> None:
        """A station advertises itself as an IPv6 router. The operator hears of the first advertisement of each."""
        if self._counters.is_new_router(port.interface.name, mac) and not self._events:
            effects.append(Event(port.name, "ipv6_router", {"mac": mac_text(mac)}))

    # Neighbours

    def arp_effects(self, port: NamedPort, wanted: Iterable[ArpEffect], now: int, effects: list[Effect]) -> Outcome:
        """Carry out what the ARP table of a port wants. The outcome is that of the ARP frame that caused it, if one
        did: refused, answered by a frame of ours, or taken in."""
        outcome: Outcome = TAKEN
        changes: list[EntryChanged] = []
        for effect in wanted:
            if isinstance(effect, Transmit):
                self.send(port, effect.frame, None, effects)
                if outcome is TAKEN:
                    outcome = ANSWERED
            elif isinstance(effect, Release):
                self._release(effect, effects)
            elif isinstance(effect, GaveUp):
                self._give_up(effect, now, effects)
            elif isinstance(effect, FrameDropped):
                outcome = Refused(effect.reason)
            elif isinstance(effect, EntryChanged):
                if self._events or effect.claimant is not None:
                    effects.append(Event(port.name, "arp", arp_facts(effect)))
                changes.append(effect)
        for change in changes:  # last, because a change may bring another table
            self.on_neighbour_change(port, change, now, effects)
        return outcome

    def _release(self, release: Release, effects: list[Effect]) -> None:
        """A next hop is known: the waiting packet leaves, and its frame has its fate."""
        waiting = release.waiting
        assert isinstance(waiting, Waiting)
        head = release.mac + waiting.port.interface.mac + ethernet.IPV4_TYPE
        for piece in waiting.pieces:
            self.send(waiting.port, head + piece.data, piece.gso, effects)
        if waiting.arrival is not None and not waiting.arrival.is_ours:
            self.count(waiting.arrival.port, SENT, effects)

    def _give_up(self, given_up: GaveUp, now: int, effects: list[Effect]) -> None:
        """A packet waited in vain. RFC 1812 3.3.2: its sender hears 3/1, once where we have cut the packet."""
        waiting, reason = given_up.waiting, given_up.reason
        assert isinstance(waiting, Waiting)
        if waiting.arrival is None or waiting.arrival.is_ours:
            self._lost(waiting.port, reason, effects)
            return
        self.count(waiting.arrival.port, Refused(reason), effects)
        if reason is Drop.ARP_NO_ANSWER:
            self.tell_sender(waiting.arrival, HOST_UNREACHABLE, now, effects)
