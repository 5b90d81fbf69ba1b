"""Bounded room for datagrams that are not whole: in number and in bytes, for all and for each source.

What exceeds a bound pushes out the oldest datagram: of the same source where that source has more than its share, of
all where the shelf is full. A flood so shortens the time that fragments may take (a reordering is over in
milliseconds), and never closes the shelf to those who come after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

FragmentKey = tuple[str, int, int, int, int]
"""(port name, source, destination, protocol, identification), as received (RFC 791 3.2; the port keeps apart what two
sides call by the same names)."""


class ShelfLimits(NamedTuple):
    """The bounds of one shelf, each wide enough for one datagram of any size; bytes count what a datagram costs us,
    objects included."""

    datagrams: int
    bytes: int
    source_datagrams: int
    source_bytes: int


class Shelved:
    """A datagram, as far as a shelf needs to know it."""

    __slots__ = ("bytes", "deadline_ns")

    def __init__(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns
        self.bytes = 0


Kept = TypeVar("Kept", bound=Shelved)


class _Share(Generic[Kept]):
    """The datagrams of one source on the shelf, oldest first."""

    __slots__ = ("bytes", "kept")

    def __init__(self) -> None:
        self.kept: dict[FragmentKey, Kept] = {}
        self.bytes = 0


class Shelf(Generic[Kept]):
    """Datagrams by key, in the order in which they were put here, which is the order of their deadlines."""

    __slots__ = ("_kept", "_limits", "_shares", "bytes")

    def __init__(self, limits: ShelfLimits) -> None:
        self._limits = limits
        self._kept: dict[FragmentKey, Kept] = {}
        self._shares: dict[tuple[str, int], _Share[Kept]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._kept.values())

    def get(self, key: FragmentKey) -> Kept | None:
        """The datagram of a key."""
        return self._kept.get(key)

    def put(self, key: FragmentKey, datagram: Kept) -> None:
        """A new datagram; charge it next."""
        self._kept[key] = datagram
        self._shares.setdefault(key[:2], _Share()).kept[key] = datagram

    def charge(self, key: FragmentKey, size_bytes: int) -> list[Kept]:
        """The datagram of `key` has grown; those that had to go, perhaps itself."""
        share = self._shares[key[:2]]
        self._kept[key].bytes += size_bytes
        share.bytes += size_bytes
        self.bytes += size_bytes
        limits = self._limits
        gone = []
        while len(share.kept) > limits.source_datagrams or share.bytes > limits.source_bytes:
            gone.append(self.take(next(iter(share.kept))))
        while len(self._kept) > limits.datagrams or self.bytes > limits.bytes:
            gone.append(self.take(next(iter(self._kept))))
        return gone

    def take(self, key: FragmentKey) -> Kept:
        """Remove a datagram."""
        datagram = self._kept.pop(key)
        source = key[:2]
        share = self._shares[source]
        del share.kept[key]
        share.bytes -= datagram.bytes
        self.bytes -= datagram.bytes
        if not share.kept:
            del self._shares[source]
        return datagram

    def due(self, now: int) -> list[Kept]:
        """Remove those whose deadline has come, oldest first."""
        expired = []
        while self._kept:
            key, datagram = next(iter(self._kept.items()))
            if datagram.deadline_ns > now:
                break
            expired.append(self.take(key))
        return expired

    def next_deadline(self) -> int | None:
        """The deadline of the oldest."""
        return next(iter(self._kept.values())).deadline_ns if self._kept else None
