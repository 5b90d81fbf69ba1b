# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
"""TCP inside a link, compiled. The transitions are those of the one table in `alias.sessions`, handed over as bytes.

The functions carry the names that they have there, and say the same of the same segments.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from alias import sessions

cdef uint8_t TABLE[STATES * EVENTS]
cdef const uint8_t[::1] _table = sessions.TABLE
assert _table.shape[0] == STATES * EVENTS, "alias.sessions has other states or events"
memcpy(TABLE, &_table[0], STATES * EVENTS)


cdef inline uint32_t load16(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 8 | at[1]


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef inline bint is_after(uint32_t one, uint32_t other) noexcept nogil:
    """RFC 9293 3.4."""
    return 0 < <int32_t>(one - other)


cdef uint8_t next_state(uint8_t state, uint8_t event) noexcept nogil:
    return TABLE[state * EVENTS + event]


cdef bint is_established(uint8_t state) noexcept nogil:
    return EST <= state <= OUT_FIN


cdef bint is_half_closed(uint8_t state) noexcept nogil:
    return IN_FIN <= state <= BOTH_FIN or state == PICKED_FIN


cdef void read_segment(const uint8_t *data, uint32_t size, uint32_t header_bytes, Segment *segment) noexcept nogil:
    """`wire.tcp.read`, for a TCP header of 20 bytes at least."""
    cdef const uint8_t *tcp = data + header_bytes
    cdef uint32_t offset = (tcp[12] >> 4) * 4, at, end, kind, length
    segment.sequence = load32(tcp + 4)
    segment.acknowledgment = load32(tcp + 8)
    segment.flags = tcp[13]
    segment.window = load16(tcp + 14)
    segment.length = size - header_bytes - offset if size > header_bytes + offset else 0
    segment.scale = NO_SCALE
    if segment.flags & FIN:
        segment.length += 1
    if not segment.flags & SYN:
        return
    segment.length += 1
    at, end = header_bytes + 20, min(header_bytes + offset, size)
    while at < end:
        kind = data[at]
        if kind == 0:
            return
        if kind == 1:
            at += 1
            continue
        length = data[at + 1] if at + 1 < end else 0
        if length < 2 or at + length > end:
            return
        if kind == 3:
            if length == 3:
                segment.scale = min(data[at + 2], WIDEST_SHIFT)
            return
        at += length


cdef void learn_window(Session *session, const Segment *segment) noexcept nogil:
    cdef uint32_t edge
    if segment.flags & SYN:
        session.sent = segment.sequence + segment.length
        session.scale = 0 if segment.scale == NO_SCALE else segment.scale
        session.edge = segment.window
        if segment.flags & ACK:
            session.acknowledged = segment.acknowledgment
            session.edge = segment.acknowledgment + segment.window
            session.scale |= KNOWN
        return
    if not segment.flags & ACK:
        return
    edge = segment.acknowledgment + (<uint32_t>segment.window << (session.scale & SHIFT))
    if not session.scale & KNOWN:
        session.acknowledged = segment.acknowledgment
        session.edge = edge
        session.scale |= KNOWN
        return
    if is_after(segment.acknowledgment, session.acknowledged):
        session.acknowledged = segment.acknowledgment
    if is_after(edge, session.edge):
        session.edge = edge


cdef void agree_window(Session *session, const Segment *segment) noexcept nogil:
    if segment.scale == NO_SCALE:
        session.scale &= ~SHIFT & 0xFF
    if not session.scale & KNOWN:
        session.acknowledged = segment.sequence + segment.length
        session.edge = session.acknowledged + session.edge
        session.scale |= KNOWN


cdef bint is_valid_reset(const Session *session, const Segment *segment) noexcept nogil:
    if not session.scale & KNOWN:
        return segment.flags & ACK and segment.acknowledgment == session.sent
    return <uint32_t>(segment.sequence - session.acknowledged) <= <uint32_t>(session.edge - session.acknowledged)


cdef uint8_t note_fin(Session *session, uint8_t state, uint8_t event, const Segment *segment) noexcept nogil:
    cdef uint32_t end = segment.sequence + segment.length
    if event == FIN_OUT and end != session.sent:
        session.sent = end
        session.scale &= ~OUT_ACKED & 0xFF
    elif event == FIN_IN and end != session.received:
        session.received = end
        session.scale &= ~IN_ACKED & 0xFF
    if state != BOTH_FIN or not segment.flags & ACK:
        return state
    if event <= OUT:
        if segment.acknowledgment == session.received:
            session.scale |= IN_ACKED
    elif segment.acknowledgment == session.sent:
        session.scale |= OUT_ACKED
    return CLOSED if session.scale & IN_ACKED and session.scale & OUT_ACKED else state


cdef uint8_t event_out(const Segment *segment) noexcept nogil:
    if segment.flags & RST:
        return RESET
    if segment.flags & SYN:
        return SYN_ACK_OUT if segment.flags & ACK else SYN_OUT
    return FIN_OUT if segment.flags & FIN else OUT


cdef uint8_t event_in(const Segment *segment) noexcept nogil:
    if segment.flags & RST:
        return RESET
    if segment.flags & SYN:
        return SYN_ACK_IN if segment.flags & ACK else SYN_IN
    return FIN_IN if segment.flags & FIN else IN
