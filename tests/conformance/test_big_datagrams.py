"""Section 1f of the checklist, row F8: big pings, ICMP errors and answers in fragments, through us and to us."""

from __future__ import annotations

import itertools
import struct

import pytest

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import ADDRESS_L, ICMP, IP, UDP, A, B, E, Raw, scapy_sum
from tests.conformance.pieces import DATA, LAYERS, check_whole, crowd, cut, one, payload_of
from wire.drop import Drop


@pytest.mark.parametrize("size", [1, 1473, 1480, 8192, 65_507])
@pytest.mark.parametrize("step", [1, -1], ids=["in order", "reversed"])
def test_f8_a_big_ping_passes_both_ways(make: MakeScenario, egress: str, size: int, step: int) -> None:
    """F8: up to a datagram of 65,535 bytes (65,515 behind the header), cut as senders cut it."""
    s = make(egress)
    one(s.inside(IP(src=B, dst=E) / ICMP(id=5000)))
    data = bytes(n * 11 & 255 for n in range(size))
    width = 1480 if egress == "O" else 1400
    edges = range(width, size + 8, width)
    asked = cut(IP(src=A, dst=E, id=77) / ICMP(id=5000, seq=1) / data, *edges)
    outs = [out for part in asked[::step] for out in s.inside(part)]
    assert len(outs) == len(asked)
    payload = check_whole(outs) if len(outs) > 1 else payload_of(outs[0])
    assert payload[8:] == data
    name = int.from_bytes(payload[4:6], "big")
    answered = cut(IP(src=E, dst=s.X, id=78) / ICMP(type=0, id=name, seq=1) / data, *edges)
    backs = [out for part in answered[::step] for out in s.outside(part)]
    payload = check_whole(backs) if len(backs) > 1 else payload_of(backs[0])
    assert {out.ip.dst for out in backs} == {A}
    assert payload[4:6] == (5000).to_bytes(2, "big")
    assert payload[8:] == data


@pytest.mark.parametrize("size", [1473, 9000, 65_507])
@pytest.mark.parametrize("step", [1, -1], ids=["in order", "reversed"])
def test_f8_a_big_ping_to_us_is_put_together_and_answered_in_fragments(
    make: MakeScenario, egress: str, size: int, step: int
) -> None:
    """F8, G17: identifier, sequence number and data identical, fragments that fit the port."""
    s = make(egress)
    data = bytes(n * 11 & 255 for n in range(size))
    asks = cut(IP(src=A, dst=ADDRESS_L, id=77) / ICMP(id=5000, seq=1) / data, *range(1480, size + 8, 1480))
    outs = [out for part in asks[::step] for out in s.inside(part)]
    assert all(len(out.ip) <= 1500 for out in outs)
    assert {(out.port, out.ip.src, out.ip.dst) for out in outs} == {("L", ADDRESS_L, A)}
    payload = check_whole(outs)
    assert payload[:2] == b"\0\0"
    assert payload[4:8] == struct.pack("!HH", 5000, 1)
    assert payload[8:] == data
    assert len(s.gateway.reassembly) == s.gateway.fragments.waiting == s.gateway.fragments.decided == 0


def test_f8_a_big_ping_with_a_bad_checksum_is_not_answered(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    asks = cut(IP(src=A, dst=ADDRESS_L, id=77) / ICMP(id=5000, seq=1, chksum=0x1234) / DATA, 496)
    assert s.inside(asks[0]) == s.inside(asks[1]) == []
    assert s.dropped == Drop.ICMP_CHECKSUM


@pytest.mark.parametrize("way", ["outside", "inside"])
@pytest.mark.parametrize("step", [1, -1], ids=["in order", "reversed"])
def test_f8_an_icmp_error_in_fragments_is_translated(make: MakeScenario, egress: str, way: str, step: int) -> None:
    """F8: its checksum covers what no single fragment shows, and is right in the end."""
    s = make(egress)
    crowd(s, LAYERS["udp"])
    sent = IP(bytes(IP(src=A, dst=E, id=77) / LAYERS["udp"] / DATA))
    out = one(s.inside(sent))
    name = out.ip[UDP].sport
    if way == "outside":
        told = IP(src="198.51.100.1", dst=s.X, id=5, proto=1) / Raw(bytes(ICMP(type=11) / Raw(bytes(out.ip))))
        outs = [each for part in cut(told, 104, 520)[::step] for each in s.outside(part)]
        wanted = bytes(sent)
        assert {(each.port, each.ip.src, each.ip.dst) for each in outs} == {("L", "198.51.100.1", A)}
    else:
        answer = IP(bytes(IP(src=E, dst=s.X, id=88) / UDP(sport=7000, dport=name) / DATA))
        back = one(s.outside(answer))
        told = IP(src=A, dst=E, id=5, proto=1) / Raw(bytes(ICMP(type=3, code=3) / Raw(bytes(back.ip))))
        outs = [each for part in cut(told, 104, 520)[::step] for each in s.inside(part)]
        wanted = bytes(answer)
        assert {(each.port, each.ip.src, each.ip.dst) for each in outs} == {(egress, s.X, E)}
    quoted = bytearray(check_whole(outs)[8:])
    assert scapy_sum(bytes(quoted[:20])) == 0
    quoted[8], quoted[10:12] = 64, wanted[10:12]
    assert bytes(quoted) == wanted


def test_f8_an_unfragmented_reply_to_a_fragmented_request(make: MakeScenario, egress: str) -> None:
    """F8: and the other way round, as DNS over UDP does."""
    s = make(egress)
    outs = [out for part in cut(IP(src=A, dst=E, id=7) / LAYERS["udp"] / DATA, 496) for out in s.inside(part)]
    assert one(s.outside(IP(src=E, dst=s.X) / UDP(sport=7000, dport=5000) / b"short")).ip.dst == A
    answer = cut(IP(src=E, dst=s.X, id=9) / UDP(sport=7000, dport=5000) / bytes(3000), 1400, 2800)
    backs = [out for part in answer for out in s.outside(part)]
    assert len(backs) == 3
    assert len(outs) == 2
    check_whole(backs)


def test_f8_fragments_from_a_stranger_leave_nothing_behind(make: MakeScenario, egress: str) -> None:
    """F8, F4: to our address, without a link: the first one finds none, the rest goes with it, in any order."""
    s = make(egress)
    for number, order in enumerate(itertools.permutations(range(3))):
        parts = cut(IP(src=E, dst=s.X, id=number) / UDP(sport=7000, dport=5000) / DATA, 248, 496)
        assert [out for index in order for out in s.outside(parts[index])] == []
    assert s.count(Drop.ALIAS_NO_LINK) == 6
    assert s.count(Drop.FRAGMENT_DATAGRAM_DROPPED) == 12
    assert s.gateway.fragments.waiting == s.gateway.fragments.decided == 0
    for destination in (A, ADDRESS_L, "192.168.192.3", "203.0.113.9"):
        part = IP(src=E, dst=destination, proto=17, frag=50) / Raw(bytes(64))
        assert s.outside(part) == []
        assert s.dropped == Drop.ROUTE_NOT_FROM_OUTSIDE
    assert s.gateway.fragments.waiting == 0
