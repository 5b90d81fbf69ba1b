"""Frames that wait for a MAC address, bounded by address and in all.

RFC 1122 2.3.2.2 (keep at least the newest frame for each unresolved address): where an address has used its share, the
oldest of its frames gives way. The newest one is refused only where frames for other addresses fill the whole port.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from arp.effects import GaveUp
from wire.drop import Drop


@dataclass(frozen=True, slots=True)
class WaitingLimits:
    """Bounds on the frames (at least 1) and bytes that wait for one address and on a port. A super-frame has up to 64
    KiB."""

    frames_per_address: int = 8
    bytes_per_address: int = 256 * 1024
    frames_total: int = 2048
    bytes_total: int = 4 * 1024 * 1024


class WaitingFrames:
    """The queues of a port by slot index. `frames`, `size_bytes`: the totals of all queues."""

    __slots__ = ("_limits", "_queues", "frames", "size_bytes")

    def __init__(self, limits: WaitingLimits) -> None:
        self._limits = limits
        self._queues: dict[int, list[tuple[object, int]]] = {}  # lists: short, and an empty deque takes 600 bytes
        self.frames = 0
        self.size_bytes = 0

    def add(self, index: int, waiting: object, size_bytes: int) -> list[GaveUp]:
        """Queue a frame of `size_bytes`. Returned are the frames that gave way, oldest first, or the frame itself where
        there is no room."""
        limits = self._limits
        queue = self._queues.get(index, [])
        queue_bytes = sum(size for _, size in queue)
        if (
            size_bytes > limits.bytes_per_address
            or self.size_bytes - queue_bytes + size_bytes > limits.bytes_total
            or self.frames - len(queue) >= limits.frames_total
        ):  # not even with all of this address's own frames gone
            return [GaveUp(Drop.ARP_QUEUE_FULL, waiting)]
        gone: list[GaveUp] = []
        while (
            len(queue) >= limits.frames_per_address
            or queue_bytes + size_bytes > limits.bytes_per_address
            or self.frames >= limits.frames_total
            or self.size_bytes + size_bytes > limits.bytes_total
        ):
            oldest, oldest_bytes = queue.pop(0)
            queue_bytes -= oldest_bytes
            self.frames -= 1
            self.size_bytes -= oldest_bytes
            gone.append(GaveUp(Drop.ARP_SUPERSEDED, oldest))
        queue.append((waiting, size_bytes))
        self._queues[index] = queue
        self.frames += 1
        self.size_bytes += size_bytes
        return gone

    def __iter__(self) -> Iterator[object]:
        for queue in self._queues.values():
            for waiting, _ in queue:
                yield waiting

    def take(self, index: int) -> list[object]:
        """Remove and return all frames that wait for an address, in order."""
        queue = self._queues.pop(index, [])
        self.frames -= len(queue)
        self.size_bytes -= sum(size for _, size in queue)
        return [waiting for waiting, _ in queue]

    def take_all(self) -> list[object]:
        """Remove and return all frames that wait for any address."""
        return [waiting for index in list(self._queues) for waiting in self.take(index)]
