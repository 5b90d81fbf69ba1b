"""Section 1f of the checklist: fragments through the NAT, in any order, and those that are an attack."""

from __future__ import annotations

import itertools
import random
import struct

import pytest
from scapy.layers.inet import IPOption
from scapy.packet import Packet as ScapyPacket

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
    HOST,
    ICMP,
    IP,
    MAC_A,
    MAC_L,
    TCP,
    UDP,
    A,
    B,
    E,
    Out,
    Raw,
)
from tests.conformance.pieces import DATA, LAYERS, check_whole, crowd, cut, one, payload_of, reply_to
from wire.drop import Drop

LINK_A = bytes.fromhex((MAC_L + MAC_A).replace(":", "")) + b"\x08\x00"
PATIENCE_S = 15


# In order, and in any other


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_f1_fragments_in_order_are_all_translated(make: MakeScenario, egress: str, layer: ScapyPacket) -> None:
    """F1, U14: four fragments of 1000 bytes there, four of the answer back; each leaves at once."""
    s = make(egress)
    crowd(s, layer)
    outs = [one(s.inside(part)) for part in cut(IP(src=A, dst=E, id=77) / layer / DATA, 248, 496, 744)]
    assert {(out.port, out.ip.src, out.ip.dst, out.ip.ttl) for out in outs} == {(egress, s.X, E, 63)}
    assert check_whole(outs)[-len(DATA) :] == DATA
    answer = reply_to(outs, layer, s.X)
    backs = [one(s.outside(part)) for part in cut(answer, 248, 496, 744)]
    assert {(out.port, out.ip.src, out.ip.dst, out.ip.id) for out in backs} == {("L", E, A, 99)}
    payload = check_whole(backs)
    assert payload[-len(DATA) :] == DATA[::-1]
    assert int.from_bytes(payload[4:6] if isinstance(layer, ICMP) else payload[2:4], "big") == 5000


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_f2_fragments_in_any_order_are_all_delivered(make: MakeScenario, egress: str, layer: ScapyPacket) -> None:
    """F2, U14: the 24 orders of four fragments, both ways; held ones leave behind the first, sizes and ID as sent."""
    s = make(egress)
    crowd(s, layer)
    for number, order in enumerate(itertools.permutations(range(4)), start=100):
        parts = cut(IP(src=A, dst=E, id=number) / layer / DATA, 248, 496, 744)
        outs = [out for index in order for out in s.inside(parts[index])]
        assert check_whole(outs)[-len(DATA) :] == DATA
        assert {out.ip.id for out in outs} == {number}
        first = order.index(0)
        assert [out.ip.frag * 8 for out in outs] == [
            (0, 248, 496, 744)[n] for n in (0, *order[:first], *order[first + 1 :])
        ]
        answer = reply_to(outs, layer, s.X)
        answer.id = number
        backs = [out for index in order for out in s.outside(cut(answer, 248, 496, 744)[index])]
        assert check_whole(backs)[-len(DATA) :] == DATA[::-1]
        assert {out.ip.dst for out in backs} == {A}
    assert s.gateway.fragments.waiting == s.gateway.fragments.decided == 0


def test_f2_the_smallest_fragments_of_all_sizes_pass_in_random_order(make: MakeScenario, egress: str) -> None:
    """F2, F8: eight bytes a fragment, a last one of a single byte, IP options of their own in each."""
    s = make(egress)
    rng = random.Random(3)
    packet = IP(src=A, dst=E, id=77) / UDP(sport=5000, dport=7000) / bytes(range(201))
    parts = cut(packet, *range(8, 209, 8))
    assert len(parts[-1].payload) == 1
    for part in parts[::3]:
        part.options = [IPOption(bytes([148, 4, 0, 0]))]
    rng.shuffle(parts)
    outs = [out for part in parts for out in s.inside(part)]
    assert check_whole(outs)[8:] == bytes(range(201))
    assert sorted(out.ip.ihl for out in outs) == sorted(6 if part.options else 5 for part in parts)


def test_f2_a_later_fragment_carries_its_own_ttl_and_tos(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    parts = cut(IP(src=A, dst=E, id=77) / UDP(sport=5000, dport=7000) / DATA, 496)
    parts[1].ttl, parts[1].tos = 9, 0xB8
    assert s.inside(parts[1]) == []
    outs = s.inside(parts[0])
    assert [(out.ip.ttl, out.ip.tos) for out in outs] == [(63, 0), (8, 0xB8)]


@pytest.mark.parametrize("ttl", [0, 1])
def test_f2_a_later_fragment_whose_time_is_up_is_dropped_in_silence(make: MakeScenario, egress: str, ttl: int) -> None:
    """F2, G4: of the first fragment the sender hears, and what follows it is dropped."""
    s = make(egress)
    parts = cut(IP(src=A, dst=E, id=77) / UDP(sport=5000, dport=7000) / DATA, 496)
    parts[1].ttl = ttl
    assert len(s.inside(parts[0])) == 1
    assert s.inside(parts[1]) == []
    assert s.dropped == Drop.IP_TTL
    parts = cut(IP(src=A, dst=E, id=78, ttl=ttl) / UDP(sport=5000, dport=7000) / DATA, 496)
    told = one(s.inside(parts[0]))
    assert (told.port, told.ip.dst, told.ip[ICMP].type) == ("L", A, 11)
    assert s.inside(parts[1]) == []
    assert s.dropped == Drop.FRAGMENT_DATAGRAM_DROPPED


def test_f2_fragments_turn_round_at_our_address(make: MakeScenario, egress: str) -> None:
    """F2, U9: hairpin in fragments, the first one last."""
    s = make(egress)
    name = one(s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000))).ip[UDP].sport
    packet = IP(src=B, dst=s.X, id=77) / UDP(sport=6000, dport=name) / DATA
    outs = [out for part in reversed(cut(packet, 248, 496)) for out in s.inside(part)]
    assert {(out.port, out.ip.src, out.ip.dst) for out in outs} == {("L", s.X, A)}
    assert check_whole(outs)[8:] == DATA


def test_f2_fragments_that_are_not_aliased_pass_too(make: MakeScenario) -> None:
    """F2: the host into the tunnel, and between the host and the LAN, the first one last."""
    s = make("V")
    for port, source, destination, way in (
        ("U", HOST, E, "V"),
        ("V", E, HOST, "U"),
        ("L", A, HOST, "U"),
        ("U", HOST, A, "L"),
    ):
        packet = IP(src=source, dst=destination, id=77) / UDP(sport=5000, dport=7000) / DATA
        outs = [out for part in reversed(cut(packet, 248, 496)) for out in s.inject(port, part)]
        assert {(out.port, out.ip.src, out.ip.dst) for out in outs} == {(way, source, destination)}
        assert check_whole(outs)[8:] == DATA


def test_f2_a_fragment_too_big_for_the_tunnel_is_cut_again(make: MakeScenario) -> None:
    """F2, G27: fragments of 1500 bytes into a tunnel of 1420, in either order."""
    s = make("V")
    data = bytes(n * 5 & 255 for n in range(4000))
    for number, step in ((1, 1), (2, -1)):
        packet = IP(src=A, dst=E, id=number) / UDP(sport=5000, dport=7000) / data
        outs = [out for part in cut(packet, 1480, 2960)[::step] for out in s.inside(part)]
        assert all(len(out.ip) <= 1420 for out in outs)
        assert len(outs) == 5
        assert check_whole(outs)[8:] == data


def test_f2_a_later_fragment_with_df_that_does_not_fit_is_dropped(make: MakeScenario) -> None:
    """F2, G4: no error about a later fragment, and DF is not cleared."""
    s = make("V")
    parts = cut(IP(src=A, dst=E, id=77) / UDP(sport=5000, dport=7000) / bytes(2500), 800)
    parts[1] = IP(src=A, dst=E, id=77, proto=17, flags="MF+DF", frag=100) / Raw(bytes(1480))
    assert len(s.inside(parts[0])) == 1
    assert s.inside(parts[1]) == []
    assert s.dropped == Drop.IP_TOO_BIG


# Duplicates, overlaps, headers that are cut


def test_f3_a_duplicate_is_dropped_and_makes_no_second_state(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    parts = cut(IP(src=A, dst=E, id=77) / UDP(sport=5000, dport=7000) / DATA, 248, 496)
    assert s.inside(parts[1]) == s.inside(parts[1]) == []
    assert s.count(Drop.FRAGMENT_DUPLICATE) == 1
    outs = s.inside(parts[0])
    assert len(outs) == 2
    assert s.inside(parts[0]) == []
    assert s.inside(parts[1]) == []
    assert s.count(Drop.FRAGMENT_DUPLICATE) == 3
    assert s.gateway.fragments.decided == 1
    assert check_whole([*outs, *s.inside(parts[2])])[8:] == DATA
    assert s.gateway.fragments.waiting == s.gateway.fragments.decided == 0


def overlapping(first_bytes: int) -> dict[str, IP]:
    """Fragments that overlap a first one of `first_bytes` or what follows it, and a port in TCP's place."""
    evil = struct.pack("!HHIIBBHHH", 5000, 22, 0, 0, 5 << 4, 0x10, 0, 0, 0) + bytes(4)
    fields = {"src": A, "dst": E, "proto": 6, "id": 77}
    return {
        "rewrites the ports": IP(**fields, flags="MF", frag=0) / Raw(evil),
        "offset one": IP(**fields, flags="MF", frag=1) / Raw(evil),
        "offset one, last": IP(**fields, frag=1) / Raw(evil),
        "reaches back": IP(**fields, flags="MF", frag=(first_bytes - 8) // 8) / Raw(bytes(16)),
        "swallows the rest": IP(**fields, flags="MF", frag=first_bytes // 8) / Raw(bytes(512)),
        "ends too early": IP(**fields, frag=first_bytes // 8) / Raw(bytes(8)),
        "goes beyond the end": IP(**fields, flags="MF", frag=600 // 8) / Raw(bytes(8)),
    }


@pytest.mark.parametrize("which", overlapping(40))
@pytest.mark.parametrize("when", ["after the rest", "before the first"])
def test_f3_an_overlap_gives_the_whole_datagram_up(make: MakeScenario, egress: str, which: str, when: str) -> None:
    """F3: RFC 1858, RFC 3128, RFC 5722: nothing of the datagram passes from the overlap on, whatever came first."""
    s = make(egress)
    one(s.inside(IP(src=A, dst=E) / TCP(sport=5000, dport=7000, flags="S")))
    first, middle, last = cut(IP(src=A, dst=E, id=77) / TCP(sport=5000, dport=7000, flags="PA") / bytes(532), 40, 296)
    evil = overlapping(40)[which]
    if when == "after the rest":
        assert len(s.inside(first)) == 1
        passes = one(s.inside(last))
        assert passes.ip.frag * 8 == 296
        assert s.inside(evil) == []
        assert s.dropped == Drop.FRAGMENT_OVERLAP
        assert s.inside(middle) == []
        assert s.dropped == Drop.FRAGMENT_DATAGRAM_DROPPED
    else:
        assert s.inside(last) == s.inside(middle) == []
        if which == "rewrites the ports":
            assert len(s.inside(evil)) == 3, "the first of two first fragments decides"
            assert s.inside(first) == []
        elif which == "offset one":
            assert s.inside(evil) == []
            assert s.inside(first) == []
        else:
            assert s.inside(evil) == []
            assert s.inside(first) == []
            assert s.dropped in (Drop.FRAGMENT_DATAGRAM_DROPPED, Drop.FRAGMENT_OVERLAP)
    s.advance(PATIENCE_S + 1)
    assert s.gateway.fragments.waiting == s.gateway.fragments.decided == s.gateway.fragments.waiting_bytes == 0


@pytest.mark.parametrize("size", [8, 16])
def test_f3_a_first_fragment_without_its_transport_header_is_dropped_with_the_rest(
    make: MakeScenario, egress: str, size: int
) -> None:
    """F3: RFC 1858 3: ports in the first fragment and flags in the second pass no one."""
    s = make(egress)
    parts = cut(IP(src=A, dst=E, id=77) / TCP(sport=5000, dport=7000, flags="S") / bytes(100), size, 56)
    assert s.inside(parts[2]) == []
    assert s.inside(parts[0]) == []
    assert s.count(Drop.TRANSPORT_SHORT) == 1
    assert s.count(Drop.FRAGMENT_DATAGRAM_DROPPED) == 1
    assert s.inside(parts[1]) == []
    assert s.count(Drop.FRAGMENT_DATAGRAM_DROPPED) == 2


def test_f3_a_first_fragment_may_cut_tcps_options_but_not_its_header(make: MakeScenario, egress: str) -> None:
    """F3: 24 bytes of a header of 40: it passes, unclamped options and all."""
    s = make(egress)
    layer = TCP(sport=5000, dport=7000, flags="S", options=[("NOP", None)] * 4 + [("MSS", 1460), ("Timestamp", (1, 2))])
    outs = [out for part in cut(IP(src=A, dst=E, id=77) / layer / bytes(40), 24, 48) for out in s.inside(part)]
    assert len(outs) == 3
    check_whole(outs)


# Those that never become whole


@pytest.mark.parametrize("way", ["inside", "outside"])
def test_f4_fragments_without_their_first_one_are_freed_in_silence(make: MakeScenario, egress: str, way: str) -> None:
    """F4: nothing leaves, not even 11/1; after 15 seconds the store is empty and the first one comes too late."""
    s = make(egress)
    name = one(s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000))).ip[UDP].sport
    packet = (
        IP(src=A, dst=E, id=77) / UDP(sport=5000, dport=7000) / DATA
        if way == "inside"
        else IP(src=E, dst=s.X, id=77) / UDP(sport=7000, dport=name) / DATA
    )
    first, middle, last = cut(packet, 248, 496)
    send = s.inside if way == "inside" else s.outside
    assert send(last) == []
    s.advance(1)
    assert send(middle) == []
    assert s.gateway.fragments.waiting == 1
    assert s.advance(PATIENCE_S - 1.001) == []
    assert s.gateway.fragments.waiting == 1
    assert s.advance(0.001) == []
    assert s.gateway.fragments.waiting == s.gateway.fragments.waiting_bytes == 0
    assert s.count(Drop.FRAGMENT_TIMEOUT) == 2
    assert len(send(first)) == 1
    s.advance(PATIENCE_S)
    assert s.gateway.fragments.decided == 0


def test_f4_a_datagram_held_for_just_under_its_time_is_still_delivered(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    first, middle, last = cut(IP(src=A, dst=E, id=77) / UDP(sport=5000, dport=7000) / DATA, 248, 496)
    assert s.inside(last) == []
    s.advance(PATIENCE_S - 0.001)
    outs = s.inside(first)
    s.advance(PATIENCE_S - 0.001)
    assert check_whole([*outs, *s.inside(middle)])[8:] == DATA


def test_f4_a_ping_to_us_without_its_end_is_answered_with_11_1(make: MakeScenario, egress: str) -> None:
    """F4: RFC 1122 3.3.2: only where fragment 0 is here, quoting it, and only for what we put together ourselves."""
    s = make(egress)
    first, last = cut(IP(src=A, dst=ADDRESS_L, id=77) / ICMP(id=5) / DATA, 496)
    assert s.inside(first) == []
    told = one(s.advance(PATIENCE_S))
    assert (told.port, told.ip.src, told.ip.dst) == ("L", ADDRESS_L, A)
    assert payload_of(told)[:2] == bytes([11, 1])
    assert payload_of(told)[8:].startswith(bytes(first)[:500])
    assert s.inside(last) == []
    assert s.advance(PATIENCE_S) == []
    assert s.gateway.fragments.waiting == len(s.gateway.reassembly) == 0
    through = cut(IP(src=A, dst=E, id=77) / ICMP(id=5) / DATA, 496)[0]
    assert len(s.inside(through)) == 1
    assert s.advance(2 * PATIENCE_S) == []


def test_f5_a_flood_of_orphans_hurts_only_fragments_that_wait(make: MakeScenario, egress: str) -> None:
    """F5, U14: 100,000 later fragments of many sources: memory is bounded; what is whole, in order, or out of order by
    a little passes all the time."""
    s = make(egress)
    s.replayable = False
    s.checksums_matter = False
    name = one(s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000))).ip[UDP].sport
    flood = bytearray(bytes(IP(src="8.1.0.1", dst=s.X, proto=17, flags="MF", frag=50) / Raw(bytes(64))))
    port, link = ("tap1", bytes.fromhex("02000000010202aa000000010800")) if egress == "O" else ("vpn", b"")
    store = s.gateway.fragments
    rng = random.Random(5)
    now = s.now
    for number in range(100_000):
        flood[4:6] = (number & 0xFFFF).to_bytes(2, "big")
        flood[13:16] = rng.getrandbits(24).to_bytes(3, "big")
        flood[10:12] = b"\0\0"
        total = sum(struct.unpack("!10H", flood[:20]))
        flood[10:12] = (0xFFFF - (total % 0xFFFF or 0xFFFF)).to_bytes(2, "big")
        s.gateway.receive(port, link + bytes(flood), now)
        if number % 20_000 == 19_999:
            assert store.waiting <= 1024
            assert store.waiting_bytes <= 4 << 20
            one(s.outside(IP(src=E, dst=s.X) / UDP(sport=7000, dport=name) / b"whole"))
            one(s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000) / b"whole"))
            packet = IP(src=E, dst=s.X, id=number & 0xFFFF) / UDP(sport=7000, dport=name) / DATA
            assert check_whole([one(s.outside(part)) for part in cut(packet, 248, 496)])[8:] == DATA
            packet.id += 1
            late = [out for part in reversed(cut(packet, 248, 496)) for out in s.outside(part)]
            assert check_whole(late)[8:] == DATA
    assert s.count(Drop.FRAGMENT_STORE_FULL) > 98_000
    s.advance(PATIENCE_S)
    assert store.waiting == store.waiting_bytes == 0


def test_f5_a_source_that_floods_takes_only_its_own_share(make: MakeScenario, egress: str) -> None:
    """F5: A's orphans push out A's, and B's fragments wait in peace; the same for first fragments without an end."""
    s = make(egress)
    s.replayable = False
    packet = IP(src=B, dst=E, id=77) / UDP(sport=5000, dport=7000) / DATA
    held, first = cut(packet, 496)[::-1]
    assert s.inside(held) == []
    orphan = IP(src=A, dst=E, proto=17, flags="MF", frag=50) / Raw(bytes(64))
    for number in range(1500):
        orphan.id = number
        s.gateway.receive("tap0", LINK_A + bytes(orphan), s.now)
    assert check_whole(s.inside(first))[8:] == DATA
    packet.id = 78
    first, last = cut(packet, 496)
    outs = s.inside(first)
    opening = IP(src=A, dst=E, flags="MF") / UDP(sport=5001, dport=7000, len=2000) / bytes(64)
    for number in range(1500):
        opening.id = number
        s.gateway.receive("tap0", LINK_A + bytes(opening), s.now)
    assert check_whole([*outs, *s.inside(last)])[8:] == DATA


def test_f6_two_hosts_with_one_identification_do_not_mix(make: MakeScenario, egress: str) -> None:
    """F6: A and B interleaved, first ones last; and the same identification from E at the same time."""
    s = make(egress)
    one(s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000)))
    of_a = cut(IP(src=A, dst=E, id=77) / UDP(sport=5000, dport=7000) / (b"A" * 600), 200, 400)
    of_b = cut(IP(src=B, dst=E, id=77) / UDP(sport=5000, dport=7000) / (b"B" * 600), 200, 400)
    of_e = cut(IP(src=E, dst=s.X, id=77) / UDP(sport=7000, dport=5000) / (b"E" * 600), 200, 400)
    outs: list[Out] = []
    for a, b, e in zip(reversed(of_a), reversed(of_b), reversed(of_e), strict=True):
        outs += [*s.inside(a), *s.inside(b), *s.outside(e)]
    by_letter = {letter: [out for out in outs if payload_of(out)[-1:] == letter.encode()] for letter in "ABE"}
    for letter, mine in by_letter.items():
        assert check_whole(mine)[8:] == letter.encode() * 600
    assert len({out.ip.id for out in by_letter["A"] + by_letter["B"]}) == 2
    assert {out.ip.dst for out in by_letter["E"]} == {A}


def test_f6_protocols_and_destinations_are_part_of_the_key(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    first, last = cut(IP(src=A, dst=E, id=77) / UDP(sport=5000, dport=7000) / DATA, 496)
    assert s.inside(last) == []
    for other in ({"proto": 6}, {"dst": "203.0.113.99"}, {"id": 78}, {"src": B}):
        stray = cut(IP(src=A, dst=E, id=77) / UDP(sport=5000, dport=7000) / DATA, 496)[1]
        for name, value in other.items():
            setattr(stray, name, value)
        assert s.inside(stray) == []
    assert check_whole(s.inside(first))[8:] == DATA
    assert s.gateway.fragments.waiting == 4


def test_f6_the_port_is_part_of_the_key(make: MakeScenario, egress: str) -> None:
    """F6: what follows a first fragment by another port follows nothing: it waits in vain, or is refused there."""
    s = make(egress)
    other = "V" if egress == "O" else "O"
    one(s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000)))
    first, middle, last = cut(IP(src=E, dst=s.X, id=77) / UDP(sport=7000, dport=5000) / DATA, 248, 496)
    outs = s.outside(first)
    assert s.inject(other, middle) == []
    outs += s.outside(middle) + s.outside(last)
    assert check_whole(outs)[8:] == DATA
    same = cut(IP(src=E, dst=HOST, id=78) / UDP(sport=7000, dport=5000) / DATA, 496)
    assert len(s.inject("V", same[0])) == 1
    assert s.inject("O", same[1]) == []
    assert s.dropped == Drop.ROUTE_NOT_FROM_OUTSIDE
    assert len(s.inject("V", same[1])) == 1


def test_f7_fragments_that_cannot_be_are_dropped(make: MakeScenario, egress: str) -> None:
    """F7: a length that is no multiple of eight with MF set; an end beyond 65,535; nothing in it."""
    s = make(egress)
    for port, source, destination in (("L", A, E), ("L", A, ADDRESS_L), (egress, E, s.X), ("U", HOST, E)):
        for protocol in (1, 6, 17, 50):
            for size, frag, flags in (
                (41, 0, "MF"),
                (44, 10, "MF"),
                (1, 10, "MF"),
                (0, 10, "MF"),
                (0, 10, 0),
                (0, 0, "MF"),
                (100, 8191, 0),
                (24, 8191, "MF"),
                (400, 8150, 0),
            ):
                packet = IP(src=source, dst=destination, proto=protocol, id=77, flags=flags, frag=frag)
                assert s.inject(port, packet / Raw(b"\x08" + bytes(size - 1) if size else b"")) == []
                assert s.dropped == Drop.FRAGMENT_BAD
    assert s.gateway.fragments.waiting == s.gateway.fragments.decided == 0
