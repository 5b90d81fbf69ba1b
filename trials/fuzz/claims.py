"""Claims that a port may make about a packet beside its bytes: none, true ones, or any (`wire.gso`)."""

from __future__ import annotations

import random
import struct

from wire import gso, ipv4
from wire.checksum import pseudo_header_sum
from wire.gso import GsoHeader


def as_partial(data: bytes, gso_bytes: int = 0) -> tuple[bytes, GsoHeader]:
    """A TCP or UDP packet as a kernel hands it over: with the sum of its pseudo-header alone."""
    is_tcp = data[9] == ipv4.TCP
    source, destination = struct.unpack_from("!II", data, 12)
    pseudo = pseudo_header_sum(source, destination, data[9], len(data) - 20)
    field = 36 if is_tcp else 26
    kind = 0 if not gso_bytes else gso.GSO_TCPV4 if is_tcp else gso.GSO_UDP_L4
    claims = GsoHeader(True, kind, 40 if is_tcp else 28, gso_bytes, 20, field - 20)
    return data[:field] + pseudo.to_bytes(2, "big") + data[field + 2 :], claims


def claims_of(data: bytes, rng: random.Random) -> tuple[bytes, GsoHeader | None]:
    """The port's claims about a packet: mostly none, sometimes true ones, sometimes any."""
    if rng.random() < 0.6 or len(data) < 40:
        return data, None
    if rng.random() < 0.7 and data[9] in (ipv4.TCP, ipv4.UDP):
        return as_partial(data, rng.choice((0, 0, 8, 100, 1400)))
    fields = rng.randrange(256), rng.choice((0, 1, 3, 5, 0x81, rng.randrange(256)))
    numbers = [rng.choice((0, 6, 8, 16, 20, 34, 54, rng.randrange(65536))) for _ in range(4)]
    return data, gso.unpack(gso.HEADER.pack(*fields, *numbers), rng.choice((0, 14)))
