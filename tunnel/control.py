"""What two nodes of this design tell each other inside a session: the layout of control messages.

A control message is the plaintext of a data message. Its first half byte is 0, where an IP packet has its version: any
other WireGuard peer drops it as an inner packet of no known version, in silence. Integers are in network order.

| offset | bytes | what |
|---|---|---|
| 0 | 1 | kind, 1 to 15 |
| 1 | 1 | 0 |
| 2 | 2 | length of the whole message; zeros that pad the plaintext follow it |
| 4 | 4 | number: an answer repeats that of what it answers |
| 8 | | body |

| kind | body | answered by |
|---|---|---|
| PROBE | zeros, as many as the packet of a probed size has | PROBED |
| PROBED | none | |
| ANNOUNCE | 8 random bytes of the teller's process; prefixes of 5 bytes, 200 at most: length, network | ANNOUNCED |
| ANNOUNCED | a byte for each prefix: `tunnel.effects.Verdict` | |
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("!BBHI")
_NUMBER_LIMIT: Final = 1 << 32


class ControlKind(IntEnum):
    """The first byte."""

    PROBE = 1
    PROBED = 2
    ANNOUNCE = 3
    ANNOUNCED = 4


class Control(NamedTuple):
    """One message. `number`: 32 bits; `body`: what follows it."""

    kind: ControlKind
    number: int
    body: bytes = b""

    @property
    def size_bytes(self) -> int:
        """Of the plaintext, without padding."""
        return HEADER.size + len(self.body)

    def packed(self) -> bytes:
        """The plaintext."""
        return HEADER.pack(self.kind, 0, self.size_bytes, self.number % _NUMBER_LIMIT) + self.body


def probe(number: int, size_bytes: int) -> Control:
    """A PROBE whose plaintext has that size."""
    return Control(ControlKind.PROBE, number, bytes(size_bytes - HEADER.size))


_KINDS: Final = frozenset(ControlKind)


def is_control(plain: bytes) -> bool:
    """True where an opened message is none of IP: the first half byte is 0."""
    return plain[0] >> 4 == 0


def read(plain: bytes) -> Control | None:
    """The message in a plaintext; None where it is malformed or of a kind that this version does not know."""
    if len(plain) < HEADER.size:
        return None
    kind, zero, size, number = HEADER.unpack_from(plain)
    if zero or not HEADER.size <= size <= len(plain) or kind not in _KINDS:
        return None
    return Control(ControlKind(kind), number, plain[HEADER.size : size])
