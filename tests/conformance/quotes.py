"""Packets of the ICMP rows, and the errors that quote them."""

from __future__ import annotations

from tests.conformance.harness import (
    ICMP,
    TCP,
    UDP,
    Out,
)

LAYERS = {
    "udp": UDP(sport=5000, dport=7000),
    "tcp": TCP(sport=5000, dport=7000, flags="S", seq=0x01020304),
    "echo": ICMP(type=8, id=5000, seq=9),
    "timestamp": ICMP(type=13, id=5000, seq=9, ts_ori=1, ts_rx=2, ts_tx=3),
}


def one(outs: list[Out]) -> Out:
    assert len(outs) == 1
    return outs[0]


def body(out: Out) -> bytes:
    """The bytes behind the IP header."""
    raw = bytes(out.ip)
    return raw[(raw[0] & 15) * 4 :]


def name_of(out: Out) -> int:
    """The outside port or identifier that a packet left with."""
    inner = out.ip.payload
    return int(inner.id if isinstance(inner, ICMP) else inner.sport)
