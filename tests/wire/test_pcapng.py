"""pcapng: interfaces with clocks of their own, blocks of every kind, and blocks that lie."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader

from wire import pcap
from wire.pcap import CaptureError, Record
from wire.pcapng import INBOUND, OUTBOUND, PcapngWriter

SECTION, INTERFACE, OBSOLETE, SIMPLE, NAMES, STATISTICS, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 4, 5, 6


class File:
    """Blocks put together by hand, in either byte order."""

    def __init__(self, order: str = "<", version: int = 1) -> None:
        self.order = order
        self.data = b""
        self.block(SECTION, self.pack("IHHq", 0x1A2B3C4D, version, 0, -1))

    def pack(self, form: str, *values: int) -> bytes:
        return struct.pack(self.order + form, *values)

    def block(self, kind: int, body: bytes, *, trailer: int | None = None) -> File:
        body += bytes(-len(body) % 4)
        total = 12 + len(body)
        self.data += self.pack("II", kind, total) + body + self.pack("I", total if trailer is None else trailer)
        return self

    def option(self, code: int, value: bytes) -> bytes:
        return self.pack("HH", code, len(value)) + value + bytes(-len(value) % 4)

    def interface(self, link_type: int = 1, snap_bytes: int = 0, options: bytes = b"") -> File:
        return self.block(INTERFACE, self.pack("HHI", link_type, 0, snap_bytes) + options)

    def packet(self, interface: int, ticks: int, data: bytes, options: bytes = b"") -> File:
        head = self.pack("IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
        return self.block(ENHANCED, head + data + bytes(-len(data) % 4) + options)


def records_of(data: bytes) -> list[Record]:
    return list(pcap.read(io.BytesIO(data), "file.pcapng"))


@pytest.mark.parametrize("order", ["<", ">"])
def test_each_interface_has_its_own_link_type_and_clock(order: str) -> None:
    file = File(order)
    file.interface(1)
    file.interface(101, options=file.option(9, b"\x09") + file.option(0, b""))
    file.interface(228, options=file.option(9, b"\x8a") + file.option(14, file.pack("q", 100)))
    file.packet(0, 5_000_001, b"us").packet(1, 5_000_000_001, b"ns").packet(2, 1024 + 512, b"2^-10 s, from 100 s on")
    assert records_of(file.data) == [
        Record(5_000_001_000, 1, b"us"),
        Record(5_000_000_001, 101, b"ns"),
        Record(101_500_000_000, 228, b"2^-10 s, from 100 s on"),
    ]


@pytest.mark.parametrize("exponent", [0, 3, 6, 9, 12, 20])
def test_decimal_resolutions_are_exact(exponent: int) -> None:
    file = File()
    file.interface(options=file.option(9, bytes([exponent])))
    ticks = min(1_700_000_000 * 10**exponent + 7, 2**64 - 1)
    file.packet(0, ticks, b"x")
    assert records_of(file.data)[0].timestamp_ns == ticks * 10**9 // 10**exponent


def test_simple_and_obsolete_packet_blocks_are_read() -> None:
    file = File().interface(snap_bytes=4)
    file.block(SIMPLE, file.pack("I", 3) + b"abc")
    file.block(OBSOLETE, file.pack("HHIIII", 0, 7, 0, 9, 2, 2) + b"de")
    file.block(SIMPLE, file.pack("I", 90) + b"snap")
    assert records_of(file.data) == [Record(0, 1, b"abc"), Record(9000, 1, b"de"), Record(9000, 1, b"snap")]


def test_a_simple_packet_has_the_time_of_the_packet_before_it() -> None:
    file = File().interface().packet(0, 77, b"x")
    file.block(SIMPLE, file.pack("I", 1) + b"y")
    assert [record.timestamp_ns for record in records_of(file.data)] == [77_000, 77_000]


def test_other_blocks_and_options_that_nobody_knows_are_skipped() -> None:
    file = File()
    address = bytes(16) + b"\x40"  # an option that the library cannot decode
    file.interface(options=file.option(5, address) + file.option(999, b"a") + file.option(999, b"b"))
    file.block(NAMES, b"\xff" * 8).block(STATISTICS, b"").block(0x0BAD_CAFE, b"?")
    file.packet(0, 1, b"x", file.option(2, b"\x01\0\0\0") + file.option(2, b"\x01\0\0\0") + file.option(1, b"\xff"))
    assert records_of(file.data) == [Record(1000, 1, b"x")]


def test_a_new_section_has_its_own_byte_order_and_interfaces() -> None:
    first, second = File("<").interface(1).packet(0, 1, b"a"), File(">").interface(101).packet(0, 2, b"b")
    assert records_of(first.data + second.data) == [Record(1000, 1, b"a"), Record(2000, 101, b"b")]
    with pytest.raises(CaptureError, match="a packet of interface 0, of 0 described so far"):
        records_of(first.data + File(">").packet(0, 2, b"b").data)


def lie(kind: str) -> bytes:
    file = File().interface()
    if kind == "lengths":
        file.block(NAMES, bytes(8), trailer=24)
    elif kind == "short":
        file.data += file.pack("III", NAMES, 8, 8)
    elif kind == "odd":
        file.data += file.pack("II", NAMES, 15) + bytes(3) + file.pack("I", 15)
    elif kind == "capture":
        file.block(ENHANCED, file.pack("IIIII", 0, 0, 0, 500, 500) + b"few")
    elif kind == "empty":
        file.block(ENHANCED, b"")
    elif kind == "simple":
        file.block(SIMPLE, file.pack("I", 500) + b"few")
    elif kind == "simple empty":
        file.block(SIMPLE, b"")
    elif kind == "resolution":
        file.interface(options=file.option(9, b"\x09\x09"))
    elif kind == "time":
        file.packet(0, 2**63, b"x")
    else:
        file.interface(options=file.option(14, file.pack("q", -5))).packet(1, 1, b"x")
    return file.data


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("lengths", "its two lengths differ: 20 and 24"),
        ("short", "a block length of 8"),
        ("odd", "a block length of 15"),
        ("capture", "its body ends too early"),
        ("empty", "its body ends too early"),
        ("simple", "a packet of 500 bytes in a block with 4"),
        ("simple empty", "without a length"),
        ("resolution", "if_tsresol takes one byte"),
        ("time", "seconds since 1970"),
        ("negative time", "a time of -5 seconds since 1970"),
    ],
)
def test_a_block_that_lies_is_named_with_its_offset(kind: str, says: str) -> None:
    with pytest.raises(CaptureError, match=rf"^file\.pcapng: block [34] at byte (48|80): .*{says}"):
        records_of(lie(kind))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\n\r\r\n" + bytes(4) + b"what" + bytes(20), "the byte-order magic is 77686174"),
        (File(version=2).data, "pcapng version 2.0, 1.0 is known"),
        (b"\n\r\r\n" + struct.pack("<II", 16, 0x1A2B3C4D) + struct.pack("<I", 16), "fewer than 28 bytes"),
    ],
)
def test_a_section_header_that_is_none_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(CaptureError, match=says):
        records_of(data)


@given(st.sampled_from("<>"), st.lists(st.binary(max_size=30), max_size=5), st.data())
def test_a_good_file_cut_anywhere_or_changed_raises_nothing_but_capture_errors(
    order: str, packets: list[bytes], data: st.DataObject
) -> None:
    file = File(order).interface()
    ends = [len(file.data)]
    for index, packet in enumerate(packets):
        file.packet(0, index, packet)
        ends.append(len(file.data))
    kept = data.draw(st.integers(0, len(file.data)))
    if kept in ends:
        assert [record.data for record in records_of(file.data[:kept])] == packets[: ends.index(kept)]
    elif kept != ends[0] - 20:
        with pytest.raises(CaptureError, match="cut by the end of the file"):
            records_of(file.data[:kept])
    changed = bytearray(file.data)
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CaptureError):
        records_of(bytes(changed))


def test_other_readers_understand_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    with path.open("wb") as file:
        writer = PcapngWriter(file, [("tap0", 1), ("tun0", 101)], "a test")
        writer.write(0, 1_700_000_000_123_456_789, INBOUND, bytes(60))
        writer.write(1, 1_700_000_000_123_456_790, OUTBOUND, b"\x45" + bytes(19))
    with RawPcapNgReader(str(path)) as reader:
        read = [
            (data, meta.linktype, meta.tshigh << 32 | meta.tslow, meta.ifname, meta.direction) for data, meta in reader
        ]
    assert read == [
        (bytes(60), 1, 1_700_000_000_123_456_789, b"tap0", 1),
        (b"\x45" + bytes(19), 101, 1_700_000_000_123_456_790, b"tun0", 2),
    ]
    with path.open("rb") as file:
        assert [record.timestamp_ns % 1000 for record in pcap.read(file, "out")] == [789, 790]
