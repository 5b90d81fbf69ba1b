"""Inside hosts that meet by their outside names (RFC 4787 REQ-9, RFC 5382 REQ-8): rows U9, U9a, T8 and M2."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import ADDRESS_L, ADDRESS_O, ADDRESS_V, HOST, ICMP, IP, UDP, A, B, E, Scenario
from tests.conformance.packets import Endpoint, echo, ends, error, only, payload, raw_ip, tcp, udp, way
from wire.drop import Drop

FORWARDS = """
[[alias.forward]]
on = "{on}"
protocol = "tcp"
outside_port = 8080
inside = "192.168.200.10:80"
[[alias.forward]]
on = "{on}"
protocol = "udp"
outside_port = 5353
inside = "192.168.200.10:53"
[[alias.forward]]
on = "{on}"
protocol = "tcp"
outside_port = 2222
inside = "192.168.192.211:22"
"""


def forwards(egress: str) -> str:
    """Two forwards to A and one to the host, on the egress of the scenario."""
    return FORWARDS.format(on="tap1" if egress == "O" else "vpn")


def named(s: Scenario, inside: Endpoint, remote: Endpoint = (E, 1), port: str = "L") -> Endpoint:
    """Let an inside endpoint send something out; its outside name."""
    return ends(only(s.inject(port, udp(inside, remote))))[0]


def test_u9_u9a_two_hosts_meet_by_their_outside_names(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    name_a = named(s, (A, 5000))
    got = only(s.inside(udp((B, 6000), name_a, b"knock")))
    assert (*way(got), payload(got)) == ("L", (s.X, 6000), (A, 5000), b"knock")
    assert (got.eth.dst, got.ip.ttl) == ("02:aa:00:00:00:0a", 63)
    back = only(s.inside(udp((A, 5000), (s.X, 6000), b"who")))
    assert (*way(back), payload(back)) == ("L", name_a, (B, 6000), b"who")
    assert back.eth.dst == "02:aa:00:00:00:0b"
    # B's name is the one that the whole world sees
    assert way(only(s.inside(udp((B, 6000), (E, 1))))) == (egress, (s.X, 6000), (E, 1))


def test_u9_a_host_meets_itself_without_a_loop(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    name = named(s, (A, 5000))
    assert way(only(s.inside(udp((A, 5000), name)))) == ("L", name, (A, 5000))
    assert way(only(s.inside(udp((A, 5001), name)))) == ("L", (s.X, 5001), (A, 5000))
    assert s.advance(10) == []


def test_u9_names_that_are_not_the_preferred_ones(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    named(s, ("192.168.200.12", 5000))
    name_a = named(s, (A, 5000))
    got = only(s.inside(udp((B, 5000), name_a)))
    name_b = ends(got)[0]
    assert len({name_a, name_b, (s.X, 5000)}) == 3
    assert way(got) == ("L", name_b, (A, 5000))
    assert way(only(s.inside(udp((A, 5000), name_b)))) == ("L", name_a, (B, 5000))


def test_u9_hairpin_works_on_the_address_of_either_egress_whatever_the_route(make: MakeScenario) -> None:
    s = make("O")
    name_o, name_v = named(s, (A, 5000)), named(s, (A, 5000), ("8.8.8.8", 1))
    assert (name_o, name_v) == ((ADDRESS_O, 5000), (ADDRESS_V, 5000))
    assert way(only(s.inside(udp((B, 6000), name_o)))) == ("L", (ADDRESS_O, 6000), (A, 5000))
    assert way(only(s.inside(udp((B, 6000), name_v)))) == ("L", (ADDRESS_V, 6000), (A, 5000))
    assert way(only(s.inside(udp((A, 5000), (ADDRESS_O, 6000))))) == ("L", name_o, (B, 6000))
    assert way(only(s.inside(udp((A, 5000), (ADDRESS_V, 6000))))) == ("L", name_v, (B, 6000))


def test_u9_the_host_itself_meets_a_lan_host_by_its_outside_name_and_back(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    name_a = named(s, (A, 5000))
    got = only(s.inject("U", udp((HOST, 6000), name_a)))
    assert way(got) == ("L", (s.X, 6000), (A, 5000))
    assert way(only(s.inside(udp((A, 5000), (s.X, 6000))))) == ("U", name_a, (HOST, 6000))
    # and what the host does in the tunnel goes on under its own address
    other = only(s.inject("U", udp((HOST, 6000), ("8.8.8.8", 1))))
    assert way(other) == ("V", (HOST, 6000), ("8.8.8.8", 1))


def test_u9_a_lan_host_meets_the_host_by_the_name_that_it_has_on_tap1(make: MakeScenario) -> None:
    s = make("O")
    name = named(s, (HOST, 7000), port="U")
    assert way(only(s.inside(udp((B, 6000), name)))) == ("U", (ADDRESS_O, 6000), (HOST, 7000))
    assert way(only(s.inject("U", udp((HOST, 7000), (ADDRESS_O, 6000))))) == ("L", name, (B, 6000))
    assert way(only(s.inject("U", udp((HOST, 7000), name)))) == ("U", name, (HOST, 7000)), "itself"


def test_u9_hairpin_is_not_filtered(make: MakeScenario, egress: str) -> None:
    s = make(egress, '[alias]\nfiltering = "address-dependent"\n')
    name_a = named(s, (A, 5000))
    assert s.outside(udp(("203.0.113.99", 1), name_a)) == []
    assert way(only(s.inside(udp((B, 6000), name_a)))) == ("L", (s.X, 6000), (A, 5000))


def test_u9_a_hairpinned_packet_keeps_its_senders_mapping_alive_and_not_the_other(
    make: MakeScenario, egress: str
) -> None:
    s = make(egress)
    name_a = named(s, (A, 5000))
    s.advance(200)
    name_b = ends(only(s.inside(udp((B, 6000), name_a))))[0]
    s.advance(100)  # A's has ended
    assert s.inside(udp((B, 6001), name_a)) == []
    assert way(only(s.outside(udp((E, 1), name_b)))) == ("L", (E, 1), (B, 6000))


@pytest.mark.parametrize("ttl", [0, 1])
def test_u9_time_runs_out_in_a_hairpin_as_anywhere(make: MakeScenario, egress: str, ttl: int) -> None:
    s = make(egress)
    name_a = named(s, (A, 5000))
    sent = udp((B, 6000), name_a, ttl=ttl)
    got = only(s.inside(sent))
    assert (got.port, got.ip.src, got.ip.dst) == ("L", ADDRESS_L, B)
    assert raw_ip(got)[20:22] == b"\x0b\x00"
    assert raw_ip(got)[28:] == bytes(sent)


def test_u9_a_name_that_nobody_has_meets_silence(make: MakeScenario, egress: str) -> None:
    """P12: and no mapping is made for the sender."""
    s = make(egress, '[alias]\nunsolicited_syn = "unreachable"\n')
    for port, who in (("L", B), ("U", HOST)):
        for packet in (udp((who, 6000), (s.X, 5000)), tcp((who, 6000), (s.X, 5000), "S")):
            assert s.inject(port, packet) == []
            assert s.dropped == Drop.ALIAS_NO_LINK
    assert s.advance(30) == []
    assert named(s, (A, 6000)) == (s.X, 6000)


def test_u9_fragments_turn_round_too(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    name_a = named(s, (A, 5000))
    data = bytes(range(256)) * 8
    whole = bytes(udp((B, 6000), name_a, data))[20:]
    head = {"src": B, "dst": s.X, "proto": 17, "id": 9}
    parts = [IP(**head, flags="MF") / whole[:1200], IP(**head, frag=150) / whole[1200:]]
    for order in ((0, 1), (1, 0)):
        outs = [out for number in order for out in s.inside(parts[number])]
        assert [(out.port, out.ip.src, out.ip.dst) for out in outs] == [("L", s.X, A)] * 2
        got = b"".join(raw_ip(out)[20:] for out in sorted(outs, key=lambda out: int(out.ip.frag)))
        assert got == bytes(udp((s.X, 6000), (A, 5000), data))[20:]
        parts[0].id = parts[1].id = 10


def test_t8_two_hosts_shake_hands_by_their_outside_names(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    name_a = ends(only(s.inside(tcp((A, 5000), (E, 80), "S"))))[0]
    syn = only(s.inside(tcp((B, 6000), name_a, "S", seq=100, options=[("MSS", 1400)])))
    name_b = (s.X, 6000)
    assert way(syn) == ("L", name_b, (A, 5000))
    assert way(only(s.inside(tcp((A, 5000), name_b, "SA", seq=900, ack=101)))) == ("L", name_a, (B, 6000))
    assert way(only(s.inside(tcp((B, 6000), name_a, "A", seq=101, ack=901)))) == ("L", name_b, (A, 5000))
    s.advance(7_439)
    got = only(s.inside(tcp((A, 5000), name_b, "PA", b"welcome", seq=901, ack=101)))
    assert (*way(got), payload(got)) == ("L", name_a, (B, 6000), b"welcome")
    assert way(only(s.inside(tcp((B, 6000), name_a, "FA", seq=101, ack=908)))) == ("L", name_b, (A, 5000))
    assert way(only(s.inside(tcp((A, 5000), name_b, "FA", seq=908, ack=102)))) == ("L", name_a, (B, 6000))
    assert way(only(s.inside(tcp((B, 6000), name_a, "A", seq=102, ack=909)))) == ("L", name_b, (A, 5000))


def test_m2_a_forward_is_reached_from_the_lan_by_its_outside_name(make: MakeScenario, egress: str) -> None:
    s = make(egress, forwards(egress))
    assert way(only(s.inside(tcp((B, 6000), (s.X, 8080), "S")))) == ("L", (s.X, 6000), (A, 80))
    assert way(only(s.inside(tcp((A, 80), (s.X, 6000), "SA")))) == ("L", (s.X, 8080), (B, 6000))
    assert way(only(s.inside(udp((B, 6000), (s.X, 5353))))) == ("L", (s.X, 6000), (A, 53))
    assert way(only(s.inside(udp((A, 53), (s.X, 6000))))) == ("L", (s.X, 5353), (B, 6000))


def test_m2_a_forward_is_reached_by_the_host_that_it_leads_to(make: MakeScenario, egress: str) -> None:
    s = make(egress, forwards(egress))
    assert way(only(s.inside(tcp((A, 6000), (s.X, 8080), "S")))) == ("L", (s.X, 6000), (A, 80))
    assert way(only(s.inside(tcp((A, 80), (s.X, 6000), "SA")))) == ("L", (s.X, 8080), (A, 6000))


def test_m2_a_forward_is_reached_from_the_host_behind_tun0(make: MakeScenario, egress: str) -> None:
    s = make(egress, forwards(egress))
    assert way(only(s.inject("U", tcp((HOST, 6000), (s.X, 8080), "S")))) == ("L", (s.X, 6000), (A, 80))
    assert way(only(s.inside(tcp((A, 80), (s.X, 6000), "SA")))) == ("U", (s.X, 8080), (HOST, 6000))
    assert way(only(s.inject("U", tcp((HOST, 6000), (s.X, 8080), "A")))) == ("L", (s.X, 6000), (A, 80))


def test_m2_a_forward_to_the_host_is_reached_from_the_lan_and_by_the_host(make: MakeScenario, egress: str) -> None:
    s = make(egress, forwards(egress))
    assert way(only(s.inside(tcp((B, 6000), (s.X, 2222), "S")))) == ("U", (s.X, 6000), (HOST, 22))
    assert way(only(s.inject("U", tcp((HOST, 22), (s.X, 6000), "SA")))) == ("L", (s.X, 2222), (B, 6000))
    assert way(only(s.inject("U", tcp((HOST, 6002), (s.X, 2222), "S")))) == ("U", (s.X, 6002), (HOST, 22))
    assert way(only(s.inject("U", tcp((HOST, 22), (s.X, 6002), "SA")))) == ("U", (s.X, 2222), (HOST, 6002))


def test_u9_an_error_about_a_hairpinned_packet_finds_its_sender(make: MakeScenario, egress: str) -> None:
    """I7: with the names that the sender used in the quote."""
    s = make(egress)
    named(s, ("192.168.200.12", 5000))
    name_a = named(s, (A, 5000))
    sent = udp((B, 6000), name_a, b"knock")
    got = only(s.inside(sent))
    answer = only(s.inside(error(A, s.X, 3, 3, raw_ip(got))))
    assert (answer.port, answer.ip.src, answer.ip.dst) == ("L", s.X, B)
    quoted = IP(raw_ip(answer)[28:])
    assert ((quoted.src, quoted[UDP].sport), (quoted.dst, quoted[UDP].dport)) == ((B, 6000), name_a)
    sent.ttl = 63
    assert raw_ip(answer)[28:] == bytes(sent)


def test_u9a_no_redirect_is_ever_sent_for_a_hairpin(make: MakeScenario, egress: str) -> None:
    s = make(egress, forwards(egress))
    name_a = named(s, (A, 5000))
    outs = [out for _ in range(20) for out in s.inside(udp((B, 6000), name_a))]
    outs += [out for _ in range(20) for out in s.inside(tcp((B, 6000), (s.X, 8080), "S"))]
    assert len(outs) == 40
    assert not any(out.ip.haslayer(ICMP) for out in outs)
    assert s.advance(10) == []


def test_u9_a_hairpin_to_a_host_that_is_gone_ends_with_3_1_to_the_sender(make: MakeScenario, egress: str) -> None:
    """A21: the sender's own packet is quoted."""
    s = make(egress)
    name = named(s, ("192.168.200.12", 5000))
    sent = udp((B, 6000), name)
    asked = only(s.inside(sent))
    assert asked.arp is not None
    outs = [out for out in s.advance(5) if out.arp is None]
    assert (outs[0].t, outs[0].port, outs[0].ip.src, outs[0].ip.dst) == (3.0, "L", ADDRESS_L, B)
    assert raw_ip(only(outs))[20:22] == b"\x03\x01"
    assert raw_ip(outs[0])[28:] == bytes(sent)


def test_u9_echo_to_an_outside_name_is_answered_by_us(make: MakeScenario, egress: str) -> None:
    """G18: identifiers are no names that hairpin."""
    s = make(egress)
    s.inside(echo((A, 77), E))
    for port, who in (("L", B), ("U", HOST)):
        got = only(s.inject(port, echo((who, 77), s.X)))
        assert (got.port, got.ip.src, got.ip.dst, got.ip[ICMP].type, got.ip[ICMP].id) == (port, s.X, who, 0, 77)
