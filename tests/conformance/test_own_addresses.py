"""Packets to our own addresses: the section of that name in the interface, sentence by sentence."""

from __future__ import annotations

import pytest
from scapy.layers.inet import fragment
from scapy.packet import Packet as ScapyPacket

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
    ADDRESS_O,
    ADDRESS_V,
    HOST,
    ICMP,
    IP,
    TCP,
    UDP,
    A,
    B,
    E,
    F,
    Raw,
)
from tests.conformance.packets import only, raw_ip, way
from wire.drop import Drop

SOURCES = {"L": A, "O": E, "U": HOST, "V": E}
OURS = {"tap0": ADDRESS_L, "tap1": ADDRESS_O, "vpn": ADDRESS_V, "tun0": HOST}
FORWARD = """
[[alias.forward]]
on = "{on}"
protocol = "{protocol}"
outside_port = 8080
inside = "{inside}"
"""


def udp(source: str, destination: str, sport: int = 5000, dport: int = 53) -> ScapyPacket:
    return IP(src=source, dst=destination) / UDP(sport=sport, dport=dport) / b"data"


def syn(source: str, destination: str, sport: int = 5000, dport: int = 80) -> ScapyPacket:
    return IP(src=source, dst=destination) / TCP(sport=sport, dport=dport, flags="S", seq=1)


def others(source: str, destination: str) -> list[ScapyPacket]:
    """One packet of everything that is no echo request."""
    head = IP(src=source, dst=destination)
    return [
        udp(source, destination),
        syn(source, destination),
        head / TCP(sport=5000, dport=80, flags="SA", ack=9),
        head / TCP(sport=5000, dport=80, flags="R"),
        head / ICMP(type=0, id=7),
        head / ICMP(type=13, id=7, ts_ori=1, ts_rx=0, ts_tx=0),
        head / ICMP(type=17, id=7) / bytes(4),
        head / ICMP(type=3, code=3) / IP(src=destination, dst=source) / UDP(sport=53, dport=5000),
        head / ICMP(type=5, code=1) / IP(src=destination, dst=source) / UDP(sport=53, dport=5000),
        *(IP(src=source, dst=destination, proto=number) / Raw(bytes(24)) for number in (2, 47, 50, 132, 136, 33, 253)),
    ]


def on_our_side(egress: str) -> str:
    return "tap1" if egress == "O" else "vpn"


# Echo


@pytest.mark.parametrize("port", SOURCES)
@pytest.mark.parametrize("name", OURS)
def test_echo_is_answered_where_it_is_internal_or_the_sides_own(make: MakeScenario, port: str, name: str) -> None:
    s = make("O")
    address = OURS[name]
    request = IP(src=SOURCES[port], dst=address) / ICMP(id=7, seq=9) / Raw(b"ping")
    outs = s.inject(port, request)
    if port == "V" and name == "tun0":
        handed = only(outs)
        assert (handed.port, handed.ip.dst, handed.ip[ICMP].type, handed.ip.ttl) == ("U", HOST, 8, 63)
    elif port in "LU" or (port, name) in (("O", "tap1"), ("V", "vpn")):
        answer = only(outs)
        assert (answer.port, answer.ip.src, answer.ip.dst) == (port, address, SOURCES[port])
        assert raw_ip(answer)[20:] == bytes(ICMP(type=0, id=7, seq=9) / b"ping")
    else:
        assert outs == []
        assert s.dropped == Drop.ROUTE_NOT_FROM_OUTSIDE


def test_echo_to_tap1_is_the_configurations_choice_only_for_the_isp_side(make: MakeScenario) -> None:
    s = make("O", toml="[icmp]\nanswer_on_tap1 = false\n")
    assert s.inject("O", IP(src=E, dst=ADDRESS_O) / ICMP(id=7)) == []
    assert s.dropped == Drop.LOCAL_SILENT
    for part in fragment(IP(src=E, dst=ADDRESS_O, id=4) / ICMP(id=7) / Raw(bytes(3000)), 1480):
        assert s.inject("O", part) == []
    for port in "LU":
        assert len(s.inject(port, IP(src=SOURCES[port], dst=ADDRESS_O) / ICMP(id=7))) == 1


# tun0's address


def test_anything_else_to_tun0s_address_is_handed_to_tun0(make: MakeScenario) -> None:
    s = make("O")
    for port, source in (("L", A), ("V", E)):
        for packet in others(source, HOST):
            out = only(s.inject(port, packet))
            assert (out.port, out.ip.src, out.ip.dst, out.ip.ttl) == ("U", source, HOST, 63)
            assert raw_ip(out)[20:] == bytes(packet)[20:], "nothing is rewritten"
    assert list(s.gateway.aliases.links(s.now)) == []


def test_fragments_to_tun0s_address_follow_their_first_one(make: MakeScenario) -> None:
    for port, source in (("L", A), ("V", E)):
        s = make("O")
        first, second, third = fragment(IP(src=source, dst=HOST, id=4) / UDP(sport=1, dport=2) / bytes(3600), 1400)
        assert s.inject(port, third) == []
        outs = s.inject(port, first) + s.inject(port, second)
        assert [(out.port, out.ip.frag * 8) for out in outs] == [("U", 0), ("U", 2800), ("U", 1400)]


def test_from_the_isp_side_tun0s_address_is_not_open(make: MakeScenario) -> None:
    s = make("O")
    for packet in others(E, HOST):
        assert s.inject("O", packet) == []
        assert s.dropped == Drop.ROUTE_NOT_FROM_OUTSIDE


# tap0's address


def test_anything_else_from_the_lan_to_tap0s_address_is_refused(make: MakeScenario) -> None:
    """3/3 for UDP, a reset for TCP, 3/2 for other protocols; ICMP that asks for nothing gets nothing."""
    for port, source in (("L", A), ("U", HOST)):
        for number, packet in enumerate(others(source, ADDRESS_L)):
            s = make("O")
            outs = s.inject(port, packet)
            if packet.proto == 1 or number == 3:
                assert outs == [], packet.summary()
                continue
            out = only(outs)
            assert (out.port, out.ip.src, out.ip.dst) == (port, ADDRESS_L, source)
            if packet.proto == 6:
                assert "R" in str(out.ip[TCP].flags)
            else:
                assert (out.ip[ICMP].type, out.ip[ICMP].code) == (3, 3 if packet.proto == 17 else 2)


def test_fragments_to_tap0s_address_are_refused_once(make: MakeScenario) -> None:
    s = make("O")
    parts = fragment(udp(A, ADDRESS_L) / bytes(3000), 1480)
    outs = [out for part in parts for out in s.inside(part)]
    assert (only(outs).ip[ICMP].type, only(outs).ip[ICMP].code) == (3, 3)
    assert s.count(Drop.FRAGMENT_DATAGRAM_DROPPED) == 2
    assert s.advance(60) == []


# From tap1 and vpn: link, else static forward, else silence


@pytest.mark.parametrize("port", ["O", "V"])
def test_what_no_link_knows_meets_silence(make: MakeScenario, port: str) -> None:
    s = make(port)
    for address in OURS.values():
        if (port, address) == ("V", HOST):
            continue
        for number, packet in enumerate(others(E, address)):
            packet.ttl = (64, 1)[number % 2]
            assert s.inject(port, packet) == [], packet.summary()
    assert len(s.drops) == len(others(E, A)) * (4 if port == "O" else 3)
    assert s.advance(30) == []
    assert len(s.drops) == len(others(E, A)) * (4 if port == "O" else 3)


def test_a_stranger_with_a_bad_option_meets_silence_too(make: MakeScenario, egress: str) -> None:
    """A port scan by malformed options would tell what is behind our address; who has a link hears of its option."""
    s = make(egress)
    bad = b"\x07\x01\x00\x00"
    for address in (s.X, A, "8.8.8.8"):
        for packet in (udp(E, address), syn(E, address), IP(src=E, dst=address) / ICMP(id=1)):
            packet.options = [bad]
            assert s.outside(packet) == []
            assert s.dropped == Drop.IP_OPTION
    link = only(s.inside(udp(A, E)))
    packet = udp(E, s.X, 53, link.ip.sport)
    packet.options = [bad]
    out = only(s.outside(packet))
    assert (out.port, out.ip.src, out.ip[ICMP].type) == (egress, s.X, 12)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_static_forward_lets_strangers_in_where_no_link_does(make: MakeScenario, egress: str, protocol: str) -> None:
    s = make(egress, toml=FORWARD.format(on=on_our_side(egress), protocol=protocol, inside=f"{A}:80"))
    build = udp if protocol == "udp" else syn
    for stranger in (E, F, "198.51.100.77"):
        assert way(only(s.outside(build(stranger, s.X, 999, 8080)))) == ("L", (stranger, 999), (A, 80))
        reply = only(s.inside(udp(A, stranger, 80, 999) if protocol == "udp" else syn(A, stranger, 80, 999)))
        assert way(reply) == (egress if stranger != "198.51.100.77" else reply.port, (s.X, 8080), (stranger, 999))
    assert s.outside(build(E, s.X, 999, 8081)) == [], "the next port is not open"
    assert s.outside((syn if protocol == "udp" else udp)(E, s.X, 999, 8080)) == [], "nor the other protocol's"


def test_a_static_forward_may_lead_to_the_host(make: MakeScenario, egress: str) -> None:
    s = make(egress, toml=FORWARD.format(on=on_our_side(egress), protocol="tcp", inside=f"{HOST}:80"))
    assert way(only(s.outside(syn(E, s.X, 999, 8080)))) == ("U", (E, 999), (HOST, 80))


@pytest.mark.parametrize("filtering", ["endpoint-independent", "address-dependent"])
def test_a_static_forward_lets_strangers_in_under_every_filtering(
    make: MakeScenario, egress: str, filtering: str
) -> None:
    toml = f'[alias]\nfiltering = "{filtering}"\n'
    s = make(egress, toml=toml + FORWARD.format(on=on_our_side(egress), protocol="udp", inside=f"{A}:53"))
    assert way(only(s.outside(udp(F, s.X, 999, 8080)))) == ("L", (F, 999), (A, 53))
    link = only(s.inside(udp(B, E, 6000, 53)))
    stranger = s.outside(udp(F, s.X, 53, link.ip.sport))
    assert len(stranger) == (filtering == "endpoint-independent")


@pytest.mark.parametrize("filtering", ["endpoint-independent", "address-dependent"])
def test_a_hairpin_is_not_filtered(make: MakeScenario, egress: str, filtering: str) -> None:
    s = make(egress, toml=f'[alias]\nfiltering = "{filtering}"\n')
    link = only(s.inside(udp(A, E)))
    turned = only(s.inside(udp(B, s.X, 6000, link.ip.sport)))
    assert way(turned) == ("L", (s.X, 6000), (A, 5000))
    back = only(s.inside(udp(A, s.X, 5000, 6000)))
    assert way(back) == ("L", (s.X, 5000), (B, 6000))


def test_the_host_reaches_a_lan_host_by_its_outside_name_too(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    link = only(s.inside(udp(A, E)))
    turned = only(s.inject("U", udp(HOST, s.X, 6000, link.ip.sport)))
    assert way(turned) == ("L", (s.X, 6000), (A, 5000))
    assert way(only(s.inside(udp(A, s.X, 5000, 6000)))) == ("U", (s.X, 5000), (HOST, 6000))


def test_from_inside_an_outside_name_that_nobody_has_meets_silence(make: MakeScenario) -> None:
    s = make("O")
    for port, source in (("L", A), ("U", HOST)):
        for address in (ADDRESS_O, ADDRESS_V):
            for packet in others(source, address):
                assert s.inject(port, packet) == [], packet.summary()
    assert list(s.gateway.aliases.links(s.now)) == []


def test_each_side_knows_its_own_name_only(make: MakeScenario) -> None:
    """X of one egress is nobody's on the other: a link on O is not reached from V, nor the other way."""
    s = make("O")
    near = only(s.inside(udp(A, E)))
    far = only(s.inside(udp(A, "8.8.8.8")))
    assert s.inject("V", udp(E, ADDRESS_O, 53, near.ip.sport)) == []
    assert s.inject("O", udp("8.8.8.8", ADDRESS_V, 53, far.ip.sport)) == []
    assert s.count(Drop.ROUTE_NOT_FROM_OUTSIDE) == 2
