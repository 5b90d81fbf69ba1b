"""Accepting connections with a bound: so many in one turn of the loop, and a pause where none can be had.

A listening socket stays ready as long as anybody waits in its backlog. Where descriptors have run out (EMFILE, ENFILE)
nothing can be accepted, and the loop would turn and turn: it looks away for `PAUSE_S` instead. Who is beyond the bound
of a server is accepted and shown out by the server, so that the backlog is free for others.
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
    """Hands each connection of `listening`, which does not block, to `welcome`, itself not blocking. `what` it is, for
    the log; `tries`: how often nothing could be accepted."""

    def __init__(
        self, loop: Loop, listening: socket.socket, what: str, welcome: Callable[[socket.socket], None]
    ) -> None:
        self._loop = loop
        self._socket = listening
        self._what = what
        self._welcome = welcome
        self._pause: Timer | None = None
        self._quiet_until_ns = 0
        self.tries = 0
        loop.add(listening.fileno(), self._accept)

    def _accept(self, _events: int) -> None:
        for _ in range(MOST_IN_A_TURN):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):  # nobody any more; who comes next wakes us again
                return
            except OSError as error:
                self._look_away(error)
                return
            connection.setblocking(False)
            self._welcome(connection)

    def _look_away(self, error: OSError) -> None:
        self.tries += 1
        now = self._loop.clock()
        if now >= self._quiet_until_ns:
            self._quiet_until_ns = now + TELL_INTERVAL_NS
            log.warning("%s cannot accept for a while: %s", self._what, error.strerror)
        self._loop.remove(self._socket.fileno())
        self._pause = self._loop.call_later(PAUSE_S, self._look_again)

    def _look_again(self) -> None:
        self._pause = None
        self._loop.add(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Listen no more and close the socket."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove(self._socket.fileno())
        self._socket.close()
