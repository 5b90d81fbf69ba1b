"""The tunnel's UDP sockets, one for IPv4 and one for IPv6: datagrams with their endpoints, in bursts, never blocking.

Where the kernel proved that it can (`bridge.ports.udp.segmentation`), datagrams of one size and TOS to or from one
endpoint pass it in one piece of up to 64. A piece that the kernel does not take is sent one by one.

- Nothing is fragmented (DF), and no path MTU that the kernel has learned is believed: anybody can forge an ICMP error.
  Signals of routers and of the device about sizes are handed out (`read_signals`); the tunnel knows what was sent, and
  judges them.
- Other ICMP errors are counted and not heeded. A socket tells of them by failing its next call, whatever that is about:
  such a call is made again.
- An endpoint that an authentic datagram came from is answered by the device and from the address that it wrote to,
  where the kernel would choose others (`bridge.ports.udp.paths`). A datagram never leaves by the device that `avoid`
  names.
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
    Family,
    open_socket,
    queued_error,
)
from bridge.ports.udp.kernel_routes import KernelRoutes
from bridge.ports.udp.paths import MOST_KNOWN, FamilySocket, LanePath, PktinfoEndpoint, UdpPath, UdpPaths, endpoint_of
from bridge.ports.udp.segmentation import Segmentation, both, prove
from tunnel.effects import Datagram, Endpoint, Received, TooBig
from wire.drop import Drop

_MOST_READY = 4
_MOST_SEGMENTS = 64
_LONGEST_PIECE_BYTES = 65_000
_MOST_SIGNALS = 256
_MOST_ERRORS = 256
_MOST_ATTEMPTS = 4
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})
_NO_PATH = frozenset(
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
"""Errors of sending by a device, or from an address, that is gone."""
_LOW = 0 if sys.byteorder == "little" else -1  # the low byte of a TOS field, which is one byte or four


class DatagramSocket:
    """Bound to `port` of all our addresses; 0 takes any free port.

    `avoid`: the device that would bring sealed packets back to us (tun0), by name; it need not exist yet.
    `count(reason, number)`: takes the drops that `send_burst` does not return. `prove(family)`: says whether runs of
    datagrams may leave and come in one piece.

    `segmentation`: what was said, for both families.

    Raises `OSError` where the port is taken, `PortError` where there is no netlink.
    """

    def __init__(
        self,
        port: int,
        *,
        avoid: str | None = None,
        count: Callable[[Drop, int], None] = lambda reason, number: None,
        prove: Callable[[Family], Segmentation] = prove,
    ) -> None:
        self._count = count
        self._buffer = bytearray(1 << 16)
        self._view = memoryview(self._buffer)
        self._bursts = 0
        self._too_long: dict[str, list[Endpoint]] = {}  # by host: endpoints for which a datagram was too long
        self._signals: deque[TooBig] = deque(maxlen=_MOST_SIGNALS)
        self._sockets: dict[int, FamilySocket] = {}  # by descriptor
        self._routes = KernelRoutes(avoid)
        self._paths = UdpPaths(self._routes)
        self._ready = select.epoll()
        proofs: list[Segmentation] = []
        try:
            self._ready.register(self._routes.fileno(), select.EPOLLIN)
            for family in (IPV4, IPV6):
                proof = prove(family)
                bound = open_socket(family, port, joins=proof.receives)
                if bound is None:
                    continue
                proofs.append(proof)
                via = FamilySocket(family, bound, segments=proof.sends)
                self._sockets[bound.fileno()] = self._paths.sockets[family.address_bytes] = via
                self._ready.register(via.socket, select.EPOLLIN)
                port = bound.getsockname()[1]
        except OSError:
            self.close()
            raise
        self.port: int = port
        self.segmentation = both(proofs)

    def fileno(self) -> int:
        """Readable while datagrams or signals wait."""
        return self._ready.fileno()

    @property
    def has_ipv6(self) -> bool:
        """False where the kernel has no IPv6."""
        return IPV6.address_bytes in self._paths.sockets

    # Datagrams come

    def read_burst(self, limit: int) -> list[Received]:
        """The datagrams that wait, the oldest first. Of either family no piece is read once there are `limit`
        datagrams."""
        burst: list[Received] = []
        for via in self.ready():
            self._read(via, len(burst) + limit, burst)
        return burst

    def ready(self) -> list[FamilySocket]:
        """The sockets at which datagrams wait. Queued errors and news of the kernel's routes are read on the path."""
        ready: list[FamilySocket] = []
        for fd, events in self._ready.poll(0, _MOST_READY):
            via = self._sockets.get(fd)
            if via is None:
                self._paths.read_news()
                continue
            if events & select.EPOLLERR:
                self._read_errors(via)
            if events & select.EPOLLIN:
                ready.append(via)
        return ready

    def received(self, via: FamilySocket, datagram: bytes, name: bytes, info: bytes, ecn: int) -> Received:
        """A datagram that a lane read at a socket. `name`: its `struct sockaddr`; `info`: its pktinfo; `ecn`: the two
        bits of its outer header."""
        address = via.family.address_of(name)
        source = self._paths.senders.get(address)
        if source is None or source.pktinfo != info:
            source = self._paths.remember(via, address, info)
        return Received(datagram, source, ecn)

    def _read(self, via: FamilySocket, limit: int, burst: list[Received]) -> None:
        receive, buffers, view, senders = via.socket.recvmsg_into, [self._buffer], self._view, self._paths.senders
        tos_kind, info_kind, low = via.family.tos, via.family.info, _LOW
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
            for _, kind, data in ancillary:  # within a family the kinds differ, whatever their level
                if kind == info_kind:
                    info = data
                elif kind == tos_kind:
                    ecn = data[low] & 3
                elif kind == UDP_GRO:
                    each = GRO_SIZE.unpack(data)[0]
            if flags & socket.MSG_CTRUNC:  # there is room for all that we asked for; the ends of datagrams are unsure
                self._count(Drop.PORT_MALFORMED, 1)
                continue
            source = senders.get(address)
            if source is None or source.pktinfo != info:
                source = self._paths.remember(via, address, info)
            if each >= size:
                burst.append(Received(bytes(view[:size]), source, ecn))
                continue
            burst += [Received(bytes(view[at : min(at + each, size)]), source, ecn) for at in range(0, size, each)]

    # Signals come

    def _read_errors(self, via: FamilySocket) -> None:
        ignored = 0
        for _ in range(_MOST_ERRORS):
            try:
                size, ancillary, _, address = via.socket.recvmsg_into(
                    [self._buffer], ERROR_ANCILLARY_BYTES, socket.MSG_ERRQUEUE
                )
            except BlockingIOError:
                break
            error = queued_error(via.family, ancillary)
            if error is None or error.mtu_bytes is None:
                ignored += 1
            elif error.origin:
                quoted = bytes(self._view[:size])
                self._signals.append(TooBig(endpoint_of(via, address), error.mtu_bytes, quoted, error.origin))
            else:
                for endpoint in self._too_long.pop(address[0], ()):
                    self._signals.append(TooBig(endpoint, error.mtu_bytes, b"", b""))
        via.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # clears an error that found the queue full
        if ignored:
            self._count(Drop.TUNNEL_OUTER_ICMP, ignored)

    def read_signals(self) -> list[TooBig]:
        """The signals about sizes up to the last `read_burst`, the oldest first.

        A signal of a router is not checked, but that the quoted packet came from our port. Our own device gives one
        signal for an endpoint after it refused datagrams to it for their length.
        """
        if not self._signals:
            return []
        signals = list(self._signals)
        self._signals.clear()
        return signals

    # Datagrams leave

    def send_burst(self, datagrams: Sequence[Datagram]) -> Counter[Drop]:
        """Send in order. Returns the number of refused datagrams by reason."""
        refused: Counter[Drop] = Counter()
        self._bursts += 1
        at, count = 0, len(datagrams)
        known = path = None
        while at < count:
            endpoint, first, tos = datagrams[at]
            if path is None or endpoint is not known:
                known, path = endpoint, self._paths.to(endpoint, self._bursts)
            size, end = len(first), at + 1
            if path.segments and size:
                most = min(at + min(_MOST_SEGMENTS, _LONGEST_PIECE_BYTES // size), count)
                while end < most and len(datagrams[end - 1][1]) == size:
                    following = datagrams[end]
                    if following[0] is not endpoint or following[2] != tos or len(following[1]) > size:
                        break
                    end += 1
            if end == at + 1 and not tos and not path.ancillary and path.via is not None:
                at = end
                try:
                    path.via.socket.sendto(first, path.address)
                except OSError:
                    self._send_each(path, [first], tos, refused)
                continue
            run = [datagram[1] for datagram in datagrams[at:end]]
            at = end
            if len(run) == 1 or not self._send_piece(path, run, tos):
                self._send_each(path, run, tos, refused)
        return refused

    def lane_path(self, endpoint: Endpoint) -> LanePath | None:
        """The path to an endpoint for a lane; None where nothing may leave. It holds as long as `state` stays the same,
        and until a datagram of the lane had to be sent by `send_burst` instead."""
        self._bursts += 1
        path = self._paths.to(endpoint, self._bursts)
        if path.via is None:
            return None
        pktinfo = endpoint.pktinfo if isinstance(endpoint, PktinfoEndpoint) else b""
        family = path.via.family
        chosen = path.ancillary[0] if path.ancillary else None
        return LanePath(
            path.via.socket.fileno(),
            path.segments,
            (family.level, family.tos),
            family.name_of(path.address),
            chosen,
            pktinfo,
        )

    @property
    def state(self) -> int:
        """A number that changes with the kernel's routes."""
        return self._paths.changes

    def _send_piece(self, path: UdpPath, run: list[bytes], tos: int) -> bool:
        """Datagrams of one size, the last may be shorter, in one piece; False where they must go one by one."""
        size = (socket.IPPROTO_UDP, UDP_SEGMENT, SEGMENT_SIZE.pack(len(run[0])))
        error = self._put(path, run, tos, size)
        if error == errno.EIO:  # the device computes no checksums
            path.segments = False
        return not error

    def _send_each(self, path: UdpPath, run: list[bytes], tos: int, refused: Counter[Drop]) -> None:
        too_long = sys.maxsize
        for index, datagram in enumerate(run):
            if len(datagram) >= too_long:
                refused[Drop.PORT_TOO_LONG] += 1
                continue
            error = self._put(path, [datagram], tos)
            if error in _NO_PATH and self._paths.reconsider(path):
                error = self._put(path, [datagram], tos)
            if error == errno.EMSGSIZE:
                too_long = len(datagram)
                self._remember_length(path)
                refused[Drop.PORT_TOO_LONG] += 1
            elif error in _FULL:
                refused[Drop.PORT_FULL] += len(run) - index
                return
            elif error:
                refused[Drop.PORT_DOWN] += 1

    def _put(self, path: UdpPath, pieces: list[bytes], tos: int, size: tuple[int, int, bytes] | None = None) -> int:
        """One system call; 0, or the number of the error."""
        via = path.via
        if via is None:
            return errno.ENETUNREACH
        ancillary = path.ancillary
        if tos:
            ancillary = [*ancillary, via.tos[tos]]
        if size is not None:
            ancillary = [*ancillary, size]
        before = 0
        for _ in range(_MOST_ATTEMPTS):
            try:
                if ancillary:
                    via.socket.sendmsg(pieces, ancillary, 0, path.address)
                else:
                    via.socket.sendto(pieces[0], path.address)
            except OSError as error:
                number = error.errno or errno.EIO
                if number == before or number in _FULL:
                    return number
                before = number  # it may be about another datagram, and is told once: see whether it comes again
            else:
                return 0
        return before

    def _remember_length(self, path: UdpPath) -> None:
        """Remember the endpoint: the kernel's own entry in the queue of errors names its host but, for IPv4, no
        port."""
        if len(self._too_long) >= MOST_KNOWN:
            self._too_long.clear()
        endpoints = self._too_long.setdefault(path.address[0], [])
        if path.endpoint not in endpoints and len(endpoints) < _MOST_SIGNALS:
            endpoints.append(path.endpoint)

    def close(self) -> None:
        """Give the port back; a second call does nothing."""
        for via in self._sockets.values():
            via.socket.close()
        self._ready.close()
        self._routes.close()
