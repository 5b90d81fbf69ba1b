"""The messages of the gateway to its helper; there are no others. Text that is longer than a message, or than an
argument of a program, goes as a file in memory.

They stand apart from `order.py`, because the warden needs them and must not pay for what an order imports.
"""

from __future__ import annotations

import os

ORDER = b"order"
"""To the maker, once, with a descriptor of a file that holds a `bridge.privsep.order.Order`."""

OPEN = b"open "
"""To the warden, with a path, and a descriptor of a socket for the answer: a descriptor, or the number of an error."""

ENDPOINTS = b"endpoints "
"""To the warden, with IPv4 addresses of 4 bytes each: the tunnel's endpoints, which need a route beside tun0."""

END = b"end"
"""To either: remove the files that you have to remove, and end."""


JOINED = b"joined "
"""From the warden, with a port's name: its device is in its bridge again, or another port of the bridge has a carrier
again. The network behind it may be another one."""


def as_file(text: bytes) -> int:
    """A descriptor of a file in memory that holds `text`, for `read_back` in another process."""
    descriptor = os.memfd_create("tapbridge")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text)
    return descriptor


def read_back(descriptor: int) -> bytes:
    """The text of such a file; its descriptor is closed."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()
