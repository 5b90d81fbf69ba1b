# cython: language_level=3, boundscheck=True, wraparound=False
"""The compiled twin of `tunnel.primitives.Cipher`: the same bytes, without the interpreter's lock while it works.

Why it is compiled: a call of libsodium from Python costs half as long again as the sealing itself, and code that takes
the interpreter's lock once a packet does not become faster on two cores. Here a burst is read with the lock, and worked
off without it. libsodium is called by the pointers that PyNaCl gives: nothing is linked, no header is needed.

`bridge.vpn.ciphers` makes the threads. A thread that calls `help` works for this cipher until `release`: it takes the
next piece of the burst, PIECE_BYTES or one packet, whenever it has done one. The caller does the same, so a helper that
wakes late, or never, delays nothing but its own piece. Each result has its place, whichever thread made it. The mutex
is taken once a piece, never once a packet.

A helper touches keys, packets and results only between the beginning and the end of a call, and the caller is inside
the call all the time. So no thread is at work while the caller, for example, wipes a key.

`may_be_new` and `accept` are those of `tunnel.replay.ReplayWindow`, on the same memory.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from posix.unistd cimport getpid

from nacl._sodium import ffi, lib

from tunnel.constants import REJECT_AFTER_MESSAGES as LIMIT
from tunnel.primitives import TransportKey

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *, const void *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_cond_init(pthread_cond_t *, const void *)
    int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *)
    int pthread_cond_signal(pthread_cond_t *)
    int pthread_cond_broadcast(pthread_cond_t *)

ctypedef int (*Seal)(unsigned char *, void *, Octets, unsigned long long, Octets, unsigned long long, Octets, Octets,
                     Octets) noexcept nogil
ctypedef int (*Open)(unsigned char *, void *, unsigned char *, Octets, unsigned long long, Octets, unsigned long long,
                     Octets, Octets) noexcept nogil

cdef enum:
    DATA = 4
    SLOTS = 8192
    REACH = 8128
    PLAIN_BYTES = 65_536
    WORTH_BYTES = 60_000  # a smaller burst is done before a helper that was woken has paid for it
    PIECE_BYTES = 8_000

cdef Seal _seal = <Seal><uintptr_t>int(
    ffi.cast("uintptr_t", ffi.addressof(lib, "crypto_aead_chacha20poly1305_ietf_encrypt")))
cdef Open _open = <Open><uintptr_t>int(
    ffi.cast("uintptr_t", ffi.addressof(lib, "crypto_aead_chacha20poly1305_ietf_decrypt")))


cdef class CompiledCipher:
    """A `BurstCipher`; one call at a time (`RuntimeError`). In a forked child, which has no helpers, it works alone."""

    def __cinit__(self):
        self._owner = getpid()
        pthread_mutex_init(&self._lock, NULL)
        pthread_cond_init(&self._begun, NULL)
        pthread_cond_init(&self._done, NULL)

    def __dealloc__(self):
        free(self._own)

    def seal_burst(self, key, uint32_t receiver, uint64_t first, packets, Py_ssize_t mtu_bytes):
        """As `tunnel.primitives.Cipher`."""
        cdef list held = list(packets)  # nobody takes a packet out of our list while it is sealed
        cdef list sealed = []
        cdef Octets secret = _secret(key)
        cdef size_t count = len(held), at, total = 0
        cdef Py_ssize_t size, padded
        cdef bytes packet, message
        cdef Job *job
        self._begin(count)
        try:
            for at in range(count):
                packet = <bytes?>held[at]
                size = padded = len(packet)
                if size > PLAIN_BYTES:
                    raise ValueError(f"a packet of {size} bytes")
                if size & 15 and size < mtu_bytes:
                    padded = min((size + 15) & ~15, mtu_bytes)
                message = PyBytes_FromStringAndSize(NULL, HEADER_BYTES + padded + TAG_BYTES)
                sealed.append(message)
                job = &self._own[at]
                job.target = <unsigned char *>PyBytes_AS_STRING(message)
                job.source = <Octets>PyBytes_AS_STRING(packet)
                job.key = secret
                job.given = size
                job.padded = padded
                job.counter = first + at
                job.receiver = receiver
                job.is_sealing = True
                total += size + PACKET_BYTES
            with nogil:
                self.run(self._own, count, total)
        finally:
            self._is_busy = False
        return sealed

    def open_burst(self, jobs):
        """As `tunnel.primitives.Cipher`."""
        cdef list held = list(jobs)
        cdef list opened = []
        cdef object last = None
        cdef Octets secret = NULL
        cdef size_t count = len(held), at, total = 0
        cdef Py_ssize_t size
        cdef bytes datagram, plain
        cdef Job *job
        self._begin(count)
        try:
            for at in range(count):
                key, data = held[at]
                datagram = <bytes?>data
                size = len(datagram)
                if not HEADER_BYTES + TAG_BYTES <= size <= HEADER_BYTES + PLAIN_BYTES + TAG_BYTES:
                    raise ValueError(f"a data message of {size} bytes")
                if secret == NULL or key is not last:
                    secret = _secret(key)
                    last = key
                plain = PyBytes_FromStringAndSize(NULL, size - HEADER_BYTES - TAG_BYTES)
                opened.append(plain)
                job = &self._own[at]
                job.target = <unsigned char *>PyBytes_AS_STRING(plain)
                job.source = <Octets>PyBytes_AS_STRING(datagram)
                job.key = secret
                job.given = size
                job.is_sealing = False
                total += size + PACKET_BYTES
            with nogil:
                self.run(self._own, count, total)
            for at in range(count):
                if self._own[at].failed:
                    opened[at] = None
        finally:
            self._is_busy = False
        return opened

    def help(self):
        """Lend the calling thread until `release`. It gives the interpreter's lock back at once."""
        with nogil:
            pthread_mutex_lock(&self._lock)
            self._helpers += 1
            while not self._is_released:
                if self._next < self._count:
                    self._work()
                else:
                    pthread_cond_wait(&self._begun, &self._lock)
            self._helpers -= 1
            pthread_mutex_unlock(&self._lock)

    def release(self):
        """Let all helpers go for good: each returns from `help` once its piece is done."""
        if getpid() == self._owner:
            with nogil:
                pthread_mutex_lock(&self._lock)
                self._is_released = True
                pthread_cond_broadcast(&self._begun)
                pthread_mutex_unlock(&self._lock)

    cdef Job *_begin(self, size_t count) except NULL:
        cdef void *grown
        if self._is_busy:
            raise RuntimeError("one call at a time: two threads need two ciphers")
        if count > self._room or self._own == NULL:
            grown = realloc(self._own, (count + 1) * sizeof(Job))
            if grown == NULL:
                raise MemoryError
            self._own = <Job *>grown
            self._room = count
        self._is_busy = True
        return self._own

    cdef void run(self, Job *jobs, size_t count, size_t total) noexcept nogil:
        """Do the jobs, with the helpers where there is enough to do."""
        cdef size_t at
        cdef int waking
        if total < WORTH_BYTES or count < 2 or self._owner != getpid():
            for at in range(count):
                _do(&jobs[at])
        else:
            pthread_mutex_lock(&self._lock)
            self._jobs = jobs
            self._next = 0
            self._left = self._count = count
            for waking in range(<int>min(<size_t>self._helpers, total // PIECE_BYTES)):
                pthread_cond_signal(&self._begun)
            self._work()
            while self._left:
                pthread_cond_wait(&self._done, &self._lock)
            pthread_mutex_unlock(&self._lock)

    cdef void _work(self) noexcept nogil:
        """Do pieces until none is left to begin. The mutex is held before and after, not while at work."""
        cdef size_t start, end, at, weight
        while self._next < self._count:
            start = self._next
            weight = 0
            while self._next < self._count and weight < PIECE_BYTES:
                weight += self._jobs[self._next].given + PACKET_BYTES
                self._next += 1
            end = self._next
            pthread_mutex_unlock(&self._lock)
            for at in range(start, end):
                _do(&self._jobs[at])
            pthread_mutex_lock(&self._lock)
            self._left -= end - start
            if self._left == 0:
                pthread_cond_signal(&self._done)


cdef uint64_t REJECT_AFTER_MESSAGES = LIMIT


cdef bint may_be_new(const uint64_t *memory, uint64_t counter) noexcept nogil:
    if counter > memory[GREATEST]:
        return counter < REJECT_AFTER_MESSAGES
    return memory[GREATEST] - counter <= REACH and not (<const uint8_t *>&memory[UNTIL + 1])[counter & (SLOTS - 1)]


cdef bint accept(uint64_t *memory, uint64_t counter) noexcept nogil:
    cdef uint8_t *seen = <uint8_t *>&memory[UNTIL + 1]
    cdef uint64_t skipped = memory[GREATEST] + 1
    if not may_be_new(memory, counter):
        return False
    if counter > memory[GREATEST]:
        if counter - skipped >= SLOTS - 1:
            memset(seen, 0, SLOTS)
        while skipped < counter and counter - skipped < SLOTS - 1:
            seen[skipped & (SLOTS - 1)] = 0
            skipped += 1
        memory[GREATEST] = counter
    seen[counter & (SLOTS - 1)] = 1
    return True


def accepted(uint8_t[::1] memory not None, uint64_t counter):
    """The results of `may_be_new` and `accept` for a counter. `memory`: as `Session.memory` (`ValueError`)."""
    cdef uint64_t *words
    if memory.shape[0] != MEMORY_BYTES:
        raise ValueError("not a session's memory")
    words = <uint64_t *>&memory[0]
    return bool(may_be_new(words, counter)), bool(accept(words, counter))


cdef Octets _secret(key) except NULL:
    """The address of a key's bytes: they stay there as long as the key lives. `TypeError` where it is no key."""
    if not isinstance(key, TransportKey):
        raise TypeError("not a key")
    return <Octets><uintptr_t>key.address


cdef void _do(Job *job) noexcept nogil:
    """Seal or open one packet: the only place where libsodium is called."""
    cdef unsigned char nonce[12]
    cdef unsigned char *body
    cdef Octets source
    cdef int at
    memset(nonce, 0, 4)
    if not job.is_sealing:
        memcpy(&nonce[4], job.source + 8, 8)
        job.failed = _open(job.target, NULL, NULL, job.source + HEADER_BYTES, job.given - HEADER_BYTES, NULL, 0,
                           nonce, job.key) != 0
        return
    for at in range(8):
        nonce[4 + at] = (job.counter >> (8 * at)) & 0xFF
    memset(job.target, 0, 4)
    job.target[0] = DATA
    for at in range(4):
        job.target[4 + at] = (job.receiver >> (8 * at)) & 0xFF
    memcpy(job.target + 8, &nonce[4], 8)
    body = job.target + HEADER_BYTES
    source = job.source
    if job.padded != job.given:  # padded where it will lie, and sealed there
        if source != body:
            memcpy(body, source, job.given)
        memset(body + job.given, 0, job.padded - job.given)
        source = body
    _seal(body, NULL, source, job.padded, NULL, 0, NULL, nonce, job.key)
