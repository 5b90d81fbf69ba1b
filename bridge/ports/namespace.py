"""Doing something inside another network namespace, and coming back whatever happens.

A device stays in the namespace in which it was made while its descriptor stays ours, so the gateway enters one for the
moment of setting up and never again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bridge.ports.base import PortError


@contextmanager
def entered(netns: str | None) -> Iterator[None]:
    """Run the body in the namespace `netns`: a name as `ip netns` knows it, a path (`/proc/PID/ns/net`), or None to
    stay. Affects the calling thread only. `PortError` where there is no such namespace, or no right to enter it."""
    if netns is None:
        yield
        return
    # 16 MB, which a gateway does without whose ports are all in its own namespace.
    from pyroute2 import netns as pyroute2_netns  # noqa: PLC0415

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            pyroute2_netns.setns(netns, flags=0)
        except FileNotFoundError as error:
            raise PortError(f"there is no network namespace {netns!r}; `ip netns add {netns}` makes one") from error
        except OSError as error:
            raise PortError(f"the network namespace {netns!r} cannot be entered: {error.strerror}") from error
        try:
            yield
        finally:
            pyroute2_netns.setns(home, flags=0)
    finally:
        os.close(home)
