"""The few requests that devices need of the kernel, by rtnetlink(7): links, addresses and routes, made and read.

A library for all of netlink costs every start of the gateway 0.1 s and 12 MB; what is needed here is five kinds of
message. `bridge.ports.kernel_routes` asks with the same words, hundreds of times a second.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

NEWLINK, GETLINK, NEWADDR, NEWROUTE, GETROUTE = 16, 18, 20, 24, 26
REQUEST, ACKNOWLEDGED, DUMP, NEW = 0x1, 0x4, 0x300, 0x400 | 0x200
"""Flags: of every request; answered by an error number; all that there is; created, and refused where it exists."""

MESSAGE = struct.Struct("=IHHII")
LINK = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, which of the flags change."""
ADDRESS = struct.Struct("=BBBBI")
"""struct ifaddrmsg: family, prefix length, flags, scope, device."""
ROUTE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags."""
NUMBER = struct.Struct("=I")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR_NUMBER = struct.Struct("=i")
_KIND = 0x3FFF  # without the marks for nested attributes and for network byte order

_NETLINK_ROUTE = 0
_ERROR, _DONE = 2, 3
_ANSWER_S = 5.0
_LONGEST_REPLY_BYTES = 1 << 16


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded for the next one; nested ones are a `value` of attributes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(message: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """(kind, value) of what stands behind the fixed part of a message, or in a nested attribute from 0 on."""
    at = start
    while at + _ATTRIBUTE.size <= len(message):
        size, kind = _ATTRIBUTE.unpack_from(message, at)
        if size < _ATTRIBUTE.size:
            return
        yield kind & _KIND, message[at + _ATTRIBUTE.size : at + size]
        at += size + 3 & ~3


class Rtnetlink:
    """A socket in the network namespace of the moment. The kernel's refusals are `OSError`s with their number."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
        self._socket.settimeout(_ANSWER_S)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Have something made or changed."""
        for _ in self._answers(kind, body, flags | ACKNOWLEDGED):
            pass

    def ask(self, kind: int, body: bytes) -> bytes:
        """The one message that answers."""
        return next(self._answers(kind, body, 0))

    def all(self, kind: int, body: bytes) -> list[bytes]:
        """Every message of a table."""
        return list(self._answers(kind, body, DUMP))

    def _answers(self, kind: int, body: bytes, flags: int) -> Iterator[bytes]:
        """Each with its head. An acknowledgment and the end of a dump are none."""
        self._sequence += 1
        head = MESSAGE.pack(MESSAGE.size + len(body), kind, REQUEST | flags, self._sequence, 0)
        self._socket.send(head + body)
        while True:
            reply, at = self._socket.recv(_LONGEST_REPLY_BYTES), 0
            while at + MESSAGE.size <= len(reply):
                size, told, _, sequence, _ = MESSAGE.unpack_from(reply, at)
                if size < MESSAGE.size:
                    break
                if sequence == self._sequence:
                    if told in (_ERROR, _DONE):
                        (number,) = _ERROR_NUMBER.unpack_from(reply, at + MESSAGE.size)
                        if number:
                            raise OSError(-number, os.strerror(-number))
                        return
                    yield reply[at : at + size]
                at += size + 3 & ~3
