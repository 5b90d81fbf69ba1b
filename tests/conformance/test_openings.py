"""Packets that cross under their own address: exempt remotes (row C2), and LAN hosts where the tunnel has no alias."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import ADDRESS_L, ADDRESS_O, ADDRESS_V, HOST, IP, A, B, E, F
from tests.conformance.packets import echo, ends, error, only, payload, raw_ip, tcp, udp, way
from wire.drop import Drop

EXEMPT = '[alias]\nexempt = ["203.0.113.6/32", "198.51.100.128/25"]\n'


def test_c2_towards_exempt_remotes_the_source_stays(make: MakeScenario, egress: str) -> None:
    s = make(egress, EXEMPT)
    for remote in (F, "198.51.100.200"):
        out = only(s.inside(udp((A, 5000), (remote, 1), b"as it is", ttl=9)))
        assert (*way(out), payload(out), out.ip.ttl) == (egress, (A, 5000), (remote, 1), b"as it is", 8)
        back = only(s.outside(udp((remote, 1), (A, 5000), ttl=9)))
        assert (*way(back), back.ip.ttl) == ("L", (remote, 1), (A, 5000), 8)
    for remote in (E, "198.51.100.127"):
        assert ends(only(s.inside(udp((A, 5000), (remote, 1)))))[0] == (s.X, 5000)


def test_c2_nobody_but_the_exempt_remotes_reaches_an_inside_address(make: MakeScenario, egress: str) -> None:
    s = make(egress, EXEMPT)
    for packet in (udp((E, 1), (A, 5000)), tcp((E, 1), (A, 5000), "S"), echo((E, 1), A)):
        assert s.outside(packet) == []
        assert s.dropped == Drop.ROUTE_NOT_FROM_OUTSIDE
    for address in (ADDRESS_L, "192.168.200.255", "192.168.200.0", "10.0.0.1", "8.8.8.8"):
        assert s.outside(udp((F, 1), (address, 5000))) == [], "not even they reach anything else"
    other = "V" if egress == "O" else "O"
    assert s.inject(other, udp((F, 1), (A, 5000))) == [], "nor by a port that does not lead to them"


def test_c2_the_host_is_exempt_too(make: MakeScenario) -> None:
    s = make("O", EXEMPT)
    assert way(only(s.inject("U", udp((HOST, 5000), (F, 1))))) == ("O", (HOST, 5000), (F, 1))
    assert way(only(s.inject("O", udp((F, 1), (HOST, 5000))))) == ("U", (F, 1), (HOST, 5000))
    assert s.inject("O", udp((E, 1), (HOST, 5000))) == []


@pytest.mark.parametrize(("kind", "code"), [(3, 1), (3, 4), (11, 0)])
def test_c2_errors_about_exempt_traffic_come_from_any_router(
    make: MakeScenario, egress: str, kind: int, code: int
) -> None:
    s = make(egress, EXEMPT)
    sent = only(s.inside(udp((A, 5000), (F, 1))))
    message = error("198.51.100.1", A, kind, code, raw_ip(sent), mtu=1300 if code == 4 else 0)
    got = only(s.outside(message))
    message.ttl = 63
    assert (got.port, raw_ip(got)) == ("L", bytes(message))
    about_others = only(s.inside(udp((A, 5000), (E, 1))))
    assert s.outside(error("198.51.100.1", A, kind, code, raw_ip(about_others))) == []
    stranger = bytes(udp((A, 5000), (E, 1)))
    assert s.outside(error("198.51.100.1", A, kind, code, stranger)) == []
    assert s.outside(error("198.51.100.1", A, 5, 1, raw_ip(sent))) == [], "a redirect is no error on the way"


def test_c2_fragments_of_exempt_remotes_pass(make: MakeScenario, egress: str) -> None:
    s = make(egress, EXEMPT)
    whole = bytes(udp((F, 9), (A, 53), bytes(2000)))[20:]
    head = {"src": F, "dst": A, "proto": 17, "id": 5}
    assert s.outside(IP(**head, frag=150) / whole[1200:]) == []
    outs = s.outside(IP(**head, flags="MF") / whole[:1200])
    assert [(out.port, out.ip.dst) for out in outs] == [("L", A), ("L", A)]
    assert b"".join(raw_ip(out)[20:] for out in outs) == whole


NO_ALIAS = ((f'[vpn]\naddress = "{ADDRESS_V}"\n', "[vpn]\n"),)


def test_without_a_vpn_address_lan_sources_stay_as_they_are_in_the_tunnel(make: MakeScenario) -> None:
    """C2: the other end routes the LAN, there is one NAT less."""
    s = make("O", replace=NO_ALIAS)
    remote = ("8.8.8.8", 1)
    for packet in (udp((A, 5000), remote), tcp((A, 5000), remote, "S"), tcp((A, 5000), remote, "R")):
        assert way(only(s.inside(packet))) == ("V", (A, 5000), remote)
    assert only(s.inside(echo((A, 5), "8.8.8.8"))).ip.src == A
    assert only(s.inside(IP(src=A, dst="8.8.8.8", proto=47) / b"gre, or so")).ip.src == A
    assert way(only(s.inject("V", udp(remote, (A, 7))))) == ("L", remote, (A, 7)), "the far end may begin"
    assert way(only(s.inject("V", udp(remote, (HOST, 7))))) == ("U", remote, (HOST, 7))
    sent = only(s.inside(udp((A, 5000), remote)))
    got = only(s.inject("V", error("9.9.9.9", A, 11, 0, raw_ip(sent))))
    assert (got.port, got.ip.src, got.ip.dst) == ("L", "9.9.9.9", A)
    refusal = only(s.inside(udp((A, 5000), remote, bytes(1421 - 28), flags="DF")))
    assert (refusal.port, raw_ip(refusal)[20:28]) == ("L", b"\x03\x04" + raw_ip(refusal)[22:24] + b"\0\0\x05\x8c")
    # on tap1 nothing is different
    assert way(only(s.inside(udp((A, 5000), (E, 1))))) == ("O", (ADDRESS_O, 5000), (E, 1))
    assert s.inject("O", udp((E, 1), (A, 7))) == []


@pytest.mark.parametrize("destination", [ADDRESS_L, ADDRESS_O, ADDRESS_V, "192.168.200.255", "192.168.1.1", "1.2.3.4"])
def test_without_a_vpn_address_the_tunnel_reaches_lan_hosts_and_nothing_else(
    make: MakeScenario, destination: str
) -> None:
    """C2: not our own addresses, not the ISP's network, not the Internet behind tap1."""
    s = make("O", replace=NO_ALIAS)
    for packet in (udp(("8.8.8.8", 1), (destination, 7)), echo(("8.8.8.8", 1), destination)):
        assert s.inject("V", packet) == []
    assert s.advance(10) == []


def test_without_a_vpn_address_a_spoofed_lan_source_is_not_let_in(make: MakeScenario) -> None:
    """P13: what lives behind tap0 does not come from the tunnel."""
    s = make("O", replace=NO_ALIAS)
    for source in (B, HOST, ADDRESS_L, "127.0.0.1", "0.0.0.0", "224.0.0.1"):
        assert s.inject("V", udp((source, 1), (A, 7))) == []
