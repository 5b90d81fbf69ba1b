"""The kernel's numbers for a UDP socket of IPv4 and of IPv6: options, control messages, queued errors.

`Family` holds one family's numbers and layouts, `open_socket` makes a socket with everything switched on that
`bridge.ports.udp.datagrams` relies on, `queued_error` reads an entry of the error queue (ip(7), ipv6(7), udp(7)).
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final, NamedTuple

BUFFER_BYTES = 8 << 20
"""Of a socket, each way; the kernel gives less where we may not ask for so much."""

UDP_SEGMENT, UDP_GRO = 103, 104  # linux/udp.h
SEGMENT_SIZE = struct.Struct("=H")
GRO_SIZE = struct.Struct("=i")
TOS = struct.Struct("=i")

_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
_PMTUDISC_PROBE = 3  # linux/in.h, the same for IPv6: DF, and no path MTU but the device's
_IPV6_DONTFRAG = 62
_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err: errno, origin, type, code, pad, info, data
_ORIGIN_LOCAL, _ORIGIN_ICMP, _ORIGIN_ICMP6 = 1, 2, 3
_ICMP_FRAG_NEEDED, _ICMP6_TOO_BIG = (3, 4), 2
_LONGEST_SOCKADDR_BYTES = 28
_SOCKADDR = struct.Struct("=H2s")
_SOCKADDR_IN6 = struct.Struct("=4s16sI")


Ancillary = list[tuple[int, int, bytes]]
SocketAddress = tuple[str, int] | tuple[str, int, int, int]


class Family(NamedTuple):
    """`tos` and `info` are options and control messages at once; `receive_...` ask for the latter.

    `info_layout`: of the message that says by which device and local address a datagram came, or is to leave;
    `sockaddr_offset`: where an address stands in a socket address (ip(7), ipv6(7)).
    """

    number: int
    address_bytes: int
    any: str
    level: int
    tos: int
    receive_tos: int
    info: int
    receive_info: int
    receive_errors: int
    path_mtu: int
    info_layout: struct.Struct
    sockaddr_offset: int

    def info_from(self, device: int, local: bytes) -> bytes:
        """The message for leaving by a device (0: as routes say) from a local address (b"": as the kernel likes)."""
        if self.number == socket.AF_INET:
            return self.info_layout.pack(device, local, b"")
        return self.info_layout.pack(local, device)

    def came_by(self, info: bytes) -> tuple[int, bytes]:
        """The device and the local address of the message that came with a datagram."""
        if self.number == socket.AF_INET:
            device, local, _ = self.info_layout.unpack(info)
        else:
            local, device = self.info_layout.unpack(info)
        return device, local

    def address_of(self, name: bytes) -> SocketAddress:
        """A `struct sockaddr` as the socket module has it."""
        port = int.from_bytes(name[2:4], "big")
        if self.number == socket.AF_INET:
            return socket.inet_ntop(socket.AF_INET, name[4:8]), port
        flow, address, scope = _SOCKADDR_IN6.unpack_from(name, 4)
        return socket.inet_ntop(socket.AF_INET6, address), port, int.from_bytes(flow, "big"), scope

    def name_of(self, address: SocketAddress) -> bytes:
        """The other way round."""
        head = _SOCKADDR.pack(self.number, address[1].to_bytes(2, "big"))
        packed = socket.inet_pton(self.number, address[0])
        if len(address) == 2:
            return head + packed + bytes(8)
        return head + _SOCKADDR_IN6.pack(address[2].to_bytes(4, "big"), packed, address[3])


# linux/in.h, linux/in6.h
IPV4: Final = Family(socket.AF_INET, 4, "0.0.0.0", socket.IPPROTO_IP, 1, 13, 8, 8, 11, 10, struct.Struct("=I4s4s"), 4)
IPV6: Final = Family(socket.AF_INET6, 16, "::", socket.IPPROTO_IPV6, 67, 66, 50, 49, 25, 23, struct.Struct("=16sI"), 8)

ANCILLARY_BYTES = sum(map(socket.CMSG_SPACE, (GRO_SIZE.size, TOS.size, IPV6.info_layout.size)))
"""Room for all that comes with a datagram; the size of its segments is the first of it."""
ERROR_ANCILLARY_BYTES = ANCILLARY_BYTES + socket.CMSG_SPACE(_ERROR.size + _LONGEST_SOCKADDR_BYTES)


def open_socket(family: Family, port: int, *, joins: bool) -> socket.socket | None:
    """A socket bound to `port` of all our addresses of a family; None where the kernel does not have the family, and
    `OSError` where the port is taken. Nothing that it sends is ever fragmented. `joins`: runs come in one piece."""
    try:
        made = socket.socket(family.number, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        if family is IPV6 and error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    try:
        for forced, plain in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                made.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
            except PermissionError:
                made.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
        if family is IPV6:
            made.setsockopt(family.level, socket.IPV6_V6ONLY, 1)
            made.setsockopt(family.level, _IPV6_DONTFRAG, 1)
        made.setsockopt(family.level, family.path_mtu, _PMTUDISC_PROBE)
        for option in (family.receive_tos, family.receive_info, family.receive_errors):
            made.setsockopt(family.level, option, 1)
        if joins:
            made.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        made.bind((family.any, port))
    except OSError:
        made.close()
        raise
    return made


class QueuedError(NamedTuple):
    """An entry of the error queue. `mtu_bytes`: of the outer IP packet, None where the error is not about size;
    `origin`: the address of the router or host that said it, b"" is our own kernel."""

    mtu_bytes: int | None
    origin: bytes


def queued_error(family: Family, ancillary: Ancillary) -> QueuedError | None:
    """The error in an entry of the error queue; None where the entry has none."""
    for level, kind, data in ancillary:
        if level != family.level or kind != family.receive_errors or len(data) < _ERROR.size:
            continue
        number, origin, what, code, _, info, _ = _ERROR.unpack_from(data)
        is_local = origin == _ORIGIN_LOCAL
        is_about_size = (
            (is_local and number == errno.EMSGSIZE)
            or (origin == _ORIGIN_ICMP and (what, code) == _ICMP_FRAG_NEEDED)
            or (origin == _ORIGIN_ICMP6 and what == _ICMP6_TOO_BIG)
        )
        at = _ERROR.size + family.sockaddr_offset
        return QueuedError(info if is_about_size else None, b"" if is_local else data[at : at + family.address_bytes])
    return None
