"""Super-frames through lanes, on one thread: cut, sealed, over loopback, opened and merged again.

The figure holds the kernel's work for a loopback between two UDP sockets, and no devices.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bridge.daemon.implementation import open_lanes
from bridge.ports.udp.datagrams import DatagramSocket
from bridge.vpn.ciphers import open_cores
from bridge.vpn.lanes import PeerLanes
from trials.bench.figure import Figure, summary
from tunnel.effects import Endpoint, Network, PeerConfig
from tunnel.endpoint import Tunnel
from tunnel.primitives import public_key
from wire.checksum import checksum
from wire.gso import GSO_TCPV4, GsoHeader

MTU_BYTES = 1420
SEGMENTS = 47
_PORT = 1
_TURNS = 400
_NAMES = ("one", "other")


class LaneEnd:
    """One of two tunnels with a socket on loopback."""

    def __init__(self, at: int, stack: ExitStack) -> None:
        self.name, self.peer = _NAMES[at], _NAMES[1 - at]
        self.key = bytes([at + 1]) * 32
        self.socket = DatagramSocket(0)
        stack.callback(self.socket.close)
        cores = open_cores(1, {})
        stack.callback(cores.close)
        lanes = open_lanes(cores)
        assert lanes is not None
        self.lanes = PeerLanes(lanes, self.socket, lambda _: _PORT)

    def meet(self, other: LaneEnd) -> None:
        """Know the other end."""
        now = time.monotonic_ns()
        there = Endpoint(bytes([127, 0, 0, 1]), other.socket.port)
        config = PeerConfig(self.peer, public_key(other.key), (Network(0, 0),), there)
        self.tunnel = Tunnel(self.key, [config], now, wall_ns=time.time_ns, random_bytes=os.urandom)

    def take(self) -> list[bytes]:
        """The datagrams that have come."""
        now = time.monotonic_ns()
        taken = self.lanes.receive(1 << 16, now)
        effects, frames = self.tunnel.lane_opened(taken.received, taken.opened, now)
        self.socket.send_burst(effects.datagrams)
        if taken.strange:
            self.socket.send_burst(self.tunnel.receive(taken.strange, now).datagrams)
        self.lanes.renew(self.tunnel, {self.peer: "vpn"})
        return [frame for _, frame, _ in frames]


@contextmanager
def ends() -> Iterator[tuple[LaneEnd, LaneEnd]]:
    """Two that have a session, and have heard of each other."""
    with ExitStack() as stack:
        one, other = (LaneEnd(at, stack) for at in range(2))
        one.meet(other)
        other.meet(one)
        one.socket.send_burst(one.tunnel.call(one.peer, time.monotonic_ns()).datagrams)
        for _ in range(3):
            other.take()
            one.take()
        yield one, other


def super_frame() -> tuple[bytes, GsoHeader]:
    """As a host's kernel hands it over."""
    size = SEGMENTS * (MTU_BYTES - 40)
    head = bytearray(b"\x45\0" + (40 + size).to_bytes(2, "big") + b"\0\1\x40\0\x40\x06\0\0" + bytes(4) + b"\x08" * 4)
    head[10:12] = checksum(head).to_bytes(2, "big")
    body = b"\0\x50\x13\x88" + bytes(8) + b"\x50\x10\1\0" + bytes(4) + os.urandom(size)
    return bytes(head) + body, GsoHeader(True, GSO_TCPV4, 40, MTU_BYTES - 40, 20, 16)


def figures(rounds: int) -> list[Figure]:
    """Gbit/s of inner packets, and of each half."""
    found: dict[str, list[float]] = {"cut, seal, send": [], "receive, open, merge": [], "both": []}
    frame, gso = super_frame()
    bits = len(frame) * 8
    with ends() as (one, other):
        for _ in range(rounds):
            sent_s = taken_s = 0.0
            for _ in range(_TURNS):
                started = time.perf_counter()
                one.lanes.lanes.write(_PORT, frame, gso, time.monotonic_ns())
                one.lanes.send()
                between = time.perf_counter()
                frames = other.take()
                taken_s += time.perf_counter() - between
                sent_s += between - started
                assert [len(one) for one in frames] == [len(frame)]
            for what, seconds in zip(found, (sent_s, taken_s, sent_s + taken_s), strict=True):
                found[what].append(_TURNS * bits / seconds / 1e9)
    return [summary(f"super-frames through a lane, {what}", "Gbit/s", values) for what, values in found.items()]
