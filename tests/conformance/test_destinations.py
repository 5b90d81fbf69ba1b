"""Where a destination goes: the section of that name in the interface, sentence by sentence, and the four flows."""

from __future__ import annotations

import pytest
from scapy.packet import Packet as ScapyPacket

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
    ADDRESS_O,
    ADDRESS_V,
    HOST,
    ICMP,
    IP,
    MAC_A,
    MAC_B,
    MAC_ISP,
    MAC_L,
    MAC_O,
    TCP,
    UDP,
    A,
    B,
    E,
    Ether,
    IPerror,
    Out,
    Scenario,
)
from tests.conformance.packets import only, raw_ip, way
from wire.drop import Drop

ISP = "192.168.1.1"
NO_VPN = ((f'[vpn]\naddress = "{ADDRESS_V}"\nnode = "hk"\n', ""),)
TAP1 = f'[tap1]\naddress = "{ADDRESS_O}/24"\nmac = "{MAC_O}"\ngateway = "{ISP}"\n[tap1.arp]\n"{ISP}" = "{MAC_ISP}"\n'
NO_TAP1 = ((TAP1, ""),)


def udp(source: str = A, destination: str = E, **ip: object) -> ScapyPacket:
    return IP(src=source, dst=destination, **ip) / UDP(sport=5000, dport=53) / b"question"


def target(s: Scenario, destination: str, port: str = "L", source: str = A) -> str:
    """Where a packet goes: the port that it leaves by (or is asked about on), or the error's type and code."""
    outs = s.inject(port, udp(source, destination))
    if not outs:
        return "silence"
    out = only(outs)
    if out.is_ethernet and out.arp is not None:
        return out.port
    if out.ip.dst == source and out.ip.haslayer(ICMP):
        return f"{out.ip[ICMP].type}/{out.ip[ICMP].code}"
    assert out.ip.dst == destination
    return out.port


# One table, the longest prefix wins


def everything(make: MakeScenario) -> Scenario:
    """Every kind of prefix at once, with equal ones in every pair of neighbouring kinds."""
    return make(
        "O",
        offload="""# the list
203.0.113.0/24
203.0.114.0/24
198.51.100.0/24
192.0.2.0/24
192.168.1.0/24      # connected: says nothing new
192.168.192.211/32  # likewise
10.0.0.0/8          # private: without effect
10.9.0.0/16         # likewise
172.20.1.1          # likewise
100.64.0.0/10
9.0.0.0/8
9.9.9.0/24
""",
        replace=(
            (
                'prefixes = ["offload.txt"]',
                'prefixes = ["offload.txt"]\n'
                'bypass = ["198.51.100.0/24", "8.8.0.0/16", "10.7.0.0/16", "9.9.0.0/16", "192.168.200.0/24"]',
            ),
        ),
        toml="""
[tunnel]
routes = "route"
[peer.jp]
allowed_ips = ["0.0.0.0/0", "198.51.100.0/24", "203.0.114.0/24", "10.6.0.0/16", "172.16.0.0/12"]
[peer.hk]
allowed_ips = ["0.0.0.0/0"]
""",
        files={
            "route/jp": "8.8.0.0/16\n10.5.0.0/16\n192.168.1.128/25\n192.168.200.0/24  # connected wins\n",
            "route/us": "192.0.2.0/24\n10.5.5.0/24\n192.168.192.0/24\n240.0.0.0/8\n",
        },
    )


@pytest.mark.parametrize(
    ("destination", "wanted"),
    [
        # connected
        (B, "L"),
        ("192.168.1.1", "O"),
        ("192.168.1.77", "O"),
        (HOST, "U"),
        # a longer one inside a connected network
        ("192.168.1.200", "vpn:jp"),
        # route files before bypass, allowed_ips and the list
        ("8.8.8.8", "vpn:jp"),
        ("192.0.2.7", "vpn:us"),
        ("10.5.1.1", "vpn:jp"),
        ("10.5.5.1", "vpn:us"),
        # bypass before allowed_ips and the list, to the default node
        ("198.51.100.9", "V"),
        ("10.7.1.1", "V"),
        # the longest of offload and bypass
        ("9.1.1.1", "O"),
        ("9.9.1.1", "V"),
        ("9.9.9.1", "O"),
        # allowed_ips before the private ranges and the list; 0.0.0.0/0 says nothing
        ("203.0.114.9", "vpn:jp"),
        ("10.6.1.1", "vpn:jp"),
        ("172.20.1.1", "vpn:jp"),
        # the private ranges before the list
        ("10.0.0.1", "3/0"),
        ("10.9.1.1", "3/0"),
        ("100.64.0.1", "3/0"),
        ("100.127.255.254", "3/0"),
        ("192.168.77.1", "3/0"),
        # the list
        (E, "O"),
        # and what nothing names
        ("100.128.0.1", "V"),
        ("100.63.255.255", "V"),
        ("172.32.0.1", "V"),
        ("172.15.255.255", "V"),
        ("11.0.0.1", "V"),
        ("192.167.255.255", "V"),
        ("192.169.0.0", "V"),
        ("1.1.1.1", "V"),
        ("223.255.255.254", "V"),
        # never forwarded, whatever a file says
        ("240.1.1.1", "silence"),
        ("127.0.0.2", "silence"),
        ("169.254.7.7", "silence"),
        ("192.168.200.255", "silence"),
    ],
)
def test_the_longest_prefix_wins_and_equal_ones_have_their_order(
    make: MakeScenario, destination: str, wanted: str
) -> None:
    assert target(everything(make), destination) == wanted


def test_the_rest_of_tun0s_subnet_is_the_default_nodes(make: MakeScenario) -> None:
    s = make("O")
    for port, source, shown in (("L", A, ADDRESS_V), ("U", HOST, HOST)):
        out = only(s.inject(port, udp(source, "192.168.192.99")))
        assert (out.port, out.ip.src) == ("V", shown)


@pytest.mark.parametrize("destination", ["10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.0.1", "100.64.0.1"])
def test_a_private_destination_that_nothing_names_is_unreachable(make: MakeScenario, destination: str) -> None:
    s = make("O", offload=f"{destination}/32\n10.0.0.0/8\n")
    assert target(s, destination) == "3/0"
    assert s.dropped == Drop.ROUTE_UNREACHABLE
    assert target(s, destination, "U", HOST) == "3/0"


def test_without_a_default_node_what_nothing_names_is_unreachable(make: MakeScenario) -> None:
    s = make("O", replace=NO_VPN)
    assert target(s, "8.8.8.8") == "3/0"
    assert target(s, "8.8.8.8", "U", HOST) == "3/0"
    assert target(s, E) == "O"
    assert target(s, "192.168.192.99") == "3/0"


def test_without_tap1_nothing_is_offloaded(make: MakeScenario) -> None:
    s = make("O", replace=NO_TAP1)
    assert target(s, E) == "V"
    assert target(s, ISP) == "3/0", "its subnet is not connected any more"


@pytest.mark.parametrize("destination", ["203.0.113.1", "198.51.100.1", "192.0.2.1"])
def test_test_networks_are_ordinary(make: MakeScenario, destination: str) -> None:
    assert target(make("O"), destination) == ("V" if destination == "192.0.2.1" else "O")


# Ways


def test_a_lan_host_reaches_the_isp_routers_own_page_by_an_alias(make: MakeScenario) -> None:
    s = make("O")
    out = only(s.inside(IP(src=A, dst=ISP) / TCP(sport=5000, dport=80, flags="S")))
    assert (out.port, out.eth.dst, out.ip.src, out.ip.dst) == ("O", MAC_ISP, ADDRESS_O, ISP)
    back = only(s.inject("O", IP(src=ISP, dst=ADDRESS_O) / TCP(sport=80, dport=out.ip.sport, flags="SA", ack=1)))
    assert way(back) == ("L", (ISP, 80), (A, 5000))


def test_a_neighbour_on_the_isp_side_is_asked_for_itself(make: MakeScenario) -> None:
    s = make("O")
    question = only(s.inside(udp(destination="192.168.1.50")))
    assert (question.port, question.arp.pdst, question.arp.psrc) == ("O", "192.168.1.50", ADDRESS_O)


def test_the_host_and_the_lan_reach_each_other_without_an_alias(make: MakeScenario) -> None:
    s = make("O")
    out = only(s.inject("U", udp(HOST, A)))
    assert (*way(out), out.eth.dst, out.ip.ttl) == ("L", (HOST, 5000), (A, 53), MAC_A, 63)
    back = only(s.inside(udp(A, HOST)))
    assert (*way(back), back.ip.ttl) == ("U", (A, 5000), (HOST, 53), 63)
    assert list(s.gateway.aliases.links(s.now)) == []


def test_lan_traffic_sent_to_our_mac_is_forwarded_back_and_never_redirected(make: MakeScenario) -> None:
    s = make("O")
    for _ in range(5):
        out = only(s.inside(udp(A, B)))
        assert (*way(out), out.eth.src, out.eth.dst, out.ip.ttl) == ("L", (A, 5000), (B, 53), MAC_L, MAC_B, 63)


def test_errors_sent_into_tun0_carry_tap0s_address(make: MakeScenario) -> None:
    s = make("O")
    for packet, kind, code in (
        (udp(HOST, E, ttl=1), 11, 0),
        (udp(HOST, "10.1.1.1"), 3, 0),
        (udp(HOST, ADDRESS_L), 3, 3),
        (IP(src=HOST, dst="8.8.8.8", flags="DF") / UDP() / bytes(1400), 3, 4),
    ):
        out = only(s.inject("U", packet))
        assert (out.port, out.ip.src, out.ip.dst) == ("U", ADDRESS_L, HOST)
        assert (out.ip[ICMP].type, out.ip[ICMP].code, out.ip[IPerror].dst) == (kind, code, packet.dst)


def test_without_a_lan_errors_into_tun0_carry_another_address_than_the_hosts(make: MakeScenario) -> None:
    """A kernel drops what claims to come from its own address."""
    lan = f'[tap0]\naddress = "{ADDRESS_L}/24"\nmac = "{MAC_L}"\n[tap0.arp]\n"{A}" = "{MAC_A}"\n"{B}" = "{MAC_B}"\n'
    s = make("O", replace=((lan, ""),))
    out = only(s.inject("U", udp(HOST, E, ttl=1)))
    assert (out.port, out.ip.src, out.ip.dst) == ("U", ADDRESS_O, HOST)
    assert way(only(s.inject("U", udp(HOST, E)))) == ("O", (ADDRESS_O, 5000), (E, 53))
    assert target(s, A, "U", HOST) == "3/0"


def test_a_tun_on_the_isp_side_carries_raw_ip(make: MakeScenario) -> None:
    arp = f'mac = "{MAC_O}"\ngateway = "{ISP}"\n[tap1.arp]\n"{ISP}" = "{MAC_ISP}"\n'
    s = make("O", replace=((arp, 'kind = "tun"\n'),))
    for destination in (E, ISP):
        out = only(s.inside(udp(destination=destination)))
        assert (out.port, out.frame[0], out.ip.src, out.ip.dst) == ("O", 0x45, ADDRESS_O, destination)
        back = only(s.inject("O", IP(src=destination, dst=ADDRESS_O) / UDP(sport=53, dport=out.ip.sport)))
        assert (back.port, back.ip.dst, back.eth.dst) == ("L", A, MAC_A)


def test_without_a_vpn_address_lan_sources_stay(make: MakeScenario) -> None:
    s = make("O", replace=((f'address = "{ADDRESS_V}"\n', ""),))
    out = only(s.inside(udp(destination="8.8.8.8")))
    assert way(out) == ("V", (A, 5000), ("8.8.8.8", 53))
    back = only(s.inject("V", IP(src="8.8.8.8", dst=A) / UDP(sport=53, dport=5000)))
    assert (*way(back), back.ip.ttl) == ("L", ("8.8.8.8", 53), (A, 5000), 63)
    assert s.inject("V", udp("8.8.8.8", ADDRESS_L)) == []
    told = only(s.inject("V", IP(src="8.8.8.8", dst=A, ttl=1) / UDP(sport=53, dport=5000)))
    assert (told.port, told.ip.src, told.ip[ICMP].type) == ("V", ADDRESS_L, 11)


def test_the_alias_is_the_same_towards_every_node(make: MakeScenario) -> None:
    s = everything(make)
    first = only(s.inside(udp(destination="1.1.1.1")))
    second = only(s.inside(udp(destination="8.8.8.8")))
    assert (first.port, second.port) == ("V", "vpn:jp")
    assert (first.ip.src, first.ip.sport) == (second.ip.src, second.ip.sport) == (ADDRESS_V, 5000)
    for port in ("V", "vpn:jp", "vpn:us"):
        back = only(s.inject(port, IP(src="8.8.8.8", dst=ADDRESS_V) / UDP(sport=53, dport=5000)))
        assert way(back) == ("L", ("8.8.8.8", 53), (A, 5000))
    told = only(s.inject("vpn:jp", IP(src="8.8.8.8", dst=ADDRESS_V, ttl=1) / UDP(sport=53, dport=5000)))
    assert told.port == "vpn:jp", "an error goes back to the node that its cause came from"
    answer = only(s.inject("vpn:us", IP(src="8.8.8.8", dst=ADDRESS_V) / ICMP(id=4)))
    assert (answer.port, answer.ip.src) == ("vpn:us", ADDRESS_V)


def test_a_reload_moves_a_flow_at_once_to_its_new_egress_and_source(make: MakeScenario) -> None:
    s = make("O")
    old = only(s.inside(udp()))
    assert (old.port, old.ip.src) == ("O", ADDRESS_O)
    s.reload(replace=(('prefixes = ["offload.txt"]', f'prefixes = ["offload.txt"]\nbypass = ["{E}/32"]'),))
    new = only(s.inside(udp()))
    assert (new.port, new.ip.src) == ("V", ADDRESS_V)
    assert only(s.inject("V", IP(src=E, dst=ADDRESS_V) / UDP(sport=53, dport=new.ip.sport))).ip.dst == A
    late = only(s.inject("O", IP(src=E, dst=ADDRESS_O) / UDP(sport=53, dport=old.ip.sport)))
    assert late.ip.dst == A, "what is still on its way finds its link"


# The four packet flows, byte for byte


def bytes_of(out: Out) -> bytes:
    return out.frame if out.is_ethernet else raw_ip(out)


@pytest.mark.parametrize("layer", ["udp", "tcp", "icmp"])
@pytest.mark.parametrize(
    ("port", "source", "egress", "remote", "shown"),
    [
        ("L", "192.168.200.3", "V", "8.8.8.8", ADDRESS_V),
        ("U", HOST, "V", "8.8.8.8", HOST),
        ("L", "192.168.200.3", "O", "114.114.114.114", ADDRESS_O),
        ("U", HOST, "O", "114.114.114.114", ADDRESS_O),
    ],
    ids=["LAN to VPN", "host to VPN", "LAN to offload", "host to offload"],
)
def test_the_four_flows_hold_byte_for_byte(
    make: MakeScenario, port: str, source: str, egress: str, remote: str, shown: str, layer: str
) -> None:
    s = make("O", offload="114.114.114.0/24\n", replace=((f'"{A}" = ', '"192.168.200.3" = '),))

    def packet(src: str, dst: str, ttl: int, *, back: bool) -> ScapyPacket:
        ends = {"sport": 53, "dport": 5000} if back else {"sport": 5000, "dport": 53}
        head = IP(src=src, dst=dst, ttl=ttl, id=0x1234, tos=0x10, flags="DF")
        if layer == "udp":
            return head / UDP(**ends) / b"odd"
        if layer == "tcp":
            flags = "SA" if back else "S"
            return head / TCP(**ends, flags=flags, seq=7, ack=8 if back else 0, options=[("MSS", 1200)])
        return head / ICMP(type=0 if back else 8, id=77, seq=3) / b"odd"

    def framed(at: str, there: bool, inner: ScapyPacket) -> bytes:
        """As it stands on that port's wire; `there`: towards us."""
        ours, theirs = {"L": (MAC_L, MAC_A), "O": (MAC_O, MAC_ISP)}.get(at, ("", ""))
        if not ours:
            return bytes(inner)
        return bytes(Ether(src=theirs if there else ours, dst=ours if there else theirs, type=0x0800) / inner)

    out = only(s.inject(port, framed(port, True, packet(source, remote, 64, back=False))))
    assert (out.port, bytes_of(out)) == (egress, framed(egress, False, packet(shown, remote, 63, back=False)))
    out = only(s.inject(egress, framed(egress, True, packet(remote, shown, 50, back=True))))
    assert (out.port, bytes_of(out)) == (port, framed(port, False, packet(remote, source, 49, back=True)))
