# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
"""One port space, compiled: `alias.ports.PortSpace` without an object for each link or resting port.

Ports are chosen by the same rules and with the same random numbers (`alias.draws`). The map of marks is the same map.
Memory for resting ports is taken when the first port rests, and grows with their number.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memchr, memset

from alias.compiled.rows cimport NOBODY, Rows
from alias import ports

cdef enum:
    USED = 1, RESERVED = 2, RESTING = 4
    PORTS = 65_536
    HALF = 32_768
    CLASS_EDGE = 512

cdef int64_t REST_NS = ports.REST_NS
cdef uint32_t TRIES = ports.TRIES


cdef inline uint32_t place_of(uint32_t port) noexcept nogil:
    return port >> 1 | (port & 1) << 15


cdef inline uint32_t port_at(uint32_t place) noexcept nogil:
    return (place << 1 | place >> 15) & 0xFFFF


cdef inline uint64_t host_class(address_t inside, uint32_t port) noexcept nogil:
    return <uint64_t>inside << 1 | (port < 1024)


cdef inline uint32_t hashed(address_t inside, uint32_t port, uint32_t seed) noexcept nogil:
    cdef uint64_t value = ((<uint64_t>inside << 16 | port) ^ seed) * <uint64_t>0x9E3779B97F4A7C15
    value ^= value >> 29
    value *= <uint64_t>0xBF58476D1CE4E5B9
    return <uint32_t>(value >> 32)


cdef class Space:
    """`draws`: `alias.draws.Draws`. `seed`: of the hash of endpoints. `has_classes`: see `alias.ports.PortSpace`."""

    def __cinit__(self, draws, bint has_classes, uint32_t seed):
        self.marks = bytearray(PORTS)
        self._map = <uint8_t *><char *>self.marks
        self._draws = draws
        self._has_classes = has_classes
        self._seed = seed
        self._reserved = self._heard = frozenset()
        self._rest_free = NOBODY
        self.owners = <uint32_t *>calloc(PORTS, sizeof(uint32_t))
        if self.owners == NULL:
            raise MemoryError
        self.allocated_bytes = PORTS * (1 + sizeof(uint32_t))
        self.reserve(())

    def __dealloc__(self):
        free(self.owners)
        free(self._rests)
        free(self._rest_index)
        free(self._rest_at)

    def reserve(self, wanted):
        """See `PortSpace`."""
        for port in self._reserved:
            self._map[place_of(port)] &= ~RESERVED & 0xFF
        self._reserved = frozenset(wanted) | self._heard | ({0} if self._has_classes else set())
        for port in self._reserved:
            self._map[place_of(port)] |= RESERVED

    def listen(self, uint16_t port):
        """See `PortSpace`."""
        self._heard |= {port}
        self._map[place_of(port)] |= USED | RESERVED

    cdef int64_t left(self) noexcept nogil:
        cdef int64_t reserved
        with gil:
            reserved = len(self._reserved)
        return PORTS - (1024 if self._has_classes else 0) - <int64_t>self.used - self.resting - reserved

    cdef uint32_t allocate(self, address_t inside, uint16_t wanted, int64_t now, bint only_spent) except? 0x10001:
        """A free port for an inside endpoint, or NO_PORT."""
        cdef uint32_t number, port, drawn, place = place_of(wanted)
        cdef uint64_t row = host_class(inside, wanted)
        self._wake(now)
        if not only_spent:
            number = self._rest_of(inside, wanted)
            if number != NOBODY:
                port = self._rests[number].port
                self._rise(number)
                if not self._map[place_of(port)]:
                    return port
            if not self._map[place]:
                return wanted
        if self._rest_at != NULL and self._rest_at[wanted]:
            number = self._rest_at[wanted] - 1
            if self._rests[number].is_spent and self._rests[number].inside == inside:
                self._rise(number)
                if not self._map[place]:
                    return wanted
        drawn = NO_PORT
        if not only_spent:
            drawn = self.draw_in_class(place, wanted)
        while drawn == NO_PORT and self._rests != NULL:
            number = self._spent.first(row)
            if number == NOBODY:
                break
            port = self._rests[number].port
            self._rise(number)
            if not self._map[place_of(port)]:
                drawn = port
        return drawn

    cdef uint32_t draw_in_class(self, uint32_t place, uint16_t wanted) except? 0x10001:
        cdef uint32_t half = place - place % HALF, low = CLASS_EDGE, high = HALF, drawn
        if not self._has_classes:
            return self.draw(0, PORTS)
        if wanted < 1024:
            low, high = 0, CLASS_EDGE
        drawn = self.draw(half + low, half + high)
        if drawn == NO_PORT:
            half = HALF - half
            drawn = self.draw(half + low, half + high)
        return drawn

    cdef uint32_t draw(self, uint32_t start, uint32_t end) except? 0x10001:
        cdef uint32_t width = end - start, place, at
        cdef uint8_t *found
        for at in range(TRIES):
            place = start + <uint32_t>self._draws.below(width)
            if not self._map[place]:
                return port_at(place)
        place = start + <uint32_t>self._draws.below(width)
        found = <uint8_t *>memchr(self._map + place, 0, end - place)
        if found == NULL:
            found = <uint8_t *>memchr(self._map + start, 0, place - start)
        return NO_PORT if found == NULL else port_at(<uint32_t>(found - self._map))

    cdef void take(self, uint16_t port, uint32_t number) noexcept nogil:
        self.owners[port] = number + 1
        self._map[place_of(port)] |= USED
        self.used += 1

    cdef bint may_take(self, uint16_t inside_port, uint16_t port, int64_t now):
        self._wake(now)
        return (not self._has_classes or (inside_port < 1024) == (port < 1024)) and not self._map[place_of(port)]

    def rest(self, uint16_t port, address_t inside, uint16_t inside_port, int64_t until_ns):
        """See `PortSpace`."""
        if not self._map[place_of(port)] and self._rest_of(inside, inside_port) == NOBODY:
            self.lay_down(port, inside, inside_port, until_ns, False)

    cdef int give_back(self, uint16_t port, address_t inside, uint16_t inside_port, int64_t now, bint rest,
                       bint is_closed) except -1:
        self.owners[port] = 0
        self._map[place_of(port)] &= ~USED & 0xFF
        self.used -= 1
        if rest:
            self.lay_down(port, inside, inside_port, now + REST_NS, is_closed)
        return 0

    cdef int lay_down(self, uint16_t port, address_t inside, uint16_t inside_port, int64_t until_ns,
                      bint is_spent) except -1:
        cdef uint32_t number, at
        cdef Rest *rest
        number = self._rest_of(inside, inside_port)
        if number != NOBODY:  # one resting port an endpoint
            self._rise(number)
        if self._rest_free == NOBODY:
            self._add_rests()
        number = self._rest_free
        rest = &self._rests[number]
        self._rest_free = rest.following
        at = hashed(inside, inside_port, self._seed) & self._rest_mask
        rest.until_ns = until_ns
        rest.inside = inside
        rest.inside_port = inside_port
        rest.port = port
        rest.is_spent = is_spent
        rest.following = self._rest_index[at]
        self._rest_index[at] = number
        self._rest_at[port] = number + 1
        self._map[place_of(port)] |= RESTING
        self.resting += 1
        self._order.append(0, number)
        if is_spent:
            self._spent.append(host_class(inside, port), number)
        return 0

    cdef void _wake(self, int64_t now) noexcept nogil:
        cdef uint32_t number
        while self.resting:
            number = self._order.first(0)
            if self._rests[number].until_ns > now:
                return
            self._rise(number)

    cdef void _rise(self, uint32_t number) noexcept nogil:
        """A port rests no more."""
        cdef Rest *rest = &self._rests[number]
        cdef uint32_t *link = &self._rest_index[hashed(rest.inside, rest.inside_port, self._seed) & self._rest_mask]
        while link[0] != number:
            link = &self._rests[link[0]].following
        link[0] = rest.following
        self._map[place_of(rest.port)] &= ~RESTING & 0xFF
        self._rest_at[rest.port] = 0
        self.resting -= 1
        self._order.remove(0, number)
        if rest.is_spent:
            self._spent.remove(host_class(rest.inside, rest.port), number)
        rest.following = self._rest_free
        self._rest_free = number

    cdef uint32_t _rest_of(self, address_t inside, uint16_t inside_port) noexcept nogil:
        """The resting port that an inside endpoint had, or NOBODY."""
        cdef uint32_t number
        if self._rests == NULL:
            return NOBODY
        number = self._rest_index[hashed(inside, inside_port, self._seed) & self._rest_mask]
        while number != NOBODY and (self._rests[number].inside != inside
                                    or self._rests[number].inside_port != inside_port):
            number = self._rests[number].following
        return number

    cdef int _add_rests(self) except -1:
        """Room for twice as many resting ports."""
        cdef uint32_t count = 2 * self._rest_count or 256, number, at
        cdef Rest *rests = <Rest *>realloc(self._rests, count * sizeof(Rest))
        cdef uint32_t *index
        if rests == NULL:
            raise MemoryError
        self._rests = rests
        index = <uint32_t *>realloc(self._rest_index, 2 * count * sizeof(uint32_t))
        if index == NULL:
            raise MemoryError
        self._rest_index = index
        if self._rest_at == NULL:
            self._rest_at = <uint32_t *>calloc(PORTS, sizeof(uint32_t))
            if self._rest_at == NULL:
                raise MemoryError
            self.allocated_bytes += PORTS * sizeof(uint32_t)
            self._order, self._spent = Rows(count, self._seed), Rows(count, self._seed)
        else:
            self._order.grow(count)
            self._spent.grow(count)
        self._rest_mask = 2 * count - 1
        memset(index, 0xFF, 2 * count * sizeof(uint32_t))
        for number in range(self._rest_count):  # all of them are in use
            at = hashed(rests[number].inside, rests[number].inside_port, self._seed) & self._rest_mask
            rests[number].following = index[at]
            index[at] = number
        for number in range(self._rest_count, count):
            rests[number].following = self._rest_free
            self._rest_free = number
        self.allocated_bytes += (count - self._rest_count) * (sizeof(Rest) + 2 * sizeof(uint32_t))
        self._rest_count = count
        return 0
