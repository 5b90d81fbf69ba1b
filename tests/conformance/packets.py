"""Short words for the packets of the scenarios: endpoints are (address, port), an ICMP query's port its identifier."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet as ScapyPacket

from tests.conformance.harness import Out

Endpoint = tuple[str, int]


def udp(source: Endpoint, destination: Endpoint, data: bytes = b"data", **ip: Any) -> ScapyPacket:
    """A UDP datagram; `ip`: fields of the IP header."""
    return IP(src=source[0], dst=destination[0], **ip) / UDP(sport=source[1], dport=destination[1]) / data


def tcp(
    source: Endpoint,
    destination: Endpoint,
    flags: str,
    data: bytes = b"",
    *,
    seq: int = 0,
    ack: int = 0,
    window: int = 8192,
    options: list[tuple[str, Any]] | None = None,
    **ip: Any,
) -> ScapyPacket:
    """A TCP segment; `ip`: fields of the IP header."""
    segment = TCP(
        sport=source[1], dport=destination[1], flags=flags, seq=seq, ack=ack, window=window, options=options or []
    )
    return IP(src=source[0], dst=destination[0], **ip) / segment / data


def echo(source: Endpoint, destination: str, kind: int = 8, data: bytes = b"data", seq: int = 1) -> ScapyPacket:
    """An echo request, or (`kind` 0) a reply."""
    return IP(src=source[0], dst=destination) / ICMP(type=kind, id=source[1], seq=seq) / data


def error(source: str, destination: str, kind: int, code: int, quoted: bytes, mtu: int = 0) -> ScapyPacket:
    """An ICMP error about `quoted`, an IP packet as the sender of the error has seen it."""
    return IP(src=source, dst=destination) / ICMP(type=kind, code=code, unused=0, nexthopmtu=mtu) / quoted


def only(outs: list[Out]) -> Out:
    """The one frame that left."""
    assert len(outs) == 1, [f"{out.port} {out.ip.summary()}" for out in outs]
    return outs[0]


def raw_ip(out: Out) -> bytes:
    """The IP packet of a frame."""
    return out.frame[14:] if out.is_ethernet else out.frame


def payload(out: Out) -> bytes:
    """The bytes behind the UDP or TCP header."""
    packet = raw_ip(out)
    start = (packet[0] & 15) * 4
    return packet[start + (8 if packet[9] == 17 else (packet[start + 12] >> 4) * 4) :]


def ends(out: Out) -> tuple[Endpoint, Endpoint]:
    """Source and destination endpoints of a UDP, TCP or ICMP query packet."""
    packet = out.ip
    for layer in (UDP, TCP):
        if packet.haslayer(layer):
            return (packet.src, packet[layer].sport), (packet.dst, packet[layer].dport)
    return (packet.src, packet[ICMP].id), (packet.dst, packet[ICMP].id)


def way(out: Out) -> tuple[str, Endpoint, Endpoint]:
    """The port letter that a packet left by, with its endpoints."""
    return (out.port, *ends(out))
