# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
"""Rows of numbered things: each item is in one row at most, a row is named by a key of 64 bits.

Links that expire in the same second, links that are closed, and ports that rest stand in such rows. Appending, removing
and reading the first item cost the same however long a row is.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset


cdef class Rows:
    """`capacity`: items are numbered below it. `seed`: of the hash of keys, so that a stranger cannot choose keys that
    collide."""

    def __cinit__(self, uint32_t capacity, uint32_t seed=0):
        self._free = NOBODY
        self._seed = seed | 1
        self.grow(capacity)
        self._add_rows()

    def __dealloc__(self):
        free(self._next)
        free(self._before)
        free(self._rows)
        free(self._index)

    cdef int grow(self, uint32_t capacity) except -1:
        """Have room for items numbered below `capacity`."""
        cdef uint32_t *one = <uint32_t *>realloc(self._next, capacity * sizeof(uint32_t))
        cdef uint32_t *other
        if one == NULL:
            raise MemoryError
        self._next = one
        other = <uint32_t *>realloc(self._before, capacity * sizeof(uint32_t))
        if other == NULL:
            raise MemoryError
        self._before = other
        self.allocated_bytes += 2 * (capacity - self._capacity) * sizeof(uint32_t)
        self._capacity = capacity
        return 0

    cdef int _add_rows(self) except -1:
        """Twice as many rows, and an index of twice as many places."""
        cdef uint32_t count = 2 * self._row_count or 16, number, at
        cdef Row *rows = <Row *>realloc(self._rows, count * sizeof(Row))
        cdef uint32_t *index
        if rows == NULL:
            raise MemoryError
        self._rows = rows
        index = <uint32_t *>realloc(self._index, 2 * count * sizeof(uint32_t))
        if index == NULL:
            raise MemoryError
        self._index = index
        self.allocated_bytes += (count - self._row_count) * (sizeof(Row) + 2 * sizeof(uint32_t))
        self._mask = 2 * count - 1
        memset(index, 0xFF, 2 * count * sizeof(uint32_t))
        for number in range(self._row_count):  # all of them are in use, or there would be no need for more
            at = place_of(rows[number].key, self._seed) & self._mask
            rows[number].following = index[at]
            index[at] = number
        for number in range(self._row_count, count):
            rows[number].following = self._free
            self._free = number
        self._row_count = count
        return 0

    cdef uint32_t _find(self, uint64_t key) noexcept nogil:
        cdef uint32_t number = self._index[place_of(key, self._seed) & self._mask]
        while number != NOBODY and self._rows[number].key != key:
            number = self._rows[number].following
        return number

    cdef int append(self, uint64_t key, uint32_t item) except -1:
        """Put an item that is in no row at the end of a row."""
        cdef uint32_t number = self._find(key), at
        cdef Row *row
        if number == NOBODY:
            if self._free == NOBODY:
                self._add_rows()
            number = self._free
            row = &self._rows[number]
            self._free = row.following
            at = place_of(key, self._seed) & self._mask
            row.key = key
            row.first = row.last = NOBODY
            row.following = self._index[at]
            self._index[at] = number
        row = &self._rows[number]
        self._next[item] = NOBODY
        self._before[item] = row.last
        if row.last == NOBODY:
            row.first = item
        else:
            self._next[row.last] = item
        row.last = item
        return 0

    cdef void remove(self, uint64_t key, uint32_t item) noexcept nogil:
        """Take an item out of its row."""
        cdef uint32_t number = self._find(key), before = self._before[item], after = self._next[item], at
        cdef Row *row = &self._rows[number]
        cdef uint32_t *link
        if before == NOBODY:
            row.first = after
        else:
            self._next[before] = after
        if after == NOBODY:
            row.last = before
        else:
            self._before[after] = before
        if row.first == NOBODY:
            at = place_of(key, self._seed) & self._mask
            link = &self._index[at]
            while link[0] != number:
                link = &self._rows[link[0]].following
            link[0] = row.following
            row.following = self._free
            self._free = number

    cdef uint32_t first(self, uint64_t key) noexcept nogil:
        """The item that has been in a row for longest, or NOBODY."""
        cdef uint32_t number = self._find(key)
        return NOBODY if number == NOBODY else self._rows[number].first

    cdef uint32_t after(self, uint32_t item) noexcept nogil:
        """The item behind another one in its row, or NOBODY."""
        return self._next[item]


cdef inline uint32_t place_of(uint64_t key, uint32_t seed) noexcept nogil:
    cdef uint64_t value = (key ^ seed) * <uint64_t>0x9E3779B97F4A7C15
    value ^= value >> 29
    value *= <uint64_t>0xBF58476D1CE4E5B9
    return <uint32_t>(value >> 32)
