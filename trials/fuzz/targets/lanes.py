"""Datagrams of a peer, honest and spoiled, into the compiled lanes and into a tunnel without any.

`trials.fuzz.lane_world` is the pair of ends. Must hold: both give the same packets in the order of each flow,
count the same drops, answer the same, and keep the same windows and timers; what leaves by a lane is what the far end
opens; with a flow table in between nothing breaks, and every frame that comes out at the device is one.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from trials.fuzz import rules
from trials.fuzz.choices import is_spent
from trials.fuzz.claims import claims_of
from trials.fuzz.hostile import Failure, Target, mutated
from trials.fuzz.targets.flow import HOST, REMOTES, FlowPair, packet
from trials.fuzz.targets.frames import repaired
from tunnel.effects import Datagram, Received
from wire import ipv4
from wire.gso import GsoHeader, is_consistent, segment

if TYPE_CHECKING:
    from trials.fuzz.lane_world import LaneWorld

MOST_STEPS = 24


def _inner(rng: random.Random, number: int) -> bytes:
    """A packet as the far end may seal it."""
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.choice((1, 19, 20, 60))) or b"\0"
    protocol = rng.choice((ipv4.TCP, ipv4.TCP, ipv4.UDP, ipv4.ICMP))
    far = 0 if protocol == ipv4.ICMP else 5000
    ends: FlowPair = (REMOTES[0], 443, HOST, far)
    size = rng.choice((0, 1, 40, 1200, 1200, 1380))
    data = packet(
        protocol,
        ends,
        bytes([number & 0xFF]) * size,
        sequence=number * size,
        flags=0x4000,
        tcp_flags=rng.choice((16, 16, 24, 17)),
    )
    # Numbered: of equal identifications merging keeps the first, and cutting counts up from it.
    data = repaired(data[:4] + (number & 0xFFFF).to_bytes(2, "big") + data[6:])
    return (mutated(data, rng) or b"\0") if kind < 0.3 else data


def _incoming(world: LaneWorld, rng: random.Random, recorded: list[Datagram], number: int) -> None:
    """A burst of the far end, parts of it spoiled, repeated, or held back for later."""
    burst = world.seal(*(_inner(rng, number * 8 + at) for at in range(rng.randrange(1, 8))))
    recorded += burst
    del recorded[:-64]
    came: list[Datagram] = []
    for one in burst:
        fate = rng.random()
        if fate < 0.1:
            continue
        if fate < 0.3:
            spoiled = mutated(rng.choice((one, rng.choice(recorded))).data, rng)[:1500]
            came.append(one._replace(data=spoiled or b"\4"))
        if fate < 0.4:
            came.append(rng.choice(recorded)._replace(tos=rng.randrange(4)))
        if not 0.2 < fate < 0.3:
            came.append(one)
    if came:
        world.carry(came, by=world.third if rng.random() < 0.05 else None)


def _outgoing(world: LaneWorld, rng: random.Random, read: Any) -> None:
    """A packet of the host, a super-frame maybe, with claims that are true or not."""
    read(world.far_socket)  # what crossed from lane to lane before
    protocol = rng.choice((ipv4.TCP, ipv4.UDP))
    size = rng.choice((0, 1, 100, 1300, 4000, 30_000))
    data, claims = claims_of(packet(protocol, (HOST, 5000, REMOTES[0], 80), rng.randbytes(size), flags=0x4000), rng)
    if rng.random() < 0.3:
        data = mutated(data, rng)
    if claims is not None and claims.checksum_start < 0:
        claims = None  # the walk drops such a packet (`bridge.walk.martians.claims_hold`)
    taken = world.lanes.write(3, data, claims, world.now)
    for peer, size_bytes in world.peer_lanes.send():
        world.near.lane_sealed(peer, size_bytes, world.now)
    received = read(world.far_socket)
    opened = world.far.receive([Received(one.data, world.home, one.ecn) for one in received], world.now)
    packets = [inner for _, inner in opened.packets]
    if taken and _is_whole(data) and (claims is None or (claims.partial and is_consistent(data, claims))):
        expected = [bytes(piece) for piece in segment(bytearray(data), claims)] if claims is not None else [data]
        left_over = iter(expected)  # of thousands of tiny ones the far end's queue may lose some
        if not all(inner in left_over for inner in packets):
            raise Failure(f"left otherwise: {data.hex()} {claims}")
    world.near_socket.ready()


def _is_whole(data: bytes) -> bool:
    found = rules.headers(data)
    return found is not None and found.total == len(data) and found.sum_is_right


def episode(rng: random.Random, most: int) -> int:
    """A session and what passes by it; nothing where nothing was compiled."""
    try:
        from trials.fuzz.lane_world import TUN0, VPN, LaneWorld, left  # noqa: PLC0415 - it may be missing
    except ImportError:
        return most
    number = 0
    recorded: list[Datagram] = []
    with ExitStack() as stack:
        world = LaneWorld(stack)
        device = world.repeat(stack) if rng.random() < 0.4 else None
        if device is not None:
            world.learn((REMOTES[0], 443, HOST, 5000), ipv4.TCP)
            world.learn((REMOTES[0], 443, HOST, 5000), ipv4.UDP, VPN, rng.choice((TUN0, VPN)))
        is_one_way = True
        while number < min(most, MOST_STEPS) and not is_spent(rng):
            number += 1
            world.now += rng.choice((0, 1000, 1_000_000, 1_000_000_000))
            if rng.random() < 0.75:
                _incoming(world, rng, recorded, number)
            else:
                is_one_way = False
                _outgoing(world, rng, _read)
            if device is not None:
                for frame, gso in left(device):
                    _look_at(frame, gso)
        if device is None and is_one_way:
            world.agree()
    return number


def _read(near: Any) -> list[Received]:
    found: list[Received] = []
    while batch := near.read_burst(1 << 16):
        found += batch
    return found


def _look_at(frame: bytes, gso: GsoHeader | None) -> None:
    found = rules.headers(frame)
    if found is None or found.total != len(frame):
        raise Failure(f"no packet at the device: {frame[:60].hex()} {gso}")


TARGET = Target("lanes", episode, compiled=True)
