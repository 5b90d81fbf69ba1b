"""The links as Python objects: `alias.types.Store` where nothing was compiled, and the oracle of what was.

`_Space.by_inside` knows no remote (RFC 4787 REQ-1). Timers: `_refresh` (REQ-5, 6), `_answered` (REQ-5a),
`alias.sessions` (RFC 5382 REQ-5). `alias.limits`, `alias.closed` (RFC 6888 REQ-4, 11), `alias.ports` (REQ-8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from alias import remotes
from alias.changes import Changes
from alias.draws import Draws
from alias.expiry import Expiry
from alias.limits import Limits
from alias.ports import PortSpace, endpoint_key
from alias.remotes import Remotes, admits
from alias.sessions import Sessions
from alias.types import (
    ANSWERED,
    ASKED,
    AT_ONCE,
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
    Unlinked,
)
from wire.drop import Drop
from wire.ipv4 import ICMP, ICMP_QUERIES, ICMP_QUERY_REQUESTS, TCP, UDP, Packet
from wire.tcp import ACK, RST, Segment

_FLAGS_OFFSET = 13  # of the TCP header
_WITH_PORTS = (TCP, UDP, ICMP)


class PlainStore:
    """`alias.types.Store`."""

    compiled = False

    def __init__(self, settings: AliasSettings, draws: Draws, events: deque[Linked | Unlinked]) -> None:
        self.events = events
        self.tells = True
        self.changes: Changes[Link] = Changes()
        self.latest_ns = 0
        self._draws = draws
        self._spaces = {
            egress: {protocol: PortSpace(has_classes=protocol != ICMP) for protocol in _WITH_PORTS} for egress in Egress
        }
        self._others: dict[int, Link] = {}  # address-only links, see `_other_key`
        self._limits = Limits(settings)
        self._expiry = Expiry()
        self._sessions = Sessions(0, 0, 0, self.changes)
        self._remotes = Remotes(0)
        self.apply(settings)

    def apply(self, settings: AliasSettings) -> None:
        """See `Store`."""
        self.settings = self._limits.settings = settings
        self._by_address = settings.filtering == "address-dependent"
        self._sessions.established_ns = settings.tcp_established_ns
        self._sessions.transitory_ns = settings.tcp_transitory_ns
        self._sessions.limit = settings.max_links
        self._remotes.limit = max(4 * settings.max_links, remotes.PER_LINK)

    # Packets

    def outbound(self, egress: Egress, packet: Packet, now: int) -> Link | Drop:
        """See `Store`."""
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
            self.end(link, now)
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
        return link

    def inbound(self, egress: Egress, packet: Packet, now: int, *, hairpin: bool = False) -> Link | Drop:
        """See `Store`."""
        protocol = packet.protocol
        if protocol == ICMP and packet.data[packet.header_bytes] not in ICMP_QUERIES:
            return Drop.ICMP_TYPE
        link = self.by_outside(egress, protocol, packet.destination_port, packet.source)
        if link is None:
            return Drop.ALIAS_NO_LINK
        if now >= link.expires_ns:
            self.end(link, now)
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
        """See `Store`."""
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
        """See `Store`."""
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
        """See `Store`."""
        return link.protocol == TCP and self._sessions.is_half_closed(link, remote, remote_port)

    def by_outside(self, egress: Egress, protocol: int, outside_port: int, remote: int) -> Link | None:
        """See `Store`."""
        space = self._spaces[egress].get(protocol)
        if space is None:
            return self._others.get(_other_key(egress, protocol, remote))
        return space.by_port.get(outside_port)

    def by_inside(self, egress: Egress, protocol: int, inside: int, inside_port: int, remote: int) -> Link | None:
        """See `Store`."""
        space = self._spaces[egress].get(protocol)
        if space is None:
            link = self._others.get(_other_key(egress, protocol, remote))
            return link if link is not None and link.inside == inside else None
        return space.by_inside.get(inside << 16 | inside_port)

    def marks(self, egress: Egress, protocol: int) -> bytearray:
        """See `Store`."""
        return self._spaces[egress][protocol].marks

    # Time

    def due(self, now: int) -> list[Unlinked]:
        """See `Store`."""
        self.latest_ns = max(self.latest_ns, now)
        ended = [self._ended(link, now) for link in self._expired(now)]
        return ended if self.tells else []

    def _expired(self, now: int) -> list[Link]:
        """The links that have expired, out of the calendar; where many expire at once in an order of their own."""
        expired = self._expiry.due(now)
        if len(expired) > 1:
            expired.sort(key=lambda link: (link.expires_ns, link.egress, link.protocol, link.outside_port, link.remote))
        return expired

    def next_deadline(self) -> int | None:
        """See `Store`."""
        return self._expiry.next_deadline()

    # All of them

    def __len__(self) -> int:
        return self._limits.count

    def links(self, now: int) -> Iterator[Link]:
        """See `Store`."""
        for spaces in self._spaces.values():
            for space in spaces.values():
                yield from [link for _, link in sorted(space.by_port.items()) if now < link.expires_ns]
        yield from [link for _, link in sorted(self._others.items()) if now < link.expires_ns]

    @property
    def insides(self) -> list[int]:
        """See `Store`."""
        return list(self._limits.hosts)

    def flush(self, insides: Collection[int] | None, now: int, egress: Egress | None) -> int:
        """See `Store`."""
        ended = [
            link
            for link in self.links(0)
            if link.expires_ns != NEVER_NS
            and (insides is None or link.inside in insides)
            and (egress is None or link.egress is egress)
        ]
        for link in ended:
            self.end(link, now)
        self._expiry = Expiry()  # a calendar that does not keep the ended ones in memory
        for link in self.links(0):
            link.due = None
            if link.expires_ns != NEVER_NS:
                self._expiry.arm(link)
        return len(ended)

    # Links that outlive the process

    def restore(self, kept: Saved, now: int) -> Link | None:
        """See `Store`."""
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
        self.latest_ns = max(self.latest_ns, now)
        self._expiry.arm(link)
        if self.changes.is_wanted:
            self.changes.note(link)
        return link

    def rest(self, ended: Saved, until_ns: int) -> None:
        """See `Store`."""
        space = self._spaces[ended.egress].get(ended.protocol)
        if space is not None:
            space.rest(ended.outside_port, endpoint_key(ended.inside, ended.inside_port), until_ns)

    # Making and ending links

    def _open(self, egress: Egress, packet: Packet, space: PortSpace | None, now: int) -> Link | Drop:
        """A new link for a packet from inside, not armed yet."""
        self.latest_ns = now
        protocol = packet.protocol
        refusal = self._limits.refusal(packet.source, space)
        if refusal is not None:
            for expired in self._expired(now):
                self.end(expired, now)
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
            outside_port = space.allocate(key, inside_port, self._draws, now, only_spent=is_short)
            if outside_port is None and protocol == TCP and self._give_way(egress, inside, inside_port, now):
                outside_port = space.allocate(key, inside_port, self._draws, now, only_spent=True)
            if outside_port is None:
                return Drop.ALIAS_NO_PORT
            link = Link(egress, protocol, inside, inside_port, outside_port, 0, now)
            space.take(link)
            space.by_inside[key] = link
            if protocol == UDP and packet.destination_port in QUESTION_PORTS:
                link.question = ASKED
        self._limits.add(host)
        if self.tells:
            self.events.append(Linked(link))
        if self.changes.is_wanted:
            self.changes.note(link)
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
            self.end(link, now)
        return self._limits.refusal(inside, space)

    def _give_way(self, egress: Egress, inside: int, inside_port: int, now: int) -> bool:
        """End the closed link of the same address and port class, which leaves its port; False where there is none."""
        link = self._sessions.closed.longest_of_class(inside, egress, now, is_low=inside_port < 1024)
        if link is None:
            return False
        self.end(link, now)
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
        if self.changes.is_wanted and (expires_ns ^ link.expires_ns) >> COARSE_BITS:
            self.changes.note(link)
        link.expires_ns = expires_ns

    def end(self, link: Link, now: int) -> None:
        """See `Store`."""
        ended = self._ended(link, now)
        if self.tells:
            self.events.append(ended)

    def _ended(self, link: Link, now: int) -> Unlinked:
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
            if self.changes.is_wanted:
                self.changes.note(link)
            self._limits.remove(link.inside)
        return Unlinked(link)

    # Static forwards and reserved ports

    def reserve(self, egress: Egress, protocol: int, ports: Iterable[int]) -> None:
        """See `Store`."""
        self._spaces[egress][protocol].reserve(ports)

    def listen(self, egress: Egress, protocol: int, port: int) -> None:
        """See `Store`."""
        self._spaces[egress][protocol].listen(port)

    def make_static(self, forward: Forward, now: int) -> Link:
        """See `Store`."""
        space = self._spaces[forward.on][forward.protocol]
        evicted = space.by_port.get(forward.outside_port)
        if evicted is not None:
            self.end(evicted, now)
        link = Link(forward.on, forward.protocol, forward.inside, forward.inside_port, forward.outside_port, 0, now)
        link.state = "static"
        link.expires_ns = NEVER_NS
        space.take(link)
        return link

    def prefer(self, link: Link) -> None:
        """See `Store`."""
        self._spaces[link.egress][link.protocol].by_inside[endpoint_key(link.inside, link.inside_port)] = link

    def fall_back(self, link: Link) -> None:
        """See `Store`."""
        for _, other in sorted(self._spaces[link.egress][link.protocol].by_port.items()):
            if (other.inside, other.inside_port) == (link.inside, link.inside_port):
                self.prefer(other)
                return


def _other_key(egress: Egress, protocol: int, remote: int) -> int:
    """An address-only link as one integer."""
    return egress << 40 | protocol << 32 | remote
