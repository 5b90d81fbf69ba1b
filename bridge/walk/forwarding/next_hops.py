"""Evidence about next hops in traffic: which of them answer, and which have fallen silent.

RFC 1122 2.3.2.1 (4) (advice from what travels above): `proves_both_ways`. Row A33 of the checklist: `heard`, `sent`,
`due_ns`: a router whose MAC address changed without a word receives nothing more, so nothing comes back. After a second
of silence it is asked about. The state is two fields of `Interface`.
"""

from __future__ import annotations

from typing import Final

from bridge.walk.interface import Interface
from bridge.walk.path import Arrival, Path
from wire import ipv4, tcp
from wire.units import SECOND_NS

SILENCE_NS: Final = SECOND_NS


def proves_both_ways(arrival: Arrival, path: Path) -> bool:
    """True for a packet that answers one which we sent by its sender's station: it acknowledges, replies, or comes back
    by a link that an inside host made."""
    packet = arrival.packet
    if packet.is_fragment:
        return False
    if packet.protocol == ipv4.TCP:
        return bool(packet.data[packet.header_bytes + 13] & tcp.ACK)
    if packet.protocol == ipv4.ICMP:
        return packet.data[packet.header_bytes] in ipv4.ICMP_QUERY_REPLIES
    return not arrival.port.interface.is_inside and path.link is not None and not path.link.is_static


def heard(interface: Interface, mac: bytes) -> None:
    """An IP packet came in from `mac`."""
    if interface.silent_from_ns is None and interface.has_spoken:
        return
    neighbours = interface.neighbours
    if neighbours is not None and interface.gateway and neighbours.mac_of(interface.gateway) == mac:
        interface.has_spoken = True
        interface.silent_from_ns = None


def repeated(interface: Interface, received_packets: int, sent_packets: int, now: int) -> None:
    """The flow table forwarded packets at a port: how many it took from there and sent there."""
    if received_packets:
        interface.silent_from_ns = None
    if sent_packets:
        sent(interface, now)


def sent(interface: Interface, now: int) -> None:
    """A packet left for the port's next hop."""
    if interface.silent_from_ns is None:
        interface.silent_from_ns = now


def due_ns(interface: Interface) -> int | None:
    """When the next hop of a port has been silent for too long; None where it may be silent, as one may that has not
    sent us a packet since we know its MAC address."""
    if interface.silent_from_ns is None or not interface.has_spoken:
        return None
    return interface.silent_from_ns + SILENCE_NS
