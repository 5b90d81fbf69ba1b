"""One packet's walk, told to people: steps in words, a verdict, and how addresses, links and packets are spelled.

`Tracing` is shared by all rooms of the walk. Nothing is spelled while nobody listens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from alias.types import Linked, Unlinked
from arp.effects import EntryChanged
from bridge.walk.effects import Send
from bridge.walk.outcome import Answered, Held, Outcome, Refused, TakenIn
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import address_text, mac_text

Fact = str | bytes | int | tuple[int, int] | Packet
"""A fact of a step: words, a MAC address, an IPv4 address, an address with a port, a packet."""


@dataclass(slots=True)
class Trace:
    """One packet's walk. `steps`: (room, sentence); `verdict`: `send`, `drop`, `answer` or `hold`; `out`: the frames
    that left; `drop`: the last drop reason."""

    steps: list[tuple[str, str]] = field(default_factory=list)
    verdict: str = "send"
    out: list[Send] = field(default_factory=list)
    drop: Drop | None = None

    def conclude(self, outcome: Outcome) -> None:
        """A frame of this walk has an outcome: the strongest one is the verdict (drop, answer, hold, send)."""
        if isinstance(outcome, Refused):
            self.dropped(outcome.drop)
        elif isinstance(outcome, Answered | TakenIn) and self.verdict != "drop":
            self.verdict = "answer"
        elif isinstance(outcome, Held) and self.verdict == "send":
            self.verdict = "hold"

    def dropped(self, reason: Drop) -> None:
        """A frame was dropped."""
        self.verdict, self.drop = "drop", reason
        self.steps.append(("drop", reason.value))


class Tracing:
    """The trace that is being written; None while nobody listens. Hot code asks `trace` before it calls `say`."""

    __slots__ = ("trace",)

    def __init__(self) -> None:
        self.trace: Trace | None = None

    def say(self, room: str, words: str, *facts: Fact) -> None:
        """Write a step. `facts` take the places of `{}` in `words`."""
        if self.trace is not None:
            self.trace.steps.append((room, words.format(*map(_spelled, facts))))


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


def sketch(packet: Packet) -> str:
    """A packet in one line."""
    ends = f"{address_text(packet.source)} > {address_text(packet.destination)}"
    return f"{ends} {protocol_name(packet.protocol)}, {len(packet.data)} bytes, TTL {packet.ttl}"


def link_facts(event: Linked | Unlinked, outside: int) -> dict[str, object]:
    """A link's names, as `bridgectl alias` prints them. `outside`: the address that hides the inside."""
    link = event.link
    return {
        "protocol": protocol_name(link.protocol),
        "inside": end_text(link.inside, link.inside_port),
        "outside": end_text(outside, link.outside_port),
        "on": link.egress.label,
    }


def arp_facts(changed: EntryChanged) -> dict[str, object]:
    """A change of an ARP table as an event tells it. `claimant` is another station that claims the address."""
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
