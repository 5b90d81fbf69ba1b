"""Pieces of a datagram: cut as senders cut them, and put together as receivers do."""

from __future__ import annotations

import itertools
import struct

from scapy.packet import Packet as ScapyPacket

from tests.conformance.harness import ICMP, IP, TCP, UDP, B, E, Out, Raw, Scenario, scapy_sum


def one(outs: list[Out]) -> Out:
    assert len(outs) == 1
    return outs[0]


def payload_of(out: Out) -> bytes:
    """The bytes behind the IP header."""
    raw = out.frame[14:] if out.is_ethernet else out.frame
    return raw[(raw[0] & 15) * 4 :]


def whole_of(packet: ScapyPacket) -> bytes:
    """The payload of a packet, its checksums made by scapy."""
    return bytes(packet)[20:]


def cut(packet: ScapyPacket, *edges: int) -> list[IP]:
    """A packet's fragments, cut at these offsets of its payload."""
    payload = whole_of(packet)
    found = []
    for start, end in itertools.pairwise((0, *edges, len(payload))):
        fields = {"src": packet.src, "dst": packet.dst, "proto": packet.proto, "id": packet.id, "ttl": packet.ttl}
        flags = "MF" if end < len(payload) else 0
        found.append(IP(**fields, flags=flags, frag=start // 8) / Raw(payload[start:end]))
    return found


def joined(outs: list[Out]) -> bytes:
    """The payload that a receiver puts together, which holds no gap and no overlap."""
    parts = sorted((out.ip.frag * 8, payload_of(out), bool(out.ip.flags.MF)) for out in outs)
    assert [more for _, _, more in parts] == [True] * (len(parts) - 1) + [False]
    at = 0
    for offset, part, _ in parts:
        assert offset == at
        at += len(part)
    return b"".join(part for _, part, _ in parts)


def check_whole(outs: list[Out]) -> bytes:
    """The datagram that the receiver puts together is one, with a right checksum; its payload."""
    assert len({(out.port, out.ip.src, out.ip.dst, out.ip.id, out.ip.proto) for out in outs}) == 1
    payload = joined(outs)
    first = outs[0].ip
    pseudo = b""
    if first.proto != 1:
        pseudo = bytes(first)[12:20] + bytes((0, first.proto)) + struct.pack("!H", len(payload))
    assert scapy_sum(pseudo + payload) == 0
    return payload


DATA = bytes(n * 7 & 255 for n in range(992))
LAYERS = {
    "udp": UDP(sport=5000, dport=7000),
    "tcp": TCP(sport=5000, dport=7000, flags="PA", seq=1, ack=2),
    "echo": ICMP(id=5000, seq=9),
}


def crowd(s: Scenario, layer: ScapyPacket) -> None:
    """B takes the port (or identifier) that A would keep."""
    opening = layer.copy()
    if isinstance(layer, TCP):
        opening.flags = "S"
    one(s.inside(IP(src=B, dst=E) / opening))


def reply_to(outs: list[Out], layer: ScapyPacket, x: str, **fields: object) -> ScapyPacket:
    """The remote's answer, as large as the question."""
    answer = layer.copy()
    name = int.from_bytes(payload_of(outs[0])[4:6] if isinstance(layer, ICMP) else payload_of(outs[0])[:2], "big")
    assert name != 5000
    if isinstance(layer, ICMP):
        answer.type, answer.id = 0, name
    else:
        answer.sport, answer.dport = 7000, name
    return IP(src=E, dst=x, id=99, **fields) / answer / DATA[::-1]
