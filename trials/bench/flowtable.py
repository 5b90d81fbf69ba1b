"""Look-ups in the compiled flow table, at three sizes: from the cache's to far beyond it."""

from __future__ import annotations

import random
import time

from flow.table import REPEAT
from trials.bench.figure import Figure, summary
from wire import ipv4
from wire.units import SECOND_NS

try:
    from flow.fast import CompiledTable
except ImportError:
    CompiledTable = None  # type: ignore[assignment,misc]  # a stub cannot say that a module may be missing

SIZES = (1_000, 65_000, 1_000_000)
_LOOKED_UP = 500_000  # each entry about as often as any other, in no order
_TIMES = 4
_REMOTE, _REMOTE_PORT = 0xCB007105, 443
_INSIDE, _OUTSIDE = 0xC0A80000, 0xC0A80102


def figures(rounds: int) -> list[Figure]:
    """Million look-ups a second, one thread; none where the table is not compiled."""
    return [_look_ups(entries, rounds) for entries in SIZES] if is_there() else []


def is_there() -> bool:
    """Whether the table was compiled here."""
    return CompiledTable is not None


def _look_ups(entries: int, rounds: int) -> Figure:
    table = CompiledTable(2 * entries, 1)
    keys = []
    for number in range(entries):
        source, port = _INSIDE + (number >> 16), number & 0xFFFF
        before = source, port, _REMOTE, _REMOTE_PORT
        table.learn(0, 1, ipv4.UDP, before, (_OUTSIDE, port, _REMOTE, _REMOTE_PORT), 64, 0, REPEAT, SECOND_NS)
        keys.append(
            source.to_bytes(4, "big")
            + _REMOTE.to_bytes(4, "big")
            + port.to_bytes(2, "big")
            + _REMOTE_PORT.to_bytes(2, "big")
            + bytes((0, 0, 0, ipv4.UDP))
        )
    asked = b"".join(random.Random(entries).choices(keys, k=_LOOKED_UP))
    values = []
    for _ in range(rounds):
        started = time.perf_counter()
        found = sum(table.found(asked) for _ in range(_TIMES))
        values.append(_TIMES * _LOOKED_UP / (time.perf_counter() - started) / 1e6)
        assert found == _TIMES * _LOOKED_UP, f"{found} of {_TIMES * _LOOKED_UP} keys were found"
    return summary(f"flow table, look-ups at {entries:,} entries", "M/s", values)._replace(key=f"look_ups_{entries}")
