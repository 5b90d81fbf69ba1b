"""Section 3 of the checklist, G4 to G20, G31, G32: what the gateway says by ICMP, to whom, and when it is silent."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import IPOption_NOP, fragment
from scapy.packet import Packet as ScapyPacket

from tests.conformance.arp_frames import arp
from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
    ADDRESS_O,
    ADDRESS_V,
    HOST,
    ICMP,
    IP,
    MAC_A,
    MAC_L,
    MAC_O,
    NO_STATIC,
    TCP,
    UDP,
    A,
    B,
    E,
    Ether,
    IPerror,
    Out,
    Raw,
    UDPerror,
)
from tests.conformance.packets import only as one
from tests.conformance.packets import raw_ip
from wire.drop import Drop

NOWHERE = "10.1.1.1"  # private, and no route names it
TO_US = Ether(src=MAC_A, dst=MAC_L, type=0x0800)


def error(outs: list[Out]) -> tuple[str, str, str, int, int]:
    """The one ICMP error that came out: port, source, destination, type and code."""
    out = one(outs)
    assert out.ip.proto == 1
    return out.port, out.ip.src, out.ip.dst, out.ip[ICMP].type, out.ip[ICMP].code


def udp(source: str = A, destination: str = E, **fields: object) -> ScapyPacket:
    return IP(src=source, dst=destination, **fields) / UDP(sport=5000, dport=53) / b"question"


def reassembled(outs: list[Out]) -> IP:
    """The datagram that its fragments make, which must come in order, in multiples of eight bytes, with one id."""
    at = 0
    payload = b""
    for number, out in enumerate(outs):
        packet = out.ip
        assert (packet.frag * 8, packet.id) == (at, outs[0].ip.id)
        part = bytes(packet.payload)
        assert bool(packet.flags.MF) == (number < len(outs) - 1)
        assert number == len(outs) - 1 or len(part) % 8 == 0
        payload += part
        at += len(part)
    whole = outs[0].ip.copy()
    del whole.len, whole.chksum
    whole.flags = 0
    return IP(bytes(IP(bytes(whole)[: whole.ihl * 4]) / payload)) if len(outs) > 1 else outs[0].ip


# When an error is never sent


def never() -> dict[str, tuple[str, ScapyPacket]]:
    """Frames that would owe an error (their TTL is out, or they have no route), each for a reason without it."""
    quoted = IP(src=E, dst=A) / UDP(sport=1, dport=2)

    def to_us(packet: ScapyPacket) -> ScapyPacket:
        return TO_US / packet

    found: dict[str, tuple[str, ScapyPacket]] = {
        f"an ICMP {kind} message": ("L", to_us(IP(src=A, dst=E, ttl=1) / ICMP(type=kind, code=0) / quoted))
        for kind in (3, 4, 5, 11, 12)
    }
    found["an ICMP message of unknown type"] = "L", to_us(IP(src=A, dst=E, ttl=1) / ICMP(type=42) / b"12345678")
    found["a later fragment"] = "L", to_us(IP(src=A, dst=E, ttl=1, frag=10, proto=17) / b"12345678")
    found["a later fragment without a route"] = "L", to_us(IP(src=A, dst=NOWHERE, frag=10, proto=17) / b"12345678")
    for group in ("224.0.0.5", "239.1.2.3", "255.255.255.255", "192.168.200.255", "192.168.1.255", "192.168.200.0"):
        found[f"to {group}"] = "L", to_us(udp(destination=group, ttl=1))
    for mac in ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:05"):
        found[f"in a frame to {mac}"] = "L", Ether(src=MAC_A, dst=mac) / udp(ttl=1)
        found[f"to us in a frame to {mac}"] = "L", Ether(src=MAC_A, dst=mac) / udp(destination=ADDRESS_L)
        found[f"echo in a frame to {mac}"] = "L", Ether(src=MAC_A, dst=mac) / IP(src=A, dst=ADDRESS_L) / ICMP()
    for source in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.168.200.255"):
        found[f"from {source}"] = "L", to_us(udp(source, ttl=1))
        found[f"from {source} to a closed port"] = "L", to_us(udp(source, ADDRESS_L))
    for source in ("0.1.2.3", "127.0.0.1", "169.254.1.1", "240.0.0.1", "255.255.255.255"):
        found[f"from {source} on O"] = "O", Ether(src=MAC_A, dst=MAC_O) / udp(source, ADDRESS_O, ttl=1)
        found[f"from {source} on V"] = "V", udp(source, ADDRESS_V, ttl=1)
    for kind in (3, 4, 5, 11, 12):
        message = IP(src=E, ttl=1) / ICMP(type=kind, code=0) / (IP(src=A, dst=E) / UDP(sport=1, dport=2))
        for port, ours in (("O", ADDRESS_O), ("V", ADDRESS_V)):
            message.dst = ours
            frame = Ether(src=MAC_A, dst=MAC_O) / message.copy() if port == "O" else message.copy()
            found[f"an ICMP {kind} message on {port}"] = port, frame
    found["a later fragment on O"] = (
        "O",
        Ether(src=MAC_A, dst=MAC_O) / IP(src=E, dst=ADDRESS_O, ttl=1, frag=9) / bytes(8),
    )
    found["a later fragment on V"] = "V", IP(src=E, dst=ADDRESS_V, ttl=1, frag=9) / bytes(8)
    for group in ("224.0.0.5", "255.255.255.255"):
        found[f"to {group} on V"] = "V", udp(E, group, ttl=1)
    return found


@pytest.mark.parametrize("why", never())
def test_g4_no_error_is_ever_sent_about(make: MakeScenario, why: str) -> None:
    s = make("O")
    assert s.inject(*never()[why]) == []
    assert len(s.drops) == 1 or "later fragment" in why  # one of those may wait for its first
    assert s.advance(30) == []
    assert len(s.drops) == 1


@pytest.mark.parametrize("kind", [8, 0, 13, 14, 15, 16, 17, 18])
def test_g5_an_error_about_a_query_is_allowed(make: MakeScenario, egress: str, kind: int) -> None:
    s = make(egress)
    packet = IP(src=A, dst=E, ttl=1) / ICMP(type=kind, id=7, seq=1, ts_ori=1, ts_rx=0, ts_tx=0) / Raw(bytes(12))
    assert error(s.inside(packet)) == ("L", ADDRESS_L, A, 11, 0)
    if kind in (8, 13, 15, 17):
        packet.ttl = 64
        answer = one(s.inside(packet)).ip
        answer[ICMP].type = 0 if kind == 8 else kind + 1
        answer.src, answer.dst, answer.ttl = E, s.X, 1
        del answer.chksum, answer[ICMP].chksum
        assert error(s.outside(answer)) == (egress, s.X, E, 11, 0)


# What an error says


@pytest.mark.parametrize(("payload", "quoted"), [(0, 28), (1, 29), (519, 547), (520, 548), (521, 548), (1450, 548)])
def test_g6_an_error_quotes_what_fits_into_576_bytes(make: MakeScenario, payload: int, quoted: int) -> None:
    s = make("O")
    packet = IP(src=A, dst=E, ttl=1) / UDP(sport=5000, dport=53) / random.Random(6).randbytes(payload)
    out = one(s.inside(packet))
    assert out.ip.len == 28 + quoted
    assert raw_ip(out)[28:] == bytes(packet)[:quoted]


@pytest.mark.parametrize(("payload", "quoted"), [(0, 28), (1, 29), (519, 547), (520, 548), (521, 548), (1350, 548)])
def test_g6_g8_an_error_to_the_world_quotes_as_much_of_what_the_world_knows(
    make: MakeScenario, egress: str, payload: int, quoted: int
) -> None:
    s = make(egress)
    sport = one(s.inside(udp())).ip.sport
    packet = IP(src=E, dst=s.X, ttl=1) / UDP(sport=53, dport=sport) / random.Random(6).randbytes(payload)
    out = one(s.outside(packet))
    assert error([out]) == (egress, s.X, E, 11, 0)
    assert out.ip.len == 28 + quoted
    assert raw_ip(out)[28:] == bytes(packet)[:quoted]


def test_g6_padding_of_the_frame_is_no_part_of_the_packet_and_not_quoted(make: MakeScenario) -> None:
    s = make("O")
    packet = udp(ttl=1)
    frame = bytes(TO_US / packet).ljust(60, b"\xee")
    assert raw_ip(one(s.inject("L", frame)))[28:] == bytes(packet)


def test_g7_g28_the_length_field_stays_zero_and_the_mtu_stands_in_the_last_two_bytes(make: MakeScenario) -> None:
    s = make("V")
    expired = bytes(one(s.inside(udp(ttl=1))).ip[ICMP])
    assert expired[4:8] == bytes(4)
    too_big = bytes(one(s.inside(IP(src=A, dst=E, flags="DF") / UDP() / bytes(1400))).ip[ICMP])
    assert too_big[:2] == b"\x03\x04"
    assert too_big[4:8] == b"\0\0" + (1420).to_bytes(2, "big")
    bad_option = bytes(one(s.inside(IP(src=A, dst=E, options=[b"\x07\x01\x00\x00"]) / UDP())).ip[ICMP])
    assert bad_option[4:8] == b"\x14\0\0\0"


def test_g8_an_error_comes_from_the_address_of_the_port_that_it_leaves_by(make: MakeScenario) -> None:
    s = make("O")
    assert error(s.inside(udp(ttl=1))) == ("L", ADDRESS_L, A, 11, 0)
    assert error(s.inject("U", udp(HOST, ttl=1))) == ("U", ADDRESS_L, HOST, 11, 0)
    sport = one(s.inside(udp())).ip.sport
    back = IP(src=E, dst=ADDRESS_O, ttl=1) / UDP(sport=53, dport=sport)
    assert error(s.outside(back)) == ("O", ADDRESS_O, E, 11, 0)
    sport = one(s.inside(udp(destination="8.8.8.8"))).ip.sport
    back = IP(src="8.8.8.8", dst=ADDRESS_V, ttl=1) / UDP(sport=53, dport=sport)
    assert error(s.inject("V", back)) == ("V", ADDRESS_V, "8.8.8.8", 11, 0)
    back = IP(src="8.8.8.8", dst=HOST, ttl=1) / UDP(sport=53, dport=9)
    assert error(s.inject("V", back)) == ("V", ADDRESS_V, "8.8.8.8", 11, 0)


def test_g9_g10_errors_have_precedence_6_and_a_ttl_of_64_and_replies_the_tos_of_the_request(make: MakeScenario) -> None:
    s = make("O")
    out = one(s.inside(udp(ttl=1, tos=0x28)))
    assert (out.ip.tos, out.ip.ttl) == (0xC0, 64)
    reply = one(s.inside(IP(src=A, dst=ADDRESS_L, tos=0xB8, ttl=3) / ICMP(id=1)))
    assert (reply.ip.tos, reply.ip.ttl, reply.ip[ICMP].type) == (0xB8, 64, 0)
    reset = one(s.inside(IP(src=A, dst=ADDRESS_L, ttl=3) / TCP(sport=5000, dport=80, flags="S")))
    assert reset.ip.ttl == 64


def test_g11_ten_errors_a_second_for_one_destination_and_echo_without_limit(make: MakeScenario) -> None:
    s = make("O")
    assert sum(len(s.inside(udp(ttl=1))) for _ in range(15)) == 10
    assert len(s.inside(udp(B, ttl=1))) == 1, "another host is not punished for it"
    assert sum(len(s.inside(IP(src=A, dst=ADDRESS_L) / ICMP(id=n))) for n in range(50)) == 50
    s.advance(0.999)
    assert s.inside(udp(ttl=1)) == []
    s.advance(0.001)
    assert sum(len(s.inside(udp(ttl=1))) for _ in range(15)) == 10
    assert s.count(Drop.IP_TTL) == 32, "each of them counted, with or without an error"


def test_g11_the_world_hears_ten_errors_a_second_as_well_and_echo_without_limit(
    make: MakeScenario, egress: str
) -> None:
    s = make(egress)
    sport = one(s.inside(udp())).ip.sport
    expired = IP(src=E, dst=s.X, ttl=1) / UDP(sport=53, dport=sport)
    assert sum(len(s.outside(expired)) for _ in range(15)) == 10
    assert sum(len(s.outside(IP(src=E, dst=s.X) / ICMP(id=n))) for n in range(50)) == 50
    s.advance(1)
    assert error(s.outside(expired)) == (egress, s.X, E, 11, 0)
    silent = make(egress, toml="[icmp]\nerrors_per_second = 0\n")
    sport = one(silent.inside(udp())).ip.sport
    assert silent.outside(expired) == []
    assert len(silent.outside(IP(src=E, dst=silent.X) / ICMP(id=1))) == 1


def test_g11_the_limit_over_all_is_the_configurations(make: MakeScenario) -> None:
    s = make("O", toml="[icmp]\nerrors_per_second = 3\n")
    hosts = [A, A, B, B, A]
    assert [len(s.inside(udp(host, ttl=1))) for host in hosts] == [1, 1, 1, 0, 0]
    s.advance(1)
    assert [len(s.inside(udp(host, ttl=1))) for host in hosts] == [1, 1, 1, 0, 0]
    silent = make("O", toml="[icmp]\nerrors_per_second = 0\n")
    assert silent.inside(udp(ttl=1)) == []
    assert silent.inside(udp(destination=ADDRESS_L)) == []
    assert len(silent.inside(IP(src=A, dst=ADDRESS_L) / ICMP(id=1))) == 1


def test_g11_a_muted_port_hears_no_error(make: MakeScenario) -> None:
    s = make("O", toml='[icmp]\nmute = ["tap0"]\n')
    assert s.inside(udp(ttl=1)) == []
    assert s.inside(udp(destination=NOWHERE)) == []
    assert error(s.inject("U", udp(HOST, ttl=1)))[0] == "U"
    assert len(s.inside(IP(src=A, dst=ADDRESS_L) / ICMP(id=1))) == 1, "echo is no error"


def test_g12_unreachable_says_why_with_the_codes_of_a_router(make: MakeScenario) -> None:
    s = make("O", toml="[alias]\nmax_links = 1\n", replace=NO_STATIC[1:])
    assert error(s.inside(udp(destination=NOWHERE))) == ("L", ADDRESS_L, A, 3, 0)
    s.inside(udp())
    assert error(s.inside(udp(B))) == ("L", ADDRESS_L, B, 3, 13)
    hosts = [out for out in s.advance(3) if out.arp is None]
    assert error(hosts) == ("L", ADDRESS_L, A, 3, 1)
    assert s.inside(udp(destination="240.0.0.1")) == []
    assert s.inside(udp(destination="0.0.0.1")) == []


def test_g12_the_same_codes_on_either_way_out(make: MakeScenario, egress: str) -> None:
    """G12: 3/0 without a route, 3/13 without a link, 3/1 where a host inside is silent, nothing about martians; the
    codes 9 and 10 never."""
    s = make(egress, toml="[alias]\nmax_links = 1\n", replace=NO_STATIC[:1])
    for host, mac in ((A, MAC_A), (B, "02:aa:00:00:00:0b")):
        s.inject("L", arp(1, mac, host))
    link = one(s.inside(udp()))
    assert error(s.inside(udp(destination=NOWHERE))) == ("L", ADDRESS_L, A, 3, 0)
    assert error(s.inside(udp(B))) == ("L", ADDRESS_L, B, 3, 13)
    for destination in ("240.0.0.1", "0.0.0.1", "127.0.0.1"):
        assert s.inside(udp(destination=destination)) == []
    s.advance(70)  # A is forgotten, its link is not
    back = IP(src=E, dst=s.X) / UDP(sport=53, dport=link.ip.sport)
    s.outside(back)
    assert error([out for out in s.advance(3) if out.arp is None]) == (egress, s.X, E, 3, 1)


def test_g12_without_a_default_node_what_nothing_names_is_unreachable(make: MakeScenario) -> None:
    s = make("O", replace=((f'[vpn]\naddress = "{ADDRESS_V}"\nnode = "hk"\n', ""),))
    assert error(s.inside(udp(destination="8.8.8.8"))) == ("L", ADDRESS_L, A, 3, 0)
    assert error(s.inject("U", udp(HOST, "8.8.8.8"))) == ("U", ADDRESS_L, HOST, 3, 0)
    assert one(s.inside(udp())).port == "O"


def test_g13_nothing_listens_on_the_lan_address(make: MakeScenario) -> None:
    s = make("O")
    closed = one(s.inside(udp(destination=ADDRESS_L)))
    assert error([closed]) == ("L", ADDRESS_L, A, 3, 3)
    assert (closed.ip[IPerror].dst, closed.ip[UDPerror].dport) == (ADDRESS_L, 53)
    for protocol in (2, 47, 50, 132, 136, 200, 255):
        packet = IP(src=A, dst=ADDRESS_L, proto=protocol) / Raw(bytes(20))
        assert error(s.inside(packet)) == ("L", ADDRESS_L, A, 3, 2)
        s.advance(1)


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ({"flags": "S", "seq": 1000}, ("RA", 0, 1001)),
        ({"flags": "S", "seq": 0xFFFFFFFF}, ("RA", 0, 0)),
        ({"flags": "A", "seq": 7, "ack": 77}, ("R", 77, 0)),
        ({"flags": "SA", "seq": 7, "ack": 77}, ("R", 77, 0)),
        ({"flags": "FA", "seq": 7, "ack": 77}, ("R", 77, 0)),
        ({"flags": "F", "seq": 7}, ("RA", 0, 12)),
        ({"flags": "", "seq": 7}, ("RA", 0, 11)),
        ({"flags": "R", "seq": 7}, None),
        ({"flags": "RA", "seq": 7, "ack": 9}, None),
    ],
)
def test_g13_a_closed_tcp_port_resets(make: MakeScenario, sent: dict, wanted: tuple[str, int, int] | None) -> None:
    s = make("O")
    data = b"data" if "S" not in sent["flags"] and sent["flags"] != "A" else b""
    outs = s.inside(IP(src=A, dst=ADDRESS_L) / TCP(sport=5000, dport=80, **sent) / data)
    if wanted is None:
        assert outs == []
        return
    reset = one(outs)
    assert (reset.port, reset.ip.src, reset.ip.dst, reset.eth.dst) == ("L", ADDRESS_L, A, MAC_A)
    assert (reset.ip.sport, reset.ip.dport, reset.ip[TCP].dataofs, reset.ip.len) == (80, 5000, 5, 40)
    assert (str(reset.ip[TCP].flags), reset.ip.seq, reset.ip.ack) == wanted


def test_g13_resets_are_no_icmp_errors_and_not_counted_among_them(make: MakeScenario) -> None:
    s = make("O", toml="[icmp]\nerrors_per_second = 0\n")
    for port in range(1, 101):
        out = one(s.inside(IP(src=A, dst=ADDRESS_L) / TCP(sport=5000, dport=port, flags="S")))
        assert str(out.ip[TCP].flags) == "RA"


def test_g13_what_came_damaged_is_not_answered(make: MakeScenario) -> None:
    s = make("O")
    s.checksums_matter = False
    for layer in (UDP(sport=5000, dport=53, chksum=0x1234), TCP(sport=5000, dport=80, flags="S", chksum=0x1234)):
        assert s.inside(IP(src=A, dst=ADDRESS_L) / layer / b"data") == []
    assert len(s.inside(IP(src=A, dst=ADDRESS_L) / UDP(sport=5000, dport=53, chksum=0) / b"none at all")) == 1


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        (b"\x07\x01\x00\x00", 20),  # shorter than itself
        (b"\x07\x00\x00\x00", 20),
        (b"\x01\x01\x44\x01", 22),  # behind two NOPs
        (b"\x44\x0c\x05\x00", 20),  # beyond the header
        (b"\x01\x01\x01\x94", 23),  # no room for its length
        (b"\x07\x03\x04\x44\x09\x05\x00\x00", 23),
    ],
)
def test_g14_a_malformed_option_is_pointed_at(make: MakeScenario, options: bytes, pointer: int) -> None:
    s = make("O")
    raw = bytearray(bytes(IP(src=A, dst=E, options=[IPOption_NOP()] * len(options)) / UDP(sport=5000, dport=53)))
    raw[20 : 20 + len(options)] = options
    out = one(s.inject("L", bytes(TO_US) + with_header_checksum(bytes(raw))))
    assert error([out]) == ("L", ADDRESS_L, A, 12, 0)
    assert bytes(out.ip[ICMP])[4] == pointer


def test_g14_the_world_is_pointed_at_its_malformed_option_too(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    sport = one(s.inside(udp())).ip.sport
    for options, pointer in ((b"\x07\x01\x00\x00", 20), (b"\x01\x01\x44\x01", 22), (b"\x01\x01\x01\x94", 23)):
        raw = bytearray(bytes(IP(src=E, dst=s.X, options=[IPOption_NOP()] * 4) / UDP(sport=53, dport=sport)))
        raw[20:24] = options
        out = one(s.outside(IP(with_header_checksum(bytes(raw)))))
        assert error([out]) == (egress, s.X, E, 12, 0)
        assert bytes(out.ip[ICMP])[4] == pointer


def with_header_checksum(raw: bytes) -> bytes:
    """The packet with a right header checksum, whatever its options hold."""
    from scapy.utils import checksum  # noqa: PLC0415 - here only

    header_bytes = (raw[0] & 15) * 4
    header = raw[:10] + b"\0\0" + raw[12:header_bytes]
    return raw[:10] + checksum(header).to_bytes(2, "big") + raw[12:]


def test_g14_header_faults_are_never_answered(make: MakeScenario) -> None:
    s = make("O")
    good = bytes(udp())
    for at, value in ((0, 0x44), (0, 0x65), (3, 10), (2, 0xFF)):
        bad = bytearray(good)
        bad[at] = value
        assert s.inject("L", bytes(TO_US) + with_header_checksum(bytes(bad))) == []


def test_g15_a_lan_host_that_sends_lan_traffic_to_us_is_served_and_not_redirected(make: MakeScenario) -> None:
    s = make("O")
    for _ in range(3):
        out = one(s.inside(udp(destination=B)))
        assert (out.port, out.ip.src, out.ip.dst, out.ip.ttl) == ("L", A, B, 63)
        assert (out.eth.src, out.eth.dst) == (MAC_L, "02:aa:00:00:00:0b")


def test_g16_source_quench_is_neither_sent_nor_heard(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    sent = one(s.inside(udp()))
    assert s.outside(IP(src="198.51.100.1", dst=s.X) / ICMP(type=4) / sent.ip) == []
    assert s.dropped == Drop.ICMP_TYPE
    assert s.inside(IP(src=A, dst=ADDRESS_L) / ICMP(type=4) / IP(src=ADDRESS_L, dst=A) / UDP()) == []
    again = one(s.inside(udp()))
    assert again.ip.sport == sent.ip.sport


# Echo and the other queries


@pytest.mark.parametrize("size", [0, 1, 7, 8, 56, 1399, 1400, 1472])
def test_g17_an_echo_reply_is_the_request_turned_round(make: MakeScenario, size: int) -> None:
    s = make("O")
    data = random.Random(size).randbytes(size)
    out = one(s.inside(IP(src=A, dst=ADDRESS_L, id=7, flags="DF") / ICMP(id=0x1234, seq=0x5678) / Raw(data)))
    assert (out.port, out.eth.src, out.eth.dst, out.ip.src, out.ip.dst) == ("L", MAC_L, MAC_A, ADDRESS_L, A)
    assert (out.ip[ICMP].type, out.ip[ICMP].code, out.ip[ICMP].id, out.ip[ICMP].seq) == (0, 0, 0x1234, 0x5678)
    assert raw_ip(out)[28:] == data


def test_g17_an_echo_of_nothing_but_zeros_has_a_right_checksum(make: MakeScenario) -> None:
    """G17: the incremental update alone would give 0000, which no receiver accepts for a message of zeros."""
    s = make("O")
    for size in (0, 1, 8, 56):
        reply = one(s.inside(IP(src=A, dst=ADDRESS_L) / ICMP(id=0, seq=0) / Raw(bytes(size))))
        assert raw_ip(reply)[20:24] == b"\0\0\xff\xff"
    for data in (b"\0\1", b"\xff\xff"):
        one(s.inside(IP(src=A, dst=ADDRESS_L) / ICMP(id=0, seq=0) / Raw(data)))  # checked as every frame is


def test_p1_an_echo_reply_of_zeros_comes_right_through_the_nat(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    one(s.inside(IP(src=B, dst=E) / ICMP(id=0, seq=0)))
    sent = one(s.inside(IP(src=A, dst=E) / ICMP(id=0, seq=0)))
    assert sent.ip[ICMP].id != 0
    back = one(s.outside(IP(src=E, dst=s.X) / ICMP(type=0, id=sent.ip[ICMP].id, seq=0) / Raw(bytes(8))))
    assert raw_ip(back)[20:28] == b"\0\0\xff\xff" + bytes(4)


@pytest.mark.parametrize(("port", "destination"), [("L", ADDRESS_L), ("O", ADDRESS_O), ("V", ADDRESS_V)])
@pytest.mark.parametrize("size", [1473, 3000, 20_001, 65_507])
def test_g17_a_big_echo_comes_back_in_fragments(make: MakeScenario, port: str, destination: str, size: int) -> None:
    s = make("O")
    source = A if port == "L" else E
    data = random.Random(size).randbytes(size)
    request = IP(src=source, dst=destination, id=99, ttl=1) / ICMP(id=3, seq=4) / Raw(data)
    outs: list[Out] = []
    parts = fragment(request, 1480)
    for part in parts:
        assert outs == [], "nothing before the last one"
        outs = s.inject(port, part)
    assert all(out.port == port and out.ip.len <= (1420 if port == "V" else 1500) for out in outs)
    whole = reassembled(outs)
    assert (whole.src, whole.dst, whole[ICMP].type, whole[ICMP].id, whole[ICMP].seq) == (destination, source, 0, 3, 4)
    assert bytes(whole)[28:] == data


def test_g17_fragments_of_an_echo_may_come_in_any_order_and_twice(make: MakeScenario) -> None:
    data = random.Random(17).randbytes(5000)
    parts = fragment(IP(src=A, dst=ADDRESS_L, id=99) / ICMP(id=3, seq=4) / Raw(data), 1480)
    for number in range(6):
        s = make("O")
        order = [*parts, parts[number % 4]]
        random.Random(number).shuffle(order)
        outs: list[Out] = []
        for part in order:
            outs += s.inside(part)
        assert bytes(reassembled(outs))[28:] == data


def test_g17_an_echo_that_stays_incomplete_is_given_up_with_11_1(make: MakeScenario) -> None:
    """G17: RFC 1122 3.3.2: time exceeded in reassembly, where the first fragment is here; silence where it is not."""
    parts = fragment(IP(src=A, dst=ADDRESS_L, id=99) / ICMP(id=3) / Raw(bytes(5000)), 1480)
    s = make("O")
    assert [s.inside(part) for part in parts[:-1]] == [[]] * 3
    assert s.advance(14.999) == []
    assert error(s.advance(0.001)) == ("L", ADDRESS_L, A, 11, 1)
    assert s.count(Drop.FRAGMENT_TIMEOUT) == 3
    s = make("O")
    assert [s.inside(part) for part in parts[1:]] == [[]] * 3
    assert s.advance(60) == []
    assert s.count(Drop.FRAGMENT_TIMEOUT) == 3


def test_g17_a_damaged_echo_is_not_answered(make: MakeScenario) -> None:
    s = make("O")
    assert s.inside(IP(src=A, dst=ADDRESS_L) / ICMP(id=1, chksum=0x1234) / b"data") == []
    assert s.dropped == Drop.ICMP_CHECKSUM
    parts = fragment(IP(src=A, dst=ADDRESS_L) / ICMP(id=1, chksum=0x1234) / Raw(bytes(2000)), 1480)
    assert [s.inside(part) for part in parts] == [[]] * 2
    assert s.dropped == Drop.ICMP_CHECKSUM
    assert s.inside(IP(src=A, dst=ADDRESS_L, proto=1) / Raw(b"\x08\x00\xf7\xff")) == []
    assert s.dropped == Drop.TRANSPORT_SHORT


@pytest.mark.parametrize("address", [ADDRESS_L, ADDRESS_O, ADDRESS_V, HOST])
def test_g18_each_of_our_addresses_answers_the_lan_and_the_host_itself(make: MakeScenario, address: str) -> None:
    s = make("O")
    for port, source in (("L", A), ("U", HOST)):
        out = one(s.inject(port, IP(src=source, dst=address, ttl=1) / ICMP(id=5) / Raw(b"ping")))
        assert (out.port, out.ip.src, out.ip.dst, out.ip[ICMP].type) == (port, address, source, 0)


def test_g17_g9_an_echo_from_the_world_is_turned_round_too(make: MakeScenario, egress: str) -> None:
    """G17, G9, G10: whole, of zeros, damaged, in fragments of any order, incomplete."""
    s = make(egress)
    for size in (0, 1, 7, 56, 1392):
        data = random.Random(size).randbytes(size)
        out = one(s.outside(IP(src=E, dst=s.X, tos=0xB8, ttl=3) / ICMP(id=0x1234, seq=0x5678) / Raw(data)))
        assert (out.port, out.ip.src, out.ip.dst, out.ip.tos, out.ip.ttl) == (egress, s.X, E, 0xB8, 64)
        assert raw_ip(out)[20:] == bytes(ICMP(type=0, id=0x1234, seq=0x5678) / data)
    zeros = one(s.outside(IP(src=E, dst=s.X) / ICMP(id=0, seq=0) / Raw(bytes(8))))
    assert raw_ip(zeros)[20:24] == b"\0\0\xff\xff"
    assert s.outside(IP(src=E, dst=s.X) / ICMP(id=1, chksum=0x1234) / b"data") == []
    assert s.dropped == Drop.ICMP_CHECKSUM
    data = random.Random(17).randbytes(5000)
    parts = fragment(IP(src=E, dst=s.X, id=99) / ICMP(id=3, seq=4) / Raw(data), 1400)
    for number in range(6):
        order = [*parts, parts[number % 4]]
        random.Random(number).shuffle(order)
        outs = [out for part in order for out in s.outside(part)]
        assert bytes(reassembled(outs))[28:] == data
        s.advance(20)  # a copy that came late is forgotten
    assert [s.outside(part) for part in parts[:-1]] == [[]] * (len(parts) - 1)
    assert error(s.advance(15)) == (egress, s.X, E, 11, 1)


@pytest.mark.parametrize("answers", [True, False])
def test_g19_the_isp_side_is_answered_as_the_configuration_says(make: MakeScenario, answers: bool) -> None:
    s = make("O", toml=f"[icmp]\nanswer_on_tap1 = {str(answers).lower()}\n")
    outs = s.inject("O", IP(src=E, dst=ADDRESS_O, ttl=1) / ICMP(id=5) / Raw(b"ping"))
    assert [(out.port, out.ip.src, out.ip.dst) for out in outs] == [("O", ADDRESS_O, E)] * answers
    outs = s.inject("V", IP(src=E, dst=ADDRESS_V, ttl=1) / ICMP(id=5) / Raw(b"ping"))
    assert [(out.port, out.ip.src) for out in outs] == [("V", ADDRESS_V)], "the tunnel's side does not ask it"
    for address in (ADDRESS_L, ADDRESS_V, HOST):
        assert s.inject("O", IP(src=E, dst=address) / ICMP(id=5)) == [], "nor are other ports' addresses seen there"
    for address in (ADDRESS_L, ADDRESS_O):
        assert s.inject("V", IP(src=E, dst=address) / ICMP(id=5)) == []


@pytest.mark.parametrize("kind", [10, 13, 15, 17, 37, 42])
def test_g20_no_other_query_is_answered(make: MakeScenario, kind: int) -> None:
    s = make("O")
    for port, source, address in (
        ("L", A, ADDRESS_L),
        ("O", E, ADDRESS_O),
        ("V", E, ADDRESS_V),
        ("U", HOST, ADDRESS_L),
    ):
        packet = IP(src=source, dst=address) / ICMP(type=kind, id=1, seq=1, ts_ori=1, ts_rx=0, ts_tx=0)
        assert s.inject(port, packet) == []
    assert len(s.drops) == 4


def test_g31_datagrams_of_our_own_do_not_share_an_identification(make: MakeScenario) -> None:
    s = make("O")
    found = [one(s.inside(IP(src=A, dst=ADDRESS_L, id=1) / ICMP(id=n))).ip.id for n in range(40)]
    found += [one(s.inside(udp(B, ttl=1))).ip.id for _ in range(10)]
    assert len(set(found)) == 50
    request = IP(src=A, dst=ADDRESS_L, id=1) / ICMP(id=1) / Raw(bytes(3000))
    ids = []
    for _ in range(3):
        outs = [out for part in fragment(request, 1480) for out in s.inside(part)]
        ids.append({out.ip.id for out in outs})
    assert all(len(each) == 1 for each in ids), "the fragments of one datagram do"
    assert len(set.union(*ids)) == 3


def test_g31_what_the_world_gets_of_our_own_does_not_share_an_identification_either(
    make: MakeScenario, egress: str
) -> None:
    s = make(egress)
    found = [one(s.outside(IP(src=E, dst=s.X, id=1) / ICMP(id=n))).ip.id for n in range(40)]
    sport = one(s.inside(udp())).ip.sport
    found += [one(s.outside(IP(src=E, dst=s.X, ttl=1) / UDP(sport=53, dport=sport))).ip.id for _ in range(10)]
    assert len(set(found)) == 50


@pytest.mark.parametrize("probe", [UDP(sport=40000, dport=33434) / b"x", ICMP(id=9), TCP(sport=40000, dport=80)])
def test_g32_traceroute_shows_us_first_and_then_the_next_router(
    make: MakeScenario, egress: str, probe: ScapyPacket
) -> None:
    s = make(egress)
    first = one(s.inside(IP(src=A, dst=E, ttl=1) / probe))
    assert error([first]) == ("L", ADDRESS_L, A, 11, 0)
    second = one(s.inside(IP(src=A, dst=E, ttl=2) / probe))
    assert (second.port, second.ip.src, second.ip.ttl) == (egress, s.X, 1)
    router = "198.51.100.1"
    told = one(s.outside(IP(src=router, dst=s.X) / ICMP(type=11, code=0) / second.ip))
    assert error([told]) == ("L", router, A, 11, 0)
    quoted = raw_ip(told)[28:]
    sent = bytes(IP(src=A, dst=E, ttl=1) / probe)
    assert quoted == sent, "A recognises its own probe, checksums and all"
