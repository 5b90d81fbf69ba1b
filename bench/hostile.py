"""What all fuzz targets share: how bytes are spoiled, and how it is told that something broke."""

from __future__ import annotations

import random


class Failure(AssertionError):
    """Something that must hold did not."""


class Broken(Exception):
    """An input did it; the message has what is needed to look at it, the cause is what went wrong."""


def mutated(frame: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert or repeat bytes."""
    data = bytearray(frame)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 8))):
        kind = rng.randrange(5)
        at = rng.randrange(len(data) + 1)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            data += data[at : at + 16]
    return bytes(data)
