# cython: language_level=3
"""TCP inside a link, compiled: one session, the table of `alias.sessions`, and the judgement of its segments."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from alias.compiled.spaces cimport address_t

cdef enum:
    FIN = 0x01, SYN = 0x02, RST = 0x04, ACK = 0x10
    # States of a session, as `alias.sessions` numbers them; then those of a link without sessions
    INIT = 0, ANSWERED, EST, IN_FIN, OUT_FIN, BOTH_FIN, TRANS, PICKED, PICKED_FIN, CLOSED, STATES
    OPEN = 14, STATIC = 15
    # Events
    SYN_OUT = 0, SYN_ACK_OUT, FIN_OUT, OUT, SYN_IN, SYN_ACK_IN, FIN_IN, IN, RESET, EVENTS
    SAME = 0xFF
    SHIFT = 0x0F, KNOWN = 0x10, OUT_ACKED = 0x20, IN_ACKED = 0x40  # of `Session.scale`
    WIDEST_SHIFT = 14
    NO_SCALE = 0xFF

cdef struct Segment:
    uint32_t sequence
    uint32_t acknowledgment
    uint32_t length
    uint16_t window
    uint8_t flags
    uint8_t scale           # NO_SCALE where the segment has no such option

cdef struct Session:
    address_t remote
    uint16_t remote_port
    uint8_t state
    uint8_t scale
    uint32_t sent
    uint32_t received
    uint32_t acknowledged
    uint32_t edge
    int64_t expires_ns
    uint32_t following      # of the same link, or the next free one

cdef uint8_t next_state(uint8_t state, uint8_t event) noexcept nogil
cdef bint is_established(uint8_t state) noexcept nogil
cdef bint is_half_closed(uint8_t state) noexcept nogil
cdef void read_segment(const uint8_t *data, uint32_t size, uint32_t header_bytes, Segment *segment) noexcept nogil
cdef void learn_window(Session *session, const Segment *segment) noexcept nogil
cdef void agree_window(Session *session, const Segment *segment) noexcept nogil
cdef bint is_valid_reset(const Session *session, const Segment *segment) noexcept nogil
cdef uint8_t note_fin(Session *session, uint8_t state, uint8_t event, const Segment *segment) noexcept nogil
cdef uint8_t event_out(const Segment *segment) noexcept nogil
cdef uint8_t event_in(const Segment *segment) noexcept nogil
