"""TAI64N stamps: 8 bytes of seconds (2^62 + 10 + Unix time) and 4 of nanoseconds, big endian; they compare as bytes.

The nanoseconds are whitened: their low 24 bits are zero, so a stamp tells our clock to 16.7 ms only.
"""

from __future__ import annotations

import struct
from typing import Final

from wire.units import SECOND_NS

STAMP_BYTES: Final = 12
NEVER: Final = bytes(STAMP_BYTES)

_STAMP = struct.Struct("!QI")
_EPOCH = 0x400000000000000A
_GRAIN_NS = 1 << 24
_LATEST_NS = (1 << 62) * SECOND_NS


def stamp(wall_ns: int) -> bytes:
    """The stamp of a wall clock in ns since 1970."""
    seconds, nanoseconds = divmod(max(wall_ns, 0) % _LATEST_NS, SECOND_NS)
    return _STAMP.pack(_EPOCH + seconds, nanoseconds & -_GRAIN_NS)


def later(wall_ns: int, last: bytes) -> bytes:
    """The stamp of a wall clock, or the next one after `last` where the clock has stepped back behind it."""
    fresh = stamp(wall_ns)
    if fresh > last:
        return fresh
    seconds, nanoseconds = _STAMP.unpack(last)
    nanoseconds = (nanoseconds & -_GRAIN_NS) + _GRAIN_NS
    if nanoseconds >= SECOND_NS:
        return _STAMP.pack(seconds + 1, 0)
    return _STAMP.pack(seconds, nanoseconds)
