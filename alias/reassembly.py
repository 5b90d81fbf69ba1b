"""Real reassembly, for datagrams to our own addresses: an echo request may come in fragments (RFC 791 3.2, RFC 1122
3.3.2, RFC 1812 4.2.2.7).

Bounds: `LIMITS` in number and bytes, for all and for each source; `PATIENCE_NS` for each datagram. Overlaps give the
whole datagram up (RFC 5722 4), and what comes of it later is dropped too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from alias.ranges import Ranges, fragment_fault
from alias.shelf import FragmentKey, Shelf, ShelfLimits, Shelved
from wire.checksum import checksum
from wire.drop import Drop
from wire.ipv4 import DONT_FRAGMENT, Packet
from wire.units import SECOND_NS

__all__ = ["LIMITS", "PATIENCE_NS", "Expired", "FragmentKey", "Joined", "Reassembly"]

PATIENCE_NS = 15 * SECOND_NS
LIMITS = ShelfLimits(datagrams=256, bytes=2 << 20, source_datagrams=32, source_bytes=512 << 10)

_FRAGMENT_BYTES = 512  # what a fragment costs beside its bytes
_LONGEST_BYTES = 65_535


class Expired(NamedTuple):
    """A datagram that never became whole, the port it came by, and why. `fragments`: how many of it were dropped.
    `first`: its first fragment where the reason is `FRAGMENT_TIMEOUT` and it is here: then RFC 1122 3.3.2 wants ICMP
    11/1."""

    port: str
    reason: Drop
    first: Packet | None
    fragments: int


class Joined(NamedTuple):
    """A datagram of which all `fragments` are here: whole under the header of its first one, its transport header not
    read yet, or why all of it is dropped."""

    packet: Packet | Drop
    fragments: int


class _Partial(Shelved):
    """One datagram that came by `port`; `parts` is None once its ranges have overlapped."""

    __slots__ = ("parts", "port", "ranges")

    def __init__(self, port: str, deadline_ns: int) -> None:
        super().__init__(deadline_ns)
        self.port = port
        self.ranges = Ranges()
        self.parts: list[Packet] | None = []

    def join(self) -> Packet | Drop:
        """The whole datagram, under the header of its first fragment."""
        parts = sorted(self.parts or (), key=lambda part: part.offset_bytes)
        first = parts[0]
        data = bytearray().join(
            [first.data] + [memoryview(part.data)[part.header_bytes :] for part in parts[1:]],
        )
        if len(data) > _LONGEST_BYTES:
            return Drop.FRAGMENT_BAD
        struct.pack_into("!H", data, 2, len(data))
        struct.pack_into("!H", data, 6, DONT_FRAGMENT if first.dont_fragment else 0)
        struct.pack_into("!H", data, 10, 0)
        struct.pack_into("!H", data, 10, checksum(memoryview(data)[: first.header_bytes]))
        return Packet(data, None)


class Reassembly:
    """The datagrams to us that are not whole yet."""

    __slots__ = ("_fallen", "_shelf")

    def __init__(self, limits: ShelfLimits = LIMITS) -> None:
        self._shelf: Shelf[_Partial] = Shelf(limits)
        self._fallen: dict[tuple[str, Drop], int] = {}  # fragments that fell since the last tick

    def __len__(self) -> int:
        return len(self._shelf)

    def add(self, key: FragmentKey, packet: Packet, now: int) -> Joined | Drop | None:
        """The datagram once its last piece is here, None while it waits, or why this fragment is dropped. What falls
        with it is told by `take_fallen`."""
        fault = fragment_fault(packet)
        if fault is not None:
            return fault
        partial = self._shelf.get(key)
        if partial is None:
            partial = _Partial(key[0], now + PATIENCE_NS)
            self._shelf.put(key, partial)
        parts = partial.parts
        if parts is None:
            return Drop.FRAGMENT_DATAGRAM_DROPPED
        clash = partial.ranges.add(packet)
        if clash is Drop.FRAGMENT_OVERLAP:
            self._fell(partial, clash, len(parts))
            partial.parts = None
        if clash is not None:
            return clash
        parts.append(packet)
        if partial.ranges.is_complete:
            self._shelf.take(key)
            return Joined(partial.join(), len(parts))
        gone = self._shelf.charge(key, len(packet.data) + _FRAGMENT_BYTES)
        for other in gone:
            self._fell(other, Drop.FRAGMENT_STORE_FULL, len(other.parts or ()) - (other is partial))
        return Drop.FRAGMENT_STORE_FULL if partial in gone else None

    def tick(self, now: int) -> list[Expired]:
        """The datagrams that ran out of time, and what fell in `add`, if that was not taken."""
        expired = self.take_fallen()
        for partial in self._shelf.due(now):
            if partial.parts:
                first = next((part for part in partial.parts if not part.offset_bytes), None)
                expired.append(Expired(partial.port, Drop.FRAGMENT_TIMEOUT, first, len(partial.parts)))
        return expired

    def take_fallen(self) -> list[Expired]:
        """The fragments that fell with others in `add` since the last call."""
        if not self._fallen:
            return []
        fallen = [Expired(port, reason, None, fragments) for (port, reason), fragments in self._fallen.items()]
        self._fallen.clear()
        return fallen

    def held(self) -> Iterator[tuple[str, int]]:
        """The port of each datagram that is not whole, and how many fragments of it are kept."""
        for partial in self._shelf:
            yield partial.port, len(partial.parts or ())

    def next_deadline(self) -> int | None:
        """When the oldest datagram runs out of time; None while there is none."""
        return self._shelf.next_deadline()

    def _fell(self, partial: _Partial, reason: Drop, fragments: int) -> None:
        """Count fragments that fall with another one."""
        if fragments:
            told = (partial.port, reason)
            self._fallen[told] = self._fallen.get(told, 0) + fragments
