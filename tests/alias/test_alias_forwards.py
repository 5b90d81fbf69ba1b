"""Static forwards, address-only links, and what a reload changes."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import IP, TCP, UDP

from alias.table import Aliases
from alias.types import NEVER_NS, Egress, Forward
from tests.alias.nat import BOTH, A, B, C, E, F, Nat, passed
from wire import ipv4
from wire.drop import Drop
from wire.units import address_int

both_egresses = pytest.mark.parametrize("egress", BOTH, ids=lambda egress: egress.label)


def to_web(on: Egress = Egress.TAP1, outside_port: int = 8080, inside: str = A, inside_port: int = 80) -> Forward:
    return Forward(on, ipv4.TCP, outside_port, address_int(inside), inside_port)


def knock(nat: Nat, port: int = 8080, flags: str = "S") -> IP:
    return IP(src=E, dst=nat.x) / TCP(sport=4000, dport=port, flags=flags)


@both_egresses
@pytest.mark.parametrize("filtering", ["endpoint-independent", "address-dependent"])
def test_a_forward_lets_strangers_in_for_ever_and_names_what_goes_out(egress: Egress, filtering: str) -> None:
    """M1, M2: also after ten days of silence, under every filtering, and after a reset."""
    nat = Nat(egress, forwards=[to_web(egress)], filtering=filtering)
    for _ in range(2):
        seen = passed(nat.back(knock(nat)))
        assert (seen.dst, seen[TCP].dport) == (A, 80)
        answer = passed(nat.out(IP(src=A, dst=E) / TCP(sport=80, dport=4000, flags="SA")))
        assert (answer.src, answer[TCP].sport) == (nat.x, 8080)
        passed(nat.out(IP(src=A, dst=E) / TCP(sport=80, dport=4000, flags="R")))
        passed(nat.back(knock(nat, flags="R")))
        nat.after(10 * 86_400)
    link = nat.link()
    assert (link.state, link.expires_ns, link.packets) == ("static", NEVER_NS, 8)
    assert nat.aliases.next_deadline() is None


def test_what_the_inside_endpoint_of_a_forward_sends_first_takes_its_port() -> None:
    """M1."""
    nat = Nat(forwards=[to_web()])
    assert passed(nat.out(IP(src=A, dst=F) / TCP(sport=80, dport=9, flags="S")))[TCP].sport == 8080
    nat.egress = Egress.VPN
    assert passed(nat.out(IP(src=A, dst=F) / TCP(sport=80, dport=9, flags="S")))[TCP].sport == 80


@both_egresses
def test_a_forward_works_by_hairpin(egress: Egress) -> None:
    """M2."""
    nat = Nat(egress, forwards=[to_web(egress)])
    seen = passed(nat.turn(IP(src=B, dst=nat.x) / TCP(sport=6000, dport=8080, flags="S")))
    assert (seen.src, seen[TCP].sport, seen.dst, seen[TCP].dport) == (nat.x, 6000, A, 80)
    reply = passed(nat.turn(IP(src=A, dst=nat.x) / TCP(sport=80, dport=6000, flags="SA")))
    assert (reply.src, reply[TCP].sport, reply.dst, reply[TCP].dport) == (nat.x, 8080, B, 6000)


def test_the_port_of_a_forward_is_never_allotted() -> None:
    """Trap 2."""
    nat = Nat(forwards=[Forward(Egress.TAP1, ipv4.UDP, 5000, address_int(A), 7)])
    assert passed(nat.out(IP(src=B, dst=E) / UDP(sport=5000, dport=9)))[UDP].sport != 5000


def test_of_two_forwards_to_one_endpoint_the_first_names_what_goes_out() -> None:
    nat = Nat(forwards=[to_web(outside_port=8080), to_web(outside_port=8081)])
    for port in (8080, 8081):
        assert passed(nat.back(knock(nat, port)))[TCP].dport == 80
    assert passed(nat.out(IP(src=A, dst=E) / TCP(sport=80, flags="SA")))[TCP].sport == 8080
    nat.aliases.reconfigure(nat.settings, [to_web(outside_port=8081)], [], nat.now)
    assert passed(nat.out(IP(src=A, dst=E) / TCP(sport=80, flags="SA")))[TCP].sport == 8081


def test_two_forwards_of_one_port_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="same outside port"):
        Nat(forwards=[to_web(), to_web(inside=B)])
    Nat(forwards=[to_web(), to_web(on=Egress.VPN)])


def test_a_reload_adds_and_removes_forwards_and_keeps_all_other_links() -> None:
    nat = Nat(forwards=[to_web()])
    passed(nat.back(knock(nat)))
    passed(nat.out(IP(src=B, dst=E) / TCP(sport=7000, flags="S")))
    kept, dynamic = (next(link for link in nat.links() if link.is_static is static) for static in (True, False))
    assert [type(event).__name__ for event in nat.aliases.take_events()] == ["Linked"]
    nat.aliases.reconfigure(nat.settings, [to_web(), to_web(outside_port=2222, inside=C)], [], nat.now)
    assert kept in nat.links()
    assert kept.packets == 1
    assert dynamic in nat.links()
    assert passed(nat.back(knock(nat, 2222))).dst == C
    nat.aliases.reconfigure(nat.settings, [to_web(inside=B)], [], nat.now)
    assert nat.back(knock(nat, 2222)) is Drop.ALIAS_NO_LINK
    assert passed(nat.back(knock(nat))).dst == B
    assert not kept.is_live(nat.now)
    assert dynamic in nat.links()
    assert [type(event).__name__ for event in nat.aliases.take_events()] == ["Linked", "Unlinked", "Unlinked", "Linked"]
    assert passed(nat.out(IP(src=A, dst=E) / TCP(sport=80, flags="S")))[TCP].sport == 80
    nat.aliases.reconfigure(nat.settings, [], [], nat.now)
    assert passed(nat.out(IP(src=A, dst=E) / TCP(sport=8080, flags="S")))[TCP].sport == 8080, "static ports rest not"


def test_a_new_forward_evicts_only_the_link_that_has_its_port() -> None:
    nat = Nat()
    for port in (8080, 8081):
        passed(nat.out(IP(src=B, dst=E) / TCP(sport=port, flags="S")))
    nat.aliases.reconfigure(nat.settings, [to_web()], [], nat.now)
    assert sorted((link.outside_port, link.state) for link in nat.links()) == [(8080, "static"), (8081, "INIT")]
    assert passed(nat.back(knock(nat))).dst == A
    assert passed(nat.out(IP(src=B, dst=E) / TCP(sport=8080, flags="S")))[TCP].sport not in (8080, 8081)
    nat.at(7440)
    assert [link.is_static for link in nat.links()] == [True]


def test_a_forward_that_goes_gives_its_endpoint_the_live_link_back() -> None:
    nat = Nat()
    passed(nat.out(IP(src=A, dst=E) / TCP(sport=80, flags="S")))
    nat.aliases.reconfigure(nat.settings, [to_web()], [], nat.now)
    assert passed(nat.out(IP(src=A, dst=E) / TCP(sport=80, flags="S")))[TCP].sport == 8080
    assert passed(nat.back(IP(src=E, dst=nat.x) / TCP(dport=80, flags="A"))).dst == A
    nat.aliases.reconfigure(nat.settings, [], [], nat.now)
    assert passed(nat.out(IP(src=A, dst=E) / TCP(sport=80, flags="S")))[TCP].sport == 80
    assert len(nat.links()) == 1


def test_new_timers_hold_from_the_next_packet_on() -> None:
    nat = Nat()
    passed(nat.out(IP(src=A, dst=E) / UDP(sport=5000, dport=9)))
    shorter = Nat(udp_timeout_ns=120 * 10**9).settings
    nat.aliases.reconfigure(shorter, [], [], nat.now)
    nat.at(150)
    passed(nat.out(IP(src=A, dst=E) / UDP(sport=5000, dport=9)))
    nat.at(299)
    assert nat.links(), "a reload shortens no life"
    nat.at(301)
    assert nat.links() == []


def test_lower_limits_end_no_link() -> None:
    """C4."""
    nat = Nat()
    for port in range(5000, 5010):
        passed(nat.out(IP(src=A, dst=E) / UDP(sport=port, dport=9)))
    nat.aliases.reconfigure(Nat(max_links=2, max_links_per_host=1).settings, [], [], nat.now)
    assert len(nat.links()) == 10
    passed(nat.out(IP(src=A, dst=E) / UDP(sport=5000, dport=9)))
    assert nat.out(IP(src=B, dst=E) / UDP(sport=5000, dport=9)) is Drop.ALIAS_TABLE_FULL


def test_filtering_that_is_turned_on_spares_a_link_until_it_sends() -> None:
    """U8."""
    nat = Nat()
    passed(nat.out(IP(src=A, dst=E) / UDP(sport=5000, dport=9)))
    nat.aliases.reconfigure(Nat(filtering="address-dependent").settings, [], [], nat.now)
    stranger = IP(src=F, dst=nat.x) / UDP(sport=9, dport=5000)
    passed(nat.back(stranger))
    passed(nat.out(IP(src=A, dst=E) / UDP(sport=5000, dport=9)))
    assert nat.back(stranger) is Drop.ALIAS_FILTERED


# Protocols without ports


@both_egresses
@pytest.mark.parametrize("protocol", [2, 33, 41, 47, 50, 51, 132, 136, 255])
def test_protocols_without_ports_have_one_inside_host_for_each_remote(egress: Egress, protocol: int) -> None:
    """P8, P9: address-only links; the payload is not touched unless a checksum covers the addresses."""
    nat = Nat(egress)
    frame = IP(src=A, dst=E, proto=protocol) / b"\x01\x02\x03\x04"
    seen = passed(nat.out(frame))
    assert (seen.src, bytes(seen.payload)) == (nat.x, b"\x01\x02\x03\x04")
    assert nat.out(IP(src=B, dst=E, proto=protocol) / b"x") is Drop.ALIAS_PROTOCOL_TAKEN
    passed(nat.out(IP(src=B, dst=F, proto=protocol) / b"x"))
    for remote, inside in ((E, A), (F, B)):
        assert passed(nat.back(IP(src=remote, dst=nat.x, proto=protocol) / b"y")).dst == inside
    assert nat.back(IP(src=E, dst=nat.x, proto=(protocol + 100) % 253 + 3) / b"y") is Drop.ALIAS_NO_LINK
    assert nat.back(IP(src="203.0.113.7", dst=nat.x, proto=protocol) / b"y") is Drop.ALIAS_NO_LINK
    link = next(link for link in nat.links() if link.inside == address_int(A))
    assert (link.inside_port, link.outside_port, link.remote, link.state) == (0, 0, address_int(E), "open")
    nat.at(300)
    passed(nat.out(IP(src=B, dst=E, proto=protocol) / b"x"))


def test_peeking_changes_nothing() -> None:
    nat = Nat()
    passed(nat.out(IP(src=A, dst=E) / UDP(sport=5000, dport=9)))
    passed(nat.out(IP(src=A, dst=E, proto=47) / b"x"))
    nat.at(100)
    before = [(link.packets, link.expires_ns, link.last_ns) for link in nat.links()]
    a, b, e, f = (address_int(text) for text in (A, B, E, F))
    aliases, egress = nat.aliases, nat.egress
    assert aliases.peek_inbound(egress, ipv4.UDP, 5000, f) is aliases.peek_outbound(egress, ipv4.UDP, a, 5000, f)
    assert aliases.peek_inbound(egress, 47, 0, e) is aliases.peek_outbound(egress, 47, a, 0, e) is not None
    for nothing in (
        aliases.peek_inbound(egress, ipv4.TCP, 5000, e),
        aliases.peek_inbound(egress, ipv4.UDP, 5001, e),
        aliases.peek_inbound(Egress.VPN, ipv4.UDP, 5000, e),
        aliases.peek_inbound(egress, 47, 0, f),
        aliases.peek_outbound(egress, 47, b, 0, e),
        aliases.peek_outbound(egress, ipv4.UDP, b, 5000, e),
    ):
        assert nothing is None
    assert [(link.packets, link.expires_ns, link.last_ns) for link in nat.links()] == before


def test_the_same_seed_gives_the_same_table() -> None:
    """Replay depends on it."""

    def ports(seed: int) -> list[int]:
        nat = Nat(seed=seed)
        for inside in (A, B, C):
            for port in range(5000, 5050):
                passed(nat.out(IP(src=inside, dst=E) / UDP(sport=port, dport=9)))
        return [link.outside_port for link in nat.links()]

    assert ports(7) == ports(7) != ports(8)
    assert isinstance(Aliases(Nat().settings, [], [], random.Random(0)), Aliases)
