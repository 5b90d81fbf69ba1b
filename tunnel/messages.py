"""The messages: layouts, lengths, types (WireGuard whitepaper 5.4). Integers are little endian.

A type byte and three reserved zeros come first.

| message | bytes | offsets |
|---|---|---|
| initiation | 148 | sender 4, ephemeral 8, static 40, timestamp 88, mac1 116, mac2 132 |
| response | 92 | sender 4, receiver 8, ephemeral 12, empty 44, mac1 60, mac2 76 |
| cookie reply | 64 | receiver 4, nonce 8, cookie 32 |
| data | 32 and more | receiver 4, counter 8, sealed packet 16 |
| relayed | 84 and more | receiver 4, counter 8, sealed address 16, one of the messages above 52 (`tunnel.envelope`) |

Only nodes of this design send the fifth. Any other WireGuard peer drops it in silence, as every type that it does not
know.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

INITIATION_BYTES: Final = 148
RESPONSE_BYTES: Final = 92
COOKIE_REPLY_BYTES: Final = 64
DATA_MINIMUM_BYTES: Final = 32
ENVELOPE_BYTES: Final = 52
DATAGRAM_MAXIMUM_BYTES: Final = 65_535
MACS_BYTES: Final = 32
INITIATION_HEAD: Final = b"\x01\0\0\0"
RESPONSE_HEAD: Final = b"\x02\0\0\0"
COOKIE_REPLY_HEAD: Final = b"\x03\0\0\0"
DATA_HEAD: Final = b"\x04\0\0\0"
RELAYED_HEAD: Final = b"\x05\0\0\0"

# Around an inner packet: IPv4 20 (IPv6 40), UDP 8, header 16, tag 16.
OVERHEAD_IPV4_BYTES: Final = 60
OVERHEAD_IPV6_BYTES: Final = 80
DEFAULT_MTU_BYTES: Final = 1420

INDEX = struct.Struct("<I")
DATA_HEADER = struct.Struct("<IIQ")
COUNTED_HEADS: Final = frozenset(int.from_bytes(head, "little") for head in (DATA_HEAD, RELAYED_HEAD))
"""The first words of datagrams that are sent under a session: index and counter follow them."""


class MessageKind(IntEnum):
    """The first byte of a datagram."""

    INITIATION = 1
    RESPONSE = 2
    COOKIE_REPLY = 3
    DATA = 4
    RELAYED = 5


_EXACT = {
    INITIATION_HEAD: (INITIATION_BYTES, MessageKind.INITIATION),
    RESPONSE_HEAD: (RESPONSE_BYTES, MessageKind.RESPONSE),
    COOKIE_REPLY_HEAD: (COOKIE_REPLY_BYTES, MessageKind.COOKIE_REPLY),
}


def kind_of(datagram: bytes) -> MessageKind | None:
    """The kind of a datagram by its first four bytes and its length; None where they fit no message."""
    head = datagram[:4]
    if head == DATA_HEAD:
        return MessageKind.DATA if DATA_MINIMUM_BYTES <= len(datagram) <= DATAGRAM_MAXIMUM_BYTES else None
    if head == RELAYED_HEAD:
        least = ENVELOPE_BYTES + DATA_MINIMUM_BYTES
        return MessageKind.RELAYED if least <= len(datagram) <= DATAGRAM_MAXIMUM_BYTES else None
    size, kind = _EXACT.get(head, (0, None))
    return kind if len(datagram) == size else None


def index_at(message: bytes, offset: int) -> int:
    """The 32-bit index at an offset of a message."""
    index: int = INDEX.unpack_from(message, offset)[0]
    return index
