"""The gateway's residents that stand for rooms of floor 1: the ARP table of a port, and the links of the NAT."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from alias.table import Aliases
from alias.types import Linked, Unanswered, Unlinked
from arp.port import ArpPort
from bridge.walk.effects import Effect, Event
from bridge.walk.forwarding import next_hops
from bridge.walk.interface import Interface, NamedPort
from bridge.walk.outcome import Outcome, Resident
from bridge.walk.outgoing import Outgoing, Waiting
from bridge.walk.trace import Tracing, link_facts
from wire.units import earliest


class Neighbours(Resident):
    """The ARP of one tap (RFC 826, RFC 5227). The table itself is `Interface.neighbours`; another address brings
    another table."""

    def __init__(self, port: NamedPort, out: Outgoing, tracing: Tracing) -> None:
        self.port = port
        self._out = out
        self._tracing = tracing

    def start(self, now: int, effects: list[Effect]) -> None:
        """Begin to probe and announce our address (RFC 5227); traffic does not wait for it."""
        table = self.port.interface.neighbours
        if table is not None:
            self._out.arp_effects(self.port, table.start(now), now, effects)

    def receive(self, frame: bytes, now: int, effects: list[Effect]) -> Outcome:
        """Take in an ARP frame."""
        table = self.port.interface.neighbours
        assert table is not None, "only taps have an ARP table"
        self._tracing.say("arp", "an ARP frame: the table takes in what it says")
        return self._out.arp_effects(self.port, table.receive(frame, now), now, effects)

    def tick(self, now: int, effects: list[Effect]) -> None:
        """Ask again, give up, announce."""
        table = self.port.interface.neighbours
        if table is None:
            return
        wanted = table.tick(now)
        if wanted:
            self._out.arp_effects(self.port, wanted, now, effects)
        self._ask_silent(table, now, effects)

    def _ask_silent(self, table: ArpPort, now: int, effects: list[Effect]) -> None:
        """Ask for a next hop from which nothing has come for a second although packets leave for it."""
        interface = self.port.interface
        due = next_hops.due_ns(interface)
        if due is not None and due <= now:
            interface.silent_from_ns = None
            self._out.arp_effects(self.port, table.suspect(interface.gateway, now), now, effects)

    def next_deadline(self) -> int | None:
        """When the table has something to do, or the next hop has been silent for too long."""
        table = self.port.interface.neighbours
        return None if table is None else earliest(table.next_deadline(), next_hops.due_ns(self.port.interface))

    def held(self) -> Iterator[str]:
        """The interface of each frame that waits for a next hop here; messages of our own are no frames."""
        table = self.port.interface.neighbours
        for waiting in () if table is None else table.waiting():
            assert isinstance(waiting, Waiting)
            if waiting.arrival is not None and not waiting.arrival.is_ours:
                yield waiting.arrival.port.interface.name


class LinkKeeper(Protocol):
    """Writes links down so that they outlive the process (`bridge.state.links.LinkFile`)."""

    def close(self) -> None:
        """Write what is left to write; nothing is written afterwards."""

    def tick(self, now: int) -> None:
        """Write changes that are due."""

    def next_deadline(self) -> int | None:
        """When `tick` has something to do; None while nothing has changed."""

    def catch_up(self, now: int | None = None) -> None:
        """Write all changes now."""


class NatLinks(Resident):
    """The links of the NAT. `keeper`: writes them down; None where links end with the process. `events`: links that
    are made and that end become effects. `unanswered`: tells a stranger that nothing answered its SYN."""

    def __init__(
        self,
        aliases: Aliases,
        interfaces: dict[str, Interface],
        unanswered: Callable[[Unanswered, int, list[Effect]], None],
        *,
        events: bool,
    ) -> None:
        self.keeper: LinkKeeper | None = None
        self._aliases = aliases
        self._interfaces = interfaces
        self._unanswered = unanswered
        self._events = aliases.tells = events

    def tick(self, now: int, effects: list[Effect]) -> None:
        """End links that have expired, and write down what has changed."""
        for outcome in self._aliases.tick(now):
            if isinstance(outcome, Unanswered):
                self._unanswered(outcome, now, effects)
            elif self._events:
                self._tell(outcome, effects)
        self.tell(effects)
        if self.keeper is not None:
            self.keeper.tick(now)

    def next_deadline(self) -> int | None:
        """When a link expires, or the keeper writes."""
        due = self._aliases.next_deadline()
        return due if self.keeper is None else earliest(due, self.keeper.next_deadline())

    def flush(self, insides: Collection[int] | None) -> int:
        """End all links that are not static (of these inside addresses), and return how many. They do not come back
        after a restart."""
        ended = self._aliases.flush(insides)
        if self.keeper is not None:
            self.keeper.catch_up()
        return ended

    def tell(self, effects: list[Effect]) -> None:
        """Links were made or have ended since the last call: tell them, or forget it where nobody asks."""
        if not self._events:
            self._aliases.events.clear()
            return
        for event in self._aliases.take_events():
            self._tell(event, effects)

    def _tell(self, event: Linked | Unlinked, effects: list[Effect]) -> None:
        on = event.link.egress.label
        facts = link_facts(event, self._interfaces[on].address)
        effects.append(Event(on, "link" if isinstance(event, Linked) else "unlink", facts))
