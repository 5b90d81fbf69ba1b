"""Answers for our own addresses: echo replies and resets, checked by scapy."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP

from icmp import responder
from wire import ipv4
from wire.ipv4 import Packet


def parsed(packet: IP | bytes) -> Packet:
    read = ipv4.parse(bytes(packet))
    assert isinstance(read, Packet)
    ipv4.read_transport(read)
    return read


def rebuilt(packet: Packet) -> bytes:
    again = IP(bytes(packet.data))
    del again.chksum, again[1].chksum
    return bytes(again)


@pytest.mark.parametrize("size", [0, 1, 56, 1472, 8000])
def test_g17_an_echo_reply_swaps_the_addresses_and_keeps_everything_else(size: int) -> None:
    request = IP(src="192.168.200.10", dst="192.168.200.2", tos=0xB8, ttl=1) / ICMP(id=77, seq=9) / bytes(size)
    reply = responder.echo_reply(parsed(request), 1234)
    read = IP(bytes(reply.data))
    assert (read.src, read.dst, read.tos, read.ttl) == ("192.168.200.2", "192.168.200.10", 0xB8, 64)
    assert (read[ICMP].type, read[ICMP].id, read[ICMP].seq) == (0, 77, 9)
    assert bytes(read[ICMP].payload) == bytes(size)
    assert rebuilt(reply) == bytes(reply.data)


@pytest.mark.parametrize(
    ("segment", "flags", "sequence", "acknowledgment"),
    [
        (TCP(sport=1000, dport=80, flags="S", seq=100), "RA", 0, 101),
        (TCP(sport=1000, dport=80, flags="A", seq=100, ack=500), "R", 500, 0),
        (TCP(sport=1000, dport=80, flags="PA", seq=100, ack=500) / b"data", "R", 500, 0),
        (TCP(sport=1000, dport=80, flags="F", seq=0xFFFFFFFF) / b"data", "RA", 0, 4),
    ],
)
def test_g13_a_closed_port_answers_as_rfc_9293_says(
    segment: TCP, flags: str, sequence: int, acknowledgment: int
) -> None:
    reset = responder.reset(parsed(IP(src="192.168.200.10", dst="192.168.200.2") / segment), 1)
    assert reset is not None
    read = IP(bytes(reset.data))
    assert (read[TCP].sport, read[TCP].dport, str(read[TCP].flags)) == (80, 1000, flags)
    assert (read[TCP].seq, read[TCP].ack) == (sequence, acknowledgment)
    assert rebuilt(reset) == bytes(reset.data)


def test_g13_a_reset_is_never_answered() -> None:
    packet = IP(src="192.168.200.10", dst="192.168.200.2") / TCP(flags="R", sport=1, dport=2)
    assert responder.reset(parsed(packet), 1) is None


@pytest.mark.parametrize("layer", [UDP(sport=1, dport=2), TCP(sport=1, dport=2), ICMP()])
def test_a_transport_checksum_is_valid_until_a_bit_flips(layer: UDP | TCP | ICMP) -> None:
    raw = bytes(IP(src="192.168.200.10", dst="192.168.200.2") / layer / b"odd")
    assert responder.has_valid_transport_checksum(parsed(raw))
    assert not responder.has_valid_transport_checksum(parsed(raw[:-1] + b"\xff"))
