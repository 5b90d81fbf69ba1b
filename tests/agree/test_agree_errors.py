"""ICMP errors, translated and of our own, and what is too big: the kernel's masquerade and ours say the same."""

from __future__ import annotations

import random
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from tests.agree.pair import Pair, packet_of
from tests.conformance.harness import ADDRESS_L, A, B, E, scapy_sum
from tests.conformance.packets import echo, tcp, udp

pytestmark = pytest.mark.lab

ROUTER = "198.51.100.1"
LAYERS = {
    "udp": UDP(sport=5000, dport=7000),
    "tcp": TCP(sport=5000, dport=7000, flags="S", seq=0x01020304, options=[("MSS", 1300)]),
    "echo": ICMP(type=8, id=5000, seq=9),
    "gre": Raw(b"\0\0\x08\0" + bytes(20)),
}
each_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
ERRORS = [*((3, code) for code in range(16)), (11, 0), (11, 1), (12, 0)]


def error(quoted: bytes, kind: int = 3, code: int = 3, *, source: str, to: str, rest: bytes = bytes(4)) -> IP:
    """An ICMP error that quotes `quoted`; `rest` is its second word. Every host counts its own identifications (R8)."""
    message = struct.pack("!BBH", kind, code, 0) + rest + quoted
    message = message[:2] + scapy_sum(message).to_bytes(2, "big") + message[4:]
    return IP(src=source, dst=to, proto=1, tos=0xC0, id=0x4300 + int(source[-1]), ttl=50) / Raw(message)


def sent(layer: ScapyPacket, **fields: object) -> IP:
    """A's packet."""
    more = {"proto": 50} if isinstance(layer, Raw) else {}
    return IP(src=A, dst=E, id=77, **more, **fields) / layer / b"twenty bytes of data"


def answer(layer: ScapyPacket, x: str) -> IP:
    """The answer of E."""
    back = layer.copy()
    if isinstance(layer, ICMP):
        back.type = 0
    elif not isinstance(layer, Raw):
        back.sport, back.dport = 7000, 5000
    if isinstance(layer, TCP):
        back.flags, back.ack = "SA", layer.seq + 1
    more = {"proto": 50} if isinstance(layer, Raw) else {}
    return IP(src=E, dst=x, id=99, **more) / back / b"an answer of 20 bytes"


@each_layer
def test_i4_an_error_from_outside(pair: Pair, layer: ScapyPacket) -> None:
    """I4, U12a, U12b, T9, Q2: every kind, from the remote and from a router, with a short and a long quote."""
    out = bytes(pair.inside(sent(layer)))
    for kind, code in ERRORS:
        rest = bytes([0, 0, 5, 0x78]) if (kind, code) == (3, 4) else bytes([20, 0, 0, 0]) if kind == 12 else bytes(4)
        for source in (ROUTER, E):
            told = pair.outside(error(out, kind, code, source=source, to=pair.X, rest=rest))
            assert (told.src, told.dst) == (source, A)
            # A quote of an ICMP query needs no more than eight bytes, TCP's checksum is cut at 16 in the 20.
            pair.outside(error(out[:28], kind, code, source=source, to=pair.X, rest=rest))


@each_layer
def test_i5_an_error_from_inside(pair: Pair, layer: ScapyPacket) -> None:
    """I5: about what came in; from A itself and from a router in the LAN. Nobody outside sees more than our address."""
    pair.inside(sent(layer))
    received = bytes(pair.outside(answer(layer, pair.X)))
    for kind, code in ERRORS:
        rest = bytes([0, 0, 5, 0x78]) if (kind, code) == (3, 4) else bytes(4)
        for source in (A, B):
            told = pair.inside(error(received, kind, code, source=source, to=E, rest=rest))
            assert (told.src, told.dst) == (pair.X, E)


def test_i3_an_error_with_a_bad_checksum_passes_neither(pair: Pair) -> None:
    out = bytes(pair.inside(sent(LAYERS["udp"])))
    for at in (22, 24, 40, -1):
        bad = bytearray(bytes(error(out, source=ROUTER, to=pair.X)))
        bad[at] ^= 1
        pair.silent(pair.egress, bytes(bad))


def test_i10_a_redirect_passes_neither(pair: Pair) -> None:
    out = bytes(pair.inside(sent(LAYERS["udp"])))
    for code in (0, 1):
        pair.silent(pair.egress, error(out, 5, code, source=ROUTER, to=pair.X, rest=bytes([192, 168, 1, 9])))


@pytest.mark.parametrize("ihl", range(6, 16))
def test_i3b_options_in_the_quoted_header(pair: Pair, ihl: int) -> None:
    options = [IPOption(bytes([148, 4, 0, 0]) + bytes([1]) * (ihl * 4 - 24))]
    out = bytes(pair.inside(sent(LAYERS["udp"], options=options)))
    assert out[0] & 15 == ihl
    pair.outside(error(out, 11, 0, source=ROUTER, to=pair.X))


@pytest.mark.parametrize("layer", [LAYERS["udp"], LAYERS["tcp"], LAYERS["echo"]], ids=["udp", "tcp", "echo"])
def test_i3c_a_wrong_transport_checksum_in_the_quote(pair: Pair, layer: ScapyPacket) -> None:
    out = bytearray(bytes(pair.inside(sent(layer))))
    at = 20 + {UDP: 6, TCP: 16}.get(type(layer), 2)
    out[at] ^= 1
    pair.outside(error(bytes(out), source=ROUTER, to=pair.X))


def test_i3c_a_quoted_udp_checksum_of_zero(pair: Pair) -> None:
    out = bytes(pair.inside(IP(src=A, dst=E) / UDP(sport=5000, dport=7000, chksum=0) / b"data"))
    pair.outside(error(out, source=ROUTER, to=pair.X))


MPLS = bytes([0x20, 0, 0, 0, 0, 8, 1, 1, 0x01, 0x23, 0x45, 0x01])
MPLS = MPLS[:2] + scapy_sum(MPLS).to_bytes(2, "big") + MPLS[4:]


def test_i3d_extensions_are_kept(pair: Pair) -> None:
    out = bytes(pair.inside(sent(LAYERS["udp"])))
    pair.outside(error(out.ljust(128, b"\0") + MPLS, 11, 0, source=ROUTER, to=pair.X, rest=bytes([0, 32, 0, 0])))
    pair.outside(error(out.ljust(128, b"\0") + MPLS, 11, 0, source=ROUTER, to=pair.X))


def test_i4_an_error_about_nothing_that_is_known_passes_neither(pair: Pair) -> None:
    pair.inside(sent(LAYERS["udp"]))
    for stray in (
        IP(src=pair.X, dst=E) / UDP(sport=5001, dport=7000),
        IP(src=pair.X, dst=E) / TCP(sport=5000, dport=7000),
        IP(src="203.0.113.99", dst=E) / UDP(sport=5000, dport=7000),
        IP(src=pair.X, dst=E, proto=17, frag=100) / Raw(bytes(64)),
        IP(src=pair.X, dst=E) / ICMP(type=3) / Raw(bytes(28)),
    ):
        pair.silent(pair.egress, error(bytes(stray), source=ROUTER, to=pair.X))
    for size in (0, 1, 19, 20, 27):
        pair.silent(
            pair.egress, error(bytes(IP(src=pair.X, dst=E) / UDP(sport=5000, dport=7000))[:size], source=E, to=pair.X)
        )
    pair.silent("L", error(bytes(IP(src=E, dst=A) / UDP(sport=7000, dport=5001)), source=A, to=E))


@pytest.mark.parametrize("ttl", [0, 1])
def test_g3_g4_an_error_whose_time_is_up_ends_in_silence(pair: Pair, ttl: int) -> None:
    out = bytes(pair.inside(sent(LAYERS["udp"])))
    told = error(out, source=ROUTER, to=pair.X)
    told.ttl = ttl
    pair.silent(pair.egress, told)


# Errors of our own


@pytest.mark.parametrize("ttl", [0, 1])
@each_layer
def test_g3_g5_g6_g8_g9_g10_time_exceeded_is_told_both_ways(pair: Pair, layer: ScapyPacket, ttl: int) -> None:
    """G3, G8, I5, U12a: to A from our LAN address, to E from the outside one, each quoting what its sender knows."""
    told = pair.answered("L", sent(layer, ttl=ttl))
    assert (told.src, told.dst, told[ICMP].type, told[ICMP].code) == (ADDRESS_L, A, 11, 0)
    pair.inside(sent(layer, ttl=2))
    back = answer(layer, pair.X)
    back.ttl = ttl
    told = pair.answered(pair.egress, back)
    assert (told.src, told.dst, told[ICMP].type) == (pair.X, E, 11)


@pytest.mark.parametrize("probe", [UDP(sport=40000, dport=33434) / b"x", ICMP(id=9), TCP(sport=40000, dport=80)])
def test_g32_a_traceroute(pair: Pair, probe: ScapyPacket) -> None:
    pair.answered("L", IP(src=A, dst=E, ttl=1) / probe)
    second = pair.inside(IP(src=A, dst=E, ttl=2) / probe)
    told = pair.outside(error(bytes(second), 11, 0, source=ROUTER, to=pair.X))
    assert (told.src, told.dst) == (ROUTER, A)


@pytest.mark.parametrize("payload", [0, 1, 519, 520, 521, 1392])
def test_g6_a_quote_is_as_long_as_fits_into_576_bytes(pair: Pair, payload: int) -> None:
    data = random.Random(payload).randbytes(payload)
    told = pair.answered("L", IP(src=A, dst=E, ttl=1) / UDP(sport=5000, dport=53) / data)
    assert told.len == 28 + min(28 + payload, 548)


@pytest.mark.parametrize("protocol", [50, 132, 200, 255])
def test_g13_what_nobody_serves_on_the_lan_address_is_refused(pair: Pair, protocol: int) -> None:
    assert pair.answered("L", IP(src=A, dst=ADDRESS_L, id=5, proto=protocol) / Raw(bytes(20)))[ICMP].code == 2
    assert pair.answered("L", udp((A, 5000), (ADDRESS_L, 9)))[ICMP].code == 3


@pytest.mark.parametrize(
    ("flags", "data"), [("S", b""), ("A", b""), ("SA", b""), ("FA", b"data"), ("F", b"data"), ("R", b""), ("RA", b"")]
)
def test_g13_a_closed_tcp_port_resets(pair: Pair, flags: str, data: bytes) -> None:
    outs = pair.agree("L", tcp((A, 5000), (ADDRESS_L, 9), flags, data, seq=1000, ack=77))
    assert len(outs) == ("R" not in flags)


def test_g12_what_has_no_route_is_unreachable(pair: Pair) -> None:
    for packet in (
        udp((A, 5000), ("10.1.1.1", 53)),
        tcp((A, 5000), ("172.16.1.1", 53), "S"),
        echo((A, 5000), "100.64.0.1"),
        IP(src=A, dst="10.1.1.1", proto=50) / Raw(bytes(20)),
    ):
        told = pair.answered("L", packet)
        assert (told.src, told[ICMP].type, told[ICMP].code) == (ADDRESS_L, 3, 0)


# Too big


@pytest.mark.parametrize("size", [1373, 1400, 1472])
def test_q1_g28_too_big_with_df_is_told_with_the_mtu(narrow: Pair, size: int) -> None:
    """Q1, G28, U13, T9"""
    told = narrow.answered("L", udp((A, 5000), (E, 53), bytes(size), flags="DF"))
    assert (told.src, told[ICMP].code, told[ICMP].nexthopmtu) == (ADDRESS_L, 4, 1400)
    assert narrow.inside(udp((A, 5000), (E, 53), bytes(1372), flags="DF")).len == 1400


@pytest.mark.parametrize("size", [1373, 1440, 1472])
@pytest.mark.parametrize("options", [[], [IPOption(b"\x07\x07\x04\0\0\0\0\0"), IPOption(b"\x94\x04\0\0")]])
def test_g27_u13a_without_df_it_is_cut_alike(narrow: Pair, size: int, options: list[IPOption]) -> None:
    """G27: sizes, offsets, flags, identification; which options are repeated."""
    options = options[1:] if options else []
    sent = udp((A, 5000), (E, 53), random.Random(size).randbytes(size - 4 * len(options)), id=7, options=options)
    outs = narrow.agree("L", sent)
    assert len(outs) == 2
    assert all(len(packet_of(*out)) <= 1400 for out in outs)


@pytest.mark.parametrize("mss", [1460, 1361, 1360, 1359, 500, None])
def test_g29_q6_the_mss_is_lowered_alike_both_ways(narrow: Pair, mss: int | None) -> None:
    options = [("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    options = options if mss is None else [("MSS", mss), *options]
    out = narrow.inside(tcp((A, 5000), (E, 80), "S", seq=1, options=options))
    assert dict(out[TCP].options).get("MSS") == (None if mss is None else min(mss, 1360))
    back = tcp((E, 80), (narrow.X, 5000), "SA", seq=1, ack=2, options=[("NOP", None), ("NOP", None), *options])
    assert dict(narrow.outside(back)[TCP].options).get("MSS") == (None if mss is None else min(mss, 1360))
    narrow.inside(tcp((A, 5000), (E, 80), "A", seq=2, ack=2, options=options))  # no SYN: it stays as it is
