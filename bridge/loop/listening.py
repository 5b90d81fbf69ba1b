"""Accepting connections with bounds: at most `MOST_IN_A_TURN` in one turn of the loop, and a pause after an error.

A listening socket stays ready as long as a connection waits in its backlog. Where descriptors have run out (EMFILE,
ENFILE) nothing can be accepted, and the loop would turn without end: the listener pauses for `PAUSE_S` instead. A
server accepts connections beyond its own bound, too, and closes them, so that the backlog is free for others.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from bridge.loop.loop import Loop, Timer
from wire.units import SECOND_NS

log = logging.getLogger(__name__)

MOST_IN_A_TURN = 4
PAUSE_S = 1.0
TELL_INTERVAL_NS = 60 * SECOND_NS


class Listener:
    """Hands each connection of the socket `listening` to `accepted`. Neither socket blocks. `what` names the listener
    in the log; `tries` counts the times that nothing could be accepted."""

    def __init__(
        self, loop: Loop, listening: socket.socket, what: str, accepted: Callable[[socket.socket], None]
    ) -> None:
        self._loop = loop
        self._socket = listening
        self._what = what
        self._accepted = accepted
        self._pause: Timer | None = None
        self._quiet_until_ns = 0
        self.tries = 0
        loop.add(listening.fileno(), self._accept)

    def _accept(self, _events: int) -> None:
        for _ in range(MOST_IN_A_TURN):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):  # none is left; the next one wakes us again
                return
            except OSError as error:
                self._pause_after(error)
                return
            connection.setblocking(False)
            self._accepted(connection)

    def _pause_after(self, error: OSError) -> None:
        self.tries += 1
        now = self._loop.clock()
        if now >= self._quiet_until_ns:
            self._quiet_until_ns = now + TELL_INTERVAL_NS
            log.warning("%s cannot accept for a while: %s", self._what, error.strerror)
        self._loop.remove(self._socket.fileno())
        self._pause = self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening and close the socket."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove(self._socket.fileno())
        self._socket.close()
