"""The messages of the gateway to its companion and warden: there are no others. What is longer than a message, or than
an argument of a program, goes as a file in memory."""

from __future__ import annotations

import os

ORDER = b"order"
"""With a descriptor of a file: `bridge.privsep.order.Order`, to the companion, once."""

OPEN = b"open "
"""With a path, and a descriptor of a socket on which the answer goes: a descriptor, or the number of an error."""

END = b"end"
"""Remove what is yours to remove, and end."""


JOINED = b"joined "
"""From the warden, with a port's name: its device is in its bridge again, or another port of the bridge has a carrier
again. The network behind it may be another one."""


def as_file(text: bytes) -> int:
    """A descriptor of a file in memory that holds it, for `read_back` in another process."""
    descriptor = os.memfd_create("tapbridge")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text)
    return descriptor


def read_back(descriptor: int) -> bytes:
    """What such a file holds; it is closed."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()
