# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of `bridge.ports.policing`.

Why it is compiled: it judges every frame of a flood, so that none of them reaches the interpreter.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from bridge.ports import policing
from bridge.ports.policing import Senders
from flow.table import Punt

cdef uint32_t MOST = policing.MOST
cdef uint32_t LEAST = policing.LEAST
cdef uint32_t BEHIND_FRAMES = policing.BEHIND_FRAMES
cdef uint32_t AGAIN_FRAMES = policing.AGAIN_FRAMES
cdef uint32_t SHARE_FRAMES = policing.SHARE_FRAMES
cdef uint32_t WALK = policing.WALK
cdef uint32_t FULL = policing.SAVED * policing.WALK
cdef uint32_t WANTED = policing.WALK // policing.SHARE_FRAMES
cdef int OUTDATED = Punt.OUTDATED
cdef uint64_t FACTOR = 0x9E3779B97F4A7C15
cdef uint64_t MAC_MASK = 0x0000FFFFFFFFFFFF
assert policing.SENDERS == SENDERS and policing.STRANGERS == STRANGERS and policing.PLACES == PLACES

cdef enum:
    SENDERS = 256
    STRANGERS = 16
    ROUNDS = 4
    ETHERNET_BYTES = 14


cdef class CompiledPolice:
    """A `bridge.ports.policing.Police`; `PlainPolice` is its twin."""

    def __cinit__(self, senders, uint32_t link_bytes, uint64_t seed):
        cdef int at
        self.state.quota = MOST
        self.state.by_station = senders == Senders.STATIONS
        self.state.link_bytes = link_bytes
        self.state.seed = seed
        self.state.share = WALK
        for at in range(PLACES):
            self.state.saved[at] = FULL

    def know(self, uint32_t network, words):
        """As `Police`."""
        cdef const uint64_t[::1] view
        before = self._words  # kept as long as we point into it
        if words is None:
            self.state.slots = NULL
        else:
            view = words
            self.state.network = network
            self.state.slot_count = view.shape[0] // 4
            self.state.slots = &view[0]
        self._words = words
        del before

    @property
    def quota(self):
        """As `Police`."""
        return self.state.quota

    def admits(self, const uint8_t[::1] frame, punt):
        """As `Police`."""
        return admit(&self.state, &frame[0] if frame.shape[0] else NULL, frame.shape[0], punt)

    def ended(self, uint32_t frames, bint is_empty, uint64_t now):
        """As `Police`."""
        end(&self.state, frames, is_empty, now)


cdef bint admit(Police *police, const uint8_t *frame, size_t size, int punt) noexcept nogil:
    cdef uint64_t key = 0, saved
    cdef size_t at = police.link_bytes, end
    cdef bint is_admitted, is_station
    is_station = at > 0 and (police.by_station or size < ETHERNET_BYTES + 20 or frame[12] != 0x08 or frame[13] != 0x00)
    if is_station:
        at, end = 6, 12
    else:
        at, end = at + 12, at + 16
    while at < min(end, size):
        key = key << 8 | frame[at]
        at += 1
    key = (key ^ police.seed) * FACTOR
    key = (key ^ key >> 32) * FACTOR
    at = key >> 56
    if punt == OUTDATED:
        at += 2 * SENDERS
    elif not police.by_station:
        at += SENDERS if is_station else 0
    elif not _is_known(police, frame, size):
        at = SENDERS + at % STRANGERS
    police.wanted[at] += 1
    if police.quota == MOST:
        return True
    saved = min(police.saved[at] + min(police.frames - police.seen[at], FULL) * police.share, <uint64_t>FULL)
    police.seen[at] = police.frames
    is_admitted = saved >= WALK
    police.saved[at] = saved - WALK if is_admitted else saved
    return is_admitted


cdef bint _is_known(const Police *police, const uint8_t *frame, size_t size) noexcept nogil:
    cdef uint32_t at, slot
    if police.slots == NULL or size < ETHERNET_BYTES + 20 or frame[12] != 0x08 or frame[13] not in (0x00, 0x06):
        return False
    at = 26 if frame[13] == 0 else 28
    slot = (<uint32_t>frame[at] << 24 | <uint32_t>frame[at + 1] << 16 | <uint32_t>frame[at + 2] << 8
            | frame[at + 3]) - police.network
    if slot >= police.slot_count:
        return False
    return police.slots[<size_t>slot * 4] & MAC_MASK == (<uint64_t>frame[6] << 40 | <uint64_t>frame[7] << 32
                                                        | <uint64_t>frame[8] << 24 | <uint64_t>frame[9] << 16
                                                        | <uint64_t>frame[10] << 8 | frame[11])


cdef void end(Police *police, uint32_t frames, bint is_empty, uint64_t now) noexcept nogil:
    cdef uint64_t now_ms = now // 1_000_000
    police.frames += frames
    if is_empty:
        police.behind = 0
        if police.quota < MOST and now_ms > police.rose_ms:
            police.quota = <uint32_t>min(police.quota + now_ms - police.rose_ms, <uint64_t>MOST)
    else:
        police.behind += frames
        if police.behind >= (BEHIND_FRAMES if police.quota == MOST else AGAIN_FRAMES):
            police.behind = 0
            police.quota = max(police.quota * 3 // 4, LEAST)
    police.rose_ms = now_ms
    if police.frames - police.shared_at >= SHARE_FRAMES:
        police.shared_at = police.frames
        _share_out(police)


cdef void _share_out(Police *police) noexcept nogil:
    cdef uint64_t quota = <uint64_t>(police.quota * SHARE_FRAMES // MOST) * WANTED, light
    cdef uint32_t senders = 0, heavy
    cdef int at, turn
    for at in range(PLACES):
        senders += police.wanted[at] > 0
    police.share = quota // max(senders, <uint32_t>1)
    for turn in range(ROUNDS):
        light = heavy = 0
        for at in range(PLACES):
            if <uint64_t>police.wanted[at] * WANTED <= police.share:
                light += <uint64_t>police.wanted[at] * WANTED
            else:
                heavy += 1
        if not heavy:
            police.share = quota
            break
        police.share = max((quota - light) // heavy, police.share)
    memset(police.wanted, 0, sizeof(police.wanted))
