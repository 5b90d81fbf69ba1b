"""Section 2 of the checklist, ARP as the wire sees it, second part: ageing, asking, waiting, and who is believed."""

from __future__ import annotations

import random
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
    answer,
    arp,
    datagram,
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
    ICMP,
    IP,
    MAC_A,
    MAC_ISP,
    MAC_L,
    MAC_O,
    NO_STATIC,
    UDP,
    A,
    B,
    E,
    Ether,
    ICMPerror,
    IPerror,
    Out,
    Raw,
    Scenario,
    UDPerror,
)
from wire.drop import Drop

# Ageing


def test_a16_a17_a_silent_neighbour_is_polled_by_unicast_and_given_up(make: MakeScenario) -> None:
    """A16, A17: REACHABLE 30 s, STALE, used: DELAY 5 s, three unicast probes a second apart, FAILED."""
    s = make("V")
    assert requests(s.inject("U", datagram())) == [(C, BROADCAST)]
    assert [out.eth.dst for out in packets(s.inject("L", answer()))] == [MAC_C]
    assert states(s) == {C: (MAC_C, "reachable")}
    s.advance(29.999)
    assert mac_of(s, C) == MAC_C
    assert states(s)[C][1] == "reachable"
    s.advance(0.001)
    assert states(s)[C][1] == "stale"
    assert s.advance(5) == [], "nobody uses it: nobody asks"
    assert mac_of(s, C) == MAC_C
    assert states(s)[C][1] == "delay"
    assert s.advance(4.999) == []
    polls = s.advance(0.001)
    for _ in range(2):
        assert requests(polls) == [(C, MAC_C)]
        assert states(s)[C][1] == "probe"
        assert mac_of(s, C) == MAC_C, "traffic goes on meanwhile"
        assert s.advance(0.999) == []
        polls = s.advance(0.001)
    assert requests(polls) == [(C, MAC_C)]
    assert s.advance(0.999) == []
    assert s.advance(0.001) == [], "nothing waits: nobody is told"
    assert states(s) == {C: (None, "failed")}
    assert mac_of(s, C) is None


@pytest.mark.parametrize("port", ["L", "O"])
def test_a16_how_long_an_answer_is_believed_is_the_configurations(make: MakeScenario, port: str) -> None:
    table, address, mac = {"L": ("tap0", C, MAC_C), "O": ("tap1", "192.168.1.77", MAC_D)}[port]
    timeout = (f"[{table}]\n", f"[{table}]\narp_timeout = 300\n")
    s = make("O", replace=(timeout, *NO_STATIC))
    ours, our_mac = (ADDRESS_L, MAC_L) if port == "L" else (ADDRESS_O, MAC_O)
    assert requests(s.inject("U", datagram(address))) == [(address, BROADCAST)]
    assert len(packets(s.inject(port, answer(mac, address, ours=ours, mac=our_mac)))) == 1
    s.advance(299.999)
    assert states(s, table) == {address: (mac, "reachable")}
    s.advance(0.001)
    assert states(s, table) == {address: (mac, "stale")}
    s.advance(59.999)
    assert states(s, table) == {address: (mac, "stale")}
    s.advance(0.001)
    assert states(s, table) == {}, "unused, after the usual minute"


def test_a17_an_answer_to_a_poll_makes_it_reachable_again(make: MakeScenario) -> None:
    s = learned(make)
    assert mac_of(s, C) == MAC_C
    assert requests(s.advance(5)) == [(C, MAC_C)]
    s.inject("L", answer())
    assert states(s) == {C: (MAC_C, "reachable")}
    assert s.advance(29) == []
    assert requests(s.inject("L", answer(OTHER_MAC))) == [(C, MAC_C), (C, BROADCAST)]  # nobody asked: a claim
    s.advance(0.5)
    assert states(s) == {C: (MAC_C, "probe")}


def test_a17_another_station_that_answers_the_poll_takes_over_where_the_known_one_is_silent(
    make: MakeScenario,
) -> None:
    s = learned(make)
    assert mac_of(s, C) == MAC_C
    s.advance(5)
    s.inject("L", answer(OTHER_MAC))
    s.inject("L", answer(OTHER_MAC))  # to the broadcast that asks about the first
    assert mac_of(s, C) == MAC_C
    s.advance(0.1)
    assert states(s) == {C: (OTHER_MAC, "reachable")}
    assert mac_of(s, C) == OTHER_MAC


def test_a18_a_stale_entry_that_nobody_uses_is_forgotten_after_a_minute_without_a_question(make: MakeScenario) -> None:
    s = learned(make)
    assert s.gateway.arp["tap0"].used == 3  # and the two of the configuration
    assert s.advance(59.999) == []
    assert states(s) == {C: (MAC_C, "stale")}
    assert s.advance(0.001) == []
    assert states(s) == {}
    assert s.gateway.arp["tap0"].used == 2


# Asking


def test_a19_a_thousand_packets_a_second_ask_once_a_second(make: MakeScenario) -> None:
    s = make("V")
    frame = bytes(datagram())
    asked = []
    for _ in range(2000):
        asked += [out.t for out in s.inject("U", frame) if out.arp is not None]
        asked += [out.t for out in s.advance(0.001) if out.arp is not None]
    assert asked == [0, 1, 2]


def test_a19_not_even_after_failure_flush_or_another_state(make: MakeScenario) -> None:
    """A19, A22: whatever state comes between them, two questions for one address are a second apart."""
    s = make("V")
    asked = [out.t for out in s.inject("U", datagram()) if out.is_ethernet]
    rng = random.Random(19)
    for _ in range(400):
        asked += [out.t for out in s.advance(rng.choice((0.1, 0.25, 0.45, 1, 3, 5))) if requests([out])]
        if rng.random() < 0.7:
            asked += [out.t for out in s.inject("U", datagram()) if requests([out])]
        if rng.random() < 0.1:
            asked += [out.t for out in s.inject("L", answer()) if requests([out])]
    assert len(asked) > 50
    assert min(later - earlier for earlier, later in pairwise(asked)) >= 1 - 1e-9


def test_a20_what_waits_is_sent_in_order_when_the_answer_comes(make: MakeScenario) -> None:
    s = make("V")
    for number in range(5):
        assert packets(s.inject("U", datagram(C, number))) == []
    s.advance(0.5)
    outs = s.inject("L", answer())
    assert [(out.port, out.eth.dst, out.eth.src, out.ip.id) for out in outs] == [
        ("L", MAC_C, MAC_L, number) for number in range(5)
    ]
    assert s.inject("U", datagram(C, 5))[0].eth.dst == MAC_C


def test_a20_eight_frames_wait_for_an_address_and_the_oldest_gives_way(make: MakeScenario) -> None:
    s = make("V")
    for number in range(11):
        s.inject("U", datagram(C, number))
    for number in range(11, 13):
        s.inject("U", datagram(D, number))
    assert s.count(Drop.ARP_SUPERSEDED) == 3
    assert [out.ip.id for out in s.inject("L", answer())] == list(range(3, 11))
    assert [out.ip.id for out in s.inject("L", answer(MAC_D, D))] == [11, 12], "addresses do not mix"


def test_a20_a_request_of_the_missing_host_is_as_good_as_its_answer(make: MakeScenario) -> None:
    s = make("V")
    s.inject("U", datagram(C, 7))
    sent, reply = s.inject("L", arp())
    assert (sent.eth.dst, sent.ip.id) == (MAC_C, 7)
    assert reply.arp.op == 2


def test_a21_three_questions_a_second_apart_and_then_the_senders_hear_3_1(make: MakeScenario) -> None:
    s = make("V")
    found = []
    for number in range(3):
        found += s.inject("U", datagram(C, number))
    found += s.advance(2.999)
    assert [(out.t, requests([out])) for out in found] == [(t, [(C, BROADCAST)]) for t in (0, 1, 2)], "and no 3/1 yet"
    errors = s.advance(0.001)
    assert [(out.port, out.ip.src, out.ip.dst, out.ip[ICMP].type, out.ip[ICMP].code) for out in errors] == [
        ("U", ADDRESS_L, HOST, 3, 1)
    ] * 3
    for number, out in enumerate(errors):
        assert bytes(out.ip[ICMP].payload) == bytes(datagram(C, number)), "quoted as it was sent to us"
    assert s.count(Drop.ARP_NO_ANSWER) == 3


def test_a21_behind_the_nat_the_sender_hears_of_its_own_packet_not_of_the_alias(make: MakeScenario) -> None:
    """A21: the ISP router is silent; A's packet waited under our address, the error quotes it under A's."""
    s = make("O", replace=NO_STATIC[1:])
    request = IP(src=A, dst=E) / UDP(sport=5000, dport=9) / b"data"
    (question,) = s.inside(request)
    assert (question.port, question.arp.pdst, question.arp.psrc) == ("O", ISP, ADDRESS_O)
    outs = s.advance(3)
    assert len(requests(outs)) == 2
    (error,) = packets(outs)
    assert (error.port, error.eth.dst, error.ip.src, error.ip.dst) == ("L", MAC_A, ADDRESS_L, A)
    assert (error.ip[ICMP].type, error.ip[ICMP].code) == (3, 1)
    quoted = error.ip[IPerror]
    assert (quoted.src, quoted.dst, quoted.ttl, error.ip[UDPerror].sport) == (A, E, 64, 5000)


def test_a21_from_outside_the_remote_hears_of_the_packet_that_it_sent_to_us(make: MakeScenario, egress: str) -> None:
    s = make(egress, replace=NO_STATIC[:1])
    s.inject("L", arp(1, MAC_A, A))
    (out,) = s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=9))
    s.advance(70)  # A is forgotten; its link is not
    inbound = IP(src=E, dst=s.X, ttl=60) / UDP(sport=9, dport=out.ip.sport) / b"late"
    assert requests(s.outside(inbound)) == [(A, BROADCAST)]
    (error,) = packets(s.advance(3))
    assert (error.port, error.ip.src, error.ip.dst) == (egress, s.X, E)
    assert (error.ip[ICMP].type, error.ip[ICMP].code) == (3, 1)
    assert bytes(error.ip[ICMP].payload) == bytes(inbound)


def test_a21_a_packet_that_we_cut_is_one_packet_to_its_sender(make: MakeScenario) -> None:
    """A21: the pieces of a datagram that was cut for the egress wait, and give one 3/1 together."""
    s = make("V", replace=(("node =", "mtu = 1500\nnode ="), (f'mac = "{MAC_L}"', f'mac = "{MAC_L}"\nmtu = 576')))
    s.inject("U", IP(src=HOST, dst=C) / UDP(sport=5000, dport=9) / bytes(1200))
    (error,) = packets(s.advance(3))
    assert (error.ip[ICMP].type, error.ip[ICMP].code, error.ip[IPerror].len) == (3, 1, 1228)


def test_a22_after_failure_the_next_packet_asks_again(make: MakeScenario) -> None:
    s = make("V")
    s.inject("U", datagram())
    s.advance(3)
    assert states(s) == {C: (None, "failed")}
    assert requests(s.inject("U", datagram())) == [(C, BROADCAST)]
    assert [out.eth.dst for out in packets(s.inject("L", answer()))] == [MAC_C]


def test_a23_only_hosts_of_the_subnet_are_asked_for(make: MakeScenario) -> None:
    s = make("O", replace=NO_STATIC)
    for address in ("192.168.200.0", "192.168.200.255", ADDRESS_L, "255.255.255.255"):
        assert requests(s.inject("U", datagram(address))) == [], address
    for address in ("192.168.1.0", "192.168.1.255", ADDRESS_O):
        assert requests(s.inside(IP(src=A, dst=address) / UDP(sport=5000, dport=9))) == [], address
    for address in (E, "198.51.100.77"):
        s.inside(IP(src=A, dst=address) / UDP(sport=5000, dport=9))
    assert requests([out for out in s.advance(0.999) if out.port == "O"]) == []
    sent = [Out(0, port, frame, True) for _, port, frame in s.given if port == "O"]
    assert {address for address, _ in requests(sent)} == {ISP}, (
        "beyond the subnet the next hop is asked for, and nobody else"
    )


def test_a24_a_scan_of_the_subnet_asks_once_for_each_host_and_its_memory_is_bounded(make: MakeScenario) -> None:
    s = make("V", replace=NO_STATIC)
    asked: list[tuple[str, str]] = []
    for number in range(10):
        for last in range(256):
            asked += requests(s.inject("U", bytes(datagram(f"192.168.200.{last}", number))))
    table = s.gateway.arp["tap0"]
    assert table.slots == 256
    assert table.size_bytes == 256 * 32
    assert sorted(asked) == sorted((f"192.168.200.{last}", BROADCAST) for last in range(1, 255) if last != 2)
    assert table.waiting_frames <= 8 * 253
    outs = s.advance(3)
    assert len(requests(outs)) == 2 * 253
    assert table.waiting_frames == table.waiting_bytes == 0
    s.advance(60)
    assert table.used == 0
    s.inject("U", datagram())
    assert [out.eth.dst for out in packets(s.inject("L", answer()))] == [MAC_C], "and it goes on working"


def test_a25_only_an_answer_to_our_question_confirms(make: MakeScenario) -> None:
    s = make("V")
    s.inject("L", answer())
    assert states(s) == {C: (MAC_C, "stale")}, "nobody asked for it"
    s.advance(1)
    s.inject("L", arp(2, OTHER_MAC, C, BROADCAST, C))
    assert states(s) == {C: (OTHER_MAC, "stale")}
    s.inject("U", datagram(D))
    s.inject("L", answer(MAC_D, D))
    assert states(s)[D] == (MAC_D, "reachable")
    s.advance(2)
    s.inject("L", answer(OTHER_MAC, D))
    assert states(s)[D] == (MAC_D, "probe"), "a second answer to one question is a claim"


def test_a25_the_operators_entry_is_never_overwritten(make: MakeScenario) -> None:
    s = make("V")
    for op, tha, tpa, to in ((2, MAC_L, ADDRESS_L, MAC_L), (1, NOBODY, A, BROADCAST), (2, BROADCAST, A, BROADCAST)):
        s.inject("L", arp(op, OTHER_MAC, A, tha, tpa, to=to))
        assert s.dropped == Drop.ARP_LOCKED
        assert mac_of(s, A) == MAC_A
        s.advance(3600)
    assert mac_of(s, A) == MAC_A
    assert s.advance(3600) == [], "nor is it ever asked for"


def test_a26_a_claim_within_a_second_of_the_last_change_is_not_believed_but_asked_about(make: MakeScenario) -> None:
    s = learned(make)
    s.advance(0.5)
    asked = requests(s.inject("L", arp(1, OTHER_MAC, C, tpa=B)))
    assert (asked, s.dropped) == ([(C, MAC_C), (C, BROADCAST)], Drop.ARP_LOCKED)
    assert mac_of(s, C) == MAC_C
    s.inject("L", answer(OTHER_MAC))
    assert mac_of(s, C) == MAC_C
    s.advance(0.1)
    assert mac_of(s, C) == OTHER_MAC


def test_a27_a_flood_from_strangers_evicts_nobody(make: MakeScenario) -> None:
    """A27: ten thousand forged requests in a second: at most a thousand replies, known hosts stay known and heard."""
    s = learned(make)
    rng = random.Random(27)
    known = bytes(arp())
    forged = bytearray(bytes(arp()))
    replies = 0
    for number in range(10_000):
        forged[6:12] = forged[22:28] = b"\x02" + rng.randbytes(5)
        forged[28:32] = bytes((192, 168, 200, rng.choice((*range(3, 10), *range(22, 255)))))
        replies += sum(out.arp is not None and out.arp.op == 2 for out in s.inject("L", bytes(forged)))
        s.advance(0.0001)
        if number % 2500 == 0:
            (out,) = s.inject("L", known)
            assert out.eth.dst == MAC_C, "who is known is answered in the middle of it"
    assert replies <= 2000
    assert s.count(Drop.ARP_RATE_LIMITED) == 10_000 - replies > 7000
    assert mac_of(s, C) == MAC_C
    assert mac_of(s, A) == MAC_A


@pytest.mark.parametrize("tag", ["81000000", "8100a000", "8100b000", "88a80000", "8100a0008100a000"])
def test_a29_a_priority_tag_counts_as_no_tag_and_answers_go_untagged(make: MakeScenario, tag: str) -> None:
    s = make("O")

    def tagged(packet: Ether) -> bytes:
        return bytes(packet)[:12] + bytes.fromhex(tag) + bytes(packet)[12:]

    (reply,) = s.inject("L", tagged(arp()))
    assert (reply.arp.op, reply.eth.type) == (2, 0x0806)
    voice = IP(src=A, dst=E, tos=0xB8) / UDP(sport=5060, dport=5060) / b"voice"
    (out,) = s.inject("L", tagged(Ether(src=MAC_A, dst=MAC_L, type=0x0800) / voice))
    assert (out.port, out.eth.type, out.ip.tos, out.ip.len) == ("O", 0x0800, 0xB8, len(voice))


def test_a29_arp_in_a_vlan_or_in_snap_is_dropped_and_counted(make: MakeScenario) -> None:
    s = make("V")
    body = bytes(arp())[14:]
    head = bytes(arp(to=MAC_L))[:12]
    for between, reason in [
        (bytes.fromhex("810000070806"), Drop.ETHERTYPE_VLAN),
        (bytes.fromhex("88a800070806"), Drop.ETHERTYPE_VLAN),
        (bytes.fromhex("910000078100000a0806"), Drop.ETHERTYPE_VLAN),
        (bytes.fromhex("0024aaaa030000000806"), Drop.ETHERTYPE_LLC),
        (bytes.fromhex("8035"), Drop.ETHERTYPE_OTHER),
    ]:
        assert s.inject("L", head + between + body) == []
        assert s.dropped == reason
    assert states(s) == {}


def flowing(make: MakeScenario) -> Scenario:
    """A gateway whose ISP router has answered, and forwards."""
    s = make("O", replace=NO_STATIC[1:])
    s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=9))
    (out,) = s.inject("O", answer(MAC_ISP, ISP, ours=ADDRESS_O, mac=MAC_O))
    assert out.eth.dst == MAC_ISP
    s.outside(IP(src=E, dst=ADDRESS_O) / UDP(sport=9, dport=out.ip.sport))
    return s


def goes_to(s: Scenario) -> str:
    """The MAC address that the next packet for E carries."""
    (out,) = s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=9))
    return str(out.eth.dst)


@pytest.mark.parametrize("later", [0.5, 25, 100])
def test_a30_a31_a_router_that_fails_over_is_followed_within_a_tenth_of_a_second(
    make: MakeScenario, later: float
) -> None:
    s = flowing(make)
    s.advance(later)
    s.inject("O", arp(1, OTHER_MAC, ISP, NOBODY, ISP))
    s.inject("O", answer(OTHER_MAC, ISP, ours=ADDRESS_O, mac=MAC_O))
    s.advance(0.1)
    assert goes_to(s) == OTHER_MAC


def test_a31_no_packet_goes_to_a_forger_while_the_router_lives(make: MakeScenario) -> None:
    s = flowing(make)
    s.advance(10)
    for _ in range(20):
        s.inject("O", arp(1, OTHER_MAC, ISP, NOBODY, ISP))
        assert goes_to(s) == MAC_ISP
        s.inject("O", answer(OTHER_MAC, ISP, ours=ADDRESS_O, mac=MAC_O))
        s.inject("O", answer(MAC_ISP, ISP, ours=ADDRESS_O, mac=MAC_O))
        assert goes_to(s) == MAC_ISP
        s.advance(0.3)
        assert goes_to(s) == MAC_ISP


def test_a33_a_router_that_falls_silent_under_traffic_is_asked_about_after_a_second(make: MakeScenario) -> None:
    s = flowing(make)
    s.advance(5)
    assert goes_to(s) == MAC_ISP
    assert requests(s.advance(0.999)) == []
    assert requests(s.advance(0.301)) == [(ISP, MAC_ISP), (ISP, BROADCAST)]
    s.inject("O", answer(OTHER_MAC, ISP, ours=ADDRESS_O, mac=MAC_O))
    s.advance(0.1)
    assert goes_to(s) == OTHER_MAC


def test_a33_a_router_that_has_never_sent_us_a_packet_may_be_silent(make: MakeScenario) -> None:
    s = make("O", replace=NO_STATIC[1:])
    s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=9))
    s.inject("O", answer(MAC_ISP, ISP, ours=ADDRESS_O, mac=MAC_O))
    for _ in range(20):
        assert goes_to(s) == MAC_ISP
        assert requests(s.advance(1)) == []


def test_a16_traffic_that_comes_back_keeps_a_router_reachable_without_a_question(make: MakeScenario) -> None:
    s = flowing(make)
    for _ in range(30):
        s.advance(9)
        (out,) = s.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=9))
        assert out.eth.dst == MAC_ISP
        assert len(s.outside(IP(src=E, dst=ADDRESS_O) / UDP(sport=9, dport=out.ip.sport))) == 1
        assert requests(s.advance(1)) == []


def test_a_packet_of_ours_that_nobody_takes_is_no_reason_for_an_error(make: MakeScenario) -> None:
    """A21: C pings us and vanishes: the reply waits in vain and nobody is told."""
    s = make("V")
    assert requests(s.inside(IP(src=C, dst=ADDRESS_L) / ICMP(id=1) / Raw(b"ping"))) == [(C, BROADCAST)]
    assert packets(s.advance(10)) == []
    assert s.count(Drop.ARP_NO_ANSWER) == 1
    s.inside(IP(src=C, dst="10.1.1.1") / ICMP(id=1))
    assert packets(s.advance(10)) == [], "nor an error about an error"
    assert not any(out.ip.haslayer(ICMPerror) for out in packets(s.advance(1)))
