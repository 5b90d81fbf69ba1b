"""The path of a datagram to an endpoint: the device by which, and the address of ours from which, it leaves.

An endpoint that was heard from is answered by the device that its datagram came by, and from the address that it wrote
to: a peer knows us by that address. (wireguard-go calls this a sticky socket.) Any other datagram leaves as the
kernel's routes say, as long as they do not lead into the avoided device; then it leaves by the best route beside that
device. Where the kernel would do the same by itself, it is not told anything.

A decision holds until the kernel tells of a change in its routes, addresses or devices.
"""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

from bridge.ports.udp.families import IPV4, TOS, Ancillary, Family, SocketAddress
from bridge.ports.udp.kernel_routes import KernelRoutes
from tunnel.effects import Endpoint

MOST_KNOWN: Final = 4096
"""Senders that are remembered, and endpoints whose paths are kept."""


class FamilySocket:
    """The socket of one address family. `segments`: runs of datagrams may leave in one piece; `tos`: the control
    message for each value of the TOS byte."""

    __slots__ = ("family", "segments", "socket", "tos")

    def __init__(self, family: Family, bound: socket.socket, *, segments: bool) -> None:
        self.family = family
        self.socket = bound
        self.segments = segments
        self.tos = [(family.level, family.tos, TOS.pack(tos)) for tos in range(256)]


class PktinfoEndpoint(Endpoint):
    """An endpoint that a datagram came from. It compares as any other endpoint.

    `pktinfo`: the control message `IP_PKTINFO` or `IPV6_PKTINFO` of the datagram (ip(7), ipv6(7)): the device that it
    came by, and the address of ours that it was sent to. The tunnel hands the endpoint of the last authentic datagram
    back as the endpoint to answer. So a datagram that only pretends to come from there changes no path.
    """

    pktinfo: bytes = b""


class UdpPath:
    """The path of datagrams to an endpoint.

    `pktinfo`: of the `PktinfoEndpoint` that the path was last found for; `follows_pktinfo`: the path depends on it;
    `ancillary`: the control messages that make the kernel take this path; `via`: the socket, None where nothing may
    leave; `segments`: runs of datagrams may leave in one piece; `as_of`: the state of the kernel's routes when the path
    was found; `used`: the burst that it was last used in.
    """

    __slots__ = ("address", "ancillary", "as_of", "endpoint", "follows_pktinfo", "pktinfo", "segments", "used", "via")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.via: FamilySocket | None = None
        self.address = _socket_address(endpoint, 0)
        self.pktinfo = b""
        self.follows_pktinfo = False
        self.ancillary: Ancillary = []
        self.as_of = -1
        self.segments = False
        self.used = 0


class LanePath(NamedTuple):
    """A path as compiled code needs it. `tos`: level and kind of the control message for the TOS byte; `name`: the
    socket address as a `struct sockaddr`; `chosen`: the control message that makes the kernel take this path, or None;
    `pktinfo`: the control message that comes with a datagram from there, b"" where none is known yet."""

    fd: int
    segments: bool
    tos: tuple[int, int]
    name: bytes
    chosen: tuple[int, int, bytes] | None
    pktinfo: bytes


class UdpPaths:
    """The paths to all endpoints. `sockets`: by the length of their family's addresses in bytes; `senders`: endpoints
    that wrote to us lately, by socket address; `changes`: how often the kernel's routes have changed."""

    def __init__(self, routes: KernelRoutes) -> None:
        self.senders: dict[SocketAddress, PktinfoEndpoint] = {}
        self.sockets: dict[int, FamilySocket] = {}
        self.changes = 0
        self._routes = routes
        self._paths: dict[Endpoint, UdpPath] = {}

    # Datagrams come

    def remember(self, via: FamilySocket, address: SocketAddress, pktinfo: bytes) -> PktinfoEndpoint:
        """Add an endpoint to `senders`. Anybody may write to us under any address: where there are too many, all of
        them are forgotten, which costs no more than making them again."""
        if len(self.senders) >= MOST_KNOWN:
            self.senders.clear()
        found = PktinfoEndpoint(socket.inet_pton(via.family.number, address[0]), address[1])
        found.pktinfo = pktinfo
        self.senders[address] = found
        return found

    def read_news(self) -> None:
        """Something may have changed in the kernel's routes: count it in `changes`."""
        self.changes += self._routes.news()

    # Datagrams leave

    def to(self, endpoint: Endpoint, burst: int) -> UdpPath:
        """The path to an endpoint. `burst`: the number of the burst that it is used in."""
        path = self._paths.get(endpoint) or self._add(endpoint)
        pktinfo = endpoint.pktinfo if isinstance(endpoint, PktinfoEndpoint) else b""
        if path.as_of != self.changes or path.pktinfo != pktinfo:
            path.as_of, path.pktinfo = self.changes, pktinfo
            self._find(path, pktinfo)
        path.used = burst
        return path

    def _add(self, endpoint: Endpoint) -> UdpPath:
        if len(self._paths) >= MOST_KNOWN:  # under load anybody gets a cookie reply: keep the paths in use
            newest = sorted(self._paths.values(), key=lambda path: path.used)[MOST_KNOWN // 2 :]
            self._paths = {path.endpoint: path for path in newest}
        path = self._paths[endpoint] = UdpPath(endpoint)
        return path

    def _find(self, path: UdpPath, pktinfo: bytes) -> None:
        path.ancillary, path.follows_pktinfo = [], bool(pktinfo)
        address = path.endpoint.address
        via = path.via = self.sockets.get(len(address))
        if via is None:
            return
        path.segments = via.segments
        family = via.family
        device, local = family.came_by(pktinfo) if pktinfo else (0, b"")
        if _is_link_local(address):
            path.address = _socket_address(path.endpoint, device)
            path.via = via if device else None  # the address means nothing without its device
        else:
            avoided, chosen = self._routes.avoided(), self._routes.chosen(address)
            if chosen is not None and pktinfo and (chosen.device, chosen.source) == (device, local):
                return
            if device == avoided:
                device, local = 0, b""  # it came out of the tunnel itself, or nothing came yet
            elif device and not self._routes.leads(address, device):
                device = 0  # nothing leads back by the device that it came by
            if not device and avoided and chosen is not None and chosen.device == avoided:
                device = self._routes.beside(address)
                path.via = via if device else None
        if device or local:
            path.ancillary = [(family.level, family.info, family.info_from(device, local))]

    def reconsider(self, path: UdpPath) -> bool:
        """The kernel refuses the path's device or address. True where another path was found without them: it holds
        until the kernel's routes change, or a datagram comes from there by another device or to another address."""
        if not path.follows_pktinfo:
            return False
        self._find(path, b"")
        return True


def endpoint_of(via: FamilySocket, address: SocketAddress) -> Endpoint:
    """The endpoint with this socket address."""
    return Endpoint(socket.inet_pton(via.family.number, address[0]), address[1])


def _socket_address(endpoint: Endpoint, device: int) -> SocketAddress:
    if len(endpoint.address) == IPV4.address_bytes:
        return socket.inet_ntop(socket.AF_INET, endpoint.address), endpoint.port
    return socket.inet_ntop(socket.AF_INET6, endpoint.address), endpoint.port, 0, device


def _is_link_local(address: bytes) -> bool:
    """RFC 4291 2.5.6."""
    return len(address) == 16 and address[0] == 0xFE and address[1] & 0xC0 == 0x80
