"""The tunnel's UDP sockets, one for IPv4 and one for IPv6: datagrams with their endpoints, in bursts, never blocking.

Where the kernel can (`UDP_SEGMENT`, `UDP_GRO`), datagrams of one size and TOS to or from one endpoint pass it in one
piece of up to 64; what it does not take in one piece goes one by one.

- Nothing is fragmented (DF), and no path MTU that the kernel has learned is believed: anybody can forge an ICMP error.
  What routers and the device say about sizes is handed out (`read_signals`); who knows what was sent judges it.
- Other ICMP errors are counted and not heeded. A socket tells of them by failing the next call, whatever that is about:
  such a call is made again.
- An endpoint that was heard from, and authentically so, is answered by the device and from the address that it wrote
  to, where the kernel would choose others. A datagram never leaves by the device that `avoid` names.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence

from bridge.ports.udp.families import (
    ANCILLARY_BYTES,
    ERROR_ANCILLARY_BYTES,
    GRO_SIZE,
    IPV4,
    IPV6,
    SEGMENT_SIZE,
    UDP_GRO,
    UDP_SEGMENT,
    open_socket,
    queued_error,
)
from bridge.ports.udp.kernel_routes import KernelRoutes
from bridge.ports.udp.ways import MOST_KNOWN, Door, Heading, Heard, Way, Ways, endpoint_of
from tunnel.effects import Datagram, Endpoint, Received, TooBig
from wire.drop import Drop

_MOST_READY = 4
_MOST_SEGMENTS = 64
_LONGEST_PIECE_BYTES = 65_000
_MOST_SIGNALS = 256
_MOST_ERRORS = 256
_MOST_ATTEMPTS = 4
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})
_NO_WAY = frozenset(
    {
        errno.EINVAL,
        errno.EADDRNOTAVAIL,
        errno.ENODEV,
        errno.ENXIO,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
    }
)
"""What sending by a device or from an address that is gone may end in."""
_LOW = 0 if sys.byteorder == "little" else -1  # the low byte of a TOS field, which is one byte or four


class DatagramSocket:
    """Bound to `port` of all our addresses; `OSError` where that is taken, `PortError` where there is no netlink.

    `avoid`: the device that would bring sealed packets back to us (tun0), by name; it need not exist yet. `count`: is
    told what was dropped here beside what `send_burst` refuses.
    """

    def __init__(
        self, port: int, *, avoid: str | None = None, count: Callable[[Drop, int], None] = lambda reason, number: None
    ) -> None:
        self._count = count
        self._buffer = bytearray(1 << 16)
        self._view = memoryview(self._buffer)
        self._bursts = 0
        self._too_long: dict[str, list[Endpoint]] = {}  # by host: whom the device refused a datagram for its length
        self._signals: deque[TooBig] = deque(maxlen=_MOST_SIGNALS)
        self._doors: dict[int, Door] = {}  # by descriptor
        self._routes = KernelRoutes(avoid)
        self._ways = Ways(self._routes)
        self._ready = select.epoll()
        try:
            self._ready.register(self._routes.fileno(), select.EPOLLIN)
            for family in (IPV4, IPV6):
                opened = open_socket(family, port)
                if opened is None:
                    continue
                door = self._doors[opened.fileno()] = self._ways.doors[family.address_bytes] = Door(family, opened)
                self._ready.register(door.socket, select.EPOLLIN)
                port = opened.getsockname()[1]
        except OSError:
            self.close()
            raise
        self.port: int = port

    def fileno(self) -> int:
        """Readable while datagrams or signals wait."""
        return self._ready.fileno()

    @property
    def has_ipv6(self) -> bool:
        """False where the kernel has no IPv6."""
        return IPV6.address_bytes in self._ways.doors

    # Datagrams come

    def read_burst(self, limit: int) -> list[Received]:
        """What waits, the oldest first; of either family no further piece is taken once there are `limit` datagrams."""
        burst: list[Received] = []
        for door in self.ready():
            self._read(door, len(burst) + limit, burst)
        return burst

    def ready(self) -> list[Door]:
        """The sockets at which datagrams wait; errors and news of the kernel's routes are taken in."""
        doors: list[Door] = []
        for fd, events in self._ready.poll(0, _MOST_READY):
            door = self._doors.get(fd)
            if door is None:
                self._ways.take_news()
                continue
            if events & select.EPOLLERR:
                self._read_errors(door)
            if events & select.EPOLLIN:
                doors.append(door)
        return doors

    def received(self, door: Door, datagram: bytes, name: bytes, info: bytes, ecn: int) -> Received:
        """A datagram that somebody else read at a socket: `name` is the socket address, `info` the control message that
        came with it."""
        address = door.family.address_of(name)
        source = self._ways.senders.get(address)
        if source is None or source.info != info:
            source = self._ways.heard(door, address, info)
        return Received(datagram, source, ecn)

    def _read(self, door: Door, limit: int, burst: list[Received]) -> None:
        receive, buffers, view, senders = door.socket.recvmsg_into, [self._buffer], self._view, self._ways.senders
        tos_kind, info_kind, low = door.family.tos, door.family.info, _LOW
        attempts = 0
        while len(burst) < limit:
            try:
                size, ancillary, flags, address = receive(buffers, ANCILLARY_BYTES)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error: it is in the queue of errors as well, and something may wait behind it
                attempts += 1
                if attempts == _MOST_ATTEMPTS:
                    return
                continue
            each, ecn, info = size, 0, b""
            for _, kind, data in ancillary:  # the kinds of one family differ, whatever their level
                if kind == info_kind:
                    info = data
                elif kind == tos_kind:
                    ecn = data[low] & 3
                elif kind == UDP_GRO:
                    each = GRO_SIZE.unpack(data)[0]
            if flags & socket.MSG_CTRUNC:  # there is room for all that we asked for; where one datagram ends is unsure
                self._count(Drop.PORT_MALFORMED, 1)
                continue
            source = senders.get(address)
            if source is None or source.info != info:
                source = self._ways.heard(door, address, info)
            if each >= size:
                burst.append(Received(bytes(view[:size]), source, ecn))
                continue
            burst += [Received(bytes(view[at : min(at + each, size)]), source, ecn) for at in range(0, size, each)]

    # Signals come

    def _read_errors(self, door: Door) -> None:
        ignored = 0
        for _ in range(_MOST_ERRORS):
            try:
                size, ancillary, _, address = door.socket.recvmsg_into(
                    [self._buffer], ERROR_ANCILLARY_BYTES, socket.MSG_ERRQUEUE
                )
            except BlockingIOError:
                break
            error = queued_error(door.family, ancillary)
            if error is None or error.mtu_bytes is None:
                ignored += 1
            elif error.origin:
                quoted = bytes(self._view[:size])
                self._signals.append(TooBig(endpoint_of(door, address), error.mtu_bytes, quoted, error.origin))
            else:
                for endpoint in self._too_long.pop(address[0], ()):
                    self._signals.append(TooBig(endpoint, error.mtu_bytes, b"", b""))
        door.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # takes away what has no entry: the queue was full
        if ignored:
            self._count(Drop.TUNNEL_OUTER_ICMP, ignored)

    def read_signals(self) -> list[TooBig]:
        """What came about sizes up to the last `read_burst`, the oldest first.

        From routers: nothing is checked but that the quoted packet came from our port. From our own device: one for an
        endpoint after datagrams to it were refused for their length.
        """
        if not self._signals:
            return []
        signals = list(self._signals)
        self._signals.clear()
        return signals

    # Datagrams leave

    def send_burst(self, datagrams: Sequence[Datagram]) -> Counter[Drop]:
        """Send in order; how many were refused, and why."""
        refused: Counter[Drop] = Counter()
        self._bursts += 1
        at, count = 0, len(datagrams)
        known = way = None
        while at < count:
            endpoint, first, tos = datagrams[at]
            if way is None or endpoint is not known:
                known, way = endpoint, self._ways.to(endpoint, self._bursts)
            size, end = len(first), at + 1
            if way.segments and size:
                most = min(at + min(_MOST_SEGMENTS, _LONGEST_PIECE_BYTES // size), count)
                while end < most and len(datagrams[end - 1][1]) == size:
                    following = datagrams[end]
                    if following[0] is not endpoint or following[2] != tos or len(following[1]) > size:
                        break
                    end += 1
            if end == at + 1 and not tos and not way.ancillary and way.door is not None:
                at = end
                try:
                    way.door.socket.sendto(first, way.address)
                except OSError:
                    self._send_each(way, [first], tos, refused)
                continue
            run = [datagram[1] for datagram in datagrams[at:end]]
            at = end
            if len(run) == 1 or not self._send_piece(way, run, tos):
                self._send_each(way, run, tos, refused)
        return refused

    def heading(self, endpoint: Endpoint) -> Heading | None:
        """How somebody else may send to an endpoint; None where nothing may leave. It holds as long as `state`, and
        until something had to be sent here instead."""
        self._bursts += 1
        way = self._ways.to(endpoint, self._bursts)
        if way.door is None:
            return None
        info = endpoint.info if isinstance(endpoint, Heard) else b""
        family = way.door.family
        chosen = way.ancillary[0] if way.ancillary else None
        return Heading(
            way.door.socket.fileno(),
            way.segments,
            (family.level, family.tos),
            family.name_of(way.address),
            chosen,
            info,
        )

    @property
    def state(self) -> int:
        """Another number when the kernel's routes have changed."""
        return self._ways.changes

    def _send_piece(self, way: Way, run: list[bytes], tos: int) -> bool:
        """Datagrams of one size, the last may be shorter, in one piece; False where they must go one by one."""
        size = (socket.IPPROTO_UDP, UDP_SEGMENT, SEGMENT_SIZE.pack(len(run[0])))
        fault = self._put(way, run, tos, size)
        if fault == errno.EIO:  # the device computes no checksums
            way.segments = False
        return not fault

    def _send_each(self, way: Way, run: list[bytes], tos: int, refused: Counter[Drop]) -> None:
        too_long = sys.maxsize
        for index, datagram in enumerate(run):
            if len(datagram) >= too_long:
                refused[Drop.PORT_TOO_LONG] += 1
                continue
            fault = self._put(way, [datagram], tos)
            if fault in _NO_WAY and self._ways.reconsider(way):
                fault = self._put(way, [datagram], tos)
            if fault == errno.EMSGSIZE:
                too_long = len(datagram)
                self._remember_length(way)
                refused[Drop.PORT_TOO_LONG] += 1
            elif fault in _FULL:
                refused[Drop.PORT_FULL] += len(run) - index
                return
            elif fault:
                refused[Drop.PORT_DOWN] += 1

    def _put(self, way: Way, pieces: list[bytes], tos: int, size: tuple[int, int, bytes] | None = None) -> int:
        """One system call; 0, or the number of the error."""
        door = way.door
        if door is None:
            return errno.ENETUNREACH
        ancillary = way.ancillary
        if tos:
            ancillary = [*ancillary, door.tos[tos]]
        if size is not None:
            ancillary = [*ancillary, size]
        before = 0
        for _ in range(_MOST_ATTEMPTS):
            try:
                if ancillary:
                    door.socket.sendmsg(pieces, ancillary, 0, way.address)
                else:
                    door.socket.sendto(pieces[0], way.address)
            except OSError as error:
                fault = error.errno or errno.EIO
                if fault == before or fault in _FULL:
                    return fault
                before = fault  # it may be about something else, and is told once: see whether it comes again
            else:
                return 0
        return before

    def _remember_length(self, way: Way) -> None:
        """The kernel's own entry in the queue of errors names the host and, for IPv4, not the port."""
        if len(self._too_long) >= MOST_KNOWN:
            self._too_long.clear()
        endpoints = self._too_long.setdefault(way.address[0], [])
        if way.endpoint not in endpoints and len(endpoints) < _MOST_SIGNALS:
            endpoints.append(way.endpoint)

    def close(self) -> None:
        """Give the port back; a second call does nothing."""
        for door in self._doors.values():
            door.socket.close()
        self._ready.close()
        self._routes.close()
