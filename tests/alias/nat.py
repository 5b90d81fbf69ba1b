"""A NAT on the bench: the table and the rewriting with nothing around them, scapy packets in and out, a virtual clock.

What comes out is read by scapy, and its checksums are compared with those that scapy computes. `Nat` does what the
walk does with a link, no more: no TTL, no routes, no ARP.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet as ScapyPacket

from alias import rewrite
from alias.table import Aliases
from alias.types import AliasSettings, Egress, Forward, Link, Unanswered, Unlinked
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import address_int, seconds_ns

A, B, C = "192.168.200.10", "192.168.200.11", "192.168.200.12"
HOST = "192.168.192.211"
E, F = "203.0.113.5", "203.0.113.6"
X = {Egress.TAP1: "192.168.1.2", Egress.VPN: "192.168.192.210"}
BOTH = [Egress.TAP1, Egress.VPN]
START = 1_000_000
"""The clock's first second: nothing may depend on its beginning at zero."""


def packet(frame: ScapyPacket | bytes) -> Packet:
    """A scapy packet as the walk has it, its transport header read."""
    parsed = ipv4.parse(bytes(frame))
    assert isinstance(parsed, Packet), parsed
    fault = ipv4.read_transport(parsed)
    assert fault is None, fault
    return parsed


def checked(data: bytes | bytearray) -> IP:
    """Bytes as scapy reads them, after all checksums were found to be those that scapy computes."""
    raw = bytes(data)
    read = IP(raw)
    again = IP(raw)
    for layer in (IP, TCP, UDP, ICMP):
        if again.haslayer(layer) and not (layer is UDP and again[UDP].chksum == 0):
            del again[layer].chksum
    if read.frag == 0 and not read.flags.MF:
        assert bytes(again) == raw, "a checksum differs from scapy's"
    return read


def udp(source: int, source_port: int, destination: int, destination_port: int, payload: bytes = b"") -> Packet:
    """A UDP packet built without scapy, for thousands of them."""
    body = struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload
    return packet(ipv4.header(source, destination, ipv4.UDP, len(body)) + body)


class Nat:
    """A table with its clock in seconds since its start. `egress` is where everything leaves and comes in."""

    def __init__(
        self,
        egress: Egress = Egress.TAP1,
        forwards: Sequence[Forward] = (),
        reserved: Sequence[tuple[Egress, int, int]] = (),
        seed: int = 1,
        **settings: Any,
    ) -> None:
        self.egress = egress
        self.x = X[egress]
        self.settings = AliasSettings(**settings)
        self.aliases = Aliases(self.settings, forwards, reserved, random.Random(seed))
        self.now = seconds_ns(START)
        self.ended: list[tuple[float, Link]] = []
        self.unanswered: list[tuple[float, Unanswered]] = []

    @property
    def t(self) -> float:
        """Seconds since the start."""
        return self.now / 1e9 - START

    def at(self, seconds: float) -> None:
        """Let the clock run to `seconds` since the start; timers fire at their own time."""
        end = seconds_ns(START + seconds)
        assert end >= self.now, "the clock never runs backwards"
        while (due := self.aliases.next_deadline()) is not None and due <= end:
            assert due >= self.now
            self.now = due
            for event in self.aliases.tick(due):
                if isinstance(event, Unlinked):
                    self.ended.append((self.t, event.link))
                else:
                    self.unanswered.append((self.t, event))
        self.now = end

    def after(self, seconds: float) -> None:
        """Let the clock run on by `seconds`."""
        self.at(self.t + seconds)

    def out(self, frame: ScapyPacket | bytes) -> IP | Drop:
        """A packet from inside leaves: as the outside sees it."""
        leaving = packet(frame)
        link = self.aliases.outbound(self.egress, leaving, self.now)
        if isinstance(link, Drop):
            return link
        rewrite.source(leaving, address_int(self.x), link.outside_port)
        return checked(leaving.data)

    def back(self, frame: ScapyPacket | bytes) -> IP | Drop:
        """A packet from outside to X comes in: as the inside sees it."""
        coming = packet(frame)
        link = self.aliases.inbound(self.egress, coming, self.now)
        if isinstance(link, Drop):
            if link in (Drop.ALIAS_NO_LINK, Drop.ALIAS_FILTERED):
                self.aliases.unsolicited(self.egress, coming, self.now)
            return link
        rewrite.destination(coming, link.inside, link.inside_port)
        return checked(coming.data)

    def turn(self, frame: ScapyPacket | bytes) -> IP | Drop:
        """A packet from inside to X turns round (hairpin): as its receiver sees it."""
        turning = packet(frame)
        sender = self.aliases.outbound(self.egress, turning, self.now)
        if isinstance(sender, Drop):
            return sender
        rewrite.source(turning, address_int(self.x), sender.outside_port)
        receiver = self.aliases.inbound(self.egress, turning, self.now, hairpin=True)
        if isinstance(receiver, Drop):
            return receiver
        rewrite.destination(turning, receiver.inside, receiver.inside_port)
        return checked(turning.data)

    def links(self) -> list[Link]:
        """All live links."""
        return list(self.aliases.links(self.now))

    def link(self) -> Link:
        """The only live link."""
        (link,) = self.links()
        return link


def passed(answer: IP | Drop) -> IP:
    """The packet, which was not dropped."""
    assert not isinstance(answer, Drop), answer
    return answer
