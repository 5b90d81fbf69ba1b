# cython: language_level=3
"""The links as records in arrays: found, counted by host, kept by expiry and by when they closed."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from alias.compiled.rows cimport Rows
from alias.compiled.spaces cimport Space, address_t

cdef enum:
    EGRESSES = 2
    SPACES = 3              # TCP, UDP and ICMP queries: each has ports of its own on each egress
    SLOTS = 8192            # of the wheel: seconds
    ICMP = 1, TCP = 6, UDP = 17
    OPEN = 14, STATIC = 15  # `Record.state` of a link without sessions; below them stand the states of TCP
    STILL_OPEN = 0, FINISHED, RESET_QUIET  # `Record.closing`, see `alias.closed`

cdef struct Record:
    # 96 bytes. A free one has expires_ns 0.
    address_t inside
    address_t remote        # of an address-only link; of a TCP link with one session: that of the session
    uint16_t inside_port
    uint16_t outside_port
    uint16_t remote_port    # of the one session
    uint8_t protocol
    uint8_t egress
    uint8_t state           # of the session that lives longest; OPEN or STATIC
    uint8_t scale           # of the one session, as are the next four
    uint8_t closing
    uint8_t question
    uint32_t sent
    uint32_t received
    uint32_t acknowledged
    uint32_t edge
    int64_t expires_ns
    int64_t last_ns
    int64_t since_ns        # since when a closed link may give way
    uint64_t packets
    uint64_t size_bytes
    uint32_t sessions       # TCP, where there are several: the first of them
    uint32_t host
    uint32_t following      # the next one with the same hash, or the next free one
    int32_t slot            # of the wheel; -1 for none

cdef struct Host:
    address_t address
    uint32_t links          # the static ones not counted
    uint32_t following

cdef inline int space_of(uint8_t protocol) noexcept nogil:
    """Which of the `SPACES` a protocol has; -1 for address-only links."""
    return 0 if protocol == TCP else 1 if protocol == UDP else 2 if protocol == ICMP else -1

cdef class Records:
    cdef Record *_records
    cdef uint32_t *_index
    cdef void **_views          # borrowed: a link takes itself out when it goes
    cdef Host *_hosts
    cdef uint32_t *_host_index
    cdef int64_t _earliest[8192]
    cdef uint64_t _slots_used[128]
    cdef void *_spaces[6]       # borrowed from `_held`
    cdef list _held, _near
    cdef Rows _wheel, _closed, _closed_of_hosts
    cdef uint32_t _capacity, _fresh, _free, _mask, _seed
    cdef uint32_t _host_capacity, _host_free, _host_mask
    cdef uint32_t _count
    cdef int64_t _second        # of the wheel: everything up to it has been looked at
    cdef public object events, settings
    cdef public bint tells
    cdef readonly object changes
    cdef readonly dict remotes_of
    cdef object _remotes
    cdef uint32_t _max_links, _max_links_per_host, _hosts_wanted

    cdef Space _space(self, int egress, uint8_t protocol)
    cdef object _view(self, uint32_t number)
    cdef uint32_t _number_of(self, link) except? 0xFFFFFFFF
    cdef uint32_t _find(self, uint8_t egress, uint8_t protocol, address_t address, uint16_t port) noexcept nogil
    cdef void _insert(self, uint32_t number) noexcept nogil
    cdef void _take_out(self, uint32_t number) noexcept nogil
    cdef uint32_t _new(self, uint8_t egress, uint8_t protocol, address_t inside, uint16_t inside_port,
                       uint16_t outside_port, address_t remote, int64_t now) except? 0xFFFFFFFF
    cdef int _end(self, uint32_t number, int64_t now, list told) except -1
    cdef void _forget_sessions(self, uint32_t number) noexcept nogil
    cdef int _note(self, uint32_t number) except -1
    cdef uint32_t _host(self, address_t inside) noexcept nogil
    cdef int _add_host(self, uint32_t number, int64_t now) except -1
    cdef int _add_hosts(self) except -1
    cdef object _refusal(self, address_t inside, Space space)
    cdef object _exceeded(self, address_t inside)
    cdef int _arm(self, uint32_t number) except -1
    cdef void _disarm(self, uint32_t number) noexcept nogil
    cdef int64_t _first_slot(self) noexcept nogil
    cdef list _due(self, int64_t now)
    cdef int _close(self, uint32_t number, uint8_t closing, int64_t now) except -1
    cdef void _unclose(self, uint32_t number) noexcept nogil
    cdef uint32_t _longest_closed(self, int64_t now) noexcept nogil
    cdef uint32_t _longest_closed_of(self, address_t inside, int egress, int is_low, int64_t now) noexcept nogil
