"""Virtual reassembly: every fragment follows the decision made for its datagram's first one, none is put together.

RFC 4787 11 (REQ-14: in order and out of order; 14a: a flood of fragments hurts nothing but fragments). RFC 791 3.2 (the
key, with the port it came in by), RFC 1858, RFC 3128 and RFC 5722 (overlaps, see `alias.ranges`). RFC 1812 4.2.2.7 is
why nothing is merged: a router passes fragments on as they are.

Two shelves, so that neither kind of traffic can push out the other: later fragments that *wait* for their first one
(`WAITING`), and datagrams that are *decided* (`DECIDED`), of which only the ranges and the decision are kept. A
datagram is given up after `PATIENCE_NS`; once all of it has been seen it is forgotten at once.

Operations of the caller, for packets with `is_fragment` only::

    arrival = store.arrive(key, packet, item, now)
    ... count `arrival.fallen` ...
    first:  items = store.settle(key, decision, now)   or   items = store.refuse(key, now)
    follow: do as `arrival.decision` says
    held:   nothing, `item` is kept
    drop:   count `arrival.reason`

`settle` and `refuse` come before the next `arrive`; a first fragment that is neither counts as refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Literal, NamedTuple, TypeVar

from alias.ranges import Ranges, fragment_fault
from alias.shelf import FragmentKey, Shelf, ShelfLimits, Shelved
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import SECOND_NS, earliest

__all__ = ["DECIDED", "PATIENCE_NS", "WAITING", "FragmentKey", "FragmentStore", "FragmentVerdict"]

PATIENCE_NS = 15 * SECOND_NS
WAITING = ShelfLimits(datagrams=1024, bytes=4 << 20, source_datagrams=256, source_bytes=1 << 20)
DECIDED = ShelfLimits(datagrams=4096, bytes=4 << 20, source_datagrams=1024, source_bytes=1 << 20)

_HELD_BYTES = 512  # what a held fragment costs beside its bytes
_RANGE_BYTES = 64  # what a range costs
_DATAGRAM_BYTES = 512  # what a datagram costs

Decision = TypeVar("Decision")
Item = TypeVar("Item")


class FragmentVerdict(NamedTuple, Generic[Decision, Item]):
    """The fate of a fragment.

    `first`: it is the first fragment: decide, then call `settle` or `refuse`. `follow`: `decision` is known.
    `held`: the item waits for the first fragment. `drop`: dropped for `reason`.
    `fallen`: earlier items that are dropped now, each with its reason, whatever the verdict.
    """

    verdict: Literal["first", "follow", "held", "drop"]
    decision: Decision | None
    reason: Drop | None
    fallen: list[tuple[Drop, Item]]


class _Datagram(Shelved, Generic[Decision, Item]):
    """One datagram. `is_refused`: its first fragment was dropped, or is not decided yet, or ranges overlapped."""

    __slots__ = ("decision", "is_refused", "items", "ranges")

    def __init__(self, deadline_ns: int) -> None:
        super().__init__(deadline_ns)
        self.ranges = Ranges()
        self.items: list[Item] = []
        self.decision: Decision | None = None
        self.is_refused = True


class FragmentStore(Generic[Decision, Item]):
    """Bounded memory of datagrams that pass in fragments. `Decision`: what the caller wants to hear again for later
    fragments. `Item`: what it wants back of those that had to wait."""

    __slots__ = ("_decided", "_waiting")

    def __init__(self, waiting: ShelfLimits = WAITING, decided: ShelfLimits = DECIDED) -> None:
        self._waiting: Shelf[_Datagram[Decision, Item]] = Shelf(waiting)
        self._decided: Shelf[_Datagram[Decision, Item]] = Shelf(decided)

    @property
    def waiting(self) -> int:
        """Datagrams whose first fragment has not come."""
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """Their size in memory."""
        return self._waiting.bytes

    @property
    def decided(self) -> int:
        """Datagrams that are decided and not complete."""
        return len(self._decided)

    def held(self) -> Iterator[Item]:
        """The items that are kept."""
        for shelf in (self._waiting, self._decided):
            for datagram in shelf:
                yield from datagram.items

    def arrive(self, key: FragmentKey, packet: Packet, item: Item, now: int) -> FragmentVerdict[Decision, Item]:
        """A fragment arrives; `item` is what the caller wants back if it has to wait."""
        fault = fragment_fault(packet)
        if fault is not None:
            return FragmentVerdict("drop", None, fault, [])
        fallen = self.tick(now)
        known = self._decided.get(key)
        if known is not None:
            return self._follow(key, known, packet, fallen)
        if packet.offset_bytes:
            return self._wait(key, packet, item, now, fallen)
        return self._begin(key, packet, now, fallen)

    def settle(self, key: FragmentKey, decision: Decision, now: int) -> list[Item]:
        """The decision for the first fragment: the whole datagram follows it. Returns the items that were held, in the
        order of their arrival."""
        datagram = self._decided.get(key)
        if datagram is None:
            return []
        datagram.decision = decision
        datagram.is_refused = False
        return self._release(key, datagram)

    def refuse(self, key: FragmentKey, now: int) -> list[Item]:
        """The first fragment was dropped, so is the rest, with `Drop.FRAGMENT_DATAGRAM_DROPPED`. Returns the items that
        were held, which the caller drops for this reason."""
        datagram = self._decided.get(key)
        return [] if datagram is None else self._release(key, datagram)

    def tick(self, now: int) -> list[tuple[Drop, Item]]:
        """The items whose first fragment did not come in time."""
        fallen = [(Drop.FRAGMENT_TIMEOUT, item) for datagram in self._waiting.due(now) for item in datagram.items]
        # A decided datagram keeps items only where its first fragment was neither settled nor refused, by a fault.
        fallen += [(Drop.FRAGMENT_TIMEOUT, item) for datagram in self._decided.due(now) for item in datagram.items]
        return fallen

    def next_deadline(self) -> int | None:
        """When `tick` has something to do next."""
        return earliest(self._waiting.next_deadline(), self._decided.next_deadline())

    def _follow(
        self,
        key: FragmentKey,
        datagram: _Datagram[Decision, Item],
        packet: Packet,
        fallen: list[tuple[Drop, Item]],
    ) -> FragmentVerdict[Decision, Item]:
        """A fragment of a decided datagram."""
        clash = datagram.ranges.add(packet)
        if clash is Drop.FRAGMENT_OVERLAP:
            datagram.is_refused = True
            return FragmentVerdict("drop", None, clash, fallen)
        if clash is None:
            if datagram.ranges.is_complete:
                self._decided.take(key)
            else:
                self._decided.charge(key, _RANGE_BYTES)
        if datagram.is_refused:
            return FragmentVerdict("drop", None, Drop.FRAGMENT_DATAGRAM_DROPPED, fallen)
        if clash is not None:
            return FragmentVerdict("drop", None, clash, fallen)
        return FragmentVerdict("follow", datagram.decision, None, fallen)

    def _begin(
        self, key: FragmentKey, packet: Packet, now: int, fallen: list[tuple[Drop, Item]]
    ) -> FragmentVerdict[Decision, Item]:
        """A first fragment."""
        waited = None if self._waiting.get(key) is None else self._waiting.take(key)
        clash = self._decide(key, waited, packet, now, fallen)
        if clash is not None:
            fallen += [(clash, item) for item in self.refuse(key, now)]
            return FragmentVerdict("drop", None, clash, fallen)
        return FragmentVerdict("first", None, None, fallen)

    def _wait(
        self, key: FragmentKey, packet: Packet, item: Item, now: int, fallen: list[tuple[Drop, Item]]
    ) -> FragmentVerdict[Decision, Item]:
        """A later fragment of a datagram whose first one is not here."""
        datagram = self._waiting.get(key)
        if datagram is None:
            datagram = _Datagram(now + PATIENCE_NS)
            self._waiting.put(key, datagram)
        clash = datagram.ranges.add(packet)
        if clash is Drop.FRAGMENT_DUPLICATE:
            return FragmentVerdict("drop", None, clash, fallen)
        if clash is not None:
            self._decide(key, self._waiting.take(key), None, now, fallen)
            fallen += [(clash, held) for held in self.refuse(key, now)]
            return FragmentVerdict("drop", None, clash, fallen)
        datagram.items.append(item)
        gone = self._waiting.charge(key, len(packet.data) + _HELD_BYTES)
        if datagram in gone:
            datagram.items.pop()
        fallen += [(Drop.FRAGMENT_STORE_FULL, held) for other in gone for held in other.items]
        if datagram in gone:
            return FragmentVerdict("drop", None, Drop.FRAGMENT_STORE_FULL, fallen)
        return FragmentVerdict("held", None, None, fallen)

    def _decide(
        self,
        key: FragmentKey,
        waited: _Datagram[Decision, Item] | None,
        packet: Packet | None,
        now: int,
        fallen: list[tuple[Drop, Item]],
    ) -> Drop | None:
        """Put a datagram on the shelf of the decided ones, refused until `settle` says otherwise."""
        datagram: _Datagram[Decision, Item] = _Datagram(now + PATIENCE_NS)
        if waited is not None:
            datagram.ranges, datagram.items = waited.ranges, waited.items
        clash = None if packet is None else datagram.ranges.add(packet)
        self._decided.put(key, datagram)
        gone = self._decided.charge(key, _DATAGRAM_BYTES + _RANGE_BYTES * len(datagram.items))
        fallen += [(Drop.FRAGMENT_STORE_FULL, item) for other in gone for item in other.items]
        return clash

    def _release(self, key: FragmentKey, datagram: _Datagram[Decision, Item]) -> list[Item]:
        """Hand out what was held; forget a datagram of which nothing is missing."""
        if datagram.ranges.is_complete:
            self._decided.take(key)
        items, datagram.items = datagram.items, []
        return items
