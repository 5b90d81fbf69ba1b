"""Section 3 of the checklist, G1 to G3, G21 to G26, G33: what is forwarded and what is not."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import (
    IPOption,
    IPOption_LSRR,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    IPOption_SSRR,
    IPOption_Timestamp,
)
from scapy.packet import Packet as ScapyPacket
from scapy.utils import checksum

from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
    ADDRESS_O,
    ADDRESS_V,
    HOST,
    ICMP,
    IP,
    MAC_A,
    MAC_ISP,
    MAC_L,
    MAC_O,
    TCP,
    UDP,
    A,
    B,
    E,
    Ether,
    Raw,
    Scenario,
)
from tests.conformance.packets import only, raw_ip
from wire.drop import Drop

FRAMES = {
    "L": (bytes(Ether(src=MAC_A, dst=MAC_L, type=0x0800)), A, E),
    "O": (bytes(Ether(src=MAC_ISP, dst=MAC_O, type=0x0800)), E, ADDRESS_O),
    "U": (b"", HOST, "8.8.8.8"),
    "V": (b"", E, HOST),
}


def udp(source: str = A, destination: str = E, data: bytes = b"data", **ip: object) -> ScapyPacket:
    return IP(src=source, dst=destination, **ip) / UDP(sport=5000, dport=53) / data


def summed(raw: bytes | bytearray) -> bytes:
    """The packet with a right header checksum over as many bytes as its first one says."""
    end = max((raw[0] & 15) * 4, 20)
    return (
        bytes(raw[:10]) + checksum(bytes(raw[:10]) + b"\0\0" + bytes(raw[12:end])).to_bytes(2, "big") + bytes(raw[12:])
    )


def changed(raw: bytes, at: int, value: int) -> bytes:
    return raw[:at] + bytes((value,)) + raw[at + 1 :]


# Header checks


@pytest.mark.parametrize("port", FRAMES)
def test_g1_g2_a_header_that_cannot_be_is_dropped_in_silence(make: MakeScenario, port: str) -> None:
    s = make("O")
    head, source, destination = FRAMES[port]
    good = bytes(udp(source, destination, ttl=1))
    total_bytes = len(good)
    for raw, reason in [
        (b"", Drop.IP_SHORT),
        (good[:1], Drop.IP_SHORT),
        (good[:19], Drop.IP_SHORT),
        (changed(good, 10, good[10] ^ 1), Drop.IP_CHECKSUM),
        (changed(good, 8, 77), Drop.IP_CHECKSUM),
        (changed(changed(good, 0, 0x65), 10, 0) if head else changed(good, 0, 0x55), Drop.IP_CHECKSUM),
        (summed(changed(good, 0, 0x55)), Drop.IP_VERSION),
        (summed(changed(good, 0, 0x05)), Drop.IP_VERSION),
        (summed(changed(good, 0, 0x44)), Drop.IP_HEADER_LENGTH),
        (summed(changed(good, 0, 0x40)), Drop.IP_HEADER_LENGTH),
        (summed(changed(good, 3, 19)), Drop.IP_TOTAL_LENGTH),
        (summed(changed(good, 3, 0)), Drop.IP_TOTAL_LENGTH),
        (summed(changed(good, 3, total_bytes + 1)), Drop.IP_TOTAL_LENGTH),
        (summed(changed(good, 2, 0xFF)), Drop.IP_TOTAL_LENGTH),
        (good[:-1], Drop.IP_TOTAL_LENGTH),
        (summed(changed(changed(good, 0, 0x4F), 3, 60)[:36]), Drop.IP_SHORT),
        (summed(changed(changed(good, 0, 0x46), 3, 20)), Drop.IP_TOTAL_LENGTH),
    ]:
        assert s.inject(port, head + raw) == []
        assert s.dropped == reason, raw.hex()
    assert s.advance(30) == []


def test_g1_the_checksum_is_checked_before_the_version_and_the_lengths(make: MakeScenario) -> None:
    s = make("O")
    good = bytes(udp())
    for port, (head, _, _) in FRAMES.items():
        for at, value in ((0, 0x55), (0, 0x44), (3, 19), (2, 0xFF)):
            s.inject(port, head + changed(good, at, value))
            assert s.dropped == Drop.IP_CHECKSUM, port


def test_g1_a_header_checksum_of_all_ones_sums_up_and_is_right(make: MakeScenario, egress: str) -> None:
    """G1: RFC 1071: 0000 and FFFF are the same number; both sum to all ones."""
    s = make(egress)
    raw = bytes(udp())
    number = next(n for n in range(65536) if summed(raw[:4] + n.to_bytes(2, "big") + raw[6:])[10:12] == b"\0\0")
    raw = summed(raw[:4] + number.to_bytes(2, "big") + raw[6:])
    assert len(s.inject("L", FRAMES["L"][0] + raw)) == 1
    assert len(s.inject("L", FRAMES["L"][0] + raw[:10] + b"\xff\xff" + raw[12:])) == 1


@pytest.mark.parametrize("padding", [0, 1, 4, 18, 1400])
def test_g2_what_stands_behind_the_packet_is_not_forwarded(make: MakeScenario, egress: str, padding: int) -> None:
    s = make(egress)
    packet = udp(data=b"four")
    out = only(s.inject("L", FRAMES["L"][0] + bytes(packet) + b"\xee" * padding))
    assert len(raw_ip(out)) == out.ip.len == 32
    back = IP(src=E, dst=s.X) / UDP(sport=53, dport=out.ip.sport) / b"four"
    if egress == "O":
        assert len(raw_ip(only(s.inject("O", FRAMES["O"][0] + bytes(back) + b"\xee" * padding)))) == 32


# TTL


def flows(s: Scenario) -> dict[str, tuple[str, ScapyPacket]]:
    """One packet for every way through the gateway: (port in, packet)."""
    near = only(s.inside(udp())).ip.sport
    far = only(s.inside(udp(destination="8.8.8.8"))).ip.sport
    host = only(s.inject("U", udp(HOST))).ip.sport
    return {
        "LAN to offload": ("L", udp()),
        "offload to LAN": ("O", IP(src=E, dst=ADDRESS_O) / UDP(sport=53, dport=near)),
        "LAN to tunnel": ("L", udp(destination="8.8.8.8")),
        "tunnel to LAN": ("V", IP(src="8.8.8.8", dst=ADDRESS_V) / UDP(sport=53, dport=far)),
        "host to offload": ("U", udp(HOST)),
        "offload to host": ("O", IP(src=E, dst=ADDRESS_O) / UDP(sport=53, dport=host)),
        "host to tunnel": ("U", udp(HOST, "8.8.8.8")),
        "tunnel to host": ("V", udp("8.8.8.8", HOST)),
        "LAN to host": ("L", udp(destination=HOST)),
        "host to LAN": ("U", udp(HOST, A)),
        "LAN to LAN": ("L", udp(destination=B)),
        "hairpin": ("L", IP(src=B, dst=ADDRESS_O) / UDP(sport=6000, dport=near)),
    }


@pytest.mark.parametrize("way", range(12))
def test_g3_every_way_through_lowers_the_ttl_and_none_sends_zero(make: MakeScenario, way: int) -> None:
    s = make("O")
    name, (port, packet) = list(flows(s).items())[way]
    for ttl in (255, 64, 2):
        packet.ttl = ttl
        assert only(s.inject(port, packet)).ip.ttl == ttl - 1, name
    for ttl in (1, 0):
        packet.ttl = ttl
        out = only(s.inject(port, packet))
        assert (out.port, out.ip.dst, out.ip[ICMP].type, out.ip[ICMP].code) == (port, packet.src, 11, 0), name
        assert raw_ip(out)[28:] == bytes(packet), "the packet is quoted as its sender knows it"
        assert s.dropped == Drop.IP_TTL


@pytest.mark.parametrize("ttl", [0, 1])
def test_g3_an_icmp_error_whose_own_ttl_is_out_is_dropped_without_another(
    make: MakeScenario, egress: str, ttl: int
) -> None:
    s = make(egress)
    sent = only(s.inside(udp()))
    assert s.outside(IP(src="198.51.100.1", dst=s.X, ttl=ttl) / ICMP(type=3, code=1) / sent.ip) == []
    assert s.dropped == Drop.IP_TTL
    turned = only(s.inside(IP(src=B, dst=s.X) / UDP(sport=6000, dport=sent.ip.sport)))
    assert s.inside(IP(src=A, dst=s.X, ttl=ttl) / ICMP(type=3, code=3) / turned.ip) == [], "hairpinned ones likewise"
    back = only(s.outside(IP(src=E, dst=s.X) / UDP(sport=53, dport=sent.ip.sport)))
    assert s.inside(IP(src=A, dst=E, ttl=ttl) / ICMP(type=3, code=3) / back.ip) == []
    assert s.count(Drop.IP_TTL) == 3


@pytest.mark.parametrize("ttl", [0, 1])
def test_g3_packets_to_us_are_not_asked_for_their_ttl(make: MakeScenario, ttl: int) -> None:
    s = make("O")
    for port, source, address in (("L", A, ADDRESS_L), ("L", A, ADDRESS_O), ("O", E, ADDRESS_O), ("V", E, ADDRESS_V)):
        assert only(s.inject(port, IP(src=source, dst=address, ttl=ttl) / ICMP(id=1))).ip[ICMP].type == 0
    assert only(s.inside(udp(destination=ADDRESS_L, ttl=ttl))).ip[ICMP].code == 3
    assert s.outside(udp(E, ADDRESS_O, ttl=ttl)) == [], "nor does a stranger hear of it"
    assert s.dropped == Drop.ALIAS_NO_LINK


# Addresses that are never forwarded


@pytest.mark.parametrize(
    "source",
    [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.254",
        "255.255.255.255",
        ADDRESS_L,
        ADDRESS_O,
        ADDRESS_V,
        "192.168.200.0",
        "192.168.200.255",
        "192.168.1.255",
    ],
)
def test_g21_a_martian_source_is_dropped_on_every_port(make: MakeScenario, source: str) -> None:
    s = make("O")
    for port in "LOUV":
        for destination in (E, "8.8.8.8", HOST, A, ADDRESS_L, ADDRESS_O, ADDRESS_V):
            assert s.inject(port, udp(source, destination)) == [], f"{port} to {destination}"
            assert s.dropped == Drop.IP_MARTIAN_SOURCE
            assert s.inject(port, IP(src=source, dst=destination) / ICMP(id=1)) == []


def test_g21_a_source_that_does_not_live_behind_the_port_is_dropped(make: MakeScenario) -> None:
    """G21: RFC 2827: LAN addresses from the LAN only, the host's from tun0 only, and nothing else from either."""
    s = make("O")
    for port, source in (("L", "10.1.1.1"), ("L", E), ("L", "192.168.201.3"), ("U", A), ("U", "192.168.192.212")):
        assert s.inject(port, udp(source, "8.8.8.8")) == [], f"{source} on {port}"
        assert s.dropped == Drop.IP_SPOOFED_SOURCE
    for port, source in (("O", A), ("V", A), ("L", HOST), ("O", HOST), ("V", HOST)):
        assert s.inject(port, udp(source, {"O": ADDRESS_O, "V": HOST, "L": E}[port])) == [], f"{source} on {port}"
    assert list(s.gateway.aliases.links(s.now)) == []


@pytest.mark.parametrize(
    "destination",
    ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.1.2.3", "169.254.9.9", "240.0.0.1", "255.255.255.254"],
)
def test_g22_a_martian_destination_is_dropped_in_silence(make: MakeScenario, destination: str) -> None:
    s = make("O")
    for port, source in (("L", A), ("U", HOST), ("O", E), ("V", E)):
        for ttl in (64, 1):
            assert s.inject(port, udp(source, destination, ttl=ttl)) == []
            assert s.dropped == Drop.IP_MARTIAN_DESTINATION


@pytest.mark.parametrize(
    "destination", ["255.255.255.255", "192.168.200.255", "192.168.200.0", "192.168.1.255", "192.168.1.0"]
)
def test_g22_a_broadcast_is_never_forwarded(make: MakeScenario, destination: str) -> None:
    s = make("O")
    for port, source in (("L", A), ("U", HOST), ("O", E), ("V", E)):
        for packet in (udp(source, destination), IP(src=source, dst=destination) / ICMP(id=1)):
            assert s.inject(port, packet) == []
            assert s.dropped == Drop.IP_BROADCAST
    frame = Ether(src=MAC_A, dst="ff:ff:ff:ff:ff:ff") / udp(destination=destination)
    assert s.inject("L", frame) == []
    assert s.dropped == Drop.IP_BROADCAST
    assert s.advance(10) == [], "nor asked for"


def test_g22_test_networks_are_ordinary(make: MakeScenario) -> None:
    s = make("O")
    for address in ("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.88.99.1"):
        assert len(s.inside(udp(destination=address))) == 1


@pytest.mark.parametrize("mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01", "03:00:00:00:00:00"])
def test_g23_unicast_ip_in_a_group_frame_is_dropped(make: MakeScenario, mac: str) -> None:
    s = make("O")
    for destination in (E, "8.8.8.8", B, ADDRESS_L, ADDRESS_O, HOST):
        for packet in (udp(destination=destination), IP(src=A, dst=destination) / ICMP(id=1)):
            assert s.inject("L", Ether(src=MAC_A, dst=mac) / packet) == []
            assert s.dropped == Drop.ETH_GROUP
    link = only(s.inside(udp()))
    back = IP(src=E, dst=ADDRESS_O) / UDP(sport=53, dport=link.ip.sport)
    assert s.inject("O", Ether(src=MAC_ISP, dst=mac) / back) == []


def test_g24_multicast_is_swallowed(make: MakeScenario) -> None:
    s = make("O")
    for port, source in (("L", A), ("O", "192.168.1.1"), ("U", HOST), ("V", E)):
        for group in ("224.0.0.1", "224.0.0.22", "224.0.0.251", "239.255.255.250", "232.1.1.1"):
            for packet in (udp(source, group), IP(src=source, dst=group, proto=2, ttl=1) / Raw(bytes(8))):
                assert s.inject(port, packet) == []
                assert s.dropped == Drop.IP_MULTICAST
    frame = Ether(src=MAC_A, dst="01:00:5e:00:00:16") / IP(src=A, dst="224.0.0.22", proto=2, ttl=1) / Raw(bytes(8))
    assert s.inject("L", frame) == []


# Options


@pytest.mark.parametrize("option", [IPOption_LSRR(routers=["8.8.8.8"]), IPOption_SSRR(routers=["8.8.8.8"])])
def test_g25_a_source_route_is_dropped(make: MakeScenario, option: IPOption) -> None:
    s = make("O")
    for port, source, destination in (
        ("L", A, E),
        ("L", A, ADDRESS_L),
        ("U", HOST, E),
        ("O", E, ADDRESS_O),
        ("V", E, ADDRESS_V),
        ("V", E, HOST),
    ):
        for options in ([option], [IPOption_NOP(), option], [IPOption_Router_Alert(), option]):
            assert s.inject(port, IP(src=source, dst=destination, options=options) / ICMP(id=1)) == []
            assert s.dropped == Drop.IP_SOURCE_ROUTE


@pytest.mark.parametrize(
    "options",
    [
        [IPOption_RR(routers=["0.0.0.0"] * 4)],
        [IPOption_Timestamp(length=8, pointer=9, flg=0)],  # full: whoever does not process it does not overflow it
        [IPOption_Router_Alert()],
        [IPOption(b"\x5e\x04\xab\xcd")],
        [IPOption(b"\xde\x06\x01\x02\x03\x04")],
        [IPOption_NOP(), IPOption_NOP(), IPOption_Router_Alert(), IPOption_NOP()],
        [IPOption_RR(routers=["0.0.0.0"] * 9)],
        [IPOption(b"\x00\x83\x03\x04")],  # behind the end of the list nothing is an option
    ],
)
def test_g25_other_options_are_forwarded_as_they_are(make: MakeScenario, egress: str, options: list[IPOption]) -> None:
    s = make(egress)
    packet = IP(src=A, dst=E, options=options) / UDP(sport=5000, dport=53) / b"data"
    sent = bytes(packet)
    out = only(s.inside(packet))
    header_bytes = (sent[0] & 15) * 4
    assert raw_ip(out)[20:header_bytes] == sent[20:header_bytes]
    assert raw_ip(out)[0] == sent[0]
    assert raw_ip(out)[header_bytes + 8 :] == b"data"


# Routes


def test_g26_the_longest_prefix_wins_among_hundreds(make: MakeScenario) -> None:
    """G26: against a search through all prefixes; the ends of each of them, and random addresses."""
    rng = random.Random(26)
    offload = {IPv4Network((rng.randrange(1 << 24, 100 << 24), rng.randint(6, 32)), strict=False) for _ in range(150)}
    bypass = {IPv4Network((rng.randrange(1 << 24, 100 << 24), rng.randint(6, 32)), strict=False) for _ in range(150)}
    bypass |= {IPv4Network((int(net.network_address), min(net.prefixlen + 3, 32))) for net in list(offload)[:50]}
    text = ", ".join(f'"{net}"' for net in sorted(bypass))
    s = make(
        "O",
        offload="".join(f"{net}\n" for net in sorted(offload)),
        replace=(('prefixes = ["offload.txt"]', f'prefixes = ["offload.txt"]\nbypass = [{text}]'),),
        toml="[alias]\nmax_links = 100000\nmax_links_per_host = 100000\n",
    )
    addresses = {rng.randrange(1 << 24, 100 << 24) for _ in range(200)}
    for net in list(offload)[:40] + list(bypass)[:40]:
        first, last = int(net.network_address), int(net.broadcast_address)
        addresses |= {first - 1, first, last, last + 1}
    for number in sorted(addresses):
        if not 1 << 24 <= number < 100 << 24 or number >> 24 == 10:
            continue  # never forwarded, or private
        address = IPv4Address(number)
        longest = max(
            [(net.prefixlen, net in bypass, net in offload) for net in offload | bypass if address in net],
            default=(0, True, False),
        )
        out = only(s.inside(udp(destination=str(address))))
        assert out.port == ("V" if longest[1] else "O"), f"{address}: {longest}"


def test_g26_host_routes_and_equal_prefixes(make: MakeScenario) -> None:
    bypass = 'prefixes = ["offload.txt"]\nbypass = ["9.9.9.9/32", "8.0.0.0/8", "0.0.0.0/1"]'
    s = make("O", offload="8.0.0.0/8\n8.8.8.8/32\n9.9.9.0/24\n", replace=(('prefixes = ["offload.txt"]', bypass),))
    for address, port in (("8.8.8.8", "O"), ("8.8.8.9", "V"), ("9.9.9.9", "V"), ("9.9.9.8", "O"), ("200.1.1.1", "V")):
        assert only(s.inside(udp(destination=address))).port == port, address
    s = make("O", offload="0.0.0.0/0\n")
    assert only(s.inside(udp(destination="8.8.8.8"))).port == "O", "/0 in the list takes everything"
    assert only(s.inside(udp(destination="10.0.0.1"))).ip[ICMP].code == 0, "but what is private"


def test_g26_a_reload_swaps_the_whole_table_at_once(make: MakeScenario) -> None:
    s = make("O")
    assert only(s.inside(udp())).port == "O"
    (s.path.parent / "offload.txt").write_text("8.8.8.0/24\n")
    assert only(s.inside(udp())).port == "O", "a file that was written is not yet read"
    s.reload()
    moved = only(s.inside(udp()))
    assert (moved.port, moved.ip.src) == ("V", ADDRESS_V)
    assert only(s.inside(udp(destination="8.8.8.8"))).port == "O"


# No way back


def test_g33_nothing_is_reflected_to_the_side_it_came_from(make: MakeScenario) -> None:
    s = make("O")
    for port, others in (
        ("O", (E, "192.168.1.77", "8.8.8.8", A, HOST, ADDRESS_L)),
        ("V", ("8.8.8.8", E, A, ADDRESS_L)),
    ):
        for destination in others:
            for packet in (udp("198.51.100.9", destination), IP(src="198.51.100.9", dst=destination) / ICMP(id=1)):
                assert s.inject(port, packet) == [], f"{port} to {destination}"
                assert s.dropped == Drop.ROUTE_NOT_FROM_OUTSIDE
    for packet in (udp(HOST, HOST), IP(src=HOST, dst=HOST) / TCP(sport=5000, dport=80, flags="S")):
        assert s.inject("U", packet) == []
        assert s.dropped == Drop.ROUTE_REFLECTED
    assert list(s.gateway.aliases.links(s.now)) == []
