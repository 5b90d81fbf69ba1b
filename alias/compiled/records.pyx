# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
"""The links as records in arrays, compiled: the ground of `alias.compiled.store`.

Every link is a `Record` of 96 bytes in one array that is allocated at the start. An index with chains finds it by its
inside endpoint (an address-only link by its remote), an array for each port space by its outside port. Links that
expire in the same second stand in one row of a wheel. Closed links stand in rows of their own.

Python sees a link as a `CompiledLink`, which is made when somebody asks for one. There is one at most for each record.
When the link ends, its `CompiledLink` takes a copy along, so the record can be used again.
"""

from heapq import heappop, heappush

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from alias.compiled.machine cimport PICKED, WIDEST_SHIFT
from alias.compiled.rows cimport NOBODY, Rows
from alias.compiled.spaces cimport Space, address_t

from alias import closed, limits, remotes, sessions, types
from alias.changes import Changes
from alias.types import Egress, Unlinked
from wire.drop import Drop

cdef enum:
    NO_SLOT = -1, NEAR = -2     # `Record.slot`: not in the wheel; in the heap of the second that has begun
    STATIC_ROOM = 64
    PORTS = 65_536

cdef int64_t SECOND_NS = 1_000_000_000
cdef int64_t QUIET_NS = closed.QUIET_NS
cdef uint32_t KEPT = limits.KEPT
cdef tuple EGRESS = tuple(Egress)
cdef tuple LABELS = sessions.LABELS + ("",) * (OPEN - len(sessions.LABELS)) + ("open", "static")
NO_PORT_LEFT, TABLE_FULL, HOST_LIMIT = Drop.ALIAS_NO_PORT, Drop.ALIAS_TABLE_FULL, Drop.ALIAS_HOST_LIMIT


cdef inline uint32_t hashed(uint32_t seed, address_t address, uint32_t port, uint32_t egress,
                            uint32_t protocol) noexcept nogil:
    cdef uint64_t value = (<uint64_t>address << 32 | port << 16 | egress << 8 | protocol) ^ seed
    value *= <uint64_t>0x9E3779B97F4A7C15
    value ^= value >> 29
    value *= <uint64_t>0xBF58476D1CE4E5B9
    return <uint32_t>(value >> 32)


cdef inline uint64_t closed_key(const Record *record, uint8_t closing) noexcept nogil:
    return <uint64_t>record.inside << 4 | record.egress << 3 | (record.inside_port < 1024) << 2 | closing


@cython.no_gc_clear
cdef class CompiledLink:
    """One link, as `alias.types.Link` describes it. Reading it costs nothing but the reading."""

    compiled = True
    cdef Records _store
    cdef uint32_t _number
    cdef bint _is_detached
    cdef Record _own

    def __cinit__(self):
        self._is_detached = True  # of no store yet

    def __init__(self):
        raise TypeError("a store makes its links")

    def __dealloc__(self):
        if not self._is_detached:
            self._store._views[self._number] = NULL

    cdef const Record *_at(self):
        return &self._own if self._is_detached else &self._store._records[self._number]

    @property
    def egress(self):
        return EGRESS[self._at().egress]

    @property
    def protocol(self):
        return self._at().protocol

    @property
    def inside(self):
        return self._at().inside

    @property
    def inside_port(self):
        return self._at().inside_port

    @property
    def outside_port(self):
        return self._at().outside_port

    @property
    def remote(self):
        return 0 if space_of(self._at().protocol) >= 0 else self._at().remote

    @property
    def state(self):
        return LABELS[self._at().state]

    @property
    def expires_ns(self):
        return self._at().expires_ns

    @property
    def last_ns(self):
        return self._at().last_ns

    @property
    def packets(self):
        return self._at().packets

    @property
    def bytes(self):
        return self._at().size_bytes

    @property
    def closing(self):
        return self._at().closing

    @property
    def question(self):
        return self._at().question

    @property
    def is_static(self):
        return self._at().state == STATIC

    @property
    def remotes(self):
        if self._is_detached:
            return None
        known = self._store.remotes_of.get(self._number)
        return None if known is None else known.remotes

    def is_live(self, now):
        """See `Link`."""
        return now < self._at().expires_ns

    def longest(self):
        """See `alias.sessions.longest`."""
        if self._is_detached:
            return 0, 0, PICKED, WIDEST_SHIFT, False
        return self._store.longest(self._number)


cdef class Records:
    """`seed`: of the hashes, 32 bits that nobody can guess. `events`, `tells`, `changes`: see `alias.types.Store`."""

    def __cinit__(self, settings, draws, events, uint32_t seed=0):
        cdef uint32_t size = 16
        cdef int egress, kind
        self._capacity = settings.max_links + STATIC_ROOM
        while size < self._capacity:
            size *= 2
        self._mask = size - 1
        self._seed = seed
        self._free = self._host_free = NOBODY
        self._second = -1
        self._near, self._held = [], []
        self._records = <Record *>calloc(self._capacity, sizeof(Record))
        self._views = <void **>calloc(self._capacity, sizeof(void *))
        self._index = <uint32_t *>calloc(size, sizeof(uint32_t))
        if self._records == NULL or self._views == NULL or self._index == NULL:
            raise MemoryError
        memset(self._index, 0xFF, size * sizeof(uint32_t))
        for egress in range(EGRESSES):
            for kind in range(SPACES):
                space = Space(draws, kind != 2, seed)
                self._held.append(space)
                self._spaces[egress * SPACES + kind] = <void *>space
        self._wheel = Rows(self._capacity, seed)
        self._closed = Rows(self._capacity, seed)
        self._closed_of_hosts = Rows(self._capacity, seed)
        self.events = events
        self.tells = True
        self.changes = Changes()
        self._remotes = remotes.Remotes(0)
        self.remotes_of = {}

    def __dealloc__(self):
        free(self._records)
        free(self._views)
        free(self._index)
        free(self._hosts)
        free(self._host_index)

    def _allocated_bytes(self):
        cdef uint64_t total = self._capacity * (sizeof(Record) + sizeof(void *))
        total += (self._mask + 1) * sizeof(uint32_t)
        total += self._host_capacity * (sizeof(Host) + 2 * sizeof(uint32_t))
        for part in (self._wheel, self._closed, self._closed_of_hosts, *self._held):
            total += part.allocated_bytes
        return total

    def _grow(self, uint32_t capacity):
        """Room for more records, where a reload allows more links or there are many static ones."""
        cdef Record *records = <Record *>realloc(self._records, capacity * sizeof(Record))
        cdef void **views
        if records == NULL:
            raise MemoryError
        self._records = records
        views = <void **>realloc(self._views, capacity * sizeof(void *))
        if views == NULL:
            raise MemoryError
        self._views = views
        memset(&records[self._capacity], 0, (capacity - self._capacity) * sizeof(Record))
        memset(&views[self._capacity], 0, (capacity - self._capacity) * sizeof(void *))
        for rows in (self._wheel, self._closed, self._closed_of_hosts):
            (<Rows>rows).grow(capacity)
        self._capacity = capacity

    # Records

    cdef Space _space(self, int egress, uint8_t protocol):
        cdef int kind = space_of(protocol)
        return None if kind < 0 else <Space>self._spaces[egress * SPACES + kind]

    cdef object _view(self, uint32_t number):
        """The link of a record, as Python sees it."""
        cdef CompiledLink link
        if self._views[number] != NULL:
            return <object>self._views[number]
        link = CompiledLink.__new__(CompiledLink)
        link._store = self
        link._number = number
        link._is_detached = False
        self._views[number] = <void *>link
        return link

    cdef uint32_t _number_of(self, link) except? 0xFFFFFFFF:
        """The record of a link; NOBODY where it has ended."""
        cdef CompiledLink known = link
        return NOBODY if known._is_detached else known._number

    cdef uint32_t _find(self, uint8_t egress, uint8_t protocol, address_t address, uint16_t port) noexcept nogil:
        """The record of an inside endpoint, or of an address-only link by its remote; NOBODY where there is none."""
        cdef uint32_t number = self._index[hashed(self._seed, address, port, egress, protocol) & self._mask]
        cdef bint has_ports = space_of(protocol) >= 0
        cdef Record *record
        while number != NOBODY:
            record = &self._records[number]
            if (record.egress == egress and record.protocol == protocol and record.inside_port == port
                    and (record.inside if has_ports else record.remote) == address):
                return number
            number = record.following
        return NOBODY

    cdef void _insert(self, uint32_t number) noexcept nogil:
        cdef Record *record = &self._records[number]
        cdef address_t address = record.inside if space_of(record.protocol) >= 0 else record.remote
        cdef uint32_t at = hashed(self._seed, address, record.inside_port, record.egress, record.protocol) & self._mask
        record.following = self._index[at]
        self._index[at] = number

    cdef void _take_out(self, uint32_t number) noexcept nogil:
        """Out of the index, where the record is in it."""
        cdef Record *record = &self._records[number]
        cdef address_t address = record.inside if space_of(record.protocol) >= 0 else record.remote
        cdef uint32_t *link = &self._index[
            hashed(self._seed, address, record.inside_port, record.egress, record.protocol) & self._mask]
        while link[0] != NOBODY and link[0] != number:
            link = &self._records[link[0]].following
        if link[0] == number:
            link[0] = record.following

    cdef uint32_t _new(self, uint8_t egress, uint8_t protocol, address_t inside, uint16_t inside_port,
                       uint16_t outside_port, address_t remote, int64_t now) except? 0xFFFFFFFF:
        """A record in no index yet."""
        cdef uint32_t number = self._free
        cdef Record *record
        if number != NOBODY:
            self._free = self._records[number].following
        else:
            if self._fresh == self._capacity:
                self._grow(2 * self._capacity)
            number = self._fresh
            self._fresh += 1
        record = &self._records[number]
        memset(record, 0, sizeof(Record))
        record.egress, record.protocol = egress, protocol
        record.inside, record.inside_port, record.outside_port = inside, inside_port, outside_port
        record.remote = remote
        record.state = OPEN
        record.sessions = record.following = record.host = NOBODY
        record.slot = NO_SLOT
        record.last_ns = now
        return number

    cdef void _forget_sessions(self, uint32_t number) noexcept nogil:
        """See `alias.compiled.connections`."""

    cdef int _note(self, uint32_t number) except -1:
        """Somebody may write down that this link has changed."""
        if self.changes.is_wanted:
            self.changes.note(self._view(number))
        return 0

    cdef int _end(self, uint32_t number, int64_t now, list told) except -1:
        """Take a link out of everything. `told`: where that is said; None for `events`."""
        cdef Record *record = &self._records[number]
        cdef bint is_static = record.state == STATIC
        cdef Space space = self._space(record.egress, record.protocol)
        cdef Host *host
        cdef uint32_t *link
        cdef CompiledLink view = None
        if not is_static:
            self._note(number)
        if self.tells or self._views[number] != NULL:
            view = self._view(number)
        if space is not None:
            space.give_back(record.outside_port, record.inside, record.inside_port, now, not is_static,
                            record.closing != STILL_OPEN)
        self._take_out(number)
        self._disarm(number)
        self._unclose(number)
        self._forget_sessions(number)
        known = self.remotes_of.pop(number, None)
        if known is not None:
            self._remotes.forget(known)
        record.expires_ns = 0
        if not is_static:
            self._count -= 1
            host = &self._hosts[record.host]
            host.links -= 1
            if host.links == 0:
                link = &self._host_index[hashed(self._seed, host.address, 0, 0, 0) & self._host_mask]
                while link[0] != record.host:
                    link = &self._hosts[link[0]].following
                link[0] = host.following
                host.following = self._host_free
                self._host_free = record.host
        if view is not None:
            view._own = record[0]
            view._is_detached = True
            self._views[number] = NULL
            if self.tells:
                if told is None:
                    self.events.append(Unlinked(view))
                else:
                    told.append(Unlinked(view))
        record.following = self._free
        self._free = number
        return 0

    # Hosts

    cdef uint32_t _host(self, address_t inside) noexcept nogil:
        """The record of an inside address that has links, or NOBODY."""
        cdef uint32_t number
        if self._host_index == NULL:
            return NOBODY
        number = self._host_index[hashed(self._seed, inside, 0, 0, 0) & self._host_mask]
        while number != NOBODY and self._hosts[number].address != inside:
            number = self._hosts[number].following
        return number

    cdef int _add_host(self, uint32_t number, int64_t now) except -1:
        """One more link, of its inside address."""
        cdef Record *record = &self._records[number]
        cdef uint32_t host = self._host(record.inside), at
        if host == NOBODY:
            if self._host_free == NOBODY:
                self._add_hosts()
            host = self._host_free
            self._host_free = self._hosts[host].following
            at = hashed(self._seed, record.inside, 0, 0, 0) & self._host_mask
            self._hosts[host] = Host(record.inside, 0, self._host_index[at])
            self._host_index[at] = host
        self._hosts[host].links += 1
        if self._count == 0:  # the wheel may have stood still for long
            self._second = max(self._second, now // SECOND_NS - 1)
        record.host = host
        self._count += 1
        return 0

    cdef int _add_hosts(self) except -1:
        cdef uint32_t count = 2 * self._host_capacity or 256, number, at
        cdef Host *hosts = <Host *>realloc(self._hosts, count * sizeof(Host))
        cdef uint32_t *index
        if hosts == NULL:
            raise MemoryError
        self._hosts = hosts
        index = <uint32_t *>realloc(self._host_index, 2 * count * sizeof(uint32_t))
        if index == NULL:
            raise MemoryError
        self._host_index = index
        self._host_mask = 2 * count - 1
        memset(index, 0xFF, 2 * count * sizeof(uint32_t))
        for number in range(self._host_capacity):  # all of them are in use
            at = hashed(self._seed, hosts[number].address, 0, 0, 0) & self._host_mask
            hosts[number].following = index[at]
            index[at] = number
        for number in range(self._host_capacity, count):
            hosts[number].following = self._host_free
            self._host_free = number
        self._host_capacity = count
        return 0

    cdef object _exceeded(self, address_t inside):
        """See `alias.limits.Limits.exceeded`."""
        cdef uint32_t host = self._host(inside)
        cdef uint32_t held = 0 if host == NOBODY else self._hosts[host].links
        if held >= self._max_links_per_host:
            return HOST_LIMIT
        return TABLE_FULL if self._count >= self._max_links else None

    cdef object _refusal(self, address_t inside, Space space):
        """See `alias.limits.Limits.refusal`."""
        cdef object refusal = self._exceeded(inside)
        cdef uint32_t host = self._host(inside), kept = self._max_links // KEPT
        cdef uint32_t held = 0 if host == NOBODY else self._hosts[host].links
        if refusal is not None or self._max_links_per_host >= self._max_links:
            return refusal
        if held >= max(kept // self._hosts_wanted, <uint32_t>1):
            if <int64_t>self._max_links - self._count <= kept:
                return TABLE_FULL
            if space is not None and space.left() <= PORTS // <int64_t>KEPT:
                return NO_PORT_LEFT
        return None

    # Time: `alias.expiry`

    cdef int _arm(self, uint32_t number) except -1:
        """Look at a link at its expiry: a new one, and where its expiry has moved closer."""
        cdef Record *record = &self._records[number]
        cdef int64_t when = record.expires_ns, second = when // SECOND_NS
        cdef int32_t slot
        if second <= self._second:
            self._disarm(number)
            record.slot = NEAR
            heappush(self._near, (when, number))
            return 0
        if second >= self._second + SLOTS:
            second = self._second + SLOTS - 1
            when = second * SECOND_NS
        slot = <int32_t>(second % SLOTS)
        if record.slot != slot:
            self._disarm(number)
            self._wheel.append(slot, number)
            record.slot = slot
        if not self._slots_used[slot // 64] >> (slot % 64) & 1:
            self._slots_used[slot // 64] |= <uint64_t>1 << (slot % 64)
            self._earliest[slot] = when
        elif when < self._earliest[slot]:
            self._earliest[slot] = when
        return 0

    cdef void _disarm(self, uint32_t number) noexcept nogil:
        cdef Record *record = &self._records[number]
        if record.slot >= 0:
            self._wheel.remove(record.slot, number)
            if self._wheel.first(record.slot) == NOBODY:
                self._slots_used[record.slot // 64] &= ~(<uint64_t>1 << (record.slot % 64))
        record.slot = NO_SLOT

    cdef int64_t _first_slot(self) noexcept nogil:
        """The first second of the wheel in which there is a link; -1 where there is none."""
        cdef int64_t second = self._second + 1, end = self._second + SLOTS
        cdef uint64_t word
        cdef int slot
        while second < end:
            slot = <int>(second % SLOTS)
            word = self._slots_used[slot // 64] >> (slot % 64)
            if word == 0:
                second += 64 - slot % 64
                continue
            while not word & 1:
                word >>= 1
                second += 1
            return second
        return -1

    cdef list _due(self, int64_t now):
        """The numbers of the links that have expired, in the order of their expiry. They are out of the wheel."""
        cdef int64_t second
        cdef uint32_t number
        cdef Record *record
        cdef list found = [], moved
        while True:
            second = self._first_slot()
            if second < 0 or self._earliest[second % SLOTS] > now:
                break
            moved = []
            number = self._wheel.first(second % SLOTS)
            while number != NOBODY:
                moved.append(number)
                number = self._wheel.after(number)
            self._second = second
            for number in moved:
                self._disarm(number)
                self._arm(number)
        while self._near and self._near[0][0] <= now:
            number = heappop(self._near)[1]
            record = &self._records[number]
            if record.slot != NEAR or record.expires_ns == 0:
                continue
            record.slot = NO_SLOT
            if record.expires_ns <= now:
                found.append((record.expires_ns, record.egress, record.protocol, record.outside_port,
                              0 if space_of(record.protocol) >= 0 else record.remote, number))
            else:
                self._arm(number)
        self._second = max(self._second, now // SECOND_NS - 1)
        found.sort()
        return [one[5] for one in found]

    # Closed links: `alias.closed`

    cdef int _close(self, uint32_t number, uint8_t closing, int64_t now) except -1:
        """The connections of a link are closed as `closing` says. A link that was closed so before keeps its place."""
        cdef Record *record = &self._records[number]
        if closing == record.closing:
            return 0
        self._unclose(number)
        if closing:
            record.closing = closing
            record.since_ns = now + QUIET_NS if closing == RESET_QUIET else now
            self._closed.append(closing, number)
            self._closed_of_hosts.append(closed_key(record, closing), number)
        return 0

    cdef void _unclose(self, uint32_t number) noexcept nogil:
        """The link has ended, or a connection of it is open again."""
        cdef Record *record = &self._records[number]
        if record.closing:
            self._closed.remove(record.closing, number)
            self._closed_of_hosts.remove(closed_key(record, record.closing), number)
            record.closing = STILL_OPEN

    cdef uint32_t _longest_closed(self, int64_t now) noexcept nogil:
        """The link that has been closed for longest; NOBODY where no link may give way."""
        cdef uint32_t number, first = NOBODY
        cdef int64_t first_ns = now + 1
        cdef int closing
        for closing in range(FINISHED, RESET_QUIET + 1):
            number = self._closed.first(closing)
            if number != NOBODY and self._records[number].since_ns < first_ns:
                first, first_ns = number, self._records[number].since_ns
        return first

    cdef uint32_t _longest_closed_of(self, address_t inside, int egress, int is_low, int64_t now) noexcept nogil:
        """The same among the links of an inside address; -1 for any egress, or any class."""
        cdef uint32_t number, first = NOBODY
        cdef int64_t first_ns = now + 1
        cdef int on, low, closing
        for on in range(EGRESSES):
            for low in range(2):
                if (egress >= 0 and on != egress) or (is_low >= 0 and low != is_low):
                    continue
                for closing in range(FINISHED, RESET_QUIET + 1):
                    number = self._closed_of_hosts.first(<uint64_t>inside << 4 | on << 3 | low << 2 | closing)
                    if number != NOBODY and self._records[number].since_ns < first_ns:
                        first, first_ns = number, self._records[number].since_ns
        return first
