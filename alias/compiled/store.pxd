# cython: language_level=3
"""The compiled store of links, for other compiled rooms."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from alias.compiled.connections cimport Connections
from alias.compiled.spaces cimport Space, address_t

cdef class CompiledStore(Connections):
    cdef public int64_t latest_ns
    cdef bint _by_address, _refresh_inbound
    cdef int64_t _udp_ns, _icmp_ns, _question_ns

    cdef object _open(self, uint8_t egress, packet, Space space, int64_t now, uint32_t *number)
    cdef object _make_room(self, address_t inside, Space space, int64_t now)
    cdef int _expires(self, uint32_t number, int64_t expires_ns) except -1
    cdef int _refresh(self, uint32_t number, int64_t now) except -1
    cdef int _answered(self, uint32_t number, uint32_t remote_port, int64_t now) except -1
    cdef int _note_remote(self, uint32_t number, address_t remote) except -1
    cdef bint _admits(self, uint32_t number, address_t remote)
