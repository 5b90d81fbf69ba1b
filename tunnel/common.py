"""What all peers of a tunnel share: our own keys, what is random, the table of indices, what we announce."""

from __future__ import annotations

from collections.abc import Callable

from tunnel.announce import Offer
from tunnel.effects import Endpoint
from tunnel.noise import LocalKeys
from tunnel.pathmtu import Way
from tunnel.primitives import BurstCipher
from tunnel.session import IndexTable
from tunnel.timers import JITTER_NS


class Common:
    """`random_bytes(n)`: n unpredictable bytes; `wall_ns`: the wall clock, for stamps alone; `way_to`: how an endpoint
    is reached."""

    __slots__ = ("cipher", "indices", "is_unjudged", "local", "offer", "random_bytes", "wall_ns", "way_to")

    def __init__(
        self,
        local: LocalKeys,
        cipher: BurstCipher,
        random_bytes: Callable[[int], bytes],
        wall_ns: Callable[[], int],
        way_to: Callable[[Endpoint], Way],
    ) -> None:
        self.local = local
        self.cipher = cipher
        self.random_bytes = random_bytes
        self.wall_ns = wall_ns
        self.way_to = way_to
        self.indices = IndexTable(random_bytes)
        self.offer = Offer()
        self.is_unjudged = False  # what peers announce, or who may have it, has changed

    def number(self) -> int:
        """32 random bits."""
        return int.from_bytes(self.random_bytes(4), "little")

    def jitter_ns(self) -> int:
        """A third of a second at most, so that two ends do not keep step."""
        return self.number() % (JITTER_NS + 1)
