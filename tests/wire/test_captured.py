"""Captured frames whose offloads were not done yet (report 06). scapy computes every checksum anew."""

from __future__ import annotations

import io

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from wire import gso, pcap
from wire.captured import as_received, completed
from wire.checksum import pseudo_header_sum
from wire.pcapng import INBOUND, OUTBOUND, PcapngWriter
from wire.units import address_int

A, B = "192.168.200.3", "114.114.114.114"


def tcp(size: int, *, tag: bool = False) -> bytes:
    link = Ether(src="02:aa:00:00:00:03", dst="02:00:00:00:c8:02")
    return bytes((link / Dot1Q(vlan=0) if tag else link) / IP(src=A, dst=B) / TCP(sport=5, dport=80) / (b"x" * size))


def with_partial(frame: bytes, at: int = 34) -> bytes:
    """The checksum of the TCP segment as a sender leaves it to its card."""
    pseudo = pseudo_header_sum(address_int(A), address_int(B), 6, len(frame) - at)
    return frame[: at + 16] + pseudo.to_bytes(2, "big") + frame[at + 18 :]


def is_whole(frame: bytes) -> bool:
    again = Ether(frame)
    del again[TCP].chksum
    return bytes(again) == frame


@pytest.mark.parametrize("tag", [False, True])
def test_a_partial_checksum_is_read_as_one_and_written_whole(tag: bool) -> None:
    frame = tcp(100, tag=tag)
    partial = with_partial(frame, 38 if tag else 34)
    assert as_received(partial, 1500, is_ethernet=True) == (partial, gso.GsoHeader(True, gso.GSO_NONE, 0, 0, 20, 16))
    assert completed(partial, is_ethernet=True) == frame
    assert as_received(frame, 1500, is_ethernet=True) == (frame, None)


def test_a_wrong_checksum_stays_wrong() -> None:
    frame = bytearray(tcp(100))
    frame[50] ^= 1
    assert as_received(bytes(frame), 1500, is_ethernet=True) == (bytes(frame), None)


@pytest.mark.parametrize(("told", "expected"), [(0, 1460), (1000, 1000)])
def test_a_packet_longer_than_the_mtu_is_a_super_frame(told: int, expected: int) -> None:
    frame, header = as_received(with_partial(tcp(40_000)), 1500, is_ethernet=True, segment_bytes=told)
    assert header == gso.GsoHeader(True, gso.GSO_TCPV4, 40, expected, 20, 16)
    pieces = list(gso.segment(bytearray(frame[14:]), header))
    assert all(is_whole(frame[:14] + bytes(piece)) for piece in pieces)
    assert b"".join(bytes(piece[40:]) for piece in pieces) == b"x" * 40_000


def test_other_packets_stay_as_they_are() -> None:
    link = Ether(src="02:aa:00:00:00:03", dst="02:00:00:00:c8:02")
    for frame in (
        bytes(link / IP(src=A, dst=B) / UDP() / (b"x" * 3000)),  # jumbo frames carry such
        bytes(link / IP(src=A, dst=B, flags="MF") / TCP() / (b"x" * 3000)),
        bytes(link / (b"x" * 3000)),
        tcp(1460),
        tcp(3000)[:40],
        b"",
    ):
        assert as_received(frame, 1500, is_ethernet=True) == (frame, None)
        assert as_received(frame, 1500, is_ethernet=False) == (frame, None)


def test_a_capture_of_ours_tells_port_direction_and_segments() -> None:
    file = io.BytesIO()
    writer = PcapngWriter(file, [("tap0", 1)], "bridgectl 1.0")
    writer.write(0, 1, INBOUND, b"a", segment_bytes=1448)
    writer.write(0, 2, OUTBOUND, b"b")
    file.seek(0)
    records = list(pcap.read(file, "mine"))
    assert [(one.interface, one.is_out, one.segment_bytes) for one in records] == [
        ("tap0", False, 1448),
        ("tap0", True, 0),
    ]
