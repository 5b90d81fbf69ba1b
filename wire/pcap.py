"""Capture files: classic pcap in and out, pcapng in (by `wire.pcapng`).

draft-ietf-opsawg-pcap: 24 bytes of file header (`_HEADER`), 16 in front of each record (`_RECORD`), either byte order,
microseconds or nanoseconds as the magic number says. A record longer than the declared snap length is read as it is;
a record that the end of the file cuts raises `CaptureError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from wire import pcapng
from wire.capture import LINK_ETHERNET, LINK_MASK, LINK_RAW, LINKS_RAW, SNAP_BYTES, CaptureError, Record, Source
from wire.units import SECOND_NS

__all__ = ["LINKS_RAW", "LINK_ETHERNET", "LINK_RAW", "CaptureError", "PcapWriter", "Record", "read"]

_HEADER = "HHiIII"  # major, minor, time zone, accuracy, snap length, link type
_RECORD = "IIII"  # seconds, fraction, captured length, length on the wire
_HEADER_BYTES = 24
_RECORD_BYTES = 16
_MICROSECONDS, _NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D


def read(file: BinaryIO, name: str) -> Iterator[Record]:
    """The packets of a pcap or pcapng file in their order; `name`: of the file in messages.

    Raises `CaptureError`, at the first packet or later, where the file is no capture, damaged or cut.
    """
    source = Source(file, name)
    magic = source.read(4)
    if magic == pcapng.SECTION_MAGIC:
        return pcapng.read(source)
    return _read_classic(source, magic)


def _read_classic(source: Source, magic: bytes) -> Iterator[Record]:
    order = "<" if magic in (_packed("<", _MICROSECONDS), _packed("<", _NANOSECONDS)) else ">"
    if magic == _packed(order, _MICROSECONDS):
        fraction_ns = 1_000
    elif magic == _packed(order, _NANOSECONDS):
        fraction_ns = 1
    elif len(magic) < 4:
        raise source.cut("file header", 0, _HEADER_BYTES)
    else:
        raise source.error("file header", 0, f"neither pcap nor pcapng (it begins with {magic.hex()})")
    rest = source.read(_HEADER_BYTES - 4)
    if len(rest) < _HEADER_BYTES - 4:
        raise source.cut("file header", 0, _HEADER_BYTES)
    major, minor, _, _, _, link_type = struct.unpack(order + _HEADER, rest)
    if major != 2:
        raise source.error("file header", 0, f"pcap version {major}.{minor}, 2.4 is known")
    link_type &= LINK_MASK
    record = struct.Struct(order + _RECORD)
    number = 0
    while True:
        start = source.offset
        number += 1
        head = source.read(_RECORD_BYTES)
        if not head:
            return
        if len(head) < _RECORD_BYTES:
            raise source.cut(f"record {number}", start, _RECORD_BYTES)
        seconds, fraction, captured, _ = record.unpack(head)
        data = source.read(captured)
        if len(data) < captured:
            raise source.cut(f"record {number}", start, _RECORD_BYTES + captured)
        yield Record(seconds * SECOND_NS + fraction * fraction_ns, link_type, data)


def _packed(order: str, magic: int) -> bytes:
    return struct.pack(order + "I", magic)


class PcapWriter:
    """Writes classic pcap with nanoseconds to a binary file that the caller opens and closes.

    The format holds 32 bits of seconds: times from 2106 on are written modulo 2^32 seconds, as every pcap writer must.
    """

    __slots__ = ("_file",)

    _RECORD = struct.Struct("<" + _RECORD)

    def __init__(self, file: BinaryIO, link_type: int) -> None:
        self._file = file
        file.write(_packed("<", _NANOSECONDS) + struct.pack("<" + _HEADER, 2, 4, 0, 0, SNAP_BYTES, link_type))

    def write(self, timestamp_ns: int, data: bytes | bytearray | memoryview) -> None:
        """One record, nothing cut off."""
        seconds, nanoseconds = divmod(timestamp_ns, SECOND_NS)
        self._file.write(self._RECORD.pack(seconds & 0xFFFFFFFF, nanoseconds, len(data), len(data)))
        self._file.write(data)
