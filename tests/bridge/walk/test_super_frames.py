"""Super-frames and partial checksums through the whole walk: what comes out, cut and completed, is what every segment
would have become alone.

Two gateways of one seed run side by side. One gets what a kernel hands over: up to 64 KB under one header, and a
checksum that holds the sum of the pseudo-header alone. The other gets the same packets as they stand on a wire. The
checksums of what goes in are made here, those of what comes out are recomputed by scapy. One file: every case runs on
the same pair of gateways.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from bridge.walk.effects import Event, Send
from tests.conformance.harness import (
    ADDRESS_L,
    ADDRESS_O,
    HOST,
    LETTERS,
    MAC_A,
    MAC_B,
    MAC_ISP,
    MAC_L,
    MAC_O,
    NO_STATIC,
    PORTS,
    A,
    B,
    E,
    Scenario,
    check_frame,
    scapy_sum,
)
from wire import gso
from wire.drop import Drop
from wire.gso import GSO_ECN, GSO_TCPV4, GSO_UDP_L4, GsoHeader
from wire.units import seconds_ns

Frames = list[tuple[str, bytes]]
"""Port letters and whole frames, as they stand on a wire."""

_FIELD = {6: 16, 17: 6}


def partial(packet: ScapyPacket) -> bytearray:
    """The packet as a kernel hands it over: instead of its checksum, the uncomplemented sum of the pseudo-header."""
    raw = bytearray(bytes(packet))
    start = (raw[0] & 15) * 4
    pseudo = bytes(raw[12:20]) + bytes((0, raw[9])) + struct.pack("!H", len(raw) - start)
    at = start + _FIELD[raw[9]]
    raw[at : at + 2] = (scapy_sum(pseudo) ^ 0xFFFF).to_bytes(2, "big")
    return raw


def claims_of(raw: bytes | bytearray, gso_bytes: int = 0) -> GsoHeader:
    """What the kernel says of such a packet."""
    start = (raw[0] & 15) * 4
    header_bytes = start + ((raw[start + 12] >> 4) * 4 if raw[9] == 6 else 8)
    kind = 0 if not gso_bytes else GSO_TCPV4 if raw[9] == 6 else GSO_UDP_L4
    return GsoHeader(True, kind, header_bytes, gso_bytes, start, _FIELD[raw[9]])


def completed(raw: bytes | bytearray, claims: GsoHeader) -> bytes:
    """The packet with its partial checksum completed: the sum of all from `checksum_start` on, complemented."""
    found = bytearray(raw)
    value = scapy_sum(bytes(found[claims.checksum_start :]))
    at = claims.checksum_start + claims.checksum_offset
    found[at : at + 2] = (value or 0xFFFF if found[9] == 17 else value).to_bytes(2, "big")
    return bytes(found)


def cut(raw: bytes | bytearray, claims: GsoHeader) -> list[bytes]:
    """A super-frame as the packets that it stands for, checksums by scapy."""
    whole = IP(bytes(raw))
    layer = whole[TCP] if TCP in whole else whole[UDP]
    data = bytes(layer.payload)
    found = []
    for index, start in enumerate(range(0, len(data), claims.gso_bytes)):
        piece = whole.copy()
        inner = piece[TCP] if TCP in piece else piece[UDP]
        inner.remove_payload()
        del piece.len, piece.chksum, inner.chksum
        piece.id = (whole.id + index) & 0xFFFF
        if TCP in piece:
            inner.seq = (layer.seq + start) & 0xFFFFFFFF
            if start + claims.gso_bytes < len(data):
                inner.flags &= ~0x09
            if index:
                inner.flags &= ~0x80
        else:
            del inner.len
        found.append(bytes(piece / data[start : start + claims.gso_bytes]))
    return found


class Pair:
    """The two gateways."""

    def __init__(self, folder: Path, egress: str = "O", **options: object) -> None:
        folders = folder / "uncut", folder / "cut"
        for each in folders:
            each.mkdir()
        self.uncut, self.alone = (Scenario(each, egress, **options) for each in folders)  # type: ignore[arg-type] # as given
        self.egress, self.X = egress, self.uncut.X
        self.now = self.uncut.now
        self.gso_headers: list[GsoHeader | None] = []
        self.drops: list[str] = []

    def framed(self, port: str, packet: bytes | bytearray) -> bytes:
        """The packet with the Ethernet header of the port's usual sender."""
        if port not in "LO":
            return bytes(packet)
        near = (MAC_L, MAC_B if packet[12:16] == bytes(map(int, B.split("."))) else MAC_A)
        macs = "".join(near if port == "L" else (MAC_O, MAC_ISP))
        return bytes.fromhex(macs.replace(":", "")) + b"\x08\x00" + packet

    def take(self, port: str, packet: bytes | bytearray, claims: GsoHeader | None) -> Frames:
        """Into the first gateway; what leaves it, cut and completed."""
        effects = self.uncut.gateway.receive(PORTS[port], self.framed(port, packet), self.now, claims)
        return self._wire(effects)

    def take_alone(self, port: str, packets: list[bytes]) -> Frames:
        """Into the second one, one by one."""
        found = []
        for packet in packets:
            effects = self.alone.gateway.receive(PORTS[port], self.framed(port, packet), self.now)
            found += [(LETTERS[e.port], bytes(e.frame)) for e in effects if isinstance(e, Send)]
        return found

    def tick(self, seconds: float) -> Frames:
        """Let the first gateway's clock run on."""
        end = self.now + seconds_ns(seconds)
        found: Frames = []
        while (due := self.uncut.gateway.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            found += self._wire(self.uncut.gateway.tick(self.now))
        self.now = end
        return found

    def _wire(self, effects: list[Send | Event]) -> Frames:
        self.gso_headers, found = [], []
        for effect in effects:
            if isinstance(effect, Event):
                if effect.kind == "drop":
                    self.drops.append(str(effect.facts["reason"]))
                continue
            port = LETTERS[effect.port]
            self.gso_headers.append(effect.gso)
            link, raw = (14 if port in "LO" else 0), bytes(effect.frame)
            if effect.gso is None:
                found.append((port, raw))
                continue
            before = raw[link:]
            if effect.gso.partial and not effect.gso.gso_type:
                found.append((port, raw[:link] + completed(before, effect.gso)))
            if effect.gso.gso_type:
                assert [bytes(p) for p in gso.segment(bytearray(before), effect.gso)] == cut(before, effect.gso)
                found += [(port, raw[:link] + piece) for piece in cut(before, effect.gso)]
        return found

    def both(self, port: str, packet: ScapyPacket, gso_bytes: int = 0) -> Frames:
        """The packet into both gateways; asserts that the same frames leave and gives them."""
        raw = partial(packet)
        claims = claims_of(raw, gso_bytes)
        uncut = self.take(port, raw, claims)
        pieces = cut(raw, claims) if gso_bytes else [completed(raw, claims)]
        alone = self.take_alone(port, pieces)
        assert uncut == alone
        for letter, frame in uncut:
            check_frame(letter, frame)
        return uncut

    def plain(self, port: str, packet: ScapyPacket) -> Frames:
        """An ordinary packet into both."""
        uncut = self.take(port, bytes(packet), None)
        assert uncut == self.take_alone(port, [bytes(packet)])
        return uncut


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., Pair]:
    return lambda *args, **options: Pair(tmp_path, *args, **options)


def ip_of(frame: tuple[str, bytes]) -> IP:
    port, raw = frame
    return IP(raw[14:] if port in "LO" else raw)


def data_of(frames: Frames) -> bytes:
    return b"".join(bytes(ip_of(frame).payload.payload) for frame in frames)


DATA = bytes(n * 7 & 255 for n in range(8_000))
STAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (12345, 67890))]


def tcp(sport: int, dport: int) -> TCP:
    return TCP(sport=sport, dport=dport, flags="PA", seq=0xFFFFF000, ack=77, options=STAMPS)


def udp(sport: int, dport: int) -> UDP:
    return UDP(sport=sport, dport=dport)


each_layer = pytest.mark.parametrize("layer", [tcp, udp], ids=["tcp", "udp"])
each_egress = pytest.mark.parametrize("egress", ["O", "V"])


def opened(p: Pair, layer: Callable[[int, int], ScapyPacket]) -> int:
    """A talks to E from port 5000, which B has: the outside port that A got."""
    for host in (B, A):
        first = layer(5000, 7000)
        if isinstance(first, TCP):
            first.flags, first.options = "S", []
        frames = p.plain("L", IP(src=host, dst=E, flags="DF") / first)
    name = int(ip_of(frames[0]).payload.sport)
    assert name != 5000
    return name


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


# MSS


@pytest.mark.parametrize(
    "options",
    [[("MSS", 1460)], [("NOP", None), ("MSS", 1460)], [("SAckOK", b""), ("NOP", None), ("MSS", 1460), ("WScale", 7)]],
    ids=["even", "odd", "among others"],
)
def test_the_mss_of_a_partial_syn_is_clamped_without_touching_its_checksum(
    pair: Callable[..., Pair], options: list[tuple[str, object]]
) -> None:
    """The partial checksum does not cover the options yet: completed, it is right; so is the SYN+ACK's."""
    p = pair("V")
    syn = p.both("L", IP(src=A, dst=E) / TCP(sport=5000, dport=7000, flags="S", options=options))
    assert dict(ip_of(syn[0])[TCP].options)["MSS"] == 1380
    answer = p.both("V", IP(src=E, dst=p.X) / TCP(sport=7000, dport=5000, flags="SA", options=options))
    assert dict(ip_of(answer[0])[TCP].options)["MSS"] == 1380


# Claims that contradict the packet


@pytest.mark.parametrize(
    "change",
    [
        {"gso_type": GSO_UDP_L4, "gso_bytes": 1200},
        {"gso_type": 3, "gso_bytes": 1200},
        {"gso_type": 4, "gso_bytes": 1200},
        {"gso_type": 77, "gso_bytes": 1200},
        {"gso_type": GSO_TCPV4, "gso_bytes": 0},
        {"gso_type": GSO_TCPV4, "gso_bytes": 7},
        {"gso_type": GSO_TCPV4, "gso_bytes": 1200, "checksum_start": 24},
        {"gso_type": GSO_TCPV4, "gso_bytes": 1200, "checksum_offset": 6},
        {"checksum_start": 0},
        {"checksum_start": -14},
        {"checksum_start": 19},
        {"checksum_start": 65_000},
        {"checksum_offset": 65_000},
    ],
)
@pytest.mark.parametrize("port", ["L", "O", "U", "V"])
def test_claims_that_contradict_the_packet_cost_the_packet(
    pair: Callable[..., Pair], port: str, change: dict[str, int]
) -> None:
    p = pair("O")
    opened(p, tcp)
    source, destination = {"L": (A, E), "O": (E, p.X), "U": (HOST, E), "V": ("8.8.8.8", HOST)}[port]
    raw = partial(IP(src=source, dst=destination) / tcp(5000, 5000) / DATA)
    assert p.take(port, raw, claims_of(raw)._replace(**change)) == []
    assert p.drops[-1] == Drop.PORT_MALFORMED


def test_a_fragment_is_no_super_frame(pair: Callable[..., Pair]) -> None:
    p = pair("O")
    for flags, frag in (("MF", 0), ("MF", 100), (0, 100)):
        raw = partial(IP(src=A, dst=E, flags=flags, frag=frag) / udp(5000, 7000) / DATA[:1200])
        assert p.take("L", raw, claims_of(raw, 400)) == []
        assert p.drops[-1] == Drop.PORT_MALFORMED


@pytest.mark.parametrize("protocol", [1, 47, 50, 132])
def test_only_tcp_and_udp_come_as_super_frames(pair: Callable[..., Pair], protocol: int) -> None:
    p = pair("O")
    raw = bytes(IP(src=A, dst=E, proto=protocol) / Raw(b"\x08" + bytes(2999)))
    for kind in (GSO_TCPV4, GSO_UDP_L4):
        assert p.take("L", raw, GsoHeader(True, kind, 40, 1200, 20, 16)) == []
        assert p.drops[-1] == Drop.PORT_MALFORMED


@each_layer
def test_a_super_frame_with_a_truncated_header_is_dropped(
    pair: Callable[..., Pair], layer: Callable[[int, int], ScapyPacket]
) -> None:
    p = pair("O")
    whole = bytes(partial(IP(src=A, dst=E) / layer(5000, 7000)))
    claims = claims_of(whole, 1200)
    for size in range(20, len(whole)):
        packet = IP(whole[:size])
        del packet.len, packet.chksum
        assert p.take("L", bytes(packet), claims) == []
    assert set(p.drops) <= {Drop.PORT_MALFORMED, Drop.TRANSPORT_SHORT}


def test_a_super_frame_whose_checksum_the_device_has_verified_is_treated_as_partial(pair: Callable[..., Pair]) -> None:
    """A device that merges segments itself may say no more than their size: nothing is covered by a whole checksum
    then, and the segments get theirs anew, as in the kernel."""
    p = pair("O")
    packet = IP(src=A, dst=E, flags="DF") / tcp(5000, 7000) / DATA
    raw = partial(packet)
    for field in (b"\0\0", b"\x12\x34", bytes(packet)[36:38]):
        told = bytearray(raw)
        told[36:38] = field
        frames = p.take("L", told, GsoHeader(False, GSO_TCPV4, 52, 1200, -14, 0))
        assert frames == p.take_alone("L", cut(raw, claims_of(raw, 1200)))


# Checksums that are not the outer transport's


@pytest.mark.parametrize("outer", ["gre", "udp"])
@each_egress
def test_a_checksum_inside_a_tunnel_is_completed_and_the_packet_is_plain(
    pair: Callable[..., Pair], egress: str, outer: str
) -> None:
    """A LAN host tunnels: its device would have completed the inner checksum; we do, before anything is rewritten."""
    p = pair(egress)
    inner = IP(src="172.31.0.1", dst="172.31.0.2") / TCP(sport=1, dport=2, flags="A") / DATA[:777]
    half = partial(inner)
    if outer == "gre":
        packet = IP(src=A, dst=E, proto=47) / Raw(bytes([0, 0, 8, 0]) + half)
        start = 20 + 4 + 20
        wanted = IP(src=p.X, dst=E, proto=47, ttl=63) / Raw(bytes([0, 0, 8, 0]) + bytes(inner))
    else:
        packet = IP(src=A, dst=E) / UDP(sport=5000, dport=4789, chksum=0) / Raw(half)
        start = 20 + 8 + 20
        wanted = IP(src=p.X, dst=E, ttl=63) / UDP(sport=5000, dport=4789, chksum=0) / Raw(bytes(inner))
    out = p.take("L", bytes(packet), GsoHeader(True, 0, 0, 0, start, 16))
    assert p.gso_headers == [None]
    assert bytes(ip_of(out[0])) == bytes(wanted)


@pytest.mark.parametrize("size", [0, 1, 50])
def test_padding_behind_a_partial_packet_is_not_summed(pair: Callable[..., Pair], size: int) -> None:
    p = pair("O")
    raw = partial(IP(src=A, dst=E) / udp(5000, 7000) / b"four")
    out = p.take("L", raw + bytes(range(1, size + 1)), claims_of(raw))
    assert out == p.take_alone("L", [completed(raw, claims_of(raw))])
