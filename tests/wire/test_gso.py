"""Super-frames and partial checksums: what software segmentation makes of them, checked by scapy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP

from wire import gso
from wire.gso import GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM, GsoHeader


def partial(packet: IP) -> bytearray:
    """The packet as a kernel hands it over: its checksum holds the uncomplemented sum of the pseudo-header."""
    raw = bytearray(bytes(packet))
    length = len(raw) - 20
    total = sum(int.from_bytes(raw[at : at + 2], "big") for at in range(12, 20, 2)) + raw[9] + length
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    field = 36 if raw[9] == 6 else 26
    raw[field : field + 2] = total.to_bytes(2, "big")
    return raw


def claims(packet: IP, gso_bytes: int) -> GsoHeader:
    if TCP in packet:
        return GsoHeader(True, GSO_TCPV4 if gso_bytes else 0, 40, gso_bytes, 20, 16)
    return GsoHeader(True, GSO_UDP_L4 if gso_bytes else 0, 28, gso_bytes, 20, 6)


def check_whole(piece: bytearray) -> IP:
    read = IP(bytes(piece))
    again = IP(bytes(piece))
    del again.chksum, again[1].chksum
    assert bytes(again) == bytes(piece)
    return read


@given(st.integers(1, 9000), st.integers(8, 1448), st.integers(0, 0xFFFFFFFF))
def test_a_tcp_super_frame_becomes_segments_in_sequence(size: int, gso_bytes: int, sequence: int) -> None:
    payload = bytes(index & 255 for index in range(size))
    whole = IP(src="192.0.2.1", dst="192.0.2.2", id=65530) / TCP(sport=1, dport=2, seq=sequence, flags="FPAC") / payload
    pieces = [check_whole(piece) for piece in gso.segment(partial(whole), claims(whole, gso_bytes))]
    assert b"".join(bytes(piece[TCP].payload) for piece in pieces) == payload
    assert all(len(piece[TCP].payload) == gso_bytes for piece in pieces[:-1])
    assert [piece[TCP].seq for piece in pieces] == [
        (sequence + index * gso_bytes) & 0xFFFFFFFF for index in range(len(pieces))
    ]
    assert [piece.id for piece in pieces] == [(65530 + index) & 0xFFFF for index in range(len(pieces))]
    for index, piece in enumerate(pieces):
        last = index == len(pieces) - 1
        assert bool(piece[TCP].flags.F) == bool(piece[TCP].flags.P) == last
        assert bool(piece[TCP].flags.C) == (index == 0)


def test_a_udp_super_frame_becomes_datagrams_of_the_segment_size() -> None:
    whole = IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1, dport=2) / bytes(2500)
    pieces = [check_whole(piece) for piece in gso.segment(partial(whole), claims(whole, 1000))]
    assert [piece[UDP].len for piece in pieces] == [1008, 1008, 508]


def test_p4_a_completed_udp_checksum_of_zero_is_sent_as_ones() -> None:
    whole = IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1, dport=2) / b"\0\0"
    raw = partial(whole)
    missing = IP(bytes(whole))[UDP].chksum
    raw[28:30] = missing.to_bytes(2, "big")
    gso.complete(raw, claims(whole, 0))
    assert raw[26:28] == b"\xff\xff"


def test_the_header_of_a_plain_frame_is_ten_zero_bytes_and_a_super_frame_goes_round() -> None:
    assert gso.pack(None, 14) == bytes(10)
    assert gso.unpack(bytes(10), 14) is None
    said = GsoHeader(True, GSO_TCPV4, 52, 1448, 20, 16)
    assert gso.unpack(gso.pack(said, 14), 14) == said
    flags, kind, _, size, start, offset = gso.HEADER.unpack(gso.pack(said, 14))
    assert (flags, kind, size, start, offset) == (NEEDS_CSUM, GSO_TCPV4, 1448, 34, 16)


@pytest.mark.parametrize(
    "said",
    [
        GsoHeader(True, GSO_UDP_L4, 40, 1000, 20, 16),
        GsoHeader(True, GSO_TCPV4, 40, 0, 20, 16),
        GsoHeader(True, GSO_TCPV4, 40, 1000, 24, 16),
        GsoHeader(True, GSO_TCPV4, 40, 1000, 20, 6),
        GsoHeader(False, GSO_TCPV4, 40, 1000, 0, 0),
        GsoHeader(True, 3, 40, 1000, 20, 16),
    ],
)
def test_claims_that_contradict_the_packet_are_not_consistent(said: GsoHeader) -> None:
    whole = IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=1, dport=2) / bytes(3000)
    assert not gso.is_consistent(partial(whole), said)
    assert gso.is_consistent(partial(whole), claims(whole, 1448))


@pytest.mark.parametrize("layer", [TCP(sport=1, dport=2), UDP(sport=1, dport=2)], ids=["tcp", "udp"])
def test_a_super_frame_without_payload_is_one_packet(layer: TCP | UDP) -> None:
    whole = IP(src="192.0.2.1", dst="192.0.2.2") / layer
    assert [bytes(piece) for piece in gso.segment(partial(whole), claims(whole, 1000))] == [bytes(whole)]


def test_udp_segments_may_be_tiny_where_they_are_few_and_tcp_segments_may_not() -> None:
    few, many = (IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1, dport=2) / bytes(size) for size in (128, 129))
    assert gso.is_consistent(partial(few), claims(few, 1))
    assert not gso.is_consistent(partial(many), claims(many, 1))
    stream = IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=1, dport=2) / bytes(128)
    assert not gso.is_consistent(partial(stream), claims(stream, 7))


def test_a_tcp_super_frame_with_any_other_checksum_becomes_partial_and_nothing_else_does() -> None:
    whole = IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=1, dport=2) / bytes(3000)
    raw = bytearray(bytes(whole))
    assert gso.as_partial(raw, GsoHeader(False, GSO_TCPV4, 40, 1000, 0, 0)) == claims(whole, 1000)
    assert raw == partial(whole)
    datagram = IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1, dport=2) / bytes(3000)
    for packet, said in (
        (datagram, GsoHeader(False, GSO_UDP_L4, 28, 1000, 0, 0)),
        (datagram, GsoHeader(False, GSO_TCPV4, 28, 1000, 0, 0)),
        (whole, GsoHeader(False, 0, 0, 0, 0, 0)),
        (whole, claims(whole, 1000)),
    ):
        raw = bytearray(bytes(packet))
        assert gso.as_partial(raw, said) is said
        assert raw == bytes(packet)
