"""Datagrams in fragments: the first one decides, the others follow it or wait for it.

A packet that goes through is never put together (`alias.fragments`); a datagram for a service of ours is
(`alias.reassembly`). RFC 791 3.2, RFC 4787 REQ-14, RFC 1122 3.3.2 (11/1 where a datagram to us stays incomplete).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from alias.fragments import FragmentStore
from alias.reassembly import Expired, Joined, Reassembly
from alias.table import Aliases
from bridge.walk.effects import Effect
from bridge.walk.interface import Ports
from bridge.walk.outcome import (
    HELD,
    REASSEMBLY_EXCEEDED,
    Answer,
    Answered,
    Outcome,
    Refused,
    Resident,
    TakenIn,
    Wanted,
)
from bridge.walk.outgoing import Outgoing
from bridge.walk.path import Arrival, Path, wire_ends
from bridge.walk.trace import Tracing
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import earliest


class Decides(Protocol):
    """Decides about a whole packet or a first fragment whose transport header can be read (`Intake._decide`)."""

    def __call__(self, arrival: Arrival, now: int) -> Outcome:
        """The outcome, not carried out."""


class Fragments(Resident):
    """`store`: datagrams that pass; `reassembly`: datagrams to us."""

    def __init__(self, ports: Ports, aliases: Aliases, out: Outgoing, tracing: Tracing) -> None:
        self.store: FragmentStore[Path | Wanted, Arrival] = FragmentStore()
        self.reassembly = Reassembly()
        self._ports = ports
        self._aliases = aliases
        self._out = out
        self._tracing = tracing

    def receive(self, arrival: Arrival, decide: Decides, now: int, effects: list[Effect]) -> None:
        """Take a fragment in. `decide` is asked about a first fragment, which releases those that waited for it."""
        found = self.store.arrive(arrival.fragment_key, arrival.packet, arrival, now)
        self._drop(found.fallen, now, effects)
        if found.verdict == "first":
            self._first(arrival, decide, now, effects)
        elif found.verdict == "follow":
            assert found.decision is not None
            self._follow(arrival, found.decision, now, effects)
        elif found.verdict == "held":
            self._tracing.say("alias", "a later fragment: it waits for the first")
            self._out.carry_out(arrival, HELD, now, effects)
        else:
            assert found.reason is not None
            self._out.carry_out(arrival, Refused(found.reason), now, effects)

    def _first(self, arrival: Arrival, decide: Decides, now: int, effects: list[Effect]) -> None:
        """A first fragment: decide for its datagram. Fragments that waited share its fate."""
        packet, key = arrival.packet, arrival.fragment_key
        fault = ipv4.read_transport(packet)
        decision = Refused(fault) if fault is not None else decide(arrival, now)
        if not isinstance(decision, Path | Wanted):
            waiting = self.store.refuse(key, now)
            self._drop(((Drop.FRAGMENT_DATAGRAM_DROPPED, later) for later in waiting), now, effects)
            self._out.carry_out(arrival, decision, now, effects)
            return
        if isinstance(decision, Path):
            decision = replace(decision, flow=wire_ends(packet))
            if decision.egress is not None:
                decision = replace(decision, identification=self._aliases.identification(decision.egress, packet, now))
        waiting = self.store.settle(key, decision, now)
        for one in (arrival, *waiting):
            self._follow(one, decision, now, effects)

    def _follow(self, arrival: Arrival, decision: Path | Wanted, now: int, effects: list[Effect]) -> None:
        """Treat a fragment as the first one of its datagram was decided."""
        if isinstance(decision, Path):
            self._out.carry_out(arrival, decision, now, effects)
            return
        joined = self.reassembly.add(arrival.fragment_key, arrival.packet, now)
        for expired in self.reassembly.take_fallen():
            self._expire(expired, now, effects)
        if joined is None:
            self._tracing.say("icmp", "part of an echo request to us: it waits for the rest")
            self._out.carry_out(arrival, HELD, now, effects)
        elif isinstance(joined, Drop):
            self._out.carry_out(arrival, Refused(joined), now, effects)
        else:
            self._whole(arrival, joined, decision, now, effects)

    def _whole(self, arrival: Arrival, joined: Joined, decision: Wanted, now: int, effects: list[Effect]) -> None:
        """The service gets the datagram. Its outcome is carried out for the last fragment, and is the fate of all."""
        packet, fragments = joined
        outcome: Answer | Answered | Refused | TakenIn
        fault = packet if isinstance(packet, Drop) else ipv4.read_transport(packet)
        if fault is None:
            assert isinstance(packet, Packet)
            outcome = decision.service.receive(Arrival(arrival.port, packet, arrival.group), now, effects)
        else:
            outcome = Refused(fault)
        self._out.carry_out(arrival, outcome, now, effects)
        for _ in range(fragments - 1):
            self._out.count(arrival.port, Answered() if isinstance(outcome, Answer) else outcome, effects)

    def _drop(self, fallen: Iterable[tuple[Drop, Arrival]], now: int, effects: list[Effect]) -> None:
        for reason, arrival in fallen:
            self._out.carry_out(arrival, Refused(reason), now, effects)

    def _expire(self, expired: Expired, now: int, effects: list[Effect]) -> None:
        """A datagram to us never became whole: all its fragments are dropped. RFC 1122 3.3.2: the sender hears 11/1
        where the first fragment came."""
        port, refused = self._ports.named(expired.port), Refused(expired.reason)
        counted = expired.fragments
        if expired.first is not None:
            first = Arrival(port, expired.first, group=False)
            self._out.carry_out(first, Refused(expired.reason, REASSEMBLY_EXCEEDED), now, effects)
            counted -= 1
        for _ in range(counted):
            self._out.count(port, refused, effects)

    def tick(self, now: int, effects: list[Effect]) -> None:
        """Give up datagrams that have run out of time."""
        self._drop(self.store.tick(now), now, effects)
        for expired in self.reassembly.tick(now):
            self._expire(expired, now, effects)

    def next_deadline(self) -> int | None:
        """When the next datagram runs out of time."""
        return earliest(self.store.next_deadline(), self.reassembly.next_deadline())

    def held(self) -> Iterator[str]:
        """The interface of each fragment that is kept."""
        for arrival in self.store.held():
            yield arrival.port.interface.name
        for port, fragments in self.reassembly.held():
            for _ in range(fragments):
                yield self._ports.named(port).interface.name
