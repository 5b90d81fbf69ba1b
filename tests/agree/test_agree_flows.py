"""Flows through the kernel's masquerade and through ours: every packet of them comes out of both alike."""

from __future__ import annotations

import itertools
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from tests.agree.pair import Pair, framed
from tests.conformance.harness import A, B, E, F, scapy_sum
from tests.conformance.packets import echo, tcp, udp

pytestmark = pytest.mark.lab

CLIENT, SERVER = (A, 5000), (E, 80)
DATA = bytes(n * 7 & 255 for n in range(1400))
OPTIONS = [IPOption(b"\x94\x04\0\0"), IPOption(b"\x5e\x04\xab\xcd")]  # router alert, and one that nobody knows


# UDP


@pytest.mark.parametrize("size", [0, 1, 2, 17, 1383, 1384])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tos": 0xFF, "id": 0xBEEF, "flags": "DF"},
        {"tos": 0x01, "id": 0, "flags": "DF", "ttl": 2},
        {"tos": 0xB8, "id": 0xFFFF, "ttl": 255, "options": OPTIONS},
    ],
    ids=["plain", "df", "last hop", "options"],
)
def test_p1_p6_a_datagram_and_its_answer(pair: Pair, size: int, fields: dict[str, object]) -> None:
    """U3b, P1, P6: the first one keeps its port at both; TOS, identification, flags and options stay."""
    assert pair.inside(udp(CLIENT, SERVER, DATA[:size], **fields)).sport == 5000
    assert pair.outside(udp(SERVER, (pair.X, 5000), DATA[size::-1], **fields)).dst == A


@pytest.mark.parametrize("data", [b"", b"x", bytes(8), b"\xff" * 9], ids=len)
def test_p3_a_checksum_of_zero_stays_zero(pair: Pair, data: bytes) -> None:
    assert pair.inside(IP(src=A, dst=E, id=3) / UDP(sport=5000, dport=80, chksum=0) / data)[UDP].chksum == 0
    back = IP(src=E, dst=pair.X, id=4) / UDP(sport=80, dport=5000, chksum=0) / data
    assert pair.outside(back)[UDP].chksum == 0


def test_p4_a_checksum_that_becomes_zero_is_sent_as_all_ones(pair: Pair) -> None:
    def filled(packet: ScapyPacket, after: ScapyPacket) -> ScapyPacket:
        """The packet with the two bytes of data that make the checksum of `after` zero."""
        return packet / bytes(after / b"\0\0")[26:28]

    head = UDP(sport=5000, dport=80)
    assert pair.inside(filled(IP(src=A, dst=E) / head, IP(src=pair.X, dst=E) / head))[UDP].chksum == 0xFFFF
    head = UDP(sport=80, dport=5000)
    assert pair.outside(filled(IP(src=E, dst=pair.X) / head, IP(src=E, dst=A) / head))[UDP].chksum == 0xFFFF


@pytest.mark.parametrize("place", ["data", "checksum"])
@pytest.mark.parametrize("layer", [UDP(sport=5000, dport=80), TCP(sport=5000, dport=80, flags="S")], ids=["udp", "tcp"])
def test_p5_a_wrong_checksum_stays_as_wrong_as_it_was(pair: Pair, layer: ScapyPacket, place: str) -> None:
    bad = bytearray(bytes(IP(src=A, dst=E) / layer / b"payload"))
    bad[-1 if place == "data" else 26 if isinstance(layer, UDP) else 36] ^= 0x20
    out = bytes(pair.inside(bytes(bad)))
    assert scapy_sum(out[12:20] + bytes((0, out[9])) + struct.pack("!H", len(out) - 20) + out[20:]) != 0


@pytest.mark.parametrize("padding", [bytes(14), b"secret" * 3, bytes(1400)], ids=len)
def test_p7_g2_what_stands_behind_the_packet_is_cut_off(pair: Pair, padding: bytes) -> None:
    for port, packet in (("L", udp(CLIENT, SERVER, b"four")), (pair.egress, udp(SERVER, (pair.X, 5000), b"four"))):
        frame = framed(port, packet) + padding
        ((out, given),) = pair.agree(port, frame if port == "V" else Ether(frame))
        assert len(given) == 32 + 14 * (out != "V")


# TCP


class Talk:
    """One connection, each segment of it through both."""

    def __init__(self, pair: Pair, *, iss: int = 0xFFFFFFF0, irs: int = 0x7FFFFFF8) -> None:
        self.pair, self.iss, self.irs = pair, iss, irs

    def out(self, flags: str, data: bytes = b"", *, seq: int = 1, ack: int = 1, **fields: object) -> None:
        """A segment from A; `seq` and `ack` count from the initial numbers."""
        self.pair.inside(
            tcp(CLIENT, SERVER, flags, data, **self._numbers(flags, seq, ack, self.iss, self.irs), **fields)
        )

    def come(self, flags: str, data: bytes = b"", *, seq: int = 1, ack: int = 1, **fields: object) -> None:
        """A segment from E."""
        numbers = self._numbers(flags, seq, ack, self.irs, self.iss)
        self.pair.outside(tcp(SERVER, (self.pair.X, 5000), flags, data, **numbers, **fields))

    @staticmethod
    def _numbers(flags: str, seq: int, ack: int, mine: int, other: int) -> dict[str, int]:
        return {"seq": (mine + seq) % (1 << 32), "ack": (other + ack) % (1 << 32) if "A" in flags else 0}


@pytest.mark.parametrize("first", ["inside", "outside"])
def test_t2_a_connection_with_both_orders_of_close(pair: Pair, first: str) -> None:
    t = Talk(pair)
    t.out("S", seq=0, options=[("MSS", 1300), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)])
    t.out("S", seq=0, options=[("MSS", 1300), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)])
    t.come("SA", seq=0, options=[("MSS", 1300), ("SAckOK", b""), ("Timestamp", (9, 1)), ("NOP", None), ("WScale", 9)])
    t.out("A")
    t.out("PA", b"GET / HTTP/1.0\r\n\r\n", tos=2)
    t.come("A", ack=19, tos=3)
    t.come("PA", bytes(1300), ack=19)
    t.out("A", seq=19, ack=1301, options=[("SAck", (3, 4))])
    t.out("A", seq=18, ack=1301)  # a keepalive stands one byte behind
    t.come("A", seq=1301, ack=19)
    closing = [(t.out, 19, 1301), (t.come, 1301, 19)]
    for segment, seq, ack in closing if first == "inside" else closing[::-1]:
        segment("FA", seq=seq, ack=ack)
    t.come("A", seq=1302, ack=20)
    t.out("A", seq=20, ack=1302)


def test_t2_data_after_a_half_close_and_data_in_the_syn(pair: Pair) -> None:
    t = Talk(pair)
    t.out("S", b"early", seq=0)
    t.come("SA", b"answer", seq=0, ack=6)
    t.out("A", seq=6, ack=7)
    t.out("FA", seq=6, ack=7)
    for number in range(5):
        t.come("A", bytes(100), seq=7 + 100 * number, ack=7)
        t.out("A", seq=7, ack=107 + 100 * number)
    t.come("FA", seq=507, ack=7)
    t.out("A", seq=7, ack=508)


def test_t2a_simultaneous_open(pair: Pair) -> None:
    t = Talk(pair)
    t.out("S", seq=0)
    t.come("S", seq=0)
    t.out("SA", seq=0)
    t.come("SA", seq=0)
    t.out("A")
    t.come("PA", b"hello")


@pytest.mark.parametrize("side", ["out", "come"])
def test_t2_r3_a_reset_in_the_window_passes(pair: Pair, side: str) -> None:
    t = Talk(pair)
    t.out("S", seq=0)
    t.come("SA", seq=0)
    t.out("A")
    getattr(t, side)("RA")
    t = Talk(pair, iss=77, irs=99)
    t.out("S", seq=0)
    t.come("RA", seq=0)


def test_t2_a_connection_that_is_older_than_the_gateway_is_picked_up_from_inside(pair: Pair) -> None:
    t = Talk(pair)
    t.out("A", b"more")
    t.come("A", ack=5)
    t.come("PA", b"yes", ack=5)


def test_p6_every_byte_of_a_segment_stays(pair: Pair) -> None:
    """P6: reserved bits, all flags that a kernel takes for one of a connection, urgent pointer, odd options."""
    t = Talk(pair)
    t.out("SEC", seq=0)
    t.come("SAE", seq=0)
    odd = [("Timestamp", (1, 2)), (253, b"\x12\x34ab"), ("NOP", None)]
    for flags in ("A", "PA", "AEC", "UPA"):
        segment = TCP(sport=5000, dport=80, flags=flags, seq=self_seq(t), ack=t.irs + 1, reserved=5, urgptr=77)
        segment.options, segment.window = odd, 3
        pair.inside(IP(src=A, dst=E, id=9) / segment / b"GET")


def self_seq(talk: Talk) -> int:
    """The next sequence number of A's."""
    return (talk.iss + 1) % (1 << 32)


def test_t4_what_belongs_to_no_connection_meets_silence(pair: Pair) -> None:
    for flags in ("S", "SA", "A", "FA", "R", ""):
        pair.silent(pair.egress, tcp(SERVER, (pair.X, 5000), flags))
    pair.silent(pair.egress, udp(SERVER, (pair.X, 5000)))
    pair.silent("L", tcp(CLIENT, SERVER, "R"))


# Two hosts with one port


@pytest.mark.parametrize("kind", ["udp", "tcp", "echo"])
def test_u3_t7_i1a_two_hosts_with_one_port_are_told_apart(pair: Pair, kind: str) -> None:
    """U3, P1: the second one gets a name that each NAT chooses; apart from it and its checksum all is the same."""
    build = {"udp": udp, "tcp": lambda one, two: tcp(one, two, "S"), "echo": lambda one, two: echo(one, two[0])}[kind]

    def numbered(inside: str, number: int) -> ScapyPacket:
        packet = build((inside, 5000), SERVER)
        packet.id = number
        return packet

    pair.inside(numbered(A, 1))
    both = pair.exchange("L", numbered(B, 2))
    names = []
    for frames in (both.kernel, both.ours):
        ((_, frame),) = frames
        packet = IP(frame if pair.egress == "V" else frame[14:])
        names.append(int(packet[ICMP].id if kind == "echo" else packet.sport))
        again = packet.copy()
        if kind == "echo":
            again[ICMP].id = 5000
        else:
            again.sport = 5000
        del again.chksum, again.payload.chksum
        wanted = numbered(pair.X, 2)
        wanted.ttl = 63
        assert bytes(IP(bytes(again))) == bytes(wanted)
        del packet.chksum, packet.payload.chksum
        assert bytes(packet) == (frame if pair.egress == "V" else frame[14:]), "checksums as scapy makes them"
    assert 5000 not in names


# Queries


@pytest.mark.parametrize("size", [0, 1, 55, 56, 1392])
def test_i1_echo_and_its_reply(pair: Pair, size: int) -> None:
    assert pair.inside(echo((A, 77), E, data=DATA[:size], seq=3))[ICMP].id == 77
    assert pair.outside(echo((E, 77), pair.X, 0, DATA[:size], seq=3))[ICMP].id == 77
    pair.silent(pair.egress, echo((E, 78), pair.X, 0, DATA[:size], seq=3))


@pytest.mark.parametrize("kind", [13, 15, 17])
def test_i1_other_queries_and_their_replies(pair: Pair, kind: int) -> None:
    def message(kind: int) -> Raw:
        raw = struct.pack("!BBHHH", kind, 0, 0, 77, 1) + bytes(range(12))
        return Raw(raw[:2] + scapy_sum(raw).to_bytes(2, "big") + raw[4:])

    pair.inside(IP(src=A, dst=E, proto=1) / message(kind))
    pair.outside(IP(src=E, dst=pair.X, proto=1) / message(kind + 1))


# Other protocols


@pytest.mark.parametrize("protocol", [4, 41, 50, 51, 200, 253])
def test_p8_other_protocols_pass_by_their_address(pair: Pair, protocol: int) -> None:
    for size in (0, 1, 8, 100):
        assert pair.inside(IP(src=A, dst=E, proto=protocol) / Raw(DATA[:size])).src == pair.X
        assert pair.outside(IP(src=E, dst=pair.X, proto=protocol) / Raw(DATA[:size])).dst == A
    pair.silent(pair.egress, IP(src=F, dst=pair.X, proto=protocol) / Raw(bytes(20)))
    pair.silent("L", IP(src=B, dst=E, proto=protocol) / Raw(bytes(20)))  # the place is taken


# Fragments

LAYERS = {
    "udp": UDP(sport=5000, dport=80),
    "tcp": TCP(sport=5000, dport=80, flags="S", seq=1),
    "echo": ICMP(id=5000, seq=9),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("way", ["out", "in"])
def test_f1_f2_fragments_in_any_order_give_the_same_fragments(pair: Pair, layer: ScapyPacket, way: str) -> None:
    """F1, F2: all 24 orders of four; sizes, offsets and identification as they came, the first one's checksum right."""
    opening, answer = layer.copy(), layer.copy()
    if isinstance(layer, ICMP):
        answer.type = 0
    else:
        answer.sport, answer.dport = 80, 5000
    if isinstance(layer, TCP):
        answer.flags, answer.ack = "SA", 2
    pair.inside(IP(src=A, dst=E) / opening / b"first")
    for number, order in enumerate(itertools.permutations(range(4)), start=100):
        packet = IP(src=A, dst=E, id=number) / layer if way == "out" else IP(src=E, dst=pair.X, id=number) / answer
        parts = fragment(packet / DATA[:992], 248)
        assert len(parts) >= 4
        outs = pair.fragments(
            "L" if way == "out" else pair.egress, [parts[at] for at in (*order, *range(4, len(parts)))]
        )
        assert len(outs) == len(parts)


@pytest.mark.parametrize("size", [1473, 4000, 20_001, 65_507])
def test_f8_a_big_ping_both_ways(pair: Pair, size: int) -> None:
    data = bytes(n * 11 & 255 for n in range(size))
    width = 1480 if pair.egress == "O" else 1400
    for port, packet in (
        ("L", IP(src=A, dst=E, id=size) / ICMP(id=77, seq=1) / data),
        (pair.egress, IP(src=E, dst=pair.X, id=size) / ICMP(type=0, id=77, seq=1) / data),
    ):
        parts = fragment(packet, width)
        assert len(pair.fragments(port, parts)) == len(parts)
        packet.id ^= 0x8000
        assert len(pair.fragments(port, fragment(packet, width)[::-1])) == len(parts)


def test_g17_a_big_ping_to_us_is_answered(pair: Pair) -> None:
    """G17: whole and in fragments, from the LAN and from the world."""
    for size in (0, 56, 1392, 3000, 20_000):
        data = bytes(n * 11 & 255 for n in range(size))
        for port, source, address in (("L", A, "192.168.200.2"), (pair.egress, E, pair.X)):
            request = IP(src=source, dst=address, id=size, tos=0xB8, ttl=9) / ICMP(id=3, seq=4) / data
            width = 1480 if port != "V" else 1400
            outs = [frame for part in fragment(request, width) for frame in pair.agree(port, part)]
            assert len(outs) == len(fragment(request, width))
