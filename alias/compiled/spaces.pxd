# cython: language_level=3
"""The ports of our own address on one egress, for one protocol, compiled."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from alias.compiled.rows cimport Rows

ctypedef uint32_t address_t  # of an inside or a remote host

cdef enum:
    NO_PORT = 0x10000

cdef struct Rest:
    # A port that rests: until when, and whose it was.
    int64_t until_ns
    address_t inside
    uint32_t following  # the next one with the same hash of its endpoint, or the next free one
    uint16_t inside_port
    uint16_t port
    uint8_t is_spent    # its connection was closed

cdef class Space:
    cdef readonly bytearray marks
    cdef uint8_t *_map
    cdef uint32_t *owners     # by port: the number of the link and one, 0 for none
    cdef object _draws
    cdef bint _has_classes
    cdef frozenset _reserved, _heard
    cdef uint32_t used, resting, _seed
    # Resting ports, by number
    cdef Rest *_rests
    cdef uint32_t *_rest_index  # by endpoint
    cdef uint32_t *_rest_at     # by port: the number and one
    cdef uint32_t _rest_count, _rest_free, _rest_mask
    cdef Rows _order, _spent
    cdef readonly uint64_t allocated_bytes

    cdef uint32_t allocate(self, address_t inside, uint16_t wanted, int64_t now, bint only_spent) except? 0x10001
    cdef uint32_t draw_in_class(self, uint32_t place, uint16_t wanted) except? 0x10001
    cdef uint32_t draw(self, uint32_t start, uint32_t end) except? 0x10001
    cdef void take(self, uint16_t port, uint32_t number) noexcept nogil
    cdef bint may_take(self, uint16_t inside_port, uint16_t port, int64_t now)
    cdef int give_back(self, uint16_t port, address_t inside, uint16_t inside_port, int64_t now, bint rest,
                       bint is_closed) except -1
    cdef int lay_down(self, uint16_t port, address_t inside, uint16_t inside_port, int64_t until_ns,
                      bint is_spent) except -1
    cdef int64_t left(self) noexcept nogil
    cdef void _wake(self, int64_t now) noexcept nogil
    cdef void _rise(self, uint32_t number) noexcept nogil
    cdef uint32_t _rest_of(self, address_t inside, uint16_t inside_port) noexcept nogil
    cdef int _add_rests(self) except -1
