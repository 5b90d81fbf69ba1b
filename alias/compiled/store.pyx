# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
"""The compiled store of links: `alias.types.Store` on the records of `alias.compiled.records` and `alias.compiled.connections`.

`alias.plain` says the same with Python objects, and is the oracle: for the same calls both give the same links, events,
ports and refusals (tests/alias/test_alias_stores.py).
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from alias.compiled.connections cimport Connections
from alias.compiled.machine cimport (
    ACK, BOTH_FIN, IN, NO_SCALE, OUT, RST, Segment, Session, is_half_closed, learn_window,
)
from alias.compiled.records cimport EGRESSES, ICMP, SLOTS, STATIC, TCP, UDP, Record, space_of
from alias.compiled.rows cimport NOBODY
from alias.compiled.spaces cimport NO_PORT, Space, address_t

from alias import remotes, types
from alias.types import Linked
from wire.drop import Drop

cdef enum:
    NO_QUESTION = 0, ASKED, ANSWERED  # `Record.question`
    STATIC_ROOM = 64
    PORTS = 65_536

cdef int64_t NEVER_NS = types.NEVER_NS
cdef int COARSE_BITS = types.COARSE_BITS
cdef int AT_ONCE = types.AT_ONCE
cdef tuple PROTOCOLS = (TCP, UDP, ICMP)
NO_LINK, FILTERED, NO_STATE = Drop.ALIAS_NO_LINK, Drop.ALIAS_FILTERED, Drop.ALIAS_NO_STATE
NO_PORT_LEFT, HOST_LIMIT = Drop.ALIAS_NO_PORT, Drop.ALIAS_HOST_LIMIT
PROTOCOL_TAKEN, ICMP_TYPE = Drop.ALIAS_PROTOCOL_TAKEN, Drop.ICMP_TYPE


cdef inline bint is_query(uint8_t kind) noexcept nogil:
    return kind in (0, 8, 13, 14, 15, 16, 17, 18)


cdef inline bint is_request(uint8_t kind) noexcept nogil:
    return kind in (8, 13, 15, 17)


cdef inline bint asks(uint32_t port) noexcept nogil:
    return port == 53 or port == 123


class _Known:
    """The remotes of one link, for `alias.remotes`."""

    __slots__ = ("remotes",)

    def __init__(self):
        self.remotes = None


cdef class CompiledStore(Connections):
    """`alias.types.Store`."""

    compiled = True

    def __init__(self, settings, draws, events, seed=0):
        self.apply(settings)

    def apply(self, settings):
        """See `Store`."""
        if settings.max_links + STATIC_ROOM > self._capacity:
            self._grow(settings.max_links + STATIC_ROOM)
        self.settings = settings
        self._by_address = settings.filtering == "address-dependent"
        self._refresh_inbound = settings.refresh_inbound
        self._established_ns = settings.tcp_established_ns
        self._transitory_ns = settings.tcp_transitory_ns
        self._udp_ns, self._icmp_ns = settings.udp_timeout_ns, settings.icmp_timeout_ns
        self._question_ns = settings.question_timeout_ns
        self._max_links, self._max_links_per_host = settings.max_links, settings.max_links_per_host
        self._hosts_wanted = settings.hosts
        self._remotes.limit = max(4 * settings.max_links, remotes.PER_LINK)

    def due(self, now):
        """See `Store`."""
        cdef list told = []
        self.latest_ns = max(self.latest_ns, <int64_t>now)
        for number in self._due(now):
            self._end(number, now, told)
        return told

    def next_deadline(self):
        """See `Store`."""
        cdef int64_t second = self._first_slot()
        near = self._near[0][0] if self._near else None
        if second < 0:
            return near
        far = self._earliest[second % SLOTS]
        return far if near is None or far < near else near

    # Packets

    def outbound(self, egress, packet, now):
        """See `Store`."""
        cdef uint8_t on = egress, protocol = packet.protocol, flags = 0, kind
        cdef Space space = self._space(on, protocol)
        cdef int64_t now_ns = now
        cdef bint is_request_ = True, is_new
        cdef const uint8_t[::1] data = packet.data
        cdef uint32_t number
        cdef Record *record
        if space is None:
            number = self._find(on, protocol, packet.destination, 0)
        else:
            number = self._find(on, protocol, packet.source, packet.source_port)
            if protocol == TCP:
                flags = data[packet.header_bytes + 13]
            elif protocol == ICMP:
                kind = data[packet.header_bytes]
                if not is_query(kind):
                    return NO_STATE
                is_request_ = is_request(kind)
        if number != NOBODY and now_ns >= self._records[number].expires_ns:
            self._end(number, now_ns, None)
            number = NOBODY
        is_new = number == NOBODY
        if is_new:
            if flags & RST or not is_request_:
                return NO_STATE
            refused = self._open(on, packet, space, now_ns, &number)
            if refused is not None:
                return refused
        elif space is None and self._records[number].inside != <address_t>packet.source:
            return PROTOCOL_TAKEN
        record = &self._records[number]
        record.last_ns = now_ns
        record.packets += 1
        record.size_bytes += data.shape[0]
        if record.state != STATIC:
            if protocol == TCP:
                if self._tcp_out(number, packet, now_ns):
                    self._arm(number)
            elif is_request_:
                if record.question and not asks(packet.destination_port):
                    record.question = NO_QUESTION
                self._refresh(number, now_ns)
            if self._by_address and not flags & RST:
                self._note_remote(number, packet.destination)
            if is_new:
                self._arm(number)
        return self._view(number)

    def inbound(self, egress, packet, now, *, hairpin):
        """See `Store`."""
        cdef uint8_t on = egress, protocol = packet.protocol
        cdef Space space = self._space(on, protocol)
        cdef int64_t now_ns = now
        cdef const uint8_t[::1] data = packet.data
        cdef uint32_t number
        cdef Record *record
        if protocol == ICMP and not is_query(data[packet.header_bytes]):
            return ICMP_TYPE
        number = self._find(on, protocol, packet.source, 0) if space is None else (
            space.owners[<uint16_t>packet.destination_port] - 1)
        if number == NOBODY:
            return NO_LINK
        record = &self._records[number]
        if now_ns >= record.expires_ns:
            self._end(number, now_ns, None)
            return NO_LINK
        if self._by_address and not hairpin and record.state != STATIC and not self._admits(number, packet.source):
            return FILTERED
        record.last_ns = now_ns
        record.packets += 1
        record.size_bytes += data.shape[0]
        if protocol == TCP:
            if record.state != STATIC and self._tcp_in(number, packet, now_ns):
                self._arm(number)
        elif protocol != ICMP and record.state != STATIC:
            self._answered(number, packet.source_port, now_ns)
        return self._view(number)

    def confirm(self, link, now, *, outbound, packets, size_bytes, remote, remote_port, acknowledgment, window):
        """See `Store`."""
        cdef uint32_t number = self._number_of(link)
        cdef int64_t now_ns = now
        cdef bint is_outbound = outbound
        cdef Record *record
        cdef Segment segment
        cdef Session session
        if number == NOBODY or now_ns >= self._records[number].expires_ns:
            return
        record = &self._records[number]
        record.last_ns = max(record.last_ns, now_ns)
        record.packets += <uint64_t>packets
        record.size_bytes += <uint64_t>size_bytes
        if record.state == STATIC:
            return
        if is_outbound and self._by_address:
            self._note_remote(number, remote)
        if record.protocol == TCP:
            if not self._session(number, remote, remote_port, &session) or now_ns >= session.expires_ns:
                return
            if is_outbound and acknowledgment is not None:
                segment = Segment(0, acknowledgment, 0, window, ACK, NO_SCALE)
                learn_window(&session, &segment)
            if self._step(number, &session, OUT if is_outbound else IN, now_ns, NULL):
                self._arm(number)
        elif is_outbound:
            self._refresh(number, now_ns)
        elif record.protocol != ICMP:
            self._answered(number, remote_port, now_ns)

    def holds_until(self, link, remote, remote_port, now, *, outbound):
        """See `Store`."""
        cdef uint32_t number = self._number_of(link)
        cdef int64_t now_ns = now
        cdef Record *record
        cdef Session session
        cdef bint is_known = False
        if number == NOBODY:
            return 0
        record = &self._records[number]
        if record.protocol == TCP:
            is_known = self._session(number, remote, remote_port, &session)
            if is_known and session.state == BOTH_FIN:
                return 0
        if record.question == ASKED:
            return min(record.expires_ns, now_ns + self._question_ns)
        if outbound or record.state == STATIC:
            return record.expires_ns
        if self._by_address and number not in self.remotes_of:
            return 0
        if record.protocol == TCP:
            return min(record.expires_ns, session.expires_ns) if is_known and now_ns < session.expires_ns else 0
        return record.expires_ns

    def is_half_closed(self, link, remote, remote_port):
        """See `Store`."""
        cdef uint32_t number = self._number_of(link)
        cdef Session session
        if number == NOBODY or self._records[number].protocol != TCP:
            return False
        return self._session(number, remote, remote_port, &session) and is_half_closed(session.state)

    def by_outside(self, egress, protocol, outside_port, remote):
        """See `Store`."""
        cdef Space space = self._space(egress, protocol)
        cdef uint32_t number = self._find(egress, protocol, remote, 0) if space is None else (
            space.owners[<uint16_t>outside_port] - 1)
        return None if number == NOBODY else self._view(number)

    def by_inside(self, egress, protocol, inside, inside_port, remote):
        """See `Store`."""
        cdef Space space = self._space(egress, protocol)
        cdef uint32_t number = self._find(egress, protocol, remote if space is None else inside,
                                          0 if space is None else inside_port)
        if number == NOBODY or (space is None and self._records[number].inside != <address_t>inside):
            return None
        return self._view(number)

    def marks(self, egress, protocol):
        """See `Store`."""
        return self._space(egress, protocol).marks

    # Making links

    cdef object _open(self, uint8_t egress, packet, Space space, int64_t now, uint32_t *number):
        """A new link for a packet from inside, not armed yet; else why there is none."""
        cdef uint8_t protocol = packet.protocol
        cdef address_t inside = packet.source, remote = packet.destination
        cdef uint16_t inside_port = packet.source_port
        cdef uint32_t closed_one, port = 0
        cdef object refusal = self._refusal(inside, space)
        self.latest_ns = now
        if refusal is not None:
            for expired in self._due(now):
                self._end(expired, now, None)
            refusal = self._make_room(inside, space, now)
            if refusal is not None and refusal is not NO_PORT_LEFT:
                return refusal
        if space is None:
            number[0] = self._new(egress, protocol, inside, 0, 0, remote, now)
        else:
            port = space.allocate(inside, inside_port, now, refusal is not None)
            if port == NO_PORT and protocol == TCP:
                closed_one = self._longest_closed_of(inside, egress, inside_port < 1024, now)
                if closed_one != NOBODY:
                    self._end(closed_one, now, None)
                    port = space.allocate(inside, inside_port, now, True)
            if port == NO_PORT:
                return NO_PORT_LEFT
            number[0] = self._new(egress, protocol, inside, inside_port, port, 0, now)
            space.take(port, number[0])
            if protocol == UDP and asks(packet.destination_port):
                self._records[number[0]].question = ASKED
        self._insert(number[0])
        self._add_host(number[0], now)
        if self.tells:
            self.events.append(Linked(self._view(number[0])))
        self._note(number[0])
        return None

    cdef object _make_room(self, address_t inside, Space space, int64_t now):
        """See `alias.plain.PlainStore._make_room`."""
        cdef uint32_t number
        cdef int at
        for at in range(AT_ONCE):
            refusal = self._refusal(inside, space)
            if refusal is None or refusal is NO_PORT_LEFT:
                return refusal
            if refusal is HOST_LIMIT:
                number = self._longest_closed_of(inside, -1, -1, now)
            else:
                number = self._longest_closed(now)
            if number == NOBODY:
                return refusal
            self._end(number, now, None)
        return self._refusal(inside, space)

    cdef int _expires(self, uint32_t number, int64_t expires_ns) except -1:
        cdef Record *record = &self._records[number]
        if (expires_ns ^ record.expires_ns) >> COARSE_BITS:
            self._note(number)
        record.expires_ns = expires_ns
        return 0

    cdef int _refresh(self, uint32_t number, int64_t now) except -1:
        """Restart the timer of a link that is not TCP."""
        cdef Record *record = &self._records[number]
        cdef int64_t timeout_ns = self._icmp_ns if record.protocol == ICMP else self._udp_ns
        if record.question == ANSWERED:
            timeout_ns = min(self._question_ns, self._udp_ns)
        if now + timeout_ns > record.expires_ns:
            self._expires(number, now + timeout_ns)
        return 0

    cdef int _answered(self, uint32_t number, uint32_t remote_port, int64_t now) except -1:
        """A packet from outside for a link that is neither TCP nor ICMP."""
        cdef Record *record = &self._records[number]
        if record.question == ASKED and asks(remote_port):
            record.question = ANSWERED
            if now + self._question_ns < record.expires_ns:
                self._expires(number, now + self._question_ns)
                self._arm(number)
        if self._refresh_inbound:
            self._refresh(number, now)
        return 0

    cdef int _note_remote(self, uint32_t number, address_t remote) except -1:
        known = self.remotes_of.get(number)
        if known is None:
            known = self.remotes_of[number] = _Known()
        self._remotes.note(known, remote)
        return 0

    cdef bint _admits(self, uint32_t number, address_t remote):
        known = self.remotes_of.get(number)
        return known is None or remotes.admits(known, remote)

    # All of them

    def __len__(self):
        return self._count

    def links(self, now):
        """See `Store`."""
        cdef int64_t now_ns = now
        cdef uint32_t number, port
        cdef Space space
        cdef list found = [], others = []
        for egress in range(EGRESSES):
            for protocol in PROTOCOLS:
                space = self._space(egress, protocol)
                for port in range(PORTS):
                    if space.owners[port] and now_ns < self._records[space.owners[port] - 1].expires_ns:
                        found.append(self._view(space.owners[port] - 1))
        for number in range(self._fresh):
            if self._records[number].expires_ns > now_ns and space_of(self._records[number].protocol) < 0:
                others.append((self._records[number].egress, self._records[number].protocol,
                               self._records[number].remote, number))
        others.sort()
        found += [self._view(one[3]) for one in others]
        return iter(found)

    @property
    def insides(self):
        """See `Store`."""
        cdef uint32_t at, number
        cdef list found = []
        if self._host_index != NULL:
            for at in range(self._host_mask + 1):
                number = self._host_index[at]
                while number != NOBODY:
                    found.append(self._hosts[number].address)
                    number = self._hosts[number].following
        return found

    def flush(self, insides, now, egress):
        """See `Store`."""
        cdef list ended = [
            link for link in self.links(0)
            if not link.is_static and (insides is None or link.inside in insides)
            and (egress is None or link.egress is egress)
        ]
        for link in ended:
            self._end(self._number_of(link), now, None)
        return len(ended)

    def end(self, link, now):
        """See `Store`."""
        self._end(self._number_of(link), now, None)

    # Links that outlive the process

    def restore(self, kept, now):
        """See `Store`."""
        cdef uint8_t on = kept.egress, protocol = kept.protocol
        cdef Space space = self._space(on, protocol)
        cdef int64_t now_ns = now, kept_ns = kept.expires_ns
        cdef address_t inside = kept.inside
        cdef uint16_t inside_port = kept.inside_port, port = kept.outside_port
        cdef uint32_t number, named
        cdef Record *record
        if kept_ns <= now_ns or self._exceeded(inside) is not None:
            return None
        if space is None:
            named = self._find(on, protocol, kept.remote, 0)
            if named != NOBODY or inside_port or port:
                return None
        else:
            named = self._find(on, protocol, inside, inside_port)
            if not space.may_take(inside_port, port, now_ns):
                return None
            if named != NOBODY and self._records[named].state != STATIC:
                return None
        number = self._new(on, protocol, inside, inside_port, port, kept.remote if space is None else 0, now_ns)
        record = &self._records[number]
        if space is not None:
            space.take(port, number)
        if named == NOBODY:
            self._insert(number)
        if protocol == TCP:
            self._restore_sessions(number, kept, now_ns)
        else:
            self._refresh(number, now_ns)
            record.expires_ns = min(record.expires_ns, kept_ns)
        if self._by_address and kept.remote:
            self._note_remote(number, kept.remote)
        self._add_host(number, now_ns)
        self.latest_ns = max(self.latest_ns, now_ns)
        self._arm(number)
        self._note(number)
        return self._view(number)

    def rest(self, ended, until_ns):
        """See `Store`."""
        cdef Space space = self._space(ended.egress, ended.protocol)
        if space is not None:
            space.rest(ended.outside_port, ended.inside, ended.inside_port, until_ns)

    # Static forwards and reserved ports

    def reserve(self, egress, protocol, ports):
        """See `Store`."""
        self._space(egress, protocol).reserve(ports)

    def listen(self, egress, protocol, port):
        """See `Store`."""
        self._space(egress, protocol).listen(port)

    def make_static(self, forward, now):
        """See `Store`."""
        cdef Space space = self._space(forward.on, forward.protocol)
        cdef uint16_t port = forward.outside_port
        cdef uint32_t number
        if space.owners[port]:
            self._end(space.owners[port] - 1, now, None)
        number = self._new(forward.on, forward.protocol, forward.inside, forward.inside_port, port, 0, now)
        self._records[number].state = STATIC
        self._records[number].expires_ns = NEVER_NS
        space.take(port, number)
        return self._view(number)

    def prefer(self, link):
        """See `Store`."""
        cdef uint32_t number = self._number_of(link), named
        cdef Record *record = &self._records[number]
        named = self._find(record.egress, record.protocol, record.inside, record.inside_port)
        if named != number:
            if named != NOBODY:
                self._take_out(named)
            self._insert(number)

    def fall_back(self, link):
        """See `Store`."""
        cdef Space space = self._space(link.egress, link.protocol)
        cdef address_t inside = link.inside
        cdef uint16_t inside_port = link.inside_port
        cdef uint32_t port, number
        for port in range(PORTS):
            if space.owners[port]:
                number = space.owners[port] - 1
                if self._records[number].inside == inside and self._records[number].inside_port == inside_port:
                    self.prefer(self._view(number))
                    return
