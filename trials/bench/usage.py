"""CPU seconds and memory of processes and of the machine, and the other programs that were busy: all from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
NOTABLE = 0.02
"""A process that takes less than this share of a core is not named."""


def with_children(pids: Iterable[int]) -> list[int]:
    """Those processes and all that descend from them."""
    found = []
    for pid in pids:
        children = (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()
        found += [pid, *with_children(map(int, children))]
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of processes with all their threads: to the nanosecond where the kernel keeps that for each
    thread (`schedstat`; a thread that ended meanwhile is missing), else to a tick (proc(5), `stat`)."""
    return sum(_process_seconds(pid) for pid in pids)


def resident_bytes(pids: Iterable[int]) -> int:
    """Memory of processes that is in use now, shared pages counted for each."""
    total = 0
    for pid in pids:
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


class Machine(NamedTuple):
    """Of all cores since the start of the machine: seconds in use, and seconds that another machine took from us."""

    busy_s: float
    stolen_s: float


def machine() -> Machine:
    """The first line of /proc/stat."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return Machine((user + nice + system + irq + softirq) / _TICKS, steal / _TICKS)


class Beside(NamedTuple):
    """The load while we did nothing: cores in use, cores taken by other machines, and the busiest processes."""

    cores: float
    stolen: float
    names: list[str]


def beside(seconds: float) -> Beside:
    """Look for that long."""
    began, before, processes = time.monotonic(), machine(), _all_ticks()
    time.sleep(seconds)
    passed_s = time.monotonic() - began
    after = machine()
    names = []
    for pid, ticks in _all_ticks().items():
        share = (ticks - processes.get(pid, ticks)) / _TICKS / passed_s
        if share >= NOTABLE and pid != os.getpid():
            names.append((share, f"{_name(pid)} {share:.2f}"))
    busy, stolen = ((new - old) / passed_s for new, old in zip(after, before, strict=True))
    return Beside(busy, stolen, [name for _, name in sorted(names, reverse=True)[:5]])


def _process_seconds(pid: int) -> float:
    try:
        threads = [int(path.read_text().split()[0]) for path in (_PROC / str(pid) / "task").glob("*/schedstat")]
    except OSError:  # one has just ended
        threads = []
    return sum(threads) / 1e9 if threads else _process_ticks(pid) / _TICKS


def _process_ticks(pid: int) -> int:
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _all_ticks() -> dict[int, int]:
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = _process_ticks(int(entry.name))
            except OSError:  # it has just ended
                continue
    return found


def _name(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "?"
