# cython: language_level=3
"""Policing for the burst loop."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    PLACES = 768

cdef struct Police:
    # Of one port. Times are in ms, shares in `policing.WALK` a frame.
    uint32_t quota
    uint32_t link_bytes
    uint32_t behind     # frames since the queue was last seen empty, or the quota fell
    uint8_t by_station
    uint32_t network    # of the ARP table
    uint32_t slot_count
    const uint64_t *slots
    uint64_t seed
    uint64_t frames     # that were read, ever
    uint64_t shared_at  # frames
    uint64_t rose_ms
    uint64_t share
    uint64_t seen[PLACES]  # frames, when it was refilled
    uint32_t saved[PLACES]
    uint32_t wanted[PLACES]

cdef class CompiledPolice:
    cdef Police state
    cdef object _words

# True where a frame may be walked. `punt`: the reason why it cannot be repeated.
cdef bint admit(Police *police, const uint8_t *frame, size_t size, int punt) noexcept nogil
# A burst is over. `now` in ns.
cdef void end(Police *police, uint32_t frames, bint is_empty, uint64_t now) noexcept nogil
