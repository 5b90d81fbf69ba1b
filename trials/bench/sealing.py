"""Sealing and opening bursts of full packets: plain, compiled, compiled with one helper; and super-frames by lanes.

The ciphers take turns within a round, so that whatever else the machine does meets all of them alike. The gain
that a second thread can give here at all is measured first, by hashing, which needs no interpreter either.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from functools import partial

from bridge.daemon.memory import keep_freed_memory
from bridge.vpn.ciphers import Cores, open_cores
from trials.bench import lanes
from trials.bench.figure import Figure, summary
from tunnel.primitives import TransportKey

PACKET_BYTES = 1420
BURSTS = (64, 256)
_PACKETS = 8192  # a turn
_HASHED = bytes(1 << 22)


def figures(rounds: int) -> list[Figure]:
    """Gbit/s of inner packets, by burst and cipher; with freed memory kept, as the daemon does."""
    keep_freed_memory()
    ciphers = {"plain": open_cores(1, {"TAPBRIDGE_FAST": "0"})}
    for threads in (1, 2):
        cores = open_cores(threads, {})
        if cores.kind == "compiled":
            ciphers[f"compiled, {threads} thread{'s' * (threads > 1)}"] = cores
    try:
        found = [_gain(rounds), *(figure for burst in BURSTS for figure in _turns(ciphers, burst, rounds))]
        return found + (lanes.figures(rounds) if len(ciphers) > 1 else [])
    finally:
        for cores in ciphers.values():
            cores.close()


def _gain(rounds: int) -> Figure:
    def hashed(times: int) -> None:
        for _ in range(times):
            hashlib.sha256(_HASHED).digest()

    def once() -> float:
        started = time.perf_counter()
        hashed(16)
        alone_s = time.perf_counter() - started
        other = threading.Thread(target=hashed, args=(8,))
        started = time.perf_counter()
        other.start()
        hashed(8)
        other.join()
        return alone_s / (time.perf_counter() - started)

    return summary("what a second thread gives here at present, by hashing", "x", [once() for _ in range(rounds)])


def _turns(ciphers: dict[str, Cores], burst: int, rounds: int) -> list[Figure]:
    key = TransportKey(bytearray(os.urandom(32)))
    packets = [os.urandom(PACKET_BYTES) for _ in range(burst)]
    jobs = [(key, sealed) for sealed in ciphers["plain"].seal_burst(key, 1, 0, packets, PACKET_BYTES)]
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, cipher in ciphers.items():
            seal = _rate(burst, partial(cipher.seal_burst, key, 1, 0, packets, PACKET_BYTES))
            open_ = _rate(burst, partial(cipher.open_burst, jobs))
            found.setdefault(("seal", name), []).append(seal)
            found.setdefault(("open", name), []).append(open_)
    return [
        summary(f"{what} {burst} packets of {PACKET_BYTES} bytes, {name}", "Gbit/s", values)
        for (what, name), values in sorted(found.items(), key=lambda item: item[0][0], reverse=True)
    ]


def _rate(burst: int, once: Callable[[], object]) -> float:
    turns = _PACKETS // burst
    started = time.perf_counter()
    for _ in range(turns):
        once()
    return turns * burst * PACKET_BYTES * 8 / (time.perf_counter() - started) / 1e9
