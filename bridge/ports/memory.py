"""A port made of two queues, for tests: delivered frames can be read, and written frames looked at."""

from __future__ import annotations

import os
from collections import deque

from bridge.ports.base import LINK_BYTES, PortKind, ReceivedFrame
from wire.drop import Drop
from wire.gso import GsoHeader


class MemoryPort:
    """`capacity`: frames that `sent` takes before `write` answers `Drop.PORT_FULL`, as a full device queue would.

    An event descriptor stands for the device, so that the real loop can wait for it.
    """

    def __init__(self, name: str, kind: PortKind, capacity: int = 1 << 30) -> None:
        self.name = name
        self.kind: PortKind = kind
        self.link_bytes = LINK_BYTES[kind]
        self.capacity = capacity
        self.sent: list[tuple[bytes, GsoHeader | None]] = []
        self._waiting: deque[ReceivedFrame] = deque()
        self._event: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def deliver(self, *frames: bytes, gso: GsoHeader | None = None) -> None:
        """Let frames arrive, all with the same virtio claims."""
        assert self._event is not None, "the port is closed"
        self._waiting.extend((frame, gso) for frame in frames)
        os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        """Readable while frames wait."""
        assert self._event is not None, "the port is closed"
        return self._event

    def read_burst(self, limit: int) -> list[ReceivedFrame]:
        """The oldest waiting frames."""
        burst = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        if burst and not self._waiting and self._event is not None:
            os.eventfd_read(self._event)
        return burst

    def write(self, frame: bytes | bytearray, gso: GsoHeader | None) -> Drop | None:
        """Keep a copy in `sent`."""
        if len(self.sent) >= self.capacity:
            return Drop.PORT_FULL
        self.sent.append((bytes(frame), gso))
        return None

    def close(self) -> None:
        """Close the event descriptor."""
        if self._event is not None:
            os.close(self._event)
            self._event = None
