"""Random numbers for ports, taken from the injected generator a buffer at a time.

The compiled store and its plain twin take the same bytes in the same order, so one generator gives both the same ports.
A buffer costs one call of the generator, which in the daemon is one system call, and compiled code reads it alone.
"""

from __future__ import annotations

import random

BUFFER_BYTES = 1024
_DRAW_BYTES = 4


class Draws:
    """`rng`: asked for `BUFFER_BYTES` whenever the bytes before them are used up."""

    __slots__ = ("_at", "_buffer", "_rng")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._buffer = b""
        self._at = 0

    def below(self, width: int) -> int:
        """A number from 0 to `width` - 1, each as likely as any other to one part in 65,536."""
        if self._at >= len(self._buffer):
            self._buffer = self._rng.randbytes(BUFFER_BYTES)
            self._at = 0
        drawn = int.from_bytes(self._buffer[self._at : self._at + _DRAW_BYTES], "big")
        self._at += _DRAW_BYTES
        return drawn * width >> 32
