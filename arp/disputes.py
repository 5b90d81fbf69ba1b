"""Two MAC addresses for one neighbour: both are asked, and the answers decide (RFC 5227 2.4 by analogy).

A claim is an ARP packet that names another MAC address for a neighbour we know. Anybody on the wire can send one, so a
claim moves nothing by itself: it starts a *question*.

    claim        -> request by unicast to the known MAC address and by broadcast, at once
    known one speaks -> it keeps the address; `conflict` is told
    100 ms later -> the known one was silent: the first other station that answered has the address now
                    nobody answered: the known one keeps it and goes on being polled (PROBE)

The 100 ms always run to their end before an entry moves: a forger answers faster than a router.
An entry that nobody uses (STALE) takes the claim at once, as RFC 826 has it, and gives it back if the former
one speaks.

`suspect` asks without a claim: nothing came from the next hop for a while. It asks by unicast first, and by broadcast
`ALONE_NS` later. There is one question a second for an address, and at most `MOST` at once on a port.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from arp.effects import ArpEffect, EntryChanged, FrameDropped, Transmit
from arp.table import ArpTable, EntryState
from wire.drop import Drop
from wire.ethernet import BROADCAST
from wire.units import SECOND_NS

ANSWER_NS: Final = SECOND_NS // 10
ALONE_NS: Final = SECOND_NS * 3 // 10
QUESTION_NS: Final = SECOND_NS
CONFLICT_TOLD_NS: Final = 10 * SECOND_NS
MOST: Final = 256
REQUESTS: Final = 3
"""Unicast requests without an answer until an entry fails (`arp.resolver`); a question is one of them."""

_VIRTUAL_ROUTERS: Final = (b"\x00\x00\x5e\x00\x01", b"\x00\x00\x0c\x07\xac")


def is_virtual_router(mac: bytes) -> bool:
    """True for the MAC address of a VRRP (RFC 9568 7.3) or HSRP group: its router has another one of its own."""
    return mac[:5] in _VIRTUAL_ROUTERS


@dataclass(slots=True)
class Dispute:
    """`incumbent`: the MAC address before the claim. `claimant`: who claimed it, None for a mere suspicion. `answerer`:
    the first other one that answered. `broadcast_ns`, `decide_ns`: when these are due, None once done. `ends_ns`: when
    the next question may follow. `later`: a claim that came after the decision."""

    incumbent: bytes
    claimant: bytes | None
    broadcast_ns: int | None
    decide_ns: int | None
    ends_ns: int
    answerer: bytes | None = None
    later: bytes | None = None

    @property
    def due_ns(self) -> int:
        """When something is to be done."""
        if self.broadcast_ns is not None:
            return self.broadcast_ns
        return self.ends_ns if self.decide_ns is None else self.decide_ns


class Disputes:
    """The open questions of one port, by slot. `address_of(index)`: the address of a slot; `request(index, MAC
    address)`: the frame that asks."""

    __slots__ = ("_address_of", "_questions", "_request", "_table", "_told_ns")

    def __init__(
        self, table: ArpTable, address_of: Callable[[int], int], request: Callable[[int, bytes], Transmit]
    ) -> None:
        self._table = table
        self._address_of = address_of
        self._request = request
        self._questions: dict[int, Dispute] = {}
        self._told_ns: dict[int, int] = {}  # when a conflict was told, by slot; no more than MOST

    def is_open(self, index: int) -> bool:
        """True while answers are awaited."""
        question = self._questions.get(index)
        return question is not None and question.decide_ns is not None

    def claim(self, index: int, mac: bytes, now: int, *, answer: bool, believable: bool) -> list[ArpEffect]:
        """`mac` is claimed for a slot that has another one. `answer`: by a reply to us alone. `believable`: the MAC
        address is not a second old yet where this is False."""
        question = self._questions.get(index)
        if question is None:
            return self._ask(index, mac, now, believable=believable)
        if question.decide_ns is None:
            question.later = mac
            return [FrameDropped(Drop.ARP_LOCKED)]
        if mac == question.incumbent:  # an idle entry took the claim, and its former owner speaks
            return self._keep(index, question, now)
        question.claimant = question.claimant or mac
        if answer and question.answerer is None:
            question.answerer = mac
        effects: list[ArpEffect] = [] if answer else [FrameDropped(Drop.ARP_LOCKED)]
        if question.broadcast_ns is not None and not answer:
            effects += self._broadcast(index, question, now)
        return effects

    def spoke(self, index: int, now: int, *, answer: bool) -> list[ArpEffect]:
        """The MAC address that a slot has was heard again. `answer`: by a reply to us alone."""
        question = self._questions.get(index)
        if question is None or question.decide_ns is None:
            return []
        if self._table.mac(index) == question.incumbent:
            return self._keep(index, question, now)
        if answer and question.answerer is None:
            question.answerer = self._table.mac(index)
        return []

    def suspect(self, index: int, now: int) -> list[ArpEffect]:
        """Nothing comes from a REACHABLE neighbour: ask it, and then everybody."""
        if index in self._questions or len(self._questions) >= MOST or not self._table.may_ask(index, now):
            return []
        incumbent = self._table.mac(index)
        decide = now + ALONE_NS + ANSWER_NS
        self._questions[index] = Dispute(incumbent, None, now + ALONE_NS, decide, now + QUESTION_NS)
        self._table.enter(index, EntryState.PROBE, now, requests=1)
        return [self._request(index, incumbent)]

    def forget(self, index: int) -> None:
        """The operator removed or set the entry."""
        self._questions.pop(index, None)

    # Time

    def next_deadline(self) -> int | None:
        """When `tick` has something to do, in ns."""
        if not self._questions:
            return None
        return min(question.due_ns for question in self._questions.values())

    def tick(self, now: int) -> list[ArpEffect]:
        """Ask by broadcast, decide and end what is due, in order of time."""
        effects: list[ArpEffect] = []
        while self._questions:
            index = min(self._questions, key=lambda at: self._questions[at].due_ns)
            question = self._questions[index]
            if question.due_ns > now:
                break
            if question.broadcast_ns is not None:
                effects += self._broadcast(index, question, now)
            elif question.decide_ns is not None:
                effects += self._decide(index, question, now)
            else:
                effects += self._end(index, question, now)
        return effects

    # One question

    def _ask(self, index: int, mac: bytes, now: int, *, believable: bool) -> list[ArpEffect]:
        if len(self._questions) >= MOST:
            return [FrameDropped(Drop.ARP_RATE_LIMITED)]
        table = self._table
        incumbent, state = table.mac(index), table.state(index, now)
        self._questions[index] = Dispute(incumbent, mac, None, now + ANSWER_NS, now + QUESTION_NS)
        asked: list[ArpEffect] = [self._request(index, incumbent), self._request(index, BROADCAST)]
        if state is EntryState.STALE and believable:
            table.enter(index, EntryState.STALE, now, requests=1)
            table.set_mac(index, mac, now)
            return [EntryChanged(self._address_of(index), mac, EntryState.STALE.label, "changed"), *asked]
        requests = table.requests(index) if state is EntryState.PROBE else 0
        table.enter(index, EntryState.PROBE, now, requests=min(requests + 1, REQUESTS))
        return [FrameDropped(Drop.ARP_LOCKED), *asked]

    def _broadcast(self, index: int, question: Dispute, now: int) -> list[ArpEffect]:
        question.broadcast_ns, question.decide_ns = None, now + ANSWER_NS
        return [self._request(index, BROADCAST)]

    def _keep(self, index: int, question: Dispute, now: int) -> list[ArpEffect]:
        """The known station speaks: the address is its own, whoever else says so."""
        table, address = self._table, self._address_of(index)
        other = question.answerer or question.claimant
        question.broadcast_ns = question.decide_ns = None
        effects: list[ArpEffect] = []
        if table.mac(index) != question.incumbent:
            table.set_mac(index, question.incumbent, now)
            effects.append(EntryChanged(address, question.incumbent, EntryState.REACHABLE.label, "changed"))
        table.enter(index, EntryState.REACHABLE, now)
        table.prove(index)
        if other is not None and self._is_to_be_told(index, question.incumbent, other, now):
            effects.append(EntryChanged(address, question.incumbent, EntryState.REACHABLE.label, "conflict", other))
        return effects

    def _decide(self, index: int, question: Dispute, now: int) -> list[ArpEffect]:
        """The known station has been silent for long enough."""
        table, answerer = self._table, question.answerer
        question.decide_ns = None
        if answerer is None:
            return []
        moved = table.mac(index) != answerer
        table.enter(index, EntryState.REACHABLE, now)
        if moved:
            table.set_mac(index, answerer, now)
        table.prove(index)
        return [EntryChanged(self._address_of(index), answerer, EntryState.REACHABLE.label, "changed")] if moved else []

    def _end(self, index: int, question: Dispute, now: int) -> list[ArpEffect]:
        """The second is over: a claim that came meanwhile is asked about now."""
        del self._questions[index]
        mac = self._table.mac(index)
        later = question.later
        if later is None or later == mac or not any(mac):
            return []
        return [
            effect for effect in self._ask(index, later, now, believable=False) if not isinstance(effect, FrameDropped)
        ]

    def _is_to_be_told(self, index: int, incumbent: bytes, other: bytes, now: int) -> bool:
        """A router of a VRRP group may ask under its own MAC address too, and that is no conflict (RFC 9568 7.3)."""
        if is_virtual_router(incumbent) or is_virtual_router(other):
            return False
        told = self._told_ns.get(index)
        if told is not None and now < told + CONFLICT_TOLD_NS:
            return False
        if len(self._told_ns) >= MOST:
            self._told_ns.clear()
        self._told_ns[index] = now
        return True
