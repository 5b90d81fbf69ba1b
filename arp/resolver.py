"""From next hop to MAC address: asking, remembering, forgetting, and the frames that wait meanwhile.

RFC 826 *Packet Generation*: `Resolver.hold`. RFC 1122 2.3.2.1 (stale entries are timed out and polled by unicast, at
most one request a second for a destination): `Resolver.tick`, `ArpTable.may_ask`; 2.3.2.2 (waiting frames):
`arp.waiting`. RFC 1812 3.3.2 (unreachable only after the question went unanswered): `Resolver.tick`. The states and
times are those of neighbour unreachability detection (RFC 4861 7.3.2, as the Linux kernel applies it to ARP):

    FREE, FAILED --hold--> INCOMPLETE --answer--> REACHABLE --30 s--> STALE --lookup--> DELAY --5 s--> PROBE
    PROBE --answer--> REACHABLE            INCOMPLETE, PROBE --three requests, a second apart--> FAILED
    STALE, FAILED --60 s--> FREE           heard of, but not by an answer to our question: STALE

Any ARP packet of a neighbour under its known MAC address restarts these times (RFC 1122 2.3.2.1 (1)), and so does
traffic that answers ours: `_refresh`, `confirm`. Another MAC address is a question for `arp.disputes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

from arp import packet
from arp.disputes import REQUESTS, Disputes
from arp.effects import ArpEffect, Entry, EntryChanged, GaveUp, Release, Transmit
from arp.table import HAS_MAC, REACHABLE_NS, ArpTable, EntryState
from arp.waiting import WaitingFrames, WaitingLimits
from wire.drop import Drop
from wire.ethernet import BROADCAST, NO_MAC, is_group
from wire.units import SECOND_NS, earliest, prefix_mask

LOCK_NS: Final = SECOND_NS
CONFIRM_NS: Final = SECOND_NS
"""Traffic confirms an entry at most so often."""


class Claim(Enum):
    """The meaning of a sender's (address, MAC address) for the table."""

    UNKNOWN = "no entry"
    SAME = "the entry says the same"
    NEWS = "the entry has no MAC address"
    CONTESTED = "the entry has another MAC address: both are to be asked"
    REFUSED = "the entry has another MAC address, which the operator gave it"


class Resolver:
    """The table of one port with everything that changes it. `address`, `mac`: the port's own. An address of 0 is
    none yet: a table of one slot, and nobody is asked for, heard or answered. `beyond`: a neighbour outside the subnet
    that is on the link all the same, as the gateway of a /32; 0 for none."""

    __slots__ = (
        "_beyond",
        "_disputes",
        "_first",
        "_hosts",
        "_last",
        "_network",
        "_statics",
        "_table",
        "_waiting",
        "address",
        "mac",
    )

    def __init__(
        self,
        address: int,
        prefix_length: int,
        mac: bytes,
        limits: WaitingLimits,
        reachable_ns: int = REACHABLE_NS,
        beyond: int = 0,
    ) -> None:
        self.address = address
        self.mac = mac
        self._beyond = beyond if (beyond ^ address) & prefix_mask(prefix_length) else 0
        self._table = ArpTable(prefix_length, reachable_ns, 1 if self._beyond else 0)
        self._hosts = 1 << (32 - prefix_length)  # slots of the subnet; the neighbour beyond has the one behind them
        self._waiting = WaitingFrames(limits)
        self._statics: set[int] = set()
        self._network = address & prefix_mask(prefix_length)
        self._disputes = Disputes(self._table, self.address_of, self._request)
        edge = prefix_length < 31  # RFC 3021: a /31 has neither network nor broadcast address
        self._first = self._network + edge
        self._last = self._network + self._hosts - 1 - edge

    @property
    def table(self) -> ArpTable:
        """The slots, for those who count and measure."""
        return self._table

    @property
    def waiting(self) -> WaitingFrames:
        """The frames that wait, likewise."""
        return self._waiting

    def is_resolvable(self, address: int) -> bool:
        """True for a host address of the subnet that is not our own: only these are asked for, only these learned."""
        if address == self._beyond and address:
            return True
        return self._first <= address <= self._last and address != self.address

    def slot_of(self, address: int) -> int | None:
        """The slot that an address has; None where nobody there can be a neighbour."""
        index = address - self._network
        if 0 <= index < self._hosts:
            return index
        return self._hosts if address == self._beyond and address else None

    def _slot(self, address: int) -> int:
        """The same for an address that is resolvable."""
        index = self.slot_of(address)
        assert index is not None
        return index

    def address_of(self, index: int) -> int:
        """The address that a slot is for."""
        return self._network + index if index < self._hosts else self._beyond

    def is_foreign(self, address: int) -> bool:
        """True for a host address outside the subnet: a neighbour may ask under it, it is never learned."""
        network = address >> 24
        inside = self.slot_of(address) is not None
        return not inside and 0 < network < 224 and network != 127

    # Towards the next hop

    def lookup(self, address: int, now: int) -> bytes | None:
        """The MAC address of a next hop, None where `hold` must keep the frame. An outdated one is put to use, and to
        the question: STALE -> DELAY."""
        index = self.slot_of(address)
        if index is None:
            return None
        mac, stale = self._table.usable_mac(index, now)
        if stale:
            self._table.enter(index, EntryState.DELAY, now)
        return mac

    def hold(self, address: int, waiting: object, size_bytes: int, now: int) -> list[ArpEffect]:
        """Keep a frame until its next hop is known, and ask. The room for frames is bounded, asking is not: where
        there is no room the frame is lost, the next one finds the answer."""
        if not self.is_resolvable(address):
            return [GaveUp(Drop.ARP_NO_SUCH_HOST, waiting)]
        mac = self.lookup(address, now)
        if mac is not None:
            return [Release(mac, waiting)]
        index = self._slot(address)
        effects: list[ArpEffect] = [*self._waiting.add(index, waiting, size_bytes)]
        if self._table.state(index, now) is not EntryState.INCOMPLETE:
            effects += self._ask(index, EntryState.INCOMPLETE, 0, now)
        return effects

    def probe(self, address: int, now: int) -> list[ArpEffect]:
        """The operator asks: by unicast where a MAC address is known, at once unless a request left within the last
        second (then a second later). The entry then holds the answer, see `answered`."""
        if not self.is_resolvable(address):
            return []
        index = self._slot(address)
        state = self._table.state(index, now)
        if state in (EntryState.INCOMPLETE, EntryState.PROBE):
            return []  # being asked already
        if state is EntryState.STATIC:
            if not self._table.may_ask(index, now):
                return []
            self._table.enter(index, EntryState.STATIC, now, requests=1)
            return [self._request(index, self._table.mac(index))]
        return self._ask(index, EntryState.PROBE if state in HAS_MAC else EntryState.INCOMPLETE, 0, now)

    def answered(self, address: int, now: int) -> bool | None:
        """The outcome of a `probe`: True, False (given up), or None while the question is open. A static entry stays at
        None where nobody answers."""
        if not self.is_resolvable(address):
            return False
        index = self._slot(address)
        state = self._table.state(index, now)
        if state in (EntryState.INCOMPLETE, EntryState.PROBE) or (
            state is EntryState.STATIC and self._table.requests(index)
        ):
            return None
        return state in HAS_MAC

    def _ask(self, index: int, state: EntryState, requests: int, now: int) -> list[ArpEffect]:
        """Enter INCOMPLETE or PROBE with one request more than `requests`, or with none yet where one left lately."""
        if not self._table.may_ask(index, now):
            self._table.enter(index, state, now)
            return []
        self._table.enter(index, state, now, requests=requests + 1)
        return [self._request(index, self._table.mac(index) if state is EntryState.PROBE else BROADCAST)]

    def _request(self, index: int, link_destination: bytes) -> Transmit:
        return Transmit(packet.request(self.mac, self.address, self.address_of(index), link_destination))

    # From the sender of an ARP packet

    def judge(self, address: int, mac: bytes, now: int) -> Claim:
        """Weigh the claim that `address` is at `mac`. Changes nothing."""
        index = self._slot(address)
        state = self._table.state(index, now)
        if state is EntryState.FREE:
            return Claim.UNKNOWN
        if state not in HAS_MAC:
            return Claim.NEWS
        if self._table.mac(index) == mac:
            return Claim.SAME
        return Claim.REFUSED if state is EntryState.STATIC else Claim.CONTESTED

    def is_questioned(self, address: int) -> bool:
        """True while answers are awaited that decide between two MAC addresses."""
        return self._disputes.is_open(self._slot(address))

    def contest(self, address: int, mac: bytes, now: int, *, answer: bool) -> list[ArpEffect]:
        """A known neighbour is said to be at another MAC address: ask (`arp.disputes`). Within a second of the last
        change not even an idle entry believes it, and the operator is told once."""
        index = self._slot(address)
        locked = now < self._table.updated_ns(index) + LOCK_NS
        told: list[ArpEffect] = []
        if locked and not answer and not self._disputes.is_open(index):
            told = self.refuse(address, mac, now)
        return [*self._disputes.claim(index, mac, now, answer=answer, believable=not locked), *told]

    def learn(self, address: int, mac: bytes, now: int, *, answer: bool) -> list[ArpEffect]:
        """Take in a MAC address where none was known, or hear the known one again. `answer`: by a reply sent to us
        alone. Only the answer to a question of ours makes a new entry REACHABLE, whatever else is heard STALE."""
        index = self._slot(address)
        state = self._table.state(index, now)
        confirmed = self._is_answer(index, state, answer)
        if state in HAS_MAC:
            told = self._disputes.spoke(index, now, answer=answer)
            self._refresh(index, state, now, confirmed=confirmed)
            return told
        reached = EntryState.REACHABLE if confirmed else EntryState.STALE
        frames = self._waiting.take(index)
        if frames and not confirmed:
            reached = EntryState.DELAY  # in use from its first moment
        self._table.enter(index, reached, now)
        self._table.set_mac(index, mac, now)
        if confirmed:
            self._table.prove(index)
        told = [EntryChanged(address, mac, reached.label, "learned")]
        return [*told, *(Release(mac, waiting) for waiting in frames)]

    def _refresh(self, index: int, state: EntryState, now: int, *, confirmed: bool) -> None:
        """A neighbour was heard under its known MAC address: its time-out starts anew (RFC 1122 2.3.2.1 (1)). A MAC
        address that has answered us once is REACHABLE again; another one stays STALE or in use."""
        table = self._table
        if state is EntryState.STATIC:
            if confirmed:
                table.enter(index, state, now)
        elif confirmed or table.is_proved(index):
            if confirmed or state is not EntryState.PROBE or table.requests(index):
                table.enter(index, EntryState.REACHABLE, now)
                table.prove(index)
        elif state is not EntryState.PROBE:
            table.enter(index, state, now)
        elif table.requests(index):
            table.enter(index, EntryState.DELAY, now)

    def mac_of(self, address: int) -> bytes:
        """The MAC address of a neighbour, six zero bytes where none is known."""
        index = self.slot_of(address)
        return NO_MAC if index is None else self._table.mac(index)

    def confirm(self, address: int, mac: bytes, now: int) -> None:
        """A packet came from the station of a neighbour that answers one we sent by it, so both ways work. Nothing
        where `mac` is not the neighbour's: a router may send from another one than it is sent to."""
        index = self.slot_of(address)
        if index is None or self._table.mac(index) != mac:
            return
        state = self._table.state(index, now)
        if state is EntryState.STATIC or state not in HAS_MAC or self._disputes.is_open(index):
            return
        if state is not EntryState.REACHABLE or now >= self._table.since_ns(index) + CONFIRM_NS:
            self._table.enter(index, EntryState.REACHABLE, now)
            self._table.prove(index)

    def suspect(self, address: int, now: int) -> list[ArpEffect]:
        """Nothing comes from a next hop although we send to it: ask it, and 300 ms later everybody. Only a REACHABLE
        one: any other is asked already, or soon."""
        if not self.is_resolvable(address):
            return []
        index = self._slot(address)
        if self._table.state(index, now) is not EntryState.REACHABLE:
            return []
        return self._disputes.suspect(index, now)

    def refuse(self, address: int, mac: bytes, now: int) -> list[ArpEffect]:
        """A claim that is not believed: tell it once for each MAC address that is defended."""
        index = self._slot(address)
        if not self._table.first_refusal(index):
            return []
        label = self._table.state(index, now).label
        return [EntryChanged(address, self._table.mac(index), label, "refused", mac)]

    def _is_answer(self, index: int, state: EntryState, answer: bool) -> bool:
        asking = state in (EntryState.INCOMPLETE, EntryState.PROBE, EntryState.STATIC)
        return answer and asking and self._table.requests(index) > 0

    # Time

    def next_deadline(self) -> int | None:
        """The time in ns of the next timer; None where none runs."""
        due = self._table.next_due()
        return earliest(due[0] if due is not None else None, self._disputes.next_deadline())

    def tick(self, now: int) -> list[ArpEffect]:
        """Fire the timers that are due, in order of time. Every one of them leaves the slot with a later deadline or
        none; a late call sends one request, not the missed ones."""
        effects = self._disputes.tick(now)
        while True:
            due = self._table.next_due()
            if due is None or due[0] > now:
                return effects
            effects += self._expire(due[1], now)

    def _expire(self, index: int, now: int) -> list[ArpEffect]:
        table, address = self._table, self.address_of(index)
        state, requests = table.state(index, now), table.requests(index)
        if state is EntryState.DELAY:
            return self._ask(index, EntryState.PROBE, 0, now)
        if state in (EntryState.INCOMPLETE, EntryState.PROBE):
            if requests < REQUESTS:
                return self._ask(index, state, requests, now)
            table.fail(index, now)
            frames = self._waiting.take(index)
            told = EntryChanged(address, None, EntryState.FAILED.label, "failed")
            return [told, *(GaveUp(Drop.ARP_NO_ANSWER, waiting) for waiting in frames)]
        table.free(index)
        return [EntryChanged(address, None, "expired", "expired")] if state is EntryState.STALE else []

    def give_up(self) -> list[ArpEffect]:
        """Nothing will be answered any more."""
        return [GaveUp(Drop.ARP_NO_ANSWER, waiting) for waiting in self._waiting.take_all()]

    # The operator

    def add(self, address: int, mac: bytes) -> list[ArpEffect]:
        """Set a static entry. Raises `ValueError` unless `address` is another host of the subnet and `mac` a
        station's."""
        if not self.is_resolvable(address):
            raise ValueError("a static ARP entry must be for another host address of the port's subnet")
        if len(mac) != 6 or is_group(mac) or mac in (NO_MAC, self.mac):
            raise ValueError("a static ARP entry must have the unicast MAC address of another station")
        index = self._slot(address)
        self._disputes.forget(index)
        self._table.enter(index, EntryState.STATIC, self._table.since_ns(index))
        self._table.set_mac(index, mac, 0)
        self._statics.add(index)
        told = EntryChanged(address, mac, EntryState.STATIC.label, "learned")
        return [told, *(Release(mac, waiting) for waiting in self._waiting.take(index))]

    def delete(self, address: int) -> bool:
        """Forget an entry, static ones too; False where there is none. An address that frames wait for (or that is
        being asked for) has nothing to forget yet: its question goes on."""
        if not self.is_resolvable(address):
            return False
        index = self._slot(address)
        if self._table.state(index, 0) in (EntryState.FREE, EntryState.INCOMPLETE):
            return False
        self._statics.discard(index)
        self._disputes.forget(index)
        self._table.free(index)
        return True

    def flush(self) -> int:
        """Forget every learned entry, and how many these were; static ones and open questions stay."""
        learned = [
            index
            for state in (EntryState.REACHABLE, EntryState.STALE, EntryState.DELAY, EntryState.PROBE, EntryState.FAILED)
            for index in self._table.queued(state)
        ]
        for index in learned:
            self._disputes.forget(index)
            self._table.free(index)
        return len(learned)

    def entries(self, now: int) -> Iterator[Entry]:
        """The entries in order of address. It walks what is used, not the slots."""
        used = set(self._statics)
        for state in EntryState:
            used.update(self._table.queued(state))
        for index in sorted(used):
            state = self._table.state(index, now)
            static = state is EntryState.STATIC
            yield Entry(
                self.address_of(index),
                self._table.mac(index) if state in HAS_MAC else None,
                state.label,
                0.0 if static else max(now - self._table.since_ns(index), 0) / SECOND_NS,
                static,
            )
