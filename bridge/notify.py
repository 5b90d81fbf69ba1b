"""Telling the service manager how far we are (sd_notify(3)): datagrams to the socket that it names, if it does."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


def notify(*states: str) -> None:
    """Send `READY=1` and the like; without a service manager nothing happens, and nothing that goes wrong matters."""
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
