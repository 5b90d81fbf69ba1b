"""The flow table: what the walk decided for a flow, kept so that it can be repeated without the walk.

An *entry* is one direction of one flow: (in-port, protocol, source, destination, ports) -> (out-port, the four fields
after the rewriting, what that adds to the checksums, the next hop's ARP slot). The ports of an ICMP query are its
identifier and its type: with the same identifier a reply from outside passes, while a request is for us. An entry
caches a decision, never policy, and it counts: packets, bytes, when the last one passed, what TCP from the near side
acknowledged last.

Two implementations with the same methods, `flow.fast.CompiledTable` and `flow.plain.PlainTable`: for the same calls
they give the same bytes and the same verdicts (tests/flow). `Table` is what both promise.

Operations and caveats:

- `learn` is called by the walk for every packet that it forwards, and is the only way in. It makes the entry or writes
  it anew; `REPEAT` says that the decision is a pure rewrite and may be repeated from now on.
- `forward` repeats a decision, or says why not (`Punt`); then nothing has changed, neither frame nor counters, and the
  walk decides. A decision is repeated only while the entry's epoch is the table's and its lease runs.
- `outdate` begins another epoch: no entry is repeated until the walk has learned it again. Whoever changes anything
  that a decision rests on calls it: routes, peers, links taken away, configuration. An ARP entry is none of these: the
  MAC address is read from the ARP table's own slot at every packet, and a slot without one is a punt. Nor is the MTU of
  a port, which `set_port` changes for all entries.
- A lease is `LEASE_S`, less up to `LEASE_SPREAD_S` by the entry's number: flows that began together are not walked
  together for ever. A `BRIEF` one is `BRIEF_LEASE_S`. When it has run out the next packet is walked, so that whatever
  the walk keeps beside the links (visitors of forwards, flows on a fallback node) hears of a flow at least that often.
- `harvest` gives what was counted since the last time, entry by entry, so that links and ARP entries stay alive. It
  must go round in less than the shortest timer of theirs (`HARVEST_S`), and once more for one flow (`settle`) before a
  packet of it that changes TCP's state is walked: hits told afterwards would be older news. `settle` can also
  withdraw a single decision: it is not repeated until the walk has learned it again.
- The table is bounded and allocated once. Where it is full, a hand goes round: an entry gives way that has been idle
  for `IDLE_S` (`ONCE_S` if only one packet ever passed), at most `HAND_STEPS` are looked at, and if none gives way the
  new flow is not learned: it is walked, packet by packet, and nothing grows. `harvest` frees entries that nobody has
  used for `FORGET_S`. The hash is keyed with `seed`, so a stranger cannot choose flows that collide.

What is punted, and why: see `Punt`. Its members stand in the order of the checks, but for `NO_LINK`, which stands for
`UNKNOWN`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

from wire.gso import GsoHeader

ENTRIES: Final = 131_072
"""Of 65,536 links, both directions."""
MOST_ENTRIES: Final = 1 << 20
LEASE_S: Final = 20
LEASE_SPREAD_S: Final = 16
BRIEF_LEASE_S: Final = 10
HARVEST_S: Final = 5
IDLE_S: Final = 20
ONCE_S: Final = 1
FORGET_S: Final = 300
HAND_STEPS: Final = 32
MOST_PORTS: Final = 1024
MARKS: Final = 65_536
MARKED: Final = 1
NO_SLOT: Final = 0xFFFFFFFF
"""No next hop: the packet leaves by a raw IP port."""

REPEAT, NEAR_SENDS, ALIASED, BRIEF = 1, 2, 4, 8
"""What `learn` is told of an entry. `NEAR_SENDS`: the sender is on the flow's near side (`Flow.inside`). `ALIASED`: the
source becomes an alias, so the IP identification of what may be fragmented is chosen by the walk (RFC 7857 10).
`BRIEF`: the lease is a short one, because the link may end soon."""


def mark_place(port: int) -> int:
    """Where the byte of an outside port stands (`Table.set_outside`)."""
    return port >> 1 | (port & 1) << 15


class Punt(IntEnum):
    """Why a frame goes to the walk. The names are public: `bridgectl stats`."""

    ETHERNET = 1  # not IPv4 behind an Ethernet header for our own address alone, from a station's address
    HEADER = 2  # not an IPv4 header of 20 bytes with a right checksum, inside the frame
    FRAGMENT = 3  # a fragment: it follows the first of its datagram
    PROTOCOL = 4  # neither TCP nor UDP nor an ICMP query
    TRANSPORT = 5  # a transport header that is not whole, a UDP length beyond the packet, a port of zero
    UNKNOWN = 6  # no entry
    OUTDATED = 7  # its epoch has passed, its lease has run out, or it is not to be repeated
    TTL = 8  # no hop left
    CONTROL = 9  # TCP SYN, FIN or RST
    CLAIMS = 10  # the virtio header does not fit the packet, or leaves a super-frame without partial checksum
    TOO_BIG = 11  # for the egress: an error is due, or fragments are
    IDENTIFICATION = 12  # aliased, and it may be fragmented later: its identification must not meet another's
    NEXT_HOP = 13  # no MAC address
    NO_LINK = 14  # no entry, and nobody inside has the outside port: whoever reads frames may drop it (`set_outside`)


IN_ORDER: Final = frozenset(
    {Punt.HEADER, Punt.FRAGMENT, *(punt for punt in Punt if Punt.OUTDATED < punt < Punt.NO_LINK)}
)
"""Punts of single packets, whose neighbours of the same flow are repeated: nothing behind them may overtake them."""


class Forwarded(NamedTuple):
    """A decision repeated. `frame`: with the link header of the out-port (destination and source MAC address, 0800), or
    bare on a raw IP port; `gso` as it came in."""

    out_port: int
    frame: bytes
    gso: GsoHeader | None


class Hits(NamedTuple):
    """The counters of an entry since it was asked last. `remote`, `remote_port`: the far end, as the walk knows it;
    `acknowledgment`, `window`: of the last TCP segment with ACK from the near side; where none was repeated the one is
    None, and the other says nothing."""

    entry: int
    out_port: int
    slot: int
    near_sends: bool
    remote: int
    remote_port: int
    packets: int
    size_bytes: int
    last_ns: int
    acknowledgment: int | None
    window: int


class Flow(NamedTuple):
    """One direction of one flow, for people. `inside`, `outside`: (address, port) of the near and of the far end, as
    the walk names them; ports are 0 where the protocol has none, the identifier for ICMP queries. `packets`, `bytes`:
    all that have passed, IP packets without link header. `fast`: the decision is repeated at present."""

    entry: int
    in_port: int
    out_port: int
    protocol: int
    inside: tuple[int, int]
    outside: tuple[int, int]
    packets: int
    bytes: int
    last_seen_ns: int
    fast: bool


class Table(Protocol):
    """A flow table. Ports are numbers below `MOST_PORTS` that the caller gives out. `now` is in ns and never runs
    backwards; what is stored of it has a resolution of a millisecond."""

    compiled: bool
    limit: int

    def __len__(self) -> int:
        """Entries in use."""

    def set_port(self, port: int, mac: bytes, mtu_bytes: int, slots: memoryview | None) -> None:
        """Describe a port, now or from now on. `mac`: our own six bytes on an Ethernet port, empty on a raw IP port;
        `mtu_bytes`: the largest IP packet that may leave there; `slots`: the words of its ARP table (`ArpTable.words`:
        four 64-bit words a slot, the MAC address in the low 48 bits of the first), None on a raw IP port."""

    def set_outside(self, port: int, address: int, protocol: int, marks: bytearray | None) -> None:
        """From now on, a packet without an entry that comes by `port` for `address`, of this protocol (TCP or UDP), is
        `Punt.NO_LINK` where its destination port has no owner. `marks`: one byte a port, the even ports first
        (`mark_place`), with the bit `MARKED` where the port has an owner. The table reads it whenever such a packet
        comes; it may change meanwhile and must keep its length. None: packets of this protocol are `Punt.UNKNOWN` as
        elsewhere. One address a port."""

    def learn(
        self,
        in_port: int,
        out_port: int,
        protocol: int,
        before: tuple[int, int, int, int],
        after: tuple[int, int, int, int],
        size_bytes: int,
        slot: int,
        flags: int,
        now: int,
    ) -> int:
        """The walk has forwarded a packet. `before`, `after`: source, source port, destination, destination port as it
        came and as it left (of an ICMP query: identifier, type); `size_bytes`: of the IP packet. The entry's number,
        below `limit`; -1 where there is no room. An entry keeps its number until it is gone; a number is given out
        again afterwards."""

    def outdate(self) -> None:
        """Repeat no decision that was learned before now."""

    def forward(self, in_port: int, frame: bytes, gso: GsoHeader | None, now: int) -> Forwarded | Punt:
        """Repeat the decision for a frame that came in by `in_port`, or say why not."""

    def harvest(self, limit: int, now: int) -> list[Hits]:
        """The counters of the next `limit` entries that have counted something; the next call goes on behind them.
        Entries that nobody used for `FORGET_S` are freed."""

    def settle(
        self, in_port: int, protocol: int, ends: tuple[int, int, int, int], now: int, withdraw: bool
    ) -> Hits | None:
        """The same for the entry of one key (`ends` as `before`); None where it has counted nothing. `withdraw`: the
        entry is not repeated any more until it is learned."""

    def live(self, now: int) -> Iterator[Flow]:
        """The flows that were seen within `FORGET_S`."""
