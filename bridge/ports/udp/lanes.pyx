# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
"""Packets to and from peers without the interpreter: cut, sealed and sent; received, opened, merged and repeated.

Why it is compiled: a full packet of the tunnel costs 1.4 us to seal and as much to open. Python around it, from the
slice of a super-frame to the datagram, cost five times as much.

A *lane* is the path of one peer's packets through this code. Outbound it has the keys of a session, the index of the
other side, the socket and the address. Inbound it has each session under which the peer's datagrams may be opened
(`Inbound`). Python opens and closes lanes (`bridge.vpn.lanes`) and reads out what passed by them. There is no timer and
no decision here. The rest comes back to Python in order:

- A packet that may leave by no lane: `push` says so, and its caller hands the packet to Python.
- A datagram that names no inbound session, or is no data message: `strange`, unopened. A datagram that comes from
  another address than the peer's is opened like any other; the source of the last authentic one is told
  (`socket_results`).
- A packet that the flow table does not know, a control message, a congestion mark that must be passed on: `opened`.
  Where order matters, the inbound session is paused then until the end of the call, so that its next datagrams go to
  Python behind that one.

The file has more than 600 lines, because a packet that comes may leave again at once: both directions share sessions,
arena and cipher.

The counter to send and the replay window lie in the session's own memory (`tunnel.session`). So does the end of its
keys, which is looked at before every use: keys that Python has wiped are not used, whatever stands here.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, ENOMEM, errno
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from bridge.ports.burst cimport HEADROOM, CompiledBursts, Device, Outlet
from flow.fast cimport Claims, Way
from tunnel.burst cimport (COUNTER, GREATEST, HEADER_BYTES, MEMORY_BYTES, PACKET_BYTES, TAG_BYTES, UNTIL,
                           CompiledCipher, Job, Octets, accept, may_be_new)
from wire.segments cimport MOST_SEGMENTS, SLOTS, SUPER_FRAME_BYTES, Cut, Segment, assemble, chain, piece, plan

from flow.table import IN_ORDER
from tunnel.constants import REJECT_AFTER_MESSAGES
from wire.gso import GsoHeader

cdef extern from "<sys/socket.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    int MSG_CTRUNC
    int MSG_DONTWAIT
    cmsghdr *CMSG_FIRSTHDR(msghdr *)
    cmsghdr *CMSG_NXTHDR(msghdr *, cmsghdr *)
    unsigned char *CMSG_DATA(cmsghdr *)
    size_t CMSG_LEN(size_t)
    size_t CMSG_SPACE(size_t)
    ssize_t sendmsg(int, const msghdr *, int)
    int recvmmsg(int, mmsghdr *, unsigned int, int, void *)

cdef enum:
    MOST_PORTS = 1024
    MOST_INBOUND = 4096        # a power of 2, and never more than half of them in use
    NAME_BYTES = 28
    INFO_BYTES = 20
    CONTROL_WORDS = 16      # of 8 bytes: control messages are aligned
    CONTROL_BYTES = 128
    ARENA_BYTES = 1 << 17   # of sealed datagrams: two super-frames' worth
    MESSAGES = 64
    STEP = 8                # messages asked for at once
    FEW = 128               # datagrams: with those of one more step there are MOST_SEGMENTS at most
    MESSAGE_BYTES = HEADROOM + 65_536
    MOST_TOGETHER = 64      # in one piece
    LONGEST_BYTES = 65_507  # of it
    MOST_ATTEMPTS = 4
    SOL_UDP = 17
    UDP_SEGMENT = 103
    UDP_GRO = 104
    DATA = 4
    CE = 3
    ECT_0 = 2
    ECT_1 = 1

cdef uint64_t MOST_COUNTERS = REJECT_AFTER_MESSAGES
cdef uint32_t PAUSING = sum(1 << int(punt) for punt in IN_ORDER)

cdef struct Lane:
    uint64_t *memory         # NULL: there is none
    Octets key
    uint32_t remote
    uint32_t mtu_bytes
    int fd
    bint is_together         # the kernel takes many datagrams in one piece
    int tos_level, tos_kind
    uint8_t name[NAME_BYTES]
    uint32_t name_bytes
    uint64_t control[CONTROL_WORDS]  # by which device and from which address, as a control message
    uint32_t control_bytes
    uint64_t packets, size_bytes  # since the last `sent`

cdef struct Inbound:
    uint64_t *memory         # NULL: free
    Octets key
    uint32_t local
    uint16_t port
    bint is_paused, has_data, has_moved
    uint8_t name[NAME_BYTES]
    uint32_t name_bytes
    uint8_t info[INFO_BYTES]
    uint32_t info_bytes
    uint64_t size_bytes      # since the last `burst_results`

cdef struct Leaving:
    uint16_t port
    uint8_t tos

cdef struct Arrived:
    Inbound *inbound
    const uint8_t *info
    uint32_t info_bytes
    uint8_t message, ecn
    bint is_elsewhere


cdef class Lanes(Outlet):
    """`cipher`: seals and opens. One call at a time."""

    cdef list _strange, _opened, _queued, _unsent
    cdef uint64_t _forged, _repeated, _cut_off, _full  # since the last `burst_results`
    cdef CompiledCipher _cipher
    cdef CompiledBursts _bursts
    cdef Device *_devices
    cdef uint64_t *_punts
    cdef dict _held, _moved
    cdef list _held_inbound
    cdef Lane *_lanes
    cdef Inbound *_inbound
    cdef uint8_t *_arena
    cdef uint8_t *_incoming
    cdef Job _sealing[MOST_SEGMENTS]
    cdef Leaving _leaving[MOST_SEGMENTS]
    cdef Job _opening[MOST_SEGMENTS]
    cdef Arrived _arrived[MOST_SEGMENTS]
    cdef Segment _segments[MOST_SEGMENTS]
    cdef int32_t _slots[SLOTS]
    cdef mmsghdr _messages[MESSAGES]
    cdef iovec _places[MESSAGES]
    cdef uint8_t _names[MESSAGES][NAME_BYTES]
    cdef uint64_t _controls[MESSAGES][CONTROL_WORDS]
    cdef uint8_t _whole[HEADROOM + SUPER_FRAME_BYTES]
    cdef uint32_t _count, _end, _arrived_count, _arrived_weight
    cdef bint _has_paused

    def __cinit__(self, CompiledCipher cipher not None):
        self._cipher = cipher
        self._held, self._moved, self._held_inbound = {}, {}, []
        self._strange, self._opened, self._queued, self._unsent = [], [], [], []
        self._lanes = <Lane *>calloc(MOST_PORTS, sizeof(Lane))
        self._inbound = <Inbound *>calloc(MOST_INBOUND, sizeof(Inbound))
        self._arena = <uint8_t *>calloc(ARENA_BYTES, 1)
        self._incoming = <uint8_t *>calloc(MESSAGES, MESSAGE_BYTES)
        if self._lanes == NULL or self._inbound == NULL or self._arena == NULL or self._incoming == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._lanes)
        free(self._inbound)
        free(self._arena)
        free(self._incoming)

    def join(self, CompiledBursts bursts not None):
        """`bursts` repeats opened packets and writes them to devices."""
        self._bursts = bursts
        self._devices = bursts._devices
        self._punts = bursts._punts

    # Python opens and closes lanes

    def open_lane(self, uint16_t port, uint8_t[::1] memory not None, key, uint32_t remote, uint32_t mtu_bytes, int fd,
                  bint is_together, int tos_level, int tos_kind, const uint8_t[::1] name not None, info):
        """Packets for `port` may leave by a session from now on. `name`: the socket address; `info`: (level, kind,
        bytes) of the control message that chooses the path, or None."""
        cdef Lane lane
        cdef size_t used = 0
        cdef bytes data
        if port >= MOST_PORTS or memory.shape[0] != MEMORY_BYTES or not 0 < name.shape[0] <= NAME_BYTES:
            raise ValueError("not a lane")
        self.flush()
        memset(&lane, 0, sizeof(Lane))
        lane.packets, lane.size_bytes = self._lanes[port].packets, self._lanes[port].size_bytes
        lane.memory = <uint64_t *>&memory[0]
        lane.key = <Octets><uintptr_t>key.address
        lane.remote, lane.mtu_bytes = remote, mtu_bytes
        lane.fd, lane.is_together = fd, is_together
        lane.tos_level, lane.tos_kind = tos_level, tos_kind
        memcpy(lane.name, &name[0], name.shape[0])
        lane.name_bytes = name.shape[0]
        if info is not None:
            data = <bytes?>info[2]
            if len(data) > INFO_BYTES:
                raise ValueError("not a path")
            lane.control_bytes = _append(lane.control, 0, info[0], info[1], PyBytes_AS_STRING(data), len(data))
        self._held[port] = (memory, key)
        self._lanes[port] = lane

    def close_lane(self, uint16_t port):
        """Close the lane. Packets that were pushed before still leave."""
        self.flush()
        if port in self._held:
            self._lanes[port].memory = NULL
            self._held[port] = None

    def set_inbound(self, sessions):
        """Replace the inbound sessions by these: (index, memory, key, port, socket address, info)."""
        cdef uint8_t[::1] memory
        cdef const uint8_t[::1] name
        cdef bytes info
        cdef Inbound *inbound
        cdef list held = list(sessions)
        if 2 * len(held) > MOST_INBOUND:
            raise ValueError("too many sessions")
        memset(self._inbound, 0, MOST_INBOUND * sizeof(Inbound))
        self._held_inbound = held
        for local, memory, key, port, name, info in held:
            if memory.shape[0] != MEMORY_BYTES or not 0 < name.shape[0] <= NAME_BYTES or len(info) > INFO_BYTES:
                raise ValueError("not an inbound session")
            inbound = self._find(local)
            inbound.local, inbound.port = local, port
            inbound.key = <Octets><uintptr_t>key.address
            memcpy(inbound.name, &name[0], name.shape[0])
            inbound.name_bytes = name.shape[0]
            memcpy(inbound.info, PyBytes_AS_STRING(info), len(info))
            inbound.info_bytes = len(info)
            inbound.memory = <uint64_t *>&memory[0]

    cdef Inbound *_find(self, uint32_t local) noexcept nogil:
        """The inbound session with this index, or the free place for it."""
        cdef uint32_t at = local & (MOST_INBOUND - 1)  # indices are random, and ours
        while self._inbound[at].memory != NULL and self._inbound[at].local != local:
            at = (at + 1) & (MOST_INBOUND - 1)
        return &self._inbound[at]

    # Python reads the results

    def sent(self):
        """(port, packets, bytes of datagrams) sealed since the last time."""
        cdef uint32_t port
        cdef list found = []
        for port in self._held:
            if self._lanes[port].packets:
                found.append((port, self._lanes[port].packets, self._lanes[port].size_bytes))
                self._lanes[port].packets = self._lanes[port].size_bytes = 0
        return found

    def socket_results(self):
        """From one socket: datagrams for Python, (datagram, socket address, info, ECN field), and by index the (socket
        address, info) of the last authentic one, where some had another source than the peer."""
        found = self._strange, self._moved
        self._strange, self._moved = [], {}
        return found

    def burst_results(self):
        """Of a burst: packets for the walk, (index, packet, gso, ECN field); frames for writers of ports, (out-port,
        frame, gso); (index, bytes of authentic datagrams, whether there was data); and what was dropped: not
        authentic, seen before, cut off by the kernel, not taken by it. No session is paused any more."""
        cdef Inbound *inbound
        cdef list received = []
        for held in self._held_inbound:
            inbound = self._find(held[0])
            if inbound.size_bytes:
                received.append((inbound.local, inbound.size_bytes, bool(inbound.has_data)))
            inbound.size_bytes = 0
            inbound.has_data = inbound.has_moved = inbound.is_paused = False
        self._has_paused = False
        found = self._opened, self._queued, received, (self._forged, self._repeated, self._cut_off, self._full)
        self._opened, self._queued = [], []
        self._forged = self._repeated = self._cut_off = self._full = 0
        return found

    def take_unsent(self):
        """Datagrams that the kernel refused as they were: (port, datagram, TOS)."""
        found, self._unsent = self._unsent, []
        return found

    # Packets leave

    cdef int push(self, uint16_t out_port, uint8_t *packet, size_t size, const Claims *claims) noexcept nogil:
        cdef Lane *lane = &self._lanes[out_port]
        cdef Cut cut
        cdef Job *job
        cdef uint32_t index
        cdef uint64_t *memory = lane.memory
        if (memory == NULL or memory[UNTIL] <= self.now_ns
                or plan(&cut, packet, size, claims.partial, claims.gso_type & 0x7F, claims.gso_bytes,
                        claims.checksum_start, claims.checksum_offset)
                or cut.longest > lane.mtu_bytes or packet[0] >> 4 != 4
                or cut.longest + HEADER_BYTES + 16 + TAG_BYTES > ARENA_BYTES
                or memory[COUNTER] > MOST_COUNTERS - cut.count):
            return 1
        for index in range(cut.count):
            if self._count == MOST_SEGMENTS or self._end + HEADER_BYTES + cut.longest + 16 + TAG_BYTES > ARENA_BYTES:
                self.flush()
            job = &self._sealing[self._count]
            job.target = self._arena + self._end
            job.source = job.target + HEADER_BYTES
            job.key, job.receiver, job.is_sealing = lane.key, lane.remote, True
            job.given = piece(&cut, index, job.target + HEADER_BYTES)
            job.padded = min((job.given + 15) & ~<size_t>15, max(<size_t>lane.mtu_bytes, job.given))
            job.counter = memory[COUNTER]
            memory[COUNTER] += 1  # at once: Python may draw the next one before this is sealed
            self._leaving[self._count].port, self._leaving[self._count].tos = out_port, packet[1] & 3
            self._end += HEADER_BYTES + <uint32_t>job.padded + TAG_BYTES
            self._count += 1
        return 0

    def write(self, uint16_t port, frame, gso, now):
        """Push a packet of the walk; False where Python must send it."""
        cdef const uint8_t[::1] packet = frame
        cdef Claims claims
        memset(&claims, 0, sizeof(Claims))
        self.now_ns = now
        if packet.shape[0] == 0 or port >= MOST_PORTS:
            return False
        if gso is not None:
            claims.partial, claims.gso_type, claims.gso_bytes = gso.partial, gso.gso_type, gso.gso_bytes
            claims.checksum_start, claims.checksum_offset = gso.checksum_start, gso.checksum_offset
        return self.push(port, <uint8_t *>&packet[0], packet.shape[0], &claims) == 0

    def send(self):
        """Seal and send the packets that were pushed."""
        with nogil:
            self.flush()

    cdef int flush(self) noexcept nogil:
        cdef Lane *lane
        cdef uint32_t at, end, size, count = self._count, total = self._end + count * PACKET_BYTES
        self._count = self._end = 0
        for at in range(count):
            lane = &self._lanes[self._leaving[at].port]
            if lane.memory == NULL or lane.memory[UNTIL] == 0:  # wiped since: whoever did that has sent before
                self._full += count
                return 0
        self._cipher.run(self._sealing, count, total)
        at = 0
        while at < count:
            end = at + 1
            size = self._size(at)
            lane = &self._lanes[self._leaving[at].port]
            while (lane.is_together and end < count and end - at < MOST_TOGETHER
                    and self._leaving[end].port == self._leaving[at].port
                    and self._leaving[end].tos == self._leaving[at].tos and self._size(end) <= self._size(at)
                    and self._size(end - 1) == self._size(at) and size + self._size(end) <= LONGEST_BYTES):
                size += self._size(end)
                end += 1
            lane.packets += end - at
            lane.size_bytes += size
            self._send(lane, at, end, size)
            at = end
        return 0

    cdef inline uint32_t _size(self, uint32_t at) noexcept nogil:
        return HEADER_BYTES + <uint32_t>self._sealing[at].padded + TAG_BYTES

    cdef void _send(self, Lane *lane, uint32_t at, uint32_t end, uint32_t size) noexcept nogil:
        """Send datagrams that lie behind each other, in one piece. Where the kernel refuses for another reason than a
        full queue, Python sends them: it knows each of those reasons."""
        cdef msghdr message
        cdef iovec place
        cdef uint64_t control[CONTROL_WORDS]
        cdef size_t used = lane.control_bytes
        cdef int tos = self._leaving[at].tos, attempt
        cdef uint16_t each = <uint16_t>self._size(at)
        memset(&message, 0, sizeof(msghdr))
        memcpy(control, lane.control, used)
        if tos:
            used = _append(control, used, lane.tos_level, lane.tos_kind, &tos, sizeof(int))
        if end > at + 1:
            used = _append(control, used, SOL_UDP, UDP_SEGMENT, &each, sizeof(uint16_t))
        place.iov_base = self._sealing[at].target
        place.iov_len = size
        message.msg_iov = &place
        message.msg_iovlen = 1
        message.msg_name = lane.name
        message.msg_namelen = lane.name_bytes
        if used:
            message.msg_control = control
            message.msg_controllen = used
        for attempt in range(2):  # an error may be about something else, and is told once
            if sendmsg(lane.fd, &message, MSG_DONTWAIT) >= 0:
                return
            if errno in (EAGAIN, ENOBUFS, ENOMEM):
                self._full += end - at
                return
        with gil:
            for at in range(at, end):
                self._unsent.append((self._leaving[at].port, (<char *>self._sealing[at].target)[:self._size(at)],
                                     self._leaving[at].tos))

    # Datagrams come

    def receive(self, int fd, uint32_t limit, now):
        """Read and open the datagrams that wait at a socket, about `limit` at most."""
        cdef uint64_t now_ns = now
        cdef uint32_t total = 0
        cdef int attempts = 0, first, got, at
        self.now_ns = now_ns
        with nogil:
            while total < limit:
                self._arrived_count = self._arrived_weight = 0
                first = 0
                got = STEP
                while got == STEP and first < MESSAGES and self._arrived_count <= FEW and not self._has_paused:
                    got = self._receive(fd, first)
                    while got < 0 and errno != EAGAIN and attempts < MOST_ATTEMPTS:
                        attempts += 1  # an ICMP error: it is in the queue of errors as well
                        got = self._receive(fd, first)
                    for at in range(first, first + max(got, 0)):
                        total += self._sort(at, now_ns)
                    first += max(got, 0)
                self._cipher.run(self._opening, self._arrived_count, self._arrived_weight)
                self._finish()
                if got < STEP or self._has_paused:  # Python first: what waits is taken in another call
                    break
            self.flush()
        if self._bursts is not None:
            for out_port, _, _ in self._queued:
                self._bursts._has_queued[<uint16_t>out_port] = 0

    cdef int _receive(self, int fd, int first) noexcept nogil:
        """Read the next messages, a few at once: each may be many datagrams, and they should stay in the cache."""
        cdef int at
        cdef msghdr *message
        for at in range(first, first + STEP):
            message = &self._messages[at].msg_hdr
            self._places[at].iov_base = self._incoming + at * <size_t>MESSAGE_BYTES + HEADROOM
            self._places[at].iov_len = 65_535
            message.msg_name = self._names[at]
            message.msg_namelen = NAME_BYTES
            message.msg_iov = &self._places[at]
            message.msg_iovlen = 1
            message.msg_control = self._controls[at]
            message.msg_controllen = CONTROL_BYTES
        return recvmmsg(fd, &self._messages[first], STEP, MSG_DONTWAIT, NULL)

    cdef uint32_t _sort(self, int number, uint64_t now_ns) noexcept nogil:
        """Give each datagram of a message to its inbound session or to Python."""
        cdef msghdr *message = &self._messages[number].msg_hdr
        cdef uint8_t *data = self._incoming + number * <size_t>MESSAGE_BYTES + HEADROOM
        cdef uint32_t size = self._messages[number].msg_len, each = size, at = 0, count = 0, info_bytes = 0, length
        cdef uint8_t *info = NULL
        cdef uint8_t ecn = 0
        cdef int gro
        cdef cmsghdr *control = CMSG_FIRSTHDR(message)
        if message.msg_flags & MSG_CTRUNC:  # there is room for all that was asked for; where one ends is unsure
            self._cut_off += 1
            return 1
        while control != NULL:
            if control.cmsg_level == SOL_UDP and control.cmsg_type == UDP_GRO:
                memcpy(&gro, CMSG_DATA(control), sizeof(int))
                if gro > 0:
                    each = gro
            elif control.cmsg_type == 1 or control.cmsg_type == 67:  # IP_TOS is one byte here, IPV6_TCLASS an int
                if control.cmsg_type == 67:
                    memcpy(&gro, CMSG_DATA(control), sizeof(int))
                    ecn = gro & 3
                else:
                    ecn = CMSG_DATA(control)[0] & 3
            elif control.cmsg_type == 8 or control.cmsg_type == 50:  # IP_PKTINFO, IPV6_PKTINFO
                info = CMSG_DATA(control)
                info_bytes = <uint32_t>(control.cmsg_len - CMSG_LEN(0))
            control = CMSG_NXTHDR(message, control)
        while True:
            length = min(each, size - at)
            if not self._is_opened_here(number, data + at, length, info, info_bytes, ecn, now_ns):
                with gil:
                    self._strange.append(((<char *>data + at)[:length],
                                         (<char *>message.msg_name)[:message.msg_namelen],
                                         (<char *>info)[:info_bytes] if info != NULL else b"", ecn))
            count += 1
            at += length
            if at >= size:
                return count

    cdef bint _is_opened_here(self, int number, uint8_t *data, uint32_t size, const uint8_t *info, uint32_t info_bytes,
                        uint8_t ecn, uint64_t now_ns) noexcept nogil:
        """True where a datagram is opened or dropped here; False where Python must have it."""
        cdef Inbound *inbound
        cdef Arrived *arrived
        cdef Job *job
        cdef msghdr *message = &self._messages[number].msg_hdr
        if size < HEADER_BYTES + TAG_BYTES or _load32(data) != DATA:
            return False
        inbound = self._find(_load32(data + 4))
        if inbound.memory == NULL or inbound.memory[UNTIL] <= now_ns or inbound.is_paused:
            return False
        if not may_be_new(inbound.memory, _load64(data + 8)):
            self._repeated += 1
            return True
        if self._arrived_count == MOST_SEGMENTS:
            self._pause(inbound)
            return False
        arrived = &self._arrived[self._arrived_count]
        job = &self._opening[self._arrived_count]
        self._arrived_count += 1
        self._arrived_weight += size + PACKET_BYTES
        job.source, job.target, job.given = data, data + HEADER_BYTES, size
        job.key, job.is_sealing = inbound.key, False
        arrived.inbound = inbound
        arrived.ecn, arrived.message, arrived.info, arrived.info_bytes = ecn, number, info, info_bytes
        arrived.is_elsewhere = (not _is_there(inbound, <uint8_t *>message.msg_name, message.msg_namelen)
                             or info_bytes != inbound.info_bytes or memcmp(info, inbound.info, info_bytes) != 0)
        return True

    cdef void _pause(self, Inbound *inbound) noexcept nogil:
        inbound.is_paused = self._has_paused = True

    cdef void _finish(self) noexcept nogil:
        """Go through opened datagrams in order: window, kind, marks; then deliver runs of packets of one session."""
        cdef Inbound *inbound
        cdef Inbound *before = NULL
        cdef Arrived *arrived
        cdef Job *job
        cdef Segment *one
        cdef uint8_t *plain
        cdef uint32_t at, size, total
        cdef int32_t count = 0
        for at in range(self._arrived_count):
            arrived = &self._arrived[at]
            job = &self._opening[at]
            inbound = arrived.inbound
            if job.failed:
                self._forged += 1
                continue
            if not accept(inbound.memory, _load64(job.source + 8)):
                self._repeated += 1
                continue
            inbound.size_bytes += job.given
            if arrived.is_elsewhere or inbound.has_moved:
                self._note(arrived)
            plain = job.target
            size = <uint32_t>job.given - HEADER_BYTES - TAG_BYTES
            if size == 0:
                continue
            if before != inbound:
                if count:
                    self._deliver(before, count)
                count = 0
                before = inbound
            if plain[0] >> 4:
                inbound.has_data = True
            total = <uint32_t>plain[2] << 8 | plain[3] if size >= 20 and plain[0] >> 4 == 4 else 0
            if plain[0] >> 4 == 0 or _is_marked(plain[1] & 3, arrived.ecn):
                if count:
                    self._deliver(inbound, count)
                count = total = 0
                self._pause(inbound)
            if not 20 <= total <= size:
                with gil:
                    self._opened.append((inbound.local, (<char *>plain)[:size], None, arrived.ecn))
                continue
            one = &self._segments[count]
            one.data, one.size = plain, total
            count += 1
        if count:
            self._deliver(before, count)

    cdef void _note(self, const Arrived *arrived) noexcept nogil:
        """Keep the source of an authentic datagram. Later ones of this call keep theirs as well."""
        cdef const msghdr *message = &self._messages[arrived.message].msg_hdr
        arrived.inbound.has_moved = True
        with gil:
            self._moved[arrived.inbound.local] = ((<char *>message.msg_name)[:message.msg_namelen],
                                           (<char *>arrived.info)[:arrived.info_bytes] if arrived.info != NULL else b"")

    cdef void _deliver(self, Inbound *inbound, int32_t count) noexcept nogil:
        """Merge a run of packets, and repeat those that the flow table knows."""
        cdef int32_t at
        cdef uint32_t size
        cdef uint8_t *packet
        cdef Segment *one
        cdef Claims claims
        cdef Way way
        cdef int punt
        chain(self._segments, count, self._slots)
        for at in range(count):
            one = &self._segments[at]
            if not one.is_first:
                continue
            memset(&claims, 0, sizeof(Claims))
            packet, size = one.data, one.size
            if one.next >= 0:
                claims.partial = claims.gso_type = 1
                claims.header_bytes = 20 + (packet[32] >> 4) * 4
                claims.gso_bytes = <uint16_t>(size - claims.header_bytes)
                claims.checksum_start, claims.checksum_offset = 20, 16
                assemble(self._segments, at, self._whole + HEADROOM)
                packet, size = self._whole + HEADROOM, one.total
            if self._bursts is not None and not inbound.is_paused:
                punt = self._bursts.table.repeat(inbound.port, packet, size, &claims,
                                                 <uint32_t>(self.now_ns // 1_000_000), &way)
                if punt == 0:
                    self._devices[inbound.port].rx_packets += 1
                    self._devices[inbound.port].rx_bytes += size
                    if self._bursts.put(&way, packet, &claims):
                        with gil:
                            self._queued.append((way.out_port, (<char *>way.link)[:way.link_bytes]
                                                + (<char *>packet)[:way.size], _offload(&claims)))
                    continue
                self._punts[punt] += 1
                if PAUSING >> punt & 1:
                    self._pause(inbound)
            with gil:
                self._opened.append((inbound.local, (<char *>packet)[:size], _offload(&claims), 0))


cdef object _offload(const Claims *claims):
    if not claims.partial:
        return None
    return GsoHeader(True, claims.gso_type, claims.header_bytes, claims.gso_bytes, claims.checksum_start,
                   claims.checksum_offset)


cdef size_t _append(uint64_t *control, size_t used, int level, int kind, const void *data, size_t size) noexcept nogil:
    """Append a control message. Returns the bytes of all."""
    cdef cmsghdr *header = <cmsghdr *>(<uint8_t *>control + used)
    memset(header, 0, CMSG_SPACE(size))
    header.cmsg_len = CMSG_LEN(size)
    header.cmsg_level = level
    header.cmsg_type = kind
    memcpy(CMSG_DATA(header), data, size)
    return used + CMSG_SPACE(size)


cdef inline bint _is_there(const Inbound *inbound, const uint8_t *name, uint32_t name_bytes) noexcept nogil:
    """True where a datagram comes from the peer's address: family, port and address, without IPv6's flow label."""
    if name_bytes != inbound.name_bytes or memcmp(name, inbound.name, 4) != 0:
        return False
    if name_bytes == 16:
        return memcmp(name + 4, inbound.name + 4, 4) == 0
    return memcmp(name + 8, inbound.name + 8, 16) == 0


cdef inline bint _is_marked(uint8_t inner, uint8_t outer) noexcept nogil:
    """True where the outer ECN field changes the inner one, or makes the packet a drop (`tunnel.ecn.marked`)."""
    if outer == 0 or outer == inner or inner == CE or (outer == ECT_0 and inner == ECT_1):
        return False
    return inner != 0 or outer == CE


cdef inline uint32_t _load32(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[3] << 24 | <uint32_t>at[2] << 16 | <uint32_t>at[1] << 8 | at[0]


cdef inline uint64_t _load64(const uint8_t *at) noexcept nogil:
    return <uint64_t>_load32(at + 4) << 32 | _load32(at)
