"""By which device, and from which of our addresses, a datagram to an endpoint leaves.

Who was heard from is answered by the device that it came by and from the address that it wrote to; that is what a
machine with several of either owes its peers, since they know it by that address. Nobody else needs anything but what
the kernel's routes say, as long as they do not lead into the avoided device: then it is the best route beside it. Where
the kernel does all this by itself, nothing is asked of it.

Decisions hold until the kernel tells of a change in its routes, addresses or devices.
"""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

from bridge.ports.udp.families import IPV4, TOS, Ancillary, Family, SocketAddress, can_segment
from bridge.ports.udp.kernel_routes import KernelRoutes
from tunnel.effects import Endpoint

MOST_KNOWN: Final = 4096
"""Senders that are remembered; endpoints that ways are kept for."""


class Door:
    """One family's socket. `tos`: the control message for each value of the byte."""

    __slots__ = ("family", "segments", "socket", "tos")

    def __init__(self, family: Family, opened: socket.socket) -> None:
        self.family = family
        self.socket = opened
        self.segments = can_segment(opened)
        self.tos = [(family.level, family.tos, TOS.pack(tos)) for tos in range(256)]


class Heard(Endpoint):
    """An endpoint as a datagram came from it; compares as any other. `info`: by which device and to which of our
    addresses, as the kernel says it.

    It goes through the tunnel with its datagram and comes back as what to write to, so an answer takes the way of the
    last datagram that was authentic: who only pretends to write from there changes nothing.
    """

    info: bytes = b""


class Way:
    """How datagrams reach an endpoint.

    `info`: of the `Heard` that it was last found for; `answers`: whether that counted; `ancillary`: what makes the
    kernel take this way; `door`: None where nothing may leave; `segments`: runs may leave in one piece; `as_of`: the
    state of the kernel's routes that all this belongs to; `used`: the burst that it was last used in.
    """

    __slots__ = ("address", "ancillary", "answers", "as_of", "door", "endpoint", "info", "segments", "used")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.door: Door | None = None
        self.address = _socket_address(endpoint, 0)
        self.info = b""
        self.answers = False
        self.ancillary: Ancillary = []
        self.as_of = -1
        self.segments = False
        self.used = 0


class Heading(NamedTuple):
    """A way as a system call wants it. `tos`: level and kind of the control message for that byte; `name`: the socket
    address; `chosen`: the control message that makes the kernel take this way; `heard`: the one that comes with a
    datagram from there, b"" where none is known yet."""

    fd: int
    segments: bool
    tos: tuple[int, int]
    name: bytes
    chosen: tuple[int, int, bytes] | None
    heard: bytes


class Ways:
    """`senders`: who wrote to us lately, by socket address; `heard` adds one. `changes`: of the kernel's routes."""

    def __init__(self, routes: KernelRoutes) -> None:
        self.senders: dict[SocketAddress, Heard] = {}
        self.doors: dict[int, Door] = {}  # by the bytes of an address
        self._routes = routes
        self.changes = 0
        self._ways: dict[Endpoint, Way] = {}

    # Datagrams come

    def heard(self, door: Door, address: SocketAddress, info: bytes) -> Heard:
        """Somebody who is not among `senders`, or not as it came now. Anybody may write to us under any name: when
        there are too many, all are forgotten, which costs no more than making them again."""
        if len(self.senders) >= MOST_KNOWN:
            self.senders.clear()
        found = self.senders[address] = Heard(socket.inet_pton(door.family.number, address[0]), address[1])
        found.info = info
        return found

    def take_news(self) -> None:
        """Something may have changed in the kernel's routes."""
        self.changes += self._routes.news()

    # Datagrams leave

    def to(self, endpoint: Endpoint, burst: int) -> Way:
        """The way to an endpoint; `burst` counts up."""
        way = self._ways.get(endpoint) or self._add(endpoint)
        info = endpoint.info if isinstance(endpoint, Heard) else b""
        if way.as_of != self.changes or way.info != info:
            way.as_of, way.info = self.changes, info
            self._find(way, info)
        way.used = burst
        return way

    def _add(self, endpoint: Endpoint) -> Way:
        if len(self._ways) >= MOST_KNOWN:  # answers under load go to whoever asked: those in use stay
            newest = sorted(self._ways.values(), key=lambda way: way.used)[MOST_KNOWN // 2 :]
            self._ways = {way.endpoint: way for way in newest}
        way = self._ways[endpoint] = Way(endpoint)
        return way

    def _find(self, way: Way, info: bytes) -> None:
        way.ancillary, way.answers = [], bool(info)
        address = way.endpoint.address
        door = way.door = self.doors.get(len(address))
        if door is None:
            return
        way.segments = door.segments
        family = door.family
        device, local = family.came_by(info) if info else (0, b"")
        if _is_link_local(address):
            way.address = _socket_address(way.endpoint, device)
            way.door = door if device else None  # the address means nothing without its device
        else:
            avoided, chosen = self._routes.avoided(), self._routes.chosen(address)
            if chosen is not None and info and (chosen.device, chosen.source) == (device, local):
                return
            if device == avoided:
                device, local = 0, b""  # out of the tunnel itself, or not heard from
            elif device and not self._routes.leads(address, device):
                device = 0  # it came by where nothing leads back
            if not device and avoided and chosen is not None and chosen.device == avoided:
                device = self._routes.beside(address)
                way.door = door if device else None
        if device or local:
            way.ancillary = [(family.level, family.info, family.info_from(device, local))]

    def reconsider(self, way: Way) -> bool:
        """The device or the address that somebody wrote to is of no use any more: whether there is another way. It
        holds until the kernel's routes change, or somebody comes by another way."""
        if not way.answers:
            return False
        self._find(way, b"")
        return True


def endpoint_of(door: Door, address: SocketAddress) -> Endpoint:
    """The endpoint of a socket address that something was sent to."""
    return Endpoint(socket.inet_pton(door.family.number, address[0]), address[1])


def _socket_address(endpoint: Endpoint, device: int) -> SocketAddress:
    if len(endpoint.address) == IPV4.address_bytes:
        return socket.inet_ntop(socket.AF_INET, endpoint.address), endpoint.port
    return socket.inet_ntop(socket.AF_INET6, endpoint.address), endpoint.port, 0, device


def _is_link_local(address: bytes) -> bool:
    """RFC 4291 2.5.6."""
    return len(address) == 16 and address[0] == 0xFE and address[1] & 0xC0 == 0x80
