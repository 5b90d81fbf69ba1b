"""A wire that does damage: a process that carries Ethernet frames between two devices of its namespace.

    python -m trials.cables.damage NEAR FAR --seed N

It prints `ready`, then reads one JSON object a line, the damage from now on (`WireDamage`; what is not named is not
done, `null` changes nothing), and answers each line with the counts so far, by direction: `there` is from NEAR to FAR.

The fate of a frame depends on the seed, its direction and its number in that direction, on nothing else: every
frame draws the same numbers, whatever is done to it. Only IPv4 is touched: ARP always passes, so that a test sees what
the wire does to packets and not how long a kernel waits until it asks again.

Counts of what was lost, duplicated or displaced stand there once more for UDP packets of each length: `lost udp 108`.

The devices must compute checksums and send no super-frames (`Namespace.switch_offloads_off` on both ends of each
cable): frame sockets would see them unfinished.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from wire import ethernet, ipv4

MILLISECOND_NS = 1_000_000
HOLD_NS = 20 * MILLISECOND_NS
"""A frame that waits for others to overtake it waits no longer than that: there may be no others."""
QUEUED_FRAMES = 10_000
"""Held or delayed in one direction; beyond it frames are lost, as in any queue."""
_BUFFER_BYTES = 16 << 20
_BURST = 64
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23  # linux/if_packet.h
_EVERY_PROTOCOL = 0x0003


@dataclass(frozen=True)
class WireDamage:
    """The damage that the wire does. Shares are of all frames, 0 to 1."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """The share that is overtaken by 1 to `displacement` of the frames behind it."""
    displacement: int = 8
    delay_ms: float = 0.0
    mtu_bytes: int | None = None
    """Longer IP packets vanish without a word."""
    blocked: Sequence[str] = ()
    """Directions: `there`, `back`."""
    blocked_ports: Sequence[int] = ()
    """UDP ports, as source or destination, both ways."""


@dataclass
class Direction:
    """One way through the wire. `take` frames, then see which `leave`; `due_ns` is when to look again."""

    name: str
    seed: int
    damage: WireDamage = field(default_factory=WireDamage)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._rng = random.Random(f"{self.seed} {self.name}")
        self._number = 0  # of frames that were taken
        self._held: list[tuple[int, int, int, bytes]] = []  # (number to wait for, serial, until ns, frame)
        self._delayed: list[tuple[int, int, bytes]] = []  # (due ns, serial, frame)
        self._serial = 0

    def take(self, frame: bytes, now: int) -> None:
        """A frame came."""
        fates = [self._rng.random() for _ in range(3)]
        displacement = self._rng.randrange(1 << 30)
        damage = self.damage
        self._number += 1
        self.counts["frames"] += 1
        if frame[12:14] != ethernet.IPV4_TYPE:
            self._pass(frame, now)
        elif (why := self._reason(frame)) is not None:
            self.counts[why] += 1
        elif fates[0] < damage.loss:
            self._count("lost", frame)
        else:
            copies = 1
            if fates[1] < damage.duplicate:
                self._count("duplicated", frame)
                copies = 2
            for _ in range(copies):
                if fates[2] < damage.reorder:
                    self._count("displaced", frame)
                    self._hold(frame, self._number + 1 + displacement % damage.displacement, now)
                    fates[2] = 1.0  # a copy is not held as well
                else:
                    self._pass(frame, now)
        self._release(now)

    def _count(self, fate: str, frame: bytes) -> None:
        """In all, and UDP packets by their length: who sends datagrams of one size knows how many of his it were."""
        self.counts[fate] += 1
        if frame[ethernet.HEADER_BYTES + 9] == ipv4.UDP:
            self.counts[
                f"{fate} udp {int.from_bytes(frame[ethernet.HEADER_BYTES + 2 : ethernet.HEADER_BYTES + 4])}"
            ] += 1

    def _reason(self, frame: bytes) -> str | None:
        """Why it cannot pass at all."""
        damage = self.damage
        if self.name in damage.blocked:
            return "blocked"
        if damage.mtu_bytes is not None and len(frame) - ethernet.HEADER_BYTES > damage.mtu_bytes:
            return "too_long"
        if damage.blocked_ports and not set(_ports(frame)).isdisjoint(damage.blocked_ports):
            return "blocked"
        return None

    def _hold(self, frame: bytes, number: int, now: int) -> None:
        self._serial += 1
        heapq.heappush(self._held, (number, self._serial, now + HOLD_NS, frame))

    def _release(self, now: int) -> None:
        """Let those go on that were overtaken by enough others, or that waited long enough."""
        while self._held and self._held[0][0] <= self._number:
            self._pass(heapq.heappop(self._held)[3], now)
        if any(held[2] <= now for held in self._held):
            over = [held for held in self._held if held[2] <= now]
            self._held = [held for held in self._held if held[2] > now]
            heapq.heapify(self._held)
            for _, _, _, frame in sorted(over):
                self._pass(frame, now)

    def _pass(self, frame: bytes, now: int) -> None:
        if len(self._delayed) >= QUEUED_FRAMES:
            self.counts["queue_full"] += 1
            return
        self._serial += 1
        heapq.heappush(self._delayed, (now + round(self.damage.delay_ms * MILLISECOND_NS), self._serial, frame))

    def leave(self, now: int) -> Iterator[bytes]:
        """The frames that are due, in their order."""
        self._release(now)
        while self._delayed and self._delayed[0][0] <= now:
            yield heapq.heappop(self._delayed)[2]

    def due_ns(self) -> int | None:
        """When a frame will be due without another one coming."""
        times = [held[2] for held in self._held] + [queued[0] for queued in self._delayed[:1]]
        return min(times, default=None)


def _ports(frame: bytes) -> tuple[int, ...]:
    """Both ports of a UDP packet that is whole or a first fragment."""
    packet = ipv4.parse(frame, ethernet.HEADER_BYTES)
    if not isinstance(packet, ipv4.Packet) or packet.protocol != ipv4.UDP:
        return ()
    at = ethernet.HEADER_BYTES + (frame[ethernet.HEADER_BYTES] & 15) * 4
    return int.from_bytes(frame[at : at + 2], "big"), int.from_bytes(frame[at + 2 : at + 4], "big")


def _open(device: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setblocking(False)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    for forced, plain in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            opened.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
        except PermissionError:  # in a user namespace
            opened.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)
    opened.bind((device, _EVERY_PROTOCOL))
    return opened


class Wire:
    """Both directions and their sockets."""

    def __init__(self, near: str, far: str, seed: int) -> None:
        self._near, self._far = _open(near), _open(far)
        there, back = Direction("there", seed), Direction("back", seed)
        self.directions = (there, back)
        self._from = {
            self._near.fileno(): (self._near, there, self._far),
            self._far.fileno(): (self._far, back, self._near),
        }

    def carry(self, orders: int) -> None:
        """Carry frames, and obey what comes on the descriptor `orders`, until that ends."""
        poll = select.poll()
        for descriptor in (*self._from, orders):
            poll.register(descriptor, select.POLLIN)
        pending = b""
        while True:
            for descriptor, _ in poll.poll(self._wait_ms()):
                if descriptor != orders:
                    source, direction, _ = self._from[descriptor]
                    _read(source, direction)
                    continue
                data = os.read(orders, 1 << 16)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
            now = time.monotonic_ns()
            for _, direction, target in self._from.values():
                for frame in direction.leave(now):
                    _write(target, direction, frame)

    def _wait_ms(self) -> float | None:
        due = [ns for direction in self.directions if (ns := direction.due_ns()) is not None]
        return max(min(due) - time.monotonic_ns(), 0) / MILLISECOND_NS if due else None

    def _obey(self, damage: dict[str, Any] | None) -> None:
        if damage is not None:
            for direction in self.directions:
                direction.damage = WireDamage(**damage)
        print(json.dumps({direction.name: direction.counts for direction in self.directions}), flush=True)


def _read(source: socket.socket, direction: Direction) -> None:
    for _ in range(_BURST):
        try:
            frame = source.recv(1 << 17)
        except BlockingIOError:
            return
        direction.take(frame, time.monotonic_ns())


def _write(target: socket.socket, direction: Direction, frame: bytes) -> None:
    try:
        target.send(frame)
        direction.counts["delivered"] += 1
    except OSError:  # the device is down, its queue is full, or the frame is longer than it takes
        direction.counts["refused"] += 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="trials.cables.damage", description="a bad wire between two devices")
    parser.add_argument("near")
    parser.add_argument("far")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    wire = Wire(options.near, options.far, options.seed)
    print("ready", flush=True)
    wire.carry(sys.stdin.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
