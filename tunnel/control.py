"""Control messages, which two nodes of this design send each other inside a session: their layout.

A control message is the plaintext of a data message. Its first half byte is 0, where an IP packet has its version. Any
other WireGuard peer drops it in silence, as an inner packet of an unknown version. Integers are in network order.

| offset | bytes | content |
|---|---|---|
| 0 | 1 | kind, 1 to 15 |
| 1 | 1 | 0 |
| 2 | 2 | length of the whole message; zeros that pad the plaintext follow the message |
| 4 | 4 | number: an answer repeats the number of the message that it answers |
| 8 | | body |

| kind | body | answered by |
|---|---|---|
| PROBE | zeros, so that the plaintext has the probed size | PROBED |
| PROBED | none | |
| ANNOUNCE | 8 random bytes of the sender's process; prefixes of 5 bytes, 200 at most: length, network | ANNOUNCED |
| ANNOUNCED | a byte for each prefix: `tunnel.effects.Verdict` | |
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("!BBHI")
_NUMBER_LIMIT: Final = 1 << 32


class ControlKind(IntEnum):
    """The first byte of a control message."""

    PROBE = 1
    PROBED = 2
    ANNOUNCE = 3
    ANNOUNCED = 4


class ControlMessage(NamedTuple):
    """A control message. `number`: 32 bits; `body`: the bytes behind the header."""

    kind: ControlKind
    number: int
    body: bytes = b""

    @property
    def size_bytes(self) -> int:
        """The length of the plaintext without padding."""
        return HEADER.size + len(self.body)

    def packed(self) -> bytes:
        """The plaintext without padding."""
        return HEADER.pack(self.kind, 0, self.size_bytes, self.number % _NUMBER_LIMIT) + self.body


def probe(number: int, size_bytes: int) -> ControlMessage:
    """A PROBE whose plaintext has `size_bytes`, 8 at least."""
    return ControlMessage(ControlKind.PROBE, number, bytes(size_bytes - HEADER.size))


_KINDS: Final = frozenset(ControlKind)


def is_control(plain: bytes) -> bool:
    """True where the first half byte of an opened message is 0: it is no IP packet. `plain` is not empty."""
    return plain[0] >> 4 == 0


def read(plain: bytes) -> ControlMessage | None:
    """The control message in a plaintext; None where it is malformed or of a kind that this version does not know."""
    if len(plain) < HEADER.size:
        return None
    kind, zero, size, number = HEADER.unpack_from(plain)
    if zero or not HEADER.size <= size <= len(plain) or kind not in _KINDS:
        return None
    return ControlMessage(ControlKind(kind), number, plain[HEADER.size : size])
