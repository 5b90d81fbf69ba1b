# cython: language_level=3, boundscheck=True, wraparound=False
"""The burst loop of a port: read frames, repeat those that the flow table knows, hand the rest to the walk.

Why it is compiled: two system calls a packet are most of its cost, and the interpreter between them would cost as much
again. The loop runs without the interpreter's lock, and takes it only for frames that it hands to the walk.

The buffer holds one frame; its IP packet always stands at the same place, so that any link header can be put in front
and one `write` sends virtio header, link header and packet, of a super-frame as well.

`wait` is the waiting of `bridge.loop.loop` with the bursts in it: as long as every frame is repeated, the interpreter
does not wake.
"""

import mmap
import os

from libc.errno cimport EAGAIN, EBADFD, EINTR, EIO, ENETDOWN, ENOBUFS, ENOMEM, ENXIO, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset
from posix.unistd cimport read, write

from bridge.ports.police cimport CompiledPolice, admit, end
from flow.fast cimport MOST_PORTS, Claims, CompiledTable, Way

from flow.table import IN_ORDER, Punt
from wire.gso import GsoHeader

from bridge.ports.base import PortGone
from bridge.ports.bursts import BURST_BYTES
from bridge.ports.counted import Counted

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_wait(int, epoll_event *, int, int)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int, timespec *)

cdef enum:
    MOST_DESCRIPTORS = 4096
    MOST_EVENTS = 16
    FRAME_BYTES = 65_535 + 14
    HEADER_BYTES = 10
    NEEDS_CSUM = 1

    EMPTY = 0       # beside the numbers of `Punt`: what `_pump` stopped at
    QUEUED = -1
    GONE = -2
    ETHERNET = 1    # `Punt.ETHERNET`
    NO_LINK = 14    # `Punt.NO_LINK`

    UNTOLD_NS = 1_000_000  # so long the tunnel may be without news of what went to its peers

cdef uint32_t BURST = BURST_BYTES
cdef set IN_ORDER_NUMBERS = {int(punt) for punt in IN_ORDER}
assert (Punt.ETHERNET, Punt.NO_LINK) == (ETHERNET, NO_LINK)


cdef class Outlet:
    """An outlet that takes nothing: every packet whose out-port is no device goes to Python."""

    cdef int push(self, uint16_t out_port, uint8_t *packet, size_t size, const Claims *claims) noexcept nogil:
        return 1

    cdef int flush(self) noexcept nogil:
        return 0


cdef class CompiledBursts:
    """A `bridge.ports.bursts.Bursts` without the interpreter. One call at a time."""

    def __cinit__(self, CompiledTable table not None, Outlet outlet=None):
        cdef uint8_t[::1] view
        cdef int port
        self.table = table
        self._outlet = Outlet() if outlet is None else outlet
        self._policing = {}
        for port in range(MOST_PORTS):
            self._devices[port].fd = -1
        for port in range(MOST_DESCRIPTORS):
            self._numbers[port] = -1
        self._memory = mmap.mmap(-1, HEADROOM + FRAME_BYTES)  # on a page's edge: the kernel copies faster to there
        view = self._memory
        self._packet = &view[HEADROOM]

    def attach(self, uint16_t number, port, CompiledPolice police=None):
        """As `Bursts`."""
        if number >= MOST_PORTS:
            raise ValueError(f"no port {number}")
        self._devices[number].fd = port.fileno()
        self._devices[number].has_header = port.vnet_header
        self._devices[number].link_bytes = port.link_bytes
        self._policing[number] = police
        self._police[number] = &police.state if police is not None else NULL
        if port.fileno() < MOST_DESCRIPTORS:
            self._numbers[<int>port.fileno()] = number

    def wait(self, epoll, timeout_s, uint32_t limit):
        """As `Bursts`."""
        cdef epoll_event events[MOST_EVENTS]
        cdef int descriptor = epoll.fileno(), count, at, number = -1, stop = EMPTY, others = 0
        cdef uint64_t began = _now_ns(), now = began
        cdef uint64_t until = 0xFFFFFFFFFFFFFFFF if timeout_s is None else began + <uint64_t>(timeout_s * 1e9)
        cdef uint32_t left = 0, left_bytes = 0
        self._has_pushed = False
        with nogil:
            while True:
                count = epoll_wait(descriptor, events, MOST_EVENTS, _milliseconds(until, now))
                now = _now_ns()
                at = others = 0
                while at < count:
                    number = self._numbers[events[at].data.fd] if events[at].data.fd < MOST_DESCRIPTORS else -1
                    at += 1
                    if number < 0:
                        others += 1
                        continue
                    events[at - 1].events = 0  # seen to
                    left, left_bytes = limit, BURST
                    self._outlet.now_ns = now
                    stop = self._pump(number, &left, &left_bytes, <uint32_t>(now // 1_000_000))
                    if stop != EMPTY:
                        break
                    self._end(number, limit, left, left_bytes, now, stop)
                    self._outlet.flush()
                if stop != EMPTY or others or count < 0 or now >= until:
                    break
                if self._has_pushed and now >= began + UNTOLD_NS:
                    break
        burst = None
        ready = []
        if stop == GONE:
            events[at - 1].events = 1  # the next read of the port raises PortGone
        elif stop != EMPTY:
            burst = (number, *self._collect(number, limit, left, left_bytes, now, stop))
        for at in range(max(count, 0)):
            if events[at].events:
                ready.append((events[at].data.fd, events[at].events))
        return burst, ready

    def take(self, uint16_t number, uint32_t limit, now):
        """As `Bursts`."""
        cdef uint32_t left = limit, left_bytes = BURST_BYTES
        cdef int stop
        if number >= MOST_PORTS:
            raise ValueError(f"no port {number}")
        self._outlet.now_ns = now
        with nogil:
            stop = self._pump(number, &left, &left_bytes, <uint32_t>(self._outlet.now_ns // 1_000_000))
        return self._collect(number, limit, left, left_bytes, now, stop)

    cdef void _end(self, uint16_t number, uint32_t limit, uint32_t left, uint32_t left_bytes, uint64_t now,
                   int stop) noexcept nogil:
        """Tell the port's police of a burst. The queue is empty where there was room for another frame, and none
        came."""
        if self._police[number] != NULL and stop != GONE:
            end(self._police[number], limit - left, stop == EMPTY and left > 0 and left_bytes > 0, now)

    cdef tuple _collect(self, uint16_t number, uint32_t limit, uint32_t left, uint32_t left_bytes, uint64_t now,
                        int stop):
        """Collect the rest of a burst that has stopped at a frame for Python."""
        cdef list walked = [], queued = []
        cdef uint32_t link_bytes = self._devices[number].link_bytes
        cdef int error
        while True:
            if stop == QUEUED:
                queued.append((self._way.out_port, self._way.link[:self._way.link_bytes]
                               + self._packet[:self._way.size], self._offload(link_bytes)))
            elif stop > 0:
                self._punts[stop] += 1
                walked.append(((self._packet - link_bytes)[:self._frame_bytes], self._offload(link_bytes)))
                if stop in IN_ORDER_NUMBERS:
                    break
            else:
                break
            with nogil:
                stop = self._pump(number, &left, &left_bytes, <uint32_t>(now // 1_000_000))
        error = errno
        with nogil:
            self._end(number, limit, left, left_bytes, now, stop)
            self._outlet.flush()
        for out_port, _, _ in queued:
            self._has_queued[<uint16_t>out_port] = 0
        if stop == GONE and not walked and not queued:
            raise PortGone(f"port {number} is gone: {os.strerror(error)}")
        return walked, queued

    cdef object _offload(self, uint32_t link_bytes):
        cdef Claims *claims = &self._claims
        if not claims.partial and not claims.gso_type:
            return None
        return GsoHeader(bool(claims.partial), claims.gso_type, claims.header_bytes, claims.gso_bytes,
                       <int>(claims.checksum_start + link_bytes & 0xFFFF) - <int>link_bytes,
                       claims.checksum_offset)

    cdef int _pump(self, uint16_t in_port, uint32_t *left, uint32_t *left_bytes, uint32_t now_ms) noexcept nogil:
        """Repeat frames until one is for Python (its reason), or none is left now."""
        cdef Device *device = &self._devices[in_port]
        cdef Police *police = self._police[in_port]
        cdef size_t header_bytes = HEADER_BYTES if device.has_header else 0
        cdef uint8_t *packet = self._packet
        cdef uint8_t *frame = packet - device.link_bytes
        cdef uint8_t *start = frame - header_bytes
        cdef ssize_t size
        cdef int punt
        if device.fd < 0:
            return GONE
        while left[0] and left_bytes[0]:
            size = read(device.fd, start, header_bytes + FRAME_BYTES - 14 + device.link_bytes)
            if size < 0 and errno == EINTR:
                continue
            if size < <ssize_t>header_bytes:
                return EMPTY if size < 0 and errno == EAGAIN else GONE
            size -= header_bytes
            left[0] -= 1
            left_bytes[0] -= min(<uint32_t>size, left_bytes[0])
            memset(&self._claims, 0, sizeof(Claims))
            if header_bytes:
                _unpack(start, device.link_bytes, &self._claims)
            self._frame_bytes = size
            punt = self.table.admit(in_port, frame, size) if device.link_bytes else 0
            if punt == ETHERNET and _untag(frame, &size, &self._claims):
                self._frame_bytes = size
                punt = self.table.admit(in_port, frame, size)
            if punt == 0:  # and so the frame has its link header
                punt = self.table.repeat(in_port, packet, size - device.link_bytes, &self._claims, now_ms, &self._way)
            if punt and punt != NO_LINK and (police == NULL or admit(police, frame, size, punt)):
                return punt
            device.rx_packets += 1
            device.rx_bytes += size
            if punt == NO_LINK:
                device.no_link += 1
            elif punt:
                device.policed += 1
            elif self.put(&self._way, packet, &self._claims):
                return QUEUED
        return EMPTY

    cdef int put(self, const Way *way, uint8_t *packet, const Claims *claims) noexcept nogil:
        cdef Device *device = &self._devices[way.out_port]
        cdef uint8_t *start = packet - way.link_bytes
        cdef size_t size = way.link_bytes + way.size
        device.tx_packets += 1
        device.tx_bytes += size
        if device.fd < 0:
            if not self._has_queued[way.out_port] and self._outlet.push(way.out_port, packet, way.size, claims) == 0:
                self._has_pushed = True
                return 0
        elif device.has_header or not (claims.partial or self._has_queued[way.out_port]):
            memcpy(start, way.link, way.link_bytes)
            if device.has_header:
                start -= HEADER_BYTES
                size += HEADER_BYTES
                _pack(start, way.link_bytes, claims)
            while write(device.fd, start, size) < 0:
                if errno == EINTR:
                    continue
                if errno in (EAGAIN, ENOBUFS, ENOMEM):
                    device.full += 1
                elif errno in (EIO, ENETDOWN, EBADFD, ENXIO):
                    device.down += 1
                else:
                    device.malformed += 1
                break
            return 0
        # later packets must not overtake it
        self._has_queued[way.out_port] = 1
        return 1

    def counted(self):
        """As `Bursts`. The caller may be another thread, so the counters are never set back."""
        cdef uint32_t port
        cdef Device now, was
        cdef list found = []
        for port in range(MOST_PORTS):
            now, was = self._devices[port], self._told[port]
            # A frame may be half counted while we look: its other half is told next time, even if no other came.
            if (now.rx_packets != was.rx_packets or now.tx_packets != was.tx_packets
                    or now.policed != was.policed or now.no_link != was.no_link
                    or now.full != was.full or now.down != was.down or now.malformed != was.malformed):
                found.append(Counted(
                    port,
                    rx_packets=now.rx_packets - was.rx_packets,
                    rx_bytes=now.rx_bytes - was.rx_bytes,
                    tx_packets=now.tx_packets - was.tx_packets,
                    tx_bytes=now.tx_bytes - was.tx_bytes,
                    full=now.full - was.full,
                    down=now.down - was.down,
                    malformed=now.malformed - was.malformed,
                    policed=now.policed - was.policed,
                    no_link=now.no_link - was.no_link,
                ))
                self._told[port] = now
        return found

    def punts(self):
        """As `Bursts`."""
        return {punt: self._punts[<int>punt] for punt in Punt if self._punts[<int>punt]}


cdef inline bint _untag(uint8_t *frame, ssize_t *size, Claims *claims) noexcept nogil:
    """`wire.ethernet.without_tags` and `wire.gso.untagged`: whether there were priority tags."""
    cdef bint found = False
    while size[0] >= 18 and ((frame[12] == 0x81 and frame[13] == 0) or (frame[12] == 0x88 and frame[13] == 0xA8)):
        if frame[14] & 0x0F or frame[15]:
            break
        memmove(frame + 12, frame + 16, size[0] - 16)
        size[0] -= 4
        if claims.partial or claims.gso_type:
            claims.checksum_start -= 4
            claims.header_bytes -= min(claims.header_bytes, <uint16_t>4)
        found = True
    return found


cdef inline uint64_t _now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t>now.tv_sec * 1_000_000_000 + <uint64_t>now.tv_nsec


cdef inline int _milliseconds(uint64_t until, uint64_t now) noexcept nogil:
    """The time to wait: rounded up, so that no timer is early; -1 for ever."""
    if until == <uint64_t>0xFFFFFFFFFFFFFFFF:
        return -1
    return 0 if until <= now else <int>min((until - now + 999_999) // 1_000_000, 3_600_000)


cdef inline void _unpack(const uint8_t *header, uint32_t link_bytes, Claims *claims) noexcept nogil:
    """`wire.gso.unpack`."""
    cdef uint16_t fields[4]
    if not header[0] & NEEDS_CSUM and header[1] == 0:
        return
    memcpy(fields, header + 2, 8)
    claims.partial = header[0] & NEEDS_CSUM
    claims.gso_type = header[1]
    claims.header_bytes = fields[0] - link_bytes if fields[0] > link_bytes else 0
    claims.gso_bytes = fields[1]
    claims.checksum_start = <uint16_t>(fields[2] - link_bytes)
    claims.checksum_offset = fields[3]


cdef inline void _pack(uint8_t *header, uint32_t link_bytes, const Claims *claims) noexcept nogil:
    """`wire.gso.pack` for packets that `repeat` lets through: plain, or with a partial checksum."""
    cdef uint16_t *fields = [min(claims.header_bytes + link_bytes, 0xFFFF) if claims.gso_type else 0, claims.gso_bytes,
                             claims.checksum_start + link_bytes, claims.checksum_offset]
    memset(header, 0, HEADER_BYTES)
    if claims.partial:
        header[0] = NEEDS_CSUM
        header[1] = claims.gso_type
        memcpy(header + 2, fields, 8)
