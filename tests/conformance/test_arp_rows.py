"""Section 2 of the checklist, ARP as the wire sees it, first part: what comes in, and the claim to our own address."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest

from tests.conformance.arp_frames import (
    BROADCAST,
    ISP,
    MAC_C,
    MAC_D,
    NOBODY,
    OTHER_MAC,
    C,
    D,
    arp,
    learned,
    mac_of,
    packets,
    requests,
    states,
)
from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
    ADDRESS_O,
    HOST,
    IP,
    MAC_ISP,
    MAC_L,
    MAC_O,
    UDP,
    A,
    B,
    E,
)
from wire.drop import Drop

# Receiving: RFC 826's order


def test_a1_table_after_each_frame_follows_the_order_of_rfc_826(make: MakeScenario) -> None:
    """A1: formats, merge, "is it for me", add, and only then the opcode."""
    s = make("V")
    for frame, table, replies, why in [
        (arp(tpa=B), {}, 0, "not for us and not known: nothing"),
        (arp(op=3), {}, 0, "for us and not known, but no opcode that says what it means"),
        (arp(), {C: (MAC_C, "stale")}, 1, "for us: added, then answered"),
        (arp(op=9, sha=OTHER_MAC, tpa=B), {C: (OTHER_MAC, "stale")}, 0, "known: merged whatever it is about"),
        (arp(op=2, sha=MAC_C, tha=MAC_L), {C: (MAC_C, "stale")}, 0, "a reply for us: merged, not answered"),
        (arp(op=2, sha=MAC_D, spa=D, tha=MAC_L), {C: (MAC_C, "stale"), D: (MAC_D, "stale")}, 0, "a reply adds too"),
    ]:
        s.advance(2)  # beyond the lock time
        outs = [out for out in s.inject("L", frame) if out.arp is not None and out.arp.op == 2]
        assert (states(s), len(outs)) == (table, replies), why


@pytest.mark.parametrize("op", [1, 2, 3, 9, 0xFFFF])
def test_a2_a_known_sender_is_updated_by_a_frame_for_somebody_else(make: MakeScenario, op: int) -> None:
    s = learned(make)
    s.advance(2)
    assert requests(s.inject("L", arp(op, OTHER_MAC, C, tpa=B))) == [(C, MAC_C), (C, BROADCAST)]
    assert mac_of(s, C) == OTHER_MAC


@pytest.mark.parametrize(("op", "tpa"), [(1, B), (2, B), (1, C), (2, C), (1, ISP), (1, "0.0.0.0")])
def test_a3_an_unknown_sender_is_not_remembered_unless_it_speaks_to_us(make: MakeScenario, op: int, tpa: str) -> None:
    s = make("V")
    assert s.inject("L", arp(op, tpa=tpa)) == []
    assert s.dropped == Drop.ARP_NOT_FOR_US
    assert mac_of(s, C) is None


def test_a4_a_request_for_us_is_answered_with_its_fields_swapped(make: MakeScenario) -> None:
    s = make("V")
    (out,) = s.inject("L", arp())
    assert (out.port, out.eth.dst, out.eth.src, len(out.frame)) == ("L", MAC_C, MAC_L, 60)
    reply = out.arp
    assert reply is not None
    assert (reply.op, reply.hwsrc, reply.psrc, reply.hwdst, reply.pdst) == (2, MAC_L, ADDRESS_L, MAC_C, C)
    assert (reply.hwtype, reply.ptype, reply.hwlen, reply.plen) == (1, 0x0800, 6, 4)
    assert out.frame[42:] == bytes(18)
    (out,) = s.inject("O", arp(1, MAC_ISP, ISP, tpa=ADDRESS_O))
    assert (out.port, out.arp.psrc, out.arp.hwsrc, out.eth.dst) == ("O", ADDRESS_O, MAC_O, MAC_ISP)
    (out,) = s.inject("L", arp(to=MAC_L))  # the unicast poll of RFC 1122 2.3.2.1
    assert (out.arp.op, out.eth.dst) == (2, MAC_C)


def test_a4_nobody_elses_address_is_answered_for(make: MakeScenario) -> None:
    s = make("V")
    for asked in (A, B, C, D, "192.168.200.1", "192.168.200.255", "192.168.200.0", HOST, "8.8.8.8", "255.255.255.255"):
        assert s.inject("L", arp(tpa=asked)) == [], asked


def test_a5_a_probe_for_our_address_is_answered_and_leaves_no_trace(make: MakeScenario) -> None:
    s = make("V")
    (out,) = s.inject("L", arp(spa="0.0.0.0"))
    reply = out.arp
    assert reply is not None
    assert (reply.op, reply.psrc, reply.pdst, reply.hwdst, out.eth.dst) == (2, ADDRESS_L, "0.0.0.0", MAC_C, MAC_C)
    assert states(s) == {}
    assert s.inject("L", arp(spa="0.0.0.0", tpa=B)) == []


def test_a6_a28_other_ports_addresses_and_the_world_are_not_answered_for(make: MakeScenario) -> None:
    s = make("V")
    for port, asked in (
        ("L", ADDRESS_O),
        ("L", HOST),
        ("L", "192.168.192.210"),
        ("L", "8.8.8.8"),
        ("O", ADDRESS_L),
        ("O", A),
        ("O", "203.0.113.5"),
    ):
        sender = (MAC_C, C) if port == "L" else (MAC_ISP, ISP)
        assert s.inject(port, arp(1, *sender, tpa=asked)) == [], f"{asked} on {port}"
    assert states(s) == {}


def test_a7_the_types_and_lengths_are_those_of_ip_on_ethernet(make: MakeScenario) -> None:
    """A7: hardware type 1 or 6, protocol 0800, lengths 6 and 4, 28 bytes; padding is not looked at."""
    s = make("V")
    head = bytes.fromhex(MAC_L.replace(":", "") + MAC_C.replace(":", "") + "0806")
    mac = bytes.fromhex(MAC_C.replace(":", ""))
    spa, tpa = bytes((192, 168, 200, 20)), bytes((192, 168, 200, 2))

    def raw(hrd: int = 1, pro: int = 0x0800, hln: int = 6, pln: int = 4) -> bytes:
        return head + struct.pack("!HHBBH", hrd, pro, hln, pln, 1) + mac + spa + bytes(6) + tpa

    for good in (raw(), raw().ljust(60, b"\xa5"), raw().ljust(1514, b"\xff"), raw(hrd=6)):
        (out,) = s.inject("L", good)
        assert out.arp is not None
        assert out.arp.hwtype == good[15], "the hardware type comes back as it was asked"
    s = make("V")
    bad = [raw(hrd=hrd) for hrd in (0, 2, 7, 15, 24, 32, 0xFFFF)]
    bad += [raw(pro=pro) for pro in (0, 0x86DD, 0x0806, 0x0801)]
    bad += [raw(hln=hln) for hln in (0, 5, 7, 8, 255)] + [raw(pln=pln) for pln in (0, 3, 6, 16, 255)]
    bad += [raw()[:length] for length in (14, 15, 22, 34, 41)]
    for frame in bad:
        assert s.inject("L", frame) == []
        assert s.dropped == Drop.ARP_MALFORMED
    assert states(s) == {}


@pytest.mark.parametrize("op", [0, 3, 4, 8, 9, 10, 25, 256, 0xFFFF])
def test_a8_other_opcodes_are_ignored(make: MakeScenario, op: int) -> None:
    s = make("V")
    assert s.inject("L", arp(op)) == []
    assert s.inject("L", arp(op, spa="0.0.0.0")) == []
    assert s.count(Drop.ARP_OPCODE) == 2
    assert mac_of(s, C) is None


@pytest.mark.parametrize("sha", [BROADCAST, "01:00:5e:00:00:01", "33:33:00:00:00:01", NOBODY, "03:00:00:00:00:01"])
def test_a9_no_group_or_zero_mac_address_is_ever_cached(make: MakeScenario, sha: str) -> None:
    s = learned(make)
    s.advance(2)
    assert s.inject("L", arp(1, sha, D, by=MAC_D)) == [], "a new one"
    assert s.dropped == Drop.ARP_SENDER
    assert s.inject("L", arp(2, sha, C, MAC_L, to=MAC_L, by=MAC_C)) == [], "for a known host"
    assert s.inject("L", arp(1, sha, D)) == [], "and as the frame's own source"
    assert s.dropped == Drop.ETH_SOURCE
    assert list(states(s)) == [C]
    assert mac_of(s, C) == MAC_C


@pytest.mark.parametrize("spa", ["10.9.9.9", "192.168.201.20", "192.168.199.255", ISP, "114.114.114.114"])
def test_a10_a4_who_asks_under_an_address_of_another_subnet_is_answered_and_not_learned(
    make: MakeScenario, spa: str
) -> None:
    """A kernel asks so for what it sends from an address of another interface: silence would cut it off."""
    s = make("V")
    for to in (BROADCAST, MAC_L):
        (out,) = s.inject("L", arp(1, MAC_C, spa, NOBODY, to=to))
        assert (out.arp.op, out.arp.psrc, out.arp.hwsrc, out.arp.pdst) == (2, ADDRESS_L, MAC_L, spa)
        assert (out.eth.dst, out.arp.hwdst) == (MAC_C, MAC_C)
    assert s.inject("L", arp(2, MAC_C, spa, MAC_L, to=MAC_L)) == []
    assert states(s) == {}


@pytest.mark.parametrize(
    "spa",
    [
        "192.168.200.0",
        "192.168.200.255",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        ADDRESS_L,
    ],
)
def test_a10_no_sender_that_cannot_live_on_the_subnet_is_cached(make: MakeScenario, spa: str) -> None:
    s = make("V")
    for op, tha, to in ((1, NOBODY, BROADCAST), (2, MAC_L, MAC_L), (1, NOBODY, MAC_L)):
        outs = s.inject("L", arp(op, MAC_C, spa, tha, to=to))
        assert [out for out in outs if out.arp.op == 2] == [], "and it gets no answer"
    assert states(s) == {}


def test_a11_the_sender_in_the_packet_is_believed_not_the_one_of_the_frame(make: MakeScenario) -> None:
    s = make("V")
    (out,) = s.inject("L", arp(by=OTHER_MAC))
    assert (out.eth.dst, out.arp.hwdst) == (MAC_C, MAC_C)
    assert mac_of(s, C) == MAC_C
    assert s.gateway.arp["tap0"].sender_mismatches == 1


def test_a12_a_frame_to_another_station_is_ignored(make: MakeScenario) -> None:
    s = learned(make)
    s.advance(2)
    assert s.inject("L", arp(1, MAC_D, D, to=OTHER_MAC)) == []
    assert s.dropped == Drop.ETH_NOT_FOR_US
    assert s.inject("L", arp(2, OTHER_MAC, C, MAC_L, to=MAC_O)) == []
    assert states(s) == {C: (MAC_C, "stale")}
    assert len(s.inject("L", arp(1, MAC_D, D, to="01:00:5e:00:00:01"))) == 1, "a group is no other station"


# Our own address


def test_a13_three_conflicts_in_five_seconds_are_met_by_one_announcement(make: MakeScenario) -> None:
    s = make("V")
    found = []
    for _ in range(3):
        found += s.inject("L", arp(1, OTHER_MAC, ADDRESS_L, tpa=B))
        found += s.advance(2)
    assert [(out.arp.op, out.arp.psrc, out.arp.pdst, out.arp.hwsrc, out.eth.dst) for out in found] == [
        (1, ADDRESS_L, ADDRESS_L, MAC_L, BROADCAST)
    ]
    s.advance(3.999)  # 9.999 s after the defence
    assert s.inject("L", arp(2, OTHER_MAC, ADDRESS_L, MAC_L, to=MAC_L)) == []
    s.advance(0.001)
    assert len(s.inject("L", arp(2, OTHER_MAC, ADDRESS_L, MAC_L, to=MAC_L))) == 1, "ten seconds later: again"
    assert s.count(Drop.ARP_CONFLICT) == 5
    assert states(s) == {}


def test_a13_our_own_frame_that_comes_back_is_no_conflict(make: MakeScenario) -> None:
    s = make("V")
    assert s.inject("L", arp(1, MAC_L, ADDRESS_L, tpa=ADDRESS_L)) == []
    assert s.inject("L", arp(1, MAC_L, ADDRESS_L, tpa=ADDRESS_L, by=OTHER_MAC)) == []
    assert s.count(Drop.ARP_CONFLICT) == 0


def test_a14_at_start_the_address_is_probed_three_times_and_announced_twice(make: MakeScenario) -> None:
    s = make("V")
    outs = s.start()
    s.inject("U", b"")  # the clock of a replay begins with its first packet
    outs += s.advance(20)
    for port, mac, address in (("L", MAC_L, ADDRESS_L), ("O", MAC_O, ADDRESS_O)):
        mine = [out for out in outs if out.port == port]
        assert all(out.eth.dst == BROADCAST and out.arp.op == 1 and out.arp.hwsrc == mac for out in mine)
        assert [(out.arp.psrc, out.arp.pdst, out.arp.hwdst) for out in mine[:3]] == [("0.0.0.0", address, NOBODY)] * 3
        assert [(out.arp.psrc, out.arp.pdst) for out in mine[3:]] == [(address, address)] * 2
        times = [out.t for out in mine]
        assert 0 <= times[0] <= 1
        assert all(1 <= later - earlier <= 2 for earlier, later in pairwise(times[:3]))
        assert times[3] - times[2] == pytest.approx(2)
        assert times[4] - times[3] == pytest.approx(2)


def test_a14_traffic_and_answers_do_not_wait_for_the_probes(make: MakeScenario) -> None:
    s = make("O")
    s.start()
    (reply,) = s.inject("L", arp())
    assert reply.arp.op == 2
    (out,) = packets(s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=9)))
    assert out.port == "O"


def test_a14_ten_conflicts_while_probing_slow_the_attempts_to_one_a_minute(make: MakeScenario) -> None:
    s = make("V")
    probes = s.start()
    s.inject("U", b"")
    for _ in range(10):
        while not any(out.port == "L" for out in probes):
            probes = s.advance(0.25)
        assert all(out.arp.psrc == "0.0.0.0" for out in probes if out.port == "L"), "never announced"
        s.inject("L", arp(1, OTHER_MAC, "0.0.0.0", tpa=ADDRESS_L))  # somebody else probes for it too
        probes = []
    assert [out for out in s.advance(60) if out.port == "L"] == []
    assert [out.arp.psrc for out in s.advance(1) if out.port == "L"] == ["0.0.0.0"]


@pytest.mark.parametrize(("op", "tha"), [(1, NOBODY), (1, BROADCAST), (2, BROADCAST), (2, OTHER_MAC)])
def test_a15_both_forms_of_gratuitous_arp_update_an_entry_that_is_there(make: MakeScenario, op: int, tha: str) -> None:
    s = learned(make)
    s.advance(1)
    assert requests(s.inject("L", arp(op, OTHER_MAC, C, tha, C))) == [(C, MAC_C), (C, BROADCAST)]
    assert mac_of(s, C) == OTHER_MAC
