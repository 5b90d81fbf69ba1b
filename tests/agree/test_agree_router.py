"""Packets that no router forwards: headers that cannot be, addresses that nobody has, frames for others.

Both say nothing, or the same."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPOption, IPOption_LSRR, IPOption_SSRR
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.agree.pair import Pair, framed
from tests.conformance.harness import ADDRESS_L, MAC_A, MAC_B, MAC_L, A, B, E, scapy_sum
from tests.conformance.packets import echo, tcp, udp

pytestmark = pytest.mark.lab


def summed(raw: bytes | bytearray) -> bytes:
    """The packet with a right header checksum over as many bytes as its first one says."""
    end = max((raw[0] & 15) * 4, 20)
    return (
        bytes(raw[:10]) + scapy_sum(bytes(raw[:10]) + b"\0\0" + bytes(raw[12:end])).to_bytes(2, "big") + bytes(raw[12:])
    )


def changed(raw: bytes, at: int, value: int) -> bytes:
    return raw[:at] + bytes((value,)) + raw[at + 1 :]


@pytest.mark.parametrize("ttl", [64, 1])
def test_g1_g2_headers_that_cannot_be(pair: Pair, ttl: int) -> None:
    """G1, G2, G14: each ends in silence at both, whatever error its TTL would owe."""
    for port, source, destination in (("L", A, E), (pair.egress, E, pair.X)):
        good = bytes(udp((source, 5000), (destination, 53), ttl=ttl))
        for raw in (
            good[:19],
            changed(good, 10, good[10] ^ 1),
            changed(good, 8, 77),
            summed(changed(good, 0, 0x55)),
            summed(changed(good, 0, 0x05)),
            summed(changed(good, 0, 0x44)),
            summed(changed(good, 0, 0x40)),
            summed(changed(good, 3, 19)),
            summed(changed(good, 3, 0)),
            summed(changed(good, 3, len(good) + 1)),
            summed(changed(good, 2, 0xFF)),
            good[:-1],
            summed(changed(changed(good, 0, 0x4F), 3, 60)[:36]),
            summed(changed(changed(good, 0, 0x46), 3, 20)),
        ):
            pair.silent(port, raw)


def broken_transports() -> list[tuple[int, bytes]]:
    """Transport headers that are cut, or contradict themselves or the IP header."""
    segment = bytes(tcp((A, 5100), (E, 7000), "S"))[20:]
    datagram = bytes(udp((A, 5100), (E, 7000), b"data"))[20:]
    found = [(6, segment[:size]) for size in range(20)]
    found += [(17, datagram[:size]) for size in range(12)]
    found += [(6, segment[:12] + bytes([words << 4]) + segment[13:]) for words in (0, 1, 4, 6, 15)]
    found += [(17, datagram[:4] + struct.pack("!H", length) + datagram[6:]) for length in (1, 7, 13, 100, 65535)]
    return found


def test_p10_transport_headers_that_cannot_be(pair: Pair) -> None:
    for protocol, payload in broken_transports():
        pair.silent("L", IP(src=A, dst=E, proto=protocol) / Raw(payload))
        pair.silent(pair.egress, IP(src=E, dst=pair.X, proto=protocol) / Raw(payload))


@pytest.mark.parametrize(
    "source", ["127.0.0.1", "127.255.255.254", "224.0.0.1", "239.255.255.255", "255.255.255.255", ADDRESS_L]
)
def test_g21_martian_sources(pair: Pair, source: str) -> None:
    for packet in (udp((source, 5000), (E, 53)), echo((source, 7), E), udp((source, 5000), (E, 53), ttl=1)):
        pair.silent("L", packet)
    pair.silent("L", udp((source, 5000), (ADDRESS_L, 53)))
    pair.silent(pair.egress, udp((source, 5000), (pair.X, 53)))


@pytest.mark.parametrize("ttl", [64, 1])
@pytest.mark.parametrize(
    "destination",
    ["0.0.0.0", "127.0.0.1", "127.1.2.3", "255.255.255.255", "192.168.200.255", "224.0.0.1", "239.1.2.3"],
)
def test_g22_g24_g4_destinations_that_are_never_forwarded(pair: Pair, destination: str, ttl: int) -> None:
    """G22, G24, G4"""
    for packet in (udp((A, 5000), (destination, 53), ttl=ttl), echo((A, 7), destination)):
        pair.silent("L", packet)
    pair.silent("L", IP(src=A, dst=destination, proto=2, ttl=1) / Raw(bytes.fromhex("1600f9ffe0000001")))


@pytest.mark.parametrize("mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "03:00:00:00:00:00", "02:aa:00:00:00:77"])
def test_g23_a12_frames_for_everybody_and_for_others(pair: Pair, mac: str) -> None:
    """G23, A12, G4"""
    for packet in (
        udp((A, 5000), (E, 53)),
        udp((A, 5000), (E, 53), ttl=1),
        udp((A, 5000), (ADDRESS_L, 53)),
        tcp((A, 5000), (E, 53), "S"),
    ):
        pair.silent("L", Ether(src=MAC_A, dst=mac) / packet)


def test_g4_no_error_is_sent_about_an_error_or_a_later_fragment(pair: Pair) -> None:
    quoted = bytes(IP(src=E, dst=A) / UDP(sport=1, dport=2))
    for kind in (3, 11, 12):
        pair.silent("L", IP(src=A, dst=E, ttl=1) / ICMP(type=kind) / Raw(quoted))
    pair.silent("L", IP(src=A, dst=E, ttl=1, frag=10, proto=17) / Raw(bytes(8)))
    pair.silent("L", IP(src=A, dst="10.1.1.1", frag=10, proto=17) / Raw(bytes(8)))


@pytest.mark.parametrize("option", [IPOption_LSRR(routers=["8.8.8.8"]), IPOption_SSRR(routers=["8.8.8.8"])])
def test_g25_source_routes(pair: Pair, option: IPOption) -> None:
    pair.silent("L", IP(src=A, dst=E, options=[option]) / UDP(sport=5000, dport=53))


@pytest.mark.parametrize(
    "options", [b"\x94\x04\0\0", b"\x5e\x04\xab\xcd", b"\xde\x06\1\2\3\4\0\0", b"\1\1\x94\x04\0\0\1\0"]
)
def test_g25_other_options_stay_as_they_are(pair: Pair, options: bytes) -> None:
    out = bytes(pair.inside(IP(src=A, dst=E, options=[IPOption(options)]) / UDP(sport=5000, dport=53) / b"data"))
    assert out[20 : 20 + len(options)] == options


@pytest.mark.parametrize("options", [b"\x07\x01\0\0", b"\x07\0\0\0", b"\1\1\x44\x01", b"\x44\x0c\x05\0", b"\1\1\1\x94"])
def test_g14_a_malformed_option_is_pointed_at(pair: Pair, options: bytes) -> None:
    raw = bytearray(bytes(IP(src=A, dst=E, options=[IPOption(b"\1\1\1\1")]) / UDP(sport=5000, dport=53)))
    raw[20:24] = options
    told = pair.answered("L", summed(raw))
    assert (told[ICMP].type, told[ICMP].code) == (12, 0)


def test_g17_g19_echo_to_us(pair: Pair) -> None:
    """G17, G9, G3: from both sides, with any TTL; not with a wrong checksum, nor about a broadcast."""
    for port, source, address in (("L", A, ADDRESS_L), (pair.egress, E, pair.X), ("L", A, pair.X)):
        for fields in ({}, {"ttl": 1}, {"tos": 0xB8, "flags": "DF"}):
            told = pair.answered(port, IP(src=source, dst=address, id=7, **fields) / ICMP(id=3, seq=4) / b"ping")
            assert (told.src, told.dst, told[ICMP].type, told.ttl) == (address, source, 0, 64)
        pair.silent(port, IP(src=source, dst=address) / ICMP(id=3, chksum=0x1234) / b"ping")
    pair.silent("L", IP(src=A, dst="192.168.200.255") / ICMP(id=3))


@pytest.mark.parametrize("size", [41, 44, 1])
def test_f7_fragments_that_cannot_be(pair: Pair, size: int) -> None:
    """F7: no multiple of eight with more to come; an end beyond 65,535."""
    for frag, flags, length in ((10, "MF", size), (8191, 0, 100), (8150, 0, 400)):
        part = IP(src=A, dst=E, proto=17, id=77, flags=flags, frag=frag) / Raw(b"\x08" + bytes(length - 1))
        pair.silent("L", part)


def test_g33_a_packet_from_one_host_of_the_lan_to_another_goes_back_there(pair: Pair) -> None:
    """G33, G15: without a redirect, which the kernel was told not to send."""
    ((port, frame),) = pair.agree("L", udp((A, 5000), (B, 53)))
    assert (port, Ether(frame).dst) == ("L", MAC_B)


def test_the_frame_of_a_test_is_what_it_says(pair: Pair) -> None:
    """The bench itself: a frame is not answered by the kernel for another reason than the one that is tested."""
    assert framed("L", udp((A, 5000), (E, 53))).startswith(bytes.fromhex(MAC_L.replace(":", "")))
    pair.inside(udp((A, 5000), (E, 53)))
