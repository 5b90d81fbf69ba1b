"""What leaves the gateway: packets to their next hops, its own answers and errors, and the account of it all.

`Outgoing` is the half of the walk behind the decision. It owns the ARP tables' effects, the counters, the rate limit of
ICMP errors and the effects of the current call; `bridge.walk.gateway` decides and hands over. RFC 1812 4.3 (`error`),
RFC 826 and RFC 1812 3.3.2 (`emit`, `arp_effects`: packets wait, and their senders hear 3/1 where nobody answers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from alias.types import Linked, Unlinked
from arp.effects import ArpEffect, Changed, Dropped, GaveUp, Release, Transmit
from bridge.walk import next_hops
from bridge.walk.counters import Counters
from bridge.walk.effects import Effect, Event, Send
from bridge.walk.interface import Interface
from bridge.walk.path import Arrival
from icmp import errors, responder
from wire import ethernet, gso, ipv4
from wire.drop import Drop
from wire.gso import GsoHeader
from wire.ipv4 import Packet
from wire.units import address_text, mac_text

Fact = str | bytes | int | tuple[int, int] | Packet
"""What a trace tells: words, a MAC address, an IPv4 address, an address with a port, a packet."""


class Waiting(NamedTuple):
    """A packet that waits for its next hop's MAC address, all `pieces` of it where it was cut. `arrival` is None for
    packets of our own."""

    pieces: Sequence[Packet]
    interface: Interface
    arrival: Arrival | None


@dataclass(slots=True)
class Trace:
    """One packet's walk, told: steps of (room, what it says), the verdict (`send`, `drop`, `answer` or `hold`), the
    frames out and the drop reason."""

    steps: list[tuple[str, str]] = field(default_factory=list)
    verdict: str = "drop"
    out: list[Send] = field(default_factory=list)
    drop: Drop | None = None


class Outgoing:
    """Everything behind the decision. `events`: tell drops and ARP changes as effects too.

    Errors into a tunnel that has no address of ours carry tap0's, else tun0's, else tap1's; those into tun0 carry
    tap0's or, without a LAN, another address of ours, and where we have no other they speak for the destination.
    `path_mtus`: what is known of the way behind a port, by the port's name, in bytes; it lowers the interface's MTU,
    and whoever finds it out puts a new mapping here; `on_path_mtus` is called then. `segments`: likewise, for the MSS
    of connections alone.
    """

    def __init__(self, interfaces: dict[str, Interface], identification: int, *, events: bool) -> None:
        self.interfaces = interfaces
        self.counters = Counters({name: interface.counters for name, interface in interfaces.items()})
        self.rate_limit = errors.RateLimit(0)
        self.muted: frozenset[str] = frozenset()
        self.effects: list[Effect] = []
        self.tracing: Trace | None = None
        self.answered = False
        self.held = False
        self.on_path_mtus: Callable[[], None] = lambda: None
        self._path_mtus: Mapping[str, int] = {}
        self.segments: dict[str, int] = {}
        self._host = interfaces["tun0"].address if "tun0" in interfaces else 0
        self._identification = identification
        self._events = events
        self.readdressed()

    def readdressed(self) -> None:
        """The interfaces have their addresses."""
        interfaces = self.interfaces
        own = (interfaces[name].address for name in ("tap0", "tun0", "tap1") if name in interfaces)
        self.own_address = next(own, 0)
        # The host would refuse a packet that claims to come from its own address, and so never hear of its mistakes.
        named = (interfaces[name].address for name in ("tap0", "tap1", "vpn", "tun0") if name in interfaces)
        self.address_for_host = next((address for address in named if address), 0)

    # Our own messages

    def answer(self, arrival: Arrival, reply: Packet, now: int) -> None:
        """Send a packet of our own back by the port that its cause came from."""
        self.answered = True
        self.counters.answered += 1
        arrival.interface.counters.answered += 1
        mtu_bytes = self.mtu_towards(arrival.port, arrival.interface)
        self.emit(arrival.port, arrival.interface, [*pieces(reply, mtu_bytes)], None, now)

    def refuse_closed(self, arrival: Arrival, now: int) -> Drop | None:
        """RFC 1122: nothing listens on the gateway's LAN address: 3/3, a reset, 3/2."""
        packet = arrival.packet
        if packet.protocol == ipv4.ICMP:
            return Drop.LOCAL_SILENT
        if not packet.is_fragment and not responder.has_valid_transport_checksum(packet):
            return Drop.LOCAL_SILENT
        if packet.protocol == ipv4.UDP:
            self.error(arrival, errors.UNREACHABLE, errors.PORT, now)
            return Drop.LOCAL_PORT
        if packet.protocol != ipv4.TCP:
            self.error(arrival, errors.UNREACHABLE, errors.PROTOCOL, now)
            return Drop.LOCAL_PROTOCOL
        if packet.is_fragment:
            return Drop.LOCAL_PORT
        reset = responder.reset(packet, self.next_identification())
        if reset is None:
            return Drop.LOCAL_PORT
        self.answer(arrival, reset, now)
        return None

    def answer_echo(self, arrival: Arrival, request: Packet, now: int) -> Drop | None:
        """RFC 1812 4.3.3.6: an echo request to one of our addresses, whole; a bad checksum meets silence."""
        if not responder.has_valid_transport_checksum(request):
            return Drop.ICMP_CHECKSUM
        self.say("icmp", "echo request for {}: ours, answered", request.destination)
        self.answer(arrival, responder.echo_reply(request, self.next_identification()), now)
        return None

    def next_identification(self) -> int:
        """RFC 6864: a fresh IP identification for a packet of our own."""
        self._identification = (self._identification + 1) & 0xFFFF
        return self._identification

    def error(self, arrival: Arrival, kind: int, code: int, now: int, *, rest: int = 0) -> None:
        """Send an ICMP error about what arrived, where RFC 1812 4.3.2.7, `icmp.mute` and the rate limit let us."""
        interface, packet = arrival.interface, arrival.packet
        source = self.error_source(packet) if interface.name == "tun0" else interface.address or self.own_address
        may_answer = source != 0 and errors.may_answer(packet, group=arrival.group)
        if not self.may_tell(interface, packet.source, now, may_answer=may_answer):
            self.say("icmp", "{} owed, not sent", f"{kind}/{code}")
            return
        quoted = packet.data
        if packet.gso is not None:
            quoted = next(gso.segment(bytearray(packet.data), packet.gso))
        message = errors.error(
            kind,
            code,
            quoted,
            source=source,
            destination=packet.source,
            identification=self.next_identification(),
            rest=rest,
        )
        self.say("icmp", "{} to {}", f"{kind}/{code}", packet.source)
        self.emit(arrival.port, interface, (Packet(bytearray(message), None),), None, now)

    def error_source(self, about: Packet) -> int:
        """The source of an error that the host behind tun0 is to hear, 0 where there is none. Its own address it would
        refuse: the error speaks for the destination then."""
        return about.destination if self.address_for_host == self._host else self.address_for_host

    def undelivered(self, quoted: Packet, source: int | None, mtu_bytes: int) -> Packet | None:
        """Our 3/1 (RFC 1812 5.2.7.1) about a packet as it left, which did not get through; 3/4 where it is longer than
        `mtu_bytes`, which is 0 otherwise; None where none is owed. It has yet to find its way. `source`: whom it speaks
        for, None for ourselves."""
        source = self.error_source(quoted) if source is None else source
        if not source or not errors.may_answer(quoted, group=False):
            return None
        data = errors.error(
            errors.UNREACHABLE,
            errors.FRAGMENTATION_NEEDED if mtu_bytes else errors.HOST,
            quoted.data,
            source=source,
            destination=quoted.source,
            identification=self.next_identification(),
            rest=mtu_bytes,
        )
        message = ipv4.parse(data, 0, None)
        assert isinstance(message, Packet)
        ipv4.read_transport(message)
        return message

    def may_tell(self, interface: Interface, host: int, now: int, *, may_answer: bool) -> bool:
        """Whether an ICMP error that the RFC allows may go to `host` behind `interface`: `icmp.mute` and the rate limit
        decide. It is counted, either way."""
        allowed = may_answer and interface.name not in self.muted and self.rate_limit.allows(host, now)
        if allowed:
            self.counters.icmp_errors += 1
        else:
            self.counters.icmp_errors_suppressed += 1
        return allowed

    # Packets and frames

    @property
    def path_mtus(self) -> Mapping[str, int]:
        """What is known of the ways behind ports, in bytes."""
        return self._path_mtus

    @path_mtus.setter
    def path_mtus(self, known: Mapping[str, int]) -> None:
        if known != self._path_mtus:
            self._path_mtus = known
            self.on_path_mtus()

    def mtu_towards(self, port: str, interface: Interface) -> int:
        """The largest packet that may leave by a port, in bytes."""
        mtu_bytes = interface.mtu_bytes
        return min(self._path_mtus.get(port, mtu_bytes), mtu_bytes) if self._path_mtus else mtu_bytes

    def segment_bytes(self, port: str, interface: Interface) -> int:
        """The packet that the MSS of connections by a port is made for, in bytes."""
        mtu_bytes = self.mtu_towards(port, interface)
        return min(self.segments.get(port, mtu_bytes), mtu_bytes) if self.segments else mtu_bytes

    def next_hop(self, out: Interface, destination: int) -> int:
        """The address of whom a packet on a tap is handed to."""
        return out.gateway if out.gateway and not out.is_on_link(destination) else destination

    def emit(
        self, port: str, out: Interface, pieces: Sequence[Packet], arrival: Arrival | None, now: int
    ) -> Drop | None:
        """Put a packet on a port, whole or in pieces, on a tap to its next hop's MAC address; it waits where that is
        not known yet. `arrival`: what it was when it came in, whose fate this is; None for packets of our own."""
        if out.arp is None:
            for piece in pieces:
                self.send(port, out, piece.data, piece.gso)
            if arrival is not None and not arrival.is_ours:
                arrival.interface.counters.sent += 1
            return None
        next_hop = self.next_hop(out, pieces[0].destination)
        mac = out.arp.lookup(next_hop, now)
        if mac is not None:
            if next_hop == out.gateway:
                next_hops.sent(out, now)
            if self.tracing is not None:
                self.say("arp", "{} is at {}", next_hop, mac)
            for piece in pieces:
                self.send(port, out, b"".join((mac, out.mac, ethernet.IPV4_TYPE, piece.data)), piece.gso)
            if arrival is not None and not arrival.is_ours:
                arrival.interface.counters.sent += 1
            return None
        if not out.arp.is_resolvable(next_hop):
            if arrival is None or arrival.is_ours:
                self._lost(out.name, Drop.ARP_NO_SUCH_HOST)
                return None
            self.error(arrival, errors.UNREACHABLE, errors.HOST, now)
            return Drop.ARP_NO_SUCH_HOST
        self.say("arp", "{} is not known yet: asked, the packet waits", next_hop)
        self.held = True
        size_bytes = sum(len(piece.data) for piece in pieces) + (len(arrival.packet.data) if arrival is not None else 0)
        self.arp_effects(out, out.arp.hold(next_hop, Waiting(pieces, out, arrival), size_bytes, now), now)
        return None

    def arp_effects(self, interface: Interface, effects: Iterable[ArpEffect], now: int) -> Drop | None:
        """Carry out what the ARP room wants; the reason where it dropped the ARP frame itself."""
        drop: Drop | None = None
        for effect in effects:
            if isinstance(effect, Transmit):
                self.send(interface.name, interface, effect.frame, None)
            elif isinstance(effect, Release):
                assert isinstance(effect.waiting, Waiting)
                head, arrival = effect.mac + interface.mac + ethernet.IPV4_TYPE, effect.waiting.arrival
                for piece in effect.waiting.pieces:
                    self.send(interface.name, interface, head + piece.data, piece.gso)
                if arrival is not None and not arrival.is_ours:
                    arrival.interface.counters.sent += 1
            elif isinstance(effect, GaveUp):
                assert isinstance(effect.waiting, Waiting)
                self._gave_up(effect.waiting, effect.reason, now)
            elif isinstance(effect, Dropped):
                drop = effect.reason
            elif isinstance(effect, Changed) and (self._events or effect.claimant is not None):
                self.effects.append(Event(interface.name, "arp", _arp_facts(effect)))
        return drop

    def _gave_up(self, waiting: Waiting, reason: Drop, now: int) -> None:
        """RFC 1812 3.3.2: the sender of every packet that waited in vain hears 3/1, once where we have cut it."""
        arrival = waiting.arrival
        if arrival is None or arrival.is_ours:
            self._lost(waiting.interface.name, reason)
            return
        self.dropped(arrival.port, reason)
        if reason is Drop.ARP_NO_ANSWER:
            self.error(arrival, errors.UNREACHABLE, errors.HOST, now)

    def send(self, port: str, out: Interface, frame: bytes | bytearray, claims: GsoHeader | None) -> None:
        """A frame is ready: count it and hand it to the caller."""
        counters = out.counters
        counters.tx_packets += 1
        counters.tx_bytes += len(frame)
        self.effects.append(Send(port, frame, claims))

    # Telling

    def dropped(self, port: str, reason: Drop) -> None:
        """A packet that came in by `port` goes no further."""
        self.counters.dropped(port.partition(":")[0], reason)
        if self._events:
            self.effects.append(Event(port, "drop", {"reason": reason.value}))
        if self.tracing is not None:
            self.tracing.drop = reason
            self.tracing.steps.append(("drop", reason.value))

    def _lost(self, port: str, reason: Drop) -> None:
        """A message of our own does not leave by `port`."""
        self.counters.lost(port, reason)
        if self._events:
            self.effects.append(Event(port, "drop", {"reason": reason.value}))

    def link_changed(self, event: Linked | Unlinked) -> None:
        """A link was made or has ended: its names, as `bridgectl alias` prints them."""
        link, on = event.link, event.link.egress.label
        facts: dict[str, object] = {
            "protocol": protocol_name(link.protocol),
            "inside": end_text(link.inside, link.inside_port),
            "outside": end_text(self.interfaces[on].address, link.outside_port),
            "on": on,
        }
        self.effects.append(Event(on, "link" if isinstance(event, Linked) else "unlink", facts))

    def say(self, room: str, words: str, *facts: Fact) -> None:
        """Tell a step of the walk to whoever traces; `facts` take the places of `{}`, spelled only if somebody does."""
        if self.tracing is not None:
            self.tracing.steps.append((room, words.format(*map(_spelled, facts))))


def wire_bytes(packet: Packet) -> int:
    """The size of the largest IP packet that `packet` is on a wire: of a super-frame, one full segment."""
    claims = packet.gso
    if claims is None or not claims.gso_type:
        return len(packet.data)
    start = packet.header_bytes
    transport_bytes = (packet.data[start + 12] >> 4) * 4 if packet.protocol == ipv4.TCP else 8
    return min(start + transport_bytes + claims.gso_bytes, len(packet.data))


def pieces(packet: Packet, mtu_bytes: int) -> Iterable[Packet]:
    """The packet as it fits the egress: whole, or fragments (DF is clear then, `Gateway._fit` has seen to that)."""
    if wire_bytes(packet) <= mtu_bytes:
        return (packet,)
    if packet.gso is None:
        return ipv4.fragments_of(packet, mtu_bytes)
    return (
        fragment
        for segment in gso.segment(packet.data, packet.gso)
        for fragment in ipv4.fragments_of(Packet(segment, None), mtu_bytes)
    )


_PROTOCOL_NAMES = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    50: "esp",
    51: "ah",
    132: "sctp",
    136: "udplite",
}


def protocol_name(protocol: int) -> str:
    """The IANA keyword in lower case for the common protocols, else the number."""
    return _PROTOCOL_NAMES.get(protocol, str(protocol))


def end_text(address: int, port: int) -> str:
    """An address and a port (or ICMP identifier) as `192.168.200.3:5000`."""
    return f"{address_text(address)}:{port}"


def _arp_facts(changed: Changed) -> dict[str, object]:
    """A change of the ARP table as an event tells it; `claimant` is another station that claims the address."""
    facts: dict[str, object] = {
        "ip": address_text(changed.address),
        "mac": mac_text(changed.mac) if changed.mac is not None else None,
        "state": changed.state,
        "change": changed.change,
    }
    if changed.claimant is not None:
        facts["claimant"] = mac_text(changed.claimant)
    return facts


def _spelled(fact: Fact) -> str:
    if isinstance(fact, Packet):
        return sketch(fact)
    if isinstance(fact, tuple):
        return end_text(*fact)
    if isinstance(fact, bytes):
        return mac_text(fact)
    return address_text(fact) if isinstance(fact, int) else fact


def sketch(packet: Packet) -> str:
    """A packet in one line, for traces."""
    ends = f"{address_text(packet.source)} > {address_text(packet.destination)}"
    return f"{ends} {protocol_name(packet.protocol)}, {len(packet.data)} bytes, TTL {packet.ttl}"
