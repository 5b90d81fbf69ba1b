# cython: language_level=3
"""TCP connections inside the records of links."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from alias.compiled.machine cimport Segment, Session
from alias.compiled.records cimport Records
from alias.compiled.spaces cimport address_t

cdef class Connections(Records):
    cdef Session *_sessions     # where a link has several
    cdef uint32_t _session_capacity, _session_free, _more_sessions
    cdef int64_t _established_ns, _transitory_ns

    cdef bint _session(self, uint32_t number, address_t remote, uint16_t port, Session *session) noexcept nogil
    cdef bint _longest(self, uint32_t number, Session *session) noexcept nogil
    cdef int _step(self, uint32_t number, Session *session, uint8_t event, int64_t now, const Segment *segment) except -1
    cdef int _keep(self, uint32_t number, Session *session, int64_t now, int64_t floor_ns) except -1
    cdef int _tell(self, uint32_t number, uint8_t state, int64_t expires_ns) except -1
    cdef bint _has_room(self, uint32_t number, int64_t now) noexcept nogil
    cdef uint32_t _new_session(self) except? 0xFFFFFFFF
    cdef int _tcp_out(self, uint32_t number, packet, int64_t now) except -1
    cdef int _tcp_in(self, uint32_t number, packet, int64_t now) except -1
    cdef int _judge(self, uint32_t number, uint8_t state, int64_t now) except -1
