"""Messages to the service manager (sd_notify(3)): datagrams to the socket that it names in the environment."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

log = logging.getLogger(__name__)

_BEATS = 3
"""Beats within the time after which the manager takes us for dead."""


def notify(*states: str) -> None:
    """Send `READY=1` and the like. Without a service manager nothing happens; an error is ignored."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        sender.sendto("\n".join(states).encode(), address)


def reloading() -> None:
    """`RELOADING=1` with the clock reading that systemd 253 and later want beside it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


class Alarm(Protocol):
    """The loop, as far as a watchdog needs it."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> object:
        """Call once, `seconds` from now."""


def watchdog_s(environment: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Seconds of silence after which the manager takes us for dead (sd_watchdog_enabled(3)); None where it never
    does."""
    if environment.get("WATCHDOG_PID", "") not in ("", str(os.getpid() if pid is None else pid)):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    microseconds = int(text) if text.isascii() and text.isdigit() else 0
    return microseconds / 1e6 if microseconds else None


class Watchdog:
    """Says `WATCHDOG=1` in time, by a timer of the loop. A loop that does not turn, or waits for its lock, is silent,
    and so is a gateway whose threads hang. `stuck`: the name of a thread that has been at one burst for `within_s`, ""
    for none."""

    def __init__(self, loop: Alarm, within_s: float, stuck: Callable[[float], str] = lambda _within_s: "") -> None:
        self._loop = loop
        self._within_s = within_s
        self._stuck = stuck
        self._beat()

    def _beat(self) -> None:
        self._loop.call_later(self._within_s / _BEATS, self._beat)
        stuck = self._stuck(self._within_s)
        if stuck:
            log.error("%s has not come back from a burst for %g s", stuck, self._within_s)
        else:
            notify("WATCHDOG=1")
