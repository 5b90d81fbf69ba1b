"""The ARP of one tap port, as the walk uses it.

`ArpPort.lookup` and `hold` stand where a frame leaves, `receive` where an ARP frame comes in; `tick` and
`next_deadline` are the timers of both, and of the claim to our own address. No input or output: effects are values.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Final

from arp.announcer import Announcer
from arp.effects import ArpEffect, Entry, Transmit
from arp.resolver import Resolver
from arp.responder import Responder
from arp.table import REACHABLE_NS
from arp.waiting import WaitingLimits
from wire.units import earliest

_DEFAULT_LIMITS: Final = WaitingLimits()


class ArpPort:
    """Resolver, responder and announcer of one port.

    `address`: our own, 0 while the port has none; `prefix_length`: 8 to 32; `mac`: ours, six bytes; `static`: the
    operator's entries (`ValueError` where one is impossible); `rng`: for the pauses of RFC 5227; `reachable_ns`: how
    long an answer is believed. `now` is in ns and never runs backwards.

    `lookup(address, now)` is the hot path: the MAC address of a next hop, and the note that it is in use; None: `hold`
    the frame. It is the resolver's own function, and so are `slot_of(address)`, which slot of `words` an address has
    (None where it can be no neighbour's), and `address_of(slot)`, the way back. `slots`: of the table, one for each
    address of the subnet, and one for the neighbour `beyond` it, where there is one (see `Resolver`).
    """

    __slots__ = (
        "_announcer",
        "_resolver",
        "_responder",
        "address",
        "address_of",
        "lookup",
        "mac",
        "prefix_length",
        "slot_of",
        "slots",
    )

    def __init__(
        self,
        address: int,
        prefix_length: int,
        mac: bytes,
        static: Mapping[int, bytes],
        rng: random.Random,
        *,
        limits: WaitingLimits = _DEFAULT_LIMITS,
        reachable_ns: int = REACHABLE_NS,
        beyond: int = 0,
    ) -> None:
        self.address = address
        self.prefix_length = prefix_length
        self.mac = mac
        self._resolver = Resolver(address, prefix_length, mac, limits, reachable_ns, beyond)
        self._announcer = Announcer(address, mac, rng)
        self._responder = Responder(self._resolver, self._announcer)
        self.lookup = self._resolver.lookup
        self.slot_of = self._resolver.slot_of
        self.address_of = self._resolver.address_of
        self.slots = self._resolver.table.slots
        for host, host_mac in static.items():
            self._resolver.add(host, host_mac)

    # A frame leaves

    def is_resolvable(self, address: int) -> bool:
        """True for a host address of the subnet other than our own: a next hop that may be asked for."""
        return self._resolver.is_resolvable(address)

    def hold(self, address: int, waiting: object, size_bytes: int, now: int) -> list[ArpEffect]:
        """Keep `waiting` until the next hop is known, and ask for it; it comes back in a `Release` or a `GaveUp`."""
        return self._resolver.hold(address, waiting, size_bytes, now)

    # An ARP frame comes in

    def receive(self, frame: bytes | bytearray | memoryview, now: int) -> list[ArpEffect]:
        """Take in a whole Ethernet frame of type 0806. The outcome is a list of effects for any bytes."""
        return self._responder.receive(frame, now)

    # From traffic

    def mac_of(self, address: int) -> bytes:
        """The MAC address of a neighbour, six zero bytes where none is known. It counts as no use."""
        return self._resolver.mac_of(address)

    def confirm(self, address: int, mac: bytes, now: int) -> None:
        """A packet from `mac` answers one that we sent by the neighbour `address`: both ways work. Where that is the
        neighbour's MAC address its entry is REACHABLE from now on."""
        self._resolver.confirm(address, mac, now)

    def suspect(self, address: int, now: int) -> list[ArpEffect]:
        """Nothing comes from a next hop that we send to: ask whether it is still there."""
        return self._resolver.suspect(address, now)

    # Time

    def start(self, now: int) -> list[ArpEffect]:
        """Begin the probes and announcements of RFC 5227, beside traffic. Without it the address counts as ours; where
        there is none, nothing is begun."""
        if not self.address:
            return []
        self._announcer.start(now)
        return self.tick(now)

    def tick(self, now: int) -> list[ArpEffect]:
        """Fire what is due. Afterwards `next_deadline` is later than `now`."""
        effects = self._resolver.tick(now)
        frame = self._announcer.tick(now)
        if frame is not None:
            effects.append(Transmit(frame))
        return effects

    def next_deadline(self) -> int | None:
        """When the earliest timer fires, in ns, exactly; None where none runs."""
        return earliest(self._resolver.next_deadline(), self._announcer.next_deadline())

    def give_up(self) -> list[ArpEffect]:
        """Give up all waiting frames, because the port gets another address."""
        return self._resolver.give_up()

    # The operator

    def entries(self, now: int) -> Iterator[Entry]:
        """The table in order of address. Nothing may change it until the iterator is exhausted."""
        return self._resolver.entries(now)

    def add(self, address: int, mac: bytes) -> list[ArpEffect]:
        """Set a static entry; frames that waited for the address come back in `Release`s.

        Raises `ValueError` as `Resolver.add`.
        """
        return self._resolver.add(address, mac)

    def delete(self, address: int) -> bool:
        """Forget an entry; False where there was none to forget."""
        return self._resolver.delete(address)

    def flush(self) -> int:
        """Forget all learned entries, and how many; static ones stay, and so do open questions with their frames."""
        return self._resolver.flush()

    def probe(self, address: int, now: int) -> list[ArpEffect]:
        """Ask for an address now (see `Resolver.probe`); nothing for one that is not resolvable."""
        return self._resolver.probe(address, now)

    def answered(self, address: int, now: int) -> bool | None:
        """The outcome of the last `probe`: True, False, or None while it is open (3 s, for a static entry for ever)."""
        return self._resolver.answered(address, now)

    @property
    def words(self) -> memoryview:
        """The slots of the table as they lie in memory (`arp.table`), to read: the MAC address of the network's address
        + n is in the low 48 bits of word 4 n, zero where none is known. A reader of the words must call `lookup` now
        and then: an entry nobody looks up counts as unused."""
        return self._resolver.table.words

    # Figures

    @property
    def used(self) -> int:
        """Slots that hold an entry."""
        return self._resolver.table.used

    @property
    def size_bytes(self) -> int:
        """Bytes allocated for the slots."""
        return self._resolver.table.size_bytes

    def waiting(self) -> Iterator[object]:
        """The waiting frames, each as `hold` got it."""
        return iter(self._resolver.waiting)

    @property
    def waiting_frames(self) -> int:
        """Frames that wait for an answer."""
        return self._resolver.waiting.frames

    @property
    def waiting_bytes(self) -> int:
        """Their bytes, as `hold` was told."""
        return self._resolver.waiting.size_bytes

    @property
    def sender_mismatches(self) -> int:
        """ARP frames whose Ethernet source address was not the sender's in the packet."""
        return self._responder.sender_mismatches

    @property
    def conflicts(self) -> int:
        """ARP packets of somebody else who uses our address."""
        return self._announcer.conflicts
