"""Threads that serve ports beside the loop, so that several cores forward.

Only one thread serves a port, so packets of a flow stay in order. Frames that the flow table repeats need neither the
interpreter's lock nor the loop's. A thread walks the other frames itself, under the loop's lock, before it goes on with
its port. A thread ends after its present burst.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Sequence

from bridge.loop.loop import Loop
from bridge.ports.base import Port
from bridge.ports.bursts import Bursts

log = logging.getLogger(__name__)

STOP_S = 1.0


class Workers:
    """`count` threads for `ports`, dealt out in turn. `bursts` makes the mover of frames for one thread."""

    def __init__(self, loop: Loop, ports: Sequence[Port], count: int, bursts: Callable[[], Bursts]) -> None:
        self._loop = loop
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        shares = [ports[first::count] for first in range(min(count, len(ports)))]
        self._since_s: list[float] = [0.0] * len(shares)
        self._threads = [
            threading.Thread(target=self._work, args=(number, share, bursts()), name=f"ports {number + 1}", daemon=True)
            for number, share in enumerate(shares)
        ]

    def start(self) -> None:
        """Start the threads. The process has given up its rights before, because a thread keeps the rights of its
        maker."""
        for thread in self._threads:
            thread.start()

    def stuck(self, within_s: float) -> str:
        """The name of a thread that has been at one burst for longer than `within_s`, "" where there is none."""
        before = time.monotonic() - within_s
        for thread, since in zip(self._threads, list(self._since_s), strict=True):
            if 0 < since < before:
                return thread.name
        return ""

    def _work(self, number: int, ports: Sequence[Port], bursts: Bursts) -> None:
        since_s = self._since_s
        by_descriptor = {port.fileno(): port for port in ports}
        poll = select.poll()
        for descriptor in (self._stop, *by_descriptor):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._stop:
                    return
                since_s[number] = time.monotonic()
                if not self._loop.serve(by_descriptor[descriptor], bursts):
                    poll.unregister(descriptor)
                since_s[number] = 0.0

    def close(self) -> None:
        """End all threads; a second call does nothing."""
        if self._stop < 0:
            return
        os.eventfd_write(self._stop, 1)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(STOP_S)
                if thread.is_alive():
                    log.warning("%s does not end", thread.name)
        os.close(self._stop)
        self._stop = -1
