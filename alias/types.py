"""The values of the NAT: settings, static forwards, links, and what the table tells its caller.

A *link* ties an inside endpoint to a port of our own address on one egress. It is endpoint-independent (RFC 4787 4.1):
the same for every remote. Protocols without ports have *address-only* links, one for each remote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple, Protocol

from alias.changes import Changes
from wire.drop import Drop
from wire.ipv4 import Packet
from wire.units import SECOND_NS

NEVER_NS = 1 << 62
"""`expires_ns` of a static link: later than any clock."""
QUESTION_PORTS = (53, 123)
"""DNS and NTP: one question, one answer (RFC 4787 REQ-5a)."""
AT_ONCE = 8
"""So many closed links at most end for one new link, which needs more than one where a reload has lowered a limit."""
QUESTION_NS = 15 * SECOND_NS
COARSE_BITS = 35
"""Of a link's expiry the bits below these are not written down: steps of 34 s (`Saved.expires_ns`)."""


class Egress(IntEnum):
    """The side whose address hides the inside. Each egress has port spaces of its own, one for each protocol."""

    TAP1 = 0
    VPN = 1

    @property
    def label(self) -> str:
        """As the configuration and `bridgectl alias` spell it."""
        return "tap1" if self is Egress.TAP1 else "vpn"


NO_QUESTION, ASKED, ANSWERED = range(3)
"""`Link.question`."""

Filtering = Literal["endpoint-independent", "address-dependent"]
UnsolicitedSyn = Literal["silent", "unreachable"]


@dataclass(frozen=True, slots=True)
class AliasSettings:
    """The `[alias]` table of the configuration, times in nanoseconds. The floors of the RFCs (120, 7440, 240, 60 s)
    are checked where the configuration is read, not here."""

    filtering: Filtering = "endpoint-independent"
    udp_timeout_ns: int = 300 * SECOND_NS
    tcp_established_ns: int = 7440 * SECOND_NS
    tcp_transitory_ns: int = 240 * SECOND_NS
    icmp_timeout_ns: int = 60 * SECOND_NS
    question_timeout_ns: int = QUESTION_NS
    """RFC 4787 REQ-5a: of a UDP link that has asked only `QUESTION_PORTS` and was answered."""
    refresh_inbound: bool = False
    unsolicited_syn: UnsolicitedSyn = "silent"
    max_links: int = 65_536
    max_links_per_host: int = 8_192
    hosts: int = 256
    """How many inside addresses there can be: so many share what is kept for hosts with few links."""


@dataclass(frozen=True, slots=True)
class Forward:
    """A static port map: packets to `outside_port` of our address on `on` go to `inside`:`inside_port`, and what that
    endpoint sends leaves with `outside_port`. `protocol` is TCP or UDP (6, 17)."""

    on: Egress
    protocol: int
    outside_port: int
    inside: int
    inside_port: int


class Link:
    """One link. Read it freely; only the room `alias` writes it.

    `inside`: address. `inside_port`, `outside_port`: for ICMP queries the identifiers, 0 for address-only links.
    `remote`: the remote address of an address-only link, else 0. `state`: TCP `INIT EST in-FIN out-FIN both-FIN TRANS`,
    `static` for a static forward, else `open`. `expires_ns`: valid while `now < expires_ns`; `NEVER_NS` where static;
    0 once it has ended. `last_ns`: time of the last packet, either way. `packets`, `bytes`: IP packets, both ways.
    """

    compiled = False
    __slots__ = (
        "bytes",
        "closing",
        "due",
        "egress",
        "expires_ns",
        "inside",
        "inside_port",
        "last_ns",
        "outside_port",
        "packets",
        "protocol",
        "question",
        "remote",
        "remotes",
        "sessions",
        "state",
    )

    def __init__(
        self, egress: Egress, protocol: int, inside: int, inside_port: int, outside_port: int, remote: int, now: int
    ) -> None:
        self.egress = egress
        self.protocol = protocol
        self.inside = inside
        self.inside_port = inside_port
        self.outside_port = outside_port
        self.remote = remote
        self.state = "open"
        self.expires_ns = 0
        self.last_ns = now
        self.packets = 0
        self.bytes = 0
        # TCP: how its connections were closed (`alias.closed`), 0 while one of them is open.
        self.closing = 0
        # UDP: whether it has asked `QUESTION_PORTS` alone, and was answered (`NO_QUESTION`, `ASKED`, `ANSWERED`).
        self.question = NO_QUESTION
        # Where `alias.expiry` keeps it: a bucket, or None for the queue of the current second.
        self.due: Bucket | None = None
        # TCP (`alias.sessions`): one packed session, or several by remote endpoint.
        self.sessions: bytes | dict[int, bytes] | None = None
        # Address-dependent filtering (`alias.remotes`): the remote addresses it has sent to, oldest first.
        self.remotes: int | dict[int, None] | None = None

    @property
    def is_static(self) -> bool:
        """True for a static forward."""
        return self.state == "static"

    def is_live(self, now: int) -> bool:
        """True until it expires or is ended."""
        return now < self.expires_ns


class Bucket:
    """The links whose expiry is next looked at in one second of the clock (see `alias.expiry`)."""

    __slots__ = ("earliest_ns", "links", "second")

    def __init__(self, second: int, earliest_ns: int) -> None:
        self.second = second
        self.earliest_ns = earliest_ns
        self.links: list[Link] = []


class Saved(NamedTuple):
    """The part of a link that outlives the process (`alias.saved`, `Aliases.restore`). `remote`: of an address-only
    link, of the TCP session that lives longest, or the latest one where filtering is address-dependent; else 0. `state`
    and `scale`: of that session, as `alias.sessions` numbers them. `has_others`: there were more remotes than this one.
    `expires_ns`: when it will have expired, the end of that step; by the clock of the whole machine."""

    egress: Egress
    protocol: int
    inside: int
    inside_port: int
    outside_port: int
    remote: int
    remote_port: int
    state: int
    scale: int
    has_others: bool
    expires_ns: int


class Linked(NamedTuple):
    """A link was made."""

    link: Link


class Unlinked(NamedTuple):
    """A link has ended: expired, flushed, or its port went to a static forward."""

    link: Link


class Unanswered(NamedTuple):
    """An unsolicited inbound SYN that nothing answered for six seconds (RFC 5382 REQ-4): the caller sends ICMP 3/3 from
    our address on `egress` to its source, quoting `quote`, the bytes of the SYN from its IP header on."""

    egress: Egress
    quote: bytes


class Store(Protocol):
    """Where the links are: `alias.plain.PlainStore`, or the compiled one. Both give the same links, events and refusals
    for the same calls. `now` is in ns and never runs backwards.

    `events`: links made and ended outside of `due`, put there while `tells`. `changes`: what somebody writes down.
    `latest_ns`: the latest time that the store has been told.
    """

    compiled: bool
    events: deque[Linked | Unlinked]
    tells: bool
    changes: Changes[Link]
    latest_ns: int

    def apply(self, settings: AliasSettings) -> None:
        """Take other settings; live links stay, with the expiry that they have."""

    def reserve(self, egress: Egress, protocol: int, ports: Iterable[int]) -> None:
        """These ports, and no others, are never allotted; a link that has one keeps it."""

    def listen(self, egress: Egress, protocol: int, port: int) -> None:
        """A service of the gateway's own has this outside port, before any link could get it."""

    def outbound(self, egress: Egress, packet: Packet, now: int) -> Link | Drop:
        """The link of a packet from inside, see `alias.table.Aliases.outbound`."""

    def inbound(self, egress: Egress, packet: Packet, now: int, *, hairpin: bool) -> Link | Drop:
        """The link of a packet to our address, see `alias.table.Aliases.inbound`."""

    def confirm(
        self,
        link: Link,
        now: int,
        *,
        outbound: bool,
        packets: int,
        size_bytes: int,
        remote: int,
        remote_port: int,
        acknowledgment: int | None,
        window: int,
    ) -> None:
        """A fast path has forwarded packets, see `alias.table.Aliases.confirm`."""

    def holds_until(self, link: Link, remote: int, remote_port: int, now: int, *, outbound: bool) -> int:
        """Until when packets mean the same, see `alias.table.Aliases.holds_until`."""

    def is_half_closed(self, link: Link, remote: int, remote_port: int) -> bool:
        """Whether one end of a TCP connection, or both, has sent its FIN, and the connection is not over."""

    def by_outside(self, egress: Egress, protocol: int, outside_port: int, remote: int) -> Link | None:
        """The link behind an outside port (of an address-only link: towards `remote`), nothing changed."""

    def by_inside(self, egress: Egress, protocol: int, inside: int, inside_port: int, remote: int) -> Link | None:
        """The link of an inside endpoint (address-only: of `inside` towards `remote`), nothing changed."""

    def marks(self, egress: Egress, protocol: int) -> bytearray:
        """The use of every outside port: `alias.ports.PortSpace.marks`."""

    def due(self, now: int) -> list[Unlinked]:
        """End the links that have expired, in the order of their expiry; those of one time by egress, protocol and
        outside port. They are not among `events`; the list is empty unless `tells`."""

    def next_deadline(self) -> int | None:
        """At or before the first expiry; None where there is no link."""

    def __len__(self) -> int:
        """Links that are not static, ended ones that nothing has cleared away yet included."""

    def links(self, now: int) -> Iterator[Link]:
        """All live links, the static ones too: by egress, protocol (TCP, UDP, ICMP queries) and outside port, and
        behind those the address-only ones by egress, protocol and remote."""

    @property
    def insides(self) -> list[int]:
        """The inside addresses that have links which are not static."""

    def flush(self, insides: Collection[int] | None, now: int, egress: Egress | None) -> int:
        """End all links that are not static (of these inside addresses, on this egress); how many."""

    def end(self, link: Link, now: int) -> None:
        """End a link. The port of a static one does not rest."""

    def restore(self, kept: Saved, now: int) -> Link | None:
        """Take up a link of an earlier run, see `alias.table.Aliases.restore`."""

    def rest(self, ended: Saved, until_ns: int) -> None:
        """The port of a link that an earlier run ended rests on, see `alias.table.Aliases.rest`."""

    def make_static(self, forward: Forward, now: int) -> Link:
        """The permanent link of a forward; a link that has its port by chance ends."""

    def prefer(self, link: Link) -> None:
        """Packets of the link's inside endpoint take this link from now on."""

    def fall_back(self, link: Link) -> None:
        """Packets of the inside endpoint of a forward that is gone take the link that it had before, if it lives."""
