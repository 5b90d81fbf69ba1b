"""The links: made by packets from inside, found by packets from both sides, ended by their timers.

RFC 4787: REQ-1 (`_space.by_inside` knows no remote), REQ-5 and 6 (`_refresh`), REQ-5a (`_answered`), REQ-8
(`inbound`), REQ-9 (`inbound` with `hairpin`), REQ-11 (nothing here depends on load), REQ-12 (errors come through
`peek_inbound`, which changes nothing). RFC 5382: REQ-4 (`unsolicited`), REQ-5 (`alias.sessions`). RFC 5508: REQ-1, 2,
6. RFC 7857: 2 (`alias.sessions`), 5 (a port space for each protocol), 7, 9 (`alias.ports`), 10 (`identification`). RFC
6888: REQ-4 and 11 (`alias.limits`, `alias.closed`), REQ-8 (`alias.ports`). RFC 3022 4.1: protocols without ports, one
inside host for each remote (`_others`).

What the room does not do: see its README.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

from alias.changes import Changes
from alias.draws import Draws
from alias.identification import Identifications
from alias.plain import PlainStore
from alias.strangers import Strangers
from alias.types import (
    AliasSettings,
    Egress,
    Forward,
    Link,
    Linked,
    Saved,
    Store,
    Unanswered,
    Unlinked,
)
from wire.drop import Drop
from wire.ipv4 import ICMP, TCP, UDP, Packet
from wire.tcp import ACK, RST, SYN
from wire.units import earliest

EVENTS = 4096
"""How many events wait for `take_events`; of more the newest."""
_FLAGS_OFFSET = 13  # of the TCP header
_WITH_PORTS = (TCP, UDP, ICMP)

MakeStore = Callable[[AliasSettings, Draws, deque[Linked | Unlinked]], Store]


class Aliases:
    """All links of the gateway. `packet` is always whole or a first fragment, its transport header read
    (`wire.ipv4.read_transport`) and its source or destination not yet rewritten. Call `tick` when its deadline has come
    and before packets of that time; `take_events` after what may make or end links, where there are `events`.
    `store`: where the links are."""

    def __init__(
        self,
        settings: AliasSettings,
        forwards: Sequence[Forward],
        reserved: Collection[tuple[Egress, int, int]],
        rng: random.Random,
        make_store: MakeStore = PlainStore,
    ) -> None:
        """`reserved`: (egress, protocol, port) that are never allotted. `ValueError` for two forwards of one port."""
        self.settings = settings
        self.events: deque[Linked | Unlinked] = deque(maxlen=EVENTS)
        self.store = make_store(settings, Draws(rng), self.events)
        self._static: dict[tuple[Egress, int, int], Link] = {}  # (egress, protocol, outside port) -> static link
        self._strangers = Strangers()
        self._is_silent = settings.unsolicited_syn == "silent"
        self._identifications = Identifications(rng)
        self._reserve(reserved)
        self._forward(forwards, 0)
        self.events.clear()

    @property
    def tells(self) -> bool:
        """Whether anybody wants to hear of links made and ended: False leaves `events` empty."""
        return self.store.tells

    @tells.setter
    def tells(self, is_wanted: bool) -> None:
        self.store.tells = is_wanted

    # Packets

    def outbound(self, egress: Egress, packet: Packet, now: int) -> Link | Drop:
        """The link that a packet from inside leaves by on `egress`, made if need be; counters and timers follow.

        `ALIAS_NO_STATE`: no link, and this may not open one (a TCP reset, an ICMP reply), or it is no ICMP query.
        `ALIAS_NO_PORT`, `ALIAS_TABLE_FULL`, `ALIAS_HOST_LIMIT`, `ALIAS_PROTOCOL_TAKEN`: as their names say.
        """
        link = self.store.outbound(egress, packet, now)
        if self._is_silent or packet.protocol != TCP or isinstance(link, Drop):
            return link
        if packet.data[packet.header_bytes + _FLAGS_OFFSET] & SYN:
            self._strangers.answer(egress, link.outside_port, packet.destination, packet.destination_port)
        return link

    def inbound(self, egress: Egress, packet: Packet, now: int, *, hairpin: bool = False) -> Link | Drop:
        """The link that a packet to our address on `egress` belongs to; counters and timers follow.

        `hairpin`: the packet comes from inside, and its source already is X:m of its sender's link (RFC 4787 REQ-9a);
        it is not filtered. `ALIAS_NO_LINK`, `ALIAS_FILTERED`: silence, see also `unsolicited`. `ICMP_TYPE`: an ICMP
        message that is no query (errors are looked up by what they quote, with `peek_inbound`).
        """
        return self.store.inbound(egress, packet, now, hairpin=hairpin)

    def confirm(
        self,
        link: Link,
        now: int,
        *,
        outbound: bool,
        packets: int,
        size_bytes: int,
        remote: int = 0,
        remote_port: int = 0,
        acknowledgment: int | None = None,
        window: int = 0,
    ) -> None:
        """A fast path has forwarded `packets` for `link`, the last one at `now`: timers and counters follow.

        `remote`, `remote_port`: the other end, needed for TCP and where filtering is address-dependent.
        `acknowledgment` and `window` (as in the header): of the last TCP segment from inside, so that a reset can be
        judged; a fast path that cannot tell them leaves them out, and resets may then pass without effect. SYN, FIN and
        RST segments come through `outbound` and `inbound`.
        """
        self.store.confirm(
            link,
            now,
            outbound=outbound,
            packets=packets,
            size_bytes=size_bytes,
            remote=remote,
            remote_port=remote_port,
            acknowledgment=acknowledgment,
            window=window,
        )

    def holds_until(self, link: Link, remote: int, remote_port: int, now: int, *, outbound: bool) -> int:
        """Until when, in ns, packets of a remote endpoint mean the same to a link as one does now, whatever else comes;
        SYN, FIN and RST aside. 0: the next packet may be judged otherwise."""
        return self.store.holds_until(link, remote, remote_port, now, outbound=outbound)

    def is_half_closed(self, link: Link, remote: int, remote_port: int) -> bool:
        """Whether one end of a TCP connection has sent its FIN: with the other FIN `holds_until` begins to say 0."""
        return self.store.is_half_closed(link, remote, remote_port)

    def peek_inbound(self, egress: Egress, protocol: int, outside_port: int, remote: int) -> Link | None:
        """The link behind an outside port (of an address-only link: towards `remote`), nothing changed."""
        return self.store.by_outside(egress, protocol, outside_port, remote)

    def peek_outbound(self, egress: Egress, protocol: int, inside: int, inside_port: int, remote: int) -> Link | None:
        """The link of an inside endpoint (address-only: of `inside` towards `remote`), nothing changed."""
        return self.store.by_inside(egress, protocol, inside, inside_port, remote)

    def marks(self, egress: Egress, protocol: int) -> bytearray:
        """The use of every outside port: `PortSpace.marks`, for TCP and UDP."""
        return self.store.marks(egress, protocol)

    def listen(self, egress: Egress, protocol: int, port: int) -> None:
        """A service of the gateway's own has this outside port of TCP or UDP, before any link could get it."""
        self.store.listen(egress, protocol, port)

    def unsolicited(self, egress: Egress, packet: Packet, now: int) -> None:
        """An inbound packet that found no link, or was filtered, and is dropped: if it is a SYN and the settings say
        `unreachable`, `tick` will tell when nothing has answered it (RFC 5382 REQ-4)."""
        if self._is_silent or packet.protocol != TCP:
            return
        if packet.data[packet.header_bytes + _FLAGS_OFFSET] & (SYN | ACK | RST) == SYN:
            self._strangers.remember(egress, packet, now)

    def identification(self, egress: Egress, packet: Packet, now: int) -> int:
        """The IP identification for a packet that leaves aliased on `egress` (RFC 7857 10), see `alias.identification`.
        The packet's source is still the inside host's. For a datagram in fragments: once, for the first of them."""
        return self._identifications.choose(egress, packet, now)

    def original_identification(self, link: Link, remote: int, identification: int) -> int:
        """The value that `identification` has changed into this one, quoted from a packet of `link` to `remote`."""
        return self._identifications.original(link.egress, link.protocol, link.inside, remote, identification)

    # Time

    def tick(self, now: int) -> list[Unlinked | Unanswered]:
        """Everything due at `now`: expired links, and SYNs that nothing answered."""
        happened: list[Unlinked | Unanswered] = [*self.store.due(now)]
        if self._strangers:
            happened += self._strangers.due(now)
        return happened

    def next_deadline(self) -> int | None:
        """When `tick` should run next, at or before the next expiry; None while nothing waits."""
        return earliest(self.store.next_deadline(), self._strangers.next_deadline())

    # What operators ask for

    def take_events(self) -> list[Linked | Unlinked]:
        """Links made and ended since the last call (the newest `EVENTS`), without those that `tick` has returned. The
        static links of the start are not told."""
        events = list(self.events)
        self.events.clear()
        return events

    def __len__(self) -> int:
        """Links that are not static, ended ones that nothing has cleared away yet included."""
        return len(self.store)

    def links(self, now: int) -> Iterator[Link]:
        """All live links, the static ones too."""
        return self.store.links(now)

    @property
    def insides(self) -> list[int]:
        """The inside addresses that have links which are not static."""
        return self.store.insides

    def flush(
        self, insides: Collection[int] | None = None, now: int | None = None, egress: Egress | None = None
    ) -> int:
        """End all links that are not static (of these inside addresses, on this egress); how many. `now`: since when
        their ports rest; None for the latest time that the table has been told."""
        return self.store.flush(insides, self.store.latest_ns if now is None else now, egress)

    def reconfigure(
        self,
        settings: AliasSettings,
        forwards: Sequence[Forward],
        reserved: Collection[tuple[Egress, int, int]],
        now: int,
    ) -> None:
        """Take over new settings, forwards and reserved ports. Live links stay, with the expiry that they have; only a
        link whose outside port goes to a new forward ends. What the inside endpoint of a new forward sends takes the
        forward's port at once."""
        self.store.latest_ns = max(self.store.latest_ns, now)
        self.settings = settings
        self.store.apply(settings)
        self._is_silent = settings.unsolicited_syn == "silent"
        if self._is_silent:
            self._strangers = Strangers()
        self._reserve(reserved)
        self._forward(forwards, now)

    @property
    def latest_ns(self) -> int:
        """The latest time that the table has been told."""
        return self.store.latest_ns

    # Links that outlive the process

    @property
    def changes(self) -> Changes[Link]:
        """Links that were made, have ended, or entered another TCP state or another step of their expiry, for a writer
        (`alias.saved`); in the order of the first change. Static links are not among it. Empty unless `is_wanted`."""
        return self.store.changes

    def restore(self, kept: Saved, now: int) -> Link | None:
        """Take up a link of an earlier run; None where it has expired, where the bounds stand against it (what is kept
        for hosts with few does not: it is no new link), or where its names are somebody's. It lives until it would have
        expired, with the timers of today at most. The caller knows that the inside may have links on that egress."""
        return self.store.restore(kept, now)

    def rest(self, ended: Saved, until_ns: int) -> None:
        """The port of a link that an earlier run ended rests on (RFC 6888 REQ-8). Calls come in the order of
        `until_ns`, and before packets."""
        self.store.rest(ended, until_ns)

    # Static forwards and reserved ports

    def _reserve(self, reserved: Collection[tuple[Egress, int, int]]) -> None:
        """Mark the ports that are never allotted."""
        for egress in Egress:
            for protocol in _WITH_PORTS:
                ports = [port for on, of, port in reserved if on is egress and of == protocol]
                self.store.reserve(egress, protocol, ports)

    def _forward(self, forwards: Sequence[Forward], now: int) -> None:
        """Make the static links exactly those of `forwards`; links that stay keep their counters."""
        wanted = {(forward.on, forward.protocol, forward.outside_port): forward for forward in forwards}
        if len(wanted) < len(forwards):
            raise ValueError("two forwards have the same outside port")
        for key, link in list(self._static.items()):
            forward = wanted.get(key)
            if forward is None or (forward.inside, forward.inside_port) != (link.inside, link.inside_port):
                self.store.end(link, now)
                del self._static[key]
                self.store.fall_back(link)
        for forward in reversed(forwards):  # of several forwards to one inside endpoint the first names what it sends
            key = (forward.on, forward.protocol, forward.outside_port)
            if key not in self._static:
                self._static[key] = self.store.make_static(forward, now)
                self.events.append(Linked(self._static[key]))
            self.store.prefer(self._static[key])
