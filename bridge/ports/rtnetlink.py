"""The few rtnetlink(7) messages of the warden: hear of links, find one, put it into a bridge and up, add a route.

Two sockets that stay in the network namespace in which they were opened, wherever their process goes. pyroute2, which
makes the devices, would be twice the size of the whole warden.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

HALVES = ("0.0.0.0/1", "128.0.0.0/1")
"""Together a default route that beats the kernel's own and vanishes with the device."""

IFF_UP = 1
IFF_RUNNING = 0x40
"""Up, and with a carrier."""

_NETLINK_ROUTE = 0
_GROUP_LINK = 1
_NLMSG_ERROR = 2
RTM_NEWLINK, RTM_DELLINK = 16, 17
_RTM_GETLINK, _RTM_NEWROUTE = 18, 24
_REQUEST, _ACK, _CREATE_NEW = 0x1, 0x4, 0x400 | 0x200
_IFLA_IFNAME, _IFLA_MASTER = 3, 10
_RTA_DST, _RTA_OIF = 1, 4
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_LINK, _RTN_UNICAST = 254, 4, 253, 1
_MESSAGE = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_LONGEST_BYTES = 1 << 16
_MOST_NEWS = 256
_ANSWER_S = 2.0


class LinkNews(NamedTuple):
    """A link came or changed (`RTM_NEWLINK`) or went (`RTM_DELLINK`). `flags`: IFF_UP and others; `master`: the bridge
    that it is a port of, 0 for none."""

    kind: int
    link: int
    flags: int
    master: int = 0


class Links:
    """The links of the network namespace in which this is made. `from_descriptors` takes both sockets over instead."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._questions = socket.socket(socket.AF_NETLINK, kind, _NETLINK_ROUTE)
        self._news = socket.socket(socket.AF_NETLINK, kind, _NETLINK_ROUTE)
        self._news.bind((0, _GROUP_LINK))
        self._begin()

    @classmethod
    def from_descriptors(cls, questions: int, news: int) -> Links:
        """Those that `descriptors` gave, in the process that inherited them."""
        links = cls.__new__(cls)
        links._questions = socket.socket(fileno=questions)
        links._news = socket.socket(fileno=news)
        links._begin()
        return links

    def _begin(self) -> None:
        self._questions.settimeout(_ANSWER_S)
        self._news.setblocking(False)
        self._sequence = 0

    def descriptors(self) -> tuple[int, int]:
        """Both sockets."""
        return self._questions.fileno(), self._news.fileno()

    def fileno(self) -> int:
        """Readable when there is news."""
        return self._news.fileno()

    def news(self) -> Iterator[LinkNews | None]:
        """The changes of links since the last call; None stands for changes that the kernel could not keep for us."""
        for _ in range(_MOST_NEWS):
            try:
                datagram = self._news.recv(_LONGEST_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield None
                continue
            yield from _link_news(datagram)

    def index_of(self, name: str) -> int:
        """The index of a link, 0 where there is none of that name."""
        link = self._link(0, _attribute(_IFLA_IFNAME, name.encode() + b"\0"))
        return link.link if link is not None else 0

    def is_up(self, index: int) -> bool:
        """False also where the link is gone."""
        link = self._link(index, b"")
        return link is not None and bool(link.flags & IFF_UP)

    def _link(self, index: int, attributes: bytes) -> LinkNews | None:
        try:
            reply = self._ask(_RTM_GETLINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attributes)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENOENT):
                return None
            raise
        return next(_link_news(reply), None)

    def join(self, index: int, bridge: int) -> None:
        """Make a link a port of a bridge, and up. `OSError` where the kernel refuses."""
        link = _LINK.pack(socket.AF_UNSPEC, 0, index, IFF_UP, IFF_UP)
        self._ask(RTM_NEWLINK, _ACK, link + _attribute(_IFLA_MASTER, _NUMBER.pack(bridge)))

    def add_route(self, destination: str, index: int) -> bool:
        """A route by a link alone, to `0.0.0.0/1` or the like; False where it is there already. `OSError` else."""
        network, _, length = destination.partition("/")
        route = _ROUTE.pack(
            socket.AF_INET, int(length), 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_LINK, _RTN_UNICAST, 0
        )
        where = _attribute(_RTA_DST, socket.inet_aton(network)) + _attribute(_RTA_OIF, _NUMBER.pack(index))
        try:
            self._ask(_RTM_NEWROUTE, _ACK | _CREATE_NEW, route + where)
        except FileExistsError:
            return False
        return True

    def _ask(self, kind: int, flags: int, body: bytes) -> bytes:
        """One message and its answer; `OSError` with the kernel's number where it refuses."""
        self._sequence += 1
        self._questions.send(_MESSAGE.pack(_MESSAGE.size + len(body), kind, _REQUEST | flags, self._sequence, 0) + body)
        while True:
            reply = self._questions.recv(_LONGEST_BYTES)
            _, kind, _, sequence, _ = _MESSAGE.unpack_from(reply)
            if sequence == self._sequence:  # not the answer to a question that was given up
                break
        if kind == _NLMSG_ERROR:
            (number,) = struct.unpack_from("=i", reply, _MESSAGE.size)
            if number:
                raise OSError(-number, os.strerror(-number))
        return reply

    def close(self) -> None:
        """A second call does nothing."""
        self._questions.close()
        self._news.close()


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _link_news(datagram: bytes) -> Iterator[LinkNews]:
    """Changes of the links themselves. News of a bridge about its ports, under their index (AF_BRIDGE), are left
    out."""
    at = 0
    while at + _MESSAGE.size + _LINK.size <= len(datagram):
        size, kind, _, _, _ = _MESSAGE.unpack_from(datagram, at)
        family, _, index, flags, _ = _LINK.unpack_from(datagram, at + _MESSAGE.size)
        if kind in (RTM_NEWLINK, RTM_DELLINK) and family == socket.AF_UNSPEC:
            yield LinkNews(kind, index, flags, _master(datagram[at + _MESSAGE.size + _LINK.size : at + size]))
        if size < _MESSAGE.size:
            return
        at += size + 3 & ~3


def _master(attributes: bytes) -> int:
    """The bridge that the attributes of a link name; 0 where they name none."""
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        size, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if kind == _IFLA_MASTER and size >= _ATTRIBUTE.size + _NUMBER.size and at + size <= len(attributes):
            return int(_NUMBER.unpack_from(attributes, at + _ATTRIBUTE.size)[0])
        if size < _ATTRIBUTE.size:
            return 0
        at += size + 3 & ~3
    return 0
