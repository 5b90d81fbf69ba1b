"""Super-frames and partial checksums through the whole walk.

The frames that come out, cut and completed, are those that every segment would have become alone."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from bridge.walk.effects import Send
from tests.bridge.walk.super_frames import (
    DATA,
    Frames,
    Pair,
    claims_of,
    completed,
    cut,
    each_egress,
    each_layer,
    ip_of,
    opened,
    partial,
    tcp,
    udp,
)
from tests.conformance.harness import (
    ADDRESS_L,
    ADDRESS_O,
    HOST,
    MAC_ISP,
    MAC_L,
    MAC_O,
    NO_STATIC,
    PORTS,
    A,
    B,
    E,
    check_frame,
    scapy_sum,
)
from wire import gso
from wire.drop import Drop
from wire.gso import GSO_ECN, GSO_TCPV4


def data_of(frames: Frames) -> bytes:
    return b"".join(bytes(ip_of(frame).payload.payload) for frame in frames)


# Every way through the gateway


@each_layer
@each_egress
@pytest.mark.parametrize("size", [1200, 1201, 2400, 7999])
def test_a_super_frame_leaves_as_its_segments_would(
    pair: Callable[..., Pair], egress: str, layer: Callable[[int, int], ScapyPacket], size: int
) -> None:
    p = pair(egress)
    name = opened(p, layer)
    out = p.both("L", IP(src=A, dst=E, id=65_533, flags="DF", tos=2) / layer(5000, 7000) / DATA[:size], 1200)
    assert {(port, ip_of((port, raw)).src, ip_of((port, raw)).payload.sport) for port, raw in out} == {
        (egress, p.X, name)
    }
    assert p.gso_headers[0] is not None, "it stayed a super-frame"
    assert data_of(out) == DATA[:size]
    back = p.both(egress, IP(src=E, dst=p.X, id=9, flags="DF") / layer(7000, name) / DATA[:size], 1200)
    assert {(port, ip_of((port, raw)).dst, ip_of((port, raw)).payload.dport) for port, raw in back} == {("L", A, 5000)}
    assert data_of(back) == DATA[:size]


@each_layer
@each_egress
def test_the_hosts_own_super_frames_pass_both_ways(
    pair: Callable[..., Pair], egress: str, layer: Callable[[int, int], ScapyPacket]
) -> None:
    """Into the offload port aliased, into the tunnel under its own name."""
    p = pair(egress)
    seen_as = p.X if egress == "O" else HOST
    out = p.both("U", IP(src=HOST, dst=E, flags="DF") / layer(6000, 7000) / DATA, 1200)
    assert {(port, ip_of((port, raw)).src) for port, raw in out} == {(egress, seen_as)}
    back = p.both(egress, IP(src=E, dst=seen_as, flags="DF") / layer(7000, 6000) / DATA, 1200)
    assert {(port, ip_of((port, raw)).dst) for port, raw in back} == {("U", HOST)}


@each_layer
def test_super_frames_pass_between_the_lan_and_the_host(
    pair: Callable[..., Pair], layer: Callable[[int, int], ScapyPacket]
) -> None:
    p = pair("O")
    assert {port for port, _ in p.both("L", IP(src=A, dst=HOST, flags="DF") / layer(6000, 22) / DATA, 1200)} == {"U"}
    assert {port for port, _ in p.both("U", IP(src=HOST, dst=A, flags="DF") / layer(22, 6000) / DATA, 1200)} == {"L"}


@each_layer
@each_egress
def test_a_super_frame_turns_round_at_our_address(
    pair: Callable[..., Pair], egress: str, layer: Callable[[int, int], ScapyPacket]
) -> None:
    p = pair(egress)
    name = opened(p, layer)
    there = p.both("L", IP(src=B, dst=p.X, flags="DF") / layer(6000, name) / DATA, 1200)
    assert {(port, ip_of((port, raw)).src, ip_of((port, raw)).dst) for port, raw in there} == {("L", p.X, A)}
    port_of_b = ip_of(there[0]).payload.sport
    back = p.both("L", IP(src=A, dst=p.X, flags="DF") / layer(5000, port_of_b) / DATA, 1200)
    assert {(ip_of(frame).dst, ip_of(frame).payload.dport) for frame in back} == {(B, 6000)}
    from_host = p.both("U", IP(src=HOST, dst=p.X, flags="DF") / layer(6001, name) / DATA, 1200)
    assert {(port, ip_of((port, raw)).dst) for port, raw in from_host} == {("L", A)}


@each_layer
@each_egress
def test_a_partial_checksum_survives_every_rewrite(
    pair: Callable[..., Pair], egress: str, layer: Callable[[int, int], ScapyPacket]
) -> None:
    """Plain packets whose checksum is left to the device; payloads of odd and even length, a zero result among them."""
    p = pair(egress)
    name = opened(p, layer)
    for size in (0, 1, 2, 99, 1200):
        data = DATA[:size]
        assert ip_of(p.both("L", IP(src=A, dst=E) / layer(5000, 7000) / data)[0]).src == p.X
        assert ip_of(p.both(egress, IP(src=E, dst=p.X) / layer(7000, name) / data)[0]).dst == A
        assert ip_of(p.both("L", IP(src=B, dst=p.X) / layer(6000, name) / data)[0]).dst == A
        assert ip_of(p.both("L", IP(src=A, dst=HOST) / layer(5000, 22) / data)[0]).dst == HOST
        assert ip_of(p.both("U", IP(src=HOST, dst=A) / layer(22, 5000) / data)[0]).dst == A
        assert ip_of(p.both("U", IP(src=HOST, dst=E) / layer(6000, 7000) / data)[0]).dst == E
        assert p.gso_headers[0] is not None


@each_egress
def test_a_partial_checksum_that_comes_to_zero_is_sent_as_ones(pair: Callable[..., Pair], egress: str) -> None:
    p = pair(egress)
    p.plain("L", IP(src=A, dst=E) / udp(5000, 7000))
    filler = bytes(IP(src=p.X, dst=E) / udp(5000, 7000) / b"\0\0")[26:28]
    frames = p.both("L", IP(src=A, dst=E) / udp(5000, 7000) / filler)
    assert ip_of(frames[0])[UDP].chksum == 0xFFFF
    raw = partial(IP(src=A, dst=E) / udp(5000, 7000) / filler)
    effects = p.uncut.gateway.receive("tap0", p.framed("L", raw), p.now, claims_of(raw))
    sent = next(effect for effect in effects if isinstance(effect, Send))
    assert sent.gso is not None
    whole = next(gso.segment(bytearray(sent.frame[14 if egress == "O" else 0 :]), sent.gso))
    assert whole[26:28] == b"\xff\xff"


def test_random_super_frames_of_random_segments_are_what_their_segments_are(pair: Callable[..., Pair]) -> None:
    p = pair("V")
    rng = random.Random(11)
    for number in range(30):
        layer = rng.choice((tcp, udp))(rng.randrange(1024, 65_536), rng.randrange(1, 65_536))
        data = rng.randbytes(rng.choice((1, 500, 4_000, 20_000)))
        options = [IPOption(bytes([148, 4, 0, 0]))] if rng.random() < 0.3 else []
        packet = IP(src=rng.choice((A, B)), dst=E, id=number * 1000, flags="DF", options=options)
        p.both("L", packet / layer / data, rng.choice((8, 536, 999, 1340)) if len(data) < 5_000 else 1340)


@each_layer
def test_the_largest_super_frame_passes(pair: Callable[..., Pair], layer: Callable[[int, int], ScapyPacket]) -> None:
    p = pair("O")
    head = len(bytes(IP() / layer(5000, 7000)))
    out = p.both("L", IP(src=A, dst=E, flags="DF") / layer(5000, 7000) / bytes(65_535 - head), 1448)
    assert len(out) == (65_535 - head + 1447) // 1448


def test_ecn_claims_and_flags_reach_the_first_and_the_last_segment_only(pair: Callable[..., Pair]) -> None:
    p = pair("O")
    layer = TCP(sport=5000, dport=7000, flags="FPAC", seq=5)
    raw = partial(IP(src=A, dst=E, flags="DF") / layer / DATA)
    claims = claims_of(raw, 1400)._replace(gso_type=GSO_TCPV4 | GSO_ECN)
    frames = p.take("L", raw, claims)
    assert p.gso_headers[0] is not None
    assert p.gso_headers[0].gso_type == GSO_TCPV4 | GSO_ECN
    flags = [str(ip_of(frame)[TCP].flags) for frame in frames]
    assert flags == ["AC", "A", "A", "A", "A", "FPA"]
    assert frames == p.take_alone("L", cut(raw, claims))


def test_udp_segments_of_a_byte_each_are_an_ordinary_thing(pair: Callable[..., Pair]) -> None:
    """UDP_SEGMENT takes any size from one byte up; 64 KB of them no kernel makes."""
    p = pair("O")
    assert len(p.both("L", IP(src=A, dst=E, flags="DF") / udp(5000, 7000) / b"abcde", 1)) == 5
    raw = partial(IP(src=A, dst=E, flags="DF") / udp(5000, 7000) / bytes(60_000))
    assert p.take("L", raw, claims_of(raw, 1)) == []
    assert p.drops == [Drop.PORT_MALFORMED]


@each_layer
def test_a_super_frame_without_payload_is_one_packet(
    pair: Callable[..., Pair], layer: Callable[[int, int], ScapyPacket]
) -> None:
    p = pair("O")
    for ttl, port in ((64, "O"), (1, "L")):
        packet = IP(src=A, dst=E, ttl=ttl, flags="DF") / layer(5000, 7000)
        raw = partial(packet)
        effects = p.uncut.gateway.receive("tap0", p.framed("L", raw), p.now, claims_of(raw, 1400))
        sent = [effect for effect in effects if isinstance(effect, Send)]
        assert [effect.port for effect in sent] == [PORTS[port]]
        if ttl == 64:
            pieces = list(gso.segment(bytearray(sent[0].frame[14:]), sent[0].gso))
            assert [(port, bytes(sent[0].frame[:14]) + piece) for piece in pieces] == p.take_alone(
                "L", [completed(raw, claims_of(raw))]
            )


# Too big for the egress


@each_layer
@pytest.mark.parametrize("gso_bytes", [0, 1440])
def test_too_big_with_df_is_refused_about_the_first_segment(
    pair: Callable[..., Pair], layer: Callable[[int, int], ScapyPacket], gso_bytes: int
) -> None:
    """3/4 with the tunnel's MTU; the quote is an ordinary packet, as the sender's side would have put it on a wire."""
    p = pair("V")
    raw = partial(IP(src=A, dst=E, id=9, flags="DF") / layer(5000, 7000) / DATA[: 7_000 if gso_bytes else 1440])
    claims = claims_of(raw, gso_bytes)
    pieces = cut(raw, claims) if gso_bytes else [completed(raw, claims)]
    told = p.take("L", raw, claims)
    assert told == p.take_alone("L", pieces[:1])
    assert p.drops == [Drop.IP_TOO_BIG]
    error = ip_of(told[0])
    assert (error.dst, error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu) == (A, 3, 4, 1420)
    check_frame(*told[0])
    assert bytes(error)[28:] == pieces[0][:548]


@each_layer
@pytest.mark.parametrize("gso_bytes", [0, 1440])
def test_too_big_without_df_is_cut_and_then_fragmented(
    pair: Callable[..., Pair], layer: Callable[[int, int], ScapyPacket], gso_bytes: int
) -> None:
    p = pair("V")
    data = DATA[: 7_000 if gso_bytes else 1440]
    frames = p.both("L", IP(src=A, dst=E, id=9) / layer(5000, 7000) / data, gso_bytes)
    assert all(len(ip_of(frame)) <= 1420 for frame in frames)
    assert p.gso_headers == [None] * len(frames)
    whole: dict[int, bytes] = {}
    for frame in frames:
        piece = ip_of(frame)
        whole[piece.id] = whole.get(piece.id, b"") + bytes(piece)[20:]
    for payload in whole.values():
        pseudo = bytes(ip_of(frames[0]))[12:20] + bytes((0, ip_of(frames[0]).proto)) + struct.pack("!H", len(payload))
        assert scapy_sum(pseudo + payload) == 0
    assert len(whole) == (5 if gso_bytes else 1)


@each_layer
@each_egress
def test_a_super_frame_from_outside_that_the_lan_cannot_take_is_refused(
    pair: Callable[..., Pair], egress: str, layer: Callable[[int, int], ScapyPacket]
) -> None:
    """The remote hears of its own packet, to our address, and of the LAN's MTU."""
    p = pair(egress, replace=((f'mac = "{MAC_L}"', f'mac = "{MAC_L}"\nmtu = 1000'),))
    name = opened(p, layer)
    raw = partial(IP(src=E, dst=p.X, flags="DF") / layer(7000, name) / DATA)
    claims = claims_of(raw, 1300)
    told = p.take(egress, raw, claims)
    assert told == p.take_alone(egress, cut(raw, claims)[:1])
    error = ip_of(told[0])
    assert (told[0][0], error.src, error.dst, error[ICMP].nexthopmtu) == (egress, p.X, E, 1000)
    assert bytes(error)[28:] == cut(raw, claims)[0][:548]


def test_a_segment_that_just_fits_stays_in_its_super_frame(pair: Callable[..., Pair]) -> None:
    p = pair("V")
    layer = TCP(sport=5000, dport=7000, flags="A")
    frames = p.both("L", IP(src=A, dst=E, flags="DF") / layer / DATA, 1380)
    assert max(len(ip_of(frame)) for frame in frames) == 1420
    raw = partial(IP(src=A, dst=E, flags="DF") / layer / DATA)
    p.take("L", raw, claims_of(raw, 1381))
    assert p.drops == [Drop.IP_TOO_BIG]


# Errors and resets quote and answer ordinary packets


@each_layer
@pytest.mark.parametrize("gso_bytes", [0, 1200])
@pytest.mark.parametrize(
    ("fields", "wanted"),
    [({"ttl": 1}, (11, 0)), ({"dst": "10.1.1.1"}, (3, 0)), ({"dst": ADDRESS_L}, (3, 3))],
    ids=["time exceeded", "unreachable", "closed port"],
)
def test_an_error_quotes_the_packet_with_a_whole_checksum(
    pair: Callable[..., Pair],
    layer: Callable[[int, int], ScapyPacket],
    gso_bytes: int,
    fields: dict[str, object],
    wanted: tuple[int, int],
) -> None:
    p = pair("O")
    header = IP(**{"src": A, "dst": E, "id": 7, "flags": "DF", **fields})
    raw = partial(header / layer(5000, 7000) / DATA[: 5_000 if gso_bytes else 200])
    claims = claims_of(raw, gso_bytes)
    pieces = cut(raw, claims) if gso_bytes else [completed(raw, claims)]
    told = p.take("L", raw, claims)
    check_frame(*told[0])
    if layer is tcp and wanted == (3, 3):  # a reset that follows the whole super-frame
        reset = ip_of(told[0])
        assert (reset[TCP].flags, reset[TCP].seq) == ("R", 77)
        return
    assert told == p.take_alone("L", pieces[:1])
    error = ip_of(told[0])
    assert (error[ICMP].type, error[ICMP].code) == wanted
    assert bytes(error)[28:] == pieces[0][:548]


def test_a_reset_acknowledges_all_of_a_partial_segment(pair: Callable[..., Pair]) -> None:
    p = pair("O")
    frames = p.both("L", IP(src=A, dst=ADDRESS_L) / TCP(sport=5000, dport=22, flags="S", seq=9) / b"fast open")
    reset = ip_of(frames[0])[TCP]
    assert (reset.flags, reset.ack) == ("RA", 9 + 1 + len(b"fast open"))


def test_a_refused_link_is_told_about_the_first_segment(pair: Callable[..., Pair]) -> None:
    p = pair("O", toml="[alias]\nmax_links = 1\n")
    p.plain("L", IP(src=A, dst=E) / udp(5000, 7000))
    raw = partial(IP(src=B, dst=E) / udp(5000, 7000) / DATA)
    told = p.take("L", raw, claims_of(raw, 1200))
    assert told == p.take_alone("L", cut(raw, claims_of(raw, 1200))[:1])
    assert (ip_of(told[0])[ICMP].type, ip_of(told[0])[ICMP].code) == (3, 13)


def test_an_unanswered_partial_syn_is_quoted_whole(pair: Callable[..., Pair]) -> None:
    p = pair("O", toml='[alias]\nunsolicited_syn = "unreachable"\n')
    raw = partial(IP(src=E, dst=ADDRESS_O) / TCP(sport=7000, dport=22, flags="S", options=[("MSS", 1460)]))
    assert p.take("O", raw, claims_of(raw)) == []
    told = p.tick(6)
    assert [port for port, _ in told] == ["O"]
    check_frame(*told[0])
    assert bytes(ip_of(told[0]))[28:] == completed(raw, claims_of(raw))


@each_layer
def test_a_super_frame_waits_for_arp_as_it_is(
    pair: Callable[..., Pair], layer: Callable[[int, int], ScapyPacket]
) -> None:
    """And where nobody answers, its sender hears 3/1 about the first segment."""
    p = pair("O", replace=NO_STATIC)
    raw = partial(IP(src=A, dst=E, flags="DF") / layer(5000, 7000) / DATA)
    claims = claims_of(raw, 1400)
    asked = p.take("L", raw, claims)
    assert [port for port, _ in asked] == ["O"]
    reply = struct.pack("!HHBBH", 1, 0x800, 6, 4, 2) + bytes.fromhex(MAC_ISP.replace(":", "")) + bytes([192, 168, 1, 1])
    reply += bytes.fromhex(MAC_O.replace(":", "")) + bytes([192, 168, 1, 2])
    frame = bytes.fromhex((MAC_O + MAC_ISP).replace(":", "")) + b"\x08\x06" + reply
    effects = p.uncut.gateway.receive("tap1", frame, p.now)
    released = [effect for effect in effects if isinstance(effect, Send)]
    assert len(released) == 1
    assert released[0].gso == claims
    pieces = cut(released[0].frame[14:], claims)
    assert b"".join(bytes(IP(piece).payload.payload) for piece in pieces) == DATA
    assert {IP(piece).src for piece in pieces} == {ADDRESS_O}


def test_a_super_frame_that_waited_in_vain_is_told_about_its_first_segment(pair: Callable[..., Pair]) -> None:
    p = pair("O", replace=(NO_STATIC[1],))
    raw = partial(IP(src=A, dst=E, flags="DF") / udp(5000, 7000) / DATA)
    p.take("L", raw, claims_of(raw, 1400))
    told = [frame for frame in p.tick(4) if frame[0] == "L"]
    assert (ip_of(told[0])[ICMP].type, ip_of(told[0])[ICMP].code) == (3, 1)
    assert bytes(ip_of(told[0]))[28:] == cut(raw, claims_of(raw, 1400))[0][:548]


def test_an_error_about_a_super_frames_segment_is_translated(pair: Callable[..., Pair]) -> None:
    """A router quotes one segment; the host gets its own segment back."""
    p = pair("O")
    name = opened(p, tcp)
    raw = partial(IP(src=A, dst=E, id=50, flags="DF") / tcp(5000, 7000) / DATA)
    out = p.both("L", IP(bytes(raw)), 1400)
    assert ip_of(out[2]).payload.sport == name
    error = IP(src="198.51.100.1", dst=p.X) / ICMP(type=3, code=4, nexthopmtu=1300) / Raw(bytes(ip_of(out[2])))
    told = p.plain("O", error)
    check_frame(*told[0])
    quoted = bytearray(bytes(ip_of(told[0]))[28:])
    mine = cut(raw, claims_of(raw, 1400))[2]
    quoted[8], quoted[10:12] = 64, mine[10:12]
    assert bytes(quoted) == mine
