"""The ARP table of a port: one slot for each address of the subnet, allocated once, found by index.

A slot is four 64-bit words in one anonymous, private mapping, which the kernel zeroes page by page as slots are first
written; an all-zero slot is free. Nothing is allocated later, whatever is scanned or forged:

- word 0: MAC address (48 bits, zero where none is known), `EntryState` (4), requests sent in this state (4), 3 flags;
- word 1: neighbours in the queue of the state: index + 1 of the next (high half) and of the previous one;
- word 2: `since_ns`, when the state was entered or, in INCOMPLETE and PROBE, when the last request left;
- word 3: `updated_ns`, when the MAC address was last set.

Timers need no heap: everybody in a state waits equally long (`LIFETIME_NS`), so the slots of a state form a queue in
order of time, threaded through the slots themselves. The earliest timer is at the head of one of six queues.

RFC 1122 2.3.2.1 (timing out entries, configurably; one request a second): `LIFETIME_NS`, `reachable_ns`,
`ArpTable.may_ask`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final

from wire.units import SECOND_NS


class EntryState(IntEnum):
    """The state of an address. REACHABLE turns STALE by the clock alone (`ArpTable.state`)."""

    FREE = 0  # no entry
    INCOMPLETE = 1  # asked for by broadcast, MAC address unknown
    REACHABLE = 2  # answered us less than the table's `reachable_ns` ago
    STALE = 3  # a MAC address that may be out of date; nobody has used it since
    DELAY = 4  # the same, in use: asked about soon
    PROBE = 5  # the same, being asked about by unicast
    FAILED = 6  # did not answer
    STATIC = 7  # the operator's word

    @property
    def label(self) -> str:
        """The public name: `bridgectl arp`, replay events."""
        return self.name.lower()


RETRY_NS: Final = SECOND_NS
REACHABLE_NS: Final = 30 * SECOND_NS
STALE_NS: Final = 60 * SECOND_NS
DELAY_NS: Final = 5 * SECOND_NS
LIFETIME_NS: Final = {
    EntryState.INCOMPLETE: RETRY_NS,
    EntryState.REACHABLE: REACHABLE_NS + STALE_NS,  # its second part is spent as STALE
    EntryState.STALE: STALE_NS,
    EntryState.DELAY: DELAY_NS,
    EntryState.PROBE: RETRY_NS,
    EntryState.FAILED: STALE_NS,
}
HAS_MAC: Final = frozenset(
    {EntryState.REACHABLE, EntryState.STALE, EntryState.DELAY, EntryState.PROBE, EntryState.STATIC}
)

SLOT_BYTES: Final = 32
_LINKS, _SINCE, _UPDATED = 1, 2, 3
_MAC_MASK: Final = (1 << 48) - 1
_STATE_SHIFT: Final = 48
_REQUESTS_SHIFT: Final = 52
_ASKED_LATELY: Final = 1 << 56  # a request may have left less than RETRY_NS before `since_ns`
_REFUSAL_TOLD: Final = 1 << 57  # the operator knows that another MAC address was claimed
_PROVED: Final = 1 << 58  # this MAC address has answered us, or brought what answered us
_STATES: Final = tuple(EntryState)
_REACHABLE, _STALE = int(EntryState.REACHABLE), int(EntryState.STALE)  # compared on the hot path


class ArpTable:
    """`2 ** (32 - prefix_length)` slots, an index is the distance from the network address; and `more` behind them, for
    neighbours outside the subnet.

    `reachable_ns`: how long an answer is believed without another. `slots`, `size_bytes`: what was allocated. `used`:
    slots that are not FREE. A fork gets a table of its own (the mapping is private), and so does `copy.deepcopy`.
    """

    __slots__ = (
        "_due",
        "_heads",
        "_is_due_known",
        "_lifetimes_ns",
        "_more",
        "_tails",
        "_words",
        "prefix_length",
        "reachable_ns",
        "slots",
        "used",
    )

    def __init__(self, prefix_length: int, reachable_ns: int = REACHABLE_NS, more: int = 0) -> None:
        if not 8 <= prefix_length <= 32:
            raise ValueError(f"an ARP table for a /{prefix_length}: the prefix length must be 8 to 32")
        self.prefix_length = prefix_length
        self.reachable_ns = reachable_ns
        self._lifetimes_ns = {**LIFETIME_NS, EntryState.REACHABLE: reachable_ns + STALE_NS}
        self._more = more
        self.slots = (1 << (32 - prefix_length)) + more
        self.used = 0
        memory = mmap.mmap(-1, self.slots * SLOT_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._words = memoryview(memory).cast("Q")
        self._heads = [0] * len(_STATES)  # index + 1 of the first of each queue, 0: it is empty
        self._tails = [0] * len(_STATES)
        self._due: tuple[int, int] | None = None  # what `next_due` found, until a queue changes
        self._is_due_known = False

    def __deepcopy__(self, memo: dict[int, Any]) -> ArpTable:
        twin = ArpTable(self.prefix_length, self.reachable_ns, self._more)
        twin._words[:] = self._words
        twin._heads[:] = self._heads
        twin._tails[:] = self._tails
        twin.used = self.used
        return twin

    @property
    def words(self) -> memoryview:
        """The slots as they lie in memory, four 64-bit words each: for code that reads a MAC address for every
        packet."""
        return self._words.toreadonly()

    @property
    def size_bytes(self) -> int:
        """Bytes of the mapping."""
        return self._words.nbytes

    def usable_mac(self, index: int, now: int) -> tuple[bytes | None, bool]:
        """The MAC address of a slot (None: there is none), and whether it is out of date and not in question yet."""
        word = self._words[index * 4]
        mac = word & _MAC_MASK
        if not mac:
            return None, False
        state = word >> _STATE_SHIFT & 15
        stale = state == _STALE or (state == _REACHABLE and now >= self._words[index * 4 + _SINCE] + self.reachable_ns)
        return mac.to_bytes(6, "big"), stale

    def state(self, index: int, now: int) -> EntryState:
        """The state at `now`: a REACHABLE slot is STALE `reachable_ns` after its confirmation, without a timer."""
        state = _STATES[self._words[index * 4] >> _STATE_SHIFT & 15]
        if state is EntryState.REACHABLE and now >= self._words[index * 4 + _SINCE] + self.reachable_ns:
            return EntryState.STALE
        return state

    def mac(self, index: int) -> bytes:
        """The MAC address; six zero bytes where none is known."""
        return (self._words[index * 4] & _MAC_MASK).to_bytes(6, "big")

    def requests(self, index: int) -> int:
        """How many requests have left since the state was entered."""
        return self._words[index * 4] >> _REQUESTS_SHIFT & 15

    def since_ns(self, index: int) -> int:
        """When the state was entered or (INCOMPLETE, PROBE) the last request left."""
        return self._words[index * 4 + _SINCE]

    def updated_ns(self, index: int) -> int:
        """When the MAC address was last set."""
        return self._words[index * 4 + _UPDATED]

    def may_ask(self, index: int, now: int) -> bool:
        """False while a request for this address may have left less than a second ago (RFC 1122 2.3.2.1)."""
        at = index * 4
        return not self._words[at] & _ASKED_LATELY or now >= self._words[at + _SINCE] + RETRY_NS

    def enter(self, index: int, state: EntryState, now: int, *, requests: int = 0) -> None:
        """Put a slot into `state` at the end of its queue. `requests` above 0 says that the last of them leaves now.

        STATIC slots are in no queue. The queues stay in order even if `now` should run backwards.
        """
        self._leave_queue(index)
        at = index * 4
        word = self._words[at]
        self.used += not word >> _STATE_SHIFT & 15
        lately = word & _ASKED_LATELY
        if requests:
            lately = _ASKED_LATELY
        elif now >= self._words[at + _SINCE] + RETRY_NS:
            lately = 0
        word &= _MAC_MASK | _REFUSAL_TOLD | _PROVED
        self._words[at] = word | state << _STATE_SHIFT | requests << _REQUESTS_SHIFT | lately
        tail = self._tails[state]
        if state in LIFETIME_NS:
            if tail:
                now = max(now, self._words[(tail - 1) * 4 + _SINCE])
                self._words[(tail - 1) * 4 + _LINKS] |= (index + 1) << 32
            else:
                self._heads[state] = index + 1
            self._words[at + _LINKS] = tail
            self._tails[state] = index + 1
        self._words[at + _SINCE] = now

    def set_mac(self, index: int, mac: bytes, now: int) -> None:
        """Write the MAC address of a slot; `now` begins its lock time."""
        at = index * 4
        self._words[at] = self._words[at] & ~(_MAC_MASK | _REFUSAL_TOLD | _PROVED) | int.from_bytes(mac, "big")
        self._words[at + _UPDATED] = now

    def prove(self, index: int) -> None:
        """The MAC address of a slot has answered us."""
        self._words[index * 4] |= _PROVED

    def is_proved(self, index: int) -> bool:
        """True where the MAC address has answered us since it was set."""
        return bool(self._words[index * 4] & _PROVED)

    def fail(self, index: int, now: int) -> None:
        """FAILED, without a MAC address."""
        self._words[index * 4] &= ~_MAC_MASK
        self.enter(index, EntryState.FAILED, now)

    def free(self, index: int) -> None:
        """Forget a slot, but for the time of its last request."""
        self._leave_queue(index)
        word = self._words[index * 4]
        self.used -= bool(word >> _STATE_SHIFT & 15)
        self._words[index * 4] = word & _ASKED_LATELY

    def first_refusal(self, index: int) -> bool:
        """True the first time that it is called after the MAC address was set."""
        word = self._words[index * 4]
        self._words[index * 4] = word | _REFUSAL_TOLD
        return not word & _REFUSAL_TOLD

    def next_due(self) -> tuple[int, int] | None:
        """(when, index) of the earliest timer, None where no slot is in a queue."""
        if self._is_due_known:
            return self._due
        first: tuple[int, int] | None = None
        for state, lifetime_ns in self._lifetimes_ns.items():
            head = self._heads[state]
            if head:
                due = self._words[(head - 1) * 4 + _SINCE] + lifetime_ns
                if first is None or due < first[0]:
                    first = due, head - 1
        self._due, self._is_due_known = first, True
        return first

    def queued(self, state: EntryState) -> Iterator[int]:
        """The indexes in the queue of a state, longest waiting first. The queue must not change meanwhile."""
        at = self._heads[state]
        while at:
            yield at - 1
            at = self._words[(at - 1) * 4 + _LINKS] >> 32

    def _leave_queue(self, index: int) -> None:
        """Out of the queue of its state, if it is in one. Every change of a queue begins here."""
        self._is_due_known = False
        at = index * 4
        state = _STATES[self._words[at] >> _STATE_SHIFT & 15]
        if state not in LIFETIME_NS:
            return
        links = self._words[at + _LINKS]
        following, previous = links >> 32, links & 0xFFFFFFFF
        self._words[at + _LINKS] = 0
        if previous:
            at = (previous - 1) * 4 + _LINKS
            self._words[at] = following << 32 | self._words[at] & 0xFFFFFFFF
        else:
            self._heads[state] = following
        if following:
            at = (following - 1) * 4 + _LINKS
            self._words[at] = self._words[at] >> 32 << 32 | previous
        else:
            self._tails[state] = previous
