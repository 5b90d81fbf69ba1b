"""The loop's thread stays on one CPU, as long as that CPU has time for it.

Frames lie in the caches of that CPU, and the kernel receives on the same CPU what the thread writes. A thread that
moves leaves packets of one flow in the queues of two CPUs, which hand them over in either order, and TCP takes that for
loss (docs/decisions/0026-one-cpu-for-the-loop.md has the figures).

The kernel cannot move a thread that is held, even if it has to wait for its CPU. So every second `Affinity` reads how
long the thread has waited although it could run. If it waited much, it goes to the next CPU, but only every other time,
so that two gateways do not move together. If no CPU is better, it may roam. Other threads and children are not held:
they call `roam` first.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from bridge.loop.loop import Timer

LOOK_S: Final = 1.0
MOST_WAITING: Final = 0.45
"""A share of the time between two looks."""
ROAMING_S: Final = 30.0

_SCHEDSTAT = Path("/proc/thread-self/schedstat")
_ALLOWED = os.sched_getaffinity(0)


def roam() -> None:
    """Let the calling thread run on every CPU that the process was started with."""
    os.sched_setaffinity(0, _ALLOWED)


def waited_ns() -> int:
    """The time in ns that the calling thread has waited for a CPU since it began (sched-stats.rst: the second
    field)."""
    return int(_SCHEDSTAT.read_text().split()[1])


def first_choice(*, has_lan: bool) -> int:
    """The last CPU for a gateway, the first for an exit node, so that both can run on one machine."""
    return max(_ALLOWED) if has_lan else min(_ALLOWED)


class Clock(Protocol):
    """The loop, as far as `Affinity` needs it."""

    @property
    def clock(self) -> Callable[[], int]:
        """Monotonic ns."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call once, `seconds` from now."""


class Affinity:
    """Holds the thread that calls `hold`, on `cpu` at first. `hold_on`: sets the CPUs of the calling thread."""

    def __init__(
        self,
        loop: Clock,
        cpu: int,
        allowed: frozenset[int] = frozenset(_ALLOWED),
        waited: Callable[[], int] = waited_ns,
        hold_on: Callable[[frozenset[int]], None] = lambda cpus: os.sched_setaffinity(0, cpus),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._loop = loop
        self._allowed = allowed
        self._waited = waited
        self._cpu = cpu
        self._hold_on = hold_on
        self._chance = chance
        self._tried: list[int] = []
        self._before = (0, 0)

    def hold(self) -> None:
        """Stay on the first choice. Nothing is done on a machine with one CPU, or where the kernel does not tell the
        waiting time."""
        try:
            self._before = self._loop.clock(), self._waited()
            if len(self._allowed) > 1:
                self._stay_on(self._cpu)
        except OSError:
            self._hold_on(self._allowed)

    def _stay_on(self, cpu: int) -> None:
        self._tried.append(cpu)
        self._hold_on(frozenset({cpu}))
        self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        now, waited = self._loop.clock(), self._waited()
        elapsed_ns, waiting_ns = now - self._before[0], waited - self._before[1]
        self._before = now, waited
        if waiting_ns <= MOST_WAITING * elapsed_ns:
            del self._tried[:-1]
        elif self._chance() < 0.5:
            others = sorted(self._allowed.difference(self._tried))
            if not others:
                self._tried.clear()
                self._hold_on(self._allowed)
                self._loop.call_later(ROAMING_S, self.hold)
                return
            self._tried.append(others[0])
            self._hold_on(frozenset(others[:1]))
        self._loop.call_later(LOOK_S, self._look)
