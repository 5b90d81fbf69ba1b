"""Doing something inside another network namespace, and coming back whatever happens.

A device stays in the namespace in which it was made while its descriptor stays ours, so the gateway enters one for the
moment of setting up and never again.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.ports.base import PortError

_NAMED = Path("/var/run/netns")  # where `ip netns` keeps them
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def entered(netns: str | None) -> Iterator[None]:
    """Run the body in the namespace `netns`: a name as `ip netns` knows it, a path (`/proc/PID/ns/net`), or None to
    stay. Affects the calling thread only. `PortError` where there is no such namespace, or no right to enter it."""
    if netns is None:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            there = os.open(_NAMED / netns, os.O_RDONLY | os.O_CLOEXEC)  # a path with a slash in front stays itself
            try:
                _enter(there)
            finally:
                os.close(there)
        except FileNotFoundError as error:
            raise PortError(f"there is no network namespace {netns!r}; `ip netns add {netns}` makes one") from error
        except OSError as error:
            raise PortError(f"the network namespace {netns!r} cannot be entered: {error.strerror}") from error
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def _enter(namespace: int) -> None:
    """setns(2), which `os` has from Python 3.12 on."""
    if _LIBC.setns(namespace, _CLONE_NEWNET) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
