# cython: language_level=3
"""What other compiled rooms need of the compiled flow table: decisions repeated in place, without the lock."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef enum:
    ETHERNET_BYTES = 14
    MOST_PORTS = 1024

cdef struct Claims:
    # `wire.gso.GsoHeader`: offsets count from the IP packet. All zero: a plain packet.
    uint8_t partial
    uint8_t gso_type
    uint16_t header_bytes
    uint16_t gso_bytes
    uint16_t checksum_start
    uint16_t checksum_offset

cdef struct Way:
    # Where a packet leaves that was rewritten in place.
    uint16_t out_port
    uint16_t size       # of the IP packet: what lies behind it in the frame was padding
    uint8_t link_bytes  # 14 or 0
    uint8_t link[14]    # its Ethernet header, where the out-port has one

cdef struct Entry:
    # 64 bytes, one line of the cache.
    uint64_t ends       # source << 32 | destination
    uint64_t more       # flags << 56 | protocol << 48 | in-port << 32 | source port << 16 | destination port
    uint16_t epoch
    uint16_t until_s    # of the lease, modulo 2^16
    uint16_t out_port
    uint16_t window
    uint32_t slot       # of the next hop; of a free entry: the next free one
    uint32_t new_source
    uint32_t new_destination
    uint16_t new_source_port
    uint16_t new_destination_port
    uint16_t address_delta  # what the rewriting adds to checksums: 0 where it changes nothing, never 0 else
    uint16_t full_delta     # the same with the ports
    uint32_t acknowledgment
    uint64_t size_bytes     # of the packets that were repeated since the last harvest
    uint32_t packets        # how many
    uint32_t last_ms        # modulo 2^32

cdef struct Total:
    # What has passed before: the walk's own packets, and what was harvested.
    uint64_t packets
    uint64_t size_bytes

cdef struct Port:
    const uint64_t *slots   # four words a slot, the MAC address in the low 48 bits of the first
    uint32_t slot_count
    uint16_t mtu_bytes      # 0: nothing leaves here
    uint8_t has_link
    uint8_t mac[6]

cdef struct Outside:
    # A port whose address inside hosts borrow: who has which of its ports (`set_outside`).
    uint32_t address
    const uint8_t *tcp_marks  # NULL: not known
    const uint8_t *udp_marks

cdef class CompiledTable:
    cdef Entry *_entries
    cdef Total *_totals
    cdef uint32_t *_index
    cdef Port _ports[MOST_PORTS]
    cdef Outside _outside[MOST_PORTS]
    cdef list _held
    cdef dict _marks
    cdef uint64_t _seed
    cdef uint32_t _mask, _limit, _used, _fresh, _free, _hand, _cursor
    cdef uint16_t _epoch
    cdef object _scratch
    cdef bint _is_shared
    cdef pthread_mutex_t _lock

    # The link header of a frame: 0, or Punt.ETHERNET.
    cdef int admit(self, uint16_t in_port, const uint8_t *frame, size_t size) noexcept nogil
    # An IP packet. 0: rewritten in place, `way` says where it leaves; else a Punt, and nothing has changed.
    cdef int repeat(self, uint16_t in_port, uint8_t *packet, size_t size, const Claims *claims, uint32_t now_ms,
                    Way *way) noexcept nogil
    cdef void _hold(self) noexcept nogil
    cdef void _let_go(self) noexcept nogil
    cdef int _repeat(self, uint16_t in_port, uint8_t *packet, size_t size, const Claims *claims, uint32_t now_ms,
                     Way *way) noexcept nogil
    cdef int _unknown(self, uint16_t in_port, uint32_t destination, uint32_t protocol, uint32_t port) noexcept nogil
    cdef uint32_t _find(self, uint64_t ends, uint64_t more) noexcept nogil
    cdef void _remove(self, uint32_t number) noexcept nogil
    cdef uint32_t _place(self, uint64_t ends, uint64_t more, uint32_t now_ms) noexcept nogil
    cdef uint32_t _room(self, uint32_t now_ms) noexcept nogil
    cdef object _hits(self, uint32_t number, uint32_t now_ms, object now)
