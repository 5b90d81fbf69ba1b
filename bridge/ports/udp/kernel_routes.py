"""By which device the kernel's routes lead to an address, as if one device (tun0) had none; told when they change.

Questions are `RTM_GETROUTE` (rtnetlink(7)), 6 µs each: they are asked while datagrams wait, also for the sources of a
flood, which is why the library that does the rest of our netlink, at 300 µs, does not ask these. Nothing is written to
the kernel here: the few routes that strict `rp_filter` needs are the warden's (`bridge.ports.host_routes`).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from bridge.ports.base import PortError

_NETLINK_ROUTE = 0
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_REQUEST = 1
_FIB_MATCH = 0x2000  # RTM_F_FIB_MATCH: the route itself is told, and a device alone is not taken for one
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 6, 7
_UNICAST, _LOCAL = 1, 2  # rtm_type
_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18  # links; addresses, routes and rules of IPv4 and IPv6
_MESSAGE = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_LONGEST_REPLY_BYTES = 1 << 13
_LONGEST_NEWS_BYTES = 1 << 16
_MOST_NEWS = 64
_ANSWER_S = 1.0


class KernelRoute(NamedTuple):
    """A route that leads somewhere. `device`: index, 0 where several share it; `source`: the address that the kernel
    would send from, b"" where it does not say; `length`: of its prefix; `metric`: the lower, the better."""

    device: int
    source: bytes
    length: int
    metric: int


class KernelRoutes:
    """`avoid`: the device whose routes are not seen, by name; it need not exist. `PortError` where there is no netlink.

    `fileno` is readable when something may have changed; `news` says whether it was so.
    """

    def __init__(self, avoid: str | None = None) -> None:
        self._avoid = avoid
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        try:
            self._questions = socket.socket(socket.AF_NETLINK, kind, _NETLINK_ROUTE)
            self._questions.settimeout(_ANSWER_S)
            self._news = socket.socket(socket.AF_NETLINK, kind | socket.SOCK_NONBLOCK, _NETLINK_ROUTE)
            self._news.bind((0, _GROUPS))
        except OSError as error:
            raise PortError(f"the kernel's routes cannot be read: {error.strerror}") from error
        self._sequence = 0

    def fileno(self) -> int:
        """Readable when a route, rule, address or device has come, changed or gone."""
        return self._news.fileno()

    def news(self) -> bool:
        """True where something has changed since the last call."""
        has_changed = False
        for _ in range(_MOST_NEWS):
            try:
                self._news.recv(_LONGEST_NEWS_BYTES)
            except BlockingIOError:
                break
            except OSError:  # more than the kernel could keep for us
                pass
            has_changed = True
        return has_changed

    def avoided(self) -> int:
        """The index of the device whose routes are not seen; 0 while there is none."""
        if self._avoid is not None:
            with suppress(OSError):
                return socket.if_nametoindex(self._avoid)
        return 0

    def chosen(self, address: bytes) -> KernelRoute | None:
        """The kernel's route to 4 or 16 bytes of address, which may lead into the avoided device; None where there is
        no route."""
        return self._ask(address, 0, 0)

    def leads(self, address: bytes, device: int) -> bool:
        """Whether a route to `address` leads by `device`. Without one the kernel would take anybody for a neighbour on
        a device that it is told to use."""
        return self._ask(address, device, _FIB_MATCH) is not None

    def beside(self, address: bytes) -> int:
        """The device of the best route that is not the avoided device's; 0 where there is none.

        The longest prefix wins, then the lowest metric: the order in which the kernel would have chosen.
        """
        avoided = self.avoided()
        found = [
            (-route.length, route.metric, index)
            for index, name in socket.if_nameindex()
            if index != avoided and name != "lo" and (route := self._ask(address, index, _FIB_MATCH)) is not None
        ]
        return min(found)[2] if found else 0

    def _ask(self, address: bytes, device: int, flags: int) -> KernelRoute | None:
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        body = _ROUTE.pack(family, 8 * len(address), 0, 0, 0, 0, 0, 0, flags)
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address), _RTA_DST) + address
        if device:
            body += _ATTRIBUTE.pack(_ATTRIBUTE.size + _NUMBER.size, _RTA_OIF) + _NUMBER.pack(device)
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        try:
            head = _MESSAGE.pack(_MESSAGE.size + len(body), _RTM_GETROUTE, _REQUEST, self._sequence, 0)
            self._questions.send(head + body)
            while True:
                reply = self._questions.recv(_LONGEST_REPLY_BYTES)
                _, kind, _, sequence, _ = _MESSAGE.unpack_from(reply)
                if sequence == self._sequence:  # not the answer to a question that was given up
                    break
        except OSError as error:
            if error.errno in (errno.EBADF, errno.ENOTSOCK):
                raise
            return None
        return _route(reply) if kind == _RTM_NEWROUTE else None

    def close(self) -> None:
        """A second call does nothing."""
        self._questions.close()
        self._news.close()


def _route(reply: bytes) -> KernelRoute | None:
    _, length, _, _, _, _, _, kind, _ = _ROUTE.unpack_from(reply, _MESSAGE.size)
    if kind not in (_UNICAST, _LOCAL):
        return None
    attributes = dict(_attributes(reply, _MESSAGE.size + _ROUTE.size))
    device, metric = (
        _NUMBER.unpack(attributes[kind])[0] if kind in attributes else 0 for kind in (_RTA_OIF, _RTA_PRIORITY)
    )
    return KernelRoute(device, attributes.get(_RTA_PREFSRC, b""), length, metric)


def _attributes(reply: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + _ATTRIBUTE.size <= len(reply):
        size, kind = _ATTRIBUTE.unpack_from(reply, at)
        if size < _ATTRIBUTE.size:
            return
        yield kind, reply[at + _ATTRIBUTE.size : at + size]
        at += size + 3 & ~3
