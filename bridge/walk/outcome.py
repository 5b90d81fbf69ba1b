"""Outcomes: the fate of a frame as a value, and the residents and services that give outcomes.

A room decides and returns an `Outcome`. `Outgoing.carry_out` carries it out, counts the frame's one fate and tells the
sender, in one place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from bridge.walk.effects import Effect
from bridge.walk.path import Arrival, Path
from icmp import errors
from wire.drop import Drop
from wire.ipv4 import Packet


class IcmpError(NamedTuple):
    """An ICMP error that a refused packet owes its sender (RFC 792). `rest`: the four bytes behind the checksum as a
    number: an MTU in bytes for 3/4, a pointer in the highest byte for 12/0."""

    kind: int
    code: int
    rest: int = 0


NET_UNREACHABLE: Final = IcmpError(errors.UNREACHABLE, errors.NET)
HOST_UNREACHABLE: Final = IcmpError(errors.UNREACHABLE, errors.HOST)
PROTOCOL_UNREACHABLE: Final = IcmpError(errors.UNREACHABLE, errors.PROTOCOL)
PORT_UNREACHABLE: Final = IcmpError(errors.UNREACHABLE, errors.PORT)
PROHIBITED: Final = IcmpError(errors.UNREACHABLE, errors.PROHIBITED)
TTL_EXCEEDED: Final = IcmpError(errors.TIME_EXCEEDED, 0)
REASSEMBLY_EXCEEDED: Final = IcmpError(errors.TIME_EXCEEDED, 1)


class Refused(NamedTuple):
    """The frame goes no further, for the reason `drop`. `icmp`: the error that its sender is told, if one is owed;
    RFC 1812 4.3.2.7, `icmp.mute` and the rate limit may still forbid it."""

    drop: Drop
    icmp: IcmpError | None = None


class Answer(NamedTuple):
    """A message of our own, with the IP header first, goes back by the port that the frame came in by."""

    reply: Packet


class Answered(NamedTuple):
    """A message of our own has gone back."""


class Wanted(NamedTuple):
    """A service wants the datagram; fragments are put together first."""

    service: Service


class Sent(NamedTuple):
    """The packet has left, whole or in pieces."""


class Held(NamedTuple):
    """The frame waits in a resident's store, which gives it another outcome later."""


class TakenIn(NamedTuple):
    """The frame was read and nothing is owed for it."""


SENT: Final = Sent()
ANSWERED: Final = Answered()
HELD: Final = Held()
TAKEN: Final = TakenIn()

Outcome = Path | Wanted | Answer | Refused | Held | TakenIn | Sent | Answered
"""Rooms return the first six. `Outgoing` carries out `Path`, `Wanted` and `Answer`, which become one of the others."""


class Resident(Protocol):
    """A part of the gateway that keeps frames or timers. The gateway asks all residents in turn.

    `effects` is the list of the current call: a resident appends what it wants done. Times are in ns.
    """

    def start(self, now: int, effects: list[Effect]) -> None:
        """The gateway begins at `now`."""
        return

    def tick(self, now: int, effects: list[Effect]) -> None:
        """Fire every timer that is due. Afterwards `next_deadline` is later than `now`."""
        return

    def next_deadline(self) -> int | None:
        """When `tick` has something to do; None where nothing waits."""
        return None

    def held(self) -> Iterable[str]:
        """The name of the interface that each frame in the store came in by, one item for each frame."""
        return ()


class Service(Resident, Protocol):
    """Answers datagrams: echo (`bridge.walk.local`), the DHCP client (`bridge.walk.lease`).

    A service is asked about packets to addresses of our own. One that was added with `early` is asked about every
    packet before the check for martians, fragments too, before their transport header was read
    (`wire.ipv4.read_transport`).
    """

    def wants(self, arrival: Arrival) -> bool:
        """True where the datagram is for this service. Of a datagram in fragments the first one is asked about."""

    def receive(self, arrival: Arrival, now: int, effects: list[Effect]) -> Answer | Answered | Refused | TakenIn:
        """Take a whole datagram that it wanted. `Answered`: its own effects answer the sender."""
