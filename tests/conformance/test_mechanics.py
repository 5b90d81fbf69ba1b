"""Section 1e of the checklist, packet mechanics: checksums, fields that stay, and headers that cannot be; row R8 of 1d.

Frames that a serializer would never write are built here byte by byte; expected checksums are scapy's or literals.
"""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IPOption
from scapy.packet import Packet as ScapyPacket

from alias import rewrite
from tests.conformance.conftest import MakeScenario
from tests.conformance.harness import (
    ADDRESS_L,
    HOST,
    ICMP,
    IP,
    MAC_A,
    MAC_L,
    TCP,
    UDP,
    A,
    B,
    E,
    F,
    Out,
    Raw,
    Scenario,
    scapy_sum,
)
from wire import ipv4
from wire.drop import Drop
from wire.ipv4 import Packet

LINK_A = bytes.fromhex((MAC_L + MAC_A).replace(":", "")) + b"\x08\x00"
CHECKSUM_AT = {1: 2, 6: 16, 17: 6, 33: 6, 136: 6}


def one(outs: list[Out]) -> Out:
    assert len(outs) == 1
    return outs[0]


def raw_of(out: Out) -> bytes:
    """The IP packet of a frame, as bytes."""
    return out.frame[14:] if out.is_ethernet else out.frame


def built(packet: ScapyPacket) -> bytes:
    """A packet as scapy puts it on a wire."""
    return bytes(packet)


def transport_sum(raw: bytes, covered: int | None = None) -> int:
    """The sum of a packet's receiver over pseudo-header and payload: 0 where the checksum is right.
    `covered`: how many bytes of the payload the checksum covers (UDP-Lite)."""
    payload = raw[(raw[0] & 15) * 4 :]
    if raw[9] == 1:
        return scapy_sum(payload)
    pseudo = raw[12:20] + bytes((0, raw[9])) + struct.pack("!H", len(payload))
    return scapy_sum(pseudo + payload[:covered])


def changed(before: bytes, after: bytes) -> set[int]:
    """The offsets at which two packets of one length differ."""
    assert len(before) == len(after)
    return {at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}


def raw_packet(protocol: int, payload: bytes, source: str, destination: str, **fields: object) -> IP:
    """An IP packet whose payload is taken as it is."""
    return IP(src=source, dst=destination, proto=protocol, **fields) / Raw(payload)


# Checksums


def test_p1_every_checksum_is_right_after_every_rewrite(make: MakeScenario, egress: str) -> None:
    """P1: both ways, of TCP, UDP and ICMP, of any length, address and port; the harness recomputes them with scapy."""
    s = make(egress, offload="0.0.0.0/1\n128.0.0.0/1\n")
    rng = random.Random(1)
    for n in range(150):
        host = f"192.168.200.{rng.randrange(10, 12)}"
        remote = f"{rng.randrange(11, 90)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}"
        near, far = rng.choice((1, 1023, 1024, 40_000, 65_535)), rng.randrange(1, 65_536)
        data = rng.randbytes(rng.choice((0, 1, 2, 3, 31, 536, 1376)))
        layer = rng.choice(
            (
                UDP(sport=near, dport=far),
                TCP(sport=near, dport=far, flags="S", seq=rng.getrandbits(32), options=[("MSS", 1460)]),
                ICMP(id=near, seq=n),
            )
        )
        out = one(s.inside(IP(src=host, dst=remote, id=n, flags=rng.choice(("DF", 0))) / layer / data))
        assert (out.ip.src, out.ip.dst) == (s.X, remote)
        reply = layer.copy()
        if isinstance(layer, ICMP):
            reply.type, reply.id = 0, out.ip[ICMP].id
        else:
            reply.sport, reply.dport = far, out.ip.payload.sport
        back = one(s.outside(IP(src=remote, dst=s.X) / reply / data[::-1]))
        assert back.ip.dst == host
        assert (back.ip[ICMP].id if isinstance(layer, ICMP) else back.ip.payload.dport) == near


ENDS = st.one_of(st.sampled_from([0, 1, 0xFFFF, 0xFFFF0000, 0x0000FFFF, 0xFFFFFFFF]), st.integers(0, 0xFFFFFFFF))
PORTS = st.one_of(st.sampled_from([1, 0xFFFF, 0x8000]), st.integers(1, 0xFFFF))


@given(ENDS, ENDS, ENDS, PORTS, PORTS, st.binary(max_size=40), st.sampled_from([6, 17, 1]), st.booleans())
def test_p2_a_rewritten_packet_has_the_checksums_that_a_full_recompute_gives(
    source: int, destination: int, other: int, port: int, other_port: int, data: bytes, protocol: int, is_source: bool
) -> None:
    """P2, P1: over random, all-zero and all-one addresses; checksums are scapy's before and compared with scapy's
    after, UDP's zero as all ones (RFC 768)."""
    ends = [".".join(map(str, end.to_bytes(4, "big"))) for end in (source, destination, other)]
    layer = {6: TCP(sport=port, dport=7), 17: UDP(sport=port, dport=7), 1: ICMP(id=port)}[protocol]
    packet = ipv4.parse(built(IP(src=ends[0], dst=ends[1]) / layer / data))
    assert isinstance(packet, Packet)
    assert ipv4.read_transport(packet) is None
    (rewrite.source if is_source else rewrite.destination)(packet, other, other_port)
    after = {6: TCP(sport=port, dport=7), 17: UDP(sport=port, dport=7), 1: ICMP(id=other_port)}[protocol]
    if protocol != 1:
        setattr(after, "sport" if is_source else "dport", other_port)
    ends = [ends[2], ends[1]] if is_source else [ends[0], ends[2]]
    assert bytes(packet.data) == built(IP(src=ends[0], dst=ends[1]) / after / data)


@pytest.mark.parametrize("data", [b"", b"x", bytes(100)], ids=len)
def test_p3_a_udp_checksum_of_zero_stays_zero(make: MakeScenario, egress: str, data: bytes) -> None:
    s = make(egress)
    s.inside(IP(src=B, dst=E) / UDP(sport=5100, dport=7000))
    out = one(s.inside(IP(src=A, dst=E) / UDP(sport=5100, dport=7000, chksum=0) / data))
    assert out.ip[UDP].sport != 5100
    assert out.ip[UDP].chksum == 0
    back = one(s.outside(IP(src=E, dst=s.X) / UDP(sport=7000, dport=out.ip[UDP].sport, chksum=0) / data))
    assert (back.ip[UDP].dport, back.ip[UDP].chksum) == (5100, 0)
    turned = one(s.inside(IP(src=B, dst=s.X) / UDP(sport=6000, dport=out.ip[UDP].sport, chksum=0) / data))
    assert (turned.ip.dst, turned.ip[UDP].chksum) == (A, 0)


def test_p4_the_packet_of_the_checklist_leaves_with_all_ones(make: MakeScenario) -> None:
    """P4: 192.168.200.10:5100 -> E:7000 with the payload D2E5, through 192.168.1.2:5100."""
    s = make("O")
    out = one(s.inside(IP(src=A, dst=E) / UDP(sport=5100, dport=7000) / bytes.fromhex("d2e5")))
    assert raw_of(out)[20:30].hex() == "13ec1b58000affffd2e5"


def test_p4_a_udp_checksum_that_becomes_zero_is_sent_as_all_ones(make: MakeScenario, egress: str) -> None:
    """P4: both ways and turned round; a TCP checksum of zero is sent as it is."""
    s = make(egress)
    taken = one(s.inside(IP(src=A, dst=E) / UDP(sport=5100, dport=7000))).ip[UDP].sport

    def filler(packet: ScapyPacket) -> bytes:
        """The two bytes that make the checksum of a packet zero: what it is with two bytes of zero."""
        raw = built(packet / b"\0\0")
        at = 20 + CHECKSUM_AT[raw[9]]
        return raw[at : at + 2]

    def go(way: str, before: ScapyPacket, after: ScapyPacket) -> bytes:
        raw = raw_of(one(s.inject(way, before / filler(after))))
        at = 20 + CHECKSUM_AT[raw[9]]
        return raw[at : at + 2]

    assert go("L", IP(src=A, dst=E) / UDP(sport=5100, dport=7), IP(src=s.X, dst=E) / UDP(sport=5100, dport=7)) == (
        b"\xff\xff"
    )
    assert go(egress, IP(src=E, dst=s.X) / UDP(sport=7, dport=taken), IP(src=E, dst=A) / UDP(sport=7, dport=5100)) == (
        b"\xff\xff"
    )
    assert go(
        "L", IP(src=B, dst=s.X) / UDP(sport=6000, dport=taken), IP(src=s.X, dst=A) / UDP(sport=6000, dport=5100)
    ) == (b"\xff\xff")
    assert go("L", IP(src=A, dst=E) / TCP(sport=5100, dport=7), IP(src=s.X, dst=E) / TCP(sport=5100, dport=7)) == (
        b"\0\0"
    )


@pytest.mark.parametrize(
    "layer", [UDP(sport=5100, dport=7000), TCP(sport=5100, dport=7000, flags="S")], ids=["udp", "tcp"]
)
@pytest.mark.parametrize("way", ["out", "in", "turned round"])
def test_p5_a_checksum_that_was_wrong_stays_wrong(
    make: MakeScenario, egress: str, layer: ScapyPacket, way: str
) -> None:
    """P5: a bit flips in the payload, in the port's neighbour and in the checksum: the receiver still finds out."""
    s = make(egress)
    s.checksums_matter = False
    s.inside(IP(src=B, dst=E) / layer)
    name = one(s.inside(IP(src=A, dst=E) / layer)).ip.payload.sport
    assert name != 5100
    answer, call = layer.copy(), layer.copy()
    answer.sport, answer.dport = 7000, name
    call.sport, call.dport = 6000, name
    good = {
        "out": IP(src=A, dst=E) / layer / b"payload",
        "in": IP(src=E, dst=s.X) / answer / b"payload",
        "turned round": IP(src=B, dst=s.X) / call / b"payload",
    }[way]
    port = egress if way == "in" else "L"
    assert transport_sum(raw_of(one(s.inject(port, good)))) == 0
    check_at = 20 + CHECKSUM_AT[built(good)[9]]
    wrong_by = set()
    for at in (-1, -7, check_at, check_at + 1):
        bad = bytearray(built(good))
        bad[at] ^= 0x20
        before = transport_sum(bytes(bad))
        after = transport_sum(raw_of(one(s.inject(port, IP(bytes(bad))))))
        assert before == after != 0
        wrong_by.add(after)
    assert len(wrong_by) > 1


# Fields that stay


OPTIONS = bytes([7, 11, 8, 1, 2, 3, 4, 0, 0, 0, 0, 148, 4, 0, 0, 158, 4, 9, 9, 0])  # RR, router alert, one unknown, end


@pytest.mark.parametrize("tos", [0x00, 0x01, 0x02, 0x03, 0xB8, 0xFF])
def test_p6_nothing_changes_but_ttl_ends_and_checksums(make: MakeScenario, egress: str, tos: int) -> None:
    """P6: TOS, DSCP and ECN, identification, flags, options and every byte of the payload stay, both ways."""
    s = make(egress)
    s.inside(IP(src=B, dst=E) / UDP(sport=5100, dport=7000))
    for fields in (
        {"flags": 0},
        {"flags": "DF", "id": 0},
        {"flags": "evil", "ttl": 255},
        {"ttl": 2},
        {"options": [IPOption(OPTIONS)]},
    ):
        sent = built(IP(**{"src": A, "dst": E, "tos": tos, "id": 0xBEEF, **fields}) / UDP(sport=5100, dport=7000) / "x")
        head = (sent[0] & 15) * 4
        out = raw_of(one(s.inside(IP(sent))))
        assert changed(sent, out) <= {8, 10, 11, *range(12, 16), head, head + 1, head + 6, head + 7}
        assert out[8] == sent[8] - 1
        name = int.from_bytes(out[head : head + 2], "big")
        answer = built(
            IP(**{"src": E, "dst": s.X, "tos": tos, "id": 0xBEEF, **fields}) / UDP(sport=7000, dport=name) / "x"
        )
        back = raw_of(one(s.outside(IP(answer))))
        assert changed(answer, back) <= {8, 10, 11, *range(16, 20), head + 2, head + 3, head + 6, head + 7}
        assert back[8] == answer[8] - 1


def test_p6_tcp_keeps_every_byte_but_its_port_and_checksum(make: MakeScenario, egress: str) -> None:
    """P6: sequence numbers, all eight flags, reserved bits, urgent pointer, timestamps, SACK and unknown options."""
    s = make(egress)
    s.inside(IP(src=B, dst=E) / TCP(sport=5100, dport=7000, flags="S"))
    options = [("Timestamp", (1, 2)), ("SAck", (3, 4)), (253, b"\x12\x34ab"), ("NOP", None)]
    for flags in ("S", "SEC", "A", "PA", "FPUAEC", "SA"):
        layer = TCP(sport=5100, dport=7000, flags=flags, seq=7, ack=9, reserved=5, urgptr=77, window=3, options=options)
        sent = built(IP(src=A, dst=E, id=9) / layer / b"GET / HTTP/1.1")
        out = raw_of(one(s.inside(IP(sent))))
        assert changed(sent, out) <= {8, 10, 11, *range(12, 16), 20, 21, 36, 37}


def test_p7_padding_behind_the_packet_is_not_forwarded(make: MakeScenario, egress: str) -> None:
    """P7: a frame of 60 bytes with a packet of 32, both ways; any other padding too; the padding's content is nobody's
    business."""
    s = make(egress)
    packet = built(IP(src=A, dst=E) / UDP(sport=5100, dport=7000) / b"four")
    assert len(packet) == 32
    for padding in (b"", b"\0", b"secret" * 3, bytes(14), bytes(1400)):
        assert len(raw_of(one(s.inside(LINK_A + packet + padding)))) == 32
        answer = built(IP(src=E, dst=s.X) / UDP(sport=7000, dport=5100) / b"four") + padding
        link = bytes.fromhex("02000000010202aa000000010800") if egress == "O" else b""
        assert len(raw_of(one(s.inject(egress, link + answer)))) == 32


def test_p7_bytes_between_a_short_udp_datagram_and_the_packets_end_are_carried(make: MakeScenario, egress: str) -> None:
    """P7: what the UDP length leaves out is still of the packet (RFC 1812 forwards what IP counts); no checksum covers
    it."""
    s = make(egress)
    s.checksums_matter = False
    datagram = built(IP(src=A, dst=E) / UDP(sport=5100, dport=7000) / b"four")[20:]
    out = one(s.inside(raw_packet(17, datagram + b"tail", A, E)))
    assert raw_of(out)[-8:] == b"fourtail"
    assert transport_sum(raw_of(out)[:2] + struct.pack("!H", 32) + raw_of(out)[4:32]) == 0


# Other protocols


@pytest.mark.parametrize("protocol", [0, 2, 4, 41, 47, 50, 51, 58, 132, 200, 253, 255])
def test_p8_any_other_protocol_passes_by_its_address(make: MakeScenario, egress: str, protocol: int) -> None:
    """P8: the payload is not looked at, whatever its length; the reply finds its host, a second host is refused."""
    s = make(egress)
    for size in (0, 1, 3, 7, 8, 19, 100):
        payload = bytes(range(1, size + 1))
        out = one(s.inside(raw_packet(protocol, payload, A, E)))
        assert (out.port, out.ip.src, out.ip.dst, out.ip.proto) == (egress, s.X, E, protocol)
        assert raw_of(out)[20:] == payload
        back = one(s.outside(raw_packet(protocol, payload[::-1], E, s.X)))
        assert (back.port, back.ip.src, back.ip.dst) == ("L", E, A)
        assert raw_of(back)[20:] == payload[::-1]
    assert s.inside(raw_packet(protocol, b"second", B, E)) == []
    assert s.dropped == Drop.ALIAS_PROTOCOL_TAKEN
    assert one(s.inside(raw_packet(protocol, b"second", B, F))).ip.dst == F
    assert one(s.outside(raw_packet(protocol, b"answer", F, s.X))).ip.dst == B
    assert s.outside(raw_packet(protocol, b"stranger", "203.0.113.7", s.X)) == []
    assert s.inside(raw_packet(protocol, b"turned", B, s.X)) == []
    s.advance(301)
    assert s.outside(raw_packet(protocol, b"late", E, s.X)) == []
    assert one(s.inside(raw_packet(protocol, b"second", B, E))).ip.dst == E


def test_p8_a_membership_report_is_swallowed(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    report = bytes.fromhex("1600f9ff e0000001".replace(" ", ""))
    for destination in ("224.0.0.1", "224.0.0.22", "239.1.2.3"):
        assert s.inside(raw_packet(2, report, A, destination, ttl=1, options=[IPOption(b"\x94\x04\0\0")])) == []
        assert s.outside(raw_packet(2, report, "192.168.1.1", destination, ttl=1)) == []
    assert s.dropped == Drop.IP_MULTICAST


@pytest.mark.parametrize(("protocol", "covered"), [(136, 8), (136, None), (33, None)], ids=["lite-8", "lite", "dccp"])
def test_p9_udp_lite_and_dccp_keep_their_ports_and_a_right_checksum(
    make: MakeScenario, egress: str, protocol: int, covered: int | None
) -> None:
    """P9: UDP-Lite's third word is a coverage, not a length; both cover the pseudo-header and take the address."""
    s = make(egress)
    payload = bytearray(struct.pack("!HHHH", 5100, 7000, covered or 0, 0) + bytes(range(30)))

    def with_checksum(source: str, destination: str) -> bytes:
        raw = bytearray(built(raw_packet(protocol, bytes(payload), source, destination)))
        raw[26:28] = transport_sum(bytes(raw), covered).to_bytes(2, "big")
        assert transport_sum(bytes(raw), covered) == 0
        return bytes(raw)

    sent = with_checksum(A, E)
    out = raw_of(one(s.inside(IP(sent))))
    assert changed(sent, out) <= {8, 10, 11, *range(12, 16), 26, 27}
    assert transport_sum(out, covered) == 0
    back = raw_of(one(s.outside(IP(with_checksum(E, s.X)))))
    assert transport_sum(back, covered) == 0
    for size in range(8):
        assert len(one(s.inside(raw_packet(protocol, bytes(size), A, E))).ip) == 20 + size


def test_p9_sctp_passes_with_its_own_checksum(make: MakeScenario, egress: str) -> None:
    """P9: SCTP's CRC32c does not cover addresses: not a byte behind the IP header changes."""
    s = make(egress)
    chunk = struct.pack("!HHII", 5100, 7000, 0x01020304, 0xDEADBEEF) + bytes([1, 0, 0, 20]) + bytes(16)
    assert raw_of(one(s.inside(raw_packet(132, chunk, A, E))))[20:] == chunk
    assert raw_of(one(s.outside(raw_packet(132, chunk, E, s.X))))[20:] == chunk


# Headers that cannot be


def broken_transports() -> list[tuple[int, bytes]]:
    """Transport headers that are cut, or contradict themselves or the IP header."""
    tcp = built(IP(src=A, dst=E) / TCP(sport=5100, dport=7000, flags="S"))[20:]
    udp = built(IP(src=A, dst=E) / UDP(sport=5100, dport=7000) / b"data")[20:]
    found = [(6, tcp[:size]) for size in range(20)]
    found += [(17, udp[:size]) for size in range(12)]
    found += [(1, b"\x08\0\0\0\0\x07\0\x01"[:size]) for size in range(8)]
    found += [(6, tcp[:12] + bytes([words << 4]) + tcp[13:]) for words in (0, 1, 4, 6, 15)]
    found += [(17, udp[:4] + struct.pack("!H", length) + udp[6:]) for length in (0, 1, 7, 13, 100, 65535)]
    return found


@pytest.mark.parametrize("to", ["E", "X", "gateway", "host"])
def test_p10_a_transport_header_that_cannot_be_is_dropped_in_silence(make: MakeScenario, egress: str, to: str) -> None:
    """P10: from every side, to every kind of destination; counted, nothing sent, nothing made."""
    s = make(egress)
    one(s.inside(IP(src=A, dst=E) / UDP(sport=7000, dport=5100)))
    one(s.inside(IP(src=A, dst=E) / TCP(sport=7000, dport=5100, flags="S")))
    destination = {"E": E, "X": s.X, "gateway": ADDRESS_L, "host": HOST}[to]
    links = len(list(s.gateway.aliases.links(s.now)))
    cases = broken_transports()
    for number, (protocol, payload) in enumerate(cases, start=1):
        assert s.inside(raw_packet(protocol, payload, A, destination)) == []
        assert s.dropped == Drop.TRANSPORT_SHORT, (protocol, payload.hex())
        assert s.count(Drop.TRANSPORT_SHORT) == number
    if to == "X":
        for protocol, payload in cases:
            assert s.outside(raw_packet(protocol, payload, E, s.X)) == []
            assert s.dropped == Drop.TRANSPORT_SHORT, (protocol, payload.hex())
    if to == "E":
        for protocol, payload in cases:
            assert s.inject("U", raw_packet(protocol, payload, HOST, E)) == []
            assert s.dropped == Drop.TRANSPORT_SHORT, (protocol, payload.hex())
    assert len(list(s.gateway.aliases.links(s.now))) == links


def test_p10_random_bytes_end_in_a_packet_or_a_reason(make: MakeScenario, egress: str) -> None:
    """P10: cut, flipped and random packets at every port: each one is sent, answered or counted; nothing breaks."""
    s = make(egress)
    s.checksums_matter = False
    rng = random.Random(7)
    seeds = [
        built(IP(src=A, dst=E) / TCP(sport=5100, dport=7000, flags="S", options=[("MSS", 1460)]) / b"data"),
        built(IP(src=A, dst=E) / UDP(sport=5100, dport=7000) / b"data"),
        built(IP(src=A, dst=s.X) / UDP(sport=5101, dport=5100) / b"data"),
        built(IP(src=A, dst=E, options=[IPOption(OPTIONS)]) / ICMP(id=7) / b"data"),
        built(IP(src=E, dst=s.X) / ICMP(type=3, code=3) / IP(src=s.X, dst=E) / UDP(sport=5100, dport=7000)),
        built(IP(src=E, dst=s.X) / TCP(sport=7000, dport=5100, flags="SA", options=[("MSS", 1460)])),
        built(IP(src=HOST, dst=E, flags="MF") / UDP(sport=5100, dport=7000) / bytes(64)),
        built(IP(src=A, dst=ADDRESS_L) / ICMP(id=7) / b"data"),
    ]
    for _ in range(700):
        raw = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(4)):
            raw[rng.randrange(len(raw))] = rng.choice((0, 1, 0x45, 0x4F, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        if rng.random() < 0.3:
            raw = raw[: rng.randrange(len(raw))]
        if rng.random() < 0.8 and len(raw) >= 20:  # most faults lie behind a header checksum that is right
            raw[2:4] = rng.choice((len(raw), len(raw), len(raw), rng.randrange(80))).to_bytes(2, "big")
            raw[10:12] = b"\0\0"
            raw[10:12] = scapy_sum(bytes(raw[: max((raw[0] & 15) * 4, 20)])).to_bytes(2, "big")
        port = rng.choice("LOUV")
        link = LINK_A if port == "L" else bytes.fromhex("02000000010202aa000000010800") if port == "O" else b""
        drops, answers = len(s.drops), s.gateway.counters.answered + s.gateway.counters.icmp_errors
        outs = s.inject(port, link + bytes(raw))
        heard = s.gateway.counters.answered + s.gateway.counters.icmp_errors - answers
        assert outs or heard or len(s.drops) > drops or s.gateway.fragments.waiting
        for out in outs:
            sent = raw_of(out)
            if out.is_ethernet and out.frame[12:14] != b"\x08\0":
                continue
            assert sent[8] > 0
            assert scapy_sum(sent[: (sent[0] & 15) * 4]) == 0
            assert int.from_bytes(sent[2:4], "big") == len(sent)


@pytest.mark.parametrize("layer", [UDP, TCP])
def test_p11_a_port_of_zero_is_dropped_and_never_given(
    make: MakeScenario, egress: str, layer: type[ScapyPacket]
) -> None:
    s = make(egress)
    for ports in ({"sport": 0, "dport": 7000}, {"sport": 5100, "dport": 0}, {"sport": 0, "dport": 0}):
        for port, source, destination in (
            ("L", A, E),
            ("L", A, s.X),
            ("L", A, ADDRESS_L),
            ("U", HOST, E),
            (egress, E, s.X),
        ):
            assert s.inject(port, IP(src=source, dst=destination) / layer(**ports)) == []
            assert s.dropped == Drop.TRANSPORT_PORT_ZERO


# Who may send what


def test_p12_a_packet_to_our_address_that_no_link_knows_is_silence(make: MakeScenario, egress: str) -> None:
    """P12: from the LAN and from the host, with any TTL: no loop, no error, no TTL burned on the way to nowhere."""
    s = make(egress)
    for ttl in (0, 1, 2, 64):
        for layer in (
            UDP(sport=5100, dport=7000),
            TCP(sport=5100, dport=7000, flags="S"),
            TCP(sport=5100, dport=7000, flags="RA"),
            ICMP(type=0, id=7),
            ICMP(type=3, code=3) / IP(src=s.X, dst=A) / UDP(sport=1, dport=2),
        ):
            assert s.inside(IP(src=A, dst=s.X, ttl=ttl) / layer) == []
            assert s.dropped == Drop.ALIAS_NO_LINK
            assert s.inject("U", IP(src=HOST, dst=s.X, ttl=ttl) / layer) == []
    assert list(s.gateway.aliases.links(s.now)) == []


def test_p12_a_packet_to_the_hosts_address_is_the_hosts(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    out = one(s.inside(IP(src=A, dst=HOST) / UDP(sport=5100, dport=7000)))
    assert (out.port, out.ip.src, out.ip.dst, out.ip.ttl) == ("U", A, HOST, 63)
    back = one(s.inject("U", IP(src=HOST, dst=A) / UDP(sport=7000, dport=5100)))
    assert (back.port, back.ip.src, back.ip.dst, back.ip.ttl) == ("L", HOST, A, 63)


def test_p12_a_hairpin_ends_after_one_turn(make: MakeScenario, egress: str) -> None:
    """P12: A to its own outside name: one packet back to A, with one TTL less."""
    s = make(egress)
    one(s.inside(IP(src=A, dst=E) / UDP(sport=5100, dport=7000)))
    out = one(s.inside(IP(src=A, dst=s.X, ttl=9) / UDP(sport=5100, dport=5100)))
    assert (out.port, out.ip.src, out.ip.dst, out.ip.ttl) == ("L", s.X, A, 8)
    told = one(s.inside(IP(src=A, dst=s.X, ttl=1) / UDP(sport=5100, dport=5100)))
    assert (told.ip.src, told.ip[ICMP].type) == (ADDRESS_L, 11)


def test_p13_a_source_that_does_not_live_behind_the_port_is_dropped(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    layer = UDP(sport=5100, dport=7000)
    for source in ("10.1.1.1", "192.168.201.10", E, "8.8.8.8", "192.168.1.77", "192.168.192.7"):
        assert s.inside(IP(src=source, dst=E) / layer) == []
        assert s.dropped == Drop.IP_SPOOFED_SOURCE
    for source in (A, "10.1.1.1", "192.168.192.212", E):
        assert s.inject("U", IP(src=source, dst=E) / layer) == []
        assert s.dropped == Drop.IP_SPOOFED_SOURCE
    one(s.inside(IP(src=A, dst=E) / UDP(sport=7000, dport=5100)))
    for source in (A, B, "192.168.200.77"):
        assert s.outside(IP(src=source, dst=s.X) / layer) == []
        assert s.dropped == Drop.IP_SPOOFED_SOURCE
    for source in (s.X, ADDRESS_L, HOST, "0.0.0.0", "0.1.2.3", "127.0.0.1", "192.168.200.255", "192.168.200.0"):
        for port in ("L", egress):
            if (port, source) != ("U", HOST):
                assert s.inject(port, IP(src=source, dst=E if port == "L" else s.X) / layer) == []
                assert s.dropped == Drop.IP_MARTIAN_SOURCE


# Identifications (RFC 7857 10)


def identifications(s: Scenario, host: str, identification: int, to: str = E, **fields: object) -> list[int]:
    """The identifications that a datagram's three fragments, sent in order, leave with."""
    whole = built(IP(src=host, dst=to, id=identification) / UDP(sport=5100, dport=7000) / bytes(1200))[20:]
    found = []
    for at, more in ((0, "MF"), (400, "MF"), (800, 0)):
        part = whole[at : at + 400] if more else whole[at:]
        out = one(s.inside(raw_packet(17, part, host, to, id=identification, flags=more, frag=at // 8, **fields)))
        found.append(out.ip.id)
    return found


def test_r8_two_hosts_with_one_identification_get_two(make: MakeScenario, egress: str) -> None:
    """R8: fragments of A and B to E with 0x1234 each: different outside, all of one datagram equal."""
    s = make(egress)
    of_a, of_b = identifications(s, A, 0x1234), identifications(s, B, 0x1234)
    assert of_a == [0x1234] * 3
    assert len(set(of_b)) == 1
    assert of_b[0] != 0x1234
    assert identifications(s, B, 0x1234, to=F) == [0x1234] * 3, "another remote"
    assert identifications(s, A, 0x1235) == [0x1235] * 3


def test_r8_interleaved_fragments_of_two_hosts_stay_two_datagrams(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    wholes = {
        host: built(IP(src=host, dst=E) / UDP(sport=5100, dport=7000) / (bytes([n]) * 800))[20:]
        for n, host in enumerate((A, B))
    }
    seen: dict[str, list[bytes]] = {A: [], B: []}
    names: dict[str, set[int]] = {A: set(), B: set()}
    for at in (0, 400):
        for host, whole in wholes.items():
            flags = "MF" if at == 0 else 0
            part = whole[at : at + 400] if at == 0 else whole[at:]
            out = one(s.inside(raw_packet(17, part, host, E, id=0x1234, flags=flags, frag=at // 8)))
            seen[host].append(raw_of(out)[20:])
            names[host].add(out.ip.id)
    assert len(names[A]) == len(names[B]) == 1
    assert names[A] != names[B]
    for host in (A, B):
        pseudo = IP(src=s.X, dst=E) / Raw(b"".join(seen[host]))
        pseudo.proto = 17
        assert transport_sum(built(pseudo)) == 0


def test_r8_a_datagram_that_must_not_be_fragmented_keeps_its_identification(make: MakeScenario, egress: str) -> None:
    """R8, RFC 6864 4.1: with DF and whole it means nothing."""
    s = make(egress)
    for host in (A, B):
        assert one(s.inside(IP(src=host, dst=E, id=0x1234, flags="DF") / UDP(sport=5100, dport=7000))).ip.id == 0x1234


def test_r8_whole_datagrams_that_may_be_fragmented_later_differ_too(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    ids = [one(s.inside(IP(src=host, dst=E, id=7) / UDP(sport=5100, dport=7000))).ip.id for host in (A, B, A)]
    assert ids[0] == ids[2] == 7 != ids[1]


def test_r8_what_we_fragment_ourselves_has_one_identification(make: MakeScenario) -> None:
    """R8, U13a: 1500 bytes of each host into a tunnel of 1420."""
    s = make("V")
    ids = []
    for host in (A, B):
        outs = s.inside(IP(src=host, dst=E, id=0x1234) / UDP(sport=5100, dport=7000) / bytes(1472))
        assert len(outs) == 2
        assert outs[0].ip.id == outs[1].ip.id
        ids.append(outs[0].ip.id)
    assert ids[0] == 0x1234 != ids[1]


def test_r8_the_host_and_the_lan_share_the_offload_address(make: MakeScenario) -> None:
    s = make("O")
    assert one(s.inside(IP(src=A, dst=E, id=7) / UDP(sport=5100, dport=7000))).ip.id == 7
    assert one(s.inject("U", IP(src=HOST, dst=E, id=7) / UDP(sport=5101, dport=7000))).ip.id != 7


def test_r8_an_identification_is_free_again_after_two_minutes(make: MakeScenario, egress: str) -> None:
    s = make(egress)
    assert one(s.inside(IP(src=A, dst=E, id=7) / UDP(sport=5100, dport=7000))).ip.id == 7
    s.advance(29)
    assert one(s.inside(IP(src=B, dst=E, id=7) / UDP(sport=5100, dport=7000))).ip.id != 7
    s.advance(120)
    assert one(s.inside(IP(src=B, dst=E, id=7) / UDP(sport=5100, dport=7000))).ip.id == 7
