"""One line about any frame, also about those that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.l2 import ARP, GRE, Ether
from scapy.packet import Packet, Raw

from bridge.replay.summary import summary
from wire import pcap

MAC_A, MAC_B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
A, B = "192.0.2.1", "198.51.100.2"
ENDS = f"{A}:5 > {B}:6"
QUOTED = IPerror(src=A, dst=B) / UDPerror(sport=5, dport=6)


@pytest.mark.parametrize(
    ("packet", "says"),
    [
        (UDP(sport=5, dport=6) / b"abc", f"{ENDS} UDP, 3 bytes"),
        (TCP(sport=5, dport=6, flags="S", seq=9), f"{ENDS} TCP [S] seq 9 win 8192, 0 bytes"),
        (TCP(sport=5, dport=6, flags="FPA", seq=9, ack=3) / b"x", f"{ENDS} TCP [FP.] seq 9 ack 3 win 8192, 1 bytes"),
        (TCP(sport=5, dport=6, flags=0, seq=9), f"{ENDS} TCP [none] seq 9 win 8192, 0 bytes"),
        (ICMP(type=8, id=7, seq=2) / b"ab", f"{A} > {B} ICMP echo request, id 7, seq 2, 2 bytes"),
        (ICMP(type=13, id=7), f"{A} > {B} ICMP timestamp request, id 7"),
        (ICMP(type=42) / bytes(4), f"{A} > {B} ICMP type 42 code 0, 12 bytes"),
        (ICMP(type=3, code=1) / QUOTED, f"{A} > {B} ICMP 3/1 host unreachable about ({ENDS} UDP)"),
        (
            ICMP(type=3, code=4, nexthopmtu=1420) / QUOTED,
            f"{A} > {B} ICMP 3/4 fragmentation needed, MTU 1420 about ({ENDS} UDP)",
        ),
        (ICMP(type=11) / QUOTED, f"{A} > {B} ICMP 11/0 time exceeded about ({ENDS} UDP)"),
        (GRE(), f"{A} > {B} GRE, 4 bytes"),
        (Raw(b"abc"), f"{A} > {B} protocol 253, 3 bytes"),
    ],
)
def test_packets_are_named_with_their_ends(packet: Packet, says: str) -> None:
    whole = IP(src=A, dst=B, proto=253) / packet if isinstance(packet, Raw) else IP(src=A, dst=B) / packet
    says += ", ttl 64"
    assert summary(bytes(whole), ethernet=False) == says
    assert summary(bytes(Ether(src=MAC_A, dst=MAC_B, type=0x0800) / bytes(whole) / bytes(6)), ethernet=True) == says


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"op": 1, "psrc": A, "pdst": B}, f"ARP who has {B}, tell {A}"),
        ({"op": 2, "psrc": A, "pdst": B}, f"ARP {A} is at {MAC_A}"),
        ({"op": 1, "psrc": A, "pdst": A}, f"ARP announcement, {A} is at {MAC_A}"),
        ({"op": 1, "psrc": "0.0.0.0", "pdst": B}, f"ARP probe, who has {B}"),
        ({"op": 9, "psrc": A, "pdst": B}, f"{MAC_A} > {MAC_B} ARP, opcode 9"),
        ({"op": 1, "hwlen": 5}, f"{MAC_A} > {MAC_B} ARP, malformed"),
    ],
)
def test_arp_is_told_as_what_it_asks(fields: dict[str, object], says: str) -> None:
    assert summary(bytes(Ether(src=MAC_A, dst=MAC_B) / ARP(hwsrc=MAC_A, **fields)), ethernet=True) == says


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "malformed IPv4, 0 bytes"),
        (b"\x45", "malformed IPv4, 1 bytes"),
        (b"\x60" + bytes(39), "IPv6, 40 bytes"),
        (b"\x25" + bytes(19), "IP version 2, 20 bytes"),
        (bytes(IP(src=A, dst=B, proto=17) / b"abc"), f"{A} > {B} malformed UDP, 3 bytes, ttl 64"),
        (bytes(IP(src=A, dst=B, proto=1) / b"abc"), f"{A} > {B} malformed ICMP, 3 bytes, ttl 64"),
        (
            bytes(IP(src=A, dst=B, frag=3, flags="MF", id=9) / UDP()),
            f"{A} > {B} UDP fragment 24+, 8 bytes, ttl 64, id 9",
        ),
        (bytes(IP(src=A, dst=B, frag=3, id=9) / UDP()), f"{A} > {B} UDP fragment 24, 8 bytes, ttl 64, id 9"),
    ],
)
def test_what_makes_no_sense_is_described_as_far_as_it_does(data: bytes, says: str) -> None:
    assert summary(data, ethernet=False) == says


@pytest.mark.parametrize(
    ("kind", "says"), [(0x86DD, "IPv6"), (0x8100, "ethertype 0x8100"), (3, "802.3"), (0x1234, "ethertype 0x1234")]
)
def test_other_frames_are_named_by_their_type(kind: int, says: str) -> None:
    frame = bytes(Ether(src=MAC_A, dst=MAC_B, type=kind)) + b"abc"
    assert summary(frame, ethernet=True) == f"{MAC_A} > {MAC_B} {says}, 3 bytes"
    assert summary(frame[:13], ethernet=True) == "short frame, 13 bytes"


def test_errors_nested_without_end_are_cut_at_the_first_quote() -> None:
    data = b""
    for _ in range(1500):
        head = bytearray(bytes(IP(src=A, dst=B, proto=1, len=min(28 + len(data), 65535), chksum=0)))
        data = bytes(head) + b"\x03\x01" + bytes(6) + data
    assert summary(data, ethernet=False).count("about") == 1


@given(st.binary(max_size=120), st.booleans())
def test_any_bytes_have_a_printable_summary(data: bytes, ethernet: bool) -> None:
    assert summary(data, ethernet=ethernet).isprintable()
    assert summary(bytes(12) + b"\x08\x00\x45" + data, ethernet=True).isprintable()


def test_captures_of_others_are_summed_up(shared: Path) -> None:
    for path in sorted((shared / "pcaps" / "real").iterdir()):
        with path.open("rb") as file:
            for record in pcap.read(file, path.name):
                assert summary(record.data, ethernet=True).isprintable()
