"""A reload under traffic: what is decided differently moves at once, everything else goes on as it was. Rows U2 and R6
(trap 3), M1, C1."""

from __future__ import annotations

import pytest
from scapy.all import fragment

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
    ADDRESS_O,
    ADDRESS_V,
    ARP,
    HOST,
    ICMP,
    IP,
    MAC_ISP,
    MAC_O,
    NO_STATIC,
    A,
    B,
    E,
    Ether,
    F,
    Out,
    Scenario,
)
from tests.conformance.packets import Endpoint, ends, error, only, raw_ip, tcp, udp, way
from wire.drop import Drop

ALL, NONE = "203.0.113.0/24\n198.51.100.0/24\n", ""
OTHER = {"O": ("V", ADDRESS_V, NONE), "V": ("O", ADDRESS_O, ALL)}


def forward(egress: str, outside_port: int, inside: str, protocol: str = "tcp") -> str:
    """A static forward in TOML."""
    on = "tap1" if egress == "O" else "vpn"
    return (
        f'[[alias.forward]]\non = "{on}"\nprotocol = "{protocol}"\noutside_port = {outside_port}\ninside = "{inside}"\n'
    )


def name_of(s: Scenario, inside: Endpoint, remote: Endpoint = (E, 1)) -> Endpoint:
    """The outside name that a UDP packet of an inside endpoint gets."""
    return ends(only(s.inside(udp(inside, remote))))[0]


def test_u2_a_route_that_is_swapped_moves_the_flow_at_once_and_its_source_with_it(
    make: MakeScenario, egress: str
) -> None:
    s = make(egress)
    other, address, offload = OTHER[egress]
    name_of(s, (B, 5000))
    before = name_of(s, (A, 5000))
    s.reload(offload=offload)
    assert way(only(s.inside(udp((A, 5000), (E, 1))))) == (other, (address, 5000), (E, 1))
    assert way(only(s.inject(other, udp((E, 1), (address, 5000))))) == ("L", (E, 1), (A, 5000))
    # who still speaks to the old name is heard, as long as that mapping lives
    assert way(only(s.outside(udp((E, 1), before)))) == ("L", (E, 1), (A, 5000))
    s.advance(299)
    assert way(only(s.outside(udp((E, 1), before)))) == ("L", (E, 1), (A, 5000))
    s.advance(1)
    assert s.outside(udp((E, 1), before)) == []


def test_u2_swapped_back_the_flow_has_its_old_name(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    name_of(s, (B, 5000))
    before = name_of(s, (A, 5000))
    s.reload(offload=OTHER[egress][2])
    assert name_of(s, (A, 5000)) == (OTHER[egress][1], 5000)
    s.reload(offload=ALL if egress == "O" else NONE)
    assert name_of(s, (A, 5000)) == before


def test_r6_tcp_moves_like_udp(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    other, address, offload = OTHER[egress]
    s.inside(tcp((A, 5000), (E, 80), "S"))
    s.outside(tcp((E, 80), (s.X, 5000), "SA"))
    s.reload(offload=offload)
    assert way(only(s.inside(tcp((A, 5000), (E, 80), "A")))) == (other, (address, 5000), (E, 80))
    assert s.inside(tcp((A, 5001), (E, 80), "R")) == []
    assert way(only(s.inject(other, tcp((E, 80), (address, 5000), "R")))) == ("L", (E, 80), (A, 5000))


def test_u2_the_hosts_flows_move_between_its_alias_and_its_own_address(make: MakeScenario) -> None:
    s = make("O")
    assert way(only(s.inject("U", udp((HOST, 5000), (E, 1))))) == ("O", (ADDRESS_O, 5000), (E, 1))
    s.reload(offload=NONE)
    assert way(only(s.inject("U", udp((HOST, 5000), (E, 1))))) == ("V", (HOST, 5000), (E, 1))
    assert way(only(s.inject("V", udp((E, 1), (HOST, 5000))))) == ("U", (E, 1), (HOST, 5000))
    assert way(only(s.inject("O", udp((E, 1), (ADDRESS_O, 5000))))) == ("U", (E, 1), (HOST, 5000))


def test_u2_a_datagram_that_is_on_its_way_in_fragments_ends_as_it_began(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    other, address, offload = OTHER[egress]
    whole = bytes(udp((A, 5000), (E, 1), bytes(2000)))[20:]
    head = {"src": A, "dst": E, "proto": 17}
    first = only(s.inside(IP(**head, id=5, flags="MF") / whole[:1200]))
    s.reload(offload=offload)
    last = only(s.inside(IP(**head, id=5, frag=150) / whole[1200:]))
    assert (first.port, first.ip.src, last.port, last.ip.src) == (egress, s.X, egress, s.X)
    outs = [
        *s.inside(IP(**head, id=6, flags="MF") / whole[:1200]),
        *s.inside(IP(**head, id=6, frag=150) / whole[1200:]),
    ]
    assert [(out.port, out.ip.src) for out in outs] == [(other, address)] * 2


def test_u2_errors_about_the_old_way_still_find_their_sender(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    sent = only(s.inside(udp((A, 5000), (E, 1))))
    s.reload(offload=OTHER[egress][2])
    got = only(s.outside(error("198.51.100.1", s.X, 11, 0, raw_ip(sent))))
    assert (got.port, got.ip.dst) == ("L", A)


def test_a_reload_that_changes_nothing_is_not_noticed_by_any_flow(make: MakeScenario, egress: str) -> None:
    """U2: names that were drawn, connections, answers of forwards, queries: all of it."""
    s = make(egress, forward(egress, 8080, f"{A}:80"))
    name_of(s, (B, 5000))
    drawn = name_of(s, (A, 5000))
    s.inside(tcp((A, 6000), (E, 80), "S"))
    s.outside(tcp((E, 80), (s.X, 6000), "SA"))
    s.outside(tcp((F, 9), (s.X, 8080), "S"))
    s.advance(100)
    s.reload(forward(egress, 8080, f"{A}:80"))
    assert name_of(s, (A, 5000)) == drawn
    assert way(only(s.inside(tcp((A, 80), (F, 9), "SA")))) == (egress, (s.X, 8080), (F, 9))
    s.advance(7_339)
    assert way(only(s.outside(tcp((E, 80), (s.X, 6000), "A")))) == ("L", (E, 80), (A, 6000))
    assert s.outside(udp((E, 1), drawn)) == []


def test_m1_a_forward_works_as_soon_as_it_is_added_and_is_gone_when_it_is_removed(
    make: MakeScenario, egress: str
) -> None:
    s = make(egress)
    knock = tcp((E, 9), (s.X, 8080), "S")
    assert s.outside(knock) == []
    s.reload(forward(egress, 8080, f"{A}:80"))
    assert way(only(s.outside(knock))) == ("L", (E, 9), (A, 80))
    assert way(only(s.inside(tcp((A, 80), (E, 9), "SA")))) == (egress, (s.X, 8080), (E, 9))
    s.reload(forward(egress, 8080, f"{B}:80"))
    assert way(only(s.outside(knock))) == ("L", (E, 9), (B, 80))
    assert way(only(s.inside(tcp((B, 80), (E, 9), "SA")))) == (egress, (s.X, 8080), (E, 9))
    assert ends(only(s.inside(tcp((A, 80), (E, 9), "SA"))))[0] == (s.X, 80)
    s.reload()
    assert s.outside(knock) == []
    assert s.dropped == Drop.ALIAS_NO_LINK
    assert ends(only(s.inside(tcp((B, 8080), (E, 9), "S"))))[0] == (s.X, 8080), "its port is free"


def test_m1_a_new_forward_takes_its_port_from_whoever_had_it_by_chance(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    assert name_of(s, (B, 5000)) == (s.X, 5000)
    s.reload(forward(egress, 5000, f"{A}:53", "udp"))
    assert way(only(s.outside(udp((E, 1), (s.X, 5000))))) == ("L", (E, 1), (A, 53))
    other = name_of(s, (B, 5000))
    assert other != (s.X, 5000)
    assert way(only(s.outside(udp((E, 1), other)))) == ("L", (E, 1), (B, 5000))
    s.advance(301)
    s.reload()
    assert s.outside(udp((E, 1), (s.X, 5000))) == []


def test_m1_a_mapping_that_is_older_than_the_forward_of_its_endpoint_lives_on(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    assert name_of(s, (A, 5353)) == (s.X, 5353)
    s.reload(forward(egress, 53, f"{A}:5353", "udp"))
    assert way(only(s.outside(udp((E, 1), (s.X, 5353))))) == ("L", (E, 1), (A, 5353))
    assert way(only(s.outside(udp((F, 1), (s.X, 53))))) == ("L", (F, 1), (A, 5353))
    assert name_of(s, (A, 5353)) == (s.X, 53)
    s.reload()
    assert name_of(s, (A, 5353)) == (s.X, 5353), "the name that it still has"


def test_u5_a_new_timer_holds_for_packets_from_now_on(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    name_of(s, (A, 5000))
    name_of(s, (A, 5001))
    s.reload("[alias]\nudp_timeout = 600\n")
    name_of(s, (A, 5000))
    s.advance(300)
    assert len(s.outside(udp((E, 1), (s.X, 5000)))) == 1
    assert s.outside(udp((E, 1), (s.X, 5001))) == []
    s.advance(299)
    assert len(s.outside(udp((E, 1), (s.X, 5000)))) == 1
    s.advance(1)
    assert s.outside(udp((E, 1), (s.X, 5000))) == []


def test_c1_a_lower_limit_costs_no_link_and_a_higher_one_helps_at_once(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    for port in (5000, 5001, 5002):
        name_of(s, (A, port))
    s.reload("[alias]\nmax_links_per_host = 1\nmax_links = 1\n")
    for port in (5000, 5001, 5002):
        assert name_of(s, (A, port)) == (s.X, port)
        assert len(s.outside(udp((F, 9), (s.X, port)))) == 1
    for host in (A, B):
        refusal = only(s.inside(udp((host, 6000), (E, 1))))
        assert (refusal.port, refusal.ip.src, raw_ip(refusal)[20:22]) == ("L", ADDRESS_L, b"\x03\x0d")
    s.reload()
    assert name_of(s, (A, 6000)) == (s.X, 6000)


def test_u8_filtering_may_be_changed_under_traffic(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    name_of(s, (A, 5000))
    s.reload('[alias]\nfiltering = "address-dependent"\n')
    name_of(s, (A, 5000))
    assert s.outside(udp((F, 1), (s.X, 5000))) == []
    assert len(s.outside(udp((E, 2), (s.X, 5000)))) == 1
    s.reload()
    assert len(s.outside(udp((F, 1), (s.X, 5000)))) == 1


def test_c2_an_exemption_holds_as_soon_as_it_is_added_and_no_longer_than_it_stands(
    make: MakeScenario, egress: str
) -> None:
    s = make(egress)
    name = name_of(s, (A, 5000))
    s.reload('[alias]\nexempt = ["203.0.113.0/24"]\n')
    assert way(only(s.inside(udp((A, 5000), (E, 1))))) == (egress, (A, 5000), (E, 1))
    assert way(only(s.outside(udp((E, 1), (A, 5000))))) == ("L", (E, 1), (A, 5000))
    assert way(only(s.outside(udp((E, 1), name)))) == ("L", (E, 1), (A, 5000))
    s.reload()
    assert s.outside(udp((E, 1), (A, 5000))) == []
    assert name_of(s, (A, 5000)) == name


@pytest.mark.parametrize("toml", ["", "[tunnel]\nname = 'home'\n"])
def test_another_default_node_takes_the_flows_under_the_same_names(make: MakeScenario, toml: str) -> None:
    """U2: the alias is the same towards every node, links are shared by all of them."""
    s = make("V", toml)
    name_of(s, (B, 5000))
    name = name_of(s, (A, 5000))
    s.reload(toml, replace=(('node = "hk"', 'node = "sg"'),))
    assert way(only(s.inside(udp((A, 5000), (E, 1))))) == ("V", name, (E, 1)), "vpn is what the default node is"
    assert way(only(s.inject("vpn:hk", udp((E, 1), name)))) == ("L", (E, 1), (A, 5000))
    assert way(only(s.outside(udp((E, 1), name)))) == ("L", (E, 1), (A, 5000))


def test_the_tunnels_port_is_reserved_from_the_reload_on(make: MakeScenario) -> None:
    """U3b: who has it keeps it, nobody else gets it."""
    s = make("O")
    assert name_of(s, (A, 40_000)) == (s.X, 40_000)
    s.reload("[tunnel]\nlisten_port = 40000\n")
    assert name_of(s, (A, 40_000)) == (s.X, 40_000)
    assert way(only(s.outside(udp((E, 1), (s.X, 40_000))))) == ("L", (E, 1), (A, 40_000))
    s.advance(500)
    assert name_of(s, (A, 40_000)) != (s.X, 40_000)
    s.reload()
    assert name_of(s, (B, 40_000)) == (s.X, 40_000)


NEW_O, NEW_ROUTER = "192.168.7.9", "192.168.7.1"
NEW_ISP = (("192.168.1.2/24", f"{NEW_O}/24"), ('"192.168.1.1"\n', f'"{NEW_ROUTER}"\n'), NO_STATIC[1])


def asked(found: list[Out]) -> tuple[str, str, str]:
    """The one ARP request towards the ISP: sender, MAC address, wanted."""
    arp = only([out for out in found if out.port == "O"]).arp
    assert arp is not None
    return arp.psrc, arp.hwsrc, arp.pdst


def test_a_new_address_of_tap1_is_used_at_once_and_links_of_the_old_one_end(make: MakeScenario) -> None:
    """As a kernel that masquerades ends its connections when its address goes; the MAC address stays, the new router is
    asked for, the tunnel's links live on."""
    s = make("O")
    before = name_of(s, (A, 5000))
    s.inject("L", udp((A, 6000), ("8.8.8.8", 53)))
    s.reload(replace=NEW_ISP)
    assert asked(s.inside(udp((A, 5000), (E, 1)))) == (NEW_O, MAC_O, NEW_ROUTER)
    answer = Ether(src=MAC_ISP, dst=MAC_O) / ARP(op=2, hwsrc=MAC_ISP, psrc=NEW_ROUTER, hwdst=MAC_O, pdst=NEW_O)
    assert way(only(s.inject("O", answer))) == ("O", (NEW_O, 5000), (E, 1))
    assert way(only(s.inject("O", udp((E, 1), (NEW_O, 5000))))) == ("L", (E, 1), (A, 5000))
    assert s.inject("O", udp((E, 1), before)) == []
    assert way(only(s.inject("V", udp(("8.8.8.8", 53), (ADDRESS_V, 6000))))) == ("L", ("8.8.8.8", 53), (A, 6000))
    echo = only(s.inject("O", IP(src=E, dst=NEW_O) / ICMP(id=1) / b"hello"))
    assert (echo.port, echo.ip.src, echo.ip[ICMP].type) == ("O", NEW_O, 0)


def test_tap1_keeps_the_mac_address_that_was_made_from_its_old_address(make: MakeScenario) -> None:
    """The default of `mac` follows from the address, but the device was made with the one of before. ARP requests from
    another station would be answered to a station that nobody is."""
    made_from_address = ((f'mac = "{MAC_O}"\n', ""),)
    s = make("O", replace=made_from_address)
    mac = s.gateway.interfaces["tap1"].mac.hex(":")
    s.reload(replace=(*made_from_address, *NEW_ISP))
    assert asked(s.inside(udp((A, 5000), (E, 1)))) == (NEW_O, mac, NEW_ROUTER)


def test_a_new_address_of_tap1_is_probed_and_announced(make: MakeScenario) -> None:
    s = make("O")
    s.reload(replace=NEW_ISP)
    said = [out.arp for out in s.advance(12) if out.port == "O"]
    assert [(one.psrc, one.pdst) for one in said if one] == [("0.0.0.0", NEW_O)] * 3 + [(NEW_O, NEW_O)] * 2


def test_what_waits_for_the_old_router_is_told_and_counted(make: MakeScenario) -> None:
    s = make("O", replace=NO_STATIC[1:])
    s.inside(udp((A, 5000), (E, 1)))
    s.reload(replace=NEW_ISP)
    assert s.gateway.counters.drops[Drop.ARP_NO_ANSWER] == 1


def test_a_new_next_hop_alone_leaves_links_alone(make: MakeScenario) -> None:
    s = make("O")
    before = name_of(s, (A, 5000))
    s.reload(replace=(('"192.168.1.1"\n', '"192.168.1.9"\n'),))
    assert asked(s.inside(udp((A, 5000), (E, 1)))) == (ADDRESS_O, MAC_O, "192.168.1.9")
    assert way(only(s.outside(udp((E, 1), before)))) == ("L", (E, 1), (A, 5000))


def test_later_fragments_do_not_leave_under_an_address_that_is_gone(make: MakeScenario) -> None:
    """F1: whoever has it now would hear the answers."""
    s = make("O")
    first, *later = fragment(udp((A, 5000), (E, 1)) / bytes(2400), fragsize=800)
    assert way(only(s.inside(first))) == ("O", (ADDRESS_O, 5000), (E, 1))
    assert only(s.inside(later[0])).ip.src == ADDRESS_O
    s.reload(replace=(("192.168.1.2/24", "192.168.1.7/24"),))
    assert s.inside(later[1]) == []
    assert s.dropped == Drop.FRAGMENT_DATAGRAM_DROPPED
    s.balance()
