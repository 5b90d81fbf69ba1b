# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
"""Super-frames cut into packets and made of them: the compiled twins of `wire.gso.segment` and `wire.coalesce`.

Why it is compiled: in the tunnel every byte is summed here once each way, because no device does it for us. In Python
that costs 2.8 us a packet, twice what sealing it does; here it is a tenth of a microsecond.

`plan` and `piece` write one packet at a time to where it will be sealed. `chain` finds the runs among packets that lie
anywhere, `assemble` puts a run together. Nothing here allocates, and nothing reads beyond the sizes that it is given.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from wire.gso import GsoHeader

cdef extern from "<arpa/inet.h>" nogil:
    uint16_t ntohs(uint16_t)

cdef enum:
    TCP = 6
    UDP = 17
    IP_BYTES = 20
    SMALLEST_SEGMENT_BYTES = 8
    ACK = 0x10
    PSH = 0x08
    LAST_ONLY = 0x09  # FIN, PSH
    FIRST_ONLY = 0x80  # CWR


cdef inline uint32_t load16(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] << 8 | at[1]


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    return load16(at) << 16 | load16(at + 2)


cdef inline void store16(uint8_t *at, uint32_t value) noexcept nogil:
    at[0] = (value >> 8) & 0xFF
    at[1] = value & 0xFF


cdef inline void store32(uint8_t *at, uint32_t value) noexcept nogil:
    store16(at, value >> 16)
    store16(at + 2, value)


cdef inline uint32_t fold(uint64_t value) noexcept nogil:
    while value > 0xFFFF:
        value = (value & 0xFFFF) + (value >> 16)
    return <uint32_t>value


cdef uint32_t ones_sum(const uint8_t *data, size_t size, uint32_t initial) noexcept nogil:
    """`wire.checksum.ones_sum`. The order of a word's bytes does not matter to the sum (RFC 1071 2B): they are added as
    they lie, four at a time, and swapped once."""
    cdef uint64_t total = 0
    cdef uint32_t word
    cdef size_t at, whole = size & ~<size_t>3
    for at in range(0, whole, 4):
        memcpy(&word, data + at, 4)
        total += word
    if whole < size:
        word = 0
        memcpy(&word, data + whole, size - whole)
        total += word
    return fold(<uint64_t>ntohs(<uint16_t>fold(total)) + initial)


cdef inline uint32_t pseudo_header_sum(const uint8_t *packet, uint32_t protocol, uint32_t transport_bytes) noexcept nogil:
    return ones_sum(packet + 12, 8, protocol + transport_bytes)


# A super-frame leaves


cdef int plan(Cut *cut, const uint8_t *packet, size_t size, bint partial, uint32_t gso_type, uint32_t gso_bytes,
              uint32_t checksum_start, uint32_t checksum_offset) noexcept nogil:
    """How an IPv4 packet of at most 65,535 bytes is cut, by its `GsoHeader`; 0, or -1 where that does not fit it."""
    cdef uint32_t transport_bytes
    if not IP_BYTES <= size <= SUPER_FRAME_BYTES:
        return -1
    memset(cut, 0, sizeof(Cut))
    cut.packet = packet
    cut.size = cut.longest = <uint32_t>size
    cut.count = 1
    cut.ip_bytes = (packet[0] & 15) * 4
    if partial:
        if checksum_start < IP_BYTES or checksum_start + checksum_offset + 2 > size:
            return -1
        cut.checksum_start = checksum_start
        cut.checksum_field = checksum_start + checksum_offset
    if gso_type == 0:
        return 0
    if cut.ip_bytes < IP_BYTES or gso_bytes == 0:
        return -1
    if packet[9] == TCP and size >= cut.ip_bytes + 20:
        transport_bytes = (packet[cut.ip_bytes + 12] >> 4) * 4
        if transport_bytes < 20:
            return -1
    elif packet[9] == UDP:
        transport_bytes = 8
    else:
        return -1
    cut.header_bytes = cut.ip_bytes + transport_bytes
    if cut.header_bytes > size:
        return -1
    cut.gso_bytes = gso_bytes
    if size > cut.header_bytes:
        cut.count = (cut.size - cut.header_bytes + gso_bytes - 1) // gso_bytes
    cut.longest = min(cut.size, cut.header_bytes + gso_bytes)
    return 0


cdef uint32_t piece(const Cut *cut, uint32_t index, uint8_t *target) noexcept nogil:
    """Write the packet number `index` of `count`, and say how long it is: `longest` at most."""
    cdef uint32_t start, payload_bytes, size, transport_bytes, field, value
    cdef uint32_t ip_bytes = cut.ip_bytes, header_bytes = cut.header_bytes
    cdef uint8_t protocol = cut.packet[9]
    if cut.gso_bytes == 0:
        memcpy(target, cut.packet, cut.size)
        if cut.checksum_field:
            value = ones_sum(target + cut.checksum_start, cut.size - cut.checksum_start, 0) ^ 0xFFFF
            store16(target + cut.checksum_field, 0xFFFF if value == 0 and protocol == UDP else value)
        return cut.size
    start = index * cut.gso_bytes
    payload_bytes = min(cut.gso_bytes, cut.size - header_bytes - start)
    size = header_bytes + payload_bytes
    transport_bytes = size - ip_bytes
    memcpy(target, cut.packet, header_bytes)
    memcpy(target + header_bytes, cut.packet + header_bytes + start, payload_bytes)
    store16(target + 2, size)
    store16(target + 4, load16(target + 4) + index)
    store16(target + 10, 0)
    store16(target + 10, ones_sum(target, ip_bytes, 0) ^ 0xFFFF)
    if protocol == TCP:
        field = ip_bytes + 16
        store32(target + ip_bytes + 4, load32(target + ip_bytes + 4) + start)
        if index + 1 < cut.count:
            target[ip_bytes + 13] &= 0xFF & ~LAST_ONLY
        if index:
            target[ip_bytes + 13] &= 0xFF & ~FIRST_ONLY
    else:
        field = ip_bytes + 6
        store16(target + ip_bytes + 4, transport_bytes)
    store16(target + field, 0)
    value = ones_sum(target + ip_bytes, transport_bytes, pseudo_header_sum(target, protocol, transport_bytes)) ^ 0xFFFF
    store16(target + field, 0xFFFF if value == 0 and protocol == UDP else value)
    return size


def segment(const uint8_t[::1] packet not None, gso not None):
    """The same as `wire.gso.segment`. Raises `ValueError` where the virtio header does not fit the packet."""
    cdef Cut cut
    cdef uint32_t index, size
    cdef uint8_t target[SUPER_FRAME_BYTES]
    cdef list packets = []
    if packet.shape[0] == 0 or plan(&cut, &packet[0], packet.shape[0], gso.partial, gso.gso_type,
                                    gso.gso_bytes, gso.checksum_start, gso.checksum_offset):
        raise ValueError("claims that do not fit the packet")
    for index in range(cut.count):
        size = piece(&cut, index, target)
        packets.append(PyBytes_FromStringAndSize(<char *>target, size))
    return packets


# Packets come


cdef bint _is_whole(const uint8_t *packet, uint32_t size) noexcept nogil:
    """True where both checksums are right."""
    return (ones_sum(packet, IP_BYTES, 0) == 0xFFFF
            and ones_sum(packet + IP_BYTES, size - IP_BYTES, pseudo_header_sum(packet, TCP, size - IP_BYTES)) == 0xFFFF)


cdef bint _may_be_merged(const uint8_t *packet, uint32_t size) noexcept nogil:
    """A whole TCP segment with data and the flags ACK and PSH alone, in one packet that says its own length."""
    cdef uint32_t header_bytes = IP_BYTES + (packet[32] >> 4) * 4
    return ((packet[33] & ~PSH) == ACK and packet[32] >= 0x50 and load16(packet + 2) == size
            and size >= header_bytes + SMALLEST_SEGMENT_BYTES and (load16(packet + 6) & 0xBFFF) == 0
            and load16(packet + 38) == 0 and _is_whole(packet, size))


cdef bint _continues(Segment *head, const uint8_t *packet, uint32_t size, uint32_t header_bytes) noexcept nogil:
    """Whether the packet goes on where the run ends; the second packet fixes the step of the identifications."""
    cdef const uint8_t *first = head.data
    cdef uint32_t step = (load16(packet + 4) - head.identification) & 0xFFFF
    if (load32(packet + 24) != head.following or header_bytes != head.header_bytes or size > head.size
            or head.total + size - header_bytes > SUPER_FRAME_BYTES or packet[1] != first[1]
            or memcmp(packet + 6, first + 6, 3) != 0      # DF, TTL
            or memcmp(packet + 28, first + 28, 5) != 0    # acknowledgment, data offset
            or memcmp(packet + 34, first + 34, 2) != 0    # window
            or memcmp(packet + 40, first + 40, header_bytes - 40) != 0):
        return False
    if step > 1 or (head.step != 2 and step != head.step) or (step == 0 and not packet[6] & 0x40):
        return False
    head.step = <uint16_t>step
    return True


cdef inline uint32_t _slot_of(const uint8_t *packet) noexcept nogil:
    """The slot at which the search for a flow begins, by its 12 bytes of addresses and ports."""
    cdef uint64_t addresses
    cdef uint32_t ports
    memcpy(&addresses, packet + 12, 8)
    memcpy(&ports, packet + 20, 4)
    addresses = (addresses ^ (<uint64_t>ports << 17)) * <uint64_t>0x9E3779B97F4A7C15
    return <uint32_t>(addresses >> 40)


cdef void chain(Segment *segments, int32_t count, int32_t *slots) noexcept nogil:
    """Find the runs among at most MOST_SEGMENTS packets, well-formed or not. `slots`: SLOTS words of scratch; a word is the
    number of a packet of the flow plus 1, and `last` there is -1 while no run of the flow is open."""
    cdef int32_t at, head
    cdef uint32_t slot, header_bytes, size
    cdef uint8_t *packet
    cdef Segment *one
    cdef Segment *run
    memset(slots, 0, SLOTS * sizeof(int32_t))
    for at in range(count):
        one = &segments[at]
        packet = one.data
        size = one.size
        one.next = -1
        one.last = at
        one.is_first = True
        one.total = size
        one.header_bytes = 0
        if size < IP_BYTES or packet[0] != 0x45 or (packet[9] == TCP and size < IP_BYTES + 20):
            memset(slots, 0, SLOTS * sizeof(int32_t))  # e.g. IP options: it may belong to any flow
            continue
        if packet[9] != TCP:
            continue
        slot = _slot_of(packet) & (SLOTS - 1)
        while slots[slot] and memcmp(segments[slots[slot] - 1].data + 12, packet + 12, 12) != 0:
            slot = (slot + 1) & (SLOTS - 1)
        head = slots[slot] - 1
        if not _may_be_merged(packet, size):
            if head >= 0:
                segments[head].header_bytes = 0  # its run is closed
            continue
        header_bytes = IP_BYTES + (packet[32] >> 4) * 4
        run = &segments[head] if head >= 0 else NULL
        if run != NULL and run.header_bytes and _continues(run, packet, size, header_bytes):
            one.is_first = False
            segments[run.last].next = at
            run.last = at
            run.total += size - header_bytes
        else:
            slots[slot] = at + 1
            run = one
            run.header_bytes = header_bytes
            run.step = 2
        run.identification = <uint16_t>load16(packet + 4)
        run.following = load32(packet + 24) + size - header_bytes
        if packet[33] & PSH or size < run.size:
            run.header_bytes = 0


cdef void assemble(const Segment *segments, int32_t first, uint8_t *target) noexcept nogil:
    """Write the frame of a run of two packets or more, `total` bytes, with a partial checksum."""
    cdef const Segment *head = &segments[first]
    cdef uint32_t header_bytes = IP_BYTES + (head.data[32] >> 4) * 4, total = head.total
    cdef uint8_t *end = target + head.size
    cdef const Segment *one
    cdef int32_t at = head.next
    memcpy(target, head.data, head.size)
    while at >= 0:
        one = &segments[at]
        memcpy(end, one.data + header_bytes, one.size - header_bytes)
        end += one.size - header_bytes
        at = one.next
    store16(target + 2, total)
    # Incrementally (RFC 1624, equation 3): a header that was damaged would stay so.
    store16(target + 10, fold((load16(target + 10) ^ 0xFFFF) + fold((head.size ^ 0xFFFF) + total)) ^ 0xFFFF)
    target[33] = segments[head.last].data[33]  # PSH, where the last one has it
    store16(target + 36, pseudo_header_sum(target, TCP, total - IP_BYTES))


def coalesce(packets):
    """The same as `wire.coalesce.coalesce`. Raises `ValueError` for more than MOST_SEGMENTS packets."""
    cdef list held = list(packets)
    cdef list frames = []
    cdef Segment segments[MOST_SEGMENTS]
    cdef int32_t slots[SLOTS]
    cdef int32_t at, count = len(held)
    cdef bytes packet, frame
    cdef Segment *one
    if count > MOST_SEGMENTS:
        raise ValueError(f"{count} packets at once")
    for at in range(count):
        packet = <bytes?>held[at]
        segments[at].data = <uint8_t *>PyBytes_AS_STRING(packet)
        segments[at].size = len(packet)
    chain(segments, count, slots)
    for at in range(count):
        one = &segments[at]
        if one.next < 0:
            if one.is_first:
                frames.append((held[at], None))
        elif one.is_first:
            frame = PyBytes_FromStringAndSize(NULL, one.total)
            assemble(segments, at, <uint8_t *>PyBytes_AS_STRING(frame))
            header = IP_BYTES + (one.data[32] >> 4) * 4
            frames.append((frame, GsoHeader(True, 1, header, one.size - header, IP_BYTES, 16)))
    return frames
