# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
"""The sessions of all TCP links, compiled: `alias.sessions.Sessions` on records.

A link with one session, as nearly every link has, keeps it in its own record. Where there are several, all of them come
from a pool that grows, in the order in which they were made.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, realloc

from alias.compiled.machine cimport (
    ACK, ANSWERED, CLOSED, EST, FIN, INIT, PICKED, PICKED_FIN, RST, SAME, SHIFT, SYN, TRANS, WIDEST_SHIFT, Segment,
    Session, agree_window, event_in, event_out, is_established, is_half_closed, is_valid_reset, learn_window,
    next_state, note_fin, read_segment,
)
from alias.compiled.records cimport FINISHED, OPEN, RESET_QUIET, STATIC, STILL_OPEN, Record, Records
from alias.compiled.rows cimport NOBODY
from alias.compiled.spaces cimport address_t

from alias import sessions, types

cdef int COARSE_BITS = types.COARSE_BITS
cdef uint32_t PER_LINK = sessions.PER_LINK
cdef tuple LABELS = sessions.LABELS + ("",) * (OPEN - len(sessions.LABELS)) + ("open", "static")


cdef class Connections(Records):
    """Links and what is known of their connections."""

    def __cinit__(self, *_, **__):
        self._session_free = NOBODY

    def __dealloc__(self):
        free(self._sessions)

    @property
    def allocated_bytes(self):
        """Of all arrays, used or not."""
        return self._allocated_bytes() + self._session_capacity * sizeof(Session)

    def longest(self, uint32_t number):
        """See `alias.sessions.longest`."""
        cdef Session session
        cdef uint32_t head = self._records[number].sessions
        if not self._longest(number, &session):
            return 0, 0, PICKED, WIDEST_SHIFT, False
        has_others = head != NOBODY and self._sessions[head].following != NOBODY
        return session.remote, session.remote_port, session.state, session.scale & SHIFT, has_others

    cdef bint _session(self, uint32_t number, address_t remote, uint16_t port, Session *session) noexcept nogil:
        """A copy of the session with a remote endpoint, expired or not; False where there is none."""
        cdef Record *record = &self._records[number]
        cdef uint32_t at = record.sessions
        if at == NOBODY:
            if record.state == OPEN or record.remote != remote or record.remote_port != port:
                return False
            return self._longest(number, session)
        while at != NOBODY:
            session[0] = self._sessions[at]
            if session.remote == remote and session.remote_port == port:
                return True
            at = session.following
        return False

    cdef bint _longest(self, uint32_t number, Session *session) noexcept nogil:
        """A copy of the session that lives longest; False where there is none."""
        cdef Record *record = &self._records[number]
        cdef uint32_t at = record.sessions
        if at == NOBODY:
            session[0] = Session(record.remote, record.remote_port, record.state, record.scale, record.sent,
                                 record.received, record.acknowledged, record.edge, record.expires_ns, NOBODY)
            return record.state != OPEN and record.state != STATIC
        session[0] = self._sessions[at]
        while at != NOBODY:
            if self._sessions[at].expires_ns > session.expires_ns:
                session[0] = self._sessions[at]
            at = self._sessions[at].following
        return True

    cdef uint32_t _new_session(self) except? 0xFFFFFFFF:
        cdef uint32_t count, number
        cdef Session *grown
        if self._session_free == NOBODY:
            count = 2 * self._session_capacity or 256
            grown = <Session *>realloc(self._sessions, count * sizeof(Session))
            if grown == NULL:
                raise MemoryError
            self._sessions = grown
            for number in range(self._session_capacity, count):
                grown[number].following = self._session_free
                self._session_free = number
            self._session_capacity = count
        number = self._session_free
        self._session_free = self._sessions[number].following
        return number

    cdef void _forget_sessions(self, uint32_t number) noexcept nogil:
        cdef Record *record = &self._records[number]
        cdef uint32_t at = record.sessions, following
        while at != NOBODY:
            following = self._sessions[at].following
            self._sessions[at].following = self._session_free
            self._session_free = at
            at = following
            if at != NOBODY:
                self._more_sessions -= 1
        record.sessions = NOBODY

    cdef bint _has_room(self, uint32_t number, int64_t now) noexcept nogil:
        """Whether one more session may be kept; the expired ones of the link give way."""
        cdef Record *record = &self._records[number]
        cdef uint32_t at = record.sessions, following, live = 0
        cdef uint32_t *link
        if at == NOBODY:
            if record.state == OPEN:
                return True
            if record.expires_ns <= now:
                record.state = OPEN
                return True
            return self._more_sessions < self._max_links
        while at != NOBODY:
            live += self._sessions[at].expires_ns > now
            at = self._sessions[at].following
        if not live:
            self._forget_sessions(number)
            record.state = OPEN
            return True
        link = &record.sessions
        while link[0] != NOBODY:
            at = link[0]
            following = self._sessions[at].following
            if self._sessions[at].expires_ns > now:
                link = &self._sessions[at].following
                continue
            link[0] = following
            self._sessions[at].following = self._session_free
            self._session_free = at
            self._more_sessions -= 1
        return live < PER_LINK and self._more_sessions < self._max_links

    cdef int _step(self, uint32_t number, Session *session, uint8_t event, int64_t now,
                   const Segment *segment) except -1:
        """One move of the machine; 1 where the expiry of the link has moved closer."""
        cdef uint8_t state = next_state(session.state, event)
        cdef int64_t floor_ns = 0
        if state == SAME:
            return 0
        if segment != NULL and (is_half_closed(state) or state == CLOSED):
            state = note_fin(session, state, event, segment)
        if state == session.state:
            floor_ns = session.expires_ns
        session.state = state
        return self._keep(number, session, now, floor_ns)

    cdef int _keep(self, uint32_t number, Session *session, int64_t now, int64_t floor_ns) except -1:
        """Store the session with its timer restarted, and derive the link's state and expiry."""
        cdef Record *record = &self._records[number]
        cdef int64_t before = session.expires_ns, expires_ns
        cdef uint32_t at, last
        cdef bint is_single, is_closer
        expires_ns = max(now + (self._established_ns if is_established(session.state) else self._transitory_ns),
                         floor_ns)
        session.expires_ns = expires_ns
        is_single = record.sessions == NOBODY and (
            record.state == OPEN or (record.remote == session.remote and record.remote_port == session.remote_port))
        if is_single:
            record.remote, record.remote_port, record.scale = session.remote, session.remote_port, session.scale
            record.sent, record.received = session.sent, session.received
            record.acknowledged, record.edge = session.acknowledged, session.edge
        else:
            if record.sessions == NOBODY:
                at = self._new_session()
                self._longest(number, &self._sessions[at])
                record.sessions = at
            at, last = record.sessions, NOBODY
            while at != NOBODY and (self._sessions[at].remote != session.remote
                                    or self._sessions[at].remote_port != session.remote_port):
                last, at = at, self._sessions[at].following
            if at == NOBODY:
                at = self._new_session()
                session.following = NOBODY
                self._sessions[last].following = at
                self._more_sessions += 1
            else:
                session.following = self._sessions[at].following
            self._sessions[at] = session[0]
        if record.closing or session.state == CLOSED or session.state == TRANS:
            self._judge(number, session.state, now)
        if expires_ns >= record.expires_ns or is_single:
            is_closer = expires_ns < record.expires_ns
            self._tell(number, session.state, expires_ns)
            return is_closer
        if before < record.expires_ns:
            return 0
        self._longest(number, session)
        is_closer = session.expires_ns < record.expires_ns
        self._tell(number, session.state, session.expires_ns)
        return is_closer

    cdef int _tell(self, uint32_t number, uint8_t state, int64_t expires_ns) except -1:
        """Let the link say what its longest-living session says."""
        cdef Record *record = &self._records[number]
        if LABELS[state] is not LABELS[record.state] or (expires_ns ^ record.expires_ns) >> COARSE_BITS:
            self._note(number)
        record.state = state
        record.expires_ns = expires_ns
        return 0

    cdef int _tcp_out(self, uint32_t number, packet, int64_t now) except -1:
        """See `Sessions.outbound`."""
        cdef const uint8_t[::1] data = packet.data
        cdef address_t remote = packet.destination
        cdef uint16_t port = packet.destination_port
        cdef Segment segment
        cdef Session session
        read_segment(&data[0], <uint32_t>data.shape[0], packet.header_bytes, &segment)
        if self._session(number, remote, port, &session) and now < session.expires_ns:
            if not segment.flags & RST:
                learn_window(&session, &segment)
            return self._step(number, &session, event_out(&segment), now, &segment)
        if segment.flags & RST:
            return 0
        session = Session(remote, port, PICKED, 0, 0, 0, 0, 0, 0, NOBODY)
        if segment.flags & SYN:
            session.state = ANSWERED if segment.flags & ACK else INIT
        else:
            session.state = PICKED_FIN if segment.flags & FIN else PICKED
            session.sent = segment.sequence + segment.length
            session.scale = WIDEST_SHIFT
        learn_window(&session, &segment)
        if not self._has_room(number, now):
            session = Session(0, 0, EST, 0, 0, 0, 0, 0, 0, NOBODY)
        return self._keep(number, &session, now, 0)

    cdef int _tcp_in(self, uint32_t number, packet, int64_t now) except -1:
        """See `Sessions.inbound`."""
        cdef const uint8_t[::1] data = packet.data
        cdef Segment segment
        cdef Session session
        if not self._session(number, packet.source, packet.source_port, &session) or now >= session.expires_ns:
            return 0
        read_segment(&data[0], <uint32_t>data.shape[0], packet.header_bytes, &segment)
        if segment.flags & RST:
            if not is_valid_reset(&session, &segment):
                return 0
        elif segment.flags & SYN and (session.state == INIT or session.state == ANSWERED):
            agree_window(&session, &segment)
        return self._step(number, &session, event_in(&segment), now, &segment)

    cdef int _judge(self, uint32_t number, uint8_t state, int64_t now) except -1:
        """How the connections of a link are closed. `state`: of the session that was looked at last."""
        cdef Record *record = &self._records[number]
        cdef uint8_t closing = FINISHED if state == CLOSED else RESET_QUIET if state == TRANS else STILL_OPEN
        cdef uint32_t at = record.sessions
        if closing and at != NOBODY:
            closing = FINISHED
            while at != NOBODY:
                if self._sessions[at].expires_ns > now:
                    state = self._sessions[at].state
                    if state == TRANS:
                        closing = RESET_QUIET
                    elif state != CLOSED:
                        closing = STILL_OPEN
                        break
                at = self._sessions[at].following
        return self._close(number, closing, now)

    def _restore_sessions(self, uint32_t number, kept, int64_t now):
        """See `Sessions.restore`."""
        cdef Record *record = &self._records[number]
        cdef uint8_t state = kept.state
        cdef bint is_over
        cdef uint32_t at
        if state == INIT or state == ANSWERED:
            state = PICKED
        is_over = state == CLOSED or state == TRANS
        record.remote, record.remote_port = kept.remote, kept.remote_port
        record.scale = kept.scale & SHIFT
        record.state = state
        record.expires_ns = min(<int64_t>kept.expires_ns,
                                now + (self._established_ns if is_established(state) else self._transitory_ns))
        if kept.has_others and (record.remote or record.remote_port) and self._more_sessions < self._max_links:
            at = self._new_session()
            self._sessions[at] = Session(0, 0, PICKED if is_over else state, 0, 0, 0, 0, 0, record.expires_ns, NOBODY)
            record.sessions = self._new_session()
            record = &self._records[number]
            self._sessions[record.sessions] = Session(record.remote, record.remote_port, state, record.scale, 0, 0, 0,
                                                      0, record.expires_ns, at)
            self._more_sessions += 1
        if is_over:
            self._judge(number, state, now)
