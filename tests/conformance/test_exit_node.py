"""The exit role: what peers reach through a machine without a LAN, and what of theirs leaves by its tap1."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.layers.inet import IPOption

from tests.conformance.conftest import MakeScenario
from tests.conformance.exit_node import (
    ALICE,
    AT_ALICE,
    AT_BOB,
    AT_CAROL,
    BEHIND_ALICE,
    BEHIND_CAROL,
    BOB,
    CAROL,
    CONFIGURATION,
    EXIT,
    WORLD,
    ends,
)
from tests.conformance.harness import ADDRESS_O, ICMP, IP, TCP, UDP, E, F, IPerror, Scenario, UDPerror
from tests.conformance.packets import echo, error, only, raw_ip, tcp, udp
from wire.drop import Drop

MakeExit = Callable[..., Scenario]
ROUTER = "198.51.100.1"  # somewhere on the way behind tap1


@pytest.fixture
def exit_node(make: MakeScenario) -> MakeExit:
    def build(toml: str = "", **options: object) -> Scenario:
        return make("O", toml, configuration=CONFIGURATION, **options)

    return build


# To the host


@pytest.mark.parametrize("destination", [WORLD, E, EXIT, "10.9.9.9", "192.168.1.77", "10.8.0.200", "172.16.0.1"])
def test_a_peers_packets_go_to_the_kernel_as_they_are(exit_node: MakeExit, destination: str) -> None:
    s = exit_node()
    out = only(s.inject(AT_ALICE, udp((ALICE, 5000), (destination, 53), ttl=64)))
    assert ends(out) == ("U", ALICE, destination)
    assert out.ip.ttl == 63
    back = only(s.inject("U", udp((destination, 53), (ALICE, 5000), ttl=60)))
    assert ends(back) == (AT_ALICE, destination, ALICE)
    assert back.ip.ttl == 59
    assert list(s.gateway.aliases.links(s.now)) == []


def test_the_kernels_answers_reach_networks_behind_a_peer(exit_node: MakeExit) -> None:
    s = exit_node()
    assert only(s.inject("U", udp((WORLD, 53), (BEHIND_ALICE, 5000)))).port == AT_ALICE
    assert only(s.inject("U", udp((WORLD, 53), (BEHIND_CAROL, 5000)))).port == AT_CAROL
    assert only(s.inject("U", echo((EXIT, 7), BOB))).port == AT_BOB


def test_what_the_kernel_sends_to_nobodys_address_is_unreachable(exit_node: MakeExit) -> None:
    s = exit_node()
    for destination in ("10.8.0.200", "10.9.9.9", WORLD):
        told = only(s.inject("U", udp((ALICE, 5000), (destination, 53))))
        assert (told.port, told.ip[ICMP].type, told.ip[ICMP].code) == ("U", 3, 0)


def test_q1_the_tunnels_mtu_holds_for_what_the_kernel_sends(exit_node: MakeExit) -> None:
    """Q1: without [vpn] it is 1420. The host takes no error from its own address: it speaks for the destination."""
    s = exit_node(replace=(('[tap1]\naddress = "192.168.1.2/24"', '[tap1]\naddress = "192.168.1.2/24"\nmtu = 1500'),))
    big = IP(src=WORLD, dst=ALICE, flags="DF") / UDP(sport=53, dport=5000) / bytes(1393)
    told = only(s.inject("U", big))
    assert ends(told) == ("U", ADDRESS_O, WORLD)
    assert (told.ip[ICMP].type, told.ip[ICMP].code, told.ip[ICMP].nexthopmtu) == (3, 4, 1420)
    pieces = s.inject("U", IP(src=WORLD, dst=ALICE, id=9) / UDP(sport=53, dport=5000) / bytes(3000))
    assert [(out.port, out.ip.frag * 8) for out in pieces] == [
        (AT_ALICE, 0),
        (AT_ALICE, 1400 - 1400 % 8),
        (AT_ALICE, 2800 - 2800 % 8),
    ]


def test_an_exit_node_with_tun0_alone_tells_the_kernel_in_the_destinations_name(exit_node: MakeExit) -> None:
    alone = CONFIGURATION[CONFIGURATION.index("[tun0]") : CONFIGURATION.index("[offload]")].replace("exit = true\n", "")
    s = exit_node()
    s = Scenario(s.path.parent, "O", configuration=alone + "[offload]\n")
    told = only(s.inject("U", IP(src=WORLD, dst=ALICE, flags="DF") / UDP(sport=53, dport=5000) / bytes(1393)))
    assert ends(told) == ("U", ALICE, WORLD)
    assert told.ip[ICMP].nexthopmtu == 1420
    assert ends(only(s.inject(AT_BOB, udp((BOB, 5000), (WORLD, 53))))) == ("U", BOB, WORLD)


def test_g29_the_maximum_segment_is_that_of_the_tunnel_both_ways(exit_node: MakeExit) -> None:
    s = exit_node()
    for port, source, destination in (
        (AT_ALICE, ALICE, WORLD),
        ("U", WORLD, ALICE),
        (AT_BOB, BOB, E),
        (AT_ALICE, ALICE, BOB),
    ):
        syn = tcp((source, 5000), (destination, 80), "S", options=[("MSS", 1460)])
        assert dict(only(s.inject(port, syn)).ip[TCP].options)["MSS"] == 1380


# Who may send what


@pytest.mark.parametrize(
    ("port", "source", "reason"),
    [
        (AT_ALICE, BOB, Drop.TUNNEL_INNER_SOURCE),
        (AT_ALICE, "10.20.7.1", Drop.TUNNEL_INNER_SOURCE),  # a longer prefix is carol's
        (AT_BOB, ALICE, Drop.TUNNEL_INNER_SOURCE),
        (AT_BOB, WORLD, Drop.TUNNEL_INNER_SOURCE),
        (AT_BOB, "10.8.0.200", Drop.TUNNEL_INNER_SOURCE),
        (AT_ALICE, EXIT, Drop.IP_MARTIAN_SOURCE),
        (AT_BOB, ADDRESS_O, Drop.IP_MARTIAN_SOURCE),
        (AT_BOB, "10.8.0.255", Drop.IP_MARTIAN_SOURCE),
        (AT_BOB, "127.0.0.1", Drop.IP_MARTIAN_SOURCE),
    ],
)
def test_w22_a_source_that_is_not_the_peers_is_dropped_in_silence(
    exit_node: MakeExit, port: str, source: str, reason: Drop
) -> None:
    s = exit_node()
    for destination in (WORLD, EXIT, CAROL, ADDRESS_O):
        assert s.inject(port, udp((source, 5000), (destination, 53))) == []
        assert s.dropped == reason
        assert s.inject(port, udp((source, 5000), (destination, 53), ttl=1)) == []


def test_w22_a_fragment_with_anothers_source_is_dropped_too(exit_node: MakeExit) -> None:
    s = exit_node()
    assert s.inject(AT_BOB, IP(src=ALICE, dst=WORLD, frag=20, proto=17) / bytes(64)) == []
    assert s.dropped == Drop.TUNNEL_INNER_SOURCE


# Peers among themselves


def test_peers_reach_each_other_by_the_longest_prefix(exit_node: MakeExit) -> None:
    s = exit_node()
    for port, source, destination, wanted in (
        (AT_ALICE, ALICE, BOB, AT_BOB),
        (AT_BOB, BOB, ALICE, AT_ALICE),
        (AT_BOB, BOB, BEHIND_ALICE, AT_ALICE),
        (AT_BOB, BOB, BEHIND_CAROL, AT_CAROL),
        (AT_ALICE, BEHIND_ALICE, BEHIND_CAROL, AT_CAROL),
    ):
        out = only(s.inject(port, udp((source, 5000), (destination, 53), ttl=64)))
        assert ends(out) == (wanted, source, destination)
        assert out.ip.ttl == 63
    assert list(s.gateway.aliases.links(s.now)) == []


@pytest.mark.parametrize(
    ("port", "source", "destination"),
    [
        (AT_ALICE, ALICE, BEHIND_ALICE),
        (AT_ALICE, BEHIND_ALICE, ALICE),
        (AT_BOB, BOB, BOB),
        (AT_CAROL, CAROL, BEHIND_CAROL),
    ],
)
def test_g33_nothing_goes_back_into_the_session_that_it_came_from(
    exit_node: MakeExit, port: str, source: str, destination: str
) -> None:
    s = exit_node()
    for packet in (udp((source, 5000), (destination, 53)), echo((source, 1), destination)):
        assert s.inject(port, packet) == []
        assert s.dropped == Drop.ROUTE_REFLECTED


def test_g32_between_peers_the_exit_shows_tun0s_address(exit_node: MakeExit) -> None:
    s = exit_node()
    told = only(s.inject(AT_ALICE, udp((ALICE, 5000), (BOB, 53), ttl=1)))
    assert ends(told) == (AT_ALICE, EXIT, ALICE)
    assert told.ip[ICMP].type == 11
    back = only(
        s.inject(AT_BOB, error(BOB, ALICE, 3, 3, raw_ip(only(s.inject(AT_ALICE, udp((ALICE, 5000), (BOB, 53)))))))
    )
    assert ends(back) == (AT_ALICE, BOB, ALICE)


def test_a_peer_that_cannot_be_reached_is_told_to_the_others(exit_node: MakeExit) -> None:
    s = exit_node()
    s.replayable = False
    s.gateway.nodes.unreachable = {"bob"}
    for port, source in ((AT_ALICE, ALICE), ("U", WORLD)):
        told = only(s.inject(port, udp((source, 5000), (BOB, 53))))
        assert (told.port, told.ip[ICMP].type, told.ip[ICMP].code) == (port, 3, 1)
        assert s.dropped == Drop.ROUTE_NO_TUNNEL
    assert s.gateway.nodes.wanted == {"bob"}


# By tap1


@pytest.mark.parametrize(
    "packet",
    [
        udp((BOB, 5000), (WORLD, 53)),
        tcp((BOB, 5000), (E, 443), "S"),
        echo((BOB, 77), WORLD),
        udp((BOB, 5000), ("192.168.1.77", 53)),
    ],
    ids=["udp", "tcp", "echo", "the ISP's subnet"],
)
def test_u1_a_peer_with_exit_leaves_by_tap1_under_its_address(exit_node: MakeExit, packet: IP) -> None:
    """U1: and the reply finds its way back into the peer's session."""
    s = exit_node()
    packet.ttl = 64
    out = only(s.inject(AT_BOB, packet))
    assert ends(out) == ("O", ADDRESS_O, packet.dst)
    assert out.ip.ttl == 63
    reply = IP(src=packet.dst, dst=ADDRESS_O, ttl=60)
    if TCP in out.ip:
        reply /= TCP(sport=out.ip.dport, dport=out.ip.sport, flags="SA", ack=1)
    elif UDP in out.ip:
        reply /= UDP(sport=out.ip.dport, dport=out.ip.sport)
    else:
        reply /= ICMP(type=0, id=out.ip[ICMP].id)
    back = only(s.inject("O", reply))
    assert ends(back) == (AT_BOB, packet.dst, BOB)
    assert back.ip.ttl == 59
    (link,) = s.gateway.aliases.links(s.now)
    assert link.inside == int.from_bytes(bytes((10, 8, 0, 3)), "big")


def test_u3_two_peers_with_one_port_do_not_share_it_outside(exit_node: MakeExit) -> None:
    s = exit_node()
    bob = only(s.inject(AT_BOB, udp((BOB, 5000), (E, 53)))).ip.sport
    carol = only(s.inject(AT_CAROL, udp((BEHIND_CAROL, 5000), (E, 53)))).ip.sport
    assert bob != carol
    assert ends(only(s.inject("O", udp((E, 53), (ADDRESS_O, bob))))) == (AT_BOB, E, BOB)
    assert ends(only(s.inject("O", udp((E, 53), (ADDRESS_O, carol))))) == (AT_CAROL, E, BEHIND_CAROL)


@pytest.mark.parametrize("destination", ["10.9.9.9", "172.16.5.5", "192.168.7.7", "100.64.1.1", "10.8.0.200"])
def test_private_ranges_do_not_leave_by_tap1(exit_node: MakeExit, destination: str) -> None:
    s = exit_node()
    told = only(s.inject(AT_BOB, udp((BOB, 5000), (destination, 53))))
    assert ends(told) == (AT_BOB, EXIT, BOB)
    assert (told.ip[ICMP].type, told.ip[ICMP].code) == (3, 0)
    assert s.dropped == Drop.ROUTE_UNREACHABLE


def test_a_peer_with_exit_still_reaches_the_host_and_the_other_peers(exit_node: MakeExit) -> None:
    s = exit_node()
    assert ends(only(s.inject(AT_BOB, udp((BOB, 5000), (EXIT, 53))))) == ("U", BOB, EXIT)
    assert ends(only(s.inject(AT_BOB, udp((BOB, 5000), (ALICE, 53))))) == (AT_ALICE, BOB, ALICE)


def test_a_peer_without_exit_gets_nothing_from_tap1(exit_node: MakeExit) -> None:
    s = exit_node()
    for packet in (
        udp((ALICE, 5000), (ADDRESS_O, 53)),
        echo((ALICE, 1), ADDRESS_O),
        tcp((ALICE, 5), (ADDRESS_O, 80), "S"),
    ):
        assert s.inject(AT_ALICE, packet) == []
        assert s.dropped == Drop.ROUTE_NOT_FROM_OUTSIDE
    out = only(s.inject("U", udp((ALICE, 5000), (BOB, 53))))
    assert out.port == AT_BOB, "the kernel may send it on"
    assert s.inject("U", udp((ALICE, 5000), (E, 53))) == [], "but not by tap1, though E is offloaded"
    assert s.dropped == Drop.ROUTE_NOT_FROM_OUTSIDE


def test_the_kernel_cannot_turn_a_peer_without_exit_round_at_tap1s_address(exit_node: MakeExit) -> None:
    s = exit_node()
    bobs = only(s.inject(AT_BOB, udp((BOB, 5000), (E, 53)))).ip.sport
    assert s.inject("U", udp((ALICE, 5000), (ADDRESS_O, bobs))) == []
    assert s.dropped == Drop.ROUTE_NOT_FROM_OUTSIDE
    assert len(list(s.gateway.aliases.links(s.now))) == 1, "or strangers at tap1 could write to her by hers"
    turned = only(s.inject("U", udp((EXIT, 5000), (ADDRESS_O, bobs))))
    assert ends(turned) == (AT_BOB, ADDRESS_O, BOB)


def test_what_lives_behind_the_kernel_may_borrow_tap1s_address(exit_node: MakeExit) -> None:
    s = exit_node()
    out = only(s.inject("U", udp(("172.17.0.2", 5000), (E, 53))))
    assert ends(out) == ("O", ADDRESS_O, E)
    assert ends(only(s.inject("O", udp((E, 53), (ADDRESS_O, out.ip.sport))))) == ("U", E, "172.17.0.2")
    host = only(s.inject("U", udp((EXIT, 5001), (E, 53))))
    assert ends(only(s.inject("O", udp((E, 53), (ADDRESS_O, host.ip.sport))))) == ("U", E, EXIT)


def test_strangers_at_tap1_meet_silence(exit_node: MakeExit) -> None:
    s = exit_node()
    for destination in (EXIT, ALICE, BOB, BEHIND_ALICE, WORLD, F, "10.8.0.200"):
        for packet in (
            udp((E, 9), (destination, 53)),
            tcp((E, 9), (destination, 80), "S"),
            echo((E, 1), destination),
            udp((E, 9), (destination, 53), ttl=1),
            IP(src=E, dst=destination, options=[IPOption(b"\x5e\x01")]) / UDP(sport=9, dport=53),
        ):
            assert s.inject("O", packet) == []
    assert s.inject("O", udp((E, 9), (ADDRESS_O, 53))) == []
    assert s.dropped == Drop.ALIAS_NO_LINK


# Errors


def test_i4_errors_from_behind_tap1_reach_the_peer_about_its_own_packet(exit_node: MakeExit) -> None:
    """I4: traceroute and path MTU discovery of somebody behind the peer."""
    s = exit_node()
    hop = only(s.inject(AT_CAROL, udp((BEHIND_CAROL, 5000), (E, 33434), ttl=1)))
    assert ends(hop) == (AT_CAROL, EXIT, BEHIND_CAROL)
    assert hop.ip[ICMP].type == 11
    sent = only(s.inject(AT_CAROL, udp((BEHIND_CAROL, 5000), (E, 33434), ttl=2)))
    for kind, code, mtu in ((11, 0, 0), (3, 4, 1280), (3, 3, 0)):
        told = only(s.inject("O", error(ROUTER, ADDRESS_O, kind, code, raw_ip(sent), mtu)))
        assert ends(told) == (AT_CAROL, ROUTER, BEHIND_CAROL)
        assert (told.ip[ICMP].type, told.ip[ICMP].code) == (kind, code)
        assert not mtu or told.ip[ICMP].nexthopmtu == mtu
        quoted = told.ip[IPerror]
        assert (quoted.src, quoted[UDPerror].sport, quoted.dst) == (BEHIND_CAROL, 5000, E)


def test_i5_a_peers_error_leaves_by_tap1_under_its_address(exit_node: MakeExit) -> None:
    s = exit_node()
    mapped = only(s.inject(AT_BOB, udp((BOB, 5000), (E, 53)))).ip.sport
    got = only(s.inject("O", udp((E, 53), (ADDRESS_O, mapped))))
    told = only(s.inject(AT_BOB, error(BOB, E, 3, 3, raw_ip(got))))
    assert ends(told) == ("O", ADDRESS_O, E)
    assert (told.ip[IPerror].dst, told.ip[UDPerror].dport) == (ADDRESS_O, mapped)


def test_q1_a_remote_hears_that_the_tunnel_is_narrower(exit_node: MakeExit) -> None:
    s = exit_node()
    mapped = only(s.inject(AT_BOB, udp((BOB, 5000), (E, 53)))).ip.sport
    big = IP(src=E, dst=ADDRESS_O, flags="DF") / UDP(sport=53, dport=mapped) / bytes(1393)
    told = only(s.inject("O", big))
    assert ends(told) == ("O", ADDRESS_O, E)
    assert (told.ip[ICMP].code, told.ip[ICMP].nexthopmtu) == (4, 1420)


def test_an_answer_that_does_not_reach_the_peer_is_told_to_the_remote(exit_node: MakeExit) -> None:
    s = exit_node()
    s.replayable = False
    mapped = only(s.inject(AT_BOB, udp((BOB, 5000), (E, 53)))).ip.sport
    lost = only(s.inject("O", udp((E, 53), (ADDRESS_O, mapped))))
    told = only(s._collect(s.gateway.undelivered(AT_BOB, lost.frame, s.now)))
    assert ends(told) == ("O", ADDRESS_O, E)
    assert (told.ip[ICMP].type, told.ip[ICMP].code, told.ip[UDPerror].dport) == (3, 1, mapped)
    from_alice = only(s.inject(AT_ALICE, udp((ALICE, 5000), (BOB, 53))))
    told = only(s._collect(s.gateway.undelivered(AT_BOB, from_alice.frame, s.now)))
    assert ends(told) == (AT_ALICE, EXIT, ALICE)
    from_host = only(s.inject("U", udp((EXIT, 5000), (BOB, 53))))
    told = only(s._collect(s.gateway.undelivered(AT_BOB, from_host.frame, s.now)))
    assert (told.port, told.ip.dst) == ("U", EXIT)
    from_world = only(s.inject("U", udp((WORLD, 5000), (ALICE, 53))))
    told = only(s._collect(s.gateway.undelivered(AT_ALICE, from_world.frame, s.now)))
    assert (told.port, told.ip.dst, told.ip[IPerror].dst) == ("U", WORLD, ALICE)


# Fragments


@pytest.mark.parametrize("order", ["in order", "reversed"])
def test_f2_fragments_pass_both_ways_through_tap1(exit_node: MakeExit, order: str) -> None:
    s = exit_node()
    data = bytes(range(256)) * 8
    whole = bytes(UDP(sport=5000, dport=53, chksum=0, len=8 + len(data)) / data)

    def parts(source: str, destination: str, body: bytes) -> list[IP]:
        cut = [(0, body[:800], 1), (100, body[800:1600], 1), (200, body[1600:], 0)]
        made = [IP(src=source, dst=destination, id=7, proto=17, frag=at, flags=mf) / piece for at, piece, mf in cut]
        return made if order == "in order" else made[::-1]

    outs = [out for part in parts(BOB, E, whole) for out in s.inject(AT_BOB, part)]
    assert {ends(out) for out in outs} == {("O", ADDRESS_O, E)}
    assert sorted(out.ip.frag for out in outs) == [0, 100, 200]
    mapped = next(out for out in outs if not out.ip.frag).ip.sport
    answer = bytes(UDP(sport=53, dport=mapped, chksum=0, len=8 + len(data)) / data)
    outs = [out for part in parts(E, ADDRESS_O, answer) for out in s.inject("O", part)]
    assert {ends(out) for out in outs} == {(AT_BOB, E, BOB)}
    assert b"".join(bytes(out.ip.payload) for out in sorted(outs, key=lambda out: out.ip.frag))[8:] == data


def test_f2_fragments_pass_between_peers_and_to_the_host(exit_node: MakeExit) -> None:
    s = exit_node()
    for destination, port in ((BOB, AT_BOB), (WORLD, "U")):
        for at, flags in ((20, 0), (0, 1)):
            body = bytes(160) if at else bytes(UDP(sport=5000, dport=53, chksum=0, len=320)) + bytes(152)
            outs = s.inject(AT_ALICE, IP(src=ALICE, dst=destination, id=8, proto=17, frag=at, flags=flags) / body)
        assert [(out.port, out.ip.frag) for out in outs] == [(port, 0), (port, 20)]


# Our own address on tap1


def test_u9_peers_meet_at_tap1s_address(exit_node: MakeExit) -> None:
    s = exit_node()
    bob = only(s.inject(AT_BOB, udp((BOB, 5000), (E, 53)))).ip.sport
    out = only(s.inject(AT_CAROL, udp((CAROL, 6000), (ADDRESS_O, bob))))
    assert ends(out) == (AT_BOB, ADDRESS_O, BOB)
    assert (out.ip.sport, out.ip.dport) == (6000, 5000)
    back = only(s.inject(AT_BOB, udp((BOB, 5000), (ADDRESS_O, 6000))))
    assert ends(back) == (AT_CAROL, ADDRESS_O, CAROL)
    host = only(s.inject("U", udp((EXIT, 7000), (ADDRESS_O, bob))))
    assert ends(host) == (AT_BOB, ADDRESS_O, BOB)
    refusal = only(s.inject(AT_BOB, error(BOB, ADDRESS_O, 3, 3, raw_ip(out))))
    assert ends(refusal) == (AT_CAROL, ADDRESS_O, CAROL)
    assert ends(only(s.inject(AT_BOB, echo((BOB, 1), ADDRESS_O)))) == (AT_BOB, ADDRESS_O, BOB)


FORWARD = f"""
[[alias.forward]]
on = "tap1"
protocol = "tcp"
outside_port = 8080
inside = "{ALICE}:80"
"""


def test_m1_a_forward_leads_to_a_peer_and_its_answers_leave_by_tap1(exit_node: MakeExit) -> None:
    s = exit_node(FORWARD)
    asked = only(s.inject("O", tcp((F, 9), (ADDRESS_O, 8080), "S", seq=1)))
    assert ends(asked) == (AT_ALICE, F, ALICE)
    assert asked.ip.dport == 80
    answer = only(s.inject(AT_ALICE, tcp((ALICE, 80), (F, 9), "SA", seq=7, ack=2)))
    assert ends(answer) == ("O", ADDRESS_O, F)
    assert answer.ip.sport == 8080
    refusal = only(s.inject(AT_ALICE, error(ALICE, F, 3, 3, raw_ip(asked))))
    assert ends(refusal) == ("O", ADDRESS_O, F)
    # What alice begins herself goes where it always did.
    for packet in (tcp((ALICE, 80), (E, 9), "S"), tcp((ALICE, 80), (F, 10), "S"), udp((ALICE, 80), (F, 9))):
        assert ends(only(s.inject(AT_ALICE, packet))) == ("U", ALICE, packet.dst)
    assert s.inject(AT_ALICE, tcp((ALICE, 80), (ADDRESS_O, 22), "S")) == []


def test_m1_visitors_of_a_peer_are_forgotten_with_its_forward(exit_node: MakeExit) -> None:
    s = exit_node(FORWARD)
    s.inject("O", tcp((F, 9), (ADDRESS_O, 8080), "S"))
    s.reload()
    assert only(s.inject(AT_ALICE, tcp((ALICE, 80), (F, 9), "SA", ack=1))).port == "U"


def test_exempt_remotes_and_peers_see_each_other_by_tap1(exit_node: MakeExit) -> None:
    s = exit_node(f'[alias]\nexempt = ["{E}/32"]\n')
    out = only(s.inject(AT_BOB, udp((BOB, 5000), (E, 53))))
    assert ends(out) == ("O", BOB, E)
    assert ends(only(s.inject("O", udp((E, 53), (BOB, 5000))))) == (AT_BOB, E, BOB)
    assert s.inject("O", udp((E, 53), (ALICE, 5000))) == [], "alice does not leave by tap1"
    assert s.inject("O", udp((F, 53), (BOB, 5000))) == []


# Peers that may send from anywhere


def test_answers_go_to_the_first_peer_that_may_send_from_anywhere(exit_node: MakeExit) -> None:
    s = exit_node(
        replace=((f'["{BOB}/32"]', f'["{BOB}/32", "0.0.0.0/0"]'), (f'["{CAROL}/32", ', f'["0.0.0.0/0", "{CAROL}/32", '))
    )
    out = only(s.inject(AT_BOB, udp(("203.0.114.7", 5000), (E, 53))))
    assert ends(out) == ("O", ADDRESS_O, E)
    assert ends(only(s.inject("O", udp((E, 53), (ADDRESS_O, out.ip.sport))))) == (AT_BOB, E, "203.0.114.7")
    assert s.inject(AT_CAROL, udp(("203.0.114.8", 5000), (E, 53))) == [], "its answer would go to bob"
    assert s.inject(AT_CAROL, udp((ALICE, 5000), (E, 53))) == []
    assert s.dropped == Drop.TUNNEL_INNER_SOURCE
    assert s.inject("U", udp(("172.17.0.2", 5000), (E, 53))) == [], "nor can the kernel's answers be told apart"


# A reload


def test_a_reload_takes_exit_away_and_gives_it(exit_node: MakeExit) -> None:
    s = exit_node()
    mapped = only(s.inject(AT_BOB, udp((BOB, 5000), (E, 53)))).ip.sport
    with_alice = (
        (f'["{ALICE}/32", "10.20.0.0/16"]', f'["{ALICE}/32"]\nexit = true'),
        (f'["{BOB}/32"]\nexit = true', f'["{BOB}/32"]'),
    )
    s.reload(replace=with_alice)
    assert ends(only(s.inject(AT_BOB, udp((BOB, 5000), (E, 53))))) == ("U", BOB, E)
    assert ends(only(s.inject(AT_ALICE, udp((ALICE, 5000), (E, 53))))) == ("O", ADDRESS_O, E)
    assert s.inject(AT_ALICE, udp((BEHIND_ALICE, 5000), (E, 53))) == []
    assert s.dropped == Drop.TUNNEL_INNER_SOURCE
    assert ends(only(s.inject("O", udp((E, 53), (ADDRESS_O, mapped))))) == (AT_BOB, E, BOB), "what was asked for comes"
