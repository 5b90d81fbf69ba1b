"""The UDP socket of the tunnel: datagrams with their endpoints, in bursts, never blocking.

Where the kernel can (`UDP_SEGMENT`, `UDP_GRO`), datagrams of one size to or from one endpoint pass it in one piece of
up to 64; what it does not take in one piece goes one by one. IPv4 only.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from tunnel.effects import Datagram, Endpoint, Received
from wire.drop import Drop

BUFFER_BYTES = 8 << 20
"""Of the socket, each way; the kernel gives less where we may not ask for so much."""
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
_UDP_SEGMENT, _UDP_GRO = 103, 104  # linux/udp.h
_IP_UNICAST_IF = 50  # linux/in.h
_MOST_SEGMENTS = 64
_LONGEST_PIECE_BYTES = 65_000
_SIZE = struct.Struct("=H")
_GRO_SIZE = struct.Struct("=i")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_GRO_SIZE.size)
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})
_MOST_KNOWN = 4096


class DatagramSocket:
    """Bound to `port` of all our addresses; `OSError` where that is taken.

    `device`: the index of the device that all datagrams leave by, None is as the kernel's routes say: where tun0 takes
    the default route over, the tunnel's own datagrams must not go back into the tunnel.
    """

    def __init__(self, port: int, device: int | None = None) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._buffer = bytearray(1 << 16)
        self._view = memoryview(self._buffer)
        self._addresses: dict[Endpoint, tuple[str, int]] = {}
        self._endpoints: dict[tuple[str, int], Endpoint] = {}
        self._segments = True
        try:
            for forced, plain in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
                try:
                    self._socket.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
                except PermissionError:
                    self._socket.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
            if device is not None:
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_UNICAST_IF, struct.pack("!I", device))
            with suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
            self._socket.bind(("0.0.0.0", port))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Readable while datagrams wait."""
        return self._socket.fileno()

    @property
    def port(self) -> int:
        """The port that it is bound to."""
        name: tuple[str, int] = self._socket.getsockname()
        return name[1]

    def read_burst(self, limit: int) -> list[Received]:
        """What waits, the oldest first; no further piece is taken once there are `limit` datagrams."""
        burst: list[Received] = []
        buffers = [self._buffer]
        while len(burst) < limit:
            try:
                size, ancillary, _, address = self._socket.recvmsg_into(buffers, _ANCILLARY_BYTES)
            except OSError:  # nothing more; or an error that an earlier datagram met, which is the tunnel's to notice
                break
            source = self._endpoints.get(address) or self._endpoint(address)
            each = size
            for _, kind, data in ancillary:
                if kind == _UDP_GRO:
                    each = _GRO_SIZE.unpack(data)[0]
            if each >= size:
                burst.append(Received(bytes(self._view[:size]), source))
                continue
            burst += [Received(bytes(self._view[at : min(at + each, size)]), source) for at in range(0, size, each)]
        return burst

    def _endpoint(self, address: tuple[str, int]) -> Endpoint:
        if len(self._endpoints) >= _MOST_KNOWN:  # anybody may write to us under any name
            self._endpoints.clear()
        found = self._endpoints[address] = Endpoint(socket.inet_aton(address[0]), address[1])
        return found

    def send_burst(self, datagrams: Sequence[Datagram]) -> Counter[Drop]:
        """Send in order; how many the kernel refused, and why."""
        refused: Counter[Drop] = Counter()
        at, count = 0, len(datagrams)
        while at < count:
            endpoint, first, _ = datagrams[at]
            size, end = len(first), at + 1
            if self._segments:
                most = min(at + min(_MOST_SEGMENTS, _LONGEST_PIECE_BYTES // size), count)
                while end < most and datagrams[end][0] is endpoint and len(datagrams[end - 1][1]) == size:
                    if len(datagrams[end][1]) > size:
                        break
                    end += 1
            run = [datagram.data for datagram in datagrams[at:end]]
            at = end
            address = self._addresses.get(endpoint) or self._address(endpoint)
            if len(run) == 1 or not self._send_piece(run, size, address):
                for datagram in run:
                    reason = self._send(datagram, address)
                    if reason is not None:
                        refused[reason] += 1
        return refused

    def _address(self, endpoint: Endpoint) -> tuple[str, int]:
        if len(self._addresses) >= _MOST_KNOWN:
            self._addresses.clear()
        found = self._addresses[endpoint] = (socket.inet_ntoa(endpoint.address), endpoint.port)
        return found

    def _send_piece(self, run: list[bytes], size: int, address: tuple[str, int]) -> bool:
        """Datagrams of `size` bytes, the last may be shorter, in one piece; False where they must go one by one."""
        try:
            self._socket.sendmsg(run, [(socket.IPPROTO_UDP, _UDP_SEGMENT, _SIZE.pack(size))], 0, address)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP):
                self._segments = False
            return False
        return True

    def _send(self, datagram: bytes, address: tuple[str, int]) -> Drop | None:
        try:
            self._socket.sendto(datagram, address)
        except OSError as error:
            return Drop.PORT_FULL if error.errno in _FULL else Drop.PORT_DOWN
        return None

    def close(self) -> None:
        """Give the port back; a second call does nothing."""
        self._socket.close()
