"""Host names of endpoints, looked up in threads, so that the loop never waits for a name server."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from functools import partial

from bridge.loop import Loop

Answer = Callable[[bytes | None], None]


class Resolver:
    """One look-up at a time for a host; the answer comes in the loop. Look-ups under way do not delay the end."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._asked: dict[str, list[Answer]] = {}
        self._answered: list[tuple[str, bytes | None]] = []
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.add(self._event, self._tell)

    def resolve(self, host: str, answer: Answer) -> None:
        """Call `answer` with an IPv4 address, four bytes, or None where there is none."""
        waiting = self._asked.setdefault(host, [])
        waiting.append(answer)
        if len(waiting) == 1:
            threading.Thread(target=partial(self._look_up, host), name=f"name {host}", daemon=True).start()

    def _look_up(self, host: str) -> None:
        try:
            found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_DGRAM)
            address = socket.inet_aton(str(found[0][4][0]))
        except (OSError, UnicodeError, IndexError):
            address = None
        self._answered.append((host, address))
        try:
            os.eventfd_write(self._event, 1)
        except OSError:
            return  # closed meanwhile

    def _tell(self, _events: int) -> None:
        os.eventfd_read(self._event)
        while self._answered:
            host, address = self._answered.pop(0)
            for answer in self._asked.pop(host, ()):
                answer(address)

    def close(self) -> None:
        """Answers that are still to come find nobody."""
        event, self._event = self._event, -1
        if event >= 0:
            self._loop.remove(event)
            os.close(event)
