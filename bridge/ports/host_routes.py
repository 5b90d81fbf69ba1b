"""Host routes to the tunnel's endpoints while tun0 has the default route, so that strict `rp_filter` lets answers in.

With `rp_filter = 1` the kernel drops a packet whose source it would not answer by the same device (RFC 3704 2.2). tun0
has the two halves of the default route, so the kernel would answer an endpoint by tun0, and drops each handshake. A
host route to an endpoint, by the way that leads there beside tun0, mends this (row G34). Only a way of 0 or 1 bits of
prefix loses against the halves, so only such endpoints get one. IPv6 has no halves and needs none.

The routes carry a protocol number of their own. The warden removes them at the end; after an end that it did not
survive, the next start removes them (`sweep`).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

PROTOCOL: Final = 231
"""rtm_protocol of these routes; `ip route show proto 231` lists them."""

MOST_ENDPOINTS: Final = 1000

_NETLINK_ROUTE = 0
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP, _CREATE, _REPLACE = 0x1, 0x4, 0x300, 0x400, 0x100
_GROUPS = 0x1 | 0x10 | 0x40  # links, and addresses and routes of IPv4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_RTA_METRICS, _RTA_MULTIPATH, _RTA_VIA, _RTA_NH_ID = 8, 9, 18, 30
_COPIED = (_RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_METRICS, _RTA_MULTIPATH, _RTA_VIA)
_TABLE_MAIN, _UNICAST = 254, 1
_DEAD, _ONLINK = 0x1, 0x4
_MESSAGE = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_LONGEST_BYTES = 1 << 16
_MOST_NEWS = 256
_ANSWER_S = 2.0


class MainRoute(NamedTuple):
    """An IPv4 route of the table `main`. `network`: as a number, `length`: of its prefix; `way`: device, next hop and
    so on, as the attributes that a route by the same way has; `scope` and `flags` belong to the way."""

    network: int
    length: int
    metric: int
    protocol: int
    device: int
    scope: int
    flags: int
    way: bytes

    def leads_to(self, address: int) -> bool:
        """True where `address` lies in its prefix."""
        return not (address ^ self.network) >> (32 - self.length)


class HostRoutes:
    """The host routes of the present network namespace, beside the device `avoided`, an index.

    `fileno` is readable when something may have changed; `renew` then puts the routes right. Methods raise `OSError`
    where the kernel does not answer.
    """

    def __init__(self, avoided: int) -> None:
        self._avoided = avoided
        self._endpoints: set[int] = set()
        self._sequence = 0
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._questions = socket.socket(socket.AF_NETLINK, kind, _NETLINK_ROUTE)
        self._questions.settimeout(_ANSWER_S)
        self._news = socket.socket(socket.AF_NETLINK, kind | socket.SOCK_NONBLOCK, _NETLINK_ROUTE)
        self._news.bind((0, _GROUPS))

    def fileno(self) -> int:
        """Readable when a route, an address or a device has come, changed or gone."""
        return self._news.fileno()

    def read_news(self) -> None:
        """Take the news away; `renew` looks at the table itself."""
        for _ in range(_MOST_NEWS):
            try:
                self._news.recv(_LONGEST_BYTES)
            except BlockingIOError:
                return
            except OSError:  # more than the kernel could keep for us
                continue

    def lead(self, endpoints: bytes) -> None:
        """Have routes to these endpoints from now on: IPv4 addresses of 4 bytes, one behind the other."""
        whole = endpoints[: len(endpoints) & ~3]
        self._endpoints = {number for (number,) in struct.iter_unpack(">I", whole)}
        self.renew()

    def renew(self) -> None:
        """Add the routes that are missing, and remove those that are not wanted any more."""
        table = list(self._table())
        ours = {route.network: route for route in table if route.protocol == PROTOCOL and route.length == 32}
        others = [route for route in table if route.protocol != PROTOCOL and route.device != self._avoided]
        wanted = {address: way for address in self._endpoints if (way := _way_to(address, others)) is not None}
        for address, route in ours.items():
            if address not in wanted:
                with suppress(OSError):  # it went with its device meanwhile
                    self._ask(_RTM_DELROUTE, _ACK, _written(address, route))
        for address, way in wanted.items():
            had = ours.get(address)
            if had is None or (had.way, had.scope, had.flags & _ONLINK) != (way.way, way.scope, way.flags & _ONLINK):
                with suppress(OSError):  # the way went meanwhile: news of that comes
                    self._ask(_RTM_NEWROUTE, _ACK | _CREATE | _REPLACE, _written(address, way))

    def remove(self) -> None:
        """Remove all of them."""
        self._endpoints = set()
        self.renew()

    def close(self) -> None:
        """A second call does nothing."""
        self._questions.close()
        self._news.close()

    def _table(self) -> Iterator[MainRoute]:
        body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        for reply in self._replies(_RTM_GETROUTE, _DUMP, body):
            route = _read(reply)
            if route is not None:
                yield route

    def _ask(self, kind: int, flags: int, body: bytes) -> None:
        for _ in self._replies(kind, flags, body):
            pass

    def _replies(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        """Send one message; the routes of its answer, each as `struct rtmsg` with attributes."""
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        head = _MESSAGE.pack(_MESSAGE.size + len(body), kind, _REQUEST | flags, self._sequence, 0)
        self._questions.send(head + body)
        while True:
            datagram = self._questions.recv(_LONGEST_BYTES)
            at = 0
            while at + _MESSAGE.size <= len(datagram):
                size, answer, _, sequence, _ = _MESSAGE.unpack_from(datagram, at)
                if size < _MESSAGE.size:
                    break
                if sequence == self._sequence:  # not the answer to a question that was given up
                    if answer == _NLMSG_DONE:
                        return
                    if answer == _NLMSG_ERROR:
                        (number,) = struct.unpack_from("=i", datagram, at + _MESSAGE.size)
                        if number:
                            raise OSError(-number, os.strerror(-number))
                        return
                    yield datagram[at + _MESSAGE.size : at + size]
                at += size + 3 & ~3


def sweep() -> None:
    """Remove the routes that an earlier gateway left in the present network namespace. Raises `OSError` where the
    kernel does not answer."""
    routes = HostRoutes(avoided=0)
    try:
        routes.remove()
    finally:
        routes.close()


def _way_to(address: int, routes: list[MainRoute]) -> MainRoute | None:
    """The way to an endpoint that loses against the halves of tun0's default route; None where none does."""
    ways = [route for route in routes if route.leads_to(address) and not route.flags & _DEAD]
    best = min(ways, key=lambda route: (-route.length, route.metric), default=None)
    return best if best is not None and best.length <= 1 else None


def _written(address: int, way: MainRoute) -> bytes:
    head = _ROUTE.pack(socket.AF_INET, 32, 0, 0, _TABLE_MAIN, PROTOCOL, way.scope, _UNICAST, way.flags & _ONLINK)
    return head + _attribute(_RTA_DST, address.to_bytes(4, "big")) + way.way


def _read(message: bytes) -> MainRoute | None:
    family, length, _, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(message)
    if (family, tos, table, kind) != (socket.AF_INET, 0, _TABLE_MAIN, _UNICAST):
        return None
    found: dict[int, bytes] = {}
    at = _ROUTE.size
    while at + _ATTRIBUTE.size <= len(message):
        size, attribute = _ATTRIBUTE.unpack_from(message, at)
        if size < _ATTRIBUTE.size:
            break
        found[attribute] = message[at + _ATTRIBUTE.size : at + size]
        at += size + 3 & ~3
    copied = (_RTA_NH_ID,) if _RTA_NH_ID in found else _COPIED
    way = b"".join(_attribute(one, found[one]) for one in copied if one in found)
    metric, device = (_NUMBER.unpack(found[one])[0] if one in found else 0 for one in (_RTA_PRIORITY, _RTA_OIF))
    network = int.from_bytes(found.get(_RTA_DST, bytes(4)), "big")
    return MainRoute(network, length, metric, protocol, device, scope, flags, way)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)
