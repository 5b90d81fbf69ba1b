"""The flow table in plain Python: `flow.table.Table` where nothing was compiled, and the oracle of what was.

A dict finds the entry by the bytes that stand in the packet: both addresses and both ports are twelve bytes in a row.
The pieces that rewriting needs are packed when the walk tells a decision; a packet is then put together from them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from flow.table import (
    ALIASED,
    BRIEF,
    BRIEF_LEASE_S,
    ENTRIES,
    FORGET_S,
    HAND_STEPS,
    IDLE_S,
    LEASE_S,
    LEASE_SPREAD_S,
    MARKED,
    MARKS,
    MOST_PORTS,
    NEAR_SENDS,
    NO_SLOT,
    ONCE_S,
    REPEAT,
    Flow,
    Forwarded,
    Hits,
    Punt,
    mark_place,
)
from wire.checksum import apply, apply_icmp, apply_partial, delta16, delta32, fold
from wire.ethernet import HEADER_BYTES, IPV4_TYPE, NO_MAC
from wire.gso import GsoHeader, is_consistent
from wire.ipv4 import DONT_FRAGMENT, ICMP, ICMP_QUERIES, TCP, UDP

Ends = tuple[int, int, int, int]

_MS: Final = 1_000_000
_WRAP_MS: Final = 0xFFFFFFFF
_WRAP_S: Final = 0xFFFF
_IDLE_MS: Final = IDLE_S * 1000
_ONCE_MS: Final = ONCE_S * 1000
_FORGET_MS: Final = FORGET_S * 1000
_MAC_MASK: Final = (1 << 48) - 1
_FRAGMENT: Final = 0x3FFF  # more fragments, or an offset
_CONTROL: Final = 0x07  # FIN, SYN, RST
_ACK: Final = 0x10
_HOP: Final = delta16(0x100, 0)  # what one hop takes from the header's sum

_FIXED: Final = struct.Struct("!BBHHHBBHII")
_KEY: Final = struct.Struct("!IIHH")
_U16: Final = struct.Struct("!H")
_ACKNOWLEDGED: Final = struct.Struct("!IxxH")  # from the acknowledgment to the window

ETHERNET, HEADER, FRAGMENT, PROTOCOL, TRANSPORT, UNKNOWN, OUTDATED = list(Punt)[:7]
TTL, CONTROL, CLAIMS, TOO_BIG, IDENTIFICATION, NEXT_HOP, NO_LINK = list(Punt)[7:]


class _Entry:
    """One direction of one flow. `packets`, `size_bytes`: all that have passed; those of them that were harvested, or
    walked, are `told`."""

    __slots__ = (
        "acknowledgment",
        "address_delta",
        "after",
        "before",
        "epoch",
        "flags",
        "full_delta",
        "in_port",
        "last_ms",
        "number",
        "out_port",
        "packets",
        "ports",
        "protocol",
        "size_bytes",
        "slot",
        "told_bytes",
        "told_packets",
        "until_s",
        "window",
    )
    out_port: int
    after: Ends
    slot: int
    flags: int
    epoch: int
    until_s: int
    last_ms: int
    address_delta: int
    full_delta: int
    ports: bytes

    def __init__(self, number: int, in_port: int, protocol: int, before: Ends) -> None:
        self.number = number
        self.in_port = in_port
        self.protocol = protocol
        self.before = before
        self.packets = self.told_packets = 0
        self.size_bytes = self.told_bytes = 0
        self.acknowledgment: int | None = None
        self.window = 0

    @property
    def key(self) -> bytes:
        """As it stands in the packet."""
        return _key(self.before)


def _key(ends: Ends) -> bytes:
    source, source_port, destination, destination_port = ends
    return _KEY.pack(source, destination, source_port, destination_port)


def _deltas(protocol: int, before: Ends, after: Ends) -> tuple[int, int]:
    """The amounts that the rewriting adds to a sum that covers the addresses, and to one that covers the ports too; an
    ICMP message has one identifier and no pseudo-header. Both are 0 where nothing is rewritten."""
    if before == after:
        return 0, 0
    address = port = 0
    if (before[0], before[2]) != (after[0], after[2]):
        address = delta32(before[0], after[0]) + delta32(before[2], after[2])
    port = delta16(before[1], after[1])
    if protocol != ICMP:
        port += delta16(before[3], after[3]) + address
    return fold(address), fold(port)


_Segment = tuple[bytes, int, int]
"""The key of a packet's flow, the length of its transport header in bytes, and the flags of TCP."""


def _transport(frame: bytes, at: int, total: int, protocol: int, gso: GsoHeader | None) -> _Segment | Punt:
    """Read the transport header of the packet at `at`; or the reason why it is left to the walk."""
    transport = at + 20
    room = total - 20
    if protocol == TCP:
        if room < 20:
            return TRANSPORT
        header_bytes = (frame[transport + 12] >> 4) * 4
        if not 20 <= header_bytes <= room:
            return TRANSPORT
        key, control = frame[at + 12 : at + 24], frame[transport + 13]
    elif protocol == UDP:
        if room < 8:
            return TRANSPORT
        length = frame[transport + 4] << 8 | frame[transport + 5]
        if length < 8 or (length > room and (gso is None or not gso.gso_type)):
            return TRANSPORT
        key, header_bytes, control = frame[at + 12 : at + 24], 8, 0
    elif protocol != ICMP:
        return PROTOCOL
    elif room < 8:
        return TRANSPORT
    elif frame[transport] not in ICMP_QUERIES:
        return PROTOCOL
    else:
        key = b"%b%b\0%c" % (frame[at + 12 : at + 20], frame[transport + 4 : transport + 6], frame[transport])
        return key, 8, 0
    if key[8:10] == b"\0\0" or key[10:] == b"\0\0":
        return TRANSPORT
    return key, header_bytes, control


def _rewritten(
    frame: bytes, at: int, fields: tuple[int, ...], entry: _Entry, link: bytes, gso: GsoHeader | None
) -> bytes:
    """The frame as it leaves: `link` is its Ethernet header, the packet at `at` has the entry's names and one hop
    less."""
    _, tos, total, identification, fragment, ttl, protocol, check, _, _ = fields
    transport, end = at + 20, at + total
    new_source, _, new_destination, _ = entry.after
    check = apply(check, _HOP + entry.address_delta)
    header = _FIXED.pack(
        0x45, tos, total, identification, fragment, ttl - 1, protocol, check, new_source, new_destination
    )
    if not entry.full_delta and not entry.address_delta:
        return b"".join((link, header, memoryview(frame)[transport:end]))
    if protocol == ICMP:
        return b"".join((link, header, _query(frame[transport:end], entry)))
    field = transport + (16 if protocol == TCP else 6)
    check = frame[field] << 8 | frame[field + 1]
    if gso is not None and gso.partial:
        check = apply_partial(check, entry.address_delta)
    elif check or protocol == TCP:
        check = apply(check, entry.full_delta) or (0xFFFF if protocol == UDP else 0)
    return b"".join(
        (
            link,
            header,
            entry.ports,
            frame[transport + 4 : field],
            _U16.pack(check),
            memoryview(frame)[field + 2 : end],
        )
    )


def _query(message: bytes, entry: _Entry) -> bytearray:
    """An ICMP query with its new identifier."""
    data = bytearray(message)
    data[4:6] = entry.ports
    _U16.pack_into(data, 2, apply_icmp(memoryview(data), entry.full_delta))
    return data


class PlainTable:
    """`flow.table.Table`. `limit`: entries at most. A dict of bytes is hashed with a key of the interpreter's own."""

    compiled = False

    def __init__(self, limit: int = ENTRIES, seed: int = 0) -> None:
        if not limit > 0:
            raise ValueError(f"a flow table of {limit} entries")
        self.limit = limit
        self._epoch = 1
        self._macs = [b""] * MOST_PORTS
        self._mtus = [0] * MOST_PORTS
        self._slots: list[memoryview | None] = [None] * MOST_PORTS
        self._outside: dict[int, bytes] = {}  # the address of a port that borrows it to inside hosts
        self._marks: dict[int, bytearray] = {}  # by port and protocol
        self._found: dict[int, dict[bytes, _Entry]] = {}  # by in-port and protocol, then by key
        self._entries: list[_Entry | None] = []  # by number
        self._free: list[int] = []
        self._used = 0
        self._hand = 0
        self._cursor = 0

    def __len__(self) -> int:
        return self._used

    def set_port(self, port: int, mac: bytes, mtu_bytes: int, slots: memoryview | None) -> None:
        """See `Table`."""
        if not 0 <= port < MOST_PORTS or len(mac) not in (0, 6):
            raise ValueError(f"no port {port} with the address {mac.hex()}")
        self._macs[port] = mac
        self._mtus[port] = mtu_bytes
        self._slots[port] = slots

    def set_outside(self, port: int, address: int, protocol: int, marks: bytearray | None) -> None:
        """See `Table`."""
        if not 0 <= port < MOST_PORTS or protocol not in (TCP, UDP) or len(marks or bytes(MARKS)) != MARKS:
            raise ValueError(f"no marks for port {port} and protocol {protocol}")
        self._outside[port] = address.to_bytes(4, "big")
        if marks is None:
            self._marks.pop(port << 8 | protocol, None)
        else:
            self._marks[port << 8 | protocol] = marks

    # The walk tells

    def learn(
        self,
        in_port: int,
        out_port: int,
        protocol: int,
        before: Ends,
        after: Ends,
        size_bytes: int,
        slot: int,
        flags: int,
        now: int,
    ) -> int:
        """See `Table`."""
        now_ms = now // _MS & _WRAP_MS
        key = _key(before)
        found = self._found.get(in_port << 8 | protocol)
        if found is None:
            found = self._found[in_port << 8 | protocol] = {}
        entry = found.get(key)
        if entry is None:
            number = self._room(now_ms)
            if number < 0:
                return -1
            entry = self._entries[number] = found[key] = _Entry(number, in_port, protocol, before)
            entry.after = ()  # type: ignore[assignment]  # different from any
            self._used += 1
        if entry.after != after:
            entry.after = after
            entry.address_delta, entry.full_delta = _deltas(protocol, before, after)
            entry.ports = _U16.pack(after[1]) if protocol == ICMP else _U16.pack(after[1]) + _U16.pack(after[3])
        entry.out_port = out_port
        entry.slot = slot
        entry.flags = flags
        entry.epoch = self._epoch if flags & REPEAT else 0
        lease_s = BRIEF_LEASE_S if flags & BRIEF else LEASE_S - entry.number % LEASE_SPREAD_S
        entry.until_s = (now_ms // 1000 + lease_s) & _WRAP_S
        entry.last_ms = now_ms
        entry.packets += 1
        entry.told_packets += 1
        entry.size_bytes += size_bytes
        entry.told_bytes += size_bytes
        return entry.number

    def _room(self, now_ms: int) -> int:
        """The number of an entry that nobody uses: a free one, a fresh one, or one that has been idle for long."""
        if self._free:
            return self._free.pop()
        entries = self._entries
        if len(entries) < self.limit:
            entries.append(None)
            return len(entries) - 1
        for _ in range(HAND_STEPS):
            entry = entries[self._hand]
            self._hand = (self._hand + 1) % self.limit
            assert entry is not None, "none is free"
            idle_ms = (now_ms - entry.last_ms) & _WRAP_MS
            if idle_ms > _IDLE_MS or (idle_ms > _ONCE_MS and entry.packets < 2):
                self._remove(entry)
                return self._free.pop()
        return -1

    def _remove(self, entry: _Entry) -> None:
        del self._found[entry.in_port << 8 | entry.protocol][entry.key]
        self._entries[entry.number] = None
        self._free.append(entry.number)
        self._used -= 1

    def outdate(self) -> None:
        """See `Table`."""
        self._epoch += 1

    # A decision is repeated

    def forward(self, in_port: int, frame: bytes, gso: GsoHeader | None, now: int) -> Forwarded | Punt:
        """See `Table`."""
        ours = self._macs[in_port]
        at = 0
        if ours:
            source_mac = frame[6:12]
            if frame[:6] != ours or frame[12:14] != IPV4_TYPE or source_mac[0] & 1 or source_mac in (ours, NO_MAC):
                return ETHERNET
            at = HEADER_BYTES
        room = len(frame) - at
        if room < 20 or frame[at] != 0x45 or int.from_bytes(frame[at : at + 20], "big") % 0xFFFF:
            return HEADER
        fields = _FIXED.unpack_from(frame, at)
        _, _, total, _, fragment, ttl, protocol, _, _, _ = fields
        if not 20 <= total <= room:
            return HEADER
        if fragment & _FRAGMENT:
            return FRAGMENT
        read = _transport(frame, at, total, protocol, gso)
        if not isinstance(read, tuple):
            return read
        key, header_bytes, control = read
        entry = self._entry(in_port << 8 | protocol, key, now)
        if not isinstance(entry, _Entry):
            return entry
        if ttl <= 1:
            return TTL
        if control & _CONTROL:
            return CONTROL
        end = at + total
        wire_bytes = total
        if gso is not None:
            if (gso.gso_type and not gso.partial) or not is_consistent(memoryview(frame)[at:end], gso):
                return CLAIMS
            if gso.gso_type:
                wire_bytes = min(20 + header_bytes + gso.gso_bytes, total)
        out_port = entry.out_port
        if wire_bytes > self._mtus[out_port]:
            return TOO_BIG
        if entry.flags & ALIASED and not fragment & DONT_FRAGMENT:
            return IDENTIFICATION
        link = b""
        if entry.slot != NO_SLOT:
            slots = self._slots[out_port]
            mac = slots[entry.slot * 4] & _MAC_MASK if slots is not None and entry.slot * 4 < len(slots) else 0
            if not mac:
                return NEXT_HOP
            link = mac.to_bytes(6, "big") + self._macs[out_port] + IPV4_TYPE
        if control & _ACK and entry.flags & NEAR_SENDS:
            entry.acknowledgment, entry.window = _ACKNOWLEDGED.unpack_from(frame, at + 28)
        entry.packets += 1
        entry.size_bytes += total
        entry.last_ms = now // _MS & _WRAP_MS
        return Forwarded(out_port, _rewritten(frame, at, fields, entry, link, gso), gso)

    def _entry(self, place: int, key: bytes, now: int) -> _Entry | Punt:
        """The entry of a key that may still be repeated. `place`: in-port and protocol in one number."""
        found = self._found.get(place)
        entry = found.get(key) if found is not None else None
        if entry is None:
            marks = self._marks.get(place)
            if marks is None or key[4:8] != self._outside[place >> 8]:
                return UNKNOWN
            return UNKNOWN if marks[mark_place(key[10] << 8 | key[11])] & MARKED else NO_LINK
        now_ms = now // _MS & _WRAP_MS
        if entry.epoch != self._epoch or (entry.until_s - now_ms // 1000) & _WRAP_S > LEASE_S:
            return OUTDATED
        return entry

    # Hits are told

    def harvest(self, limit: int, now: int) -> list[Hits]:
        """See `Table`."""
        now_ms = now // _MS & _WRAP_MS
        entries = self._entries
        found = []
        for _ in range(min(limit, len(entries))):
            number = self._cursor if self._cursor < len(entries) else 0
            self._cursor = number + 1
            entry = entries[number]
            if entry is None:
                continue
            if entry.packets != entry.told_packets:
                found.append(self._hits(entry, now_ms, now))
            elif (now_ms - entry.last_ms) & _WRAP_MS > _FORGET_MS:
                self._remove(entry)
        return found

    def settle(self, in_port: int, protocol: int, ends: Ends, now: int, withdraw: bool) -> Hits | None:
        """See `Table`."""
        found = self._found.get(in_port << 8 | protocol)
        entry = found.get(_key(ends)) if found is not None else None
        if entry is None:
            return None
        if withdraw:
            entry.epoch = 0
        if entry.packets == entry.told_packets:
            return None
        return self._hits(entry, now // _MS & _WRAP_MS, now)

    def _hits(self, entry: _Entry, now_ms: int, now: int) -> Hits:
        """The counters of an entry; they begin anew."""
        near_sends = bool(entry.flags & NEAR_SENDS)
        hits = Hits(
            entry.number,
            entry.out_port,
            entry.slot,
            near_sends,
            *(entry.before[2:] if near_sends else entry.before[:2]),
            entry.packets - entry.told_packets,
            entry.size_bytes - entry.told_bytes,
            now - ((now_ms - entry.last_ms) & _WRAP_MS) * _MS,
            entry.acknowledgment,
            entry.window,
        )
        entry.told_packets, entry.told_bytes = entry.packets, entry.size_bytes
        entry.acknowledgment = None
        return hits

    def live(self, now: int) -> Iterator[Flow]:
        """See `Table`."""
        now_ms = now // _MS & _WRAP_MS
        for entry in list(self._entries):
            if entry is None:
                continue
            idle_ms = (now_ms - entry.last_ms) & _WRAP_MS
            if idle_ms > _FORGET_MS:
                continue
            before, after = entry.before, entry.after
            ends = before[:2], before[2:]
            if not entry.flags & NEAR_SENDS:
                ends = after[2:], before[:2]
            if entry.protocol == ICMP:  # the other port is the message's type
                identifier = before[1] if entry.flags & NEAR_SENDS else after[1]
                ends = (ends[0][0], identifier), (ends[1][0], before[1])
            yield Flow(
                entry.number,
                entry.in_port,
                entry.out_port,
                entry.protocol,
                *ends,
                entry.packets,
                entry.size_bytes,
                now - idle_ms * _MS,
                entry.epoch == self._epoch and (entry.until_s - now_ms // 1000) & _WRAP_S <= LEASE_S,
            )
