"""The parts that both capture formats share: the record, the error, and a file that is read in order.

The readers take any binary file object, a pipe too: they only read forward, count their own offset, and never ask for
more bytes at once than the file can be expected to hold.
"""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

LINK_ETHERNET = 1
LINK_RAW = 101
# Raw IP: LINKTYPE_RAW, LINKTYPE_IPV4, and the value that DLT_RAW has on most systems.
LINKS_RAW = frozenset({LINK_RAW, 228, 12})
# The upper half of a link type says how many bytes of frame check sequence follow each frame (pcap draft, section 4).
LINK_MASK = 0xFFFF
SNAP_BYTES = 262_144

# In the year 2115. The "never" of a static link lies beyond it, and a timer added to such a time fits 64 bits, signed.
LATEST_NS = 4_600_000_000_000_000_000
_STEP_BYTES = 1 << 20


class CaptureError(ValueError):
    """A capture file that cannot be read. Its message names the file, the record and the byte offset."""


class Record(NamedTuple):
    """One captured packet. `timestamp_ns` since 1970; `link_type` a LINKTYPE number without FCS bits.

    Captures of `bridgectl capture` say more: `interface`, the port's name; `is_out`, it left the gateway;
    `segment_bytes`, of the payload of each segment of a super-frame.
    """

    timestamp_ns: int
    link_type: int
    data: bytes
    interface: str = ""
    is_out: bool = False
    segment_bytes: int = 0


class Source:
    """A capture file that is read forward. `name`: for messages; `offset`: of the next byte."""

    __slots__ = ("_file", "name", "offset")

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.offset = 0

    def read(self, wanted: int) -> bytes:
        """The next `wanted` bytes, or fewer where the file ends before."""
        data = self._file.read(min(wanted, _STEP_BYTES))
        self.offset += len(data)
        if len(data) == wanted:
            return data
        parts = [data]
        missing = wanted - len(data)
        while missing and parts[-1]:
            parts.append(self._file.read(min(missing, _STEP_BYTES)))
            missing -= len(parts[-1])
            self.offset += len(parts[-1])
        return b"".join(parts)

    def error(self, what: str, offset: int, says: str) -> CaptureError:
        """The error about the record or header `what`, which begins at byte `offset`. The caller raises it."""
        return CaptureError(f"{self.name}: {what} at byte {offset}: {says}")

    def cut(self, what: str, offset: int, wanted: int) -> CaptureError:
        """The error about a record of `wanted` bytes that the end of the file cuts. The caller raises it."""
        have = self.offset - offset
        return self.error(what, offset, f"cut by the end of the file ({have} of {wanted} bytes)")
