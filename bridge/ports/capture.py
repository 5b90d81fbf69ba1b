"""A port made of two captures: its frames come from one and go into another, so that the real loop can be run on them.

The caller has the clock: records are handed over as fast as the loop takes them, whatever their timestamps say, and
written records carry the time of a clock that is handed in. `bridge.replay.run` keeps the time of a capture.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bridge.ports.base import LINK_BYTES, PortKind, ReceivedFrame
from wire import pcap
from wire.drop import Drop
from wire.gso import GsoHeader, segment


class CapturePort:
    """Reads `taken` (or nothing), writes `given`, both classic pcap or, for `taken`, pcapng.

    `clock`: nanoseconds for the timestamps of written records. A capture knows no virtio header: a super-frame is
    written as its segments. Raises `CaptureError` where `taken` is damaged or of another link type.
    """

    def __init__(self, name: str, kind: PortKind, taken: Path | None, given: Path, clock: Callable[[], int]) -> None:
        self.name = name
        self.kind: PortKind = kind
        self.link_bytes = LINK_BYTES[kind]
        self._clock = clock
        self._waiting = self._records(taken) if taken is not None else []
        self._waiting.reverse()
        self._file: BinaryIO | None = given.open("wb")
        self._writer = pcap.PcapWriter(self._file, pcap.LINK_ETHERNET if self.link_bytes else pcap.LINK_RAW)
        self._event: int | None = os.eventfd(1 if self._waiting else 0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def _records(self, taken: Path) -> list[bytes]:
        links = {pcap.LINK_ETHERNET} if self.link_bytes else pcap.LINKS_RAW
        with taken.open("rb") as file:
            records = list(pcap.read(file, str(taken)))
        for record in records:
            if record.link_type not in links:
                raise pcap.CaptureError(f"{taken}: link type {record.link_type}, {self.name} takes {sorted(links)}")
        return [record.data for record in records]

    def fileno(self) -> int:
        """Readable while records are left."""
        assert self._event is not None, "the port is closed"
        return self._event

    def read_burst(self, limit: int) -> list[ReceivedFrame]:
        """The next records of the capture."""
        burst: list[ReceivedFrame] = [(self._waiting.pop(), None) for _ in range(min(limit, len(self._waiting)))]
        if burst and not self._waiting and self._event is not None:
            os.eventfd_read(self._event)
        return burst

    def write(self, frame: bytes | bytearray, gso: GsoHeader | None) -> Drop | None:
        """Append a record; a super-frame appends its segments."""
        now = self._clock()
        if gso is None:
            self._writer.write(now, frame)
            return None
        link = bytes(frame[: self.link_bytes])
        for piece in segment(bytearray(frame[self.link_bytes :]), gso):
            self._writer.write(now, link + piece)
        return None

    def close(self) -> None:
        """Finish the capture."""
        if self._file is not None and self._event is not None:
            self._file.close()
            os.close(self._event)
            self._file = self._event = None
