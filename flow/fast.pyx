# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
"""The compiled flow table: `flow.table.Table`, with `repeat` for other compiled code.

Why it is compiled: this is what happens to every packet that is not the first of its flow. A look-up, the checks and
the rewriting take some tens of nanoseconds here and four microseconds in the plain twin, and need no interpreter.

Entries lie in one array in the order in which they were made, a line of the cache each, so what was never used is
never touched. The index beside them is twice as long: open addressing, linear probing, a word holds the number of an
entry and eleven bits of its hash. What is taken out leaves no tombstone, its followers move up.

The file is long because all of it works on the same entries: apart, they would have to be shown to another module.

Several threads may use one table after `share`: from then on whoever looks at entries holds its mutex, for one packet.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from flow import table
from flow.table import Flow, Forwarded, Hits, Punt
from wire.gso import GsoHeader

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *, const void *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)

cdef enum:
    NUMBER_BITS = 21
    NUMBER_MASK = (1 << NUMBER_BITS) - 1
    MOST_PROBES = 128
    PACKET_ROOM = 65_535

    REPEAT = 1, NEAR_SENDS = 2, ALIASED = 4, USED = 8, ACKNOWLEDGED = 16  # flags of an entry
    BRIEF = 8  # of `learn` alone
    ICMP = 1, TCP = 6, UDP = 17
    CONTROL_FLAGS = 0x07, ACK = 0x10  # FIN, SYN, RST
    GSO_TCPV4 = 1, GSO_UDP_L4 = 5, GSO_ECN = 0x80
    # `flow.table.Punt`
    PUNT_ETHERNET = 1, PUNT_HEADER, PUNT_FRAGMENT, PUNT_PROTOCOL, PUNT_TRANSPORT, PUNT_UNKNOWN, PUNT_OUTDATED
    PUNT_TTL, PUNT_CONTROL, PUNT_CLAIMS, PUNT_TOO_BIG, PUNT_IDENTIFICATION, PUNT_NEXT_HOP, PUNT_NO_LINK

    MARKED = 1, MARKS = 65_536  # `flow.table`

cdef uint32_t NONE = 0xFFFFFFFF
cdef uint64_t KEY_MASK = 0x00FFFFFFFFFFFFFF
cdef uint64_t MAC_MASK = 0x0000FFFFFFFFFFFF
cdef uint32_t LEASE_S = table.LEASE_S
cdef uint32_t LEASE_SPREAD_S = table.LEASE_SPREAD_S
cdef uint32_t BRIEF_LEASE_S = table.BRIEF_LEASE_S
cdef int32_t IDLE_MS = table.IDLE_S * 1000
cdef int32_t ONCE_MS = table.ONCE_S * 1000
cdef int32_t FORGET_MS = table.FORGET_S * 1000
cdef uint32_t HAND_STEPS = table.HAND_STEPS
cdef dict PUNTS = {int(punt): punt for punt in Punt}


cdef inline uint32_t load16(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 8 | at[1]


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef inline void store16(uint8_t *at, uint32_t value) noexcept nogil:
    at[0] = (value >> 8) & 0xFF
    at[1] = value & 0xFF


cdef inline void store32(uint8_t *at, uint32_t value) noexcept nogil:
    store16(at, value >> 16)
    store16(at + 2, value)


cdef inline uint32_t fold(uint32_t value) noexcept nogil:
    value = (value & 0xFFFF) + (value >> 16)
    return (value & 0xFFFF) + (value >> 16)


cdef inline uint32_t words_of(uint32_t address) noexcept nogil:
    return (address >> 16) + (address & 0xFFFF)


cdef inline uint64_t ends_of(uint32_t source, uint32_t destination) noexcept nogil:
    return <uint64_t>source << 32 | destination


cdef inline uint64_t rest_of(uint32_t in_port, uint32_t protocol, uint32_t source_port,
                             uint32_t destination_port) noexcept nogil:
    """The rest of an entry's key: `Entry.more` without the flags."""
    return <uint64_t>protocol << 48 | <uint64_t>in_port << 32 | source_port << 16 | destination_port


cdef inline uint64_t hashed(uint64_t seed, uint64_t ends, uint64_t more) noexcept nogil:
    cdef uint64_t value = (ends ^ seed) * <uint64_t>0x9E3779B97F4A7C15
    value ^= value >> 32
    value = (value + (more ^ (seed >> 7 | seed << 57))) * <uint64_t>0xD6E8FEB86659FD93
    value ^= value >> 29
    value *= <uint64_t>0xBF58476D1CE4E5B9
    return value ^ value >> 32


cdef inline uint32_t milliseconds(object now) except? 1:
    return <uint32_t>(<uint64_t>now // 1_000_000)


cdef class CompiledTable:
    """`flow.table.Table`. `limit`: entries, 1,048,576 at most; `seed`: of the hash, 64 bits that nobody can guess."""

    compiled = True

    def __cinit__(self, limit=table.ENTRIES, seed=0):
        cdef uint32_t size = 16
        if not 0 < limit < NUMBER_MASK:
            raise ValueError(f"a flow table of {limit} entries")
        while size < 2 * limit:
            size *= 2
        self._limit = limit
        self._mask = size - 1
        self._seed = seed
        self._free = NONE
        self._epoch = 1
        self._held = [None] * MOST_PORTS
        self._marks = {}
        pthread_mutex_init(&self._lock, NULL)
        self._entries = <Entry *>calloc(limit, sizeof(Entry))
        self._totals = <Total *>calloc(limit, sizeof(Total))
        self._index = <uint32_t *>calloc(size, sizeof(uint32_t))
        self._scratch = bytearray(PACKET_ROOM + ETHERNET_BYTES)
        if self._entries == NULL or self._totals == NULL or self._index == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._entries)
        free(self._totals)
        free(self._index)

    def __len__(self):
        return self._used

    @property
    def limit(self):
        """Entries at most."""
        return self._limit

    def set_port(self, uint32_t port, bytes mac, uint32_t mtu_bytes, slots):
        """See `Table`."""
        cdef const uint64_t[::1] words = slots
        cdef Port facts
        if port >= MOST_PORTS or len(mac) not in (0, 6):
            raise ValueError(f"no port {port} with the address {mac.hex()}")
        memset(&facts, 0, sizeof(Port))
        facts.mtu_bytes = min(mtu_bytes, PACKET_ROOM)
        facts.has_link = len(mac) == 6
        memcpy(facts.mac, PyBytes_AS_STRING(mac), len(mac))
        if words is not None:
            facts.slots = &words[0]
            facts.slot_count = words.shape[0] // 4
        before = self._held[port]  # kept as long as we point into it
        self._hold()
        self._ports[port] = facts
        self._let_go()
        self._held[port] = slots
        del before

    def set_outside(self, uint32_t port, uint32_t address, uint8_t protocol, bytearray marks):
        """See `Table`."""
        cdef const uint8_t *start = NULL
        cdef const uint8_t[::1] view
        if port >= MOST_PORTS or protocol not in (TCP, UDP) or (marks is not None and len(marks) != MARKS):
            raise ValueError(f"no marks for port {port} and protocol {protocol}")
        before = self._marks.get((port, protocol))
        held = None
        if marks is not None:
            held = memoryview(marks)  # exported: it keeps its place and its length as long as we point into it
            view = held
            start = &view[0]
        self._hold()
        self._outside[port].address = address
        if protocol == TCP:
            self._outside[port].tcp_marks = start
        else:
            self._outside[port].udp_marks = start
        self._let_go()
        self._marks[port, protocol] = held
        del before

    # Threads

    def share(self):
        """More than one thread will use the table. A fork waits until none of the others is inside."""
        if not self._is_shared:
            self._is_shared = True
            os.register_at_fork(before=lambda: self._hold(), after_in_parent=lambda: self._let_go(),
                                after_in_child=lambda: self._let_go())

    cdef void _hold(self) noexcept nogil:
        if self._is_shared:
            pthread_mutex_lock(&self._lock)

    cdef void _let_go(self) noexcept nogil:
        if self._is_shared:
            pthread_mutex_unlock(&self._lock)

    # The walk tells

    def learn(self, uint16_t in_port, uint16_t out_port, uint8_t protocol, tuple before, tuple after,
              uint32_t size_bytes, uint32_t slot, uint8_t flags, now):
        """See `Table`."""
        cdef uint32_t source = before[0], source_port = before[1], destination = before[2], destination_port = before[3]
        cdef uint64_t ends = ends_of(source, destination)
        cdef uint64_t more = rest_of(in_port, protocol, source_port, destination_port)
        cdef uint32_t now_ms = milliseconds(now), new_source = after[0], new_destination = after[2]
        cdef uint16_t new_source_port = after[1], new_destination_port = after[3]
        cdef uint32_t number, delta
        cdef Entry *entry
        if source_port > 0xFFFF or destination_port > 0xFFFF or in_port >= MOST_PORTS or out_port >= MOST_PORTS:
            raise ValueError("an impossible flow")
        self._hold()
        number = self._find(ends, more)
        if number == NONE:
            number = self._place(ends, more, now_ms)
            if number == NONE:
                self._let_go()
                return -1
        entry = &self._entries[number]
        entry.more = (entry.more & (KEY_MASK | <uint64_t>ACKNOWLEDGED << 56)) | <uint64_t>(USED | flags & 7) << 56
        entry.epoch = self._epoch if flags & REPEAT else 0
        entry.until_s = (now_ms // 1000 + (BRIEF_LEASE_S if flags & BRIEF else LEASE_S - number % LEASE_SPREAD_S)) \
            & 0xFFFF
        entry.out_port = out_port
        entry.slot = slot
        entry.new_source = new_source
        entry.new_source_port = new_source_port
        entry.new_destination = new_destination
        entry.new_destination_port = new_destination_port
        entry.address_delta = entry.full_delta = 0
        if source != new_source or destination != new_destination:
            entry.address_delta = fold(words_of(~source) + words_of(~destination)  # RFC 1624: ~m + m'
                                       + words_of(new_source) + words_of(new_destination))
        if entry.address_delta or source_port != new_source_port or destination_port != new_destination_port:
            delta = (source_port ^ 0xFFFF) + new_source_port
            if protocol != ICMP:  # which has its identifier once, and no pseudo-header
                delta += (destination_port ^ 0xFFFF) + new_destination_port + entry.address_delta
            entry.full_delta = fold(delta)
        entry.last_ms = now_ms
        self._totals[number].packets += 1
        self._totals[number].size_bytes += size_bytes
        self._let_go()
        return number

    cdef uint32_t _place(self, uint64_t ends, uint64_t more, uint32_t now_ms) noexcept nogil:
        """A new entry under a key that has none; NONE where there is no room."""
        cdef uint64_t hash_ = hashed(self._seed, ends, more)
        cdef uint32_t at = <uint32_t>hash_ & self._mask, probes = 0
        cdef uint32_t number = self._room(now_ms)
        if number == NONE:
            return NONE
        while self._index[at]:
            at = (at + 1) & self._mask
            probes += 1
            if probes == MOST_PROBES:
                self._entries[number].slot = self._free
                self._free = number
                return NONE
        self._index[at] = (number + 1) | <uint32_t>(hash_ >> 53) << NUMBER_BITS
        self._entries[number].ends = ends
        self._entries[number].more = more
        self._entries[number].size_bytes = self._entries[number].packets = 0
        self._totals[number].packets = self._totals[number].size_bytes = 0
        self._used += 1
        return number

    cdef uint32_t _room(self, uint32_t now_ms) noexcept nogil:
        """An entry that nobody uses: a free one, one that was never used, or one that has been idle for long."""
        cdef uint32_t number, step
        cdef int32_t idle_ms  # below zero where another thread's clock was read a moment later
        cdef Entry *entry
        if self._free == NONE and self._fresh < self._limit:
            self._fresh += 1
            return self._fresh - 1
        if self._free == NONE:
            for step in range(HAND_STEPS):
                number = self._hand
                self._hand = number + 1 if number + 1 < self._limit else 0
                entry = &self._entries[number]
                idle_ms = <int32_t>(now_ms - entry.last_ms)
                if idle_ms > IDLE_MS or (idle_ms > ONCE_MS and self._totals[number].packets + entry.packets < 2):
                    self._remove(number)
                    break
            else:
                return NONE
        number = self._free
        self._free = self._entries[number].slot
        return number

    cdef void _remove(self, uint32_t number) noexcept nogil:
        """Take an entry out of the index; those behind it that would not be found any more move up."""
        cdef Entry *entry = &self._entries[number]
        cdef uint32_t at = <uint32_t>hashed(self._seed, entry.ends, entry.more & KEY_MASK) & self._mask
        cdef uint32_t hole, home
        while (self._index[at] & NUMBER_MASK) != number + 1:
            at = (at + 1) & self._mask
        hole = at
        while True:
            at = (at + 1) & self._mask
            if not self._index[at]:
                break
            entry = &self._entries[(self._index[at] & NUMBER_MASK) - 1]
            home = <uint32_t>hashed(self._seed, entry.ends, entry.more & KEY_MASK) & self._mask
            if ((at - home) & self._mask) >= ((at - hole) & self._mask):
                self._index[hole] = self._index[at]
                hole = at
        self._index[hole] = 0
        self._entries[number].more = 0
        self._entries[number].slot = self._free
        self._free = number
        self._used -= 1

    cdef uint32_t _find(self, uint64_t ends, uint64_t more) noexcept nogil:
        """The number of the entry of a key, or NONE."""
        cdef uint64_t hash_ = hashed(self._seed, ends, more)
        cdef uint32_t at = <uint32_t>hash_ & self._mask, tag = <uint32_t>(hash_ >> 53) << NUMBER_BITS, word
        cdef Entry *entry
        while True:
            word = self._index[at]
            if word == 0:
                return NONE
            if (word & ~<uint32_t>NUMBER_MASK) == tag:
                entry = &self._entries[(word & NUMBER_MASK) - 1]
                if entry.ends == ends and (entry.more & KEY_MASK) == more:
                    return (word & NUMBER_MASK) - 1
            at = (at + 1) & self._mask

    def outdate(self):
        """See `Table`. Numbers of epochs come round again: before they do, no entry of an old one may be left."""
        cdef uint32_t number
        self._hold()
        self._epoch += 1
        if self._epoch == 0:
            self._epoch = 1
            for number in range(self._fresh):
                self._entries[number].epoch = 0
        self._let_go()

    # A decision is repeated

    cdef int admit(self, uint16_t in_port, const uint8_t *frame, size_t size) noexcept nogil:
        cdef const uint8_t *mac = self._ports[in_port].mac
        cdef const uint8_t *source = frame + 6
        if size < ETHERNET_BYTES or memcmp(frame, mac, 6) or load16(frame + 12) != 0x0800:
            return PUNT_ETHERNET
        if source[0] & 1 or memcmp(source, mac, 6) == 0 or (load32(source) | load16(source + 4)) == 0:
            return PUNT_ETHERNET
        return 0

    cdef int repeat(self, uint16_t in_port, uint8_t *packet, size_t size, const Claims *claims, uint32_t now_ms,
                    Way *way) noexcept nogil:
        cdef int punt
        self._hold()
        punt = self._repeat(in_port, packet, size, claims, now_ms, way)
        self._let_go()
        return punt

    cdef int _repeat(self, uint16_t in_port, uint8_t *packet, size_t size, const Claims *claims, uint32_t now_ms,
                     Way *way) noexcept nogil:
        cdef uint8_t *transport = packet + 20
        cdef uint32_t total, room, protocol, source_port, destination_port, number, wire, check, at, header, flags = 0
        cdef uint32_t check_sum = 0
        cdef uint64_t mac
        cdef Entry *entry
        cdef Port *out
        # The packet
        if size < 20 or packet[0] != 0x45:
            return PUNT_HEADER
        for at in range(0, 20, 2):
            check_sum += load16(packet + at)
        if fold(check_sum) != 0xFFFF:
            return PUNT_HEADER
        total = load16(packet + 2)
        if total < 20 or total > size:
            return PUNT_HEADER
        if load16(packet + 6) & 0x3FFF:
            return PUNT_FRAGMENT
        room = total - 20
        protocol = packet[9]
        if protocol not in (TCP, UDP, ICMP):
            return PUNT_PROTOCOL
        if room < (20 if protocol == TCP else 8):
            return PUNT_TRANSPORT
        source_port = load16(transport)
        destination_port = load16(transport + 2)
        header = 8
        if protocol == ICMP:
            source_port = load16(transport + 4)
            destination_port = transport[0]
            if destination_port not in (0, 8, 13, 14, 15, 16, 17, 18):
                return PUNT_PROTOCOL
        elif source_port == 0 or destination_port == 0:
            return PUNT_TRANSPORT
        elif protocol == UDP:
            at = load16(transport + 4)
            if at < 8 or (at > room and not claims.gso_type):
                return PUNT_TRANSPORT
        else:
            header = (transport[12] >> 4) * 4
            if header < 20 or header > room:
                return PUNT_TRANSPORT
            flags = transport[13]
        # The entry
        number = self._find(ends_of(load32(packet + 12), load32(packet + 16)),
                            rest_of(in_port, protocol, source_port, destination_port))
        if number == NONE:
            return self._unknown(in_port, load32(packet + 16), protocol, destination_port)
        entry = &self._entries[number]
        if entry.epoch != self._epoch or ((entry.until_s - now_ms // 1000) & 0xFFFF) > LEASE_S:
            return PUNT_OUTDATED
        if packet[8] <= 1:
            return PUNT_TTL
        if flags & CONTROL_FLAGS:
            return PUNT_CONTROL
        wire = total
        if claims.partial or claims.gso_type:
            if not _is_consistent(claims, protocol, room - header):
                return PUNT_CLAIMS
            if claims.gso_type:
                wire = min(20 + header + claims.gso_bytes, total)
        out = &self._ports[entry.out_port]
        if wire > out.mtu_bytes:
            return PUNT_TOO_BIG
        if entry.more >> 56 & ALIASED and not packet[6] & 0x40:
            return PUNT_IDENTIFICATION
        way.link_bytes = 0
        if entry.slot != NONE:
            mac = out.slots[<size_t>entry.slot * 4] & MAC_MASK if entry.slot < out.slot_count else 0
            if mac == 0 or not out.has_link:
                return PUNT_NEXT_HOP
            way.link_bytes = ETHERNET_BYTES
            store16(way.link, <uint32_t>(mac >> 32))
            store32(way.link + 2, <uint32_t>mac)
            memcpy(way.link + 6, out.mac, 6)
            store16(way.link + 12, 0x0800)
        # The rewriting: RFC 1624 for TTL and addresses at once
        check = load16(packet + 8)
        check = (load16(packet + 10) ^ 0xFFFF) + (check ^ 0xFFFF) + (check - 0x100) + entry.address_delta
        store16(packet + 10, fold(check) ^ 0xFFFF)
        packet[8] -= 1
        if entry.full_delta or entry.address_delta:
            store32(packet + 12, entry.new_source)
            store32(packet + 16, entry.new_destination)
            _rewrite_transport(transport, room, protocol, claims, entry)
        if protocol == TCP and entry.more >> 56 & NEAR_SENDS and flags & ACK:
            entry.more |= <uint64_t>ACKNOWLEDGED << 56
            entry.acknowledgment = load32(transport + 8)
            entry.window = load16(transport + 14)
        entry.packets += 1
        entry.size_bytes += total
        entry.last_ms = now_ms
        way.out_port = entry.out_port
        way.size = total
        return 0

    cdef int _unknown(self, uint16_t in_port, uint32_t destination, uint32_t protocol, uint32_t port) noexcept nogil:
        """A packet without an entry: whether anybody can have the port that it is for."""
        cdef const Outside *outside = &self._outside[in_port]
        cdef const uint8_t *marks = outside.tcp_marks if protocol == TCP else outside.udp_marks
        if protocol == ICMP or destination != outside.address or marks == NULL:
            return PUNT_UNKNOWN
        return PUNT_UNKNOWN if marks[port >> 1 | (port & 1) << 15] & MARKED else PUNT_NO_LINK

    def forward(self, uint16_t in_port, bytes frame, gso, now):
        """See `Table`."""
        cdef uint8_t[::1] scratch = self._scratch
        cdef size_t size = len(frame), skipped
        cdef Claims claims = claims_of(gso)
        cdef Way way
        cdef int punt
        if in_port >= MOST_PORTS or size > <size_t>scratch.shape[0]:
            raise ValueError(f"{size} bytes on port {in_port}")
        memcpy(&scratch[0], PyBytes_AS_STRING(frame), size)
        skipped = ETHERNET_BYTES if self._ports[in_port].has_link else 0
        punt = self.admit(in_port, &scratch[0], size) if skipped else 0
        if punt == 0:  # and so the frame has its link header
            punt = self.repeat(in_port, &scratch[skipped], size - skipped, &claims, milliseconds(now), &way)
        if punt:
            return PUNTS[punt]
        return Forwarded(way.out_port, way.link[:way.link_bytes] + (&scratch[skipped])[:way.size], gso)

    # What was counted

    def harvest(self, uint32_t limit, now):
        """See `Table`."""
        cdef uint32_t now_ms = milliseconds(now), number, step
        cdef Entry *entry
        cdef list found = []
        for step in range(min(limit, self._fresh)):
            number = self._cursor if self._cursor < self._fresh else 0
            self._cursor = number + 1
            entry = &self._entries[number]
            if not entry.more >> 56 & USED:
                continue
            if entry.packets:
                found.append(self._hits(number, now_ms, now))
            elif <int32_t>(now_ms - entry.last_ms) > FORGET_MS:
                self._hold()
                self._remove(number)
                self._let_go()
        return found

    def settle(self, uint16_t in_port, uint8_t protocol, tuple ends, now, bint withdraw):
        """See `Table`."""
        cdef uint32_t source = ends[0], source_port = ends[1], destination = ends[2], destination_port = ends[3]
        cdef uint32_t number = self._find(ends_of(source, destination),
                                          rest_of(in_port, protocol, source_port, destination_port))
        if number == NONE:
            return None
        if withdraw:
            self._hold()
            self._entries[number].epoch = 0  # of none
            self._let_go()
        if not self._entries[number].packets:
            return None
        return self._hits(number, milliseconds(now), now)

    cdef object _hits(self, uint32_t number, uint32_t now_ms, object now):
        """What an entry has counted; it begins anew."""
        cdef Entry *entry = &self._entries[number]
        cdef bint near_sends = entry.more >> 56 & NEAR_SENDS
        cdef Entry was
        cdef int32_t idle_ms  # not below zero, where another thread's clock was read a moment later
        self._hold()
        was = entry[0]
        self._totals[number].packets += was.packets
        self._totals[number].size_bytes += was.size_bytes
        entry.packets = 0
        entry.size_bytes = 0
        entry.more &= ~(<uint64_t>ACKNOWLEDGED << 56)
        self._let_go()
        idle_ms = max(<int32_t>(now_ms - was.last_ms), 0)
        acknowledgment = was.acknowledgment if was.more >> 56 & ACKNOWLEDGED else None
        if near_sends:
            remote, remote_port = entry.ends & NONE, entry.more & 0xFFFF
        else:
            remote, remote_port = entry.ends >> 32, entry.more >> 16 & 0xFFFF
        return Hits(number, was.out_port, was.slot, near_sends, remote, remote_port, was.packets, was.size_bytes,
                    now - <uint64_t>idle_ms * 1_000_000, acknowledgment, was.window)

    def live(self, now):
        """See `Table`."""
        cdef uint32_t now_ms = milliseconds(now), number
        cdef int32_t idle_ms
        cdef Entry *entry
        for number in range(self._fresh):
            entry = &self._entries[number]
            idle_ms = max(<int32_t>(now_ms - entry.last_ms), 0)
            if not entry.more >> 56 & USED or idle_ms > FORGET_MS:
                continue
            near = entry.ends >> 32, entry.more >> 16 & 0xFFFF
            far = entry.ends & NONE, entry.more & 0xFFFF
            if not entry.more >> 56 & NEAR_SENDS:
                near, far = (entry.new_destination, entry.new_destination_port), near
            if entry.more >> 48 & 0xFF == ICMP:  # whose other port is the message's type
                near = near[0], (entry.more >> 16 & 0xFFFF if entry.more >> 56 & NEAR_SENDS else entry.new_source_port)
                far = far[0], entry.more >> 16 & 0xFFFF
            yield Flow(
                number, entry.more >> 32 & 0xFFFF, entry.out_port, entry.more >> 48 & 0xFF, near, far,
                self._totals[number].packets + entry.packets, self._totals[number].size_bytes + entry.size_bytes,
                now - <uint64_t>idle_ms * 1_000_000,
                entry.epoch == self._epoch and ((entry.until_s - now_ms // 1000) & 0xFFFF) <= LEASE_S)

    def found(self, const uint8_t[::1] keys):
        """How many of many keys have an entry, for the benchmark. A key has 16 bytes: source, destination, source port,
        destination port in network order, in-port (2), a zero and the protocol."""
        cdef Py_ssize_t at
        cdef uint32_t count = 0
        cdef const uint8_t *key
        with nogil:
            for at in range(keys.shape[0] // 16):
                key = &keys[at * 16]
                if self._find(ends_of(load32(key), load32(key + 4)),
                              rest_of(load16(key + 12), key[15], 0, load32(key + 8))) != NONE:  # both ports at once
                    count += 1
        return count


cdef Claims claims_of(gso):
    """An `GsoHeader`, or None."""
    cdef Claims claims = Claims(0, 0, 0, 0, 0, 0)
    if gso is not None:
        claims = Claims(gso.partial, gso.gso_type, gso.header_bytes, gso.gso_bytes,
                        gso.checksum_start & 0xFFFF, gso.checksum_offset)
    return claims


cdef inline bint _is_consistent(const Claims *claims, uint32_t protocol, uint32_t payload_bytes) noexcept nogil:
    """`wire.gso.is_consistent` for a header of 20 bytes."""
    cdef uint32_t gso = GSO_TCPV4 if protocol == TCP else GSO_UDP_L4
    if protocol == ICMP:
        return False
    if claims.partial and (claims.checksum_start != 20 or claims.checksum_offset != (16 if protocol == TCP else 6)):
        return False
    if claims.gso_type == 0:
        return True
    if claims.gso_type & ~GSO_ECN != gso or not claims.partial:
        return False
    return claims.gso_bytes >= 8 or (protocol == UDP and 0 < payload_bytes <= 128 * <uint32_t>claims.gso_bytes)


cdef inline void _rewrite_transport(uint8_t *transport, uint32_t room, uint32_t protocol, const Claims *claims,
                                    const Entry *entry) noexcept nogil:
    """`alias.rewrite._transport` for both ends at once."""
    cdef uint8_t *field
    cdef uint32_t check, at
    if protocol == ICMP:
        store16(transport + 4, entry.new_source_port)
        field = transport + 2
        check = fold((load16(field) ^ 0xFFFF) + entry.full_delta) ^ 0xFFFF
        if check == 0 and load16(transport) == 0:  # all zero but the checksum: RFC 1624's exception
            for at in range(4, room):
                if transport[at]:
                    break
            else:
                check = 0xFFFF
        store16(field, check)
        return
    store16(transport, entry.new_source_port)
    store16(transport + 2, entry.new_destination_port)
    field = transport + (16 if protocol == TCP else 6)
    check = load16(field)
    if claims.partial:
        check = fold(check + entry.address_delta)
    elif protocol == UDP and check == 0:
        return
    else:
        check = fold((check ^ 0xFFFF) + entry.full_delta) ^ 0xFFFF
        if check == 0 and protocol == UDP:
            check = 0xFFFF
    store16(field, check)
