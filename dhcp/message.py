"""A DHCP message: read strictly, written for an Ethernet client and padded to 300 bytes.

RFC 2131 2 (the fixed part): `_FIXED`, `Message`; 3 (the magic cookie): `COOKIE`; 4.1 (option overload, RFC 3396 5: the
areas are read in the order options, file, sname): `parse`. RFC 1542 2.1 (BOOTP relays expect 300 bytes): `write`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from dhcp import options as option
from wire.drop import Drop

BOOT_REQUEST, BOOT_REPLY = 1, 2
HARDWARE_ETHERNET: Final = 1
COOKIE: Final = b"\x63\x82\x53\x63"
MINIMUM_BYTES: Final = 300

_FIXED = struct.Struct("!BBBBIHHIIII16s64s128s")
_OPTIONS_AT: Final = _FIXED.size + len(COOKIE)
_OVERLOADS_FILE, _OVERLOADS_SNAME = 1, 2


class Kind(IntEnum):
    """The message types that a client sends or hears (RFC 2132 9.6, RFC 3203 4)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8
    FORCERENEW = 9


class Message(NamedTuple):
    """A message as it was read. Addresses are integers.

    `kind`: of option 53, as a number, because servers speak types that no client knows. `options`: joined where a
    server split them, of all areas. `chaddr`: the client's MAC address, six bytes.
    """

    op: int
    xid: int
    secs: int
    flags: int
    ciaddr: int
    yiaddr: int
    siaddr: int
    giaddr: int
    chaddr: bytes
    kind: int
    options: Mapping[int, bytes]

    @property
    def server(self) -> int:
        """The server identifier (RFC 2132 9.7); 0 where there is none."""
        return option.number_in(self.options, option.SERVER_IDENTIFIER) or 0

    @property
    def text(self) -> str:
        """The server's reason for a refusal (RFC 2132 9.9), in printable ASCII; empty where it gives none."""
        said = self.options.get(option.MESSAGE_TEXT, b"").decode("ascii", "replace")
        return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in said.rstrip("\0"))


def parse(payload: bytes | bytearray | memoryview) -> Message | Drop:
    """The message that a UDP payload holds, or DHCP_MALFORMED.

    Refused are other hardware than Ethernet, a missing cookie, a message without a type, and an option that is cut off
    in any of the areas that hold options.
    """
    if len(payload) < _OPTIONS_AT or payload[_FIXED.size : _OPTIONS_AT] != COOKIE:
        return Drop.DHCP_MALFORMED
    op, hardware, mac_bytes, _, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file = (
        _FIXED.unpack_from(payload)
    )
    if op not in (BOOT_REQUEST, BOOT_REPLY) or hardware != HARDWARE_ETHERNET or mac_bytes != 6:
        return Drop.DHCP_MALFORMED
    found: dict[int, bytes] = {}
    if not option.fields_of(bytes(payload[_OPTIONS_AT:]), found):
        return Drop.DHCP_MALFORMED
    overload = found.pop(option.OVERLOAD, b"\0")
    if len(overload) != 1 or overload[0] > (_OVERLOADS_FILE | _OVERLOADS_SNAME):
        return Drop.DHCP_MALFORMED
    for flag, area in ((_OVERLOADS_FILE, file), (_OVERLOADS_SNAME, sname)):
        if overload[0] & flag and not option.fields_of(area, found):
            return Drop.DHCP_MALFORMED
    kind = option.number_in(found, option.MESSAGE_TYPE, 1)
    if not kind:
        return Drop.DHCP_MALFORMED
    return Message(op, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr[:6], kind, found)


def write(
    kind: Kind, xid: int, mac: bytes, options: Iterable[tuple[int, bytes]], *, secs: int = 0, ciaddr: int = 0
) -> bytes:
    """A client's message. `options`: those behind the message type, in their order. `secs`: since the client began.

    The broadcast flag stays clear: the gateway reads frames, so a server may answer by unicast to an address that is
    not in use yet (RFC 2131 4.1).
    """
    fixed = _FIXED.pack(
        BOOT_REQUEST, HARDWARE_ETHERNET, 6, 0, xid, min(secs, 0xFFFF), 0, ciaddr, 0, 0, 0, mac, b"", b""
    )
    area = option.written([(option.MESSAGE_TYPE, bytes((kind,))), *options])
    return (fixed + COOKIE + area).ljust(MINIMUM_BYTES, b"\0")
