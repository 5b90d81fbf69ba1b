"""Rules for every frame that leaves a gateway, and for its stores and timers, for any frame that came in.

Nothing of the project reads a frame here: headers are taken apart and sums are made by code of this file alone, so that
a mistake in `wire` is not repeated where it is to be found. `trials.fuzz.targets.frames`, `trials.fuzz.targets.flow`
and the property tests hold their gateways to the same rules.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from alias.fragments import DECIDED, WAITING
from alias.reassembly import LIMITS
from bridge.walk.effects import Send
from bridge.walk.gateway import Gateway
from trials.fuzz.hostile import Failure
from wire.gso import GsoHeader

ICMP, TCP, UDP = 1, 6, 17
ERRORS = frozenset({3, 4, 5, 11, 12})
CHECK_AT = {ICMP: 2, TCP: 16, UDP: 6}
LEAST = {ICMP: 8, TCP: 20, UDP: 8}


class Headers(NamedTuple):
    """An IPv4 packet taken apart. `body`: behind the IP header; `size`: of the header, `offset`: of a fragment, in
    bytes."""

    source: int
    destination: int
    protocol: int
    ttl: int
    size: int
    total: int
    offset: int
    more: bool
    body: bytes
    sum_is_right: bool


def word_sum(data: bytes) -> int:
    """RFC 1071: 16-bit words added in ones' complement, the plain way."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def headers(raw: bytes) -> Headers | None:
    """RFC 791 3.1; None where it is no IPv4 packet of the length that it states, or less."""
    if len(raw) < 20 or raw[0] >> 4 != 4:
        return None
    size = (raw[0] & 15) * 4
    total, _, fragment, ttl, protocol, _, source, destination = struct.unpack_from("!HHHBBHII", raw, 2)
    if size < 20 or total < size or len(raw) < total:
        return None
    right = word_sum(raw[:size]) == 0xFFFF
    offset, more = (fragment & 0x1FFF) * 8, bool(fragment & 0x2000)
    return Headers(source, destination, protocol, ttl, size, total, offset, more, raw[size:total], right)


def _pseudo(read: Headers) -> bytes:
    return struct.pack("!IIBBH", read.source, read.destination, 0, read.protocol, len(read.body))


def transport_is_right(read: Headers) -> bool | None:
    """Whether the transport checksum of a whole packet holds; None where there is none to look at."""
    body, protocol = read.body, read.protocol
    if read.offset or read.more or protocol not in CHECK_AT or len(body) < LEAST[protocol]:
        return None
    if protocol == ICMP:
        return word_sum(body) == 0xFFFF
    if protocol == UDP:
        length = struct.unpack_from("!H", body, 4)[0]
        if body[6:8] == b"\0\0" or length != len(body):
            return None
    return word_sum(_pseudo(read) + body) == 0xFFFF


def partial_is_right(read: Headers) -> bool:
    """Whether a checksum that is yet to be completed holds the sum of the pseudo-header."""
    at = CHECK_AT[read.protocol]
    return read.body[at : at + 2] == word_sum(_pseudo(read)).to_bytes(2, "big")


def claims_are_true(read: Headers, claims: GsoHeader) -> bool:
    """Whether a port says of a whole TCP or UDP packet that its own checksum is partial."""
    if read.protocol not in (TCP, UDP) or read.offset or read.more or len(read.body) < LEAST[read.protocol]:
        return False
    return claims.partial and (claims.checksum_start, claims.checksum_offset) == (read.size, CHECK_AT[read.protocol])


def is_error(read: Headers) -> bool:
    """An ICMP error (RFC 1122 3.2.2), its first fragment too."""
    return read.protocol == ICMP and not read.offset and len(read.body) >= 8 and read.body[0] in ERRORS


def quoted(read: Headers) -> tuple[int, int] | None:
    """Source and destination of the packet that an ICMP error quotes."""
    if not is_error(read) or len(read.body) < 28:
        return None
    source, destination = struct.unpack_from("!II", read.body, 20)
    return source, destination


class Hidden(NamedTuple):
    """Addresses that nobody may see at some ports: `network`/`mask`, `ports` by the name before the colon."""

    network: int
    mask: int
    ports: frozenset[str]

    def names(self, address: int) -> bool:
        """Whether an address is one of them."""
        return address & self.mask == self.network


class Rules:
    """The rules of one gateway. `hidden`: what stays behind an alias."""

    def __init__(self, gateway: Gateway, hidden: Iterable[Hidden]) -> None:
        self.gateway = gateway
        self.hidden = tuple(hidden)
        self._now = 0
        self._taps = frozenset(itf.name for itf in gateway.interfaces.values() if itf.framing == "ethernet")

    def is_tap(self, port: str) -> bool:
        """Whether the port's frames begin with an Ethernet header."""
        return port in self._taps

    def packet(self, port: str, frame: bytes | bytearray | memoryview) -> bytes:
        """The IP packet of a frame."""
        return bytes(frame)[14:] if self.is_tap(port) else bytes(frame)

    # Frames that leave

    def sends(self, came_by: str | None, came: bytes, claims: GsoHeader | None, sends: Iterable[Send]) -> None:
        """Every rule about the frames that one frame, or a timer (`came_by` None), made leave."""
        received = None if came_by is None else headers(self.packet(came_by, came))
        if received is None:
            was_right = came_by is None  # an ARP frame may let go what came with any checksum
        elif claims is not None:
            was_right = claims_are_true(received, claims) and partial_is_right(received)
        else:
            was_right = transport_is_right(received) is True
        for send in sends:
            self.send(came_by, send, was_right=was_right)

    def send(self, came_by: str | None, send: Send, *, was_right: bool = False) -> None:
        """Every rule about one frame out; `was_right`: the packet behind it came with a right transport checksum."""
        port = send.port
        interface = self.gateway.interfaces[port.partition(":")[0]]
        if self.is_tap(port):
            if len(send.frame) < 34 or bytes(send.frame[6:12]) != interface.mac:
                raise Failure(f"out on {port}: no frame of ours")
            if send.frame[12:14] == b"\x08\x06":
                self._arp(port, bytes(send.frame[14:]))
                return
            if send.frame[12:14] != b"\x08\x00":
                raise Failure(f"out on {port}: EtherType {send.frame[12:14].hex()}")
        raw = self.packet(port, send.frame)
        read = headers(raw)
        if read is None or not read.sum_is_right:
            raise Failure(f"out on {port}: {'no IPv4 packet' if read is None else 'a wrong header checksum'}")
        if read.total != len(raw):
            raise Failure(f"out on {port}: padding left with the packet")
        if read.ttl == 0:
            raise Failure(f"out on {port}: TTL zero left")
        is_super = send.gso is not None and send.gso.gso_type
        if not is_super and read.total > interface.mtu_bytes:
            raise Failure(f"out on {port}: {read.total} bytes over an MTU of {interface.mtu_bytes}")
        self._aliased(port, read, came_by)
        ours = {itf.address for itf in self.gateway.interfaces.values()}
        if came_by == port and came_by != "tap0" and read.source not in ours:
            raise Failure(f"reflected on {came_by}")
        self._transport(port, read, send.gso, was_right=was_right)

    def _arp(self, port: str, arp: bytes) -> None:
        """RFC 826: what we say of ourselves is true."""
        itf = self.gateway.interfaces[port]
        if len(arp) < 28 or arp[:6] != bytes.fromhex("000108000604") or arp[8:14] != itf.mac:
            raise Failure(f"out on {port}: an ARP frame that is none, or of another MAC")
        if arp[14:18] not in (itf.address.to_bytes(4, "big"), bytes(4)):
            raise Failure(f"out on {port}: an ARP frame that speaks for {arp[14:18].hex()}")

    def _aliased(self, port: str, read: Headers, came_by: str | None) -> None:
        """The host may quote anything into the tunnel, since it has no alias there. An echo that is answered to
        where it came from tells nobody anything."""
        seen = [("source", read.source)]
        if came_by != port:
            seen.append(("destination", read.destination))
        inner = quoted(read)
        if inner is not None and (came_by != "tun0" or port == "tap1"):
            seen += [("quoted source", inner[0]), ("quoted destination", inner[1])]
        for hidden in self.hidden:
            if port.partition(":")[0] not in hidden.ports:
                continue
            for what, address in seen:
                if hidden.names(address):
                    raise Failure(f"a LAN address is seen on {port}: {what}")

    def _transport(self, port: str, read: Headers, gso: GsoHeader | None, *, was_right: bool) -> None:
        if gso is not None and gso.partial:
            if read.protocol not in (TCP, UDP) or read.offset or read.more:
                raise Failure(f"out on {port}: a partial checksum on protocol {read.protocol} or a fragment")
            if was_right and not partial_is_right(read):
                raise Failure(f"out on {port}: a wrong partial checksum")
        elif was_right and transport_is_right(read) is False:
            raise Failure(f"out on {port}: a wrong transport checksum")

    # Stores and timers

    def clock(self, now: int) -> None:
        """`now` and the next deadline never lie in the past, once what was due was done."""
        if now < self._now:
            raise Failure(f"the clock went back from {self._now} to {now}")
        self._now = now
        due = self.gateway.next_deadline()
        if due is not None and due < now:
            raise Failure(f"a deadline at {due}, and it is {now}")

    def tick_until(self, now: int) -> list[Send]:
        """Fire what is due, each at its own time; what left. A tick that nothing is due for must do nothing."""
        gateway, sent = self.gateway, list[Send]()
        while (due := gateway.next_deadline()) is not None and due <= now:
            sent += [effect for effect in gateway.tick(due) if isinstance(effect, Send)]
            following = gateway.next_deadline()
            if following is not None and following <= due:
                raise Failure("a timer does not move on")
        for send in sent:
            self.send(None, send)
        return sent

    def idle_tick(self, now: int) -> None:
        """A tick between two deadlines."""
        due = self.gateway.next_deadline()
        if any(isinstance(effect, Send) for effect in self.gateway.tick(now)):
            raise Failure("a tick that nothing was due for sent something")
        if self.gateway.next_deadline() != due:
            raise Failure("a tick that nothing was due for moved a deadline")

    def stores(self, now: int) -> None:
        """Links, by counting them, fragments and ARP entries stay within their bounds."""
        gateway = self.gateway
        settings = gateway.settings.alias
        links = [link for link in gateway.aliases.links(now) if not link.is_static]
        if len(links) > settings.max_links:
            raise Failure(f"{len(links)} links of {settings.max_links}")
        by_host = Counter(link.inside for link in links)
        if by_host and max(by_host.values()) > settings.max_links_per_host:
            raise Failure(f"{max(by_host.values())} links of one host, {settings.max_links_per_host} allowed")
        outside = Counter((link.egress.label, link.protocol, link.outside_port, link.remote) for link in links)
        if outside and max(outside.values()) > 1:
            raise Failure(f"two links have one outside end: {outside.most_common(1)}")
        fragments, whole = gateway.fragments, gateway.reassembly
        if fragments.waiting > WAITING.datagrams or fragments.waiting_bytes > WAITING.bytes:
            raise Failure(f"{fragments.waiting} datagrams of {fragments.waiting_bytes} bytes wait for a first fragment")
        if fragments.decided > DECIDED.datagrams or len(whole) > LIMITS.datagrams:
            raise Failure(f"{fragments.decided} datagrams are followed, {len(whole)} put together")
        for port, table in gateway.arp.items():
            if table.used > table.slots:
                raise Failure(f"{table.used} ARP entries in {table.slots} slots of {port}")
