"""A generator's choices taken from bytes, so that who chooses the bytes chooses what is generated.

Every target draws its inputs from a `random.Random`. Given a `Choices` instead, each draw takes the next bytes of an
input of a guided fuzzer: a byte changed there is one choice made otherwise, not another run altogether. Hypothesis does
the same with `strategies.randoms()`, and blind fuzzing is a plain `random.Random`: one generator serves all three.
"""

from __future__ import annotations

import random
import zlib
from typing import Any

_LONGEST_LITERAL = 16
"""Longer random bytes are made from two of the input: an input of a guided fuzzer is short, a payload need not be."""


class Choices(random.Random):
    """Draws from `data`, and behind its end from what a hash of it seeds: the same data give the same choices.

    `is_spent` says that the end was met; what goes on until then ends soon after.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data = data
        self._at = 0
        self._behind = random.Random(zlib.crc32(data))
        self.is_spent = False

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        if len(taken) < size:
            self.is_spent = True
            taken += self._behind.randbytes(size - len(taken))
        return taken

    def random(self) -> float:
        """One of 256 numbers from 0 to below 1: enough for a probability."""
        return self._take(1)[0] / 256

    def getrandbits(self, k: int, /) -> int:
        """An integer of `k` bits."""
        size = (k + 7) // 8
        if size > _LONGEST_LITERAL:
            return random.Random(self._take(2)).getrandbits(k)
        return int.from_bytes(self._take(size), "little") & ((1 << k) - 1)

    def _randbelow(self, n: int) -> int:
        """`choice`, `randrange` and `shuffle` of the base class draw by this; it is never asked again, as there."""
        return int.from_bytes(self._take((max(n - 1, 1).bit_length() + 7) // 8), "little") % n

    def randbytes(self, n: int) -> bytes:
        """Bytes of the input as they stand there, where they are few."""
        return self._take(n) if n <= _LONGEST_LITERAL else random.Random(self._take(2)).randbytes(n)

    def seed(self, *_: Any, **__: Any) -> None:
        """Nothing: the data are the seed."""

    def rest(self) -> bytes:
        """All that is left, for targets whose input is a file or a datagram as it is."""
        left = self._data[self._at :]
        self._at = len(self._data)
        self.is_spent = True
        return left


def is_spent(rng: random.Random) -> bool:
    """Whether there is nothing left to choose by; a plain generator goes on for ever."""
    return isinstance(rng, Choices) and rng.is_spent
