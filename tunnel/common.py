"""The values that all peers of a tunnel share: our keys, the cipher, randomness, and the prefixes that we announce."""

from __future__ import annotations

from collections.abc import Callable

from tunnel.announce import Offer
from tunnel.constants import JITTER_NS
from tunnel.effects import Endpoint
from tunnel.noise import LocalKeys
from tunnel.pathmtu import PathLimits
from tunnel.primitives import BurstCipher


class Common:
    """`random_bytes(n)`: n unpredictable bytes; `wall_ns`: the wall clock, for time stamps alone; `limits_of`: the
    sizes that packets to an endpoint may have.

    `offer`: the prefixes that we announce. `is_unjudged`: a peer's announcement, or whether a peer answers, has
    changed; the tunnel has to decide anew who owns which announced prefix.
    """

    __slots__ = ("cipher", "is_unjudged", "limits_of", "local", "offer", "random_bytes", "wall_ns")

    def __init__(
        self,
        local: LocalKeys,
        cipher: BurstCipher,
        random_bytes: Callable[[int], bytes],
        wall_ns: Callable[[], int],
        limits_of: Callable[[Endpoint], PathLimits],
    ) -> None:
        self.local = local
        self.cipher = cipher
        self.random_bytes = random_bytes
        self.wall_ns = wall_ns
        self.limits_of = limits_of
        self.offer = Offer()
        self.is_unjudged = False

    def number(self) -> int:
        """32 random bits."""
        return int.from_bytes(self.random_bytes(4), "little")

    def jitter_ns(self) -> int:
        """A random time of a third of a second at most: two ends do not repeat their messages in step."""
        return self.number() % (JITTER_NS + 1)
