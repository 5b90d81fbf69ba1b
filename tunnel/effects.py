"""The values of this room: its configuration goes in, and the effects of a call come out. They have no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from wire.drop import Drop

SHORTEST_ANNOUNCED: Final = 8
"""A wider prefix is no network behind a node: it would be half of the Internet, or all of it."""


class Endpoint(NamedTuple):
    """Where a peer's datagrams come from and go to.

    `address`: 4 or 16 bytes in network order. `via`: the name of the neighbour that relays, with the node's id as
    `address` and port 0 (`tunnel.envelope`); "" is direct, and only such ones leave the tunnel with a datagram. The
    tunnel compares endpoints and hands back the very one that came with a peer's latest authentic datagram.
    """

    address: bytes
    port: int
    via: str = ""

    def packed(self) -> bytes:
        """The address, then the port in network order: a cookie is bound to these bytes."""
        return self.address + self.port.to_bytes(2, "big") + self.via.encode()


class Received(NamedTuple):
    """A datagram that came. `ecn`: the two bits of its outer IP header (RFC 3168)."""

    data: bytes
    source: Endpoint
    ecn: int = 0


class Datagram(NamedTuple):
    """A datagram to send. `tos`: the byte of its outer IP header, DSCP and ECN (RFC 2474, RFC 3168)."""

    endpoint: Endpoint
    data: bytes
    tos: int = 0


class TooBig(NamedTuple):
    """An ICMP error, or our own kernel, says that a datagram of ours was too big.

    `endpoint`: where it was going; `mtu_bytes`: of the outer IP packet, 0 where it was not said; `quoted`: our UDP
    payload as far as the router quoted it; `origin`: the router's address, b"" is our own kernel.
    """

    endpoint: Endpoint
    mtu_bytes: int
    quoted: bytes
    origin: bytes


class Network(NamedTuple):
    """A prefix of inner addresses: `network` without host bits, `length` 0 to 32 (or 128 with `version` 6)."""

    network: int
    length: int
    version: int = 4

    def holds(self, other: Network) -> bool:
        """True where every address of `other`, an IPv4 prefix like this one, lies in it."""
        return self.length <= other.length and (self.network ^ other.network) >> 32 - self.length == 0

    def overlaps(self, other: Network) -> bool:
        """True where one of the two holds the other."""
        return self.holds(other) or other.holds(self)


class Networks(NamedTuple):
    """The configuration of announced prefixes, beside each peer's `accept`.

    `announce`: our prefixes, told to every peer; `own`: addresses and networks of this node, which no peer may
    announce; `never`: ranges that are never forwarded.
    """

    announce: tuple[Network, ...] = ()
    own: tuple[Network, ...] = ()
    never: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One peer as the operator wrote it. A `persistent_keepalive_s` of 0 is off; a psk of zeros is none. Its
    announced prefixes have to lie inside of `accept`.

    `via`: the name of the peer that relays for it, its `endpoint` does not matter then; "": it is reached directly.
    """

    name: str
    public_key: bytes
    allowed_ips: tuple[Network, ...] = ()
    endpoint: Endpoint | None = None
    psk: bytes | bytearray = field(default=bytes(32), repr=False)
    persistent_keepalive_s: int = 0
    accept: tuple[Network, ...] = ()
    via: str = ""


class Verdict(IntEnum):
    """The outcome of an announced prefix; the byte in the answer."""

    ACCEPTED = 0
    CONFIGURED = 1  # `allowed_ips` give it to the peer already: nothing had to be taken
    NOT_ALLOWED = 2
    TOO_WIDE = 3
    SPECIAL = 4
    OURS = 5
    ELSEWHERE = 6
    TAKEN = 7
    UNKNOWN = 255  # a byte of a later version of this program

    @property
    def is_refusal(self) -> bool:
        """True where packets for the prefix do not go to the peer that announced it."""
        return self not in (Verdict.ACCEPTED, Verdict.CONFIGURED)

    @property
    def says(self) -> str:
        """For people. Public: in JSON documents."""
        return _WORDS[self]

    @classmethod
    def _missing_(cls, value: object) -> Verdict:
        return cls.UNKNOWN


_WORDS = {
    Verdict.ACCEPTED: "accepted",
    Verdict.CONFIGURED: "configured",
    Verdict.NOT_ALLOWED: "not in accept",
    Verdict.TOO_WIDE: f"shorter than /{SHORTEST_ANNOUNCED}",
    Verdict.SPECIAL: "never forwarded",
    Verdict.OURS: "a network of the other end itself",
    Verdict.ELSEWHERE: "configured for another peer",
    Verdict.TAKEN: "announced by another peer",
    Verdict.UNKNOWN: "refused",
}


class Role(NamedTuple):
    """The part of this node among others. `name`: they relay to it by this name, "" is none; `relays`: whether it
    relays for its own peers among each other."""

    name: str = ""
    relays: bool = True


NO_ROLE = Role()


class Stamps(NamedTuple):
    """The stamps that must survive a restart: the greatest TAI64N stamp that came from a peer, and the last one sent to
    it."""

    received: bytes
    sent: bytes


class Happening(StrEnum):
    """The kinds of event. The values are public: log lines, metrics."""

    SESSION = "session"  # a session is ready to send
    MOVED = "moved"  # the peer's endpoint is another one now
    UNANSWERED = "unanswered"  # some initiations of a series have had no answer: is the peer still where it was?
    GAVE_UP = "gave_up"  # a series of initiations stayed without an answer
    STAMPED = "stamped"  # `Tunnel.stamps` has changed: time to write it down
    ERASED = "erased"  # 540 s without a new key: all of the peer's keys are wiped
    ANNOUNCED = "announced"  # the verdicts on the peer's announcement, or its prefixes, have changed
    ANSWERED = "answered"  # the peer's verdicts on our announcement have changed
    MTU = "mtu"  # the longest packet that may be sent to the peer is another one now


class PathState(StrEnum):
    """How the size in use is known. The values are public: CLI, JSON."""

    ASSUMED = "assumed"  # the limit; nobody objected
    CONFIRMED = "confirmed"  # a probe of that size was answered
    LOWERED = "lowered"  # a router said so, or it is all that is left of a search
    SEARCHING = "searching"  # probes are on their way, and some were lost


class PeerEvent(NamedTuple):
    """Something that the operator or another room may want to know."""

    what: Happening
    peer: str


class Unsent(NamedTuple):
    """An inner packet that will not leave, and why; the walk owes its sender an ICMP error where the reason says so."""

    peer: str
    packet: bytes
    reason: Drop


class Status(NamedTuple):
    """One peer, for people. Times are `now` values in ns; None: never, or not known.

    `has_session`: a packet would leave at once. `has_given_up`: the last series of initiations was in vain.
    `mtu_bytes`: the longest inner packet towards it, and `path` how that is known.
    `announced`: the prefixes that it announced, `told`: those that we told it, each with its verdict; None while
    that is not known.
    """

    name: str
    public_key: bytes
    endpoint: Endpoint | None
    latest_handshake: int | None
    session_since: int | None
    rx_bytes: int
    tx_bytes: int
    staged: int
    persistent_keepalive_s: int
    mtu_bytes: int
    has_session: bool
    has_given_up: bool
    path: PathState
    announced: tuple[tuple[Network, Verdict | None], ...] = ()
    told: tuple[tuple[Network, Verdict | None], ...] = ()


class Effects:
    """The things that one call asks its caller to do. `drops` counts by reason, also the packets in `unsent`."""

    __slots__ = ("datagrams", "drops", "events", "packets", "unsent")

    def __init__(self) -> None:
        self.packets: list[tuple[str, bytes]] = []  # inner packets with the name of the peer they came from, in order
        self.datagrams: list[Datagram] = []  # to send, in order
        self.events: list[PeerEvent] = []
        self.unsent: list[Unsent] = []
        self.drops: dict[Drop, int] = {}

    def extend(self, later: Effects) -> None:
        """Append the effects of a later call."""
        self.packets += later.packets
        self.datagrams += later.datagrams
        self.events += later.events
        self.unsent += later.unsent
        for reason, count in later.drops.items():
            self.drops[reason] = self.drops.get(reason, 0) + count

    def drop(self, reason: Drop) -> None:
        """Count one drop."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def refuse(self, peer: str, packet: bytes, reason: Drop) -> None:
        """Return an inner packet that will not leave, and count it."""
        self.unsent.append(Unsent(peer, packet, reason))
        self.drop(reason)
