# cython: language_level=3
"""What other compiled rooms need of the compiled flow table: decisions repeated in place, without the lock."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    MOST_PORTS = 1024

cdef struct Claims:
    # `wire.offload.Offload`: offsets count from the IP packet. All zero: a plain packet.
    uint8_t partial
    uint8_t gso_type
    uint16_t header_bytes
    uint16_t gso_bytes
    uint16_t checksum_start
    uint16_t checksum_offset

cdef struct Way:
    # Where a packet leaves that was rewritten in place.
    uint16_t out_port
    uint16_t size     # of the IP packet: what lies behind it in the frame was padding
    uint8_t link[14]  # its Ethernet header, where the out-port has one
    uint8_t link_bytes  # 14 or 0

cdef class CompiledTable:
    # 0: rewritten in place, `way` says where it leaves; else a `Punt`, and nothing has changed.
    cdef int repeat(self, uint16_t in_port, uint8_t *packet, size_t size, const Claims *claims, uint32_t now_ms,
                    Way *way) noexcept nogil
    # The link header of a frame: 0, or Punt.ETHERNET.
    cdef int admit(self, uint16_t in_port, const uint8_t *frame, size_t size) noexcept nogil
