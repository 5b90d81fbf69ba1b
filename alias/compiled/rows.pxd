# cython: language_level=3
"""Rows of numbered things, kept without an object for each: appended at the end, taken out anywhere, read from the front."""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    NOBODY = 0xFFFFFFFF

cdef struct Row:
    uint64_t key
    uint32_t first
    uint32_t last
    uint32_t following  # the next row with the same hash, or the next free one

cdef class Rows:
    cdef uint32_t *_next
    cdef uint32_t *_before
    cdef Row *_rows
    cdef uint32_t *_index
    cdef uint32_t _capacity, _row_count, _free, _mask, _seed
    cdef readonly uint64_t allocated_bytes

    cdef int append(self, uint64_t key, uint32_t item) except -1
    cdef void remove(self, uint64_t key, uint32_t item) noexcept nogil
    cdef uint32_t first(self, uint64_t key) noexcept nogil
    cdef uint32_t after(self, uint32_t item) noexcept nogil
    cdef int grow(self, uint32_t capacity) except -1
    cdef uint32_t _find(self, uint64_t key) noexcept nogil
    cdef int _add_rows(self) except -1
