# cython: language_level=3
"""For other compiled rooms: the devices to write to, and the outlet for packets whose out-port is no device."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from bridge.ports.police cimport Police
from flow.fast cimport MOST_PORTS, Claims, CompiledTable, Way

cdef enum:
    HEADROOM = 64  # in front of every IP packet in a buffer: room for a virtio header and an Ethernet header
    PUNTS = 16

cdef struct Device:
    int fd              # -1: there is none
    uint8_t has_header  # a virtio header stands in front of every frame
    uint8_t link_bytes
    uint64_t rx_packets  # repeated only: the walk counts its own
    uint64_t rx_bytes
    uint64_t tx_packets
    uint64_t tx_bytes
    uint64_t full
    uint64_t down
    uint64_t malformed
    uint64_t policed
    uint64_t no_link

cdef class Outlet:
    # Takes packets whose out-port is no device. `now_ns`: the time of the burst.
    cdef public uint64_t now_ns
    # 0: taken. 1: not taken, the caller hands the packet to Python.
    cdef int push(self, uint16_t out_port, uint8_t *packet, size_t size, const Claims *claims) noexcept nogil
    # A burst is over: the packets that were taken leave.
    cdef int flush(self) noexcept nogil

cdef class CompiledBursts:
    cdef readonly CompiledTable table
    cdef Outlet _outlet
    cdef Device _devices[MOST_PORTS]
    cdef Device _told[MOST_PORTS]
    cdef Police *_police[MOST_PORTS]  # NULL: every frame that cannot be repeated is walked
    cdef dict _policing               # keeps the objects that these point to
    cdef uint64_t _punts[PUNTS]
    cdef uint8_t _has_queued[MOST_PORTS]
    cdef int _numbers[4096]  # of ports, by descriptor
    cdef bint _has_pushed
    cdef uint8_t *_packet
    cdef object _memory
    # Of the frame that `_pump` stopped at
    cdef size_t _frame_bytes
    cdef Claims _claims
    cdef Way _way

    cdef object _offload(self, uint32_t link_bytes)
    cdef void _end(self, uint16_t number, uint32_t limit, uint32_t left, uint32_t left_bytes, uint64_t now,
                   int stop) noexcept nogil
    cdef tuple _collect(self, uint16_t number, uint32_t limit, uint32_t left, uint32_t left_bytes, uint64_t now,
                        int stop)
    cdef int _pump(self, uint16_t in_port, uint32_t *left, uint32_t *left_bytes, uint32_t now_ms) noexcept nogil
    # Write a packet that was rewritten, with HEADROOM in front of it. 1: Python must, the device cannot as it is.
    cdef int put(self, const Way *way, uint8_t *packet, const Claims *claims) noexcept nogil
