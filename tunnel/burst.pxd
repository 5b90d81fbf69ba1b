# cython: language_level=3
"""For other compiled rooms: data messages are sealed and opened where they lie, by the helpers as well."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass

ctypedef const unsigned char *Octets

cdef enum:
    COUNTER = 0  # words of `tunnel.session.Session.memory`
    GREATEST = 1
    UNTIL = 2
    MEMORY_BYTES = 24 + 8192
    HEADER_BYTES = 16
    TAG_BYTES = 16
    PACKET_BYTES = 300  # the cost of a packet beside its bytes, as bytes

cdef struct Job:
    unsigned char *target  # sealing: of the whole data message; opening: of the plaintext
    Octets source          # sealing: of the packet, which may lie in the message; opening: of the whole data message
    Octets key
    size_t given           # bytes at `source`
    size_t padded          # sealing: bytes of the plaintext
    uint64_t counter
    uint32_t receiver
    bint is_sealing
    bint failed

cdef class CompiledCipher:
    cdef Job *_own  # of calls from Python
    cdef Job *_jobs
    cdef size_t _room, _next, _count, _left
    cdef int _helpers, _owner
    cdef bint _is_released, _is_busy
    cdef pthread_mutex_t _lock
    cdef pthread_cond_t _begun, _done

    # Do the jobs; one call at a time. `total`: their bytes, and PACKET_BYTES for each.
    cdef void run(self, Job *jobs, size_t count, size_t total) noexcept nogil
    cdef Job *_begin(self, size_t count) except NULL
    cdef void _work(self) noexcept nogil

# The replay window in a session's memory: before authentication, and after it.
cdef bint may_be_new(const uint64_t *memory, uint64_t counter) noexcept nogil
cdef bint accept(uint64_t *memory, uint64_t counter) noexcept nogil
