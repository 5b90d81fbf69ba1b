"""IP identifications behind one address (RFC 7857 10, RFC 6864 5.3.1).

Hosts choose identifications without knowing of each other; behind our address two datagrams to one remote would share
(source, destination, protocol, identification), and the remote would mix their fragments. An identification stays as it
is unless *another* inside host has used it towards the same remote lately. It matters only where the packet may be
fragmented (DF clear, or a fragment already). What an ICMP error quotes gets the host's own one back (`original`).

Bounds: two generations of `GENERATION` records. One lives for `GENERATION_NS` at least and twice that at most, or until
that many newer ones have come.
"""

from __future__ import annotations

import random

from alias.types import Egress
from wire.ipv4 import Packet
from wire.units import SECOND_NS

GENERATION = 8_192
GENERATION_NS = 30 * SECOND_NS
TRIES = 8


class Identifications:
    """The identifications that were used lately, and by which inside host."""

    __slots__ = ("_new", "_old", "_rng", "_turned_ns")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        # (egress, protocol, remote, identification) packed -> inside address << 16 | its own identification
        self._new: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._turned_ns = 0

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def choose(self, egress: Egress, packet: Packet, now: int) -> int:
        """The identification for a packet that still has its inside source. One value a call: the caller gives the
        same one to all fragments of a datagram."""
        identification = packet.identification
        if packet.dont_fragment and not packet.is_fragment:
            return identification
        if len(self._new) >= GENERATION or now - self._turned_ns >= GENERATION_NS:
            self._old = self._new if now - self._turned_ns < 2 * GENERATION_NS else {}
            self._new = {}
            self._turned_ns = now
        flow = _flow(egress, packet.protocol, packet.destination)
        inside = packet.source
        for _ in range(TRIES):
            user = self._new.get(flow | identification)
            if user is None:
                user = self._old.get(flow | identification)
            if user is None or user >> 16 == inside:
                break
            identification = self._rng.getrandbits(16)
        self._new[flow | identification] = inside << 16 | packet.identification
        return identification

    def original(self, egress: Egress, protocol: int, inside: int, remote: int, identification: int) -> int:
        """The identification that `inside` gave to what left for `remote` with this one."""
        key = _flow(egress, protocol, remote) | identification
        user = self._new.get(key)
        if user is None:
            user = self._old.get(key)
        return identification if user is None or user >> 16 != inside else user & 0xFFFF


def _flow(egress: Egress, protocol: int, remote: int) -> int:
    """The flow within which identifications must differ, as an integer with room for one below."""
    return (egress << 40 | protocol << 32 | remote) << 16
