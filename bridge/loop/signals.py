"""Signals as events of the loop: a handler runs between two bursts, never in the middle of a frame."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterable, Mapping

from bridge.loop.loop import Loop


class Signals:
    """The signals `numbers` are caught from construction on, and wait until `deliver` says who handles them."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._loop: Loop | None = None
        self._handlers: Mapping[signal.Signals, Callable[[], None]] = {}
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, lambda *_: None) for number in numbers}

    def deliver(self, loop: Loop, handlers: Mapping[signal.Signals, Callable[[], None]]) -> None:
        """Let the loop call the handler of each signal that has come, or comes from now on. Call it once."""
        self._loop, self._handlers = loop, handlers
        loop.add(self._reader.fileno(), self._wake)

    def _wake(self, _events: int) -> None:
        for number in self._reader.recv(256):
            handler = self._handlers.get(signal.Signals(number))
            if handler is not None:
                handler()

    def close(self) -> None:
        """Restore the handlers of before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before_fd)
        if self._loop is not None:
            self._loop.remove(self._reader.fileno())
        self._reader.close()
        self._writer.close()
