"""IPv4 headers: the checks in RFC 1812's order, options, and fragmentation."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.utils import checksum as scapy_checksum

from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet


def parsed(raw: bytes) -> Packet:
    packet = ipv4.parse(raw)
    assert isinstance(packet, Packet)
    return packet


def with_options(options: bytes, payload: bytes = b"x", **fields: int) -> bytes:
    """A packet whose options are these very bytes (a multiple of four of them), its checksum by scapy."""
    packet = IP(bytes(IP(src="192.0.2.1", dst="192.0.2.2", proto=253, **fields)))
    header = bytearray(bytes(packet)) + options
    header[0] = 0x40 | len(header) // 4
    header[2:4] = (len(header) + len(payload)).to_bytes(2, "big")
    header[10:12] = b"\0\0"
    header[10:12] = scapy_checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + payload


GOOD = bytes(IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1000, dport=2000) / b"payload")


def test_g1_fewer_than_20_bytes_are_no_packet() -> None:
    assert ipv4.parse(GOOD[:19]) is Drop.IP_SHORT


def test_g1_a_wrong_checksum_is_seen_before_a_wrong_version() -> None:
    wrong = bytearray(GOOD)
    wrong[0] = 0x65
    assert ipv4.parse(wrong) is Drop.IP_CHECKSUM


@pytest.mark.parametrize(("first", "reason"), [(0x65, Drop.IP_VERSION), (0x44, Drop.IP_HEADER_LENGTH)])
def test_g1_version_and_header_length_are_checked_where_the_checksum_is_right(first: int, reason: Drop) -> None:
    wrong = bytearray(GOOD)
    check = int.from_bytes(wrong[10:12], "big") + ((wrong[0] - first) << 8)
    wrong[0] = first
    wrong[10:12] = ((check & 0xFFFF) + (check >> 16)).to_bytes(2, "big")
    assert ipv4.parse(wrong) is reason


def test_g2_a_total_length_beyond_the_frame_is_dropped_and_padding_is_trimmed() -> None:
    assert ipv4.parse(GOOD[:-1]) is Drop.IP_TOTAL_LENGTH
    assert parsed(GOOD + b"\0" * 20).data == GOOD


def test_ports_are_read_and_port_zero_is_refused() -> None:
    packet = parsed(GOOD)
    assert ipv4.read_transport(packet) is None
    assert (packet.source_port, packet.destination_port) == (1000, 2000)
    zero = parsed(bytes(IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=0, dport=2000)))
    assert ipv4.read_transport(zero) is Drop.TRANSPORT_PORT_ZERO


@pytest.mark.parametrize("offset", [0, 4 << 4, 15 << 4])
def test_p10_a_tcp_data_offset_that_cannot_be_is_refused(offset: int) -> None:
    raw = bytearray(bytes(IP(src="192.0.2.1", dst="192.0.2.2") / TCP()))
    raw[32] = offset
    assert ipv4.read_transport(parsed(raw)) is Drop.TRANSPORT_SHORT


def test_g14_a_bad_option_length_is_found_at_the_option() -> None:
    assert ipv4.options_fault(parsed(with_options(b"\x44\x01\x05\x00"))) == (Drop.IP_OPTION, 20)


@pytest.mark.parametrize("kind", [131, 137])
def test_g25_source_routes_are_found_behind_padding(kind: int) -> None:
    options = bytes((1, kind, 7, 4, 1, 2, 3, 4))
    assert ipv4.options_fault(parsed(with_options(options))) == (Drop.IP_SOURCE_ROUTE, 21)


def test_g27_a_packet_is_cut_as_the_kernel_cuts_it() -> None:
    """G27: MTU 1400: the first fragment has 1,396 bytes, the second begins at offset 172 * 8."""
    raw = bytes(IP(src="192.0.2.1", dst="192.0.2.2", id=77) / UDP(sport=1, dport=2) / bytes(1472))
    first, second = ipv4.fragments_of(parsed(raw), 1400)
    assert (len(first.data), first.more_fragments, first.offset_bytes) == (1396, True, 0)
    assert (second.offset_bytes, second.more_fragments, second.identification) == (172 * 8, False, 77)


@given(
    st.integers(1, 4000),
    st.integers(68, 1500),
    st.sampled_from([b"", b"\x94\x04\x00\x00", b"\x07\x07\x04\0\0\0\0\x01"]),
)
def test_g27_fragments_fit_the_mtu_and_put_together_are_the_packet(size: int, mtu: int, options: bytes) -> None:
    """G27: options are repeated only where their copy bit is set (router alert is copied, record route is not)."""
    payload = random.Random(size).randbytes(size)
    raw = with_options(options, payload, id=9)
    pieces = [IP(bytes(piece.data)) for piece in ipv4.fragments_of(parsed(raw), mtu)]
    assert all(piece.len <= mtu for piece in pieces)
    assert b"".join(bytes(piece.payload) for piece in pieces) == payload
    assert [piece.frag * 8 for piece in pieces] == [
        sum(len(bytes(earlier.payload)) for earlier in pieces[:index]) for index in range(len(pieces))
    ]
    assert [bool(piece.flags.MF) for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    for index, piece in enumerate(pieces):
        assert piece.ihl * 4 == (20 + len(options) if index == 0 or options[:1] == b"\x94" else 20)
        check = piece.chksum
        del piece.chksum
        assert IP(bytes(piece)).chksum == check


@given(st.binary(max_size=80))
def test_p10_random_bytes_are_a_packet_or_a_reason(data: bytes) -> None:
    packet = ipv4.parse(data)
    if isinstance(packet, Packet):
        ipv4.read_transport(packet)
        ipv4.options_fault(packet)
