"""The values that the walk hands on: a packet as it came in, and what was decided for it. Nobody changes them.

`Arrival` and `Path` are classes with slots because every packet makes them and reads them again and again, which takes
two thirds of a tuple's time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from alias.quote import Quote
from alias.shelf import FragmentKey
from alias.types import Egress, Link
from bridge.walk.interface import Interface
from wire.ipv4 import Packet


class Side(NamedTuple):
    """Where somebody is reached: the port's name and its interface. A node of the tunnel is a side of its own."""

    port: str
    interface: Interface


@dataclass(slots=True, eq=False)
class Arrival:
    """A checked packet, as it came in. `packet` is never changed: errors quote it as its sender's side knows it.
    `is_ours`: it did not come in at all, a message of our own goes the way of one that did (`Gateway.undelivered`)."""

    port: str
    interface: Interface
    packet: Packet
    group: bool
    is_ours: bool = False

    @property
    def fragment_key(self) -> FragmentKey:
        """What the fragments of one datagram share."""
        packet = self.packet
        return self.port, packet.source, packet.destination, packet.protocol, packet.identification


@dataclass(slots=True, eq=False)
class Path:
    """What the walk decided for a packet, and for the later fragments of its datagram: where it leaves and what is
    rewritten. `source` and `destination` are (address, port); `quoted` holds both for the packet inside an ICMP error,
    `quoted_identification` its IP identification.
    `egress` is set where the source becomes an alias; `inside` and `outside` name the flow, `link` is its NAT link.
    `flow`: of a datagram in fragments, the ends that its first one showed."""

    port: str
    interface: Interface
    inside: tuple[int, int]
    outside: tuple[int, int]
    source: tuple[int, int] | None = None
    destination: tuple[int, int] | None = None
    quoted: tuple[Quote, tuple[int, int] | None, tuple[int, int] | None] | None = None
    egress: Egress | None = None
    identification: int | None = None
    quoted_identification: int | None = None
    link: Link | None = None
    flow: tuple[int, int, int, int] | None = None


class Answer(NamedTuple):
    """The datagram is an echo request for us: its fragments are put together before it is answered."""
