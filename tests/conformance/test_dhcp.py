"""DHCP on tap1, through the whole walk: the address arrives, changes and goes while LAN hosts go on."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ARP,
    HOST,
    ICMP,
    IP,
    MAC_ISP,
    MAC_O,
    TCP,
    UDP,
    A,
    E,
    Ether,
    Out,
    Scenario,
)
from tests.dhcp.dhcp_bench import Options, granted, reply
from wire.drop import Drop

LEASED, OTHER, ROUTER = "192.168.1.50", "192.168.1.60", "192.168.1.1"
DYNAMIC = (
    ('address = "192.168.1.2/24"', 'address = "dhcp"'),
    ('gateway = "192.168.1.1"\n[tap1.arp]\n', "[tap1.arp]\n"),
)
NO_ARP = (*DYNAMIC, ('[tap1.arp]\n"192.168.1.1" = "02:aa:00:00:00:01"\n', ""))
BROADCAST = "ff:ff:ff:ff:ff:ff"


class Isp:
    """The ISP's side of a scenario: its server answers what the gateway asks."""

    def __init__(self, s: Scenario) -> None:
        self.s = s
        self.sent: list[Out] = []

    def begins(self) -> list[Out]:
        """The client begins, and in the same instant a LAN host says something that goes nowhere."""
        return self.hears(
            [
                *self.s.begin(),
                *self.s.inject("L", IP(src=A, dst="192.168.200.2") / ICMP(type=13, ts_ori=1, ts_rx=0, ts_tx=0)),
            ]
        )

    def hears(self, outs: list[Out]) -> list[Out]:
        self.sent += [out for out in outs if out.port == "O" and BOOTP in out.eth]
        return outs

    @property
    def asked(self) -> Any:
        """The latest message of the client, as scapy reads it."""
        return self.sent[-1].eth

    def answers(
        self, kind: str, options: Options | None = None, address: str = LEASED, *, to: str = BROADCAST, **more: Any
    ) -> list[Out]:
        packet = reply(kind, self.asked[BOOTP].xid, granted() if options is None else options, address=address, **more)
        return self.hears(self.s.inject("O", Ether(src=MAC_ISP, dst=to, type=0x0800) / IP(packet)))

    def leases(self, options: Options | None = None, address: str = LEASED) -> None:
        self.answers("offer", options, address)
        self.answers("ack", options, address)

    def advances(self, seconds: float) -> list[Out]:
        return self.hears(self.s.advance(seconds))


def kind_of(out: Out) -> int:
    return int(dict(one[:2] for one in out.eth[DHCP].options if isinstance(one, tuple))["message-type"])


def leased(make: MakeScenario, options: Options | None = None, **more: Any) -> tuple[Scenario, Isp]:
    s = make("O", replace=DYNAMIC, **more)
    isp = Isp(s)
    isp.begins()
    isp.leases(options)
    assert s.leases == [("bound", LEASED)]
    s.advance(8)  # the probes are through
    return s, isp


def offloaded(s: Scenario, sport: int = 5000, **more: Any) -> list[Out]:
    return s.inside(IP(src=A, dst=E, **more) / UDP(sport=sport, dport=53) / b"x")


def test_d1_d2_four_messages_and_the_address_is_in_use_with_the_ack(make: MakeScenario) -> None:
    s = make("O", replace=DYNAMIC)
    isp = Isp(s)
    (discover,) = [out for out in isp.begins() if out.port == "O"]
    assert (discover.t, discover.eth.dst, discover.eth.src) == (0, BROADCAST, MAC_O)
    assert (discover.ip.src, discover.ip.dst, discover.ip[UDP].sport, discover.ip[UDP].dport) == (
        "0.0.0.0",
        "255.255.255.255",
        68,
        67,
    )
    s.advance(0.1)
    (request,) = isp.answers("offer")
    assert kind_of(request) == 3
    assert isp.answers("ack", to=MAC_O) == [], "by unicast to an address that was not ours yet"
    (out,) = offloaded(s)
    assert (out.port, out.ip.src, out.eth.dst) == ("O", LEASED, MAC_ISP)
    assert s.inject("O", IP(src=E, dst=LEASED) / UDP(sport=53, dport=out.ip[UDP].sport))[0].port == "L"
    assert [one.arp.pdst for one in s.advance(8) if one.arp is not None and one.arp.psrc == "0.0.0.0"] == [LEASED] * 3


def test_d1_without_an_address_what_would_leave_is_answered_with_net_unreachable(make: MakeScenario) -> None:
    s = make("O", replace=DYNAMIC)
    isp = Isp(s)
    isp.begins()
    (error,) = offloaded(s)
    assert (error.port, error.ip.src, error.ip[ICMP].type, error.ip[ICMP].code) == ("L", "192.168.200.2", 3, 0)
    (error,) = s.inject("U", IP(src=HOST, dst=E) / UDP(sport=1, dport=53))
    assert (error.port, error.ip[ICMP].type, error.ip[ICMP].code) == ("U", 3, 0)
    assert s.inject("O", Ether(src=MAC_ISP, dst=BROADCAST) / ARP(op=1, psrc="0.0.0.0", pdst=LEASED)) == []
    assert s.dropped == "arp.not_for_us"
    assert s.inject("O", IP(src=E, dst="0.0.0.0") / UDP(sport=1, dport=2)) == []
    assert s.inside(IP(src=A, dst="8.8.8.8") / UDP(sport=1, dport=53))[0].port == "V", "the tunnel needs no lease"


def test_d18_messages_for_other_hosts_of_the_isps_network_are_not_ours(make: MakeScenario) -> None:
    s = make("O", replace=DYNAMIC)
    isp = Isp(s)
    isp.begins()
    assert isp.answers("offer", mac=b"\x02\0\0\0\0\x77") == []
    assert s.dropped == "dhcp.not_ours"
    discover = isp.sent[0].frame
    s.inject("O", Ether(src="02:00:00:00:00:77", dst=BROADCAST) / IP(discover[14:]))
    assert s.dropped == "ip.martian_source", "another client's DISCOVER goes to port 67"
    assert s.leases == []


def test_u7_d13_a_lease_that_overlaps_the_lan_is_refused_and_the_lan_goes_on(make: MakeScenario) -> None:
    s = make("O", replace=DYNAMIC)
    isp = Isp(s)
    isp.begins()
    assert isp.answers("offer", granted(router="192.168.200.1"), "192.168.200.50") == []
    assert s.leases == [("refused", "192.168.200.50")]
    assert s.dropped == "dhcp.refused"
    assert isp.answers("offer", granted(mask="255.255.0.0")) == [], "and one that holds the LAN"
    (reply_,) = s.inside(IP(src=A, dst="192.168.200.2") / ICMP(id=1))
    assert reply_.ip[ICMP].type == 0
    isp.leases()
    assert offloaded(s)[0].port == "O"


def test_d4_d5_a_renewal_is_unicast_by_the_ports_own_next_hop_and_keeps_the_links(make: MakeScenario) -> None:
    s, isp = leased(make)
    mapped = offloaded(s)[0].ip[UDP].sport
    (renewal,) = [out for out in isp.advances(1800) if out.port == "O" and BOOTP in out.eth]
    assert (renewal.t, renewal.eth.dst, renewal.ip.src, renewal.ip.dst) == (1800, MAC_ISP, LEASED, ROUTER)
    assert offloaded(s)[0].ip[UDP].sport == mapped
    assert isp.answers("ack", to=MAC_O) == []
    assert s.leases[-1] == ("renewed", LEASED)
    assert s.inject("O", IP(src=E, dst=LEASED) / UDP(sport=53, dport=mapped))[0].port == "L"


def test_d6_when_the_lease_expires_the_address_and_its_links_are_gone_at_once(make: MakeScenario) -> None:
    s, isp = leased(make)
    isp.advances(3590 - 8)
    mapped = offloaded(s)[0].ip[UDP].sport
    tunnelled = s.inside(IP(src=A, dst="8.8.8.8") / UDP(sport=6000, dport=53))[0].ip[UDP].sport
    isp.advances(11)
    assert s.leases[-1] == ("expired", LEASED)
    assert s.inject("O", IP(src=E, dst=LEASED) / UDP(sport=53, dport=mapped)) == []
    assert offloaded(s)[0].ip[ICMP].code == 0
    back = s.inject("V", IP(src="8.8.8.8", dst="192.168.192.210") / UDP(sport=53, dport=tunnelled))
    assert back[0].port == "L", "flows by the tunnel do not notice"
    assert kind_of(isp.sent[-1]) == 1


def test_d6_a_nak_drops_the_address_and_begins_anew(make: MakeScenario) -> None:
    s, isp = leased(make)
    isp.advances(1800)
    (discover,) = isp.answers("nak", [])
    assert kind_of(discover) == 1
    assert s.leases[-1] == ("nak", LEASED)
    assert offloaded(s)[0].ip[ICMP].code == 0
    isp.leases(address=OTHER)
    assert offloaded(s)[0].ip.src == OTHER


@pytest.mark.parametrize("opcode", [1, 2])
def test_d7_an_address_that_another_host_uses_is_declined_and_asked_for_after_ten_seconds(
    make: MakeScenario, opcode: int
) -> None:
    s = make("O", replace=DYNAMIC)
    isp = Isp(s)
    isp.begins()
    isp.leases()
    mapped = offloaded(s)[0].ip[UDP].sport
    s.advance(2)
    claim = Ether(src="02:bb:00:00:00:01", dst=BROADCAST) / ARP(
        op=opcode, hwsrc="02:bb:00:00:00:01", psrc=LEASED, pdst=LEASED
    )
    (decline,) = isp.hears(s.inject("O", claim))
    assert kind_of(decline) == 4
    named = dict(one[:2] for one in decline.eth[DHCP].options if isinstance(one, tuple))
    assert (decline.ip.src, named["requested_addr"], named["server_id"]) == ("0.0.0.0", LEASED, ROUTER)
    assert s.leases[-1] == ("declined", LEASED)
    assert s.inject("O", IP(src=E, dst=LEASED) / UDP(sport=53, dport=mapped)) == []
    assert [out for out in isp.advances(9.9) if out.port == "O"] == []
    assert [kind_of(out) for out in isp.advances(0.2)] == [1]


def test_d7_a_conflict_after_the_probes_is_defended(make: MakeScenario) -> None:
    s, _isp = leased(make)
    claim = Ether(src="02:bb:00:00:00:01", dst=BROADCAST) / ARP(
        op=2, hwsrc="02:bb:00:00:00:01", psrc=LEASED, pdst=LEASED
    )
    (defence,) = s.inject("O", claim)
    assert defence.arp is not None
    assert s.leases == [("bound", LEASED)]
    assert offloaded(s)[0].ip.src == LEASED


def test_d9_another_address_ends_the_links_of_the_old_one(make: MakeScenario) -> None:
    s, isp = leased(make)
    mapped = offloaded(s)[0].ip[UDP].sport
    isp.advances(1800)
    isp.answers("ack", address=OTHER)
    assert s.leases[-1] == ("bound", OTHER)
    assert offloaded(s)[0].ip.src == OTHER
    assert s.inject("O", IP(src=E, dst=LEASED) / UDP(sport=53, dport=mapped)) == []
    assert s.inject("O", IP(src=E, dst=OTHER) / ICMP(id=1))[0].ip.src == OTHER


def test_d9_another_gateway_keeps_the_links(make: MakeScenario) -> None:
    s, isp = leased(make)
    mapped = offloaded(s)[0].ip[UDP].sport
    isp.advances(1800)
    offloaded(s)
    isp.answers("ack", granted(router="192.168.1.9"))
    outs = offloaded(s)
    assert [out.arp.pdst for out in outs if out.arp is not None] == ["192.168.1.9"], "the new next hop is asked for"
    assert s.inject("O", IP(src=E, dst=LEASED) / UDP(sport=53, dport=mapped))[0].port == "L"


def test_d10_classless_routes_name_the_next_hop(make: MakeScenario) -> None:
    s, _isp = leased(make, [*granted(router="192.168.1.9"), (121, bytes.fromhex("00c0a80101"))])
    assert offloaded(s)[0].eth.dst == MAC_ISP


def test_d13_a_gateway_outside_the_subnet_is_asked_for_where_a_classless_route_names_it(make: MakeScenario) -> None:
    s = make("O", replace=NO_ARP)
    isp = Isp(s)
    isp.begins()
    isp.leases(
        [*granted(mask="255.255.255.255", router="10.9.9.1"), (121, bytes.fromhex("200a09090100000000000a090901"))]
    )
    s.advance(8)
    (question,) = offloaded(s)
    assert question.arp is not None
    assert (question.arp.psrc, question.arp.pdst) == (LEASED, "10.9.9.1")
    (out,) = s.inject(
        "O",
        Ether(src=MAC_ISP, dst=MAC_O) / ARP(op=2, hwsrc=MAC_ISP, psrc="10.9.9.1", hwdst=MAC_O, pdst=LEASED),
    )
    assert (out.eth.dst, out.ip.src) == (MAC_ISP, LEASED)


def test_d11_option_26_is_the_mtu_of_what_leaves_until_the_lease_ends(make: MakeScenario) -> None:
    s, isp = leased(make, [*granted(), ("interface-mtu", 1400)])
    (error,) = s.inside(IP(src=A, dst=E, flags="DF") / UDP(sport=5000, dport=53) / bytes(1380))
    assert (error.ip[ICMP].type, error.ip[ICMP].code, error.ip[ICMP].nexthopmtu) == (3, 4, 1400)
    (syn,) = s.inside(IP(src=A, dst=E) / TCP(sport=6000, dport=80, flags="S", options=[("MSS", 1460)]))
    assert dict(syn.ip[TCP].options)["MSS"] == 1360
    isp.advances(1800)
    isp.answers("ack", granted())
    assert s.inside(IP(src=A, dst=E, flags="DF") / UDP(sport=5000, dport=53) / bytes(1380))[0].port == "O"


def test_d14_a_rogue_server_changes_nothing(make: MakeScenario) -> None:
    s = make("O", replace=DYNAMIC)
    isp = Isp(s)
    isp.begins()
    isp.answers("offer")
    assert isp.answers("nak", [], server="192.168.1.66") == []
    assert s.dropped == "dhcp.unexpected"
    isp.answers("ack")
    assert isp.answers("nak", [], server="192.168.1.66") == []
    assert offloaded(s)[0].ip.src == LEASED


def test_d15_another_isp_router_is_asked_at_once_whether_the_address_still_holds(make: MakeScenario) -> None:
    s = make("O", replace=NO_ARP)
    isp = Isp(s)
    isp.begins()
    isp.leases()
    s.advance(8)
    offloaded(s)
    answer = Ether(src=MAC_ISP, dst=MAC_O) / ARP(op=2, hwsrc=MAC_ISP, psrc=ROUTER, hwdst=MAC_O, pdst=LEASED)
    s.inject("O", answer)
    s.advance(2)
    new = "02:aa:00:00:00:99"
    s.inject("O", Ether(src=new, dst=BROADCAST) / ARP(op=1, hwsrc=new, psrc=ROUTER, pdst=LEASED))
    s.inject("O", Ether(src=new, dst=MAC_O) / ARP(op=2, hwsrc=new, psrc=ROUTER, hwdst=MAC_O, pdst=LEASED))
    outs = isp.hears(s.advance(0.1))  # the former router is silent
    assert [kind_of(out) for out in outs if out.arp is None] == [3]
    assert isp.asked[IP].src == "0.0.0.0"
    assert offloaded(s)[0].port == "O", "the address stays meanwhile"
    isp.answers("ack")
    assert s.leases[-1] == ("renewed", LEASED)


def test_d15_a31_a_forger_of_the_isp_router_costs_no_lease_and_no_question(make: MakeScenario) -> None:
    s = make("O", replace=NO_ARP)
    isp = Isp(s)
    isp.begins()
    isp.leases()
    s.advance(8)
    offloaded(s)
    answer = Ether(src=MAC_ISP, dst=MAC_O) / ARP(op=2, hwsrc=MAC_ISP, psrc=ROUTER, hwdst=MAC_O, pdst=LEASED)
    s.inject("O", answer)
    s.advance(2)
    new = "02:aa:00:00:00:99"
    s.inject("O", Ether(src=new, dst=BROADCAST) / ARP(op=1, hwsrc=new, psrc=ROUTER, pdst=LEASED))
    assert s.inject("O", answer) == []
    assert [out for out in s.advance(1) if out.arp is None] == []
    assert offloaded(s)[0].port == "O"


def test_d10_port_68_is_never_a_links(make: MakeScenario) -> None:
    s, _isp = leased(make)
    assert offloaded(s, sport=68)[0].ip[UDP].sport != 68


def test_d13_a_reload_gives_a_lease_back_whose_network_the_lan_takes(make: MakeScenario) -> None:
    s, isp = leased(make)
    moved = (*DYNAMIC, ('address = "192.168.192.211/24"', 'address = "192.168.1.211/24"'))
    s.reload(replace=moved)
    assert s.leases[-1] == ("refused", LEASED)
    assert isp.s.count(Drop.DHCP_REFUSED) == 0
    assert offloaded(s)[0].ip[ICMP].code == 0


def test_routes_know_the_leased_network_and_a_reload_keeps_it(make: MakeScenario) -> None:
    s, _isp = leased(make)
    for _ in range(2):
        (out,) = s.inside(IP(src=A, dst="192.168.1.77") / UDP(sport=1, dport=1))
        assert out.arp is not None
        assert (out.port, out.arp.pdst) == ("O", "192.168.1.77"), "the ISP's own network is reached by tap1"
        assert s.inside(IP(src=A, dst=LEASED) / ICMP(id=1))[0].ip.src == LEASED
        s.reload(replace=DYNAMIC)
        s.advance(10)
