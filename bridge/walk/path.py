"""The values that the walk hands on: a packet as it came in, its path, and the ends of its flow.

`Arrival` and `Path` are classes with slots, because every packet makes them and reads them again and again: a class
with slots takes two thirds of a tuple's time. Nobody changes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from alias import quote as quotes
from alias.quote import Quote
from alias.shelf import FragmentKey
from alias.types import Egress, Link
from bridge.walk.interface import NamedPort
from wire.drop import Drop
from wire.ipv4 import ICMP, Packet

FlowEnds = tuple[int, int, int, int, int]
"""(protocol, inside address, inside port, remote address, remote port)."""

WireEnds = tuple[int, int, int, int]
"""(source, source port, destination, destination port), as `flow.table.Table.learn` takes them."""


@dataclass(slots=True, eq=False)
class Arrival:
    """A checked packet as it came in by `port`. ICMP errors quote `packet`, so nobody changes it.

    `group`: its frame was sent to a group MAC address. `is_ours`: it never came in; a message of our own takes the way
    of one that did (`Gateway.undelivered`), and no frame's fate is counted for it.
    """

    port: NamedPort
    packet: Packet
    group: bool
    is_ours: bool = False

    @property
    def fragment_key(self) -> FragmentKey:
        """The key that all fragments of one datagram share (RFC 791 3.2), with the port that they came by."""
        packet = self.packet
        return self.port.name, packet.source, packet.destination, packet.protocol, packet.identification


@dataclass(slots=True, eq=False)
class Path:
    """Where a packet leaves and how it is rewritten; later fragments of its datagram follow the same path.

    `port`: where it leaves. `mtu_bytes`: the largest packet that may leave there.
    `inside`, `outside`: the two ends of the flow as (address, port).
    `source`, `destination`: the new (address, port) of either end; None where it stays.
    `quoted`: for the packet inside an ICMP error, its quote and both new ends. `quoted_identification`: the IP
    identification that the quoted packet had before we changed it.
    `egress`: set where the source becomes an alias. `link`: the NAT link of the flow.
    `identification`: the IP identification of a datagram in fragments, None: a packet gets its own.
    `flow`: the ends that the first fragment of a datagram showed.
    """

    port: NamedPort
    mtu_bytes: int
    inside: tuple[int, int]
    outside: tuple[int, int]
    source: tuple[int, int] | None = None
    destination: tuple[int, int] | None = None
    quoted: tuple[Quote, tuple[int, int] | None, tuple[int, int] | None] | None = None
    egress: Egress | None = None
    identification: int | None = None
    quoted_identification: int | None = None
    link: Link | None = None
    flow: WireEnds | None = None


def flow_ends(packet: Packet) -> FlowEnds | None:
    """The flow of a packet from inside, or of the packet that an ICMP error from inside quotes; None where the error
    quotes no packet."""
    if not packet.is_icmp_error:
        return packet.protocol, packet.source, packet.source_port, packet.destination, packet.destination_port
    quote = quotes.read(packet)
    if isinstance(quote, Drop):
        return None
    return quote.protocol, quote.destination, quote.destination_port, quote.source, quote.source_port


def wire_ends(packet: Packet) -> WireEnds:
    """A packet's ends as the flow table keys them: the destination port of an ICMP message is its type."""
    if packet.protocol == ICMP and not packet.offset_bytes:
        return packet.source, packet.source_port, packet.destination, packet.data[packet.header_bytes]
    return packet.source, packet.source_port, packet.destination, packet.destination_port
