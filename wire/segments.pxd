# cython: language_level=3
"""The functions of `wire.segments` for other compiled rooms: super-frames cut into packets, and made of them."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

cdef enum:
    MOST_SEGMENTS = 640  # that are looked at together
    SLOTS = 1024         # for their flows: a power of 2
    SUPER_FRAME_BYTES = 65_535

cdef struct Cut:
    # How a packet is cut; see `plan`.
    const uint8_t *packet
    uint32_t size
    uint32_t ip_bytes
    uint32_t header_bytes
    uint32_t gso_bytes       # payload of each piece; 0: it is no super-frame
    uint32_t count           # pieces
    uint32_t longest         # bytes of the longest piece, the first one
    uint32_t checksum_start
    uint32_t checksum_field  # 0: no partial checksum

cdef struct Segment:
    # A packet, and where it is the first of a run the frame that begins with it. `data` and `size` are given.
    uint8_t *data
    uint32_t size
    uint32_t header_bytes
    uint32_t total           # bytes of the frame
    uint32_t following       # sequence number
    int32_t next             # the sequel in the run, -1: none
    int32_t last
    uint16_t identification
    uint16_t step            # of identifications: 0, 1, or 2 where there is one segment yet
    uint8_t is_first

cdef int plan(Cut *cut, const uint8_t *packet, size_t size, bint partial, uint32_t gso_type, uint32_t gso_bytes,
              uint32_t checksum_start, uint32_t checksum_offset) noexcept nogil
cdef uint32_t piece(const Cut *cut, uint32_t index, uint8_t *target) noexcept nogil
cdef void chain(Segment *segments, int32_t count, int32_t *slots) noexcept nogil
cdef void assemble(const Segment *segments, int32_t first, uint8_t *target) noexcept nogil
