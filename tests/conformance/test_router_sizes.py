"""Sizes: section 3, G27 to G30, and section 5, Q1, Q2, Q4, Q6: fragments, "too big", MSS, and what is left alone."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import IPOption_NOP, IPOption_Router_Alert, IPOption_RR
from scapy.packet import Packet as ScapyPacket
from scapy.utils import checksum

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
    ADDRESS_V,
    HOST,
    ICMP,
    IP,
    MAC_L,
    TCP,
    UDP,
    A,
    E,
    IPerror,
    Out,
    Raw,
    UDPerror,
)
from tests.conformance.packets import only, raw_ip
from wire.drop import Drop

MTU_1400 = {
    "O": (('gateway = "192.168.1.1"', 'gateway = "192.168.1.1"\nmtu = 1400'),),
    "V": (('node = "hk"', 'node = "hk"\nmtu = 1400'),),
}


def udp(source: str = A, destination: str = E, data: bytes = b"data", **ip: object) -> ScapyPacket:
    return IP(src=source, dst=destination, **ip) / UDP(sport=5000, dport=53) / data


# Fragments made here


def rebuilt(outs: list[Out]) -> bytes:
    """The payload of a datagram from its fragments, which must be right as RFC 791 has it."""
    at = outs[0].ip.frag * 8
    payload = b""
    for number, out in enumerate(outs):
        packet = out.ip
        part = raw_ip(out)[packet.ihl * 4 :]
        assert (packet.frag * 8, packet.id, bool(packet.flags.DF)) == (at, outs[0].ip.id, False)
        if number < len(outs) - 1:
            assert packet.flags.MF
            assert len(part) % 8 == 0
        payload += part
        at += len(part)
    return payload


@pytest.mark.parametrize("size", [1401 - 28, 1480, 2000, 5000, 65_507])
def test_g27_a_datagram_without_df_is_cut_for_the_egress(make: MakeScenario, egress: str, size: int) -> None:
    s = make(egress, replace=MTU_1400[egress])
    data = random.Random(size).randbytes(size)
    packet = IP(src=A, dst=E, id=0x4321, tos=0x2A) / UDP(sport=5000, dport=53) / data
    outs = s.inside(packet)
    assert (outs[0].ip.len, outs[1].ip.frag, outs[0].ip.id) == (1396, 172, 0x4321)
    assert all((out.ip.src, out.ip.tos, out.ip.ttl, out.ip.len <= 1400) == (s.X, 0x2A, 63, True) for out in outs)
    assert not outs[-1].ip.flags.MF
    datagram = rebuilt(outs)
    assert datagram[8:] == data
    pseudo = bytes(IP(src=s.X, dst=E))[12:20] + b"\0\x11" + len(datagram).to_bytes(2, "big")
    assert checksum(pseudo + datagram) == 0, "the checksum covers the whole datagram"


@pytest.mark.parametrize("size", [1372, 1371])
def test_g27_what_just_fits_is_not_cut(make: MakeScenario, egress: str, size: int) -> None:
    s = make(egress, replace=MTU_1400[egress])
    assert only(s.inside(udp(data=bytes(size)))).ip.len == size + 28


def test_g27_a_fragment_is_cut_again(make: MakeScenario, egress: str) -> None:
    s = make(egress, replace=MTU_1400[egress])
    data = random.Random(27).randbytes(4000)
    whole = bytes(UDP(sport=5000, dport=53, len=4008, chksum=0) / data)
    outs: list[Out] = []
    for at in (0, 1480, 2960):
        part = whole[at : at + 1480]
        flags = "MF" if at + 1480 < len(whole) else 0
        outs += s.inside(IP(src=A, dst=E, id=5, flags=flags, frag=at // 8, proto=17) / Raw(part))
    assert [out.ip.len for out in outs] == [1396, 124, 1396, 124, 1068]
    assert [bool(out.ip.flags.MF) for out in outs] == [True] * 4 + [False]
    assert rebuilt(outs)[8:] == data


def test_g27_only_options_with_the_copy_bit_are_repeated(make: MakeScenario, egress: str) -> None:
    s = make(egress, replace=MTU_1400[egress])
    options = [IPOption_RR(routers=["0.0.0.0"]), IPOption_NOP(), IPOption_Router_Alert()]
    packet = IP(src=A, dst=E, options=options) / UDP(sport=5000, dport=53, chksum=0) / bytes(3000)
    outs = s.inside(packet)
    sent = bytes(packet)
    assert raw_ip(outs[0])[20:32] == sent[20:32]
    for out in outs[1:]:
        assert out.ip.ihl == 6
        assert raw_ip(out)[20:24] == b"\x94\x04\x00\x00"
    assert rebuilt(outs) == sent[32:]


def test_g27_df_is_never_cleared(make: MakeScenario, egress: str) -> None:
    s = make(egress, replace=MTU_1400[egress])
    refused = only(s.inside(udp(data=bytes(1373), flags="DF")))
    assert (refused.port, refused.ip[ICMP].type, refused.ip[ICMP].code) == ("L", 3, 4)
    first = IP(src=A, dst=E, id=6, flags="DF+MF", proto=17) / Raw(bytes(UDP(sport=1, dport=2, len=2968))) / bytes(1472)
    refused = only(s.inside(first))
    assert (refused.port, refused.ip[ICMP].type, refused.ip[ICMP].code) == ("L", 3, 4), "a fragment with DF likewise"
    later = IP(src=A, dst=E, id=6, flags="DF", frag=185, proto=17) / bytes(1480)
    assert s.inside(later) == [], "the rest of it goes the same way, without a second error"
    assert only(s.inside(udp(data=bytes(1372), flags="DF"))).ip.flags.DF


# TCP's own size, and what is left alone


def syn(mss: int | None, flags: str = "S", source: str = A, destination: str = E, **tcp: object) -> ScapyPacket:
    options: list[tuple[str, object]] = [("SAckOK", b""), ("Timestamp", (1, 0))]
    if mss is not None:
        options.insert(0, ("MSS", mss))
    return IP(src=source, dst=destination) / TCP(
        **{"sport": 5000, "dport": 80, "flags": flags, "options": options, **tcp}
    )


def mss_of(out: Out) -> int | None:
    return dict(out.ip[TCP].options).get("MSS")


@pytest.mark.parametrize(
    ("mss", "wanted"),
    [(1460, 1360), (1361, 1360), (1360, 1360), (1359, 1359), (65535, 1360), (500, 500), (0, 0), (None, None)],
)
def test_g29_q6_the_mss_of_a_syn_is_lowered_to_what_the_egress_carries_both_ways(
    make: MakeScenario, egress: str, mss: int | None, wanted: int | None
) -> None:
    s = make(egress, replace=MTU_1400[egress])
    out = only(s.inside(syn(mss)))
    assert mss_of(out) == wanted
    assert [name for name, _ in out.ip[TCP].options] == [name for name, _ in syn(mss)[TCP].options]
    back = syn(mss, "SA", E, s.X, sport=80, dport=out.ip.sport, ack=1)
    assert mss_of(only(s.outside(back))) == wanted, "the answer names what the other way carries"


def test_g29_only_syns_are_touched_and_odd_places_are_summed_right(make: MakeScenario, egress: str) -> None:
    s = make(egress, replace=MTU_1400[egress])
    shifted = IP(src=A, dst=E) / TCP(
        sport=5000, dport=80, flags="S", options=[("NOP", None), ("MSS", 1460), ("NOP", None)]
    )
    assert mss_of(only(s.inside(shifted))) == 1360  # every frame's checksum is looked at
    assert mss_of(only(s.inside(syn(1460, "A")))) == 1460
    assert mss_of(only(s.inside(syn(1460, "PA")))) == 1460


@pytest.mark.parametrize(
    "options",
    [
        b"\x02\x03\x05\xb4",  # not as long as an MSS is
        b"\x02\x05\x05\xb4\x00\x00\x00\x00",
        b"\x02\x00\x05\xb4",
        b"\x08\x20\x02\x04\x05\xb4\x01\x01",  # an option that goes beyond the header
        b"\x00\x00\x00\x00\x02\x04\x05\xb4",  # behind the end of the list
        b"\x01\x01\x01\x02",
    ],
)
def test_g29_a_bad_list_of_options_is_left_as_it_is(make: MakeScenario, egress: str, options: bytes) -> None:
    s = make(egress, replace=MTU_1400[egress])
    segment = bytearray(bytes(TCP(sport=5000, dport=80, flags="S", options=[("NOP", None)] * len(options))))
    segment[20:] = options
    segment[16:18] = b"\0\0"
    pseudo = bytes(IP(src=A, dst=E))[12:20] + b"\0\x06" + len(segment).to_bytes(2, "big")
    segment[16:18] = checksum(pseudo + bytes(segment)).to_bytes(2, "big")
    out = only(s.inside(IP(src=A, dst=E, proto=6) / Raw(bytes(segment))))
    assert raw_ip(out)[40:] == options


def test_g29_the_mss_is_never_lowered_below_536(make: MakeScenario) -> None:
    s = make("V", replace=(('node = "hk"', 'node = "hk"\nmtu = 576'),))
    assert mss_of(only(s.inside(syn(1460)))) == 536
    assert mss_of(only(s.inside(syn(530, sport=5001)))) == 530


@pytest.mark.parametrize("tos", [0, 1, 2, 3, 0xB8 | 3, 0xFF])
def test_g30_ecn_and_dscp_pass_as_they_are(make: MakeScenario, egress: str, tos: int) -> None:
    s = make(egress)
    out = only(s.inside(udp(tos=tos)))
    assert out.ip.tos == tos
    assert only(s.outside(IP(src=E, dst=s.X, tos=tos) / UDP(sport=53, dport=out.ip.sport))).ip.tos == tos


# Too big


@pytest.mark.parametrize(
    ("port", "source", "destination", "mtu", "teller"),
    [
        ("L", A, "8.8.8.8", 1420, ADDRESS_L),
        ("L", A, HOST, 1420, ADDRESS_L),
        ("U", HOST, "8.8.8.8", 1420, ADDRESS_L),
        ("L", A, E, 1500, ADDRESS_L),
        ("V", "8.8.8.8", HOST, 1420, ADDRESS_V),
    ],
)
def test_q1_g28_too_big_with_df_is_told_with_the_mtu_of_the_chosen_egress(
    make: MakeScenario, port: str, source: str, destination: str, mtu: int, teller: str
) -> None:
    s = make("O")
    packet = udp(source, destination, bytes(mtu - 27), flags="DF")
    out = only(s.inject(port, packet))
    assert (out.port, out.ip.src, out.ip.dst, out.ip[ICMP].type, out.ip[ICMP].code) == (port, teller, source, 3, 4)
    assert raw_ip(out)[24:28] == b"\0\0" + mtu.to_bytes(2, "big")
    assert raw_ip(out)[28:] == bytes(packet)[:548]
    assert s.dropped == Drop.IP_TOO_BIG
    assert list(s.gateway.aliases.links(s.now)) == [], "no link for what was never sent"
    fitting = udp(source, destination, bytes(mtu - 28), flags="DF")
    assert only(s.inject(port, fitting)).ip.len == mtu
    assert only(s.inject(port, fitting)).ip.flags.DF


def test_q1_from_outside_the_remote_is_told_by_our_outside_address(make: MakeScenario, egress: str) -> None:
    s = make(egress, replace=((f'mac = "{MAC_L}"', f'mac = "{MAC_L}"\nmtu = 1300'),))
    sport = only(s.inside(udp())).ip.sport
    back = IP(src=E, dst=s.X, flags="DF") / UDP(sport=53, dport=sport) / bytes(1273)
    out = only(s.outside(back))
    assert (out.port, out.ip.src, out.ip.dst, out.ip[ICMP].code) == (egress, s.X, E, 4)
    assert raw_ip(out)[26:28] == (1300).to_bytes(2, "big")
    assert raw_ip(out)[28:] == bytes(back)[:548], "quoted as the remote sent it"
    cut = s.outside(IP(src=E, dst=s.X) / UDP(sport=53, dport=sport) / bytes(1273))
    assert [len(raw_ip(part)) for part in cut] == [1300, 21]


@pytest.mark.parametrize("mtu", [0, 1, 67, 68, 296, 551, 552, 576, 1280, 1400, 1499, 1500, 9000, 65535])
def test_q2_q4_an_mtu_from_the_path_reaches_the_host_as_it_was_told(make: MakeScenario, egress: str, mtu: int) -> None:
    """Q2, Q4: whatever it says, forged or not: the host judges it; what we forward ourselves does not shrink."""
    s = make(egress)
    sent = only(s.inside(udp(data=bytes(1300), flags="DF")))
    told = IP(src="198.51.100.1", dst=s.X) / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(raw_ip(sent)[:548])
    out = only(s.outside(told))
    assert (out.port, out.ip.src, out.ip.dst, out.ip[ICMP].code) == ("L", "198.51.100.1", A, 4)
    assert raw_ip(out)[24:28] == b"\0\0" + mtu.to_bytes(2, "big")
    assert (out.ip[IPerror].src, out.ip[UDPerror].sport, out.ip[IPerror].dst) == (A, 5000, E)
    assert only(s.inside(udp(data=bytes(1300), flags="DF"))).ip.len == 1328
    big = s.inject(egress, IP(src=E, dst=s.X) / ICMP(id=1) / Raw(bytes(1300)))
    assert only(big).ip.len == 1328, "nor do our own answers"


def test_q2_an_mtu_for_a_flow_that_we_do_not_know_is_dropped(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    for quoted in (
        IP(src=s.X, dst=E) / UDP(sport=5000, dport=53) / b"data",
        IP(src=A, dst=E) / UDP(sport=5000, dport=53) / b"data",
        IP(src=E, dst=s.X) / UDP(sport=53, dport=5000) / b"data",
    ):
        assert s.outside(IP(src="198.51.100.1", dst=s.X) / ICMP(type=3, code=4, nexthopmtu=576) / quoted) == []
