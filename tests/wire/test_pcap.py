"""Classic pcap: both byte orders, both precisions, and files that end too early."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader, RawPcapReader

from wire import pcap
from wire.pcap import LINK_ETHERNET, LINK_RAW, CaptureError, PcapWriter, Record

MICROSECONDS, NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
LAST_SECOND_NS = (1 << 32) * 10**9 - 1


def classic(
    records: list[tuple[int, int, bytes]],
    *,
    order: str = "<",
    magic: int = MICROSECONDS,
    link_type: int = LINK_ETHERNET,
    snap_bytes: int = 65535,
) -> bytes:
    """A file of (seconds, fraction, data)."""
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap_bytes, link_type)
    for seconds, fraction, data in records:
        out += struct.pack(order + "IIII", seconds, fraction, len(data), len(data)) + data
    return out


def records_of(data: bytes) -> list[Record]:
    return list(pcap.read(io.BytesIO(data), "file.pcap"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit_ns"), [(MICROSECONDS, 1000), (NANOSECONDS, 1)])
def test_either_byte_order_and_either_precision_is_read(order: str, magic: int, unit_ns: int) -> None:
    data = classic([(7, 999_999, b"one"), (8, 0, b"")], order=order, magic=magic)
    assert records_of(data) == [Record(7 * 10**9 + 999_999 * unit_ns, 1, b"one"), Record(8 * 10**9, 1, b"")]


def test_the_bits_of_the_frame_check_sequence_are_masked_off_the_link_type() -> None:
    assert records_of(classic([(1, 0, b"x")], link_type=0x4400_0001))[0].link_type == LINK_ETHERNET
    assert records_of(classic([(1, 0, b"x")], link_type=0xF400_0065))[0].link_type == LINK_RAW


def test_a_record_longer_than_the_snap_length_is_read_whole() -> None:
    assert records_of(classic([(1, 0, bytes(2000))], snap_bytes=96)) == [Record(10**9, 1, bytes(2000))]


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        (0, "file.pcap: file header at byte 0: cut by the end of the file (0 of 24 bytes)"),
        (3, "file.pcap: file header at byte 0: cut by the end of the file (3 of 24 bytes)"),
        (23, "file.pcap: file header at byte 0: cut by the end of the file (23 of 24 bytes)"),
        (24 + 18 + 1, "file.pcap: record 2 at byte 42: cut by the end of the file (1 of 16 bytes)"),
        (24 + 18 + 19, "file.pcap: record 2 at byte 42: cut by the end of the file (19 of 21 bytes)"),
    ],
)
def test_a_file_that_is_cut_names_the_record_and_its_offset(kept: int, says: str) -> None:
    whole = classic([(1, 0, b"ab"), (2, 0, b"abcde")])
    with pytest.raises(CaptureError) as fault:
        records_of(whole[:kept])
    assert str(fault.value) == says


def test_a_length_that_the_file_cannot_hold_is_a_cut_and_never_allocated() -> None:
    class Sizes(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            self.largest = max(self.largest, size)
            return super().read(size)

    head = classic([(1, 0, b"")])[:-16]
    file = Sizes(head + struct.pack("<IIII", 1, 0, 0xFFFFFFFF, 0xFFFFFFFF) + b"rest")
    with pytest.raises(CaptureError, match="record 1 at byte 24: cut"):
        list(pcap.read(file, "file.pcap"))
    assert file.largest <= 1 << 20


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GET / HTTP/1.1\r\n", "neither pcap nor pcapng"),
        (struct.pack("<IHHiIII", MICROSECONDS, 9, 9, 0, 0, 0, 1), "pcap version 9.9, 2.4 is known"),
    ],
)
def test_what_is_no_capture_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(CaptureError, match=says):
        records_of(data)


def test_a_pipe_that_gives_little_at_a_time_is_read_like_a_file() -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 3))

    data = classic([(1, 0, b"abcdefgh"), (2, 0, b"i")])
    assert list(pcap.read(Trickle(data), "pipe")) == records_of(data)


@given(st.lists(st.tuples(st.integers(0, LAST_SECOND_NS), st.binary(max_size=200))), st.sampled_from([1, 101]))
def test_what_the_writer_wrote_the_reader_reads(packets: list[tuple[int, bytes]], link_type: int) -> None:
    file = io.BytesIO()
    writer = PcapWriter(file, link_type)
    for timestamp_ns, data in packets:
        writer.write(timestamp_ns, data)
    assert records_of(file.getvalue()) == [Record(at, link_type, data) for at, data in packets]


def test_other_readers_understand_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with path.open("wb") as file:
        writer = PcapWriter(file, LINK_RAW)
        writer.write(1_700_000_000_123_456_789, bytearray(b"\x45" + bytes(39)))
    with RawPcapReader(str(path)) as reader:
        data, meta = next(reader)
        assert (reader.linktype, meta.sec, meta.usec) == (101, 1_700_000_000, 123_456_789)
    assert data == b"\x45" + bytes(39)


def test_times_beyond_the_format_are_written_modulo_its_seconds() -> None:
    file = io.BytesIO()
    PcapWriter(file, LINK_RAW).write((1 << 32) * 10**9 + 5, b"x")
    assert records_of(file.getvalue())[0].timestamp_ns == 5


@given(st.data())
def test_a_good_file_cut_anywhere_ends_in_a_capture_error_behind_its_whole_records(data: st.DataObject) -> None:
    packets = data.draw(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.binary(max_size=40))))
    whole = classic(packets, order=data.draw(st.sampled_from("<>")))
    expected = records_of(whole)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    got, fault = drained(cut)
    assert got == expected[: len(got)]
    at_a_boundary = len(cut) >= 24 and len(cut) == 24 + sum(16 + len(record.data) for record in got)
    assert (fault is None) == at_a_boundary


@given(st.binary(max_size=300))
def test_arbitrary_bytes_behind_a_header_raise_nothing_but_capture_errors(tail: bytes) -> None:
    drained(classic([])[:24] + tail)
    drained(tail)


def drained(data: bytes) -> tuple[list[Record], CaptureError | None]:
    """The records before the error, and the error."""
    got: list[Record] = []
    try:
        for record in pcap.read(io.BytesIO(data), "file.pcap"):
            got.append(record)
    except CaptureError as fault:
        return got, fault
    return got, None


@pytest.mark.parametrize("folder", ["real", "malformed"])
def test_captures_of_others_are_read_as_scapy_reads_them_or_refused_cleanly(shared: Path, folder: str) -> None:
    paths = sorted((shared / "pcaps" / folder).iterdir())
    assert paths
    for path in paths:
        got, fault = drained(path.read_bytes())
        reader_class: Any = RawPcapNgReader if path.suffix == ".pcapng" else RawPcapReader
        with reader_class(str(path)) as reader:
            expected = [data for data, _ in reader]
        assert fault is None or len(got) < len(expected) + 1, path
        assert [record.data for record in got] == expected[: len(got)], path
        if fault is None:
            assert len(got) == len(expected), path
