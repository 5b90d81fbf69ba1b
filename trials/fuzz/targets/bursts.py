"""Frames of devices, as a kernel might hand them over, into the compiled burst loop and into its plain twin.

Socket pairs stand for the devices: what is written at one end is read by the loop with its virtio header, what the loop
writes comes out at the other. Some devices have no virtio header. Must hold: both hand the same frames to the
walk and to writers, and write the same bytes to the same devices, one by one (`take`) and waiting (`wait`); the account
agrees; a frame longer or shorter than anything harms neither.
"""

from __future__ import annotations

import random
import select
import socket
import time
from array import array
from contextlib import ExitStack
from typing import Any

from bridge.ports.base import PortKind
from bridge.ports.bursts import PlainBursts
from bridge.ports.device import DevicePort
from flow.table import NO_SLOT
from trials.fuzz.choices import is_spent
from trials.fuzz.hostile import Failure, Target, mutated
from trials.fuzz.targets.flow import _OUR_MACS, FlowPair, _ends, _frame, _port_facts
from wire import ipv4
from wire.gso import pack

TAP0, TAP1, TUN0, PEER = range(4)
_KINDS: dict[int, PortKind] = {TAP0: "tap", TAP1: "tap", TUN0: "tun"}
_BUFFER_BYTES = 1 << 21
_FRAME_BYTES = 1 << 17


class TableSide:
    """One loop with a table and devices of its own."""

    def __init__(
        self, bursts: Any, table: Any, stack: ExitStack, bare: frozenset[int], words: list[array[int]]
    ) -> None:
        self.bursts = bursts
        self.table = table
        self.cables: dict[int, socket.socket] = {}
        self.ports: dict[int, DevicePort] = {}
        self.epoll = select.epoll()
        stack.callback(self.epoll.close)
        for number, kind in _KINDS.items():
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in (near, far):
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            port = DevicePort(f"port{number}", kind, "none", near.detach(), vnet_header=number not in bare, offloads=0)
            stack.callback(port.close)
            stack.callback(far.close)
            bursts.attach(number, port)
            self.epoll.register(port.fileno(), select.EPOLLIN)
            self.cables[number] = far
            self.ports[number] = port
        for number in range(4):
            table.set_port(*_port_facts(number, 1500 if _OUR_MACS[number] else 1420, words))

    def written(self) -> list[tuple[int, bytes]]:
        """The frames that have come out of the devices."""
        found = []
        for number, cable in self.cables.items():
            while True:
                try:
                    found.append((number, cable.recv(_FRAME_BYTES)))
                except BlockingIOError:
                    break
        return found


def _plain(arrivals: Any) -> list[Any]:
    return [tuple(bytes(part) if isinstance(part, bytes | bytearray) else part for part in one) for one in arrivals]


def episode(rng: random.Random, most: int) -> int:
    """Two loops of the same ports and flows, and frames for them; nothing where nothing was compiled."""
    try:
        from bridge.ports.burst import CompiledBursts  # noqa: PLC0415 - it may be missing
        from flow.fast import CompiledTable  # noqa: PLC0415
    except ImportError:
        return most
    words = [array("Q", bytes(8 * 32)) for _ in range(2)]
    for word in words:
        for slot in range(4):
            word[slot * 4] = rng.getrandbits(48) | 2 << 48
    bare = rng.choice((frozenset[int](), frozenset({TUN0}), frozenset({TAP1}), frozenset({TAP0, TAP1, TUN0})))
    number = 0
    known: list[tuple[int, int, FlowPair]] = []
    with ExitStack() as stack:
        tables = CompiledTable(16, 7), CompiledTable(16, 7)
        sides = [
            TableSide(bursts(table), table, stack, bare, words)
            for bursts, table in zip((CompiledBursts, PlainBursts), tables, strict=True)
        ]
        while number < min(most, 300) and not is_spent(rng):
            number += 1
            now = time.monotonic_ns()  # the clock of `wait`, so of all; nothing here is old enough to expire
            protocol = rng.choice((ipv4.TCP, ipv4.UDP, ipv4.ICMP))
            in_port, ends = rng.randrange(3), _ends(protocol, rng)
            if rng.random() < 0.3:
                after = (*_ends(protocol, rng)[:3], ends[3]) if protocol == ipv4.ICMP else _ends(protocol, rng)
                out_port = rng.randrange(4)
                slot = rng.choice((0, 1)) if _OUR_MACS[out_port] else NO_SLOT
                fact = in_port, out_port, protocol, ends, after, 65535, slot, 1, now
                for table in tables:
                    table.learn(*fact)
                known.append((in_port, protocol, ends))
                continue
            if known and rng.random() < 0.9:
                in_port, protocol, ends = rng.choice(known)
            _compare(sides, in_port, _whole(in_port, protocol, ends, bare, rng), now, waiting=rng.random() < 0.5)
        accounts = [{one.port: one[:5] for one in side.bursts.counted()} for side in sides]
        if accounts[0] != accounts[1]:
            raise Failure(f"counted {accounts[0]}, the twin {accounts[1]}")
    return number


def _whole(in_port: int, protocol: int, ends: FlowPair, bare: frozenset[int], rng: random.Random) -> bytes:
    """The bytes of a read of the device: never none, which would mean the device's end."""
    frame, claims = _frame(in_port, protocol, ends, rng)
    if in_port in bare:
        return frame or b"\0"
    if claims is not None and (max(claims[2:]) + 14 > 0xFFFF or claims.checksum_start < 0):
        claims = None  # no header can say that
    whole = pack(claims, 14 if _OUR_MACS[in_port] else 0) + frame
    if rng.random() < 0.1:
        whole = mutated(whole, rng)
    if rng.random() < 0.02:
        whole += bytes(65_535 + (14 if _OUR_MACS[in_port] else 0) + 10 - len(whole))
    return whole if len(whole) >= 10 else whole + bytes(10 - len(whole))


def _compare(sides: list[TableSide], in_port: int, whole: bytes, now: int, *, waiting: bool) -> None:
    found = []
    for side in sides:
        side.cables[in_port].send(whole)
        if waiting and side is sides[0]:
            burst, ready = side.bursts.wait(side.epoll, 0.0, 64)
            if ready:
                raise Failure(f"a port was not served: {ready}")
            walked, queued = ([], []) if burst is None else burst[1:]
        else:
            walked, queued = side.bursts.take(in_port, 64, now)
        for out_port, frame, gso in queued:
            if out_port in side.ports:  # without a virtio header: its writer cuts what the device cannot take
                side.ports[out_port].write(frame, gso)
        for_peers = [one for one in queued if one[0] not in side.ports]
        found.append((_plain(walked), _plain(for_peers), side.written()))
    if found[0] != found[1]:
        raise Failure(f"port {in_port} < {whole.hex()}: {found[0]}, the twin: {found[1]}")


TARGET = Target("bursts", episode, compiled=True)
