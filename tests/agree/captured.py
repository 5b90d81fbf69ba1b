"""The packets of real captures, moved to the addresses of the checklist: one host becomes A, the others the world."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from scapy.utils import checksum

from tests.agree.conversations import Piece
from tests.conformance.harness import A
from wire import pcap

PACKETS = 120
"""At most so many of one file."""
_LONGEST_BYTES = 1400


def ipv4_packets(path: Path) -> Iterator[bytes]:
    """The IPv4 packets of a capture, as far as it can be read."""
    with path.open("rb") as file:
        try:
            for number, record in enumerate(pcap.read(file, path.name)):
                frame = bytes(record.data)
                if number == PACKETS:
                    return
                if frame[12:14] == b"\x08\0" and frame[14:15] >= b"\x45" and len(frame) >= 34:
                    yield frame[14:]
        except pcap.CaptureError:
            return


def moved(path: Path, x: str) -> Iterator[Piece]:
    """The packets of a capture between A and the world: the sender of the first one is A, everybody else is somebody
    out there, and what two others say to each other is left out. Checksums that were right are right again, wrong
    ones stay as wrong. Each packet keeps identification, TTL, options, flags and payload."""
    inside: bytes | None = None
    ours = IPv4Address(x).packed
    for raw in ipv4_packets(path):
        source, destination = raw[12:16], raw[16:20]
        if inside is None:
            inside = source
        if inside not in (source, destination) or len(raw) > _LONGEST_BYTES:
            continue
        out = bytes((203, 0, 113))
        if source == inside:
            yield "in", [_with_addresses(raw, IPv4Address(A).packed, out + _last(destination))]
        else:
            yield "out", [_with_addresses(raw, out + _last(source), ours)]


def _last(address: bytes) -> bytes:
    return bytes((1 + checksum(address) % 250,))


def _with_addresses(raw: bytes, source: bytes, destination: bytes) -> bytes:
    """The packet between two other addresses; its checksums move by as much as its addresses do (RFC 1624)."""
    packet = bytearray(raw)
    before, after = raw[12:20], source + destination
    packet[12:20] = after
    _move(packet, 10, before, after)
    start = (raw[0] & 15) * 4
    at = start + {6: 16, 17: 6}.get(raw[9], len(raw))
    is_first = struct.unpack_from("!H", raw, 6)[0] & 0x1FFF == 0
    if is_first and len(raw) >= at + 2 and not (raw[9] == 17 and raw[at : at + 2] == b"\0\0"):
        _move(packet, at, before, after)
    return bytes(packet)


def _move(packet: bytearray, at: int, before: bytes, after: bytes) -> None:
    total = int.from_bytes(packet[at : at + 2], "big") ^ 0xFFFF
    total += sum(word ^ 0xFFFF for word in struct.unpack("!4H", before)) + sum(struct.unpack("!4H", after))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    packet[at : at + 2] = (total ^ 0xFFFF).to_bytes(2, "big")
