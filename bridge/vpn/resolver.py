"""Host names of endpoints, looked up in threads, so that the loop never waits for a name server."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial

from bridge.config.into_tunnel import address_of
from bridge.loop.affinity import roam
from bridge.loop.loop import Loop

OnResolved = Callable[[Sequence[bytes]], None]
"""Takes addresses of 4 or 16 bytes, the best first (RFC 6724, as the system orders them); none where there is none."""


class HostNames:
    """Looks host names up, one look-up at a time for a host. Look-ups under way do not delay the end.

    The first ones wait for `begin`: a thread would keep the rights of a process that has not given them up yet.
    `with_ipv6`: whether addresses of IPv6 are of any use.
    """

    def __init__(self, loop: Loop, *, with_ipv6: bool = True) -> None:
        self._loop = loop
        self._family = socket.AF_UNSPEC if with_ipv6 else socket.AF_INET
        self._asked: dict[str, list[OnResolved]] = {}
        self._answered: list[tuple[str, list[bytes]]] = []
        self._has_begun = False
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.add(self._event, self._tell)

    def resolve(self, host: str, answer: OnResolved) -> None:
        """Call `answer`, later and in the loop, with the addresses that the system's resolver finds."""
        waiting = self._asked.setdefault(host, [])
        waiting.append(answer)
        if len(waiting) == 1 and self._has_begun:
            self._start(host)

    def begin(self) -> None:
        """Look up the hosts that were asked for until now, and later ones at once."""
        self._has_begun = True
        for host in self._asked:
            self._start(host)

    def _start(self, host: str) -> None:
        threading.Thread(target=partial(self._look_up, host), name=f"name {host}", daemon=True).start()

    def _look_up(self, host: str) -> None:
        roam()
        try:
            found = [entry[4] for entry in socket.getaddrinfo(host, None, self._family, socket.SOCK_DGRAM)]
        except (OSError, UnicodeError):
            found = []
        addresses = [packed for where in found if (packed := address_of(str(where[0]))) is not None]
        self._answered.append((host, list(dict.fromkeys(addresses))))
        try:
            os.eventfd_write(self._event, 1)
        except OSError:
            return  # closed meanwhile

    def _tell(self, _events: int) -> None:
        os.eventfd_read(self._event)
        while self._answered:
            host, addresses = self._answered.pop(0)
            for answer in self._asked.pop(host, ()):
                answer(addresses)

    def close(self) -> None:
        """Forget the look-ups that are under way."""
        event, self._event = self._event, -1
        if event >= 0:
            self._loop.remove(event)
            os.close(event)
