"""Compiled code that gets packets as they are, beside its plain twin: cutting, merging, sealing, opening.

Must hold: both cut a consistent super-frame into the same packets, and the compiled one refuses claims that are
not; both merge a burst to the same frames; both seal to the same bytes, and open or refuse the same datagrams, whatever
was done to them.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from trials.fuzz.claims import as_partial
from trials.fuzz.hostile import Failure, Target, goes_on, mutated
from trials.fuzz.targets.flow import REMOTES, packet
from tunnel.primitives import Cipher, TransportKey
from wire import gso, ipv4
from wire.coalesce import coalesce
from wire.gso import GsoHeader

_KEYS = [TransportKey(bytearray(bytes([number]) * 32)) for number in (7, 8)]
_PLAIN = Cipher()
_MTUS = (0, 1, 16, 1280, 1420, 65_535)


@cache
def _compiled() -> Any:
    """(segment, coalesce, cipher), or None where nothing was compiled."""
    try:
        from tunnel.burst import CompiledCipher  # noqa: PLC0415 - it may be missing
        from wire import segments  # noqa: PLC0415
    except ImportError:
        return None
    return segments.segment, segments.coalesce, CompiledCipher()


def _cut(rng: random.Random, segment: Any) -> None:
    protocol = rng.choice((ipv4.TCP, ipv4.UDP))
    size = rng.choice((0, 1, 9, 100, 1400, 3000, 20_000, 65_400))
    data, claims = as_partial(
        packet(protocol, (1, 2, REMOTES[0], 80), rng.randbytes(size), tcp_flags=rng.randrange(256))
    )
    claims = claims._replace(gso_type=gso.GSO_TCPV4 if protocol == ipv4.TCP else gso.GSO_UDP_L4)
    claims = claims._replace(gso_bytes=rng.choice((0, 1, 7, 8, 100, 1400, 65_535)))
    if size > 2000 * claims.gso_bytes:
        claims = claims._replace(gso_bytes=1400)  # as many pieces as bytes take seconds to compare
    if rng.random() < 0.6:
        data = mutated(data, rng)
    if rng.random() < 0.4:
        claims = GsoHeader(
            rng.random() < 0.8,
            rng.randrange(256),
            *(rng.choice((0, 6, 16, 20, 60, rng.randrange(65536))) for _ in range(4)),
        )
    try:
        found = segment(data, claims)
    except ValueError:
        found = None
    read = ipv4.parse(data, 0, claims) if len(data) >= 20 else None
    is_right = isinstance(read, ipv4.Packet) and not read.is_fragment and len(read.data) == len(data)
    if is_right and gso.is_consistent(data, claims) and claims.partial:
        expected = [bytes(piece) for piece in gso.segment(bytearray(data), claims)]
        if found != expected:
            raise Failure(f"cut otherwise: {data.hex()} {claims}")


def _merge(rng: random.Random, merge: Any) -> None:
    packets = []
    sequence = rng.getrandbits(32)
    size = rng.choice((1, 8, 100, 1360))
    for number in range(rng.randrange(1, 12)):
        data = rng.randbytes(size if rng.random() < 0.9 else rng.randrange(size + 1))
        ends = (REMOTES[0], rng.choice((80, 80, 443)), 9, 5000)
        flags = rng.choice((0x10, 0x10, 0x10, 0x18, 0x11))
        whole = packet(
            ipv4.TCP, ends, data, tcp_flags=flags, sequence=sequence & 0xFFFFFFFF, flags=0x4000, identification=number
        )
        sequence += len(data)
        packets.append(mutated(whole, rng) if rng.random() < 0.15 else whole)
    if merge(packets) != coalesce(packets):
        raise Failure(f"merged otherwise: {[one.hex() for one in packets]}")


def _seal(rng: random.Random, cipher: Any) -> None:
    packets = [rng.randbytes(rng.choice((0, 1, 15, 16, 17, 100, 1419, 1420, 1421))) for _ in range(rng.randrange(1, 6))]
    receiver, first = rng.getrandbits(32), rng.choice((0, 255, rng.getrandbits(62)))
    mtu_bytes = rng.choice(_MTUS)
    sealed = cipher.seal_burst(_KEYS[0], receiver, first, packets, mtu_bytes)
    if sealed != _PLAIN.seal_burst(_KEYS[0], receiver, first, packets, mtu_bytes):
        raise Failure("sealed otherwise")
    jobs = []
    for one in sealed:
        data = mutated(one, rng) if rng.random() < 0.4 else one
        if rng.random() < 0.2:
            data = data[: rng.randrange(len(data) + 1)]
        if len(data) >= 32:  # shorter ones are refused before any cipher (`tunnel.messages`)
            jobs.append((rng.choice((_KEYS[0], _KEYS[0], _KEYS[1])), data))
    if cipher.open_burst(jobs) != _PLAIN.open_burst(jobs):
        raise Failure(f"opened otherwise: {[data.hex() for _, data in jobs]}")


def episode(rng: random.Random, most: int) -> int:
    """Packets and datagrams until the generator is spent; nothing where nothing was compiled."""
    found = _compiled()
    if found is None:
        return most
    number = 0
    while goes_on(rng, number, most):
        number += 1
        kind = rng.randrange(3)
        (_cut, _merge, _seal)[kind](rng, found[kind])
    return number


TARGET = Target("pieces", episode, compiled=True)
