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
from collections.abc import Collection, Iterator, Sequence

from alias import remotes
from alias.expiry import Expiry
from alias.identification import Identifications
from alias.limits import Limits
from alias.ports import PortSpace, endpoint_key
from alias.remotes import Remotes, admits
from alias.sessions import Sessions
from alias.strangers import Strangers
from alias.types import (
    ANSWERED,
    ASKED,
    COARSE_BITS,
    NEVER_NS,
    NO_QUESTION,
    QUESTION_PORTS,
    AliasSettings,
    Egress,
    Forward,
    Link,
    Linked,
    Saved,
    Unanswered,
    Unlinked,
)
from wire.drop import Drop
from wire.ipv4 import ICMP, ICMP_QUERIES, ICMP_QUERY_REQUESTS, TCP, UDP, Packet
from wire.tcp import ACK, RST, SYN, Segment
from wire.units import earliest

EVENTS = 4096
"""How many events wait for `take_events`; of more the newest."""

AT_ONCE = 8
"""So many closed links at most end for one new link, which needs more than one where a reload has lowered a limit."""
_FLAGS_OFFSET = 13  # of the TCP header
_WITH_PORTS = (TCP, UDP, ICMP)


class Aliases:
    """All links of the gateway. `packet` is always whole or a first fragment, its transport header read
    (`wire.ipv4.read_transport`) and its source or destination not yet rewritten. Call `tick` when its deadline has come
    and before packets of that time; `take_events` after what may make or end links, where there are `events`.
    `tells_new_links`: False where nobody wants to hear of those. `changed`: see `remember`."""

    def __init__(
        self,
        settings: AliasSettings,
        forwards: Sequence[Forward],
        reserved: Collection[tuple[Egress, int, int]],
        rng: random.Random,
    ) -> None:
        """`reserved`: (egress, protocol, port) that are never allotted. `ValueError` for two forwards of one port."""
        self.settings = settings
        self._rng = rng
        self._spaces = {
            egress: {protocol: PortSpace(has_classes=protocol != ICMP) for protocol in _WITH_PORTS} for egress in Egress
        }
        self._others: dict[int, Link] = {}  # address-only links, see `_other_key`
        self._static: dict[tuple[Egress, int, int], Link] = {}  # (egress, protocol, outside port) -> static link
        self._limits = Limits(settings)
        self._latest_ns = 0
        self._expiry = Expiry()
        self._sessions = Sessions(0, 0, 0)
        self._remotes = Remotes(0)
        self._strangers = Strangers()
        self._identifications = Identifications(rng)
        self.events: deque[Linked | Unlinked] = deque(maxlen=EVENTS)
        self.tells_new_links = True
        self.changed: dict[Link, None] = {}
        self._remembers = False
        self._apply(settings)
        self._reserve(reserved)
        self._forward(forwards, 0)
        self.events.clear()

    def _apply(self, settings: AliasSettings) -> None:
        """What other objects need to know of the settings."""
        self.settings = self._limits.settings = settings
        self._by_address = settings.filtering == "address-dependent"
        self._sessions.established_ns = settings.tcp_established_ns
        self._sessions.transitory_ns = settings.tcp_transitory_ns
        self._sessions.limit = settings.max_links
        self._remotes.limit = max(4 * settings.max_links, remotes.PER_LINK)
        if settings.unsolicited_syn == "silent":
            self._strangers = Strangers()

    # Packets

    def outbound(self, egress: Egress, packet: Packet, now: int) -> Link | Drop:
        """The link that a packet from inside leaves by on `egress`, made if need be; counters and timers follow.

        `ALIAS_NO_STATE`: no link, and this may not open one (a TCP reset, an ICMP reply), or it is no ICMP query.
        `ALIAS_NO_PORT`, `ALIAS_TABLE_FULL`, `ALIAS_HOST_LIMIT`, `ALIAS_PROTOCOL_TAKEN`: as their names say.
        """
        protocol = packet.protocol
        space = self._spaces[egress].get(protocol)
        flags = 0
        asks = True  # anything but an ICMP reply: those neither open nor refresh a link (RFC 7857 7.1)
        if space is None:
            link = self._others.get(_other_key(egress, protocol, packet.destination))
        else:
            link = space.by_inside.get(packet.source << 16 | packet.source_port)
            if protocol == TCP:
                flags = packet.data[packet.header_bytes + _FLAGS_OFFSET]
            elif protocol == ICMP:
                kind = packet.data[packet.header_bytes]
                if kind not in ICMP_QUERIES:
                    return Drop.ALIAS_NO_STATE
                asks = kind in ICMP_QUERY_REQUESTS
        if link is not None and now >= link.expires_ns:
            self.events.append(self._end(link, now))
            link = None
        is_new = link is None
        if link is None:
            if flags & RST or not asks:
                return Drop.ALIAS_NO_STATE
            opened = self._open(egress, packet, space, now)
            if not isinstance(opened, Link):
                return opened
            link = opened
        elif space is None and link.inside != packet.source:
            return Drop.ALIAS_PROTOCOL_TAKEN
        link.last_ns = now
        link.packets += 1
        link.bytes += len(packet.data)
        if link.expires_ns != NEVER_NS:
            if protocol == TCP:
                if self._sessions.outbound(link, packet, now):
                    self._expiry.arm(link)
            elif asks:
                if link.question and packet.destination_port not in QUESTION_PORTS:
                    link.question = NO_QUESTION
                self._refresh(link, now)
            if self._by_address and not flags & RST:
                self._remotes.note(link, packet.destination)
            if is_new:
                self._expiry.arm(link)
        if flags & SYN and self._strangers:
            self._strangers.answer(egress, link.outside_port, packet.destination, packet.destination_port)
        return link

    def inbound(self, egress: Egress, packet: Packet, now: int, *, hairpin: bool = False) -> Link | Drop:
        """The link that a packet to our address on `egress` belongs to; counters and timers follow.

        `hairpin`: the packet comes from inside, and its source already is X:m of its sender's link (RFC 4787 REQ-9a);
        it is not filtered. `ALIAS_NO_LINK`, `ALIAS_FILTERED`: silence, see also `unsolicited`. `ICMP_TYPE`: an ICMP
        message that is no query (errors are looked up by what they quote, with `peek_inbound`).
        """
        protocol = packet.protocol
        if protocol == ICMP and packet.data[packet.header_bytes] not in ICMP_QUERIES:
            return Drop.ICMP_TYPE
        link = self.peek_inbound(egress, protocol, packet.destination_port, packet.source)
        if link is None:
            return Drop.ALIAS_NO_LINK
        if now >= link.expires_ns:
            self.events.append(self._end(link, now))
            return Drop.ALIAS_NO_LINK
        is_static = link.expires_ns == NEVER_NS
        if self._by_address and not hairpin and not is_static and not admits(link, packet.source):
            return Drop.ALIAS_FILTERED
        link.last_ns = now
        link.packets += 1
        link.bytes += len(packet.data)
        if protocol == TCP:
            if not is_static and self._sessions.inbound(link, packet, now):
                self._expiry.arm(link)
        elif protocol != ICMP and not is_static:
            self._answered(link, packet.source_port, now)
        return link

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
        if now >= link.expires_ns:
            return  # it has ended
        link.last_ns = max(link.last_ns, now)
        link.packets += packets
        link.bytes += size_bytes
        if link.expires_ns == NEVER_NS:
            return
        if outbound and self._by_address:
            self._remotes.note(link, remote)
        if link.protocol == TCP:
            segment = None
            if outbound and acknowledgment is not None:
                segment = Segment(ACK, 0, acknowledgment, window, 0, None)
            if self._sessions.confirm(link, remote, remote_port, now, outbound=outbound, segment=segment):
                self._expiry.arm(link)
        elif outbound:
            self._refresh(link, now)
        elif link.protocol != ICMP:
            self._answered(link, remote_port, now)

    def holds_until(self, link: Link, remote: int, remote_port: int, now: int, *, outbound: bool) -> int:
        """Until when, in ns, packets of a remote endpoint mean the same to a link as one does now, whatever else comes;
        SYN, FIN and RST aside. 0: the next packet may be judged otherwise."""
        if link.protocol == TCP and self._sessions.is_closing(link, remote, remote_port):
            return 0
        if link.question == ASKED:  # the answer may shorten its life
            return min(link.expires_ns, now + self.settings.question_timeout_ns)
        if outbound or link.expires_ns == NEVER_NS:
            return link.expires_ns
        if self._by_address and link.remotes is None:
            return 0  # everybody may send to it, until it has sent to somebody
        if link.protocol == TCP:  # a stranger leaves no trace, until the inside writes to him
            return min(link.expires_ns, self._sessions.expires_ns(link, remote, remote_port, now))
        return link.expires_ns

    def is_half_closed(self, link: Link, remote: int, remote_port: int) -> bool:
        """Whether one end of a TCP connection has sent its FIN: with the other FIN `holds_until` begins to say 0."""
        return link.protocol == TCP and self._sessions.is_half_closed(link, remote, remote_port)

    def peek_inbound(self, egress: Egress, protocol: int, outside_port: int, remote: int) -> Link | None:
        """The link behind an outside port (of an address-only link: towards `remote`), nothing changed."""
        space = self._spaces[egress].get(protocol)
        if space is None:
            return self._others.get(_other_key(egress, protocol, remote))
        return space.by_port.get(outside_port)

    def peek_outbound(self, egress: Egress, protocol: int, inside: int, inside_port: int, remote: int) -> Link | None:
        """The link of an inside endpoint (address-only: of `inside` towards `remote`), nothing changed."""
        space = self._spaces[egress].get(protocol)
        if space is None:
            link = self._others.get(_other_key(egress, protocol, remote))
            return link if link is not None and link.inside == inside else None
        return space.by_inside.get(inside << 16 | inside_port)

    def marks(self, egress: Egress, protocol: int) -> bytearray:
        """Who has which outside port: `PortSpace.marks`, for TCP and UDP."""
        return self._spaces[egress][protocol].marks

    def listen(self, egress: Egress, protocol: int, port: int) -> None:
        """A service of the gateway's own has this outside port of TCP or UDP, before any link could get it."""
        self._spaces[egress][protocol].listen(port)

    def unsolicited(self, egress: Egress, packet: Packet, now: int) -> None:
        """An inbound packet that found no link, or was filtered, and is dropped: if it is a SYN and the settings say
        `unreachable`, `tick` will tell when nothing has answered it (RFC 5382 REQ-4)."""
        if self.settings.unsolicited_syn != "unreachable" or packet.protocol != TCP:
            return
        if packet.data[packet.header_bytes + _FLAGS_OFFSET] & (SYN | ACK | RST) == SYN:
            self._strangers.remember(egress, packet, now)

    def identification(self, egress: Egress, packet: Packet, now: int) -> int:
        """The IP identification for a packet that leaves aliased on `egress` (RFC 7857 10), see `alias.identification`.
        The packet's source is still the inside host's. For a datagram in fragments: once, for the first of them."""
        return self._identifications.choose(egress, packet, now)

    def original_identification(self, link: Link, remote: int, identification: int) -> int:
        """What `identification`, quoted from a packet of `link` to `remote`, was before `identification` changed it."""
        return self._identifications.original(link.egress, link.protocol, link.inside, remote, identification)

    # Time

    def tick(self, now: int) -> list[Unlinked | Unanswered]:
        """Everything due at `now`: expired links, and SYNs that nothing answered."""
        self._latest_ns = max(self._latest_ns, now)
        happened: list[Unlinked | Unanswered] = [self._end(link, now) for link in self._expiry.due(now)]
        if self._strangers:
            happened += self._strangers.due(now)
        return happened

    def next_deadline(self) -> int | None:
        """When `tick` should run next, at or before the next expiry; None while nothing waits."""
        return earliest(self._expiry.next_deadline(), self._strangers.next_deadline())

    # What operators ask for

    def take_events(self) -> list[Linked | Unlinked]:
        """Links made and ended since the last call (the newest `EVENTS`), without those that `tick` has returned. The
        static links of the start are not told."""
        events = list(self.events)
        self.events.clear()
        return events

    def __len__(self) -> int:
        """Links that are not static, ended ones that nothing has cleared away yet included."""
        return self._limits.count

    def links(self, now: int) -> Iterator[Link]:
        """All live links, the static ones too."""
        for spaces in self._spaces.values():
            for space in spaces.values():
                yield from [link for link in space.by_port.values() if now < link.expires_ns]
        yield from [link for link in self._others.values() if now < link.expires_ns]

    @property
    def insides(self) -> list[int]:
        """The inside addresses that have links which are not static."""
        return list(self._limits.hosts)

    def flush(
        self, insides: Collection[int] | None = None, now: int | None = None, egress: Egress | None = None
    ) -> int:
        """End all links that are not static (of these inside addresses, on this egress); how many. `now`: since when
        their ports rest; None for the latest time that the table has been told."""
        if now is None:
            now = self._latest_ns
        ended = [
            link
            for link in self.links(0)
            if link.expires_ns != NEVER_NS
            and (insides is None or link.inside in insides)
            and (egress is None or link.egress is egress)
        ]
        for link in ended:
            self.events.append(self._end(link, now))
        self._expiry = Expiry()  # a calendar that does not keep the ended ones in memory
        for link in self.links(0):
            link.due = None
            if link.expires_ns != NEVER_NS:
                self._expiry.arm(link)
        return len(ended)

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
        self._latest_ns = max(self._latest_ns, now)
        self._apply(settings)
        self._reserve(reserved)
        self._forward(forwards, now)

    @property
    def latest_ns(self) -> int:
        """The latest time that the table has been told."""
        return self._latest_ns

    # Links that outlive the process

    def remember(self, *, is_wanted: bool = True) -> None:
        """From now on put into `changed` what is made, ends, enters another TCP state or another step of its expiry,
        for somebody who writes it down (`alias.saved`) and takes it out again; in the order of the first change. Static
        links are not among it."""
        self._remembers = is_wanted
        self._sessions.changed = self.changed if is_wanted else None
        self.changed.clear()

    def restore(self, kept: Saved, now: int) -> Link | None:
        """Take up a link of an earlier run; None where it has expired, where the bounds stand against it (what is kept
        for hosts with few does not: it is no new link), or where its names are somebody's. It lives until it would have
        expired, with the timers of today at most. The caller knows that the inside may have links on that egress."""
        link = Link(kept.egress, kept.protocol, kept.inside, kept.inside_port, kept.outside_port, 0, now)
        space = self._spaces[link.egress].get(link.protocol)
        if kept.expires_ns <= now or self._limits.exceeded(link.inside) is not None:
            return None
        if space is None:
            link.remote = kept.remote
            key = _other_key(link.egress, link.protocol, link.remote)
            if key in self._others or link.inside_port or link.outside_port:
                return None
            self._others[key] = link
        else:
            key = endpoint_key(link.inside, link.inside_port)
            named = space.by_inside.get(key)
            if not space.may_take(link, now) or (named is not None and not named.is_static):
                return None
            space.take(link)
            space.by_inside.setdefault(key, link)
        if link.protocol == TCP:
            self._sessions.restore(link, kept, now)
        else:
            self._refresh(link, now)
            link.expires_ns = min(link.expires_ns, kept.expires_ns)
        if self._by_address and kept.remote:
            link.remotes = kept.remote
        self._limits.add(self._limits.host(link.inside))
        self._latest_ns = max(self._latest_ns, now)
        self._expiry.arm(link)
        if self._remembers:
            self.changed[link] = None
        return link

    def rest(self, ended: Saved, until_ns: int) -> None:
        """The port of a link that an earlier run ended rests on (RFC 6888 REQ-8). Calls come in the order of
        `until_ns`, and before packets."""
        space = self._spaces[ended.egress].get(ended.protocol)
        if space is not None:
            space.rest(ended.outside_port, endpoint_key(ended.inside, ended.inside_port), until_ns)

    # Making and ending links

    def _open(self, egress: Egress, packet: Packet, space: PortSpace | None, now: int) -> Link | Drop:
        """A new link for a packet from inside, not armed yet."""
        self._latest_ns = now
        protocol = packet.protocol
        refusal = self._limits.refusal(packet.source, space)
        if refusal is not None:
            self.events += [self._end(link, now) for link in self._expiry.due(now)]
            refusal = self._make_room(packet.source, space, now)
            if refusal is not None and refusal is not Drop.ALIAS_NO_PORT:
                return refusal
        host = self._limits.host(packet.source)
        inside = host.address
        if space is None:
            link = Link(egress, protocol, inside, 0, 0, packet.destination, now)
            self._others[_other_key(egress, protocol, packet.destination)] = link
        else:
            inside_port = packet.source_port
            key = endpoint_key(inside, inside_port)
            is_short = refusal is not None
            outside_port = space.allocate(key, inside_port, self._rng, now, only_spent=is_short)
            if outside_port is None and protocol == TCP and self._give_way(egress, inside, inside_port, now):
                outside_port = space.allocate(key, inside_port, self._rng, now, only_spent=True)
            if outside_port is None:
                return Drop.ALIAS_NO_PORT
            link = Link(egress, protocol, inside, inside_port, outside_port, 0, now)
            space.take(link)
            space.by_inside[key] = link
            if protocol == UDP and packet.destination_port in QUESTION_PORTS:
                link.question = ASKED
        self._limits.add(host)
        if self.tells_new_links:
            self.events.append(Linked(link))
        if self._remembers:
            self.changed[link] = None
        return link

    def _make_room(self, inside: int, space: PortSpace | None, now: int) -> Drop | None:
        """End closed links until there is room for one more link of an inside address; the bound that stays broken.
        `ALIAS_NO_PORT` may still be mended by a port that is free for this address alone."""
        for _ in range(AT_ONCE):
            refusal = self._limits.refusal(inside, space)
            if refusal is None or refusal is Drop.ALIAS_NO_PORT:
                return refusal
            closed = self._sessions.closed
            is_hosts = refusal is Drop.ALIAS_HOST_LIMIT
            link = closed.longest_of_host(inside, now) if is_hosts else closed.longest(now)
            if link is None:
                return refusal
            self.events.append(self._end(link, now))
        return self._limits.refusal(inside, space)

    def _give_way(self, egress: Egress, inside: int, inside_port: int, now: int) -> bool:
        """End the closed link of the same address and port class, which leaves its port; False where there is none."""
        link = self._sessions.closed.longest_of_class(inside, egress, now, is_low=inside_port < 1024)
        if link is None:
            return False
        self.events.append(self._end(link, now))
        return True

    def _refresh(self, link: Link, now: int) -> None:
        """Restart the timer of a link that is not TCP."""
        settings = self.settings
        if link.question == ANSWERED:
            timeout_ns = min(settings.question_timeout_ns, settings.udp_timeout_ns)
        else:
            timeout_ns = settings.icmp_timeout_ns if link.protocol == ICMP else settings.udp_timeout_ns
        expires_ns = now + timeout_ns
        if expires_ns > link.expires_ns:
            self._expires(link, expires_ns)

    def _answered(self, link: Link, remote_port: int, now: int) -> None:
        """A packet from outside for a link that is neither TCP nor ICMP; the first answer to questions shortens its
        life (RFC 4787 REQ-5a)."""
        if link.question == ASKED and remote_port in QUESTION_PORTS:
            link.question = ANSWERED
            expires_ns = now + self.settings.question_timeout_ns
            if expires_ns < link.expires_ns:
                self._expires(link, expires_ns)
                self._expiry.arm(link)
        if self.settings.refresh_inbound:
            self._refresh(link, now)

    def _expires(self, link: Link, expires_ns: int) -> None:
        if self._remembers and (expires_ns ^ link.expires_ns) >> COARSE_BITS:
            self.changed[link] = None
        link.expires_ns = expires_ns

    def _end(self, link: Link, now: int) -> Unlinked:
        """Take a link out of every index."""
        is_static = link.expires_ns == NEVER_NS
        space = self._spaces[link.egress].get(link.protocol)
        if space is None:
            del self._others[_other_key(link.egress, link.protocol, link.remote)]
        else:
            space.give_back(link, now, rest=not is_static)
            key = endpoint_key(link.inside, link.inside_port)
            if space.by_inside.get(key) is link:
                del space.by_inside[key]
        link.expires_ns = 0
        link.due = None
        self._sessions.forget(link)
        self._remotes.forget(link)
        if not is_static:
            if self._remembers:
                self.changed[link] = None
            self._limits.remove(link.inside)
        return Unlinked(link)

    # Static forwards and reserved ports

    def _reserve(self, reserved: Collection[tuple[Egress, int, int]]) -> None:
        """Mark the ports that are never allotted."""
        for egress, spaces in self._spaces.items():
            for protocol, space in spaces.items():
                space.reserve(port for on, of, port in reserved if on is egress and of == protocol)

    def _forward(self, forwards: Sequence[Forward], now: int) -> None:
        """Make the static links exactly those of `forwards`; links that stay keep their counters."""
        wanted = {(forward.on, forward.protocol, forward.outside_port): forward for forward in forwards}
        if len(wanted) < len(forwards):
            raise ValueError("two forwards have the same outside port")
        for key, link in list(self._static.items()):
            forward = wanted.get(key)
            if forward is None or (forward.inside, forward.inside_port) != (link.inside, link.inside_port):
                self.events.append(self._end(link, now))
                del self._static[key]
                self._fall_back(link)
        for forward in reversed(forwards):  # of several forwards to one inside endpoint the first names what it sends
            space = self._spaces[forward.on][forward.protocol]
            key = (forward.on, forward.protocol, forward.outside_port)
            link = self._static.get(key) or self._make_static(space, forward, now)
            self._static[key] = link
            space.by_inside[endpoint_key(forward.inside, forward.inside_port)] = link

    def _make_static(self, space: PortSpace, forward: Forward, now: int) -> Link:
        """The permanent link of a forward; a link that has its port by chance ends."""
        evicted = space.by_port.get(forward.outside_port)
        if evicted is not None:
            self.events.append(self._end(evicted, now))
        link = Link(forward.on, forward.protocol, forward.inside, forward.inside_port, forward.outside_port, 0, now)
        link.state = "static"
        link.expires_ns = NEVER_NS
        space.take(link)
        self.events.append(Linked(link))
        return link

    def _fall_back(self, link: Link) -> None:
        """What the inside endpoint of a forward that is gone sends takes the link that it had before, if it lives."""
        space = self._spaces[link.egress][link.protocol]
        for other in space.by_port.values():
            if (other.inside, other.inside_port) == (link.inside, link.inside_port):
                space.by_inside[endpoint_key(link.inside, link.inside_port)] = other
                return


def _other_key(egress: Egress, protocol: int, remote: int) -> int:
    """An address-only link as one integer."""
    return egress << 40 | protocol << 32 | remote
