"""Two gateways of one seed side by side, for super-frames.

One gateway gets the frames of a kernel: up to 64 KB under one header, and a checksum that holds the sum of the
pseudo-header alone. The other gets the same packets as they stand on a wire. The checksums of frames that go in are
made here, those of frames that come out are recomputed by scapy."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet as ScapyPacket

from bridge.walk.effects import Event, Send
from tests.conformance.harness import (
    LETTERS,
    MAC_A,
    MAC_B,
    MAC_ISP,
    MAC_L,
    MAC_O,
    PORTS,
    A,
    B,
    E,
    Scenario,
    check_frame,
    scapy_sum,
)
from wire import gso
from wire.gso import GSO_TCPV4, GSO_UDP_L4, GsoHeader
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
    """The kernel's claims about such a packet."""
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


def ip_of(frame: tuple[str, bytes]) -> IP:
    port, raw = frame
    return IP(raw[14:] if port in "LO" else raw)


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
